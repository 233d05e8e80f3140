/* Groups: each message to exactly one taker of each group, and none overwritten before every group had it. */
#include "inside.h"
#include "messages.h"
#include "threads.h"

#define MOST 40000
#define END  UINT64_MAX

typedef struct ledger {
    rp_log *log;
    uint32_t group;
    uint64_t total, producers;
    _Atomic uint64_t next_producer;
    _Atomic uint8_t taken[MOST];
} ledger;

static void produce(void *argument) {
    ledger *all = argument;
    uint64_t me = atomic_fetch_add(&all->next_producer, 1);
    for (uint64_t i = me; i < all->total; i += all->producers) put_number(all->log, i);
}

/* One at a time, or in batches of up to seven; what one taker gets of one producer is in order. */
static void consume(void *argument) {
    ledger *all = argument;
    numbered got[7];
    uint64_t last[4] = {0}, turn = 0;
    for (;;) {
        rp_taken taken;
        int64_t deadline = in_ms(BOUND_MS);
        CHECK_OK(UNTIL(deadline,
                       rp_take(all->log, all->group, got, sizeof got, turn++ % 7 + 1, deadline, &taken)));
        for (uint32_t i = 0; i < taken.count; i++) {
            uint64_t number = got[i].number;
            if (number == END) {
                CHECK_EQ(i + 1, taken.count); /* or others' would be lost */
                return;
            }
            CHECK(number < all->total);
            CHECK(number >= last[number % all->producers]);
            last[number % all->producers] = number;
            CHECK_EQ(atomic_fetch_add(&all->taken[number], 1), 0);
        }
    }
}

static void compete(bool with_threads, uint64_t total, uint64_t producers, uint64_t takers) {
    ledger *all = shared_memory(sizeof *all);
    *all = (ledger){.log = small_log(), .total = total, .producers = producers};
    crew putting = {.are_threads = with_threads}, taking = {.are_threads = with_threads};
    for (uint64_t i = 0; i < takers; i++) engage(&taking, consume, all);
    for (uint64_t i = 0; i < producers; i++) engage(&putting, produce, all);
    join_crew(&putting);
    for (uint64_t i = 0; i < takers; i++) {
        uint64_t left;
        EVENTUALLY(rp_ready(all->log, &left) == RP_OK && left == 0); /* one END in a batch, at its end */
        put_number(all->log, END);
    }
    join_crew(&taking);
    for (uint64_t i = 0; i < total; i++) CHECK_EQ(atomic_load(&all->taken[i]), 1);
    check_invariants(all->log);
}

static void threads_compete(void) { compete(true, ROUNDS(MOST), 3, 4); }
static void processes_compete(void) { compete(false, ROUNDS(MOST), 3, 4); }
static void one_producer_one_taker(void) { compete(false, ROUNDS(MOST), 1, 1); }

/* ---- several groups ------------------------------------------------------------------------- */

static void every_group_holds_the_producer_back(void) {
    rp_log *log = small_log();
    uint32_t groups[3] = {0};
    uint64_t put = 0, next[3] = {0}, random = 777;
    CHECK_OK(open_group(log, "one", true, RP_NOW, &groups[1]));
    CHECK_OK(open_group(log, "two", true, RP_NOW, &groups[2]));
    uint64_t most = (log->geometry.ring_size - RP_STUB) / sizeof(numbered);
    for (int round = 0; round < 200; round++) {
        while (try_put_number(log, put) == RP_OK) put++;
        uint64_t slowest = put;
        for (int g = 0; g < 3; g++) slowest = next[g] < slowest ? next[g] : slowest;
        CHECK_EQ(put, slowest + most);
        for (int g = 0; g < 3; g++) {
            uint64_t target = next[g] + next_random(&random) % (put - next[g] + 1);
            while (next[g] < target) CHECK_EQ(take_number(log, groups[g]), next[g]++);
        }
        check_invariants(log);
    }
}

static void a_closed_group_holds_nobody_back(void) {
    rp_log *log = small_log();
    uint32_t group;
    uint64_t put = 0, number = 0;
    CHECK_OK(open_group(log, "slow", false, RP_NOW, &group));
    while (try_put_number(log, put) == RP_OK) put++;
    while (try_take_number(log, 0, &number) == RP_OK) {
    }
    CHECK_IS(try_put_number(log, put), RP_FULL);
    CHECK_OK(rp_group_close(log, group, RP_NOW));
    for (int lap = 0; lap < 3; lap++) {
        while (try_put_number(log, put) == RP_OK) put++;
        while (try_take_number(log, 0, &number) == RP_OK) {
        }
    }
    CHECK_EQ(number, put - 1);
}

static void names_find_groups(void) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .groups = 4});
    uint32_t a, b, c, again;
    char longest[RP_GROUP_NAME + 1] = {0};
    memset(longest, 'x', RP_GROUP_NAME);
    CHECK_OK(open_group(log, "a", true, RP_NOW, &a));
    CHECK_OK(open_group(log, "ab", true, RP_NOW, &b));
    CHECK_IS(open_group(log, longest, true, RP_NOW, &c), RP_INVALID);
    CHECK_IS(open_group(log, "", true, RP_NOW, &c), RP_INVALID);
    longest[RP_GROUP_NAME - 1] = 0;
    CHECK_OK(open_group(log, longest, true, RP_NOW, &c));
    CHECK(a != b && b != c && a != c && a && b && c);
    CHECK_OK(open_group(log, "ab", false, RP_NOW, &again));
    CHECK_EQ(again, b);
    CHECK_IS(open_group(log, "d", false, RP_NOW, &again), RP_NO_SLOT);
    CHECK_OK(rp_group_close(log, a, RP_NOW));
    CHECK_OK(open_group(log, "d", false, RP_NOW, &again));
    CHECK(again != a &&
          (again & RP_GROUP_NUMBER) == (a & RP_GROUP_NUMBER)); /* an old handle opens nothing new */
    CHECK_IS(rp_group_close(log, RP_QUEUE_GROUP, RP_NOW), RP_INVALID);
    CHECK_IS(rp_group_close(log, 4, RP_NOW), RP_INVALID);
}

static void a_new_group_starts_where_it_is_told(void) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .keep_history = true});
    uint32_t first, last;
    uint64_t most = (log->geometry.ring_size - RP_STUB) / sizeof(numbered), put = 0, number;
    for (; put < 3 * most; put++) {
        put_number(log, put);
        CHECK_EQ(take_number(log, 0), put);
    }
    CHECK_OK(open_group(log, "from the start", true, RP_NOW, &first));
    CHECK_OK(open_group(log, "from now on", false, RP_NOW, &last));
    CHECK_IS(try_take_number(log, last, &number), RP_EMPTY);
    CHECK_EQ(take_number(log, first), put - most);
    CHECK_OK(try_put_number(log, put)); /* into the room of the one frame it has read */
    CHECK_IS(try_put_number(log, put), RP_FULL);
    CHECK_EQ(take_number(log, last), put);
    for (uint64_t i = put - most + 1; i <= put; i++) CHECK_EQ(take_number(log, first), i);
    CHECK_IS(try_take_number(log, first, &number), RP_EMPTY);
}

/* Nothing protects the frames of a group that is not open: nothing may be read through it. */
static void only_open_groups_can_be_read(void) {
    rp_log *log = small_log();
    uint32_t group;
    uint64_t number;
    CHECK_OK(open_group(log, "short-lived", false, RP_NOW, &group));
    put_number(log, 1);
    CHECK_OK(rp_group_close(log, group, RP_NOW));
    CHECK(try_take_number(log, group, &number) != RP_OK);
    CHECK(try_take_number(log, group + 1, &number) != RP_OK); /* never opened */
    CHECK_IS(try_take_number(log, log->geometry.group_count, &number), RP_INVALID);
    CHECK_IS(try_take_number(log, UINT32_MAX, &number), RP_INVALID);
}

static void open_take_close(void *argument) {
    rp_log *log = argument;
    char name[32];
    snprintf(name, sizeof name, "group %d", (int)getpid());
    for (int i = 0; i < ROUNDS(300); i++) {
        uint32_t group;
        uint64_t first = 0, number;
        CHECK_OK(open_group(log, name, i % 2, in_ms(BOUND_MS), &group));
        for (int n = 0; n < 3; n++) {
            number = take_number(log, group);
            if (n > 0) CHECK_EQ(number, first + 1);
            first = number;
        }
        CHECK_OK(rp_group_close(log, group, in_ms(BOUND_MS)));
    }
}

typedef struct stream {
    rp_log *log;
    _Atomic bool stop;
} stream;

static void put_and_take(void *argument) {
    stream *all = argument;
    for (uint64_t i = 0; !atomic_load(&all->stop); i++) {
        if (try_put_number(all->log, i) == RP_OK)
            CHECK_EQ(take_number(all->log, 0), i);
        else
            i--;
    }
}

/* What a group reads is dense however groups come and go. */
static void groups_come_and_go(void) {
    stream *all = shared_memory(sizeof *all);
    all->log = small_log();
    crew one = {.are_threads = true}, many = {.are_threads = false};
    for (int i = 0; i < 3; i++) engage(&many, open_take_close, all->log);
    engage(&one, put_and_take, all);
    join_crew(&many);
    atomic_store(&all->stop, true);
    join_crew(&one);
    check_invariants(all->log);
}

RUN_TESTS(TEST(threads_compete), TEST(processes_compete), TEST(one_producer_one_taker),
          TEST(every_group_holds_the_producer_back), TEST(a_closed_group_holds_nobody_back),
          TEST(names_find_groups), TEST(a_new_group_starts_where_it_is_told),
          TEST(only_open_groups_can_be_read), TEST(groups_come_and_go))
