/* Death at every instruction: each operation's process is killed after its k-th instruction, for every k to the end;
 * then survivors check every invariant, account for every message, and go on.
 *
 *   kill      SIGKILL after instruction k
 *   recover   another process that goes on from there is killed after its k-th instruction, too
 *   stop      SIGSTOP after instruction k: others go on, or are told in time which process they wait for; then SIGCONT
 *
 * DEATH=all takes every k; without it only hot operations do, others system calls, what changes shared memory, and each
 * 32nd at most. Names of tests are arguments ("kill: put", or all of "kill"). Figures: instructions, deaths, states of
 * shared memory that differ from the one before.
 */
#include <stdbool.h>

static bool all_of_them;
#define TEST_SECONDS (all_of_them ? 7200 : 300)

#include "operations.h"
#include "stepper.h"

#define HALF_DONE   (CHANGED | LOCKED)
#define STRIDE      32u
#define MOST_STATES 4u  /* to recover from */
#define MOST_OTHER  64u /* instructions of one operation that do not change anything */

static const operation *op, *second;
static uint8_t *pristine, *seen_last, *halfway;
static world start;
static private_memory start_mine;
static uint32_t dead_before; /* in locks, before anything is done */
static path *first_path, *second_path;

/* ---- from the same beginning, again and again ----------------------------------------------- */

static size_t file_size(void) { return w.log->geometry.file_size; }

static void copy_file(uint8_t **to) {
    if (!*to) *to = malloc(file_size());
    memcpy(*to, w.log->file_map, file_size());
}

static void go_back(const uint8_t *state, const world *then, const private_memory *of) {
    memcpy(w.log->file_map, state, file_size());
    w = *then;
    mine = *of;
    for (uint32_t i = 0; i < OPERATIONS; i++) memset(w.said[i], 0, sizeof *w.said[i]);
}

static bool holds_lock(const rp_lock *lock) {
    uint32_t owner = rp_load_relaxed(lock) & RP_OWNER_MASK;
    return owner && owner == w.said[w.current]->owner;
}

/* Payloads in the pool are not looked at. */
static uint8_t look(void) {
    uint8_t marks = 0;
    if (memcmp(w.log->file_map, seen_last, w.log->geometry.pool_offset) != 0) {
        memcpy(seen_last, w.log->file_map, file_size());
        marks |= CHANGED;
    }
    if (holds_lock(&w.log->head->lock) || holds_lock(&w.log->head->pool_lock)) marks |= LOCKED;
    for (uint32_t g = 0; g < w.log->geometry.group_count; g++)
        if (holds_lock(&w.log->groups[g].lock)) marks |= LOCKED;
    return marks;
}

static void walk(path *p, const operation *what) {
    copy_file(&seen_last);
    w.patience_ms = 200; /* stepping is slow */
    walk_path(p, what->ready, what->act, look);
    w.patience_ms = SHORT_MS;
}

static uint32_t count_marks(const path *p, uint8_t mark) {
    uint32_t count = 0;
    for (uint32_t k = 1; k <= p->length; k++) count += (p->marks[k] & mark) != 0;
    return count;
}

static void prepare(void) {
    w = (world){.patience_ms = SHORT_MS};
    op->prepare();
    dead_before = check_locks(w.log);
    check_words(w.log, dead_before);
    copy_file(&pristine);
    start = w;
    start_mine = mine;
}

static void check_survivors(const operation *of, bool patient) {
    (of->check ? of->check : check_queue)(patient);
}

/* ---- kill ----------------------------------------------------------------------------------- */

typedef struct figures {
    uint32_t deaths, astray, ended;
} figures;

/* False: it ended before. */
static bool die_after(const operation *what, const path *p, uint32_t k, figures *count) {
    pid_t child = start_traced(what->ready, what->act);
    if (!go_on_to(child, p, k)) {
        count->ended++;
        return false;
    }
    count->astray += place_of(child) != p->at[k];
    kill_traced(child);
    count->deaths++;
    return true;
}

static void run_to_end(const operation *what) {
    pid_t child = start_traced(what->ready, what->act);
    trace_call(PTRACE_CONT, child, 0, 0);
    CHECK(!is_stopped(child));
    CHECK(w.said[w.current]->done);
}

static bool is_chosen(const path *p, uint32_t k, bool hot) {
    uint32_t stride = p->length / MOST_OTHER > STRIDE ? p->length / MOST_OTHER : STRIDE;
    return all_of_them || hot || (p->marks[k] & (CHANGED | CALLED)) || k % stride == 0;
}

static void kill_everywhere(void) {
    figures count = {0};
    prepare();
    walk(first_path, op);
    for (uint32_t k = 1; k <= first_path->length; k++) {
        if (!is_chosen(first_path, k, op->hot)) continue;
        snprintf(where_we_are, sizeof where_we_are, "%s, killed after instruction %u: ", op->name, k);
        go_back(pristine, &start, &start_mine);
        if (!die_after(op, first_path, k, &count)) continue;
        check_words(w.log, dead_before + 1);
        check_growth(w.log, pristine);
        check_survivors(op, first_path->marks[k] & CHANGED);
    }
    snprintf(where_we_are, sizeof where_we_are, "%s, not killed: ", op->name);
    go_back(pristine, &start, &start_mine);
    run_to_end(op);
    check_survivors(op, false);
    printf("       %u instructions, %u deaths (%u astray), %u states", first_path->length, count.deaths,
           count.astray, count_marks(first_path, CHANGED) + 1);
    if (count.ended) printf(", %u instructions not met again", count.ended);
    putchar('\n');
    CHECK(count.deaths > 0);
}

/* ---- recover -------------------------------------------------------------------------------- */

/* What the second one puts or takes is accounted for as its own. */
static void die_twice_from(uint32_t k, figures *count, uint32_t *instructions) {
    figures once = {0};
    go_back(pristine, &start, &start_mine);
    if (!die_after(op, first_path, k, &once)) return;
    statement said = *w.said[0];
    copy_file(&halfway);
    w.current = 1;
    second->prepare();
    world then = w;
    private_memory then_mine = mine;
    walk(second_path, second);
    *instructions += second_path->length;
    for (uint32_t j = 1; j <= second_path->length; j++) {
        if (!all_of_them && !(second_path->marks[j] & CHANGED)) continue;
        snprintf(where_we_are, sizeof where_we_are, "%s, killed after %u; %s, killed after %u: ", op->name, k,
                 second->name, j);
        go_back(halfway, &then, &then_mine);
        *w.said[0] = said;
        if (!die_after(second, second_path, j, count)) continue;
        check_words(w.log, dead_before + 2);
        check_growth(w.log, halfway);
        check_survivors(op, false);
    }
}

static void kill_recovery(void) {
    figures count = {0};
    prepare();
    walk(first_path, op);
    uint32_t all = 0, states = 0, instructions = 0, turn = 0;
    for (uint32_t k = 1; k <= first_path->length; k++) all += (first_path->marks[k] & HALF_DONE) == HALF_DONE;
    for (uint32_t k = 1; k <= first_path->length; k++) {
        if ((first_path->marks[k] & HALF_DONE) != HALF_DONE) continue;
        if (!all_of_them && turn++ % (all / MOST_STATES + 1)) continue;
        states++;
        die_twice_from(k, &count, &instructions);
    }
    printf("       %u states to recover from, %u instructions of recovery, %u deaths (%u astray)\n", states,
           instructions, count.deaths, count.astray);
    CHECK(count.deaths > 0);
}

/* ---- stop ----------------------------------------------------------------------------------- */

static uint32_t stalled;

/* In time, and by what name: true if it was done. */
static bool is_clean(rp_status status, pid_t stopped) {
    if (status == RP_STALLED) {
        CHECK_EQ(rp_holder(), stopped);
        stalled++;
        return false;
    }
    if (status != RP_OK && status != RP_EMPTY && status != RP_FULL && status != RP_LARGE &&
        status != RP_RETURNED_FIRST && status != RP_SHUT_DOWN && status != RP_NOT_FOUND)
        FAIL("a survivor is told \"%s\"", rp_status_text(status));
    return status == RP_OK;
}

static void try_to_put(pid_t stopped) {
    uint64_t number = w.later;
    if (!is_clean(put_sized(number, 8, in_ms(SHORT_MS)), stopped)) return;
    w.later++;
    account(number, 8, THERE);
}

static void try_to_take(pid_t stopped) {
    rp_taken taken;
    int64_t deadline = in_ms(SHORT_MS);
    rp_status status = UNTIL(
        deadline, rp_take(w.log, w.group, received.frames, sizeof received.frames, 1, deadline, &taken));
    if (is_clean(status, stopped)) note_seen(((const numbered *)received.frames)->number);
}

static void try_to_receive(pid_t stopped) {
    uint32_t lost;
    if (!is_clean(receive(w.log, w.group, 1, 0, in_ms(SHORT_MS)), stopped)) return;
    uint64_t number = read_received();
    note_seen(number);
    int64_t deadline = in_ms(SHORT_MS);
    if (is_clean(rp_settle(w.log, w.group, received.receipts, 1, deadline, &lost), stopped))
        CHECK_EQ(lost, 0);
    else
        w.kept[w.kept_count++] = received.receipts[0];
}

static void try_to_ack(pid_t stopped) {
    uint32_t lost;
    int64_t deadline = in_ms(SHORT_MS);
    if (!w.kept_count) return;
    if (is_clean(UNTIL(deadline, rp_settle(w.log, w.group, w.kept, w.kept_count, deadline, &lost)), stopped))
        w.kept_count = 0;
}

/* Those whose accounts are of another kind are only written to, and read by their check. */
static void meet(pid_t stopped) {
    w.met = true;
    if (!op->check) {
        try_to_put(stopped);
        try_to_take(stopped);
        try_to_receive(stopped);
        try_to_ack(stopped);
    } else {
        rp_info info;
        CHECK_OK(rp_get_info(w.log, &info));
    }
}

static bool stop_after(uint32_t k, uint32_t *stops) {
    int status;
    pid_t child = start_traced(op->ready, op->act);
    if (!go_on_to(child, first_path, k)) return false;
    trace_call(PTRACE_DETACH, child, 0, SIGSTOP);
    wait_until_stopped(child);
    ++*stops;
    meet(child);
    kill(child, SIGCONT);
    if (waitpid(child, &status, 0) != child) FAIL("waitpid: %s", strerror(errno));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        FAIL("it did not go on well, wait status %#x", (unsigned)status);
    CHECK(w.said[0]->done);
    return true;
}

static void stop_everywhere(void) {
    uint32_t stops = 0;
    prepare();
    walk(first_path, op);
    for (uint32_t k = 1; k <= first_path->length; k++) {
        if (!(first_path->marks[k] & (all_of_them ? CHANGED | LOCKED : CHANGED))) continue;
        snprintf(where_we_are, sizeof where_we_are, "%s, stopped after instruction %u: ", op->name, k);
        go_back(pristine, &start, &start_mine);
        if (stop_after(k, &stops)) check_survivors(op, false);
    }
    printf("       %u instructions, %u stops, %u calls named who was stopped\n", first_path->length, stops,
           stalled);
}

/* ---- all of it ------------------------------------------------------------------------------ */

typedef struct recovery {
    const char *first;
    operation second; /* `prepare` adds to the accounts of the first one */
} recovery;

static void before_second_put(void) { prepare_message(8); }
static void before_second_large(void) { fill_body(mine.large_body, LARGE, to_put(LARGE)); }

static const recovery recoveries[] = {
    {"put", {"put", before_second_put, join, put, NULL, false}},
    {"put to sleepers", {"put", before_second_put, join, put, NULL, false}},
    {"put many", {"put", before_second_put, join, put, NULL, false}},
    {"put over history", {"put", before_second_put, join, put, NULL, false}},
    {"put over a dead lock", {"put", before_second_put, join, put, NULL, false}},
    {"put a large one", {"put a large one", before_second_large, join, put_large, NULL, false}},
    {"put a large one after reclaim", {"put a large one", before_second_large, join, put_large, NULL, false}},
    {"commit a loan", {"put a large one", before_second_large, join, put_large, NULL, false}},
    {"open a group", {"open a group", nothing, join, open_named, NULL, false}},
    {"close a group", {"open a group", nothing, join, open_named, NULL, false}},
    {"get", {"receive", nothing, join, receive_one, NULL, false}},
    {"get a large one", {"receive", nothing, join, receive_one, NULL, false}},
    {"receive", {"receive", nothing, join, receive_one, NULL, false}},
    {"receive three", {"receive", nothing, join, receive_three, NULL, false}},
    {"receive some again", {"receive", nothing, join, receive_one, NULL, false}},
    {"ack", {"receive", nothing, join, receive_one, NULL, false}},
    {"ack three", {"receive", nothing, join, receive_one, NULL, false}},
    {"nack one of three", {"receive", nothing, join, receive_one, NULL, false}},
    {"nack another", {"receive", nothing, join, receive_one, NULL, false}},
};

/* "kill: put", or all of "kill". */
static bool is_named(int argc, char **argv, const char *name) {
    for (int i = 1; i < argc; i++) {
        size_t length = strlen(argv[i]);
        if (strncmp(argv[i], name, length) == 0 && (name[length] == 0 || name[length] == ':')) return true;
    }
    return argc < 2;
}

static bool run_named(int argc, char **argv, const char *mode, const char *name, void (*run)(void)) {
    char full[128];
    snprintf(full, sizeof full, "%s: %s", mode, name);
    if (harness_signal == SIGINT || harness_signal == SIGTERM) return false;
    return !is_named(argc, argv, full) || run_test("death", &(test){full, run});
}

/* Waking one another on the same processor takes a third of the time, and a process alone on it never spins. */
static void stay_on_one_processor(void) {
    cpu_set_t all, one;
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    CPU_ZERO(&one);
    for (int i = CPU_SETSIZE - 1; i >= 0; i--)
        if (CPU_ISSET(i, &all)) {
            CPU_SET(i, &one);
            break;
        }
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
}

/* One instruction that copies thousands of bytes is thousands of steps, all in the same place. */
static void copy_by_ordinary_instructions(char **argv) {
    if (getenv("GLIBC_TUNABLES")) return;
    setenv("GLIBC_TUNABLES",
           "glibc.cpu.x86_rep_movsb_threshold=1000000:glibc.cpu.x86_rep_stosb_threshold=1000000", 1);
    execv("/proc/self/exe", argv);
}

static bool may_trace(void) {
    pid_t child = fork();
    if (child == 0) _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 ? 0 : 1);
    int status;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv) {
    copy_by_ordinary_instructions(argv);
    if (!may_trace()) {
        puts("skipped death: ptrace is not permitted here");
        return 0;
    }
    bool ok = true;
    const char *how_much = getenv("DEATH");
    all_of_them = how_much && strcmp(how_much, "all") == 0;
    struct sigaction action = {.sa_handler = note_signal}; /* no SA_RESTART: ends waitpid */
    for (int i = 0; i < 3; i++) sigaction((int[]){SIGALRM, SIGINT, SIGTERM}[i], &action, NULL);
    stay_on_one_processor();
    first_path = malloc(sizeof *first_path);
    second_path = malloc(sizeof *second_path);
    for (size_t i = 0; i < COUNT(operations); i++) {
        op = &operations[i];
        ok &= run_named(argc, argv, "kill", op->name, kill_everywhere);
        ok &= run_named(argc, argv, "stop", op->name, stop_everywhere);
        for (size_t r = 0; r < COUNT(recoveries); r++) {
            second = &recoveries[r].second;
            if (strcmp(recoveries[r].first, op->name) != 0) continue;
            ok &= run_named(argc, argv, "recover", op->name, kill_recovery);
        }
    }
    return ok ? 0 : 1;
}
