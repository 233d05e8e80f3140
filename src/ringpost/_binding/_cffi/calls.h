/* Calls of the cffi binding that are not in ringpost.h: where a signal handler, which in Python may run between any two
 * steps, must not come in between, or where a loop over frames is no work for Python. */
#ifndef RINGPOST_CFFI_CALLS_H
#define RINGPOST_CFFI_CALLS_H

#include <string.h>

#include "ringpost.h"

/* A body alone, without a struct to fill. */
static rp_status rpc_try_put(rp_log *log, uint8_t kind, const char *body, size_t length) {
    rp_message message = {.body = body, .body_len = length, .kind = kind};
    return rp_try_put(log, &message);
}

/* Subject, headers and body behind one another. */
static void rpc_copy_parts(char *to, const rp_message *message) {
    const void *parts[] = {message->subject, message->headers, message->body};
    size_t lengths[] = {message->subject_len, message->headers_len, message->body_len};
    for (int i = 0; i < 3; i++) {
        if (lengths[i]) memcpy(to, parts[i], lengths[i]);
        to += lengths[i];
    }
}

/* A loan whose data is NULL has ended, and was sent if it has a length: the struct itself says so, at every moment. */
static rp_status rpc_commit(rp_log *log, rp_loan *loan, const rp_message *parts, int64_t deadline) {
    rp_status status = rp_commit(log, loan, parts, deadline);
    if (status == RP_OK) loan->data = NULL;
    return status;
}

static void rpc_abort(rp_log *log, rp_loan *loan) {
    if (!loan->data) return;
    loan->data = NULL;
    loan->length = 0;
    rp_abort(log, loan);
}

/* The same of a pin. */
static void rpc_unpin(rp_log *log, rp_pin *pin) {
    if (!pin->data) return;
    pin->data = NULL;
    rp_unpin(log, pin);
}

/* The whole payload; *done says that it is ours. */
static rp_status rpc_take_large(rp_log *log, uint32_t group, uint64_t sequence, uint64_t length,
                                char *payload, int64_t deadline, bool *done) {
    rp_status status = rp_take_large(log, group, sequence, length, NULL, 0, payload, deadline);
    if (status == RP_OK) *done = true;
    return status;
}

/* A writer's turn: the struct itself says whether it is to be left. */
typedef struct rpc_turn {
    rp_log *door;
    bool lead;
} rpc_turn;

static rp_status rpc_enter(rp_log *log, rpc_turn *turn, uint64_t position, int64_t deadline) {
    return rp_commit_enter(log, turn->door, position, deadline, &turn->lead);
}

static void rpc_leave(rpc_turn *turn) {
    if (!turn->lead) return;
    turn->lead = false;
    rp_commit_leave(turn->door);
}

/* Handles, which end once. */
static void rpc_detach(rp_log **log) {
    rp_log *last = *log;
    *log = NULL;
    if (last) rp_detach(last);
}

static void rpc_watch_close(rp_watch **watch) {
    rp_watch *last = *watch;
    *watch = NULL;
    if (last) rp_watch_close(last);
}

/* The frame at byte `at`; NULL: there is no whole one. */
static const rp_frame *rpc_frame_at(const char *frames, size_t size, size_t at) {
    const rp_frame *frame = (const rp_frame *)(frames + at);
    if (size - at < sizeof *frame || frame->size < sizeof *frame || rp_align(frame->size) > size - at)
        return NULL;
    return frame;
}

/* Where the last `count` (1 to 256) frames begin, or all. False: at byte *at there is no frame. */
static bool rpc_frames_from_end(const char *frames, size_t size, size_t count, size_t *at) {
    size_t last[256], seen = 0;
    for (*at = 0; *at < size;) {
        const rp_frame *frame = rpc_frame_at(frames, size, *at);
        if (!frame) return false;
        last[seen++ % count] = *at;
        *at += rp_align(frame->size);
    }
    *at = seen >= count ? last[seen % count] : 0;
    return true;
}

/* Where the first frame with at least this sequence and time begins, or `size`. False: as above. */
static bool rpc_find_frame(const char *frames, size_t size, uint64_t sequence, uint64_t time_ns, size_t *at) {
    for (*at = 0; *at < size;) {
        const rp_frame *frame = rpc_frame_at(frames, size, *at);
        if (!frame) return false;
        if (frame->sequence >= sequence && frame->time_ns >= time_ns) return true;
        *at += rp_align(frame->size);
    }
    return true;
}

#endif
