/* A hostile peer: some processes scribble over a mapped segment at full speed while others make every call on it.
 * Run as `peer SECONDS`; it says how many words were overwritten, how many calls were made, and which took longest.
 *
 * Scribblers take turns at four ways: any word becomes anything; a word that matters (of the head, a group, a lease,
 * a run, a frame that is new) becomes anything; such a word flips between what it was and something else as fast as it
 * can be stored, which meets whoever reads it twice; everything becomes good again, so that calls get somewhere.
 *
 * A victim that crashes, reads outside, or does not come back from a call within BOUND fails the run.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "operations.h"
#include "scenes.h"

#define VICTIMS    3
#define SCRIBBLERS 2
#define PATIENCE   INT64_C(2000000) /* ns that a call is given */
#define BOUND      20               /* s until it must be back, on a machine that does other things too */
#define TURN       256              /* stores between two looks at the clock */
#define FLIPS      2000
#define SCENE_NS   INT64_C(400000000)

typedef struct score {
    _Atomic uint64_t mutations, calls, attaches, refusals;
    _Atomic int64_t longest; /* ns */
    _Atomic uint32_t which;  /* operation */
    _Atomic bool over;
} score;

static score *shared;

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ---- scribbling ----------------------------------------------------------------------------- */

static uint64_t anything(const scene *at, uint64_t good, uint64_t *seed) {
    const rp_super *super = (const rp_super *)at->good;
    uint64_t random = next_random(seed);
    switch (random >> 8 & 7) {
    case 0: return next_random(seed);
    case 1: return next_random(seed) >> (random & 63);
    case 2: return good + 16 * (random >> 16 & 255);
    case 3: return good - 16 * (random >> 16 & 255);
    case 4: return good ^ UINT64_C(1) << (random & 63);
    case 5: return super->ring_size - 64 + 16 * (random >> 16 & 7);
    case 6: return random & 16 ? UINT64_MAX : 0;
    default: return random & 16 ? 0x7ff : 0x7ff | UINT64_C(0x7ff) << 32;
    }
}

/* The offset of a word that calls look at. */
static uint64_t that_matters(const scene *at, uint64_t *seed) {
    const rp_super *super = (const rp_super *)at->good;
    const rp_head *head = (const rp_head *)at->file;
    uint64_t random = next_random(seed), word = (random >> 8) & ~UINT64_C(7), tail;
    switch (random & 7) {
    case 0: return sizeof(rp_super) + word % (sizeof(rp_head) - sizeof(rp_super) - 2176);
    case 1: return super->groups_offset + word % (super->group_count * sizeof(rp_group));
    case 2: return super->groups_offset + word % offsetof(rp_group, policy);
    case 3: return super->leases_offset + word % (32 * sizeof(rp_lease));
    case 4: return super->chunks_offset + word % (super->chunk_count * sizeof(rp_chunk));
    case 5: return super->slots_offset + word % (8 * sizeof(rp_slot));
    default:
        tail = atomic_load_explicit(&head->tail, memory_order_relaxed) & ~UINT64_C(15);
        return super->ring_offset + ((tail - word % 4096) & (super->ring_size - 1));
    }
}

static void store(const scene *at, uint64_t offset, uint64_t value) {
    __atomic_store_n((uint64_t *)(at->file + offset), value, __ATOMIC_RELAXED);
}

static uint64_t load(const scene *at, uint64_t offset) {
    return __atomic_load_n((uint64_t *)(at->file + offset), __ATOMIC_RELAXED);
}

static uint64_t scribble(const scene *at, uint64_t *seed) {
    uint64_t way = next_random(seed) % 16, offset = that_matters(at, seed), was = load(at, offset);
    if (way == 0) {
        memcpy(at->file + PAGE / 8, at->good + PAGE / 8, at->size - PAGE / 8);
        return (at->size - PAGE / 8) / 8;
    }
    if (way < 4) {
        for (int i = 0; i < TURN; i++) store(at, next_random(seed) % (at->size / 8) * 8, next_random(seed));
        return TURN;
    }
    if (way < 8) {
        for (int i = 0; i < 4; i++) store(at, that_matters(at, seed), anything(at, was, seed));
        return 4;
    }
    uint64_t other = anything(at, was, seed);
    for (int i = 0; i < FLIPS; i++) {
        store(at, offset, other);
        for (int pause = (int)(*seed >> 20 & 15); pause; pause--) rp_pause();
        store(at, offset, was);
    }
    return 2 * FLIPS;
}

static void scribble_on(const scene *at, uint64_t seed, int64_t until) {
    while (rp_monotonic_ns() < until)
        atomic_fetch_add_explicit(&shared->mutations, scribble(at, &seed), memory_order_relaxed);
}

/* ---- victims -------------------------------------------------------------------------------- */

static const char *now_in = "attach";

static void too_late(int number) {
    (void)number;
    static const char text[] = "a call did not come back: ";
    if (write(2, text, sizeof text - 1) < 0 || write(2, now_in, strlen(now_in)) < 0 || write(2, "\n", 1) < 0)
        _exit(4);
    abort(); /* so that it can be looked at where it is */
}

static void note_time(int64_t took, uint32_t which) {
    int64_t longest = atomic_load(&shared->longest);
    while (took > longest)
        if (atomic_compare_exchange_weak(&shared->longest, &longest, took))
            atomic_store(&shared->which, which);
}

static void call(session *my, uint32_t which, uint8_t arg) {
    int64_t start = rp_monotonic_ns();
    alarm(BOUND);
    now_in = operations[which].name;
    operations[which].run(my, arg);
    alarm(0);
    note_time(rp_monotonic_ns() - start, which);
    atomic_fetch_add_explicit(&shared->calls, 1, memory_order_relaxed);
}

static void suffer(const scene *at, uint64_t seed, int64_t until) {
    signal(SIGALRM, too_late);
    while (rp_monotonic_ns() < until) {
        rp_log *log;
        session my;
        alarm(BOUND);
        now_in = "attach";
        rp_status status = rp_attach(at->path, &log);
        alarm(0);
        if (status != RP_OK) {
            atomic_fetch_add(&shared->refusals, 1);
            if (status == RP_NO_SLOT || status == RP_NOT_FOUND) return;
            continue;
        }
        atomic_fetch_add(&shared->attaches, 1);
        start_session(&my, log, PATIENCE);
        for (int i = 0; i < 2000 && rp_monotonic_ns() < until; i++) {
            uint64_t random = next_random(&seed);
            uint32_t which = random % OPERATIONS;
            if (strcmp(operations[which].name, "shut_down") == 0 && random >> 16 & 15) continue;
            call(&my, which, (uint8_t)(random >> 8));
        }
        end_session(&my);
        rp_detach(log);
    }
}

/* ---- all together --------------------------------------------------------------------------- */

static bool all_ended_well(pid_t *children, int count) {
    bool well = true;
    for (int i = 0; i < count; i++) {
        int status;
        MUST(waitpid(children[i], &status, 0) == children[i]);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
        fprintf(stderr, "a process ended with %s %d\n", WIFSIGNALED(status) ? "signal" : "status",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        well = false;
    }
    return well;
}

static bool run_on(scene *at, uint64_t seed) {
    pid_t children[VICTIMS + SCRIBBLERS];
    int64_t until = rp_monotonic_ns() + SCENE_NS;
    restore_scene(at);
    fflush(NULL);
    for (int i = 0; i < VICTIMS + SCRIBBLERS; i++) {
        children[i] = fork();
        MUST(children[i] >= 0);
        if (children[i] > 0) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        uint64_t mine = (seed + (uint64_t)i) * UINT64_C(0x9e3779b97f4a7c15) | 1;
        i < VICTIMS ? suffer(at, mine, until) : scribble_on(at, mine, until);
        _exit(0);
    }
    return all_ended_well(children, VICTIMS + SCRIBBLERS);
}

int main(int argc, char **argv) {
    int64_t end = rp_monotonic_ns() + (argc > 1 ? atoll(argv[1]) : 10) * 1000000000;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)rp_monotonic_ns();
    bool well = true;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(shared != MAP_FAILED);
    make_scenes();
    for (uint64_t round = 0; well && rp_monotonic_ns() < end; round++) {
        well = run_on(&scenes[round % SCENES], seed + round * 64);
        if (!well)
            fprintf(stderr, "on \"%s\", seed %llu\n", scenes[round % SCENES].name, (unsigned long long)seed);
    }
    printf("%s peer: %.1f million words overwritten, %llu calls in %llu attachments (%llu refused), the "
           "longest %.1f ms "
           "(%s)\n",
           well ? "ok    " : "FAILED", (double)shared->mutations / 1e6, (unsigned long long)shared->calls,
           (unsigned long long)shared->attaches, (unsigned long long)shared->refusals,
           (double)shared->longest / 1e6, operations[shared->which].name);
    return well ? 0 : 1;
}
