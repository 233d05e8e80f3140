/* What only tests may do: look at the words in shared memory and write them as a dead process left them. */
#ifndef INSIDE_H
#define INSIDE_H

#include "geometry.h"
#include "group.h"
#include "harness.h"
#include "log.h"
#include "pool.h"

/* ---- participants --------------------------------------------------------------------------- */

typedef struct participant {
    rp_log *log;
    _Atomic uint32_t *owner;
} participant;

static inline void say_who(void *argument) {
    participant *who = argument;
    rp_info info;
    CHECK_OK(rp_get_info(who->log, &info)); /* joins */
    atomic_store(who->owner, who->log->me);
}

static inline void join_and_die(void *argument) {
    say_who(argument);
    raise(SIGKILL);
}

/* The owner word of a process that took part and was killed. */
static inline uint32_t dead_owner(rp_log *log) {
    participant who = {.log = log, .owner = shared_memory(sizeof *who.owner)};
    int status = wait_for(start_process(join_and_die, &who));
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    uint32_t owner = atomic_load(who.owner);
    CHECK(owner != 0 && owner != log->me);
    EVENTUALLY(rp_is_dead(log, owner)); /* its address space goes a little later than its parent is told */
    return owner;
}

static inline void join_and_stay(void *argument) {
    say_who(argument);
    for (;;) pause();
}

/* A process that takes part, does nothing, and lives until it is killed. */
static inline pid_t start_idler(rp_log *log, uint32_t *owner) {
    participant who = {.log = log, .owner = shared_memory(sizeof *who.owner)};
    pid_t child = start_process(join_and_stay, &who);
    EVENTUALLY(atomic_load(who.owner) != 0);
    *owner = atomic_load(who.owner);
    return child;
}

static inline uint32_t participants(rp_log *log) {
    rp_info info;
    CHECK_OK(rp_get_info(log, &info));
    return info.participants;
}

/* ---- the pool ------------------------------------------------------------------------------- */

/* The chain of heads leads exactly to the end; how many granules are in use. */
static inline uint32_t walk_pool(const rp_log *log) {
    uint32_t used = 0, at = 0, count = log->geometry.chunk_count;
    while (at < count) {
        uint64_t word = rp_load_acquire(chunk, &log->chunks[at].word);
        uint32_t length = rp_chunk_length(word);
        if (length == 0 || length > count - at)
            FAIL("the run at %u has %u of %u granules", at, length, count);
        if (rp_chunk_state(word) != RP_CHUNK_FREE) used += length;
        at += length;
    }
    return used;
}

static inline void set_chunk(rp_log *log, uint32_t at, uint32_t state, uint32_t granules, uint32_t owner) {
    rp_store_relaxed(&log->chunks[at].word, rp_chunk_word(state, granules, owner));
}

/* Nothing of the pool is lost: all of it can be had in one piece. */
static inline void check_pool_is_whole(rp_log *log) {
    rp_loan loan;
    walk_pool(log);
    CHECK_OK(rp_borrow(log, log->geometry.pool_size, RP_NOW, &loan));
    CHECK_EQ(loan.granules, log->geometry.chunk_count);
    CHECK_EQ(walk_pool(log), log->geometry.chunk_count);
    rp_abort(log, &loan);
    CHECK_EQ(walk_pool(log), 0);
}

/* ---- invariants ----------------------------------------------------------------------------- */

/* I1 to I3 of layout.h, while nobody moves. */
static inline void check_invariants(const rp_log *log) {
    uint64_t oldest = rp_load_relaxed(&log->head->oldest), tail = rp_load_relaxed(&log->head->tail);
    CHECK(oldest <= tail && tail + RP_STUB - oldest <= log->geometry.ring_size);
    uint64_t sequence = rp_frame_at(log, oldest)->sequence;
    for (uint64_t at = oldest; at != tail; sequence++) {
        uint64_t span = rp_frame_span(log, at, tail);
        CHECK(span != 0);
        CHECK_EQ(rp_frame_at(log, at)->sequence, sequence);
        at += span;
    }
    CHECK_EQ(rp_frame_at(log, tail)->sequence, sequence);
    for (uint32_t g = 0; g < log->geometry.group_count; g++) {
        const rp_group *group = &log->groups[g];
        if (rp_load_relaxed(&group->state) != RP_GROUP_GATING) continue;
        uint64_t acked = rp_load_relaxed(&group->acked), read = rp_load_relaxed(&group->read);
        CHECK(oldest <= acked && acked <= read && read <= tail);
    }
}

#endif
