/* Leases: what was received stays in the log until it is settled, and comes again if its holder dies. */
#include <pthread.h>

#include "leases.h"

static void what_is_settled_is_gone(void) {
    rp_log *log = small_log();
    put_numbers(log, 0, 3);
    CHECK_OK(receive(log, 0, 10, 0, RP_NOW));
    CHECK_EQ(received.count, 3);
    for (uint64_t i = 0; i < 3; i++) CHECK_EQ(received.numbers[i], i);
    CHECK_EQ(acked(log), 0);
    CHECK_IS(receive(log, 0, 1, 0, RP_NOW), RP_EMPTY);
    rp_receipt again[3];
    CHECK_OK((put_number(log, 3), RP_OK));
    CHECK_OK(receive(log, 0, 1, 0, RP_NOW));
    memcpy(again, received.receipts, sizeof *again);
    CHECK_EQ(settle(log, again, 1), 0);
    CHECK_EQ(settle(log, again, 1), 1); /* not twice */
}

static void acks_come_in_any_order(void) {
    rp_log *log = create_log((rp_settings){.capacity = 1 << 20});
    uint64_t seed = 7, total = 3000;
    put_numbers(log, 0, total);
    CHECK_OK(receive(log, 0, MANY, 0, RP_NOW));
    CHECK_EQ(received.count, total);
    for (uint32_t i = received.count; i > 1; i--) {
        uint32_t j = (uint32_t)(next_random(&seed) % i);
        rp_receipt swap = received.receipts[i - 1];
        received.receipts[i - 1] = received.receipts[j];
        received.receipts[j] = swap;
    }
    for (uint32_t i = 0; i < received.count; i += 3)
        CHECK_EQ(settle(log, &received.receipts[i], received.count - i < 3 ? received.count - i : 3), 0);
    check_is_done(log);
}

/* A table that is full of pieces takes what is given back nonetheless: alike or not, it goes to its like. */
static void a_full_table_takes_back(void) {
    rp_log *log = create_log((rp_settings){.capacity = 1 << 20, .leases = 4});
    rp_receipt receipts[128];
    put_numbers(log, 0, 200);
    CHECK_OK(receive(log, 0, 200, 0, RP_NOW));
    CHECK_EQ(received.count, 128); /* half of the table is kept for this */
    memcpy(receipts, received.receipts, sizeof receipts);
    for (uint32_t i = 0; i < 128; i++) give_back(log, &receipts[i * 37 % 128], 1, i % 9 * 30, false);
    bool seen[200] = {false};
    for (uint32_t i = 0; i < 200; i++) {
        CHECK_OK(receive(log, 0, 1, 0, in_ms(BOUND_MS)));
        CHECK(!seen[received.numbers[0]]);
        seen[received.numbers[0]] = true;
        CHECK_EQ(settle(log, received.receipts, 1), 0);
    }
    check_is_done(log);
}

static void single_receives_share_leases(void) {
    rp_log *log = create_log((rp_settings){.capacity = 1 << 20});
    rp_receipt receipts[2000];
    put_numbers(log, 0, COUNT(receipts));
    for (uint32_t i = 0; i < COUNT(receipts); i++) {
        expect_number(log, i, 1);
        receipts[i] = received.receipts[0];
    }
    CHECK(rp_load_relaxed(&log->groups[0].lease_top) <= COUNT(receipts) / RP_LEASE_WIDTH + 1);
    CHECK_EQ(settle(log, receipts, COUNT(receipts)), 0);
    check_is_done(log);
}

static void what_is_given_back_comes_first(void) {
    rp_log *log = small_log();
    put_numbers(log, 0, 5);
    CHECK_OK(receive(log, 0, 4, 0, RP_NOW));
    rp_receipt receipts[4];
    memcpy(receipts, received.receipts, sizeof receipts);
    give_back(log, &receipts[1], 1, 0, false);
    give_back(log, &receipts[2], 1, 0, true);
    uint64_t ready;
    CHECK_OK(rp_ready(log, &ready));
    CHECK_EQ(ready, 3);
    CHECK_EQ(settle(log, &receipts[1], 1), 1); /* no longer ours */
    CHECK_OK(receive(log, 0, 10, 0, RP_NOW));
    CHECK_EQ(received.count, 3);
    uint64_t seen = 0;
    for (uint32_t i = 0; i < 3; i++) {
        seen |= UINT64_C(1) << received.numbers[i];
        CHECK_EQ(received.receipts[i].deliveries, received.numbers[i] == 1 ? 2 : 1);
    }
    CHECK_EQ(seen, 1 << 1 | 1 << 2 | 1 << 4);
    CHECK_EQ(settle(log, received.receipts, 3), 0);
    CHECK_EQ(settle(log, &receipts[0], 1), 0);
    CHECK_EQ(settle(log, &receipts[3], 1), 0);
    check_is_done(log);
}

static void a_part_of_what_was_given_back_can_be_had(void) {
    rp_log *log = small_log();
    put_numbers(log, 0, 60);
    CHECK_OK(receive(log, 0, 60, 0, RP_NOW));
    give_back(log, received.receipts, 60, 0, false);
    for (uint64_t i = 0; i < 60; i += 6) {
        CHECK_OK(receive(log, 0, 6, 0, RP_NOW));
        CHECK_EQ(received.count, 6);
        for (uint64_t k = 0; k < 6; k++) CHECK_EQ(received.numbers[k], i + k);
        if (i % 12 == 0)
            CHECK_EQ(settle(log, received.receipts, 6), 0);
        else
            give_back(log, received.receipts, 6, 60000, false);
    }
    uint64_t returned, held;
    rp_lease_count(log, log->groups, &returned, &held);
    CHECK_EQ(returned, 30);
    CHECK_EQ(held, 0);
    CHECK_IS(receive(log, 0, 1, 0, in_ms(20)), RP_EMPTY);
}

static void a_delay_is_kept(void) {
    rp_log *log = small_log();
    put_numbers(log, 0, 1);
    expect_number(log, 0, 1);
    int64_t start = rp_monotonic_ns();
    give_back(log, received.receipts, 1, 250, false);
    CHECK_IS(receive(log, 0, 1, 0, RP_NOW), RP_EMPTY);
    expect_number(log, 0, 2);
    CHECK(ms_since(start) >= 245);
    CHECK_EQ(settle(log, received.receipts, 1), 0);
    check_is_done(log);
}

/* Frames of one lease: what one asks for takes nothing from the others. */
static void extending_one_leaves_the_others(void) {
    rp_log *log = small_log();
    rp_receipt both[2];
    put_numbers(log, 0, 4);
    CHECK_OK(receive(log, 0, 2, 0, RP_NOW));
    memcpy(both, received.receipts, sizeof both);
    CHECK_EQ(both[0].entry, both[1].entry);
    CHECK_OK(rp_extend(log, 0, &both[0], 1, RP_NOW)); /* the other one is held for as long as we live */
    sleep_ms(60);
    expect_number(log, 2, 1);
    CHECK_EQ(settle(log, received.receipts, 1), 0);
    CHECK_EQ(settle(log, &both[1], 1), 0);
    CHECK_OK(rp_extend(log, 0, &both[0], 1, RP_NOW)); /* alone now */
    sleep_ms(60);
    expect_number(log, 0, 2);
    CHECK_EQ(settle(log, received.receipts, 1), 0);
    expect_number(log, 3, 1);
    CHECK_EQ(settle(log, received.receipts, 1), 0);
    check_is_done(log);
}

static void a_lease_runs_out(void) {
    rp_log *log = small_log();
    put_numbers(log, 0, 2);
    CHECK_OK(receive(log, 0, 1, 150 * 1000000, RP_NOW));
    rp_receipt first = received.receipts[0];
    CHECK_OK(receive(log, 0, 1, 150 * 1000000, RP_NOW));
    rp_receipt second = received.receipts[0];
    CHECK_OK(rp_extend(log, 0, &second, INT64_C(3600000000000), RP_NOW));
    expect_number(log, 0, 2);
    CHECK_EQ(settle(log, &first, 1), 1);
    CHECK_IS(rp_extend(log, 0, &first, 1, RP_NOW), RP_NOT_FOUND);
    CHECK_IS(receive(log, 0, 1, 0, in_ms(300)), RP_EMPTY);
    CHECK_EQ(settle(log, &second, 1), 0);
    CHECK_EQ(settle(log, received.receipts, 0), 0);
}

static void receive_and_die(void *argument) {
    CHECK_OK(receive(argument, 0, 5, 0, RP_NOW));
    CHECK_EQ(received.count, 5);
    CHECK_EQ(settle(argument, &received.receipts[1], 1), 0);
    raise(SIGKILL);
}

static void the_dead_lose_their_leases(void) {
    rp_log *log = small_log();
    put_numbers(log, 0, 6);
    wait_for(start_process(receive_and_die, log));
    for (uint64_t wanted = 0, left = 5, mask = 0; left; left--) {
        CHECK_OK(receive(log, 0, 1, 0, in_ms(BOUND_MS)));
        wanted = received.numbers[0];
        CHECK(wanted != 1 && !(mask >> wanted & 1));
        CHECK_EQ(received.receipts[0].deliveries, wanted == 5 ? 1 : 2);
        mask |= UINT64_C(1) << wanted;
        CHECK_EQ(settle(log, received.receipts, 1), 0);
    }
    check_is_done(log);
}

/* A plain take says so where something was given back, so that its caller can receive it. */
static void takers_are_told_of_what_was_given_back(void) {
    rp_log *log = small_log();
    uint64_t number;
    put_numbers(log, 0, 2);
    expect_number(log, 0, 1);
    CHECK_OK(try_take_number(log, 0, &number));
    CHECK_EQ(number, 1);
    give_back(log, received.receipts, 1, 0, false);
    CHECK_IS(try_take_number(log, 0, &number), RP_RETURNED_FIRST);
    expect_number(log, 0, 2);
    CHECK_EQ(settle(log, received.receipts, 1), 0);
    check_is_done(log);
}

static void large_frames_are_leased_in_place(void) {
    rp_log *log = small_log();
    size_t size = log->geometry.pool_size;
    static uint8_t body[1 << 20];
    for (uint64_t i = 0; i < 3; i++) {
        rp_taken taken;
        rp_receipt receipt;
        CHECK_OK(put_filled(log, i, size, in_ms(BOUND_MS)));
        CHECK_OK(rp_try_receive(log, 0, received.frames, sizeof received.frames, 1, 0, &receipt, &taken));
        const rp_frame *frame = (const rp_frame *)received.frames;
        CHECK(frame->flags & RP_FRAME_LARGE);
        CHECK_IS(put_filled(log, i + 1, size, RP_NOW), RP_FULL); /* still held */
        CHECK_OK(rp_read_large(log, 0, &receipt, frame, body, size));
        CHECK(is_filled(body, size, i));
        CHECK_IS(rp_read_large(log, 0, &receipt, frame, body, size - 1), RP_INVALID);
        CHECK_EQ(settle(log, &receipt, 1), 0);
    }
    check_is_done(log);
    check_pool_is_whole(log);
}

static void a_full_table_makes_receivers_wait(void) {
    rp_log *log = create_log((rp_settings){.capacity = 1 << 20, .leases = 64});
    static rp_receipt receipts[64];
    uint32_t held = 0;
    put_numbers(log, 0, 100);
    while (receive(log, 0, 1, INT64_C(3600000000000), RP_NOW) == RP_OK)
        receipts[held++] = received.receipts[0];
    CHECK_EQ(held, 32); /* half of it is kept for giving back */
    give_back(log, receipts, held, 0, true);
    CHECK_OK(receive(log, 0, 100, 0, RP_NOW));
    CHECK(received.count >= held);
}

static void only_what_matches_is_handed_out(void) {
    rp_log *log = small_log();
    uint32_t group;
    bool made;
    rp_group_settings settings = {.pattern = "eu.*", .from_start = true};
    CHECK_OK(rp_group_open(log, "europe", &settings, RP_NOW, &group, &made));
    CHECK(made);
    CHECK_OK(rp_group_open(log, "europe", &settings, RP_NOW, &group, &made));
    CHECK(!made);
    settings.pattern = "#";
    CHECK_IS(rp_group_open(log, "europe", &settings, RP_NOW, &group, &made), RP_EXISTS);
    const char *subjects[] = {"eu.dax", "us.dow", "eu.cac", "eu", "us.ibm"};
    for (uint64_t i = 0; i < 50; i++) {
        const char *subject = subjects[i % 5];
        rp_message message = {
            .subject = subject, .subject_len = strlen(subject), .body = &i, .body_len = sizeof i};
        CHECK_OK(rp_try_put(log, &message));
    }
    rp_taken taken;
    CHECK_OK(rp_try_receive(log, group, received.frames, sizeof received.frames, MANY, 0, received.receipts,
                            &taken));
    CHECK_EQ(taken.count, 20);
    size_t at = 0;
    for (uint64_t i = 0; i < 20; i++) {
        const rp_frame *frame = (const rp_frame *)(received.frames + at);
        CHECK_EQ(frame->sequence, i / 2 * 5 + i % 2 * 2);
        at += rp_align(frame->size);
    }
    uint32_t lost;
    CHECK_OK(rp_settle(log, group, received.receipts, 20, RP_NOW, &lost));
    CHECK_EQ(lost, 0);
    CHECK_EQ(rp_load_relaxed(&log->groups[group & RP_GROUP_NUMBER].acked), rp_load_relaxed(&log->head->tail));
}

static void a_lossy_group_is_told_what_it_lost(void) {
    rp_log *log = small_log();
    uint32_t group;
    bool made;
    uint64_t put = 0, got = 0, lost = 0, seed = 3;
    rp_group_settings settings = {.lossy = true};
    CHECK_OK(rp_group_open(log, "lossy", &settings, RP_NOW, &group, &made));
    for (int lap = 0; lap < 50; lap++) {
        for (uint64_t n = next_random(&seed) % 3000; n; n--) {
            uint64_t unused;
            put_number(log, put++);
            CHECK_OK(try_take_number(log, 0, &unused));
        }
        rp_taken taken;
        for (uint64_t n = next_random(&seed) % 40; n; n--) {
            if (rp_try_take(log, group, received.frames, sizeof received.frames, 50, &taken) != RP_OK) break;
            lost += taken.lost;
            const numbered *first = (const numbered *)received.frames;
            CHECK_EQ(first->number, got + lost);
            got += taken.count;
        }
    }
    CHECK(lost > 0 && got > 0);
    CHECK_EQ(rp_load_relaxed(&log->groups[group & RP_GROUP_NUMBER].lost), lost);
}

/* A frame that does not fit comes next time; what was passed over before it makes room now. */
static void what_is_passed_over_makes_room(void) {
    rp_log *log = small_log();
    rp_taken taken;
    uint32_t group;
    bool made;
    rp_group_settings settings = {.pattern = "eu", .from_start = true};
    CHECK_OK(rp_group_open(log, "europe", &settings, RP_NOW, &group, &made));
    rp_message unwanted = {.subject = "us", .subject_len = 2}, wanted = {.subject = "eu", .subject_len = 2};
    CHECK_OK(rp_try_put(log, &unwanted));
    CHECK_OK(rp_try_put(log, &wanted));
    rp_or_relaxed(&log->head->armed[0], UINT64_C(1) << RP_EVENT_SPACE);
    uint32_t before = rp_load_relaxed(&log->head->events[RP_EVENT_SPACE].count);
    CHECK_IS(rp_try_take(log, group, received.frames, 8, 1, &taken), RP_TOO_SMALL);
    CHECK(rp_load_relaxed(&log->head->events[RP_EVENT_SPACE].count) != before);
    CHECK_OK(rp_try_take(log, group, received.frames, sizeof received.frames, 1, &taken));
    CHECK_EQ(taken.count, 1);
}

static void what_matches_says_what_it_needs(void) {
    rp_log *log = small_log();
    uint32_t group;
    bool made;
    uint8_t body[500] = {0}, buffer[100];
    rp_taken taken;
    CHECK_OK(rp_group_open(log, "some", &(rp_group_settings){.pattern = "a.#"}, RP_NOW, &group, &made));
    const char *subjects[] = {"b", "a.b"};
    for (int i = 0; i < 2; i++)
        CHECK_OK(rp_try_put(log, &(rp_message){.subject = subjects[i],
                                               .subject_len = strlen(subjects[i]),
                                               .body = body,
                                               .body_len = sizeof body}));
    CHECK_IS(rp_try_take(log, group, buffer, sizeof buffer, 1, &taken), RP_TOO_SMALL);
    CHECK_EQ(taken.need, rp_align(sizeof(rp_frame) + 3 + sizeof body));
}

static void put_and_take(rp_log *log, uint64_t count) {
    for (; count; count--) {
        uint64_t unused;
        put_number(log, 0);
        CHECK_OK(try_take_number(log, 0, &unused));
    }
}

/* It died before `read` moved, and what it stood at was overwritten before anybody looked. */
static void a_lossy_group_whose_reader_died_knows_where_it_stands(void) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .keep_history = true});
    uint64_t most = (log->geometry.ring_size - RP_STUB) / sizeof(numbered);
    uint32_t handle;
    bool made;
    rp_taken taken;
    CHECK_OK(rp_group_open(log, "lossy", &(rp_group_settings){.lossy = true}, RP_NOW, &handle, &made));
    rp_group *group = rp_group_of(log, handle);
    put_and_take(log, 70);
    CHECK_OK(rp_try_take(log, handle, received.frames, sizeof received.frames, 20, &taken));
    uint64_t read = rp_load_relaxed(&group->read);
    CHECK_OK(rp_try_take(log, handle, received.frames, sizeof received.frames, 50, &taken));
    rp_store_relaxed(&group->read, read);
    rp_store_relaxed(&group->acked, read);
    rp_store_relaxed(&group->lock, dead_owner(log));
    put_and_take(log, most - 20); /* to the middle of what it took */
    CHECK(rp_load_relaxed(&log->head->oldest) > read);
    CHECK_OK(UNTIL(in_ms(BOUND_MS), rp_take(log, handle, received.frames, sizeof received.frames, 1,
                                            in_ms(BOUND_MS), &taken)));
    CHECK_EQ(taken.lost, ((const rp_frame *)received.frames)->sequence - 20);
}

static void open_and_die(void *argument) {
    uint32_t group;
    bool made;
    CHECK_OK(
        rp_group_open(argument, "mortal", &(rp_group_settings){.ends_with_us = true}, RP_NOW, &group, &made));
    raise(SIGKILL);
}

static void a_dead_subscriber_holds_nobody_back(void) {
    rp_log *log = small_log();
    uint64_t put = 0, number = 0;
    wait_for(start_process(open_and_die, log));
    for (int lap = 0; lap < 3; lap++) {
        while (put_bytes(log, &put, sizeof put, lap ? RP_NOW : in_ms(300)) == RP_OK) put++;
        while (try_take_number(log, 0, &number) == RP_OK) {
        }
    }
    CHECK_EQ(number, put - 1);
    CHECK(put > 2 * log->geometry.ring_size / sizeof(numbered));
}

static const uint32_t nobody = RP_SLOT_MASK - 1; /* an owner who never took part */

/* ---- full tables ---------------------------------------------------------------------------- */

static void expect_each_once(rp_log *log, uint64_t count) {
    static bool seen[MANY];
    for (uint64_t i = 0; i < count; i++) {
        CHECK_OK(receive(log, 0, 1, 0, in_ms(BOUND_MS)));
        CHECK(!seen[received.numbers[0]]);
        seen[received.numbers[0]] = true;
        CHECK_EQ(settle(log, received.receipts, 1), 0);
    }
    check_is_done(log);
}

/* All of the table is returned leases of several frames each: one who wants less than any of them holds gets it. */
static void a_part_can_be_had_of_a_full_table(void) {
    rp_log *log = create_log((rp_settings){.capacity = 1 << 20, .leases = 4});
    rp_receipt receipts[128];
    put_numbers(log, 0, 128);
    CHECK_OK(receive(log, 0, 128, 0, RP_NOW));
    CHECK_EQ(received.count, 128);
    memcpy(receipts, received.receipts, sizeof receipts);
    give_back(log, &receipts[0], 2, 30, false);
    give_back(log, &receipts[64], 2, 30, false);
    give_back(log, &receipts[2], 62, 0, false);
    give_back(log, &receipts[66], 62, 0, false);
    CHECK_EQ(rp_load_relaxed(&log->groups[0].lease_top), 4);
    expect_each_once(log, 128);
}

/* What the dead held is given back as it was: whatever the table then looks like, all of it can be had. */
static void a_table_of_any_kind_runs_empty(void) {
    static rp_receipt held[MANY];
    for (uint64_t seed = 1; seed <= ROUNDS(40); seed++) {
        uint64_t random = seed * 7919, put = 0, done = 0;
        uint32_t count = 0, none;
        rp_log *log = create_log((rp_settings){.capacity = 1 << 20, .leases = 4 + (uint32_t)seed % 5});
        for (int step = 0; step < 60; step++) {
            uint64_t kind = next_random(&random) % 4;
            if (kind < 2) {
                for (uint64_t n = next_random(&random) % 70; n; n--) put_number(log, put++);
                rp_status status = receive(log, 0, 1 + (uint32_t)(next_random(&random) % 64), 0, RP_NOW);
                if (status != RP_OK) CHECK_IS(status, RP_EMPTY);
                memcpy(&held[count], received.receipts, received.count * sizeof *held);
                count += received.count;
                continue;
            }
            if (count == 0) continue;
            uint32_t from = (uint32_t)(next_random(&random) % count);
            uint32_t some = 1 + (uint32_t)(next_random(&random) % 20);
            if (some > count - from) some = count - from;
            if (kind == 2) {
                CHECK_EQ(settle(log, &held[from], some), 0);
                done += some;
            } else {
                rp_status status =
                    rp_give_back(log, 0, &held[from], some, 200000000, false, RP_NOW, &none, &some);
                if (status != RP_OK) CHECK_IS(status, RP_NO_SLOT);
            }
            memmove(&held[from], &held[from + some], (count - from - some) * sizeof *held);
            count -= some;
        }
        for (uint32_t i = 0; i < log->geometry.lease_count; i++)
            if (rp_load_relaxed(&log->leases[i].owner) == log->me)
                rp_store_relaxed(&log->leases[i].owner, nobody);
        for (; done < put; done++) {
            CHECK_OK(receive(log, 0, 1, 0, in_ms(BOUND_MS)));
            CHECK_EQ(settle(log, received.receipts, 1), 0);
        }
        check_is_done(log);
        rp_detach(log);
        CHECK_OK(rp_remove(log_path()));
    }
}

/* Whoever finds no free lease sleeps, although there are messages, and looks around at the end of its slice. */
static void who_finds_no_free_lease_sleeps(void) {
    rp_log *log = create_log((rp_settings){.capacity = 1 << 20, .leases = 64});
    rp_taken taken;
    put_numbers(log, 0, 100);
    while (receive(log, 0, 1, INT64_C(3600000000000), RP_NOW) == RP_OK) {
    }
    clock_t worked = clock();
    CHECK_IS(rp_receive(log, 0, received.frames, sizeof received.frames, 1, 0, received.receipts, RP_NEVER,
                        &taken),
             RP_INTERRUPTED);
    CHECK_SOON((clock() - worked) * 1000 / CLOCKS_PER_SEC, 30);
}

/* What was given back, and finds no lease for a part of it, rests: who takes gets what else there is. */
static void who_takes_is_not_sent_to_what_finds_no_lease(void) {
    rp_log *log = create_log((rp_settings){.capacity = 1 << 20, .leases = 64});
    _Alignas(RP_ALIGN) numbered got;
    rp_taken taken;
    rp_receipt first;
    put_numbers(log, 0, 100);
    CHECK_OK(receive(log, 0, 80, 0, RP_NOW));
    give_back(log, received.receipts, 80, 0, false);
    CHECK_OK(receive(log, 0, 1, INT64_C(3600000000000), RP_NOW));
    first = received.receipts[0];
    while (receive(log, 0, 1, INT64_C(3600000000000), RP_NOW) == RP_OK) {
    }
    CHECK(rp_load_relaxed(&log->groups[0].starved));
    sleep_ms(40); /* it is due again */
    CHECK_IS(rp_try_take(log, 0, &got, sizeof got, 1, &taken), RP_RETURNED_FIRST);
    CHECK_IS(receive(log, 0, 1, 0, RP_NOW), RP_EMPTY);
    CHECK_OK(rp_try_take(log, 0, &got, sizeof got, 1, &taken));
    CHECK_EQ(got.number, 80);
    CHECK_EQ(settle(log, &first, 1), 0);
    CHECK_IS(rp_try_take(log, 0, &got, sizeof got, 1, &taken), RP_RETURNED_FIRST);
    CHECK_OK(receive(log, 0, 1, 0, RP_NOW));
    CHECK(received.numbers[0] < 80);
}

/* As acks do: what becomes free is for who found no lease. */
static void discarding_wakes_who_found_no_lease(void) {
    rp_log *log = create_log((rp_settings){.capacity = 1 << 20, .leases = 64});
    put_numbers(log, 0, 100);
    while (receive(log, 0, 1, INT64_C(3600000000000), RP_NOW) == RP_OK) {
    }
    rp_group *group = log->groups;
    uint32_t event = rp_group_event(log, group);
    CHECK(rp_load_relaxed(&group->starved));
    rp_or_relaxed(&log->head->armed[event / 64], UINT64_C(1) << event % 64);
    uint32_t before = rp_load_relaxed(&group->event.count);
    CHECK_OK(rp_group_discard(log, 0, 0, RP_NOW));
    CHECK(!rp_load_relaxed(&group->starved));
    CHECK(rp_load_relaxed(&group->event.count) != before);
    CHECK_OK(receive(log, 0, 1, 0, RP_NOW));
}

/* ---- waking producers ----------------------------------------------------------------------- */

static void *put_one_more(void *log) {
    put_number(log, 7);
    return NULL;
}

/* A message that is received is none that waits: with a bound on their number there is room for the next. */
static void receiving_makes_room_in_a_bounded_queue(void) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .max_messages = 1});
    pthread_t thread;
    put_number(log, 1);
    CHECK_EQ(pthread_create(&thread, NULL, put_one_more, log), 0);
    EVENTUALLY(rp_load_relaxed(&log->head->armed[0]) & 1 << RP_EVENT_SPACE);
    sleep_ms(20); /* asleep by now; what is left of its slice is longer than what we grant */
    int64_t start = rp_monotonic_ns();
    CHECK_OK(receive(log, 0, 1, 0, RP_NOW));
    pthread_join(thread, NULL);
    CHECK_SOON(ms_since(start), 40);
}

/* ---- handles -------------------------------------------------------------------------------- */

/* Somebody with the handle of a group that was closed finds the lock of the dead: the repair is not left out. */
static void a_stale_handle_leaves_the_repair_done(void) {
    rp_log *log = small_log();
    uint32_t stale, group, lost;
    CHECK_OK(open_group(log, "first", false, RP_NOW, &stale));
    CHECK_OK(rp_group_close(log, stale, RP_NOW));
    CHECK_OK(open_group(log, "second", false, RP_NOW, &group));
    rp_group *at = rp_group_of(log, group);
    CHECK(at == rp_group_of(log, stale));
    put_numbers(log, 0, 4);
    CHECK_OK(receive(log, group, 4, 0, RP_NOW));
    rp_lease *lease =
        &log->leases[(at - log->groups) * (log->geometry.lease_count / log->geometry.group_count)];
    uint32_t dead = dead_owner(log);
    rp_store_relaxed(&lease->owner, dead); /* in H2 */
    rp_store_relaxed(&at->read, rp_load_relaxed(&lease->position));
    rp_store_relaxed(&at->lock, dead);
    rp_taken taken;
    CHECK_IS(UNTIL(in_ms(BOUND_MS), rp_receive(log, stale, received.frames, sizeof received.frames, 1, 0,
                                               received.receipts, in_ms(BOUND_MS), &taken)),
             RP_NOT_FOUND);
    for (uint64_t i = 0; i < 4; i++) {
        CHECK_OK(receive(log, group, 1, 0, in_ms(BOUND_MS)));
        CHECK_EQ(received.numbers[0], i);
        CHECK_OK(rp_settle(log, group, received.receipts, 1, RP_NOW, &lost));
    }
    CHECK_IS(receive(log, group, 1, 0, RP_NOW), RP_EMPTY);
}

typedef struct opened {
    rp_log *log;
    uint32_t group;
} opened;

static void abandon(void *argument) {
    opened *what = argument;
    rp_group_abandon(what->log, what->group);
}

/* A forked child that drops its copy of a subscriber, perhaps before it has done anything else. */
static void a_child_does_not_abandon_its_parents_group(void) {
    opened what = {.log = small_log()};
    bool made;
    CHECK_OK(rp_group_open(what.log, "mine", &(rp_group_settings){.ends_with_us = true}, RP_NOW, &what.group,
                           &made));
    join_process(start_process(abandon, &what));
    CHECK_EQ(rp_load_relaxed(&rp_group_of(what.log, what.group)->state), RP_GROUP_GATING);
    abandon(&what);
    CHECK_EQ(rp_load_relaxed(&rp_group_of(what.log, what.group)->state), RP_GROUP_FREE);
}

#ifndef __SANITIZE_THREAD__ /* these tests are races */
/* ---- memory that others write to ------------------------------------------------------------ */

static _Atomic bool over;

static void *flip_size(void *argument) {
    rp_frame *frame = argument;
    while (!atomic_load(&over))
        for (int i = 0; i < 100; i++)
            __atomic_store_n(&frame->size, i % 2 ? sizeof(rp_frame) + 16 : sizeof(rp_frame) + 4000,
                             __ATOMIC_RELAXED);
    return NULL;
}

/* A size is read once: the buffer holds out, whatever another process does to it meanwhile. */
static void a_size_that_changes_while_it_is_looked_at(void) {
    rp_log *log = small_log();
    uint32_t group;
    bool made;
    static uint8_t body[4000], buffer[8192];
    rp_group_settings settings = {.pattern = "a", .from_start = true};
    CHECK_OK(rp_group_open(log, "a", &settings, RP_NOW, &group, &made));
    CHECK_OK(
        rp_try_put(log, &(rp_message){.subject = "a", .subject_len = 1, .body = body, .body_len = 3999}));
    rp_group *at = rp_group_of(log, group);
    uint64_t start = rp_load_relaxed(&at->read);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, flip_size, rp_frame_at(log, start)), 0);
    for (uint32_t i = 0; i < ROUNDS(200000); i++) {
        rp_taken taken;
        memset(buffer, 0xa5, sizeof buffer);
        rp_try_take(log, group, buffer, 64, 1, &taken);
        for (size_t k = 64; k < sizeof buffer; k += 64) CHECK_EQ(buffer[k], 0xa5);
        rp_store_relaxed(&at->acked, start);
        rp_store_relaxed(&at->read, start);
    }
    atomic_store(&over, true);
    pthread_join(thread, NULL);
}

static void *lose_and_regain(void *argument) {
    rp_log *log = argument;
    rp_lease *lease = &log->leases[0];
    rp_frame *late = rp_frame_at(log, rp_load_relaxed(&lease->position) + 60 * sizeof(numbered));
    while (!atomic_load(&over)) {
        rp_store_relaxed(&lease->owner, RP_RETURNED);
        rp_write_once(late->size, 1); /* acked by another, and overwritten */
        for (int i = 0; i < 20; i++) rp_pause();
        __atomic_store_n(&late->size, sizeof *late + sizeof(uint64_t), __ATOMIC_RELEASE);
        rp_store_relaxed(&lease->id, rp_load_relaxed(&lease->id) + 1);
        rp_store_release(release, &lease->owner, log->me);
        for (int i = 0; i < 20; i++) rp_pause();
    }
    return NULL;
}

/* A lease may end while its large message is being copied: it is lost, and nothing is corrupt. */
static void a_lease_ends_while_it_is_read(void) {
    rp_log *log = small_log();
    static uint8_t body[64];
    rp_loan loan;
    rp_taken taken;
    rp_receipt receipts[64];
    put_numbers(log, 0, 63);
    CHECK_OK(rp_borrow(log, sizeof body, RP_NOW, &loan));
    CHECK_OK(commit_loan(log, &loan, RP_NOW));
    CHECK_OK(rp_try_receive(log, 0, received.frames, sizeof received.frames, 64, 0, receipts, &taken));
    CHECK_EQ(taken.count, 64);
    const rp_frame *frame = (const rp_frame *)(received.frames + 63 * sizeof(numbered));
    CHECK(frame->flags & RP_FRAME_LARGE);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, lose_and_regain, log), 0);
    for (uint32_t i = 0; i < ROUNDS(2000000); i++) {
        receipts[63].id = rp_load_relaxed(&log->leases[0].id);
        rp_status status = rp_read_large(log, 0, &receipts[63], frame, body, sizeof body);
        if (status != RP_OK) CHECK_IS(status, RP_NOT_FOUND);
    }
    atomic_store(&over, true);
    pthread_join(thread, NULL);
}

#endif

/* ---- half-finished states ------------------------------------------------------------------- */

static rp_lease *lease_at(rp_log *log, uint32_t entry) { return &log->leases[entry]; }

static void die_in_the_lock(rp_log *log) { rp_store_relaxed(&log->groups[0].lock, dead_owner(log)); }

static void receive_all_but_count(rp_log *log, uint64_t wanted) {
    uint64_t mask = 0;
    while (mask != wanted) {
        CHECK_OK(receive(log, 0, 64, 0, in_ms(BOUND_MS)));
        for (uint32_t i = 0; i < received.count; i++) {
            CHECK(!(mask >> received.numbers[i] & 1));
            mask |= UINT64_C(1) << received.numbers[i];
        }
        CHECK_EQ(settle(log, received.receipts, received.count), 0);
    }
    check_is_done(log);
}

/* H2: bits were set, `read` was not moved: nobody got the frames. */
static void died_before_read(void) {
    rp_log *log = small_log();
    put_numbers(log, 0, 4);
    CHECK_OK(receive(log, 0, 4, 0, RP_NOW));
    rp_store_relaxed(&lease_at(log, 0)->owner, dead_owner(log));
    rp_store_relaxed(&log->groups[0].read, lease_at(log, 0)->position);
    die_in_the_lock(log);
    receive_all_but_count(log, 0xf);
}

/* H2 in a lease that held two frames before: these come again, the others for the first time. */
static void died_while_adding(void) {
    rp_log *log = small_log();
    put_numbers(log, 0, 4);
    CHECK_OK(receive(log, 0, 2, 0, RP_NOW));
    uint64_t read = rp_load_relaxed(&log->groups[0].read);
    CHECK_OK(receive(log, 0, 2, 0, RP_NOW));
    CHECK_EQ(rp_load_relaxed(&lease_at(log, 0)->pending), 0xf);
    rp_store_relaxed(&lease_at(log, 0)->owner, dead_owner(log));
    rp_store_relaxed(&log->groups[0].read, read);
    die_in_the_lock(log);
    receive_all_but_count(log, 0xf);
}

/* R2: the new lease has the frames, the returned one still too. */
static void died_while_taking_some(void) {
    rp_log *log = small_log();
    put_numbers(log, 0, 6);
    CHECK_OK(receive(log, 0, 6, 0, RP_NOW));
    give_back(log, received.receipts, 6, 0, false);
    CHECK_OK(receive(log, 0, 2, 0, RP_NOW));
    CHECK_EQ(rp_load_relaxed(&lease_at(log, 1)->pending), 3);
    rp_store_relaxed(&lease_at(log, 1)->owner, dead_owner(log));
    rp_store_relaxed(&lease_at(log, 0)->pending, 0x3f);
    die_in_the_lock(log);
    receive_all_but_count(log, 0x3f);
}

/* G2: returned already, and still in the dead one's lease. */
static void died_while_giving_some_back(void) {
    rp_log *log = small_log();
    put_numbers(log, 0, 6);
    CHECK_OK(receive(log, 0, 6, 0, RP_NOW));
    give_back(log, &received.receipts[2], 2, 0, false);
    rp_store_relaxed(&lease_at(log, 0)->owner, dead_owner(log));
    rp_store_relaxed(&lease_at(log, 0)->pending, 0x3f);
    die_in_the_lock(log);
    receive_all_but_count(log, 0x3f);
}

/* S1: acked, though the lease is not free yet and `acked` did not move. */
static void died_while_settling(void) {
    rp_log *log = small_log();
    put_numbers(log, 0, 3);
    CHECK_OK(receive(log, 0, 2, 0, RP_NOW));
    rp_store_relaxed(&lease_at(log, 0)->owner, dead_owner(log));
    rp_store_relaxed(&lease_at(log, 0)->pending, 0);
    die_in_the_lock(log);
    receive_all_but_count(log, 4);
}

/* ---- storms --------------------------------------------------------------------------------- */

typedef struct ledger {
    rp_log *log;
    uint64_t total;
    _Atomic uint32_t settled[1 << 15];
    _Atomic uint64_t left;
} ledger;

static void work(ledger *all, uint64_t seed, bool dies) {
    for (;;) {
        rp_status status = receive(all->log, 0, 1 + (uint32_t)(next_random(&seed) % 90), 0, in_ms(50));
        if (atomic_load(&all->left) == 0) return;
        if (status != RP_OK) continue;
        uint32_t keep = received.count - (uint32_t)(next_random(&seed) % (received.count + 1)) / 3;
        if (dies && next_random(&seed) % 20 == 0) raise(SIGKILL);
        for (uint32_t i = 0; i < keep; i++) {
            uint32_t lost = settle(all->log, &received.receipts[i], 1);
            CHECK_EQ(lost, 0);
            CHECK_EQ(atomic_fetch_add(&all->settled[received.numbers[i]], 1), 0);
            atomic_fetch_sub(&all->left, 1);
        }
        if (keep < received.count) {
            int64_t delay = (int64_t)(next_random(&seed) % 2) * 5;
            give_back(all->log, &received.receipts[keep], received.count - keep, delay,
                      next_random(&seed) % 2);
        }
    }
}

static void worker(void *argument) { work(argument, (uint64_t)getpid() * 77, false); }
static void mortal(void *argument) { work(argument, (uint64_t)getpid() * 77, true); }

static void producer(void *argument) {
    ledger *all = argument;
    for (uint64_t i = 0; i < all->total; i++) put_number(all->log, i);
}

static void run_storm(uint32_t mortals) {
    ledger *all = shared_memory(sizeof *all);
    all->log = create_log((rp_settings){.capacity = 1 << 20});
    all->total = ROUNDS(20000);
    atomic_store(&all->left, all->total);
    pid_t source = start_process(producer, all), steady[2], weak[4] = {0};
    for (int i = 0; i < 2; i++) steady[i] = start_process(worker, all);
    for (uint32_t i = 0; i < mortals; i++) weak[i] = start_process(mortal, all);
    while (mortals && atomic_load(&all->left)) {
        int status;
        for (uint32_t i = 0; i < mortals; i++)
            if (weak[i] && waitpid(weak[i], &status, WNOHANG) == weak[i]) {
                if (WIFEXITED(status) && WEXITSTATUS(status)) FAIL("a worker failed");
                weak[i] = atomic_load(&all->left) ? start_process(mortal, all) : 0;
            }
        sleep_ms(1);
    }
    join_process(source);
    for (int i = 0; i < 2; i++) join_process(steady[i]);
    for (uint32_t i = 0; i < mortals; i++)
        if (weak[i]) wait_for(weak[i]);
    for (uint64_t i = 0; i < all->total; i++) CHECK_EQ(atomic_load(&all->settled[i]), 1);
    check_is_done(all->log);
}

/* S0 to S2: what was acked is counted once, wherever its process died. */
static void died_before_it_was_counted(void) {
    rp_log *log = small_log();
    rp_group *queue = log->groups;
    put_numbers(log, 0, 5);
    CHECK_OK(receive(log, 0, 5, 0, RP_NOW));
    CHECK_EQ(settle(log, received.receipts, 1), 0);
    uint64_t pending = rp_load_relaxed(&lease_at(log, 0)->pending);
    rp_store_relaxed(&queue->settled_before, 1);
    rp_store_relaxed(&queue->pending_before, pending);
    rp_store_relaxed(&queue->settling, 1);
    for (int acked = 0; acked < 2; acked++) { /* before S1, and behind it; twice: who counts may die, too */
        if (acked) rp_store_relaxed(&lease_at(log, 0)->pending, pending & ~UINT64_C(6));
        for (int i = 0; i < 2; i++) {
            rp_store_relaxed(&queue->settling, 1);
            die_in_the_lock(log);
            CHECK_OK(rp_holds(log, 0, &received.receipts[4], in_ms(BOUND_MS)));
            CHECK_EQ(rp_load_relaxed(&queue->settled), 1 + 2 * acked);
        }
    }
    CHECK_EQ(settle(log, received.receipts + 1, 4), 2);
    CHECK_OK(rp_join(log, RP_NOW));
    CHECK_IS(rp_task_done(log), RP_TOO_MANY);
    check_is_done(log);
}

static void every_message_is_settled_once(void) { run_storm(0); }
static void every_message_is_settled_though_holders_die(void) { run_storm(3); }

#ifdef __SANITIZE_THREAD__
#define RACES
#else
#define RACES TEST(a_size_that_changes_while_it_is_looked_at), TEST(a_lease_ends_while_it_is_read),
#endif

/* Nobody gives nothing back; it would be due for ever, and every take would be sent to it. */
static void a_returned_lease_without_frames_is_let_go(void) {
    rp_log *log = small_log();
    uint64_t number;
    put_numbers(log, 0, 2);
    CHECK_OK(receive(log, 0, 1, 0, in_ms(BOUND_MS)));
    give_back(log, received.receipts, 1, 0, false);
    rp_store_relaxed(&log->leases[0].pending, 0);
    CHECK_IS(try_take_number(log, 0, &number), RP_RETURNED_FIRST);
    expect_number(log, 1, 1);
    CHECK_EQ(settle(log, received.receipts, 1), 0);
    put_numbers(log, 2, 3);
    CHECK_OK(try_take_number(log, 0, &number));
    CHECK_EQ(number, 2);
}

RUN_TESTS(RACES TEST(what_is_settled_is_gone), TEST(acks_come_in_any_order), TEST(a_full_table_takes_back),
          TEST(single_receives_share_leases), TEST(what_is_given_back_comes_first),
          TEST(a_part_of_what_was_given_back_can_be_had), TEST(a_delay_is_kept),
          TEST(extending_one_leaves_the_others), TEST(a_lease_runs_out), TEST(the_dead_lose_their_leases),
          TEST(takers_are_told_of_what_was_given_back), TEST(large_frames_are_leased_in_place),
          TEST(a_full_table_makes_receivers_wait), TEST(only_what_matches_is_handed_out),
          TEST(what_is_passed_over_makes_room), TEST(what_matches_says_what_it_needs),
          TEST(a_lossy_group_is_told_what_it_lost),
          TEST(a_lossy_group_whose_reader_died_knows_where_it_stands),
          TEST(a_dead_subscriber_holds_nobody_back), TEST(a_part_can_be_had_of_a_full_table),
          TEST(a_table_of_any_kind_runs_empty), TEST(who_finds_no_free_lease_sleeps),
          TEST(who_takes_is_not_sent_to_what_finds_no_lease), TEST(discarding_wakes_who_found_no_lease),
          TEST(receiving_makes_room_in_a_bounded_queue), TEST(a_stale_handle_leaves_the_repair_done),
          TEST(a_child_does_not_abandon_its_parents_group), TEST(died_before_read), TEST(died_while_adding),
          TEST(died_while_taking_some), TEST(died_while_giving_some_back), TEST(died_while_settling),
          TEST(died_before_it_was_counted), TEST(every_message_is_settled_once),
          TEST(every_message_is_settled_though_holders_die), TEST(a_returned_lease_without_frames_is_let_go))
