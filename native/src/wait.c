#include "wait.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "liveness.h"
#include "watch.h"

#define SLICE       INT64_C(100000000) /* the most that a wake-up lost in a death can delay anybody, ns */
#define MOST_SPIN   50000u             /* ns */
#define LEAST_SPIN  1000u
#define SHORT_SLEEP INT64_C(100000) /* a sleep that a longer spin would have spared, ns */
#define PAUSES      24              /* between two looks at the clock and at other runnable threads */

int64_t rp_monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t rp_time_left(const rp_wait *wait) {
    if (wait->deadline == RP_NEVER) return RP_NEVER;
    if (wait->deadline <= RP_NOW) return 0;
    return wait->deadline - rp_monotonic_ns();
}

bool rp_slice_is_over(rp_wait *wait, int64_t now) {
    if (wait->started == 0) wait->started = now;
    return now - wait->started >= SLICE;
}

int64_t rp_lock_time_left(rp_wait *wait) {
    if (wait->deadline == RP_NEVER) return RP_NEVER;
    int64_t now = rp_monotonic_ns();
    if (wait->lock_deadline == 0) {
        if (wait->deadline == RP_NOW)
            wait->lock_deadline = now + RP_LOCK_GRACE;
        else if (wait->deadline < RP_NOW)
            wait->lock_deadline = -wait->deadline;
        else
            wait->lock_deadline = wait->deadline;
    }
    return wait->lock_deadline - now;
}

/* ---- futex ---------------------------------------------------------------------------------- */

int rp_futex_wait(rp_u32 *word, uint32_t expected, int64_t timeout) {
    struct timespec span = {.tv_sec = timeout / 1000000000, .tv_nsec = timeout % 1000000000};
    int saved = errno;
    long result = syscall(SYS_futex, word, FUTEX_WAIT, expected, &span, NULL, 0);
    int error = result == 0 ? 0 : errno;
    errno = saved;
    return error;
}

void rp_futex_wake(rp_u32 *word, int count) {
    int saved = errno;
    syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
    errno = saved;
}

/* ---- events --------------------------------------------------------------------------------- */

static rp_event *event_of(rp_log *log, uint32_t event) {
    return event < RP_LOG_EVENTS ? &log->head->events[event] : &log->groups[event - RP_LOG_EVENTS].event;
}

static void arm(rp_log *log, uint32_t event) {
    rp_or_relaxed(&log->head->armed[event / 64], UINT64_C(1) << event % 64);
    rp_fence_full(arm);
}

static void fire(rp_event *event, int count) {
    rp_add_release(event, &event->count, 1);
    rp_futex_wake(&event->count, count);
}

/* True: who watches must be told, too. */
static bool fire_armed(rp_log *log, uint32_t event, int count) {
    uint64_t bit = UINT64_C(1) << event % 64;
    if (!(rp_and_acq_rel(arm, &log->head->armed[event / 64], ~bit) & bit)) return false;
    fire(event_of(log, event), count);
    return rp_watch_disarm(log, event);
}

void rp_event_fire(rp_log *log, uint32_t event, int count) {
    if (fire_armed(log, event, count)) rp_watch_tell(log);
}

static bool fire_groups(rp_log *log, uint64_t bits, uint32_t first, int count) {
    bool tell = false;
    for (; bits; bits &= bits - 1) {
        uint32_t event = first + (uint32_t)__builtin_ctzll(bits);
        if (event < RP_LOG_EVENTS + log->geometry.group_count) tell |= fire_armed(log, event, count);
    }
    return tell;
}

void rp_fire_groups(rp_log *log, uint64_t low, uint64_t high, int count) {
    bool tell = fire_groups(log, low, 0, count);
    tell |= fire_groups(log, high, 64, count);
    if (tell) rp_watch_tell(log); /* once, however many groups */
}

void rp_wake_everybody(rp_head *head, rp_group *groups, uint32_t group_count) {
    for (uint32_t i = 0; i < RP_LOG_EVENTS; i++) fire(&head->events[i], INT_MAX);
    for (uint32_t i = 0; i < group_count; i++) fire(&groups[i].event, INT_MAX);
}

uint64_t rp_wall_clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

bool rp_look_for_removal(rp_log *log) {
    rp_store_relaxed(&log->looked, rp_wall_clock_ns());
    if (!rp_is_removed(log)) return false;
    if (!(rp_or_release(state, &log->head->state, RP_STATE_DELETED) & RP_STATE_DELETED)) rp_wake_all(log);
    return true;
}

void rp_wake_all(rp_log *log) {
    rp_add_relaxed(&log->told, 1);
    rp_wake_everybody(log->head, log->groups, log->geometry.group_count);
    if (rp_load_relaxed(&log->head->watched[0]) | rp_load_relaxed(&log->head->watched[1])) rp_watch_tell(log);
}

/* ---- alarm ---------------------------------------------------------------------------------- */

void rp_set_alarm(rp_log *log, uint64_t when_ns) {
    uint64_t before = rp_swap_relaxed(&log->head->alarm_ns, when_ns);
    if (when_ns && (before == 0 || when_ns < before)) rp_wake_all(log); /* they sleep for too long */
}

uint64_t rp_alarm(rp_log *log) { return rp_load_relaxed(&log->head->alarm_ns); }

bool rp_alarm_rings(rp_log *log) {
    uint64_t when = rp_load_relaxed(&log->head->alarm_ns);
    return rp_unlikely(when != 0) && when <= rp_wall_clock_ns();
}

/* Sleep no longer than until then. */
static int64_t until_alarm(rp_log *log, int64_t slice) {
    uint64_t when = rp_load_relaxed(&log->head->alarm_ns), now;
    if (when == 0 || when <= (now = rp_wall_clock_ns()))
        return slice; /* it rang: who could do something was told */
    return when - now < (uint64_t)slice ? (int64_t)(when - now) + 4000000 : slice; /* the clock is coarse */
}

/* ---- spinning ------------------------------------------------------------------------------- */

uint32_t rp_spin_start(void) {
    cpu_set_t cpus;
    bool alone = sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) < 2;
    return alone ? 0 : MOST_SPIN;
}

/* True as soon as something changed. Lets other runnable threads have this core between two looks. */
static bool spin(rp_log *log, rp_changed *changed, const void *what) {
    uint32_t budget = rp_load_relaxed(&log->spin_ns);
    if (budget == 0) return false;
    int64_t start = rp_monotonic_ns();
    do {
        for (int i = 0; i < PAUSES; i++) {
            if (changed(log, what)) {
                if (budget < MOST_SPIN) rp_store_relaxed(&log->spin_ns, MOST_SPIN);
                return true;
            }
            rp_pause();
        }
        sched_yield();
    } while (rp_monotonic_ns() - start < (int64_t)budget);
    return false;
}

/* Spin longer where that would have spared a sleep, shorter where it was in vain. */
static void adapt_spin(rp_log *log, int64_t slept) {
    uint32_t budget = rp_load_relaxed(&log->spin_ns);
    if (budget == 0) return;
    if (slept < SHORT_SLEEP)
        budget = budget > MOST_SPIN / 2 ? MOST_SPIN : budget * 2;
    else
        budget = budget / 2 < LEAST_SPIN ? LEAST_SPIN : budget / 2;
    rp_store_relaxed(&log->spin_ns, budget);
}

rp_status rp_event_wait(rp_log *log, uint32_t event, rp_wait *wait, rp_changed *changed, const void *what) {
    int64_t left = rp_time_left(wait);
    if (left <= 0) return RP_EMPTY;
    rp_event *at = event_of(log, event);
    if (!wait->armed) {
        if (!wait->woken && spin(log, changed, what)) return RP_OK;
        wait->snapshot = rp_load_acquire(event, &at->count);
        wait->told = rp_load_relaxed(&log->told);
        arm(log, event);
        wait->armed = true;
        return RP_OK; /* the second try decides */
    }
    int64_t start = rp_monotonic_ns();
    rp_slice_is_over(wait, start);                   /* notes the start */
    int64_t slice = SLICE - (start - wait->started); /* woken in vain before: what is left of it */
    if (wait->slice && wait->slice < slice) slice = wait->slice;
    if (slice < 0) slice = 0;
    slice = until_alarm(log, slice);
    int error = rp_futex_wait(&at->count, wait->snapshot, left < slice ? left : slice);
    int64_t now = rp_monotonic_ns();
    adapt_spin(log, now - start);
    wait->armed = false;
    if (error == ETIMEDOUT && rp_look_for_removal(log)) return RP_DELETED;
    if (error == ETIMEDOUT || error == EINTR) return RP_INTERRUPTED;
    arm(log, event);
    wait->woken = true;
    bool told = rp_load_relaxed(&log->told) != wait->told;
    return told || rp_slice_is_over(wait, now) ? RP_INTERRUPTED : RP_OK;
}

void rp_event_leave(rp_log *log, uint32_t event, rp_wait *wait) {
    if (!wait->woken) return;
    wait->woken = false;
    fire(event_of(log, event), 1);
}
