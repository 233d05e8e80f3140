/* One process, killed or stopped after exactly its k-th instruction (ptrace, x86-64).
 *
 * It is stepped through once, one instruction at a time; that is its path. To be killed after k instructions, a new
 * process runs the same path as far as a breakpoint in it and is stepped from there: a step costs a trap of the
 * hardware (tens of microseconds in a virtual machine), a breakpoint next to nothing. That it stands where the path
 * did after k instructions is checked; where a clock or a sleep has led it elsewhere, it dies there all the same, and
 * is counted as astray.
 */
#ifndef STEPPER_H
#define STEPPER_H

#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/user.h>

#include "harness.h"

#define MOST_STEPS 200000u
#define BREAKPOINT 0xccu
#define SYSCALL    0x050fu /* two bytes */

typedef struct path {
    uint32_t length; /* instructions from the first to the end of the process */
    uint64_t at[MOST_STEPS];
    uint32_t landmark[MOST_STEPS]; /* the last one up to here whose place comes only once in the path */
    uint32_t visits[MOST_STEPS];   /* how often its place comes from that landmark on, before it */
    uint8_t marks[MOST_STEPS];
} path;

/* This instruction changed shared memory; after it a lock is held; it was a system call. */
enum { CHANGED = 1, LOCKED = 2, CALLED = 4 };

/* ---- one process ---------------------------------------------------------------------------- */

static inline void trace_call(int request, pid_t child, uintptr_t address, uintptr_t data) {
    if (ptrace(request, child, address, data) != 0) FAIL("ptrace %d: %s", request, strerror(errno));
}

/* Wait until it stops. False: it ended, by itself and well. */
static inline bool is_stopped(pid_t child) {
    int status;
    if (waitpid(child, &status, 0) != child) FAIL("waitpid: %s", strerror(errno));
    if (WIFSTOPPED(status)) {
        int number = WSTOPSIG(status);
        if (number != SIGTRAP && number != SIGSTOP) FAIL("the operation got signal %d", number);
        return true;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        FAIL("the operation itself failed, wait status %#x", (unsigned)status);
    return false;
}

/* A child that did `ready` and stands before `act`, after which it ends. */
static inline pid_t start_traced(void (*ready)(void), void (*act)(void)) {
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) FAIL("fork: %s", strerror(errno));
    if (child == 0) {
        ready();
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) FAIL("ptrace: %s", strerror(errno));
        raise(SIGSTOP);
        act();
        _exit(0);
    }
    if (!is_stopped(child)) FAIL("it ended before it began");
    trace_call(PTRACE_SETOPTIONS, child, 0, PTRACE_O_EXITKILL);
    return child;
}

static inline void kill_traced(pid_t child) {
    int status;
    kill(child, SIGKILL);
    if (waitpid(child, &status, 0) != child) FAIL("waitpid: %s", strerror(errno));
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) FAIL("not killed, %#x", (unsigned)status);
}

static inline bool step(pid_t child) {
    trace_call(PTRACE_SINGLESTEP, child, 0, 0);
    return is_stopped(child);
}

static inline uint64_t place_of(pid_t child) {
    errno = 0;
    uint64_t place = (uint64_t)ptrace(PTRACE_PEEKUSER, child, offsetof(struct user, regs.rip), NULL);
    if (errno) FAIL("ptrace: %s", strerror(errno));
    return place;
}

/* ---- its path ------------------------------------------------------------------------------- */

static inline int by_place(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static inline void find_landmarks(path *p) {
    uint64_t *sorted = malloc((p->length + 1) * sizeof *sorted);
    uint32_t landmark = 0;
    memcpy(sorted, p->at, (p->length + 1) * sizeof *sorted);
    qsort(sorted, p->length + 1, sizeof *sorted, by_place);
    for (uint32_t k = 0; k <= p->length; k++) {
        uint64_t *found = bsearch(&p->at[k], sorted, p->length + 1, sizeof *sorted, by_place);
        bool before = found > sorted && found[-1] == *found;
        bool behind = found < sorted + p->length && found[1] == *found;
        if (!before && !behind) landmark = k;
        p->landmark[k] = landmark;
        p->visits[k] = 0;
        for (uint32_t j = landmark; j < k; j++) p->visits[k] += p->at[j] == p->at[k];
    }
    free(sorted);
}

/* Step through all of it; `look` says what each instruction did. */
static inline void walk_path(path *p, void (*ready)(void), void (*act)(void), uint8_t (*look)(void)) {
    pid_t child = start_traced(ready, act);
    p->length = 0;
    p->at[0] = place_of(child);
    p->marks[0] = look();
    for (;;) {
        long next = ptrace(PTRACE_PEEKTEXT, child, p->at[p->length], NULL);
        if (!step(child)) break;
        if (++p->length == MOST_STEPS) FAIL("it has more than %u instructions", MOST_STEPS);
        p->at[p->length] = place_of(child);
        p->marks[p->length] = look() | ((next & 0xffff) == SYSCALL ? CALLED : 0);
    }
    find_landmarks(p);
}

/* Run until it comes to `place`; it stands before that instruction then. */
static inline bool run_to(pid_t child, uint64_t place) {
    errno = 0;
    long word = ptrace(PTRACE_PEEKTEXT, child, place, NULL);
    if (errno) FAIL("ptrace: %s", strerror(errno));
    trace_call(PTRACE_POKETEXT, child, place, ((uintptr_t)word & ~(uintptr_t)0xff) | BREAKPOINT);
    trace_call(PTRACE_CONT, child, 0, 0);
    if (!is_stopped(child)) return false;
    trace_call(PTRACE_POKETEXT, child, place, (uintptr_t)word);
    if (place_of(child) != place + 1) FAIL("it stopped elsewhere");
    trace_call(PTRACE_POKEUSER, child, offsetof(struct user, regs.rip), place);
    return true;
}

/* Let it do k instructions. False: it ended before. */
static inline bool go_on_to(pid_t child, const path *p, uint32_t k) {
    uint32_t landmark = p->landmark[k], visits = p->visits[k];
    if (landmark > 0 && !run_to(child, p->at[landmark])) return false;
    if (k - landmark <= 3 * visits) {
        for (uint32_t i = landmark; i < k; i++)
            if (!step(child)) return false;
        return true;
    }
    if (k == landmark) return true;
    for (uint32_t i = 0; i < visits; i++) {
        if (place_of(child) != p->at[k] && !run_to(child, p->at[k])) return false;
        if (!step(child)) return false;
    }
    return place_of(child) == p->at[k] || run_to(child, p->at[k]);
}

#endif
