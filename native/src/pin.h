/* Pins: payloads in the pool that are read, or were written, in place.
 *
 * Entries of `chunks` inside a run are nobody's, so they hold the pins of that run: each names the process that
 * holds it, and dies with it. Lending a run clears them. A pin's word has a state that no head has, and a number of
 * its own, so that nobody removes another's.
 *
 *   pin     P1  an entry of 0 becomes our pin, by CAS: a head, which never is 0, cannot be hit
 *           P2  full fence; is the run still that frame's (PUBLISHED, its position)? If not, take the pin away  SYNC pin
 *   free    F1  a glance: any pins?
 *           F2  PUBLISHED -> LOANED(us), by CAS
 *           F3  full fence; any pins? Then LOANED(us) -> PUBLISHED(us), and leave it                            SYNC pin
 *           F4  LOANED(us) -> FREE
 *
 * So either P2 sees that the run is gone, or F3 sees the pin. A death between F2 and F4 leaves a loan of the dead, which
 * is taken back as such, once nobody pins it. What is left over is freed by whoever lacks room: removing a pin only
 * wakes them.
 */
#ifndef RP_PIN_H
#define RP_PIN_H

#include "pool.h"

#define RP_CHUNK_PIN 3u /* the state of a pin's word */
#define RP_MOST_PINS 31u

static inline uint32_t rp_pins_of(uint32_t granules) {
    return granules <= 1 ? 0 : granules - 1 < RP_MOST_PINS ? granules - 1 : RP_MOST_PINS;
}

/* A run is about to be lent. */
void rp_pin_clear(rp_log *log, uint32_t first, uint32_t granules);
/* Does anybody alive pin it? */
bool rp_is_pinned(rp_log *log, uint32_t first, uint32_t granules);
/* P1, P2. RP_NO_SLOT: as many pin it already as can; RP_NOT_FOUND: it is no longer that frame's. */
rp_status rp_pin_run(rp_log *log, const rp_descriptor *descriptor, uint64_t position, rp_pin *out);
/* F1 to F4 for the run at `first`, whose head is `word`. */
void rp_free_unpinned(rp_log *log, uint32_t first, uint64_t word);

#endif
