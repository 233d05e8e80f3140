/* Who takes part, and the proof that somebody is dead.
 *
 * A participant owns slot s, and holds the kernel's OFD lock on byte 2^40 + s of the file. That lock belongs
 * to an open file description whose only reference is a memory mapping (the anchor: PROT_NONE, not inherited
 * by fork): its descriptor is closed at once. So the lock goes when, and only when, this address space goes,
 * after the last thread has stopped running: however the process dies, whoever closes descriptors behind our
 * back, whatever pid namespace it lives in. Lock free => no further store by that process.
 *
 *   join    take the first byte whose lock is free (the lock IS the allocation); generation + 1; pid
 *   dead?   the generation moved on, or another description finds the byte unlocked
 *   leave   unmap the anchor
 *
 * A death at any point of join leaves a slot whose lock is free: the next to come takes it, and the new
 * generation fences everything that still names the old one. Nothing else must be repaired.
 *
 * attach tests the mechanism on this very file system, and refuses with RP_UNSUPPORTED where it does not
 * hold.
 */
#ifndef RP_LIVENESS_H
#define RP_LIVENESS_H

#include "segment.h"

#define RP_SLOT_MASK  0x7ffu
#define RP_OWNER_MASK 0x7fffffffu

/* Excludes attaching, detaching and forking from one another within this process. */
void rp_process_lock(void);
void rp_process_unlock(void);

/* The door of an auto-deleted log: whoever attaches, or unlinks because nobody stays, does so while it holds the
 * file lock on byte 2^41 through `fd`, a description of its own, and lets go by closing it. It dies with its
 * process. False after `patience` ns: somebody was stopped in it. */
bool rp_enter_door(int fd, int64_t patience);
#define RP_HASTE INT64_C(50000000) /* ns: when it is no great loss to go without */

/* Names this process since its last fork; never 0 once the first log is attached. */
uint64_t rp_process_token(void);

rp_status rp_join_log(rp_log *log, int fd); /* `fd` is consumed */
void rp_leave_log(rp_log *log);
/* Under the process lock: be a participant, if a fork made us none. */
rp_status rp_join_again(rp_log *log);
rp_status rp_rejoin_after_fork(rp_log *log);
bool rp_is_dead(rp_log *log, uint32_t owner);
/* False if somebody closed our descriptor (daemons do), and its number perhaps means another file now. */
bool rp_probe_is_ours(const rp_log *log);
/* Did somebody remove the file underneath (rm, systemd's RemoveIPC)? */
bool rp_is_removed(rp_log *log);
/* What our slot says. False if this process never joined (forked). */
bool rp_set_slot(rp_log *log, uint32_t state);
/* Does any other process take part, and not leave? */
bool rp_others_stay(rp_log *log);
/* True if some process takes part in the file behind `fd`. */
bool rp_anybody_there(int fd, uint32_t slot_count);
uint32_t rp_count_participants(rp_log *log);
int32_t rp_pid_of(rp_log *log, uint32_t owner);
uint32_t rp_pid_namespace_of(rp_log *log, uint32_t owner);

extern uint64_t *volatile rp_token_page;

/* Is this process who `me` says, and not a forked child that has done nothing yet? */
static inline bool rp_has_joined(const rp_log *log) {
    return rp_load_acquire(token, &log->token) == *(volatile uint64_t *)rp_token_page;
}

/* First line of every operation: a forked child becomes a participant of its own. */
static inline rp_status rp_enter(rp_log *log) {
    if (rp_likely(rp_has_joined(log))) return RP_OK;
    return rp_rejoin_after_fork(log);
}

#endif
