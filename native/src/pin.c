#include "pin.h"

#include <limits.h>
#include <string.h>

#include "frames.h"
#include "group.h"
#include "lease.h"

static bool is_pin(uint64_t word) { return rp_chunk_state(word) == RP_CHUNK_PIN; }

/* Granules that a head may claim, kept within the pool. */
static uint32_t pins_at(const rp_log *log, uint32_t first, uint32_t granules) {
    uint32_t most = log->geometry.chunk_count - first;
    return rp_pins_of(granules < most ? granules : most);
}

void rp_pin_clear(rp_log *log, uint32_t first, uint32_t granules) {
    uint32_t pins = pins_at(log, first, granules);
    for (uint32_t i = 1; i <= pins; i++) rp_store_relaxed(&log->chunks[first + i].word, 0);
}

bool rp_is_pinned(rp_log *log, uint32_t first, uint32_t granules) {
    uint32_t pins = pins_at(log, first, granules);
    for (uint32_t i = 1; i <= pins; i++) {
        uint64_t word = rp_load_acquire(pin, &log->chunks[first + i].word);
        if (rp_unlikely(is_pin(word)) && !rp_is_dead(log, rp_chunk_owner(word))) return true;
    }
    return false;
}

/* P1. */
static rp_status place_pin(rp_log *log, uint32_t first, uint32_t granules, rp_pin *out) {
    static rp_u32 numbers;
    uint32_t number = (rp_add_relaxed(&numbers, 1) & 0x7fffffffu) | 1u << 30;
    uint32_t pins = pins_at(log, first, granules);
    out->word = rp_chunk_word(RP_CHUNK_PIN, number, log->me);
    for (uint32_t i = 1; i <= pins; i++) {
        uint64_t nobody = 0;
        if (rp_load_relaxed(&log->chunks[first + i].word) != 0) continue;
        if (rp_cas_relaxed(&log->chunks[first + i].word, &nobody, out->word)) {
            out->entry = first + i;
            return RP_OK;
        }
    }
    return RP_NO_SLOT;
}

static void take_away(rp_log *log, const rp_pin *pin) {
    uint64_t word = pin->word;
    rp_cas_release(pin, &log->chunks[pin->entry].word, &word, 0);
}

rp_status rp_pin_run(rp_log *log, const rp_descriptor *descriptor, uint64_t position, rp_pin *out) {
    rp_status status = place_pin(log, descriptor->first, descriptor->granules, out);
    if (status != RP_OK) return rp_pool_is_of(log, descriptor->first, position) ? status : RP_NOT_FOUND;
    rp_fence_full_after_rmw(pin);
    if (!rp_pool_is_of(log, descriptor->first, position)) {
        take_away(log, out);
        return RP_NOT_FOUND;
    }
    out->data = log->pool + (uint64_t)descriptor->first * RP_GRANULE;
    out->length = descriptor->length;
    return RP_OK;
}

void rp_free_unpinned(rp_log *log, uint32_t first, uint64_t word) {
    rp_u64 *head = &log->chunks[first].word;
    uint32_t length = rp_chunk_length(word);
    uint64_t ours = rp_chunk_word(RP_CHUNK_LOANED, length, log->me);
    if (rp_is_pinned(log, first, length) || !rp_cas_release(chunk, head, &word, ours)) return;
    rp_fence_full_after_rmw(pin);
    uint64_t next = rp_is_pinned(log, first, length) ? rp_chunk_word(RP_CHUNK_PUBLISHED, length, log->me)
                                                     : rp_chunk_word(RP_CHUNK_FREE, length, 0);
    rp_cas_release(chunk, head, &ours, next);
}

/* ---- public --------------------------------------------------------------------------------- */

rp_status rp_pin_received(rp_log *log, uint32_t group, const rp_receipt *receipt, const rp_frame *frame,
                          rp_pin *out) {
    rp_descriptor descriptor;
    uint64_t position;
    if (!(frame->flags & RP_FRAME_LARGE)) return RP_INVALID;
    if (!rp_has_joined(log)) return RP_NOT_FOUND; /* a forked child: the receipt is its parent's */
    memcpy(&descriptor, frame + 1, sizeof descriptor);
    if (!rp_pool_holds(log, &descriptor)) return rp_is_stored(log) ? RP_COLD : RP_INVALID;
    rp_status status = rp_lease_position(log, group, receipt, &position);
    if (status != RP_OK) return status;
    status = rp_pin_run(log, &descriptor, position, out);
    return status == RP_NOT_FOUND && rp_is_stored(log) ? RP_COLD : status;
}

rp_status rp_pin_loan(rp_log *log, const rp_loan *loan, rp_pin *out) {
    rp_descriptor descriptor = {.length = loan->length, .first = loan->first, .granules = loan->granules};
    if (rp_enter(log) != RP_OK || !rp_pool_holds(log, &descriptor)) return RP_INVALID;
    if (rp_load_relaxed(&log->chunks[loan->first].word) !=
        rp_chunk_word(RP_CHUNK_LOANED, loan->granules, log->me))
        return RP_INVALID; /* a forked child: the loan is its parent's */
    out->data = loan->data;
    out->length = loan->length;
    return place_pin(log, loan->first, loan->granules, out);
}

void rp_unpin(rp_log *log, const rp_pin *pin) {
    if (pin->entry >= log->geometry.chunk_count) return;
    /* in a forked child the pin is its parent's */
    if (!rp_has_joined(log) || rp_chunk_owner(pin->word) != log->me) return;
    take_away(log, pin);
    rp_signal(log, RP_EVENT_SPACE, INT_MAX);
}
