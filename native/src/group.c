#include "group.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "pool.h"

/* ---- reading frames ------------------------------------------------------------------------- */

rp_status rp_walk_frames(const rp_log *log, uint64_t from, uint64_t tail, uint64_t size, uint32_t limit,
                         rp_walk *out) {
    *out = (rp_walk){.end = from};
    while (out->count < limit && out->end != tail) {
        uint64_t span = rp_frame_span(log, out->end, tail);
        if (rp_unlikely(span == 0)) return RP_CORRUPT;
        if (rp_unlikely(rp_read_once(rp_frame_at(log, out->end)->flags) & RP_FRAME_LARGE))
            return out->count ? RP_OK : RP_LARGE;
        if (out->end - from + span > size) {
            out->need = span;
            return out->count ? RP_OK : RP_TOO_SMALL;
        }
        out->end += span;
        out->count++;
    }
    return RP_OK;
}

bool rp_check_frames(const void *frames, uint64_t bytes, uint32_t count) {
    uint64_t offset = 0;
    for (uint32_t i = 0; i < count; i++) {
        const rp_frame *frame = (const rp_frame *)((const uint8_t *)frames + offset);
        if (bytes - offset < sizeof *frame || frame->size < sizeof *frame) return false;
        uint64_t span = rp_align(frame->size);
        if (span > bytes - offset || (frame->flags & RP_FRAME_LARGE)) return false;
        if ((uint64_t)frame->subject_len + frame->headers_len > frame->size - sizeof *frame) return false;
        offset += span;
    }
    return offset == bytes;
}

rp_status rp_read_descriptor(const rp_log *log, uint64_t position, rp_frame *frame,
                             rp_descriptor *descriptor) {
    memcpy(frame, rp_frame_at(log, position), sizeof *frame);
    memcpy(descriptor, rp_frame_at(log, position) + 1, sizeof *descriptor);
    bool sane = frame->size == sizeof *frame + sizeof *descriptor && (frame->flags & RP_FRAME_LARGE) &&
                rp_pool_holds(log, descriptor) &&
                (uint64_t)frame->subject_len + frame->headers_len <= descriptor->length;
    return sane ? RP_OK : RP_CORRUPT;
}

/* ---- taking --------------------------------------------------------------------------------- */

typedef struct taking {
    rp_group *group;
    uint64_t read, tail;
} taking;

static rp_status give_back(taking *at, rp_status status) {
    rp_lock_release(&at->group->lock);
    return status;
}

void rp_release_taken(rp_group *group) {
    rp_store_release(release, &group->acked, rp_load_relaxed(&group->read));
}

/* Nothing below `seen`: look at the tail, and why there may never be more. */
static rp_status look_again(rp_log *log, taking *at) {
    uint32_t state = rp_load_acquire(state, &log->head->state);
    at->tail =
        rp_load_acquire(commit, &log->head->tail); /* after the state: nothing is put once it is shut */
    rp_store_relaxed(&at->group->seen, at->tail);
    if (at->tail != at->read) return RP_OK;
    if (state & RP_STATE_DELETED) return RP_DELETED;
    return state & RP_STATE_SHUT ? RP_SHUT_DOWN : RP_EMPTY;
}

/* RP_INVALID for a group that was closed: group 0 never is. */
static rp_status check_open(rp_log *log, const rp_group *group) {
    uint32_t state = rp_load_acquire(group, &group->state);
    if (rp_likely(state == RP_GROUP_GATING)) return RP_OK;
    return state == RP_GROUP_FREE && group != &log->groups[RP_QUEUE_GROUP] ? RP_INVALID : RP_CORRUPT;
}

/* T1. With RP_OK the lock is held and there is a frame at `read`. */
static rp_status begin(rp_log *log, uint32_t group, rp_wait *wait, taking *at) {
    bool died;
    rp_status status = rp_enter(log);
    if (rp_unlikely(status != RP_OK)) return status;
    if (rp_unlikely(group >= log->geometry.group_count)) return RP_INVALID;
    at->group = &log->groups[group];
    status = rp_lock_try(log, &at->group->lock, wait, &died);
    if (rp_unlikely(status != RP_OK)) return status;
    status = check_open(log, at->group);
    if (rp_unlikely(status != RP_OK)) return give_back(at, status);
    at->read = rp_load_relaxed(&at->group->read);
    if (rp_unlikely(died)) {
        rp_release_taken(at->group);
        rp_wake_all(log);
    }
    uint32_t state = rp_load_acquire(state, &log->head->state);
    if (rp_unlikely(state & (RP_STATE_DISCARD | RP_STATE_DELETED)))
        return give_back(at, state & RP_STATE_DELETED ? RP_DELETED : RP_SHUT_DOWN);
    at->tail = rp_load_relaxed(&at->group->seen);
    if (at->tail == at->read) status = look_again(log, at);
    if (rp_unlikely(status != RP_OK)) return give_back(at, status);
    if (rp_unlikely(!rp_sane_range(log, at->read, at->tail))) return give_back(at, RP_CORRUPT);
    return RP_OK;
}

/* T4 and T5. */
static void finish(taking *at, uint64_t end) {
    rp_store_release(release, &at->group->read, end);
    rp_store_release(release, &at->group->acked, end);
    rp_lock_release(&at->group->lock);
}

static bool acked_by_others(rp_log *log, const rp_group *group, uint64_t position) {
    for (uint32_t g = 0; g < log->geometry.group_count; g++) {
        const rp_group *other = &log->groups[g];
        if (other == group || rp_load_acquire(group, &other->state) != RP_GROUP_GATING) continue;
        if (rp_load_acquire(release, &other->acked) <= position) return false;
    }
    return true;
}

/* T4 and T5 with a run of the pool. It is freed between the two stores: while our `acked` has not passed it,
 * nobody can reclaim it and lend it again behind our back. Other groups still want it: reclaim will find it. */
static void finish_large(rp_log *log, taking *at, uint32_t first, uint64_t end) {
    rp_store_release(release, &at->group->read, end);
    if (!rp_keeps_history(log) && acked_by_others(log, at->group, at->read))
        rp_pool_release(log, first, at->read);
    rp_store_release(release, &at->group->acked, end);
    rp_lock_release(&at->group->lock);
}

bool rp_repair_groups(rp_log *log) {
    bool repaired = false;
    for (uint32_t g = 0; g < log->geometry.group_count; g++) {
        rp_group *group = &log->groups[g];
        uint32_t word = rp_load_relaxed(&group->lock);
        if (word == 0 || rp_load_acquire(release, &group->acked) == rp_load_acquire(release, &group->read))
            continue;
        bool died;
        rp_lock_disown(log, &group->lock);
        if (rp_lock_try(log, &group->lock, NULL, &died) != RP_OK) continue;
        if (died) rp_release_taken(group);
        rp_lock_release(&group->lock);
        repaired |= died;
    }
    return repaired;
}

static rp_status announce_large(rp_log *log, taking *at, rp_taken *out) {
    rp_descriptor descriptor;
    rp_status status = rp_read_descriptor(log, at->read, &out->frame, &descriptor);
    out->length = descriptor.length;
    return give_back(at, status == RP_OK ? RP_LARGE : status);
}

static rp_status try_take(rp_log *log, uint32_t group, void *buffer, size_t size, uint32_t limit,
                          rp_wait *wait, rp_taken *out) {
    taking at;
    out->count = 0;
    out->bytes = 0;
    rp_status status = begin(log, group, wait, &at);
    if (status != RP_OK) return status;
    rp_walk walk;
    status = rp_walk_frames(log, at.read, at.tail, size, limit, &walk);
    if (rp_unlikely(status == RP_LARGE)) return announce_large(log, &at, out);
    if (rp_unlikely(status != RP_OK)) {
        out->need = walk.need;
        return give_back(&at, status);
    }
    uint64_t bytes = walk.end - at.read;
    memcpy(buffer, rp_frame_at(log, at.read), bytes);
    if (rp_unlikely(!rp_check_frames(buffer, bytes, walk.count))) return give_back(&at, RP_CORRUPT);
    finish(&at, walk.end);
    rp_signal(log, RP_EVENT_SPACE, INT_MAX);
    out->count = walk.count;
    out->bytes = bytes;
    return RP_OK;
}

rp_status rp_try_take(rp_log *log, uint32_t group, void *buffer, size_t size, uint32_t limit, rp_taken *out) {
    return try_take(log, group, buffer, size, limit, NULL, out);
}

static bool more_frames(rp_log *log, const void *group) {
    return rp_load_relaxed(&log->head->tail) != rp_load_relaxed(&((const rp_group *)group)->read);
}

bool rp_glance(rp_log *log, uint32_t group, uint32_t spins) {
    for (uint32_t i = 0; i < spins; i++) {
        if (more_frames(log, &log->groups[group])) return true;
        rp_pause();
    }
    return false;
}

rp_status rp_take(rp_log *log, uint32_t group, void *buffer, size_t size, uint32_t limit, int64_t deadline,
                  rp_taken *out) {
    rp_wait wait = rp_wait_until(deadline);
    uint32_t event = RP_LOG_EVENTS + group;
    for (;;) {
        rp_status status = try_take(log, group, buffer, size, limit, &wait, out);
        if (status == RP_BUSY)
            status = rp_lock_sleep(log, &log->groups[group].lock, &wait);
        else if (status == RP_EMPTY)
            status = rp_event_wait(log, event, &wait, more_frames, &log->groups[group]);
        else {
            /* asked after arming again: frames put before that woke nobody, later ones see the bit */
            if (wait.woken && more_frames(log, &log->groups[group])) rp_event_leave(log, event, &wait);
            return status;
        }
        if (status != RP_OK) {
            rp_event_leave(log, event, &wait);
            return status;
        }
    }
}

static rp_status try_take_large(rp_log *log, uint32_t group, uint64_t sequence, uint64_t length, void *extra,
                                size_t extra_len, void *body, rp_wait *wait) {
    taking at;
    rp_frame frame;
    rp_descriptor descriptor;
    rp_status status = begin(log, group, wait, &at);
    if (status != RP_OK) return status;
    if (rp_read_once(rp_frame_at(log, at.read)->sequence) != sequence) return give_back(&at, RP_EMPTY);
    status = rp_read_descriptor(log, at.read, &frame, &descriptor);
    if (status != RP_OK) return give_back(&at, status);
    if (descriptor.length != length || extra_len > length) return give_back(&at, RP_CORRUPT);
    const uint8_t *data = log->pool + (uint64_t)descriptor.first * RP_GRANULE;
    if (extra_len) memcpy(extra, data, extra_len);
    if (length > extra_len) memcpy(body, data + extra_len, length - extra_len);
    finish_large(log, &at, descriptor.first, at.read + rp_align(frame.size));
    rp_signal(log, RP_EVENT_SPACE, INT_MAX);
    return RP_OK;
}

rp_status rp_take_large(rp_log *log, uint32_t group, uint64_t sequence, uint64_t length, void *extra,
                        size_t extra_len, void *body, int64_t deadline) {
    rp_wait wait = rp_wait_until(deadline);
    for (;;) {
        rp_status status = try_take_large(log, group, sequence, length, extra, extra_len, body, &wait);
        if (status != RP_BUSY) return status;
        status = rp_lock_sleep(log, &log->groups[group].lock, &wait);
        if (status != RP_OK) return status;
    }
}

/* ---- opening, ranges ------------------------------------------------------------------------ */

/* Without history what every group is done with is gone, though its bytes may be there still. */
static uint64_t first_kept(rp_log *log) {
    return rp_keeps_history(log) ? rp_load_relaxed(&log->head->oldest) : rp_least_acked(log);
}

/* Under the producers' lock, so that no limit is computed meanwhile. */
static rp_status find_or_make(rp_log *log, const char *name, bool from_start, uint32_t *group) {
    uint32_t unused = UINT32_MAX;
    for (uint32_t g = 1; g < log->geometry.group_count; g++) {
        uint32_t state = rp_load_acquire(group, &log->groups[g].state);
        if (state == RP_GROUP_FREE && unused == UINT32_MAX) unused = g;
        if (state == RP_GROUP_GATING && strncmp(log->groups[g].name, name, RP_GROUP_NAME) == 0) {
            *group = g;
            return RP_OK;
        }
    }
    if (unused == UINT32_MAX) return RP_NO_SLOT;
    rp_group *made = &log->groups[unused];
    uint64_t tail = rp_load_relaxed(&log->head->tail);
    uint64_t start = from_start ? first_kept(log) : tail;
    if (!rp_sane_range(log, start, tail)) return RP_CORRUPT;
    memset(made->name, 0, sizeof made->name);
    strncpy(made->name, name, sizeof made->name - 1);
    rp_store_relaxed(&made->read, start);
    rp_store_relaxed(&made->acked, start);
    rp_store_relaxed(&made->seen, start);
    uint64_t limit = rp_load_relaxed(&log->head->limit);
    if (start < limit) rp_store_relaxed(&log->head->limit, start); /* only with history */
    rp_store_release(group, &made->state, RP_GROUP_GATING);
    *group = unused;
    return RP_OK;
}

/* The producers' lock, for what is rare. */
static rp_status lock_producers(rp_log *log, int64_t deadline) {
    bool died = false;
    rp_status status = rp_enter(log);
    if (status == RP_OK) status = rp_lock_wait(log, &log->head->lock, deadline, &died);
    if (status == RP_OK && died) rp_wake_all(log);
    return status;
}

rp_status rp_group_open(rp_log *log, const char *name, bool from_start, int64_t deadline, uint32_t *group) {
    size_t length = strlen(name);
    if (length == 0 || length >= RP_GROUP_NAME) return RP_INVALID;
    rp_status status = lock_producers(log, deadline);
    if (status != RP_OK) return status;
    status = find_or_make(log, name, from_start, group);
    rp_lock_release(&log->head->lock);
    return status;
}

/* Lock a group, whatever there is to take: for what is rare. */
static rp_status lock_group(rp_log *log, uint32_t group, int64_t deadline, taking *at) {
    bool died = false;
    if (group >= log->geometry.group_count) return RP_INVALID;
    at->group = &log->groups[group];
    rp_status status = rp_enter(log);
    if (status == RP_OK) status = rp_lock_wait(log, &at->group->lock, deadline, &died);
    if (status != RP_OK) return status;
    if (died) rp_release_taken(at->group);
    at->read = rp_load_relaxed(&at->group->read);
    at->tail = rp_load_acquire(commit, &log->head->tail);
    status = check_open(log, at->group);
    return status == RP_OK ? RP_OK : give_back(at, status);
}

rp_status rp_group_close(rp_log *log, uint32_t group, int64_t deadline) {
    taking at;
    if (group == RP_QUEUE_GROUP) return RP_INVALID;
    rp_status status = lock_group(log, group, deadline, &at);
    if (status != RP_OK) return status;
    rp_store_release(group, &at.group->state, RP_GROUP_FREE);
    rp_lock_release(&at.group->lock);
    rp_event_fire(log, RP_EVENT_SPACE, INT_MAX);
    return RP_OK;
}

rp_status rp_group_range(rp_log *log, uint32_t group, uint64_t position, size_t limit, rp_range *out) {
    if (group >= log->geometry.group_count) return RP_INVALID;
    rp_status status = check_open(log, &log->groups[group]);
    if (status != RP_OK) return status;
    uint64_t read = rp_load_acquire(release, &log->groups[group].read);
    uint64_t tail = rp_load_acquire(commit, &log->head->tail);
    if (position == UINT64_MAX) position = read;
    if (!rp_sane_range(log, read, tail)) return RP_CORRUPT;
    if (position < read || position > tail || position % RP_ALIGN) return RP_INVALID;
    uint64_t end = position, count = 0;
    while (end != tail) {
        uint64_t span = rp_frame_span(log, end, tail);
        if (span == 0) return RP_CORRUPT;
        if (end + span - position > limit) break;
        end += span;
        count++;
    }
    *out = (rp_range){.data = rp_frame_at(log, position),
                      .position = position,
                      .end = end,
                      .count = count,
                      .sequence = rp_read_once(rp_frame_at(log, position)->sequence)};
    return position == tail ? RP_EMPTY : count ? RP_OK : RP_TOO_SMALL;
}

rp_status rp_group_advance(rp_log *log, uint32_t group, uint64_t position, int64_t deadline) {
    taking at;
    rp_status status = lock_group(log, group, deadline, &at);
    if (status != RP_OK) return status;
    if (position < at.read || position > at.tail || position % RP_ALIGN) return give_back(&at, RP_INVALID);
    rp_store_relaxed(&at.group->seen, at.tail);
    finish(&at, position);
    rp_signal(log, RP_EVENT_SPACE, INT_MAX);
    return RP_OK;
}
