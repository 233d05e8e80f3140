/* The life of a segment's file: made at once or not at all, one handle for each process, removed. */
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "inside.h"
#include "liveness.h"
#include "messages.h"
#include "threads.h"

static bool exists(const char *path) { return access(path, F_OK) == 0; }

static void a_log_is_created_once(void) {
    rp_log *log = small_log(), *other = NULL;
    CHECK_IS(rp_create(log_path(), &(rp_settings){0}, &other), RP_EXISTS);
    CHECK(other == NULL);
    rp_detach(log);
    CHECK_IS(rp_create(log_path(), &(rp_settings){0}, &other), RP_EXISTS);
    CHECK_IS(rp_create(in_directory("no/where"), &(rp_settings){0}, &other), RP_NOT_FOUND);
}

typedef struct race {
    _Atomic uint32_t ready, created, existed;
} race;

static void create_or_attach(void *argument) {
    race *all = argument;
    rp_log *log = NULL;
    atomic_fetch_add(&all->ready, 1);
    while (atomic_load(&all->ready) < 4) sched_yield();
    rp_status status = rp_create(log_path(), &(rp_settings){.capacity = RP_MIN_CAPACITY}, &log);
    if (status == RP_EXISTS) {
        atomic_fetch_add(&all->existed, 1);
        CHECK_OK(rp_attach(log_path(), &log)); /* whatever has the name is complete */
    } else {
        CHECK_OK(status);
        atomic_fetch_add(&all->created, 1);
    }
    put_number(log, 1);
}

static void of_many_creators_one_wins(void) {
    for (int round = 0; round < ROUNDS(24); round++) {
        race *all = shared_memory(sizeof *all);
        pid_t children[4];
        for (size_t i = 0; i < COUNT(children); i++) children[i] = start_process(create_or_attach, all);
        for (size_t i = 0; i < COUNT(children); i++) join_process(children[i]);
        CHECK_EQ(all->created, 1);
        CHECK_EQ(all->existed, COUNT(children) - 1);
        rp_log *log;
        CHECK_OK(rp_attach(log_path(), &log));
        rp_info info;
        CHECK_OK(rp_get_info(log, &info));
        CHECK_EQ(info.ready, COUNT(children));
        rp_detach(log);
        CHECK_OK(rp_remove(log_path()));
    }
}

static void a_creator_that_dies_leaves_nothing(void) {
    for (int i = 0; i < ROUNDS(40); i++) {
        race *unused = shared_memory(sizeof *unused);
        atomic_store(&unused->ready, 4);
        pid_t child = start_process(create_or_attach, unused);
        nanosleep(&(struct timespec){.tv_nsec = i * 20000}, NULL);
        kill(child, SIGKILL);
        wait_for(child);
        rp_log *log;
        rp_status status = rp_attach(log_path(), &log);
        if (status == RP_OK) {
            put_number(log, 7);
            rp_detach(log);
            CHECK_OK(rp_remove(log_path()));
        } else {
            CHECK_IS(status, RP_NOT_FOUND);
        }
        CHECK(rmdir(test_directory) == 0 && mkdir(test_directory, 0700) == 0);
    }
}

static void check_geometry(uint64_t capacity, uint64_t ring, uint64_t pool) {
    rp_log *log = create_log((rp_settings){.capacity = capacity});
    rp_info info;
    CHECK_OK(rp_get_info(log, &info));
    CHECK_EQ(info.ring_size, ring);
    CHECK_EQ(info.pool_size, pool);
    CHECK(info.file_size >= ring + pool);
    CHECK_EQ(info.next_sequence + info.ready + info.used_bytes + info.pool_used, 0);
    CHECK_EQ(info.participants, 1);
    CHECK_EQ(log->geometry.chunk_count, pool / RP_GRANULE);
    CHECK_OK(put_filled(log, 1, RP_INLINE_MAX, RP_NOW));
    CHECK_OK(put_filled(log, 2, pool, RP_NOW));
    CHECK_OK(take_filled(log, 0, 1, RP_INLINE_MAX, RP_NOW));
    CHECK_OK(take_filled(log, 0, 2, pool, RP_NOW));
    rp_detach(log);
    CHECK_OK(rp_remove(log_path()));
}

static void capacities_are_planned_sensibly(void) {
    check_geometry(RP_MIN_CAPACITY, 64 << 10, 64 << 10);
    check_geometry(RP_MIN_CAPACITY + 8191, 64 << 10, 64 << 10);
    check_geometry(RP_MIN_CAPACITY + 8192, 64 << 10, 72 << 10);
    check_geometry(300001, 128 << 10, 163840);
    check_geometry(0, RP_DEFAULT_CAPACITY / 2, RP_DEFAULT_CAPACITY / 2);
    check_geometry(48 << 20, 16 << 20, 32 << 20);
}

static void settings_out_of_range_are_refused(void) {
    const rp_settings bad[] = {{.capacity = RP_MIN_CAPACITY - 1},
                               {.capacity = RP_MAX_CAPACITY + 1},
                               {.capacity = RP_MIN_CAPACITY, .groups = RP_MAX_GROUPS + 1}};
    rp_log *log;
    for (size_t i = 0; i < COUNT(bad); i++) CHECK_IS(rp_create(log_path(), &bad[i], &log), RP_INVALID);
    log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .groups = RP_MAX_GROUPS, .leases = 1});
    CHECK_EQ(log->geometry.group_count, RP_MAX_GROUPS);
}

static void a_process_has_one_handle(void) {
    rp_log *log = small_log(), *second, *third;
    CHECK_OK(rp_attach(log_path(), &second));
    CHECK_OK(rp_attach(in_directory("./log"), &third));
    CHECK(second == log && third == log);
    CHECK_EQ(participants(log), 1);
    rp_detach(third);
    rp_detach(second);
    put_number(log, 5);
    rp_detach(log);
    CHECK_OK(rp_attach(log_path(), &log));
    CHECK_EQ(take_number(log, 0), 5);
}

static void auto_deleted_logs_go_with_the_last_handle(void) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .auto_delete = true}), *second;
    CHECK_OK(rp_attach(log_path(), &second));
    rp_detach(second);
    CHECK(exists(log_path()));
    CHECK_IS(rp_collect(log_path()), RP_EXISTS); /* we are there */
    uint32_t owner;
    pid_t other = start_idler(log, &owner);
    rp_detach(log);
    CHECK(exists(log_path()));
    kill_process(other);
    EVENTUALLY(rp_collect(log_path()) == RP_OK);
    CHECK(!exists(log_path()));
    CHECK_IS(rp_collect(log_path()), RP_NOT_FOUND);

    log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .auto_delete = true});
    rp_detach(log);
    CHECK(!exists(log_path()));
}

static void leaving_is_detaching_early(void) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .auto_delete = true});
    rp_leave(log);
    CHECK(!exists(log_path()));
    put_number(log, 3);
    CHECK_EQ(take_number(log, 0), 3);
    rp_detach(log);
    log = small_log(); /* not auto-deleted: leaving means nothing */
    rp_leave(log);
    CHECK(exists(log_path()));
    rp_detach(log);
    CHECK(exists(log_path()));
    CHECK_IS(rp_collect(log_path()), RP_EXISTS);
}

/* A segment from before a reboot differs in its boot id. */
static void stale_logs_are_refused_and_collected(void) {
    rp_log *log = small_log(), *other;
    CHECK_EQ(log->head->super.crc, rp_checksum(&log->head->super));
    log->head->super.boot_id[3] ^= 1;
    log->head->super.crc = rp_checksum(&log->head->super);
    rp_detach(log);
    CHECK_IS(rp_attach(log_path(), &other), RP_STALE);
    CHECK_OK(rp_collect(log_path()));
    CHECK(!exists(log_path()));
    rp_detach(small_log());
}

static void sleep_until_deleted(void *log) {
    uint64_t number;
    CHECK_IS(take_number_until(log, 0, RP_NEVER, &number), RP_DELETED);
}

static void removing_wakes_and_marks(void) {
    rp_log *log = small_log();
    pid_t sleeper = start_process(sleep_until_deleted, log);
    EVENTUALLY(rp_load_relaxed(&log->head->armed[0]) != 0);
    CHECK_OK(rp_remove(log_path()));
    CHECK(!exists(log_path()));
    join_process(sleeper);
    uint64_t number = 1;
    rp_loan loan;
    CHECK_IS(try_put_number(log, number), RP_DELETED);
    CHECK_IS(try_take_number(log, 0, &number), RP_DELETED);
    CHECK_IS(rp_borrow(log, 1, RP_NOW, &loan), RP_DELETED);
    CHECK_IS(rp_ready(log, &number), RP_DELETED);
    CHECK_IS(rp_join(log, RP_NOW), RP_DELETED);
    rp_info info;
    CHECK_OK(rp_get_info(log, &info));
    CHECK(info.deleted);
    CHECK_IS(rp_remove(log_path()), RP_NOT_FOUND);
    rp_log *next = small_log(); /* the name is free, and another log */
    CHECK(next != log);
    put_number(next, 4);
}

static void a_file_removed_by_others_is_noticed(void) {
    rp_log *log = small_log();
    pid_t sleeper = start_process(sleep_until_deleted, log);
    EVENTUALLY(rp_load_relaxed(&log->head->armed[0]) != 0);
    CHECK(unlink(log_path()) == 0);
    join_process(sleeper);
}

static void slots_run_out(void) {
    rp_log *log = small_log();
    int fd = open(log_path(), O_RDWR | O_CLOEXEC);
    struct flock rest = {.l_type = F_WRLCK, .l_start = ((off_t)1 << 40) + 1, .l_len = RP_SLOTS - 1};
    CHECK(fcntl(fd, F_OFD_SETLK, &rest) == 0); /* as if everybody were there */
    rp_detach(log);
    struct flock first = {.l_type = F_WRLCK, .l_start = (off_t)1 << 40, .l_len = 1};
    CHECK(fcntl(fd, F_OFD_SETLK, &first) == 0);
    CHECK_IS(rp_attach(log_path(), &log), RP_NO_SLOT);
    close(fd);
    CHECK_OK(rp_attach(log_path(), &log));
}

/* Out of descriptors: the log is still there, and that is what the caller is told. */
static void no_descriptor_is_left(bool auto_delete) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .auto_delete = auto_delete});
    uint32_t owner;
    pid_t other = start_idler(log, &owner);
    rp_detach(log);
    struct rlimit limit, few;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    few = limit;
    int next = dup(0);
    close(next);
    rp_status status = RP_SYSTEM;
    for (few.rlim_cur = (rlim_t)next; status != RP_OK; few.rlim_cur++) {
        CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
        CHECK(rp_collect(log_path()) != RP_OK); /* who can not look takes nothing for left over */
        CHECK(exists(log_path()));
        status = rp_attach(log_path(), &log);
        if (status == RP_OK) break;
        CHECK_EQ(errno, EMFILE);
        CHECK_IS(status, RP_SYSTEM);
    }
    CHECK(few.rlim_cur > (rlim_t)next + 1);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    rp_detach(log);
    kill_process(other);
    unlink(log_path());
}

static void out_of_descriptors(void) {
    no_descriptor_is_left(false);
    no_descriptor_is_left(true);
}

static void touch(void *address) {
    signal(SIGSEGV, SIG_DFL); /* AddressSanitizer has its own */
    *(volatile char *)address = 1;
}

static void check_guarded(const void *start, uint64_t size) {
    uint8_t *edges[] = {(uint8_t *)start - 1, (uint8_t *)start + size};
    for (size_t i = 0; i < COUNT(edges); i++) {
        int status = wait_for(start_process(touch, edges[i]));
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    }
    join_process(start_process(touch, edges[0] + 1));
    join_process(start_process(touch, edges[1] - 1));
}

static void nothing_lies_beside_a_mapping(void) {
    rp_log *log = small_log();
    check_guarded(log->ring, 2 * log->geometry.ring_size);
    check_guarded(log->file_map, log->geometry.file_size);
}

static void remove_it(void *unused) {
    (void)unused;
    CHECK_OK(rp_remove(log_path()));
}

/* Of two that remove a log at once the second leaves alone what was made in its place. */
static void a_successor_is_not_removed(void) {
    rp_log *log = small_log(), *successor;
    int door = open(log_path(), O_RDWR);
    CHECK(rp_enter_door(door, 0)); /* the first of them */
    int64_t start = rp_monotonic_ns();
    pthread_t second = start_thread(remove_it, NULL);
    sleep_ms(10); /* it knows which file it is to remove */
    bool waits = exists(log_path());
    if (ms_since(start) < 40) CHECK(waits); /* for so long */
    unlink(log_path());
    CHECK_OK(rp_create(log_path(), &(rp_settings){.capacity = RP_MIN_CAPACITY}, &successor));
    close(door);
    join_thread(second);
    CHECK(exists(log_path()));
    put_number(successor, 1);
    CHECK_IS(try_put_number(log, 1), RP_DELETED);
    rp_detach(successor);
    CHECK_OK(rp_remove(log_path()));
}

RUN_TESTS(TEST(a_successor_is_not_removed), TEST(a_log_is_created_once), TEST(of_many_creators_one_wins),
          TEST(a_creator_that_dies_leaves_nothing), TEST(capacities_are_planned_sensibly),
          TEST(settings_out_of_range_are_refused), TEST(a_process_has_one_handle),
          TEST(auto_deleted_logs_go_with_the_last_handle), TEST(leaving_is_detaching_early),
          TEST(stale_logs_are_refused_and_collected), TEST(removing_wakes_and_marks),
          TEST(a_file_removed_by_others_is_noticed), TEST(slots_run_out), TEST(nothing_lies_beside_a_mapping),
          TEST(out_of_descriptors))
