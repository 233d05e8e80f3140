/* Leases: frames handed out, acked, given back, and taken back from the dead and from who held them for too long.
 * Mirrors native/src/lease.c: hand_out, start_lease, find_tip, hand_out_again, take_over, merge_any, look_over, rp_settle,
 * rp_give_back, return_some, add_returned, rp_lease_repair, rp_lease_find_acked; native/src/group.c: locked, rp_repair_groups.
 * RUN -DDEATHS=1 -DEXPIRIES=1 -DNACKS=1
 * RUN -DENTRIES=2 -DFRAMES=3 -DMOST=3 -DDEATHS=1 -DEXPIRIES=0 -DNACKS=2
 * RUN -DFRAMES=3 -DDEATHS=2 -DEXPIRIES=0 -DNACKS=1
 * LARGE -DDEATHS=2 -DEXPIRIES=1 -DNACKS=1
 * LARGE -DENTRIES=2 -DFRAMES=3 -DMOST=3 -DDEATHS=1 -DEXPIRIES=1 -DNACKS=2
 * LARGE -DFRAMES=3 -DMOST=3 -DDEATHS=1 -DEXPIRIES=0 -DNACKS=2
 * MUTANTS -DENTRIES=2 -DFRAMES=3 -DMOST=3 -DDEATHS=1 -DEXPIRIES=1 -DNACKS=2
 *
 * The frames are all there from the start (append.pml); a lease has room for three of them. Two consumers receive one
 * frame or more at once, one of them with a deadline, and then ack or give back what they like; each may be killed. What
 * rp_keep_order() does not divide is one step. There are two times, now and after all this; a deadline passes whenever it
 * likes, not often. Checked, each time that the group is unlocked: each frame that was handed out and not acked is in one
 * lease, all others are in none. An ack counts only if nobody got the frame later; `acked` passes nothing that is not
 * acked; nothing is handed out that lies below it; a full table does not keep what is due; at the end all is acked.
 */
#define N        2
#define VICTIMS  2
#include "death.h"

#ifndef FRAMES
#define FRAMES   4
#endif
#ifndef ENTRIES
#define ENTRIES  4 /* of the table; the first half is for handing out, three quarters for sharing */
#endif
#define WIDTH    3 /* frames of a lease */
#ifndef MOST
#define MOST     2 /* receipts of a consumer */
#endif
#define ALL      ((1 << FRAMES) - 1)
#define NONE     99
#define RETURNED 9
#define BIT(i)   (1 << (i))
#define MINE     (me + 1)
#define IS_DEAD(o) ((o) != 0 && (o) != RETURNED && killed[(o) - 1])

byte lock = 0, read = 0, acked = 0, top = 0, tip = 0;
byte owner[4], first[4], pending[4], id[4], deliveries[4]; /* deliveries: 2 is many */
bool later[4]; /* deadline_ns */

byte held[N], r_entry[N * MOST], r_id[N * MOST], r_frame[N * MOST]; /* receipts: each consumer has its own */
#define MY(i)       (me * MOST + (i))

byte settled = 0;      /* ghosts: which frames were acked; of which receipts somebody else has a newer one */
bool r_old[N * MOST];
byte expiries = 0, nacks = 0;

#define IS_DUE(e)   (e < top && owner[e] == RETURNED && !later[e])
#define SOME_DUE    (IS_DUE(0) || IS_DUE(1) || IS_DUE(2) || IS_DUE(3))
#define SOME_DEAD   (IS_DEAD(owner[0]) || IS_DEAD(owner[1]) || IS_DEAD(owner[2]) || IS_DEAD(owner[3]))
#define SOME_LATE   (expiries < EXPIRIES && (later[0] || later[1] || later[2] || later[3]))
/* find_free_for_hand_out: one of the first half, which is not the only free one */
#define FREES       ((owner[0] == 0) + (owner[1] == 0) + (owner[2] == 0) + (owner[3] == 0) - (4 - ENTRIES))
#define SOME_NEW    (read < FRAMES && FREES > 1 && (owner[0] == 0 || (ENTRIES > 2 && owner[1] == 0)))
#define WORK        (SOME_DUE || SOME_DEAD || SOME_NEW)

/* What others may do without the lock is to overwrite what lies below `acked`. */
inline store_acked(value) {
    acked = value;
    for (z : 0 .. FRAMES - 1) { assert(z >= acked || (settled & BIT(z))) };
    z = 0;
    MAY_DIE
}

/* rp_lease_move_acked, rp_lease_find_acked */
inline move_acked() {
#ifdef MUTATION_ACKED_IS_READ
    store_acked(read);
#else
    if
    :: top == 0 -> store_acked(read)
    :: else ->
       d_step {
           y = top;
           do
           :: y > 0 && owner[y - 1] == 0 -> y--
           :: else -> break
           od;
           top = y; y = read;
           for (z : 0 .. ENTRIES - 1) {
               if
               :: z < top && owner[z] != 0 && first[z] < y -> y = first[z]
               :: else
               fi
           };
           z = 0
       };
       if
       :: y > acked -> store_acked(y)
       :: else
       fi;
       y = 0
    fi
#endif
}

/* The lock's last holder died. */
inline repair() {
    w = 0;
    do
    :: w < top ->
       if
       :: owner[w] != 0 ->
          d_step { /* handed_out, elsewhere */
              y = pending[w]; z = 0;
              do
              :: z < WIDTH ->
#ifndef MUTATION_REPAIR_KEEPS_WHAT_NOBODY_GOT
                 if
                 :: first[w] + z >= read -> y = y & ~BIT(z)
                 :: else
                 fi;
#endif
                 z++
              :: else -> break
              od;
              z = 0;
#ifndef MUTATION_REPAIR_KEEPS_BOTH
              do
              :: z < top && !(owner[w] == RETURNED && z == w) ->
                 if
                 :: owner[z] == RETURNED && first[z] == first[w] -> y = y & ~pending[z]
                 :: else
                 fi;
                 z++
              :: else -> break
              od;
#endif
              z = 0
          };
          pending[w] = y;
          MAY_DIE;
          if
          :: y == 0 -> owner[w] = 0; MAY_DIE
          :: else
          fi;
          y = 0
       :: else
       fi;
       w++
    :: else -> break
    od;
    w = 0;
    tip = 0;
    move_acked()
}

/* Leaves the entry in `e`, or NONE. */
inline find_free(most) {
    d_step {
        e = NONE; z = 0;
        do
        :: z < top && z < most && e == NONE ->
           if
           :: owner[z] == 0 -> e = z
           :: else
           fi;
           z++
        :: else -> break
        od;
        z = 0;
        if
        :: e == NONE && top < most -> e = top; top++
        :: else
        fi
    }
}

inline return_lease(at) {
#ifndef MUTATION_RETURNED_BEFORE_ITS_DEADLINE
    later[at] = false;
    MAY_DIE;
    owner[at] = RETURNED;
#else
    owner[at] = RETURNED;
    MAY_DIE;
    later[at] = false;
#endif
    MAY_DIE
}

inline look_over() {
    w = 0;
    do
    :: w < top ->
       if
       :: IS_DEAD(owner[w]) -> return_lease(w)
       :: owner[w] != 0 && owner[w] != RETURNED && later[w] && expiries < EXPIRIES -> expiries++; return_lease(w)
       :: !IS_DEAD(owner[w])
       fi;
       w++
    :: else -> break
    od;
    w = 0
}

/* Two returned ones of the same frames become one; the other is free: `e`, or NONE. */
inline merge_any(kept) {
    d_step {
        e = NONE; into = NONE; z = 1;
        do
        :: z < top && e == NONE ->
           y = 0;
           do
           :: y < z && e == NONE ->
              if
              :: owner[z] == RETURNED && owner[y] == RETURNED && first[z] == first[y] ->
                 if
                 :: z == kept -> into = z; e = y
                 :: else -> into = y; e = z
                 fi
              :: else
              fi;
              y++
           :: else -> break
           od;
           z++
        :: else -> break
        od;
        y = 0; z = 0
    };
    if
    :: e != NONE ->
       later[into] = later[into] || later[e];
#ifndef MUTATION_MERGE_FREES_FIRST
       pending[into] = pending[into] | pending[e];
       MAY_DIE;
       owner[e] = 0;
#else
       owner[e] = 0;
       MAY_DIE;
       pending[into] = pending[into] | pending[e];
#endif
       MAY_DIE
    :: else
    fi;
    into = 0
}

/* write_receipts: what is in `bits` of entry `e` is ours. */
inline write_receipts() {
    d_step {
        z = 0;
        do
        :: z < WIDTH ->
           if
           :: bits & BIT(z) ->
              for (y : 0 .. N * MOST - 1) { r_old[y] = r_old[y] || (y % MOST < held[y / MOST] && r_frame[y] == first[e] + z) };
              y = MY(held[me]);
              r_entry[y] = e; r_id[y] = id[e]; r_frame[y] = first[e] + z; r_old[y] = false;
              held[me]++
           :: else
           fi;
           z++
        :: else -> break
        od;
        y = 0; z = 0
    }
}

inline add_bits() {
    if
    :: e != NONE && bits != 0 ->
       pending[e] = pending[e] | bits;
       write_receipts();
       MAY_DIE
    :: else
    fi;
    bits = 0
}

inline fill_in(at, what, often) {
    pending[at] = what; id[at]++; deliveries[at] = often; later[at] = deadline;
    MAY_DIE
}

/* H1 */
inline start_lease() {
    if
    :: SOME_NEW -> find_free(ENTRIES / 2); first[e] = p; fill_in(e, 0, 1); owner[e] = MINE; tip = e + 1; MAY_DIE
    :: else -> e = NONE
    fi
}

/* H1 to H3 */
inline hand_out() {
    p = read; e = NONE; bits = 0; count = held[me];
    if
    :: tip > 0 && tip <= top && owner[tip - 1] == MINE && deliveries[tip - 1] == 1 && !deadline && !later[tip - 1] &&
       p - first[tip - 1] < WIDTH -> e = tip - 1
    :: else
    fi;
    do
    :: p < FRAMES && count < limit ->
       if
       :: e == NONE || p - first[e] >= WIDTH ->
          add_bits();
          start_lease();
          if
          :: e == NONE -> break
          :: else
          fi
       :: else
       fi;
       assert(p >= acked);
       bits = bits | BIT(p - first[e]); count++; p++
    :: else -> break
    od;
#ifndef MUTATION_READ_BEFORE_BITS
    add_bits();
    read = p;
#else
    read = p;
    MAY_DIE;
    add_bits();
#endif
    MAY_DIE;
    move_acked()
}

/* The due one that comes first, in `from`; and as many of its frames as go, in `bits`. */
inline first_due() {
    d_step {
        from = NONE; w = NONE; z = 0;
        do
        :: z < top ->
           y = 0;
           do
           :: pending[z] != 0 && !(pending[z] & BIT(y)) -> y++
           :: else -> break
           od;
           if
           :: IS_DUE(z) && first[z] + y < w -> w = first[z] + y; from = z
           :: else
           fi;
           z++
        :: else -> break
        od;
        bits = 0; count = held[me]; z = 0;
        do
        :: from != NONE && z < WIDTH && count < limit ->
           if
           :: pending[from] & BIT(z) -> assert(first[from] + z >= acked); bits = bits | BIT(z); count++
           :: else
           fi;
           z++
        :: else -> break
        od;
        w = 0; y = 0; z = 0
    }
}

/* R1, R2; `e` is NONE if no entry was free. */
inline take_over() {
    if
    :: pending[from] == bits ->
       e = from;
#ifndef MUTATION_FILLED_IN_BEFORE_IT_IS_OURS
       owner[from] = MINE;
       MAY_DIE;
       fill_in(from, bits, (deliveries[from] == 0 -> 1 : 2))
#else
       fill_in(from, bits, (deliveries[from] == 0 -> 1 : 2));
       owner[from] = MINE;
       MAY_DIE
#endif
    :: else ->
       find_free(ENTRIES);
       if
       :: e == NONE -> merge_any(from)
       :: else
       fi;
       if
       :: e == NONE
       :: else ->
          first[e] = first[from];
          fill_in(e, bits, (deliveries[from] == 0 -> 1 : 2));
#ifndef MUTATION_OLD_BITS_FIRST
          owner[e] = MINE;
          MAY_DIE;
          pending[from] = pending[from] & ~bits;
#else
          pending[from] = pending[from] & ~bits;
          MAY_DIE;
          owner[e] = MINE;
#endif
          MAY_DIE
       fi
    fi
}

/* An entry that is held by somebody else may be the one that is missing. */
#define HELD(o) (o != 0 && o != RETURNED)
#define SOME_HELD (HELD(owner[0]) || HELD(owner[1]) || HELD(owner[2]) || HELD(owner[3]))

inline receive() {
    select(limit : held[me] + 1 .. MOST);
    deadline = me == 1;
    if
    :: SOME_DEAD || SOME_LATE -> look_over()
    :: !SOME_DEAD
    fi;
    do
    :: held[me] < limit && SOME_DUE ->
       first_due();
       take_over();
       if
       :: e == NONE -> assert(SOME_HELD); break /* else nobody ever gets it */
       :: else -> write_receipts()
       fi
    :: else -> break
    od;
    if
    :: held[me] < limit && read < FRAMES -> hand_out()
    :: else
    fi;
    limit = 0; deadline = false; from = 0; e = 0; p = 0; bits = 0; count = 0
}

/* find_held, of receipt `i` */
#define R_BIT(i) BIT(r_frame[MY(i)] - first[r_entry[MY(i)]])
#ifndef MUTATION_ANY_ID
#define FIND_HELD(i) (r_entry[MY(i)] < top && owner[r_entry[MY(i)]] == MINE && id[r_entry[MY(i)]] == r_id[MY(i)] && \
                      (pending[r_entry[MY(i)]] & R_BIT(i)))
#else
#define FIND_HELD(i) (r_entry[MY(i)] < top && owner[r_entry[MY(i)]] == MINE && r_frame[MY(i)] >= first[r_entry[MY(i)]] && \
                      (pending[r_entry[MY(i)]] & R_BIT(i)))
#endif

inline forget(i) {
    d_step {
        held[me]--;
        y = MY(held[me]);
        r_entry[MY(i)] = r_entry[y]; r_id[MY(i)] = r_id[y]; r_frame[MY(i)] = r_frame[y]; r_old[MY(i)] = r_old[y];
        r_entry[y] = 0; r_id[y] = 0; r_frame[y] = 0; r_old[y] = false;
        y = 0
    }
}

/* S1 to S3, of `count` receipts */
inline settle() {
    freed = false;
    do
    :: count > 0 ->
       select(w : 0 .. held[me] - 1);
       if
       :: FIND_HELD(w) ->
          e = r_entry[MY(w)];
          assert(!r_old[MY(w)] && !(settled & BIT(r_frame[MY(w)])));
          pending[e] = pending[e] & ~R_BIT(w);
          settled = settled | BIT(r_frame[MY(w)]);
          MAY_DIE;
          if
          :: pending[e] == 0 -> owner[e] = 0; freed = true; MAY_DIE
          :: else
          fi
       :: else
       fi;
       forget(w);
       count--
    :: else -> break
    od;
    if
    :: freed -> move_acked()
    :: else
    fi;
    freed = false; w = 0; e = 0
}

/* Finds a returned one of the same frames, in `from`, or NONE. */
inline find_returned() {
    d_step {
        from = NONE; z = 0;
        do
        :: z < top ->
           if
           :: from == NONE && owner[z] == RETURNED && first[z] == first[e] -> from = z
           :: else
           fi;
           z++
        :: else -> break
        od;
        z = 0
    }
}

/* deliveries_after */
#define AFTER (unseen && deliveries[e] > 0 -> deliveries[e] - 1 : deliveries[e])

/* G2: `bits` of entry `e`, into one that is alike, another one, or any that was returned. */
inline return_some() {
    w = e;
    find_returned();
    if
    :: from != NONE && deliveries[from] == AFTER -> skip /* returned for about the same time, too */
    :: from != NONE -> find_free(3 * ENTRIES / 4)
    :: from == NONE ->
       find_free(ENTRIES);
       if
       :: e == NONE -> merge_any(NONE)
       :: else
       fi
    fi;
    if
    :: e != NONE && e != w ->
       p = e; e = w;
       first[p] = first[e];
       pending[p] = bits; deliveries[p] = AFTER;
       return_lease(p);
       pending[e] = pending[e] & ~bits;
       MAY_DIE;
       p = 0
    :: else ->
       e = w;
       if
       :: from != NONE ->
#ifndef MUTATION_GIVEN_BACK_BEFORE_IT_IS_ELSEWHERE
          pending[from] = pending[from] | bits;
          MAY_DIE;
          pending[e] = pending[e] & ~bits;
#else
          pending[e] = pending[e] & ~bits;
          MAY_DIE;
          pending[from] = pending[from] | bits;
#endif
          MAY_DIE
       :: else -> bits = 0 /* RP_NO_SLOT */
       fi
    fi;
    w = 0; from = 0
}

/* Of any receipt, and of the first one too if that is of the same lease. */
inline give_back() {
    select(count : 0 .. held[me] - 1);
    e = r_entry[MY(count)];
    if
    :: FIND_HELD(count) ->
       bits = R_BIT(count);
       if
       :: count > 0 && r_entry[MY(0)] == e && FIND_HELD(0) -> bits = bits | R_BIT(0)
       :: true
       fi;
       unseen = me == 0;
       if
       :: pending[e] == bits -> deliveries[e] = AFTER; return_lease(e)
       :: else -> return_some()
       fi
    :: else
    fi;
    do /* what it could not give back it keeps, and acks */
    :: held[me] > 0 && !FIND_HELD(held[me] - 1) -> count = held[me] - 1; forget(count)
    :: held[me] > 1 && FIND_HELD(1) && !FIND_HELD(0) -> count = 0; forget(count)
    :: else -> break
    od;
    count = 0; bits = 0; e = 0; unseen = false
}

inline unlock() {
    d_step {
        z = 0;
        do
        :: z < FRAMES ->
           y = 0; w = 0;
           do
           :: w < top ->
              if
              :: owner[w] != 0 && z >= first[w] && z - first[w] < WIDTH && (pending[w] & BIT(z - first[w])) -> y++
              :: else
              fi;
              w++
           :: else -> break
           od;
           assert(y == (z < read && !(settled & BIT(z))));
           z++
        :: else -> break
        od;
        w = 0;
        do /* what makes no difference to anybody is made no difference for the search */
        :: w < ENTRIES ->
           if
           :: owner[w] == 0 -> first[w] = 0; pending[w] = 0; deliveries[w] = 0; later[w] = false
           :: else
           fi;
           y = 0;
           for (z : 0 .. N * MOST - 1) { y = y + (z % MOST < held[z / MOST] && r_entry[z] == w) };
           if
           :: y == 0 -> id[w] = 0
           :: else
           fi;
           w++
        :: else -> break
        od;
        y = 0; w = 0; z = 0;
        lock = 0
    }
}

proctype consumer(byte me) {
    byte e, from, into, p, bits, limit, count, w, y, z;
    bool died, deadline, freed, unseen;
    do
    :: settled == ALL -> break
    :: atomic {
           settled != ALL && (lock == 0 || killed[lock - 1]) && (held[me] > 0 || WORK || lock != 0) ->
           died = lock != 0; lock = MINE;
           MAY_DIE;
           if
           :: died -> died = false; repair()
           :: else
           fi;
           if
           :: held[me] < MOST && (WORK || SOME_LATE) -> receive()
           :: held[me] > 0 -> select(count : 1 .. held[me]); settle()
           :: held[me] > 0 && nacks < NACKS -> nacks++; give_back()
           :: held[me] == 0 && !WORK
           fi;
           unlock();
           MAY_DIE
       }
    od;
    goto end;
dead:
    atomic {
        held[me] = 0;
        for (z : MY(0) .. MY(MOST - 1)) { r_entry[z] = 0; r_id[z] = 0; r_frame[z] = 0; r_old[z] = false };
        e = 0; from = 0; into = 0; p = 0; bits = 0; limit = 0; count = 0; w = 0; y = 0; z = 0;
        died = false; deadline = false; freed = false; unseen = false
    };
end:
    skip
}

init {
    byte w, y, z, me;
    atomic {
        run consumer(0);
        run consumer(1)
    };
    timeout ->
    atomic {
        deaths = DEATHS;
        if
        :: killed[0] && killed[1]
        :: else ->
           assert(settled == ALL);
           if
           :: lock != 0 && acked != read -> repair() /* a producer that lacks room: rp_repair_groups */
           :: else
           fi;
           assert(acked == FRAMES && read == FRAMES)
        fi
    };
dead:
    skip
}
