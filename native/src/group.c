#include "group.h"

#include <limits.h>
#include <string.h>

#include "frames.h"
#include "lease.h"
#include "pool.h"
#include "stored.h"
#include "subject.h"

/* ---- locking -------------------------------------------------------------------------------- */

/* RP_NOT_FOUND for a group that was closed: group 0 never is. */
static rp_status check_open(rp_log *log, const rp_group *group, uint32_t handle, uint32_t *found) {
    uint32_t state = rp_load_acquire(group, &group->state);
    *found = state;
    if (rp_unlikely(state == RP_GROUP_FREE || state > RP_GROUP_STORED)) {
        bool may_be_free = rp_is_broadcast(log) || group != log->groups;
        return state == RP_GROUP_FREE && may_be_free ? RP_NOT_FOUND : RP_CORRUPT;
    }
    uint32_t generation = rp_load_relaxed(&group->generation);
    return rp_likely((generation & (UINT32_MAX >> RP_GROUP_BITS)) == handle >> RP_GROUP_BITS) ? RP_OK
                                                                                              : RP_NOT_FOUND;
}

/* The lock's last holder died, perhaps between two stores of T4 or of lease.h. A closed group is nobody's to repair:
 * its next life may be in the making. */
static void repair(rp_log *log, rp_group *group) {
    uint32_t state = rp_load_acquire(group, &group->state);
    if (state == RP_GROUP_FREE || state == RP_GROUP_LOSSY) return; /* a lossy one has but its marks */
    uint64_t read = rp_load_relaxed(&group->read);
    uint64_t sequence = rp_read_once(rp_frame_at(log, read)->sequence);
    if (rp_is_stored_group(group) && !rp_glance_at_mark(group, &read, &sequence)) return;
    rp_lease_repair(log, group, sequence);
}

static rp_status locked(rp_log *log, uint32_t handle, bool died, rp_hold *hold) {
    if (rp_unlikely(died)) { /* whoever we are: the next one is not told */
        repair(log, hold->group);
        rp_wake_all(log);
    }
    rp_status status = check_open(log, hold->group, handle, &hold->state);
    if (rp_unlikely(status != RP_OK)) return rp_group_unlock(hold, status);
    hold->read = rp_load_relaxed(&hold->group->read);
    return RP_OK;
}

rp_status rp_group_try_lock(rp_log *log, uint32_t group, rp_wait *wait, rp_hold *hold) {
    bool died;
    rp_status status = rp_enter(log);
    if (rp_unlikely(status != RP_OK)) return status;
    hold->group = rp_group_of(log, group);
    if (rp_unlikely(!hold->group)) return RP_INVALID;
    status = rp_lock_try(log, &hold->group->lock, wait, &died);
    return rp_likely(status == RP_OK) ? locked(log, group, died, hold) : status;
}

rp_status rp_group_lock(rp_log *log, uint32_t group, int64_t deadline, rp_hold *hold) {
    rp_wait wait = rp_wait_until(deadline);
    for (;;) {
        rp_status status = rp_group_try_lock(log, group, &wait, hold);
        if (status != RP_BUSY) return status;
        status = rp_lock_sleep(log, &hold->group->lock, &wait);
        if (status != RP_OK) return status;
    }
}

/* Nothing below `seen`: look at the tail, and why there may never be more. */
static rp_status look_again(rp_log *log, rp_hold *hold) {
    uint32_t state = rp_load_acquire(state, &log->head->state);
    /* after the state: nothing is put once it is shut */
    hold->tail = rp_load_acquire(commit, &log->head->tail);
    rp_store_relaxed(&hold->group->seen, hold->tail);
    if (hold->tail != hold->read) return RP_OK;
    if (state & RP_STATE_DELETED) return RP_DELETED;
    if (state & RP_STATE_SHUT) return RP_SHUT_DOWN;
    return rp_is_found_removed(log, rp_wall_clock_ns()) ? RP_DELETED : RP_EMPTY;
}

rp_status rp_group_look(rp_log *log, rp_hold *hold) {
    rp_status status = RP_OK;
    uint32_t state = rp_load_acquire(state, &log->head->state);
    if (rp_unlikely(state & (RP_STATE_DISCARD | RP_STATE_DELETED)))
        return state & RP_STATE_DELETED ? RP_DELETED : RP_SHUT_DOWN;
    hold->tail = rp_load_relaxed(&hold->group->seen);
    if (hold->tail <= hold->read) status = look_again(log, hold); /* below it: read out of storage since */
    if (rp_unlikely(status != RP_OK)) return status;
    if (rp_unlikely(rp_is_stored(log)) && hold->read < hold->tail && rp_is_cold(log, hold->read))
        return RP_COLD;
    return rp_likely(rp_sane_range(log, hold->read, hold->tail)) ? RP_OK : RP_CORRUPT;
}

bool rp_acked_by_others(rp_log *log, const rp_group *group, uint64_t position) {
    for (uint32_t g = 0; g < log->geometry.group_count; g++) {
        const rp_group *other = &log->groups[g];
        if (other == group || rp_load_acquire(group, &other->state) != RP_GROUP_GATING) continue;
        if (rp_load_acquire(release, &other->acked) <= position) return false;
    }
    return true;
}

void rp_group_wake(rp_log *log, const rp_group *group, int count) {
    uint32_t event = rp_group_event(log, group);
    rp_fence_full_after_rmw(arm);
    if (rp_load_relaxed(&log->head->armed[event / 64]) & (UINT64_C(1) << event % 64))
        rp_event_fire(log, event, count);
}

size_t rp_pattern_length(const rp_group *group) { return strnlen(group->pattern, sizeof group->pattern); }

/* ---- on behalf of the dead ------------------------------------------------------------------ */

static bool is_of_the_dead(rp_log *log, const rp_group *group) {
    uint32_t state = rp_load_acquire(group, &group->state), owner = rp_load_relaxed(&group->owner);
    return state != RP_GROUP_FREE && owner != 0 && rp_is_dead(log, owner);
}

/* A group whose process is dead holds nobody back any more. Under the producers' lock, as groups are made: else
 * another one may have its place by now. */
static bool close_if_dead(rp_log *log, rp_group *group) {
    uint32_t state = rp_load_acquire(group, &group->state);
    return is_of_the_dead(log, group) && rp_cas_release(group, &group->state, &state, RP_GROUP_FREE);
}

/* True: it was there; now it is closed, or somebody has the lock. */
static bool close_dead_one(rp_log *log, rp_group *group) {
    bool died;
    if (!is_of_the_dead(log, group)) return false;
    if (rp_lock_try(log, &log->head->lock, NULL, &died) != RP_OK) return true;
    if (died) rp_wake_all(log);
    close_if_dead(log, group); /* else somebody else has closed it */
    rp_lock_release(&log->head->lock);
    return true;
}

/* Who only wants some subjects must not hold producers back for others, also while nobody receives for it. */
static bool pass_over_unwanted(rp_log *log, rp_group *group) {
    bool died, moved = false;
    if (!group->pattern[0] || rp_load_acquire(group, &group->state) != RP_GROUP_GATING) return false;
    if (rp_lock_try(log, &group->lock, NULL, &died) != RP_OK) return false;
    if (died) repair(log, group);
    /* Before anything of it is read: it may have been closed, and another one be on its way into its place. */
    if (rp_load_acquire(group, &group->state) != RP_GROUP_GATING) {
        rp_lock_release(&group->lock);
        return false;
    }
    uint64_t read = rp_load_relaxed(&group->read), position = read;
    uint64_t tail = rp_load_acquire(commit, &log->head->tail);
    size_t length = rp_pattern_length(group);
    if (rp_sane_range(log, read, tail)) {
        uint64_t span;
        while (position != tail && (span = rp_frame_span(log, position, tail)) &&
               !rp_frame_matches(log, position, span, group->pattern, length))
            position += span;
    }
    if (position != read) {
        uint64_t acked = rp_load_relaxed(&group->acked);
        rp_store_relaxed(&group->seen, tail);
        rp_store_release(release, &group->read, position);
        rp_lease_move_acked(log, group);
        moved = rp_load_relaxed(&group->acked) != acked;
    }
    rp_lock_release(&group->lock);
    if (moved) rp_signal(log, RP_EVENT_SPACE, INT_MAX);
    return moved;
}

bool rp_repair_groups(rp_log *log) {
    bool repaired = false;
    for (uint32_t g = 0; g < log->geometry.group_count; g++) {
        rp_group *group = &log->groups[g];
        repaired |= close_dead_one(log, group) || pass_over_unwanted(log, group);
        uint32_t word = rp_load_relaxed(&group->lock);
        if (rp_load_acquire(group, &group->state) == RP_GROUP_FREE) continue;
        if (word == 0 || rp_load_acquire(release, &group->acked) == rp_load_acquire(release, &group->read))
            continue;
        bool died;
        rp_lock_disown(log, &group->lock);
        if (rp_lock_try(log, &group->lock, NULL, &died) != RP_OK) continue;
        died = died && rp_load_acquire(group, &group->state) != RP_GROUP_FREE;
        if (died) repair(log, group);
        rp_lock_release(&group->lock);
        repaired |= died;
    }
    return repaired;
}

/* ---- opening and closing -------------------------------------------------------------------- */

#define PATIENCE INT64_C(1000000000) /* ns, with a consumer that was stopped */

/* Without history what every group is done with is gone, though its bytes may be there still. */
static uint64_t first_kept(rp_log *log) {
    return rp_keeps_history(log) ? rp_load_relaxed(&log->head->oldest) : rp_least_acked(log);
}

/* A new group of a stored queue starts with what its consumers are not done with. */
static bool starts_with_others(const rp_log *log, const rp_group_settings *settings) {
    return rp_is_stored(log) && !rp_is_broadcast(log) && settings->from_start && !settings->placed;
}

static bool look_at_needed(const rp_log *log, const rp_group *queue, uint64_t *position, uint64_t *sequence) {
    uint64_t acked = rp_load_acquire(release, &queue->acked);
    bool found = rp_lease_sequence_at(log, queue, acked, sequence) ||
                 (rp_glance_at_mark(queue, position, sequence) && *position == acked);
    *position = acked;
    return found && rp_load_relaxed(&queue->acked) == acked;
}

/* Where that is; without their lock, unless one of them stands, or died, between two stores. */
static rp_status first_needed(rp_log *log, uint64_t *position, uint64_t *sequence) {
    rp_group *queue = &log->groups[RP_QUEUE_GROUP];
    for (int tries = 0; tries < 1000; tries++)
        if (look_at_needed(log, queue, position, sequence)) return RP_OK;
    bool died;
    rp_status status = rp_lock_wait(log, &queue->lock, rp_monotonic_ns() + PATIENCE, &died);
    if (status != RP_OK) return status;
    if (died) {
        repair(log, queue);
        rp_wake_all(log);
    }
    bool found = look_at_needed(log, queue, position, sequence);
    rp_lock_release(&queue->lock);
    return found ? RP_OK : RP_CORRUPT;
}

static rp_status find_start(rp_log *log, const rp_group_settings *settings, uint64_t *position,
                            uint64_t *sequence) {
    uint64_t tail = rp_load_relaxed(&log->head->tail);
    *position = settings->from_start ? first_kept(log) : tail;
    if (rp_is_stored(log) && settings->from_start && settings->placed) {
        *position = settings->position;
        *sequence = settings->sequence;
        return *position <= tail && *position % RP_ALIGN == 0 ? RP_OK : RP_INVALID;
    }
    if (starts_with_others(log, settings)) return first_needed(log, position, sequence);
    if (rp_is_stored(log) && settings->from_start) *position = rp_load_relaxed(&log->head->durable);
    if (!rp_sane_range(log, *position, tail)) return RP_CORRUPT;
    *sequence = rp_read_once(rp_frame_at(log, *position)->sequence);
    return RP_OK;
}

/* The others, with whom it starts, go on meanwhile. So it was born holding everything back, as one that ends with us,
 * and looks again now: whoever asked what is needed (rp_needed) and did not count it found them no further than we do. */
static rp_status catch_up(rp_log *log, rp_group *made) {
    uint64_t position, sequence;
    rp_fence_full(group);
    rp_status status = first_needed(log, &position, &sequence);
    if (status != RP_OK) {
        rp_store_release(group, &made->state, RP_GROUP_FREE);
        return status;
    }
    rp_mark_next(made, position, sequence);
    rp_store_relaxed(&made->seen, position);
    rp_store_release(release, &made->read, position);
    rp_store_release(release, &made->acked, position);
    rp_keep_order();
    return RP_OK;
}

static rp_status make(rp_log *log, rp_group *made, const char *name, const rp_group_settings *settings) {
    uint64_t start, sequence;
    rp_status status = find_start(log, settings, &start, &sequence);
    if (status != RP_OK) return status;
    uint32_t state = settings->lossy ? RP_GROUP_LOSSY : rp_is_stored(log) ? RP_GROUP_STORED : RP_GROUP_GATING;
    if (made->name[0]) rp_store_relaxed(&made->generation, rp_load_relaxed(&made->generation) + 1);
    memset(made->name, 0, sizeof made->name);
    strncpy(made->name, name, sizeof made->name - 1);
    memset(made->pattern, 0, sizeof made->pattern);
    if (settings->pattern) strncpy(made->pattern, settings->pattern, sizeof made->pattern - 1);
    rp_store_relaxed(&made->policy, settings->policy);
    bool with_others = state == RP_GROUP_STORED && starts_with_others(log, settings);
    rp_store_relaxed(&made->owner, settings->ends_with_us || with_others ? log->me : 0);
    rp_store_relaxed(&made->read, start);
    rp_store_relaxed(&made->acked, with_others ? 0 : start);
    rp_store_relaxed(&made->seen, start);
    rp_store_relaxed(&made->marks[0].position, start);
    rp_store_relaxed(&made->marks[0].sequence, sequence);
    rp_lease_clear(log, made);
    for (rp_u64 *counter = &made->delivered; counter <= &made->lost; counter++) rp_store_relaxed(counter, 0);
    uint64_t limit = rp_load_relaxed(&log->head->limit);
    if (state == RP_GROUP_GATING && start < limit)
        rp_store_relaxed(&log->head->limit, start); /* only with history */
    rp_store_release(group, &made->state, state);
    if (!with_others) return RP_OK;
    status = catch_up(log, made);
    rp_store_relaxed(&made->owner, settings->ends_with_us ? log->me : 0);
    return status;
}

/* Closed, and nobody is inside or died there. */
static bool is_unused(rp_log *log, rp_group *group) {
    bool died;
    if (rp_load_relaxed(&group->state) != RP_GROUP_FREE) return false;
    rp_lock_disown(log, &group->lock);
    if (rp_lock_try(log, &group->lock, NULL, &died) != RP_OK) return false;
    rp_lock_release(&group->lock);
    return true;
}

static bool is_as_wanted(const rp_group *group, const rp_group_settings *settings) {
    bool lossy = rp_load_relaxed(&group->state) == RP_GROUP_LOSSY;
    return lossy == settings->lossy && rp_load_relaxed(&group->policy) == settings->policy &&
           strncmp(group->pattern, settings->pattern ? settings->pattern : "", RP_PATTERN) == 0;
}

/* Under the producers' lock, so that no limit is computed meanwhile. */
static rp_status find_or_make(rp_log *log, const char *name, const rp_group_settings *settings,
                              uint32_t *group, bool *made) {
    rp_group *unused = NULL;
    for (uint32_t g = 1; g < log->geometry.group_count; g++) {
        rp_group *old = &log->groups[g];
        close_if_dead(log, old);
        if (rp_load_acquire(group, &old->state) == RP_GROUP_FREE) {
            if (!unused && is_unused(log, old)) unused = old;
        } else if (strncmp(old->name, name, RP_GROUP_NAME) == 0) {
            *group = rp_group_handle(log, old);
            *made = false;
            return is_as_wanted(old, settings) ? RP_OK : RP_EXISTS;
        }
    }
    if (!unused) return RP_NO_SLOT;
    rp_status status = make(log, unused, name, settings);
    *group = rp_group_handle(log, unused);
    *made = true;
    return status;
}

rp_status rp_group_open(rp_log *log, const char *name, const rp_group_settings *settings, int64_t deadline,
                        uint32_t *group, bool *made) {
    size_t length = strlen(name);
    bool died = false;
    if (length == 0 || length >= RP_GROUP_NAME) return RP_INVALID;
    if (settings->pattern && strlen(settings->pattern) >= RP_PATTERN) return RP_INVALID;
    rp_status status = rp_enter(log);
    if (status == RP_OK) status = rp_lock_wait(log, &log->head->lock, deadline, &died);
    if (status != RP_OK) return status;
    if (died) rp_wake_all(log);
    status = find_or_make(log, name, settings, group, made);
    rp_lock_release(&log->head->lock);
    return status;
}

rp_status rp_group_close(rp_log *log, uint32_t group, int64_t deadline) {
    rp_hold hold;
    if (group == RP_QUEUE_GROUP) return RP_INVALID;
    rp_status status = rp_group_lock(log, group, deadline, &hold);
    if (status != RP_OK) return status;
    rp_store_release(group, &hold.group->state, RP_GROUP_FREE);
    rp_lock_release(&hold.group->lock);
    rp_event_fire(log, RP_EVENT_SPACE, INT_MAX);
    rp_group_wake(log, hold.group, INT_MAX); /* who waits for its frames */
    return RP_OK;
}

void rp_group_abandon(rp_log *log, uint32_t handle) {
    rp_group *group = rp_group_of(log, handle);
    if (!rp_has_joined(log)) return; /* a forked child: the group is its parent's */
    uint32_t state;
    if (!group || group == log->groups || check_open(log, group, handle, &state) != RP_OK) return;
    if (rp_load_relaxed(&group->owner) != log->me) return;
    if (rp_cas_release(group, &group->state, &state, RP_GROUP_FREE))
        rp_event_fire(log, RP_EVENT_SPACE, INT_MAX);
}

/* ---- ranges --------------------------------------------------------------------------------- */

rp_status rp_group_range(rp_log *log, uint32_t handle, uint64_t position, size_t limit, rp_range *out) {
    rp_group *group = rp_group_of(log, handle);
    uint32_t state;
    if (!group) return RP_INVALID;
    rp_status status = check_open(log, group, handle, &state);
    if (status != RP_OK) return status;
    uint64_t read = rp_load_acquire(release, &group->read);
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
    rp_hold hold;
    rp_status status = rp_group_lock(log, group, deadline, &hold);
    if (status != RP_OK) return status;
    uint64_t tail = rp_load_acquire(commit, &log->head->tail);
    bool has_marks = rp_load_relaxed(&hold.group->state) != RP_GROUP_GATING;
    if (position < hold.read || position > tail || position % RP_ALIGN || has_marks)
        return rp_group_unlock(&hold, RP_INVALID); /* a stored one: rp_group_place() */
    rp_store_relaxed(&hold.group->seen, tail);
    rp_store_release(release, &hold.group->read, position);
    rp_lease_move_acked(log, hold.group);
    rp_lock_release(&hold.group->lock);
    rp_signal(log, RP_EVENT_SPACE, INT_MAX);
    return RP_OK;
}

rp_status rp_group_seek(rp_log *log, uint32_t group, uint64_t sequence, uint64_t time_ns, int64_t deadline) {
    rp_hold hold;
    rp_status status = rp_group_lock(log, group, deadline, &hold);
    if (status != RP_OK) return status;
    uint64_t tail = rp_load_acquire(commit, &log->head->tail), position = hold.read;
    if (hold.state == RP_GROUP_LOSSY) return rp_group_unlock(&hold, RP_INVALID);
    if (position != tail && rp_is_cold(log, position)) return rp_group_unlock(&hold, RP_COLD);
    if (!rp_sane_range(log, position, tail)) return rp_group_unlock(&hold, RP_CORRUPT);
    while (position != tail) {
        const rp_frame *frame = rp_frame_at(log, position);
        uint64_t span = rp_frame_span(log, position, tail);
        if (span == 0) return rp_group_unlock(&hold, rp_is_cold(log, hold.read) ? RP_COLD : RP_CORRUPT);
        if (rp_read_once(frame->sequence) >= sequence && rp_read_once(frame->time_ns) >= time_ns) break;
        position += span;
    }
    uint64_t there = rp_read_once(rp_frame_at(log, position)->sequence);
    if (rp_is_cold(log, hold.read)) return rp_group_unlock(&hold, RP_COLD);
    if (rp_is_stored_group(hold.group)) rp_mark_next(hold.group, position, there);
    rp_store_relaxed(&hold.group->seen, tail);
    rp_store_release(release, &hold.group->read, position);
    rp_lease_move_acked(log, hold.group);
    rp_lock_release(&hold.group->lock);
    rp_signal(log, RP_EVENT_SPACE, INT_MAX);
    return RP_OK;
}

rp_status rp_group_set_pattern(rp_log *log, uint32_t group, const char *pattern, int64_t deadline) {
    rp_hold hold;
    if (strlen(pattern) >= RP_PATTERN) return RP_INVALID;
    rp_status status = rp_group_lock(log, group, deadline, &hold);
    if (status != RP_OK) return status;
    char *to = hold.group->pattern;
    rp_write_once(to[0],
                  0); /* meanwhile it wants everything: who dies here leaves too much, never too little */
    rp_keep_order();
    if (pattern[0]) {
        memset(to + 1, 0, RP_PATTERN - 1);
        memcpy(to + 1, pattern + 1, strlen(pattern + 1));
        rp_keep_order();
        rp_write_once(to[0], pattern[0]);
    }
    return rp_group_unlock(&hold, RP_OK);
}
