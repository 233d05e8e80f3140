/* The lock whose word names its holder.
 * Mirrors native/src/lock.h: rp_lock_try, rp_lock_release; native/src/lock.c: rp_lock_sleep, rp_lock_disown.
 * RUN -DDEATHS=1
 * MUTANTS -DDEATHS=1
 *
 * Three processes lock, the first one twice; the last one has a deadline and may give up.
 * Checked: nobody enters beside a living holder; who enters where somebody died inside is told (`died`); nobody
 * sleeps on for ever: not at all without a death, and after one by the end of a slice.
 */
#define N       3
#define VICTIMS 3
#ifndef DEATHS
#define DEATHS 1
#endif
#define ROUNDS(me) (me == 0 -> 2 : 1)
#define FREE    0
#define ORPHAN  7
#include "death.h"

byte owner = FREE; /* with `waiters` one word: both change in one step */
bool waiters = false;

byte inside = 0; /* ghosts: who is between lock and unlock, and is what the lock guards half done? */
bool dirty = false;

#define MINE (me + 1)

/* One CAS of rp_lock_try; its spinning is trying again. */
inline try_lock() {
    atomic {
        if
        :: owner == FREE ->
           owner = MINE;
#ifndef MUTATION_FORGET_OTHER_SLEEPERS
           waiters = slept;
#endif
           got = true; died = false
        :: owner == ORPHAN -> owner = MINE; waiters = true; got = true; died = true
        :: else -> got = false
        fi;
        if
        :: got ->
           assert(inside == 0 || killed[inside - 1]);
           assert(!dirty || died);
           inside = MINE
        :: else
        fi
    }
}

inline sleep_on_lock() {
    atomic { holder = owner; had_waiters = waiters };
    if
    :: holder == FREE || holder == ORPHAN
    :: else ->
       if
       :: me == N - 1 -> gave_up = true /* its deadline passed */
       :: true
       fi;
       if
       :: gave_up ->
#ifndef MUTATION_SWALLOW_WAKE_UP
          if
          :: slept -> wake_one()
          :: else
          fi
#endif
       :: else ->
          atomic {
              changed = owner != holder || waiters != had_waiters;
              if
              :: !changed -> waiters = true
              :: else
              fi
          };
          if
          :: changed /* the CAS failed: try again */
          :: else ->
             slept = true;
             atomic { asleep[me] = (owner == holder && waiters) };
             if
             :: !asleep[me]
             :: atomic { asleep[me] && me == N - 1 -> asleep[me] = false }; gave_up = true; wake_one()
             :: atomic { asleep[me] && SLICE_MAY_END(me, owner != holder || killed[holder - 1]) ->
                    asleep[me] = false;
                    if
                    :: owner == holder && !killed[holder - 1] -> idle_slices++
                    :: else
                    fi
                };
                if
#ifndef MUTATION_STEAL_FROM_THE_LIVING
                :: killed[holder - 1] ->
#else
                :: true ->
#endif
                   atomic {
                       if
                       :: owner == holder && waiters ->
#ifndef MUTATION_ORPHAN_IS_FREE
                          owner = ORPHAN
#else
                          owner = FREE; waiters = false
#endif
                       :: else
                       fi
                   }
                :: else
                fi
             fi
          fi
       fi
    fi
}

inline unlock() {
    atomic { had_waiters = waiters; owner = FREE; waiters = false; inside = 0 };
    if
    :: had_waiters -> wake_one()
    :: else
    fi
}

proctype participant(byte me) {
    byte round, holder;
    bool got, died, slept, had_waiters, changed, gave_up;
    ALIVE(me, {
        do
        :: round < ROUNDS(me) && !gave_up ->
           slept = false;
           do
           :: try_lock();
              if
              :: got || gave_up -> break
              :: else -> sleep_on_lock(); holder = 0; had_waiters = false; changed = false
              fi;
              if
              :: gave_up -> break
              :: else
              fi
           od;
           if
           :: got ->
              dirty = true;  /* a repair, if somebody died, or the first store of an operation */
              dirty = false; /* the last one */
              unlock()
           :: else
           fi;
           got = false; died = false; slept = false; had_waiters = false;
           round++
        :: else -> break
        od;
        ended[me] = true
    })
}

init {
    byte i;
    atomic {
        for (i : 0 .. N - 1) { run participant(i) };
        run killer()
    };
    timeout ->
    for (i : 0 .. N - 1) { assert(ended[i] || killed[i]) }
}
