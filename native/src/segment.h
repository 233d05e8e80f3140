/* A segment: one log's file, mapped into this process.
 *
 * Created nameless (O_TMPFILE), its pages allocated at once (so that a full /dev/shm is an error here and
 * never a SIGBUS later), filled in, then linked into place: nobody ever sees a half-made one, and a creator
 * that dies leaves nothing. Opened without following links and checked: ours, private, a plain file, of the
 * size its superblock says. Geometry is copied to private memory and bounds-checked, so that later noise in
 * the superblock cannot lead anybody outside the mapping.
 *
 * A process has one rp_log for one file, however often it attaches.
 */
#ifndef RP_SEGMENT_H
#define RP_SEGMENT_H

#include <sys/stat.h>
#include <sys/types.h>

#include "layout.h"

struct rp_log {
    rp_super geometry; /* private copy: the only one that is trusted */
    rp_head *head;
    rp_group *groups;
    rp_slot *slots;
    rp_lease *leases;
    rp_chunk *chunks;
    uint8_t *ring; /* ring_size bytes, twice */
    uint8_t *pool;
    uint64_t mask; /* a position that is nonsense leads to somewhere in the ring, too, aligned */
    uint64_t base; /* of the positions in `ring`: 0, but in a view; see stored.h */

    /* who we are in it: set by liveness.c, anew after fork */
    _Atomic uint64_t token; /* the process that `me` speaks for */
    uint32_t me;            /* owner word: generation(20) | slot + 1 (11) */
    void *anchor;           /* keeps our file lock alive, see liveness.h */
    int probe_fd;           /* another open file description, to ask about others */

    _Atomic uint32_t spin_ns; /* how long waiting for an event spins, adapted; see wait.c */
    _Atomic uint32_t told;    /* grows when this process's waits shall look around */
    _Atomic uint64_t looked;  /* rp_wall_clock_ns() of the last look whether the file is still there */
    void *file_map;
    char *path;
    dev_t device;
    ino_t inode;
    unsigned references;
    struct rp_log *next;
};

static inline bool rp_is_auto_deleted(const rp_log *log) {
    return log->geometry.flags & RP_SUPER_AUTO_DELETE;
}
static inline bool rp_is_broadcast(const rp_log *log) { return log->geometry.flags & RP_SUPER_BROADCAST; }
static inline bool rp_is_stored(const rp_log *log) { return log->geometry.flags & RP_SUPER_STORED; }
static inline bool rp_keeps_history(const rp_log *log) { return log->geometry.flags & RP_SUPER_HISTORY; }

/* Open the file of `log` once more, as a new file description, even if it was unlinked. -1: errno. */
int rp_reopen(const rp_log *log);

#endif
