/* Appending and taking: order, numbers, room, and every byte. */
#include "inside.h"
#include "messages.h"

static void messages_come_back_as_they_were(void) {
    rp_log *log = small_log();
    rp_message message = {.subject = "eu.dax",
                          .subject_len = 6,
                          .headers = "h=1",
                          .headers_len = 3,
                          .body = "body",
                          .body_len = 4,
                          .kind = 42};
    _Alignas(RP_ALIGN) uint8_t buffer[128];
    rp_taken taken;
    CHECK_OK(rp_try_put(log, &message));
    CHECK_OK(rp_try_take(log, 0, buffer, sizeof buffer, 1, &taken));
    rp_frame *frame = (rp_frame *)buffer;
    CHECK_EQ(taken.count, 1);
    CHECK_EQ(taken.bytes, 48);
    CHECK_EQ(frame->size, 32 + 13);
    CHECK_EQ(frame->kind, 42);
    CHECK_EQ(frame->flags, 0);
    CHECK_EQ(frame->subject_len, 6);
    CHECK_EQ(frame->headers_len, 3);
    CHECK_EQ(frame->sequence, 0);
    CHECK(frame->time_ns > UINT64_C(1500000000) * 1000000000);
    CHECK(memcmp(frame + 1, "eu.daxh=1body", 13) == 0);
    CHECK_IS(rp_try_take(log, 0, buffer, sizeof buffer, 1, &taken), RP_EMPTY);
}

/* Many laps with random sizes: the ring ends at every possible place of a frame. */
static void laps_of_random_sizes(void) {
    rp_log *log = small_log();
    uint64_t random = 1234567, put = 0, taken = 0, bytes = 0;
    static uint16_t sizes[4096];
    while (bytes < (uint64_t)ROUNDS(400) * log->geometry.ring_size) {
        uint64_t choice = next_random(&random);
        size_t size = choice % 8 == 0 ? choice / 8 % (RP_INLINE_MAX + 1) : choice / 8 % 300;
        rp_status status = put_filled(log, put, size, RP_NOW);
        if (status == RP_OK) {
            sizes[put++ % COUNT(sizes)] = (uint16_t)size;
            bytes += size;
        } else {
            CHECK_IS(status, RP_FULL);
        }
        for (int n = 0; (status == RP_FULL || next_random(&random) % 3 == 0) && n < 5 && taken < put;
             n++, taken++)
            CHECK_OK(take_filled(log, 0, taken, sizes[taken % COUNT(sizes)], RP_NOW));
        if (put % 1024 == 0) check_invariants(log);
    }
    for (; taken < put; taken++) CHECK_OK(take_filled(log, 0, taken, sizes[taken % COUNT(sizes)], RP_NOW));
    rp_info info;
    CHECK_OK(rp_get_info(log, &info));
    CHECK_EQ(info.next_sequence, put);
    CHECK_EQ(info.ready + info.used_bytes, 0);
}

static void a_ring_is_filled_to_the_last_frame(void) {
    rp_log *log = small_log();
    bool full = false;
    uint64_t number, count = 0, fit = (log->geometry.ring_size - RP_STUB) / sizeof(numbered);
    for (int lap = 0; lap < 3; lap++) {
        while (try_put_number(log, count) == RP_OK) {
            CHECK(!full);
            count++;
            CHECK_OK(rp_is_full(log, &full));
        }
        CHECK(full);
        CHECK_OK(rp_ready(log, &number));
        CHECK_EQ(number, fit);
        CHECK_IS(try_put_number(log, 0), RP_FULL);
        CHECK_EQ(take_number(log, 0), count - fit);
        CHECK_OK(rp_is_full(log, &full));
        CHECK(!full);
        CHECK_OK(try_put_number(log, count++));
        CHECK_IS(try_put_number(log, 0), RP_FULL);
        for (uint64_t i = count - fit; i < count; i++) CHECK_EQ(take_number(log, 0), i);
        CHECK_IS(try_take_number(log, 0, &number), RP_EMPTY);
        full = false;
    }
}

static void max_messages_bound_what_is_unread(void) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .max_messages = 3});
    uint64_t number, put = 0, taken = 0;
    bool full;
    for (int round = 0; round < 2000; round++) {
        while (put - taken < 3) CHECK_OK(try_put_number(log, put++));
        CHECK_IS(try_put_number(log, put), RP_FULL);
        CHECK_OK(rp_is_full(log, &full));
        CHECK(full);
        if (round % 5 == 0) {
            rp_message beyond = {.body = &put, .body_len = sizeof put, .beyond = true};
            CHECK_OK(rp_try_put(log, &beyond));
            put++;
            CHECK_IS(try_put_number(log, put), RP_FULL);
            CHECK_EQ(take_number(log, 0), taken++);
            CHECK_IS(try_put_number(log, put), RP_FULL);
        }
        for (int i = round % 3; i >= 0; i--) CHECK_EQ(take_number(log, 0), taken++);
    }
    while (try_take_number(log, 0, &number) == RP_OK) {
    }
    numbered frames[5] = {0};
    for (int i = 0; i < 5; i++) frames[i].frame.size = sizeof(rp_frame) + 8;
    uint32_t done;
    size_t bytes;
    CHECK_OK(rp_try_put_frames(log, frames, sizeof frames, 5, &done, &bytes));
    CHECK_EQ(done, 3);
    CHECK_EQ(bytes, 3 * sizeof *frames);
    CHECK_IS(rp_try_put_frames(log, frames, sizeof frames, 5, &done, &bytes), RP_FULL);
}

static void what_can_never_fit_is_refused_at_once(void) {
    rp_log *log = small_log();
    static uint8_t body[RP_INLINE_MAX + 1];
    rp_message message = {.body = body, .body_len = sizeof body};
    rp_loan loan;
    CHECK_IS(rp_try_put(log, &message), RP_TOO_LARGE);
    CHECK_IS(rp_put(log, &message, RP_NEVER), RP_TOO_LARGE);
    message = (rp_message){.body = body, .body_len = RP_INLINE_MAX - 9, .subject = body, .subject_len = 10};
    CHECK_IS(rp_try_put(log, &message), RP_TOO_LARGE);
    message = (rp_message){.subject = body, .subject_len = UINT16_MAX + 1};
    CHECK_IS(rp_try_put(log, &message), RP_INVALID);
    CHECK_IS(rp_borrow(log, log->geometry.pool_size + 1, RP_NEVER, &loan), RP_TOO_LARGE);
    CHECK_OK(put_filled(log, 1, RP_INLINE_MAX, RP_NOW));
    CHECK_OK(put_filled(log, 2, 0, RP_NOW));
    CHECK_OK(take_filled(log, 0, 1, RP_INLINE_MAX, RP_NOW));
    CHECK_OK(take_filled(log, 0, 2, 0, RP_NOW));
}

static void a_buffer_too_small_takes_nothing(void) {
    rp_log *log = small_log();
    _Alignas(RP_ALIGN) uint8_t buffer[256];
    rp_taken taken;
    CHECK_OK(put_filled(log, 1, 100, RP_NOW));
    CHECK_OK(put_filled(log, 2, 10, RP_NOW));
    CHECK_IS(rp_try_take(log, 0, buffer, 143, 9, &taken), RP_TOO_SMALL);
    CHECK_EQ(taken.need, 144);
    CHECK_EQ(taken.count, 0);
    CHECK_OK(rp_try_take(log, 0, buffer, 144 + 47, 9, &taken)); /* the first, for the second does not fit */
    CHECK_EQ(taken.count, 1);
    CHECK_OK(rp_try_take(log, 0, buffer, 48, 9, &taken));
    CHECK(is_filled(buffer + sizeof(rp_frame), 10, 2));
}

static void batches_are_taken_up_to_a_limit(void) {
    rp_log *log = small_log();
    static numbered buffer[64];
    rp_taken taken;
    for (uint64_t i = 0; i < 50; i++) put_number(log, i);
    for (uint32_t i = 0, limit = 1; i < 50; i += taken.count, limit *= 2) {
        CHECK_OK(rp_try_take(log, 0, buffer, sizeof buffer, limit, &taken));
        CHECK_EQ(taken.count, limit < 50 - i ? limit : 50 - i);
        for (uint32_t k = 0; k < taken.count; k++) {
            CHECK_EQ(buffer[k].number, i + k);
            CHECK_EQ(buffer[k].frame.sequence, i + k);
        }
    }
}

/* With history, a range of committed frames outlives its takers, until it is overwritten. */
static void history_stays_until_it_is_overwritten(void) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .keep_history = true});
    uint64_t most = (log->geometry.ring_size - RP_STUB) / sizeof(numbered);
    numbered got;
    rp_taken taken;
    rp_cursor cursor;
    for (uint64_t i = 0; i < 5 * most; i++) {
        put_number(log, i);
        CHECK_EQ(take_number(log, 0), i);
        if (i % 97 != 0) continue;
        CHECK_OK(rp_cursor_open(log, true, &cursor));
        CHECK_EQ(cursor.sequence, i + 1 > most ? i + 1 - most : 0);
        CHECK_OK(rp_cursor_read(log, &cursor, &got, sizeof got, 1, &taken));
        CHECK_EQ(got.number, i + 1 > most ? i + 1 - most : 0);
    }
    check_invariants(log);
}

static void unfinished_tasks_are_counted(void) {
    rp_log *log = small_log();
    uint64_t number;
    for (int i = 0; i < 3; i++) put_number(log, 0);
    CHECK_IS(rp_join(log, RP_NOW), RP_EMPTY);
    for (int i = 0; i < 3; i++) CHECK_OK(rp_task_done(log));
    CHECK_OK(rp_join(log, RP_NOW));
    CHECK_IS(rp_task_done(log), RP_TOO_MANY);
    CHECK_OK(rp_ready(log, &number));
    CHECK_EQ(number, 3);
}

static void a_log_that_is_shut_down_is_emptied(void) {
    rp_log *log = small_log();
    uint64_t number;
    rp_loan loan;
    put_number(log, 1);
    put_number(log, 2);
    CHECK_OK(rp_shut_down(log, false, RP_NOW));
    CHECK_IS(try_put_number(log, 3), RP_SHUT_DOWN);
    CHECK_IS(rp_borrow(log, 1, RP_NOW, &loan), RP_SHUT_DOWN);
    CHECK_EQ(take_number(log, 0), 1);
    CHECK_OK(rp_shut_down(log, true, RP_NOW));
    CHECK_IS(try_take_number(log, 0, &number), RP_SHUT_DOWN);
    CHECK_OK(rp_ready(log, &number));
    CHECK_EQ(number, 0);
    CHECK_IS(rp_join(log, RP_NOW), RP_EMPTY); /* for the one that was taken */
    CHECK_OK(rp_task_done(log));
    CHECK_OK(rp_join(log, RP_NOW));
    CHECK_IS(rp_task_done(log), RP_TOO_MANY);
}

RUN_TESTS(TEST(messages_come_back_as_they_were), TEST(laps_of_random_sizes),
          TEST(a_ring_is_filled_to_the_last_frame), TEST(max_messages_bound_what_is_unread),
          TEST(what_can_never_fit_is_refused_at_once), TEST(a_buffer_too_small_takes_nothing),
          TEST(batches_are_taken_up_to_a_limit), TEST(history_stays_until_it_is_overwritten),
          TEST(unfinished_tasks_are_counted), TEST(a_log_that_is_shut_down_is_emptied))
