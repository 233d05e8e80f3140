/* Two threads against one another at each sync point (order.h), as often as a second allows. What must not be seen is
 * checked each time; that the two really met is checked at the end.
 */
#include "duel.h"

/* ---- arm ------------------------------------------------------------------------------------ */

/* Dekker: the waiter arms and then looks; the waker stores and then looks at `armed`. One of the two must see the
 * other: the second try gets something, or the event that the waiter would sleep on has moved. */
typedef struct dekker {
    duel base;
    uint32_t event;
    rp_status (*try)(rp_log *);
    void (*store)(rp_log *);
    void (*clean)(rp_log *);
} dekker;

static bool never_changed(rp_log *log, const void *what) {
    (void)log, (void)what;
    return false;
}

static bool either_was_first(const uint64_t both[4]) {
    return both[1] + both[3] > 0     /* the waker saw the bit at times */
           && both[2] + both[3] > 0; /* the waiter saw the store at times */
}

static uint32_t event_count(rp_log *log, uint32_t event) {
    return rp_load_relaxed(event < RP_LOG_EVENTS ? &log->head->events[event].count
                                                 : &log->groups[event - RP_LOG_EVENTS].event.count);
}

static void run_waker(void *argument) {
    dekker *d = argument;
    uint64_t random = 17;
    for (uint64_t round = 1;; round++) {
        meet(&d->base, 3 * round - 2);
        if (is_over(d->base.end, round > 101 && either_was_first(d->base.both)))
            atomic_store(&d->base.left_to_do, 0);
        delay(&random);
        d->store(d->base.log);
        meet(&d->base, 3 * round - 1);
        meet(&d->base, 3 * round);
        if (!atomic_load(&d->base.left_to_do)) return;
    }
}

static void run_sleeper(dekker *d) {
    duel *all = &d->base;
    uint64_t random = 4711;
    for (uint64_t round = 1;; round++) {
        rp_wait wait = rp_wait_until(RP_NEVER);
        meet(all, 3 * round - 2);
        delay(&random);
        CHECK_OK(rp_event_wait(all->log, d->event, &wait, never_changed, NULL)); /* snapshot, armed bit */
        CHECK(wait.armed);
        rp_status status = d->try(all->log);
        meet(all, 3 * round - 1); /* the waker has done all that it does */
        bool moved = event_count(all->log, d->event) != wait.snapshot;
        if (status != RP_OK && !moved) FAIL("round %" PRIu64 ": asleep for ever", round);
        all->both[(status == RP_OK) * 2 + moved]++;
        d->clean(all->log);
        rp_store_relaxed(&all->log->head->armed[0], 0);
        meet(all, 3 * round);
        all->rounds = round;
        if (!atomic_load(&all->left_to_do)) return;
    }
}

static void check_dekker(rp_log *log, uint32_t event, rp_status (*try)(rp_log *), void (*store)(rp_log *),
                         void (*clean)(rp_log *)) {
    dekker *d = aligned_alloc(128, sizeof *d);
    *d = (dekker){.base = {.log = log, .left_to_do = 1, .end = in_ms(MS_EACH)},
                  .event = event,
                  .try = try,
                  .store = store,
                  .clean = clean};
    rp_store_relaxed(&log->spin_ns, 0);
    pthread_t thread = start_thread(run_waker, d);
    run_sleeper(d);
    join_thread(thread);
    CHECK(d->base.rounds > 100);
    CHECK(either_was_first(d->base.both));
    check_invariants(log);
    free(d);
}

static rp_status try_take_any(rp_log *log) {
    uint64_t number;
    return try_take_number(log, 0, &number);
}

static void put_any(rp_log *log) { CHECK_OK(try_put_number(log, 1)); }

static void take_all(rp_log *log) {
    while (try_take_any(log) == RP_OK) {
    }
}

static rp_status try_take_once(rp_log *log) {
    numbered got;
    rp_taken taken;
    rp_status status;
    while ((status = rp_try_take(log, 0, &got, sizeof got, 1, &taken)) == RP_BUSY) {
    }
    return status;
}

/* FORBIDS arm: a waiter that sleeps, and a waker that did not see it. */
static void arming_and_putting(void) {
    rp_log *log = small_log();
    check_dekker(log, RP_LOG_EVENTS, try_take_once, put_any, take_all);
}

static rp_status try_put_once(rp_log *log) {
    rp_status status;
    while ((status = try_put_number(log, 1)) == RP_BUSY) {
    }
    return status;
}

static void fill_up(rp_log *log) {
    while (try_put_once(log) == RP_OK) {
    }
}

static void take_any(rp_log *log) { CHECK_OK(try_take_once(log)); }

static void arming_and_taking(void) {
    rp_log *log = small_log();
    fill_up(log);
    check_dekker(log, RP_EVENT_SPACE, try_put_once, take_any, fill_up);
}

static rp_status is_done(rp_log *log) { return rp_join(log, RP_NOW); }
static void finish_one(rp_log *log) { CHECK_OK(rp_task_done(log)); }

static void one_more_task(rp_log *log) {
    CHECK_OK(try_put_once(log));
    CHECK_OK(try_take_once(log));
}

static void arming_and_task_done(void) {
    rp_log *log = small_log();
    one_more_task(log);
    check_dekker(log, RP_EVENT_JOIN, is_done, finish_one, one_more_task);
}

static void put_and_ring(rp_log *log) {
    CHECK_OK(try_put_once(log));
    rp_bell_ring(log);
}

static void arming_and_ringing(void) {
    rp_log *log = small_log();
    check_dekker(log, RP_EVENT_BELL, try_take_once, put_and_ring, take_all);
}

typedef struct adding {
    duel base;
    uint32_t levels;
} adding;

static void shut_down_and_look(void *argument) {
    adding *all = argument;
    uint64_t random = 17;
    for (uint64_t round = 1; round <= 31; round++) {
        meet(&all->base, 3 * round - 2);
        delay(&random);
        rp_or_release(state, &all->base.log->head->state, RP_STATE_SHUT);
        rp_fence_full(level);
        all->levels = rp_levels(all->base.log);
        meet(&all->base, 3 * round - 1);
        meet(&all->base, 3 * round);
    }
}

/* FORBIDS level: who adds a level does not see that the first one is shut down, nor who shut it down the level. */
static void adding_and_shutting_down(void) {
    adding *all = aligned_alloc(128, sizeof *all);
    *all = (adding){.base = {.log = small_log()}};
    pthread_t thread = start_thread(shut_down_and_look, all);
    uint64_t random = 4711;
    rp_head *head = all->base.log->head;
    for (uint64_t round = 1; round <= 31; round++) {
        meet(&all->base, 3 * round - 2);
        delay(&random);
        rp_add_level(all->base.log, (uint32_t)round);
        bool is_shut = rp_load_acquire(state, &head->state) & RP_STATE_SHUT;
        meet(&all->base, 3 * round - 1);
        if (!is_shut && !(all->levels >> round & 1)) FAIL("round %" PRIu64 ": neither saw the other", round);
        rp_store_relaxed(&head->state, 0);
        meet(&all->base, 3 * round);
    }
    join_thread(thread);
    free(all);
}

/* ---- commit, release ------------------------------------------------------------------------ */

typedef struct stream {
    rp_log *log;
    int64_t end;
    _Atomic bool stop;
    uint64_t put, taken;
} stream;

static size_t size_of(uint64_t number) { return number * 7919 % 700; }

static void put_stream(void *argument) {
    stream *all = argument;
    while (!atomic_load(&all->stop)) {
        uint8_t body[700];
        fill(body, size_of(all->put), all->put);
        rp_status status = put_bytes(all->log, body, size_of(all->put), in_ms(20));
        if (status == RP_FULL) continue;
        CHECK_OK(status);
        all->put++;
    }
}

static stream *start_stream(rp_log *log, void (*run)(void *), crew *other) {
    stream *all = shared_memory(sizeof *all);
    *all = (stream){.log = log, .end = in_ms(MS_EACH)};
    engage(other, run, all);
    return all;
}

static void end_stream(stream *all, crew *other) {
    atomic_store(&all->stop, true);
    join_crew(other);
}

/* FORBIDS commit, release: a `tail` without all bytes below it or the number at it; bytes overwritten before `acked` says
 * so. Read in place, without any lock. */
static void committed_bytes_are_there(void) {
    rp_log *log = small_log();
    crew other = {.are_threads = true};
    stream *all = start_stream(log, put_stream, &other);
    uint64_t random = 5, sequence = 0, caught_up = 0;
    while (!is_over(all->end, sequence > 1000)) {
        rp_range range;
        rp_status status = rp_group_range(log, 0, UINT64_MAX, 1 + next_random(&random) % 16384, &range);
        if (status == RP_TOO_SMALL) continue;
        uint64_t tail = rp_load_acquire(commit, &log->head->tail);
        uint64_t at_tail =
            rp_read_once(rp_frame_at(log, tail)->sequence); /* nothing is overwritten: we lag */
        CHECK(at_tail >= sequence + (status == RP_OK ? range.count : 0));
        if (status == RP_EMPTY) {
            caught_up++;
            continue;
        }
        CHECK_OK(status);
        CHECK_EQ(range.sequence, sequence);
        const uint8_t *at = range.data;
        for (uint64_t i = 0; i < range.count; i++, sequence++) {
            const rp_frame *frame = (const rp_frame *)at;
            CHECK_EQ(rp_read_once(frame->sequence), sequence);
            CHECK_EQ(frame->size, sizeof *frame + size_of(sequence));
            CHECK(is_filled(frame + 1, size_of(sequence), sequence));
            at += rp_align(frame->size);
        }
        CHECK(at == (const uint8_t *)range.data + (range.end - range.position));
        CHECK_OK(rp_group_advance(log, 0, range.end, in_ms(BOUND_MS)));
    }
    end_stream(all, &other);
    CHECK(sequence > 1000 && all->put >= sequence);
    check_invariants(log);
}

/* Counts are of one moment: never more than was put, never less than was there all the time. */
static void count_stream(void *argument) {
    stream *all = argument;
    uint64_t n = 0;
    while (!atomic_load(&all->stop)) {
        if (try_put_once(all->log) == RP_OK) n++;
        if (n % 3 == 0 || n > 8) n -= try_take_once(all->log) == RP_OK;
        CHECK(n <= 10);
    }
}

static void counts_are_of_one_moment(void) {
    rp_log *log = small_log();
    crew other = {.are_threads = MAY_RACE};
    for (int i = 0; i < 3; i++) CHECK_OK(try_put_once(log)); /* these stay */
    stream *all = start_stream(log, count_stream, &other);
    uint64_t seen[16] = {0}, ready, kinds = 0, last = 0;
    while (!is_over(all->end, kinds > 1)) {
        rp_info info;
        CHECK_OK(rp_ready(log, &ready));
        CHECK(ready >= 2 && ready <= 14);
        kinds += seen[ready]++ == 0;
        CHECK_OK(rp_get_info(log, &info));
        CHECK(info.ready <= 14 && info.unfinished == info.next_sequence && info.next_sequence >= last);
        last = info.next_sequence;
    }
    end_stream(all, &other);
    CHECK(kinds > 1);
}

/* ---- lap ------------------------------------------------------------------------------------ */

static void put_and_take_stream(void *argument) {
    stream *all = argument;
    uint8_t body[700], buffer[1024];
    rp_taken taken;
    while (!atomic_load(&all->stop)) {
        fill(body, size_of(all->put), all->put);
        rp_status status = rp_try_put(all->log, &(rp_message){.body = body, .body_len = size_of(all->put)});
        if (status == RP_OK) all->put++;
        if (status == RP_FULL || !rp_keeps_history(all->log) || all->put % 2 == 0)
            for (int i = 0; i < 3; i++) rp_try_take(all->log, 0, buffer, sizeof buffer, 1, &taken);
    }
}

/* The cursor stands where the producer is about to write: at the oldest frame. Whatever it is given is whole. */
static void what_is_lapped_is_not_accepted(bool keep_history) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .keep_history = keep_history});
    crew other = {.are_threads = MAY_RACE};
    stream *all = start_stream(log, put_and_take_stream, &other);
    static _Alignas(RP_ALIGN) uint8_t buffer[8192];
    uint64_t read = 0, lost = 0, random = 3;
    while (!is_over(all->end, read > 100 && lost > 0)) {
        rp_cursor cursor;
        rp_taken taken;
        CHECK_OK(rp_cursor_open(log, true, &cursor));
        delay(&random);
        for (int i = 0; i < 3; i++) {
            rp_status status = rp_cursor_read(log, &cursor, buffer, sizeof buffer, 8, &taken);
            if (status == RP_EMPTY) break;
            CHECK_OK(status);
            uint64_t sequence = cursor.sequence - taken.count;
            for (uint8_t *at = buffer; at < buffer + taken.bytes; sequence++) {
                rp_frame *frame = (rp_frame *)at;
                CHECK_EQ(frame->sequence, sequence);
                CHECK_EQ(frame->size, sizeof *frame + size_of(sequence));
                CHECK(is_filled(frame + 1, size_of(sequence), sequence));
                at += rp_align(frame->size);
            }
            read += taken.count;
        }
        lost += cursor.lost;
    }
    end_stream(all, &other);
    CHECK(read > 100);
    if (lost == 0) FAIL("never lapped");
    rp_detach(log);
    CHECK_OK(rp_remove(log_path()));
}

/* FORBIDS lap: frames accepted that are half overwritten. */
static void frames_that_are_lapped(void) { what_is_lapped_is_not_accepted(false); }
static void history_that_is_lapped(void) { what_is_lapped_is_not_accepted(true); }

/* ---- chunk ---------------------------------------------------------------------------------- */

static size_t largest_loan;
static size_t lent_size(uint64_t number) { return 1 + number * 7919 % largest_loan; }

static void lend_and_take_stream(void *argument) {
    stream *all = argument;
    uint8_t *body = malloc(5 * RP_GRANULE + 1);
    while (!atomic_load(&all->stop)) {
        rp_loan loan;
        size_t size = lent_size(all->put);
        rp_status status = rp_borrow(all->log, size, RP_NOW, &loan);
        if (status == RP_OK) {
            fill(loan.data, size, all->put);
            CHECK_OK(commit_loan(all->log, &loan, RP_NOW));
            all->put++;
        }
        if (all->put - all->taken < (status == RP_OK ? 2 : 1)) continue;
        size = lent_size(all->taken);
        CHECK_OK(rp_take_large(all->log, 0, all->taken, size, NULL, 0, body, RP_NOW));
        CHECK(is_filled(body, size, all->taken));
        all->taken++;
    }
    free(body);
}

/* A run is freed, lent and written again while a cursor copies what was in it: from the oldest frame on each time,
 * or close behind the producer all the time. */
static void granules_under_a_cursor(bool keep_history, size_t most, bool follow) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .keep_history = keep_history});
    crew other = {.are_threads = MAY_RACE};
    largest_loan = most;
    stream *all = start_stream(log, lend_and_take_stream, &other);
    static _Alignas(RP_ALIGN) uint8_t buffer[6 * RP_GRANULE];
    uint64_t read = 0, lost = 0;
    rp_cursor cursor;
    CHECK_OK(rp_cursor_open(log, true, &cursor));
    if (MAY_RACE) be_interrupted(); /* ThreadSanitizer's handlers take longer than that */
    while (!is_over(all->end, read > 20 && lost > 0)) {
        rp_taken taken;
        if (!follow) CHECK_OK(rp_cursor_open(log, true, &cursor));
        /* granules are used in turn: now the one that it is about to read is lent again */
        uint64_t behind = rp_load_relaxed(&log->head->tail) - cursor.position;
        if (follow && behind < log->geometry.chunk_count * sizeof(numbered)) continue;
        rp_status status = rp_cursor_read(log, &cursor, buffer, sizeof buffer, 1, &taken);
        lost += cursor.lost;
        cursor.lost = 0;
        if (status == RP_EMPTY) continue;
        CHECK_OK(status);
        rp_frame *frame = (rp_frame *)buffer;
        CHECK_EQ(frame->sequence, cursor.sequence - 1);
        CHECK_EQ(frame->size, sizeof *frame + lent_size(frame->sequence));
        if (!is_filled(frame + 1, lent_size(frame->sequence), frame->sequence))
            FAIL("frame %" PRIu64 " was accepted with other bytes", frame->sequence);
        read++;
    }
    end_stream(all, &other);
    CHECK(read > 20);
    if (lost == 0) FAIL("never too late");
    check_invariants(log);
    rp_detach(log);
    CHECK_OK(rp_remove(log_path()));
}

/* FORBIDS chunk: a payload accepted that is half another one's. */
static void granules_that_are_used_again(void) { granules_under_a_cursor(false, 5 * RP_GRANULE, false); }
static void granules_that_history_gives_up(void) { granules_under_a_cursor(true, 5 * RP_GRANULE, false); }
static void granules_that_are_used_again_soon(void) { granules_under_a_cursor(false, 24, true); }

/* ---- lock ----------------------------------------------------------------------------------- */

typedef struct guarded {
    stream base;
    uint64_t a, b; /* plain, and always the same under the lock */
} guarded;

static void keep_the_same(void *argument) {
    guarded *all = argument;
    bool died;
    while (!atomic_load(&all->base.stop)) {
        if (rp_lock_try(all->base.log, &all->base.log->head->pool_lock, NULL, &died) != RP_OK) continue;
        CHECK_EQ(all->a, all->b);
        all->a++;
        rp_pause();
        all->b++;
        rp_lock_release(&all->base.log->head->pool_lock);
    }
}

/* FORBIDS lock: two inside, or one that does not see what the last one did. */
static void what_a_lock_guards(void) {
    guarded all = {.base.log = small_log()};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) threads[i] = start_thread(keep_the_same, &all);
    sleep_ms(MS_EACH / 2);
    atomic_store(&all.base.stop, true);
    for (int i = 0; i < 2; i++) join_thread(threads[i]);
    CHECK_EQ(all.a, all.b);
    CHECK(all.a > 1000);
}

/* ---- state ---------------------------------------------------------------------------------- */

static void put_until_shut(void *argument) {
    duel *all = argument;
    for (uint64_t round = 1;; round++) {
        rp_status status;
        meet(all, 2 * round - 1);
        do status = try_put_number(all->log, round);
        while (status != RP_SHUT_DOWN);
        meet(all, 2 * round);
        if (!atomic_load(&all->left_to_do)) return;
    }
}

/* FORBIDS state: a message that comes in after rp_shut_down has returned. */
static void nothing_is_put_once_it_is_shut(void) {
    duel *all = aligned_alloc(128, sizeof *all);
    *all = (duel){.log = small_log(), .left_to_do = 1, .end = in_ms(MS_EACH)};
    pthread_t thread = start_thread(put_until_shut, all);
    uint64_t random = 9, met = 0;
    for (uint64_t round = 1; atomic_load(&all->left_to_do); round++) {
        meet(all, 2 * round - 1);
        delay(&random);
        if (is_over(all->end, met > 10)) atomic_store(&all->left_to_do, 0);
        CHECK_OK(rp_shut_down(all->log, false, in_ms(BOUND_MS)));
        uint64_t tail = rp_load_relaxed(&all->log->head->tail), number, then, later;
        CHECK_OK(rp_ready(all->log, &then));
        met += then > 0;
        delay(&random);
        CHECK_OK(rp_ready(all->log, &later));
        CHECK_EQ(then, later);
        while (try_take_number(all->log, 0, &number) == RP_OK) CHECK_EQ(number, round);
        CHECK_EQ(rp_load_relaxed(&all->log->groups[0].read), tail);
        CHECK_IS(try_take_number(all->log, 0, &number), RP_SHUT_DOWN);
        bool last = !atomic_load(&all->left_to_do);
        meet(all, 2 * round);
        if (last) break;
        rp_store_relaxed(&all->log->head->state, 0); /* both are between two rounds */
    }
    join_thread(thread);
    CHECK(met > 10);
    free(all);
}

RUN_TESTS(TEST(arming_and_putting), TEST(arming_and_taking), TEST(arming_and_task_done),
          TEST(arming_and_ringing), TEST(adding_and_shutting_down), TEST(committed_bytes_are_there),
          TEST(counts_are_of_one_moment), TEST(frames_that_are_lapped), TEST(history_that_is_lapped),
          TEST(granules_that_are_used_again), TEST(granules_that_history_gives_up),
          TEST(granules_that_are_used_again_soon), TEST(what_a_lock_guards),
          TEST(nothing_is_put_once_it_is_shut))
