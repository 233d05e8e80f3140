/* Two threads against one another, and how long that goes on. */
#ifndef DUEL_H
#define DUEL_H

#include <sys/time.h>

#include "inside.h"
#include "messages.h"
#include "threads.h"

#define MS_EACH 400

/* The time is over, and enough was seen: on a busy machine that may take longer. */
static inline bool is_over(int64_t end, bool enough) {
    int64_t now = rp_monotonic_ns();
    return now > end && (enough || now > end + INT64_C(1000000) * BOUND_MS);
}

/* ---- rounds --------------------------------------------------------------------------------- */

/* Two threads that begin each round together. */
typedef struct duel {
    rp_log *log;
    _Alignas(128) _Atomic uint64_t arrived;
    _Alignas(128) _Atomic uint64_t left_to_do;
    int64_t end;
    /* of a round */
    rp_status first, second;
    uint32_t snapshot, count;
    bool was_armed;
    uint64_t rounds, both[4];
} duel;

static inline void meet(duel *all, uint64_t nth) {
    atomic_fetch_add(&all->arrived, 1);
    for (int spins = 0; atomic_load(&all->arrived) < 2 * nth; spins++) {
        if (spins > 2000)
            sched_yield(); /* the other one has no cpu */
        else
            rp_pause();
    }
}

/* Mostly a little, so that they meet; at times so much that the other one is first, however slow this machine is. */
static inline void delay(uint64_t *random) {
    bool is_long = next_random(random) % 16 == 0;
    uint64_t most = is_long ? 8192 : 64;
    if (is_long) sched_yield(); /* it may have no cpu */
    for (uint64_t n = next_random(random) % most; n; n--) rp_pause();
}

static inline void pause_a_little(int number) {
    (void)number;
    for (int i = 0; i < 100; i++) rp_pause();
}

/* From now on this thread is interrupted for some microseconds anywhere, every 20 or so: between any two loads. */
static inline void be_interrupted(void) {
    signal(SIGALRM, pause_a_little);
    setitimer(ITIMER_REAL, &(struct itimerval){.it_interval.tv_usec = 20, .it_value.tv_usec = 20}, NULL);
}

#endif
