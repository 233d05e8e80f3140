/* Several logs as one queue: its levels are logs of their own, and the first one has what they share.
 *
 *   send to a level                                  wait for any of them
 *     commit there                                     heard = the bell's count; arm it              SYNC arm
 *     rp_bell_ring: full fence           SYNC arm      try each level: nothing
 *     armed? count it, wake everybody                  rp_bell_wait(heard): sleep unless it was rung
 *
 * As in wait.h, either the sender sees the bit, or the waiter's tries see the message. A sender that dies
 * before it rings delays the others by a slice.
 *
 * A level is added before anything is put into it: make its log, then rp_add_level, then look whether the
 * first one was shut down meanwhile, and shut the level down, too. Who shuts down looks for levels after it
 * has shut the first: one of the two sees the other. */
#include <limits.h>

#include "segment.h"
#include "wait.h"

uint32_t rp_levels(rp_log *log) {
    rp_fence_full(level);
    return rp_load_acquire(level, &log->head->levels);
}

void rp_add_level(rp_log *log, uint32_t level) {
    rp_or_release(level, &log->head->levels, UINT32_C(1) << level % 32);
    rp_fence_full(level);
}

uint32_t rp_bell_listen(rp_log *log) {
    uint32_t heard = rp_load_acquire(event, &log->head->events[RP_EVENT_BELL].count);
    rp_or_relaxed(&log->head->armed[0], UINT64_C(1) << RP_EVENT_BELL);
    rp_fence_full(arm);
    return heard;
}

rp_status rp_bell_wait(rp_log *log, uint32_t heard, int64_t deadline) {
    rp_wait wait = rp_wait_until(deadline);
    wait.snapshot = heard;
    wait.armed = true;
    return rp_event_wait(log, RP_EVENT_BELL, &wait, NULL, NULL);
}

void rp_bell_ring(rp_log *log) {
    rp_fence_full(arm);
    if (rp_unlikely(rp_load_relaxed(&log->head->armed[0]) & (UINT64_C(1) << RP_EVENT_BELL)))
        rp_event_fire(log, RP_EVENT_BELL, INT_MAX);
}
