/* Messages whose every byte is known from a number, and puts and takes that wait for a bounded time. */
#ifndef MESSAGES_H
#define MESSAGES_H

#include "harness.h"

#define BUFFER_SIZE (1u << 20)

/* A small generator with a seed of its own: runs are repeatable. */
static inline uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static inline uint8_t pattern(uint64_t number, size_t i) { return (uint8_t)(number * 31 + i * 7 + (i >> 8)); }

static inline void fill(void *data, size_t size, uint64_t number) {
    for (size_t i = 0; i < size; i++) ((uint8_t *)data)[i] = pattern(number, i);
}

static inline bool is_filled(const void *data, size_t size, uint64_t number) {
    for (size_t i = 0; i < size; i++)
        if (((const uint8_t *)data)[i] != pattern(number, i)) return false;
    return true;
}

/* The waiting forms come back after each slice of sleep: call them again, as a caller would. What they say after
 * their deadline is final, so this ends; a second more, in case it does not. */
#define UNTIL(deadline, call)                                                                                \
    ({                                                                                                       \
        rp_status status_;                                                                                   \
        do status_ = (call);                                                                                 \
        while (status_ == RP_INTERRUPTED && rp_monotonic_ns() - 1000000000 < (deadline));                    \
        status_;                                                                                             \
    })

static inline rp_status put_bytes(rp_log *log, const void *body, size_t size, int64_t deadline) {
    rp_message message = {.body = body, .body_len = size};
    return UNTIL(deadline, rp_put(log, &message, deadline));
}

/* Small messages that carry a number. */
static inline void put_number(rp_log *log, uint64_t number) {
    CHECK_OK(put_bytes(log, &number, sizeof number, in_ms(BOUND_MS)));
}

typedef struct numbered {
    rp_frame frame;
    uint64_t number;
    uint64_t padding;
} numbered;

static inline rp_status take_number_until(rp_log *log, uint32_t group, int64_t deadline, uint64_t *number) {
    _Alignas(RP_ALIGN) numbered got;
    rp_taken taken;
    rp_status status = UNTIL(deadline, rp_take(log, group, &got, sizeof got, 1, deadline, &taken));
    if (status == RP_OK) *number = got.number;
    return status;
}

static inline uint64_t take_number(rp_log *log, uint32_t group) {
    uint64_t number = UINT64_MAX;
    CHECK_OK(take_number_until(log, group, in_ms(BOUND_MS), &number));
    return number;
}

static inline rp_status open_group(rp_log *log, const char *name, bool from_start, int64_t deadline,
                                   uint32_t *group) {
    bool made;
    return rp_group_open(log, name, &(rp_group_settings){.from_start = from_start}, deadline, group, &made);
}

static inline rp_status commit_parts(rp_log *log, rp_loan *loan, uint8_t kind, size_t subject_len,
                                     size_t headers_len, int64_t deadline) {
    rp_message parts = {.kind = kind, .subject_len = subject_len, .headers_len = headers_len};
    return rp_commit(log, loan, &parts, deadline);
}

static inline rp_status commit_loan(rp_log *log, rp_loan *loan, int64_t deadline) {
    return rp_commit(log, loan, &(rp_message){0}, deadline);
}

/* Small, non-blocking, or RP_FULL, RP_EMPTY. */
static inline rp_status try_put_number(rp_log *log, uint64_t number) {
    return rp_try_put(log, &(rp_message){.body = &number, .body_len = sizeof number});
}

static inline rp_status try_take_number(rp_log *log, uint32_t group, uint64_t *number) {
    return take_number_until(log, group, RP_NOW, number);
}

/* A message of `size` bytes, known by its number; large ones through the pool. */
static inline rp_status put_filled(rp_log *log, uint64_t number, size_t size, int64_t deadline) {
    if (size > RP_INLINE_MAX) {
        rp_loan loan;
        rp_status status = UNTIL(deadline, rp_borrow(log, size, deadline, &loan));
        if (status != RP_OK) return status;
        fill(loan.data, size, number);
        status = UNTIL(deadline, commit_loan(log, &loan, deadline));
        if (status != RP_OK) rp_abort(log, &loan);
        return status;
    }
    uint8_t body[RP_INLINE_MAX];
    fill(body, size, number);
    return put_bytes(log, body, size, deadline);
}

/* Take one message and check every byte of it. */
static inline rp_status take_filled(rp_log *log, uint32_t group, uint64_t number, size_t size,
                                    int64_t deadline) {
    _Alignas(RP_ALIGN) uint8_t buffer[sizeof(rp_frame) + RP_INLINE_MAX];
    rp_taken taken;
    rp_status status = UNTIL(deadline, rp_take(log, group, buffer, sizeof buffer, 1, deadline, &taken));
    if (status == RP_LARGE) {
        CHECK_EQ(taken.length, size);
        uint8_t *body = malloc(size);
        status =
            UNTIL(deadline, rp_take_large(log, group, taken.frame.sequence, size, NULL, 0, body, deadline));
        if (status == RP_OK) CHECK(is_filled(body, size, number));
        free(body);
        return status;
    }
    if (status != RP_OK) return status;
    rp_frame *frame = (rp_frame *)buffer;
    CHECK_EQ(frame->size, sizeof *frame + size);
    CHECK_EQ(taken.bytes, rp_align(frame->size));
    CHECK(is_filled(frame + 1, size, number));
    return RP_OK;
}

#endif
