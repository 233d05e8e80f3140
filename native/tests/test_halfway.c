/* Each step of the protocol, left half finished: the words are written as a process that died there left them.
 * Whatever it was, others go on at once, and nothing is lost, doubled or out of order.
 */
#include <fcntl.h>

#include "inside.h"
#include "messages.h"
#include "stored.h"
#include "threads.h"

#define GRANULES 8                /* of a small log */
#define AT_ONCE  (900 * SLOWNESS) /* ms: the death is found after the first slice, 1 ms; not after many */

/* ---- a log with a past, and somebody dead --------------------------------------------------- */

/* Every message carries its sequence as its number. */
typedef struct world {
    rp_log *log;
    uint32_t dead;
    uint32_t other;    /* a second group */
    uint64_t put;      /* messages that are in */
    uint64_t taken[2]; /* of group 0 and of the other one */
} world;

static void put_one(world *w) { put_number(w->log, w->put++); }

static uint32_t group_of(const world *w, int which) { return which ? w->other : RP_QUEUE_GROUP; }

static void take_one(world *w, int which) {
    numbered got;
    rp_taken taken;
    int64_t deadline = in_ms(BOUND_MS);
    CHECK_OK(UNTIL(deadline, rp_take(w->log, group_of(w, which), &got, sizeof got, 1, deadline, &taken)));
    CHECK_EQ(taken.count, 1);
    CHECK_EQ(got.frame.sequence, w->taken[which]);
    CHECK_EQ(got.number, w->taken[which]);
    w->taken[which]++;
}

static void take_all(world *w, int which) {
    uint64_t number;
    while (w->taken[which] < w->put) take_one(w, which);
    CHECK_IS(try_take_number(w->log, group_of(w, which), &number), RP_EMPTY);
}

static uint64_t ring_holds(const world *w) {
    return (w->log->geometry.ring_size - RP_STUB) / sizeof(numbered);
}

static void check_unlocked(const world *w) {
    CHECK_EQ(rp_load_relaxed(&w->log->head->lock), 0);
    for (int g = 0; g < 2; g++) CHECK_EQ(rp_load_relaxed(&w->log->groups[group_of(w, g)].lock), 0);
}

/* Two laps of everything, in step, then the ring filled to its end. */
static void check_goes_on(world *w) {
    uint64_t ready, end = w->put + 2 * ring_holds(w);
    CHECK_OK(rp_ready(w->log, &ready));
    CHECK_EQ(ready, w->put - w->taken[0]);
    while (w->put < end) {
        for (int g = 0; g < 2; g++)
            if (w->put > w->taken[g]) take_one(w, g);
        put_one(w);
    }
    for (int g = 0; g < 2; g++) take_all(w, g);
    check_invariants(w->log);
    for (uint64_t i = 0; i < ring_holds(w); i++) CHECK_OK(try_put_number(w->log, w->put++));
    CHECK_IS(try_put_number(w->log, 0), RP_FULL);
    for (int g = 0; g < 2; g++) take_all(w, g);
    check_invariants(w->log);
    check_unlocked(w);
    check_pool_is_whole(w->log);
}

enum { FRESH, SOME, FULL, EMPTIED, SITUATIONS };

static world make_world(int situation, bool keep_history) {
    world w = {.log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .keep_history = keep_history})};
    CHECK_OK(open_group(w.log, "other", true, RP_NOW, &w.other));
    w.dead = dead_owner(w.log);
    if (situation == FRESH) return w;
    uint64_t before =
        situation == SOME ? 10 : ring_holds(&w) * 5 / 2; /* the next frame lies somewhere inside */
    for (uint64_t i = 0; i < before; i++) {
        put_one(&w);
        if (situation == SOME && i >= 3) continue;
        for (int g = 0; g < 2; g++) take_one(&w, g);
    }
    while (situation == FULL && try_put_number(w.log, w.put) == RP_OK) w.put++;
    return w;
}

static void end_world(world *w) {
    rp_detach(w->log);
    CHECK_OK(rp_remove(log_path()));
}

/* ---- appending ------------------------------------------------------------------------------ */

static uint64_t room(const world *w) {
    return w->log->geometry.ring_size - RP_STUB -
           (rp_load_relaxed(&w->log->head->tail) - rp_least_acked(w->log));
}

static void hold(world *w, rp_lock *lock) { rp_store_relaxed(lock, w->dead); }

static void lock_producers(world *w) { hold(w, &w->log->head->lock); }

/* A1: the caches of what the groups have done are new, one of them or both. */
static void half_refreshed(world *w) {
    lock_producers(w);
    rp_store_relaxed(&w->log->head->limit, rp_least_acked(w->log));
}

static void refreshed(world *w) {
    half_refreshed(w);
    if (w->log->geometry.max_messages) rp_store_relaxed(&w->log->head->limit_sequence, w->taken[0]);
}

/* A2: as much as may be given up, though nothing is written yet. */
static void oldest_advanced(world *w) {
    refreshed(w);
    rp_store_relaxed(&w->log->head->oldest, rp_least_acked(w->log));
}

/* A3: the bytes of a frame, but of the stub's sequence, which is right already. */
static void scribble(world *w, uint64_t from, uint64_t bytes) {
    uint8_t *at = (uint8_t *)rp_frame_at(w->log, rp_load_relaxed(&w->log->head->tail));
    for (uint64_t i = from; i < bytes; i++)
        if (i < offsetof(rp_frame, sequence) || i >= offsetof(rp_frame, time_ns))
            at[i] = (uint8_t)(i * 37 + 1);
}

static void header_begun(world *w) {
    oldest_advanced(w);
    scribble(w, 0, sizeof(rp_frame) / 2);
}

static void much_written(world *w) { /* a batch: all that is free */
    oldest_advanced(w);
    scribble(w, 0, room(w) + RP_STUB);
}

static void write_frame(world *w, uint64_t at, uint64_t number) {
    numbered *to = (numbered *)rp_frame_at(w->log, at);
    *to = (numbered){.frame = {.size = sizeof(rp_frame) + 8, .sequence = number}, .number = number};
}

/* `count` frames behind the tail, without the stub. */
static uint64_t write_frames(world *w, uint64_t count) {
    uint64_t at = rp_load_relaxed(&w->log->head->tail);
    oldest_advanced(w);
    CHECK(count * sizeof(numbered) <= room(w));
    for (uint64_t i = 0; i < count; i++) write_frame(w, at + i * sizeof(numbered), w->put + i);
    return at + count * sizeof(numbered);
}

static uint64_t write_frames_and_stub(world *w, uint64_t count) {
    uint64_t end = write_frames(w, count);
    rp_frame *stub = rp_frame_at(w->log, end);
    memset(stub, 0x5a, sizeof *stub);
    stub->sequence = w->put + count;
    return end;
}

static void frame_written(world *w) { write_frames(w, 1); }
static void frames_written(world *w) { write_frames(w, 7); }
static void stub_written(world *w) { write_frames_and_stub(w, 1); }
static void stub_written_behind_many(world *w) { write_frames_and_stub(w, 7); }

/* A4 */
static void move_tail(world *w, uint64_t count) {
    uint64_t end = write_frames_and_stub(w, count);
    rp_store_relaxed(&w->log->head->tail, end);
    w->put += count;
}

static void tail_moved(world *w) { move_tail(w, 1); }
static void tail_moved_over_many(world *w) { move_tail(w, 7); }

static void sequence_known(world *w) {
    move_tail(w, 2);
    rp_store_relaxed(&w->log->head->known_sequence, w->put);
}

static void tail_known(world *w) {
    sequence_known(w);
    rp_store_relaxed(&w->log->head->known_tail, rp_load_relaxed(&w->log->head->tail));
}

/* A5 */
static void unlocked(world *w) {
    tail_known(w);
    rp_store_relaxed(&w->log->head->lock, 0);
}

typedef struct step {
    const char *name;
    void (*leave)(world *);
    uint64_t frames; /* that there must be room for */
} step;

#define STEP(function, frames) {#function, function, frames}

static const step append_steps[] = {STEP(lock_producers, 0), STEP(half_refreshed, 0),
                                    STEP(refreshed, 0),      STEP(oldest_advanced, 0),
                                    STEP(header_begun, 1),   STEP(much_written, 1),
                                    STEP(frame_written, 1),  STEP(frames_written, 7),
                                    STEP(stub_written, 1),   STEP(stub_written_behind_many, 7),
                                    STEP(tail_moved, 1),     STEP(tail_moved_over_many, 7),
                                    STEP(sequence_known, 2), STEP(tail_known, 2),
                                    STEP(unlocked, 2)};

/* The first to come is a producer, a consumer, or the one that wants the whole pool. */
enum { PRODUCER, CONSUMER, BORROWER, FIRST_COMERS };

static bool has_room(world *w) {
    uint64_t least = w->taken[0] < w->taken[1] ? w->taken[0] : w->taken[1];
    return w->put - least < ring_holds(w);
}

static void come_first(world *w, int who) {
    rp_loan loan;
    if (who == PRODUCER) {
        if (has_room(w)) put_one(w);
        if (has_room(w)) CHECK_OK(try_put_number(w->log, w->put++)); /* nothing is in the way any more */
    } else if (who == CONSUMER) {
        for (int g = 0; g < 2; g++)
            if (w->put > w->taken[g]) take_one(w, g);
    } else {
        int64_t deadline = in_ms(BOUND_MS);
        CHECK_OK(UNTIL(deadline, rp_borrow(w->log, 1, deadline, &loan)));
        rp_abort(w->log, &loan);
    }
}

static void check_at_once(const char *what, int situation, int who, int64_t start) {
    if (ms_since(start) > AT_ONCE) fprintf(stderr, "%s, situation %d, first %d: ", what, situation, who);
    CHECK_SOON(ms_since(start), AT_ONCE);
}

static void check_append_steps(bool keep_history) {
    for (size_t s = 0; s < COUNT(append_steps); s++)
        for (int situation = 0; situation < SITUATIONS; situation++)
            for (int who = 0; who < FIRST_COMERS; who++) {
                world w = make_world(situation, keep_history);
                for (uint64_t i = 0; situation == FULL && i < append_steps[s].frames; i++)
                    for (int g = 0; g < 2; g++) take_one(&w, g);
                append_steps[s].leave(&w);
                int64_t start = rp_monotonic_ns();
                come_first(&w, who);
                check_at_once(append_steps[s].name, situation, who, start);
                check_goes_on(&w);
                end_world(&w);
            }
}

static void appending(void) { check_append_steps(false); }
static void appending_with_history(void) { check_append_steps(true); }

/* The cache of messages that were taken is one store behind the cache of bytes. */
static void appending_so_many_at_most(void) {
    for (size_t s = 0; s < COUNT(append_steps); s++) {
        world w = {.log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .max_messages = 9})};
        w.dead = dead_owner(w.log);
        for (int i = 0; i < 5; i++) put_one(&w);
        for (int i = 0; i < 3; i++) take_one(&w, 0);
        append_steps[s].leave(&w);
        for (int lap = 0; lap < 3; lap++) {
            while (w.put - w.taken[0] < 9) put_one(&w);
            CHECK_IS(put_bytes(w.log, "", 1, RP_NOW), RP_FULL);
            take_one(&w, 0);
            put_one(&w);
            CHECK_IS(try_put_number(w.log, 0), RP_FULL);
            take_all(&w, 0);
        }
        check_invariants(w.log);
        end_world(&w);
    }
}

/* ---- taking --------------------------------------------------------------------------------- */

static int victim; /* 0 or 1: the group whose consumer died */

static rp_group *victims(const world *w) { return &w->log->groups[group_of(w, victim)]; }

/* T1 to T3 */
static void lock_group(world *w) { hold(w, &victims(w)->lock); }

static void tail_seen(world *w) {
    lock_group(w);
    rp_store_relaxed(&victims(w)->seen, rp_load_relaxed(&w->log->head->tail));
}

/* T4: what it had taken dies with it. */
static void read_moved_by(world *w, uint64_t count) {
    tail_seen(w);
    rp_store_relaxed(&victims(w)->read, rp_load_relaxed(&victims(w)->read) + count * sizeof(numbered));
    w->taken[victim] += count;
}

static void read_moved(world *w) { read_moved_by(w, 1); }
static void read_moved_over_many(world *w) { read_moved_by(w, 5); }

static void acked_moved(world *w) {
    read_moved_by(w, 2);
    rp_store_relaxed(&victims(w)->acked, rp_load_relaxed(&victims(w)->read));
}

/* T5 */
static void let_go(world *w) {
    acked_moved(w);
    rp_store_relaxed(&victims(w)->lock, 0);
}

/* Both at once: a producer that died in A3, and a consumer that died in T4. */
static void read_moved_and_frame_written(world *w) {
    if (has_room(w))
        write_frames_and_stub(w, 1);
    else
        lock_producers(w);
    read_moved(w);
}

static const step take_steps[] = {STEP(lock_group, 0),
                                  STEP(tail_seen, 0),
                                  STEP(read_moved, 1),
                                  STEP(read_moved_over_many, 5),
                                  STEP(acked_moved, 2),
                                  STEP(let_go, 2),
                                  STEP(read_moved_and_frame_written, 1)};

static void check_take_steps(bool keep_history) {
    for (size_t s = 0; s < COUNT(take_steps); s++)
        for (int situation = 0; situation < SITUATIONS; situation++)
            for (int who = 0; who < FIRST_COMERS; who++)
                for (victim = 0; victim < 2; victim++) {
                    world w = make_world(situation, keep_history);
                    if (w.put - w.taken[victim] < take_steps[s].frames) {
                        end_world(&w);
                        continue;
                    }
                    /* the dead one's group is the only one that holds the producers back */
                    for (int i = 0; situation == FULL && i < 6; i++) take_one(&w, !victim);
                    take_steps[s].leave(&w);
                    int64_t start = rp_monotonic_ns();
                    come_first(&w, who);
                    check_at_once(take_steps[s].name, situation, who, start);
                    check_goes_on(&w);
                    end_world(&w);
                }
}

static void taking(void) { check_take_steps(false); }
static void taking_with_history(void) { check_take_steps(true); }

/* A put that does not wait has a second for the locks of the dead, and uses it to repair. */
static void a_put_that_does_not_wait_repairs_too(void) {
    world w = make_world(FULL, false);
    victim = 0;
    take_one(&w, 1);
    read_moved(&w);
    CHECK_OK(try_put_number(w.log, w.put));
    w.put++;
    check_goes_on(&w);
}

/* It had taken all there was. Who finds nothing left has the lock, and with it the duty to repair. */
static void all_was_taken(void) {
    for (victim = 0; victim < 2; victim++) {
        world w = make_world(FULL, false);
        uint64_t number;
        take_all(&w, !victim);
        read_moved_by(&w, w.put - w.taken[victim]);
        CHECK_IS(take_number_until(w.log, group_of(&w, victim), in_ms(20), &number), RP_EMPTY);
        check_goes_on(&w);
        end_world(&w);
    }
}

/* ---- the pool ------------------------------------------------------------------------------- */

/* Granules from `base` on are the dead one's business; before them lies what is alive. */
static uint32_t base;

static uint32_t rest(void) { return GRANULES - base; }
static void hold_pool(world *w) { hold(w, &w->log->head->pool_lock); }
static void set_next(world *w, uint32_t at) { rp_store_relaxed(&w->log->head->pool_next, at); }

static void pool_locked(world *w) { hold_pool(w); }

static void split_begun(world *w) {
    hold_pool(w);
    set_chunk(w->log, base + 2, RP_CHUNK_FREE, rest() - 2, 0);
}

static void split_and_lent(world *w) {
    split_begun(w);
    set_chunk(w->log, base, RP_CHUNK_LOANED, 2, w->dead);
}

static void next_moved(world *w) {
    split_and_lent(w);
    set_next(w, base + 2);
}

static void lent(world *w) {
    next_moved(w);
    rp_store_relaxed(&w->log->head->pool_lock, 0);
}

static void lent_all(world *w) {
    set_chunk(w->log, base, RP_CHUNK_LOANED, rest(), w->dead);
    set_next(w, 0);
}

static void lent_piece_by_piece(world *w) {
    for (uint32_t at = base; at < GRANULES; at++) set_chunk(w->log, at, RP_CHUNK_LOANED, 1, w->dead);
    set_next(w, 0);
}

static void freed_piece_by_piece(world *w) { /* in the middle of reclaiming */
    hold_pool(w);
    lent_piece_by_piece(w);
    for (uint32_t at = base; at < GRANULES; at += 2) set_chunk(w->log, at, RP_CHUNK_FREE, 1, 0);
}

static void join_begun(world *w) {
    hold_pool(w);
    set_chunk(w->log, base + 1, RP_CHUNK_FREE, rest() - 1, 0);
    set_chunk(w->log, base, RP_CHUNK_FREE, 1, 0);
    set_next(w, base);
}

static void joined(world *w) {
    join_begun(w);
    set_chunk(w->log, base, RP_CHUNK_FREE, rest(), 0); /* the inner head means nothing now */
}

static void position_stored(world *w) {
    lent(w);
    lock_producers(w);
    rp_store_relaxed(&w->log->chunks[base].position, rp_load_relaxed(&w->log->head->tail));
}

static void published(world *w) {
    position_stored(w);
    set_chunk(w->log, base, RP_CHUNK_PUBLISHED, 2, w->dead);
}

static void write_large_frame(world *w) {
    uint64_t tail = rp_load_relaxed(&w->log->head->tail);
    rp_frame *frame = rp_frame_at(w->log, tail);
    published(w);
    fill(w->log->pool + (uint64_t)base * RP_GRANULE, 2 * RP_GRANULE, w->put);
    *frame = (rp_frame){
        .size = sizeof *frame + sizeof(rp_descriptor), .flags = RP_FRAME_LARGE, .sequence = w->put};
    *(rp_descriptor *)(frame + 1) = (rp_descriptor){.length = 2 * RP_GRANULE, .first = base, .granules = 2};
    rp_frame_at(w->log, tail + sizeof(numbered))->sequence = w->put + 1;
}

static const step pool_steps[] = {STEP(pool_locked, 0),
                                  STEP(split_begun, 0),
                                  STEP(split_and_lent, 0),
                                  STEP(next_moved, 0),
                                  STEP(lent, 0),
                                  STEP(lent_all, 0),
                                  STEP(lent_piece_by_piece, 0),
                                  STEP(freed_piece_by_piece, 0),
                                  STEP(join_begun, 0),
                                  STEP(joined, 0),
                                  STEP(position_stored, 0),
                                  STEP(published, 0),
                                  STEP(write_large_frame, 0)};

enum { NOTHING_ALIVE, A_MESSAGE, A_LOAN, AN_IDLERS_LOAN, LIVES };

/* All that the dead had is there to be lent, in one piece, and nothing else. */
static void check_lends(world *w, uint32_t granules) {
    rp_loan loan;
    int64_t start = rp_monotonic_ns(), deadline = in_ms(BOUND_MS);
    CHECK_OK(UNTIL(deadline, rp_borrow(w->log, (uint64_t)granules * RP_GRANULE, deadline, &loan)));
    CHECK_SOON(ms_since(start), AT_ONCE);
    CHECK_EQ(loan.first, GRANULES - granules);
    memset(loan.data, 0xee, loan.length);
    rp_abort(w->log, &loan);
}

static void check_large_messages(world *w) {
    for (uint64_t i = 0; i < 20; i++) {
        size_t size = RP_INLINE_MAX + 1 + i * 2500;
        CHECK_OK(put_filled(w->log, i, size, in_ms(BOUND_MS)));
        CHECK_OK(take_filled(w->log, 0, i, size, in_ms(BOUND_MS)));
    }
    check_pool_is_whole(w->log);
    check_invariants(w->log);
}

static void lending(void) {
    for (size_t s = 0; s < COUNT(pool_steps); s++)
        for (int alive = 0; alive < LIVES; alive++)
            for (int producer_first = 0; producer_first < 2; producer_first++) {
                world w = {.log = small_log()};
                rp_loan loan = {0};
                w.dead = dead_owner(w.log);
                base = alive ? 3 : 0;
                pid_t idler = 0;
                uint32_t owner;
                if (alive == A_MESSAGE) CHECK_OK(put_filled(w.log, w.put++, 20000, RP_NOW));
                if (alive == A_LOAN || alive == AN_IDLERS_LOAN)
                    CHECK_OK(rp_borrow(w.log, 20000, RP_NOW, &loan));
                if (alive == AN_IDLERS_LOAN) { /* in the slot that the dead one had */
                    idler = start_idler(w.log, &owner);
                    set_chunk(w.log, 0, RP_CHUNK_LOANED, 3, owner);
                }
                pool_steps[s].leave(&w);
                if (producer_first) put_one(&w); /* where the dead one's frame would have been */
                if (alive == A_MESSAGE) CHECK_OK(take_filled(w.log, 0, w.taken[0]++, 20000, in_ms(BOUND_MS)));
                if (producer_first) take_one(&w, 0);
                if (alive == A_MESSAGE) {
                    check_lends(&w, GRANULES);
                } else {
                    CHECK_IS(rp_borrow(w.log, GRANULES * RP_GRANULE, -in_ms(BOUND_MS), &loan),
                             alive ? RP_FULL : RP_OK);
                    if (!alive) rp_abort(w.log, &loan);
                    check_lends(&w, rest());
                }
                if (alive == A_LOAN) rp_abort(w.log, &loan);
                if (idler) kill_process(idler);
                check_large_messages(&w);
                end_world(&w);
            }
}

/* What the dead one committed is a message like any other, though its owner is dead. */
static void a_committed_run_outlives_its_owner(void) {
    for (int known = 0; known < 3; known++)
        for (int others = 0; others < 2; others++) {
            world w = {.log = small_log()};
            rp_loan loan;
            base = 0;
            w.dead = dead_owner(w.log);
            write_large_frame(&w);
            rp_store_relaxed(&w.log->head->tail, sizeof(numbered));
            w.put = 1;
            if (known > 0) rp_store_relaxed(&w.log->head->known_sequence, 1);
            if (known > 1) rp_store_relaxed(&w.log->head->known_tail, sizeof(numbered));
            CHECK_IS(rp_borrow(w.log, GRANULES * RP_GRANULE, -in_ms(BOUND_MS), &loan), RP_FULL);
            if (others) put_one(&w);
            CHECK_OK(take_filled(w.log, 0, 0, 2 * RP_GRANULE, in_ms(BOUND_MS)));
            w.taken[0] = 1;
            if (others) take_one(&w, 0);
            check_lends(&w, GRANULES);
            put_one(&w);
            take_one(&w, 0);
            check_large_messages(&w);
            end_world(&w);
        }
}

/* Another large frame is committed where the dead one's would have been: two runs name one position. */
static void two_runs_of_one_position(void) {
    world w = {.log = small_log()};
    rp_loan loan;
    base = 0;
    w.dead = dead_owner(w.log);
    write_large_frame(&w);
    CHECK_OK(put_filled(w.log, 0, 20000, in_ms(BOUND_MS)));
    CHECK_EQ(w.log->chunks[0].position, w.log->chunks[2].position);
    CHECK_IS(rp_borrow(w.log, 4 * RP_GRANULE, -in_ms(BOUND_MS), &loan), RP_FULL);
    CHECK_OK(take_filled(w.log, 0, 0, 20000, in_ms(BOUND_MS)));
    check_lends(&w, GRANULES);
    check_large_messages(&w);
}

/* ---- taking large frames -------------------------------------------------------------------- */

static void large_locked(world *w) {
    victim = 0;
    tail_seen(w);
}

static void large_read(world *w) {
    victim = 0;
    read_moved_by(w, 1);
}

static void large_freed(world *w) {
    large_read(w);
    set_chunk(w->log, 0, RP_CHUNK_FREE, 3, 0);
}

static void large_freed_and_acked(world *w) {
    large_freed(w);
    rp_store_relaxed(&victims(w)->acked, rp_load_relaxed(&victims(w)->read));
}

static void large_acked(world *w) { /* for another group wanted it: reclaim will find it */
    large_read(w);
    rp_store_relaxed(&victims(w)->acked, rp_load_relaxed(&victims(w)->read));
}

static void large_left(world *w) {
    large_acked(w);
    rp_store_relaxed(&victims(w)->lock, 0);
}

static const step large_steps[] = {STEP(large_locked, 0),          STEP(large_read, 0),  STEP(large_freed, 0),
                                   STEP(large_freed_and_acked, 0), STEP(large_acked, 0), STEP(large_left, 0)};

static void taking_large_ones(void) {
    for (size_t s = 0; s < COUNT(large_steps); s++)
        for (int keep_history = 0; keep_history < 2; keep_history++)
            for (int who = 0; who < FIRST_COMERS; who++) {
                if (keep_history && large_steps[s].leave == large_freed) continue; /* history frees nothing */
                if (keep_history && large_steps[s].leave == large_freed_and_acked) continue;
                world w = {.log = create_log(
                               (rp_settings){.capacity = RP_MIN_CAPACITY, .keep_history = keep_history})};
                w.dead = dead_owner(w.log);
                for (; w.put < 2; w.put++) CHECK_OK(put_filled(w.log, w.put, 20000, RP_NOW));
                large_steps[s].leave(&w);
                int64_t start = rp_monotonic_ns();
                if (who == PRODUCER) put_one(&w);
                if (who == BORROWER && w.taken[0] == 1) { /* more than is free without the dead one's */
                    rp_loan loan;
                    int64_t deadline = in_ms(BOUND_MS);
                    CHECK_OK(UNTIL(deadline, rp_borrow(w.log, 3 * RP_GRANULE, deadline, &loan)));
                    CHECK_EQ(loan.first, 0);
                    memset(loan.data, 0xdd, loan.length);
                    rp_abort(w.log, &loan);
                }
                while (w.taken[0] < 2) CHECK_OK(take_filled(w.log, 0, w.taken[0]++, 20000, in_ms(BOUND_MS)));
                check_at_once(large_steps[s].name, keep_history, who, start);
                if (who == PRODUCER) take_one(&w, 0);
                check_lends(&w, GRANULES);
                check_large_messages(&w);
                end_world(&w);
            }
}

/* ---- locks ---------------------------------------------------------------------------------- */

static void do_put(world *w) { put_one(w); }
static void do_take(world *w) { take_one(w, 0); }

static void do_put_now(world *w) {
    CHECK_OK(put_bytes(w->log, &w->put, sizeof w->put, RP_NOW));
    w->put++;
}

static void do_borrow(world *w) {
    rp_loan loan;
    CHECK_OK(rp_borrow(w->log, 1, RP_NOW, &loan));
    rp_abort(w->log, &loan);
}

static void do_open(world *w) {
    uint32_t group;
    CHECK_OK(open_group(w->log, "new", false, RP_NOW, &group));
    CHECK_OK(rp_group_close(w->log, group, RP_NOW));
}

static void do_advance(world *w) {
    rp_range range;
    CHECK_OK(rp_group_range(w->log, 0, UINT64_MAX, sizeof(numbered), &range));
    CHECK_EQ(range.sequence, w->taken[0]);
    CHECK_OK(rp_group_advance(w->log, 0, range.end, RP_NOW));
    w->taken[0]++;
}

static void do_read(world *w) { /* asks no lock */
    rp_cursor cursor;
    rp_taken taken;
    numbered got;
    CHECK_OK(rp_cursor_open(w->log, true, &cursor));
    CHECK_OK(rp_cursor_read(w->log, &cursor, &got, sizeof got, 1, &taken));
    CHECK_OK(rp_task_done(w->log));
}

static void every_word_in_every_lock(void) {
    void (*const first[])(world *) = {do_put, do_take, do_put_now, do_borrow, do_open, do_advance, do_read};
    for (size_t f = 0; f < COUNT(first); f++)
        for (int kind = 0; kind < 5; kind++) {
            world w = make_world(SOME, false);
            const uint32_t words[] = {w.dead, w.dead | RP_LOCK_WAITERS, RP_LOCK_ORPHAN | RP_LOCK_WAITERS,
                                      RP_LOCK_ORPHAN, RP_LOCK_WAITERS};
            rp_store_relaxed(&w.log->head->lock, words[kind]);
            rp_store_relaxed(&w.log->head->pool_lock, words[kind]);
            for (int g = 0; g < 2; g++) rp_store_relaxed(&w.log->groups[group_of(&w, g)].lock, words[kind]);
            int64_t start = rp_monotonic_ns();
            first[f](&w);
            check_at_once("a lock", kind, (int)f, start);
            check_goes_on(&w);
            end_world(&w);
        }
}

typedef struct heir {
    rp_log *log;
    _Atomic uint32_t repairs;
} heir;

static void take_over_and_die(void *argument) {
    heir *all = argument;
    bool died;
    int64_t deadline = in_ms(BOUND_MS);
    uint64_t number;
    CHECK_OK(rp_ready(all->log, &number)); /* joins */
    CHECK_OK(UNTIL(deadline, rp_lock_wait(all->log, &all->log->groups[0].lock, deadline, &died)));
    if (died) atomic_fetch_add(&all->repairs, 1);
    raise(SIGKILL);
}

/* Whoever should repair may die before it did. */
static void a_death_while_repairing(void) {
    world w = make_world(FULL, false);
    heir *all = shared_memory(sizeof *all);
    all->log = w.log;
    victim = 0;
    take_one(&w, 1);
    read_moved(&w);
    for (int i = 0; i < 3; i++) wait_for(start_process(take_over_and_die, all));
    CHECK_EQ(atomic_load(&all->repairs), 3);
    put_one(&w);
    check_goes_on(&w);
}

typedef struct sleeper {
    rp_log *log;
    uint32_t group;
    uint64_t number;
    rp_status status;
    int64_t ms;
    _Atomic bool done;
} sleeper;

static void sleep_and_take(void *argument) {
    sleeper *one = argument;
    int64_t start = rp_monotonic_ns();
    one->status = take_number_until(one->log, one->group, in_ms(BOUND_MS), &one->number);
    one->ms = ms_since(start);
    atomic_store(&one->done, true);
}

static void sleep_and_put(void *argument) {
    sleeper *one = argument;
    one->status = put_bytes(one->log, &one->number, sizeof one->number, in_ms(BOUND_MS));
    atomic_store(&one->done, true);
}

static void sleep_and_join(void *argument) {
    sleeper *one = argument;
    int64_t deadline = in_ms(BOUND_MS);
    one->status = UNTIL(deadline, rp_join(one->log, deadline));
    atomic_store(&one->done, true);
}

/* Whether they were woken or not, they go on when their slice ends. */
static void check_went_on(pthread_t thread, int64_t start) {
    join_thread(thread);
    CHECK_SOON(ms_since(start), AT_ONCE);
}

static void unlocked_but_nobody_woken(void) {
    world w = make_world(SOME, false);
    uint32_t owner;
    start_idler(w.log, &owner);
    rp_lock *locks[] = {&w.log->head->lock, &w.log->groups[0].lock};
    for (int i = 0; i < 2; i++)
        for (int swallowed = 0; swallowed < 2; swallowed++) {
            sleeper one = {.log = w.log, .number = w.put};
            rp_store_relaxed(locks[i], owner);
            pthread_t thread = start_thread(i ? sleep_and_take : sleep_and_put, &one);
            EVENTUALLY(rp_load_relaxed(locks[i]) & RP_LOCK_WAITERS);
            sleep_ms(20);
            CHECK(!atomic_load(&one.done));
            int64_t start = rp_monotonic_ns();
            if (swallowed) { /* locked again, by one that did not know of sleepers, and let go */
                rp_store_relaxed(locks[i], owner);
                sleep_ms(5);
            }
            rp_store_relaxed(locks[i], 0);
            check_went_on(thread, start);
            CHECK_OK(one.status);
            if (i)
                CHECK_EQ(one.number, w.taken[0]++);
            else
                w.put++;
        }
    check_goes_on(&w);
}

/* ---- waiting -------------------------------------------------------------------------------- */

static uint64_t bit_of(uint32_t event) { return UINT64_C(1) << event; }
static bool is_armed(rp_log *log, uint32_t event) {
    return rp_load_relaxed(&log->head->armed[0]) & bit_of(event);
}

/* A waiter that died left its bit: one wake-up too many, once. */
static void armed_by_the_dead(void) {
    world w = make_world(SOME, false);
    rp_u32 *count = &w.log->groups[0].event.count, *space = &w.log->head->events[RP_EVENT_SPACE].count;
    uint32_t before = rp_load_relaxed(count), space_before = rp_load_relaxed(space);
    rp_store_relaxed(&w.log->head->armed[0], UINT64_MAX);
    rp_store_relaxed(&w.log->head->armed[1], UINT64_MAX);
    put_one(&w);
    CHECK_EQ(rp_load_relaxed(count), before + 1);
    CHECK(!is_armed(w.log, RP_LOG_EVENTS));
    put_one(&w);
    CHECK_EQ(rp_load_relaxed(count), before + 1);
    take_one(&w, 0);
    take_one(&w, 0);
    CHECK_EQ(rp_load_relaxed(space), space_before + 1);
    check_goes_on(&w);
}

/* The waker died after its store and before its wake-up, anywhere in between. */
static void a_wake_up_that_never_came(void) {
    for (int step = 0; step < 3; step++) {
        world w = make_world(EMPTIED, false);
        sleeper one = {.log = w.log, .number = UINT64_MAX};
        pthread_t thread = start_thread(sleep_and_take, &one);
        EVENTUALLY(is_armed(w.log, RP_LOG_EVENTS));
        sleep_ms(2);
        int64_t start = rp_monotonic_ns();
        tail_known(&w); /* two messages */
        if (step > 0) rp_store_relaxed(&w.log->head->lock, 0);
        if (step > 1) atomic_fetch_and(&w.log->head->armed[0], ~bit_of(RP_LOG_EVENTS));
        check_went_on(thread, start);
        CHECK_OK(one.status);
        CHECK_EQ(one.number, w.taken[0]++);
        check_goes_on(&w);
        end_world(&w);
    }
}

/* One of two sleepers was woken, and died before it passed the wake-up on. */
static void a_baton_that_was_dropped(void) {
    world w = make_world(EMPTIED, false);
    sleeper two[2] = {{.log = w.log}, {.log = w.log}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) threads[i] = start_thread(sleep_and_take, &two[i]);
    EVENTUALLY(is_armed(w.log, RP_LOG_EVENTS));
    sleep_ms(10);
    int64_t start = rp_monotonic_ns();
    unlocked(&w); /* two messages */
    atomic_fetch_and(&w.log->head->armed[0], ~bit_of(RP_LOG_EVENTS));
    atomic_fetch_add(&w.log->groups[0].event.count, 1); /* the wake-up went to the dead one */
    for (int i = 0; i < 2; i++) check_went_on(threads[i], start);
    CHECK_OK(two[0].status);
    CHECK_OK(two[1].status);
    CHECK_EQ(two[0].number + two[1].number, 2 * w.taken[0] + 1);
    CHECK(two[0].number != two[1].number);
    w.taken[0] += 2;
    check_goes_on(&w);
}

/* T5: room was made, a producer sleeps, nobody tells it. With T4 half done it must repair first. */
static void a_producer_that_was_not_woken(void) {
    const step *steps[] = {&take_steps[2], &take_steps[4], &take_steps[5]};
    for (size_t i = 0; i < COUNT(steps); i++) {
        world w = make_world(FULL, false);
        victim = 0;
        take_one(&w, 1);
        take_one(&w, 1);
        sleeper one = {.log = w.log, .number = w.put};
        pthread_t thread = start_thread(sleep_and_put, &one);
        EVENTUALLY(is_armed(w.log, RP_EVENT_SPACE));
        sleep_ms(2);
        CHECK(!atomic_load(&one.done));
        int64_t start = rp_monotonic_ns();
        steps[i]->leave(&w);
        check_went_on(thread, start);
        CHECK_OK(one.status);
        w.put++;
        check_goes_on(&w);
        end_world(&w);
    }
}

/* task_done's add, and nobody told. */
static void a_join_that_was_not_woken(void) {
    world w = make_world(SOME, false);
    sleeper one = {.log = w.log};
    pthread_t thread = start_thread(sleep_and_join, &one);
    EVENTUALLY(is_armed(w.log, RP_EVENT_JOIN));
    sleep_ms(2);
    int64_t start = rp_monotonic_ns();
    rp_store_relaxed(&w.log->head->done, w.put);
    check_went_on(thread, start);
    CHECK_OK(one.status);
    CHECK_IS(rp_task_done(w.log), RP_TOO_MANY);
    check_goes_on(&w);
}

/* ---- joining and leaving -------------------------------------------------------------------- */

/* In slot 1, which is free. What is half written there is of a process that died before it could be asked. */
static void slots_left_half(void) {
    const struct {
        uint32_t state, generation, pid;
    } halves[] = {{RP_SLOT_FREE, 0, 77},    {RP_SLOT_FREE, 5, 77},       {RP_SLOT_ACTIVE, 5, 77},
                  {RP_SLOT_LEAVING, 5, 77}, {RP_SLOT_FREE, 0xfffff, 0},  {RP_SLOT_ACTIVE, 0xfffff, 77},
                  {RP_SLOT_ACTIVE, 0, 0},   {99, 0xffffffff, 0xffffffff}};
    for (size_t i = 0; i < COUNT(halves); i++) {
        rp_log *log = small_log();
        rp_slot *slot = &log->slots[1];
        uint32_t owner;
        rp_store_relaxed(&slot->pid, halves[i].pid);
        rp_store_relaxed(&slot->generation, halves[i].generation);
        rp_store_relaxed(&slot->state, halves[i].state);
        CHECK_EQ(participants(log), 1);
        pid_t idler = start_idler(log, &owner);
        CHECK_EQ(owner & RP_SLOT_MASK, 2);
        CHECK(owner >> 11 != 0 && owner >> 11 != halves[i].generation);
        CHECK_EQ(rp_load_relaxed(&slot->pid), idler);
        CHECK_EQ(rp_load_relaxed(&slot->state), RP_SLOT_ACTIVE);
        CHECK(!rp_is_dead(log, owner));
        CHECK(rp_is_dead(log, halves[i].generation << 11 | 2));
        CHECK_EQ(participants(log), 2);
        kill_process(idler);
        EVENTUALLY(rp_is_dead(log, owner));
        CHECK_EQ(participants(log), 1);
        rp_detach(log);
        CHECK_OK(rp_remove(log_path()));
    }
}

static bool exists(void) { return access(log_path(), F_OK) == 0; }
static rp_log *fleeting_log(void) {
    return create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .auto_delete = true});
}

/* The dead do not stay, whatever their slots say. */
static void the_last_one_goes_although_the_dead_are_there(void) {
    for (uint32_t state = RP_SLOT_FREE; state <= RP_SLOT_LEAVING; state++) {
        rp_log *log = fleeting_log();
        uint32_t dead = dead_owner(log);
        rp_store_relaxed(&log->slots[(dead & RP_SLOT_MASK) - 1].state, state);
        rp_detach(log);
        CHECK(!exists());
    }
}

typedef struct leaver {
    rp_log *log;
    bool at_the_door;
    int stop;
} leaver;

/* What rp_leave does, as far as the door, or into it. */
static void leave_half(void *argument) {
    leaver *one = argument;
    uint64_t number;
    CHECK_OK(rp_ready(one->log, &number)); /* joins */
    CHECK(rp_set_slot(one->log, RP_SLOT_LEAVING));
    if (one->at_the_door) {
        int fd = open(log_path(), O_RDWR | O_CLOEXEC);
        CHECK(rp_enter_door(fd, 0));
    }
    raise(one->stop);
}

static void killed_in_the_door(void) {
    for (int at_the_door = 0; at_the_door < 2; at_the_door++) {
        rp_log *log = fleeting_log(), *again;
        leaver one = {.log = log, .at_the_door = at_the_door, .stop = SIGKILL};
        wait_for(start_process(leave_half, &one));
        int64_t start = rp_monotonic_ns();
        CHECK_OK(rp_attach(log_path(), &again));
        rp_detach(again);
        CHECK(exists());
        rp_detach(log);
        CHECK(!exists());
        CHECK_SOON(ms_since(start), AT_ONCE);
    }
}

/* Nobody waits long for one that stands in the door; the file is found later. */
static void stopped_in_the_door(void) {
    rp_log *log = fleeting_log();
    leaver one = {.log = log, .at_the_door = true, .stop = SIGSTOP};
    pid_t child = start_process(leave_half, &one);
    wait_until_stopped(child);
    int64_t start = rp_monotonic_ns();
    rp_detach(log);
    CHECK_SOON(ms_since(start), AT_ONCE);
    CHECK(exists());
    CHECK_IS(rp_collect(log_path()), RP_EXISTS);
    kill_process(child);
    EVENTUALLY(rp_collect(log_path()) == RP_OK);
    CHECK(!exists());
}

/* The last two died, one of them while it left: nobody was there to unlink. */
static void all_died_while_leaving(void) {
    rp_log *log = fleeting_log();
    leaver one = {.log = log, .stop = SIGKILL};
    wait_for(start_process(leave_half, &one));
    CHECK_IS(rp_collect(log_path()), RP_EXISTS);
    rp_leave_log(log); /* as if we had been killed */
    EVENTUALLY(rp_collect(log_path()) == RP_OK);
    CHECK(!exists());
}

/* One that leaves but still lives does not keep the file; it may come back. */
static void leaving_and_coming_back(void) {
    rp_log *log = fleeting_log();
    leaver one = {.log = log, .stop = SIGSTOP};
    pid_t child = start_process(leave_half, &one);
    wait_until_stopped(child);
    CHECK_EQ(participants(log), 2);
    rp_detach(log);
    CHECK(!exists());
    kill_process(child);
}

/* ---- opening and closing groups ------------------------------------------------------------- */

static void write_group(world *w, uint32_t g, int how_far) {
    rp_group *made = &w->log->groups[g];
    uint64_t start = rp_least_acked(w->log);
    lock_producers(w);
    memset(made->name, 0, sizeof made->name);
    if (how_far == 0) {
        strcpy(made->name, "ne");
        return;
    }
    strcpy(made->name, "new");
    if (how_far > 1) rp_store_relaxed(&made->read, start);
    if (how_far > 2) rp_store_relaxed(&made->acked, start);
    if (how_far > 3) rp_store_relaxed(&made->seen, start);
    if (how_far > 4) rp_store_relaxed(&made->state, RP_GROUP_GATING);
}

static void groups_opened_half(void) {
    for (int how_far = 0; how_far < 6; how_far++)
        for (int from_start = 0; from_start < 2; from_start++) {
            world w = make_world(SOME, false);
            uint32_t g = w.other + 1, group;
            uint64_t number;
            write_group(&w, g, how_far);
            uint64_t first = from_start || how_far > 4 ? w.taken[0] : w.put;
            if (how_far == 0) check_goes_on(&w), first = w.put; /* what is half made holds nobody back */
            CHECK_OK(open_group(w.log, "new", from_start, in_ms(BOUND_MS), &group));
            CHECK_EQ(group & RP_GROUP_NUMBER, g);
            put_one(&w);
            for (uint64_t i = first; i < w.put; i++) CHECK_EQ(take_number(w.log, group), i);
            CHECK_IS(try_take_number(w.log, group, &number), RP_EMPTY);
            CHECK_OK(rp_group_close(w.log, group, RP_NOW));
            check_goes_on(&w);
            end_world(&w);
        }
}

/* State stored, lock still held; and its consumer died in T4 before it was opened again. */
static void a_group_closed_half(void) {
    for (int reading = 0; reading < 2; reading++) {
        world w = make_world(SOME, false);
        rp_group *closed = &w.log->groups[w.other];
        uint32_t group;
        uint64_t number;
        if (reading) rp_store_relaxed(&closed->read, rp_load_relaxed(&closed->read) + sizeof(numbered));
        hold(&w, &closed->lock);
        rp_store_relaxed(&closed->state, RP_GROUP_FREE);
        CHECK_IS(take_number_until(w.log, w.other, in_ms(BOUND_MS), &number), RP_NOT_FOUND);
        hold(&w, &closed->lock);
        CHECK_OK(open_group(w.log, "other", false, RP_NOW, &group));
        CHECK(group != w.other && (group & RP_GROUP_NUMBER) == w.other);
        w.other = group;
        w.taken[1] = w.put;
        check_goes_on(&w);
        end_world(&w);
    }
}

/* ---- shutting down -------------------------------------------------------------------------- */

static void shut_down_half(void) {
    for (int step = 0; step < 3; step++)
        for (int immediate = 0; immediate < 2; immediate++) {
            world w = make_world(EMPTIED, false);
            sleeper one = {.log = w.log, .group = w.other};
            uint64_t number;
            pthread_t thread = start_thread(sleep_and_take, &one);
            EVENTUALLY(is_armed(w.log, RP_LOG_EVENTS + w.other));
            sleep_ms(2);
            int64_t start = rp_monotonic_ns();
            lock_producers(&w);
            rp_or_release(state, &w.log->head->state, RP_STATE_SHUT | (immediate ? RP_STATE_DISCARD : 0));
            if (step > 0) rp_store_relaxed(&w.log->head->lock, 0);
            if (step > 1) hold(&w, &w.log->groups[0].lock);
            check_went_on(thread, start);
            CHECK_IS(one.status, RP_SHUT_DOWN);
            CHECK_IS(put_bytes(w.log, &w.put, sizeof w.put, in_ms(BOUND_MS)), RP_SHUT_DOWN);
            CHECK_IS(take_number_until(w.log, 0, in_ms(BOUND_MS), &number), RP_SHUT_DOWN);
            CHECK_OK(rp_shut_down(w.log, immediate, in_ms(BOUND_MS)));
            check_unlocked(&w);
            check_invariants(w.log);
            end_world(&w);
        }
}

/* What was in is delivered, also when the dead one had committed it a moment before. */
static void shut_down_half_with_messages(void) {
    for (int consumer_died = 0; consumer_died < 2; consumer_died++) {
        world w = make_world(SOME, false);
        uint64_t number;
        victim = 0;
        tail_moved(&w);
        rp_or_release(state, &w.log->head->state, RP_STATE_SHUT);
        if (consumer_died) read_moved(&w);
        CHECK_IS(put_bytes(w.log, &w.put, sizeof w.put, in_ms(BOUND_MS)), RP_SHUT_DOWN);
        for (int g = 0; g < 2; g++) {
            while (w.taken[g] < w.put) take_one(&w, g);
            CHECK_IS(try_take_number(w.log, group_of(&w, g), &number), RP_SHUT_DOWN);
        }
        check_invariants(w.log);
        end_world(&w);
    }
}

/* A reader that was overrun died before its `read` moved, with the mark for it written: the next one is told of the same
 * loss, and gets the same frame. */
static void a_dead_reader_that_was_overrun_took_nothing(void) {
    static uint8_t body[16000], got[16384] __attribute__((aligned(RP_ALIGN)));
    rp_settings settings = {.capacity = RP_MIN_CAPACITY, .broadcast = true, .keep_history = true};
    rp_group_settings lossy = {.lossy = true};
    rp_log *log = create_log(settings);
    uint32_t group;
    bool made;
    CHECK_OK(rp_group_open(log, "lossy", &lossy, RP_NOW, &group, &made));
    for (int i = 0; i < 8; i++) CHECK_OK(put_bytes(log, body, sizeof body, in_ms(BOUND_MS)));
    uint64_t oldest = rp_load_relaxed(&log->head->oldest), lost = rp_frame_at(log, oldest)->sequence;
    CHECK(lost > 0);
    rp_group *at = rp_group_of(log, group);
    uint64_t span = rp_frame_span(log, oldest, rp_load_relaxed(&log->head->tail));
    rp_mark_next(at, oldest + span, lost + 1);
    rp_store_relaxed(&at->lock, dead_owner(log));
    rp_taken taken;
    int64_t deadline = in_ms(BOUND_MS);
    CHECK_OK(UNTIL(deadline, rp_take(log, group, got, sizeof got, 1, deadline, &taken)));
    CHECK_EQ(taken.lost, lost);
    CHECK_EQ(((const rp_frame *)got)->sequence, lost);
}

RUN_TESTS(TEST(a_dead_reader_that_was_overrun_took_nothing), TEST(appending), TEST(appending_with_history),
          TEST(appending_so_many_at_most), TEST(taking), TEST(taking_with_history),
          TEST(a_put_that_does_not_wait_repairs_too), TEST(all_was_taken), TEST(lending),
          TEST(a_committed_run_outlives_its_owner), TEST(two_runs_of_one_position), TEST(taking_large_ones),
          TEST(every_word_in_every_lock), TEST(a_death_while_repairing), TEST(unlocked_but_nobody_woken),
          TEST(armed_by_the_dead), TEST(a_wake_up_that_never_came), TEST(a_baton_that_was_dropped),
          TEST(a_producer_that_was_not_woken), TEST(a_join_that_was_not_woken), TEST(slots_left_half),
          TEST(the_last_one_goes_although_the_dead_are_there), TEST(killed_in_the_door),
          TEST(stopped_in_the_door), TEST(all_died_while_leaving), TEST(leaving_and_coming_back),
          TEST(groups_opened_half), TEST(a_group_closed_half), TEST(shut_down_half),
          TEST(shut_down_half_with_messages))
