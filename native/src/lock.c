#include "lock.h"

#include <errno.h>

#define FIRST_SLICE   1000000 /* 1 ms, in ns */
#define LONGEST_SLICE 50000000

static _Thread_local int32_t stalled_by;
static _Thread_local uint32_t stalled_in;

static rp_status stalled(rp_log *log, uint32_t word) {
    stalled_by = rp_pid_of(log, word);
    stalled_in = rp_pid_namespace_of(log, word);
    return RP_STALLED;
}

void rp_lock_wake(rp_lock *lock) { rp_futex_wake(lock, 1); }

static bool disown_if_dead(rp_log *log, rp_lock *lock, uint32_t word) {
    if (!rp_is_dead(log, word)) return false;
    rp_cas_relaxed(lock, &word, RP_LOCK_ORPHAN | RP_LOCK_WAITERS);
    return true;
}

void rp_lock_disown(rp_log *log, rp_lock *lock) {
    uint32_t word = rp_load_relaxed(lock);
    if (word != 0) disown_if_dead(log, lock, word);
}

rp_status rp_lock_sleep(rp_log *log, rp_lock *lock, rp_wait *wait) {
    uint32_t word = rp_load_relaxed(lock);
    if (word == 0 || (word & RP_OWNER_MASK) == RP_LOCK_ORPHAN) return RP_OK;
    int64_t left = rp_lock_time_left(wait);
    if (left <= 0) {
        if (wait->lock_slept) rp_lock_wake(lock); /* we may have swallowed somebody's wake-up */
        return stalled(log, word);
    }
    if (!(word & RP_LOCK_WAITERS) && !rp_cas_relaxed(lock, &word, word | RP_LOCK_WAITERS)) return RP_OK;
    word |= RP_LOCK_WAITERS;
    if (wait->lock_slice == 0) wait->lock_slice = FIRST_SLICE;
    wait->lock_slept = true;
    int error = rp_futex_wait(lock, word, left < wait->lock_slice ? left : wait->lock_slice);
    if (error == EINTR) return RP_INTERRUPTED;
    if (error == ETIMEDOUT && !disown_if_dead(log, lock, word) && wait->lock_slice < LONGEST_SLICE)
        wait->lock_slice *= 2;
    bool look_around = wait->deadline != RP_NOW && rp_slice_is_over(wait, rp_monotonic_ns());
    if (look_around && error == 0) rp_lock_wake(lock); /* the wake-up that we got is for somebody who stays */
    return look_around ? RP_INTERRUPTED : RP_OK;
}

rp_status rp_lock_wait(rp_log *log, rp_lock *lock, int64_t deadline, bool *died) {
    rp_wait wait = rp_wait_until(deadline);
    for (;;) {
        rp_status status = rp_lock_try(log, lock, &wait, died);
        if (status != RP_BUSY) return status;
        status = rp_lock_sleep(log, lock, &wait);
        if (status != RP_OK) return status;
    }
}

rp_status rp_lock_stalled(rp_log *log, const rp_lock *lock) { return stalled(log, rp_load_relaxed(lock)); }

int32_t rp_holder(void) { return stalled_by; }

uint32_t rp_holder_namespace(void) { return stalled_in; }
