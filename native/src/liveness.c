#include "liveness.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "namespaces.h"

#define FIRST_BYTE      ((off_t)1 << 40)
#define DOOR_BYTE       ((off_t)1 << 41)
#define GENERATION_MASK 0xfffffu
#define PAGE            4096

static pthread_mutex_t process_mutex; /* recursive: asking who is dead may have to reopen the file */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint64_t last_token; /* copied by fork, so a child's next token is new */
static uint64_t no_page;
uint64_t *volatile rp_token_page = &no_page;

static void init_mutex(void) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&process_mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

/* A child starts without a token: the kernel wipes the page even where no handler runs (raw clone). */
static void before_fork(void) { pthread_mutex_lock(&process_mutex); }
static void in_parent(void) { pthread_mutex_unlock(&process_mutex); }
static void in_child(void) {
    init_mutex();
    rp_forget_namespaces();
    *rp_token_page = 0;
}

static void first_use(void) {
    init_mutex();
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED) {
        madvise(page, PAGE, MADV_WIPEONFORK);
        rp_token_page = page;
    }
    pthread_atfork(before_fork, in_parent, in_child);
}

void rp_process_lock(void) {
    pthread_once(&once, first_use);
    pthread_mutex_lock(&process_mutex);
}

void rp_process_unlock(void) { pthread_mutex_unlock(&process_mutex); }

uint64_t rp_process_token(void) {
    if (*rp_token_page == 0) *rp_token_page = ++last_token;
    return *rp_token_page;
}

static int lock_call(int fd, int command, struct flock *lock) {
    int result;
    do result = fcntl(fd, command, lock);
    while (result == -1 && errno == EINTR);
    return result;
}

static struct flock bytes_of(uint32_t first, uint32_t count) {
    return (struct flock){
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = FIRST_BYTE + first, .l_len = count};
}

/* RP_OK with the slot whose byte we now hold. */
static rp_status claim_slot(const rp_log *log, int fd, uint32_t *slot) {
    for (uint32_t s = 0; s < log->geometry.slot_count; s++) {
        struct flock byte = bytes_of(s, 1);
        if (lock_call(fd, F_OFD_SETLK, &byte) == 0) {
            *slot = s;
            return RP_OK;
        }
        if (errno != EAGAIN && errno != EACCES)
            return errno == EINVAL || errno == ENOLCK || errno == ENOTSUP ? RP_UNSUPPORTED : RP_SYSTEM;
    }
    return RP_NO_SLOT;
}

/* The kernel must show our lock to another description although our descriptor is closed. */
static bool lock_is_seen(int probe_fd, uint32_t slot) {
    struct flock byte = bytes_of(slot, 1);
    return lock_call(probe_fd, F_OFD_GETLK, &byte) == 0 && byte.l_type != F_UNLCK;
}

static bool is_file_of(const rp_log *log, int fd) {
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_dev == log->device && st.st_ino == log->inode;
}

bool rp_probe_is_ours(const rp_log *log) { return is_file_of(log, log->probe_fd); }

static bool restore_probe(rp_log *log) {
    rp_process_lock();
    bool ours = rp_probe_is_ours(log);
    if (!ours) {
        int fd = rp_reopen(log);
        if (fd >= 0) log->probe_fd = fd;
        ours = fd >= 0;
    }
    rp_process_unlock();
    return ours;
}

rp_status rp_join_log(rp_log *log, int fd) {
    uint32_t slot = 0;
    rp_status status = claim_slot(log, fd, &slot);
    if (status != RP_OK) {
        close(fd);
        return status;
    }
    void *anchor = mmap(NULL, PAGE, PROT_NONE, MAP_SHARED, fd, 0);
    int saved = errno;
    close(fd);
    if (anchor == MAP_FAILED) {
        errno = saved;
        return RP_SYSTEM;
    }
    if (madvise(anchor, PAGE, MADV_DONTFORK) != 0 || !(rp_probe_is_ours(log) || restore_probe(log)) ||
        !lock_is_seen(log->probe_fd, slot)) {
        munmap(anchor, PAGE);
        return RP_UNSUPPORTED;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    rp_slot *mine = &log->slots[slot];
    uint32_t generation = (rp_load_relaxed(&mine->generation) + 1) & GENERATION_MASK;
    if (generation == 0) generation = 1;
    rp_store_relaxed(&mine->pid, (uint32_t)getpid());
    rp_store_relaxed(&mine->pid_namespace, rp_pid_namespace());
    rp_store_relaxed(&mine->born_ns, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
    rp_store_release(slot, &mine->generation, generation);
    rp_store_relaxed(&mine->state, RP_SLOT_ACTIVE);
    log->anchor = anchor;
    log->me = generation << 11 | (slot + 1);
    rp_store_release(token, &log->token, rp_process_token());
    return RP_OK;
}

void rp_leave_log(rp_log *log) {
    if (!rp_set_slot(log, RP_SLOT_FREE)) return; /* forked: we never joined */
    munmap(log->anchor, PAGE);
    log->anchor = NULL;
}

static bool has_joined(const rp_log *log) { return rp_load_relaxed(&log->token) == rp_process_token(); }

rp_status rp_join_again(rp_log *log) {
    if (has_joined(log)) return RP_OK;
    int fd = rp_reopen(log);
    return fd < 0 ? RP_SYSTEM : rp_join_log(log, fd);
}

/* Behind the door if it can be had soon: else the file may lose its name, and is used without one. */
static rp_status join_again_behind_door(rp_log *log) {
    int door = rp_reopen(log);
    if (door >= 0) rp_enter_door(door, RP_HASTE);
    rp_status status = rp_join_again(log);
    if (door >= 0) close(door);
    return status;
}

rp_status rp_rejoin_after_fork(rp_log *log) {
    rp_process_lock();
    rp_status status = RP_OK;
    if (!has_joined(log)) /* else another thread was first */
        status = rp_is_auto_deleted(log) ? join_again_behind_door(log) : rp_join_again(log);
    rp_process_unlock();
    return status;
}

bool rp_is_dead(rp_log *log, uint32_t owner) {
    owner &= RP_OWNER_MASK;
    uint32_t slot = (owner & RP_SLOT_MASK) - 1;        /* 0 - 1 is out of range too */
    if (slot >= log->geometry.slot_count) return true; /* noise: nobody ever owned this */
    if (owner == log->me) return false;
    if (rp_load_acquire(slot, &log->slots[slot].generation) != owner >> 11) return true;
    if (!rp_probe_is_ours(log) && !restore_probe(log)) return false; /* no proof */
    int probe = log->probe_fd;                                       /* the one that is examined afterwards */
    struct flock byte = bytes_of(slot, 1);
    bool unlocked = lock_call(probe, F_OFD_GETLK, &byte) == 0 && byte.l_type == F_UNLCK;
    return unlocked && is_file_of(log, probe);
}

bool rp_is_removed(rp_log *log) {
    struct stat st;
    if (rp_is_auto_deleted(log)) return false; /* forked children may outlive its name */
    return rp_probe_is_ours(log) && fstat(log->probe_fd, &st) == 0 && st.st_nlink == 0;
}

bool rp_set_slot(rp_log *log, uint32_t state) {
    if (rp_load_relaxed(&log->token) != rp_process_token()) return false;
    rp_store_relaxed(&log->slots[(log->me & RP_SLOT_MASK) - 1].state, state);
    return true;
}

/* The kernel call orders what was stored before against what is looked at behind the door. */
bool rp_enter_door(int fd, int64_t patience) {
    struct flock door = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = DOOR_BYTE, .l_len = 1};
    int64_t end = rp_monotonic_ns() + patience;
    while (lock_call(fd, F_OFD_SETLK, &door) != 0) {
        if ((errno != EAGAIN && errno != EACCES) || rp_monotonic_ns() > end) return false;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return true;
}

bool rp_others_stay(rp_log *log) {
    for (uint32_t s = 0; s < log->geometry.slot_count; s++) {
        rp_slot *slot = &log->slots[s];
        if (rp_load_relaxed(&slot->state) != RP_SLOT_ACTIVE || s + 1 == (log->me & RP_SLOT_MASK)) continue;
        if (!rp_is_dead(log, rp_load_relaxed(&slot->generation) << 11 | (s + 1))) return true;
    }
    return false;
}

bool rp_anybody_there(int fd, uint32_t slot_count) {
    struct flock range = bytes_of(0, slot_count);
    return lock_call(fd, F_OFD_GETLK, &range) != 0 || range.l_type != F_UNLCK;
}

uint32_t rp_count_participants(rp_log *log) {
    uint32_t count = 0;
    for (uint32_t s = 0; s < log->geometry.slot_count; s++) {
        if (rp_load_relaxed(&log->slots[s].state) == RP_SLOT_FREE) continue;
        uint32_t owner = rp_load_relaxed(&log->slots[s].generation) << 11 | (s + 1);
        count += !rp_is_dead(log, owner);
    }
    return count;
}

int32_t rp_pid_of(rp_log *log, uint32_t owner) {
    uint32_t slot = (owner & RP_SLOT_MASK) - 1;
    if (slot >= log->geometry.slot_count) return 0;
    return (int32_t)rp_load_relaxed(&log->slots[slot].pid);
}

uint32_t rp_pid_namespace_of(rp_log *log, uint32_t owner) {
    uint32_t slot = (owner & RP_SLOT_MASK) - 1;
    if (slot >= log->geometry.slot_count) return 0;
    return rp_load_relaxed(&log->slots[slot].pid_namespace);
}
