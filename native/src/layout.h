/* Everything that lies in shared memory, in one place.
 *
 *   page 0          rp_head: superblock, then one 128-byte line for each thing that different parties write
 *   groups          rp_group[group_count]
 *   slots           rp_slot[slot_count]      participants
 *   leases          rp_lease[lease_count]    what consumers hold: lease_count / group_count for each group
 *   chunks          rp_chunk[chunk_count]    who owns which granules of the pool
 *   ring            mapped twice, back to back, so that no frame ever wraps
 *   pool            large payloads and loans
 *
 * No pointer is ever stored here: other processes map it elsewhere. Positions are 64-bit byte counts that
 * only grow; position p lies at ring[p & (ring_size - 1)]. Padding and what is reserved is zero.
 *
 * Invariants (PROTOCOL in docs/design/protocol.md):
 *   I1  `tail` only grows; [oldest, tail) is whole committed frames; the header of the frame to come lies
 *       at `tail` with its sequence filled in. One store of `tail` thus publishes both bytes and number.
 *   I2  frame p is intact if and only if p >= oldest; tail + RP_STUB - oldest <= ring_size.
 *   I3  oldest <= acked <= read <= tail for each gating group; acked <= read <= tail for each stored one, and
 *       oldest <= durable <= tail: what lies below `durable` may be gone here and be found in storage.
 *   I4  each owner word names a participant slot and its generation; a dead one may be replaced by anybody.
 *   I5  no counter here is ever the truth about who is alive or who waits.
 */
#ifndef RP_LAYOUT_H
#define RP_LAYOUT_H

#include "order.h"
#include "ringpost.h"

#define RP_MAGIC          UINT64_C(0x31676f6c2d706e72) /* "rnp-log1" */
#define RP_LAYOUT_VERSION 1u
#define RP_ABI_TAG        ((8u << 16) | (RP_ALIGN << 8) | (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 1 : 2))

#define RP_LINE           128    /* two cache lines: prefetchers fetch pairs */
#define RP_UNIT           65536u /* regions start at multiples of this (64 KiB pages exist) */
#define RP_GRANULE        8192u  /* of the pool */
#define RP_STUB           32u    /* room kept behind `tail` for the next header */
#define RP_MAX_GROUPS     124u   /* events: 4 of the log, then one for each group: 128 bits of `armed` */
#define RP_DEFAULT_GROUPS 4u
#define RP_MAX_LEASES     2048u /* of a group, by default; small logs have fewer */
#define RP_MIN_LEASES     128u
#define RP_SLOTS          1024u
#define RP_MAX_SLOTS      2046u /* 11 bits, without 0 (nobody) and 2047 (somebody dead) */

#define RP_ALIGNED _Alignas(RP_LINE)

typedef _Atomic uint32_t rp_u32;
typedef _Atomic uint64_t rp_u64;

/* Written once, by the creator, before anybody can see the file. `crc` guards the fields behind it. */
typedef struct rp_super {
    uint64_t magic;
    uint32_t layout, abi;
    uint32_t crc, flags;
    uint8_t log_id[16];
    uint8_t boot_id[16];
    uint64_t created_ns, file_size;
    uint64_t ring_offset, ring_size;
    uint64_t pool_offset, pool_size;
    uint64_t groups_offset, slots_offset, leases_offset, chunks_offset;
    uint32_t group_count, slot_count, lease_count, chunk_count;
    uint64_t max_messages;
    uint8_t reserved[352];
} rp_super;
_Static_assert(sizeof(rp_super) == 512, "superblock");
_Static_assert(offsetof(rp_super, flags) == 20, "the checksum covers what follows it");

#define RP_SUPER_HISTORY     1u
#define RP_SUPER_AUTO_DELETE 2u
#define RP_SUPER_BROADCAST   4u
#define RP_SUPER_LEVELS      8u
#define RP_SUPER_STORED      16u

/* A futex lock: W(1) | generation(20) | slot + 1 (11); see lock.h. */
typedef rp_u32 rp_lock;

/* Futex word that counts what happened; see wait.h. */
typedef struct rp_event {
    RP_ALIGNED rp_u32 count;
} rp_event;

enum { RP_EVENT_SPACE, RP_EVENT_BELL, RP_EVENT_JOIN, RP_EVENT_DURABLE, RP_LOG_EVENTS };

enum { RP_STATE_SHUT = 1, RP_STATE_DISCARD = 2, RP_STATE_DELETED = 4 };

typedef struct rp_head {
    rp_super super;
    /* producers */
    RP_ALIGNED rp_lock lock;    /* guards tail */
    rp_u64 limit;               /* cache: frames below it may be overwritten (only under lock) */
    rp_u64 limit_sequence;      /* cache: messages below it were taken (only under lock) */
    rp_u64 known_tail;          /* cache: the stub at this position ... (only under lock) */
    rp_u64 known_sequence;      /* ... has this number; spares a look at a line that consumers read */
    RP_ALIGNED rp_u64 tail;     /* everything below it is committed */
    RP_ALIGNED rp_u64 oldest;   /* everything below it may have been overwritten */
    RP_ALIGNED rp_u64 armed[2]; /* a bit for each event somebody may sleep on */
    rp_u32 state;               /* RP_STATE_* */
    rp_u32 levels;              /* a bit for each further log of this queue; see bell.c */
    rp_u64 alarm_ns;            /* CLOCK_REALTIME: when somebody must look what is scheduled; 0: never */
    rp_u64 watched[2];          /* which bits of `armed` are also those of descriptors; see watch.h */
    RP_ALIGNED rp_lock pool_lock;
    rp_u32 pool_next;          /* a run's head: where to look for room first */
    RP_ALIGNED rp_u64 done;    /* task_done() calls */
    RP_ALIGNED rp_u64 durable; /* everything below it is in storage, or of no use; see stored.h */
    rp_lock commit_lock;       /* of a broker's door: who holds it writes to storage */
    rp_event events[RP_LOG_EVENTS];
    uint8_t reserved[2176];
} rp_head;
_Static_assert(sizeof(rp_head) == 4096, "one page");
_Static_assert(offsetof(rp_head, lock) == 512 && offsetof(rp_head, tail) == 640, "lines");
_Static_assert(offsetof(rp_head, oldest) == 768 && offsetof(rp_head, armed) == 896, "lines");
_Static_assert(offsetof(rp_head, pool_lock) == 1024 && offsetof(rp_head, done) == 1152, "lines");
_Static_assert(offsetof(rp_head, durable) == 1280 && offsetof(rp_head, events) == 1408, "lines");

enum {
    RP_GROUP_FREE = 0,
    RP_GROUP_GATING = 1, /* producers wait for it */
    RP_GROUP_LOSSY = 2,  /* producers overrun it; it is told how much it lost */
    RP_GROUP_STORED = 3, /* producers overrun it, too; what it missed it reads from storage */
};

/* A position, and the sequence of the frame there. */
typedef struct rp_mark {
    rp_u64 position, sequence;
} rp_mark;

typedef struct rp_group {
    RP_ALIGNED rp_lock lock; /* guards everything in this group */
    rp_u32 lease_top;        /* leases in use lie below it */
    rp_u64 read;             /* next frame to hand out for the first time */
    rp_u64 acked;            /* every frame below it is done with */
    rp_u64 seen;             /* cache of tail */
    uint64_t reserved1;
    rp_u64 due_ns;     /* cache: when the first returned lease may be handed out again; 0: none is known */
    rp_u64 checked_ns; /* when leases were last looked over */
    rp_u32 tip;        /* cache: the lease made last, + 1; frames may be added to it */
    rp_u32 starved;    /* somebody found no free lease */
    rp_mark
        marks[2]; /* of a stored or lossy group: the one with `read` has the sequence there; see stored.h */
    rp_event event;
    RP_ALIGNED rp_u32 state; /* RP_GROUP_* */
    rp_u32 owner;            /* slot and generation, for a group that dies with its process; 0: it stays */
    rp_u32 generation;       /* grows with each birth: a handle names it */
    uint32_t reserved0;
    rp_u64 policy; /* of those who opened it: opaque here */
    char name[RP_GROUP_NAME];
    RP_ALIGNED rp_u64 delivered; /* counters, for people */
    rp_u64 acknowledged, redelivered, returned, rejected, expired, dropped, lost;
    RP_ALIGNED char pattern[RP_PATTERN]; /* of subjects it wants; empty: all */
} rp_group;
_Static_assert(sizeof(rp_group) == 768, "six lines");
_Static_assert(offsetof(rp_group, event) == 128 && offsetof(rp_group, state) == 256, "lines");
_Static_assert(offsetof(rp_group, delivered) == 384 && offsetof(rp_group, pattern) == 512, "lines");

/* Up to 64 frames in the hands of one consumer, or given back; see lease.h. */
typedef struct rp_lease {
    rp_u64 position, sequence; /* of the first frame it may hold */
    rp_u64 pending;            /* bit i: the frame with sequence + i is neither acked nor elsewhere */
    rp_u64 deadline_ns; /* CLOCK_MONOTONIC. Held: until then, 0 = for ever. Returned: not before then */
    rp_u64 taken_ns;    /* when it was handed out */
    rp_u32 owner;       /* slot and generation; 0 = free entry; RP_RETURNED */
    rp_u32 id;          /* grows whenever it is handed out: a receipt names it */
    rp_u32 deliveries;
    uint32_t reserved[3];
} rp_lease;
_Static_assert(sizeof(rp_lease) == 64, "lease");

#define RP_RETURNED    0x7ffu /* an owner word that is nobody's */
#define RP_LEASE_WIDTH 64u

enum { RP_SLOT_FREE, RP_SLOT_ACTIVE, RP_SLOT_LEAVING };

/* A participant: one process attached. Its byte's file lock, not this struct, says if it lives. */
typedef struct rp_slot {
    rp_u32 state, generation;
    rp_u32 pid; /* for messages to people */
    uint32_t reserved0;
    rp_u64 born_ns;
    uint8_t reserved[40];
} rp_slot;
_Static_assert(sizeof(rp_slot) == 64, "slot");

/* The head of a run of granules; entries inside a run are no heads, but may be pins. See pool.h, pin.h. */
typedef struct rp_chunk {
    rp_u64 word;     /* state(2) | run length(31) | owner(31) */
    rp_u64 position; /* the frame that published it */
} rp_chunk;
_Static_assert(sizeof(rp_chunk) == 16, "chunk");

_Static_assert(sizeof(rp_frame) == 32 && offsetof(rp_frame, sequence) == 8, "frame");
_Static_assert(sizeof(rp_frame) == RP_STUB, "the stub is the next frame's header");
_Static_assert(sizeof(rp_descriptor) == 16, "descriptor");

#endif
