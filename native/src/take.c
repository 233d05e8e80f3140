/* Taking frames from a group, at most once; the protocol is in group.h. */
#include <limits.h>
#include <string.h>

#include "frames.h"
#include "group.h"
#include "lease.h"
#include "pin.h"
#include "pool.h"
#include "subject.h"

/* T1. With RP_OK the lock is held and there is a frame at `read`. */
static rp_status begin(rp_log *log, uint32_t group, uint32_t limit, rp_wait *wait, rp_hold *hold) {
    rp_status status = rp_group_try_lock(log, group, wait, hold);
    if (rp_unlikely(status != RP_OK)) return status;
    if (rp_unlikely(rp_load_relaxed(&hold->group->lease_top) != 0) && rp_lease_is_due(log, hold))
        return rp_group_unlock(hold, RP_RETURNED_FIRST);
    if (rp_unlikely(rp_load_relaxed(&hold->group->state) == RP_GROUP_LOSSY))
        return RP_OK;                                                /* asks for itself */
    if (limit > 1) rp_store_relaxed(&hold->group->seen, hold->read); /* a batch is all that is there */
    status = rp_group_look(log, hold);
    return rp_likely(status == RP_OK) ? RP_OK : rp_group_unlock(hold, status);
}

static void count_delivered(rp_group *group, uint64_t count) {
    rp_store_relaxed(&group->delivered, rp_load_relaxed(&group->delivered) + count);
}

/* T4 and T5. */
static void finish(rp_log *log, rp_hold *hold, uint64_t end, uint32_t count) {
    count_delivered(hold->group, count);
    rp_store_release(release, &hold->group->read, end);
    rp_lease_move_acked(log, hold->group);
    rp_lock_release(&hold->group->lock);
}

/* T4 and T5 with a run of the pool. It is freed between the two stores: while our `acked` has not passed it,
 * nobody can reclaim it and lend it again behind our back. Other groups still want it: reclaim will find it. */
static void finish_large(rp_log *log, rp_hold *hold, uint32_t first, uint64_t end) {
    count_delivered(hold->group, 1);
    rp_store_release(release, &hold->group->read, end);
    if (!rp_keeps_history(log) && rp_acked_by_others(log, hold->group, hold->read))
        rp_pool_release(log, first, hold->read);
    rp_lease_move_acked(log, hold->group);
    rp_lock_release(&hold->group->lock);
}

static rp_status announce_large(rp_log *log, rp_hold *at, rp_taken *out) {
    rp_descriptor descriptor;
    rp_status status = rp_read_descriptor(log, at->read, &out->frame, &descriptor);
    out->length = descriptor.length;
    return rp_group_unlock(at, status == RP_OK ? RP_LARGE : status);
}

/* T2 to T5 for a run of small frames, in one piece. */
static rp_status take_run(rp_log *log, rp_hold *at, void *buffer, size_t size, uint32_t limit,
                          rp_taken *out) {
    rp_walk walk;
    rp_status status = rp_walk_frames(log, at->read, at->tail, size, limit, &walk);
    if (rp_unlikely(status == RP_LARGE)) return announce_large(log, at, out);
    if (rp_unlikely(status != RP_OK)) {
        out->need = walk.need;
        return rp_group_unlock(at, status);
    }
    uint64_t bytes = walk.end - at->read;
    memcpy(buffer, rp_frame_at(log, at->read), bytes);
    if (rp_unlikely(!rp_check_frames(buffer, bytes, walk.count))) return rp_group_unlock(at, RP_CORRUPT);
    finish(log, at, walk.end, walk.count);
    out->count = walk.count;
    out->bytes = bytes;
    return RP_OK;
}

/* The same for a group with a pattern: frame by frame. What does not match is passed over. */
static rp_status take_matching(rp_log *log, rp_hold *at, void *buffer, size_t size, uint32_t limit,
                               rp_taken *out) {
    uint64_t position = at->read;
    size_t pattern_length = rp_pattern_length(at->group);
    rp_status status = RP_OK;
    while (position != at->tail && out->count < limit) {
        uint64_t span = rp_frame_span(log, position, at->tail);
        if (span == 0) return rp_group_unlock(at, RP_CORRUPT);
        if (rp_frame_matches(log, position, span, at->group->pattern, pattern_length)) {
            rp_walk walk;
            status = rp_walk_frames(log, position, at->tail, size - out->bytes, 1, &walk);
            if (status != RP_OK) break;
            void *copy = (uint8_t *)buffer + out->bytes;
            span = walk.end - position; /* as it was checked: somebody may write to it */
            memcpy(copy, rp_frame_at(log, position), span);
            if (!rp_check_frames(copy, span, 1)) return rp_group_unlock(at, RP_CORRUPT);
            out->bytes += span;
            out->count++;
        }
        position += span;
    }
    if (out->count == 0 && status == RP_LARGE) {
        rp_store_release(release, &at->group->read, position);
        rp_lease_move_acked(log, at->group);
        at->read = position;
        return announce_large(log, at, out);
    }
    finish(log, at, position, out->count);
    return out->count ? RP_OK : status == RP_OK ? RP_EMPTY : status;
}

/* Keep the frames that match, close up. */
static void sift(const rp_group *group, uint8_t *frames, rp_taken *out) {
    size_t pattern_length = rp_pattern_length(group), kept = 0, at = 0;
    uint32_t count = 0;
    for (uint32_t i = 0; i < out->count; i++) {
        const rp_frame *frame = (const rp_frame *)(frames + at);
        size_t span = rp_align(frame->size);
        if (rp_subject_matches(group->pattern, pattern_length, (const char *)(frame + 1),
                               frame->subject_len)) {
            memmove(frames + kept, frames + at, span);
            kept += span;
            count++;
        }
        at += span;
    }
    out->count = count;
    out->bytes = kept;
}

static rp_status take_lossy(rp_log *log, rp_hold *at, void *buffer, size_t size, uint32_t limit,
                            rp_taken *out) {
    rp_group *group = at->group;
    rp_cursor cursor = {.position = at->read, .sequence = rp_load_relaxed(&group->sequence)};
    uint32_t state =
        rp_load_acquire(state, &log->head->state); /* before the tail: nothing is put once it is shut */
    rp_status status;
    do {
        status = rp_cursor_read(log, &cursor, buffer, size, limit, out);
        if (status == RP_OK && group->pattern[0]) sift(group, buffer, out);
    } while (status == RP_OK && out->count == 0);
    out->lost = cursor.lost;
    count_delivered(group, out->count);
    rp_store_relaxed(&group->lost, rp_load_relaxed(&group->lost) + cursor.lost);
    rp_store_relaxed(&group->sequence, cursor.sequence);
    rp_store_release(release, &group->read, cursor.position);
    rp_store_release(release, &group->acked, cursor.position);
    rp_store_relaxed(&group->seen, cursor.position);
    if (status == RP_EMPTY && (state & RP_STATE_DELETED)) status = RP_DELETED;
    if (status == RP_EMPTY && (state & RP_STATE_SHUT)) status = RP_SHUT_DOWN;
    return rp_group_unlock(at, status);
}

static rp_status try_take(rp_log *log, uint32_t group, void *buffer, size_t size, uint32_t limit,
                          rp_wait *wait, rp_taken *out) {
    rp_hold at;
    *out = (rp_taken){0};
    rp_status status = begin(log, group, limit, wait, &at);
    if (status != RP_OK) return status;
    if (rp_unlikely(rp_load_relaxed(&at.group->state) == RP_GROUP_LOSSY))
        return take_lossy(log, &at, buffer, size, limit, out);
    status = rp_unlikely(at.group->pattern[0]) ? take_matching(log, &at, buffer, size, limit, out)
                                               : take_run(log, &at, buffer, size, limit, out);
    if (status == RP_OK || status == RP_EMPTY) rp_signal(log, RP_EVENT_SPACE, INT_MAX);
    return status;
}

rp_status rp_try_take(rp_log *log, uint32_t group, void *buffer, size_t size, uint32_t limit, rp_taken *out) {
    return try_take(log, group, buffer, size, limit, NULL, out);
}

static bool more_frames(rp_log *log, const void *group) {
    return rp_load_relaxed(&log->head->tail) != rp_load_relaxed(&((const rp_group *)group)->read);
}

bool rp_glance(rp_log *log, uint32_t group, uint32_t spins) {
    const rp_group *at = rp_group_of(log, group);
    for (uint32_t i = 0; at && i < spins; i++) {
        if (more_frames(log, at)) return true;
        rp_pause();
    }
    return false;
}

rp_status rp_take(rp_log *log, uint32_t group, void *buffer, size_t size, uint32_t limit, int64_t deadline,
                  rp_taken *out) {
    rp_wait wait = rp_wait_until(deadline);
    rp_group *at = rp_group_of(log, group);
    if (!at) return RP_INVALID;
    uint32_t event = rp_group_event(log, at);
    for (;;) {
        rp_status status = try_take(log, group, buffer, size, limit, &wait, out);
        if (status == RP_BUSY) {
            status = rp_lock_sleep(log, &at->lock, &wait);
        } else if (status == RP_EMPTY) {
            rp_lease_bound_sleep(at, &wait);
            status = rp_event_wait(log, event, &wait, more_frames, at);
        } else {
            /* asked after arming again: frames put before that woke nobody, later ones see the bit */
            if (wait.woken && more_frames(log, at)) rp_event_leave(log, event, &wait);
            return status;
        }
        if (status != RP_OK) {
            rp_event_leave(log, event, &wait);
            return status;
        }
    }
}

/* What becomes of a large payload: pinned where it lies, or copied. */
typedef struct destination {
    rp_pin *pin; /* NULL: copy */
    void *extra, *body;
    size_t extra_len;
} destination;

/* RP_NOT_FOUND: a group that was opened while others took the frame may find its run gone. */
static rp_status deliver_large(rp_log *log, const rp_descriptor *descriptor, uint64_t position,
                               const destination *to) {
    if (to->pin) return rp_pin_run(log, descriptor, position, to->pin);
    const uint8_t *data = log->pool + (uint64_t)descriptor->first * RP_GRANULE;
    if (to->extra_len) memcpy(to->extra, data, to->extra_len);
    if (descriptor->length > to->extra_len)
        memcpy(to->body, data + to->extra_len, descriptor->length - to->extra_len);
    return rp_pool_is_of(log, descriptor->first, position) ? RP_OK : RP_NOT_FOUND;
}

static rp_status try_take_large(rp_log *log, uint32_t group, uint64_t sequence, uint64_t length,
                                const destination *to, rp_wait *wait) {
    rp_hold at;
    rp_frame frame;
    rp_descriptor descriptor;
    rp_status status = begin(log, group, 1, wait, &at);
    if (status != RP_OK) return status;
    if (rp_read_once(rp_frame_at(log, at.read)->sequence) != sequence) return rp_group_unlock(&at, RP_EMPTY);
    status = rp_read_descriptor(log, at.read, &frame, &descriptor);
    if (status != RP_OK) return rp_group_unlock(&at, status);
    if (descriptor.length != length || to->extra_len > length) return rp_group_unlock(&at, RP_CORRUPT);
    status = deliver_large(log, &descriptor, at.read, to);
    if (status == RP_NO_SLOT) return rp_group_unlock(&at, status);
    bool intact = status == RP_OK;
    if (!intact) rp_store_relaxed(&at.group->lost, rp_load_relaxed(&at.group->lost) + 1);
    finish_large(log, &at, descriptor.first, at.read + rp_align(frame.size));
    rp_signal(log, RP_EVENT_SPACE, INT_MAX);
    return intact ? RP_OK : RP_EMPTY;
}

static rp_status take_large(rp_log *log, uint32_t group, uint64_t sequence, uint64_t length,
                            const destination *to, int64_t deadline) {
    rp_wait wait = rp_wait_until(deadline);
    for (;;) {
        rp_status status = try_take_large(log, group, sequence, length, to, &wait);
        if (status != RP_BUSY) return status;
        status = rp_lock_sleep(log, &rp_group_of(log, group)->lock, &wait);
        if (status != RP_OK) return status;
    }
}

rp_status rp_take_large(rp_log *log, uint32_t group, uint64_t sequence, uint64_t length, void *extra,
                        size_t extra_len, void *body, int64_t deadline) {
    destination to = {.extra = extra, .extra_len = extra_len, .body = body};
    return take_large(log, group, sequence, length, &to, deadline);
}

rp_status rp_take_pinned(rp_log *log, uint32_t group, uint64_t sequence, uint64_t length, int64_t deadline,
                         rp_pin *out) {
    destination to = {.pin = out};
    return take_large(log, group, sequence, length, &to, deadline);
}

/* ---- records: small frames that are alike but for a few bytes at their end ------------------------ */

static rp_status try_peek(rp_log *log, uint32_t group, void *buffer, size_t size, rp_wait *wait,
                          rp_taken *out) {
    rp_hold at;
    rp_walk walk;
    *out = (rp_taken){0};
    rp_status status = begin(log, group, 2, wait, &at);
    if (status != RP_OK) return status;
    if (rp_load_relaxed(&at.group->state) == RP_GROUP_LOSSY || at.group->pattern[0])
        return rp_group_unlock(&at, RP_INVALID);
    status = rp_walk_frames(log, at.read, at.tail, size, 1, &walk);
    if (status == RP_LARGE) return announce_large(log, &at, out);
    if (status != RP_OK) return rp_group_unlock(&at, status);
    out->bytes = walk.end - at.read;
    out->count = 1;
    out->length = at.tail - at.read;
    memcpy(buffer, rp_frame_at(log, at.read), out->bytes);
    return rp_group_unlock(&at, rp_check_frames(buffer, out->bytes, 1) ? RP_OK : RP_CORRUPT);
}

rp_status rp_peek(rp_log *log, uint32_t group, void *buffer, size_t size, int64_t deadline, rp_taken *out) {
    rp_wait wait = rp_wait_until(deadline);
    rp_group *at = rp_group_of(log, group);
    if (!at) return RP_INVALID;
    uint32_t event = rp_group_event(log, at);
    for (;;) {
        rp_status status = try_peek(log, group, buffer, size, &wait, out);
        if (status == RP_BUSY) {
            status = rp_lock_sleep(log, &at->lock, &wait);
        } else if (status == RP_EMPTY) {
            rp_lease_bound_sleep(at, &wait);
            status = rp_event_wait(log, event, &wait, more_frames, at);
        } else {
            if (wait.woken) rp_event_leave(log, event, &wait); /* it is still there, for others too */
            return status;
        }
        if (status != RP_OK) {
            rp_event_leave(log, event, &wait);
            return status;
        }
    }
}

/* Is it like `model`, but for sequence, time, and what comes behind the head? Lengths in 16-byte steps. */
static inline bool is_alike(const rp_frame *frame, const rp_frame *model, size_t head) {
    if (memcmp(frame, model, offsetof(rp_frame, sequence)) != 0) return false;
    size_t from = offsetof(rp_frame, headers_len);
    if (memcmp(&frame->headers_len, &model->headers_len, sizeof *model - from) != 0) return false;
    const uint8_t *a = (const uint8_t *)(frame + 1), *b = (const uint8_t *)(model + 1);
    for (size_t i = 0; i < head; i += RP_ALIGN)
        if (memcmp(a + i, b + i, RP_ALIGN) != 0) return false;
    return true;
}

static inline void copy_item(uint8_t *to, const uint8_t *from, size_t size) {
    if (size < RP_ALIGN) {
        memcpy(to, from, size);
        return;
    }
    for (size_t i = 0; i + RP_ALIGN <= size; i += RP_ALIGN) memcpy(to + i, from + i, RP_ALIGN);
    memcpy(to + size - RP_ALIGN, from + size - RP_ALIGN, RP_ALIGN);
}

rp_status rp_try_take_records(rp_log *log, uint32_t group, const rp_frame *model, size_t head, void *items,
                              uint32_t limit, uint32_t *count) {
    rp_hold at;
    *count = 0;
    if (model->size < sizeof *model + head || head % RP_ALIGN || (model->flags & RP_FRAME_LARGE))
        return RP_INVALID;
    size_t size = model->size - sizeof *model - head, span = rp_align(model->size);
    rp_status status = begin(log, group, 2, NULL, &at);
    if (status != RP_OK) return status;
    if (rp_load_relaxed(&at.group->state) == RP_GROUP_LOSSY || at.group->pattern[0])
        return rp_group_unlock(&at, RP_INVALID);
    uint64_t position = at.read;
    uint8_t *to = items;
    for (; *count < limit && at.tail - position >= span; position += span, ++*count, to += size) {
        const rp_frame *frame = rp_frame_at(log, position);
        if (!is_alike(frame, model, head)) break;
        copy_item(to, (const uint8_t *)(frame + 1) + head, size);
    }
    if (*count == 0) return rp_group_unlock(&at, RP_NOT_FOUND);
    finish(log, &at, position, *count);
    rp_signal(log, RP_EVENT_SPACE, INT_MAX);
    return RP_OK;
}
