#include "watch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "group.h"
#include "lease.h"
#include "liveness.h"
#include "place.h"
#include "wait.h"

#define SLICE    INT64_C(100000000) /* of a timed watch, ns: what a death may delay it */
#define ATTEMPTS 10                 /* to open a FIFO that others remove and make */
#define HALF     32768              /* bytes, of a full FIFO */

struct rp_watch {
    rp_log *log;
    uint64_t token; /* the process that opened it: a forked child shares its latch and must not touch it */
    uint32_t event, group;
    int fifo;
    int all;   /* epoll: what is given out */
    int timer; /* -1: not timed */
    dev_t device;
    ino_t inode;
};

/* ---- the FIFO ------------------------------------------------------------------------------- */

typedef struct fifo_path {
    char text[4200];
} fifo_path;

static fifo_path path_of(const char *path, const uint8_t id[16]) {
    fifo_path at;
    snprintf(at.text, sizeof at.text, "%s.%02x%02x%02x%02x.fifo", path, id[0], id[1], id[2], id[3]);
    return at;
}

/* A FIFO, as private as its directory; else -1. Open for both, so that there is always somebody who reads: no
 * SIGPIPE. */
static int open_fifo_in(const rp_place *place, struct stat *st) {
    int fd = openat(place->fd, place->name, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return -1;
    if (fstat(fd, st) == 0 && S_ISFIFO(st->st_mode) && rp_is_as_private_as(place, st)) return fd;
    close(fd);
    errno = EPERM;
    return -1;
}

static int open_place_of(const fifo_path *at, rp_place *place) {
    rp_status status = rp_open_place(at->text, place);
    if (status == RP_NOT_OURS) errno = EPERM;
    return status == RP_OK ? 0 : -1;
}

/* F3. A full FIFO gets room, but is never emptied. */
static void write_to(int fd) {
    char waste[4096] = {0};
    ssize_t done = write(fd, waste, 1);
    if (done < 0 && errno == EAGAIN) {
        for (int got = 0; got < HALF; got += sizeof waste)
            if (read(fd, waste, sizeof waste) < 0) break;
        done = write(fd, waste, 1);
    }
    (void)done; /* whoever was not told looks when its slice is over */
}

void rp_watch_tell(rp_log *log) { rp_watch_tell_at(log->path, log->geometry.log_id); }

void rp_watch_tell_at(const char *path, const uint8_t log_id[16]) {
    fifo_path at = path_of(path, log_id);
    struct stat st;
    rp_place place;
    int saved = errno;
    if (open_place_of(&at, &place) == 0) {
        int fd = open_fifo_in(&place, &st);
        if (fd >= 0) {
            write_to(fd);
            close(fd);
        }
        rp_close_place(&place);
    }
    errno = saved;
}

void rp_watch_remove(const char *path, const uint8_t log_id[16]) {
    fifo_path at = path_of(path, log_id);
    struct stat st;
    rp_place place;
    int saved = errno;
    if (open_place_of(&at, &place) == 0) {
        if (fstatat(place.fd, place.name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISFIFO(st.st_mode))
            unlinkat(place.fd, place.name, 0);
        rp_close_place(&place);
    }
    errno = saved;
}

static bool has_name(const rp_log *log) {
    struct stat st;
    return !rp_probe_is_ours(log) || fstat(log->probe_fd, &st) != 0 || st.st_nlink > 0;
}

static rp_status why_not(void) {
    switch (errno) {
    case EPERM:
    case EACCES:
    case ELOOP:
    case EISDIR: return RP_NOT_OURS;
    case ENOSPC:
    case EDQUOT: return RP_NO_SPACE;
    case ENOENT: return RP_NOT_FOUND; /* the directory is gone */
    default: return RP_SYSTEM;
    }
}

/* It has its mode, whatever the umask, before it has its name. */
static int make_fifo(const rp_place *place) {
    char temporary[300];
    if (!rp_unguessable_name(place->name, temporary, sizeof temporary)) return -1;
    if (mkfifoat(place->fd, temporary, 0600) != 0) return -1;
    if (fchmodat(place->fd, temporary, rp_mode_in(place), 0) == 0 &&
        rp_rename_in(place, temporary, place->name) == 0)
        return 0;
    int saved = errno;
    unlinkat(place->fd, temporary, 0);
    errno = saved;
    return -1;
}

static int find_or_make_fifo_in(const rp_place *place, struct stat *st) {
    for (int i = 0; i < ATTEMPTS; i++) {
        int fd = open_fifo_in(place, st);
        if (fd >= 0 || errno != ENOENT) return fd;
        if (make_fifo(place) != 0 && errno != EEXIST) return -1;
    }
    errno = EAGAIN;
    return -1;
}

static rp_status find_or_make_fifo(rp_watch *watch) {
    fifo_path at = path_of(watch->log->path, watch->log->geometry.log_id);
    struct stat st;
    rp_place place;
    if (open_place_of(&at, &place) != 0) return why_not();
    watch->fifo = find_or_make_fifo_in(&place, &st);
    rp_status status = watch->fifo < 0 ? why_not() : RP_OK;
    if (status == RP_OK) {
        watch->device = st.st_dev;
        watch->inode = st.st_ino;
        if (!has_name(watch->log)) unlinkat(place.fd, place.name, 0);
    }
    rp_close_place(&place);
    return status;
}

/* ---- a watch -------------------------------------------------------------------------------- */

static rp_status event_for(const rp_log *log, rp_watched what, uint32_t handle, uint32_t *event) {
    static const uint32_t events[] = {
        [RP_WATCH_SPACE] = RP_EVENT_SPACE, [RP_WATCH_BELL] = RP_EVENT_BELL, [RP_WATCH_JOIN] = RP_EVENT_JOIN};
    if (what != RP_WATCH_FRAMES) {
        *event = events[what];
        return RP_OK;
    }
    rp_group *group = rp_group_of(log, handle);
    if (!group) return RP_INVALID;
    *event = rp_group_event(log, group);
    return RP_OK;
}

static bool add(const rp_watch *watch, int fd, uint32_t events) {
    struct epoll_event wanted = {.events = events};
    return epoll_ctl(watch->all, EPOLL_CTL_ADD, fd, &wanted) == 0;
}

static rp_status open_descriptors(rp_watch *watch, bool timed) {
    rp_status status = find_or_make_fifo(watch);
    if (status != RP_OK) return status;
    watch->all = epoll_create1(EPOLL_CLOEXEC);
    if (watch->all < 0) return RP_SYSTEM;
    if (timed) {
        watch->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        if (watch->timer < 0 || !add(watch, watch->timer, EPOLLIN)) return RP_SYSTEM;
    }
    return add(watch, watch->fifo, EPOLLIN | EPOLLET) ? RP_OK : RP_SYSTEM;
}

rp_status rp_watch_open(rp_log *log, rp_watched what, uint32_t group, bool timed, rp_watch **out) {
    uint32_t event;
    rp_status status = rp_enter(log);
    if (status == RP_OK) status = event_for(log, what, group, &event);
    if (status != RP_OK) return status;
    rp_watch *watch = malloc(sizeof *watch);
    if (!watch) return RP_SYSTEM;
    *watch = (rp_watch){.log = log,
                        .token = rp_process_token(),
                        .event = event,
                        .group = group,
                        .fifo = -1,
                        .all = -1,
                        .timer = -1};
    status = open_descriptors(watch, timed);
    if (status != RP_OK) {
        int saved = errno;
        rp_watch_close(watch);
        errno = saved;
        return status;
    }
    rp_watch_clear(watch); /* a FIFO that others wrote to is readable from the start */
    *out = watch;
    return RP_OK;
}

/* Somebody closed descriptors behind our back (daemons do): their numbers may mean other files now. */
static bool is_intact(const rp_watch *watch) {
    struct stat st;
    return fstat(watch->fifo, &st) == 0 && st.st_dev == watch->device && st.st_ino == watch->inode;
}

void rp_watch_close(rp_watch *watch) {
    bool intact = watch->fifo >= 0 && is_intact(watch);
    if (intact && watch->timer >= 0) close(watch->timer);
    if (intact && watch->all >= 0) close(watch->all);
    if (intact) close(watch->fifo);
    free(watch);
}

int rp_watch_fd(const rp_watch *watch) { return watch->all; }

/* A glance, without the process lock: a forked child has no token until it joins something. */
static bool is_ours(const rp_watch *watch) { return watch->token == *(volatile uint64_t *)rp_token_page; }

static void set_timer(const rp_watch *watch, int64_t after) {
    struct itimerspec when = {.it_value = {.tv_sec = after / 1000000000, .tv_nsec = after % 1000000000}};
    if (watch->timer >= 0) timerfd_settime(watch->timer, 0, &when, NULL);
}

void rp_watch_clear(rp_watch *watch) {
    struct epoll_event events[2];
    int saved = errno;
    if (is_ours(watch)) epoll_wait(watch->all, events, 2, 0);
    errno = saved;
}

static int64_t until_due(const rp_watch *watch) {
    int64_t due = RP_NEVER;
    uint64_t alarm = rp_alarm(watch->log);
    if (watch->event >= RP_LOG_EVENTS)
        due = rp_lease_due_in(&watch->log->groups[watch->event - RP_LOG_EVENTS]);
    if (alarm) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        int64_t left = (int64_t)(alarm - ((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec));
        if (left < 0) left = 0; /* it rang, and who could do something was told */
        if (left < due && left < INT64_MAX / 2)
            due = left + 4000000; /* the clock it is compared with is coarse */
    }
    return due;
}

int64_t rp_watch_arm(rp_watch *watch) {
    rp_head *head = watch->log->head;
    uint64_t bit = UINT64_C(1) << watch->event % 64;
    rp_or_relaxed(&head->watched[watch->event / 64], bit);
    rp_or_release(arm, &head->armed[watch->event / 64], bit);
    rp_fence_full(arm);
    int64_t due = until_due(watch);
    if (is_ours(watch)) set_timer(watch, due < SLICE ? due : SLICE);
    return due;
}

void rp_watch_keep(rp_watch *watch) {
    if (is_ours(watch)) set_timer(watch, 1);
}

rp_status rp_watch_look(rp_watch *watch) {
    rp_log *log = watch->log;
    if (rp_is_removed(log)) return RP_DELETED;
    if (watch->event < RP_LOG_EVENTS || rp_load_relaxed(&log->head->state)) return RP_OK;
    const rp_group *group = &log->groups[watch->event - RP_LOG_EVENTS];
    bool may_have = rp_load_relaxed(&log->head->tail) != rp_load_relaxed(&group->read) ||
                    rp_load_relaxed(&group->lease_top) != 0 || rp_alarm_rings(log) ||
                    rp_load_relaxed(&group->state) == RP_GROUP_FREE;
    return may_have ? RP_OK : RP_EMPTY;
}
