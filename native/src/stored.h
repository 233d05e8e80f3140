/* Stored logs: those of which storage keeps what the ring can not.
 *
 * The ring is the newest part of the log. Whoever writes to storage holds the commit lock of the broker's door (any
 * log that all its processes attach to), and does, for each log:
 *
 *   W1  look at the groups, to be stored with the frames (rp_group_export)
 *   W2  t = tail                                                                     SYNC commit
 *   W3  n = the least `acked` of all stored groups, now (rp_needed) and in W1: what lies below is of no use
 *   W4  copy the frames from max(durable, min(n, t)) to t out of the ring (rp_stored_range), write, sync
 *   W5  durable = t (rp_set_durable): from here on producers may overwrite them      SYNC release
 *   W6  unlock, wake everybody who waits for this
 *
 * W1 before W2: no group that is stored stands behind the frames that are. W3 after W2: a group that is opened
 * after W3 starts at `tail` (at t or behind it), or at the least `acked` (at n or behind it). And of both, W1's and W3's: a
 * group as it is stored finds its frames after a reboot, though it acked more before W3. A death in W1..W4
 * leaves the ring as it was; storage says by itself what of the transaction is there. In W5, W6: whoever is next finds
 * that storage has more than `durable` says, and goes on from there; who sleeps wakes at the end of a slice.
 *
 * A stored group does not hold producers back: it copies first, and then looks, as a cursor does, whether `oldest` has
 * passed the frame (SYNC lap). If it has, or had before, the caller gets RP_COLD and where to read; it comes again with
 * those frames out of storage, an rp_range, and the same code takes them from there: a view is a log whose ring is
 * that range. The group's lock is held while frames are taken from a view, and `read` decides as ever who gets them.
 *
 * What a stored group stands at may be gone, and its sequence with it: so it is kept in `marks`. Before `read` moves,
 * the mark that is not `read`'s gets the new pair. So whenever anybody dies, one of the two has `read`.  SYNC mark
 */
#ifndef RP_STORED_H
#define RP_STORED_H

#include "group.h"

typedef struct rp_view {
    rp_log log; /* only for looking at frames: rp_frame_at() and what is made of it */
    uint64_t position, end;
} rp_view;

/* Frames out of storage, as if they lay in the ring. */
void rp_view_of(const rp_log *log, const rp_range *frames, rp_view *out);

static inline bool rp_is_in_view(const rp_view *view, uint64_t position) {
    return view && position >= view->position && position < view->end;
}

/* Can it be a frame's? Positions are what others stored, and nothing lies behind a view. */
static inline bool rp_is_sane_in_view(const rp_view *view, uint64_t position) {
    return (position | view->position | view->end) % RP_ALIGN == 0 &&
           view->end - position >= sizeof(rp_frame);
}

/* Has the ring lost this frame? Asked after it was copied, and before anything in the copy is believed. */
static inline bool rp_is_cold(const rp_log *log, uint64_t position) {
    if (!rp_is_stored(log)) return false;
    rp_fence_acquire(lap);
    return rp_load_relaxed(&log->head->oldest) > position;
}

static inline bool rp_is_stored_group(const rp_group *group) {
    return rp_load_relaxed(&group->state) == RP_GROUP_STORED;
}

/* The group is locked, and its `read` is about to become `position`. */
static inline void rp_mark_next(rp_group *group, uint64_t position, uint64_t sequence) {
    uint64_t read = rp_load_relaxed(&group->read);
    if (position == read) return;
    rp_mark *mark = &group->marks[rp_load_relaxed(&group->marks[0].position) == read];
    rp_fence_release(mark); /* after the last move of `read` */
    rp_store_relaxed(&mark->sequence, sequence);
    rp_keep_order();
    rp_store_relaxed(&mark->position, position);
    rp_keep_order();
}

/* `read` and its sequence, without the lock. False: nonsense lies there. */
bool rp_glance_at_mark(const rp_group *group, uint64_t *read, uint64_t *sequence);

#endif
