#include "pool.h"

#include <limits.h>

#include "log.h"
#include "pin.h"

/* Length of the run at `at`, or 0: the chain is broken. */
static uint32_t run_length(const rp_log *log, uint32_t at, uint64_t word) {
    uint32_t length = rp_chunk_length(word);
    return length <= log->geometry.chunk_count - at ? length : 0;
}

/* ---- taking back what the dead and the done left ------------------------------------------- */

static bool is_left_over(rp_log *log, uint64_t word, uint64_t position) {
    if (rp_chunk_state(word) == RP_CHUNK_LOANED) return rp_is_dead(log, rp_chunk_owner(word));
    uint64_t limit = rp_keeps_history(log) ? rp_load_acquire(lap, &log->head->oldest) : rp_least_acked(log);
    if (position < limit) return true;
    if (position < rp_load_acquire(commit, &log->head->tail)) return false;
    return rp_is_dead(log, rp_chunk_owner(word)) && position >= rp_load_acquire(commit, &log->head->tail);
}

static rp_status reclaim(rp_log *log) {
    uint32_t count = log->geometry.chunk_count;
    for (uint32_t at = 0; at < count;) {
        uint64_t word = rp_load_acquire(chunk, &log->chunks[at].word);
        uint32_t length = run_length(log, at, word);
        if (length == 0) return RP_CORRUPT;
        if (rp_chunk_state(word) != RP_CHUNK_FREE &&
            is_left_over(log, word, rp_load_relaxed(&log->chunks[at].position)))
            rp_free_unpinned(log, at, word);
        at += length;
    }
    return RP_OK;
}

/* ---- finding room --------------------------------------------------------------------------- */

/* Join the free run at `at` with the free runs behind it, until `wanted` granules or a taken run. */
static uint32_t join_free(rp_log *log, uint32_t at, uint32_t length, uint32_t wanted) {
    uint32_t count = log->geometry.chunk_count;
    while (length < wanted && at + length < count) {
        uint64_t next = rp_load_acquire(chunk, &log->chunks[at + length].word);
        uint32_t more = run_length(log, at + length, next);
        if (more == 0 || rp_chunk_state(next) != RP_CHUNK_FREE) break;
        if (rp_load_relaxed(&log->head->pool_next) == at + length)
            rp_store_relaxed(&log->head->pool_next, at); /* before its head is one no more */
        length += more;
        rp_store_release(chunk, &log->chunks[at].word, rp_chunk_word(RP_CHUNK_FREE, length, 0));
    }
    return length;
}

/* Lend `wanted` granules of the free run at `at`, which has `length`. */
static void lend(rp_log *log, uint32_t at, uint32_t length, uint32_t wanted) {
    if (length > wanted)
        rp_store_release(chunk, &log->chunks[at + wanted].word,
                         rp_chunk_word(RP_CHUNK_FREE, length - wanted, 0));
    rp_pin_clear(log, at, wanted);
    rp_store_release(chunk, &log->chunks[at].word, rp_chunk_word(RP_CHUNK_LOANED, wanted, log->me));
    rp_fence_release(chunk); /* before its bytes change: a cursor may be copying them */
    uint32_t behind = at + wanted < log->geometry.chunk_count ? at + wanted : 0;
    rp_store_relaxed(&log->head->pool_next, behind);
}

/* The first run from `start` on that is free and long enough. */
static rp_status first_fit(rp_log *log, uint32_t start, uint32_t wanted, uint32_t *first) {
    uint32_t count = log->geometry.chunk_count;
    for (uint32_t at = start; at < count;) {
        uint64_t word = rp_load_acquire(chunk, &log->chunks[at].word);
        uint32_t length = run_length(log, at, word);
        if (length == 0) return RP_CORRUPT;
        if (rp_chunk_state(word) == RP_CHUNK_FREE) {
            length = join_free(log, at, length, wanted);
            if (length >= wanted) {
                lend(log, at, length, wanted);
                *first = at;
                return RP_OK;
            }
        }
        at += length;
    }
    return RP_FULL;
}

/* Round and round the pool: granules that were just read rest in the reader's cache, and writing them again at
 * once is slower than taking the next ones. */
static rp_status allocate(rp_log *log, uint32_t wanted, uint32_t *first) {
    rp_status status = first_fit(log, rp_load_relaxed(&log->head->pool_next), wanted, first);
    if (status == RP_FULL) status = first_fit(log, 0, wanted, first);
    if (status != RP_FULL) return status;
    status = reclaim(log);
    return status == RP_OK ? first_fit(log, 0, wanted, first) : status;
}

static rp_status try_borrow(rp_log *log, uint32_t wanted, rp_wait *wait, uint32_t *first) {
    bool died;
    rp_status status = rp_enter(log);
    if (status == RP_OK) status = rp_lock_try(log, &log->head->pool_lock, wait, &died);
    if (status != RP_OK) return status;
    rp_is_found_removed(log, rp_wall_clock_ns()); /* then `state` says so */
    uint32_t state = rp_load_acquire(state, &log->head->state);
    if (state & RP_STATE_DELETED)
        status = RP_DELETED;
    else if (state & RP_STATE_SHUT)
        status = RP_SHUT_DOWN;
    else
        status = allocate(log, wanted, first);
    rp_lock_release(&log->head->pool_lock);
    return status;
}

/* ---- public --------------------------------------------------------------------------------- */

rp_status rp_borrow(rp_log *log, uint64_t length, int64_t deadline, rp_loan *out) {
    if (length > log->geometry.pool_size) return RP_TOO_LARGE;
    uint32_t wanted = (uint32_t)((length + RP_GRANULE - 1) / RP_GRANULE), first;
    if (wanted == 0) wanted = 1;
    rp_wait wait = rp_wait_until(deadline);
    for (;;) {
        rp_status status = try_borrow(log, wanted, &wait, &first);
        if (status == RP_OK) break;
        if (status == RP_BUSY)
            status = rp_lock_sleep(log, &log->head->pool_lock, &wait);
        else if (status == RP_FULL) {
            status = rp_drop_history(log, &wait);
            if (status != RP_OK) status = rp_wait_for_room(log, status, &wait);
        }
        if (status != RP_OK) return status;
    }
    *out = (rp_loan){.data = log->pool + (uint64_t)first * RP_GRANULE,
                     .length = length,
                     .first = first,
                     .granules = wanted};
    return RP_OK;
}

rp_status rp_commit(rp_log *log, rp_loan *loan, const rp_message *parts, int64_t deadline) {
    size_t subject_len = parts->subject_len, headers_len = parts->headers_len;
    if (subject_len > UINT16_MAX || headers_len > UINT32_MAX || subject_len + headers_len > loan->length)
        return RP_INVALID;
    rp_frame header = {.kind = parts->kind,
                       .subject_len = (uint16_t)subject_len,
                       .headers_len = (uint32_t)headers_len,
                       .ttl_ms = parts->ttl_ms};
    rp_descriptor descriptor = {.length = loan->length, .first = loan->first, .granules = loan->granules};
    rp_wait wait = rp_wait_until(deadline);
    for (;;) {
        rp_status status = rp_try_put_descriptor(log, &header, &descriptor, parts->beyond, &wait);
        if (status != RP_BUSY && status != RP_FULL) return status;
        status = rp_wait_for_room(log, status, &wait);
        if (status != RP_OK) return status;
    }
}

void rp_abort(rp_log *log, rp_loan *loan) {
    if (loan->first >= log->geometry.chunk_count) return;
    if (rp_enter(log) != RP_OK) return; /* a forked child: the loan is its parent's */
    uint64_t word = rp_chunk_word(RP_CHUNK_LOANED, loan->granules, log->me);
    rp_cas_release(chunk, &log->chunks[loan->first].word, &word,
                   rp_chunk_word(RP_CHUNK_FREE, loan->granules, 0));
    rp_event_fire(log, RP_EVENT_SPACE, INT_MAX);
}

bool rp_pool_publish(rp_log *log, const rp_descriptor *descriptor, uint64_t position) {
    if (!rp_pool_holds(log, descriptor)) return false;
    rp_chunk *chunk = &log->chunks[descriptor->first];
    if (rp_load_relaxed(&chunk->word) != rp_chunk_word(RP_CHUNK_LOANED, descriptor->granules, log->me))
        return false;
    rp_store_relaxed(&chunk->position, position);
    rp_store_release(chunk, &chunk->word, rp_chunk_word(RP_CHUNK_PUBLISHED, descriptor->granules, log->me));
    return true;
}

void rp_pool_release(rp_log *log, uint32_t first, uint64_t position) {
    rp_chunk *chunk = &log->chunks[first];
    uint64_t word = rp_load_acquire(chunk, &chunk->word);
    if (rp_chunk_state(word) == RP_CHUNK_PUBLISHED && rp_load_relaxed(&chunk->position) == position)
        rp_free_unpinned(log, first, word);
}

bool rp_pool_is_of(const rp_log *log, uint32_t first, uint64_t position) {
    rp_fence_acquire(chunk);
    uint64_t word =
        rp_load_acquire(chunk, &log->chunks[first].word); /* first: its position is from before it */
    return rp_chunk_state(word) == RP_CHUNK_PUBLISHED &&
           rp_load_relaxed(&log->chunks[first].position) == position;
}

bool rp_pool_holds(const rp_log *log, const rp_descriptor *descriptor) {
    return descriptor->first < log->geometry.chunk_count &&
           descriptor->granules <= log->geometry.chunk_count - descriptor->first &&
           descriptor->length <= (uint64_t)descriptor->granules * RP_GRANULE;
}

uint64_t rp_pool_used(rp_log *log) {
    uint64_t granules = 0;
    for (uint32_t at = 0; at < log->geometry.chunk_count;) {
        uint64_t word = rp_load_acquire(chunk, &log->chunks[at].word);
        uint32_t length = run_length(log, at, word);
        if (length == 0) break;
        if (rp_chunk_state(word) != RP_CHUNK_FREE) granules += length;
        at += length;
    }
    return granules * RP_GRANULE;
}
