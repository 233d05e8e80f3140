/* As test_litmus.c, for what comes into being while others look: events, results, pins, participants, groups, marks. */
#include "duel.h"
#include "pin.h"
#include "stored.h"

/* Two sides of a duel; `second` in a thread of its own, or in a process. */
typedef struct pair {
    duel base;
    bool in_process;
    void (*first)(struct pair *, uint64_t round);
    void (*second)(struct pair *, uint64_t round);
    void (*check)(struct pair *, uint64_t round); /* when both are done, while neither goes on */
    uint64_t wanted[2];                           /* of base.both, before it ends */
    _Atomic uint64_t result;
    uint32_t group;
    rp_descriptor descriptor;
    uint64_t position;
    rp_pin pin;
} pair;

static void run_second(void *argument) {
    pair *all = argument;
    uint64_t random = 17;
    for (uint64_t round = 1;; round++) {
        meet(&all->base, 3 * round - 2);
        delay(&random);
        all->second(all, round);
        meet(&all->base, 3 * round - 1);
        meet(&all->base, 3 * round);
        if (!atomic_load(&all->base.left_to_do)) return;
    }
}

static bool saw_enough(const pair *all) {
    return all->base.both[0] >= all->wanted[0] && all->base.both[1] >= all->wanted[1];
}

static void run_pair(pair *all) {
    uint64_t random = 4711;
    crew other = {.are_threads = !all->in_process};
    all->base.left_to_do = 1;
    all->base.end = in_ms(MS_EACH);
    engage(&other, run_second, all);
    for (uint64_t round = 1;; round++) {
        meet(&all->base, 3 * round - 2);
        bool last = is_over(all->base.end, round > 30 && saw_enough(all));
        if (last) atomic_store(&all->base.left_to_do, 0);
        delay(&random);
        all->first(all, round);
        meet(&all->base, 3 * round - 1);
        if (all->check) all->check(all, round);
        all->base.rounds = round;
        meet(&all->base, 3 * round);
        if (last) break;
    }
    join_crew(&other);
    CHECK(all->base.rounds > 30 && saw_enough(all));
}

/* ---- event ---------------------------------------------------------------------------------- */

static void say_and_ring(pair *all, uint64_t round) {
    (void)round;
    rp_head *head = all->base.log->head;
    for (int i = 0; i < 20; i++) {
        uint64_t bit = UINT64_C(1) << RP_EVENT_BELL;
        atomic_store_explicit(&all->result, rp_load_relaxed(&all->result) + 1, memory_order_relaxed);
        rp_or_relaxed(&head->armed[0], bit); /* so that it is counted, whoever listens */
        rp_bell_ring(all->base.log);
    }
}

static void listen_and_look(pair *all, uint64_t round) {
    (void)round;
    for (int i = 0; i < 20; i++) {
        uint64_t heard = rp_bell_listen(all->base.log), said = rp_load_relaxed(&all->result);
        if (said < heard) FAIL("heard %" PRIu64 " times, and %" PRIu64 " were said", heard, said);
        all->base.both[said > heard]++;
    }
}

/* FORBIDS event: a count that includes an increment, and not what was stored before that. */
static void what_was_said_before_the_bell(void) {
    pair all = {.base.log = small_log(), .first = listen_and_look, .second = say_and_ring};
    run_pair(&all);
    CHECK(all.base.both[0] + all.base.both[1] > 500);
}

/* ---- done ----------------------------------------------------------------------------------- */

static void work_and_say_so(pair *all, uint64_t round) {
    atomic_store_explicit(&all->result, round, memory_order_relaxed);
    CHECK_OK(rp_task_done(all->base.log));
}

static void join_and_look(pair *all, uint64_t round) {
    rp_log *log = all->base.log;
    int64_t deadline = round % 2 ? in_ms(BOUND_MS) : RP_NOW;
    rp_status status = UNTIL(deadline, rp_join(log, deadline));
    if (status == RP_OK) CHECK_EQ(rp_load_relaxed(&all->result), round);
    all->base.both[status == RP_OK]++;
}

static void put_and_take_one(pair *all, uint64_t round) {
    uint64_t number;
    put_number(all->base.log, round);
    CHECK_OK(take_number_until(all->base.log, 0, in_ms(BOUND_MS), &number));
}

/* FORBIDS done: a join that returned, and a task's results that are not there. */
static void results_are_there_after_join(void) {
    pair all = {.base.log = small_log(),
                .first = join_and_look,
                .second = work_and_say_so,
                .check = put_and_take_one,
                .wanted = {0, 10}};
    put_and_take_one(&all, 0);
    run_pair(&all);
}

/* ---- pin ------------------------------------------------------------------------------------ */

static void put_large(pair *all) {
    rp_log *log = all->base.log;
    rp_loan loan;
    CHECK_OK(rp_borrow(log, 2 * RP_GRANULE, in_ms(BOUND_MS), &loan));
    fill(loan.data, loan.length, 5);
    all->position = rp_load_relaxed(&log->head->tail);
    all->descriptor = (rp_descriptor){.length = loan.length, .first = loan.first, .granules = loan.granules};
    CHECK_OK(commit_loan(log, &loan, in_ms(BOUND_MS)));
}

static void pin_it(pair *all, uint64_t round) {
    (void)round;
    all->base.first = rp_pin_run(all->base.log, &all->descriptor, all->position, &all->pin);
}

static void take_it(pair *all, uint64_t round) {
    static uint8_t body[2 * RP_GRANULE];
    CHECK_OK(rp_take_large(all->base.log, 0, round - 1, sizeof body, NULL, 0, body, in_ms(BOUND_MS)));
}

static void whoever_pinned_it_has_it(pair *all, uint64_t round) {
    rp_log *log = all->base.log;
    uint64_t word = rp_load_relaxed(&log->chunks[all->descriptor.first].word);
    bool pinned = all->base.first == RP_OK, is_free = rp_chunk_state(word) == RP_CHUNK_FREE;
    if (pinned && is_free) FAIL("round %" PRIu64 ": pinned, and free", round);
    if (pinned) {
        CHECK(is_filled(all->pin.data, all->pin.length, 5));
        rp_unpin(log, &all->pin);
    }
    all->base.both[pinned]++;
    put_large(all);
}

/* FORBIDS pin: a run that is free, and somebody who has pinned it. */
static void a_pinned_run_is_not_freed(void) {
    pair all = {.base.log = small_log(),
                .first = pin_it,
                .second = take_it,
                .check = whoever_pinned_it_has_it,
                .wanted = {1, 1}}; /* either is first at times */
    put_large(&all);
    run_pair(&all);
}

/* ---- slot ----------------------------------------------------------------------------------- */

static void take_part(pair *all, uint64_t round) {
    rp_log *own;
    rp_info info;
    if (round == 1) rp_detach(all->base.log); /* our parent's: attaching would find it */
    CHECK_OK(rp_attach(log_path(), &own));
    CHECK_OK(rp_get_info(own, &info)); /* joins */
    all->base.count = (own->me & RP_SLOT_MASK) - 1;
    rp_detach(own);
}

static void who_is_new(pair *all, uint64_t round) {
    (void)round;
    rp_slot *slot = &all->base.log->slots[1]; /* the first is ours */
    uint32_t before = all->base.snapshot, now = before;
    int64_t end = in_ms(BOUND_MS);
    while (now == before && rp_monotonic_ns() < end) now = rp_load_acquire(slot, &slot->generation);
    CHECK(now != before);
    CHECK(rp_load_relaxed(&slot->pid) != 0);
    CHECK(rp_load_relaxed(&slot->born_ns) != 0);
}

static void forget_it(pair *all, uint64_t round) {
    (void)round;
    rp_slot *slot = &all->base.log->slots[1];
    CHECK_EQ(all->base.count, 1);
    all->base.snapshot = rp_load_relaxed(&slot->generation);
    rp_store_relaxed(&slot->pid, 0);
    rp_store_relaxed(&slot->born_ns, 0);
}

/* FORBIDS slot: a participant's generation without its pid and its birth. */
static void a_participant_is_born_whole(void) {
    pair *all = shared_memory(sizeof *all);
    *all = (pair){.base.log = small_log(),
                  .in_process = true,
                  .first = who_is_new,
                  .second = take_part,
                  .check = forget_it};
    CHECK(participants(all->base.log) == 1);
    run_pair(all);
}

/* ---- group ---------------------------------------------------------------------------------- */

/* The producer, the consumer and the writer of a stored queue in one. */
static void store_stream(void *argument) {
    pair *all = argument;
    rp_log *log = all->base.log;
    uint64_t number;
    while (atomic_load(&all->base.left_to_do)) {
        try_put_number(log, 1);
        try_take_number(log, 0, &number);
        uint64_t tail = rp_tail(log), needed = rp_needed(log);
        if (needed != UINT64_MAX && needed > rp_load_relaxed(&all->result))
            atomic_store(&all->result, needed);
        rp_set_durable(log, tail);
    }
}

/* FORBIDS group: a group that begins with frames which somebody who did not count it has found of no use. */
static void a_group_is_born_with_what_it_needs(void) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .stored = true});
    pair all = {.base = {.log = log, .left_to_do = 1, .end = in_ms(MS_EACH)}};
    rp_group_settings settings = {.from_start = true};
    pthread_t thread = start_thread(store_stream, &all);
    if (MAY_RACE) be_interrupted();
    uint64_t last = 0, moved = 0;
    while (!is_over(all.base.end, moved > 20)) {
        uint32_t group;
        bool made;
        rp_status status;
        do status = rp_group_open(log, "new", &settings, in_ms(BOUND_MS), &group, &made);
        while (status == RP_INTERRUPTED);
        CHECK_OK(status);
        CHECK(made);
        uint64_t given_up = atomic_load(&all.result),
                 start = rp_load_relaxed(&rp_group_of(log, group)->acked);
        if (start < given_up) FAIL("it begins at %" PRIu64 ", and %" PRIu64 " are gone", start, given_up);
        CHECK_EQ(rp_load_relaxed(&rp_group_of(log, group)->owner), 0);
        moved += start != last;
        last = start;
        do status = rp_group_close(log, group, in_ms(BOUND_MS));
        while (status == RP_INTERRUPTED);
        CHECK_OK(status);
    }
    atomic_store(&all.base.left_to_do, 0);
    join_thread(thread);
    CHECK(moved > 20);
}

/* ---- mark ----------------------------------------------------------------------------------- */

static void move_on(void *argument) {
    pair *all = argument;
    uint64_t number;
    while (atomic_load(&all->base.left_to_do)) {
        while (try_put_number(all->base.log, 1) == RP_OK) {
        }
        while (try_take_number(all->base.log, 0, &number) == RP_OK) {
        }
        rp_set_durable(all->base.log, rp_tail(all->base.log));
    }
}

/* FORBIDS mark: a position, and the sequence of another one. */
static void a_mark_is_of_one_place(void) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .stored = true});
    pair all = {.base = {.log = log, .left_to_do = 1, .end = in_ms(MS_EACH)}};
    pthread_t thread = start_thread(move_on, &all);
    if (MAY_RACE) be_interrupted();
    uint64_t read, sequence, last = 0, moved = 0;
    while (!is_over(all.base.end, moved > 100)) {
        CHECK(rp_glance_at_mark(&log->groups[RP_QUEUE_GROUP], &read, &sequence));
        CHECK_EQ(read, sequence * sizeof(numbered));
        moved += read != last;
        last = read;
    }
    atomic_store(&all.base.left_to_do, 0);
    join_thread(thread);
    CHECK(moved > 100);
}

RUN_TESTS(TEST(what_was_said_before_the_bell), TEST(results_are_there_after_join),
          TEST(a_pinned_run_is_not_freed), TEST(a_participant_is_born_whole),
          TEST(a_group_is_born_with_what_it_needs), TEST(a_mark_is_of_one_place))
