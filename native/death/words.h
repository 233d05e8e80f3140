/* The invariants of layout.h, read from the raw words while nobody moves.
 *
 * What a lock guards may be half done while its holder is dead in it: then less is asked of it. What is asked of an
 * unlocked group is all of it, so the same check serves right after a death, and after the survivors' repair.
 */
#ifndef WORDS_H
#define WORDS_H

#include "frames.h"
#include "inside.h"
#include "lease.h"
#include "pin.h"
#include "stored.h"

/* Names a slot, and a generation that it has or had. */
static inline void check_owner(const rp_log *log, uint32_t owner, const char *of) {
    uint32_t slot = (owner & RP_SLOT_MASK) - 1, generation = (owner & RP_OWNER_MASK) >> 11;
    if (slot >= log->geometry.slot_count) FAIL("the owner of %s is %#x: no such slot", of, owner);
    if (generation == 0 || generation > rp_load_relaxed(&log->slots[slot].generation))
        FAIL("the owner of %s is %#x: slot %u was never in generation %u", of, owner, slot, generation);
}

static inline bool is_locked(const rp_lock *lock) { return rp_load_relaxed(lock) & RP_OWNER_MASK; }

/* ---- I1, I2: frames ------------------------------------------------------------------------- */

/* May somebody still get it? Then it was not handed out by some group, or is in a lease of it. */
static inline bool is_wanted_by(const rp_log *log, const rp_group *group, uint64_t position,
                                uint64_t sequence) {
    uint32_t count = log->geometry.lease_count / log->geometry.group_count;
    const rp_lease *leases = log->leases + (uint64_t)(group - log->groups) * count;
    if (rp_load_relaxed(&group->state) != RP_GROUP_GATING) return false;
    if (rp_load_relaxed(&group->read) <= position) return true;
    for (uint32_t i = 0; i < count && i < rp_load_relaxed(&group->lease_top); i++) {
        uint64_t bit = sequence - rp_load_relaxed(&leases[i].sequence);
        if (rp_load_relaxed(&leases[i].owner) && bit < RP_LEASE_WIDTH &&
            rp_load_relaxed(&leases[i].pending) >> bit & 1)
            return true;
    }
    return false;
}

static inline bool is_wanted(const rp_log *log, uint64_t position, uint64_t sequence) {
    bool wanted = rp_keeps_history(log);
    for (uint32_t g = 0; g < log->geometry.group_count; g++)
        wanted |= is_wanted_by(log, &log->groups[g], position, sequence);
    return wanted;
}

static inline uint64_t least_acked(const rp_log *log) {
    uint64_t least = rp_load_relaxed(&log->head->tail);
    for (uint32_t g = 0; g < log->geometry.group_count; g++) {
        uint64_t acked = rp_load_relaxed(&log->groups[g].acked);
        if (rp_load_relaxed(&log->groups[g].state) == RP_GROUP_GATING && acked < least) least = acked;
    }
    return least;
}

/* A frame that somebody may still read has its run of the pool, all of it. */
static inline void check_payload(const rp_log *log, uint64_t position) {
    rp_descriptor descriptor;
    rp_frame frame;
    if (rp_read_descriptor(log, position, &frame, &descriptor) != RP_OK)
        FAIL("the large frame at %" PRIu64 " is nonsense", position);
    const rp_chunk *run = &log->chunks[descriptor.first];
    uint64_t word = rp_load_relaxed(&run->word);
    if (rp_chunk_state(word) != RP_CHUNK_PUBLISHED || rp_chunk_length(word) != descriptor.granules ||
        rp_load_relaxed(&run->position) != position)
        FAIL("the payload of the large frame at %" PRIu64 " is gone", position);
}

static inline void check_frames(const rp_log *log) {
    uint64_t oldest = rp_load_relaxed(&log->head->oldest), tail = rp_load_relaxed(&log->head->tail);
    uint64_t at = oldest;
    CHECK(oldest <= tail && oldest % RP_ALIGN == 0 && tail % RP_ALIGN == 0);
    CHECK(tail + RP_STUB - oldest <= log->geometry.ring_size);
    uint64_t sequence = rp_frame_at(log, oldest)->sequence;
    for (; at != tail; sequence++) {
        const rp_frame *frame = rp_frame_at(log, at);
        uint64_t span = rp_frame_span(log, at, tail);
        if (span == 0) FAIL("no frame at %" PRIu64 ", below the tail", at);
        if (frame->sequence != sequence)
            FAIL("the frame at %" PRIu64 " has the number %" PRIu64 ", not %" PRIu64, at, frame->sequence,
                 sequence);
        if (frame->flags & RP_FRAME_LARGE) {
            if (is_wanted(log, at, sequence)) check_payload(log, at);
        } else {
            CHECK(frame->flags == 0 && span <= rp_align(RP_FRAME_MAX));
            CHECK((uint64_t)frame->subject_len + frame->headers_len <= frame->size - sizeof *frame);
        }
        at += span;
    }
    CHECK_EQ(rp_frame_at(log, tail)->sequence, sequence);
    uint64_t known = rp_load_relaxed(&log->head->known_tail);
    if (known == tail) CHECK_EQ(rp_load_relaxed(&log->head->known_sequence), sequence);
    CHECK(rp_load_relaxed(&log->head->limit) <= tail);
}

/* ---- I4: leases ----------------------------------------------------------------------------- */

typedef struct lease_table {
    const rp_lease *leases;
    uint32_t count, top;
} lease_table;

static inline lease_table leases_of(const rp_log *log, const rp_group *group) {
    uint32_t count = log->geometry.lease_count / log->geometry.group_count;
    return (lease_table){.leases = log->leases + (uint64_t)(group - log->groups) * count,
                         .count = count,
                         .top = rp_load_relaxed(&group->lease_top)};
}

/* A frame that was handed out is acked, or in exactly one lease; in two, one of them returned, while a dead process
 * was moving it from one to the other. */
static inline void check_held_once(const lease_table *all, uint64_t sequence, bool half_done) {
    uint32_t holders = 0, returned = 0;
    for (uint32_t i = 0; i < all->top; i++) {
        const rp_lease *lease = &all->leases[i];
        uint64_t bit = sequence - rp_load_relaxed(&lease->sequence);
        uint32_t owner = rp_load_relaxed(&lease->owner);
        if (owner == 0 || bit >= RP_LEASE_WIDTH || !(rp_load_relaxed(&lease->pending) >> bit & 1)) continue;
        holders++;
        returned += owner == RP_RETURNED;
    }
    if (holders <= 1) return;
    if (!half_done || returned == 0) FAIL("%u leases hold the frame %" PRIu64, holders, sequence);
}

static inline void check_lease(const rp_log *log, const rp_lease *lease, uint64_t acked, uint64_t read,
                               bool half_done) {
    uint32_t owner = rp_load_relaxed(&lease->owner);
    uint64_t position = rp_load_relaxed(&lease->position), sequence = rp_load_relaxed(&lease->sequence);
    uint64_t pending = rp_load_relaxed(&lease->pending), tail = rp_load_relaxed(&log->head->tail);
    if (owner == 0) return;
    if (owner != RP_RETURNED) check_owner(log, owner, "a lease");
    CHECK(position % RP_ALIGN == 0 && acked <= position && position < tail);
    CHECK_EQ(rp_frame_at(log, position)->sequence, sequence);
    if (half_done) return;
    uint64_t handed_out = rp_frame_at(log, read)->sequence - sequence;
    CHECK(pending != 0);
    if (handed_out < RP_LEASE_WIDTH && pending >> handed_out) FAIL("a lease holds what nobody got");
}

/* ---- I3: groups ----------------------------------------------------------------------------- */

static inline void check_gating_group(const rp_log *log, const rp_group *group) {
    bool half_done = is_locked(&group->lock);
    uint64_t acked = rp_load_relaxed(&group->acked), read = rp_load_relaxed(&group->read), least = read;
    lease_table all = leases_of(log, group);
    CHECK(rp_load_relaxed(&log->head->oldest) <= acked && acked <= read);
    CHECK(read <= rp_load_relaxed(&log->head->tail));
    CHECK(all.top <= all.count);
    for (uint32_t i = 0; i < all.top; i++) {
        check_lease(log, &all.leases[i], acked, read, half_done);
        uint64_t position = rp_load_relaxed(&all.leases[i].position);
        if (rp_load_relaxed(&all.leases[i].owner) && position < least) least = position;
    }
    for (uint32_t i = all.top; i < all.count; i++) CHECK_EQ(rp_load_relaxed(&all.leases[i].owner), 0);
    for (uint64_t at = acked; at != read; at += rp_frame_span(log, at, read))
        check_held_once(&all, rp_frame_at(log, at)->sequence, half_done);
    if (!half_done) CHECK_EQ(acked, least);
}

static inline void check_lossy_group(const rp_log *log, const rp_group *group) {
    uint64_t read = rp_load_relaxed(&group->read);
    CHECK(read <= rp_load_relaxed(&log->head->tail));
    uint64_t position, sequence;
    if (!rp_glance_at_mark(group, &position, &sequence)) FAIL("a lossy group has no mark where it stands");
    if (read >= rp_load_relaxed(&log->head->oldest)) CHECK_EQ(rp_frame_at(log, read)->sequence, sequence);
}

static inline void check_groups(const rp_log *log) {
    for (uint32_t g = 0; g < log->geometry.group_count; g++) {
        const rp_group *group = &log->groups[g];
        uint32_t state = rp_load_relaxed(&group->state), owner = rp_load_relaxed(&group->owner);
        CHECK(state <= RP_GROUP_STORED);
        if (state == RP_GROUP_FREE) continue;
        if (owner) check_owner(log, owner, "a group");
        if (state == RP_GROUP_GATING) check_gating_group(log, group);
        if (state == RP_GROUP_LOSSY) check_lossy_group(log, group);
    }
}

/* ---- I5: the pool --------------------------------------------------------------------------- */

static inline void check_pool(const rp_log *log) {
    uint32_t count = log->geometry.chunk_count, next = rp_load_relaxed(&log->head->pool_next);
    bool next_is_head = next == 0;
    for (uint32_t at = 0; at < count;) {
        uint64_t word = rp_load_relaxed(&log->chunks[at].word);
        uint32_t length = rp_chunk_length(word), state = rp_chunk_state(word);
        if (length == 0 || length > count - at) FAIL("the chain of runs is broken at %u", at);
        if (state == RP_CHUNK_PIN) FAIL("a pin at %u, where a run begins", at);
        if (state != RP_CHUNK_FREE) check_owner(log, rp_chunk_owner(word), "a run");
        for (uint32_t i = 1; state != RP_CHUNK_FREE && i <= rp_pins_of(length); i++) {
            uint64_t pin = rp_load_relaxed(&log->chunks[at + i].word);
            if (rp_chunk_state(pin) == RP_CHUNK_PIN) check_owner(log, rp_chunk_owner(pin), "a pin");
        }
        next_is_head |= next == at;
        at += length;
    }
    if (!next_is_head) FAIL("%u, where to look for room first, begins no run", next);
}

/* ---- I6: locks ------------------------------------------------------------------------------ */

static inline bool check_lock(const rp_log *log, const rp_lock *lock) {
    uint32_t owner = rp_load_relaxed(lock) & RP_OWNER_MASK;
    if (owner == 0 || owner == RP_LOCK_ORPHAN) return false;
    check_owner(log, owner, "a lock");
    return owner != log->me;
}

/* How many locks others are in. One process holds one at most; but for that of an unused group, which it tries while it
 * opens a group. */
static inline uint32_t check_locks(const rp_log *log) {
    const rp_head *head = log->head;
    uint32_t held = check_lock(log, &head->lock) + check_lock(log, &head->pool_lock);
    held += check_lock(log, &head->commit_lock);
    for (uint32_t g = 0; g < log->geometry.group_count; g++) {
        bool in_group = check_lock(log, &log->groups[g].lock);
        held += in_group && rp_load_relaxed(&log->groups[g].state) != RP_GROUP_FREE;
    }
    return held;
}

/* ---- all of it ------------------------------------------------------------------------------ */

/* `dead`: how many processes may have died in a lock. */
static inline void check_words(const rp_log *log, uint32_t dead) {
    uint32_t held = check_locks(log);
    if (held > dead) FAIL("%u locks are held by %u dead processes", held, dead);
    check_frames(log);
    check_groups(log);
    check_pool(log);
}

/* Positions only grow. `before` is an earlier copy of the file. */
static inline void check_growth(const rp_log *log, const uint8_t *before) {
    const rp_head *old = (const rp_head *)before, *now = log->head;
    const rp_group *old_groups = (const rp_group *)(before + log->geometry.groups_offset);
    CHECK(rp_load_relaxed(&now->tail) >= rp_load_relaxed(&old->tail));
    CHECK(rp_load_relaxed(&now->oldest) >= rp_load_relaxed(&old->oldest));
    CHECK(rp_load_relaxed(&now->done) >= rp_load_relaxed(&old->done));
    for (uint32_t g = 0; g < log->geometry.group_count; g++) {
        const rp_group *was = &old_groups[g], *is = &log->groups[g];
        if (rp_load_relaxed(&was->generation) != rp_load_relaxed(&is->generation) ||
            rp_load_relaxed(&was->state) != RP_GROUP_GATING || rp_load_relaxed(&is->state) != RP_GROUP_GATING)
            continue;
        CHECK(rp_load_relaxed(&is->read) >= rp_load_relaxed(&was->read));
        CHECK(rp_load_relaxed(&is->acked) >= rp_load_relaxed(&was->acked));
    }
}

#endif
