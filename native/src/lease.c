#include "lease.h"

#include <limits.h>
#include <string.h>

#include "frames.h"
#include "namespaces.h"
#include "pool.h"
#include "stored.h"
#include "subject.h"

#define LOOK_OVER UINT64_C(50000000) /* ns between two looks for dead owners and passed deadlines */
#define TOGETHER  UINT64_C(20000000) /* ns: what is given back for about the same time shares a lease */
#define PUT_OFF   UINT64_C(20000000) /* ns: so long rests what was given back and finds no lease for a part */

/* ---- the table ------------------------------------------------------------------------------ */

typedef struct table {
    rp_lease *leases;
    uint32_t count, top;
} table;

static table table_of(const rp_log *log, const rp_group *group) {
    uint32_t count = log->geometry.lease_count / log->geometry.group_count;
    uint32_t top = rp_load_relaxed(&group->lease_top);
    return (table){.leases = log->leases + (uint64_t)(group - log->groups) * count,
                   .count = count,
                   .top = top <= count ? top : count};
}

static uint32_t owner_of(const rp_lease *lease) { return rp_load_relaxed(&lease->owner); }
static uint64_t pending_of(const rp_lease *lease) { return rp_load_relaxed(&lease->pending); }
static uint32_t bits_in(uint64_t pending) { return (uint32_t)__builtin_popcountll(pending); }

/* A free lease, of the first `most`. */
static rp_lease *find_free(rp_log *log, rp_group *group, uint32_t most) {
    table all = table_of(log, group);
    for (uint32_t i = 0; i < all.top && i < most; i++)
        if (owner_of(&all.leases[i]) == 0) return &all.leases[i];
    if (all.top >= most) return NULL;
    rp_store_relaxed(&group->lease_top, all.top + 1);
    rp_keep_order();
    return &all.leases[all.top];
}

static bool is_only_free_one(const table *all, const rp_lease *lease) {
    for (uint32_t i = 0; i < all->top; i++)
        if (owner_of(&all->leases[i]) == 0 && &all->leases[i] != lease) return false;
    return all->top == all->count;
}

/* Half of the table is for splitting: each lease that is held may need one for what of it is given back. And the
 * last free lease is for splitting wherever it lies, so that a full table always has two of the same frames. */
static rp_lease *look_for_hand_out(rp_log *log, rp_group *group) {
    uint32_t count = log->geometry.lease_count / log->geometry.group_count;
    rp_lease *lease = find_free(log, group, count / 2);
    table all = table_of(log, group);
    return lease && is_only_free_one(&all, lease) ? NULL : lease;
}

static rp_lease *find_free_for_hand_out(rp_log *log, rp_group *group) {
    rp_lease *lease = look_for_hand_out(log, group);
    rp_store_relaxed(&group->starved, lease == NULL);
    return lease;
}

static rp_lease *find_free_for_split(rp_log *log, rp_group *group) {
    return find_free(log, group, log->geometry.lease_count / log->geometry.group_count);
}

/* One more for the same frames: they could share. */
static rp_lease *find_free_to_spare(rp_log *log, rp_group *group) {
    return find_free(log, group, log->geometry.lease_count / log->geometry.group_count * 3 / 4);
}

void rp_lease_find_acked(rp_log *log, rp_group *group) {
    table all = table_of(log, group);
    while (all.top && owner_of(&all.leases[all.top - 1]) == 0) all.top--;
    rp_store_relaxed(&group->lease_top, all.top);
    uint64_t least = rp_load_relaxed(&group->read);
    for (uint32_t i = 0; i < all.top; i++) {
        uint64_t position = rp_load_relaxed(&all.leases[i].position);
        if (owner_of(&all.leases[i]) && position < least) least = position;
    }
    if (least > rp_load_relaxed(&group->acked)) rp_store_release(release, &group->acked, least);
}

void rp_lease_clear(rp_log *log, rp_group *group) {
    table all = table_of(log, group);
    for (uint32_t i = 0; i < all.count; i++) rp_store_relaxed(&all.leases[i].owner, 0);
    rp_store_relaxed(&group->lease_top, 0);
    rp_store_relaxed(&group->settling, 0);
    rp_store_relaxed(&group->due_ns, 0);
    rp_store_relaxed(&group->tip, 0);
    rp_store_relaxed(&group->starved, 0);
}

void rp_lease_count(rp_log *log, const rp_group *group, uint64_t *returned, uint64_t *held) {
    table all = table_of(log, group);
    *returned = *held = 0;
    for (uint32_t i = 0; i < all.top; i++) {
        uint32_t owner = owner_of(&all.leases[i]);
        if (owner) *(owner == RP_RETURNED ? returned : held) += bits_in(pending_of(&all.leases[i]));
    }
}

bool rp_has_leases(rp_log *log, uint32_t handle) {
    rp_group *group = rp_group_of(log, handle);
    return group && rp_load_relaxed(&group->lease_top) != 0;
}

/* ---- repair, and looking over --------------------------------------------------------------- */

/* What R2 or G2 has put into another lease already, or M into one that was repaired before this one. */
static uint64_t elsewhere(const table *all, const rp_lease *lease) {
    uint64_t bits = 0, sequence = rp_load_relaxed(&lease->sequence);
    const rp_lease *end = owner_of(lease) == RP_RETURNED ? lease : &all->leases[all->top];
    for (const rp_lease *other = all->leases; other < end; other++) {
        if (owner_of(other) == RP_RETURNED && rp_load_relaxed(&other->sequence) == sequence)
            bits |= pending_of(other);
    }
    return bits;
}

/* Bits of the frames below `sequence`, the first that nobody got. */
static uint64_t handed_out(const rp_lease *lease, uint64_t sequence) {
    uint64_t first = rp_load_relaxed(&lease->sequence);
    if (first >= sequence) return 0;
    return sequence - first >= RP_LEASE_WIDTH ? UINT64_MAX : (UINT64_C(1) << (sequence - first)) - 1;
}

/* S0. */
static void begin_settling(rp_group *group, const table *all, const rp_lease *lease) {
    rp_store_relaxed(&group->settled_before, rp_load_relaxed(&group->settled));
    rp_store_relaxed(&group->pending_before, pending_of(lease));
    rp_keep_order();
    rp_store_relaxed(&group->settling, (uint32_t)(lease - all->leases) + 1);
    rp_keep_order();
}

/* The end of S2; may be done again. */
static void end_settling(rp_group *group, const table *all) {
    uint32_t settling = rp_load_relaxed(&group->settling);
    if (settling == 0) return;
    if (settling <= all->count) {
        uint64_t gone = rp_load_relaxed(&group->pending_before) & ~pending_of(&all->leases[settling - 1]);
        rp_keep_order();
        rp_store_release(done, &group->settled, rp_load_relaxed(&group->settled_before) + bits_in(gone));
    }
    rp_keep_order();
    rp_store_relaxed(&group->settling, 0);
}

void rp_lease_repair(rp_log *log, rp_group *group, uint64_t sequence) {
    table all = table_of(log, group);
    end_settling(group, &all); /* before any bit is cleared for another reason */
    for (uint32_t i = 0; i < all.top; i++) {
        rp_lease *lease = &all.leases[i];
        if (owner_of(lease) == 0) continue;
        uint64_t pending = pending_of(lease) & handed_out(lease, sequence) & ~elsewhere(&all, lease);
        rp_store_relaxed(&lease->pending, pending);
        if (pending == 0) rp_store_relaxed(&lease->owner, 0);
    }
    rp_store_relaxed(&group->tip, 0);
    rp_store_relaxed(&group->checked_ns, 0);
    rp_store_relaxed(&group->due_ns, 1);
    rp_lease_move_acked(log, group);
}

static void return_lease(rp_lease *lease, uint64_t due) {
    rp_store_relaxed(&lease->deadline_ns, due);
    rp_keep_order();
    rp_store_relaxed(&lease->owner, RP_RETURNED);
}

static bool is_forfeited(rp_log *log, const rp_lease *lease, uint64_t now) {
    uint64_t deadline = rp_load_relaxed(&lease->deadline_ns);
    return (deadline && deadline <= now) || rp_is_dead(log, owner_of(lease));
}

/* When the first returned lease is due. */
static void note_due(rp_log *log, rp_group *group) {
    table all = table_of(log, group);
    uint64_t due = UINT64_MAX;
    for (uint32_t i = 0; i < all.top; i++) {
        uint64_t when = rp_load_relaxed(&all.leases[i].deadline_ns);
        if (owner_of(&all.leases[i]) == RP_RETURNED && when < due) due = when;
    }
    rp_store_relaxed(&group->due_ns, due == UINT64_MAX ? 0 : due ? due : 1);
}

/* Take back what the dead hold, and what was held for too long. */
static void look_over(rp_log *log, rp_group *group, uint64_t now) {
    table all = table_of(log, group);
    for (uint32_t i = 0; i < all.top; i++) {
        rp_lease *lease = &all.leases[i];
        if (owner_of(lease) == 0 || owner_of(lease) == RP_RETURNED) continue;
        if (is_forfeited(log, lease, now)) return_lease(lease, 0);
    }
    note_due(log, group);
    rp_store_relaxed(&group->checked_ns, now);
}

bool rp_lease_is_due(rp_log *log, rp_hold *hold) {
    uint64_t now = rp_machine_ns();
    if (now - rp_load_relaxed(&hold->group->checked_ns) >= LOOK_OVER) look_over(log, hold->group, now);
    uint64_t due = rp_load_relaxed(&hold->group->due_ns);
    return due && due <= now;
}

/* ---- merging ---------------------------------------------------------------------------------- */

#define PLACES 1024u /* of a table that finds leases of the same frames */
#define PASSES 8

/* M. What both held comes as late as the later, and counts as delivered as often as the other. */
static rp_lease *merge(rp_lease *into, rp_lease *from) {
    uint64_t due = rp_load_relaxed(&from->deadline_ns);
    uint32_t deliveries = rp_load_relaxed(&from->deliveries);
    if (due > rp_load_relaxed(&into->deadline_ns)) rp_store_relaxed(&into->deadline_ns, due);
    if (deliveries > rp_load_relaxed(&into->deliveries)) rp_store_relaxed(&into->deliveries, deliveries);
    rp_store_relaxed(&into->pending, pending_of(into) | pending_of(from));
    rp_keep_order();
    rp_store_relaxed(&from->owner, 0);
    return from;
}

/* Two returned leases of the same frames, due until `due`, become one, the first of them `kept` if that is one of
 * them. Each pass sorts them into other places: two that are driven apart by a third meet in the next one. */
static rp_lease *merge_some(const table *all, rp_lease *kept, uint64_t due, uint64_t seed) {
    uint32_t places[PLACES] = {0};
    for (uint32_t i = 0; i < all->top; i++) {
        rp_lease *lease = &all->leases[i];
        if (owner_of(lease) != RP_RETURNED || rp_load_relaxed(&lease->deadline_ns) > due) continue;
        uint64_t sequence = rp_load_relaxed(&lease->sequence);
        uint32_t *place = &places[sequence * (seed | 1) >> 32 & (PLACES - 1)];
        rp_lease *other = *place ? &all->leases[*place - 1] : NULL;
        if (other && rp_load_relaxed(&other->sequence) == sequence)
            return lease == kept ? merge(lease, other) : merge(other, lease);
        *place = i + 1;
    }
    return NULL;
}

/* The table is full: make one free, rather of those that are due. NULL: others hold what could be merged. */
static rp_lease *merge_any(rp_log *log, rp_group *group, rp_lease *kept, uint64_t now) {
    table all = table_of(log, group);
    for (uint64_t pass = 0; pass < PASSES; pass++) {
        uint64_t seed = (now + pass) * UINT64_C(0x9e3779b97f4a7c15);
        rp_lease *lease = merge_some(&all, kept, pass < PASSES / 2 ? now : UINT64_MAX, seed);
        if (lease) return lease;
    }
    return NULL;
}

/* ---- handing out ---------------------------------------------------------------------------- */

typedef struct handing {
    rp_log *log;
    const rp_view *view; /* frames out of storage; NULL: none */
    rp_hold hold;
    uint8_t *buffer;
    rp_receipt *receipts;
    size_t size, used;
    uint32_t limit, count;
    uint64_t now, deadline; /* 0: none */
    size_t need;            /* of the frame that did not fit */
    uint64_t cold;          /* with RP_COLD */
    bool stuck;             /* no lease is free for a part of what was given back */
} handing;

/* H2. RP_OK, RP_TOO_SMALL, RP_CORRUPT. */
static rp_status copy_frame(handing *to, const rp_log *frames, uint64_t position, uint64_t span,
                            uint64_t sequence) {
    if (span > to->size - to->used) {
        to->need = span;
        return RP_TOO_SMALL;
    }
    rp_frame *copy = (rp_frame *)(to->buffer + to->used);
    memcpy(copy, rp_frame_at(frames, position), span);
    if (copy->sequence != sequence || !rp_check_frame(frames, copy, span)) return RP_CORRUPT;
    to->used += span;
    return RP_OK;
}

static void write_receipts(handing *to, const table *all, const rp_lease *lease, uint64_t bits) {
    for (; bits; bits &= bits - 1)
        to->receipts[to->count++] = (rp_receipt){.entry = (uint32_t)(lease - all->leases),
                                                 .id = rp_load_relaxed(&lease->id),
                                                 .bit = (uint32_t)__builtin_ctzll(bits),
                                                 .deliveries = rp_load_relaxed(&lease->deliveries)};
}

/* H1, R1: everything but the owner. */
static void fill_in(const handing *to, rp_lease *lease, uint64_t pending, uint32_t deliveries) {
    rp_store_relaxed(&lease->pending, pending);
    rp_store_relaxed(&lease->id, rp_load_relaxed(&lease->id) + 1);
    rp_store_relaxed(&lease->deliveries, deliveries);
    rp_store_relaxed(&lease->deadline_ns, to->deadline);
    rp_store_relaxed(&lease->taken_ns, to->now);
    rp_keep_order();
}

static rp_status cold_at(handing *to, uint64_t position) {
    to->cold = position;
    return RP_COLD;
}

/* Copy as many pending frames of a returned lease as go, as far as `end`. RP_EMPTY: the first one lies behind it. */
static rp_status copy_pending(handing *to, const rp_log *frames, uint64_t end, const rp_lease *lease,
                              uint64_t *bits) {
    uint64_t position = rp_load_relaxed(&lease->position), sequence = rp_load_relaxed(&lease->sequence);
    uint64_t pending = pending_of(lease);
    uint32_t room = to->limit - to->count;
    if (!rp_sane_range(frames, position, end)) return RP_CORRUPT;
    for (uint32_t i = 0; i < RP_LEASE_WIDTH && pending >> i && room; i++) {
        if (position == end) return *bits ? RP_OK : RP_EMPTY;
        uint64_t span = rp_frame_span(frames, position, end);
        if (span == 0) return RP_CORRUPT;
        if (pending >> i & 1) {
            rp_status status = copy_frame(to, frames, position, span, sequence + i);
            if (status != RP_OK) return status;
            *bits |= UINT64_C(1) << i;
            room--;
        }
        position += span;
    }
    return RP_OK;
}

/* Out of the ring, or out of the view if the lease begins there. */
static rp_status copy_returned(handing *to, const rp_lease *lease, uint64_t *bits) {
    uint64_t position = rp_load_relaxed(&lease->position), read = to->hold.read;
    size_t used = to->used;
    *bits = 0;
    if (rp_is_in_view(to->view, position)) {
        if (!rp_is_sane_in_view(to->view, position)) return RP_CORRUPT;
        uint64_t end = read < to->view->end ? read : to->view->end;
        rp_status status = copy_pending(to, &to->view->log, end, lease, bits);
        if (status != RP_EMPTY) return status;
        /* The view was made when the log was shorter; or what follows is missing, and whoever is asked for it says so. */
        return end < read ? cold_at(to, end) : RP_CORRUPT;
    }
    if (rp_is_cold(to->log, position)) return cold_at(to, position);
    rp_status status = copy_pending(to, to->log, read, lease, bits);
    if (rp_likely(!rp_is_cold(to->log, position))) return status == RP_EMPTY ? RP_CORRUPT : status;
    to->used = used;
    *bits = 0;
    return cold_at(to, position);
}

/* For R2. Without one, who settles is asked to wake those who wait. */
static rp_lease *find_for_part(handing *to, rp_lease *from) {
    rp_lease *lease = find_free_for_split(to->log, to->hold.group);
    if (!lease) lease = merge_any(to->log, to->hold.group, from, to->now);
    if (!lease) rp_store_relaxed(&to->hold.group->starved, 1);
    to->stuck = !lease;
    return lease;
}

/* Storage need not be asked: not all of it goes, and for a part there is no lease. (False: RP_COLD is next. A merge may
 * have put frames into `from` that are not due.) */
static bool is_stuck_behind_ring(handing *to, rp_lease *from) {
    uint64_t position = rp_load_relaxed(&from->position);
    return bits_in(pending_of(from)) > to->limit - to->count && !rp_is_in_view(to->view, position) &&
           rp_is_cold(to->log, position) && !find_for_part(to, from);
}

/* R1, R2. The lease that now holds `bits` for us, or NULL: none was free. */
static rp_lease *take_over(handing *to, rp_lease *from, uint64_t bits) {
    uint32_t deliveries = rp_load_relaxed(&from->deliveries) + 1;
    if (pending_of(from) == bits) { /* ours first: a returned lease with our deadline would rest until then */
        rp_store_relaxed(&from->owner, to->log->me);
        rp_keep_order();
        fill_in(to, from, bits, deliveries);
        return from;
    }
    rp_lease *lease = find_for_part(to, from);
    if (!lease) return NULL;
    rp_store_relaxed(&lease->position, rp_load_relaxed(&from->position));
    rp_store_relaxed(&lease->sequence, rp_load_relaxed(&from->sequence));
    fill_in(to, lease, bits, deliveries);
    rp_store_relaxed(&lease->owner, to->log->me);
    rp_keep_order();
    rp_store_relaxed(&from->pending, pending_of(from) & ~bits);
    return lease;
}

static uint64_t first_pending(const rp_lease *lease) {
    uint64_t pending = pending_of(lease);
    return rp_load_relaxed(&lease->sequence) + (pending ? (uint32_t)__builtin_ctzll(pending) : 0);
}

/* The due lease with the lowest sequence. */
static rp_lease *first_due(const table *all, uint64_t now) {
    rp_lease *first = NULL;
    for (uint32_t i = 0; i < all->top; i++) {
        rp_lease *lease = &all->leases[i];
        if (owner_of(lease) != RP_RETURNED || rp_load_relaxed(&lease->deadline_ns) > now) continue;
        if (!first || first_pending(lease) < first_pending(first)) first = lease;
    }
    return first;
}

static rp_status hand_out_again(handing *to) {
    rp_status status = RP_OK;
    while (to->count < to->limit && status == RP_OK) {
        table all = table_of(to->log, to->hold.group);
        rp_lease *from = first_due(&all, to->now), *lease;
        uint64_t bits;
        size_t used = to->used;
        if (!from) break;
        if (pending_of(from) == 0) { /* nonsense: nobody gives nothing back. It would be due for ever */
            rp_store_relaxed(&from->owner, 0);
            break;
        }
        if (is_stuck_behind_ring(to, from)) break;
        status = copy_returned(to, from, &bits);
        if (status == RP_CORRUPT || status == RP_COLD || bits == 0) break;
        lease = take_over(to, from, bits);
        if (!lease) {
            to->used = used;
            status = RP_OK; /* where the rest did not fit, too: there is no lease for what did */
            break;
        }
        uint32_t before = to->count;
        write_receipts(to, &all, lease, bits);
        rp_store_relaxed(&to->hold.group->redelivered,
                         rp_load_relaxed(&to->hold.group->redelivered) + to->count - before);
    }
    note_due(to->log, to->hold.group);
    if (to->stuck) rp_store_relaxed(&to->hold.group->due_ns, to->now + PUT_OFF);
    return status;
}

/* The lease made last, if the frame `sequence` may still go into it. */
static rp_lease *find_tip(const handing *to, uint64_t sequence) {
    table all = table_of(to->log, to->hold.group);
    uint32_t tip = rp_load_relaxed(&to->hold.group->tip);
    if (tip == 0 || tip > all.top) return NULL;
    rp_lease *lease = &all.leases[tip - 1];
    bool fits = owner_of(lease) == to->log->me && rp_load_relaxed(&lease->deliveries) == 1 &&
                to->deadline == 0 && rp_load_relaxed(&lease->deadline_ns) == 0 &&
                sequence - rp_load_relaxed(&lease->sequence) < RP_LEASE_WIDTH;
    return fits ? lease : NULL;
}

/* H1. */
static rp_lease *start_lease(handing *to, uint64_t position, uint64_t sequence) {
    rp_group *group = to->hold.group;
    rp_lease *lease = find_free_for_hand_out(to->log, group);
    if (!lease) return NULL;
    rp_store_relaxed(&lease->position, position);
    rp_store_relaxed(&lease->sequence, sequence);
    fill_in(to, lease, 0, 1);
    rp_store_relaxed(&lease->owner, to->log->me);
    rp_store_relaxed(&group->tip, (uint32_t)(lease - table_of(to->log, group).leases) + 1);
    rp_keep_order();
    return lease;
}

static void add_bits(handing *to, rp_lease *lease, uint64_t bits) {
    if (!lease || !bits) return;
    table all = table_of(to->log, to->hold.group);
    rp_store_relaxed(&lease->pending, pending_of(lease) | bits);
    write_receipts(to, &all, lease, bits);
}

/* H1 to H3. */
static rp_status hand_out(handing *to, bool is_viewed) {
    rp_group *group = to->hold.group;
    uint64_t position = to->hold.read, tail = to->hold.tail, bits = 0;
    const rp_log *frames = is_viewed ? &to->view->log : to->log;
    uint64_t sequence = rp_read_once(rp_frame_at(frames, position)->sequence), first = position;
    if (!is_viewed &&
        rp_is_stored_group(group) && /* the ring may have lost it meanwhile, and have anything there */
        (!rp_glance_at_mark(group, &first, &sequence) || first != position))
        return RP_CORRUPT;
    uint32_t count = to->count;
    size_t used = to->used;
    size_t pattern_length = rp_pattern_length(group);
    uint32_t room = to->limit - to->count;
    rp_lease *lease = find_tip(to, sequence);
    uint64_t base =
        lease ? rp_load_relaxed(&lease->sequence) : 0; /* read once: it says which bit is a frame's */
    rp_status status = RP_OK;
    for (; position != tail && room; sequence++) {
        uint64_t span = rp_frame_span(frames, position, tail);
        if (span == 0) {
            status = RP_CORRUPT;
            break;
        }
        if (rp_frame_matches(frames, position, span, group->pattern, pattern_length)) {
            if (!lease || sequence - base >= RP_LEASE_WIDTH) {
                add_bits(to, lease, bits);
                bits = 0;
                lease = start_lease(to, position, sequence);
                if (!lease) break;
                base = sequence;
            }
            status = copy_frame(to, frames, position, span, sequence);
            if (status != RP_OK) break;
            bits |= UINT64_C(1) << (sequence - base);
            room--;
        }
        position += span;
    }
    add_bits(to, lease, bits);
    if (lease && pending_of(lease) == 0) rp_store_relaxed(&lease->owner, 0); /* its first frame did not fit */
    if (rp_unlikely(rp_is_stored(to->log))) {
        if (!is_viewed && rp_is_cold(to->log, to->hold.read)) { /* as if we had died in H2 */
            to->count = count;
            to->used = used;
            rp_glance_at_mark(group, &position, &first);
            rp_lease_repair(to->log, group, first);
            return cold_at(to, to->hold.read);
        }
        rp_mark_next(group, position, sequence);
    }
    rp_store_release(release, &group->read, position);
    rp_lease_move_acked(to->log, group);
    to->hold.read = position;
    return status;
}

/* With frames still in other processes' hands there may be more to come, although the queue is shut. */
static bool others_hold(const handing *to) {
    table all = table_of(to->log, to->hold.group);
    for (uint32_t i = 0; i < all.top; i++) {
        uint32_t owner = owner_of(&all.leases[i]);
        if (owner && owner != to->log->me) return true;
    }
    return false;
}

/* RP_OK: there is a frame at `read`, and hold.tail says how far they go. */
static rp_status look_in_view(handing *to) {
    rp_status status = rp_group_look(to->log, &to->hold);
    if (rp_likely(status != RP_COLD && !to->view)) return status;
    if ((status == RP_OK || status == RP_COLD) && rp_is_in_view(to->view, to->hold.read)) {
        to->hold.tail = to->view->end;
        return rp_is_sane_in_view(to->view, to->hold.read) ? RP_OK : RP_CORRUPT;
    }
    if (status == RP_COLD) to->cold = to->hold.read;
    return status;
}

/* No lease was free for the frame at `read`, and none is: storage need not be asked for it. */
static bool is_starved_behind_ring(const handing *to) {
    uint64_t read, sequence;
    if (!rp_load_relaxed(&to->hold.group->starved)) return false;
    if (rp_glance_at_mark(to->hold.group, &read, &sequence) && find_tip(to, sequence)) return false;
    return !look_for_hand_out(to->log, to->hold.group);
}

static rp_status fill_buffer(handing *to) {
    rp_status status = RP_OK, look;
    if (rp_load_relaxed(&to->hold.group->lease_top) && rp_lease_is_due(to->log, &to->hold))
        status = hand_out_again(to);
    if (status != RP_OK) return status;
    uint64_t start = to->hold.read; /* what is a whole ring behind it was not there when we came */
    while ((look = look_in_view(to)) == RP_OK && to->count < to->limit &&
           to->hold.read - start < to->log->geometry.ring_size) {
        uint64_t read = to->hold.read;
        status = hand_out(to, rp_is_in_view(to->view, read));
        if (status != RP_OK || to->hold.read == read) return status; /* full, or no free lease */
    }
    if (look == RP_SHUT_DOWN && to->count == 0 && others_hold(to) &&
        !(rp_load_relaxed(&to->log->head->state) & RP_STATE_DISCARD))
        return RP_EMPTY;
    return look == RP_COLD && is_starved_behind_ring(to) ? RP_EMPTY : look;
}

static rp_status try_receive(rp_log *log, uint32_t group, const rp_view *view, void *buffer, size_t size,
                             uint32_t limit, int64_t lease, rp_receipt *receipts, rp_wait *wait,
                             rp_taken *out) {
    handing to = {
        .log = log, .view = view, .buffer = buffer, .size = size, .limit = limit, .receipts = receipts};
    out->count = 0;
    out->bytes = 0;
    out->lost = 0;
    rp_status status = rp_group_try_lock(log, group, wait, &to.hold);
    if (status != RP_OK) return status;
    if (to.hold.state == RP_GROUP_LOSSY) return rp_group_unlock(&to.hold, RP_INVALID);
    to.now = rp_machine_ns();
    to.deadline = lease > 0 ? to.now + (uint64_t)lease : 0;
    uint64_t acked = rp_load_relaxed(&to.hold.group->acked), read = to.hold.read;
    status = fill_buffer(&to);
    rp_store_relaxed(&to.hold.group->delivered, rp_load_relaxed(&to.hold.group->delivered) + to.count);
    bool more_room = rp_load_relaxed(&to.hold.group->acked) != acked || /* frames that nobody here wants */
                     (log->geometry.max_messages && to.hold.read != read);
    rp_lock_release(&to.hold.group->lock);
    if (more_room) rp_signal(log, RP_EVENT_SPACE, INT_MAX);
    out->count = to.count;
    out->bytes = to.used;
    out->need = to.need;
    out->cold = to.cold;
    if (to.count) return RP_OK;
    return status == RP_OK ? RP_EMPTY : status;
}

rp_status rp_try_receive(rp_log *log, uint32_t group, void *buffer, size_t size, uint32_t limit,
                         int64_t lease, rp_receipt *receipts, rp_taken *out) {
    return try_receive(log, group, NULL, buffer, size, limit, lease, receipts, NULL, out);
}

rp_status rp_receive_cold(rp_log *log, uint32_t group, const rp_range *frames, void *buffer, size_t size,
                          uint32_t limit, int64_t lease, rp_receipt *receipts, rp_taken *out) {
    rp_view view;
    rp_view_of(log, frames, &view);
    return try_receive(log, group, &view, buffer, size, limit, lease, receipts, NULL, out);
}

/* Frames that no lease is free for are none. */
static bool more_frames(rp_log *log, const void *what) {
    const rp_group *group = what;
    return rp_load_relaxed(&log->head->tail) != rp_load_relaxed(&group->read) &&
           !rp_load_relaxed(&group->starved);
}

int64_t rp_lease_due_in(const rp_group *group) {
    uint64_t due = rp_load_relaxed(&group->due_ns);
    if (due == 0) return RP_NEVER;
    uint64_t now = rp_machine_ns();
    if (due <= now) return 1000000;
    return due - now < INT64_MAX / 2 ? (int64_t)(due - now) + 4000000 : RP_NEVER; /* the clock is coarse */
}

void rp_lease_bound_sleep(const rp_group *group, rp_wait *wait) {
    int64_t due = rp_lease_due_in(group);
    if (due != RP_NEVER) wait->slice = due;
}

rp_status rp_receive(rp_log *log, uint32_t group, void *buffer, size_t size, uint32_t limit, int64_t lease,
                     rp_receipt *receipts, int64_t deadline, rp_taken *out) {
    rp_wait wait = rp_wait_until(deadline);
    rp_group *at = rp_group_of(log, group);
    if (!at) return RP_INVALID;
    uint32_t event = rp_group_event(log, at);
    for (;;) {
        rp_status status = try_receive(log, group, NULL, buffer, size, limit, lease, receipts, &wait, out);
        if (status == RP_BUSY) {
            status = rp_lock_sleep(log, &at->lock, &wait);
        } else if (status == RP_EMPTY) {
            rp_lease_bound_sleep(at, &wait);
            status = rp_event_wait(log, event, &wait, more_frames, at);
        } else {
            if (wait.woken && more_frames(log, at)) rp_event_leave(log, event, &wait);
            return status;
        }
        if (status != RP_OK) {
            rp_event_leave(log, event, &wait);
            return status;
        }
    }
}

/* The lease of this receipt, if we still hold its frame. */
static rp_lease *find_held(const rp_log *log, const table *all, const rp_receipt *receipt) {
    if (receipt->entry >= all->top || receipt->bit >= RP_LEASE_WIDTH) return NULL;
    rp_lease *lease = &all->leases[receipt->entry];
    bool held = owner_of(lease) == log->me && rp_load_relaxed(&lease->id) == receipt->id &&
                (pending_of(lease) >> receipt->bit & 1);
    return held ? lease : NULL;
}

/* From the frame at `position` with this sequence to the wanted one. RP_COLD: it came before that. */
static rp_status walk_to(const rp_log *log, uint64_t position, uint64_t sequence, uint64_t wanted,
                         uint64_t *found) {
    uint64_t tail = rp_load_acquire(commit, &log->head->tail);
    if (!rp_sane_range(log, position, tail)) return RP_CORRUPT;
    if (sequence > wanted) return RP_COLD;
    for (; sequence < wanted; sequence++) {
        uint64_t span = position == tail ? 0 : rp_frame_span(log, position, tail);
        if (span == 0) return RP_CORRUPT;
        position += span;
    }
    *found = position;
    return RP_OK;
}

/* Where the frame of this receipt lies. Those of its lease that come first may be gone, and not this one: RP_COLD only
 * if it is gone, for what is not may not be stored yet. Nothing is believed of a way whose beginning was lost. */
static rp_status find_frame(const rp_log *log, const rp_lease *lease, uint32_t bit, uint64_t *position) {
    uint64_t from = rp_load_relaxed(&lease->position), sequence = rp_load_relaxed(&lease->sequence);
    uint64_t wanted = sequence + bit;
    for (;;) {
        rp_status status = walk_to(log, from, sequence, wanted, position);
        if (!rp_is_cold(log, from)) return status;
        from = rp_load_relaxed(&log->head->oldest);
        sequence = rp_read_once(rp_frame_at(log, from)->sequence);
    }
}

rp_status rp_read_large(rp_log *log, uint32_t handle, const rp_receipt *receipt, const rp_frame *frame,
                        void *payload, size_t length) {
    rp_descriptor descriptor;
    rp_group *group = rp_group_of(log, handle);
    if (!group || !(frame->flags & RP_FRAME_LARGE)) return RP_INVALID;
    memcpy(&descriptor, frame + 1, sizeof descriptor);
    if (descriptor.length != length) return RP_INVALID;
    if (!rp_pool_holds(log, &descriptor)) return rp_is_stored(log) ? RP_COLD : RP_INVALID;
    table all = table_of(log, group);
    rp_lease *lease = find_held(log, &all, receipt);
    if (!lease) return RP_NOT_FOUND;
    uint64_t position;
    rp_status status = find_frame(log, lease, receipt->bit, &position);
    rp_fence_acquire(release);
    if (status != RP_OK && !find_held(log, &all, receipt)) return RP_NOT_FOUND; /* it ended meanwhile */
    if (status != RP_OK) return rp_is_stored(log) ? RP_COLD : status;
    memcpy(payload, log->pool + (uint64_t)descriptor.first * RP_GRANULE, length);
    if (rp_pool_is_of(log, descriptor.first, position)) return RP_OK;
    return rp_is_stored(log) ? RP_COLD : RP_NOT_FOUND;
}

rp_status rp_lease_position(rp_log *log, uint32_t handle, const rp_receipt *receipt, uint64_t *position) {
    rp_group *group = rp_group_of(log, handle);
    if (!group) return RP_INVALID;
    table all = table_of(log, group);
    rp_lease *lease = find_held(log, &all, receipt);
    if (!lease) return RP_NOT_FOUND;
    rp_status status = find_frame(log, lease, receipt->bit, position);
    rp_fence_acquire(release);
    if (find_held(log, &all, receipt) != lease) return RP_NOT_FOUND; /* it ended meanwhile */
    return status != RP_OK && rp_is_stored(log) ? RP_COLD : status;
}

/* ---- settling ------------------------------------------------------------------------------- */

/* S0 to S2: frames of one lease. */
static void ack(rp_group *group, const table *all, rp_lease *lease, uint64_t bits) {
    uint64_t pending = pending_of(lease) & ~bits;
    begin_settling(group, all, lease);
    rp_store_relaxed(&lease->pending, pending);
    rp_keep_order();
    if (pending == 0) rp_store_relaxed(&lease->owner, 0);
    end_settling(group, all);
}

/* The lease of the first receipt, how many of those that follow are for it, too, and their bits. NULL: it is lost. */
static rp_lease *find_together(const rp_log *log, const table *all, const rp_receipt *receipts,
                               uint32_t count, uint32_t *together, uint64_t *bits) {
    rp_lease *lease = find_held(log, all, receipts);
    *together = 1;
    *bits = UINT64_C(1) << receipts->bit % RP_LEASE_WIDTH;
    for (; lease && *together < count; ++*together) {
        const rp_receipt *next = &receipts[*together];
        if (find_held(log, all, next) != lease || (*bits >> next->bit & 1)) break;
        *bits |= UINT64_C(1) << next->bit;
    }
    return lease;
}

/* S3, and the lock is released. `freed`: leases that others may have waited for. */
static void end_of_settling(rp_log *log, rp_group *group, uint32_t count, bool freed) {
    rp_store_relaxed(&group->acknowledged, rp_load_relaxed(&group->acknowledged) + count);
    if (freed) rp_lease_move_acked(log, group);
    bool shut = rp_load_relaxed(&log->head->state) & RP_STATE_SHUT;
    bool wake = freed && (shut || rp_load_relaxed(&group->starved));
    if (wake) {
        rp_store_relaxed(&group->starved, 0);
        note_due(log, group); /* of what was put off */
    }
    rp_lock_release(&group->lock);
    if (freed) rp_signal(log, RP_EVENT_SPACE, INT_MAX);
    if (wake) rp_group_wake(log, group, INT_MAX);
    if (group == log->groups && count) rp_signal(log, RP_EVENT_JOIN, INT_MAX);
}

rp_status rp_settle(rp_log *log, uint32_t group, rp_receipt *receipts, uint32_t count, int64_t deadline,
                    uint32_t *lost) {
    rp_hold hold;
    bool freed = false;
    *lost = 0;
    rp_status status = rp_group_lock(log, group, deadline, &hold);
    if (status != RP_OK) return status;
    table all = table_of(log, hold.group);
    for (uint32_t i = 0, together; i < count; i += together) {
        uint64_t bits;
        rp_lease *lease = find_together(log, &all, &receipts[i], count - i, &together, &bits);
        if (lease) {
            ack(hold.group, &all, lease, bits);
            freed |= pending_of(lease) == 0;
        } else {
            receipts[i].entry = UINT32_MAX;
            ++*lost;
        }
    }
    end_of_settling(log, hold.group, count - *lost, freed);
    return RP_OK;
}

rp_status rp_holds(rp_log *log, uint32_t group, const rp_receipt *receipt, int64_t deadline) {
    rp_hold hold;
    rp_status status = rp_group_lock(log, group, deadline, &hold);
    if (status != RP_OK) return status;
    table all = table_of(log, hold.group);
    return rp_group_unlock(&hold, find_held(log, &all, receipt) ? RP_OK : RP_NOT_FOUND);
}

static rp_lease *find_lease_of(const table *all, uint64_t sequence) {
    for (uint32_t i = 0; i < all->top; i++) {
        rp_lease *lease = &all->leases[i];
        uint64_t bit = sequence - rp_load_relaxed(&lease->sequence);
        if (owner_of(lease) && bit < RP_LEASE_WIDTH && (pending_of(lease) >> bit & 1)) return lease;
    }
    return NULL;
}

rp_status rp_group_discard(rp_log *log, uint32_t group, uint64_t sequence, int64_t deadline) {
    rp_hold hold;
    uint64_t read, next;
    rp_status status = rp_group_lock(log, group, deadline, &hold);
    if (status != RP_OK) return status;
    table all = table_of(log, hold.group);
    rp_lease *lease = find_lease_of(&all, sequence);
    if (!lease) {
        bool is_known = rp_is_stored_group(hold.group) && rp_glance_at_mark(hold.group, &read, &next);
        return rp_group_unlock(&hold, !is_known ? RP_CORRUPT : sequence >= next ? RP_EMPTY : RP_NOT_FOUND);
    }
    ack(hold.group, &all, lease, UINT64_C(1) << (sequence - rp_load_relaxed(&lease->sequence)));
    end_of_settling(log, hold.group, 1, pending_of(lease) == 0);
    return RP_OK;
}

/* ---- giving back ---------------------------------------------------------------------------- */

typedef struct returning {
    rp_log *log;
    rp_group *group;
    uint64_t due;
    bool unseen;
} returning;

static uint32_t deliveries_after(const returning *how, const rp_lease *lease) {
    uint32_t deliveries = rp_load_relaxed(&lease->deliveries);
    return how->unseen && deliveries ? deliveries - 1 : deliveries;
}

/* Returned for about the same time, as often delivered. */
static bool is_alike(const returning *how, const rp_lease *from, const rp_lease *other) {
    uint64_t due = rp_load_relaxed(&other->deadline_ns);
    uint64_t apart = due > how->due ? due - how->due : how->due - due;
    return apart <= TOGETHER && rp_load_relaxed(&other->deliveries) == deliveries_after(how, from);
}

/* A returned lease of the same frames. */
static rp_lease *find_returned(const returning *how, const rp_lease *from, bool alike) {
    table all = table_of(how->log, how->group);
    for (uint32_t i = 0; i < all.top; i++) {
        rp_lease *other = &all.leases[i];
        if (owner_of(other) == RP_RETURNED &&
            rp_load_relaxed(&other->sequence) == rp_load_relaxed(&from->sequence) &&
            (!alike || is_alike(how, from, other)))
            return other;
    }
    return NULL;
}

static bool add_returned(const returning *how, const rp_lease *from, uint64_t bits) {
    bool could_share = find_returned(how, from, false);
    rp_lease *to =
        could_share ? find_free_to_spare(how->log, how->group) : find_free_for_split(how->log, how->group);
    if (!to && !could_share) to = merge_any(how->log, how->group, NULL, rp_machine_ns());
    if (!to) return false;
    rp_store_relaxed(&to->position, rp_load_relaxed(&from->position));
    rp_store_relaxed(&to->sequence, rp_load_relaxed(&from->sequence));
    rp_store_relaxed(&to->pending, bits);
    rp_store_relaxed(&to->deliveries, deliveries_after(how, from));
    return_lease(to, how->due);
    return true;
}

/* G2: into a lease that was returned alike, else a free one, else any that was returned: its frames then come as late
 * as the latest of them, and count as delivered as often as the others there. */
static bool return_some(const returning *how, rp_lease *from, uint64_t bits) {
    rp_lease *to = find_returned(how, from, true);
    bool added = !to && add_returned(how, from, bits);
    if (!to && !added) to = find_returned(how, from, false);
    if (!to && !added) return false;
    if (to) {
        if (how->due > rp_load_relaxed(&to->deadline_ns)) rp_store_relaxed(&to->deadline_ns, how->due);
        rp_store_relaxed(&to->pending, pending_of(to) | bits);
    }
    rp_keep_order();
    rp_store_relaxed(&from->pending, pending_of(from) & ~bits);
    return true;
}

/* G1 or G2. False: no lease was free. */
static bool return_bits(const returning *how, rp_lease *from, uint64_t bits) {
    if (bits == pending_of(from)) {
        rp_store_relaxed(&from->deliveries, deliveries_after(how, from));
        return_lease(from, how->due);
    } else if (!return_some(how, from, bits)) {
        return false;
    }
    uint64_t due = rp_load_relaxed(&how->group->due_ns), mine = how->due ? how->due : 1;
    if (due == 0 || mine < due) rp_store_relaxed(&how->group->due_ns, mine);
    rp_store_relaxed(&how->group->returned, rp_load_relaxed(&how->group->returned) + bits_in(bits));
    return true;
}

rp_status rp_give_back(rp_log *log, uint32_t group, rp_receipt *receipts, uint32_t count, int64_t delay,
                       bool unseen, int64_t deadline, uint32_t *lost, uint32_t *done) {
    rp_hold hold;
    *lost = *done = 0;
    rp_status status = rp_group_lock(log, group, deadline, &hold);
    if (status != RP_OK) return status;
    table all = table_of(log, hold.group);
    returning how = {.log = log, .group = hold.group, .unseen = unseen};
    how.due = delay > 0 ? rp_machine_ns() + (uint64_t)delay : 0;
    while (*done < count) {
        uint64_t bits;
        uint32_t together;
        rp_lease *lease = find_together(log, &all, &receipts[*done], count - *done, &together, &bits);
        if (!lease) {
            receipts[*done].entry = UINT32_MAX;
            ++*lost;
            ++*done;
            continue;
        }
        if (!return_bits(&how, lease, bits)) {
            status = RP_NO_SLOT;
            break;
        }
        *done += together;
    }
    rp_lock_release(&hold.group->lock);
    rp_group_wake(log, hold.group, INT_MAX);
    return status;
}

/* The later of two deadlines; 0 is never. */
static uint64_t later(uint64_t one, uint64_t other) {
    if (one == 0 || other == 0) return 0;
    return one > other ? one : other;
}

rp_status rp_extend(rp_log *log, uint32_t group, const rp_receipt *receipt, int64_t lease, int64_t deadline) {
    rp_hold hold;
    rp_status status = rp_group_lock(log, group, deadline, &hold);
    if (status != RP_OK) return status;
    table all = table_of(log, hold.group);
    rp_lease *held = find_held(log, &all, receipt);
    if (held) {
        uint64_t until = lease > 0 ? rp_machine_ns() + (uint64_t)lease : 0;
        bool is_alone = pending_of(held) == UINT64_C(1) << receipt->bit;
        if (!is_alone) until = later(until, rp_load_relaxed(&held->deadline_ns));
        rp_store_relaxed(&held->deadline_ns, until);
    }
    return rp_group_unlock(&hold, held ? RP_OK : RP_NOT_FOUND);
}

/* ---- introspection -------------------------------------------------------------------------- */

uint32_t rp_get_holdings(rp_log *log, uint32_t handle, rp_holding *out, uint32_t size) {
    rp_group *group = rp_group_of(log, handle);
    if (!group) return 0;
    table all = table_of(log, group);
    uint64_t now = rp_machine_ns();
    uint32_t count = 0;
    for (uint32_t i = 0; i < all.top; i++) {
        const rp_lease *lease = &all.leases[i];
        uint32_t owner = owner_of(lease);
        uint64_t pending = pending_of(lease), deadline = rp_load_relaxed(&lease->deadline_ns);
        if (owner == 0 || pending == 0) continue;
        if (count++ >= size) continue;
        out[count - 1] = (rp_holding){
            .pid = owner == RP_RETURNED ? 0 : rp_pid_of(log, owner),
            .pid_namespace = owner == RP_RETURNED ? 0 : rp_pid_namespace_of(log, owner),
            .deliveries = rp_load_relaxed(&lease->deliveries),
            .frames = bits_in(pending),
            .sequence = rp_load_relaxed(&lease->sequence) + (uint32_t)__builtin_ctzll(pending),
            .held_ns = (int64_t)(now - rp_load_relaxed(&lease->taken_ns)),
            .remaining_ns = deadline               ? (deadline > now ? (int64_t)(deadline - now) : 0)
                            : owner == RP_RETURNED ? 0
                                                   : -1,
        };
    }
    return count;
}

/* ---- storage -------------------------------------------------------------------------------- */

bool rp_lease_sequence_at(const rp_log *log, const rp_group *group, uint64_t position, uint64_t *sequence) {
    table all = table_of(log, group);
    for (uint32_t i = 0; i < all.top; i++) {
        const rp_lease *lease = &all.leases[i];
        if (owner_of(lease) == 0 || rp_load_relaxed(&lease->position) != position) continue;
        *sequence = rp_load_relaxed(&lease->sequence);
        return true;
    }
    return false;
}

uint32_t rp_lease_export(const rp_log *log, const rp_group *group, rp_held *held, uint32_t size) {
    table all = table_of(log, group);
    uint64_t now = rp_machine_ns();
    uint32_t count = 0;
    for (uint32_t i = 0; i < all.top; i++) {
        const rp_lease *lease = &all.leases[i];
        uint64_t deadline = rp_load_relaxed(&lease->deadline_ns);
        uint64_t rest = owner_of(lease) == RP_RETURNED && deadline > now ? (deadline - now) / 1000000 : 0;
        if (owner_of(lease) == 0 || pending_of(lease) == 0 || count++ >= size) continue;
        held[count - 1] = (rp_held){.position = rp_load_relaxed(&lease->position),
                                    .sequence = rp_load_relaxed(&lease->sequence),
                                    .pending = pending_of(lease),
                                    .deliveries = rp_load_relaxed(&lease->deliveries),
                                    .delay_ms = rest < UINT32_MAX ? (uint32_t)rest : UINT32_MAX};
    }
    return count;
}

rp_status rp_lease_import(rp_log *log, rp_group *group, const rp_held *held, uint32_t count) {
    table all = table_of(log, group);
    if (count > all.count) return RP_NO_SLOT;
    for (uint32_t i = 0; i < count; i++) {
        rp_lease *lease = &all.leases[i];
        rp_store_relaxed(&lease->position, held[i].position);
        rp_store_relaxed(&lease->sequence, held[i].sequence);
        rp_store_relaxed(&lease->pending, held[i].pending);
        rp_store_relaxed(&lease->deliveries, held[i].deliveries);
        return_lease(lease, held[i].delay_ms ? rp_machine_ns() + (uint64_t)held[i].delay_ms * 1000000 : 0);
    }
    rp_store_relaxed(&group->lease_top, count);
    note_due(log, group);
    return RP_OK;
}
