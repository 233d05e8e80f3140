/* Receiving numbered messages under leases, from group 0. */
#ifndef LEASES_H
#define LEASES_H

#include "inside.h"
#include "lease.h"
#include "messages.h"

#define MANY 4096u

typedef struct batch {
    _Alignas(RP_ALIGN) uint8_t frames[1 << 18];
    rp_receipt receipts[MANY];
    uint64_t numbers[MANY];
    uint32_t count;
} batch;

static batch received;

static inline rp_status receive(rp_log *log, uint32_t group, uint32_t limit, int64_t lease,
                                int64_t deadline) {
    rp_taken taken;
    rp_status status = UNTIL(deadline, rp_receive(log, group, received.frames, sizeof received.frames, limit,
                                                  lease, received.receipts, deadline, &taken));
    received.count = taken.count;
    size_t at = 0;
    for (uint32_t i = 0; i < taken.count; i++) {
        const rp_frame *frame = (const rp_frame *)(received.frames + at);
        memcpy(&received.numbers[i], frame + 1, sizeof(uint64_t));
        at += rp_align(frame->size);
    }
    CHECK_EQ(at, taken.bytes);
    return status;
}

static inline void expect_number(rp_log *log, uint64_t number, uint32_t deliveries) {
    CHECK_OK(receive(log, 0, 1, 0, in_ms(BOUND_MS)));
    CHECK_EQ(received.count, 1);
    CHECK_EQ(received.numbers[0], number);
    CHECK_EQ(received.receipts[0].deliveries, deliveries);
}

static inline uint32_t settle(rp_log *log, rp_receipt *receipts, uint32_t count) {
    uint32_t lost;
    CHECK_OK(rp_settle(log, 0, receipts, count, in_ms(BOUND_MS), &lost));
    return lost;
}

static inline void give_back(rp_log *log, rp_receipt *receipts, uint32_t count, int64_t delay_ms,
                             bool unseen) {
    uint32_t lost, done;
    CHECK_OK(
        rp_give_back(log, 0, receipts, count, delay_ms * 1000000, unseen, in_ms(BOUND_MS), &lost, &done));
    CHECK_EQ(lost, 0);
    CHECK_EQ(done, count);
}

static inline void put_numbers(rp_log *log, uint64_t from, uint64_t to) {
    for (uint64_t i = from; i < to; i++) put_number(log, i);
}

static inline uint64_t acked(rp_log *log) { return rp_load_relaxed(&log->groups[0].acked); }

/* Nothing is in flight and nothing is there. */
static inline void check_is_done(rp_log *log) {
    uint64_t returned, held;
    CHECK_IS(receive(log, 0, 1, 0, RP_NOW), RP_EMPTY);
    rp_lease_count(log, log->groups, &returned, &held);
    CHECK_EQ(returned + held, 0);
    CHECK_EQ(acked(log), rp_load_relaxed(&log->head->tail));
    CHECK(!rp_has_leases(log, 0));
    check_invariants(log);
}

#endif
