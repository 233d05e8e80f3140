/* Pins: a run that somebody reads or wrote in place is not lent again, until they are done or dead. */
#include "inside.h"
#include "messages.h"
#include "pin.h"

#define LARGE (3 * RP_GRANULE) /* of the 8 granules of a small log */

static void put_large(rp_log *log, uint64_t seed) {
    rp_loan loan;
    CHECK_OK(UNTIL(RP_NOW, rp_borrow(log, LARGE, RP_NOW, &loan)));
    fill(loan.data, LARGE, seed);
    CHECK_OK(UNTIL(RP_NOW, commit_loan(log, &loan, RP_NOW)));
}

static rp_status take_pinned(rp_log *log, rp_pin *pin) {
    uint8_t buffer[64];
    rp_taken taken;
    CHECK_EQ(rp_try_take(log, 0, buffer, sizeof buffer, 1, &taken), RP_LARGE);
    return rp_take_pinned(log, 0, taken.frame.sequence, taken.length, RP_NOW, pin);
}

static rp_status borrow_all(rp_log *log, rp_loan *loan) {
    return rp_borrow(log, log->geometry.pool_size, RP_NOW, loan);
}

static void a_pinned_run_is_not_lent(void) {
    rp_log *log = small_log();
    rp_pin pin;
    rp_loan loan;
    put_large(log, 7);
    const uint8_t *start = log->pool;
    CHECK_OK(take_pinned(log, &pin));
    CHECK(pin.data == start);
    CHECK_EQ(pin.length, LARGE);
    uint8_t before = ((const uint8_t *)pin.data)[5];
    for (uint64_t i = 0; i < 50; i++) { /* the others are lent again and again */
        rp_pin other;
        put_large(log, 100 + i);
        CHECK_OK(take_pinned(log, &other));
        CHECK(other.data != pin.data);
        rp_unpin(log, &other);
    }
    CHECK_EQ(((const uint8_t *)pin.data)[5], before);
    CHECK_EQ(borrow_all(log, &loan), RP_FULL);
    rp_unpin(log, &pin);
    CHECK_OK(borrow_all(log, &loan));
    rp_abort(log, &loan);
    check_pool_is_whole(log);
}

static void there_is_a_most(void) {
    rp_log *log = small_log();
    rp_loan loan;
    rp_pin pins[3];
    CHECK_OK(rp_borrow(log, LARGE, RP_NOW, &loan));
    CHECK_OK(rp_pin_loan(log, &loan, &pins[0]));
    CHECK_OK(rp_pin_loan(log, &loan, &pins[1]));
    CHECK_EQ(rp_pin_loan(log, &loan, &pins[2]), RP_NO_SLOT);
    rp_unpin(log, &pins[0]);
    CHECK_OK(rp_pin_loan(log, &loan, &pins[2]));
    rp_unpin(log, &pins[0]); /* twice: it is another's now */
    CHECK(rp_is_pinned(log, loan.first, loan.granules));
    CHECK_EQ(rp_pin_loan(log, &loan, &pins[0]), RP_NO_SLOT);
    rp_unpin(log, &pins[1]);
    rp_unpin(log, &pins[2]);
    CHECK(!rp_is_pinned(log, loan.first, loan.granules));
    rp_abort(log, &loan);
    CHECK_OK(rp_borrow(log, 1, RP_NOW, &loan));
    CHECK_EQ(rp_pin_loan(log, &loan, &pins[0]), RP_NO_SLOT);
    rp_abort(log, &loan);
}

static void pins_of_the_dead_count_for_nothing(void) {
    rp_log *log = small_log();
    rp_pin pin;
    rp_loan loan;
    put_large(log, 3);
    CHECK_OK(take_pinned(log, &pin));
    CHECK_EQ(borrow_all(log, &loan), RP_FULL);
    uint64_t nobody = rp_chunk_word(RP_CHUNK_PIN, 5, (0xfffffu << 11) | 77);
    rp_store_relaxed(&log->chunks[pin.entry].word, nobody);
    rp_unpin(log, &pin); /* not ours any more: left as it is */
    CHECK_EQ(rp_load_relaxed(&log->chunks[pin.entry].word), nobody);
    CHECK_OK(borrow_all(log, &loan));
    rp_abort(log, &loan);
    check_pool_is_whole(log);
}

static void a_head_is_never_hit(void) {
    rp_log *log = small_log();
    rp_descriptor stale = {.length = LARGE, .first = 0, .granules = 3};
    rp_loan loans[8];
    rp_pin pin;
    for (int i = 0; i < 8; i++) CHECK_OK(rp_borrow(log, 1, RP_NOW, &loans[i])); /* a head in each entry */
    CHECK_EQ(rp_pin_run(log, &stale, 4711, &pin), RP_NOT_FOUND);
    CHECK_EQ(walk_pool(log), 8);
    for (int i = 0; i < 8; i++) rp_abort(log, &loans[i]);
    CHECK_EQ(rp_pin_run(log, &stale, 4711, &pin), RP_NOT_FOUND);
    rp_loan loan;
    CHECK_OK(borrow_all(log, &loan));
    rp_abort(log, &loan);
}

RUN_TESTS(TEST(a_pinned_run_is_not_lent), TEST(there_is_a_most), TEST(pins_of_the_dead_count_for_nothing),
          TEST(a_head_is_never_hit))
