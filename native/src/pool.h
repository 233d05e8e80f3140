/* The pool: runs of 8 KiB granules for payloads above RP_INLINE_MAX and for loans, filled outside every lock.
 *
 * chunks[i] of a run's first granule describes the run: state(2) | length in granules(31) | owner(31), and
 * the position of the frame that published it. Entries inside a run are no heads (pin.h uses some), so the table is a chain of
 * heads: 0, 0 + length, ... Every change is ONE store (or CAS) of a head's word; whatever moves heads, and
 * `pool_next`, happens under `pool_lock`:
 *
 *   split    the rest's head first (it lies inside the run: nobody looks), then the shorter head
 *   join     two free neighbours: one store of the longer length
 *   lend     FREE -> LOANED(owner)
 *   publish  LOANED -> PUBLISHED(owner), its position before that
 *   free     -> FREE
 *
 * so a death anywhere leaves a whole chain. What the dead leave is taken back when room is short:
 *   LOANED by a dead owner                    never published, or its commit did not happen
 *   PUBLISHED, position below the limit       every group has acked that frame (or another frame took that
 *                                             position, because the publisher died before its commit)
 *   PUBLISHED by a dead owner, position >= tail   its commit never happened, and never will
 * In the last case the owner is found dead BEFORE `tail` is read: the dead store nothing more.
 */
#ifndef RP_POOL_H
#define RP_POOL_H

#include "lock.h"

#define RP_CHUNK_FREE      0u
#define RP_CHUNK_LOANED    1u
#define RP_CHUNK_PUBLISHED 2u

static inline uint64_t rp_chunk_word(uint32_t state, uint32_t length, uint32_t owner) {
    return (uint64_t)state << 62 | (uint64_t)length << 31 | owner;
}

static inline uint32_t rp_chunk_state(uint64_t word) { return (uint32_t)(word >> 62); }
static inline uint32_t rp_chunk_length(uint64_t word) { return (uint32_t)(word >> 31) & 0x7fffffffu; }
static inline uint32_t rp_chunk_owner(uint64_t word) { return (uint32_t)word & 0x7fffffffu; }

/* The run belongs to the frame at `position` from now on. False if it is not on loan to this process. */
bool rp_pool_publish(rp_log *log, const rp_descriptor *descriptor, uint64_t position);
/* Free the run which the frame at `position` published, while some group's `acked` keeps reclaim away. */
void rp_pool_release(rp_log *log, uint32_t first, uint64_t position);
/* Does the run still belong to the frame at `position`? Asked after copying its payload without holding it. */
bool rp_pool_is_of(const rp_log *log, uint32_t first, uint64_t position);
/* Is [first, first + granules) in the pool, and `length` bytes of it? */
bool rp_pool_holds(const rp_log *log, const rp_descriptor *descriptor);
uint64_t rp_pool_used(rp_log *log);

#endif
