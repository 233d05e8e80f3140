/* Leases: frames handed out and not yet done with.
 *
 * A lease holds up to 64 frames of its group, from `sequence` on (`position` is that frame's): bit i of
 * `pending` is set while frame sequence + i is in the owner's hands or, with the owner RP_RETURNED, waits to be
 * handed out again. A receipt names entry, id and bit. Everything happens under the group's lock.
 *
 *   hand out        H1  a free entry: position, sequence, id + 1, pending = 0; owner = me. Or the entry made
 *                       last, if it is ours and has room.
 *                   H2  copy frames out; pending |= their bits
 *                   H3  read = behind them: from here on they are ours                      SYNC release
 *   hand out again  R1  all frames of a returned entry: owner = me; then id + 1, deliveries + 1
 *                   R2  some: a free entry gets them, then the old one's pending &= ~them
 *   settle          S0  of each lease: settled_before, pending_before; then settling = this lease
 *                   S1  pending &= ~bits: they are acked
 *                   S2  nothing pending: owner = 0; settled += the number of bits; settling = 0
 *                   S3  acked = where the first entry in use begins, or read                SYNC release
 *   give back       G1  all: deadline; then owner = RP_RETURNED
 *                   G2  some: to a returned or free entry, then the old one's pending &= ~them
 *   merge           M   two returned entries of the same `sequence`: the pending of one |= that of the other, whose
 *                       owner = 0. Where none is free
 *   look over       an owner is dead or its deadline passed: as G1
 *
 * No lease is free: what is there is none for now, in the ring or behind it, where storage is not asked for it again.
 * `starved` is set by who finds none in H1 or R2. Who frees one by settling clears it and wakes all; who finds one in
 * H1 clears it, too. It only spares work: behind the ring, who sees it looks for a free lease before it says that
 * there is nothing, and who sees it cleared asks storage once. A part of what was given back that finds no lease in
 * R2 rests for PUT_OFF or until one is freed, so that who takes is not sent to it all the time (`due_ns`).
 * No wake-up is lost: a sleeper tried, with the lock, after it armed, and left `starved` set; whoever settles later
 * sees both. Freed without a wake-up: by a repair, or by one who settled and died between S3 and waking, or after
 * others cleared it in H1: then sleepers try again at the end of a slice, whatever `starved` says.
 *
 * A death leaves: in H2, bits of frames at or above `read`, which nobody got: repair clears them. In R1, an
 * entry of a dead owner. In R2, G2 and M, a frame with a bit in two entries of the same `sequence`, one of them
 * returned: repair clears the other one. In S1, S2: repair does the rest; `settled` becomes what it was before, and
 * one more for each bit that is gone since: so each ack is counted, once. Entries of the dead are found by whoever looks
 * over next: each receiver does, if nobody has for LOOK_OVER ns; one that sleeps wakes for it at the end of its slice.
 */
#ifndef RP_LEASE_H
#define RP_LEASE_H

#include "group.h"

/* Is there something that was given back, and is due? Looks leases over if nobody has for a while. */
bool rp_lease_is_due(rp_log *log, rp_hold *hold);
void rp_lease_find_acked(rp_log *log, rp_group *group);

/* The group is locked and its `read` was stored: let `acked` follow, as far as leases allow. */
static inline void rp_lease_move_acked(rp_log *log, rp_group *group) {
    if (rp_likely(rp_load_relaxed(&group->lease_top) == 0))
        rp_store_release(release, &group->acked, rp_load_relaxed(&group->read));
    else
        rp_lease_find_acked(log, group);
}

/* ns until the next returned frame is due; RP_NEVER: there is none. A glance. */
int64_t rp_lease_due_in(const rp_group *group);
/* Let a wait end then. */
void rp_lease_bound_sleep(const rp_group *group, rp_wait *wait);
/* The group is locked and its last holder died; `sequence` is that of the frame at `read`. */
void rp_lease_repair(rp_log *log, rp_group *group, uint64_t sequence);
/* Where the frame of this receipt lies. RP_NOT_FOUND: it is no longer ours. */
rp_status rp_lease_position(rp_log *log, uint32_t group, const rp_receipt *receipt, uint64_t *position);
/* Nobody uses the group: forget its leases. */
void rp_lease_clear(rp_log *log, rp_group *group);
/* How many frames were given back, and how many are in somebody's hands. Without the lock: a glance. */
void rp_lease_count(rp_log *log, const rp_group *group, uint64_t *returned, uint64_t *held);

/* The sequence of the frame at `position`, if a lease begins there. */
bool rp_lease_sequence_at(const rp_log *log, const rp_group *group, uint64_t position, uint64_t *sequence);
/* For storage; the group is locked. Export: how many there are, of which at most `size` are written. */
uint32_t rp_lease_export(const rp_log *log, const rp_group *group, rp_held *held, uint32_t size);
rp_status rp_lease_import(rp_log *log, rp_group *group, const rp_held *held, uint32_t count);

#endif
