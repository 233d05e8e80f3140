/* The log: appending frames.
 *
 * Under `lock` (the producers' lock):
 *   A1  t = tail. Is there room for the frames and the stub behind them? If not by the cached `limit`,
 *       look at the groups again: limit = the least `acked` of all gating groups             SYNC release
 *   A2  what will be overwritten is given up first: oldest = ..., then a release fence       SYNC lap
 *   A3  the frames' bytes at t, and the stub at t + bytes: the next header, with its sequence
 *   A4  tail = t + bytes, one release store: the only commit point                           SYNC commit
 *   A5  unlock, wake whoever waits for frames                                                SYNC lock, arm
 *
 * A death in A1..A3 leaves nothing visible: [tail, ...) is nobody's, the next producer writes over it. The
 * stub at `tail` still has the right sequence, for A3 writes the same number there. `oldest` may have moved
 * on: only frames which every gating group has acked. A death in A4..A5: the message is in; a sleeper sees it
 * a slice later at worst. So there is nothing to repair but to wake everybody.
 *
 * `known_tail`, `known_sequence`: the number in the stub at `known_tail`; if that is not `tail` (a death in
 * A4), the stub itself is read. `limit` and `limit_sequence` are caches of words that only grow: old values
 * are safe, they only say "full" early.
 */
#ifndef RP_LOG_H
#define RP_LOG_H

#include "lock.h"

static inline rp_frame *rp_frame_at(const rp_log *log, uint64_t position) {
    return (rp_frame *)(log->ring + ((position - log->base) & log->mask));
}

/* Read once, so that the value that was checked is the value that is used. */
#define rp_read_once(lvalue)         __atomic_load_n(&(lvalue), __ATOMIC_RELAXED)
#define rp_write_once(lvalue, value) __atomic_store_n(&(lvalue), (value), __ATOMIC_RELAXED)

/* Can [position, tail) be frames of this log? */
static inline bool rp_sane_range(const rp_log *log, uint64_t position, uint64_t tail) {
    return position % RP_ALIGN == 0 && tail % RP_ALIGN == 0 &&
           tail - position <= log->geometry.ring_size - RP_STUB;
}

/* Padded size of the frame at `position`, or 0 if no such frame can be before `end`. */
static inline uint64_t rp_frame_span(const rp_log *log, uint64_t position, uint64_t end) {
    uint32_t size = rp_read_once(rp_frame_at(log, position)->size);
    uint64_t span = rp_align(size);
    return size >= sizeof(rp_frame) && span <= end - position ? span : 0;
}

/* The largest inline frame: header, payload. */
#define RP_FRAME_MAX (sizeof(rp_frame) + RP_INLINE_MAX)

/* The least `acked` of all gating groups, `tail` without any: frames below it are done with. */
uint64_t rp_least_acked(rp_log *log);

/* A position and the sequence of the frame there, of the tail or of group 0's next frame. Consistent with
 * one another; RP_CORRUPT if they cannot be. */
rp_status rp_progress(rp_log *log, uint64_t *read, uint64_t *read_sequence, uint64_t *tail,
                      uint64_t *tail_sequence);

rp_status rp_try_put_with(rp_log *log, const rp_message *message, rp_wait *wait);
rp_status rp_try_put_descriptor(rp_log *log, const rp_frame *frame, const rp_descriptor *descriptor,
                                bool beyond, rp_wait *wait);
/* Release what a consumer that died in T4 (group.h) has taken but not released. True: there may be room. */
bool rp_repair_groups(rp_log *log);
/* Give up history as far as the next large frame that every group has acked, for the pool's sake: RP_OK. RP_FULL:
 * there is none. RP_BUSY. */
rp_status rp_drop_history(rp_log *log, rp_wait *wait);
/* Wait for what made a put fail: the lock, or room. */
rp_status rp_wait_for_room(rp_log *log, rp_status why, rp_wait *wait);

#endif
