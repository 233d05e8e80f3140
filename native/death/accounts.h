/* The log that operations are done to, and the account of every message in it.
 *
 * Each message carries a number. What must have become of it is its fate; a message that the operation itself puts,
 * takes, or acks may be on either side of it, unless the operation said that it was done.
 */
#ifndef ACCOUNTS_H
#define ACCOUNTS_H

#include "leases.h"
#include "words.h"

#define LARGE       17000u /* too large for the ring: 3 of the pool's 8 granules */
#define MOST        64u    /* messages accounted for */
#define FIRST       1000u  /* numbers below it belong to messages of the past */
#define LATER       5000u  /* what survivors put */
#define OPERATIONS  2u     /* that die one after the other */
#define SHORT_MS    3      /* a wait that is to be in vain */
#define NAMED_GROUP "named"

enum fate {
    THERE,   /* it is in the log, perhaps in the hands of who dies: a survivor gets it, once */
    PUTTING, /* there, or not: all that one operation puts, or none of it */
    TAKING,  /* there, or gone with who took it: all that one operation takes, or none of it */
    ACKING,  /* there, or acked: each by itself */
};

typedef struct message {
    uint64_t number;
    size_t size;
    enum fate fate;
    uint32_t by;   /* which operation */
    uint32_t seen; /* by survivors */
} message;

/* What an operation says about itself, in memory that its parent sees. */
typedef struct statement {
    volatile uint32_t owner, done;
    volatile rp_status status;
    volatile uint32_t taken_count;
    volatile uint64_t taken[MOST];
    volatile uint64_t lost;
} statement;

typedef struct world {
    rp_log *log;
    uint32_t group; /* whose messages are accounted for */
    message messages[MOST];
    uint32_t message_count;
    uint64_t next; /* number */
    statement *said[OPERATIONS];
    uint32_t current; /* which of them is done now */
    bool met;         /* survivors took something while it was stopped: which ones it took is for it to say */
    bool is_sane_to_put; /* there is room for survivors at once */
    int64_t patience_ms; /* of waits that are to be in vain */
    uint64_t later;
    rp_receipt kept[8]; /* what this process holds while others die */
    uint32_t kept_count;
    uint64_t start_tail, start_lost;
} world;

static world w;

/* ---- messages ------------------------------------------------------------------------------- */

static inline void fill_body(void *body, size_t size, uint64_t number) {
    fill(body, size, number);
    memcpy(body, &number, sizeof number);
}

static inline void check_body(const void *body, size_t size, uint64_t number) {
    const uint8_t *bytes = body;
    for (size_t i = sizeof number; i < size; i++)
        if (bytes[i] != pattern(number, i)) FAIL("message %" PRIu64 " is damaged at byte %zu", number, i);
}

static inline void account(uint64_t number, size_t size, enum fate fate) {
    if (w.message_count == MOST) FAIL("too many messages");
    w.messages[w.message_count++] = (message){.number = number, .size = size, .fate = fate, .by = w.current};
}

/* Which the operation is to put: not there yet. */
static inline uint64_t to_put(size_t size) {
    uint64_t number = w.next++;
    account(number, size, PUTTING);
    return number;
}

static inline rp_status put_sized(uint64_t number, size_t size, int64_t deadline) {
    static uint8_t body[RP_INLINE_MAX];
    if (size > RP_INLINE_MAX) {
        rp_loan loan;
        rp_status status = UNTIL(deadline, rp_borrow(w.log, size, deadline, &loan));
        if (status != RP_OK) return status;
        fill_body(loan.data, size, number);
        return UNTIL(deadline, commit_loan(w.log, &loan, deadline));
    }
    fill_body(body, size, number);
    return put_bytes(w.log, body, size, deadline);
}

/* A message that is in the log from the beginning. */
static inline void put_message(size_t size, enum fate fate) {
    uint64_t number = w.next++;
    CHECK_OK(put_sized(number, size, in_ms(BOUND_MS)));
    account(number, size, fate);
}

static inline void put_messages(uint32_t count, size_t size) {
    for (uint32_t i = 0; i < count; i++) put_message(size, THERE);
}

/* The next `count` messages from `first` on are what the operation takes, or acks. */
static inline void expect_fate(uint32_t first, uint32_t count, enum fate fate) {
    for (uint32_t i = first; i < first + count; i++) {
        w.messages[i].fate = fate;
        w.messages[i].by = w.current;
    }
}

/* ---- a log with a past ---------------------------------------------------------------------- */

static inline bool has_queue_group(void) { return !rp_is_broadcast(w.log); }

static inline void pass(uint64_t body_size) {
    static uint8_t body[RP_INLINE_MAX];
    CHECK_OK(put_bytes(w.log, body, body_size, in_ms(BOUND_MS)));
    rp_taken taken;
    if (has_queue_group())
        CHECK_OK(rp_try_take(w.log, 0, received.frames, sizeof received.frames, 1, &taken));
}

/* The header of the frame behind the next `bytes` is the last thing before the ring's end. */
static inline void go_to_end_of_ring(uint64_t bytes) {
    uint64_t ring = w.log->geometry.ring_size, tail = rp_load_relaxed(&w.log->head->tail);
    uint64_t left = (ring - RP_STUB - bytes - tail) & (ring - 1);
    while (left) {
        uint64_t span = left > 16000 ? 16000 : left;
        if (left != span && left - span < sizeof(rp_frame)) span -= sizeof(rp_frame);
        if (span < sizeof(rp_frame)) span += ring; /* once more around */
        if (span > 16000) span = 16000;
        pass(span - sizeof(rp_frame));
        left = (left - span) & (ring - 1);
    }
}

/* What nobody needs is noise. */
static inline void fill_with_garbage(void) {
    uint64_t tail = rp_load_relaxed(&w.log->head->tail), oldest = rp_load_relaxed(&w.log->head->oldest);
    if (!rp_keeps_history(w.log)) {
        oldest = least_acked(w.log);
        rp_store_relaxed(&w.log->head->oldest, oldest);
    }
    for (uint64_t at = tail + RP_STUB; at < oldest + w.log->geometry.ring_size; at++)
        *((uint8_t *)w.log->ring + (at & w.log->mask)) = 0xab;
    memset(rp_frame_at(w.log, tail), 0xab, offsetof(rp_frame, sequence)); /* the stub, but for its sequence */
    size_t behind = offsetof(rp_frame, time_ns);
    memset((uint8_t *)rp_frame_at(w.log, tail) + behind, 0xab, sizeof(rp_frame) - behind);
    memset(w.log->pool, 0xab, w.log->geometry.pool_size);
}

/* `small` messages of 8 bytes come before the one whose frame wraps around the ring's end. */
static inline void make_world(rp_settings settings, uint32_t small) {
    if (!settings.capacity) settings.capacity = RP_MIN_CAPACITY;
    w.log = create_log(settings);
    for (int i = 0; i < 100; i++) pass(8);
    go_to_end_of_ring(small * sizeof(numbered));
    fill_with_garbage();
    w.next = FIRST;
    w.later = LATER;
    for (uint32_t i = 0; i < OPERATIONS; i++) w.said[i] = shared_memory(sizeof(statement));
}

/* As if others had slept for everything, and died. */
static inline void arm_all(void) {
    rp_store_relaxed(&w.log->head->armed[0], (UINT64_C(1) << (RP_LOG_EVENTS + 4)) - 1);
}

/* ---- what an operation says ----------------------------------------------------------------- */

static inline void say_taken(uint64_t number) {
    statement *said = w.said[w.current];
    said->taken[said->taken_count] = number;
    said->taken_count = said->taken_count + 1;
}

static inline void say_done(rp_status status) {
    w.said[w.current]->status = status;
    w.said[w.current]->done = 1;
}

static inline bool is_done(uint32_t by) { return w.said[by]->done && w.said[by]->status == RP_OK; }
static inline bool is_refused(uint32_t by) { return w.said[by]->done && w.said[by]->status != RP_OK; }

static inline bool says_it_took(uint64_t number) {
    for (uint32_t by = 0; by < OPERATIONS; by++)
        for (uint32_t i = 0; i < w.said[by]->taken_count; i++)
            if (w.said[by]->taken[i] == number) return true;
    return false;
}

/* ---- what survivors find -------------------------------------------------------------------- */

static inline message *find_message(uint64_t number) {
    for (uint32_t i = 0; i < w.message_count; i++)
        if (w.messages[i].number == number) return &w.messages[i];
    return NULL;
}

static inline void note_seen(uint64_t number) {
    if (number < FIRST) return; /* of the past: a group may begin with that */
    message *found = find_message(number);
    if (!found) FAIL("a message that nobody put: %" PRIu64, number);
    if (found->seen++) FAIL("message %" PRIu64 " came twice", number);
}

/* Get the payload of the only frame in `received`, and check all of it. */
static inline uint64_t read_received(void) {
    static uint8_t body[LARGE];
    rp_frame *frame = (rp_frame *)received.frames;
    size_t size = frame->size - sizeof *frame;
    const void *from = frame + 1;
    if (frame->flags & RP_FRAME_LARGE) {
        CHECK_OK(rp_read_large(w.log, w.group, received.receipts, frame, body, LARGE));
        from = body;
        size = LARGE;
    }
    uint64_t number = 0;
    if (size >= sizeof number) memcpy(&number, from, sizeof number);
    if (number >= FIRST) {
        message *found = find_message(number);
        if (!found || found->size != size) FAIL("message %" PRIu64 " has %zu bytes", number, size);
        check_body(from, size, number);
    }
    return number;
}

static inline bool anything_held(void) {
    uint64_t returned, held;
    rp_lease_count(w.log, rp_group_of(w.log, w.group), &returned, &held);
    return returned + held != w.kept_count;
}

/* Leases are looked over every 50 ms at most: let it be now. A cache, in which 0 is what repair stores, too. */
static inline void let_look_over(void) { rp_store_relaxed(&rp_group_of(w.log, w.group)->checked_ns, 0); }

/* Receive and ack what is there, until nothing is and nothing is in dead hands. */
static inline void drain(bool patient) {
    int64_t until = in_ms(BOUND_MS);
    uint64_t last = 0;
    for (;;) {
        uint32_t lost;
        if (!patient && anything_held()) let_look_over();
        rp_status status = receive(w.log, w.group, 1, 0, RP_NOW);
        if (status == RP_EMPTY && !anything_held()) break;
        if (status == RP_EMPTY) {
            if (rp_monotonic_ns() > until) FAIL("what the dead held never comes back");
            sleep_ms(1);
            continue;
        }
        CHECK_OK(status);
        CHECK_EQ(received.count, 1);
        uint64_t number = read_received(), sequence = ((rp_frame *)received.frames)->sequence;
        if (received.receipts[0].deliveries == 1) {
            if (last && sequence <= last) FAIL("message %" PRIu64 " is out of order", number);
            last = sequence;
        }
        note_seen(number);
        CHECK_OK(rp_settle(w.log, w.group, received.receipts, 1, in_ms(BOUND_MS), &lost));
        CHECK_EQ(lost, 0);
    }
}

/* All of one operation's, or none; `done` says which. */
static inline void check_together(uint32_t by, enum fate fate) {
    uint32_t seen = 0, all = 0;
    for (uint32_t i = 0; i < w.message_count; i++) {
        if (w.messages[i].fate != fate || w.messages[i].by != by) continue;
        seen += w.messages[i].seen;
        all++;
    }
    if (seen != 0 && seen != all) FAIL("%u of %u messages of one operation are there", seen, all);
    bool happened = fate == PUTTING ? seen == all : seen == 0;
    if (all && is_done(by) && !happened) FAIL("what was done is undone");
    if (all && is_refused(by) && happened) FAIL("what was refused is done");
}

static inline void check_alone(const message *one) {
    if (one->fate == THERE && !one->seen) FAIL("message %" PRIu64 " is lost", one->number);
    if (one->fate == ACKING && is_done(one->by) && one->seen)
        FAIL("message %" PRIu64 " was acked, and comes again", one->number);
}

/* Which it took while others took, too, it says itself. */
static inline void check_shared(const message *one) {
    bool taken = says_it_took(one->number);
    if (one->fate == PUTTING && one->seen + taken != !is_refused(one->by))
        FAIL("message %" PRIu64 " was seen %u times", one->number, one->seen);
    if ((one->fate == THERE || one->fate == TAKING) && one->seen + taken != 1)
        FAIL("message %" PRIu64 " was seen %u times, and taken %u times", one->number, one->seen, taken);
    if (one->fate == ACKING) check_alone(one);
}

static inline void check_fates(void) {
    for (uint32_t i = 0; i < w.message_count; i++) (w.met ? check_shared : check_alone)(&w.messages[i]);
    for (uint32_t by = 0; !w.met && by < OPERATIONS; by++) {
        check_together(by, PUTTING);
        check_together(by, TAKING);
    }
}

/* ---- survivors go on ------------------------------------------------------------------------ */

static inline void put_later(size_t size) {
    uint64_t number = w.later++;
    CHECK_OK(put_sized(number, size, in_ms(BOUND_MS)));
    account(number, size, THERE);
}

/* Settle what this process itself held all the time. */
static inline void settle_kept(void) {
    uint32_t lost;
    if (!w.kept_count) return;
    CHECK_OK(rp_settle(w.log, w.group, w.kept, w.kept_count, in_ms(BOUND_MS), &lost));
    CHECK_EQ(lost, 0);
    w.kept_count = 0;
}

static inline void check_locks_are_free(void) {
    CHECK_EQ(rp_load_relaxed(&w.log->head->lock), 0);
    CHECK_EQ(rp_load_relaxed(&w.log->head->pool_lock), 0);
    CHECK_EQ(rp_load_relaxed(&rp_group_of(w.log, w.group)->lock), 0);
}

/* A survivor puts, receives, acks; all is accounted for; then everything works, and the pool is whole. */
static inline void check_queue(bool patient) {
    if (w.is_sane_to_put) put_later(8);
    settle_kept();
    drain(patient);
    check_fates();
    put_later(8);
    put_later(LARGE);
    drain(patient);
    check_fates();
    if (!rp_keeps_history(w.log)) check_pool_is_whole(w.log);
    check_words(w.log, 0);
    check_locks_are_free();
}

#endif
