#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "liveness.h"
#include "wait.h"

static rp_log *open_logs; /* of this process; guarded by rp_process_lock */

/* ---- geometry ----------------------------------------------------------------------------- */

static uint64_t round_up(uint64_t n, uint64_t unit) { return (n + unit - 1) / unit * unit; }

static uint32_t checksum(const rp_super *super) { /* FNV-1a */
    uint32_t hash = 2166136261u;
    const uint8_t *bytes = (const uint8_t *)super;
    for (size_t i = offsetof(rp_super, flags); i < sizeof *super; i++) hash = (hash ^ bytes[i]) * 16777619u;
    return hash;
}

static void read_boot_id(uint8_t out[16]) {
    char text[37] = {0};
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    memset(out, 0, 16);
    if (fd < 0) return;
    ssize_t got = read(fd, text, 36);
    close(fd);
    for (ssize_t i = 0, nibble = 0; i < got && nibble < 32; i++) {
        unsigned value;
        if (text[i] == '-' || sscanf((char[]){text[i], 0}, "%x", &value) != 1) continue;
        out[nibble / 2] = (uint8_t)(out[nibble / 2] << 4 | value);
        nibble++;
    }
}

/* Half of the capacity (a power of two) for the ring, the rest for the pool. */
static rp_status plan(const rp_settings *settings, rp_super *super) {
    uint64_t capacity = settings->capacity ? settings->capacity : RP_DEFAULT_CAPACITY;
    if (capacity < RP_MIN_CAPACITY || capacity > RP_MAX_CAPACITY) return RP_INVALID;
    uint32_t groups = settings->groups ? settings->groups : RP_DEFAULT_GROUPS;
    uint32_t leases = settings->leases ? settings->leases : RP_DEFAULT_LEASES;
    if (groups > RP_MAX_GROUPS) return RP_INVALID;
    uint64_t ring = RP_UNIT;
    while (ring * 4 <= capacity) ring *= 2;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);

    memset(super, 0, sizeof *super);
    super->magic = RP_MAGIC;
    super->layout = RP_LAYOUT_VERSION;
    super->abi = RP_ABI_TAG;
    super->flags =
        (settings->keep_history ? RP_SUPER_HISTORY : 0) | (settings->auto_delete ? RP_SUPER_AUTO_DELETE : 0);
    if (getrandom(super->log_id, sizeof super->log_id, 0) != sizeof super->log_id) return RP_SYSTEM;
    read_boot_id(super->boot_id);
    super->created_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    super->max_messages = settings->max_messages;
    super->ring_size = ring;
    super->pool_size = (capacity - ring) / RP_GRANULE * RP_GRANULE;
    super->group_count = groups;
    super->slot_count = RP_SLOTS;
    super->lease_count = leases;
    super->chunk_count = (uint32_t)(super->pool_size / RP_GRANULE);
    super->groups_offset = sizeof(rp_head);
    super->slots_offset = super->groups_offset + (uint64_t)groups * sizeof(rp_group);
    super->leases_offset = super->slots_offset + (uint64_t)RP_SLOTS * sizeof(rp_slot);
    super->chunks_offset = super->leases_offset + (uint64_t)leases * sizeof(rp_lease);
    super->ring_offset =
        round_up(super->chunks_offset + (uint64_t)super->chunk_count * sizeof(rp_chunk), RP_UNIT);
    super->pool_offset = super->ring_offset + ring;
    super->file_size = round_up(super->pool_offset + super->pool_size, RP_UNIT);
    super->crc = checksum(super);
    return RP_OK;
}

/* [offset, offset + count * size) lies behind the head, aligned, and inside `end`. */
static bool fits(uint64_t offset, uint64_t count, uint64_t size, uint64_t alignment, uint64_t end) {
    return offset >= sizeof(rp_head) && offset % alignment == 0 && offset <= end &&
           count <= (end - offset) / size;
}

static rp_status validate(const rp_super *super, uint64_t file_size) {
    if (super->magic != RP_MAGIC) return RP_CORRUPT;
    if (super->layout != RP_LAYOUT_VERSION || super->abi != RP_ABI_TAG) return RP_LAYOUT;
    if (super->crc != checksum(super)) return RP_CORRUPT;
    uint64_t ring = super->ring_size, end = super->ring_offset;
    bool sane = super->file_size == file_size && ring >= RP_UNIT && (ring & (ring - 1)) == 0 &&
                ring <= RP_MAX_CAPACITY && super->group_count >= 1 && super->group_count <= RP_MAX_GROUPS &&
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
    read_boot_id(boot_id);
    return memcmp(boot_id, super->boot_id, 16) == 0 ? RP_OK : RP_STALE;
}

/* ---- opening and mapping -------------------------------------------------------------------- */

/* Locks and shared mappings of files that live on another machine prove nothing about processes here. */
static rp_status check_file_system(int fd) {
    struct statfs fs;
    if (fstatfs(fd, &fs) != 0) return RP_SYSTEM;
    switch ((unsigned long)fs.f_type) {
    case NFS_SUPER_MAGIC:
    case SMB_SUPER_MAGIC:
    case 0xff534d42: /* CIFS */
    case 0xfe534d42: /* SMB2 */
    case V9FS_MAGIC:
    case FUSE_SUPER_MAGIC: return RP_UNSUPPORTED;
    default: return RP_OK;
    }
}

/* Our own, private, plain file; nothing else is looked at. */
static rp_status open_ours(const char *path, int *fd, struct stat *st) {
    *fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (*fd < 0) {
        if (errno == ENOENT) return RP_NOT_FOUND;
        return errno == ELOOP || errno == EACCES || errno == EPERM || errno == EISDIR || errno == ENXIO
                   ? RP_NOT_OURS
                   : RP_SYSTEM;
    }
    rp_status status = RP_OK;
    if (fstat(*fd, st) != 0)
        status = RP_SYSTEM;
    else if (!S_ISREG(st->st_mode) || st->st_uid != geteuid() || (st->st_mode & 077) != 0)
        status = RP_NOT_OURS;
    if (status != RP_OK) close(*fd);
    return status;
}

static rp_status read_super(int fd, uint64_t file_size, rp_super *super) {
    ssize_t got;
    do got = pread(fd, super, sizeof *super, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0) return RP_SYSTEM;
    return got == sizeof *super ? validate(super, file_size) : RP_CORRUPT;
}

int rp_reopen(const rp_log *log) {
    char via_descriptor[64];
    snprintf(via_descriptor, sizeof via_descriptor, "/proc/self/fd/%d", log->probe_fd);
    const char *ways[] = {via_descriptor, log->path};
    for (int i = 0; i < 2; i++) {
        struct stat st;
        int fd = open(ways[i], O_RDWR | O_CLOEXEC | O_NONBLOCK | (i ? O_NOFOLLOW : 0));
        if (fd < 0) continue;
        if (fstat(fd, &st) == 0 && st.st_dev == log->device && st.st_ino == log->inode) return fd;
        close(fd);
    }
    errno = ENOENT;
    return -1;
}

/* The ring twice, back to back, in one reservation. */
static uint8_t *map_ring(int fd, const rp_super *super) {
    uint64_t size = super->ring_size;
    uint8_t *at = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return NULL;
    for (int half = 0; half < 2; half++) {
        void *got = mmap(at + (uint64_t)half * size, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                         (off_t)super->ring_offset);
        if (got == MAP_FAILED) {
            munmap(at, 2 * size);
            return NULL;
        }
    }
    madvise(at, 2 * size, MADV_DONTDUMP);
    return at;
}

/* All mappings but the anchor are made from the probe descriptor's description: a forked child inherits
 * them, and must not keep our slot alive. */
static rp_status map_log(rp_log *log) {
    const rp_super *super = &log->geometry;
    log->file_map = mmap(NULL, super->file_size, PROT_READ | PROT_WRITE, MAP_SHARED, log->probe_fd, 0);
    if (log->file_map == MAP_FAILED) {
        log->file_map = NULL;
        return RP_SYSTEM;
    }
    madvise(log->file_map, super->file_size, MADV_DONTDUMP);
    log->ring = map_ring(log->probe_fd, super);
    if (!log->ring) return RP_SYSTEM;
    uint8_t *base = log->file_map;
    log->head = (rp_head *)base;
    log->groups = (rp_group *)(base + super->groups_offset);
    log->slots = (rp_slot *)(base + super->slots_offset);
    log->chunks = (rp_chunk *)(base + super->chunks_offset);
    log->pool = base + super->pool_offset;
    log->mask = super->ring_size - 1;
    return RP_OK;
}

static void free_log(rp_log *log) {
    int saved = errno;
    if (log->ring) munmap(log->ring, 2 * log->geometry.ring_size);
    if (log->file_map) munmap(log->file_map, log->geometry.file_size);
    if (rp_probe_is_ours(log)) close(log->probe_fd);
    free(log->path);
    free(log);
    errno = saved;
}

static rp_log *new_log(const char *path, int probe_fd, const rp_super *super, const struct stat *st) {
    rp_log *log = calloc(1, sizeof *log);
    if (!log) return NULL;
    log->path = strdup(path);
    log->geometry = *super;
    log->probe_fd = probe_fd;
    log->device = st->st_dev;
    log->inode = st->st_ino;
    log->references = 1;
    log->spin_ns = rp_spin_start();
    return log;
}

static void remember(rp_log *log) {
    log->next = open_logs;
    open_logs = log;
}

/* ---- creating ------------------------------------------------------------------------------- */

static rp_status allocate(int fd, uint64_t size) {
    int result;
    do result = fallocate(fd, 0, 0, (off_t)size);
    while (result != 0 && errno == EINTR);
    if (result != 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) {
        errno = posix_fallocate(fd, 0, (off_t)size);
        result = errno ? -1 : 0;
    }
    if (result == 0) return RP_OK;
    return errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? RP_NO_SPACE : RP_SYSTEM;
}

/* A file without a name; where the file system has none, one with a name nobody guesses. */
static int open_nameless(const char *path, char *temporary, size_t size) {
    char copy[4096];
    snprintf(copy, sizeof copy, "%s", path);
    temporary[0] = 0;
    int fd = open(dirname(copy), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return fd;
    uint64_t random;
    if (getrandom(&random, sizeof random, 0) != sizeof random) return -1;
    snprintf(temporary, size, "%s.%016llx.new", path, (unsigned long long)random);
    return open(temporary, O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
}

static rp_status give_name(int fd, const char *temporary, const char *path) {
    char via_descriptor[64];
    snprintf(via_descriptor, sizeof via_descriptor, "/proc/self/fd/%d", fd);
    const char *from = temporary[0] ? temporary : via_descriptor;
    if (linkat(AT_FDCWD, from, AT_FDCWD, path, temporary[0] ? 0 : AT_SYMLINK_FOLLOW) == 0) return RP_OK;
    return errno == EEXIST ? RP_EXISTS : errno == ENOSPC ? RP_NO_SPACE : RP_SYSTEM;
}

/* Zeroes are right for all but these: tail, read, acked, oldest = 0, and sequence 0 in the stub. */
static void fill_in(rp_log *log) {
    log->head->super = log->geometry;
    log->chunks[0].word = (uint64_t)log->geometry.chunk_count << 31; /* one free run, see pool.h */
    rp_store_release(group, &log->groups[RP_QUEUE_GROUP].state, RP_GROUP_GATING);
}

/* The file has its pages: fill it in, join, and give it its name. */
static rp_status publish(rp_log *log, const char *temporary) {
    rp_status status = map_log(log);
    if (status != RP_OK) return status;
    fill_in(log);
    int own = rp_reopen(log);
    status = own < 0 ? RP_SYSTEM : rp_join_log(log, own);
    if (status != RP_OK) return status;
    status = give_name(log->probe_fd, temporary, log->path);
    if (status != RP_OK) rp_leave_log(log);
    return status;
}

static rp_status build(const char *path, int fd, const char *temporary, const rp_super *super, rp_log **out) {
    struct stat st;
    rp_status status = check_file_system(fd);
    if (status == RP_OK) status = allocate(fd, super->file_size);
    if (status == RP_OK && fstat(fd, &st) != 0) status = RP_SYSTEM;
    rp_log *log = status == RP_OK ? new_log(path, fd, super, &st) : NULL;
    if (!log) {
        int saved = errno;
        close(fd);
        errno = saved;
        return status == RP_OK ? RP_SYSTEM : status;
    }
    rp_process_lock();
    status = publish(log, temporary);
    if (status == RP_OK) {
        remember(log);
        *out = log;
    } else {
        free_log(log);
    }
    rp_process_unlock();
    return status;
}

rp_status rp_create(const char *path, const rp_settings *settings, rp_log **out) {
    char temporary[4200];
    rp_super super;
    rp_status status = plan(settings, &super);
    if (status != RP_OK) return status;
    if (access(path, F_OK) == 0) return RP_EXISTS; /* spare the allocation; linkat decides */
    int fd = open_nameless(path, temporary, sizeof temporary);
    if (fd < 0)
        status = errno == ENOENT ? RP_NOT_FOUND : errno == ENOSPC ? RP_NO_SPACE : RP_SYSTEM;
    else
        status = build(path, fd, temporary, &super, out);
    int saved = errno;
    if (temporary[0]) unlink(temporary);
    errno = saved;
    return status;
}

/* ---- attaching and leaving ------------------------------------------------------------------ */

static rp_log *find_open(const struct stat *st) {
    for (rp_log *log = open_logs; log; log = log->next)
        if (log->device == st->st_dev && log->inode == st->st_ino) return log;
    return NULL;
}

/* Leaving an auto-deleted log: mark our slot LEAVING; if nobody stays, set DYING, look again, and only then
 * unlink. Of two that leave at once each sees the other LEAVING, and both unlink. Whoever joins meanwhile is
 * seen by the second look, or sees DYING itself: full fences on both sides (SYNC join). */
static bool is_dying(rp_log *log) {
    if (!(log->geometry.flags & RP_SUPER_AUTO_DELETE)) return false;
    rp_fence_full(join);
    for (int i = 0; i < 1000; i++) {
        if (!(rp_load_acquire(state, &log->head->state) & RP_STATE_DYING)) return false;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return true;
}

static rp_status attach_new(const char *path, int fd, const struct stat *st, rp_log **out) {
    rp_super super;
    rp_status status = check_file_system(fd);
    if (status == RP_OK) status = read_super(fd, (uint64_t)st->st_size, &super);
    rp_log *log = status == RP_OK ? new_log(path, fd, &super, st) : NULL;
    if (!log) {
        int saved = errno;
        close(fd);
        errno = saved;
        return status == RP_OK ? RP_SYSTEM : status;
    }
    status = map_log(log);
    if (status == RP_OK) {
        int own = rp_reopen(log);
        status = own < 0 ? RP_SYSTEM : rp_join_log(log, own);
    }
    if (status == RP_OK && is_dying(log)) {
        rp_leave_log(log);
        status = RP_NOT_FOUND;
    }
    if (status != RP_OK) {
        free_log(log);
        return status;
    }
    remember(log);
    *out = log;
    return RP_OK;
}

rp_status rp_attach(const char *path, rp_log **out) {
    struct stat st;
    int fd;
    rp_process_lock();
    rp_status status = open_ours(path, &fd, &st);
    if (status == RP_OK) {
        rp_log *log = find_open(&st);
        if (log) {
            log->references++;
            close(fd);
            *out = log;
        } else {
            status = attach_new(path, fd, &st, out);
        }
    }
    rp_process_unlock();
    return status;
}

/* Unlink `path` if it still is this file. */
static void unlink_same(const char *path, dev_t device, ino_t inode) {
    struct stat st;
    if (lstat(path, &st) == 0 && st.st_dev == device && st.st_ino == inode) unlink(path);
}

void rp_leave(rp_log *log) {
    if (!(log->geometry.flags & RP_SUPER_AUTO_DELETE) || !rp_mark_leaving(log)) return;
    if (rp_others_stay(log)) return;
    rp_or_release(state, &log->head->state, RP_STATE_DYING);
    rp_fence_full(join);
    if (rp_others_stay(log))
        rp_and_acq_rel(state, &log->head->state, ~(uint32_t)RP_STATE_DYING);
    else
        unlink_same(log->path, log->device, log->inode);
}

void rp_detach(rp_log *log) {
    rp_process_lock();
    if (--log->references == 0) {
        for (rp_log **at = &open_logs; *at; at = &(*at)->next)
            if (*at == log) {
                *at = log->next;
                break;
            }
        rp_leave(log);
        rp_leave_log(log);
        free_log(log);
    }
    rp_process_unlock();
}

/* ---- removing ------------------------------------------------------------------------------- */

static void tell_deleted(int fd, uint64_t size) {
    rp_super super;
    rp_status status = read_super(fd, size, &super);
    if (status != RP_OK && status != RP_STALE) return; /* noise: nobody can be attached */
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return;
    rp_head *head = map;
    rp_or_release(state, &head->state, RP_STATE_DELETED);
    rp_wake_everybody(head, (rp_group *)((uint8_t *)map + super.groups_offset), super.group_count);
    munmap(map, size);
}

rp_status rp_remove(const char *path) {
    struct stat st;
    int fd;
    rp_status status = open_ours(path, &fd, &st);
    if (status != RP_OK) return status;
    unlink_same(path, st.st_dev, st.st_ino);
    tell_deleted(fd, (uint64_t)st.st_size);
    close(fd);
    return RP_OK;
}

rp_status rp_collect(const char *path) {
    struct stat st;
    int fd;
    rp_super super;
    rp_status status = open_ours(path, &fd, &st);
    if (status != RP_OK) return status;
    status = read_super(fd, (uint64_t)st.st_size, &super);
    bool left_over = status == RP_STALE || (status == RP_OK && (super.flags & RP_SUPER_AUTO_DELETE) &&
                                            !rp_anybody_there(fd, super.slot_count));
    if (left_over) unlink_same(path, st.st_dev, st.st_ino);
    close(fd);
    return left_over ? RP_OK : RP_EXISTS;
}

uint32_t rp_layout_version(void) { return RP_LAYOUT_VERSION; }
