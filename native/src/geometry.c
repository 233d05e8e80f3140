#include "geometry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static uint64_t round_up(uint64_t n, uint64_t unit) { return (n + unit - 1) / unit * unit; }

uint32_t rp_checksum(const rp_super *super) { /* FNV-1a */
    uint32_t hash = 2166136261u;
    const uint8_t *bytes = (const uint8_t *)super;
    for (size_t i = offsetof(rp_super, flags); i < sizeof *super; i++) hash = (hash ^ bytes[i]) * 16777619u;
    return hash;
}

/* Zeroes where there is none to be had (no /proc). RP_SYSTEM: it could not be read now. */
static rp_status read_boot_id(uint8_t out[16]) {
    char text[37] = {0};
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    memset(out, 0, 16);
    if (fd < 0) return errno == ENOENT || errno == EACCES ? RP_OK : RP_SYSTEM;
    ssize_t got = read(fd, text, 36);
    close(fd);
    for (ssize_t i = 0, nibble = 0; i < got && nibble < 32; i++) {
        unsigned value;
        if (text[i] == '-' || sscanf((char[]){text[i], 0}, "%x", &value) != 1) continue;
        out[nibble / 2] = (uint8_t)(out[nibble / 2] << 4 | value);
        nibble++;
    }
    return RP_OK;
}

/* Whoever does not know takes nothing for left over: it would be removed. */
static bool is_known(const uint8_t id[16]) {
    static const uint8_t unknown[16];
    return memcmp(id, unknown, sizeof unknown) != 0;
}

/* One for each 4 KiB of capacity, within bounds. */
static uint32_t leases_for(uint64_t capacity) {
    uint64_t leases = capacity / 4096;
    return leases < RP_MIN_LEASES ? RP_MIN_LEASES : leases > RP_MAX_LEASES ? RP_MAX_LEASES : (uint32_t)leases;
}

rp_status rp_plan(const rp_settings *settings, rp_super *super) {
    uint64_t capacity = settings->capacity ? settings->capacity : RP_DEFAULT_CAPACITY;
    if (capacity < RP_MIN_CAPACITY || capacity > RP_MAX_CAPACITY) return RP_INVALID;
    uint32_t groups = settings->groups ? settings->groups : RP_DEFAULT_GROUPS;
    uint32_t leases = settings->leases ? settings->leases : leases_for(capacity);
    if (groups > RP_MAX_GROUPS || leases > RP_MAX_LEASES * 64) return RP_INVALID;
    uint64_t ring = RP_UNIT;
    while (ring * 4 <= capacity) ring *= 2;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);

    memset(super, 0, sizeof *super);
    super->magic = RP_MAGIC;
    super->layout = RP_LAYOUT_VERSION;
    super->abi = RP_ABI_TAG;
    super->flags = (settings->keep_history ? RP_SUPER_HISTORY : 0) |
                   (settings->auto_delete ? RP_SUPER_AUTO_DELETE : 0) |
                   (settings->broadcast ? RP_SUPER_BROADCAST : 0) | (settings->levels ? RP_SUPER_LEVELS : 0) |
                   (settings->stored ? RP_SUPER_STORED | RP_SUPER_HISTORY : 0);
    if (settings->log_id)
        memcpy(super->log_id, settings->log_id, sizeof super->log_id);
    else if (getrandom(super->log_id, sizeof super->log_id, 0) != sizeof super->log_id)
        return RP_SYSTEM;
    rp_status status = read_boot_id(super->boot_id);
    if (status != RP_OK) return status;
    super->created_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    super->max_messages = settings->max_messages;
    super->ring_size = ring;
    super->pool_size = (capacity - ring) / RP_GRANULE * RP_GRANULE;
    super->group_count = groups;
    super->slot_count = RP_SLOTS;
    super->lease_count = groups * leases;
    super->chunk_count = (uint32_t)(super->pool_size / RP_GRANULE);
    super->groups_offset = sizeof(rp_head);
    super->slots_offset = super->groups_offset + (uint64_t)groups * sizeof(rp_group);
    super->leases_offset = super->slots_offset + (uint64_t)RP_SLOTS * sizeof(rp_slot);
    super->chunks_offset = super->leases_offset + (uint64_t)super->lease_count * sizeof(rp_lease);
    super->ring_offset =
        round_up(super->chunks_offset + (uint64_t)super->chunk_count * sizeof(rp_chunk), RP_UNIT);
    super->pool_offset = super->ring_offset + ring;
    super->file_size = round_up(super->pool_offset + super->pool_size, RP_UNIT);
    super->crc = rp_checksum(super);
    return RP_OK;
}

/* [offset, offset + count * size) lies behind the head, aligned, and inside `end`. */
static bool fits(uint64_t offset, uint64_t count, uint64_t size, uint64_t alignment, uint64_t end) {
    return offset >= sizeof(rp_head) && offset % alignment == 0 && offset <= end &&
           count <= (end - offset) / size;
}

rp_status rp_validate(const rp_super *super, uint64_t file_size) {
    if (super->magic != RP_MAGIC) return RP_CORRUPT;
    if (super->layout != RP_LAYOUT_VERSION || super->abi != RP_ABI_TAG) return RP_LAYOUT;
    if (super->crc != rp_checksum(super)) return RP_CORRUPT;
    uint64_t ring = super->ring_size, end = super->ring_offset;
    bool sane = super->file_size == file_size && ring >= RP_UNIT && (ring & (ring - 1)) == 0 &&
                ring <= RP_MAX_CAPACITY && super->group_count >= 1 && super->group_count <= RP_MAX_GROUPS &&
                super->lease_count % super->group_count == 0 && super->lease_count >= super->group_count &&
                super->slot_count >= 1 && super->slot_count <= RP_MAX_SLOTS &&
                fits(super->ring_offset, ring, 1, RP_UNIT, file_size) &&
                fits(super->pool_offset, super->pool_size, 1, RP_GRANULE, file_size) &&
                super->chunk_count == super->pool_size / RP_GRANULE && super->chunk_count >= 1 &&
                fits(super->groups_offset, super->group_count, sizeof(rp_group), RP_LINE, end) &&
                fits(super->slots_offset, super->slot_count, sizeof(rp_slot), 64, end) &&
                fits(super->leases_offset, super->lease_count, sizeof(rp_lease), 64, end) &&
                fits(super->chunks_offset, super->chunk_count, sizeof(rp_chunk), 16, end);
    if (!sane) return RP_CORRUPT;
    uint8_t boot_id[16];
    rp_status status = read_boot_id(boot_id);
    if (status != RP_OK || !is_known(boot_id) || !is_known(super->boot_id)) return status;
    return memcmp(boot_id, super->boot_id, 16) == 0 ? RP_OK : RP_STALE;
}
