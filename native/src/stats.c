/* What people ask about groups. Everything is read without a lock: a glance, never wrong by more than what moves
 * meanwhile.
 */
#include <string.h>

#include "frames.h"
#include "group.h"
#include "lease.h"
#include "stored.h"

/* Position and sequence of the frame that `at` names, read as one. False: it keeps moving, or is gone. */
static bool stands_at(rp_log *log, const rp_u64 *at, uint64_t *position, uint64_t *sequence,
                      uint64_t *time_ns) {
    for (int tries = 0; tries < 1000; tries++) {
        *position = rp_load_acquire(release, at);
        uint64_t tail = rp_load_acquire(commit, &log->head->tail);
        if (!rp_sane_range(log, *position, tail)) continue;
        *sequence = rp_read_once(rp_frame_at(log, *position)->sequence);
        *time_ns = *position == tail ? 0 : rp_read_once(rp_frame_at(log, *position)->time_ns);
        rp_fence_acquire(lap);
        if (rp_load_relaxed(at) == *position && rp_load_relaxed(&log->head->oldest) <= *position) return true;
    }
    return false;
}

/* The sequence at `read`. */
static bool next_of(rp_log *log, const rp_group *group, uint64_t *sequence) {
    uint64_t position, unused;
    if (rp_is_stored_group(group)) return rp_glance_at_mark(group, &position, sequence);
    return stands_at(log, &group->read, &position, sequence, &unused);
}

static void copy_counters(const rp_group *group, rp_group_info *out) {
    out->delivered = rp_load_relaxed(&group->delivered);
    out->acknowledged = rp_load_relaxed(&group->acknowledged);
    out->redelivered = rp_load_relaxed(&group->redelivered);
    out->returned = rp_load_relaxed(&group->returned);
    out->rejected = rp_load_relaxed(&group->rejected);
    out->expired = rp_load_relaxed(&group->expired);
    out->dropped = rp_load_relaxed(&group->dropped);
    out->lost = rp_load_relaxed(&group->lost);
}

rp_status rp_get_group_info(rp_log *log, uint32_t handle, rp_group_info *out) {
    rp_status status = rp_enter(log);
    if (status != RP_OK) return status;
    const rp_group *group = rp_group_of(log, handle);
    if (!group || rp_load_acquire(group, &group->state) == RP_GROUP_FREE) return RP_NOT_FOUND;
    uint32_t owner = rp_load_relaxed(&group->owner);
    if (owner && rp_is_dead(log, owner)) return RP_NOT_FOUND;
    *out = (rp_group_info){.handle = rp_group_handle(log, group),
                           .policy = rp_load_relaxed(&group->policy),
                           .lossy = rp_load_relaxed(&group->state) == RP_GROUP_LOSSY};
    memcpy(out->name, group->name, sizeof out->name - 1);
    memcpy(out->pattern, group->pattern, sizeof out->pattern - 1);
    copy_counters(group, out);
    uint64_t position, sequence, put_ns, tail = 0, end = 0, unused;
    if (stands_at(log, &log->head->tail, &tail, &end, &unused) && next_of(log, group, &sequence))
        out->ready = end > sequence ? end - sequence : 0;
    if (rp_is_stored_group(group)) {
        position = rp_load_acquire(release, &group->acked);
        out->lag_bytes = tail > position ? tail - position : 0;
        if (!rp_is_cold(log, position) && stands_at(log, &group->acked, &position, &sequence, &put_ns))
            out->oldest_ns = put_ns;
    } else if (stands_at(log, &group->acked, &position, &sequence, &put_ns)) {
        out->oldest_ns = put_ns;
        out->lag_bytes = tail > position ? tail - position : 0;
    }
    uint64_t returned, held;
    rp_lease_count(log, group, &returned, &held);
    out->ready += returned;
    out->in_flight = held;
    out->pid = owner ? rp_pid_of(log, owner) : 0;
    out->pid_namespace = owner ? rp_pid_namespace_of(log, owner) : 0;
    return RP_OK;
}

void rp_count(rp_log *log, uint32_t handle, rp_counter counter, uint64_t by) {
    rp_group *group = rp_group_of(log, handle);
    if (!group) return;
    rp_u64 *counters[] = {&group->rejected, &group->expired, &group->dropped};
    if ((unsigned)counter < sizeof counters / sizeof *counters) rp_add_relaxed(counters[counter], by);
}
