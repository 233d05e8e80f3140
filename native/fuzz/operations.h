/* Every call of ringpost.h on an attached log, each with a deadline. What they return does not matter here, but what they
 * hand out does: it is looked at as a caller would.
 */
#ifndef OPERATIONS_H
#define OPERATIONS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ringpost.h"

#define FRAMES_SIZE (1u << 17)
#define RECEIPTS    256u
#define HELD        64u

typedef struct session {
    rp_log *log;
    int64_t patience; /* ns for each call */
    uint32_t groups[3], next;
    uint8_t *frames; /* FRAMES_SIZE, from malloc: a sanitizer knows its end */
    rp_receipt *receipts;
    uint32_t count; /* of them, in `group` */
    uint32_t group;
    rp_frame *large; /* a received frame with its descriptor, and its receipt */
    rp_receipt large_receipt;
    rp_loan loan;
    rp_pin pin;
    rp_watch *watch;
    bool has_loan, has_pin;
    uint64_t cold;
    rp_cursor cursor;
    uint64_t sum; /* of what was read, so that nobody leaves the reading out */
} session;

static inline void start_session(session *my, rp_log *log, int64_t patience) {
    *my = (session){.log = log, .patience = patience, .groups = {0, 1, 1u << 7 | 1}};
    my->frames = malloc(FRAMES_SIZE);
    my->receipts = calloc(RECEIPTS, sizeof *my->receipts);
    my->large = calloc(1, sizeof(rp_frame) + sizeof(rp_descriptor));
    if (!my->frames || !my->receipts || !my->large) abort();
}

static inline void end_session(session *my) {
    if (my->has_pin) rp_unpin(my->log, &my->pin);
    if (my->has_loan) rp_abort(my->log, &my->loan);
    if (my->watch) rp_watch_close(my->watch);
    free(my->frames);
    free(my->receipts);
    free(my->large);
}

static inline int64_t waiting(const session *my) { return rp_monotonic_ns() + my->patience; }
static inline int64_t trying(const session *my) { return -waiting(my); } /* only for locks */

/* Whoever has no right to read these is found out. */
static inline void read_bytes(session *my, const void *data, uint64_t size) {
    const uint8_t *bytes = data;
    for (uint64_t i = 0; i < size; i += 64) my->sum += bytes[i];
    if (size) my->sum += bytes[size - 1];
}

/* What a call promised: whole frames, whose parts lie inside. */
static inline void read_frames(session *my, const uint8_t *frames, size_t bytes, uint32_t count) {
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        const rp_frame *frame = (const rp_frame *)(frames + at);
        size_t span = rp_align(frame->size);
        if (bytes - at < span) abort();
        bool large = frame->flags & RP_FRAME_LARGE;
        if (!large && (uint64_t)frame->subject_len + frame->headers_len > frame->size - sizeof *frame)
            abort();
        if (large && frame->size != sizeof *frame + sizeof(rp_descriptor)) abort();
        read_bytes(my, frame, frame->size);
        if (large && i < my->count) {
            memcpy(my->large, frame, sizeof *frame + sizeof(rp_descriptor));
            my->large_receipt = my->receipts[i];
        }
        at += span;
    }
}

static inline void read_text(session *my, const char *text, size_t size) {
    for (size_t i = 0; i < size && text[i]; i++) my->sum += (uint8_t)text[i];
}

/* ---- putting -------------------------------------------------------------------------------- */

static inline void put_small(session *my, uint8_t arg) {
    static const uint8_t body[256] = {1, 2, 3};
    rp_message message = {.subject = "a.b.c", .subject_len = arg % 6, .body = body, .body_len = arg};
    message.headers = body;
    message.headers_len = arg % 3;
    rp_try_put(my->log, &message);
}

static inline void put_waiting(session *my, uint8_t arg) {
    static const uint8_t body[RP_INLINE_MAX] = {1, 2, 3};
    rp_message message = {.body = body, .body_len = (size_t)arg * 64, .kind = arg};
    rp_put(my->log, &message, waiting(my));
}

static inline void put_frames(session *my, uint8_t arg) {
    static _Alignas(RP_ALIGN) uint8_t frames[32 * 256];
    uint32_t count = 1 + arg % 32, done;
    size_t span = rp_align(sizeof(rp_frame) + arg % 200), bytes;
    memset(frames, 0, sizeof frames);
    for (uint32_t i = 0; i < count; i++) {
        rp_frame *frame = (rp_frame *)(frames + i * span);
        frame->size = (uint32_t)sizeof *frame + arg % 200;
        frame->subject_len = arg % 200 ? 1 : 0;
    }
    if (arg & 1)
        rp_try_put_frames(my->log, frames, count * span, count, &done, &bytes);
    else
        rp_put_frames(my->log, frames, count * span, count, waiting(my), &done, &bytes);
}

static inline void put_records(session *my, uint8_t arg) {
    static const uint8_t items[64 * 32] = {9};
    rp_frame model[2] = {{.size = 2 * sizeof(rp_frame) + 32, .kind = 6}};
    uint32_t done;
    rp_put_records(my->log, model, sizeof *model, items, 1 + arg % 64, waiting(my), &done);
}

static inline void borrow(session *my, uint8_t arg) {
    if (my->has_loan) return;
    my->has_loan = rp_borrow(my->log, (uint64_t)arg * 300, waiting(my), &my->loan) == RP_OK;
    if (my->has_loan) memset(my->loan.data, arg, my->loan.length);
}

static inline void commit(session *my, uint8_t arg) {
    rp_message parts = {.subject_len = arg % 16, .headers_len = arg / 16, .kind = arg};
    if (!my->has_loan) borrow(my, arg);
    if (!my->has_loan) return;
    if (rp_commit(my->log, &my->loan, &parts, waiting(my)) == RP_OK) my->has_loan = false;
}

static inline void end_loan(session *my, uint8_t arg) {
    if (!my->has_loan) return;
    if (arg & 1 && !my->has_pin) my->has_pin = rp_pin_loan(my->log, &my->loan, &my->pin) == RP_OK;
    rp_abort(my->log, &my->loan);
    my->has_loan = false;
}

/* ---- taking --------------------------------------------------------------------------------- */

static inline uint32_t any_group(const session *my, uint8_t arg) { return my->groups[arg % 3]; }

static inline void read_pin(session *my) { read_bytes(my, my->pin.data, my->pin.length); }

/* The three ways to get a large one that was announced. */
static inline void take_announced(session *my, uint32_t group, const rp_taken *taken, uint8_t arg) {
    uint64_t sequence = taken->frame.sequence, length = taken->length;
    if (length > FRAMES_SIZE) return;
    uint8_t *body = malloc(length + 1);
    size_t extra = length < 3 ? length : 3;
    uint8_t some[3];
    if (arg & 64) {
        rp_skip_large(my->log, group, sequence, NULL, trying(my));
    } else if (arg & 32 && !my->has_pin) {
        my->has_pin = rp_take_pinned(my->log, group, sequence, length, waiting(my), &my->pin) == RP_OK;
        if (my->has_pin) read_pin(my);
    } else if (body) {
        rp_take_large(my->log, group, sequence, length, some, extra, body, waiting(my));
    }
    free(body);
}

static inline void take(session *my, uint8_t arg) {
    uint32_t group = any_group(my, arg), limit = 1 + arg % 9;
    size_t size = arg & 16 ? FRAMES_SIZE : (size_t)arg * 32;
    rp_taken taken = {0};
    rp_status status = arg & 128 ? rp_take(my->log, group, my->frames, size, limit, waiting(my), &taken)
                                 : rp_try_take(my->log, group, my->frames, size, limit, &taken);
    my->count = 0;
    if (status == RP_OK) read_frames(my, my->frames, taken.bytes, taken.count);
    if (status == RP_LARGE) take_announced(my, group, &taken, arg);
    if (status == RP_COLD) my->cold = taken.cold;
}

static inline void peek(session *my, uint8_t arg) {
    rp_taken taken = {0};
    rp_status status = rp_peek(my->log, any_group(my, arg), my->frames, FRAMES_SIZE, waiting(my), &taken);
    my->count = 0;
    if (status == RP_OK) read_frames(my, my->frames, taken.bytes, taken.count);
}

/* Of what lies in front, if it is small. */
static inline void take_records(session *my, uint8_t arg) {
    uint32_t group = any_group(my, arg);
    rp_taken taken = {0};
    if (rp_peek(my->log, group, my->frames, FRAMES_SIZE, trying(my), &taken) != RP_OK) return;
    const rp_frame *front = (const rp_frame *)my->frames;
    size_t room = front->size - sizeof *front, head = arg % 4 * 16;
    if (head > room) head = 0;
    uint32_t limit = 1 + arg % 16;
    uint8_t *items = malloc(limit * (room - head) + 1);
    if (items) rp_try_take_records(my->log, group, front, head, items, limit, &taken);
    free(items);
}

static inline void receive(session *my, uint8_t arg) {
    uint32_t group = any_group(my, arg), limit = arg & 8 ? RECEIPTS : 1u + arg % 32;
    int64_t lease = arg & 4 ? 1000000 : 0;
    size_t size = arg & 16 ? FRAMES_SIZE : (size_t)arg * 64;
    rp_taken taken = {0};
    rp_status status =
        arg & 128
            ? rp_receive(my->log, group, my->frames, size, limit, lease, my->receipts, waiting(my), &taken)
            : rp_try_receive(my->log, group, my->frames, size, limit, lease, my->receipts, &taken);
    my->group = group;
    my->count = taken.count <= limit ? taken.count : (abort(), 0);
    if (status == RP_OK) read_frames(my, my->frames, taken.bytes, taken.count);
    if (status == RP_COLD) my->cold = taken.cold;
}

static inline void read_received(session *my, uint8_t arg) {
    rp_descriptor descriptor;
    if (!(my->large->flags & RP_FRAME_LARGE)) return;
    memcpy(&descriptor, my->large + 1, sizeof descriptor);
    if (arg & 1 && !my->has_pin) {
        my->has_pin = rp_pin_received(my->log, my->group, &my->large_receipt, my->large, &my->pin) == RP_OK;
        if (my->has_pin) read_pin(my);
        return;
    }
    if (descriptor.length > FRAMES_SIZE) return;
    uint8_t *payload = malloc(descriptor.length + 1);
    if (payload) rp_read_large(my->log, my->group, &my->large_receipt, my->large, payload, descriptor.length);
    free(payload);
}

static inline void unpin(session *my, uint8_t arg) {
    (void)arg;
    if (my->has_pin) rp_unpin(my->log, &my->pin);
    my->has_pin = false;
}

static inline void settle(session *my, uint8_t arg) {
    uint32_t lost, count = arg < my->count ? arg : my->count;
    rp_settle(my->log, my->group, my->receipts, count, trying(my), &lost);
}

static inline void give_back(session *my, uint8_t arg) {
    uint32_t lost, done, first = my->count ? arg % my->count : 0;
    rp_give_back(my->log, my->group, my->receipts + first, my->count - first, arg & 4 ? 1000000 : 0, arg & 2,
                 trying(my), &lost, &done);
}

static inline void extend(session *my, uint8_t arg) {
    if (my->count == 0) return;
    rp_receipt *receipt = &my->receipts[arg % my->count];
    rp_extend(my->log, my->group, receipt, arg & 1 ? 1000000 : 0, trying(my));
    rp_holds(my->log, my->group, receipt, trying(my));
}

/* ---- groups --------------------------------------------------------------------------------- */

static inline void open_group(session *my, uint8_t arg) {
    static const char *names[] = {"some", "all", "late", "new"},
                      *patterns[] = {NULL, "a.# *.b", "a.*", "#.c"};
    rp_group_settings settings = {.pattern = patterns[arg / 4 % 4],
                                  .from_start = arg & 16,
                                  .lossy = arg & 32,
                                  .ends_with_us = arg & 64,
                                  .placed = arg & 128,
                                  .position = 64u * arg,
                                  .sequence = arg,
                                  .policy = arg & 2 ? 7 : 0};
    uint32_t group;
    bool made;
    rp_status status = rp_group_open(my->log, names[arg % 4], &settings, trying(my), &group, &made);
    if (status == RP_OK || status == RP_EXISTS) my->groups[my->next++ % 3] = group;
}

static inline void close_group(session *my, uint8_t arg) {
    uint32_t group = any_group(my, arg);
    if (arg & 128)
        rp_group_abandon(my->log, group);
    else
        rp_group_close(my->log, group, trying(my));
}

static inline void move_group(session *my, uint8_t arg) {
    uint32_t group = any_group(my, arg);
    uint64_t tail = rp_tail(my->log);
    switch (arg / 8 % 6) {
    case 0: rp_group_seek(my->log, group, arg, 0, trying(my)); break;
    case 1: rp_group_seek(my->log, group, 0, arg & 64 ? UINT64_MAX : 1, trying(my)); break;
    case 2: rp_group_set_pattern(my->log, group, arg & 64 ? "a.#.b #" : "", trying(my)); break;
    case 3: rp_group_advance(my->log, group, tail, trying(my)); break;
    case 4: rp_group_place(my->log, group, tail, arg, trying(my)); break;
    default: rp_group_discard(my->log, group, arg, trying(my));
    }
}

static inline void look_at_range(session *my, uint8_t arg) {
    rp_range range;
    if (rp_group_range(my->log, any_group(my, arg), UINT64_MAX, (size_t)arg * 64, &range) == RP_OK)
        read_bytes(my, range.data, range.end - range.position);
}

static inline void read_cursor(session *my, uint8_t arg) {
    rp_taken taken = {0};
    if (arg & 1 || my->cursor.position == 0) rp_cursor_open(my->log, arg & 2, &my->cursor);
    my->count = 0;
    if (rp_cursor_read(my->log, &my->cursor, my->frames, FRAMES_SIZE, 1 + arg % 16, &taken) == RP_OK)
        read_frames(my, my->frames, taken.bytes, taken.count);
}

/* ---- storage -------------------------------------------------------------------------------- */

static inline void write_to_storage(session *my, uint8_t arg) {
    rp_range range;
    bool lead;
    rp_status status = rp_commit_enter(my->log, my->log, rp_tail(my->log), waiting(my), &lead);
    if (status != RP_OK || !lead) return;
    rp_needed(my->log);
    if (rp_stored_range(my->log, rp_durable(my->log), (size_t)arg * 256, &range) == RP_OK) {
        read_bytes(my, range.data, range.end - range.position);
        rp_set_durable(my->log, range.end);
    }
    rp_commit_leave(my->log);
}

static inline void export_group(session *my, uint8_t arg) {
    rp_group_state state;
    rp_held held[HELD];
    rp_status status =
        rp_group_export(my->log, any_group(my, arg), &state, held, arg & 8 ? HELD : 1, trying(my));
    if (status != RP_OK) return;
    read_text(my, state.name, sizeof state.name);
    read_text(my, state.pattern, sizeof state.pattern);
    if (arg & 16) rp_group_import(my->log, &state, held, trying(my));
}

/* Frames as if they came out of storage: of the ring, copied. */
static inline void take_out_of_storage(session *my, uint8_t arg) {
    rp_range range;
    rp_taken taken = {0};
    uint32_t group = any_group(my, arg);
    rp_cursor oldest;
    if (rp_cursor_open(my->log, true, &oldest) != RP_OK) return;
    uint8_t *copy = malloc(1 << 16);
    if (!copy) return;
    rp_status status = rp_copy_frames(my->log, oldest.position, copy, (size_t)arg * 256, &range);
    if (status == RP_OK) {
        uint8_t *exact = malloc(range.end - range.position); /* a sanitizer knows its end */
        if (!exact) abort();
        memcpy(exact, copy, range.end - range.position);
        range.data = exact;
        my->count = 0;
        if (rp_take_cold(my->log, group, &range, my->frames, FRAMES_SIZE, 5, &taken) == RP_OK)
            read_frames(my, my->frames, taken.bytes, taken.count);
        status = rp_receive_cold(my->log, group, &range, my->frames, FRAMES_SIZE, 5, 0, my->receipts, &taken);
        my->group = group;
        my->count = taken.count;
        if (status == RP_OK) read_frames(my, my->frames, taken.bytes, taken.count);
        rp_peek_cold(my->log, group, &range, my->frames, FRAMES_SIZE, &taken);
        rp_skip_large(my->log, group, arg, &range, trying(my));
        free(exact);
    }
    free(copy);
}

/* ---- looking, and control ------------------------------------------------------------------- */

static inline void look(session *my, uint8_t arg) {
    rp_info info;
    rp_group_info group;
    rp_holding holdings[16];
    uint64_t ready;
    bool full;
    if (arg & 1) rp_get_info(my->log, &info);
    rp_ready(my->log, &ready);
    rp_is_full(my->log, &full);
    rp_holder();
    for (uint32_t g = 0; g < 3; g++) {
        if (rp_get_group_info(my->log, my->groups[g], &group) == RP_OK) {
            read_text(my, group.name, sizeof group.name);
            read_text(my, group.pattern, sizeof group.pattern);
        }
        rp_get_holdings(my->log, my->groups[g], holdings, 16);
        rp_has_leases(my->log, my->groups[g]);
        rp_glance(my->log, my->groups[g], 3);
    }
    rp_count(my->log, any_group(my, arg), arg % 4, 1);
}

static inline void watch(session *my, uint8_t arg) {
    if (my->watch) {
        rp_watch_clear(my->watch);
        rp_watch_arm(my->watch);
        rp_watch_look(my->watch);
        rp_watch_keep(my->watch);
        if (arg & 1) return;
        rp_watch_close(my->watch);
        my->watch = NULL;
    } else if (rp_watch_open(my->log, arg % 4, any_group(my, arg / 4), arg & 64, &my->watch) != RP_OK) {
        my->watch = NULL;
    }
}

static inline void ring_and_alarm(session *my, uint8_t arg) {
    rp_levels(my->log);
    if (arg & 1) rp_add_level(my->log, arg / 2);
    uint32_t heard = rp_bell_listen(my->log);
    if (arg & 2) rp_bell_ring(my->log);
    rp_bell_wait(my->log, heard, waiting(my));
    if (arg & 4) rp_set_alarm(my->log, arg & 8 ? 1 : 0);
    rp_alarm(my->log);
    rp_alarm_rings(my->log);
    if (arg & 16) rp_wake_all(my->log);
}

static inline void finish_tasks(session *my, uint8_t arg) {
    rp_task_done(my->log);
    if (arg & 1) rp_join(my->log, waiting(my));
}

static inline void shut_down(session *my, uint8_t arg) { rp_shut_down(my->log, arg & 1, trying(my)); }

/* ---- all of them ---------------------------------------------------------------------------- */

typedef struct operation {
    const char *name;
    void (*run)(session *my, uint8_t arg);
} operation;

#define OPERATION(function) {#function, function}
static const operation operations[] = {
    OPERATION(look),
    OPERATION(put_small),
    OPERATION(put_waiting),
    OPERATION(put_frames),
    OPERATION(put_records),
    OPERATION(borrow),
    OPERATION(commit),
    OPERATION(end_loan),
    OPERATION(take),
    OPERATION(peek),
    OPERATION(take_records),
    OPERATION(receive),
    OPERATION(read_received),
    OPERATION(unpin),
    OPERATION(settle),
    OPERATION(give_back),
    OPERATION(extend),
    OPERATION(open_group),
    OPERATION(close_group),
    OPERATION(move_group),
    OPERATION(look_at_range),
    OPERATION(read_cursor),
    OPERATION(write_to_storage),
    OPERATION(export_group),
    OPERATION(take_out_of_storage),
    OPERATION(watch),
    OPERATION(ring_and_alarm),
    OPERATION(finish_tasks),
    OPERATION(shut_down),
};
#define OPERATIONS (sizeof operations / sizeof *operations)

#endif
