/* Any bytes as frames out of storage: looked at, taken, received and passed over by a group whose own frames the ring has
 * lost. They lie in a piece of memory of exactly their size.
 *
 * The input: 8 bytes that say how, then the frames.
 */
#include "frames.h"
#include "operations.h"
#include "scenes.h"
#include "stored.h"
#include "subject.h"

#define HEAD 8u

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static scene *stored;
static rp_log *ring;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    make_scenes();
    for (size_t i = 0; i < SCENES; i++)
        if (strcmp(scenes[i].name, "stored") == 0) stored = &scenes[i];
    MUST(stored && rp_attach(stored->path, &ring) == RP_OK);
    memcpy(stored->good, stored->file, stored->size); /* with us in it */
    return 0;
}

/* Without a group: the functions that look at frames. */
static void look_at(const rp_range *frames, const uint8_t *how) {
    rp_view view;
    rp_walk walk;
    rp_descriptor descriptor;
    rp_frame frame;
    uint64_t bytes = frames->end - frames->position;
    rp_view_of(ring, frames, &view);
    rp_check_frames(frames->data, bytes, how[1]);
    for (uint64_t at = view.position; rp_is_in_view(&view, at) && rp_is_sane_in_view(&view, at);) {
        uint64_t span = rp_frame_span(&view.log, at, view.end);
        if (span == 0) break;
        rp_frame_matches(&view.log, at, span, "a.#.b", 5);
        rp_check_frame(&view.log, rp_frame_at(&view.log, at), span);
        if (rp_walk_frames(&view.log, at, view.end, bytes, 1, &walk) == RP_LARGE)
            rp_read_descriptor(&view.log, at, &frame, &descriptor);
        at += span;
    }
}

/* As its consumers do, as often as something comes. */
static void take_from(const rp_range *frames, const uint8_t *how, session *my) {
    rp_taken taken = {0};
    rp_status status;
    uint32_t group = how[2] & 1 ? 0 : 1, limit = 1 + how[3] % 64;
    size_t size = how[4] & 1 ? FRAMES_SIZE : 16u * how[5];
    for (int i = 0; i < 4; i++) {
        my->count = 0;
        if (rp_peek_cold(ring, group, frames, my->frames, size, &taken) == RP_OK) {
            const rp_frame *front = (const rp_frame *)my->frames;
            uint8_t *items = malloc((size_t)limit * front->size);
            read_frames(my, my->frames, taken.bytes, taken.count);
            if (how[6] & 1 && items)
                rp_take_records_cold(ring, group, frames, front, 0, items, limit, &taken);
            free(items);
        }
        if (how[2] & 2) {
            status = rp_receive_cold(ring, group, frames, my->frames, size, limit, 0, my->receipts, &taken);
            my->count = taken.count;
        } else {
            status = rp_take_cold(ring, group, frames, my->frames, size, limit, &taken);
        }
        if (status == RP_OK) read_frames(my, my->frames, taken.bytes, taken.count);
        if (status == RP_LARGE) status = rp_skip_large(ring, group, taken.frame.sequence, frames, trying(my));
        if (status != RP_OK) return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < HEAD) return -1;
    restore_scene(stored);
    uint8_t *exact = malloc(size - HEAD);
    if (!exact) return -1;
    memcpy(exact, data + HEAD, size - HEAD);
    /* the group stands at its beginning, or some bytes behind it */
    uint32_t group = data[2] & 1 ? 0 : 1;
    uint64_t read = rp_load_relaxed(&ring->groups[group].read);
    rp_range frames = {.data = exact, .position = read - data[0]};
    frames.end = frames.position + size - HEAD;
    rp_store_relaxed(&ring->groups[0].lease_top,
                     data[7] & 1 ? rp_load_relaxed(&ring->groups[0].lease_top) : 0);
    session my;
    start_session(&my, ring, 100000);
    look_at(&frames, data);
    take_from(&frames, data, &my);
    end_session(&my);
    free(exact);
    return 0;
}
