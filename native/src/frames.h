/* Reading committed frames. What is copied out is examined again in private memory before anybody trusts a
 * length in it: other processes can write to the ring.
 */
#ifndef RP_FRAMES_H
#define RP_FRAMES_H

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
/* Are the `bytes` at `frames`, private memory, `count` whole frames whose parts fit into them? */
bool rp_check_frames(const void *frames, uint64_t bytes, uint32_t count);
/* Is this copy, private memory of `span` bytes, a whole frame, its payload here or in the pool? */
bool rp_check_frame(const rp_log *log, const rp_frame *frame, uint64_t span);
/* Copy the header and the descriptor of the large frame at `position`, and check them. */
rp_status rp_read_descriptor(const rp_log *log, uint64_t position, rp_frame *frame,
                             rp_descriptor *descriptor);

#endif
