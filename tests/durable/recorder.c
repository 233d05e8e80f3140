/* Preloaded into a process that stores messages: writes down every write and every flush of data.mdb, in order, with
 * their bytes; and, between them, what the program says it was told ("marks": writes to the descriptor RECORDER_MARKS).
 *
 * A record: kind u8 ('w' a write, 's' a write that is durable when it returns, 'f' a flush of all of them, 't' a new
 * length, 'm' a mark), offset u64, length u64, bytes. The log is appended to through a descriptor of its own.
 *
 * It can also make calls fail: FAIL_AT=k, FAIL_HOW=ENOSPC, EIO, short: the k-th write, and all up to FAIL_UNTIL=n;
 * FAIL_HOW=sync: the k-th flush. FAIL_HOW=kill: the process is killed before the k-th of all writes and flushes;
 * torn: in the middle of it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MOST = 1024 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1, marks_fd = -1;
static signed char kinds[MOST]; /* 0 not looked at, -1 another file, 'w', 's' */
static unsigned long writes_done, flushes_done, calls_done;

#define REAL(type, name, ...)                                                                                \
    static type (*real)(__VA_ARGS__);                                                                        \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("RECORDER_LOG");
    if (path) log_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (getenv("RECORDER_MARKS")) marks_fd = (int)number("RECORDER_MARKS");
}

/* What kind of descriptor: looked up in /proc once, and again after it was closed. */
static signed char kind_of(int fd) {
    if (fd < 0 || fd >= MOST || log_fd < 0) return -1;
    if (kinds[fd]) return kinds[fd];
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    const char *name = "/data.mdb";
    bool ours = length > (ssize_t)strlen(name) && !strncmp(path + length - strlen(name), name, strlen(name));
    return kinds[fd] = !ours ? -1 : fcntl(fd, F_GETFL) & O_DSYNC ? 's' : 'w';
}

static void record(char kind, uint64_t offset, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    uint64_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    struct iovec all[3] = {{&kind, 1}, {&offset, 8}, {&length, 8}};
    real(log_fd, all, 3);
    for (int i = 0; i < count; i++) real(log_fd, &parts[i], 1);
}

/* Is this the call that the process dies in? */
static bool dies(const char *how) {
    const char *wanted = getenv("FAIL_HOW");
    return wanted && !strcmp(wanted, how) && calls_done == (unsigned long)number("FAIL_AT");
}

/* Shall this write fail? Then errno is set. *cut: how much of it is written all the same. */
static bool fails(size_t length, size_t *cut) {
    const char *how = getenv("FAIL_HOW");
    unsigned long now = ++writes_done, from = (unsigned long)number("FAIL_AT");
    unsigned long until = getenv("FAIL_UNTIL") ? (unsigned long)number("FAIL_UNTIL") : from;
    *cut = 0;
    if (!how || !from || now < from || now > until || !strcmp(how, "sync")) return false;
    if (!strcmp(how, "short")) *cut = length / 2;
    errno = !strcmp(how, "EIO") ? EIO : ENOSPC;
    return true;
}

static ssize_t write_at(int fd, const struct iovec *parts, int count, off_t offset, bool has_offset) {
    REAL(ssize_t, "pwritev", int, const struct iovec *, int, off_t);
    size_t length = 0, cut;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    pthread_mutex_lock(&mutex);
    off_t at = has_offset ? offset : lseek(fd, 0, SEEK_CUR);
    calls_done++;
    if (dies("torn")) {
        struct iovec half = {parts[0].iov_base, parts[0].iov_len / 2};
        real(fd, &half, 1, at);
    }
    if (dies("kill") || dies("torn")) raise(SIGKILL);
    ssize_t done = -1;
    if (!fails(length, &cut)) {
        done = real(fd, parts, count, at);
        if (done > 0) record((char)kind_of(fd), (uint64_t)at, parts, count);
    } else if (cut) {
        struct iovec half = {parts[0].iov_base, cut < parts[0].iov_len ? cut : parts[0].iov_len};
        done = real(fd, &half, 1, at);
        if (done > 0) record((char)kind_of(fd), (uint64_t)at, &half, 1);
    }
    if (!has_offset && done > 0) lseek(fd, at + done, SEEK_SET);
    pthread_mutex_unlock(&mutex);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    struct iovec part = {(void *)(uintptr_t)data, size};
    return kind_of(fd) > 0 ? write_at(fd, &part, 1, offset, true) : real(fd, data, size, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) {
    return pwrite(fd, data, size, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    return kind_of(fd) > 0 ? write_at(fd, parts, count, 0, false) : real(fd, parts, count);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    REAL(ssize_t, "pwritev", int, const struct iovec *, int, off_t);
    return kind_of(fd) > 0 ? write_at(fd, parts, count, offset, true) : real(fd, parts, count, offset);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset) {
    return pwritev(fd, parts, count, offset);
}

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    struct iovec part = {(void *)(uintptr_t)data, size};
    if (fd == marks_fd && marks_fd >= 0) {
        pthread_mutex_lock(&mutex);
        record('m', 0, &part, 1);
        pthread_mutex_unlock(&mutex);
        return (ssize_t)size;
    }
    return kind_of(fd) > 0 ? write_at(fd, &part, 1, 0, false) : real(fd, data, size);
}

static int flush(int fd, int (*real)(int)) {
    if (kind_of(fd) <= 0) return real(fd);
    pthread_mutex_lock(&mutex);
    calls_done++;
    if (dies("kill") || dies("torn")) raise(SIGKILL);
    const char *how = getenv("FAIL_HOW");
    bool failing = how && !strcmp(how, "sync") && (long)++flushes_done == number("FAIL_AT");
    int result = failing ? -1 : real(fd);
    if (failing) errno = EIO;
    if (result == 0) record('f', 0, NULL, 0);
    pthread_mutex_unlock(&mutex);
    return result;
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return flush(fd, real);
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return flush(fd, real);
}

int ftruncate(int fd, off_t length) {
    REAL(int, "ftruncate", int, off_t);
    int result = real(fd, length);
    if (result == 0 && kind_of(fd) > 0) record('t', (uint64_t)length, NULL, 0);
    return result;
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

int close(int fd) {
    REAL(int, "close", int);
    if (fd >= 0 && fd < MOST) kinds[fd] = 0;
    return real(fd);
}
