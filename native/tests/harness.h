/* The test harness. Each test runs in a process of its own, in a directory of its own under /dev/shm; a
 * supervisor that does nothing else waits for it, ends what it started, and removes the directory. So neither
 * a failed check, nor a crash, nor a hang leaves anything behind or keeps the next test from running.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ringpost.h"

#if defined(__SANITIZE_THREAD__)
#define SLOWNESS 8
#elif defined(__SANITIZE_ADDRESS__)
#define SLOWNESS 3
#else
#define SLOWNESS 1
#endif

#ifndef TEST_SECONDS
#define TEST_SECONDS (20 * SLOWNESS) /* the watchdog */
#endif
#define BOUND_MS     (4000 * SLOWNESS) /* for what must happen, on a machine that does other things too */
#define ROUNDS(n)    ((n) / SLOWNESS)  /* repetitions whose number does not matter */
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- checks --------------------------------------------------------------------------------- */

static char where_we_are[128]; /* said before what failed: for a test that tries the same thing many times */

/* From any thread, and from any process that a test started: its parent sees the exit status. */
#define FAIL(...)                                                                                            \
    do {                                                                                                     \
        fprintf(stderr, "%s%s:%d: ", where_we_are, __FILE__, __LINE__);                                      \
        fprintf(stderr, __VA_ARGS__);                                                                        \
        fputc('\n', stderr);                                                                                 \
        _exit(1);                                                                                            \
    } while (0)

#define CHECK(expression)                                                                                    \
    do {                                                                                                     \
        if (!(expression)) FAIL("%s", #expression);                                                          \
    } while (0)

#define CHECK_EQ(expression, expected)                                                                       \
    do {                                                                                                     \
        uint64_t actual_ = (uint64_t)(expression), expected_ = (uint64_t)(expected);                         \
        if (actual_ != expected_)                                                                            \
            FAIL("%s is %" PRIu64 ", not %s = %" PRIu64, #expression, actual_, #expected, expected_);        \
    } while (0)

#define CHECK_IS(expression, expected)                                                                       \
    do {                                                                                                     \
        rp_status actual_ = (expression);                                                                    \
        if (actual_ != (expected))                                                                           \
            FAIL("%s is \"%s\", not %s", #expression, rp_status_text(actual_), #expected);                   \
    } while (0)

#define CHECK_OK(expression) CHECK_IS(expression, RP_OK)

/* ---- time ----------------------------------------------------------------------------------- */

/* That something took less than so many ms shows that nobody slept in vain, but only on a machine that has time for
 * us: a test that is too late is run again, and fails when it always is. */
#define TOO_LATE 75
#define ATTEMPTS 8

#define CHECK_SOON(ms, most)                                                                                 \
    do {                                                                                                     \
        int64_t ms_ = (ms);                                                                                  \
        if (ms_ > (most)) {                                                                                  \
            fprintf(stderr, "%s:%d: %" PRId64 " ms, not %s\n", __FILE__, __LINE__, ms_, #most);              \
            _exit(TOO_LATE);                                                                                 \
        }                                                                                                    \
    } while (0)

static inline int64_t in_ms(int64_t ms) { return rp_monotonic_ns() + ms * 1000000; }
static inline int64_t ms_since(int64_t start) { return (rp_monotonic_ns() - start) / 1000000; }

static inline void sleep_ms(int64_t ms) {
    struct timespec span = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&span, &span) != 0 && errno == EINTR) {
    }
}

/* Evaluates `condition` until it holds. */
#define EVENTUALLY(condition)                                                                                \
    do {                                                                                                     \
        int64_t until_ = in_ms(BOUND_MS);                                                                    \
        while (!(condition)) {                                                                               \
            if (rp_monotonic_ns() > until_) FAIL("never: %s", #condition);                                   \
            sleep_ms(1);                                                                                     \
        }                                                                                                    \
    } while (0)

/* ---- files ---------------------------------------------------------------------------------- */

static char test_directory[64];

static inline const char *in_directory(const char *name) {
    static _Thread_local char paths[4][128];
    static _Thread_local unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", test_directory, name);
    return path;
}

static inline const char *log_path(void) { return in_directory("log"); }

static inline rp_log *create_log(rp_settings settings) {
    rp_log *log = NULL;
    CHECK_OK(rp_create(log_path(), &settings, &log));
    return log;
}

/* The smallest there is: a ring of 64 KiB, a pool of 8 granules. */
static inline rp_log *small_log(void) { return create_log((rp_settings){.capacity = RP_MIN_CAPACITY}); }

/* ---- processes ------------------------------------------------------------------------------ */

/* Zeroed memory that children share. */
static inline void *shared_memory(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) FAIL("mmap: %s", strerror(errno));
    return memory;
}

static inline pid_t start_process(void (*run)(void *), void *argument) {
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) FAIL("fork: %s", strerror(errno));
    if (child > 0) return child;
    run(argument);
    fflush(NULL);
    _exit(0);
}

/* Its wait status. A child that does not end within the bound is a failure. */
static inline int wait_for(pid_t child) {
    int status = 0;
    pid_t got = 0;
    EVENTUALLY((got = waitpid(child, &status, WNOHANG)) != 0);
    if (got != child) FAIL("waitpid: %s", strerror(errno));
    return status;
}

static inline void join_process(pid_t child) {
    int status = wait_for(child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        FAIL("a child failed, wait status %#x", (unsigned)status);
}

static inline void kill_process(pid_t child) {
    kill(child, SIGKILL);
    int status = wait_for(child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static inline void wait_until_stopped(pid_t child) {
    int status = 0;
    EVENTUALLY(waitpid(child, &status, WUNTRACED | WNOHANG) == child);
    CHECK(WIFSTOPPED(status));
}

/* ---- running tests -------------------------------------------------------------------------- */

typedef struct test {
    const char *name;
    void (*run)(void);
} test;

#define TEST(function) {#function, function}
#define RUN_TESTS(...)                                                                                       \
    int main(int argc, char **argv) {                                                                        \
        const test tests[] = {__VA_ARGS__};                                                                  \
        return run_tests(argc, argv, tests, COUNT(tests));                                                   \
    }

static volatile sig_atomic_t harness_signal;
static inline void note_signal(int number) { harness_signal = number; }

static inline int remove_entry(const char *path, const struct stat *st, int type, struct FTW *where) {
    (void)st, (void)type, (void)where;
    return remove(path);
}

/* Its exit status; -1: it did not end, or was killed. */
static inline int try_test(const char *program, const test *one) {
    snprintf(test_directory, sizeof test_directory, "/dev/shm/ringpost-test-XXXXXX");
    if (!mkdtemp(test_directory)) FAIL("mkdtemp: %s", strerror(errno));
    fflush(NULL);
    int64_t start = rp_monotonic_ns();
    pid_t child = fork();
    if (child < 0) FAIL("fork: %s", strerror(errno));
    if (child == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (int i = 0; i < 3; i++) signal((int[]){SIGALRM, SIGINT, SIGTERM}[i], SIG_DFL);
        one->run();
        exit(0); /* not _exit: a leak checker has its say */
    }
    setpgid(child, child);
    int status = 0;
    alarm(TEST_SECONDS);
    pid_t got = waitpid(child, &status, 0);
    alarm(0);
    kill(-child, SIGKILL); /* what it may have left running, or stopped */
    if (got != child) waitpid(child, &status, 0);
    nftw(test_directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    int result = got == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    const char *word = result == 0 ? "ok    " : result == TOO_LATE ? "late  " : "FAILED";
    printf("%s %s: %s (%" PRId64 " ms)", word, program, one->name, ms_since(start));
    if (got != child)
        printf(" %s", harness_signal == SIGALRM ? "did not end" : "was interrupted");
    else if (WIFSIGNALED(status))
        printf(" died of signal %d", WTERMSIG(status));
    putchar('\n');
    return result;
}

static inline bool run_test(const char *program, const test *one) {
    for (int i = 0; i < ATTEMPTS; i++) {
        int result = try_test(program, one);
        if (result != TOO_LATE) return result == 0;
    }
    printf("FAILED %s: %s is always too late\n", program, one->name);
    return false;
}

/* All tests of a program, or those whose names it is given. */
static inline int run_tests(int argc, char **argv, const test *tests, size_t count) {
    const char *slash = strrchr(argv[0], '/'), *program = slash ? slash + 1 : argv[0];
    bool ok = true;
    struct sigaction action = {.sa_handler = note_signal}; /* no SA_RESTART: ends waitpid */
    for (int i = 0; i < 3; i++) sigaction((int[]){SIGALRM, SIGINT, SIGTERM}[i], &action, NULL);
    for (size_t i = 0; i < count; i++) {
        bool wanted = argc < 2;
        for (int a = 1; a < argc; a++) wanted |= strcmp(argv[a], tests[i].name) == 0;
        if (wanted) ok &= run_test(program, &tests[i]);
        if (harness_signal == SIGINT || harness_signal == SIGTERM) return 1;
    }
    return ok ? 0 : 1;
}

#endif
