/* What is neither putting nor taking: counts, task_done and join, shutdown.
 *
 * The number of unfinished tasks is the sequence at `tail` less `done` and what was acked (`settled`, see lease.h), so
 * putting needs no counter of its own, and no death leaves two counters that differ. Shutting down is one store of
 * `state` under the producers' lock, so that no put commits after it; then the group's lock is taken once, so that no
 * take which had not seen it is still on its way. With `immediate`, what is left counts as finished: join waits for
 * what was taken.
 */
#include <errno.h>
#include <string.h>

#include "group.h"
#include "lease.h"
#include "pool.h"

/* Loaded in this order: what only shrinks the answer comes first, so that nothing is counted that was not so. */
typedef struct progress {
    uint64_t settled, done, acked; /* done: by either way */
    uint64_t read, read_sequence, tail, tail_sequence;
} progress;

static rp_status look(rp_log *log, progress *out) {
    rp_status status = rp_enter(log);
    if (status != RP_OK) return status;
    out->settled = rp_load_acquire(done, &log->groups[RP_QUEUE_GROUP].settled);
    out->done = rp_load_acquire(done, &log->head->done) + out->settled;
    out->acked = rp_least_acked(log);
    return rp_progress(log, &out->read, &out->read_sequence, &out->tail, &out->tail_sequence);
}

static rp_status look_unless_deleted(rp_log *log, progress *out) {
    rp_status status = look(log, out);
    bool deleted = status == RP_OK && (rp_load_acquire(state, &log->head->state) & RP_STATE_DELETED);
    return deleted ? RP_DELETED : status;
}

static bool discards(rp_log *log) { return rp_load_acquire(state, &log->head->state) & RP_STATE_DISCARD; }

/* Tasks that somebody must finish: with what was discarded nobody will. */
static uint64_t all_tasks(rp_log *log, const progress *at) {
    return discards(log) ? at->read_sequence : at->tail_sequence;
}

static uint64_t unfinished(rp_log *log, const progress *at) {
    uint64_t all = all_tasks(log, at);
    return all > at->done ? all - at->done : 0;
}

/* What group 0 has not handed out, or got back. */
static uint64_t ready(rp_log *log, const progress *at) {
    uint64_t returned = 0, held;
    if (discards(log)) return 0;
    if (rp_has_leases(log, RP_QUEUE_GROUP)) rp_lease_count(log, log->groups, &returned, &held);
    return at->tail_sequence - at->read_sequence + returned;
}

rp_status rp_ready(rp_log *log, uint64_t *out) {
    progress at;
    rp_status status = look_unless_deleted(log, &at);
    if (status == RP_OK) *out = ready(log, &at);
    return status;
}

rp_status rp_is_full(rp_log *log, bool *out) {
    uint64_t smallest = rp_align(sizeof(rp_frame) + 1), most = log->geometry.max_messages;
    progress at;
    rp_status status = look_unless_deleted(log, &at);
    if (status != RP_OK) return status;
    uint64_t used = at.tail - at.acked;
    *out = used + smallest + RP_STUB > log->geometry.ring_size ||
           (most && at.tail_sequence - at.read_sequence >= most);
    return RP_OK;
}

rp_status rp_get_info(rp_log *log, rp_info *out) {
    progress at;
    rp_status status = look(log, &at);
    if (status != RP_OK) return status;
    uint32_t state = rp_load_acquire(state, &log->head->state);
    *out = (rp_info){
        .file_size = log->geometry.file_size,
        .ring_size = log->geometry.ring_size,
        .pool_size = log->geometry.pool_size,
        .max_payload = log->geometry.pool_size,
        .max_messages = log->geometry.max_messages,
        .next_sequence = at.tail_sequence,
        .ready = ready(log, &at),
        .unfinished = unfinished(log, &at),
        .used_bytes = at.tail - at.acked,
        .pool_used = rp_pool_used(log),
        .participants = rp_count_participants(log),
        .shut_down = state & RP_STATE_SHUT,
        .deleted = state & RP_STATE_DELETED,
        .keep_history = rp_keeps_history(log),
        .auto_delete = log->geometry.flags & RP_SUPER_AUTO_DELETE,
        .levels = log->geometry.flags & RP_SUPER_LEVELS,
        .stored = rp_is_stored(log),
        .created_ns = log->geometry.created_ns,
    };
    memcpy(out->log_id, log->geometry.log_id, sizeof out->log_id);
    return RP_OK;
}

/* So many others do not come between, one after another: `done` is nonsense that changes. */
#define TRIES 10000

rp_status rp_task_done(rp_log *log) {
    for (int tries = 0; tries < TRIES; tries++) {
        progress at;
        rp_status status = look_unless_deleted(log, &at);
        if (status != RP_OK) return status;
        if (at.done >= all_tasks(log, &at)) return RP_TOO_MANY;
        uint64_t done = at.done - at.settled;
        if (!rp_cas_release(done, &log->head->done, &done, done + 1)) continue;
        rp_signal(log, RP_EVENT_JOIN, INT32_MAX);
        return RP_OK;
    }
    return RP_CORRUPT;
}

static bool nothing_new(rp_log *log, const void *unused) {
    (void)log, (void)unused;
    return false;
}

rp_status rp_join(rp_log *log, int64_t deadline) {
    rp_wait wait = rp_wait_until(deadline);
    for (;;) {
        progress at;
        rp_status status = look_unless_deleted(log, &at);
        if (status != RP_OK) return status;
        if (unfinished(log, &at) == 0) return RP_OK;
        status = rp_event_wait(log, RP_EVENT_JOIN, &wait, nothing_new, NULL);
        if (status != RP_OK) return status;
    }
}

/* Whoever is inside a group has not seen the new state: wait until it is out. */
static rp_status pass_through_groups(rp_log *log, int64_t deadline) {
    for (uint32_t g = 0; g < log->geometry.group_count; g++) {
        rp_hold hold;
        if (rp_load_acquire(group, &log->groups[g].state) == RP_GROUP_FREE) continue;
        rp_status status = rp_group_lock(log, rp_group_handle(log, &log->groups[g]), deadline, &hold);
        if (status == RP_OK) rp_lock_release(&hold.group->lock);
        if (status != RP_OK && status != RP_NOT_FOUND) return status; /* RP_NOT_FOUND: closed meanwhile */
    }
    return RP_OK;
}

rp_status rp_shut_down(rp_log *log, bool immediate, int64_t deadline) {
    bool died;
    rp_status status = rp_enter(log);
    if (status == RP_OK) status = rp_lock_wait(log, &log->head->lock, deadline, &died);
    if (status != RP_OK) return status;
    if (died) rp_wake_all(log);
    rp_or_release(state, &log->head->state, RP_STATE_SHUT | (immediate ? RP_STATE_DISCARD : 0));
    rp_lock_release(&log->head->lock);
    status = pass_through_groups(log, deadline);
    rp_wake_all(log);
    return status;
}

const char *rp_status_text(rp_status status) {
    switch (status) {
    case RP_OK: return "ok";
    case RP_EMPTY: return "empty";
    case RP_FULL: return "full";
    case RP_BUSY: return "busy";
    case RP_STALLED: return "stalled: the holder of a lock is alive but does not run";
    case RP_INTERRUPTED: return "interrupted";
    case RP_SHUT_DOWN: return "shut down";
    case RP_DELETED: return "deleted";
    case RP_TOO_LARGE: return "too large";
    case RP_TOO_SMALL: return "buffer too small";
    case RP_LARGE: return "large";
    case RP_RETURNED_FIRST: return "messages that were given back come first";
    case RP_TOO_MANY: return "more task_done() than messages";
    case RP_CORRUPT: return "corrupt";
    case RP_LAYOUT: return "another layout version or ABI";
    case RP_STALE: return "left over from before a reboot";
    case RP_NOT_OURS: return "not ours";
    case RP_NO_SLOT: return "no free slot";
    case RP_NO_SPACE: return "no space";
    case RP_EXISTS: return "exists";
    case RP_NOT_FOUND: return "not found";
    case RP_UNSUPPORTED: return "unsupported file system";
    case RP_INVALID: return "invalid argument";
    case RP_SYSTEM: return "system error";
    case RP_COLD: return "in storage";
    }
    return "unknown status";
}
