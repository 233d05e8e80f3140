/* Groups: named cursors on the log, each shared by any number of competing consumers.
 *
 * Taking, under the group's `lock`:
 *   T1  p = read; t = tail (cached in `seen`, so that a group which is behind does not touch the
 *       producers' line)                                                                   SYNC commit
 *   T2  find the end q of the frames that go; each size is read once and checked against t
 *   T3  copy [p, q) out; a large frame's payload from the pool too
 *   T4  read = q; a large frame's run of the pool is freed, unless another group wants it; acked = q
 *       (a release store: our reads are over)                                              SYNC release
 *   T5  unlock; wake producers that wait for room                                          SYNC arm
 *
 * A death in T1..T3 loses nothing: `read` did not move. In T4 after the first store: acked < read with no
 * lease in between; the next locker sets acked = read, and a run that is still published below `acked` is
 * reclaimed. In T5: a producer's slice ends. From `read`'s store on, the frames belong to the taker and die
 * with it.
 *
 * The copy is examined again in private memory before anybody trusts a length in it.
 */
#ifndef RP_GROUP_H
#define RP_GROUP_H

#include "log.h"

/* Walk committed frames from `from` on: at most `limit` frames and `size` bytes. RP_OK with *end and *count;
 * RP_TOO_SMALL (*need) or RP_LARGE if the first one does not fit or lies in the pool; RP_CORRUPT. */
typedef struct rp_walk {
    uint64_t end;
    uint32_t count;
    uint64_t need;
} rp_walk;

rp_status rp_walk_frames(const rp_log *log, uint64_t from, uint64_t tail, uint64_t size, uint32_t limit,
                         rp_walk *out);
/* Under the group's lock, whose last holder died, perhaps between the two stores of T4. */
void rp_release_taken(rp_group *group);
/* Are the `bytes` at `frames`, private memory, `count` whole frames whose parts fit into them? */
bool rp_check_frames(const void *frames, uint64_t bytes, uint32_t count);
/* Copy the header and the descriptor of the large frame at `position`, and check them. */
rp_status rp_read_descriptor(const rp_log *log, uint64_t position, rp_frame *frame,
                             rp_descriptor *descriptor);

#endif
