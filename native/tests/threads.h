/* The same work by several threads or by several processes. */
#ifndef THREADS_H
#define THREADS_H

#include <pthread.h>

#include "harness.h"

#define MOST_WORKERS 16

/* Who copies first and asks afterwards if the copy is good races, and means to: not before ThreadSanitizer's eyes,
 * which see one process. */
#if defined(__SANITIZE_THREAD__)
#define MAY_RACE false
#else
#define MAY_RACE true
#endif

typedef struct crew {
    pthread_t threads[MOST_WORKERS];
    pid_t processes[MOST_WORKERS];
    size_t count;
    bool are_threads;
} crew;

typedef struct thread_start {
    void (*run)(void *);
    void *argument;
} thread_start;

static inline void *thread_main(void *argument) {
    thread_start start = *(thread_start *)argument;
    free(argument);
    start.run(start.argument);
    return NULL;
}

static inline pthread_t start_thread(void (*run)(void *), void *argument) {
    thread_start *start = malloc(sizeof *start);
    *start = (thread_start){run, argument};
    pthread_t thread;
    if (pthread_create(&thread, NULL, thread_main, start) != 0) FAIL("pthread_create: %s", strerror(errno));
    return thread;
}

static inline void join_thread(pthread_t thread) { CHECK(pthread_join(thread, NULL) == 0); }

/* One more worker. What it is given must be in shared memory if it answers there. */
static inline void engage(crew *all, void (*run)(void *), void *argument) {
    CHECK(all->count < MOST_WORKERS);
    if (all->are_threads)
        all->threads[all->count++] = start_thread(run, argument);
    else
        all->processes[all->count++] = start_process(run, argument);
}

static inline void join_crew(crew *all) {
    for (size_t i = 0; i < all->count; i++) {
        if (all->are_threads)
            join_thread(all->threads[i]);
        else
            join_process(all->processes[i]);
    }
    all->count = 0;
}

#endif
