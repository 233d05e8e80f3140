#include "stored.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "frames.h"
#include "lease.h"
#include "pool.h"

/* ---- looking -------------------------------------------------------------------------------- */

void rp_view_of(const rp_log *log, const rp_range *frames, rp_view *out) {
    memset(out, 0, sizeof *out);
    out->log.geometry = log->geometry;
    out->log.geometry.ring_size = UINT64_MAX / 2;       /* any distance is sane */
    out->log.geometry.chunk_count = UINT32_MAX;         /* its runs were another pool's perhaps */
    out->log.ring = (uint8_t *)(uintptr_t)frames->data; /* only read */
    out->log.mask = ~(uint64_t)(RP_ALIGN - 1);
    out->log.base = frames->position;
    out->position = frames->position;
    out->end = frames->end;
}

bool rp_glance_at_mark(const rp_group *group, uint64_t *read, uint64_t *sequence) {
    for (int tries = 0; tries < 1000; tries++) {
        *read = rp_load_acquire(release, &group->read);
        bool found = false;
        for (int i = 0; i < 2 && !found; i++) {
            found = rp_load_relaxed(&group->marks[i].position) == *read;
            *sequence = rp_load_relaxed(&group->marks[i].sequence);
        }
        rp_fence_acquire(mark);
        if (rp_load_relaxed(&group->read) == *read)
            return found; /* `read` stood still, and so did its mark */
        rp_pause();
    }
    return false;
}

uint64_t rp_tail(const rp_log *log) { return rp_load_acquire(commit, &log->head->tail); }
uint64_t rp_durable(const rp_log *log) { return rp_load_acquire(release, &log->head->durable); }

uint64_t rp_needed(rp_log *log) {
    uint64_t least = UINT64_MAX;
    for (uint32_t g = 0; g < log->geometry.group_count; g++) {
        const rp_group *group = &log->groups[g];
        if (rp_load_acquire(group, &group->state) != RP_GROUP_STORED) continue;
        uint32_t owner = rp_load_relaxed(&group->owner);
        uint64_t acked = rp_load_acquire(release, &group->acked);
        if (acked < least && !(owner && rp_is_dead(log, owner))) least = acked;
    }
    return least;
}

/* ---- writing to storage --------------------------------------------------------------------- */

typedef struct target {
    rp_log *log;
    uint64_t position;
} target;

static bool is_durable_or_free(rp_log *door, const void *what) {
    const target *wanted = what;
    return rp_load_relaxed(&wanted->log->head->durable) >= wanted->position ||
           rp_load_relaxed(&door->head->commit_lock) == 0;
}

#define PATIENCE INT64_C(20000000) /* ns until who waits asks if the writer lives */

rp_status rp_commit_enter(rp_log *log, rp_log *door, uint64_t position, int64_t deadline, bool *lead) {
    rp_wait wait = rp_wait_until(deadline);
    target wanted = {.log = log, .position = position};
    bool died;
    *lead = false;
    rp_status status = rp_enter(log);
    if (status == RP_OK) status = rp_enter(door);
    wait.slice = PATIENCE;
    while (status == RP_OK) {
        if (rp_durable(log) >= position) break;
        if (rp_load_acquire(state, &log->head->state) & RP_STATE_DELETED) return RP_DELETED;
        status = rp_lock_try(door, &door->head->commit_lock, NULL, &died);
        if (status == RP_OK) {
            *lead = true;
            return RP_OK;
        }
        rp_lock_disown(door, &door->head->commit_lock);
        status = rp_event_wait(door, RP_EVENT_DURABLE, &wait, is_durable_or_free, &wanted);
    }
    rp_event_leave(door, RP_EVENT_DURABLE, &wait);
    return status == RP_EMPTY ? rp_lock_stalled(door, &door->head->commit_lock) : status;
}

void rp_commit_leave(rp_log *door) {
    rp_lock_release(&door->head->commit_lock);
    rp_signal(door, RP_EVENT_DURABLE, INT_MAX);
}

void rp_set_durable(rp_log *log, uint64_t position) {
    if (position <= rp_durable(log)) return;
    rp_store_release(release, &log->head->durable, position);
    rp_event_fire(log, RP_EVENT_SPACE, INT_MAX);
}

rp_status rp_stored_range(rp_log *log, uint64_t position, size_t limit, rp_range *out) {
    uint64_t tail = rp_tail(log), end = position, count = 0, large = 0;
    if (!rp_is_stored(log) || position % RP_ALIGN || position > tail || position < rp_durable(log))
        return RP_INVALID;
    if (!rp_sane_range(log, position, tail)) return RP_CORRUPT;
    while (end != tail) {
        uint64_t span = rp_frame_span(log, end, tail);
        if (span == 0) return RP_CORRUPT;
        if (end + span - position > limit) break;
        large += rp_read_once(rp_frame_at(log, end)->flags) & RP_FRAME_LARGE;
        end += span;
        count++;
    }
    *out = (rp_range){.data = rp_frame_at(log, position),
                      .position = position,
                      .end = end,
                      .count = count,
                      .large = large,
                      .sequence = rp_read_once(rp_frame_at(log, position)->sequence)};
    return position == tail ? RP_EMPTY : count ? RP_OK : RP_TOO_SMALL;
}

rp_status rp_copy_frames(rp_log *log, uint64_t position, void *buffer, size_t size, rp_range *out) {
    uint64_t tail = rp_tail(log);
    *out = (rp_range){.data = buffer, .position = position, .end = position};
    if (rp_is_cold(log, position)) return RP_COLD;
    if (position % RP_ALIGN || position > tail || !rp_sane_range(log, position, tail)) return RP_CORRUPT;
    while (out->end != tail) {
        uint64_t span = rp_frame_span(log, out->end, tail);
        if (span == 0 || out->end + span - position > size) break;
        out->end += span;
        out->count++;
    }
    uint64_t bytes = out->end - position;
    memcpy(buffer, rp_frame_at(log, position), bytes);
    return rp_is_cold(log, position) ? RP_COLD : bytes ? RP_OK : RP_EMPTY;
}

const void *rp_pool_data(rp_log *log, const rp_descriptor *descriptor) {
    return rp_pool_holds(log, descriptor) ? log->pool + (uint64_t)descriptor->first * RP_GRANULE : NULL;
}

bool rp_let_go(const void *data) {
    FILE *maps = fopen("/proc/self/maps", "re");
    uintptr_t start, end, wanted = (uintptr_t)data;
    char line[512], mode[5];
    bool found = false;
    while (maps && !found && fgets(line, sizeof line, maps))
        found = sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &start, &end, mode) == 3 && start <= wanted &&
                wanted < end;
    if (maps) fclose(maps);
    return found && mode[3] == 's' && madvise((void *)start, end - start, MADV_DONTNEED) == 0;
}

/* ---- groups --------------------------------------------------------------------------------- */

rp_status rp_group_place(rp_log *log, uint32_t group, uint64_t position, uint64_t sequence,
                         int64_t deadline) {
    rp_hold hold;
    rp_status status = rp_group_lock(log, group, deadline, &hold);
    if (status != RP_OK) return status;
    uint64_t tail = rp_tail(log);
    if (!rp_is_stored_group(hold.group) || position < hold.read || position > tail || position % RP_ALIGN)
        return rp_group_unlock(&hold, RP_INVALID);
    rp_store_relaxed(&hold.group->seen, tail);
    rp_mark_next(hold.group, position, sequence);
    rp_store_release(release, &hold.group->read, position);
    rp_lease_move_acked(log, hold.group);
    rp_lock_release(&hold.group->lock);
    rp_signal(log, RP_EVENT_SPACE, INT_MAX);
    return RP_OK;
}

rp_status rp_group_export(rp_log *log, uint32_t group, rp_group_state *out, rp_held *held, uint32_t size,
                          int64_t deadline) {
    rp_hold hold;
    rp_status status = rp_group_lock(log, group, deadline, &hold);
    if (status != RP_OK) return status;
    *out = (rp_group_state){.read = hold.read,
                            .acked = rp_load_relaxed(&hold.group->acked),
                            .policy = rp_load_relaxed(&hold.group->policy),
                            .stays = rp_load_relaxed(&hold.group->owner) == 0};
    memcpy(out->name, hold.group->name, sizeof out->name - 1);
    memcpy(out->pattern, hold.group->pattern, sizeof out->pattern - 1);
    if (!rp_is_stored_group(hold.group)) return rp_group_unlock(&hold, RP_UNSUPPORTED);
    if (!rp_glance_at_mark(hold.group, &out->read, &out->read_sequence))
        return rp_group_unlock(&hold, RP_CORRUPT);
    out->held = rp_lease_export(log, hold.group, held, size);
    return rp_group_unlock(&hold, out->held <= size ? RP_OK : RP_TOO_SMALL);
}

rp_status rp_group_import(rp_log *log, const rp_group_state *state, const rp_held *held, int64_t deadline) {
    uint32_t group = RP_QUEUE_GROUP;
    bool made;
    rp_hold hold;
    rp_group_settings settings = {.pattern = state->pattern,
                                  .policy = state->policy,
                                  .from_start = true,
                                  .placed = true,
                                  .position = state->read,
                                  .sequence = state->read_sequence};
    rp_status status = RP_OK;
    if (state->name[0]) status = rp_group_open(log, state->name, &settings, deadline, &group, &made);
    if (status == RP_OK) status = rp_group_lock(log, group, deadline, &hold);
    if (status != RP_OK) return status;
    if (!state->name[0]) {
        rp_mark_next(hold.group, state->read, state->read_sequence);
        rp_store_release(release, &hold.group->read, state->read);
        rp_store_relaxed(&hold.group->seen, state->read);
    }
    rp_store_release(release, &hold.group->acked, state->acked < state->read ? state->acked : state->read);
    status = rp_lease_import(log, hold.group, held, state->held);
    rp_lease_move_acked(log, hold.group);
    return rp_group_unlock(&hold, status);
}
