#include "log.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <time.h>

#include "pool.h"
#include "stored.h"

uint64_t rp_least_acked(rp_log *log) {
    uint64_t least = UINT64_MAX;
    if (rp_is_stored(log)) return rp_load_acquire(release, &log->head->durable);
    for (uint32_t g = 0; g < log->geometry.group_count; g++) {
        if (rp_load_acquire(group, &log->groups[g].state) != RP_GROUP_GATING) continue;
        uint64_t acked = rp_load_acquire(release, &log->groups[g].acked);
        if (acked < least) least = acked;
    }
    return least != UINT64_MAX ? least : rp_load_acquire(commit, &log->head->tail);
}

/* To read words as one that others move: more are never needed, unless they are nonsense. */
#define TRIES 10000

/* What group 0 stands at may be gone here; its mark says the sequence. */
static rp_status progress_of_stored(rp_log *log, uint64_t *read, uint64_t *read_sequence, uint64_t *tail,
                                    uint64_t *tail_sequence) {
    rp_group *group = &log->groups[RP_QUEUE_GROUP];
    for (int tries = 0; tries < TRIES; tries++) {
        if (!rp_glance_at_mark(group, read, read_sequence)) return RP_CORRUPT;
        *tail = rp_load_acquire(commit, &log->head->tail);
        if (*tail % RP_ALIGN) return RP_CORRUPT;
        *tail_sequence = rp_read_once(rp_frame_at(log, *tail)->sequence);
        rp_fence_acquire(lap);
        if (rp_load_relaxed(&log->head->oldest) > *tail) continue;
        return *read <= *tail && *read_sequence <= *tail_sequence ? RP_OK : RP_CORRUPT;
    }
    return RP_CORRUPT;
}

rp_status rp_progress(rp_log *log, uint64_t *read, uint64_t *read_sequence, uint64_t *tail,
                      uint64_t *tail_sequence) {
    if (rp_is_stored(log) && !rp_is_broadcast(log))
        return progress_of_stored(log, read, read_sequence, tail, tail_sequence);
    /* While `read` stands still nothing at or above it can be overwritten, not even the stub; and in a lap of the
     * ring `tail` moves, if there is no group 0. */
    rp_u64 *at = rp_is_broadcast(log) ? &log->head->tail : &log->groups[RP_QUEUE_GROUP].read;
    for (int tries = 0; tries < TRIES; tries++) {
        uint64_t position = rp_load_acquire(release, at);
        uint64_t end = rp_load_acquire(commit, &log->head->tail);
        if (rp_sane_range(log, position, end)) {
            *read_sequence = rp_read_once(rp_frame_at(log, position)->sequence);
            *tail_sequence = rp_read_once(rp_frame_at(log, end)->sequence);
        }
        rp_fence_acquire(lap);
        if (rp_load_relaxed(at) != position) continue;
        if (!rp_sane_range(log, position, end) || *tail_sequence < *read_sequence) return RP_CORRUPT;
        *read = position;
        *tail = end;
        return RP_OK;
    }
    return RP_CORRUPT;
}

/* ---- room ----------------------------------------------------------------------------------- */

typedef struct room {
    uint64_t tail, sequence;
    uint64_t bytes; /* of frames, the stub not counted */
    uint64_t messages;
} room;

/* A2. With history kept, `oldest` moves from frame to frame, as far as needed; else to the limit at once. */
static rp_status give_up_oldest(rp_log *log, uint64_t end, uint64_t limit) {
    uint64_t oldest = rp_load_relaxed(&log->head->oldest), start = oldest;
    if (end - oldest <= log->geometry.ring_size) return RP_OK;
    if (!rp_sane_range(log, oldest, limit)) return RP_CORRUPT;
    if (!rp_keeps_history(log)) {
        oldest = limit;
    } else {
        while (end - oldest > log->geometry.ring_size) {
            uint64_t span = oldest < limit ? rp_frame_span(log, oldest, limit) : 0;
            if (span == 0) return RP_CORRUPT;
            oldest += span;
        }
    }
    if (oldest != start) {
        rp_store_release(lap, &log->head->oldest, oldest);
        rp_fence_release(lap);
    }
    return RP_OK;
}

static rp_status room_by_cache(rp_log *log, room *out) {
    rp_head *head = log->head;
    uint64_t ring = log->geometry.ring_size, tail = out->tail;
    uint64_t limit = rp_load_relaxed(&head->limit);
    if (limit > tail || tail - limit > ring - RP_STUB) return RP_CORRUPT;
    out->bytes = ring - RP_STUB - (tail - limit);
    out->messages = UINT64_MAX;
    if (log->geometry.max_messages) {
        uint64_t used = out->sequence - rp_load_relaxed(&head->limit_sequence);
        out->messages = used < log->geometry.max_messages ? log->geometry.max_messages - used : 0;
    }
    return RP_OK;
}

static bool taken_by_queue_group(rp_log *log, uint64_t tail, uint64_t *sequence) {
    rp_group *group = &log->groups[RP_QUEUE_GROUP];
    uint64_t read;
    if (rp_is_stored(log)) return rp_glance_at_mark(group, &read, sequence);
    read = rp_load_acquire(release, &group->read);
    if (!rp_sane_range(log, read, tail)) return false;
    *sequence = rp_read_once(rp_frame_at(log, read)->sequence);
    return true;
}

static rp_status refresh_limit(rp_log *log, uint64_t tail, uint64_t sequence) {
    uint64_t limit = rp_least_acked(log);
    if (!rp_sane_range(log, limit, tail)) return RP_CORRUPT;
    rp_store_relaxed(&log->head->limit, limit);
    if (log->geometry.max_messages) {
        /* nobody can overwrite the frame there: we hold the lock */
        uint64_t taken;
        if (!taken_by_queue_group(log, tail, &taken)) return RP_CORRUPT;
        if (taken > sequence) return RP_CORRUPT;
        rp_store_relaxed(&log->head->limit_sequence, taken);
    }
    return RP_OK;
}

/* A1: RP_OK with room for at least one frame of `bytes`, and `*out` saying for how much.
 * `messages` 0: for one that counts for nothing. */
static rp_status find_room(rp_log *log, uint64_t bytes, uint64_t messages, uint64_t all_bytes, room *out) {
    out->tail = rp_load_relaxed(&log->head->tail);
    if (out->tail % RP_ALIGN) return RP_CORRUPT;
    if (rp_likely(rp_load_relaxed(&log->head->known_tail) == out->tail))
        out->sequence = rp_load_relaxed(&log->head->known_sequence);
    else
        out->sequence = rp_read_once(rp_frame_at(log, out->tail)->sequence);
    rp_status status = room_by_cache(log, out);
    if (rp_likely(status == RP_OK && out->bytes >= all_bytes && out->messages >= messages)) return RP_OK;
    if (status == RP_OK) status = refresh_limit(log, out->tail, out->sequence);
    if (status == RP_OK) status = room_by_cache(log, out);
    if (status != RP_OK) return status;
    return out->bytes >= bytes && (out->messages >= 1 || messages == 0) ? RP_OK : RP_FULL;
}

rp_status rp_drop_history(rp_log *log, rp_wait *wait) {
    bool died, passed_large = false;
    if (!rp_keeps_history(log)) return RP_FULL;
    rp_status status = rp_lock_try(log, &log->head->lock, wait, &died);
    if (status != RP_OK) return status;
    if (died) rp_wake_all(log);
    uint64_t tail = rp_load_relaxed(&log->head->tail), oldest = rp_load_relaxed(&log->head->oldest);
    uint64_t limit = rp_least_acked(log);
    bool sane = rp_sane_range(log, oldest, limit) && rp_sane_range(log, limit, tail);
    while (sane && !passed_large && oldest != limit) {
        uint64_t span = rp_frame_span(log, oldest, limit);
        if (span == 0) break;
        passed_large = rp_read_once(rp_frame_at(log, oldest)->flags) & RP_FRAME_LARGE;
        oldest += span;
    }
    if (passed_large) {
        rp_store_release(lap, &log->head->oldest, oldest);
        rp_fence_release(lap);
    }
    rp_lock_release(&log->head->lock);
    return passed_large ? RP_OK : RP_FULL;
}

/* ---- append --------------------------------------------------------------------------------- */

/* Lock, after making sure that this process takes part and the log is open. `now`: when that was. */
static rp_status begin(rp_log *log, rp_wait *wait, uint64_t *now) {
    bool died;
    rp_status status = rp_enter(log);
    if (rp_unlikely(status != RP_OK)) return status;
    *now = rp_wall_clock_ns();
    rp_is_found_removed(log, *now); /* then `state` says so */
    status = rp_lock_try(log, &log->head->lock, wait, &died);
    if (rp_unlikely(status != RP_OK)) return status;
    if (rp_unlikely(died)) rp_wake_all(log); /* the dead one may have committed and not told anybody */
    uint32_t state = rp_load_acquire(state, &log->head->state);
    if (rp_unlikely(state & (RP_STATE_SHUT | RP_STATE_DELETED))) {
        rp_lock_release(&log->head->lock);
        return state & RP_STATE_DELETED ? RP_DELETED : RP_SHUT_DOWN;
    }
    return RP_OK;
}

/* A3's end, A4 and A5. */
static void finish(rp_log *log, const room *at, uint64_t bytes, uint32_t count) {
    uint64_t tail = at->tail + bytes;
    rp_write_once(rp_frame_at(log, tail)->sequence, at->sequence + count);
    rp_store_release(commit, &log->head->tail, tail);
    rp_keep_order(); /* dying between these, in this order, leaves known_tail != tail */
    rp_store_relaxed(&log->head->known_sequence, at->sequence + count);
    rp_keep_order();
    rp_store_relaxed(&log->head->known_tail, tail);
    rp_lock_release(&log->head->lock);
    rp_signal_frames(log, (int)count);
}

static rp_status give_back(rp_log *log, rp_status status) {
    rp_lock_release(&log->head->lock);
    return status;
}

rp_status rp_try_put_with(rp_log *log, const rp_message *message, rp_wait *wait) {
    if (rp_unlikely(message->subject_len > UINT16_MAX)) return RP_INVALID;
    if (rp_unlikely(message->headers_len > RP_INLINE_MAX || message->body_len > RP_INLINE_MAX))
        return RP_TOO_LARGE;
    uint64_t payload = message->subject_len + message->headers_len + message->body_len;
    if (rp_unlikely(payload > RP_INLINE_MAX)) return RP_TOO_LARGE;
    uint64_t size = sizeof(rp_frame) + payload, span = rp_align(size), now;
    room at;
    rp_status status = begin(log, wait, &now);
    if (rp_unlikely(status != RP_OK)) return status;
    status = find_room(log, span, !message->beyond, span, &at);
    if (rp_likely(status == RP_OK))
        status = give_up_oldest(log, at.tail + span + RP_STUB, rp_load_relaxed(&log->head->limit));
    if (rp_unlikely(status != RP_OK)) return give_back(log, status);

    rp_frame *frame = rp_frame_at(log, at.tail);
    frame->size = (uint32_t)size;
    frame->kind = message->kind;
    frame->flags = 0;
    frame->subject_len = (uint16_t)message->subject_len;
    rp_write_once(frame->sequence, at.sequence);
    frame->time_ns = now;
    frame->headers_len = (uint32_t)message->headers_len;
    frame->ttl_ms = message->ttl_ms;
    uint8_t *to = (uint8_t *)(frame + 1);
    if (message->subject_len) memcpy(to, message->subject, message->subject_len);
    if (message->headers_len) memcpy(to + message->subject_len, message->headers, message->headers_len);
    if (message->body_len)
        memcpy(to + message->subject_len + message->headers_len, message->body, message->body_len);
    finish(log, &at, span, 1);
    return RP_OK;
}

rp_status rp_try_put_descriptor(rp_log *log, const rp_frame *header, const rp_descriptor *descriptor,
                                bool beyond, rp_wait *wait) {
    uint64_t size = sizeof(rp_frame) + sizeof(rp_descriptor), span = rp_align(size), now;
    room at;
    rp_status status = begin(log, wait, &now);
    if (status != RP_OK) return status;
    status = find_room(log, span, !beyond, span, &at);
    if (status == RP_OK)
        status = give_up_oldest(log, at.tail + span + RP_STUB, rp_load_relaxed(&log->head->limit));
    if (status != RP_OK) return give_back(log, status);

    if (!rp_pool_publish(log, descriptor, at.tail)) return give_back(log, RP_INVALID);
    rp_frame *frame = rp_frame_at(log, at.tail);
    frame->size = (uint32_t)size;
    frame->kind = header->kind;
    frame->flags = RP_FRAME_LARGE;
    frame->subject_len = header->subject_len;
    rp_write_once(frame->sequence, at.sequence);
    frame->time_ns = now;
    frame->headers_len = header->headers_len;
    frame->ttl_ms = header->ttl_ms;
    memcpy(frame + 1, descriptor, sizeof *descriptor);
    finish(log, &at, span, 1);
    return RP_OK;
}

static bool is_plain_frame(const rp_frame *frame) {
    return frame->size >= sizeof *frame && frame->size <= RP_FRAME_MAX && frame->flags == 0 &&
           (uint64_t)frame->subject_len + frame->headers_len <= frame->size - sizeof *frame;
}

/* How many of the prepared frames fit into `room`, and their bytes. 0 bytes: they are not frames. */
static uint64_t count_fitting(const uint8_t *frames, uint64_t bytes, uint32_t count, const room *at,
                              uint32_t *fitting) {
    uint64_t used = 0;
    *fitting = 0;
    while (*fitting < count && *fitting < at->messages) {
        const rp_frame *frame = (const rp_frame *)(frames + used);
        if (used + sizeof *frame > bytes || !is_plain_frame(frame)) return 0;
        uint64_t span = rp_align(frame->size);
        if (used + span > bytes) return 0;
        if (used + span > at->bytes) break;
        used += span;
        ++*fitting;
    }
    return used;
}

/* The stub's sequence must stay what it is while it is not yet a frame: others read it, and so does the next
 * producer if we die here. */
static void copy_around_stub(rp_frame *stub, const void *frames, uint64_t bytes) {
    size_t sequence = offsetof(rp_frame, sequence), behind = sequence + sizeof stub->sequence;
    memcpy(stub, frames, sequence);
    memcpy((uint8_t *)stub + behind, (const uint8_t *)frames + behind, bytes - behind);
}

static rp_status try_put_frames(rp_log *log, const void *frames, uint64_t bytes, uint32_t count,
                                rp_wait *wait, uint32_t *done, size_t *done_bytes) {
    *done = 0;
    *done_bytes = 0;
    if (count == 0) return RP_OK;
    if (bytes < sizeof(rp_frame) || !is_plain_frame(frames)) return RP_INVALID;
    uint64_t first = rp_align(((const rp_frame *)frames)->size), now;
    room at;
    rp_status status = begin(log, wait, &now);
    if (status != RP_OK) return status;
    status = find_room(log, first, count, bytes, &at);
    if (status != RP_OK) return give_back(log, status);
    uint32_t fitting;
    uint64_t used = count_fitting(frames, bytes, count, &at, &fitting);
    status =
        used ? give_up_oldest(log, at.tail + used + RP_STUB, rp_load_relaxed(&log->head->limit)) : RP_INVALID;
    if (status != RP_OK) return give_back(log, status);

    copy_around_stub(rp_frame_at(log, at.tail), frames, used);
    uint64_t offset = 0;
    for (uint32_t i = 0; i < fitting; i++) {
        rp_frame *frame = rp_frame_at(log, at.tail + offset);
        rp_write_once(frame->sequence, at.sequence + i);
        frame->time_ns = now;
        offset += rp_align(((const rp_frame *)((const uint8_t *)frames + offset))->size);
    }
    finish(log, &at, used, fitting);
    *done = fitting;
    *done_bytes = used;
    return RP_OK;
}

/* ---- waiting forms -------------------------------------------------------------------------- */

static bool more_room(rp_log *log, const void *seen) {
    return rp_least_acked(log) != *(const uint64_t *)seen;
}

rp_status rp_wait_for_room(rp_log *log, rp_status why, rp_wait *wait) {
    if (why == RP_BUSY) return rp_lock_sleep(log, &log->head->lock, wait);
    if (rp_repair_groups(log)) return RP_OK;
    uint64_t seen = rp_least_acked(log);
    rp_status status = rp_event_wait(log, RP_EVENT_SPACE, wait, more_room, &seen);
    return status == RP_EMPTY ? RP_FULL : status;
}

/* A full log may be one that the dead keep full. */
rp_status rp_try_put(rp_log *log, const rp_message *message) {
    rp_status status = rp_try_put_with(log, message, NULL);
    return rp_unlikely(status == RP_FULL) && rp_repair_groups(log) ? rp_try_put_with(log, message, NULL)
                                                                   : status;
}

rp_status rp_put(rp_log *log, const rp_message *message, int64_t deadline) {
    rp_wait wait = rp_wait_until(deadline);
    for (;;) {
        rp_status status = rp_try_put_with(log, message, &wait);
        if (status != RP_BUSY && status != RP_FULL) return status;
        status = rp_wait_for_room(log, status, &wait);
        if (status != RP_OK) return status;
    }
}

rp_status rp_try_put_frames(rp_log *log, const void *frames, size_t bytes, uint32_t count, uint32_t *done,
                            size_t *done_bytes) {
    rp_status status = try_put_frames(log, frames, bytes, count, NULL, done, done_bytes);
    if (rp_likely(status != RP_FULL) || !rp_repair_groups(log)) return status;
    return try_put_frames(log, frames, bytes, count, NULL, done, done_bytes);
}

rp_status rp_put_frames(rp_log *log, const void *frames, size_t bytes, uint32_t count, int64_t deadline,
                        uint32_t *done, size_t *done_bytes) {
    rp_wait wait = rp_wait_until(deadline);
    for (;;) {
        rp_status status = try_put_frames(log, frames, bytes, count, &wait, done, done_bytes);
        if (status != RP_BUSY && status != RP_FULL) return status;
        status = rp_wait_for_room(log, status, &wait);
        if (status != RP_OK) return status;
    }
}

/* ---- records: frames that are alike but for a few bytes at their end ------------------------------ */

typedef struct records {
    const rp_frame *model; /* and behind it `head` bytes, a multiple of RP_ALIGN */
    size_t head, item;
    const uint8_t *items;
    uint32_t count;
} records;

/* Field by field: the stub's sequence must stay what it is. */
static inline void write_record(rp_frame *frame, const records *what, const uint8_t *item, uint64_t sequence,
                                uint64_t now) {
    const rp_frame *model = what->model;
    frame->size = model->size;
    frame->kind = model->kind;
    frame->flags = 0;
    frame->subject_len = 0;
    rp_write_once(frame->sequence, sequence);
    frame->time_ns = now;
    frame->headers_len = 0;
    frame->ttl_ms = 0;
    uint8_t *to = (uint8_t *)(frame + 1);
    const uint8_t *head = (const uint8_t *)(model + 1);
    for (size_t i = 0; i < what->head; i += RP_ALIGN) memcpy(to + i, head + i, RP_ALIGN);
    to += what->head;
    if (what->item == 32)
        memcpy(to, item, 32); /* of a size that the compiler knows */
    else
        memcpy(to, item, what->item);
}

static rp_status try_put_records(rp_log *log, const records *what, rp_wait *wait, uint32_t *done) {
    uint64_t span = rp_align(what->model->size), now;
    room at;
    *done = 0;
    rp_status status = begin(log, wait, &now);
    if (status != RP_OK) return status;
    status = find_room(log, span, what->count, span * what->count, &at);
    if (status != RP_OK) return give_back(log, status);
    uint64_t fitting = at.bytes / span < at.messages ? at.bytes / span : at.messages;
    if (fitting > what->count) fitting = what->count;
    status = give_up_oldest(log, at.tail + fitting * span + RP_STUB, rp_load_relaxed(&log->head->limit));
    if (status != RP_OK) return give_back(log, status);
    const uint8_t *item = what->items;
    for (uint64_t i = 0; i < fitting; i++, item += what->item)
        write_record(rp_frame_at(log, at.tail + i * span), what, item, at.sequence + i, now);
    finish(log, &at, fitting * span, (uint32_t)fitting);
    *done = (uint32_t)fitting;
    return RP_OK;
}

rp_status rp_put_records(rp_log *log, const rp_frame *model, size_t head, const void *items, uint32_t count,
                         int64_t deadline, uint32_t *done) {
    *done = 0;
    if (count == 0) return RP_OK;
    if (!is_plain_frame(model) || model->subject_len || model->headers_len || model->ttl_ms ||
        head % RP_ALIGN || model->size <= sizeof *model + head)
        return RP_INVALID;
    records what = {.model = model,
                    .head = head,
                    .item = model->size - sizeof *model - head,
                    .items = items,
                    .count = count};
    rp_wait wait = rp_wait_until(deadline);
    for (;;) {
        rp_status status = try_put_records(log, &what, &wait, done);
        if (status != RP_BUSY && status != RP_FULL) return status;
        status = rp_wait_for_room(log, status, &wait);
        if (status != RP_OK) return status;
    }
}
