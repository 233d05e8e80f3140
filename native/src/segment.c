#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "geometry.h"
#include "liveness.h"
#include "log.h"
#include "place.h"
#include "wait.h"
#include "watch.h"

static rp_log *open_logs; /* of this process; guarded by rp_process_lock */

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

/* Close, and keep errno for the caller. */
static rp_status close_with(int fd, rp_status status) {
    int saved = errno;
    close(fd);
    errno = saved;
    return status;
}

/* A plain file, as private as its directory; nothing else is looked at. */
static rp_status open_in(const rp_place *place, int *fd, struct stat *st) {
    *fd = openat(place->fd, place->name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (*fd < 0) {
        if (errno == ENOENT) return RP_NOT_FOUND;
        return errno == ELOOP || errno == EACCES || errno == EPERM || errno == EISDIR || errno == ENXIO
                   ? RP_NOT_OURS
                   : RP_SYSTEM;
    }
    rp_status status = RP_OK;
    if (fstat(*fd, st) != 0)
        status = RP_SYSTEM;
    else if (!S_ISREG(st->st_mode) || !rp_is_as_private_as(place, st))
        status = RP_NOT_OURS;
    return status == RP_OK ? RP_OK : close_with(*fd, status);
}

static rp_status open_ours(const char *path, int *fd, struct stat *st) {
    rp_place place;
    rp_status status = rp_open_place(path, &place);
    if (status != RP_OK) return status;
    status = open_in(&place, fd, st);
    rp_close_place(&place);
    return status;
}

static rp_status read_super(int fd, uint64_t file_size, rp_super *super) {
    ssize_t got;
    do got = pread(fd, super, sizeof *super, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0) return RP_SYSTEM;
    return got == sizeof *super ? rp_validate(super, file_size) : RP_CORRUPT;
}

int rp_reopen(const rp_log *log) {
    char via_descriptor[64];
    snprintf(via_descriptor, sizeof via_descriptor, "/proc/self/fd/%d", log->probe_fd);
    const char *ways[] = {via_descriptor, log->path};
    int why = ENOENT;
    for (int i = 0; i < 2; i++) {
        struct stat st;
        int fd = open(ways[i], O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (i ? O_NOFOLLOW : 0));
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) why = errno; /* it may be there */
            continue;
        }
        if (fstat(fd, &st) == 0 && st.st_dev == log->device && st.st_ino == log->inode) return fd;
        close(fd);
    }
    errno = why;
    return -1;
}

/* Address space between two guards: who reads or writes beside a mapping is killed, and does not find a neighbour's
 * bytes there. */
static uint8_t *reserve(uint64_t size) {
    uint8_t *at =
        mmap(NULL, size + 2 * RP_UNIT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at + RP_UNIT;
}

static void unmap(uint8_t *at, uint64_t size) {
    if (at) munmap(at - RP_UNIT, size + 2 * RP_UNIT);
}

/* `size` bytes of the file from `offset` on, several times, back to back. */
static uint8_t *map_file(int fd, uint64_t offset, uint64_t size, unsigned times) {
    uint8_t *at = reserve(times * size);
    for (unsigned i = 0; at && i < times; i++) {
        void *got =
            mmap(at + i * size, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)offset);
        if (got == MAP_FAILED) {
            int saved = errno;
            unmap(at, times * size);
            errno = saved;
            return NULL;
        }
    }
    if (at) madvise(at, times * size, MADV_DONTDUMP);
    return at;
}

/* All mappings but the anchor are made from the probe descriptor's description: a forked child inherits
 * them, and must not keep our slot alive. */
static rp_status map_log(rp_log *log) {
    const rp_super *super = &log->geometry;
    log->file_map = map_file(log->probe_fd, 0, super->file_size, 1);
    if (!log->file_map) return RP_SYSTEM;
    log->ring = map_file(log->probe_fd, super->ring_offset, super->ring_size, 2);
    if (!log->ring) return RP_SYSTEM;
    uint8_t *base = log->file_map;
    log->head = (rp_head *)base;
    log->groups = (rp_group *)(base + super->groups_offset);
    log->slots = (rp_slot *)(base + super->slots_offset);
    log->leases = (rp_lease *)(base + super->leases_offset);
    log->chunks = (rp_chunk *)(base + super->chunks_offset);
    log->pool = base + super->pool_offset;
    log->mask = (super->ring_size - 1) & ~(uint64_t)(RP_ALIGN - 1);
    return RP_OK;
}

static void free_log(rp_log *log) {
    int saved = errno;
    unmap(log->ring, 2 * log->geometry.ring_size);
    unmap(log->file_map, log->geometry.file_size);
    if (rp_probe_is_ours(log)) close(log->probe_fd);
    free(log->path);
    free(log);
    errno = saved;
}

/* Where a stored log goes on. */
static void start_at(rp_log *log, uint64_t position, uint64_t sequence, uint64_t done) {
    rp_head *head = log->head;
    rp_u64 *all[] = {&head->tail, &head->oldest, &head->durable, &head->limit, &head->known_tail};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) rp_store_relaxed(all[i], position);
    rp_frame_at(log, position)->sequence = sequence;
    rp_store_relaxed(&head->known_sequence, sequence);
    rp_store_relaxed(&head->done, done);
    rp_group *queue = &log->groups[RP_QUEUE_GROUP];
    rp_u64 *cursor[] = {&queue->read, &queue->acked, &queue->seen, &queue->marks[0].position};
    for (size_t i = 0; i < sizeof cursor / sizeof *cursor; i++) rp_store_relaxed(cursor[i], position);
    rp_store_relaxed(&queue->marks[0].sequence, sequence);
}

/* Zeroes are right for all but these: tail, read, acked, oldest = 0, and sequence 0 in the stub. */
static void fill_in(rp_log *log, const rp_settings *settings) {
    uint32_t state = settings->stored ? RP_GROUP_STORED : RP_GROUP_GATING;
    log->head->super = log->geometry;
    log->chunks[0].word = (uint64_t)log->geometry.chunk_count << 31; /* one free run, see pool.h */
    if (settings->stored)
        start_at(log, settings->first_position, settings->first_sequence, settings->first_done);
    if (!rp_is_broadcast(log)) rp_store_release(group, &log->groups[RP_QUEUE_GROUP].state, state);
}

/* Takes `probe_fd` over: on failure it is closed. */
static rp_status new_log(const char *path, int probe_fd, const rp_super *super, rp_log **out) {
    struct stat st;
    rp_log *log = calloc(1, sizeof *log);
    char *copy = strdup(path);
    if (!log || !copy || fstat(probe_fd, &st) != 0) {
        int saved = errno;
        free(log);
        free(copy);
        errno = saved;
        return close_with(probe_fd, RP_SYSTEM);
    }
    log->path = copy;
    log->geometry = *super;
    log->probe_fd = probe_fd;
    log->device = st.st_dev;
    log->inode = st.st_ino;
    log->references = 1;
    log->looked = rp_wall_clock_ns();
    log->spin_ns = rp_spin_start();
    *out = log;
    return RP_OK;
}

/* Map it and become a participant, filling it in first if it is new (with `settings`). */
static rp_status enter(rp_log *log, const rp_settings *settings) {
    rp_status status = map_log(log);
    if (status != RP_OK) return status;
    if (settings) fill_in(log, settings);
    int own = rp_reopen(log);
    return own < 0 ? RP_SYSTEM : rp_join_log(log, own);
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
static int open_nameless(const rp_place *place, char *temporary, size_t size) {
    temporary[0] = 0;
    int fd = openat(place->fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
        if (!rp_unguessable_name(place->name, temporary, size)) return -1;
        fd = openat(place->fd, temporary, O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    }
    return fd;
}

static rp_status give_name(int fd, const char *temporary, const rp_place *place) {
    char via_descriptor[64];
    snprintf(via_descriptor, sizeof via_descriptor, "/proc/self/fd/%d", fd);
    int result = temporary[0] ? rp_rename_in(place, temporary, place->name)
                              : linkat(AT_FDCWD, via_descriptor, place->fd, place->name, AT_SYMLINK_FOLLOW);
    if (result == 0) return RP_OK;
    if (errno == ENOENT && (temporary[0] || rp_is_gone(place)))
        return RP_NOT_FOUND; /* somebody has taken it for what the dead left, or the directory is gone */
    return errno == EEXIST ? RP_EXISTS : errno == ENOSPC ? RP_NO_SPACE : RP_SYSTEM;
}

static rp_status publish(rp_log *log, const char *temporary, const rp_place *place,
                         const rp_settings *settings) {
    rp_status status = enter(log, settings);
    if (status != RP_OK) return status;
    status = give_name(log->probe_fd, temporary, place);
    if (status != RP_OK) rp_leave_log(log);
    return status;
}

static rp_status keep(rp_log *log, rp_status status, rp_log **out) {
    if (status != RP_OK) {
        free_log(log);
        return status;
    }
    remember(log);
    *out = log;
    return RP_OK;
}

/* `fd` is consumed. */
static rp_status build(const char *path, const rp_place *place, int fd, const char *temporary,
                       const rp_super *super, const rp_settings *settings, rp_log **out) {
    rp_log *log;
    rp_status status = check_file_system(fd);
    if (status == RP_OK && fchmod(fd, rp_mode_in(place)) != 0) status = RP_SYSTEM;
    if (status == RP_OK) status = allocate(fd, super->file_size);
    if (status != RP_OK) return close_with(fd, status);
    status = new_log(path, fd, super, &log);
    if (status != RP_OK) return status;
    rp_process_lock();
    status = keep(log, publish(log, temporary, place, settings), out);
    rp_process_unlock();
    return status;
}

static rp_status create_in(const char *path, const rp_place *place, const rp_super *super,
                           const rp_settings *settings, rp_log **out) {
    char temporary[300];
    struct stat st;
    if (fstatat(place->fd, place->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return RP_EXISTS; /* spare the allocation; linkat decides */
    int fd = open_nameless(place, temporary, sizeof temporary);
    if (fd < 0) return errno == ENOENT ? RP_NOT_FOUND : errno == ENOSPC ? RP_NO_SPACE : RP_SYSTEM;
    rp_status status = build(path, place, fd, temporary, super, settings, out);
    int saved = errno;
    if (temporary[0] && status != RP_OK) unlinkat(place->fd, temporary, 0);
    errno = saved;
    return status;
}

rp_status rp_create(const char *path, const rp_settings *settings, rp_log **out) {
    rp_super super;
    rp_place place;
    rp_status status = rp_plan(settings, &super);
    if (status == RP_OK) status = rp_open_place(path, &place);
    if (status != RP_OK) return status;
    status = create_in(path, &place, &super, settings, out);
    rp_close_place(&place);
    return status;
}

/* ---- attaching and leaving ------------------------------------------------------------------ */

static rp_log *find_open(const struct stat *st) {
    for (rp_log *log = open_logs; log; log = log->next)
        if (log->device == st->st_dev && log->inode == st->st_ino) return log;
    return NULL;
}

#define PATIENCE INT64_C(5000000000) /* ns, for somebody who was stopped in the door */
#define PAUSE    1000000             /* ns, between two knocks at it */

/* Behind the door of an auto-deleted log: be counted, if it still has its name. RP_STALLED: somebody is in it. */
static rp_status step_in(rp_log *log, rp_status (*be_counted)(rp_log *log)) {
    struct stat st;
    if (!rp_is_auto_deleted(log)) return be_counted(log);
    int door = rp_reopen(log);
    if (door < 0) return errno == ENOENT ? RP_NOT_FOUND : RP_SYSTEM;
    rp_status status = rp_enter_door(door, 0) ? RP_OK : RP_STALLED;
    if (status == RP_OK) status = fstat(door, &st) == 0 && st.st_nlink > 0 ? be_counted(log) : RP_NOT_FOUND;
    return close_with(door, status);
}

static rp_status enter_old(rp_log *log) { return enter(log, NULL); }

static rp_status stay(rp_log *log) {
    rp_status status = rp_join_again(log);                 /* forked: nobody has counted us yet */
    if (status == RP_OK) rp_set_slot(log, RP_SLOT_ACTIVE); /* it may have been leaving */
    return status;
}

static rp_status attach_new(const char *path, int fd, const struct stat *st, rp_log **out) {
    rp_super super;
    rp_log *log;
    rp_status status = check_file_system(fd);
    if (status == RP_OK) status = read_super(fd, (uint64_t)st->st_size, &super);
    if (status != RP_OK) return close_with(fd, status);
    status = new_log(path, fd, &super, &log);
    if (status != RP_OK) return status;
    return keep(log, step_in(log, enter_old), out);
}

/* Under the process lock, and so never in the door while another thread forks. */
static rp_status try_attach(const char *path, rp_log **out) {
    struct stat st;
    int fd;
    rp_status status = open_ours(path, &fd, &st);
    if (status != RP_OK) return status;
    rp_log *log = find_open(&st);
    if (!log) return attach_new(path, fd, &st, out);
    close(fd);
    status = step_in(log, stay);
    if (status != RP_OK) return status;
    log->references++;
    *out = log;
    return RP_OK;
}

rp_status rp_attach(const char *path, rp_log **out) {
    int64_t end = rp_monotonic_ns() + PATIENCE;
    for (;;) {
        rp_process_lock();
        rp_status status = try_attach(path, out);
        rp_process_unlock();
        if (status != RP_STALLED || rp_monotonic_ns() > end) return status;
        nanosleep(&(struct timespec){.tv_nsec = PAUSE}, NULL);
    }
}

/* Unlink it if it still is this file. Behind its door: between the two steps nobody else unlinks it, and so nobody
 * can put another one in its place. */
static void unlink_same(const rp_place *place, dev_t device, ino_t inode) {
    struct stat st;
    if (fstatat(place->fd, place->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_dev == device &&
        st.st_ino == inode)
        unlinkat(place->fd, place->name, 0);
}

static void unlink_left(const rp_log *log) {
    rp_place place;
    if (rp_open_place(log->path, &place) != RP_OK) return;
    unlink_same(&place, log->device, log->inode);
    rp_close_place(&place);
    rp_watch_remove(log->path, log->geometry.log_id);
}

/* Of two that leave at once each marks its slot first, so the one behind the door sees that the other goes. */
void rp_leave(rp_log *log) {
    if (!rp_is_auto_deleted(log)) return;
    rp_process_lock(); /* an attach in another thread would make us stay; a fork would keep the door shut */
    int door = rp_set_slot(log, RP_SLOT_LEAVING) ? rp_reopen(log) : -1;
    if (door >= 0) {
        if (rp_enter_door(door, RP_HASTE) && !rp_others_stay(log)) unlink_left(log);
        close(door);
    }
    rp_process_unlock();
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

static void tell_deleted(const char *path, int fd, uint64_t size) {
    rp_super super;
    rp_status status = read_super(fd, size, &super);
    if (status != RP_OK && status != RP_STALE) return; /* noise: nobody can be attached */
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return;
    rp_head *head = map;
    rp_or_release(state, &head->state, RP_STATE_DELETED);
    rp_wake_everybody(head, (rp_group *)((uint8_t *)map + super.groups_offset), super.group_count);
    munmap(map, size);
    rp_watch_tell_at(path, super.log_id);
    rp_watch_remove(path, super.log_id);
}

rp_status rp_remove(const char *path) {
    struct stat st;
    rp_place place;
    int fd;
    rp_status status = rp_open_place(path, &place);
    if (status != RP_OK) return status;
    status = open_in(&place, &fd, &st);
    if (status == RP_OK) {
        rp_process_lock();
        rp_enter_door(
            fd, RP_HASTE); /* of two that remove it the second finds its successor, and leaves that alone */
        unlink_same(&place, st.st_dev, st.st_ino);
        tell_deleted(path, fd, (uint64_t)st.st_size);
        close(fd);
        rp_process_unlock();
    }
    rp_close_place(&place);
    return status;
}

static bool is_left_over(int fd, uint64_t size, rp_super *super) {
    rp_status status = read_super(fd, size, super);
    if (status == RP_STALE) return true;
    return status == RP_OK && (super->flags & RP_SUPER_AUTO_DELETE) &&
           !rp_anybody_there(fd, super->slot_count);
}

static rp_status collect_in(const char *path, const rp_place *place) {
    struct stat st;
    rp_super super;
    int fd;
    rp_status status = open_in(place, &fd, &st);
    if (status != RP_OK) return status;
    bool left_over = is_left_over(fd, (uint64_t)st.st_size, &super) && rp_enter_door(fd, 0) &&
                     is_left_over(fd, (uint64_t)st.st_size, &super);
    if (left_over) {
        unlink_same(place, st.st_dev, st.st_ino);
        rp_watch_remove(path, super.log_id);
    }
    return close_with(fd, left_over ? RP_OK : RP_EXISTS);
}

rp_status rp_collect(const char *path) {
    rp_place place;
    rp_status status = rp_open_place(path, &place);
    if (status != RP_OK) return status;
    rp_process_lock();
    status = collect_in(path, &place);
    rp_process_unlock();
    rp_close_place(&place);
    return status;
}

uint32_t rp_layout_version(void) { return RP_LAYOUT_VERSION; }
