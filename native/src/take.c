/* Taking frames from a group, at most once; the protocol is in group.h. */
#include <limits.h>
#include <string.h>

#include "frames.h"
#include "group.h"
#include "lease.h"
#include "pin.h"
#include "pool.h"
#include "stored.h"
#include "subject.h"

/* The same where the frames come out of storage. RP_EMPTY: not from there. */
static rp_status begin_in_view(rp_log *log, const rp_view *view, rp_hold *hold) {
    uint32_t state = rp_load_acquire(state, &log->head->state);
    if (state & (RP_STATE_DISCARD | RP_STATE_DELETED))
        return rp_group_unlock(hold, state & RP_STATE_DELETED ? RP_DELETED : RP_SHUT_DOWN);
    if (!rp_is_in_view(view, hold->read)) return rp_group_unlock(hold, RP_EMPTY);
    if (!rp_is_sane_in_view(view, hold->read)) return rp_group_unlock(hold, RP_CORRUPT);
    hold->tail = view->end;
    return RP_OK;
}

/* T1. With RP_OK the lock is held and there is a frame at `read`. */
static rp_status begin(rp_log *log, uint32_t group, uint32_t limit, const rp_view *view, rp_wait *wait,
                       rp_hold *hold) {
    rp_status status = rp_group_try_lock(log, group, wait, hold);
    if (rp_unlikely(status != RP_OK)) return status;
    if (rp_unlikely(rp_load_relaxed(&hold->group->lease_top) != 0) && rp_lease_is_due(log, hold))
        return rp_group_unlock(hold, RP_RETURNED_FIRST);
    if (rp_unlikely(hold->state == RP_GROUP_LOSSY)) {
        hold->tail = hold->read; /* asks for itself */
        return RP_OK;
    }
    if (rp_unlikely(view != NULL)) return begin_in_view(log, view, hold);
    if (limit > 1) rp_store_relaxed(&hold->group->seen, hold->read); /* a batch is all that is there */
    status = rp_group_look(log, hold);
    return rp_likely(status == RP_OK) ? RP_OK : rp_group_unlock(hold, status);
}

static void count_delivered(rp_group *group, uint64_t count) {
    rp_store_relaxed(&group->delivered, rp_load_relaxed(&group->delivered) + count);
}

/* A stored group's mark, before T4. `count` frames lie between `read` and `end`. */
static void mark_end(rp_hold *hold, uint64_t end, uint64_t count) {
    uint64_t read, sequence;
    if (rp_likely(!rp_is_stored_group(hold->group))) return;
    if (rp_glance_at_mark(hold->group, &read, &sequence)) rp_mark_next(hold->group, end, sequence + count);
}

/* T4 and T5: `count` of the `passed` frames before `end` were delivered. */
static void finish(rp_log *log, rp_hold *hold, uint64_t end, uint32_t count, uint64_t passed) {
    count_delivered(hold->group, count);
    mark_end(hold, end, passed);
    rp_store_release(release, &hold->group->read, end);
    rp_lease_move_acked(log, hold->group);
    rp_lock_release(&hold->group->lock);
}

/* T4 and T5 with a run of the pool. It is freed between the two stores: while our `acked` has not passed it,
 * nobody can reclaim it and lend it again behind our back. Other groups still want it: reclaim will find it. */
static void finish_large(rp_log *log, rp_hold *hold, uint32_t first, uint64_t end) {
    count_delivered(hold->group, 1);
    mark_end(hold, end, 1);
    rp_store_release(release, &hold->group->read, end);
    if (!rp_keeps_history(log) && rp_acked_by_others(log, hold->group, hold->read))
        rp_pool_release(log, first, hold->read);
    rp_lease_move_acked(log, hold->group);
    rp_lock_release(&hold->group->lock);
}

/* Where the frames lie: in the ring, or in the view. */
static const rp_log *frames_of(const rp_log *log, const rp_view *view) { return view ? &view->log : log; }

/* The ring has lost what was copied: who wants it must look in storage. */
static bool lost_to_ring(const rp_log *log, const rp_view *view, const rp_hold *at, rp_taken *out) {
    if (rp_likely(view || !rp_is_cold(log, at->read))) return false;
    out->cold = at->read;
    out->count = 0;
    out->bytes = 0;
    return true;
}

static rp_status announce_large(rp_log *log, const rp_view *view, rp_hold *at, rp_taken *out) {
    rp_descriptor descriptor;
    rp_status status = rp_read_descriptor(frames_of(log, view), at->read, &out->frame, &descriptor);
    out->length = descriptor.length;
    if (lost_to_ring(log, view, at, out)) return rp_group_unlock(at, RP_COLD);
    return rp_group_unlock(at, status == RP_OK ? RP_LARGE : status);
}

/* T2 to T5 for a run of small frames, in one piece. */
static rp_status take_run(rp_log *log, const rp_view *view, rp_hold *at, void *buffer, size_t size,
                          uint32_t limit, rp_taken *out) {
    rp_walk walk;
    const rp_log *frames = frames_of(log, view);
    rp_status status = rp_walk_frames(frames, at->read, at->tail, size, limit, &walk);
    if (rp_unlikely(status == RP_LARGE)) return announce_large(log, view, at, out);
    uint64_t bytes = walk.end - at->read;
    if (rp_likely(status == RP_OK)) memcpy(buffer, rp_frame_at(frames, at->read), bytes);
    if (rp_unlikely(lost_to_ring(log, view, at, out))) return rp_group_unlock(at, RP_COLD);
    if (rp_unlikely(status != RP_OK)) {
        out->need = walk.need;
        return rp_group_unlock(at, status);
    }
    if (rp_unlikely(!rp_check_frames(buffer, bytes, walk.count))) return rp_group_unlock(at, RP_CORRUPT);
    finish(log, at, walk.end, walk.count, walk.count);
    out->count = walk.count;
    out->bytes = bytes;
    return RP_OK;
}

/* The same for a group with a pattern: frame by frame. What does not match is passed over. */
static rp_status take_matching(rp_log *log, const rp_view *view, rp_hold *at, void *buffer, size_t size,
                               uint32_t limit, rp_taken *out) {
    uint64_t position = at->read, passed = 0;
    const rp_log *frames = frames_of(log, view);
    size_t pattern_length = rp_pattern_length(at->group);
    rp_status status = RP_OK;
    while (position != at->tail && out->count < limit) {
        uint64_t span = rp_frame_span(frames, position, at->tail);
        if (span == 0) {
            status = RP_CORRUPT;
            break;
        }
        if (rp_frame_matches(frames, position, span, at->group->pattern, pattern_length)) {
            rp_walk walk;
            status = rp_walk_frames(frames, position, at->tail, size - out->bytes, 1, &walk);
            out->need = walk.need;
            if (status != RP_OK) break;
            void *copy = (uint8_t *)buffer + out->bytes;
            span = walk.end - position; /* as it was checked: somebody may write to it */
            memcpy(copy, rp_frame_at(frames, position), span);
            if (!rp_check_frames(copy, span, 1)) {
                status = RP_CORRUPT;
                break;
            }
            out->bytes += span;
            out->count++;
        }
        position += span;
        passed++;
    }
    if (lost_to_ring(log, view, at, out)) return rp_group_unlock(at, RP_COLD);
    if (status == RP_CORRUPT) return rp_group_unlock(at, RP_CORRUPT);
    if (out->count == 0 && status == RP_LARGE) {
        mark_end(at, position, passed);
        rp_store_release(release, &at->group->read, position);
        rp_lease_move_acked(log, at->group);
        at->read = position;
        return announce_large(log, view, at, out);
    }
    finish(log, at, position, out->count, passed);
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
    rp_cursor cursor = {.lost = 0};
    uint32_t state =
        rp_load_acquire(state, &log->head->state); /* before the tail: nothing is put once it is shut */
    rp_status status;
    if (!rp_glance_at_mark(group, &cursor.position, &cursor.sequence)) return rp_group_unlock(at, RP_CORRUPT);
    do {
        status = rp_cursor_read(log, &cursor, buffer, size, limit, out);
        if (status == RP_OK && group->pattern[0]) sift(group, buffer, out);
    } while (status == RP_OK && out->count == 0 && cursor.position - at->read < log->geometry.ring_size);
    if (status == RP_OK && out->count == 0)
        status = RP_EMPTY; /* nothing that was there is wanted; let others in */
    out->lost = cursor.lost;
    count_delivered(group, out->count);
    rp_store_relaxed(&group->lost, rp_load_relaxed(&group->lost) + cursor.lost);
    rp_mark_next(group, cursor.position, cursor.sequence);
    rp_store_release(release, &group->read, cursor.position);
    rp_store_release(release, &group->acked, cursor.position);
    rp_store_relaxed(&group->seen, cursor.position);
    if (status == RP_EMPTY && (state & RP_STATE_DELETED)) status = RP_DELETED;
    if (status == RP_EMPTY && (state & RP_STATE_SHUT)) status = RP_SHUT_DOWN;
    return rp_group_unlock(at, status);
}

static rp_status try_take(rp_log *log, uint32_t group, const rp_view *view, void *buffer, size_t size,
                          uint32_t limit, rp_wait *wait, rp_taken *out) {
    rp_hold at;
    *out = (rp_taken){0};
    rp_status status = begin(log, group, limit, view, wait, &at);
    if (rp_unlikely(status == RP_COLD)) out->cold = at.read;
    if (status != RP_OK) return status;
    if (rp_unlikely(at.state == RP_GROUP_LOSSY)) return take_lossy(log, &at, buffer, size, limit, out);
    status = rp_unlikely(at.group->pattern[0]) ? take_matching(log, view, &at, buffer, size, limit, out)
                                               : take_run(log, view, &at, buffer, size, limit, out);
    bool may_have_passed = at.group->pattern[0]; /* whatever it came to then */
    if (status == RP_OK || status == RP_EMPTY || rp_unlikely(may_have_passed))
        rp_signal(log, RP_EVENT_SPACE, INT_MAX);
    return status;
}

rp_status rp_try_take(rp_log *log, uint32_t group, void *buffer, size_t size, uint32_t limit, rp_taken *out) {
    return try_take(log, group, NULL, buffer, size, limit, NULL, out);
}

rp_status rp_take_cold(rp_log *log, uint32_t group, const rp_range *frames, void *buffer, size_t size,
                       uint32_t limit, rp_taken *out) {
    rp_view view;
    rp_view_of(log, frames, &view);
    return try_take(log, group, &view, buffer, size, limit, NULL, out);
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
        rp_status status = try_take(log, group, NULL, buffer, size, limit, &wait, out);
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
    rp_status status = begin(log, group, 1, NULL, wait, &at);
    if (status != RP_OK) return status;
    if (at.state == RP_GROUP_LOSSY) return rp_group_unlock(&at, RP_INVALID); /* it gets them whole */
    if (rp_read_once(rp_frame_at(log, at.read)->sequence) != sequence) return rp_group_unlock(&at, RP_EMPTY);
    status = rp_read_descriptor(log, at.read, &frame, &descriptor);
    if (rp_is_cold(log, at.read)) return rp_group_unlock(&at, RP_COLD);
    if (status != RP_OK) return rp_group_unlock(&at, status);
    if (descriptor.length != length || to->extra_len > length) return rp_group_unlock(&at, RP_CORRUPT);
    status = deliver_large(log, &descriptor, at.read, to);
    if (status == RP_NO_SLOT) return rp_group_unlock(&at, status);
    bool intact = status == RP_OK;
    if (!intact && rp_is_stored_group(at.group)) return rp_group_unlock(&at, RP_COLD);
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

static rp_status try_skip_large(rp_log *log, uint32_t group, uint64_t sequence, const rp_view *view,
                                rp_wait *wait) {
    rp_hold at;
    uint64_t read, next;
    rp_status status = begin(log, group, 1, view, wait, &at);
    if (status != RP_OK) return status;
    if (at.state == RP_GROUP_LOSSY) return rp_group_unlock(&at, RP_INVALID);
    if (!rp_glance_at_mark(at.group, &read, &next)) return rp_group_unlock(&at, RP_CORRUPT);
    if (next != sequence) return rp_group_unlock(&at, RP_EMPTY);
    uint64_t span = rp_frame_span(frames_of(log, view), at.read, at.tail);
    if (!view && rp_is_cold(log, at.read)) return rp_group_unlock(&at, RP_COLD);
    if (span == 0) return rp_group_unlock(&at, RP_CORRUPT);
    finish(log, &at, at.read + span, 1, 1);
    rp_signal(log, RP_EVENT_SPACE, INT_MAX);
    return RP_OK;
}

rp_status rp_skip_large(rp_log *log, uint32_t group, uint64_t sequence, const rp_range *frames,
                        int64_t deadline) {
    rp_wait wait = rp_wait_until(deadline);
    rp_view view;
    if (frames) rp_view_of(log, frames, &view);
    for (;;) {
        rp_status status = try_skip_large(log, group, sequence, frames ? &view : NULL, &wait);
        if (status != RP_BUSY) return status;
        status = rp_lock_sleep(log, &rp_group_of(log, group)->lock, &wait);
        if (status != RP_OK) return status;
    }
}

/* ---- records: small frames that are alike but for a few bytes at their end ------------------------ */

static rp_status try_peek(rp_log *log, uint32_t group, const rp_view *view, void *buffer, size_t size,
                          rp_wait *wait, rp_taken *out) {
    rp_hold at;
    rp_walk walk;
    *out = (rp_taken){0};
    rp_status status = begin(log, group, 2, view, wait, &at);
    if (status == RP_COLD) out->cold = at.read;
    if (status != RP_OK) return status;
    if (at.state == RP_GROUP_LOSSY || at.group->pattern[0]) return rp_group_unlock(&at, RP_INVALID);
    const rp_log *frames = frames_of(log, view);
    status = rp_walk_frames(frames, at.read, at.tail, size, 1, &walk);
    if (status == RP_LARGE) return announce_large(log, view, &at, out);
    uint64_t bytes = walk.end - at.read;
    if (status == RP_OK) memcpy(buffer, rp_frame_at(frames, at.read), bytes);
    if (lost_to_ring(log, view, &at, out)) return rp_group_unlock(&at, RP_COLD);
    if (status != RP_OK) return rp_group_unlock(&at, status);
    out->bytes = bytes;
    out->count = 1;
    out->length = at.tail - at.read;
    return rp_group_unlock(&at, rp_check_frames(buffer, bytes, 1) ? RP_OK : RP_CORRUPT);
}

rp_status rp_peek_cold(rp_log *log, uint32_t group, const rp_range *frames, void *buffer, size_t size,
                       rp_taken *out) {
    rp_view view;
    rp_view_of(log, frames, &view);
    return try_peek(log, group, &view, buffer, size, NULL, out);
}

rp_status rp_peek(rp_log *log, uint32_t group, void *buffer, size_t size, int64_t deadline, rp_taken *out) {
    rp_wait wait = rp_wait_until(deadline);
    rp_group *at = rp_group_of(log, group);
    if (!at) return RP_INVALID;
    uint32_t event = rp_group_event(log, at);
    for (;;) {
        rp_status status = try_peek(log, group, NULL, buffer, size, &wait, out);
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

static rp_status try_take_records(rp_log *log, uint32_t group, const rp_view *view, const rp_frame *model,
                                  size_t head, void *items, uint32_t limit, rp_taken *out) {
    rp_hold at;
    *out = (rp_taken){0};
    if (model->size < sizeof *model + head || head % RP_ALIGN || (model->flags & RP_FRAME_LARGE))
        return RP_INVALID;
    size_t size = model->size - sizeof *model - head, span = rp_align(model->size);
    rp_status status = begin(log, group, 2, view, NULL, &at);
    if (status == RP_COLD) out->cold = at.read;
    if (status != RP_OK) return status;
    if (at.state == RP_GROUP_LOSSY || at.group->pattern[0]) return rp_group_unlock(&at, RP_INVALID);
    const rp_log *frames = frames_of(log, view);
    uint64_t position = at.read;
    uint8_t *to = items;
    uint32_t count = 0;
    for (; count < limit && at.tail - position >= span; position += span, count++, to += size) {
        const rp_frame *frame = rp_frame_at(frames, position);
        if (!is_alike(frame, model, head)) break;
        copy_item(to, (const uint8_t *)(frame + 1) + head, size);
    }
    if (lost_to_ring(log, view, &at, out)) return rp_group_unlock(&at, RP_COLD);
    if (count == 0) return rp_group_unlock(&at, RP_NOT_FOUND);
    finish(log, &at, position, count, count);
    rp_signal(log, RP_EVENT_SPACE, INT_MAX);
    out->count = count;
    return RP_OK;
}

rp_status rp_try_take_records(rp_log *log, uint32_t group, const rp_frame *model, size_t head, void *items,
                              uint32_t limit, rp_taken *out) {
    return try_take_records(log, group, NULL, model, head, items, limit, out);
}

rp_status rp_take_records_cold(rp_log *log, uint32_t group, const rp_range *frames, const rp_frame *model,
                               size_t head, void *items, uint32_t limit, rp_taken *out) {
    rp_view view;
    rp_view_of(log, frames, &view);
    return try_take_records(log, group, &view, model, head, items, limit, out);
}
