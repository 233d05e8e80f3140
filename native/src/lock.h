/* A small futex lock whose word names its holder, so that a waiter can prove the holder dead and take over.
 *
 *   word = W(1) | generation(20) | slot + 1 (11);  0 = free;  slot + 1 = 2047: its holder died
 *
 *   try      CAS 0 -> me, a short spin, else RP_BUSY. Never sleeps, never makes a system call.
 *   sleep    set W, futex_wait for one slice (1, 2, 4 .. 50 ms). A slice that ended in vain asks the
 *            kernel if the holder lives; if not: CAS (holder -> ORPHAN | W). Then try again.
 *   unlock   swap 0; if W was set, futex_wake(1)
 *
 * Whoever gets the lock over ORPHAN repairs what it guards. It may die in turn: its word is then the dead
 * one. A locker that slept takes the lock with W set, for others may sleep still.
 *
 * A death leaves: in try after the CAS, a dead word (above); in sleep, W set (one futex_wake too many); in
 * unlock between swap and wake, sleepers without a wake-up: their slice ends, they try again. A stopped
 * holder is not dead: others wait until their deadline (RP_STALLED; rp_holder() names the pid).
 *
 * Nobody waits for a lock while holding one, but who opens a group of a stored queue (group.c, first_needed): for the
 * consumers' lock with the producers'; opening any group tries that of an unused one. (Why not a robust pthread mutex:
 * docs/design/protocol.md.)
 */
#ifndef RP_LOCK_H
#define RP_LOCK_H

#include "liveness.h"
#include "wait.h"

#define RP_LOCK_WAITERS 0x80000000u
#define RP_LOCK_ORPHAN  RP_SLOT_MASK
#define RP_LOCK_SPINS   40

/* RP_OK; RP_BUSY. *died: the last holder died inside, repair first. */
static inline rp_status rp_lock_try(rp_log *log, rp_lock *lock, rp_wait *wait, bool *died) {
    uint32_t mine = log->me | (wait && wait->lock_slept ? RP_LOCK_WAITERS : 0);
    uint32_t word = 0;
    *died = false;
    if (rp_likely(rp_cas_acquire(lock, lock, &word, mine))) return RP_OK;
    for (int spins = 0; spins < RP_LOCK_SPINS; spins++) {
        if (word == 0 && rp_cas_acquire(lock, lock, &word, mine)) return RP_OK;
        if ((word & RP_OWNER_MASK) == RP_LOCK_ORPHAN &&
            rp_cas_acquire(lock, lock, &word, mine | RP_LOCK_WAITERS)) {
            *died = true;
            return RP_OK;
        }
        rp_pause();
        word = rp_load_relaxed(lock);
    }
    return RP_BUSY;
}

void rp_lock_wake(rp_lock *lock);

static inline void rp_lock_release(rp_lock *lock) {
    uint32_t word = rp_swap_release(lock, lock, 0);
    if (rp_unlikely(word & RP_LOCK_WAITERS)) rp_lock_wake(lock);
}

/* If the holder is dead, mark the lock as orphaned: the next locker repairs. */
void rp_lock_disown(rp_log *log, rp_lock *lock);

/* Sleep until the lock may be free: RP_OK (try again), RP_INTERRUPTED, or RP_STALLED at the deadline. */
rp_status rp_lock_sleep(rp_log *log, rp_lock *lock, rp_wait *wait);

/* RP_STALLED, and rp_holder() names who has it. */
rp_status rp_lock_stalled(rp_log *log, const rp_lock *lock);

/* For what has no try form: try and sleep until the deadline. */
rp_status rp_lock_wait(rp_log *log, rp_lock *lock, int64_t deadline, bool *died);

#endif
