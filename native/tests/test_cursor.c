/* Private cursors: independent, told exactly what they lost, and never shown half-overwritten bytes. */
#include "inside.h"
#include "messages.h"
#include "threads.h"

static rp_log *history_log(void) {
    return create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .keep_history = true});
}

static void put_and_drop(rp_log *log, uint64_t number) {
    put_number(log, number);
    CHECK_EQ(take_number(log, 0), number);
}

static void check_reads(rp_log *log, rp_cursor *cursor, uint64_t number) {
    numbered got;
    rp_taken taken;
    CHECK_OK(rp_cursor_read(log, cursor, &got, sizeof got, 1, &taken));
    CHECK_EQ(got.number, number);
    CHECK_EQ(got.frame.sequence, number);
    CHECK_EQ(cursor->sequence, number + 1);
}

static void cursors_are_independent(void) {
    rp_log *log = history_log();
    rp_cursor a, b, c;
    numbered got;
    rp_taken taken;
    for (uint64_t i = 0; i < 10; i++) put_number(log, i);
    CHECK_OK(rp_cursor_open(log, true, &a));
    CHECK_OK(rp_cursor_open(log, true, &b));
    CHECK_OK(rp_cursor_open(log, false, &c));
    for (uint64_t i = 0; i < 10; i++) check_reads(log, &a, i);
    CHECK_IS(rp_cursor_read(log, &a, &got, sizeof got, 1, &taken), RP_EMPTY);
    for (uint64_t i = 0; i < 10; i++) check_reads(log, &b, i);
    CHECK_IS(rp_cursor_read(log, &c, &got, sizeof got, 1, &taken), RP_EMPTY);
    put_number(log, 10);
    check_reads(log, &c, 10);
    check_reads(log, &a, 10);
    CHECK_EQ(a.lost + b.lost + c.lost, 0);
    for (uint64_t i = 0; i <= 10; i++) CHECK_EQ(take_number(log, 0), i); /* they took nothing */
}

static void a_small_buffer_reads_nothing(void) {
    rp_log *log = history_log();
    rp_cursor cursor;
    rp_taken taken;
    numbered got;
    put_number(log, 0);
    CHECK_OK(rp_cursor_open(log, true, &cursor));
    CHECK_IS(rp_cursor_read(log, &cursor, &got, sizeof got - 1, 1, &taken), RP_TOO_SMALL);
    CHECK_EQ(taken.need, sizeof got);
    check_reads(log, &cursor, 0);
}

static void what_is_overrun_is_counted_exactly(void) {
    for (int keep = 0; keep < 2; keep++) {
        rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .keep_history = keep});
        uint64_t most = (log->geometry.ring_size - RP_STUB) / sizeof(numbered), put = 0, seen = 0;
        uint64_t random = 31337;
        rp_cursor cursor;
        CHECK_OK(rp_cursor_open(log, true, &cursor));
        for (int round = 0; round < 100; round++) {
            for (uint64_t n = next_random(&random) % (3 * most); n > 0; n--) put_and_drop(log, put++);
            numbered got;
            rp_taken taken;
            while (rp_cursor_read(log, &cursor, &got, sizeof got, 1, &taken) == RP_OK) {
                seen++;
                CHECK_EQ(got.number, got.frame.sequence);
                CHECK_EQ(seen + cursor.lost, got.number + 1);
            }
            CHECK_EQ(seen + cursor.lost, put);
        }
        CHECK(cursor.lost > 0 && seen > (keep ? 20 * most : 0));
        rp_detach(log);
        CHECK_OK(rp_remove(log_path()));
    }
}

/* ---- reading while a producer laps ---------------------------------------------------------- */

typedef struct lapping {
    rp_log *log;
    _Atomic uint64_t put;
    _Atomic bool stop;
} lapping;

static size_t size_of(uint64_t number) { return 64 + number * 37 % 400; }

static void put_and_take_for_ever(void *argument) {
    lapping *all = argument;
    for (uint64_t i = 0; !atomic_load(&all->stop); i++) {
        CHECK_OK(put_filled(all->log, i, size_of(i), in_ms(BOUND_MS)));
        atomic_store(&all->put, i + 1);
        CHECK_OK(take_filled(all->log, 0, i, size_of(i), in_ms(BOUND_MS)));
    }
}

static void read_what_others_lap(void *argument) {
    lapping *all = argument;
    static _Thread_local _Alignas(RP_ALIGN) uint8_t buffer[4096];
    rp_cursor cursor;
    uint64_t seen = 0, random = 5;
    CHECK_OK(rp_cursor_open(all->log, true, &cursor));
    uint64_t first = cursor.sequence;
    while (!atomic_load(&all->stop)) {
        rp_taken taken;
        rp_status status = rp_cursor_read(all->log, &cursor, buffer, sizeof buffer, 8, &taken);
        if (status == RP_EMPTY) continue;
        CHECK_OK(status);
        uint64_t number = cursor.sequence - taken.count;
        for (size_t at = 0; at < taken.bytes; number++, seen++) {
            rp_frame *frame = (rp_frame *)(buffer + at);
            CHECK_EQ(frame->sequence, number);
            CHECK_EQ(frame->size, sizeof *frame + size_of(number));
            CHECK(is_filled(frame + 1, size_of(number), number));
            at += rp_align(frame->size);
        }
        CHECK_EQ(first + seen + cursor.lost, cursor.sequence);
        if (next_random(&random) % 64 == 0) sched_yield();
    }
}

static void nothing_half_overwritten_is_read(void) {
    for (int keep = 0; keep < 2; keep++) {
        lapping *all = shared_memory(sizeof *all);
        all->log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .keep_history = keep});
        crew threads = {.are_threads = MAY_RACE};
        engage(&threads, put_and_take_for_ever, all);
        engage(&threads, read_what_others_lap, all);
        engage(&threads, read_what_others_lap, all);
        sleep_ms(400);
        EVENTUALLY(atomic_load(&all->put) > 2000);
        atomic_store(&all->stop, true);
        join_crew(&threads);
        rp_detach(all->log);
        CHECK_OK(rp_remove(log_path()));
    }
}

/* ---- large frames --------------------------------------------------------------------------- */

static rp_status read_large(rp_log *log, rp_cursor *cursor, uint64_t number, size_t size) {
    static _Alignas(RP_ALIGN) uint8_t buffer[BUFFER_SIZE];
    rp_frame *frame = (rp_frame *)buffer;
    rp_taken taken;
    rp_status status = rp_cursor_read(log, cursor, buffer, sizeof buffer, 8, &taken);
    if (status != RP_OK || frame->sequence != number) return status;
    CHECK_EQ(taken.count, 1);
    CHECK_EQ(frame->size, sizeof *frame + size);
    CHECK_EQ(frame->flags, 0);
    CHECK(is_filled(frame + 1, size, number));
    return RP_OK;
}

static void large_frames_look_like_small_ones(void) {
    rp_log *log = history_log();
    rp_cursor cursor;
    numbered tiny;
    rp_taken taken;
    CHECK_OK(rp_cursor_open(log, true, &cursor));
    CHECK_OK(put_filled(log, 0, 20000, RP_NOW));
    CHECK_OK(put_filled(log, 1, 100, RP_NOW));
    CHECK_OK(put_filled(log, 2, 30000, RP_NOW));
    CHECK_IS(rp_cursor_read(log, &cursor, &tiny, sizeof tiny, 1, &taken), RP_TOO_SMALL);
    CHECK_EQ(taken.need, sizeof(rp_frame) + 20000);
    CHECK_OK(read_large(log, &cursor, 0, 20000));
    CHECK_OK(read_large(log, &cursor, 1, 100));
    CHECK_OK(read_large(log, &cursor, 2, 30000));
    CHECK_IS(read_large(log, &cursor, 3, 0), RP_EMPTY);
    CHECK_EQ(cursor.lost, 0);
}

/* A group has taken the large frame and its granules hold another one; its header still lies in the ring. */
static void granules_used_again_are_a_loss(void) {
    rp_log *log = small_log();
    rp_cursor cursor;
    size_t size = log->geometry.pool_size;
    CHECK_OK(rp_cursor_open(log, true, &cursor));
    CHECK_OK(put_filled(log, 0, size, RP_NOW));
    CHECK_OK(take_filled(log, 0, 0, size, RP_NOW));
    CHECK_OK(put_filled(log, 1, size, RP_NOW));
    CHECK_OK(read_large(log, &cursor, 0, size)); /* checks the bytes, if it is the first that it gets */
    if (cursor.sequence == 2) CHECK_EQ(cursor.lost, 1);
}

/* What every group has taken can be overwritten: large payloads too, and then the old ones are lost. */
static void history_does_not_exhaust_the_pool(void) {
    rp_log *log = history_log();
    rp_cursor cursor;
    size_t size = log->geometry.pool_size / 2;
    CHECK_OK(rp_cursor_open(log, true, &cursor));
    for (uint64_t i = 0; i < 5; i++) {
        rp_status status = put_filled(log, i, size, in_ms(150));
        if (status != RP_OK) FAIL("put %" PRIu64 " of 5: %s", i + 1, rp_status_text(status));
        CHECK_OK(take_filled(log, 0, i, size, RP_NOW));
    }
    CHECK_OK(read_large(log, &cursor, 4, size));
}

RUN_TESTS(TEST(cursors_are_independent), TEST(a_small_buffer_reads_nothing),
          TEST(what_is_overrun_is_counted_exactly), TEST(nothing_half_overwritten_is_read),
          TEST(large_frames_look_like_small_ones), TEST(granules_used_again_are_a_loss),
          TEST(history_does_not_exhaust_the_pool))
