/* Sleeping and waking: each sleeper is woken by what it waits for, none by nothing, and nobody who does not sleep
 * costs anybody a system call. A wake-up that is lost shows as time: a slice of 100 ms.
 */
#include <sys/time.h>

#include "inside.h"
#include "messages.h"
#include "silence.h"
#include "threads.h"

#define SLICE_MS 100

static uint64_t armed(rp_log *log) {
    return rp_load_relaxed(&log->head->armed[0]) | rp_load_relaxed(&log->head->armed[1]);
}

static bool is_armed(rp_log *log, uint32_t event) {
    return rp_load_relaxed(&log->head->armed[event / 64]) >> event % 64 & 1;
}

static uint32_t count_of(rp_log *log, uint32_t event) {
    return rp_load_relaxed(event < RP_LOG_EVENTS ? &log->head->events[event].count
                                                 : &log->groups[event - RP_LOG_EVENTS].event.count);
}

static uint64_t all_counts(rp_log *log) {
    uint64_t sum = 0;
    for (uint32_t e = 0; e < RP_LOG_EVENTS + log->geometry.group_count; e++) sum += count_of(log, e);
    return sum;
}

/* ---- nobody sleeps -------------------------------------------------------------------------- */

static void put_and_take_silently(void *argument) {
    rp_log *log = argument;
    numbered got[8] = {0}, batch[4] = {0};
    rp_taken taken;
    rp_loan loan;
    rp_cursor cursor;
    rp_range range;
    uint64_t number;
    uint8_t body[100];
    uint32_t done;
    size_t bytes;
    bool full;
    CHECK_OK(rp_ready(log, &number)); /* joins */
    for (int i = 0; i < 4; i++) batch[i].frame.size = sizeof(rp_frame) + 8;
    fflush(NULL);
    if (!forbid_system_calls()) FAIL("seccomp: %s", strerror(errno));
    CHECK_OK(rp_cursor_open(log, true, &cursor));
    for (uint64_t i = 0; i < 3000; i++) {
        rp_message message = {.body = &i, .body_len = sizeof i};
        CHECK_OK(rp_try_put(log, &message));
        CHECK_OK(rp_put(log, &message, RP_NEVER));
        CHECK_OK(rp_put_frames(log, batch, sizeof batch, 4, RP_NEVER, &done, &bytes));
        CHECK_OK(rp_take(log, 0, got, sizeof got, 5, RP_NEVER, &taken));
        CHECK_EQ(taken.count, 5);
        CHECK_OK(rp_group_range(log, 0, UINT64_MAX, 4096, &range));
        CHECK_OK(rp_group_advance(log, 0, range.end, RP_NEVER));
        CHECK_IS(rp_take(log, 0, got, sizeof got, 8, RP_NOW, &taken), RP_EMPTY);
        CHECK_OK(rp_borrow(log, 100, RP_NEVER, &loan));
        CHECK_OK(commit_loan(log, &loan, RP_NEVER));
        CHECK_IS(rp_try_take(log, 0, got, sizeof got, 8, &taken), RP_LARGE);
        CHECK_OK(rp_take_large(log, 0, taken.frame.sequence, 100, NULL, 0, body, RP_NEVER));
        CHECK_OK(rp_borrow(log, 100, RP_NEVER, &loan));
        rp_abort(log, &loan);
        rp_status status = rp_cursor_read(log, &cursor, got, sizeof got, 1, &taken);
        CHECK(status == RP_OK || status == RP_EMPTY); /* it loses what was overwritten */
        CHECK_OK(rp_ready(log, &number));
        CHECK_OK(rp_is_full(log, &full));
        CHECK_OK(rp_task_done(log));
    }
}

static void no_system_call_when_nobody_sleeps(void) {
    rp_log *log = small_log();
    uint64_t before = all_counts(log);
    join_process(start_process(put_and_take_silently, log));
    CHECK_EQ(all_counts(log), before);
    CHECK_EQ(armed(log), 0);
}

static void spinning_is_not_sleeping(void) {
    rp_log *log = small_log();
    CHECK(!rp_glance(log, 0, 100));
    put_number(log, 1);
    CHECK(rp_glance(log, 0, 1));
    CHECK_EQ(armed(log) + all_counts(log), 0);
}

/* A waiter that died left its bit: that costs one wake-up, once. */
static void a_flag_of_the_dead_costs_one_wake_up(void) {
    rp_log *log = small_log();
    for (int bits = 1; bits < 4; bits++) {
        uint64_t before = all_counts(log);
        if (bits & 1) rp_or_relaxed(&log->head->armed[0], UINT64_C(1) << RP_LOG_EVENTS);
        if (bits & 2) rp_or_relaxed(&log->head->armed[0], UINT64_C(1) << RP_EVENT_SPACE);
        for (uint64_t i = 0; i < 100; i++) {
            put_number(log, i);
            CHECK_EQ(take_number(log, 0), i);
        }
        CHECK_EQ(all_counts(log), before + (bits == 3 ? 2 : 1));
        CHECK_EQ(armed(log), 0);
    }
}

/* ---- each event ----------------------------------------------------------------------------- */

typedef struct waiter {
    rp_log *log;
    uint32_t group;
    rp_status (*wait)(struct waiter *, int64_t deadline);
    rp_status status;
    _Atomic bool done;
} waiter;

static rp_status wait_to_take(waiter *one, int64_t deadline) {
    uint64_t number;
    return take_number_until(one->log, one->group, deadline, &number);
}

static rp_status wait_to_put(waiter *one, int64_t deadline) {
    return put_bytes(one->log, "12345678", 8, deadline);
}

static rp_status wait_to_put_frames(waiter *one, int64_t deadline) {
    numbered frame = {.frame.size = sizeof(rp_frame) + 8};
    uint32_t done;
    size_t bytes;
    return UNTIL(deadline, rp_put_frames(one->log, &frame, sizeof frame, 1, deadline, &done, &bytes));
}

static rp_status wait_to_borrow(waiter *one, int64_t deadline) {
    rp_loan loan;
    rp_status status = UNTIL(deadline, rp_borrow(one->log, one->log->geometry.pool_size, deadline, &loan));
    if (status == RP_OK) rp_abort(one->log, &loan);
    return status;
}

static rp_status wait_to_commit(waiter *one, int64_t deadline) {
    rp_loan loan;
    rp_status status = UNTIL(deadline, rp_borrow(one->log, 1, deadline, &loan));
    if (status == RP_OK) status = UNTIL(deadline, commit_loan(one->log, &loan, deadline));
    if (status != RP_OK) rp_abort(one->log, &loan);
    return status;
}

static rp_status wait_to_join(waiter *one, int64_t deadline) {
    return UNTIL(deadline, rp_join(one->log, deadline));
}

static rp_status wait_for_bell(waiter *one, int64_t deadline) {
    uint32_t heard = rp_bell_listen(one->log);
    return UNTIL(deadline, rp_bell_wait(one->log, heard, deadline));
}

static void run_waiter(void *argument) {
    waiter *one = argument;
    one->status = one->wait(one, in_ms(BOUND_MS));
    atomic_store(&one->done, true);
}

static void fill_ring(rp_log *log) {
    while (try_put_number(log, 0) == RP_OK) {
    }
}

static void wake_by_put(rp_log *log) { put_number(log, 1); }
static void wake_by_take(rp_log *log) { take_number(log, 0); }
static void wake_by_shutdown(rp_log *log) { CHECK_OK(rp_shut_down(log, false, RP_NOW)); }

static void wake_by_removal(rp_log *log) {
    (void)log;
    CHECK_OK(rp_remove(log_path()));
}

static void wake_by_task_done(rp_log *log) { CHECK_OK(rp_task_done(log)); }

static void wake_by_loan(rp_log *log) {
    rp_loan loan;
    CHECK_OK(rp_borrow(log, 8, RP_NOW, &loan));
    CHECK_OK(commit_loan(log, &loan, RP_NOW));
}

static void wake_by_frames(rp_log *log) {
    numbered frames[2] = {{.frame.size = sizeof(rp_frame) + 8}, {.frame.size = sizeof(rp_frame) + 8}};
    uint32_t done;
    size_t bytes;
    CHECK_OK(rp_try_put_frames(log, frames, sizeof frames, 2, &done, &bytes));
}

static void wake_by_advance(rp_log *log) {
    rp_range range;
    CHECK_OK(rp_group_range(log, 0, UINT64_MAX, 64, &range));
    CHECK_OK(rp_group_advance(log, 0, range.end, RP_NOW));
}

static void nothing(rp_log *log) { (void)log; }
static void one_message(rp_log *log) { put_number(log, 0); }
static void large_message(rp_log *log) { CHECK_OK(put_filled(log, 0, log->geometry.pool_size, RP_NOW)); }
static void take_large(rp_log *log) { CHECK_OK(take_filled(log, 0, 0, log->geometry.pool_size, RP_NOW)); }

#define GROUP_0 RP_LOG_EVENTS

static const struct {
    const char *name;
    uint32_t event;
    void (*before)(rp_log *);
    rp_status (*wait)(waiter *, int64_t);
    void (*wake)(rp_log *);
    rp_status status;
} wakings[] = {
    {"put", GROUP_0, nothing, wait_to_take, wake_by_put, RP_OK},
    {"put_frames", GROUP_0, nothing, wait_to_take, wake_by_frames, RP_OK},
    {"commit", GROUP_0, nothing, wait_to_take, wake_by_loan, RP_LARGE},
    {"shutdown of a taker", GROUP_0, nothing, wait_to_take, wake_by_shutdown, RP_SHUT_DOWN},
    {"removal of a taker", GROUP_0, nothing, wait_to_take, wake_by_removal, RP_DELETED},
    {"take", RP_EVENT_SPACE, fill_ring, wait_to_put, wake_by_take, RP_OK},
    {"take for a run of frames", RP_EVENT_SPACE, fill_ring, wait_to_put_frames, wake_by_take, RP_OK},
    {"take for a commit", RP_EVENT_SPACE, fill_ring, wait_to_commit, wake_by_take, RP_OK},
    {"advance", RP_EVENT_SPACE, fill_ring, wait_to_put, wake_by_advance, RP_OK},
    {"shutdown of a producer", RP_EVENT_SPACE, fill_ring, wait_to_put, wake_by_shutdown, RP_SHUT_DOWN},
    {"removal of a producer", RP_EVENT_SPACE, fill_ring, wait_to_put, wake_by_removal, RP_DELETED},
    {"take of a large one", RP_EVENT_SPACE, large_message, wait_to_borrow, take_large, RP_OK},
    {"shutdown of a borrower", RP_EVENT_SPACE, large_message, wait_to_borrow, wake_by_shutdown, RP_SHUT_DOWN},
    {"bell", RP_EVENT_BELL, nothing, wait_for_bell, rp_bell_ring, RP_OK},
    {"task_done", RP_EVENT_JOIN, one_message, wait_to_join, wake_by_task_done, RP_OK},
    {"removal of a joiner", RP_EVENT_JOIN, one_message, wait_to_join, wake_by_removal, RP_DELETED},
};

/* By the wake-up, not by the end of its slice: that would take most of 100 ms each time. */
static void each_event_wakes_its_sleepers(void) {
    const int rounds = 6;
    for (size_t i = 0; i < COUNT(wakings); i++) {
        int64_t waited = 0;
        for (int round = 0; round < rounds; round++) {
            rp_log *log = small_log();
            waiter one = {.log = log, .wait = wakings[i].wait};
            wakings[i].before(log);
            pthread_t thread = start_thread(run_waiter, &one);
            EVENTUALLY(is_armed(log, wakings[i].event));
            sleep_ms(2);
            CHECK(!atomic_load(&one.done));
            int64_t start = rp_monotonic_ns();
            wakings[i].wake(log);
            join_thread(thread);
            waited += rp_monotonic_ns() - start;
            if (one.status != wakings[i].status) FAIL("%s: %s", wakings[i].name, rp_status_text(one.status));
            rp_detach(log);
            rp_remove(log_path());
        }
        CHECK_SOON(waited / 1000000, rounds * SLICE_MS / 2 * SLOWNESS);
    }
}

/* Bits of `armed` lie in two words. */
static void every_group_has_its_own_event(void) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .groups = RP_MAX_GROUPS});
    const uint32_t picked[] = {1, 58, 59, 60, 61, 122, 123};
    for (uint32_t g = 1; g < RP_MAX_GROUPS; g++) {
        char name[16];
        uint32_t group;
        snprintf(name, sizeof name, "%u", g);
        CHECK_OK(open_group(log, name, false, RP_NOW, &group));
        CHECK_EQ(group, g);
    }
    int64_t waited = 0;
    for (size_t i = 0; i < COUNT(picked); i++) {
        waiter one = {.log = log, .group = picked[i], .wait = wait_to_take};
        pthread_t thread = start_thread(run_waiter, &one);
        EVENTUALLY(is_armed(log, RP_LOG_EVENTS + picked[i]));
        sleep_ms(2);
        CHECK_EQ((uint64_t)__builtin_popcountll(rp_load_relaxed(&log->head->armed[0])) +
                     (uint64_t)__builtin_popcountll(rp_load_relaxed(&log->head->armed[1])),
                 1);
        int64_t start = rp_monotonic_ns();
        put_number(log, i);
        join_thread(thread);
        waited += rp_monotonic_ns() - start;
        CHECK_OK(one.status);
        for (uint32_t g = 0; g < RP_MAX_GROUPS; g++)
            if (g != picked[i]) CHECK_EQ(take_number(log, g), i);
        rp_store_relaxed(&log->head->armed[0], 0); /* armed again when it woke */
        rp_store_relaxed(&log->head->armed[1], 0);
    }
    CHECK_SOON(waited / 1000000, (int64_t)COUNT(picked) * SLICE_MS / 2 * SLOWNESS);
}

/* ---- many sleepers -------------------------------------------------------------------------- */

#define SLEEPERS 12

typedef struct many {
    rp_log *log;
    _Atomic uint64_t got, sum;
} many;

static void take_one_of_many(void *argument) {
    many *all = argument;
    uint64_t number = take_number(all->log, 0);
    atomic_fetch_add(&all->sum, number);
    atomic_fetch_add(&all->got, 1);
}

static void put_as_frames(rp_log *log, uint64_t first, uint32_t count) {
    numbered frames[SLEEPERS] = {0};
    uint32_t done;
    size_t bytes;
    for (uint32_t i = 0; i < count; i++)
        frames[i] = (numbered){.frame.size = sizeof(rp_frame) + 8, .number = first + i};
    CHECK_OK(rp_try_put_frames(log, frames, count * sizeof *frames, count, &done, &bytes));
    CHECK_EQ(done, count);
}

enum { ONE_BY_ONE, QUICKLY, AS_ONE_BATCH, WAYS };

/* However the messages come, each sleeper gets one, and the wake-up finds all of them. */
static void wake_many(int way, bool are_threads) {
    const int rounds = 4;
    int64_t waited = 0;
    for (int round = 0; round < rounds; round++) {
        many *all = shared_memory(sizeof *all);
        all->log = small_log();
        crew takers = {.are_threads = are_threads};
        for (int i = 0; i < SLEEPERS; i++) engage(&takers, take_one_of_many, all);
        sleep_ms(15 * SLOWNESS);
        EVENTUALLY(is_armed(all->log, RP_LOG_EVENTS));
        CHECK_EQ(atomic_load(&all->got), 0);
        int64_t start = rp_monotonic_ns();
        if (way == AS_ONE_BATCH) put_as_frames(all->log, 0, SLEEPERS);
        for (uint64_t i = 0; way != AS_ONE_BATCH && i < SLEEPERS; i++) {
            put_number(all->log, i);
            if (way == ONE_BY_ONE) EVENTUALLY(atomic_load(&all->got) == i + 1);
        }
        join_crew(&takers);
        waited += rp_monotonic_ns() - start;
        CHECK_EQ(atomic_load(&all->got), SLEEPERS);
        CHECK_EQ(atomic_load(&all->sum), SLEEPERS * (SLEEPERS - 1) / 2);
        rp_detach(all->log);
        CHECK_OK(rp_remove(log_path()));
    }
    CHECK_SOON(waited / 1000000, rounds * SLICE_MS * 3 / 4 * SLOWNESS);
}

static void many_threads_get_one_each(void) {
    for (int way = 0; way < WAYS; way++) wake_many(way, true);
}

static void many_processes_get_one_each(void) {
    for (int way = 0; way < WAYS; way++) wake_many(way, false);
}

static bool use_one_cpu(void) {
    cpu_set_t all, one;
    CPU_ZERO(&one);
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all)) {
            CPU_SET(cpu, &one);
            break;
        }
    return sched_setaffinity(0, sizeof one, &one) == 0;
}

/* On one cpu both puts are over before anybody whom the first one woke runs: the second finds no bit, wakes nobody,
 * and its message is for whoever gets the wake-up passed on. */
static void a_wake_up_is_passed_on(void) {
    CHECK(use_one_cpu());
    const int rounds = 20;
    int64_t waited = 0;
    for (int round = 0; round < rounds; round++) {
        many *all = shared_memory(sizeof *all);
        all->log = small_log();
        crew takers = {.are_threads = true};
        for (int i = 0; i < 3; i++) engage(&takers, take_one_of_many, all);
        sleep_ms(3 * SLOWNESS);
        int64_t start = rp_monotonic_ns();
        for (uint64_t i = 0; i < 3; i++) CHECK_OK(try_put_number(all->log, i));
        join_crew(&takers);
        waited += rp_monotonic_ns() - start;
        CHECK_EQ(atomic_load(&all->sum), 3);
        rp_detach(all->log);
        CHECK_OK(rp_remove(log_path()));
    }
    CHECK_SOON(waited / 1000000, rounds * SLICE_MS / 3 * SLOWNESS);
}

static void put_one_of_many(void *argument) {
    many *all = argument;
    put_number(all->log, 7);
    atomic_fetch_add(&all->got, 1);
}

static void many_producers_get_room_one_by_one(void) {
    many *all = shared_memory(sizeof *all);
    all->log = small_log();
    crew producers = {.are_threads = true};
    fill_ring(all->log);
    for (int i = 0; i < SLEEPERS; i++) engage(&producers, put_one_of_many, all);
    sleep_ms(15 * SLOWNESS);
    CHECK_EQ(atomic_load(&all->got), 0);
    int64_t start = rp_monotonic_ns();
    for (uint64_t i = 0; i < SLEEPERS; i++) {
        take_number(all->log, 0);
        EVENTUALLY(atomic_load(&all->got) == i + 1);
        EVENTUALLY(try_put_number(all->log, 0) == RP_FULL); /* not RP_BUSY */
    }
    join_crew(&producers);
    CHECK_SOON(ms_since(start), SLEEPERS * SLICE_MS / 2 * SLOWNESS);
}

/* ---- deadlines ------------------------------------------------------------------------------ */

static void deadlines_are_kept(void) {
    const struct {
        void (*before)(rp_log *);
        rp_status (*wait)(waiter *, int64_t);
        rp_status status;
    } waits[] = {{nothing, wait_to_take, RP_EMPTY},        {fill_ring, wait_to_put, RP_FULL},
                 {fill_ring, wait_to_put_frames, RP_FULL}, {fill_ring, wait_to_commit, RP_FULL},
                 {large_message, wait_to_borrow, RP_FULL}, {one_message, wait_to_join, RP_EMPTY}};
    const int64_t spans[] = {0, 100, 1000, 20000, 130000}; /* us */
    for (size_t i = 0; i < COUNT(waits); i++) {
        rp_log *log = small_log();
        waiter one = {.log = log};
        waits[i].before(log);
        for (size_t s = 0; s < COUNT(spans); s++) {
            int64_t deadline = rp_monotonic_ns() + spans[s] * 1000;
            CHECK_IS(waits[i].wait(&one, deadline), waits[i].status);
            CHECK(rp_monotonic_ns() >= deadline);
            CHECK(rp_monotonic_ns() < deadline + INT64_C(1000000) * BOUND_MS);
        }
        int64_t start = rp_monotonic_ns(); /* without waiting */
        for (int n = 0; n < 100; n++) {
            CHECK_IS(waits[i].wait(&one, RP_NOW), waits[i].status);
            CHECK_IS(waits[i].wait(&one, 1), waits[i].status);
            CHECK_IS(waits[i].wait(&one, -start), waits[i].status);
        }
        CHECK_SOON(ms_since(start), 300 * SLOWNESS);
        rp_detach(log);
        CHECK_OK(rp_remove(log_path()));
    }
}

typedef struct storm {
    rp_log *log;
    _Atomic bool stop;
} storm;

static void wake_for_nothing(void *argument) {
    storm *all = argument;
    while (!atomic_load(&all->stop)) {
        rp_wake_all(all->log);
        sched_yield();
    }
}

/* Who is woken for nothing looks around and sleeps again. */
static void wake_ups_for_nothing_end_nothing(void) {
    storm all = {.log = small_log()};
    pthread_t thread = start_thread(wake_for_nothing, &all);
    for (int i = 0; i < 5; i++) {
        int64_t deadline = in_ms(30);
        uint64_t number;
        CHECK_IS(take_number_until(all.log, 0, deadline, &number), RP_EMPTY);
        CHECK(rp_monotonic_ns() >= deadline);
    }
    fill_ring(all.log);
    int64_t deadline = in_ms(30);
    CHECK_IS(put_bytes(all.log, "", 1, deadline), RP_FULL);
    CHECK(rp_monotonic_ns() >= deadline);
    atomic_store(&all.stop, true);
    join_thread(thread);
}

static void a_slice_ends_with_a_look_around(void) {
    rp_log *log = small_log();
    numbered got;
    rp_taken taken;
    rp_loan loan;
    int64_t start = rp_monotonic_ns();
    CHECK_IS(rp_take(log, 0, &got, sizeof got, 1, RP_NEVER, &taken), RP_INTERRUPTED);
    CHECK(ms_since(start) >= SLICE_MS - 2);
    CHECK_SOON(ms_since(start), SLICE_MS + 300 * SLOWNESS);
    CHECK_OK(put_filled(log, 0, log->geometry.pool_size, RP_NOW));
    start = rp_monotonic_ns();
    CHECK_IS(rp_borrow(log, 1, RP_NEVER, &loan), RP_INTERRUPTED);
    CHECK_IS(rp_join(log, RP_NEVER), RP_INTERRUPTED);
    fill_ring(log);
    CHECK_IS(rp_put(log, &(rp_message){.body = "", .body_len = 1}, RP_NEVER), RP_INTERRUPTED);
    CHECK(ms_since(start) >= 3 * SLICE_MS - 6);
    CHECK_SOON(ms_since(start), 3 * (SLICE_MS + 300 * SLOWNESS));
}

static volatile sig_atomic_t alarms;
static void note_alarm(int number) { (void)number, alarms++; }

/* Also with SA_RESTART: only the caller can know what a signal means. */
static void a_signal_interrupts(void) {
    rp_log *log = small_log();
    numbered got;
    rp_taken taken;
    for (int restart = 0; restart < 2; restart++) {
        struct sigaction action = {.sa_handler = note_alarm, .sa_flags = restart ? SA_RESTART : 0};
        sigaction(SIGALRM, &action, NULL);
        int64_t start = rp_monotonic_ns();
        for (int i = 1; i <= 8; i++) {
            alarms = 0;
            setitimer(ITIMER_REAL, &(struct itimerval){.it_value.tv_usec = 10000}, NULL);
            while (alarms == 0)
                CHECK_IS(rp_take(log, 0, &got, sizeof got, 1, RP_NEVER, &taken), RP_INTERRUPTED);
        }
        CHECK_SOON(ms_since(start), 8 * SLICE_MS * 3 / 4 * SLOWNESS);
    }
    put_number(log, 3);
    CHECK_EQ(take_number(log, 0), 3);
}

/* ---- spinning ------------------------------------------------------------------------------- */

static void with_one_cpu_nobody_spins(void) {
    cpu_set_t all;
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    if (CPU_COUNT(&all) > 1) CHECK(rp_spin_start() > 0);
    CHECK(use_one_cpu());
    CHECK_EQ(rp_spin_start(), 0);
    many *both = shared_memory(sizeof *both);
    both->log = small_log();
    CHECK_EQ(rp_load_relaxed(&both->log->spin_ns), 0);
    for (int i = 0; i < 50; i++) {
        pthread_t thread = start_thread(take_one_of_many, both);
        if (i % 2) sched_yield();
        put_number(both->log, 1);
        join_thread(thread);
    }
    CHECK_EQ(atomic_load(&both->got), 50);
    CHECK_EQ(rp_load_relaxed(&both->log->spin_ns), 0);
}

static void spinning_adapts_within_bounds(void) {
    rp_log *log = small_log();
    uint32_t most = rp_spin_start();
    if (most == 0) return; /* there is but one cpu */
    uint64_t number;
    for (int i = 0; i < 12 || rp_load_relaxed(&log->spin_ns) >= most / 8; i++) {
        CHECK(i <
              1000); /* long sleeps: spinning was in vain. One that began late on a busy machine is short */
        CHECK_IS(take_number_until(log, 0, in_ms(2), &number), RP_EMPTY);
        CHECK(rp_load_relaxed(&log->spin_ns) > 0 && rp_load_relaxed(&log->spin_ns) <= most);
    }
}

/* What sleeps does not run. */
static void sleeping_costs_no_time(void) {
    rp_log *log = small_log();
    struct timespec before, after;
    uint64_t number;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
    CHECK_IS(take_number_until(log, 0, in_ms(300), &number), RP_EMPTY);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
    int64_t ns = (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec;
    CHECK_SOON(ns / 1000000, 30 * SLOWNESS);
}

RUN_TESTS(TEST(no_system_call_when_nobody_sleeps), TEST(spinning_is_not_sleeping),
          TEST(a_flag_of_the_dead_costs_one_wake_up), TEST(each_event_wakes_its_sleepers),
          TEST(every_group_has_its_own_event), TEST(many_threads_get_one_each),
          TEST(many_processes_get_one_each), TEST(a_wake_up_is_passed_on),
          TEST(many_producers_get_room_one_by_one), TEST(deadlines_are_kept),
          TEST(wake_ups_for_nothing_end_nothing), TEST(a_slice_ends_with_a_look_around),
          TEST(a_signal_interrupts), TEST(with_one_cpu_nobody_spins), TEST(spinning_adapts_within_bounds),
          TEST(sleeping_costs_no_time))
