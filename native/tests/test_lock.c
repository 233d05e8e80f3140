/* The lock: one holder at a time, taken over from the dead, never from the living. */
#include "inside.h"
#include "messages.h"
#include "threads.h"

#define MAYBE(word) ((word) | RP_LOCK_WAITERS)

/* ---- mutual exclusion ----------------------------------------------------------------------- */

typedef struct guarded {
    rp_log *log;
    uint64_t counter; /* plain: only the lock makes it right */
    uint32_t inside;
    uint32_t repairs;
    _Atomic uint64_t finished;
} guarded;

static rp_status lock_until(rp_log *log, rp_lock *lock, int64_t deadline, bool *died) {
    return UNTIL(deadline, rp_lock_wait(log, lock, deadline, died));
}

static bool count_once(guarded *all) {
    bool died;
    CHECK_OK(lock_until(all->log, &all->log->head->pool_lock, in_ms(BOUND_MS), &died));
    CHECK(died || all->inside == 0);
    all->inside = 1;
    all->counter++;
    all->inside = 0;
    all->repairs += died;
    rp_lock_release(&all->log->head->pool_lock);
    return died;
}

static void count(void *argument) {
    guarded *all = argument;
    rp_info info;
    CHECK_OK(rp_get_info(all->log, &info)); /* a process joins */
    for (int i = 0; i < ROUNDS(40000); i++) CHECK(!count_once(all));
}

static void one_at_a_time(bool are_threads) {
    guarded *all = shared_memory(sizeof *all);
    all->log = small_log();
    crew workers = {.are_threads = are_threads};
    for (int i = 0; i < 4; i++) engage(&workers, count, all);
    join_crew(&workers);
    CHECK_EQ(all->counter, 4 * ROUNDS(40000));
}

static void threads_exclude_one_another(void) { one_at_a_time(true); }
static void processes_exclude_one_another(void) { one_at_a_time(false); }

/* ---- death ---------------------------------------------------------------------------------- */

static void lock_and_die(void *argument) {
    rp_log *log = argument;
    bool died;
    uint64_t number;
    CHECK_OK(rp_ready(log, &number));
    CHECK_OK(rp_lock_wait(log, &log->head->lock, RP_NOW, &died));
    raise(SIGKILL);
}

static void a_dead_holder_is_taken_over(void) {
    rp_log *log = small_log();
    bool died;
    for (int i = 0; i < 5; i++) {
        wait_for(start_process(lock_and_die, log));
        CHECK_IS(try_put_number(log, 1), RP_BUSY); /* trying asks nobody who is dead */
        CHECK_OK(lock_until(log, &log->head->lock, in_ms(BOUND_MS), &died));
        CHECK(died);
        rp_lock_release(&log->head->lock);
        CHECK_OK(lock_until(log, &log->head->lock, RP_NOW, &died));
        CHECK(!died);
        rp_lock_release(&log->head->lock);
    }
}

static void count_until_killed(void *argument) {
    guarded *all = argument;
    rp_info info;
    CHECK_OK(rp_get_info(all->log, &info));
    for (;;) {
        count_once(all);
        atomic_fetch_add(&all->finished, 1);
    }
}

static void a_storm_of_kills(void) {
    guarded *all = shared_memory(sizeof *all);
    all->log = small_log();
    pid_t children[4];
    uint64_t random = 4242, kills = 0;
    for (size_t i = 0; i < COUNT(children); i++) children[i] = start_process(count_until_killed, all);
    for (int64_t start = rp_monotonic_ns(); ms_since(start) < 800; kills++) {
        nanosleep(&(struct timespec){.tv_nsec = (long)(next_random(&random) % 4000000)}, NULL);
        size_t victim = next_random(&random) % COUNT(children);
        kill_process(children[victim]);
        children[victim] = start_process(count_until_killed, all);
    }
    for (size_t i = 0; i < COUNT(children); i++) kill_process(children[i]);
    count_once(all);
    uint64_t finished = atomic_load(&all->finished) + 1;
    CHECK(all->counter >= finished && all->counter <= finished + kills + COUNT(children));
}

/* ---- words ---------------------------------------------------------------------------------- */

/* A put and a take go on although `word` stands in the lock. */
static void check_passable(rp_log *log, rp_lock *lock, uint32_t word) {
    int64_t start = rp_monotonic_ns();
    rp_store_relaxed(lock, word);
    CHECK_OK(put_filled(log, word, 20000, in_ms(BOUND_MS)));
    CHECK_OK(take_filled(log, 0, word, 20000, in_ms(BOUND_MS)));
    CHECK_EQ(rp_load_relaxed(lock) & RP_OWNER_MASK, 0);
    CHECK_SOON(ms_since(start), 900 * SLOWNESS);
}

static void noise_in_the_word_is_nobody(void) {
    rp_log *log = small_log();
    rp_lock *locks[] = {&log->head->lock, &log->head->pool_lock, &log->groups[0].lock};
    uint32_t dead = dead_owner(log);
    const uint32_t words[] = {RP_LOCK_ORPHAN,
                              77u << 11 | RP_LOCK_ORPHAN, /* orphaned */
                              dead,
                              1u << 11, /* no slot */
                              5u << 11 | RP_SLOTS,
                              RP_SLOTS + 1, /* never joined; out of range */
                              RP_MAX_SLOTS,
                              0x7fffffff & ~1u,
                              (dead & RP_SLOT_MASK),
                              (log->me & RP_SLOT_MASK), /* generation 0 */
                              log->me + (1u << 11)};    /* ours, but not yet */
    for (size_t l = 0; l < COUNT(locks); l++)
        for (size_t w = 0; w < COUNT(words); w++) {
            check_passable(log, locks[l], words[w]);
            check_passable(log, locks[l], MAYBE(words[w]));
        }
    check_passable(log, locks[0], RP_LOCK_WAITERS); /* nobody, with sleepers: as good as free */
}

static void a_generation_fences_a_slot_used_again(void) {
    rp_log *log = small_log();
    uint32_t dead = dead_owner(log), alive;
    pid_t child = start_idler(log, &alive);
    CHECK_EQ(alive & RP_SLOT_MASK, dead & RP_SLOT_MASK);
    CHECK(alive != dead);
    CHECK(rp_is_dead(log, dead) && !rp_is_dead(log, alive) && !rp_is_dead(log, log->me));
    check_passable(log, &log->head->lock, dead);
    rp_store_relaxed(&log->head->lock, alive);
    uint64_t number = 9;
    CHECK_IS(put_bytes(log, &number, sizeof number, in_ms(200)), RP_STALLED);
    CHECK_EQ(rp_holder(), child);
    kill_process(child);
    check_passable(log, &log->head->lock, MAYBE(alive));
}

static void generations_wrap(void) {
    rp_log *log = small_log();
    rp_store_relaxed(&log->slots[1].generation, 0xfffff);
    uint32_t owner = dead_owner(log);
    CHECK_EQ(owner & RP_SLOT_MASK, 2);
    CHECK_EQ(owner >> 11, 1); /* 0 would make an owner word with W look like one without */
}

/* ---- stopped -------------------------------------------------------------------------------- */

static void lock_and_stop(void *argument) {
    rp_log *log = argument;
    bool died;
    uint64_t number;
    CHECK_OK(rp_ready(log, &number));
    CHECK_OK(rp_lock_wait(log, &log->head->lock, RP_NOW, &died));
    raise(SIGSTOP);
    rp_lock_release(&log->head->lock);
}

static void the_stopped_are_waited_for(void) {
    rp_log *log = small_log();
    pid_t child = start_process(lock_and_stop, log);
    wait_until_stopped(child);
    uint64_t number = 1;
    rp_message message = {.body = &number, .body_len = sizeof number};
    CHECK_IS(rp_try_put(log, &message), RP_BUSY);
    int64_t start = rp_monotonic_ns();
    CHECK_IS(put_bytes(log, &number, sizeof number, in_ms(250)), RP_STALLED);
    CHECK(ms_since(start) >= 250);
    CHECK_EQ(rp_holder(), child);
    start = rp_monotonic_ns();
    int64_t grace = in_ms(120); /* no wait, but for a lock until then */
    CHECK_IS(UNTIL(grace, rp_put(log, &message, -grace)), RP_STALLED);
    CHECK(ms_since(start) >= 120 && ms_since(start) < 900);
    start = rp_monotonic_ns();
    CHECK_IS(rp_put(log, &message, RP_NOW), RP_STALLED); /* no wait, but for a lock a second */
    CHECK(ms_since(start) >= 950);
    kill(child, SIGCONT);
    CHECK_OK(put_bytes(log, &number, sizeof number, in_ms(BOUND_MS)));
    join_process(child);
    CHECK_EQ(take_number(log, 0), 1);
}

static void waiting_is_sliced(void) {
    rp_log *log = small_log();
    pid_t child = start_process(lock_and_stop, log);
    wait_until_stopped(child);
    rp_message message = {.body = "", .body_len = 1};
    int64_t start = rp_monotonic_ns();
    CHECK_IS(rp_put(log, &message, RP_NEVER), RP_INTERRUPTED);
    CHECK_SOON(ms_since(start), 400 * SLOWNESS);
    kill(child, SIGKILL);
    CHECK_OK(put_bytes(log, "", 1, in_ms(BOUND_MS)));
}

RUN_TESTS(TEST(threads_exclude_one_another), TEST(processes_exclude_one_another),
          TEST(a_dead_holder_is_taken_over), TEST(a_storm_of_kills), TEST(noise_in_the_word_is_nobody),
          TEST(a_generation_fences_a_slot_used_again), TEST(generations_wrap),
          TEST(the_stopped_are_waited_for), TEST(waiting_is_sliced))
