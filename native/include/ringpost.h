/* ringpost: a log in shared memory with cursors on it. The only public C header.
 *
 * A process attaches to a log (a file in /dev/shm), appends frames to it and takes frames from a
 * group, a cursor which any number of processes share. Nothing here needs Python.
 *
 * Waiting calls take a deadline: nanoseconds of CLOCK_MONOTONIC, RP_NEVER, or RP_NOW: do not wait, but for a
 * lock whose holder was descheduled, one second at most; -t is RP_NOW with that second ending at t. They return
 * RP_INTERRUPTED after a signal and at the end of each slice of sleep (at most 100 ms), so that a
 * caller can look at its own signals and call again with the same deadline.
 *
 * Every call may be made from any thread. After fork() a handle works in the child too: it joins the
 * log as a new participant on first use.
 */
#ifndef RINGPOST_H
#define RINGPOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RP_NOW   ((int64_t)0)
#define RP_NEVER INT64_MAX

#define RP_ALIGN            16u    /* frames start at multiples of this */
#define RP_INLINE_MAX       16384u /* larger payloads travel in chunks of the pool (bytes) */
#define RP_DEFAULT_CAPACITY (16u << 20)
#define RP_MIN_CAPACITY     (128u << 10)
#define RP_MAX_CAPACITY     (UINT64_C(1) << 42)

typedef enum rp_status {
    RP_OK = 0,
    RP_EMPTY,       /* nothing to take (yet) */
    RP_FULL,        /* no room (yet) */
    RP_BUSY,        /* a lock was held past a short spin: call the waiting form */
    RP_STALLED,     /* the deadline passed while a live process held a lock: rp_holder() names it */
    RP_INTERRUPTED, /* a signal, or the end of a slice: look around and call again */
    RP_SHUT_DOWN,   /* the queue was shut down */
    RP_DELETED,     /* the log was deleted, or its file removed underneath */
    RP_TOO_LARGE,   /* can never fit this log */
    RP_TOO_SMALL,   /* the caller's buffer is too small for the next frame */
    RP_LARGE,       /* the next frame's payload lies in the pool: use rp_take_large() */
    RP_TOO_MANY,    /* more task_done() than messages */
    RP_CORRUPT,     /* the segment's content breaks an invariant */
    RP_LAYOUT,      /* another layout version or ABI */
    RP_STALE,       /* left over from before a reboot */
    RP_NOT_OURS,    /* foreign owner, wrong mode, not a plain file, a link */
    RP_NO_SLOT,     /* every participant slot, or group, is in use */
    RP_NO_SPACE,    /* the file system is full */
    RP_EXISTS,
    RP_NOT_FOUND,
    RP_UNSUPPORTED, /* this file system cannot prove the death of a process */
    RP_INVALID,     /* an argument is out of range */
    RP_SYSTEM,      /* errno says what */
} rp_status;

typedef struct rp_log rp_log;

/* ---- life of a log ------------------------------------------------------------------------ */

typedef struct rp_settings {
    uint64_t capacity;     /* bytes for messages: half ring, half pool; 0 = RP_DEFAULT_CAPACITY */
    uint64_t max_messages; /* unread messages; 0 = bounded by bytes only */
    uint32_t groups;       /* room for so many groups; 0 = default */
    uint32_t leases;       /* room for so many leases; 0 = default */
    bool keep_history;     /* frames stay readable after every group acked them, until overwritten */
    bool auto_delete;      /* the file goes when its last process goes */
} rp_settings;

/* Create the log `path` and attach to it. RP_EXISTS where there is one. */
rp_status rp_create(const char *path, const rp_settings *settings, rp_log **out);
/* Attach to the log `path`. A process that attaches twice gets the same handle, counted. */
rp_status rp_attach(const char *path, rp_log **out);
/* Give one handle back; never blocks. */
void rp_detach(rp_log *log);
/* This process is about to end: unlink an auto-deleted log now unless other processes stay with it.
 * The handle goes on working. (rp_detach does this too.) */
void rp_leave(rp_log *log);
/* Mark the log as deleted for everybody attached, and unlink its file. */
rp_status rp_remove(const char *path);
/* Unlink `path` if it is left over: from before a reboot, or auto-deleted and without any process. */
rp_status rp_collect(const char *path);

typedef struct rp_info {
    uint8_t log_id[16];
    uint64_t file_size, ring_size, pool_size, max_payload, max_messages;
    uint64_t next_sequence; /* messages ever put */
    uint64_t ready;         /* messages not yet taken by group 0 */
    uint64_t unfinished;    /* messages put, but not yet task_done */
    uint64_t used_bytes;    /* ring bytes that group 0 has not released */
    uint64_t pool_used;     /* pool bytes in use */
    uint32_t participants;  /* live processes attached */
    bool shut_down, deleted, keep_history, auto_delete;
} rp_info;

rp_status rp_get_info(rp_log *log, rp_info *out);
/* Messages that group 0 has not yet taken: exact when nobody moves. */
rp_status rp_ready(rp_log *log, uint64_t *out);
/* True if not even a one-byte message could be put now. */
rp_status rp_is_full(rp_log *log, bool *out);
/* After RP_STALLED: the pid that held the lock which this thread waited for. For messages to people. */
int32_t rp_holder(void);

/* ---- frames ------------------------------------------------------------------------------- */

#define RP_FRAME_LARGE 1u /* flags: the payload lies in the pool, an rp_descriptor stands here */

typedef struct rp_frame {
    uint32_t size; /* bytes of header, subject, headers and body; the next frame is at ALIGN16(size) */
    uint8_t kind;  /* codec of the body: opaque here */
    uint8_t flags;
    uint16_t subject_len;
    uint64_t sequence; /* dense, from 0 */
    uint64_t time_ns;  /* CLOCK_REALTIME when it was put */
    uint32_t headers_len;
    uint32_t reserved; /* 0 */
} rp_frame;

typedef struct rp_descriptor {
    uint64_t length;   /* bytes of subject, headers and body in the pool */
    uint32_t first;    /* granule */
    uint32_t granules; /* how many */
} rp_descriptor;

/* What to put. The three parts lie behind one another in the frame. */
typedef struct rp_message {
    const void *subject, *headers, *body;
    size_t subject_len, headers_len, body_len;
    uint8_t kind;
} rp_message;

static inline uint64_t rp_align(uint64_t bytes) { return (bytes + RP_ALIGN - 1) & ~(uint64_t)(RP_ALIGN - 1); }

/* ---- appending ---------------------------------------------------------------------------- */

/* One message; its payload is at most RP_INLINE_MAX bytes (else RP_TOO_LARGE: use a loan).
 * The try form never sleeps; the waiting form waits for locks and room until the deadline. */
rp_status rp_try_put(rp_log *log, const rp_message *message);
rp_status rp_put(rp_log *log, const rp_message *message, int64_t deadline);

/* A run of prepared frames (size, kind, flags, lengths filled in, padded to RP_ALIGN, none large).
 * Appends as many from the front as fit, in one commit, and says how many frames and bytes. */
rp_status rp_try_put_frames(rp_log *log, const void *frames, size_t bytes, uint32_t count, uint32_t *done,
                            size_t *done_bytes);
rp_status rp_put_frames(rp_log *log, const void *frames, size_t bytes, uint32_t count, int64_t deadline,
                        uint32_t *done, size_t *done_bytes);

/* A loan: room in the pool that this process fills in place, then commits as one message (subject,
 * headers, body behind one another). A loan whose process dies is taken back. */
typedef struct rp_loan {
    void *data;
    uint64_t length;
    uint32_t first, granules;
} rp_loan;

rp_status rp_borrow(rp_log *log, uint64_t length, int64_t deadline, rp_loan *out);
/* RP_OK ends the loan; after anything else it is still the caller's, to commit again or to abort. */
rp_status rp_commit(rp_log *log, rp_loan *loan, uint8_t kind, size_t subject_len, size_t headers_len,
                    int64_t deadline);
void rp_abort(rp_log *log, rp_loan *loan);

/* ---- taking from a group (competing consumers, at most once) ------------------------------- */

#define RP_QUEUE_GROUP 0u /* the group every log has from birth */

typedef struct rp_taken {
    uint32_t count;  /* frames copied */
    size_t bytes;    /* bytes copied, whole frames */
    size_t need;     /* with RP_TOO_SMALL: bytes the next frame needs */
    rp_frame frame;  /* with RP_LARGE: its header */
    uint64_t length; /* with RP_LARGE: bytes of its payload */
} rp_taken;

/* Copy up to `limit` whole frames into `buffer` and advance the group. Copied frames have passed
 * every check: their sizes and lengths lie inside the copied bytes. */
rp_status rp_try_take(rp_log *log, uint32_t group, void *buffer, size_t size, uint32_t limit, rp_taken *out);
rp_status rp_take(rp_log *log, uint32_t group, void *buffer, size_t size, uint32_t limit, int64_t deadline,
                  rp_taken *out);
/* Spin a little (`spins` pauses) until the group may have something; for a caller that must not sleep yet. */
bool rp_glance(rp_log *log, uint32_t group, uint32_t spins);
/* Take the large frame `sequence`, which RP_LARGE announced, with `length` bytes of payload: the
 * first `extra_len` go to `extra` (subject and headers), the rest to `body`. RP_EMPTY if another
 * consumer took it meanwhile. */
rp_status rp_take_large(rp_log *log, uint32_t group, uint64_t sequence, uint64_t length, void *extra,
                        size_t extra_len, void *body, int64_t deadline);

/* ---- groups and cursors -------------------------------------------------------------------- */

#define RP_GROUP_NAME 64u

/* Find or make the gating group `name` (1 to 63 bytes). A new one starts at the oldest frame kept
 * (from_start) or behind the newest. A gating group holds producers back until it has read. */
rp_status rp_group_open(rp_log *log, const char *name, bool from_start, int64_t deadline, uint32_t *group);
rp_status rp_group_close(rp_log *log, uint32_t group, int64_t deadline);

/* A private cursor: reads without a lock and holds nobody back; told how many it lost. */
typedef struct rp_cursor {
    uint64_t position;
    uint64_t sequence; /* of the next frame expected */
    uint64_t lost;     /* frames overwritten before this cursor read them */
} rp_cursor;

rp_status rp_cursor_open(rp_log *log, bool from_start, rp_cursor *out);
rp_status rp_cursor_read(rp_log *log, rp_cursor *cursor, void *buffer, size_t size, uint32_t limit,
                         rp_taken *out);

/* The committed frames of `group` that lie behind one another from `position` on (its read
 * position if `position` is UINT64_MAX), at most `limit` bytes, whole frames: for storage, straight
 * from the ring. They stay as they are until the group is advanced past them. */
typedef struct rp_range {
    const void *data;
    uint64_t position, end;
    uint64_t sequence, count;
} rp_range;

rp_status rp_group_range(rp_log *log, uint32_t group, uint64_t position, size_t limit, rp_range *out);
/* Release everything before `position`, a frame's end, in this group. */
rp_status rp_group_advance(rp_log *log, uint32_t group, uint64_t position, int64_t deadline);

/* ---- control ------------------------------------------------------------------------------- */

rp_status rp_task_done(rp_log *log);
rp_status rp_join(rp_log *log, int64_t deadline);
/* No more puts. Takers get what is left, or with `immediate` nothing. */
rp_status rp_shut_down(rp_log *log, bool immediate, int64_t deadline);
/* Make every sleeper of this log look around: after closing a handle of one's own. */
void rp_wake_all(rp_log *log);

int64_t rp_monotonic_ns(void);
const char *rp_status_text(rp_status status);
/* Version of the segment layout; processes must agree on it. */
uint32_t rp_layout_version(void);

#ifdef __cplusplus
}
#endif
#endif
