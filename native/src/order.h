/* The memory orders, in one place. Every release and every acquire carries the name of its sync
 * point, and its partner carries the same name (the habit is iceoryx2's). The names:
 *
 *   lock      unlock's swap            -> the next locker's CAS
 *   commit    tail's store             -> whoever reads frames below it
 *   release   a group's `acked`        -> the producer that overwrites what lies before it
 *   lap       `oldest`'s store         -> a lock-free reader that must not trust older bytes
 *   event     an event's increment     -> the waiter that read it before sleeping
 *   arm       the waiter's armed bit   -> the waker's look at it (store-load: full fences)
 *   chunk     a chunk's state          -> the process that allocates, frees or reclaims it
 *   pin       a pin, and its end       -> whoever frees the run (store-load: full fences)
 *   state     shutdown and deletion    -> everybody's check
 *   slot      a participant's birth    -> whoever asks if it is alive
 *   token     joining as a forked child   -> its other threads
 *   group     a group's birth          -> the producer that counts it among those it waits for
 *   done      task_done's add          -> join
 *   level     a level's bit            -> whoever looks for levels
 *   mark      a move of `read`         -> whoever reads a mark that is overwritten after it
 *
 * tests/unit/test_sync_points.py checks that each name has both its sides, and a litmus test (FORBIDS in native/tests).
 */
#ifndef RP_ORDER_H
#define RP_ORDER_H

#include <stdatomic.h>
#include <stdint.h>

#if ATOMIC_LLONG_LOCK_FREE != 2 || ATOMIC_INT_LOCK_FREE != 2 || UINTPTR_MAX != UINT64_MAX
#error "ringpost needs a 64-bit machine with lock-free 64-bit atomics"
#endif

#define rp_load_relaxed(p)     atomic_load_explicit((p), memory_order_relaxed)
#define rp_store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)

#define rp_load_acquire(point, p)     atomic_load_explicit((p), memory_order_acquire)
#define rp_store_release(point, p, v) atomic_store_explicit((p), (v), memory_order_release)

#define rp_cas_acquire(point, p, expected, desired)                                                          \
    atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_acquire,                \
                                            memory_order_relaxed)
#define rp_cas_release(point, p, expected, desired)                                                          \
    atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_release,                \
                                            memory_order_relaxed)
#define rp_cas_relaxed(p, expected, desired)                                                                 \
    atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_relaxed,                \
                                            memory_order_relaxed)
#define rp_swap_release(point, p, v) atomic_exchange_explicit((p), (v), memory_order_release)
#define rp_add_release(point, p, v)  atomic_fetch_add_explicit((p), (v), memory_order_release)
#define rp_add_relaxed(p, v)         atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define rp_or_relaxed(p, v)          atomic_fetch_or_explicit((p), (v), memory_order_relaxed)
#define rp_or_release(point, p, v)   atomic_fetch_or_explicit((p), (v), memory_order_release)
#define rp_and_acq_rel(point, p, v)  atomic_fetch_and_explicit((p), (v), memory_order_acq_rel)

#define rp_swap_relaxed(p, v) atomic_exchange_explicit((p), (v), memory_order_relaxed)

#define rp_fence_acquire(point) atomic_thread_fence(memory_order_acquire)
#define rp_fence_release(point) atomic_thread_fence(memory_order_release)
/* Orders an earlier store before a later load: the two sides of sleeping (Dekker's pattern). */
#define rp_fence_full(point) atomic_thread_fence(memory_order_seq_cst)

/* The same, right after an atomic read-modify-write of this thread. On x86 that instruction was a
 * full barrier already, so only the compiler has to be told; elsewhere C11 demands the fence. */
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define rp_fence_full_after_rmw(point) atomic_signal_fence(memory_order_seq_cst)
#else
#define rp_fence_full_after_rmw(point) atomic_thread_fence(memory_order_seq_cst)
#endif

/* For a death only: what a killed thread has done is a prefix of its instructions, so it is enough that the
 * compiler leaves these stores in this order. */
#define rp_keep_order() atomic_signal_fence(memory_order_seq_cst)

#if defined(__x86_64__)
#define rp_pause() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define rp_pause() __asm__ __volatile__("isb" ::: "memory")
#else
#define rp_pause() atomic_signal_fence(memory_order_seq_cst)
#endif

#define rp_likely(x)   __builtin_expect(!!(x), 1)
#define rp_unlikely(x) __builtin_expect(!!(x), 0)

#endif
