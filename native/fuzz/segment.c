/* A valid segment of some kind, mutated, then opened and used, and mutated again while it is open.
 *
 * The input is read byte by byte: a scene, then steps. A step is an edit (a place, what to do to the word there) or a call;
 * edits before the first call find the segment closed. At the end everything is called once.
 */
#include "geometry.h"
#include "operations.h"
#include "scenes.h"

#define STEPS    48
#define PATIENCE INT64_C(100000) /* ns */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct input {
    const uint8_t *at, *end;
} input;

static uint64_t next(input *in, unsigned bytes) {
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes && in->at < in->end; i++) value |= (uint64_t)*in->at++ << 8 * i;
    return value;
}

/* ---- edits ---------------------------------------------------------------------------------- */

/* Where a part of the file begins, how long it is, and what its entries' size is. */
typedef struct part {
    uint64_t start, length, entry;
} part;

static part part_of(const scene *at, unsigned which) {
    const rp_super *super = (const rp_super *)at->good;
    const rp_head *head = (const rp_head *)at->good;
    uint64_t tail = atomic_load(&head->tail) & (super->ring_size - 1);
    switch (which % 8) {
    case 0: return (part){offsetof(rp_super, flags), sizeof(rp_super) - offsetof(rp_super, flags), 4};
    case 1: return (part){sizeof(rp_super), sizeof(rp_head) - sizeof(rp_super), 8};
    case 2: return (part){super->groups_offset, super->group_count * sizeof(rp_group), sizeof(rp_group)};
    case 3: return (part){super->slots_offset, 8 * sizeof(rp_slot), sizeof(rp_slot)};
    case 4: return (part){super->leases_offset, super->lease_count * sizeof(rp_lease), sizeof(rp_lease)};
    case 5: return (part){super->chunks_offset, super->chunk_count * sizeof(rp_chunk), sizeof(rp_chunk)};
    case 6: return (part){super->ring_offset, super->ring_size, 16};
    default: return (part){super->ring_offset + (tail > 4096 ? tail - 4096 : 0), 4096, 16}; /* what is new */
    }
}

static uint64_t changed(const scene *at, uint64_t old, unsigned how, input *in) {
    static const uint64_t tempting[] = {0,           1, UINT64_MAX, 0x7ff, 0x800007ff, UINT64_C(1) << 63,
                                        RP_RETURNED, 16};
    const rp_head *head = (const rp_head *)at->file;
    const rp_super *super = (const rp_super *)at->good;
    switch (how % 8) {
    case 0: return next(in, 8);
    case 1: return next(in, 2);
    case 2: return old + 16 * next(in, 1);
    case 3: return old - 16 * next(in, 1);
    case 4: return old ^ UINT64_C(1) << next(in, 1) % 64;
    case 5: return tempting[next(in, 1) % (sizeof tempting / sizeof *tempting)];
    case 6: return atomic_load(&head->tail) + 16 * (next(in, 1) - 128);
    default: return super->ring_size + 8 * (next(in, 1) - 128);
    }
}

static void edit(scene *at, input *in) {
    unsigned which = (unsigned)next(in, 1), how = (unsigned)next(in, 1);
    part where = part_of(at, which);
    uint64_t entry = next(in, 1) % (where.length / where.entry), field = next(in, 1) * 4;
    uint64_t offset = where.start + (where.entry > 16 ? entry * where.entry + field % where.entry
                                                      : (entry * 256 + field) % where.length);
    uint64_t old = 0;
    unsigned width = how & 8 ? 4 : 8;
    if (offset + width > at->size) return;
    memcpy(&old, at->file + offset, width);
    uint64_t value = changed(at, old, how, in);
    memcpy(at->file + offset, &value, width);
    if (offset < sizeof(rp_super) && !(how & 16)) {
        rp_super *super = (rp_super *)at->file;
        super->crc = rp_checksum(super);
    }
}

/* ---- the target ----------------------------------------------------------------------------- */

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    make_scenes();
    return 0;
}

static bool attach(const scene *at, session *my) {
    rp_log *log;
    if (rp_attach(at->path, &log) != RP_OK) return false;
    start_session(my, log, PATIENCE);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, data + size};
    scene *at = &scenes[next(&in, 1) % SCENES];
    session my;
    bool is_open = false;
    restore_scene(at);
    for (int i = 0; i < STEPS && in.at < in.end; i++) {
        unsigned step = (unsigned)next(&in, 1);
        if (step >= 128) {
            edit(at, &in);
            continue;
        }
        if (!is_open && !(is_open = attach(at, &my))) break;
        operations[step % OPERATIONS].run(&my, (uint8_t)next(&in, 1));
    }
    if (is_open || (is_open = attach(at, &my)))
        for (size_t i = 0; i < OPERATIONS; i++) operations[i].run(&my, (uint8_t)(i * 37 + size));
    if (is_open) {
        end_session(&my);
        rp_detach(my.log);
    }
    if (size % 4 == 0) rp_collect(at->path);
    if (size % 4 == 1) rp_remove(at->path);
    return 0;
}
