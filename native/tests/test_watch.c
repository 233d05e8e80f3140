/* Watching by descriptor: readable once something may be had, for everybody who watches; nothing for anybody where
 * nobody watches; nothing left behind. A wake-up that is lost shows as a poll() that ends without one.
 */
#include <fcntl.h>
#include <glob.h>
#include <poll.h>

#include "inside.h"
#include "messages.h"
#include "silence.h"
#include "threads.h"

#define SLICE_MS 100

static rp_watch *open_watch(rp_log *log, rp_watched what, uint32_t group, bool timed) {
    rp_watch *watch = NULL;
    CHECK_OK(rp_watch_open(log, what, group, timed, &watch));
    return watch;
}

static rp_watch *watch_frames(rp_log *log) { return open_watch(log, RP_WATCH_FRAMES, 0, false); }

static bool is_readable(const rp_watch *watch, int ms) {
    struct pollfd one = {.fd = rp_watch_fd(watch), .events = POLLIN};
    int got;
    do got = poll(&one, 1, ms);
    while (got < 0 && errno == EINTR);
    CHECK(got >= 0);
    return got == 1 && (one.revents & POLLIN);
}

/* W2 and W3. */
static void rearm(rp_watch *watch) {
    rp_watch_clear(watch);
    rp_watch_arm(watch);
}

static int count_fifos(void) {
    glob_t found;
    char pattern[128];
    snprintf(pattern, sizeof pattern, "%s*.fifo", log_path());
    int count = glob(pattern, 0, NULL, &found) == 0 ? (int)found.gl_pathc : 0;
    globfree(&found);
    return count;
}

static const char *fifo_path(rp_log *log) {
    static char path[256];
    const uint8_t *id = log->geometry.log_id;
    snprintf(path, sizeof path, "%s.%02x%02x%02x%02x.fifo", log_path(), id[0], id[1], id[2], id[3]);
    return path;
}

static uint64_t bits(const rp_u64 *words, uint32_t event) {
    return rp_load_relaxed(&words[event / 64]) >> event % 64 & 1;
}

/* ---- what it says --------------------------------------------------------------------------- */

static void it_is_readable_until_it_is_cleared(void) {
    rp_log *log = small_log();
    rp_watch *watch = watch_frames(log);
    CHECK(!is_readable(watch, 0));
    rearm(watch);
    CHECK(!is_readable(watch, 0));
    put_number(log, 1);
    for (int i = 0; i < 3; i++) CHECK(is_readable(watch, 0));
    CHECK_EQ(take_number(log, 0), 1);
    CHECK(is_readable(watch, 0)); /* nobody said that it was in vain */
    rearm(watch);
    CHECK(!is_readable(watch, 0));
    for (uint64_t i = 0; i < 1000; i++) { /* a FIFO that is not empty tells, too */
        put_number(log, i);
        CHECK(is_readable(watch, 0));
        CHECK_EQ(take_number(log, 0), i);
        rearm(watch);
        CHECK(!is_readable(watch, 0));
    }
    rp_watch_close(watch);
}

static void fill_ring(rp_log *log) {
    while (try_put_number(log, 0) == RP_OK) {
    }
}

static void nothing(rp_log *log) { (void)log; }
static void one_message(rp_log *log) { put_number(log, 1); }
static void take_one(rp_log *log) { take_number(log, 0); }
static void done_one(rp_log *log) { CHECK_OK(rp_task_done(log)); }
static void shut_down(rp_log *log) { CHECK_OK(rp_shut_down(log, false, RP_NOW)); }
static void look_around(rp_log *log) { rp_wake_all(log); }

static void delete_it(rp_log *log) {
    (void)log;
    CHECK_OK(rp_remove(log_path()));
}

static void set_alarm(rp_log *log) { rp_set_alarm(log, 1); }

static void give_back(rp_log *log) {
    _Alignas(RP_ALIGN) numbered got;
    rp_receipt receipt;
    rp_taken taken;
    uint32_t lost, done;
    CHECK_OK(rp_try_receive(log, 0, &got, sizeof got, 1, 0, &receipt, &taken));
    CHECK_OK(rp_give_back(log, 0, &receipt, 1, 0, false, RP_NOW, &lost, &done));
}

static const struct {
    rp_watched what;
    void (*before)(rp_log *), (*wake)(rp_log *);
} wakings[] = {
    {RP_WATCH_FRAMES, nothing, one_message}, {RP_WATCH_FRAMES, nothing, shut_down},
    {RP_WATCH_FRAMES, nothing, delete_it},   {RP_WATCH_FRAMES, nothing, look_around},
    {RP_WATCH_FRAMES, nothing, set_alarm},   {RP_WATCH_FRAMES, one_message, give_back},
    {RP_WATCH_SPACE, fill_ring, take_one},   {RP_WATCH_SPACE, fill_ring, shut_down},
    {RP_WATCH_SPACE, fill_ring, delete_it},  {RP_WATCH_BELL, nothing, rp_bell_ring},
    {RP_WATCH_BELL, nothing, delete_it},     {RP_WATCH_JOIN, one_message, done_one},
    {RP_WATCH_JOIN, one_message, shut_down},
};

static void each_event_tells_who_watches(void) {
    for (size_t i = 0; i < COUNT(wakings); i++) {
        rp_log *log = small_log();
        rp_watch *watch = open_watch(log, wakings[i].what, 0, false);
        wakings[i].before(log);
        rearm(watch);
        CHECK(!is_readable(watch, 0));
        wakings[i].wake(log);
        if (!is_readable(watch, 0)) FAIL("waking %zu", i);
        rp_watch_close(watch);
        rp_detach(log);
        rp_remove(log_path());
        CHECK_EQ(count_fifos(), 0);
    }
}

static void a_write_for_another_event_is_in_vain(void) {
    rp_log *log = small_log();
    rp_watch *frames = watch_frames(log), *join = open_watch(log, RP_WATCH_JOIN, 0, false);
    put_number(log, 1);
    CHECK_OK(rp_group_advance(log, 0, rp_load_relaxed(&log->head->tail), RP_NOW));
    rearm(frames);
    rearm(join);
    CHECK_OK(rp_task_done(log));
    CHECK(is_readable(join, 0) && is_readable(frames, 0));
    CHECK_EQ(bits(log->head->armed, RP_LOG_EVENTS), 1); /* still to be told when it matters */
    rearm(frames);
    CHECK(!is_readable(frames, 0));
    put_number(log, 2);
    CHECK(is_readable(frames, 0));
    rp_watch_close(frames);
    rp_watch_close(join);
}

static void every_group_is_told_by_one_write(void) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .groups = RP_MAX_GROUPS});
    rp_watch *watches[RP_MAX_GROUPS];
    for (uint32_t g = 0; g < RP_MAX_GROUPS; g++) {
        char name[16];
        uint32_t group = 0;
        snprintf(name, sizeof name, "%u", g);
        if (g) CHECK_OK(open_group(log, name, false, RP_NOW, &group));
        watches[g] = open_watch(log, RP_WATCH_FRAMES, group, false);
        rearm(watches[g]);
    }
    int fd = open(fifo_path(log), O_RDWR | O_NONBLOCK);
    put_number(log, 7);
    char told[16];
    CHECK_EQ(read(fd, told, sizeof told), 1);
    close(fd);
    for (uint32_t g = 0; g < RP_MAX_GROUPS; g++) CHECK_EQ(bits(log->head->watched, RP_LOG_EVENTS + g), 0);
    put_number(log, 8); /* nobody armed again */
    CHECK_EQ(rp_load_relaxed(&log->head->armed[0]) | rp_load_relaxed(&log->head->armed[1]), 0);
    for (uint32_t g = 0; g < RP_MAX_GROUPS; g++) rp_watch_close(watches[g]);
}

/* ---- several watchers ----------------------------------------------------------------------- */

static void nobody_takes_a_wake_up_from_another(void) {
    rp_log *log = small_log();
    rp_watch *fast = watch_frames(log), *slow = watch_frames(log);
    rearm(fast);
    rearm(slow);
    put_number(log, 1);
    CHECK_EQ(take_number(log, 0), 1);
    rearm(fast);
    CHECK(!is_readable(fast, 0) && is_readable(slow, 0));
    rearm(slow);
    put_number(log, 2);
    CHECK(is_readable(fast, 0) && is_readable(slow, 0));
    rp_watch_close(fast);
    put_number(log, 3);
    CHECK(is_readable(slow, 0));
    rp_watch_close(slow);
}

typedef struct together {
    rp_log *log;
    _Atomic uint64_t got, sum, late;
    uint64_t all;
    bool timed;
} together;

static void take_by_descriptor(void *argument) {
    together *all = argument;
    rp_watch *watch = open_watch(all->log, RP_WATCH_FRAMES, 0, all->timed);
    uint64_t number;
    while (atomic_load(&all->got) < all->all) {
        rp_status status = try_take_number(all->log, 0, &number);
        if (status == RP_EMPTY) {
            rearm(watch);
            status = try_take_number(all->log, 0, &number);
        }
        if (status == RP_SHUT_DOWN) break;
        if (status == RP_OK) {
            atomic_fetch_add(&all->sum, number);
            atomic_fetch_add(&all->got, 1);
        } else if (!is_readable(watch, SLICE_MS * 20 * SLOWNESS)) {
            atomic_fetch_add(&all->late, 1);
        }
    }
    rp_watch_close(watch);
}

static void put_now_and_then(void *argument) {
    together *all = argument;
    uint64_t random = 88172645463325252u ^ (uint64_t)getpid();
    for (uint64_t i = 0; i < all->all / 2; i++) {
        put_number(all->log, i);
        if (next_random(&random) % 4 == 0) sched_yield();
        if (next_random(&random) % 64 == 0) usleep(50);
    }
}

static void none_is_missed(bool are_threads) {
    together *all = shared_memory(sizeof *all);
    all->all = ROUNDS(60000) & ~UINT64_C(1);
    all->log = small_log();
    crew takers = {.are_threads = are_threads}, putters = {.are_threads = are_threads};
    for (int i = 0; i < 4; i++) engage(&takers, take_by_descriptor, all);
    for (int i = 0; i < 2; i++) engage(&putters, put_now_and_then, all);
    join_crew(&putters);
    EVENTUALLY(atomic_load(&all->got) == all->all);
    CHECK_OK(rp_shut_down(all->log, false, in_ms(BOUND_MS)));
    join_crew(&takers);
    uint64_t half = all->all / 2;
    CHECK_EQ(atomic_load(&all->sum), half * (half - 1));
    CHECK_EQ(atomic_load(&all->late), 0);
}

static void none_is_missed_by_threads(void) { none_is_missed(true); }
static void none_is_missed_by_processes(void) { none_is_missed(false); }

typedef struct pair {
    rp_log *log;
    uint32_t groups[2];
    uint64_t rounds;
} pair;

/* Each answers the other: a lost wake-up stops both. */
static void answer(pair *both, int which) {
    rp_watch *watch = open_watch(both->log, RP_WATCH_FRAMES, both->groups[which], false);
    uint64_t number, expected = (uint64_t)which;
    if (which == 1) put_number(both->log, 0);
    while (expected < both->rounds) {
        rp_status status = try_take_number(both->log, both->groups[which], &number);
        if (status == RP_EMPTY) {
            rearm(watch);
            status = try_take_number(both->log, both->groups[which], &number);
        }
        if (status == RP_EMPTY) {
            CHECK(is_readable(watch, BOUND_MS));
            continue;
        }
        CHECK_OK(status);
        if (number % 2 != (uint64_t)which) continue;
        put_number(both->log, number + 1);
        expected = number + 2;
    }
    rp_watch_close(watch);
}

static void be_asked(void *argument) { answer(argument, 0); }

static void it_goes_back_and_forth(void) {
    pair *both = shared_memory(sizeof *both);
    *both = (pair){.log = small_log(), .rounds = ROUNDS(20000)};
    CHECK_OK(open_group(both->log, "other", true, RP_NOW, &both->groups[1]));
    pid_t child = start_process(be_asked, both);
    answer(both, 1);
    join_process(child);
}

/* ---- what it costs others ------------------------------------------------------------------- */

static void put_silently(void *argument) {
    rp_log *log = argument;
    uint64_t number;
    CHECK_OK(rp_ready(log, &number));
    fflush(NULL);
    if (!forbid_system_calls()) FAIL("seccomp: %s", strerror(errno));
    for (uint64_t i = 0; i < 3000; i++) {
        put_number(log, i);
        CHECK_EQ(take_number(log, 0), i);
        CHECK_OK(rp_task_done(log));
    }
}

static void who_is_not_armed_costs_nothing(void) {
    rp_log *log = small_log();
    rp_watch *frames = watch_frames(log), *space = open_watch(log, RP_WATCH_SPACE, 0, true);
    rearm(frames);
    rearm(space);
    put_number(log, 1);
    CHECK_EQ(take_number(log, 0), 1);
    join_process(start_process(put_silently, log));
    rp_watch_close(frames);
    rp_watch_close(space);
}

static void a_sleeper_costs_no_write(void) {
    rp_log *log = small_log();
    rp_watch *watch = watch_frames(log);
    rp_watch_clear(watch);
    rp_or_relaxed(&log->head->armed[0], UINT64_C(1) << RP_LOG_EVENTS); /* as one on a futex does */
    put_number(log, 1);
    CHECK_EQ(rp_load_relaxed(&log->head->armed[0]), 0);
    CHECK(!is_readable(watch, 0));
    rp_watch_close(watch);
}

static void a_full_fifo_tells_all_the_same(void) {
    rp_log *log = small_log();
    rp_watch *watch = watch_frames(log);
    char waste[4096] = {0};
    int fd = open(fifo_path(log), O_RDWR | O_NONBLOCK);
    for (uint64_t i = 0; i < 3; i++) {
        while (write(fd, waste, sizeof waste) > 0) {
        }
        while (write(fd, waste, 1) > 0) {
        }
        rearm(watch);
        CHECK(!is_readable(watch, 0));
        put_number(log, i);
        CHECK(is_readable(watch, 0));
    }
    CHECK(read(fd, waste, sizeof waste) > 0);
    close(fd);
    rp_watch_close(watch);
}

/* ---- time ----------------------------------------------------------------------------------- */

static void a_timed_watch_ends_a_slice(void) {
    rp_log *log = small_log();
    rp_watch *watch = open_watch(log, RP_WATCH_FRAMES, 0, true);
    for (int i = 0; i < 3; i++) {
        int64_t start = rp_monotonic_ns();
        CHECK_EQ(rp_watch_arm(watch), RP_NEVER);
        CHECK(!is_readable(watch, SLICE_MS / 2));
        CHECK(is_readable(watch, BOUND_MS));
        CHECK_SOON(ms_since(start), SLICE_MS * 2 * SLOWNESS);
        CHECK_IS(rp_watch_look(watch), RP_EMPTY);
    }
    rp_watch_keep(watch);
    sleep_ms(1);
    CHECK(is_readable(watch, 0) && is_readable(watch, 0));
    rearm(watch);
    CHECK(!is_readable(watch, 0));
    rp_watch_close(watch);
}

static void what_is_due_ends_it_earlier(void) {
    rp_log *log = small_log();
    rp_watch *watch = open_watch(log, RP_WATCH_FRAMES, 0, true);
    _Alignas(RP_ALIGN) numbered got;
    rp_receipt receipt;
    rp_taken taken;
    uint32_t lost, done;
    put_number(log, 1);
    CHECK_OK(rp_try_receive(log, 0, &got, sizeof got, 1, 0, &receipt, &taken));
    CHECK_OK(rp_give_back(log, 0, &receipt, 1, 30000000, false, RP_NOW, &lost, &done));
    rearm(watch);
    int64_t due = rp_watch_arm(watch), start = rp_monotonic_ns();
    CHECK(due > 20000000 && due < 40000000);
    CHECK(is_readable(watch, BOUND_MS));
    CHECK(ms_since(start) >= 20);
    CHECK_SOON(ms_since(start), 80 * SLOWNESS);
    CHECK_IS(rp_watch_look(watch), RP_OK);
    CHECK_OK(rp_try_receive(log, 0, &got, sizeof got, 1, 0, &receipt, &taken));
    rp_watch_close(watch);
}

static void a_look_says_if_a_try_is_worth_it(void) {
    rp_log *log = small_log();
    rp_watch *frames = watch_frames(log), *space = open_watch(log, RP_WATCH_SPACE, 0, false);
    CHECK_IS(rp_watch_look(frames), RP_EMPTY);
    CHECK_IS(rp_watch_look(space), RP_OK);
    put_number(log, 1);
    CHECK_IS(rp_watch_look(frames), RP_OK);
    take_number(log, 0);
    CHECK_IS(rp_watch_look(frames), RP_EMPTY);
    CHECK_OK(rp_shut_down(log, false, RP_NOW));
    CHECK_IS(rp_watch_look(frames), RP_OK);
    CHECK(unlink(log_path()) == 0);
    CHECK_IS(rp_watch_look(frames), RP_DELETED);
    rp_watch_close(frames);
    rp_watch_close(space);
}

/* ---- deaths --------------------------------------------------------------------------------- */

/* As a dead process left the bits: whoever arms next is told, and a timed one looks when its slice is over. */
static void half_finished_wake_ups_delay_by_a_slice(void) {
    enum { AFTER_COMMIT, AFTER_F1, AFTER_F2, STEPS };
    for (int step = 0; step < STEPS; step++) {
        rp_log *log = small_log();
        rp_watch *watch = open_watch(log, RP_WATCH_FRAMES, 0, true);
        uint64_t bit = UINT64_C(1) << RP_LOG_EVENTS;
        rearm(watch);
        rp_u64 *armed = &log->head->armed[0], *watched = &log->head->watched[0];
        uint64_t was_armed = rp_load_relaxed(armed), was_watched = rp_load_relaxed(watched);
        CHECK(was_armed & was_watched & bit);
        rp_store_relaxed(armed, 0); /* so that this put tells nobody */
        put_number(log, 1);
        if (step == AFTER_COMMIT) rp_store_relaxed(armed, was_armed);
        if (step == AFTER_F2) rp_store_relaxed(watched, 0);
        int64_t start = rp_monotonic_ns();
        CHECK(is_readable(watch, BOUND_MS));
        CHECK_SOON(ms_since(start), SLICE_MS * 2 * SLOWNESS);
        CHECK_EQ(take_number(log, 0), 1);
        rearm(watch);
        CHECK(!is_readable(watch, 0));
        put_number(log, 2);
        CHECK(is_readable(watch, 0));
        rp_watch_close(watch);
        rp_detach(log);
        rp_remove(log_path());
    }
}

static void flags_of_dead_watchers_cost_one_wake_up(void) {
    rp_log *log = small_log();
    uint64_t bit = UINT64_C(1) << RP_LOG_EVENTS;
    for (int left = 1; left < 4; left++) {
        if (left & 1) rp_or_relaxed(&log->head->watched[0], bit);
        if (left & 2) rp_or_relaxed(&log->head->armed[0], bit);
        for (uint64_t i = 0; i < 10; i++) {
            put_number(log, i);
            CHECK_EQ(take_number(log, 0), i);
        }
        CHECK_EQ(rp_load_relaxed(&log->head->armed[0]), 0);
        CHECK_EQ(rp_load_relaxed(&log->head->watched[0]), left == 1 ? bit : 0);
        rp_store_relaxed(&log->head->watched[0], 0);
    }
    CHECK_EQ(count_fifos(), 0); /* a waker makes none */
}

static void watch_and_die(void *argument) {
    rp_log *log = argument;
    rearm(watch_frames(log));
    raise(SIGKILL);
}

static void a_dead_watcher_leaves_nothing_but_flags(void) {
    rp_log *log = small_log();
    CHECK(WIFSIGNALED(wait_for(start_process(watch_and_die, log))));
    CHECK_EQ(bits(log->head->watched, RP_LOG_EVENTS), 1);
    put_number(log, 1);
    CHECK_EQ(rp_load_relaxed(&log->head->watched[0]) | rp_load_relaxed(&log->head->armed[0]), 0);
    rp_watch *watch = watch_frames(log);
    rearm(watch);
    put_number(log, 2);
    CHECK(is_readable(watch, 0));
    CHECK_EQ(count_fifos(), 1);
    rp_watch_close(watch);
}

/* ---- the FIFO ------------------------------------------------------------------------------- */

static void it_goes_with_the_segment(void) {
    for (int way = 0; way < 4; way++) {
        rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .auto_delete = way > 0});
        rp_watch *watch = watch_frames(log);
        struct stat st;
        CHECK(lstat(fifo_path(log), &st) == 0 && S_ISFIFO(st.st_mode) && (st.st_mode & 0777) == 0600);
        if (way == 3) { /* as after a kill -9 of everybody */
            rp_watch_close(watch);
            char kept[256], saved[256];
            snprintf(kept, sizeof kept, "%s", fifo_path(log));
            snprintf(saved, sizeof saved, "%s.saved", log_path());
            CHECK(link(log_path(), saved) == 0);
            rp_detach(log);
            CHECK(rename(saved, log_path()) == 0 && mkfifo(kept, 0600) == 0);
            CHECK_OK(rp_collect(log_path()));
            CHECK_EQ(count_fifos(), 0);
            continue;
        }
        if (way == 0) CHECK_OK(rp_remove(log_path()));
        if (way == 1) rp_leave(log);
        rp_watch_close(watch);
        rp_detach(log);
        CHECK_EQ(count_fifos(), 0);
        CHECK(access(log_path(), F_OK) != 0);
    }
}

static void who_comes_late_leaves_none(void) {
    rp_log *log = small_log();
    CHECK_OK(rp_remove(log_path()));
    rp_watch *watch = watch_frames(log);
    CHECK_EQ(count_fifos(), 0);
    rp_watch_close(watch);
    rp_log *anew = small_log();
    CHECK(anew != log);
    rp_watch *fresh = watch_frames(anew);
    watch = watch_frames(log);
    CHECK_EQ(count_fifos(), 1); /* the new log's is not touched */
    rearm(fresh);
    put_number(anew, 1);
    CHECK(is_readable(fresh, 0));
    rp_watch_close(watch);
    rp_watch_close(fresh);
}

static void make_a_file(const char *path) { close(open(path, O_CREAT | O_EXCL | O_WRONLY, 0600)); }
static void make_a_link(const char *path) {
    make_a_file(in_directory("victim"));
    CHECK(symlink(in_directory("victim"), path) == 0);
}
static void make_a_directory(const char *path) { CHECK(mkdir(path, 0700) == 0); }
static void make_an_open_one(const char *path) { CHECK(mkfifo(path, 0600) == 0 && chmod(path, 0666) == 0); }

static void what_is_no_fifo_of_ours_is_refused(void) {
    void (*const makers[])(const char *) = {make_a_file, make_a_link, make_a_directory, make_an_open_one};
    for (size_t i = 0; i < COUNT(makers); i++) {
        rp_log *log = small_log();
        rp_watch *watch;
        struct stat st;
        makers[i](fifo_path(log));
        CHECK_IS(rp_watch_open(log, RP_WATCH_FRAMES, 0, false, &watch), RP_NOT_OURS);
        rp_or_relaxed(&log->head->watched[0], UINT64_MAX);
        rp_or_relaxed(&log->head->armed[0], UINT64_MAX);
        put_number(log, 1); /* writes nowhere */
        CHECK(lstat(fifo_path(log), &st) == 0);
        if (S_ISREG(st.st_mode)) CHECK_EQ(st.st_size, 0);
        if (i == 1) CHECK(stat(in_directory("victim"), &st) == 0 && st.st_size == 0);
        CHECK_OK(rp_remove(log_path()));
        if (S_ISDIR(st.st_mode) || i < 2) CHECK(remove(fifo_path(log)) == 0);
        unlink(in_directory("victim"));
        rp_detach(log);
        CHECK_EQ(count_fifos(), 0);
    }
}

static void groups_that_are_none_are_refused(void) {
    rp_log *log = small_log();
    rp_watch *watch;
    CHECK_IS(rp_watch_open(log, RP_WATCH_FRAMES, RP_DEFAULT_GROUPS, false, &watch), RP_INVALID);
    CHECK_EQ(count_fifos(), 0);
}

/* ---- fork, and closed descriptors ----------------------------------------------------------- */

static void meddle(void *argument) {
    rp_watch *watch = argument;
    rp_watch_clear(watch);
    rp_watch_keep(watch);
    rp_watch_arm(watch);
    CHECK_EQ(*rp_token_page, 0); /* it has not begun to take part, without the lock that this needs */
    rp_watch_close(watch);
}

static void a_forked_child_leaves_its_parents_latch_alone(void) {
    rp_log *log = small_log();
    rp_watch *watch = open_watch(log, RP_WATCH_FRAMES, 0, true);
    rearm(watch);
    put_number(log, 1);
    join_process(start_process(meddle, watch));
    CHECK(is_readable(watch, 0));
    take_number(log, 0);
    rearm(watch);
    join_process(start_process(meddle, watch));
    CHECK(!is_readable(watch, 0));
    put_number(log, 2);
    CHECK(is_readable(watch, 0));
    rp_watch_close(watch);
}

static void descriptors_of_others_are_not_closed(void) {
    rp_log *log = small_log();
    rp_watch *watch = open_watch(log, RP_WATCH_FRAMES, 0, true);
    for (int fd = 3; fd < 64; fd++) close(fd); /* as daemons do */
    int foreign[40];
    for (size_t i = 0; i < COUNT(foreign); i++) foreign[i] = open("/dev/null", O_RDONLY);
    rearm(watch);
    rp_watch_keep(watch);
    rp_watch_close(watch);
    for (size_t i = 0; i < COUNT(foreign); i++) CHECK(fcntl(foreign[i], F_GETFD) >= 0);
    put_number(log, 1);
}

RUN_TESTS(TEST(it_is_readable_until_it_is_cleared), TEST(each_event_tells_who_watches),
          TEST(a_write_for_another_event_is_in_vain), TEST(every_group_is_told_by_one_write),
          TEST(nobody_takes_a_wake_up_from_another), TEST(none_is_missed_by_threads),
          TEST(none_is_missed_by_processes), TEST(it_goes_back_and_forth),
          TEST(who_is_not_armed_costs_nothing), TEST(a_sleeper_costs_no_write),
          TEST(a_full_fifo_tells_all_the_same), TEST(a_timed_watch_ends_a_slice),
          TEST(what_is_due_ends_it_earlier), TEST(a_look_says_if_a_try_is_worth_it),
          TEST(half_finished_wake_ups_delay_by_a_slice), TEST(flags_of_dead_watchers_cost_one_wake_up),
          TEST(a_dead_watcher_leaves_nothing_but_flags), TEST(it_goes_with_the_segment),
          TEST(who_comes_late_leaves_none), TEST(what_is_no_fifo_of_ours_is_refused),
          TEST(groups_that_are_none_are_refused), TEST(a_forked_child_leaves_its_parents_latch_alone),
          TEST(descriptors_of_others_are_not_closed))
