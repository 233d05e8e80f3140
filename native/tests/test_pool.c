/* The pool: loans, their sizes, who may end them, and that every granule comes back. */
#include "inside.h"
#include "messages.h"
#include "threads.h"

#define GRANULES 8 /* of a small log */

static uint32_t used(rp_log *log) {
    rp_info info;
    CHECK_OK(rp_get_info(log, &info));
    CHECK_EQ(info.pool_used, (uint64_t)walk_pool(log) * RP_GRANULE);
    return walk_pool(log);
}

static rp_status borrow(rp_log *log, uint64_t length, int64_t deadline, rp_loan *out) {
    return UNTIL(deadline, rp_borrow(log, length, deadline, out));
}

static rp_status commit(rp_log *log, rp_loan *loan, int64_t deadline) {
    return UNTIL(deadline, commit_loan(log, loan, deadline));
}

static uint64_t ready(rp_log *log) {
    uint64_t number;
    CHECK_OK(rp_ready(log, &number));
    return number;
}

/* ---- one process ---------------------------------------------------------------------------- */

static void sizes_at_the_edges_of_granules(void) {
    rp_log *log = small_log();
    const uint64_t sizes[] = {0,
                              1,
                              RP_GRANULE - 1,
                              RP_GRANULE,
                              RP_GRANULE + 1,
                              RP_INLINE_MAX,
                              RP_INLINE_MAX + 1,
                              3 * RP_GRANULE - 1,
                              3 * RP_GRANULE,
                              GRANULES * RP_GRANULE - 1,
                              GRANULES * RP_GRANULE};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        uint32_t granules = sizes[i] ? (uint32_t)((sizes[i] + RP_GRANULE - 1) / RP_GRANULE) : 1;
        rp_loan loan;
        CHECK_OK(borrow(log, sizes[i], RP_NOW, &loan));
        CHECK_EQ(loan.length, sizes[i]);
        CHECK_EQ(loan.granules, granules);
        CHECK(loan.data == log->pool + (uint64_t)loan.first * RP_GRANULE);
        CHECK(loan.first + granules <= GRANULES);
        CHECK_EQ(used(log), granules);
        fill(loan.data, sizes[i], i);
        CHECK_OK(commit(log, &loan, RP_NOW));
        CHECK_EQ(used(log), granules);
        CHECK_OK(take_filled(log, 0, i, sizes[i], RP_NOW));
        CHECK_EQ(used(log), 0);
    }
    check_invariants(log);
    check_pool_is_whole(log);
}

static void a_loan_has_three_parts(void) {
    rp_log *log = small_log();
    rp_loan loan;
    rp_taken taken;
    uint8_t extra[9], *body = malloc(20000);
    CHECK_OK(borrow(log, 20009, RP_NOW, &loan));
    memcpy(loan.data, "eu.daxh=1", 9);
    fill((uint8_t *)loan.data + 9, 20000, 77);
    CHECK_OK(commit_parts(log, &loan, 42, 6, 3, RP_NOW));
    CHECK_IS(rp_try_take(log, 0, body, 20000, 1, &taken), RP_LARGE);
    CHECK_EQ(taken.length, 20009);
    CHECK_EQ(taken.frame.kind, 42);
    CHECK_EQ(taken.frame.subject_len, 6);
    CHECK_EQ(taken.frame.headers_len, 3);
    CHECK_EQ(taken.frame.sequence, 0);
    CHECK_IS(rp_take_large(log, 0, 1, 20009, extra, 9, body, RP_NOW), RP_EMPTY); /* another number */
    CHECK_OK(rp_take_large(log, 0, 0, 20009, extra, 9, body, RP_NOW));
    CHECK(memcmp(extra, "eu.daxh=1", 9) == 0);
    CHECK(is_filled(body, 20000, 77));
    free(body);
    check_pool_is_whole(log);
}

static void a_loan_ends_once(void) {
    rp_log *log = small_log();
    rp_loan loan, copy;
    CHECK_OK(borrow(log, 20000, RP_NOW, &loan));
    copy = loan;
    fill(loan.data, 20000, 0);
    CHECK_OK(commit(log, &loan, RP_NOW));
    CHECK_IS(commit(log, &copy, RP_NOW), RP_INVALID);
    rp_abort(log, &copy); /* it is the message's */
    CHECK_EQ(used(log), 3);
    CHECK_EQ(ready(log), 1);
    CHECK_OK(take_filled(log, 0, 0, 20000, RP_NOW));
    CHECK_IS(commit(log, &copy, RP_NOW), RP_INVALID);
    CHECK_OK(borrow(log, 20000, RP_NOW, &loan));
    rp_abort(log, &loan);
    rp_abort(log, &loan);
    CHECK_IS(commit(log, &loan, RP_NOW), RP_INVALID);
    CHECK_EQ(ready(log), 0);
    check_invariants(log);
    check_pool_is_whole(log);
}

/* After anything but RP_OK the loan is still the caller's. */
static void a_commit_that_fails_keeps_the_loan(void) {
    rp_log *log = small_log();
    rp_loan loan;
    uint64_t put = 0;
    CHECK_OK(borrow(log, 20000, RP_NOW, &loan));
    fill(loan.data, 20000, 5);
    CHECK_IS(commit_parts(log, &loan, 0, 10000, 10001, RP_NOW), RP_INVALID);
    CHECK_IS(commit_parts(log, &loan, 0, UINT16_MAX + 1, 0, RP_NOW), RP_INVALID);
    CHECK_IS(commit_parts(log, &loan, 0, 0, SIZE_MAX, RP_NOW), RP_INVALID);
    CHECK_IS(commit_parts(log, &loan, 0, 2, SIZE_MAX, RP_NOW), RP_INVALID);
    while (try_put_number(log, put) == RP_OK) put++;
    CHECK_IS(commit(log, &loan, RP_NOW), RP_FULL);
    int64_t start = rp_monotonic_ns();
    CHECK_IS(commit(log, &loan, in_ms(30)), RP_FULL);
    CHECK(ms_since(start) >= 30);
    CHECK_EQ(used(log), 3);
    CHECK_EQ(take_number(log, 0), 0);
    CHECK_OK(commit(log, &loan, RP_NOW));
    for (uint64_t i = 1; i < put; i++) CHECK_EQ(take_number(log, 0), i);
    CHECK_OK(take_filled(log, 0, 5, 20000, RP_NOW));

    CHECK_OK(borrow(log, 20000, RP_NOW, &loan));
    CHECK_OK(rp_shut_down(log, false, RP_NOW));
    CHECK_IS(commit(log, &loan, RP_NOW), RP_SHUT_DOWN);
    CHECK_EQ(used(log), 3);
    rp_abort(log, &loan);
    CHECK_EQ(used(log), 0);
    check_invariants(log);
}

static void forged_loans_are_refused(void) {
    rp_log *log = small_log();
    rp_loan loan, other, forged;
    CHECK_OK(borrow(log, 20000, RP_NOW, &other));
    CHECK_OK(borrow(log, 20000, RP_NOW, &loan)); /* granules 3 to 5 */
    CHECK_EQ(loan.first, 3);
    for (uint32_t first = 0; first < GRANULES; first++)
        for (uint32_t granules = 0; granules <= GRANULES; granules++) {
            forged = (rp_loan){.data = loan.data, .length = 1, .first = first, .granules = granules};
            if (granules == 3 && (first == loan.first || first == other.first)) continue;
            CHECK_IS(commit(log, &forged, RP_NOW), RP_INVALID);
            rp_abort(log, &forged);
        }
    CHECK_EQ(used(log), 6);
    CHECK_EQ(ready(log), 0);
    rp_abort(log, &other);
    fill(loan.data, 20000, 0);
    CHECK_OK(commit(log, &loan, RP_NOW));
    CHECK_OK(take_filled(log, 0, 0, 20000, RP_NOW));
    check_pool_is_whole(log);
}

/* More bytes than were lent: nobody could ever take such a message, nor what is behind it. */
static void a_loan_does_not_grow(void) {
    rp_log *log = small_log();
    rp_loan loan;
    CHECK_OK(borrow(log, 20000, RP_NOW, &loan));
    const uint64_t lengths[] = {3 * RP_GRANULE + 1, 10 * RP_GRANULE, UINT64_MAX};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        rp_loan forged = loan;
        forged.length = lengths[i];
        CHECK_IS(commit(log, &forged, RP_NOW), RP_INVALID);
    }
    loan.length = 3 * RP_GRANULE; /* all that is there, or less */
    fill(loan.data, loan.length, 1);
    CHECK_OK(commit(log, &loan, RP_NOW));
    CHECK_OK(take_filled(log, 0, 1, 3 * RP_GRANULE, RP_NOW));
}

static void granules_outside_the_pool_are_refused(void) {
    rp_log *log = small_log();
    const uint32_t firsts[] = {GRANULES, 100000000, UINT32_MAX};
    for (size_t i = 0; i < COUNT(firsts); i++) {
        rp_loan forged = {.data = log->pool, .length = 1, .first = firsts[i], .granules = 1};
        CHECK_IS(commit(log, &forged, RP_NOW), RP_INVALID);
        rp_abort(log, &forged);
    }
    check_pool_is_whole(log);
}

static void neighbours_are_joined(void) {
    rp_log *log = small_log();
    rp_loan loans[GRANULES], two;
    for (int order = 0; order < 3; order++) {
        for (int i = 0; i < GRANULES; i++) CHECK_OK(borrow(log, RP_GRANULE, RP_NOW, &loans[i]));
        CHECK_IS(borrow(log, 1, RP_NOW, &two), RP_FULL);
        for (int i = 0; i < GRANULES; i += 2) rp_abort(log, &loans[i]);
        CHECK_EQ(used(log), 4);
        CHECK_IS(borrow(log, RP_GRANULE + 1, RP_NOW, &two), RP_FULL);
        CHECK_OK(borrow(log, RP_GRANULE, RP_NOW, &two));
        rp_abort(log, &two);
        rp_abort(log, &loans[2 * order + 1]);
        CHECK_OK(borrow(log, 3 * RP_GRANULE - (order == 2 ? 0 : 1), RP_NOW, &two));
        rp_abort(log, &two);
        for (int i = 1; i < GRANULES; i += 2) rp_abort(log, &loans[i]); /* one of them a second time */
        check_pool_is_whole(log);
    }
}

/* Against a model: a loan is given if and only if there are as many free granules side by side. */
static void loans_of_random_sizes(void) {
    rp_log *log = create_log((rp_settings){.capacity = 2 * RP_MIN_CAPACITY});
    uint32_t count = log->geometry.chunk_count;
    bool taken[64] = {false};
    rp_loan loans[64];
    uint64_t tags[64], random = 99991, refused = 0;
    size_t held = 0;
    CHECK(count <= COUNT(taken));
    for (uint64_t round = 0; round < ROUNDS(200000); round++) {
        uint32_t wanted = 1 + (uint32_t)(next_random(&random) % (round % 64 ? 5 : count)), longest = 0,
                 run = 0;
        if (held && next_random(&random) % 2) {
            size_t i = next_random(&random) % held;
            CHECK(((uint64_t *)loans[i].data)[0] == tags[i]);
            CHECK(((uint64_t *)loans[i].data)[loans[i].granules * RP_GRANULE / 8 - 1] == tags[i]);
            for (uint32_t g = 0; g < loans[i].granules; g++) taken[loans[i].first + g] = false;
            rp_abort(log, &loans[i]);
            loans[i] = loans[--held];
            tags[i] = tags[held];
            continue;
        }
        for (uint32_t g = 0; g < count; g++) {
            run = taken[g] ? 0 : run + 1;
            longest = run > longest ? run : longest;
        }
        rp_status status = rp_borrow(log, (uint64_t)wanted * RP_GRANULE, RP_NOW, &loans[held]);
        if (wanted > longest) {
            CHECK_IS(status, RP_FULL);
            refused++;
            continue;
        }
        CHECK_OK(status);
        for (uint32_t g = 0; g < wanted; g++) {
            CHECK(!taken[loans[held].first + g]);
            taken[loans[held].first + g] = true;
        }
        tags[held] = round;
        ((uint64_t *)loans[held].data)[0] = round;
        ((uint64_t *)loans[held].data)[wanted * RP_GRANULE / 8 - 1] = round;
        held++;
    }
    CHECK(refused > 100);
    while (held) rp_abort(log, &loans[--held]);
    check_pool_is_whole(log);
}

static void granules_are_used_in_turn(void) {
    rp_log *log = small_log();
    rp_loan loan;
    for (uint32_t i = 0; i < 3 * GRANULES; i++) {
        CHECK_OK(borrow(log, 1, RP_NOW, &loan));
        CHECK_EQ(loan.first, i % GRANULES);
        rp_abort(log, &loan);
    }
    for (uint32_t i = 0; i < 3; i++) { /* 0 to 2, 3 to 5, and the last two are too few */
        CHECK_OK(borrow(log, 3 * RP_GRANULE, RP_NOW, &loan));
        CHECK_EQ(loan.first, i % 2 * 3);
        rp_abort(log, &loan);
    }
    check_pool_is_whole(log);
}

/* ---- groups and history --------------------------------------------------------------------- */

static void groups_share_a_large_frame(void) {
    rp_log *log = small_log();
    uint32_t groups[3] = {0};
    CHECK_OK(open_group(log, "one", true, RP_NOW, &groups[1]));
    CHECK_OK(open_group(log, "two", true, RP_NOW, &groups[2]));
    size_t size = log->geometry.pool_size;
    rp_loan loan;
    for (uint64_t i = 0; i < 9; i++) {
        CHECK_OK(put_filled(log, i, size, RP_NOW));
        for (uint64_t g = 0; g < 3; g++) {
            CHECK_IS(borrow(log, 1, RP_NOW, &loan), RP_FULL);
            CHECK_EQ(used(log), GRANULES);
            CHECK_OK(take_filled(log, groups[(i + g) % 3], i, size, RP_NOW));
        }
    }
    CHECK_OK(put_filled(log, 9, size, RP_NOW));
    CHECK_OK(take_filled(log, 0, 9, size, RP_NOW));
    CHECK_OK(take_filled(log, groups[1], 9, size, RP_NOW));
    CHECK_IS(borrow(log, 1, RP_NOW, &loan), RP_FULL);
    CHECK_OK(rp_group_close(log, groups[2], RP_NOW)); /* whoever held it back is gone */
    CHECK_OK(borrow(log, 1, RP_NOW, &loan));
    rp_abort(log, &loan);
    check_invariants(log);
    check_pool_is_whole(log);
}

/* A group that never reads the payload, only advances (as storage does). */
static void what_is_advanced_over_comes_back(void) {
    rp_log *log = small_log();
    rp_range range;
    for (uint64_t i = 0; i < 5; i++) {
        CHECK_OK(put_filled(log, i, log->geometry.pool_size, RP_NOW));
        CHECK_OK(rp_group_range(log, 0, UINT64_MAX, 4096, &range));
        CHECK_EQ(range.count, 1);
        CHECK_OK(rp_group_advance(log, 0, range.end, RP_NOW));
    }
    check_pool_is_whole(log);
}

/* A message of any size through the pool. */
static rp_status put_lent(rp_log *log, uint64_t number, size_t size, int64_t deadline) {
    rp_loan loan;
    rp_status status = borrow(log, size, deadline, &loan);
    if (status != RP_OK) return status;
    fill(loan.data, size, number);
    return commit(log, &loan, deadline);
}

/* Room is made from the oldest on, and no more of it than is wanted. */
static void history_gives_up_the_oldest_first(void) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .keep_history = true});
    static _Alignas(RP_ALIGN) uint8_t buffer[2 * RP_GRANULE];
    rp_cursor cursor;
    rp_taken taken;
    rp_loan loan;
    for (uint64_t i = 0; i < GRANULES; i++) CHECK_OK(put_lent(log, i, 8000, RP_NOW));
    CHECK_IS(borrow(log, 1, RP_NOW, &loan), RP_FULL); /* nothing was taken yet */
    for (uint64_t i = 0; i < GRANULES - 1; i++) CHECK_OK(take_filled(log, 0, i, 8000, RP_NOW));
    CHECK_EQ(used(log), GRANULES);
    CHECK_OK(borrow(log, RP_GRANULE + 1, RP_NOW, &loan));
    CHECK_EQ(used(log), GRANULES);
    CHECK_OK(rp_cursor_open(log, true, &cursor));
    CHECK_EQ(cursor.sequence, 2);
    for (uint64_t i = 2; i < GRANULES; i++) {
        CHECK_OK(rp_cursor_read(log, &cursor, buffer, sizeof buffer, 1, &taken));
        CHECK(is_filled(buffer + sizeof(rp_frame), 8000, i));
    }
    CHECK_EQ(cursor.lost, 0);
    rp_abort(log, &loan);
    CHECK_IS(borrow(log, log->geometry.pool_size, in_ms(20), &loan), RP_FULL); /* one was not taken */
    CHECK_OK(take_filled(log, 0, GRANULES - 1, 8000, RP_NOW));
    check_invariants(log);
    check_pool_is_whole(log);
}

/* ---- waiting -------------------------------------------------------------------------------- */

typedef struct borrower {
    rp_log *log;
    uint64_t length;
    _Atomic uint32_t lent, *order;
} borrower;

static void borrow_and_abort(void *argument) {
    borrower *all = argument;
    rp_loan loan;
    CHECK_OK(borrow(all->log, all->length, in_ms(BOUND_MS), &loan));
    fill(loan.data, all->length, 3);
    atomic_fetch_add(&all->lent, 1);
    rp_abort(all->log, &loan);
}

static bool sleeps_for_space(rp_log *log) {
    return rp_load_relaxed(&log->head->armed[0]) & (UINT64_C(1) << RP_EVENT_SPACE);
}

typedef enum release { BY_TAKE, BY_ABORT, BY_ADVANCE, BY_CLOSE } release;

/* Woken, not found by the end of their slices: so it takes much less than 100 ms each. */
static void check_woken(release how, bool are_threads) {
    rp_log *log = small_log();
    int64_t slowest = 0;
    const int rounds = 12;
    for (int round = 0; round < rounds; round++) {
        borrower *all = shared_memory(sizeof *all);
        *all = (borrower){.log = log, .length = 5 * RP_GRANULE};
        crew workers = {.are_threads = are_threads};
        uint32_t group = 0;
        rp_loan loan;
        rp_range range;
        uint64_t size = log->geometry.pool_size;
        if (how == BY_CLOSE) CHECK_OK(open_group(log, "slow", false, RP_NOW, &group));
        if (how == BY_ABORT)
            CHECK_OK(borrow(log, size, RP_NOW, &loan));
        else
            CHECK_OK(put_filled(log, 1, size, RP_NOW));
        if (how == BY_CLOSE) CHECK_OK(take_filled(log, 0, 1, size, RP_NOW));
        for (int i = 0; i < 3; i++) engage(&workers, borrow_and_abort, all);
        EVENTUALLY(sleeps_for_space(log));
        sleep_ms(5);
        CHECK_EQ(atomic_load(&all->lent), 0);
        int64_t start = rp_monotonic_ns();
        if (how == BY_ABORT) rp_abort(log, &loan);
        if (how == BY_TAKE) CHECK_OK(take_filled(log, 0, 1, size, RP_NOW));
        if (how == BY_CLOSE) CHECK_OK(rp_group_close(log, group, RP_NOW));
        if (how == BY_ADVANCE) {
            CHECK_OK(rp_group_range(log, 0, UINT64_MAX, 4096, &range));
            CHECK_OK(rp_group_advance(log, 0, range.end, RP_NOW));
        }
        join_crew(&workers);
        CHECK_EQ(atomic_load(&all->lent), 3);
        slowest += rp_monotonic_ns() - start;
    }
    CHECK_SOON(slowest / 1000000, rounds * 45 * SLOWNESS);
    check_pool_is_whole(log);
}

static void a_take_wakes_borrowers(void) {
    check_woken(BY_TAKE, true);
    CHECK_OK(rp_remove(log_path()));
    check_woken(BY_TAKE, false);
}
static void an_abort_wakes_borrowers(void) { check_woken(BY_ABORT, true); }
static void advancing_wakes_borrowers(void) { check_woken(BY_ADVANCE, true); }
static void closing_a_group_wakes_borrowers(void) { check_woken(BY_CLOSE, true); }

static void shutting_down_ends_borrowing(void) {
    rp_log *log = small_log();
    rp_loan loan, never;
    CHECK_OK(borrow(log, log->geometry.pool_size, RP_NOW, &loan));
    CHECK_OK(rp_shut_down(log, true, RP_NOW));
    CHECK_IS(borrow(log, 1, RP_NEVER, &never), RP_SHUT_DOWN);
    rp_abort(log, &loan);
    CHECK_EQ(used(log), 0);
}

/* ---- the loans of others -------------------------------------------------------------------- */

typedef struct lending {
    rp_log *log;
    uint64_t length;
    int stop; /* a signal */
    rp_loan loan;
    _Atomic bool done;
} lending;

static void borrow_and_stop(void *argument) {
    lending *all = argument;
    CHECK_OK(borrow(all->log, all->length, in_ms(BOUND_MS), &all->loan));
    fill(all->loan.data, all->length, 1);
    atomic_store(&all->done, true);
    raise(all->stop);
    rp_abort(all->log, &all->loan);
}

static void loans_of_the_dead_are_taken_back(void) {
    rp_log *log = small_log();
    rp_loan loan;
    for (uint32_t granules = 1; granules <= GRANULES; granules++) {
        lending *all = shared_memory(sizeof *all);
        *all = (lending){.log = log, .length = granules * RP_GRANULE, .stop = SIGKILL};
        wait_for(start_process(borrow_and_stop, all));
        CHECK(atomic_load(&all->done));
        CHECK_OK(borrow(log, log->geometry.pool_size, in_ms(BOUND_MS), &loan));
        rp_abort(log, &loan);
        check_pool_is_whole(log);
    }
    for (int i = 0; i < GRANULES; i++) { /* all of them at once */
        lending *all = shared_memory(sizeof *all);
        *all = (lending){.log = log, .length = 1, .stop = SIGKILL};
        wait_for(start_process(borrow_and_stop, all));
    }
    CHECK_OK(borrow(log, log->geometry.pool_size, in_ms(BOUND_MS), &loan));
    rp_abort(log, &loan);
    check_pool_is_whole(log);
}

static void loans_of_the_stopped_are_theirs(void) {
    rp_log *log = small_log();
    lending *all = shared_memory(sizeof *all);
    *all = (lending){.log = log, .length = 5 * RP_GRANULE, .stop = SIGSTOP};
    pid_t child = start_process(borrow_and_stop, all);
    wait_until_stopped(child);
    rp_loan loan, mine;
    CHECK_IS(borrow(log, 4 * RP_GRANULE, in_ms(250), &loan), RP_FULL);
    CHECK_OK(borrow(log, 3 * RP_GRANULE, RP_NOW, &mine));
    loan = all->loan; /* it is not ours */
    CHECK_IS(commit(log, &loan, RP_NOW), RP_INVALID);
    rp_abort(log, &loan);
    CHECK_EQ(used(log), GRANULES);
    CHECK(is_filled(log->pool + (uint64_t)loan.first * RP_GRANULE, all->length, 1));
    kill(child, SIGCONT);
    join_process(child);
    rp_abort(log, &mine);
    check_pool_is_whole(log);
}

/* Nobody tells a sleeping borrower that another one died: the end of its slice does. */
static void a_death_frees_a_sleeping_borrower(void) {
    rp_log *log = small_log();
    lending *all = shared_memory(sizeof *all);
    *all = (lending){.log = log, .length = log->geometry.pool_size, .stop = SIGSTOP};
    borrower *next = shared_memory(sizeof *next);
    *next = (borrower){.log = log, .length = 1};
    pid_t child = start_process(borrow_and_stop, all);
    wait_until_stopped(child);
    pthread_t thread = start_thread(borrow_and_abort, next);
    EVENTUALLY(sleeps_for_space(log));
    int64_t start = rp_monotonic_ns();
    kill_process(child);
    join_thread(thread);
    CHECK_SOON(ms_since(start), 900 * SLOWNESS);
    check_pool_is_whole(log);
}

/* ---- noise ---------------------------------------------------------------------------------- */

static void noise_in_the_table_leads_nowhere_else(void) {
    rp_log *log = small_log();
    uint64_t random = 31337, outcomes[3] = {0};
    _Alignas(RP_ALIGN) uint8_t buffer[64];
    uint8_t *body = malloc(20000);
    for (int round = 0; round < ROUNDS(3000); round++) {
        rp_loan loan;
        rp_taken taken;
        rp_info info;
        for (uint32_t i = 0; i < GRANULES; i++) {
            uint64_t noise = next_random(&random), length = next_random(&random) % (GRANULES + 2);
            if (round % 4 == 0) noise = rp_chunk_word(noise % 4, length, round % 8 ? 0 : log->me);
            if (round % 4 == 1)
                noise = rp_chunk_word(noise % 4, 0x7ffffff0u + noise % 16, noise % 0x7fffffff);
            if (round % 4 == 2) noise = noise % 2 ? 0 : rp_chunk_word(0, length, 0);
            rp_store_relaxed(&log->chunks[i].word, noise);
            rp_store_relaxed(&log->chunks[i].position, next_random(&random) >> next_random(&random) % 64);
        }
        rp_store_relaxed(&log->head->pool_next,
                         round % 3 ? (uint32_t)next_random(&random) : (uint32_t)(next_random(&random) % 9));
        CHECK_OK(rp_get_info(log, &info));
        CHECK(info.pool_used <= log->geometry.pool_size);
        rp_status status = borrow(log, next_random(&random) % 66000, RP_NOW, &loan);
        CHECK(status == RP_OK || status == RP_FULL || status == RP_CORRUPT || status == RP_TOO_LARGE);
        outcomes[status == RP_OK ? 0 : status == RP_FULL ? 1 : 2]++;
        if (status != RP_OK) continue;
        CHECK(loan.first < GRANULES && loan.granules <= GRANULES - loan.first);
        CHECK(loan.length <= (uint64_t)loan.granules * RP_GRANULE);
        memset(loan.data, 1, loan.length);
        status = commit(log, &loan, RP_NOW);
        if (status == RP_INVALID) continue;
        CHECK_OK(status);
        CHECK_IS(rp_try_take(log, 0, buffer, sizeof buffer, 1, &taken), RP_LARGE);
        rp_range range;
        CHECK_OK(rp_group_range(log, 0, UINT64_MAX, 4096, &range));
        CHECK_OK(rp_group_advance(log, 0, range.end, RP_NOW));
    }
    CHECK(outcomes[0] && outcomes[1] && outcomes[2]);
    free(body);
    set_chunk(log, 0, RP_CHUNK_FREE, GRANULES, 0);
    rp_store_relaxed(&log->head->pool_next, 0);
    check_invariants(log);
    check_pool_is_whole(log);
}

/* ---- many at once --------------------------------------------------------------------------- */

#define MOST 4000
#define LAST UINT64_MAX

typedef struct traffic {
    rp_log *log;
    uint64_t total, producers;
    uint32_t group;
    _Atomic uint64_t next_producer, aborted;
    _Atomic uint8_t taken[2][MOST];
} traffic;

/* The number is the subject of the message, the body its pattern; some loans are given back. */
static void lend_many(void *argument) {
    traffic *all = argument;
    uint64_t me = atomic_fetch_add(&all->next_producer, 1), random = me * 7919 + 1;
    for (uint64_t i = me; i < all->total; i += all->producers) {
        size_t size = next_random(&random) % (3 * RP_GRANULE);
        rp_loan loan;
        int64_t deadline = in_ms(BOUND_MS);
        CHECK_OK(borrow(all->log, 8 + size, deadline, &loan));
        uint8_t *data = loan.data;
        memcpy(data, &i, 8);
        fill(data + 8, size, i);
        if (next_random(&random) % 8 == 0) sched_yield();
        CHECK(is_filled(data + 8, size, i)); /* nobody else writes there */
        if (next_random(&random) % 8 == 0) {
            rp_abort(all->log, &loan);
            atomic_fetch_add(&all->aborted, 1);
            i -= all->producers;
            continue;
        }
        CHECK_OK(UNTIL(deadline, commit_parts(all->log, &loan, 0, 8, 0, deadline)));
    }
}

static void take_many(traffic *all, int row, uint32_t group) {
    _Alignas(RP_ALIGN) uint8_t buffer[64];
    uint8_t *body = malloc(3 * RP_GRANULE);
    for (;;) {
        rp_taken taken;
        uint64_t number;
        int64_t deadline = in_ms(BOUND_MS);
        rp_status status =
            UNTIL(deadline, rp_take(all->log, group, buffer, sizeof buffer, 1, deadline, &taken));
        if (status == RP_OK) break; /* the end, a small message */
        CHECK_IS(status, RP_LARGE);
        status = UNTIL(deadline, rp_take_large(all->log, group, taken.frame.sequence, taken.length, &number,
                                               8, body, deadline));
        if (status == RP_EMPTY) continue; /* somebody else was faster */
        CHECK_OK(status);
        CHECK(number < all->total);
        CHECK(is_filled(body, taken.length - 8, number));
        CHECK_EQ(atomic_fetch_add(&all->taken[row][number], 1), 0);
    }
    free(body);
}

static void take_as_one_of_many(void *argument) { take_many(argument, 0, 0); }
static void take_in_a_group(void *argument) { take_many(argument, 1, ((traffic *)argument)->group); }

static void lend_at_once(bool are_threads, bool keep_history, uint64_t total) {
    traffic *all = shared_memory(sizeof *all);
    *all =
        (traffic){.log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .keep_history = keep_history}),
                  .total = total,
                  .producers = 3};
    CHECK_OK(open_group(all->log, "other", true, RP_NOW, &all->group));
    crew lenders = {.are_threads = are_threads}, takers = {.are_threads = are_threads};
    for (int i = 0; i < 2; i++) engage(&takers, take_as_one_of_many, all);
    engage(&takers, take_in_a_group, all);
    for (int i = 0; i < 3; i++) engage(&lenders, lend_many, all);
    join_crew(&lenders);
    for (int i = 0; i < 2; i++) put_number(all->log, LAST);
    join_crew(&takers);
    for (uint64_t i = 0; i < total; i++)
        for (int row = 0; row < 2; row++) CHECK_EQ(atomic_load(&all->taken[row][i]), 1);
    CHECK_EQ(take_number(all->log, all->group), LAST); /* the other group's second end */
    check_invariants(all->log);
    check_pool_is_whole(all->log);
    rp_detach(all->log);
    CHECK_OK(rp_remove(log_path()));
}

static void threads_lend_at_once(void) {
    lend_at_once(true, false, ROUNDS(MOST));
    lend_at_once(true, true, ROUNDS(MOST));
}

static void processes_lend_at_once(void) {
    lend_at_once(false, false, ROUNDS(MOST));
    lend_at_once(false, true, ROUNDS(MOST));
}

RUN_TESTS(TEST(sizes_at_the_edges_of_granules), TEST(a_loan_has_three_parts), TEST(a_loan_ends_once),
          TEST(a_commit_that_fails_keeps_the_loan), TEST(forged_loans_are_refused),
          TEST(a_loan_does_not_grow), TEST(granules_outside_the_pool_are_refused),
          TEST(neighbours_are_joined), TEST(loans_of_random_sizes), TEST(granules_are_used_in_turn),
          TEST(groups_share_a_large_frame), TEST(what_is_advanced_over_comes_back),
          TEST(history_gives_up_the_oldest_first), TEST(a_take_wakes_borrowers),
          TEST(an_abort_wakes_borrowers), TEST(advancing_wakes_borrowers),
          TEST(closing_a_group_wakes_borrowers), TEST(shutting_down_ends_borrowing),
          TEST(loans_of_the_dead_are_taken_back), TEST(loans_of_the_stopped_are_theirs),
          TEST(a_death_frees_a_sleeping_borrower), TEST(noise_in_the_table_leads_nowhere_else),
          TEST(threads_lend_at_once), TEST(processes_lend_at_once))
