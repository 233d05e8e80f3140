/* Group commit: whoever gets the door stores what all have put; the others sleep until it is stored, or the door free.
 * Mirrors native/src/stored.h: W1 to W6; native/src/stored.c: rp_commit_enter, rp_commit_leave, rp_set_durable, rp_needed;
 * src/ringpost/store/writer.py: Writer.write, _Plan; src/ringpost/store/log.py: commit_until; native/src/group.c: make.
 * RUN -DDEATHS=0 -DNO_OPENER
 * RUN -DDEATHS=1 -DNO_OPENER
 * RUN -DDEATHS=1 -DONE_PUTTER
 * LARGE -DDEATHS=1
 * LARGE -DDEATHS=2 -DNO_OPENER
 * MUTANTS -DDEATHS=1 -DNO_OPENER
 * MUTANT SIGNAL_BEFORE_UNLOCK -DDEATHS=0 -DNO_OPENER
 * MUTANT NO_SECOND_TRY -DDEATHS=0 -DNO_OPENER
 * MUTANT NO_SLICES -DDEATHS=1 -DNO_OPENER
 * MUTANT ONLY_WHAT_IS_NEEDED_NOW -DDEATHS=0 -DNO_OPENER
 * MUTANT POSITION_BEFORE_BIRTH -DDEATHS=0 -DONE_PUTTER
 *
 * Putters put one frame each at level "commit", and wait until it is stored; a transaction may fail once. A
 * consumer takes and acks. Somebody opens a second group from what is still needed, which then takes, too. Each may be
 * killed at any step; and at any moment all may end and the shared memory be gone: then storage must have each frame
 * that was confirmed and not acked, and all that the stored groups still want. Putting, taking and a transaction of
 * LMDB are one step each. Checked besides: what a group is to take is in the ring (below `durable` it may be
 * overwritten) or in storage; blocks do not overlap; who is confirmed is stored, or acked; nobody waits for ever, and
 * without a death no slice of sleep ends.
 */
#define N        4
#define VICTIMS  4
#include "death.h"

#define CONSUMER 2
#define OPENER   3
#ifdef ONE_PUTTER
#define PUTS     3
#else
#define PUTS     1
#endif
#define FREE     0
#define ORPHAN   9
#define MINE     (me + 1)
#define BIT(i)   (1 << (i))
#define STEP(x)  atomic { x; MAY_DIE }

/* in shared memory */
byte tail = 0, durable = 0, acked = 0;
byte acked2 = 0;   /* of the second group */
bool is_open = false, is_made = false; /* its state; and that it no longer ends with its maker */
byte door = FREE, event = 0;
bool armed = false;

/* in storage: blocks, where they end, and what the groups had acked */
byte blocks = 0, end = 0, kept = 0, kept2 = 0;
bool has_second = false;

/* ghosts */
byte confirmed = 0;
bool has_failed = false, is_over = false;

#define NEEDS(f)      ((f) >= acked || (is_made && (f) >= acked2))
#define IS_STORED(f)  (((blocks >> (f)) & 1) == 1)
#define COUNTS        (is_open && (is_made || !killed[OPENER]))

inline wake_all() {
    atomic { asleep[0] = false; asleep[1] = false }
}

inline signal() {
    if
    :: armed ->
       STEP(was_armed = armed; armed = false);
       if
       :: was_armed -> STEP(event++); STEP(wake_all())
       :: else
       fi;
       was_armed = false
    :: else
    fi
}

/* rp_event_leave */
inline leave_event() {
    if
    :: woken -> woken = false; STEP(event++); STEP(wake_one())
    :: else
    fi
}

/* W1 to W6; the door is ours. */
inline write() {
    STEP(g = acked; h = acked2; second = is_made); /* W1: each under its group's lock; who ends with its process is not stored */
    STEP(t = tail);
    STEP(n = acked); /* W3 */
    STEP(
        if
        :: COUNTS && acked2 < n -> n = acked2
        :: else
        fi;
#ifndef MUTATION_ONLY_WHAT_IS_NEEDED_NOW
        n = (g < n -> g : n);
        n = (second && h < n -> h : n)
#endif
    );
#ifdef MUTATION_DURABLE_BEFORE_COMMIT
    STEP(durable = t);
#endif
    atomic { /* W4 */
        start = (n < t -> n : t);
        start = (durable > start -> durable : start);
#ifndef MUTATION_START_AT_DURABLE
        start = (end > start -> end : start); /* the one before us may have died before W5 */
#endif
        if
        :: !has_failed && start < t -> has_failed = true; failed = true
        :: true ->
           assert(start >= t || start >= end);
           for (i : 0 .. 3) {
               if
               :: i >= start && i < t -> blocks = blocks | BIT(i); end = t
               :: else
               fi;
               if
#ifndef MUTATION_DELETE_WHAT_IS_DURABLE
               :: i < n && i < t -> blocks = blocks & ~BIT(i)
#else
               :: i < t && i < durable -> blocks = blocks & ~BIT(i)
#endif
               :: else
               fi
           };
           kept = g; kept2 = h; has_second = second
        fi;
        i = 0;
        MAY_DIE
    };
#ifndef MUTATION_DURABLE_BEFORE_COMMIT
    if
    :: !failed -> STEP( /* W5 */
           if
           :: t > durable -> durable = t
           :: else
           fi)
    :: else
    fi;
#endif
#ifndef MUTATION_SIGNAL_BEFORE_UNLOCK
    STEP(door = FREE);
    signal();
#else
    signal();
    STEP(door = FREE);
#endif
    atomic { g = 0; h = 0; second = false; t = 0; n = 0; start = 0 }
}

proctype putter(byte me) {
    byte mine, done, holder, snapshot, slices, g, h, t, n, start, i;
    bool is_armed, woken, was_armed, second, failed, lead;
    do
    :: done < PUTS ->
       STEP(mine = tail; tail++);
       do /* commit_until */
       :: failed -> break
       :: !failed && durable > mine -> break
       :: !failed && durable <= mine ->
          atomic { /* rp_lock_try */
              holder = door;
              if
              :: holder == FREE || holder == ORPHAN -> door = MINE; lead = true
              :: else
              fi;
              MAY_DIE
          };
          if
          :: lead ->
             atomic { lead = false; holder = 0; is_armed = false; woken = false; snapshot = 0 };
             write()
          :: else ->
#ifndef MUTATION_NO_DISOWN
             atomic {
                 if
                 :: holder != ORPHAN && killed[holder - 1] && door == holder -> door = ORPHAN
                 :: else
                 fi;
                 holder = 0
             };
#else
             holder = 0;
#endif
             if
             :: !is_armed ->
                snapshot = event;
                STEP(armed = true; is_armed = true);
#ifdef MUTATION_NO_SECOND_TRY
                goto sleep
#endif
             :: else ->
#ifdef MUTATION_NO_SECOND_TRY
sleep:
#endif
                atomic { asleep[me] = (event == snapshot); is_armed = false; snapshot = 0; MAY_DIE };
                if
                :: !asleep[me] ->
                   STEP(armed = true);
                   woken = true
                :: atomic { asleep[me] && slices < 3 && SLICE_MAY_END(me, true) -> slices++; asleep[me] = false };
                   leave_event() /* RP_INTERRUPTED: its caller calls again */
                fi
             fi
          fi
       od;
       leave_event();
       atomic {
           if
           :: !failed -> assert(IS_STORED(mine) || !NEEDS(mine)); confirmed = confirmed | BIT(mine)
           :: else
           fi;
           is_armed = false; snapshot = 0; failed = false; mine = 0; slices = 0; done++; MAY_DIE
       }
    :: else -> break
    od;
    ended[me] = true;
dead:
    atomic {
        mine = 0; done = 0; holder = 0; snapshot = 0; slices = 0; g = 0; h = 0; t = 0; n = 0; start = 0; i = 0; asleep[me] = false;
        is_armed = false; woken = false; was_armed = false; second = false; failed = false; lead = false
    }
}

/* What is below `durable` may be gone from the ring. */
#define CAN_READ(f) ((f) >= durable || IS_STORED(f))

proctype consumer(byte me) {
    do
    :: atomic { acked < tail && !is_over -> assert(CAN_READ(acked)); acked++; MAY_DIE }
    :: atomic { is_made && acked2 < tail && !is_over -> assert(CAN_READ(acked2)); acked2++; MAY_DIE }
    od;
dead:
    skip
}

/* find_start, make: first_needed() reads `acked` of the queue's consumers, without their lock. */
proctype opener(byte me) {
    byte position;
#ifndef MUTATION_POSITION_BEFORE_BIRTH
    STEP(acked2 = 0; is_open = true); /* it ends with us, and counts from here on; then a full fence */
    STEP(position = acked);
    STEP(acked2 = position; is_made = true);
#else
    STEP(position = acked);
    STEP(acked2 = position; is_open = true; is_made = true);
#endif
dead:
    position = 0
}

/* Everything ends, and the shared memory is gone: a new ring begins where storage ends. */
proctype reboot() {
    byte f, from;
    atomic {
        is_over = true;
        for (f : 0 .. 3) {
            if
            :: f < end && (f >= kept || (has_second && f >= kept2)) -> assert(IS_STORED(f))
            :: else
            fi;
            if
            :: (confirmed & BIT(f)) && NEEDS(f) -> assert(IS_STORED(f) && f < end)
            :: else
            fi
        };
        f = 0
    }
}

init {
    atomic {
        run putter(0);
#ifndef ONE_PUTTER
        run putter(1);
#else
        ended[1] = true;
#endif
        run consumer(CONSUMER);
#ifndef NO_OPENER
        run opener(OPENER);
#endif
        run reboot()
    };
    timeout ->
    assert(ended[0] || killed[0]);
    assert(ended[1] || killed[1])
}
