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
    RP_NO_SLOT,     /* every participant slot, group, lease, or pin is in use */
    RP_NO_SPACE,    /* the file system is full */
    RP_EXISTS,
    RP_NOT_FOUND,
    RP_UNSUPPORTED,    /* this file system cannot prove the death of a process */
    RP_INVALID,        /* an argument is out of range */
    RP_SYSTEM,         /* errno says what */
    RP_RETURNED_FIRST, /* messages were given back: rp_receive() hands them out */
    RP_COLD,           /* the ring has lost it: come again with the frames out of storage */
} rp_status;

typedef struct rp_log rp_log;

/* ---- life of a log ------------------------------------------------------------------------ */

typedef struct rp_settings {
    uint64_t capacity;     /* bytes for messages: half ring, half pool; 0 = RP_DEFAULT_CAPACITY */
    uint64_t max_messages; /* unread messages; 0 = bounded by bytes only */
    uint32_t groups;       /* room for so many groups; 0 = default */
    uint32_t leases;       /* so many for each group, of up to 64 frames each; 0 = by capacity */
    bool broadcast;        /* there is no group 0: only groups that are opened get frames */
    bool keep_history;     /* frames stay readable after every group acked them, until overwritten */
    bool auto_delete;      /* the file goes when its last process goes */
    bool levels;           /* this log is the first of several that make one queue */
    bool stored;           /* what the ring can not keep is in storage; see below. With keep_history */
    const uint8_t *log_id; /* 16 bytes; NULL: a new one */
    uint64_t first_position, first_sequence, first_done; /* of a stored log that goes on */
} rp_settings;

/* Create the log `path` and attach to it. RP_EXISTS where there is one. */
rp_status rp_create(const char *path, const rp_settings *settings, rp_log **out);
/* Attach to the log `path`. A process that attaches twice gets the same handle, counted. */
rp_status rp_attach(const char *path, rp_log **out);
/* Give one handle back. Waits 50 ms at most, for somebody who attaches to an auto-deleted log or leaves it. */
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
    uint64_t created_ns;
    bool shut_down, deleted, keep_history, auto_delete, levels, stored;
} rp_info;

rp_status rp_get_info(rp_log *log, rp_info *out);
/* Messages that group 0 has not yet taken: exact when nobody moves. */
rp_status rp_ready(rp_log *log, uint64_t *out);
/* True if not even a one-byte message could be put now. */
rp_status rp_is_full(rp_log *log, bool *out);
/* After RP_STALLED: the pid that held the lock which this thread waited for. For messages to people. */
int32_t rp_holder(void);
/* The inode of the pid namespace that it lives in, where that number means it; 0: unknown. */
uint32_t rp_holder_namespace(void);

/* ---- frames ------------------------------------------------------------------------------- */

#define RP_FRAME_LARGE 1u /* flags: the payload lies in the pool, an rp_descriptor stands here */
#define RP_FRAME_VOID  2u /* it stands in storage for a message that is gone: pass it over */

typedef struct rp_frame {
    uint32_t size; /* bytes of header, subject, headers and body; the next frame is at ALIGN16(size) */
    uint8_t kind;  /* codec of the body: opaque here */
    uint8_t flags;
    uint16_t subject_len;
    uint64_t sequence; /* dense, from 0 */
    uint64_t time_ns;  /* CLOCK_REALTIME when it was put */
    uint32_t headers_len;
    uint32_t ttl_ms; /* after this long it is of no use any more; 0: it always is. For those who take it */
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
    uint32_t ttl_ms;
    uint8_t kind;
    bool beyond; /* also into a log that has max_messages already */
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

/* Messages that are alike but for a few bytes at their end: `count` of `items`, which lie behind one another, each as a
 * frame like `model`, with the `head` bytes behind that (a multiple of RP_ALIGN), then the item. No subject, no headers.
 * Appends as many from the front as fit, in one commit. */
rp_status rp_put_records(rp_log *log, const rp_frame *model, size_t head, const void *items, uint32_t count,
                         int64_t deadline, uint32_t *done);

/* A loan: room in the pool that this process fills in place, then commits as one message (subject,
 * headers, body behind one another). A loan whose process dies is taken back. */
typedef struct rp_loan {
    void *data;
    uint64_t length;
    uint32_t first, granules;
} rp_loan;

rp_status rp_borrow(rp_log *log, uint64_t length, int64_t deadline, rp_loan *out);
/* `parts`: kind, ttl_ms, subject_len, headers_len. RP_OK ends the loan; after anything else it is still the caller's, to commit again or to abort. */
rp_status rp_commit(rp_log *log, rp_loan *loan, const rp_message *parts, int64_t deadline);
void rp_abort(rp_log *log, rp_loan *loan);

/* ---- taking from a group (competing consumers, at most once) ------------------------------- */

#define RP_QUEUE_GROUP 0u /* the group every log has from birth */
#define RP_GROUP_NAME  64u
#define RP_PATTERN     256u

typedef struct rp_taken {
    uint32_t count;  /* frames copied */
    size_t bytes;    /* bytes copied, whole frames */
    size_t need;     /* with RP_TOO_SMALL: bytes the next frame needs */
    rp_frame frame;  /* with RP_LARGE: its header */
    uint64_t length; /* with RP_LARGE: bytes of its payload */
    uint64_t lost;   /* frames overwritten before these, in a group that does not hold producers back */
    uint64_t cold;   /* with RP_COLD: the position to read from */
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

/* Copy the next frame, which stays where it is. Waits for one. RP_OK: `length` bytes of frames are there with it;
 * RP_LARGE, RP_TOO_SMALL, RP_RETURNED_FIRST as rp_take(); RP_INVALID for a group with a pattern, or a lossy one. */
rp_status rp_peek(rp_log *log, uint32_t group, void *buffer, size_t size, int64_t deadline, rp_taken *out);
/* Take the frames in front that are like `model`: its header, but for sequence and time, and the `head` bytes behind it
 * (a multiple of RP_ALIGN). Of each, the bytes behind those go to `items`, without gaps. Never waits. RP_NOT_FOUND: the
 * first one is different. */
rp_status rp_try_take_records(rp_log *log, uint32_t group, const rp_frame *model, size_t head, void *items,
                              uint32_t limit, rp_taken *out);

/* ---- leasing from a group (at least once) --------------------------------------------------- */

/* What acks a frame. It is good for as long as its process holds the frame. */
typedef struct rp_receipt {
    uint32_t entry, id, bit;
    uint32_t deliveries; /* this one included */
} rp_receipt;

/* As rp_take(), but the frames stay in the log, in the hands of this process, until they are settled. When it
 * dies they are handed out again; also, if `lease` > 0, that many ns after now. What was given back comes first.
 * A large frame comes as its header and descriptor: copy its payload with rp_read_large(), before it is settled. */
rp_status rp_try_receive(rp_log *log, uint32_t group, void *buffer, size_t size, uint32_t limit,
                         int64_t lease, rp_receipt *receipts, rp_taken *out);
rp_status rp_receive(rp_log *log, uint32_t group, void *buffer, size_t size, uint32_t limit, int64_t lease,
                     rp_receipt *receipts, int64_t deadline, rp_taken *out);
/* Copy the payload of a received frame with RP_FRAME_LARGE. RP_NOT_FOUND: it is no longer held, or its payload went
 * when other groups had taken it, while this group was being opened. */
rp_status rp_read_large(rp_log *log, uint32_t group, const rp_receipt *receipt, const rp_frame *frame,
                        void *payload, size_t length);
/* Ack: these frames are done with. *lost: how many of them were no longer this process's; their receipts get
 * the entry UINT32_MAX. In group 0 each is a task done. */
rp_status rp_settle(rp_log *log, uint32_t group, rp_receipt *receipts, uint32_t count, int64_t deadline,
                    uint32_t *lost);
/* Hand these out again, to anybody, `delay` ns from now. `unseen`: they do not count as delivered.
 * RP_NO_SLOT: no lease was free for the last of them (how many are done: *done); they are held still. */
rp_status rp_give_back(rp_log *log, uint32_t group, rp_receipt *receipts, uint32_t count, int64_t delay,
                       bool unseen, int64_t deadline, uint32_t *lost, uint32_t *done);
/* Hold it for `lease` ns from now; 0: as long as this process lives. Frames that came with it, or that were received next
 * without a lease, may share its deadline: it then only moves later. RP_NOT_FOUND: no longer held. */
rp_status rp_extend(rp_log *log, uint32_t group, const rp_receipt *receipt, int64_t lease, int64_t deadline);
/* A glance: does the group have frames in somebody's hands, or given back? */
bool rp_has_leases(rp_log *log, uint32_t group);

/* ---- pins: payloads read in place ----------------------------------------------------------- */

/* While it is there, the payload of a large frame stays as it is, whatever becomes of the frame. It ends by rp_unpin(),
 * or with its process. Private memory of its holder; a forked child has it no more than any other process. */
typedef struct rp_pin {
    const void *data; /* subject, headers and body behind one another */
    uint64_t length;
    uint64_t word; /* what follows is the core's own */
    uint32_t entry;
} rp_pin;

/* Instead of rp_read_large(). RP_NOT_FOUND as there; RP_NO_SLOT: too many pins it already (31, fewer for payloads of
 * less than 256 KiB): copy it. */
rp_status rp_pin_received(rp_log *log, uint32_t group, const rp_receipt *receipt, const rp_frame *frame,
                          rp_pin *out);
/* Instead of rp_take_large(). RP_NO_SLOT as above: nothing was taken. */
rp_status rp_take_pinned(rp_log *log, uint32_t group, uint64_t sequence, uint64_t length, int64_t deadline,
                         rp_pin *out);
/* A loan, before it is committed: so that who filled it may not write into what comes after it. RP_NO_SLOT: it has less
 * than two granules (8193 bytes); RP_INVALID: it is not this process's. */
rp_status rp_pin_loan(rp_log *log, const rp_loan *loan, rp_pin *out);
/* Never waits. */
void rp_unpin(rp_log *log, const rp_pin *pin);

/* ---- groups and cursors -------------------------------------------------------------------- */

typedef struct rp_group_settings {
    const char
        *pattern;      /* of subjects: words and dots, * one word, # any number of words; several with blanks
                          * between; NULL: all */
    uint64_t policy;   /* kept for those who open it again */
    bool from_start;   /* a new one starts at the oldest frame kept, else behind the newest */
    bool lossy;        /* it does not hold producers back */
    bool ends_with_us; /* closed when this process is dead, by whoever is held back by it */
    bool placed;       /* with from_start, in a stored log: a new one starts here */
    uint64_t position, sequence;
} rp_group_settings;

/* Find or make the group `name` (1 to 63 bytes). RP_EXISTS: there is one with other settings.
 * RP_OK: *group, and *made if it is new. */
rp_status rp_group_open(rp_log *log, const char *name, const rp_group_settings *settings, int64_t deadline,
                        uint32_t *group, bool *made);
rp_status rp_group_close(rp_log *log, uint32_t group, int64_t deadline);
/* The same for a group that ends with this process, of which nobody here has a handle any more: never waits. */
void rp_group_abandon(rp_log *log, uint32_t group);

/* Pass over frames until one has at least this sequence and time (CLOCK_REALTIME, ns). */
rp_status rp_group_seek(rp_log *log, uint32_t group, uint64_t sequence, uint64_t time_ns, int64_t deadline);
/* From now on the group wants other subjects: a pattern, or several with blanks between. */
rp_status rp_group_set_pattern(rp_log *log, uint32_t group, const char *pattern, int64_t deadline);

/* Does a subject (words with dots between) match a pattern, or one of several? */
bool rp_subject_matches(const char *pattern, size_t pattern_len, const char *subject, size_t subject_len);

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
    uint64_t large; /* how many of them have RP_FRAME_LARGE */
} rp_range;

rp_status rp_group_range(rp_log *log, uint32_t group, uint64_t position, size_t limit, rp_range *out);
/* Release everything before `position`, a frame's end, in this group. */
rp_status rp_group_advance(rp_log *log, uint32_t group, uint64_t position, int64_t deadline);

/* ---- logs with storage ----------------------------------------------------------------------- */

/* A stored log's ring holds what is new; who writes the rest to storage, and how, is its callers' business. Positions
 * and sequences go on where storage ends. Its groups do not hold producers back; only what is not yet in storage does.
 *
 * Writing: rp_commit_enter() until it says lead; for each log: rp_group_export() of each group; rp_tail(); rp_needed();
 * rp_stored_range() from rp_durable(), or what is needed, to that tail; write and sync; rp_set_durable(). Then
 * rp_commit_leave(). Nobody else's writing goes on meanwhile; who dies in it is found out.
 *
 * Reading: where a call says RP_COLD, its _cold form with frames out of storage that begin at or before out->cold, are
 * contiguous, and have at least 64 frames behind it, or all there are. They are then handed out as if they lay in the
 * ring. RP_EMPTY: none of these; try the usual form again. Payloads of frames with RP_FRAME_LARGE are storage's to
 * know. */

/* Wait until everything below `position` is in storage (RP_OK, *lead = false), or it falls to the caller to write
 * (*lead = true). `door`: the log with the lock that all logs of one storage share. RP_STALLED, RP_INTERRUPTED. */
rp_status rp_commit_enter(rp_log *log, rp_log *door, uint64_t position, int64_t deadline, bool *lead);
void rp_commit_leave(rp_log *door);
uint64_t rp_tail(const rp_log *log);
uint64_t rp_durable(const rp_log *log);
/* Everything below is in storage, or needed by nobody. */
void rp_set_durable(rp_log *log, uint64_t position);
/* The position below which no group needs anything; UINT64_MAX: there is no group. */
uint64_t rp_needed(rp_log *log);
/* Committed frames from `position` (rp_durable() or above) on, at most `limit` bytes, whole frames, in the ring. They
 * stay as they are until rp_set_durable() passes them. */
rp_status rp_stored_range(rp_log *log, uint64_t position, size_t limit, rp_range *out);
/* The same for reading: a copy. RP_COLD: the ring has lost them. */
rp_status rp_copy_frames(rp_log *log, uint64_t position, void *buffer, size_t size, rp_range *out);
/* Where the payload of a large frame of rp_stored_range() lies. NULL: nonsense. */
const void *rp_pool_data(rp_log *log, const rp_descriptor *descriptor);
/* `data` lies in a file that is mapped, shared. What was read there counts as memory of this process, until it lets go
 * of the whole map; reading brings it back. False: it is no such map. */
bool rp_let_go(const void *data);

rp_status rp_take_cold(rp_log *log, uint32_t group, const rp_range *frames, void *buffer, size_t size,
                       uint32_t limit, rp_taken *out);
rp_status rp_receive_cold(rp_log *log, uint32_t group, const rp_range *frames, void *buffer, size_t size,
                          uint32_t limit, int64_t lease, rp_receipt *receipts, rp_taken *out);
rp_status rp_peek_cold(rp_log *log, uint32_t group, const rp_range *frames, void *buffer, size_t size,
                       rp_taken *out);
rp_status rp_take_records_cold(rp_log *log, uint32_t group, const rp_range *frames, const rp_frame *model,
                               size_t head, void *items, uint32_t limit, rp_taken *out);
/* Take the large frame `sequence`, whose payload the caller has. RP_EMPTY: another consumer took it. */
rp_status rp_skip_large(rp_log *log, uint32_t group, uint64_t sequence, const rp_range *frames,
                        int64_t deadline);

/* What is to be stored of a group. */
typedef struct rp_group_state {
    char name[RP_GROUP_NAME], pattern[RP_PATTERN];
    uint64_t policy, read, read_sequence, acked;
    uint32_t held; /* how many rp_held */
    bool stays;    /* it does not end with its process */
} rp_group_state;

/* Up to 64 frames that were handed out, or given back, and not settled. */
typedef struct rp_held {
    uint64_t position, sequence, pending;
    uint32_t deliveries, delay_ms;
} rp_held;

/* RP_TOO_SMALL: there are out->held of them. RP_UNSUPPORTED: not a stored group. */
rp_status rp_group_export(rp_log *log, uint32_t group, rp_group_state *out, rp_held *held, uint32_t size,
                          int64_t deadline);
/* In a log that was just made: a group as it was. What was held will be handed out again. */
rp_status rp_group_import(rp_log *log, const rp_group_state *state, const rp_held *held, int64_t deadline);
/* Ack the frame `sequence` in whosever hands it is, on behalf of a process that decided to, and died. RP_EMPTY: it was
 * not handed out yet; RP_NOT_FOUND: it was settled before. */
rp_status rp_group_discard(rp_log *log, uint32_t group, uint64_t sequence, int64_t deadline);
/* Does this process still hold it? RP_OK, RP_NOT_FOUND. */
rp_status rp_holds(rp_log *log, uint32_t group, const rp_receipt *receipt, int64_t deadline);
/* Go on to a frame, read in storage. */
rp_status rp_group_place(rp_log *log, uint32_t group, uint64_t position, uint64_t sequence, int64_t deadline);

/* ---- introspection -------------------------------------------------------------------------- */

typedef struct rp_group_info {
    char name[RP_GROUP_NAME], pattern[RP_PATTERN];
    uint64_t policy;
    uint64_t ready;     /* frames not yet handed out, or given back */
    uint64_t in_flight; /* in somebody's hands */
    uint64_t delivered, acknowledged, redelivered, returned, rejected, expired, dropped, lost;
    uint64_t oldest_ns; /* CLOCK_REALTIME when its oldest frame that is not done with was put; 0: none */
    uint64_t lag_bytes; /* of the ring, that it keeps from being used again */
    uint32_t handle;
    int32_t pid; /* of the process it ends with; 0: it stays */
    uint32_t pid_namespace;
    bool lossy;
} rp_group_info;

/* RP_NOT_FOUND if there is no such group. */
rp_status rp_get_group_info(rp_log *log, uint32_t group, rp_group_info *out);

typedef struct rp_holding {
    int32_t pid; /* 0: given back */
    uint32_t pid_namespace;
    uint32_t deliveries, frames;
    uint64_t sequence;    /* of its first frame */
    int64_t held_ns;      /* for how long */
    int64_t remaining_ns; /* until it is handed out again; -1: when its holder dies */
} rp_holding;

/* What is in whose hands. Returns how many there are; at most `size` are written. */
uint32_t rp_get_holdings(rp_log *log, uint32_t group, rp_holding *out, uint32_t size);
/* Count, for people: a frame that was rejected, expired, or dropped. */
typedef enum rp_counter { RP_COUNT_REJECTED, RP_COUNT_EXPIRED, RP_COUNT_DROPPED } rp_counter;
void rp_count(rp_log *log, uint32_t group, rp_counter counter, uint64_t by);

/* ---- control ------------------------------------------------------------------------------- */

rp_status rp_task_done(rp_log *log);
rp_status rp_join(rp_log *log, int64_t deadline);
/* No more puts. Takers get what is left, or with `immediate` nothing. */
rp_status rp_shut_down(rp_log *log, bool immediate, int64_t deadline);
/* When waiting calls shall return RP_INTERRUPTED, so that their caller looks what is scheduled: ns of
 * CLOCK_REALTIME; 0: never. For those who keep messages elsewhere until they are due. */
void rp_set_alarm(rp_log *log, uint64_t when_ns);
uint64_t rp_alarm(rp_log *log);
/* Is it past that time? A glance. */
bool rp_alarm_rings(rp_log *log);
/* Make every sleeper of this log look around; this process's return RP_INTERRUPTED. */
void rp_wake_all(rp_log *log);

/* Several logs as one queue: what they share is kept by the first one. Add a level, 0 to 31, after its log was
 * made and before anything is put into it. */
uint32_t rp_levels(rp_log *log); /* a bit for each */
void rp_add_level(rp_log *log, uint32_t level);
/* To wait for any of them: listen, try each one, then wait. RP_OK, RP_INTERRUPTED: try again; RP_EMPTY: the deadline
 * passed; RP_DELETED. Whoever puts something into one of them, or gives something back, rings. */
uint32_t rp_bell_listen(rp_log *log);
rp_status rp_bell_wait(rp_log *log, uint32_t heard, int64_t deadline);
void rp_bell_ring(rp_log *log);

/* ---- descriptors ----------------------------------------------------------------------------- */

/* For event loops: a descriptor that is readable while a try may succeed. It costs others nothing unless it is armed.
 *
 *   try; it fails
 *   rp_watch_clear(), rp_watch_arm(), try again; it fails, too
 *   wait until the descriptor is readable (level-triggered), or what rp_watch_arm() returned is over
 *
 * Each watch belongs to who opened it: two who wait open two. A slice of 100 ms must end the wait, for a waker may have
 * died: at its end rp_watch_look() says if a try is worth it. A timed watch becomes readable by itself at that
 * time. After fork() the child opens its own. */
typedef struct rp_watch rp_watch;

typedef enum rp_watched {
    RP_WATCH_FRAMES, /* in a group */
    RP_WATCH_SPACE,
    RP_WATCH_BELL, /* of several logs as one queue */
    RP_WATCH_JOIN,
} rp_watched;

/* `group` is for RP_WATCH_FRAMES. RP_NOT_OURS, RP_NO_SPACE, RP_NOT_FOUND (its directory is gone), RP_SYSTEM. */
rp_status rp_watch_open(rp_log *log, rp_watched what, uint32_t group, bool timed, rp_watch **out);
/* Before its log is detached. */
void rp_watch_close(rp_watch *watch);
int rp_watch_fd(const rp_watch *watch);
void rp_watch_clear(rp_watch *watch);
/* ns until something is due that nobody will tell of; RP_NEVER. */
int64_t rp_watch_arm(rp_watch *watch);
/* Make a timed watch readable now, until it is armed again: there is more to be had. */
void rp_watch_keep(rp_watch *watch);
/* RP_OK: try; RP_EMPTY: nothing new; RP_DELETED: the file was removed underneath. A glance. */
rp_status rp_watch_look(rp_watch *watch);

int64_t rp_monotonic_ns(void);
const char *rp_status_text(rp_status status);
/* Version of the segment layout; processes must agree on it. */
uint32_t rp_layout_version(void);

#ifdef __cplusplus
}
#endif
#endif
