/* Sleeping and waking: futexes, and events (an eventcount for each thing to wait for).
 *
 *   wait                                             wake (after the store that matters)
 *     try: nothing there                               full fence                            SYNC arm
 *     spin a short, bounded while                      bit not in `armed`? done: no system call
 *     s = event                        SYNC event      clear the bit
 *     armed |= bit; full fence         SYNC arm        event += 1                            SYNC event
 *     try again: still nothing                         futex_wake(event, n)
 *     futex_wait(event, s), one slice
 *     woken: armed |= bit, for the others
 *     try; if it got something and woken: the baton: event += 1, futex_wake(event, 1)
 *
 * Either the waker sees the bit, or the waiter's second try sees the store: the two full fences allow no
 * third way. The waker may have cleared the bit for several sleepers, so each woken one arms it again, and
 * passes the wake-up on if there is more to take.
 *
 * `armed` holds flags, not counts: a waiter that dies leaves a flag, which costs one futex_wake. A waker that
 * dies (or is stopped) between its store and futex_wake, or a woken one with the baton, leaves sleepers:
 * their slice (at most 100 ms) ends and they try again. Without either no slice is needed.
 */
#ifndef RP_WAIT_H
#define RP_WAIT_H

#include "segment.h"

/* One waiting call: private to its thread. */
typedef struct rp_wait {
    int64_t deadline;      /* what the caller asked for */
    int64_t lock_deadline; /* 0 = not needed yet */
    int64_t lock_slice;    /* ns */
    int64_t slice;         /* ns, for events; 0 = the usual */
    int64_t started;       /* first sleep; 0 = none yet */
    uint32_t snapshot;     /* of the event */
    uint32_t told;         /* of the log, when the snapshot was taken */
    bool lock_slept;       /* others may sleep on the lock too */
    bool armed;            /* snapshot taken, bit set: the next failed try sleeps */
    bool woken;            /* we hold the baton */
} rp_wait;

static inline rp_wait rp_wait_until(int64_t deadline) { return (rp_wait){.deadline = deadline}; }

/* A call that must not wait may still meet a lock whose holder was descheduled: it gets this long. */
#define RP_LOCK_GRACE INT64_C(1000000000)

/* Has this call slept long enough to let its caller look around? */
bool rp_slice_is_over(rp_wait *wait, int64_t now);
int64_t rp_time_left(const rp_wait *wait);
int64_t rp_lock_time_left(rp_wait *wait);

/* 0, EINTR, ETIMEDOUT or EAGAIN. `timeout` in ns. */
int rp_futex_wait(rp_u32 *word, uint32_t expected, int64_t timeout);
void rp_futex_wake(rp_u32 *word, int count);

typedef bool rp_changed(rp_log *log, const void *what);

/* Between a failed try and the next one. RP_OK: try again. RP_INTERRUPTED. RP_EMPTY: the deadline passed.
 * `event` is RP_EVENT_* or RP_LOG_EVENTS + group. `changed` is asked while spinning. */
rp_status rp_event_wait(rp_log *log, uint32_t event, rp_wait *wait, rp_changed *changed, const void *what);
/* Leaving with success or without: pass on a wake-up that others may need. */
void rp_event_leave(rp_log *log, uint32_t event, rp_wait *wait);

void rp_event_fire(rp_log *log, uint32_t event, int count);
/* CLOCK_REALTIME, good to a few ms. */
uint64_t rp_wall_clock_ns(void);
/* Was the file removed underneath? Looks once a second; those who wait look whenever a slice is over. If so, the log is
 * marked as deleted for everybody. */
#define RP_LOOK_EVERY UINT64_C(1000000000)
bool rp_look_for_removal(rp_log *log);
static inline bool rp_is_found_removed(rp_log *log, uint64_t now) {
    return rp_unlikely(now - rp_load_relaxed(&log->looked) >= RP_LOOK_EVERY) && rp_look_for_removal(log);
}
void rp_wake_everybody(rp_head *head, rp_group *groups, uint32_t group_count);
void rp_fire_groups(rp_log *log, uint64_t low, uint64_t high, int count);

#define RP_LOG_EVENT_BITS ((UINT64_C(1) << RP_LOG_EVENTS) - 1)

/* Wake whoever waits for frames. Comes right after the unlock that followed the commit. */
static inline void rp_signal_frames(rp_log *log, int count) {
    rp_fence_full_after_rmw(arm);
    uint64_t low = rp_load_relaxed(&log->head->armed[0]) & ~RP_LOG_EVENT_BITS;
    uint64_t high = rp_load_relaxed(&log->head->armed[1]);
    if (rp_unlikely(low | high)) rp_fire_groups(log, low, high, count);
}

/* Wake whoever waits for `event` of the log. Comes right after an atomic read-modify-write. */
static inline void rp_signal(rp_log *log, uint32_t event, int count) {
    rp_fence_full_after_rmw(arm);
    if (rp_unlikely(rp_load_relaxed(&log->head->armed[0]) & (UINT64_C(1) << event)))
        rp_event_fire(log, event, count);
}

uint32_t rp_spin_start(void);

#endif
