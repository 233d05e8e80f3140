/* Private cursors: lock-free readers that hold nobody back.
 *
 * A producer gives frames up (oldest = ..., release fence) before it overwrites them. So a reader copies
 * first, then fences and looks at `oldest`: if its position is still at or above it, every byte of the copy
 * is from before the overwriting; else the copy is thrown away.                    SYNC lap, commit
 *
 * The reader writes nothing to shared memory: its death leaves nothing.
 */
#include <string.h>

#include "frames.h"
#include "pool.h"

#define LAPS 1000 /* in one call: no producer is so fast, `oldest` is nonsense */

rp_status rp_cursor_open(rp_log *log, bool from_start, rp_cursor *out) {
    for (int laps = 0; laps < LAPS; laps++) {
        uint64_t oldest = rp_load_acquire(lap, &log->head->oldest);
        uint64_t tail = rp_load_acquire(commit, &log->head->tail);
        uint64_t position = from_start ? oldest : tail;
        if (oldest % RP_ALIGN || tail % RP_ALIGN || oldest > tail) return RP_CORRUPT;
        uint64_t sequence = rp_read_once(rp_frame_at(log, position)->sequence);
        rp_fence_acquire(lap);
        if (rp_load_relaxed(&log->head->oldest) > position) continue;
        *out = (rp_cursor){.position = position, .sequence = sequence};
        return RP_OK;
    }
    return RP_CORRUPT;
}

/* Overrun: go on at the oldest frame, and count what is gone. */
static rp_status skip_lost(rp_log *log, rp_cursor *cursor) {
    rp_cursor now;
    rp_status status = rp_cursor_open(log, true, &now);
    if (status != RP_OK) return status;
    if (now.position < cursor->position || now.sequence < cursor->sequence) return RP_CORRUPT;
    now.lost = cursor->lost + (now.sequence - cursor->sequence);
    *cursor = now;
    return RP_OK;
}

static bool is_lapped(rp_log *log, const rp_cursor *cursor) {
    rp_fence_acquire(lap);
    return rp_load_relaxed(&log->head->oldest) > cursor->position;
}

/* One large frame: its payload behind its header, as if it had been inline. RP_EMPTY: its run is gone. */
static rp_status read_large(rp_log *log, const rp_cursor *cursor, uint8_t *buffer, size_t size,
                            rp_taken *out) {
    rp_descriptor descriptor;
    rp_status status = rp_read_descriptor(log, cursor->position, &out->frame, &descriptor);
    if (status != RP_OK) return status;
    out->need = sizeof(rp_frame) + rp_align(descriptor.length);
    if (descriptor.length > UINT32_MAX - sizeof(rp_frame) || out->need > size) return RP_TOO_SMALL;
    rp_frame *frame = (rp_frame *)buffer;
    *frame = out->frame;
    frame->size = (uint32_t)(sizeof(rp_frame) + descriptor.length);
    frame->flags = 0;
    memcpy(frame + 1, log->pool + (uint64_t)descriptor.first * RP_GRANULE, descriptor.length);
    if (!rp_pool_is_of(log, descriptor.first, cursor->position)) return RP_EMPTY;
    out->count = 1;
    out->bytes = out->need;
    return RP_OK;
}

static rp_status read_frames(rp_log *log, const rp_cursor *cursor, uint64_t tail, void *buffer, size_t size,
                             uint32_t limit, rp_taken *out, uint64_t *end) {
    rp_walk walk;
    rp_status status = rp_walk_frames(log, cursor->position, tail, size, limit, &walk);
    if (status == RP_LARGE) {
        *end = cursor->position + rp_align(sizeof(rp_frame) + sizeof(rp_descriptor));
        return read_large(log, cursor, buffer, size, out);
    }
    out->need = walk.need;
    if (status != RP_OK) return status;
    uint64_t bytes = walk.end - cursor->position;
    memcpy(buffer, rp_frame_at(log, cursor->position), bytes);
    if (!rp_check_frames(buffer, bytes, walk.count)) return RP_CORRUPT;
    *end = walk.end;
    out->count = walk.count;
    out->bytes = bytes;
    return RP_OK;
}

rp_status rp_cursor_read(rp_log *log, rp_cursor *cursor, void *buffer, size_t size, uint32_t limit,
                         rp_taken *out) {
    uint64_t start = cursor->position;
    int laps = 0;
    out->count = 0;
    out->bytes = 0;
    for (;;) {
        uint64_t tail = rp_load_acquire(commit, &log->head->tail), end = 0;
        if (tail == cursor->position) return RP_EMPTY;
        rp_status status = rp_sane_range(log, cursor->position, tail)
                               ? read_frames(log, cursor, tail, buffer, size, limit, out, &end)
                               : RP_CORRUPT;
        if (is_lapped(log, cursor)) { /* whatever was seen may have been half overwritten */
            out->count = 0;
            out->bytes = 0;
            status = ++laps < LAPS ? skip_lost(log, cursor) : RP_CORRUPT;
            if (status != RP_OK) return status;
            start = cursor->position;
            continue;
        }
        if (status == RP_EMPTY) { /* without history a run may go before its frame does */
            cursor->position = end;
            cursor->sequence++;
            cursor->lost++;
            if (cursor->position - start >= log->geometry.ring_size)
                return RP_EMPTY; /* none of those that were there */
            continue;
        }
        if (status != RP_OK) return status;
        cursor->position = end;
        cursor->sequence += out->count;
        return RP_OK;
    }
}
