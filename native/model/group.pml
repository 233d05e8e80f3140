/* Groups come and go while others pass over frames for them: what is known of one is not stored into the next.
 * Mirrors native/src/group.c: find_or_make, is_unused, make, close_if_dead, rp_group_close, rp_group_abandon,
 * pass_over_unwanted, locked.
 * RUN -DDEATHS=0
 * RUN -DDEATHS=2
 * MUTANTS -DDEATHS=1
 *
 * One place in the table. Two processes open a group there, each of which ends with its process, and close it, with its
 * lock or by one store; a producer puts three frames; somebody passes twice over those that the group does not want, as
 * producers do. Each may die after each of its stores. The log's lock and the group's are one step each (lock.pml).
 * Checked: an open group has lost nothing, nor gone back: it stands where it was opened, or further; nobody opens it
 * while somebody alive is inside.
 */
#define N        4
#define VICTIMS  4
#include "death.h"

#define PRODUCER 2
#define PASSER   3
#define PUTS     3
#define FREE     0
#define OPEN     1

byte state = FREE, owner = 0, read = 0, acked = 0;
byte tail = 0, lock = 0, group_lock = 0;
byte start = 0; /* a ghost: where the group that is open now was opened */

#define MINE        (me + 1)
#define IS_DEAD(o)  ((o) != 0 && killed[(o) - 1])
#define CAN_LOCK(l) (l == 0 || IS_DEAD(l))
#define STEP(x)     atomic { x; MAY_DIE }
#define IS_WELL     (state == FREE || (read >= start && acked >= start && acked <= read && read <= tail))

/* is_unused: the lock of a dead process is taken over, and let go. Leaves it in `got`. */
inline look_if_unused() {
    got = false;
    if
    :: state != FREE
    :: else ->
#ifndef MUTATION_OPEN_AROUND_WHO_IS_INSIDE
       atomic {
           got = CAN_LOCK(group_lock);
           if
           :: got -> group_lock = MINE
           :: else
           fi;
           MAY_DIE
       };
       if
       :: got -> STEP(group_lock = 0)
       :: else
       fi
#else
       got = true
#endif
    fi
}

/* make: under the log's lock, so `tail` stays. */
inline make() {
    STEP(owner = MINE);
#ifdef MUTATION_OPEN_BEFORE_IT_IS_FILLED_IN
    STEP(state = OPEN; start = tail);
#endif
    STEP(read = tail);
    STEP(acked = tail);
#ifndef MUTATION_OPEN_BEFORE_IT_IS_FILLED_IN
    STEP(state = OPEN; start = tail; assert(IS_WELL))
#endif
}

proctype opener(byte me) {
    bool got;
    STEP(CAN_LOCK(lock) -> lock = MINE);
    if
    :: state == OPEN && IS_DEAD(owner) -> STEP(state = FREE)
    :: else
    fi;
    look_if_unused();
    if
    :: got -> make()
    :: else
    fi;
    STEP(lock = 0);
    if
    :: got ->
       assert(state == OPEN && IS_WELL);
       if
       :: STEP(state = FREE) /* rp_group_abandon */
       :: STEP(CAN_LOCK(group_lock) -> group_lock = MINE);
          STEP(state = FREE);
          STEP(group_lock = 0)
       fi
    :: else
    fi;
dead: ended[me] = true
}

proctype producer() {
    byte me = PRODUCER, puts;
    for (puts : 1 .. PUTS) {
        STEP(CAN_LOCK(lock) -> lock = MINE);
        STEP(tail++);
        STEP(lock = 0)
    };
dead: ended[me] = true
}

proctype passer() {
    byte me = PASSER, from, to, turn;
    bool got;
    for (turn : 1 .. 2) {
        if
        :: state == OPEN ->
           atomic {
               got = CAN_LOCK(group_lock);
               if
               :: got -> group_lock = MINE
               :: else
               fi;
               MAY_DIE
           };
           if
           :: got ->
#ifdef MUTATION_LOOK_BEFORE_IT_IS_OPEN
              from = read;
              to = tail;
#endif
              if
              :: state == OPEN ->
#ifndef MUTATION_LOOK_BEFORE_IT_IS_OPEN
                 from = read;
                 to = tail;
#endif
                 if
                 :: from != to ->
                    select(to : from + 1 .. to); /* as far as nobody wants them */
                    STEP(read = to; assert(state == FREE || read >= start));
                    STEP(acked = to; assert(IS_WELL))
                 :: else
                 fi
              :: else
              fi;
              STEP(group_lock = 0)
           :: else
           fi
        :: else
        fi
    };
dead: ended[me] = true
}

init {
    atomic {
        run opener(0);
        run opener(1);
        run producer();
        run passer()
    }
}
