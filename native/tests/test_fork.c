/* fork() with an open log: the child takes part on its own from its first call on, whatever its parent was doing. */
#include <sys/syscall.h>

#include "inside.h"
#include "messages.h"
#include "threads.h"

static bool exists(void) { return access(log_path(), F_OK) == 0; }

static rp_log *fleeting_log(void) {
    return create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .auto_delete = true});
}

/* What several processes tell one another. */
typedef struct report {
    rp_log *log;
    rp_loan loan;
    uint32_t parent;
    _Atomic uint32_t ready, go, owners[16];
    _Atomic pid_t pid;
    pthread_barrier_t start;
} report;

static report *make_report(rp_log *log) {
    report *all = shared_memory(sizeof *all);
    all->log = log;
    all->parent = log->me;
    return all;
}

static void wait_to_go(report *all) { EVENTUALLY(atomic_load(&all->go)); }

/* ---- joining -------------------------------------------------------------------------------- */

static void talk_as_child(void *argument) {
    report *all = argument;
    CHECK_EQ(all->log->me, all->parent); /* nothing was done yet */
    put_number(all->log, 1);
    CHECK(all->log->me != all->parent);
    uint32_t mine = all->log->me;
    CHECK(!rp_is_dead(all->log, all->parent) && !rp_is_dead(all->log, mine));
    CHECK_EQ(rp_pid_of(all->log, mine), getpid());
    CHECK_EQ(participants(all->log), 2);
    CHECK_EQ(take_number(all->log, 0), 0);
    CHECK_EQ(all->log->me, mine); /* once */
    atomic_store(&all->owners[0], mine);
}

static void a_child_joins_on_first_use(void) {
    rp_log *log = small_log();
    for (uint64_t i = 0; i < 5; i++) {
        report *all = make_report(log);
        put_number(log, 0);
        join_process(start_process(talk_as_child, all));
        CHECK_EQ(log->me, all->parent);
        EVENTUALLY(rp_is_dead(log, atomic_load(&all->owners[0])));
        CHECK_EQ(participants(log), 1);
        CHECK_EQ(take_number(log, 0), 1);
    }
    check_invariants(log);
}

/* Any call may be the first. */
static void first_take(rp_log *log) { CHECK_EQ(take_number(log, 0), 5); }
static void first_join(rp_log *log) { CHECK_IS(rp_join(log, RP_NOW), RP_EMPTY); }
static void first_done(rp_log *log) { CHECK_OK(rp_task_done(log)); }

static void first_borrow(rp_log *log) {
    rp_loan loan;
    CHECK_OK(rp_borrow(log, 1, RP_NOW, &loan));
}

static void first_frames(rp_log *log) {
    numbered frame = {.frame.size = sizeof(rp_frame) + 8};
    uint32_t done;
    size_t bytes;
    CHECK_OK(rp_try_put_frames(log, &frame, sizeof frame, 1, &done, &bytes));
}

static void first_open(rp_log *log) {
    uint32_t group;
    CHECK_OK(open_group(log, "of a child", true, RP_NOW, &group));
}

static void first_advance(rp_log *log) { CHECK_OK(rp_group_advance(log, 0, 0, RP_NOW)); }
static void first_shut_down(rp_log *log) { CHECK_OK(rp_shut_down(log, false, RP_NOW)); }

static void first_attach(rp_log *log) {
    rp_log *same;
    CHECK_OK(rp_attach(log_path(), &same));
    CHECK(same == log);
    put_number(same, 6);
    rp_detach(same);
    put_number(log, 7);
}

typedef struct first_call {
    rp_log *log;
    void (*call)(rp_log *);
} first_call;

static void call_first(void *argument) {
    first_call *one = argument;
    uint32_t parent = one->log->me;
    one->call(one->log);
    CHECK(one->log->me != parent);
    CHECK_EQ(participants(one->log), 2);
}

static void every_call_may_be_the_first(void) {
    void (*const calls[])(rp_log *) = {first_take, first_join,    first_done,      first_borrow, first_frames,
                                       first_open, first_advance, first_shut_down, first_attach};
    for (size_t i = 0; i < COUNT(calls); i++) {
        first_call one = {.log = small_log(), .call = calls[i]};
        put_number(one.log, 5);
        join_process(start_process(call_first, &one));
        rp_detach(one.log);
        CHECK_OK(rp_remove(log_path()));
    }
}

static void put_at_once(void *argument) {
    report *all = argument;
    pthread_barrier_wait(&all->start);
    put_number(all->log, 9);
    uint32_t slot = (all->log->me & RP_SLOT_MASK) - 1;
    CHECK(slot < COUNT(all->owners));
    atomic_fetch_add(&all->owners[slot], 1);
}

static void use_with_many_threads(void *argument) {
    report *all = argument;
    crew threads = {.are_threads = true};
    pthread_barrier_init(&all->start, NULL, 8);
    for (int i = 0; i < 8; i++) engage(&threads, put_at_once, all);
    join_crew(&threads);
    CHECK(all->log->me != all->parent);
    CHECK_EQ(participants(all->log), 2);
}

/* FORBIDS token: a thread that is let in as its parent, or as somebody else than the others. */
static void many_threads_of_a_child_join_once(void) {
    rp_log *log = small_log();
    for (int round = 0; round < ROUNDS(30); round++) {
        report *all = make_report(log);
        join_process(start_process(use_with_many_threads, all));
        CHECK_EQ(atomic_load(&all->owners[0]), 0);
        CHECK_EQ(atomic_load(&all->owners[1]), 8);
        for (int i = 0; i < 8; i++) CHECK_EQ(take_number(log, 0), 9);
        EVENTUALLY(participants(log) == 1);
    }
}

static void descend(void *argument) {
    report *all = argument;
    uint32_t depth = atomic_fetch_add(&all->ready, 1);
    if (depth % 2) put_number(all->log, depth); /* some only hand it on to their children */
    if (depth < 7) join_process(start_process(descend, all));
    if (depth % 2 == 0) put_number(all->log, depth);
    atomic_store(&all->owners[depth], all->log->me);
}

static void children_of_children(void) {
    rp_log *log = small_log();
    report *all = make_report(log);
    descend(all);
    for (size_t i = 1; i < 8; i++) CHECK(atomic_load(&all->owners[i]) != atomic_load(&all->owners[i - 1]));
    CHECK_EQ(atomic_load(&all->owners[0]), log->me);
    uint64_t seen = 0;
    for (int i = 0; i < 8; i++) seen |= UINT64_C(1) << take_number(log, 0);
    CHECK_EQ(seen, 255);
    EVENTUALLY(participants(log) == 1);
    check_invariants(log);
}

/* A clone past the C library, whose handlers do not run: the kernel wipes the page that says who we are. */
static void a_child_of_a_raw_clone(void) {
    rp_log *log = small_log();
    uint32_t parent = log->me;
    for (int i = 0; i < 3; i++) {
        pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
        CHECK(child >= 0);
        if (child == 0) {
            rp_message message = {.body = "12345678", .body_len = 8};
            rp_status status = rp_put(log, &message, RP_NOW);
            _exit(status == RP_OK && log->me != parent ? 0 : 1);
        }
        join_process(child);
        CHECK_EQ(log->me, parent);
        take_number(log, 0);
    }
    check_invariants(log);
}

/* ---- loans ---------------------------------------------------------------------------------- */

static void meddle_with_loan(void *argument) {
    report *all = argument;
    rp_loan loan = all->loan, own;
    rp_abort(all->log, &loan); /* as the first call, too */
    CHECK_IS(commit_loan(all->log, &loan, RP_NOW), RP_INVALID);
    rp_abort(all->log, &loan);
    CHECK_IS(rp_borrow(all->log, all->log->geometry.pool_size, RP_NOW, &own), RP_FULL);
    CHECK_OK(rp_borrow(all->log, 8, RP_NOW, &own)); /* and dies with it */
    CHECK(own.first >= loan.first + loan.granules || own.first + own.granules <= loan.first);
}

static void a_loan_is_its_parents(void) {
    rp_log *log = small_log();
    report *all = make_report(log);
    CHECK_OK(rp_borrow(log, 20000, RP_NOW, &all->loan));
    fill(all->loan.data, 20000, 4);
    for (int i = 0; i < 3; i++) join_process(start_process(meddle_with_loan, all));
    CHECK(is_filled(all->loan.data, 20000, 4));
    CHECK_OK(commit_loan(log, &all->loan, RP_NOW));
    CHECK_OK(take_filled(log, 0, 4, 20000, RP_NOW));
    EVENTUALLY(participants(log) == 1);
    check_pool_is_whole(log);
}

typedef struct leased {
    rp_log *log;
    rp_receipt receipt;
    rp_frame frame[2]; /* and its descriptor */
} leased;

static void pin_what_is_not_ours(void *argument) {
    leased *all = argument;
    rp_pin pin;
    CHECK_IS(rp_pin_received(all->log, 0, &all->receipt, all->frame, &pin), RP_NOT_FOUND);
}

static void what_was_received_is_its_parents(void) {
    rp_log *log = small_log();
    leased all = {.log = log};
    rp_loan loan;
    rp_taken taken;
    rp_pin pin;
    CHECK_OK(rp_borrow(log, 20000, RP_NOW, &loan));
    CHECK_OK(commit_loan(log, &loan, RP_NOW));
    CHECK_OK(rp_try_receive(log, 0, all.frame, sizeof all.frame, 1, 0, &all.receipt, &taken));
    join_process(start_process(pin_what_is_not_ours, &all)); /* as its first call */
    CHECK_OK(rp_pin_received(log, 0, &all.receipt, all.frame, &pin));
    rp_unpin(log, &pin);
    uint32_t lost;
    CHECK_OK(rp_settle(log, 0, &all.receipt, 1, RP_NOW, &lost));
    check_pool_is_whole(log);
}

static void lend_as_child(void *argument) {
    report *all = argument;
    CHECK_OK(rp_borrow(all->log, 20000, RP_NOW, &all->loan));
    fill(all->loan.data, 20000, 6);
    atomic_store(&all->ready, 1);
    wait_to_go(all);
    CHECK_OK(commit_loan(all->log, &all->loan, RP_NOW));
}

static void a_loan_is_its_childs(void) {
    rp_log *log = small_log();
    report *all = make_report(log);
    pid_t child = start_process(lend_as_child, all);
    EVENTUALLY(atomic_load(&all->ready));
    rp_loan loan = all->loan;
    CHECK_IS(commit_loan(log, &loan, RP_NOW), RP_INVALID);
    rp_abort(log, &loan);
    atomic_store(&all->go, 1);
    join_process(child);
    CHECK_OK(take_filled(log, 0, 6, 20000, RP_NOW));
    check_pool_is_whole(log);
}

/* ---- while the parent is busy --------------------------------------------------------------- */

typedef struct busy {
    rp_log *log;
    _Atomic bool stop;
    _Atomic uint64_t put, taken;
} busy;

static void put_all_the_time(void *argument) {
    busy *all = argument;
    while (!atomic_load(&all->stop)) {
        if (put_filled(all->log, 8, 8, in_ms(5)) != RP_OK) continue;
        atomic_fetch_add(&all->put, 1);
    }
}

static void take_all_the_time(void *argument) {
    busy *all = argument;
    while (!atomic_load(&all->stop))
        if (take_filled(all->log, 0, 8, 8, in_ms(5)) == RP_OK) atomic_fetch_add(&all->taken, 1);
}

static void lend_all_the_time(void *argument) {
    busy *all = argument;
    while (!atomic_load(&all->stop)) {
        rp_loan loan;
        if (rp_borrow(all->log, 8 + RP_GRANULE, in_ms(5), &loan) == RP_OK) rp_abort(all->log, &loan);
    }
}

static void attach_all_the_time(void *argument) {
    busy *all = argument;
    rp_log *log, *other;
    rp_settings settings = {.capacity = RP_MIN_CAPACITY, .auto_delete = true};
    while (!atomic_load(&all->stop)) {
        CHECK_OK(rp_attach(log_path(), &log));
        CHECK(log == all->log);
        rp_detach(log);
        CHECK_OK(rp_create(in_directory("another"), &settings, &other));
        rp_detach(other);
    }
}

static void be_a_normal_child(void *argument) {
    busy *all = argument;
    rp_log *same;
    for (int i = 0; i < 20; i++) {
        CHECK_OK(put_filled(all->log, 8, 8, in_ms(BOUND_MS)));
        atomic_fetch_add(&all->put, 1);
        CHECK_OK(take_filled(all->log, 0, 8, 8, in_ms(BOUND_MS)));
        atomic_fetch_add(&all->taken, 1);
    }
    CHECK_OK(rp_attach(log_path(), &same));
    CHECK(same == all->log);
    rp_detach(same);
    rp_loan loan;
    int64_t deadline = in_ms(BOUND_MS);
    CHECK_OK(UNTIL(deadline, rp_borrow(all->log, 8, deadline, &loan)));
    rp_abort(all->log, &loan);
}

/* The child has none of its parent's other threads, and none of what they held. */
static void forks_while_threads_are_inside(void) {
    busy *all = shared_memory(sizeof *all);
    all->log = small_log();
    crew threads = {.are_threads = true};
    engage(&threads, put_all_the_time, all);
    engage(&threads, take_all_the_time, all);
    engage(&threads, lend_all_the_time, all);
    engage(&threads, attach_all_the_time, all);
    for (int i = 0; i < ROUNDS(60); i++) {
        pid_t first = start_process(be_a_normal_child, all), second = start_process(be_a_normal_child, all);
        join_process(first);
        join_process(second);
    }
    atomic_store(&all->stop, true);
    join_crew(&threads);
    uint64_t left;
    CHECK_OK(rp_ready(all->log, &left));
    CHECK_EQ(atomic_load(&all->put), atomic_load(&all->taken) + left);
    check_invariants(all->log);
    check_pool_is_whole(all->log);
}

/* ---- the parent goes ------------------------------------------------------------------------ */

static void live_on(report *all) {
    prctl(PR_SET_PDEATHSIG, 0);
    wait_to_go(all);
    CHECK_OK(put_filled(all->log, 2, 20000, in_ms(BOUND_MS)));
    CHECK_EQ(take_number(all->log, 0), 1);
    CHECK(rp_is_dead(all->log, all->parent));
    atomic_store(&all->ready, 2);
}

/* A parent that holds locks and loans when it forks, and dies of a signal before its child does anything. */
static void fork_and_die(void *argument) {
    report *all = argument;
    bool died;
    uint64_t number;
    CHECK_OK(rp_ready(all->log, &number));
    all->parent = all->log->me;
    put_number(all->log, 1);
    CHECK_OK(rp_borrow(all->log, all->log->geometry.pool_size, RP_NOW, &all->loan));
    CHECK_OK(rp_lock_wait(all->log, &all->log->head->lock, RP_NOW, &died));
    CHECK_OK(rp_lock_wait(all->log, &all->log->head->pool_lock, RP_NOW, &died));
    CHECK_OK(rp_lock_wait(all->log, &all->log->groups[0].lock, RP_NOW, &died));
    pid_t child = fork();
    if (child == 0) {
        live_on(all);
        _exit(0);
    }
    atomic_store(&all->pid, child);
    atomic_store(&all->ready, 1);
    raise(SIGKILL);
}

static void a_child_survives_its_parent(void) {
    rp_log *log = small_log();
    for (int i = 0; i < 5; i++) {
        report *all = make_report(log);
        pid_t parent = start_process(fork_and_die, all);
        int status = wait_for(parent);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        CHECK_EQ(atomic_load(&all->ready), 1);
        atomic_store(&all->go, 1);
        EVENTUALLY(atomic_load(&all->ready) == 2);
        CHECK_OK(take_filled(log, 0, 2, 20000, in_ms(BOUND_MS)));
        EVENTUALLY(participants(log) == 1);
    }
    check_invariants(log);
    check_pool_is_whole(log);
}

/* ---- logs that go with their last process --------------------------------------------------- */

static void join_and_detach(void *argument) {
    report *all = argument;
    put_number(all->log, 1);
    atomic_store(&all->ready, 1);
    wait_to_go(all);
    CHECK_EQ(take_number(all->log, 0), 1);
    CHECK(exists());
    rp_detach(all->log);
}

static void a_child_keeps_the_file(void) {
    rp_log *log = fleeting_log();
    report *all = make_report(log);
    pid_t child = start_process(join_and_detach, all);
    EVENTUALLY(atomic_load(&all->ready));
    rp_detach(log);
    CHECK(exists());
    atomic_store(&all->go, 1);
    join_process(child);
    CHECK(!exists());
}

static void detach_unused(void *argument) {
    report *all = argument;
    rp_detach(all->log); /* it never took part: nothing of its parent's may go */
    CHECK(exists());
}

static void leave_unused(void *argument) {
    report *all = argument;
    rp_leave(all->log);
    CHECK(exists());
}

static void a_child_that_never_joined_ends_nothing(void) {
    rp_log *log = fleeting_log();
    for (int i = 0; i < 3; i++) {
        join_process(start_process(detach_unused, make_report(log)));
        join_process(start_process(leave_unused, make_report(log)));
        CHECK(exists());
        CHECK(!rp_is_dead(log, log->me));
        CHECK_EQ(participants(log), 1);
        put_number(log, 3);
        CHECK_EQ(take_number(log, 0), 3);
    }
    rp_detach(log);
    CHECK(!exists());
}

static void exit_without_detaching(void *argument) { put_number(((report *)argument)->log, 1); }

static void children_that_only_exit_keep_nothing(void) {
    rp_log *log = fleeting_log();
    join_process(start_process(exit_without_detaching, make_report(log)));
    EVENTUALLY(participants(log) == 1);
    CHECK(exists());
    rp_detach(log);
    CHECK(!exists());
}

/* The name is gone, the memory is not: a child that was slow to begin still has the log. */
static void use_without_a_name(void *argument) {
    report *all = argument;
    rp_log *other;
    wait_to_go(all);
    CHECK(!exists());
    put_number(all->log, 8);
    CHECK_EQ(take_number(all->log, 0), 8);
    CHECK(all->log->me != all->parent);
    CHECK_IS(rp_attach(log_path(), &other), RP_NOT_FOUND);
    rp_detach(all->log);
}

static void a_late_child_has_a_log_without_a_name(void) {
    rp_log *log = fleeting_log();
    report *all = make_report(log);
    pid_t child = start_process(use_without_a_name, all);
    rp_detach(log);
    CHECK(!exists());
    atomic_store(&all->go, 1);
    join_process(child);
}

typedef struct swarm {
    rp_log *log;
    uint64_t seed;
} swarm;

static void come_and_go(void *argument) {
    swarm *one = argument;
    uint64_t random = one->seed;
    if (next_random(&random) % 4) put_number(one->log, 1);
    if (next_random(&random) % 2) nanosleep(&(struct timespec){.tv_nsec = (long)(random % 1000000)}, NULL);
    if (next_random(&random) % 4)
        rp_detach(one->log);
    else if (random % 8 == 0)
        raise(SIGKILL);
}

/* However they go, the file goes with the last of them, or is there to be collected. */
static void nothing_stays_when_all_have_gone(void) {
    for (uint64_t round = 0; round < ROUNDS(40); round++) {
        rp_log *log = fleeting_log();
        pid_t children[4];
        for (uint64_t i = 0; i < COUNT(children); i++) {
            swarm one = {.log = log, .seed = round * 1000003 + i + 1};
            children[i] = start_process(come_and_go, &one);
        }
        rp_detach(log);
        for (size_t i = 0; i < COUNT(children); i++) wait_for(children[i]);
        rp_status status = RP_EXISTS;
        EVENTUALLY((status = rp_collect(log_path())) != RP_EXISTS);
        CHECK(status == RP_OK || status == RP_NOT_FOUND);
        CHECK(!exists());
    }
}

RUN_TESTS(TEST(a_child_joins_on_first_use), TEST(every_call_may_be_the_first),
          TEST(many_threads_of_a_child_join_once), TEST(children_of_children), TEST(a_child_of_a_raw_clone),
          TEST(a_loan_is_its_parents), TEST(what_was_received_is_its_parents), TEST(a_loan_is_its_childs),
          TEST(forks_while_threads_are_inside), TEST(a_child_survives_its_parent),
          TEST(a_child_keeps_the_file), TEST(a_child_that_never_joined_ends_nothing),
          TEST(children_that_only_exit_keep_nothing), TEST(a_late_child_has_a_log_without_a_name),
          TEST(nothing_stays_when_all_have_gone))
