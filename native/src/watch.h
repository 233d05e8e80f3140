/* Watching: a descriptor that is readable while a try may succeed, for event loops.
 *
 * Beside the segment lies a FIFO, made by the first who watches: SEGMENT.IIIIIIII.fifo, with the first bytes of the
 * log's id, so that a log made anew under one path finds nothing of the one before. What is in it means nothing, and it
 * is never emptied: each write to it is an event (edge-triggered epoll) that every watcher notices for itself. So
 * watchers need neither a table of who they are nor one another: one write reaches all of them, and nobody can
 * take a wake-up away from another.
 *
 *   watcher                                          waker (after the store that matters)
 *     W1 its own epoll has the FIFO, EPOLLET           look at `armed`, as ever (wait.h)            SYNC arm
 *     try: nothing there                               not set? done: no system call, no further line
 *     W2 clear its latch: epoll_wait, no time          F1 clear the bit in `armed`
 *     W3 watched |= bit; armed |= bit; full fence      F2 clear the bit in `watched`; was it set?
 *     W4 try again: still nothing                      F3 open the FIFO, write one byte, close
 *     sleep until the epoll descriptor is readable
 *
 * `watched` says which of the bits in `armed` is (also) a watcher's; who sleeps on a futex costs no write. It is set before
 * `armed` (a release), and cleared after it (an acquire), so whoever clears a watcher's `armed` sees its `watched`.
 *
 * None is missed. Suppose a watcher sleeps after W4, its latch clear, though a store came that W4 did not see. By the two
 * full fences its waker saw `armed` set. If the bit is clear, the last to clear it did so after W3 (else W3 set it again),
 * found `watched` set, and writes after W2: the latch is set by that write. If it still is set, the waker is on its
 * way to F1. Other watchers change nothing in this: they set bits, and clear only latches of their own.
 *
 * A latch may be set in vain: by a write for another event of this log, or for what somebody else took. The next
 * failed try clears it. All watchers of an event wake, for any of them may be the one that has time.
 *
 * A death leaves: of a watcher in W3, bits, which cost one wake-up; of a waker before F3, watchers that were not told: they
 * look around when a slice is over (rp_watch_look(), or the timer of a timed watch), as sleepers on a futex do. A waker
 * that cannot open the FIFO (no descriptors left) is as good as dead in this. Of a watcher that makes the FIFO: an empty
 * one, found by the next. Nothing else lies outside of processes: descriptors go with them.
 *
 * The FIFO goes with the segment's name. Whoever unlinks that does so first and unlinks the FIFO then; who makes the FIFO
 * looks afterwards if the segment still has its name, and else unlinks it: one of the two sees the other.
 *
 * That a write to a pipe which is not empty wakes who polls edge-triggered is a promise of Linux: it was broken in 5.5, for
 * Android's Realm, whose processes tell one another in this way, and restored in 5.14 and its stable branches; the kernel has a
 * test for it. Between the two, watchers live by their slices.
 */
#ifndef RP_WATCH_H
#define RP_WATCH_H

#include "segment.h"

/* F3, for everybody who watches this log. */
void rp_watch_tell(rp_log *log);
/* The same where the process is not attached: of the log that lies, or lay, at `path`. */
void rp_watch_tell_at(const char *path, const uint8_t log_id[16]);
/* The segment at `path` lost its name. */
void rp_watch_remove(const char *path, const uint8_t log_id[16]);

/* F2. True: F3 is due. */
static inline bool rp_watch_disarm(rp_log *log, uint32_t event) {
    uint64_t bit = UINT64_C(1) << event % 64;
    if (rp_likely(!(rp_load_relaxed(&log->head->watched[event / 64]) & bit))) return false;
    return rp_and_acq_rel(arm, &log->head->watched[event / 64], ~bit) & bit;
}

#endif
