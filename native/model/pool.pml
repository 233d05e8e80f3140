/* Large payloads: runs of granules that are lent, filled outside every lock, published by a frame, read in place, freed.
 * Mirrors native/src/pool.c: first_fit, join_free, lend, reclaim, is_left_over, rp_pool_publish, rp_pool_release,
 * rp_pool_is_of; native/src/pin.c: rp_pin_run, rp_free_unpinned, rp_is_pinned, rp_pin_clear; native/src/take.c:
 * deliver_large, finish_large; native/src/cursor.c: read_large; native/src/group.c: rp_repair_groups.
 * RUN -DDEATHS=1 -DPUTS=1
 * RUN -DDEATHS=2 -DPUTS=1 -DNO_READER
 * RUN -DDEATHS=2 -DONE_PRODUCER
 * LARGE -DDEATHS=1 -DONE_PRODUCER -DPUTS=3
 * LARGE -DDEATHS=1 -DNO_READER
 * MUTANTS -DDEATHS=1 -DONE_PRODUCER
 * MUTANT TAIL_BEFORE_DEATH -DDEATHS=1 -DPUTS=1 -DNO_READER
 *
 * A pool of three granules, and a log of descriptors with room for all (append.pml). Producers lend one granule or two,
 * write them and commit. A consumer copies, or pins and reads on in place when the frame is gone. A reader that holds
 * nobody back looks at a frame and, any time later, copies or pins what it names. Each may be killed between any two
 * stores. Checked: who copies or pins gets what was written, for as long as it is pinned; the run of a committed frame is
 * there when the consumer comes; what a producer was lent nobody else writes to; the chain of heads is whole; nobody waits
 * for room for ever, and no granule is lost when all is done. (A missing fence is a store and a load that change places:
 * LOOK_BEFORE_PINNING.)
 */
#define N        4
#define VICTIMS  4
#include "death.h"

#define GRANULES  3
#define FREE      0
#define LOANED    1
#define PUBLISHED 2
#define PIN       3
#define MINE      (me + 1)
#define CONSUMER  2
#define READER    3
#ifndef PUTS
#define PUTS      2
#endif
#define FRAMES    (2 * PUTS)
#define NONE      99

/* A word is state, length, owner: they change together. All 0: no head, and no pin. */
byte state[GRANULES], length[GRANULES], owner[GRANULES], position[GRANULES];
byte data[GRANULES];
byte pool_lock = 0, pool_next = 0, lock = 0;
byte tail = 0, read = 0, acked = 0;
byte at_first[FRAMES], at_length[FRAMES], at_tag[FRAMES]; /* descriptors */
byte tags = 0;
bool stirred[2]; /* there may be room since this producer looked: wait.pml */

#define IS_DEAD(o)     ((o) != 0 && killed[(o) - 1])
#define CAN_LOCK(l)    (l == 0 || IS_DEAD(l))
#define STEP(x)        atomic { x; MAY_DIE }
#define SET(g, s, l, o) state[g] = s; length[g] = l; owner[g] = o
#define STIR           stirred[0] = true; stirred[1] = true

/* rp_is_pinned: leaves true in `pinned`. A run has an entry for each granule but the first. */
inline look_for_pins(at, granules) {
    pinned = false;
    if
    :: granules > 1 -> pinned = state[at + 1] == PIN && !IS_DEAD(owner[at + 1])
    :: else
    fi;
    if
    :: granules > 2 && !pinned -> pinned = state[at + 2] == PIN && !IS_DEAD(owner[at + 2])
    :: else
    fi
}

/* rp_free_unpinned of a run whose word was `s`, `l`, `o`: F1 to F4. */
inline free_unpinned(at) {
    look_for_pins(at, l);
    if
    :: pinned
    :: else ->
       atomic {
           got = state[at] == s && length[at] == l && owner[at] == o;
           if
           :: got -> SET(at, LOANED, l, MINE)
           :: else
           fi;
           MAY_DIE
       };
       if
       :: got ->
#ifndef MUTATION_ONLY_A_GLANCE_AT_PINS
          look_for_pins(at, l);
#endif
          STEP(
              assert(state[at] == LOANED && length[at] == l && owner[at] == MINE);
              if
              :: pinned -> SET(at, PUBLISHED, l, MINE)
              :: else -> SET(at, FREE, l, 0); STIR
              fi
          )
       :: else
       fi
    fi;
    pinned = false; got = false
}

/* is_left_over of the run at `a`. In the last case the owner is found dead BEFORE `tail` is read. */
inline is_left_over() {
    left = false;
    if
    :: s == LOANED -> left = IS_DEAD(o)
    :: s == PUBLISHED ->
       if
       :: y < acked -> left = true
       :: else ->
          if
          :: y < tail
          :: else ->
#ifndef MUTATION_TAIL_BEFORE_DEATH
             if
             :: IS_DEAD(o) -> left = y >= tail
             :: else
             fi
#else
             left = IS_DEAD(o)
#endif
          fi
       fi
    :: else
    fi
}

inline reclaim() {
    a = 0;
    do
    :: a < GRANULES ->
       atomic { s = state[a]; l = length[a]; o = owner[a]; assert(l > 0 && l <= GRANULES - a) };
       if
       :: s != FREE ->
          y = position[a];
          is_left_over();
          if
          :: left -> left = false; free_unpinned(a)
          :: else
          fi
       :: else
       fi;
       atomic { a = a + l; s = 0; l = 0; o = 0; y = 0 }
    :: else -> break
    od;
    a = 0
}

/* first_fit, join_free, lend: the run at `first`, or NONE. What is free changes only under the lock. */
inline first_fit(start) {
    atomic { a = start; first = NONE };
    do
    :: a < GRANULES && first == NONE ->
       atomic {
           assert(length[a] > 0 && length[a] <= GRANULES - a); /* else the chain is broken */
           s = state[a]; l = length[a];
           if
           :: s == FREE ->
              do
              :: l < wanted && a + l < GRANULES && state[a + l] == FREE ->
                 if
                 :: pool_next == a + l -> pool_next = a
                 :: else
                 fi;
                 MAY_DIE;
                 l = l + length[a + l];
                 length[a] = l;
                 MAY_DIE
              :: else -> break
              od
           :: else
           fi
       };
       if
       :: s == FREE && l >= wanted ->
#ifdef MUTATION_SHORTER_HEAD_FIRST
          STEP(SET(a, LOANED, wanted, MINE));
#endif
          if
          :: l > wanted -> STEP(SET(a + wanted, FREE, l - wanted, 0))
          :: else
          fi;
          if
          :: wanted > 1 -> STEP(SET(a + 1, 0, 0, 0)) /* rp_pin_clear */
          :: else
          fi;
#ifndef MUTATION_SHORTER_HEAD_FIRST
          STEP(SET(a, LOANED, wanted, MINE));
#endif
          atomic { pool_next = (a + wanted < GRANULES -> a + wanted : 0); first = a }
       :: else -> a = a + l
       fi;
       atomic { s = 0; l = 0 }
    :: else -> break
    od;
    a = 0
}

proctype producer(byte me) {
    byte a, s, l, o, y, first, wanted, i, p, tag, done;
    bool pinned, got, left;
    do
    :: done < PUTS ->
       if
       :: wanted = 1
       :: wanted = 2
       fi;
       do
       :: atomic { CAN_LOCK(pool_lock) -> pool_lock = MINE; stirred[me] = false; first = NONE; MAY_DIE };
          first_fit(pool_next);
          if
          :: first == NONE -> first_fit(0)
          :: else
          fi;
          if
          :: first == NONE -> reclaim(); first_fit(0)
          :: else
          fi;
          pool_lock = 0;
          if
          :: first != NONE -> break
          :: else ->
             if
             :: killed[CONSUMER] && acked != read -> acked = read /* rp_repair_groups */
             :: else -> stirred[me]
             fi
          fi
       od;
       atomic { tags++; tag = tags; i = 0 };
       do
       :: i < wanted -> STEP(data[first + i] = tag; i++)
       :: else -> break
       od;
       atomic { CAN_LOCK(lock) -> lock = MINE; p = tail; MAY_DIE };
       atomic {
           assert(state[first] == LOANED && length[first] == wanted && owner[first] == MINE);
           for (i : 0 .. wanted - 1) { assert(data[first + i] == tag) };
           i = 0
       };
#ifndef MUTATION_POSITION_AFTER_PUBLISHING
       STEP(position[first] = p);
       STEP(state[first] = PUBLISHED);
#else
       STEP(state[first] = PUBLISHED);
       STEP(position[first] = p);
#endif
       STEP(at_first[p] = first; at_length[p] = wanted; at_tag[p] = tag);
       STEP(tail = p + 1);
       STEP(lock = 0; done++; first = 0; wanted = 0; p = 0; tag = 0)
    :: else -> break
    od;
    ended[me] = true;
    goto end;
dead:
    atomic {
        a = 0; s = 0; l = 0; o = 0; y = 0; first = 0; wanted = 0; i = 0; p = 0; tag = 0; done = 0;
        pinned = false; got = false; left = false;
        STIR
    };
end:
    skip
}

/* rp_pool_is_of(first, p), in `is_of` */
inline look_if_it_is_of() {
    is_of = state[first] == PUBLISHED;
    if
    :: is_of -> is_of = position[first] == p
    :: else
    fi
}

/* Leaves in `whole` if each granule is what the frame says. */
inline copy() {
    atomic { i = 0; whole = true };
    do
    :: i < granules -> atomic { whole = whole && data[first + i] == tag; i++ }
    :: else -> break
    od;
    i = 0
}

/* rp_pin_run: P1, P2. A run of one granule has no place for a pin. */
inline pin() {
    is_of = false; is_pinned = false;
#ifndef MUTATION_LOOK_BEFORE_PINNING
    if
    :: granules > 1 -> STEP(
           if
           :: state[first + 1] == 0 && length[first + 1] == 0 -> SET(first + 1, PIN, 0, MINE); is_pinned = true
           :: else
           fi)
    :: else
    fi;
    look_if_it_is_of();
#else
    look_if_it_is_of();
    if
    :: granules > 1 -> STEP(
           if
           :: state[first + 1] == 0 && length[first + 1] == 0 -> SET(first + 1, PIN, 0, MINE); is_pinned = true
           :: else
           fi)
    :: else
    fi;
#endif
    if
    :: is_pinned && !is_of -> take_away()
    :: else
    fi
}

inline take_away() {
    STEP(
        if
        :: state[first + 1] == PIN && owner[first + 1] == MINE -> SET(first + 1, 0, 0, 0); STIR
        :: else
        fi;
        is_pinned = false
    )
}

inline use_and_unpin() {
    copy();
    assert(whole);
    take_away()
}

proctype consumer(byte me) {
    byte first, granules, tag, p, i, s, l, o;
    bool whole, is_of, is_pinned, pinned, got;
    do
    :: atomic { read < tail -> p = read; first = at_first[p]; granules = at_length[p]; tag = at_tag[p]; MAY_DIE };
       if
       :: granules > 1 -> pin(); assert(is_of) /* a living frame's run is there */
       :: true ->
          copy();
          look_if_it_is_of();
          assert(is_of && whole)
       fi;
       STEP(read = p + 1);
#ifdef MUTATION_ACKED_BEFORE_FREEING
       STEP(acked = p + 1; STIR);
#endif
       atomic { s = state[first]; l = length[first]; o = owner[first] };
       if
       :: s == PUBLISHED && position[first] == p -> free_unpinned(first)
       :: else
       fi;
#ifndef MUTATION_ACKED_BEFORE_FREEING
       STEP(acked = p + 1; STIR);
#endif
       if
       :: is_pinned -> use_and_unpin()
       :: else
       fi;
       atomic { first = 0; granules = 0; tag = 0; p = 0; s = 0; l = 0; o = 0; whole = false; is_of = false }
    od;
dead:
    atomic {
        first = 0; granules = 0; tag = 0; p = 0; i = 0; s = 0; l = 0; o = 0;
        whole = false; is_of = false; is_pinned = false; pinned = false; got = false;
        STIR
    }
}

proctype reader(byte me) {
    byte first, granules, tag, p, i;
    bool whole, is_of, is_pinned;
    atomic {
        tail > 0 -> p = tail - 1; first = at_first[p]; granules = at_length[p]; tag = at_tag[p]; MAY_DIE
    };
    if
    :: granules > 1 ->
       pin();
       if
       :: is_pinned -> use_and_unpin()
       :: else
       fi
    :: true ->
       copy();
#ifndef MUTATION_NO_LOOK_AFTER_COPYING
       look_if_it_is_of();
#else
       is_of = true;
#endif
       assert(whole || !is_of)
    fi;
dead:
    atomic {
        first = 0; granules = 0; tag = 0; p = 0; i = 0; whole = false; is_of = false; is_pinned = false;
        STIR
    }
}

init {
    byte g;
    atomic {
        length[0] = GRANULES;
        run producer(0);
#ifndef ONE_PRODUCER
        run producer(1);
#else
        ended[1] = true;
#endif
        run consumer(CONSUMER);
#ifndef NO_READER
        run reader(READER)
#endif
    };
    timeout ->
    atomic {
        assert(ended[0] || killed[0] || killed[CONSUMER]);
        assert(ended[1] || killed[1] || killed[CONSUMER]);
        assert(read == tail || killed[CONSUMER]);
        do
        :: g < GRANULES ->
           assert(length[g] > 0 && length[g] <= GRANULES - g);
           assert(state[g] == FREE || IS_DEAD(owner[g]) || (state[g] == PUBLISHED && position[g] < tail));
           assert(length[g] < 2 || state[g + 1] != PIN || IS_DEAD(owner[g + 1]));
           g = g + length[g]
        :: else -> break
        od;
        assert(g == GRANULES)
    }
}
