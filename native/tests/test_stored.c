/* Stored logs: what the ring has lost comes out of storage, in order and once, whoever dies while it moves. */
#include "stored.h"

#include <pthread.h>
#include <time.h>

#include "frames.h"
#include "leases.h"

#define DISK_SIZE (4u << 20)

/* The storage of a log whose positions begin at 0: byte p lies at disk[p]. */
typedef struct storage {
    rp_log *log, *door;
    uint8_t *disk;
    uint64_t end;
} storage;

static rp_settings stored_settings(void) {
    return (rp_settings){.capacity = RP_MIN_CAPACITY, .stored = true};
}

static storage stored_log(void) {
    static unsigned made;
    char name[32];
    storage s = {.disk = shared_memory(DISK_SIZE)};
    rp_settings settings = stored_settings(), of_door = {.capacity = RP_MIN_CAPACITY};
    snprintf(name, sizeof name, "log%u", ++made);
    CHECK_OK(rp_create(in_directory(name), &settings, &s.log));
    snprintf(name, sizeof name, "door%u", made);
    CHECK_OK(rp_create(in_directory(name), &of_door, &s.door));
    return s;
}

/* W1 to W6, for all there is. */
static void store(storage *s) {
    bool lead;
    rp_range range;
    uint64_t tail = rp_tail(s->log), from = rp_durable(s->log);
    CHECK_OK(UNTIL(RP_NEVER, rp_commit_enter(s->log, s->door, UINT64_MAX, in_ms(BOUND_MS), &lead)));
    CHECK(lead);
    while (from != tail) {
        CHECK_OK(rp_stored_range(s->log, from, 10000, &range));
        CHECK(range.end <= DISK_SIZE);
        memcpy(s->disk + from, range.data, range.end - from);
        from = range.end;
    }
    s->end = tail;
    rp_set_durable(s->log, tail);
    rp_commit_leave(s->door);
}

/* Frames from `position` on, as storage hands them out: with what the ring has behind them. */
static rp_range frames_from(const storage *s, uint64_t position, uint64_t most) {
    uint64_t end = position + most < s->end ? position : s->end;
    while (end < s->end && end - position < most) end += rp_align(((const rp_frame *)(s->disk + end))->size);
    return (rp_range){.data = s->disk + position, .position = position, .end = end};
}

static void put_and_store(storage *s, uint64_t from, uint64_t to) {
    for (uint64_t i = from; i < to; i++) {
        rp_message message = {.body = &i, .body_len = sizeof i};
        if (rp_try_put(s->log, &message) == RP_OK) continue;
        store(s);
        CHECK_OK(rp_try_put(s->log, &message));
    }
    store(s);
}

/* As a caller does: out of the ring, or with what it asks for. */
static rp_status take_any(const storage *s, uint32_t group, void *buffer, size_t size, uint32_t limit,
                          uint64_t most, rp_taken *out) {
    rp_status status = rp_try_take(s->log, group, buffer, size, limit, out);
    if (status != RP_COLD) return status;
    rp_range frames = frames_from(s, out->cold, most);
    return rp_take_cold(s->log, group, &frames, buffer, size, limit, out);
}

static rp_status receive_for(const storage *s, uint32_t group, uint32_t limit, int64_t lease, uint64_t most) {
    rp_taken taken;
    rp_status status = rp_try_receive(s->log, group, received.frames, sizeof received.frames, limit, lease,
                                      received.receipts, &taken);
    if (status == RP_COLD) {
        rp_range frames = frames_from(s, taken.cold, most);
        status = rp_receive_cold(s->log, group, &frames, received.frames, sizeof received.frames, limit,
                                 lease, received.receipts, &taken);
    }
    received.count = taken.count;
    size_t at = 0;
    for (uint32_t i = 0; i < taken.count; i++) {
        const rp_frame *frame = (const rp_frame *)(received.frames + at);
        memcpy(&received.numbers[i], frame + 1, sizeof(uint64_t));
        at += rp_align(frame->size);
    }
    return status;
}

static rp_status receive_any(const storage *s, uint32_t group, uint32_t limit, uint64_t most) {
    return receive_for(s, group, limit, 0, most);
}

#define TOTAL 5000u /* of 48 bytes: the ring holds 1365 */

static void what_the_ring_lost_comes_out_of_storage(void) {
    for (uint64_t most = 48; most < 100000; most *= 7) {
        storage s = stored_log();
        put_and_store(&s, 0, TOTAL);
        CHECK(rp_load_relaxed(&s.log->head->oldest) > 0);
        for (uint64_t next = 0; next < TOTAL;) {
            _Alignas(RP_ALIGN) numbered got[50];
            rp_taken taken;
            CHECK_OK(take_any(&s, 0, got, sizeof got, 1 + next % 50, most, &taken));
            CHECK(taken.count > 0);
            for (uint32_t i = 0; i < taken.count; i++, next++) {
                CHECK_EQ(got[i].number, next);
                CHECK_EQ(got[i].frame.sequence, next);
            }
        }
        rp_taken none;
        _Alignas(RP_ALIGN) numbered got;
        CHECK_IS(take_any(&s, 0, &got, sizeof got, 1, most, &none), RP_EMPTY);
        uint64_t ready;
        CHECK_OK(rp_ready(s.log, &ready));
        CHECK_EQ(ready, 0);
        munmap(s.disk, DISK_SIZE);
    }
}

static void what_is_not_stored_holds_producers_back(void) {
    storage s = stored_log();
    uint64_t put = 0;
    rp_message message = {.body = &put, .body_len = sizeof put};
    while (rp_try_put(s.log, &message) == RP_OK) {
        put++;
        uint64_t number;
        CHECK_OK(take_number_until(s.log, 0, RP_NOW, &number)); /* what was taken is not stored for that */
    }
    CHECK(put > 1000 && put < 1400);
    int64_t deadline = in_ms(5);
    CHECK_IS(UNTIL(deadline, rp_put(s.log, &message, deadline)), RP_FULL);
    store(&s);
    CHECK_OK(rp_try_put(s.log, &message));
}

static void leases_come_again_out_of_storage(void) {
    storage s = stored_log();
    uint64_t seed = 11;
    uint32_t settled[TOTAL] = {0};
    put_and_store(&s, 0, TOTAL);
    for (uint64_t done = 0; done < TOTAL;) {
        rp_status status = receive_any(&s, 0, 1 + (uint32_t)(next_random(&seed) % 100), 64 * 48 + 480);
        if (status != RP_OK) {
            CHECK_IS(status, RP_EMPTY); /* not from that view */
            continue;
        }
        for (uint32_t i = 0; i < received.count; i++) {
            if (next_random(&seed) % 3) {
                CHECK_EQ(settle(s.log, &received.receipts[i], 1), 0);
                settled[received.numbers[i]]++;
                done++;
            } else {
                give_back(s.log, &received.receipts[i], 1, 0, false);
            }
        }
    }
    for (uint32_t i = 0; i < TOTAL; i++) CHECK_EQ(settled[i], 1);
    CHECK_EQ(acked(s.log), rp_tail(s.log));
}

static void subjects_are_matched_in_views(void) {
    storage s = stored_log();
    uint32_t group;
    bool made;
    rp_group_settings settings = {.pattern = "eu.#", .from_start = true};
    CHECK_OK(rp_group_open(s.log, "eu", &settings, in_ms(BOUND_MS), &group, &made));
    for (uint64_t i = 0; i < TOTAL; i++) {
        const char *subject = i % 3 ? "us.x" : "eu.x";
        rp_message message = {.subject = subject, .subject_len = 4, .body = &i, .body_len = sizeof i};
        if (rp_try_put(s.log, &message) == RP_OK) continue;
        store(&s);
        CHECK_OK(rp_try_put(s.log, &message));
    }
    store(&s);
    for (uint64_t next = 0; next < TOTAL; next += 3) {
        _Alignas(RP_ALIGN) uint8_t got[64];
        rp_taken taken;
        rp_status status;
        do status = take_any(&s, group, got, sizeof got, 1, 500, &taken);
        while (status == RP_EMPTY); /* nothing of that view matched */
        CHECK_OK(status);
        uint64_t number;
        memcpy(&number, got + sizeof(rp_frame) + 4, sizeof number);
        CHECK_EQ(number, next);
    }
}

static void large_frames_are_skipped_by_who_has_their_payload(void) {
    storage s = stored_log();
    static uint8_t body[20000];
    for (uint64_t i = 0; i < 40; i++) {
        rp_loan loan;
        while (rp_borrow(s.log, sizeof body, RP_NOW, &loan) != RP_OK) store(&s);
        memset(loan.data, (int)i, sizeof body);
        CHECK_OK(commit_parts(s.log, &loan, 0, 0, 0, in_ms(BOUND_MS)));
    }
    store(&s);
    _Alignas(RP_ALIGN) uint8_t got[64];
    rp_taken taken;
    for (uint64_t i = 0; i < 40; i++) {
        CHECK_IS(take_any(&s, 0, got, sizeof got, 1, 10000, &taken), RP_LARGE);
        CHECK_EQ(taken.frame.sequence, i);
        CHECK_EQ(taken.length, sizeof body);
        rp_status status = rp_take_large(s.log, 0, i, sizeof body, NULL, 0, body, in_ms(BOUND_MS));
        if (status == RP_OK) {
            CHECK_EQ(body[0], i);
            continue;
        }
        CHECK_IS(status, RP_COLD);
        uint64_t read = rp_load_relaxed(&s.log->groups[0].read);
        rp_range frames = frames_from(&s, read, 10000);
        status = rp_skip_large(s.log, 0, i, NULL, in_ms(BOUND_MS));
        if (status == RP_COLD) status = rp_skip_large(s.log, 0, i, &frames, in_ms(BOUND_MS));
        CHECK_OK(status);
        CHECK_IS(rp_skip_large(s.log, 0, i, &frames, in_ms(BOUND_MS)), RP_EMPTY); /* not twice */
    }
    CHECK_IS(take_any(&s, 0, got, sizeof got, 1, 10000, &taken), RP_EMPTY);
}

static void views_that_are_no_use_change_nothing(void) {
    storage s = stored_log();
    put_and_store(&s, 0, TOTAL);
    _Alignas(RP_ALIGN) numbered got;
    rp_taken taken;
    CHECK_IS(rp_try_take(s.log, 0, &got, sizeof got, 1, &taken), RP_COLD);
    CHECK_EQ(taken.cold, 0);
    rp_range later = frames_from(&s, 480, 4800);
    CHECK_IS(rp_take_cold(s.log, 0, &later, &got, sizeof got, 1, &taken), RP_EMPTY);
    rp_range none = {.data = s.disk, .position = 0, .end = 0};
    CHECK_IS(rp_take_cold(s.log, 0, &none, &got, sizeof got, 1, &taken), RP_EMPTY);
    static _Alignas(RP_ALIGN) uint8_t noise[480];
    uint64_t seed = 3;
    for (int round = 0; round < 2000; round++) { /* never outside of it, whatever lies there */
        for (size_t i = 0; i < sizeof noise; i++) noise[i] = (uint8_t)(next_random(&seed) >> 32);
        rp_range hostile = {.data = noise, .position = 0, .end = sizeof noise};
        rp_status status = rp_take_cold(s.log, 0, &hostile, &got, sizeof got, 1, &taken);
        CHECK(status == RP_CORRUPT || status == RP_TOO_SMALL || status == RP_LARGE);
        status = rp_receive_cold(s.log, 0, &hostile, received.frames, sizeof received.frames, 10, 0,
                                 received.receipts, &taken);
        CHECK(status != RP_OK);
    }
    CHECK_OK(take_any(&s, 0, &got, sizeof got, 1, 4800, &taken));
    CHECK_EQ(got.number, 0);
}

/* ---- no lease is free ------------------------------------------------------------------------- */

#define HOUR INT64_C(3600000000000) /* ns. Who asks for some time gets a lease for each message */

/* Each in a lease of its own, until there is none. Their receipts. */
static uint32_t hold_all(const storage *s, rp_receipt *held) {
    uint32_t count = 0;
    while (receive_for(s, 0, 1, HOUR, 4800) == RP_OK) held[count++] = received.receipts[0];
    return count;
}

/* What a receiver is told that must not wait, before it looks in storage. */
static rp_status told(const storage *s, uint32_t limit) {
    static batch other;
    rp_taken taken;
    return rp_try_receive(s->log, 0, other.frames, sizeof other.frames, limit, HOUR, other.receipts, &taken);
}

static void without_a_lease_there_is_nothing_behind_the_ring(void) {
    storage s = stored_log();
    rp_receipt held[MANY];
    put_and_store(&s, 0, TOTAL);
    uint32_t count = hold_all(&s, held);
    CHECK(count > 10);
    CHECK_IS(told(&s, 1), RP_EMPTY);
    CHECK_IS(told(&s, 100), RP_EMPTY);
    for (uint32_t i = 0; i < count; i++) {
        CHECK_EQ(settle(s.log, &held[i], 1), 0);
        CHECK_IS(told(&s, 1), RP_COLD);
        CHECK_OK(receive_for(&s, 0, 1, HOUR, 4800));
        CHECK_EQ(received.numbers[0], count + i);
        CHECK_IS(receive_for(&s, 0, 1, HOUR, 4800), RP_EMPTY);
        CHECK_IS(told(&s, 1), RP_EMPTY);
    }
}

/* Leases of the dead are freed by whoever repairs, and a lease may have room for more. */
static void that_a_lease_was_missing_is_a_hint_behind_the_ring(void) {
    storage s = stored_log();
    rp_receipt held[MANY];
    put_and_store(&s, 0, TOTAL);
    for (uint64_t i = 0; i < 10; i++) CHECK_OK(receive_for(&s, 0, 1, HOUR, 4800));
    rp_store_relaxed(&s.log->groups[0].starved, 1);
    CHECK_IS(told(&s, 1), RP_COLD);
    CHECK_OK(receive_any(&s, 0, 1, 4800));
    CHECK_EQ(received.numbers[0], 10);
    uint32_t tip = rp_load_relaxed(&s.log->groups[0].tip);
    uint64_t next = 11 + hold_all(&s, held);
    CHECK_IS(told(&s, 1), RP_EMPTY);
    rp_store_relaxed(&s.log->groups[0].tip, tip);
    CHECK(next - 10 < RP_LEASE_WIDTH);
    CHECK_OK(receive_any(&s, 0, 1, 4800));
    CHECK_EQ(received.numbers[0], next);
    rp_store_relaxed(&s.log->leases[0].owner, 0); /* without a word */
    CHECK_IS(told(&s, 1), RP_COLD);
}

typedef struct sleeper {
    rp_log *log;
    rp_status status;
} sleeper;

static void *receive_behind_the_ring(void *argument) {
    sleeper *me = argument;
    static batch other;
    rp_taken taken;
    int64_t deadline = in_ms(BOUND_MS);
    me->status = UNTIL(deadline, rp_receive(me->log, 0, other.frames, sizeof other.frames, 1, HOUR,
                                            other.receipts, deadline, &taken));
    return NULL;
}

static void who_finds_no_lease_behind_the_ring_sleeps_until_others_settle(void) {
    storage s = stored_log();
    rp_receipt held[MANY];
    rp_taken taken;
    pthread_t thread;
    put_and_store(&s, 0, TOTAL);
    hold_all(&s, held);
    clock_t worked = clock();
    CHECK_IS(rp_receive(s.log, 0, received.frames, sizeof received.frames, 1, HOUR, received.receipts,
                        RP_NEVER, &taken),
             RP_INTERRUPTED); /* at the end of its slice */
    CHECK_SOON((clock() - worked) * 1000 / CLOCKS_PER_SEC, 30);
    int64_t deadline = in_ms(5);
    CHECK_IS(UNTIL(deadline, rp_receive(s.log, 0, received.frames, sizeof received.frames, 1, HOUR,
                                        received.receipts, deadline, &taken)),
             RP_EMPTY);
    sleeper one = {.log = s.log};
    CHECK_EQ(pthread_create(&thread, NULL, receive_behind_the_ring, &one), 0);
    uint32_t event = rp_group_event(s.log, s.log->groups);
    EVENTUALLY(rp_load_relaxed(&s.log->head->armed[event / 64]) >> event % 64 & 1);
    sleep_ms(20); /* asleep by now; what is left of its slice is longer than what we grant */
    int64_t start = rp_monotonic_ns();
    CHECK_EQ(settle(s.log, held, 1), 0);
    pthread_join(thread, NULL);
    CHECK_IS(one.status, RP_COLD);
    CHECK_SOON(ms_since(start), 40);
    CHECK_OK(receive_any(&s, 0, 1, 4800));
}

/* Three leases come back, and are handed out message by message, until there is none for a part of the second. */
static uint32_t split_all(const storage *s, rp_receipt *held) {
    CHECK_OK(receive_any(s, 0, 3 * RP_LEASE_WIDTH, 20000));
    CHECK_EQ(received.count, 3 * RP_LEASE_WIDTH);
    give_back(s->log, received.receipts, received.count, 0, false);
    uint32_t count = hold_all(s, held);
    CHECK(count > RP_LEASE_WIDTH && count < 2 * RP_LEASE_WIDTH - 1);
    return count;
}

static void what_was_given_back_rests_while_no_lease_is_free_for_a_part(void) {
    storage s = stored_log();
    rp_receipt held[MANY];
    _Alignas(RP_ALIGN) numbered got;
    rp_taken taken;
    put_and_store(&s, 0, TOTAL);
    uint32_t count = split_all(&s, held), rest = 2 * RP_LEASE_WIDTH - count;
    for (int i = 0; i < 4; i++) {
        CHECK_IS(told(&s, 1), RP_EMPTY); /* both while it rests and when it is due again */
        sleep_ms(15);
    }
    CHECK_IS(told(&s, 1), RP_EMPTY);
    CHECK_IS(rp_try_take(s.log, 0, &got, sizeof got, 1, &taken), RP_COLD); /* not sent back to it */
    EVENTUALLY(receive_for(&s, 0, rest, HOUR, 20000) == RP_OK); /* all of it needs no other lease */
    CHECK_EQ(received.count, rest);
    CHECK_EQ(received.numbers[0], count);
    EVENTUALLY(told(&s, 100) == RP_COLD); /* the third may fit */
    CHECK_IS(receive_for(&s, 0, 100, HOUR, 480),
             RP_EMPTY); /* not in this view: it ends before the lease does */
    EVENTUALLY(told(&s, 1) == RP_EMPTY);
    CHECK_EQ(settle(s.log, &held[0], 1), 0);
    CHECK_IS(told(&s, 1), RP_COLD); /* at once */
    CHECK_OK(receive_for(&s, 0, 1, HOUR, 480));
    CHECK_EQ(received.numbers[0], 2 * RP_LEASE_WIDTH);
    for (uint32_t i = 1; i < RP_LEASE_WIDTH; i++) {
        CHECK_EQ(settle(s.log, &held[i], 1), 0);
        CHECK_OK(receive_for(&s, 0, 1, HOUR, 20000));
        CHECK_EQ(received.numbers[0], 2 * RP_LEASE_WIDTH + i);
    }
}

/* ---- deaths --------------------------------------------------------------------------------- */

static void died_between_mark_and_read(void) {
    storage s = stored_log();
    rp_group *group = &s.log->groups[0];
    put_and_store(&s, 0, TOTAL);
    for (uint64_t next = 0; next < 40; next++) {
        uint64_t read = rp_load_relaxed(&group->read), sequence;
        rp_mark *other = &group->marks[rp_load_relaxed(&group->marks[0].position) == read];
        rp_store_relaxed(&other->sequence, next + 1); /* and dies; or a store later: */
        if (next % 2) rp_store_relaxed(&other->position, read + 48);
        rp_store_relaxed(&group->lock, dead_owner(s.log));
        CHECK(rp_glance_at_mark(group, &read, &sequence));
        CHECK_EQ(sequence, next);
        _Alignas(RP_ALIGN) numbered got;
        rp_taken taken;
        rp_status status;
        EVENTUALLY((status = take_any(&s, 0, &got, sizeof got, 1, 4800, &taken)) != RP_BUSY ||
                   (rp_repair_groups(s.log), rp_lock_disown(s.log, &group->lock), false));
        CHECK_OK(status);
        CHECK_EQ(got.number, next);
    }
}

static void died_while_handing_out_of_a_view(void) {
    storage s = stored_log();
    rp_group *group = &s.log->groups[0];
    put_and_store(&s, 0, TOTAL);
    CHECK_OK(receive_any(&s, 0, 10, 4800));
    CHECK_EQ(settle(s.log, received.receipts, 10), 0);
    rp_lease *lease = s.log->leases; /* H1 and H2 of frames 10 to 19, and no H3 */
    rp_store_relaxed(&lease->position, 480);
    rp_store_relaxed(&lease->sequence, 10);
    rp_store_relaxed(&lease->pending, 0x3ff);
    rp_store_relaxed(&lease->owner, dead_owner(s.log));
    rp_store_relaxed(&group->lease_top, 1);
    rp_store_relaxed(&group->lock, dead_owner(s.log));
    rp_lock_disown(s.log, &group->lock);
    rp_status status;
    EVENTUALLY((status = receive_any(&s, 0, 5, 4800)) == RP_OK);
    for (uint32_t i = 0; i < 5; i++) {
        CHECK_EQ(received.numbers[i], 10 + i);
        CHECK_EQ(received.receipts[i].deliveries, 1);
    }
}

typedef struct writers {
    storage *s;
    _Atomic int inside;
} writers;

static void lead_and_wait(void *argument) {
    writers *all = argument;
    bool lead;
    CHECK_OK(UNTIL(RP_NEVER, rp_commit_enter(all->s->log, all->s->door, UINT64_MAX, in_ms(BOUND_MS), &lead)));
    CHECK(lead);
    atomic_store(&all->inside, 1);
    for (;;) pause();
}

static void a_writer_that_dies_is_replaced(void) {
    storage s = stored_log();
    put_number(s.log, 0);
    for (int round = 0; round < 5; round++) {
        writers *all = shared_memory(sizeof *all);
        all->s = &s;
        pid_t child = start_process(lead_and_wait, all);
        EVENTUALLY(atomic_load(&all->inside));
        bool lead;
        int64_t deadline = in_ms(30);
        rp_status status = UNTIL(deadline, rp_commit_enter(s.log, s.door, rp_tail(s.log), deadline, &lead));
        CHECK_IS(status, RP_STALLED); /* it lives */
        CHECK_EQ(rp_holder(), child);
        kill_process(child);
        CHECK_OK(UNTIL(RP_NEVER, rp_commit_enter(s.log, s.door, rp_tail(s.log), in_ms(BOUND_MS), &lead)));
        CHECK(lead);
        rp_commit_leave(s.door);
    }
    store(&s);
    bool lead;
    CHECK_OK(rp_commit_enter(s.log, s.door, rp_tail(s.log), RP_NOW, &lead));
    CHECK(!lead); /* it is there */
}

static void commit_for_all(void *argument) {
    storage *s = argument;
    for (uint64_t i = 0; i < 300; i++) {
        bool lead;
        put_number(s->log, i);
        uint64_t mine = rp_tail(s->log);
        CHECK_OK(UNTIL(RP_NEVER, rp_commit_enter(s->log, s->door, mine, in_ms(BOUND_MS), &lead)));
        if (!lead) continue;
        rp_set_durable(s->log, rp_tail(s->log));
        rp_commit_leave(s->door);
        CHECK(rp_durable(s->log) >= mine);
    }
}

static void many_wait_for_one(void) {
    storage s = stored_log();
    pid_t children[6];
    for (size_t i = 0; i < COUNT(children); i++) children[i] = start_process(commit_for_all, &s);
    for (size_t i = 0; i < COUNT(children); i++) join_process(children[i]);
    CHECK_EQ(rp_durable(s.log), rp_tail(s.log));
}

/* ---- groups in storage ---------------------------------------------------------------------- */

static void a_long_delay_stays_long(void) {
    storage s = stored_log();
    rp_group_state state;
    rp_held held;
    put_and_store(&s, 0, 1);
    CHECK_OK(receive_any(&s, 0, 1, 20000));
    give_back(s.log, received.receipts, 1, INT64_C(60) * 24 * 3600 * 1000, false);
    CHECK_OK(rp_group_export(s.log, 0, &state, &held, 1, in_ms(BOUND_MS)));
    CHECK_EQ(held.delay_ms, UINT32_MAX); /* 49 days, the most it can say */
}

static void a_group_goes_on_in_a_new_ring(void) {
    storage s = stored_log();
    put_and_store(&s, 0, 200);
    CHECK_OK(receive_any(&s, 0, 150, 20000));
    CHECK_EQ(received.count, 150);
    for (uint32_t i = 0; i < 150; i++)
        if (i % 4) CHECK_EQ(settle(s.log, &received.receipts[i], 1), 0);
    rp_group_state state;
    rp_held held[64];
    CHECK_IS(rp_group_export(s.log, 0, &state, held, 1, in_ms(BOUND_MS)), RP_TOO_SMALL);
    CHECK_OK(rp_group_export(s.log, 0, &state, held, COUNT(held), in_ms(BOUND_MS)));
    CHECK_EQ(state.read_sequence, 150);
    CHECK(state.stays && state.held > 0);
    rp_settings settings = stored_settings();
    settings.first_position = rp_tail(s.log);
    settings.first_sequence = 200;
    CHECK_OK(rp_create(in_directory("again"), &settings, &s.log));
    CHECK_OK(rp_group_import(s.log, &state, held, in_ms(BOUND_MS)));
    uint64_t ready;
    CHECK_OK(rp_ready(s.log, &ready));
    CHECK_EQ(ready, 50 + 38);
    bool seen[200] = {false};
    for (uint32_t done = 0; done < 88;) {
        if (receive_any(&s, 0, 20, 20000) != RP_OK) continue;
        for (uint32_t i = 0; i < received.count; i++, done++) {
            uint64_t number = received.numbers[i];
            CHECK(!seen[number] && (number >= 150 || number % 4 == 0));
            CHECK_EQ(received.receipts[i].deliveries, number < 150 ? 2 : 1);
            seen[number] = true;
        }
        CHECK_EQ(settle(s.log, received.receipts, received.count), 0);
    }
    put_number(s.log, 200);
    CHECK_OK(receive_any(&s, 0, 1, 100));
    CHECK_EQ(((const rp_frame *)received.frames)->sequence, 200);
}

static void somebody_elses_frames_are_discarded(void) {
    storage s = stored_log();
    put_and_store(&s, 0, 10);
    CHECK_OK(receive_any(&s, 0, 5, 4800));
    CHECK_OK(rp_group_discard(s.log, 0, 3, in_ms(BOUND_MS)));
    CHECK_IS(rp_group_discard(s.log, 0, 3, in_ms(BOUND_MS)), RP_NOT_FOUND);
    CHECK_IS(rp_group_discard(s.log, 0, 5, in_ms(BOUND_MS)), RP_EMPTY);
    CHECK_IS(rp_holds(s.log, 0, &received.receipts[3], in_ms(BOUND_MS)), RP_NOT_FOUND);
    CHECK_OK(rp_holds(s.log, 0, &received.receipts[2], in_ms(BOUND_MS)));
    CHECK_EQ(settle(s.log, received.receipts, 5), 1);
}

static void a_group_is_placed_and_never_moved_back(void) {
    storage s = stored_log();
    put_and_store(&s, 0, TOTAL);
    CHECK_IS(rp_group_seek(s.log, 0, 100, 0, in_ms(BOUND_MS)), RP_COLD);
    CHECK_OK(rp_group_place(s.log, 0, 4800, 100, in_ms(BOUND_MS)));
    CHECK_IS(rp_group_place(s.log, 0, 480, 10, in_ms(BOUND_MS)), RP_INVALID);
    CHECK_IS(rp_group_place(s.log, 0, rp_tail(s.log) + 48, TOTAL + 1, in_ms(BOUND_MS)), RP_INVALID);
    CHECK_OK(receive_any(&s, 0, 1, 4800));
    CHECK_EQ(received.numbers[0], 100);
    CHECK_EQ(rp_needed(s.log), 4800);
}

static void only_what_a_group_needs_is_needed(void) {
    storage s = stored_log();
    uint32_t late, early;
    put_and_store(&s, 0, 100);
    CHECK_EQ(rp_needed(s.log), 0);
    CHECK_OK(receive_any(&s, 0, 100, 4800));
    CHECK_OK(open_group(s.log, "early", true, in_ms(BOUND_MS), &early));
    CHECK_EQ(rp_needed(s.log), 0); /* with what the queue is not done with */
    CHECK_EQ(settle(s.log, received.receipts, 100), 0);
    CHECK_EQ(rp_needed(s.log), 0);
    CHECK_OK(rp_group_close(s.log, early, in_ms(BOUND_MS)));
    CHECK_EQ(rp_needed(s.log), 4800);
    CHECK_OK(open_group(s.log, "late", true, in_ms(BOUND_MS), &late));
    CHECK_EQ(rp_needed(s.log), 4800);
}

/* A consumer died between its `read` and its `acked`, and then somebody who opens a group before it stays. */
static void a_group_is_opened_over_deaths(void) {
    storage s = stored_log();
    rp_group_settings settings = {.from_start = true};
    rp_group *queue = rp_group_of(s.log, RP_QUEUE_GROUP);
    uint32_t dead = dead_owner(s.log), group, again;
    uint64_t number;
    bool made;
    for (uint64_t i = 0; i < 3; i++) put_number(s.log, i);
    rp_store_relaxed(&queue->lock, dead);
    rp_mark_next(queue, sizeof(numbered), 1);
    rp_store_relaxed(&queue->read, sizeof(numbered));
    CHECK_OK(rp_group_open(s.log, "late", &settings, in_ms(BOUND_MS), &group, &made));
    rp_group *late = rp_group_of(s.log, group);
    CHECK_EQ(rp_load_relaxed(&late->acked), sizeof(numbered));
    CHECK_EQ(rp_load_relaxed(&late->owner), 0);
    rp_store_relaxed(&late->acked, 0);
    rp_store_relaxed(&late->owner, dead);
    CHECK_EQ(rp_needed(s.log), sizeof(numbered)); /* the dead need nothing */
    CHECK_OK(rp_group_open(s.log, "late", &settings, in_ms(BOUND_MS), &again, &made));
    CHECK(made && again != group);
    CHECK_OK(take_number_until(s.log, again, in_ms(BOUND_MS), &number));
    CHECK_EQ(number, 1);
}

/* ---- nonsense ------------------------------------------------------------------------------- */

static void counts_end_where_oldest_lies_behind_the_tail(void) {
    storage s = stored_log();
    uint64_t ready;
    put_and_store(&s, 0, 5);
    rp_store_relaxed(&s.log->head->oldest, rp_tail(s.log) + 4096);
    CHECK_IS(rp_ready(s.log, &ready), RP_CORRUPT);
    CHECK_IS(rp_task_done(s.log), RP_CORRUPT);
    CHECK_IS(rp_join(s.log, in_ms(BOUND_MS)), RP_CORRUPT);
}

/* Nothing lies behind what came out of storage: what a group stands at must not lead there. */
static void a_position_that_is_no_frames_is_corrupt_in_a_view(void) {
    storage s = stored_log();
    _Alignas(RP_ALIGN) uint8_t buffer[4096];
    rp_receipt receipts[4];
    rp_taken taken;
    put_and_store(&s, 0, 3000);
    rp_group *group = &s.log->groups[0];
    const uint64_t behind[] = {16, 8, 4, 3, 1};
    for (size_t i = 0; i < COUNT(behind); i++) {
        rp_range frames = frames_from(&s, 0, 1000);
        uint8_t *exact = malloc(frames.end);
        memcpy(exact, frames.data, frames.end);
        frames.data = exact;
        rp_store_relaxed(&group->read, frames.end - behind[i]);
        rp_store_relaxed(&group->marks[0].position, frames.end - behind[i]);
        CHECK_IS(rp_take_cold(s.log, 0, &frames, buffer, sizeof buffer, 4, &taken), RP_CORRUPT);
        CHECK_IS(rp_receive_cold(s.log, 0, &frames, buffer, sizeof buffer, 4, 0, receipts, &taken),
                 RP_CORRUPT);
        CHECK_IS(rp_skip_large(s.log, 0, 1, &frames, in_ms(BOUND_MS)), RP_CORRUPT);
        free(exact);
    }
}

static void a_large_frame_without_its_descriptor_is_corrupt_in_a_view(void) {
    storage s = stored_log();
    _Alignas(RP_ALIGN) uint8_t buffer[4096];
    rp_taken taken;
    put_and_store(&s, 0, 3000);
    rp_frame *exact = calloc(1, sizeof *exact);
    *exact = (rp_frame){.size = sizeof *exact, .flags = RP_FRAME_LARGE};
    rp_range frames = {.data = exact, .position = 0, .end = sizeof *exact};
    CHECK_IS(rp_take_cold(s.log, 0, &frames, buffer, sizeof buffer, 4, &taken), RP_CORRUPT);
    free(exact);
}

#ifndef __SANITIZE_THREAD__ /* the test is a race */
/* ---- while the ring goes on ----------------------------------------------------------------- */

typedef struct filling {
    rp_log *log;
    _Atomic bool begins, ends;
} filling;

/* Until nothing may be overwritten any more: what comes first is stored, and the large message behind it is not. */
static void *fill_up(void *argument) {
    filling *on = argument;
    while (!atomic_load(&on->begins)) rp_pause();
    while (rp_try_put(on->log, &(rp_message){.body = "12345678", .body_len = 8}) == RP_OK) {
    }
    atomic_store(&on->ends, true);
    return NULL;
}

/* Its lease begins with frames that the ring loses meanwhile. Storage could not say what it is. */
static void a_large_message_that_is_not_stored_is_never_cold(void) {
    storage s = stored_log();
    static uint8_t body[64];
    for (uint32_t round = 0; round < ROUNDS(1000); round++) {
        rp_loan loan;
        pthread_t thread;
        uint64_t position;
        uint32_t lost;
        uint64_t start = rp_tail(s.log);
        put_numbers(s.log, 0, RP_LEASE_WIDTH - 1);
        CHECK_OK(rp_borrow(s.log, sizeof body, RP_NOW, &loan));
        CHECK_OK(commit_loan(s.log, &loan, RP_NOW));
        CHECK_OK(receive_any(&s, 0, RP_LEASE_WIDTH, 0));
        CHECK_EQ(received.count, RP_LEASE_WIDTH);
        rp_receipt *last = &received.receipts[RP_LEASE_WIDTH - 1];
        const rp_frame *frame = (const rp_frame *)(received.frames + (RP_LEASE_WIDTH - 1) * sizeof(numbered));
        rp_set_durable(s.log, start + (RP_LEASE_WIDTH - 1) * sizeof(numbered));
        filling on = {.log = s.log};
        CHECK_EQ(pthread_create(&thread, NULL, fill_up, &on), 0);
        atomic_store(&on.begins, true);
        while (!atomic_load(&on.ends)) {
            CHECK_OK(rp_lease_position(s.log, 0, last, &position));
            CHECK_OK(rp_read_large(s.log, 0, last, frame, body, sizeof body));
        }
        pthread_join(thread, NULL);
        CHECK_EQ(rp_load_relaxed(&s.log->head->oldest), position);
        CHECK_OK(rp_settle(s.log, 0, received.receipts, RP_LEASE_WIDTH, in_ms(BOUND_MS), &lost));
        rp_set_durable(s.log, rp_tail(s.log));
        while (receive_any(&s, 0, MANY, 0) == RP_OK)
            CHECK_EQ(settle(s.log, received.receipts, received.count), 0);
    }
}

#define RACES TEST(a_large_message_that_is_not_stored_is_never_cold),
#else
#define RACES
#endif

RUN_TESTS(RACES TEST(what_the_ring_lost_comes_out_of_storage), TEST(what_is_not_stored_holds_producers_back),
          TEST(leases_come_again_out_of_storage), TEST(subjects_are_matched_in_views),
          TEST(large_frames_are_skipped_by_who_has_their_payload), TEST(views_that_are_no_use_change_nothing),
          TEST(without_a_lease_there_is_nothing_behind_the_ring),
          TEST(that_a_lease_was_missing_is_a_hint_behind_the_ring),
          TEST(who_finds_no_lease_behind_the_ring_sleeps_until_others_settle),
          TEST(what_was_given_back_rests_while_no_lease_is_free_for_a_part), TEST(died_between_mark_and_read),
          TEST(died_while_handing_out_of_a_view), TEST(a_writer_that_dies_is_replaced),
          TEST(many_wait_for_one), TEST(a_long_delay_stays_long), TEST(a_group_goes_on_in_a_new_ring),
          TEST(somebody_elses_frames_are_discarded), TEST(a_group_is_placed_and_never_moved_back),
          TEST(only_what_a_group_needs_is_needed), TEST(a_group_is_opened_over_deaths),
          TEST(counts_end_where_oldest_lies_behind_the_tail),
          TEST(a_position_that_is_no_frames_is_corrupt_in_a_view),
          TEST(a_large_frame_without_its_descriptor_is_corrupt_in_a_view))
