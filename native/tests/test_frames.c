/* Runs of prepared frames in, ranges of committed frames out. */
#include "inside.h"
#include "messages.h"

static numbered prepared[4096];

static size_t prepare(uint32_t count, uint64_t first) {
    memset(prepared, 0, sizeof prepared);
    for (uint32_t i = 0; i < count; i++) {
        prepared[i].frame.size = sizeof(rp_frame) + 8;
        prepared[i].frame.kind = 7;
        prepared[i].frame.sequence = UINT64_MAX - i; /* not for the caller to say */
        prepared[i].number = first + i;
    }
    return count * sizeof *prepared;
}

static void as_many_go_in_as_fit(void) {
    rp_log *log = small_log();
    uint32_t done, most = (uint32_t)((log->geometry.ring_size - RP_STUB) / sizeof(numbered));
    size_t bytes;
    uint64_t put = 0, taken = 0;
    for (int lap = 0; lap < 5; lap++) {
        size_t all = prepare(3000, put);
        CHECK_OK(rp_try_put_frames(log, prepared, all, 3000, &done, &bytes));
        CHECK_EQ(done, most - (put - taken));
        CHECK_EQ(bytes, done * sizeof *prepared);
        put += done;
        CHECK_IS(rp_try_put_frames(log, prepared, all, 3000, &done, &bytes), RP_FULL);
        CHECK_EQ(done + bytes, 0);
        for (int i = 0; i < 700; i++) CHECK_EQ(take_number(log, 0), taken++);
        check_invariants(log);
    }
    CHECK_OK(rp_try_put_frames(log, prepared, 0, 0, &done, &bytes));
    CHECK_EQ(done + bytes, 0);
}

static void runs_of_any_size_keep_every_byte(void) {
    rp_log *log = small_log();
    static _Alignas(RP_ALIGN) uint8_t run[1 << 16], out[1 << 16];
    uint64_t random = 99991, number = 0, expected = 0;
    static uint16_t sizes[1 << 16];
    for (int round = 0; round < ROUNDS(2000); round++) {
        uint32_t count = 0, done;
        size_t used = 0, bytes;
        while (count < 1 + next_random(&random) % 40) {
            size_t size = next_random(&random) % (next_random(&random) % 16 ? 200 : 4000);
            rp_frame *frame = (rp_frame *)(run + used);
            if (used + rp_align(sizeof *frame + size) > sizeof run) break;
            *frame = (rp_frame){.size = (uint32_t)(sizeof *frame + size)};
            fill(frame + 1, size, number + count);
            sizes[(number + count++) % COUNT(sizes)] = (uint16_t)size;
            used += rp_align(frame->size);
        }
        rp_status status = rp_try_put_frames(log, run, used, count, &done, &bytes);
        if (status != RP_FULL) CHECK_OK(status);
        number += done;
        rp_taken taken;
        status = rp_try_take(log, 0, out, sizeof out, 1 + (uint32_t)(next_random(&random) % 40), &taken);
        if (status == RP_EMPTY) continue;
        CHECK_OK(status);
        for (size_t at = 0; at < taken.bytes; expected++) {
            rp_frame *frame = (rp_frame *)(out + at);
            CHECK_EQ(frame->sequence, expected);
            CHECK_EQ(frame->size, sizeof *frame + sizes[expected % COUNT(sizes)]);
            CHECK(is_filled(frame + 1, frame->size - sizeof *frame, expected));
            at += rp_align(frame->size);
        }
    }
    CHECK(expected > 1000);
}

static void check_bad(rp_log *log, uint32_t at, uint32_t size, uint8_t flags, uint16_t subject,
                      uint32_t headers) {
    uint32_t done;
    size_t bytes, all = prepare(5, 0);
    prepared[at].frame.size = size;
    prepared[at].frame.flags = flags;
    prepared[at].frame.subject_len = subject;
    prepared[at].frame.headers_len = headers;
    rp_status status = rp_try_put_frames(log, prepared, all, 5, &done, &bytes);
    if (status != RP_INVALID)
        FAIL("frame %u, size %u, flags %u, lengths %u, %u: %s", at, size, flags, subject, headers,
             rp_status_text(status));
    CHECK_EQ(done + bytes, 0);
}

static void bad_frames_are_refused(void) {
    rp_log *log = small_log();
    for (uint32_t at = 0; at < 5; at += 4) {
        check_bad(log, at, 0, 0, 0, 0);
        check_bad(log, at, sizeof(rp_frame) - 1, 0, 0, 0);
        check_bad(log, at, sizeof(rp_frame) + 8, RP_FRAME_LARGE, 0, 0);
        check_bad(log, at, sizeof(rp_frame) + 8, 2, 0, 0);
        check_bad(log, at, sizeof(rp_frame) + 8, 0, 9, 0);
        check_bad(log, at, sizeof(rp_frame) + 8, 0, 0, 9);
        check_bad(log, at, sizeof(rp_frame) + 8, 0, 4, 5);
        check_bad(log, at, sizeof(rp_frame) + 8, 0, 1, UINT32_MAX);
        check_bad(log, at, at ? 65 : 5 * sizeof *prepared + 1, 0, 0, 0); /* beyond the end */
        check_bad(log, at, RP_FRAME_MAX + 1, 0, 0, 0);
    }
    uint64_t number;
    CHECK_IS(try_take_number(log, 0, &number), RP_EMPTY);
    uint32_t done;
    size_t bytes;
    prepare(5, 0);
    CHECK_IS(rp_try_put_frames(log, prepared, 31, 1, &done, &bytes), RP_INVALID);
    CHECK_IS(rp_try_put_frames(log, prepared, 47, 1, &done, &bytes), RP_INVALID);
}

/* Although the run as a whole does not fit: waiting for room would be for ever. */
static void a_bad_frame_larger_than_the_ring_is_refused(void) {
    rp_log *log = small_log();
    uint32_t done;
    size_t bytes, all = prepare(3000, 0);
    prepared[0].frame.size = UINT32_MAX;
    CHECK_IS(rp_try_put_frames(log, prepared, all, 3000, &done, &bytes), RP_INVALID);
    CHECK_IS(rp_put_frames(log, prepared, all, 3000, in_ms(20), &done, &bytes), RP_INVALID);
}

static void a_bad_frame_behind_what_fits_is_not_looked_at(void) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .max_messages = 3});
    uint32_t done;
    size_t bytes, all = prepare(5, 0);
    prepared[4].frame.size = 0;
    CHECK_OK(rp_try_put_frames(log, prepared, all, 5, &done, &bytes));
    CHECK_EQ(done, 3);
    for (uint64_t i = 0; i < 3; i++) CHECK_EQ(take_number(log, 0), i);
}

/* ---- ranges --------------------------------------------------------------------------------- */

static void a_range_is_straight_from_the_ring(void) {
    rp_log *log = small_log();
    uint64_t put = 0, seen = 0;
    uint32_t group;
    rp_range range;
    CHECK_OK(open_group(log, "store", true, RP_NOW, &group));
    CHECK_IS(rp_group_range(log, group, UINT64_MAX, 1 << 20, &range), RP_EMPTY);
    for (int lap = 0; lap < 20; lap++) {
        while (try_put_number(log, put) == RP_OK) put++;
        for (uint64_t taken = seen; taken < put; taken++) CHECK_EQ(take_number(log, 0), taken);
        CHECK_IS(try_put_number(log, put), RP_FULL); /* the store has not read them */
        CHECK_IS(rp_group_range(log, group, UINT64_MAX, 47, &range), RP_TOO_SMALL);
        uint64_t position = UINT64_MAX, wanted = 100 + (uint64_t)lap;
        do {
            CHECK_OK(rp_group_range(log, group, position, wanted * sizeof(numbered) + 47, &range));
            CHECK(range.count == wanted || range.sequence + range.count == put);
            CHECK_EQ(range.sequence, seen);
            const numbered *frames = range.data;
            for (uint64_t i = 0; i < range.count; i++, seen++) CHECK_EQ(frames[i].number, seen);
            position = range.end;
        } while (seen < put);
        CHECK_IS(rp_group_range(log, group, position, 1 << 20, &range), RP_EMPTY);
        CHECK_OK(rp_group_advance(log, group, position, RP_NOW));
        check_invariants(log);
    }
}

static void only_what_is_there_can_be_released(void) {
    rp_log *log = small_log();
    rp_range range;
    for (uint64_t i = 0; i < 10; i++) put_number(log, i);
    CHECK_OK(rp_group_range(log, 0, UINT64_MAX, 200, &range));
    CHECK_EQ(range.count, 4);
    CHECK_OK(rp_group_advance(log, 0, range.end, RP_NOW));
    CHECK_IS(rp_group_advance(log, 0, range.position, RP_NOW), RP_INVALID);
    CHECK_IS(rp_group_advance(log, 0, range.end + 1, RP_NOW), RP_INVALID);
    CHECK_IS(rp_group_advance(log, 0, 10 * sizeof(numbered) + 16, RP_NOW), RP_INVALID);
    CHECK_IS(rp_group_range(log, 0, range.position, 200, &range), RP_INVALID);
    CHECK_IS(rp_group_range(log, log->geometry.group_count, UINT64_MAX, 200, &range), RP_INVALID);
    CHECK_IS(rp_group_advance(log, log->geometry.group_count, 0, RP_NOW), RP_INVALID);
}

/* A group may be read in both ways. */
static void taking_goes_on_after_advancing(void) {
    rp_log *log = small_log();
    rp_range range;
    for (uint64_t i = 0; i < 10; i++) put_number(log, i);
    CHECK_OK(rp_group_range(log, 0, UINT64_MAX, 200, &range));
    CHECK_OK(rp_group_advance(log, 0, range.end, RP_NOW));
    for (uint64_t i = range.count; i < 10; i++) CHECK_EQ(take_number(log, 0), i);
}

RUN_TESTS(TEST(as_many_go_in_as_fit), TEST(runs_of_any_size_keep_every_byte), TEST(bad_frames_are_refused),
          TEST(a_bad_frame_larger_than_the_ring_is_refused),
          TEST(a_bad_frame_behind_what_fits_is_not_looked_at), TEST(a_range_is_straight_from_the_ring),
          TEST(only_what_is_there_can_be_released), TEST(taking_goes_on_after_advancing))
