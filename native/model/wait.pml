/* Sleeping until there is something to take, and being woken: the eventcount.
 * Mirrors native/src/wait.h: rp_signal_frames; native/src/wait.c: arm, fire_armed, rp_event_wait, rp_event_leave;
 * native/src/take.c: rp_take.
 * RUN -DDEATHS=0
 * RUN -DDEATHS=1 -DNOBODY_LEAVES -DONE_BY_ONE -DIDLE_SLICES=0
 * MUTANTS
 * MUTANT NO_SLICES -DDEATHS=1
 *
 * One producer puts two frames at once, another one; two consumers take, the second of which may leave: after a take,
 * at its deadline, or because it was interrupted. A store before a missing fence goes into a buffer, as processors do,
 * and becomes visible to others some time later; one before a full fence may as well be visible at once. Taking and
 * committing are one step: append.pml, lease.pml. Checked: at the end everything committed was taken, unless all consumers
 * died or left; without a death no slice of sleep ever ends.
 */
#define N       4
#define VICTIMS 3
#ifndef DEATHS
#define DEATHS  0
#endif
#include "death.h"

byte tail = 0, read = 0;
byte event = 0;
bool armed = false;
#if defined(MUTATION_NO_FENCE_IN_WAKER) || defined(MUTATION_NO_FENCE_IN_WAITER)
bool tail_buffered[N]; /* what this process stored, nobody else sees yet */
byte tail_next[N];
bool arm_buffered[N];
#endif
bool left[N];
byte committed = 0; /* a ghost: frames whose put got as far as its commit */
byte lock = 0;      /* the producers' lock; its holder's death frees it, see lock.pml */

#define MINE            (me + 1)
#define LOCK_IS_FREE    (lock == 0 || killed[lock - 1])
#ifndef NOBODY_LEAVES
#define MAY_LEAVE       (me == N - 1)
#else
#define MAY_LEAVE       false
#endif
#ifndef ONE_BY_ONE
#define FRAMES(me)      (me == 0 -> 2 : 1)
#else
#define FRAMES(me)      1
#endif

#if defined(MUTATION_NO_FENCE_IN_WAKER) || defined(MUTATION_NO_FENCE_IN_WAITER)
/* The processor makes a store visible when it likes, also that of a process which is dead by then. */
proctype store_buffers() {
    do
    :: atomic { tail_buffered[0] -> tail = tail_next[0]; tail_buffered[0] = false }
    :: atomic { tail_buffered[1] -> tail = tail_next[1]; tail_buffered[1] = false }
    :: atomic { arm_buffered[2] -> armed = true; arm_buffered[2] = false }
    :: atomic { arm_buffered[3] -> armed = true; arm_buffered[3] = false }
    od
}
#endif

inline fire(most) {
    event++;
    atomic {
        wake_one();
        if
        :: most > 1 -> wake_one()
        :: else
        fi
    }
}

proctype producer(byte me) {
    bool was_armed;
    ALIVE(me, {
#ifndef MUTATION_NO_FENCE_IN_WAKER
        atomic { LOCK_IS_FREE -> lock = MINE };
        atomic { tail = tail + FRAMES(me); committed = tail };
        lock = 0; /* and a full fence */
#else
        atomic { LOCK_IS_FREE && !tail_buffered[1 - me] -> lock = MINE; tail_next[me] = tail + FRAMES(me) };
        atomic { tail_buffered[me] = true; committed = committed + FRAMES(me) };
        lock = 0;
#endif
        if
        :: armed ->
           atomic { was_armed = armed; armed = false };
           if
           :: was_armed -> fire(FRAMES(me))
           :: else
           fi
        :: else
        fi;
        ended[me] = true
    })
}

inline arm() {
#ifndef MUTATION_NO_FENCE_IN_WAITER
    armed = true
#else
    arm_buffered[me] = true
#endif
}

inline take() {
    atomic {
        got = read < tail;
        if
        :: got -> read++
        :: else
        fi
    }
}

/* rp_event_leave */
inline leave() {
    if
    :: woken -> woken = false; fire(1)
    :: else
    fi
}

proctype consumer(byte me) {
    bool got, is_armed, woken;
    byte snapshot;
    ALIVE(me, {
        do
        :: take();
           if
           :: got ->
              /* asked after arming again: frames put before that woke nobody */
#ifndef MUTATION_NO_BATON
              if
              :: woken && read < tail -> fire(1)
              :: else
              fi;
#endif
              atomic { got = false; woken = false; is_armed = false; snapshot = 0 };
              if
              :: MAY_LEAVE -> break /* and is busy with what it got */
              :: true               /* its next call */
              fi
           :: !got && !is_armed ->
#ifndef MUTATION_SNAPSHOT_AFTER_ARMING
              snapshot = event;
              arm();
#else
              arm();
#endif
              is_armed = true
#ifdef MUTATION_NO_SECOND_TRY
              ; goto sleep
#endif
           :: !got && is_armed ->
sleep:
#ifdef MUTATION_SNAPSHOT_AFTER_ARMING
              snapshot = event;
#endif
              atomic { asleep[me] = (event == snapshot); is_armed = false; snapshot = 0 };
              if
              :: !asleep[me] -> /* woken, or EAGAIN */
#ifndef MUTATION_NO_REARMING
                 arm();
#endif
                 woken = true;
                 if
                 :: MAY_LEAVE -> /* interrupted, and its caller does not call again */
#ifndef MUTATION_LEAVE_WITH_THE_BATON
                    leave();
#endif
                    break
                 :: true
                 fi
              :: atomic { asleep[me] && SLICE_MAY_END(me, read < tail) ->
                     asleep[me] = false;
                     if
                     :: read < tail
                     :: else -> idle_slices++
                     fi
                 };
                 leave() /* RP_INTERRUPTED: the caller looks around, and calls again */
              :: atomic { asleep[me] && MAY_LEAVE -> asleep[me] = false }; /* its deadline */
#ifndef MUTATION_LEAVE_WITH_THE_BATON
                 leave();
#endif
                 break
              fi
           fi
        od;
        left[me] = true
    })
}

#define GONE(me) (killed[me] || left[me])

init {
    atomic {
        run producer(0);
        run producer(1);
        run consumer(2);
        run consumer(3);
#if defined(MUTATION_NO_FENCE_IN_WAKER) || defined(MUTATION_NO_FENCE_IN_WAITER)
        run store_buffers();
#endif
        run killer()
    };
    timeout ->
    assert(ended[0] || killed[0]);
    assert(ended[1] || killed[1]);
    assert(tail == committed);
    assert(read == tail || (GONE(2) && GONE(3)));
    assert(GONE(2) || asleep[2]);
    assert(GONE(3) || asleep[3])
}
