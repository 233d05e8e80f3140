/* The operations in which processes die. Each starts from a world that its `prepare` makes, in this process; `ready`
 * and `act` are done by the one that dies, the latter instruction by instruction. */
#ifndef OPERATIONS_H
#define OPERATIONS_H

#include "accounts.h"

typedef struct operation {
    const char *name;
    void (*prepare)(void);
    void (*ready)(void); /* what comes before */
    void (*act)(void);
    void (*check)(bool patient); /* what survivors find; check_queue() */
    bool hot;                    /* every instruction, always */
} operation;

/* ---- what they need: private memory of who dies --------------------------------------------- */

typedef struct private_memory {
    rp_receipt held[8];
    _Alignas(RP_ALIGN) uint8_t buffer[1 << 15];
    uint8_t large_body[LARGE];
    rp_message to_send;
    rp_loan loan;
    rp_cursor cursor;
    rp_group_settings wanted;
    uint32_t named;
    numbered prepared[3];
    char other_path[128];
    rp_log *other_log;
} private_memory;

static private_memory mine;

/* As callers do: the waiting forms come back after each slice of sleep. */
#define AGAIN(call) UNTIL(RP_NEVER, call)

static void join(void) {
    rp_info info;
    CHECK_OK(rp_get_info(w.log, &info));
    w.said[w.current]->owner = w.log->me;
}

static void nothing(void) {}

static void small_world(void) {
    make_world((rp_settings){0}, 2);
    put_messages(2, 8);
    w.is_sane_to_put = true;
}

static void prepare_message(size_t size) {
    uint64_t number = to_put(size);
    fill_body(mine.buffer, size, number);
    mine.to_send = (rp_message){.body = mine.buffer, .body_len = size};
}

/* ---- putting -------------------------------------------------------------------------------- */

static void before_put(void) {
    small_world();
    prepare_message(8);
}

static void before_put_to_sleepers(void) {
    before_put();
    arm_all();
}

static void put(void) { say_done(AGAIN(rp_put(w.log, &mine.to_send, RP_NEVER))); }

static void before_put_long(void) {
    small_world();
    prepare_message(200);
}

static void before_put_with_dead_lock(void) {
    before_put();
    rp_store_relaxed(&w.log->head->lock, dead_owner(w.log));
}

static void before_put_many(void) {
    small_world();
    for (int i = 0; i < 3; i++) {
        uint64_t number = to_put(8);
        mine.prepared[i] = (numbered){.frame = {.size = sizeof(rp_frame) + 8}, .number = number};
    }
}

static void put_many(void) {
    uint32_t done;
    size_t bytes;
    say_done(AGAIN(rp_put_frames(w.log, mine.prepared, sizeof mine.prepared, 3, RP_NEVER, &done, &bytes)));
}

static void put_records(void) {
    rp_frame model = {.size = sizeof(rp_frame) + 8};
    uint64_t numbers[3];
    uint32_t done;
    for (int i = 0; i < 3; i++) numbers[i] = mine.prepared[i].number;
    say_done(AGAIN(rp_put_records(w.log, &model, 0, numbers, 3, RP_NEVER, &done)));
}

static void before_put_large(void) {
    small_world();
    fill_body(mine.large_body, LARGE, to_put(LARGE));
}

static void put_large(void) {
    rp_status status = AGAIN(rp_borrow(w.log, LARGE, RP_NEVER, &mine.loan));
    if (status == RP_OK) memcpy(mine.loan.data, mine.large_body, LARGE);
    if (status == RP_OK) status = AGAIN(commit_loan(w.log, &mine.loan, RP_NEVER));
    say_done(status);
}

/* Runs of the dead, and of what is done with, are taken back for it. */
static void before_put_large_after_reclaim(void) {
    make_world((rp_settings){0}, 1);
    put_messages(1, 8);
    uint32_t dead = dead_owner(w.log), most = w.log->geometry.chunk_count;
    rp_head *head = w.log->head;
    set_chunk(w.log, 0, RP_CHUNK_LOANED, 2, dead);
    set_chunk(w.log, 2, RP_CHUNK_PUBLISHED, 2, dead); /* behind the tail */
    rp_store_relaxed(&w.log->chunks[2].position, rp_load_relaxed(&head->tail));
    set_chunk(w.log, 4, RP_CHUNK_PUBLISHED, most - 4, dead); /* below what is acked */
    rp_store_relaxed(&w.log->chunks[4].position, rp_load_relaxed(&head->oldest) - 64);
    fill_body(mine.large_body, LARGE, to_put(LARGE));
    w.is_sane_to_put = true;
}

static void borrow_before(void) {
    join();
    CHECK_OK(rp_borrow(w.log, LARGE, RP_NOW, &mine.loan));
    memcpy(mine.loan.data, mine.large_body, LARGE);
}

static void commit(void) { say_done(AGAIN(commit_loan(w.log, &mine.loan, RP_NEVER))); }

static void give_loan_up(void) {
    rp_abort(w.log, &mine.loan);
    say_done(RP_OK);
}

/* One message is in, of the one that may be: it waits in vain, but for what others take meanwhile. */
static void before_put_when_full(void) {
    make_world((rp_settings){.max_messages = 2}, 2);
    put_messages(2, 8);
    prepare_message(8);
}

static void put_in_vain(void) {
    int64_t deadline = in_ms(w.patience_ms);
    say_done(UNTIL(deadline, rp_put(w.log, &mine.to_send, deadline)));
}

/* The ring is full of history: the oldest frames are given up first. */
static void history_world(rp_settings settings) {
    settings.keep_history = true;
    make_world(settings, 2);
    put_messages(2, 8);
    w.is_sane_to_put = true;
    uint64_t ring = w.log->geometry.ring_size;
    CHECK(rp_load_relaxed(&w.log->head->tail) - rp_load_relaxed(&w.log->head->oldest) > ring / 2);
}

static void before_put_over_history(void) {
    history_world((rp_settings){0});
    prepare_message(200);
}

/* ---- taking --------------------------------------------------------------------------------- */

static void say_frames_taken(uint32_t count) {
    for (size_t i = 0, at = 0; i < count; i++) {
        const rp_frame *frame = (const rp_frame *)(mine.buffer + at);
        say_taken(*(const uint64_t *)(frame + 1));
        at += rp_align(frame->size);
    }
}

static void take_up_to(uint32_t limit, int64_t deadline) {
    rp_taken taken;
    rp_status status =
        UNTIL(deadline, rp_take(w.log, w.group, mine.buffer, sizeof mine.buffer, limit, deadline, &taken));
    if (status == RP_OK) say_frames_taken(taken.count);
    say_done(status);
}

static void take_one(void) { take_up_to(1, RP_NEVER); }
static void take_three(void) { take_up_to(3, RP_NEVER); }
static void take_in_vain(void) { take_up_to(1, in_ms(w.patience_ms)); }

static void before_take_count(uint32_t there, uint32_t taken) {
    make_world((rp_settings){0}, 0);
    put_messages(there, 8);
    expect_fate(0, taken, TAKING);
    w.is_sane_to_put = true;
}

static void before_take(void) { before_take_count(3, 1); }
static void before_take_last(void) { before_take_count(1, 1); }
static void before_take_three(void) { before_take_count(4, 3); }

static void before_take_with_sleepers(void) {
    before_take();
    arm_all();
}

/* The queue is empty until survivors put something: what they then put may be what it waited for. */
static void before_take_when_empty(void) { make_world((rp_settings){0}, 0); }

static void before_take_with_dead_lock(void) {
    before_take();
    rp_store_relaxed(&w.log->groups[0].lock, dead_owner(w.log));
}

static void before_take_large(void) {
    make_world((rp_settings){0}, 0);
    put_message(LARGE, TAKING);
    put_messages(1, 8);
    w.is_sane_to_put = true;
}

static void say_large_taken(rp_status status, const void *body) {
    if (status == RP_OK) say_taken(*(const uint64_t *)body);
    say_done(status);
}

static void take_large_one(void) {
    rp_taken taken;
    rp_status status = AGAIN(rp_take(w.log, 0, mine.buffer, sizeof mine.buffer, 1, RP_NEVER, &taken));
    if (status == RP_LARGE)
        status = AGAIN(
            rp_take_large(w.log, 0, taken.frame.sequence, taken.length, NULL, 0, mine.large_body, RP_NEVER));
    else if (status == RP_OK) /* another one took the large one: this is what came next */
        memcpy(mine.large_body, mine.buffer + sizeof(rp_frame), 8);
    say_large_taken(status, mine.large_body);
}

static void take_pinned(void) {
    rp_taken taken;
    rp_pin pin = {.data = mine.buffer + sizeof(rp_frame)};
    rp_status status = AGAIN(rp_take(w.log, 0, mine.buffer, sizeof mine.buffer, 1, RP_NEVER, &taken));
    bool large = status == RP_LARGE;
    if (large) status = AGAIN(rp_take_pinned(w.log, 0, taken.frame.sequence, taken.length, RP_NEVER, &pin));
    if (status == RP_OK) say_taken(*(const uint64_t *)pin.data);
    if (status == RP_OK && large) rp_unpin(w.log, &pin);
    say_done(status);
}

/* ---- leases --------------------------------------------------------------------------------- */

static void take_lease(uint32_t limit) {
    rp_taken taken;
    say_done(AGAIN(
        rp_receive(w.log, w.group, mine.buffer, sizeof mine.buffer, limit, 0, mine.held, RP_NEVER, &taken)));
}

static void receive_one(void) { take_lease(1); }
static void receive_three(void) { take_lease(3); }

static void join_and_receive(uint32_t count) {
    rp_taken taken;
    join();
    CHECK_OK(
        rp_receive(w.log, w.group, mine.buffer, sizeof mine.buffer, count, 0, mine.held, RP_NOW, &taken));
    CHECK_EQ(taken.count, count);
}

static void hold_one(void) { join_and_receive(1); }
static void hold_three(void) { join_and_receive(3); }

/* This process holds one, too, while others die. */
static void keep_one(void) {
    put_message(8, THERE);
    CHECK_OK(receive(w.log, w.group, 1, 0, RP_NOW));
    w.kept[w.kept_count++] = received.receipts[0];
    note_seen(received.numbers[0]);
}

static void lease_world(uint32_t count) {
    make_world((rp_settings){0}, 0);
    keep_one();
    put_messages(count, 8);
    w.is_sane_to_put = true;
}

static void before_receive(void) { lease_world(4); }

static void before_receive_large(void) {
    make_world((rp_settings){0}, 0);
    put_message(LARGE, THERE);
    put_messages(2, 8);
    w.is_sane_to_put = true;
}

static void receive_large(void) {
    rp_taken taken;
    rp_status status =
        AGAIN(rp_receive(w.log, 0, mine.buffer, sizeof mine.buffer, 1, 0, mine.held, RP_NEVER, &taken));
    rp_frame *frame = (rp_frame *)mine.buffer;
    if (status == RP_OK && (frame->flags & RP_FRAME_LARGE))
        status = rp_read_large(w.log, 0, mine.held, frame, mine.large_body, LARGE);
    say_done(status);
}

static void before_ack(void) {
    lease_world(4);
    expect_fate(1, 1, ACKING);
}

static void before_ack_middle(void) {
    lease_world(4);
    expect_fate(2, 1, ACKING);
}

static void before_ack_three(void) {
    lease_world(4);
    expect_fate(1, 3, ACKING);
}

static void before_ack_large(void) {
    before_receive_large();
    expect_fate(0, 1, ACKING);
}

static void ack_some(uint32_t first, uint32_t count) {
    uint32_t lost;
    rp_status status = AGAIN(rp_settle(w.log, w.group, mine.held + first, count, RP_NEVER, &lost));
    say_done(status == RP_OK && lost ? RP_NOT_FOUND : status);
}

static void ack_one(void) { ack_some(0, 1); }
static void ack_middle(void) { ack_some(1, 1); }
static void ack_three(void) { ack_some(0, 3); }

static void give_back_some(uint32_t first, uint32_t count, int64_t delay) {
    uint32_t lost, done;
    say_done(
        AGAIN(rp_give_back(w.log, w.group, mine.held + first, count, delay, false, RP_NEVER, &lost, &done)));
}

static void nack_one(void) { give_back_some(0, 1, 0); }
static void nack_middle(void) { give_back_some(1, 1, 0); }
static void nack_later(void) { give_back_some(0, 1, 8000000); }

static void hold_three_and_nack_first(void) {
    uint32_t lost, done;
    hold_three();
    CHECK_OK(rp_give_back(w.log, 0, mine.held, 1, 0, false, RP_NOW, &lost, &done));
}

static void nack_another(void) { give_back_some(2, 1, 0); }

static void hold_three_and_nack_all(void) {
    uint32_t lost, done;
    hold_three();
    CHECK_OK(rp_give_back(w.log, 0, mine.held, 3, 0, false, RP_NOW, &lost, &done));
}

static void extend(void) { say_done(AGAIN(rp_extend(w.log, 0, mine.held, 5000000, RP_NEVER))); }

/* Somebody who held three is dead: who receives next finds it out. */
static void before_receive_of_dead(void) {
    make_world((rp_settings){0}, 0);
    put_messages(4, 8);
    uint32_t dead = dead_owner(w.log);
    CHECK_OK(receive(w.log, 0, 3, 0, RP_NOW));
    rp_store_relaxed(&w.log->leases[received.receipts[0].entry].owner, dead);
    rp_store_relaxed(&w.log->groups[0].checked_ns, 0);
    w.is_sane_to_put = true;
}

/* ---- groups --------------------------------------------------------------------------------- */

static void topic_world(bool lossy, const char *pattern) {
    make_world((rp_settings){.broadcast = true, .keep_history = true}, 0);
    bool made;
    mine.wanted = (rp_group_settings){.lossy = lossy, .pattern = pattern};
    CHECK_OK(rp_group_open(w.log, NAMED_GROUP, &mine.wanted, RP_NOW, &w.group, &made));
    w.is_sane_to_put = true;
}

static void before_read(void) {
    topic_world(false, NULL);
    put_messages(3, 8);
    expect_fate(0, 1, TAKING);
}

/* Others come between what it wants: they are passed over. */
static void before_read_pattern(void) {
    topic_world(false, "eu.*");
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t number = i % 2 ? w.next++ : 1;
        rp_message message = {.subject = i % 2 ? "eu.dax" : "us.dow",
                              .subject_len = 6,
                              .headers = "\0\0",
                              .headers_len = 2,
                              .body = &number,
                              .body_len = sizeof number};
        CHECK_OK(rp_try_put(w.log, &message));
        if (i % 2) account(number, 8, THERE);
    }
    expect_fate(0, 1, TAKING);
}

static void read_pattern(void) {
    rp_taken taken;
    rp_status status = AGAIN(rp_take(w.log, w.group, mine.buffer, sizeof mine.buffer, 1, RP_NEVER, &taken));
    if (status == RP_OK) say_taken(*(const uint64_t *)(mine.buffer + sizeof(rp_frame) + 8));
    say_done(status);
}

static void take_rest_of_pattern(void) {
    rp_taken taken;
    for (;;) {
        rp_status status = rp_take(w.log, w.group, mine.buffer, sizeof mine.buffer, 1, RP_NOW, &taken);
        if (status == RP_EMPTY) break;
        CHECK_OK(status);
        note_seen(*(const uint64_t *)(mine.buffer + sizeof(rp_frame) + 8));
    }
}

static void check_pattern(bool patient) {
    (void)patient;
    take_rest_of_pattern();
    check_fates();
    uint64_t number = w.later++;
    rp_message message = {.subject = "eu.cac",
                          .subject_len = 6,
                          .headers = "\0\0",
                          .headers_len = 2,
                          .body = &number,
                          .body_len = sizeof number};
    CHECK_OK(rp_put(w.log, &message, in_ms(BOUND_MS)));
    account(number, 8, THERE);
    take_rest_of_pattern();
    check_fates();
    check_words(w.log, 0);
}

/* What a lossy reader was told and got adds up: everything ever put, less what it had before. */
static uint64_t total_put(void) { return rp_frame_at(w.log, rp_load_relaxed(&w.log->head->tail))->sequence; }

static void lossy_world(bool lapped) {
    topic_world(true, NULL);
    w.start_tail = total_put();
    for (int i = 0; i < (lapped ? 8 : 3); i++) pass(lapped ? 16000 : 8);
    uint64_t oldest = rp_load_relaxed(&w.log->head->oldest);
    if (lapped) w.start_lost = rp_frame_at(w.log, oldest)->sequence - w.start_tail;
}

static void before_lossy_read(void) { lossy_world(false); }
static void before_lapped_read(void) { lossy_world(true); }

static void before_overtaking(void) {
    lossy_world(true);
    memset(mine.buffer, 0, 16000);
    mine.to_send = (rp_message){.body = mine.buffer, .body_len = 16000};
}

static void lossy_read(void) {
    rp_taken taken;
    rp_status status = AGAIN(rp_take(w.log, w.group, mine.buffer, sizeof mine.buffer, 1, RP_NEVER, &taken));
    if (status == RP_OK) w.said[w.current]->taken_count = taken.count;
    w.said[w.current]->lost = taken.lost;
    say_done(status);
}

static void check_lossy(bool patient) {
    (void)patient;
    rp_taken taken;
    uint64_t got = 0, lost = 0, all = total_put() - w.start_tail, last = 0;
    const rp_frame *frame = (const rp_frame *)received.frames;
    rp_status status;
    while ((status = rp_take(w.log, w.group, received.frames, sizeof received.frames, 1, RP_NOW, &taken)) !=
           RP_EMPTY) {
        CHECK_OK(status);
        if (got++) CHECK_EQ(frame->sequence, last + 1 + taken.lost);
        last = frame->sequence;
        lost += taken.lost;
    }
    const statement *said = w.said[0];
    uint64_t missing = all - got - lost;
    if (is_done(0)) CHECK_EQ(missing, said->taken_count + said->lost);
    if (!w.met && missing != 0 && missing != 1 + w.start_lost)
        FAIL("%" PRIu64 " frames are not accounted for", missing);
    pass(8);
    CHECK_OK(rp_take(w.log, w.group, received.frames, sizeof received.frames, 1, in_ms(BOUND_MS), &taken));
    CHECK_EQ(taken.lost, 0);
    CHECK_EQ(frame->sequence, total_put() - 1);
    check_words(w.log, 0);
}

static void before_seek(void) {
    topic_world(false, NULL);
    put_messages(3, 8);
}

/* Readers without a lock write nothing. */
static void before_cursor(void) {
    history_world((rp_settings){0});
    CHECK_OK(rp_cursor_open(w.log, true, &mine.cursor));
}

static void read_cursor(void) {
    rp_taken taken;
    say_done(rp_cursor_read(w.log, &mine.cursor, mine.buffer, sizeof mine.buffer, 1, &taken));
}

static void before_open(void) {
    history_world((rp_settings){0});
    mine.wanted = (rp_group_settings){.from_start = true, .pattern = ""};
}

static void open_named(void) {
    bool made;
    say_done(AGAIN(rp_group_open(w.log, NAMED_GROUP, &mine.wanted, RP_NEVER, &mine.named, &made)));
}

static void take_from(uint32_t group) {
    for (uint32_t i = 0; i < w.message_count; i++) w.messages[i].seen = 0;
    w.group = group;
    drain(false);
    for (uint32_t i = 0; i < w.message_count; i++) check_alone(&w.messages[i]);
}

/* Whoever opens it has all that is kept, and the queue's own group has lost nothing. */
static void check_opened(bool patient) {
    bool made;
    CHECK_OK(rp_group_open(w.log, NAMED_GROUP, &mine.wanted, in_ms(BOUND_MS), &mine.named, &made));
    if (is_done(0)) CHECK(!made);
    take_from(mine.named);
    take_from(RP_QUEUE_GROUP);
    CHECK_OK(rp_group_close(w.log, mine.named, in_ms(BOUND_MS)));
    w.is_sane_to_put = false;
    for (uint32_t i = 0; i < w.message_count; i++) w.messages[i].seen = 1;
    check_queue(patient);
}

static void before_close(void) {
    before_open();
    open_named();
}

static void close_named(void) { say_done(AGAIN(rp_group_close(w.log, mine.named, RP_NEVER))); }

static void check_closed(bool patient) {
    rp_status status = rp_group_close(w.log, mine.named, in_ms(BOUND_MS));
    if (is_done(0) || status != RP_NOT_FOUND) CHECK_IS(status, is_done(0) ? RP_NOT_FOUND : RP_OK);
    w.said[0]->done = 0; /* it is to be made again */
    check_opened(patient);
}

/* A group that ends with its process holds nobody back once that is dead: two laps go by. */
static void before_abandon(void) {
    make_world((rp_settings){.broadcast = true, .keep_history = true}, 0);
    mine.wanted = (rp_group_settings){.ends_with_us = true};
}

static void open_own(void) {
    bool made;
    join();
    CHECK_OK(rp_group_open(w.log, NAMED_GROUP, &mine.wanted, RP_NOW, &mine.named, &made));
}

static void abandon(void) {
    rp_group_abandon(w.log, mine.named);
    say_done(RP_OK);
}

static void read_own(void) {
    rp_taken taken;
    say_done(rp_try_take(w.log, mine.named, mine.buffer, sizeof mine.buffer, 1, &taken));
}

static void check_passes(bool patient) {
    (void)patient;
    for (int i = 0; i < 9; i++) pass(16000);
    check_words(w.log,
                1); /* the lock of a closed group may stay with the dead: who opens it again sees to that */
    rp_info info;
    CHECK_OK(rp_get_info(w.log, &info));
}

static void seek(void) { say_done(AGAIN(rp_group_seek(w.log, w.group, 0, 0, RP_NEVER))); }

/* It matches everything; what is copied of it first does not. */
#define LONG_PATTERN "#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#.#"

static void set_pattern(void) {
    say_done(AGAIN(rp_group_set_pattern(w.log, w.group, LONG_PATTERN, RP_NEVER)));
}

/* ---- life of a log -------------------------------------------------------------------------- */

/* A forked child has the log by inheritance: it gives that back first, without ever having joined. */
static void forget(void) { rp_detach(w.log); }

static void attach(void) {
    rp_log *log;
    say_done(rp_attach(log_path(), &log));
}

static void detach(void) {
    rp_detach(w.log);
    say_done(RP_OK);
}

static void before_create(void) {
    small_world();
    snprintf(mine.other_path, sizeof mine.other_path, "%s", in_directory("other"));
}

static void create(void) {
    rp_log *log;
    rp_settings settings = {.capacity = RP_MIN_CAPACITY};
    say_done(rp_create(mine.other_path, &settings, &log));
}

static void check_created(bool patient) {
    rp_log *other;
    rp_settings settings = {.capacity = RP_MIN_CAPACITY};
    uint64_t number = 7;
    rp_status status = rp_create(mine.other_path, &settings, &other);
    if (is_done(0)) CHECK_IS(status, RP_EXISTS);
    if (status == RP_EXISTS) status = rp_attach(mine.other_path, &other);
    CHECK_OK(status);
    put_number(other, number);
    CHECK_EQ(take_number(other, 0), number);
    check_words(other, 0);
    check_pool_is_whole(other);
    CHECK_EQ(participants(other), 1);
    rp_detach(other);
    CHECK_OK(rp_remove(mine.other_path));
    check_queue(patient);
}

/* An anonymous queue of its own, which it makes each time. */
static void make_other(void) {
    rp_settings settings = {.capacity = RP_MIN_CAPACITY, .auto_delete = true};
    CHECK_OK(rp_create(mine.other_path, &settings, &mine.other_log));
}

static void leave(void) {
    rp_detach(mine.other_log);
    say_done(RP_OK);
}

static void remove_other(void) { say_done(rp_remove(mine.other_path)); }

/* Its last process is gone: so is its file, or it is found to be nobody's. */
static void check_left(bool patient) {
    rp_log *log;
    rp_status status;
    EVENTUALLY((status = rp_collect(mine.other_path)) != RP_EXISTS);
    if (is_done(0) || status != RP_NOT_FOUND) CHECK_IS(status, is_done(0) ? RP_NOT_FOUND : RP_OK);
    CHECK_IS(rp_attach(mine.other_path, &log), RP_NOT_FOUND);
    check_queue(patient);
}

static void shut_down(void) { say_done(AGAIN(rp_shut_down(w.log, false, RP_NEVER))); }

static void check_shut(bool patient) {
    uint64_t number = LATER;
    rp_status status = try_put_number(w.log, number);
    if (status == RP_OK) account(number, 8, THERE);
    if (is_done(0)) CHECK_IS(status, RP_SHUT_DOWN);
    CHECK_OK(rp_shut_down(w.log, false, in_ms(BOUND_MS)));
    CHECK_IS(try_put_number(w.log, number), RP_SHUT_DOWN);
    for (;;) {
        uint32_t lost;
        if (!patient) let_look_over();
        status = receive(w.log, 0, 1, 0, in_ms(BOUND_MS));
        if (status == RP_SHUT_DOWN) break;
        CHECK_OK(status);
        note_seen(received.numbers[0]);
        CHECK_OK(rp_settle(w.log, 0, received.receipts, 1, RP_NOW, &lost));
    }
    check_fates();
    check_words(w.log, 0);
}

static void done_with_task(void) { say_done(rp_task_done(w.log)); }

static void ring_bell(void) {
    rp_add_level(w.log, 3);
    rp_set_alarm(w.log, 1);
    rp_bell_ring(w.log);
    say_done(RP_OK);
}

/* ---- all of them ---------------------------------------------------------------------------- */

static const operation operations[] = {
    {"put", before_put, join, put, NULL, true},
    {"put to sleepers", before_put_to_sleepers, join, put, NULL, false},
    {"put a longer one", before_put_long, join, put, NULL, false},
    {"put after fork", before_put, nothing, put, NULL, false},
    {"put over a dead lock", before_put_with_dead_lock, join, put, NULL, false},
    {"put many", before_put_many, join, put_many, NULL, false},
    {"put records", before_put_many, join, put_records, NULL, false},
    {"put a large one", before_put_large, join, put_large, NULL, false},
    {"put a large one after reclaim", before_put_large_after_reclaim, join, put_large, NULL, false},
    {"commit a loan", before_put_large, borrow_before, commit, NULL, false},
    {"abort a loan", small_world, borrow_before, give_loan_up, NULL, false},
    {"put when full", before_put_when_full, join, put_in_vain, NULL, false},
    {"put over history", before_put_over_history, join, put, NULL, false},
    {"put to who is overrun", before_overtaking, join, put, check_lossy, false},
    {"get", before_take, join, take_one, NULL, true},
    {"get the last one", before_take_last, join, take_one, NULL, false},
    {"get with sleepers", before_take_with_sleepers, join, take_one, NULL, false},
    {"get many", before_take_three, join, take_three, NULL, false},
    {"get a large one", before_take_large, join, take_large_one, NULL, false},
    {"get in place", before_take_large, join, take_pinned, NULL, false},
    {"get over a dead lock", before_take_with_dead_lock, join, take_one, NULL, false},
    {"get when empty", before_take_when_empty, join, take_in_vain, NULL, false},
    {"receive", before_receive, join, receive_one, NULL, true},
    {"receive one more", before_receive, hold_one, receive_one, NULL, false},
    {"receive three", before_receive, join, receive_three, NULL, false},
    {"receive a large one", before_receive_large, join, receive_large, NULL, false},
    {"receive again", before_receive, hold_three_and_nack_all, receive_three, NULL, false},
    {"receive some again", before_receive, hold_three_and_nack_all, receive_one, NULL, false},
    {"receive what the dead held", before_receive_of_dead, join, receive_one, NULL, false},
    {"ack", before_ack, hold_one, ack_one, NULL, true},
    {"ack out of order", before_ack_middle, hold_three, ack_middle, NULL, false},
    {"ack three", before_ack_three, hold_three, ack_three, NULL, false},
    {"ack a large one", before_ack_large, hold_one, ack_one, NULL, false},
    {"nack", before_receive, hold_one, nack_one, NULL, false},
    {"nack with a delay", before_receive, hold_one, nack_later, NULL, false},
    {"nack one of three", before_receive, hold_three, nack_middle, NULL, false},
    {"nack another", before_receive, hold_three_and_nack_first, nack_another, NULL, false},
    {"extend", before_receive, hold_one, extend, NULL, false},
    {"subscriber reads", before_read, join, take_one, NULL, false},
    {"subscriber reads by pattern", before_read_pattern, join, read_pattern, check_pattern, false},
    {"lossy subscriber reads", before_lossy_read, join, lossy_read, check_lossy, false},
    {"lossy subscriber was lapped", before_lapped_read, join, lossy_read, check_lossy, false},
    {"cursor reads", before_cursor, join, read_cursor, NULL, false},
    {"seek", before_seek, join, seek, NULL, false},
    {"set a pattern", before_seek, join, set_pattern, NULL, false},
    {"open a group", before_open, join, open_named, check_opened, false},
    {"find a group", before_close, join, open_named, check_opened, false},
    {"close a group", before_close, join, close_named, check_closed, false},
    {"abandon a group", before_abandon, open_own, abandon, check_passes, false},
    {"read a group of one's own", before_abandon, open_own, read_own, check_passes, false},
    {"attach", small_world, forget, attach, NULL, false},
    {"detach", small_world, join, detach, NULL, false},
    {"create", before_create, join, create, check_created, false},
    {"leave an anonymous queue", before_create, make_other, leave, check_left, false},
    {"remove", before_create, make_other, remove_other, check_left, false},
    {"shut down", small_world, join, shut_down, check_shut, false},
    {"task done", small_world, join, done_with_task, NULL, false},
    {"add a level, set an alarm, ring the bell", small_world, join, ring_bell, NULL, false},
};

#endif
