/* Time that passes only when it is asked for, and sleeps that are over at once: an input then does the same in every run,
 * and thousands of them go into a second. Included before everything else in the core, when it is built for fuzzing.
 */
#ifndef STILL_H
#define STILL_H

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static inline int still_clock(clockid_t clock, struct timespec *out) {
    extern int64_t still_ns;
    int64_t now = still_ns += 20000;
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now += INT64_C(1700000000000000000);
    *out = (struct timespec){.tv_sec = now / 1000000000, .tv_nsec = now % 1000000000};
    return 0;
}

/* Nobody else is there: who waits is not woken. */
static inline long still_futex(long number, void *word, int what, uint32_t value, const struct timespec *span,
                               void *unused, int none) {
    extern int64_t still_ns;
    (void)number, (void)unused, (void)none;
    if (what != FUTEX_WAIT) return 0;
    still_ns += span->tv_sec * 1000000000 + span->tv_nsec;
    errno = __atomic_load_n((uint32_t *)word, __ATOMIC_RELAXED) == value ? ETIMEDOUT : EAGAIN;
    return -1;
}

#define clock_gettime         still_clock
#define syscall               still_futex
#define sched_yield()         0
#define nanosleep(span, rest) 0

#endif
