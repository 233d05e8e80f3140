/* Groups: named cursors on the log, each shared by any number of competing consumers.
 *
 * Taking (take.c), under the group's `lock`:
 *   T1  p = read; t = tail (cached in `seen`, so that a group which is behind does not touch the
 *       producers' line)                                                                   SYNC commit
 *   T2  find the end q of the frames that go; each size is read once and checked against t
 *   T3  copy [p, q) out; a large frame's payload from the pool too
 *   T4  read = q; a large frame's run of the pool is freed, unless another group wants it; acked = q, or where
 *       the first lease begins (a release store: our reads are over)                       SYNC release
 *   T5  unlock; wake producers that wait for room                                          SYNC arm
 *
 * A death in T1..T3 loses nothing: `read` did not move. In T4 after the first store: acked < read with no
 * lease in between; the next locker moves `acked`, and a run that is still published below it is
 * reclaimed. In T5: a producer's slice ends. From `read`'s store on, the frames belong to the taker and die
 * with it. (Leases, which do not: lease.h.)
 *
 * A group may end with its process: whoever it holds back closes it. Groups are made, and those of the dead closed,
 * under the producers' lock: who was stopped after it found one dead does not close the next that has its place.
 *
 * A lossy group is a cursor (cursor.c) that lies in shared memory: producers do not look at it. The frame at its `read`
 * may be gone, so the sequence there is kept in `marks`, as for a stored group (stored.h): the mark with the new pair is
 * written before `read` moves, and of the two it is always the one with `read` that counts. So a death in between needs
 * no repair, and the next reader is told exactly how many were lost. (One word for the sequence would not do: written
 * before `read`, it belongs to another position after a death, and if the frame at `read` is gone nobody can tell.)
 */
#ifndef RP_GROUP_H
#define RP_GROUP_H

#include "log.h"

/* A handle is a group's number and the generation it was opened in: that of a closed group opens no other. */
#define RP_GROUP_BITS   7u
#define RP_GROUP_NUMBER ((1u << RP_GROUP_BITS) - 1)

/* The group of a handle, or NULL: there never was one. */
static inline rp_group *rp_group_of(const rp_log *log, uint32_t handle) {
    uint32_t number = handle & RP_GROUP_NUMBER;
    return rp_likely(number < log->geometry.group_count) ? &log->groups[number] : NULL;
}

static inline uint32_t rp_group_handle(const rp_log *log, const rp_group *group) {
    return rp_load_relaxed(&group->generation) << RP_GROUP_BITS | (uint32_t)(group - log->groups);
}

/* A locked group, and where it stands. */
typedef struct rp_hold {
    rp_group *group;
    uint64_t read, tail;
    uint32_t state; /* RP_GROUP_*, read once: what depends on it is decided once */
} rp_hold;

/* Lock group `group` and repair it if needed: RP_OK, with `read` filled in. RP_BUSY, RP_INVALID, RP_CORRUPT. */
rp_status rp_group_try_lock(rp_log *log, uint32_t group, rp_wait *wait, rp_hold *hold);
/* The same for what has no try form. */
rp_status rp_group_lock(rp_log *log, uint32_t group, int64_t deadline, rp_hold *hold);
/* T1: find `tail`. RP_EMPTY, RP_SHUT_DOWN, RP_DELETED, RP_CORRUPT: nothing to take. */
rp_status rp_group_look(rp_log *log, rp_hold *hold);

/* Unlock, and pass `status` on. */
static inline rp_status rp_group_unlock(rp_hold *hold, rp_status status) {
    rp_lock_release(&hold->group->lock);
    return status;
}

/* Is everything below `end` done with in every other group? */
bool rp_acked_by_others(rp_log *log, const rp_group *group, uint64_t position);
/* Wake whoever waits for what this group may hand out. Comes right after the unlock. */
void rp_group_wake(rp_log *log, const rp_group *group, int count);

static inline uint32_t rp_group_event(const rp_log *log, const rp_group *group) {
    return RP_LOG_EVENTS + (uint32_t)(group - log->groups);
}

/* Length of the group's own pattern; bounded, whatever lies there. */
size_t rp_pattern_length(const rp_group *group);

#endif
