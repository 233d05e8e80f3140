#include "frames.h"

#include <string.h>

#include "pool.h"

rp_status rp_walk_frames(const rp_log *log, uint64_t from, uint64_t tail, uint64_t size, uint32_t limit,
                         rp_walk *out) {
    *out = (rp_walk){.end = from};
    while (out->count < limit && out->end != tail) {
        uint64_t span = rp_frame_span(log, out->end, tail);
        if (rp_unlikely(span == 0)) return RP_CORRUPT;
        if (rp_unlikely(rp_read_once(rp_frame_at(log, out->end)->flags) & RP_FRAME_LARGE))
            return out->count ? RP_OK : RP_LARGE;
        if (out->end - from + span > size) {
            out->need = span;
            return out->count ? RP_OK : RP_TOO_SMALL;
        }
        out->end += span;
        out->count++;
    }
    return RP_OK;
}

bool rp_check_frames(const void *frames, uint64_t bytes, uint32_t count) {
    uint64_t offset = 0;
    for (uint32_t i = 0; i < count; i++) {
        const rp_frame *frame = (const rp_frame *)((const uint8_t *)frames + offset);
        if (bytes - offset < sizeof *frame || frame->size < sizeof *frame) return false;
        uint64_t span = rp_align(frame->size);
        if (span > bytes - offset || (frame->flags & RP_FRAME_LARGE)) return false;
        if ((uint64_t)frame->subject_len + frame->headers_len > frame->size - sizeof *frame) return false;
        offset += span;
    }
    return offset == bytes;
}

rp_status rp_read_descriptor(const rp_log *log, uint64_t position, rp_frame *frame,
                             rp_descriptor *descriptor) {
    *descriptor = (rp_descriptor){0};
    memcpy(frame, rp_frame_at(log, position), sizeof *frame);
    if (frame->size != sizeof *frame + sizeof *descriptor || !(frame->flags & RP_FRAME_LARGE))
        return RP_CORRUPT;
    memcpy(descriptor, rp_frame_at(log, position) + 1,
           sizeof *descriptor); /* what was out of storage may end here */
    bool sane = rp_pool_holds(log, descriptor) &&
                (uint64_t)frame->subject_len + frame->headers_len <= descriptor->length;
    return sane ? RP_OK : RP_CORRUPT;
}

bool rp_check_frame(const rp_log *log, const rp_frame *frame, uint64_t span) {
    uint64_t length = frame->size - sizeof *frame;
    if (frame->size < sizeof *frame || rp_align(frame->size) != span) return false;
    if (frame->flags & RP_FRAME_LARGE) {
        rp_descriptor descriptor;
        if (length != sizeof descriptor) return false;
        memcpy(&descriptor, frame + 1, sizeof descriptor);
        if (!rp_pool_holds(log, &descriptor)) return false;
        length = descriptor.length;
    }
    return (uint64_t)frame->subject_len + frame->headers_len <= length;
}
