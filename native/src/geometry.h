/* The superblock: planned once, by the creator, and examined by everybody who opens the file. */
#ifndef RP_GEOMETRY_H
#define RP_GEOMETRY_H

#include "layout.h"

/* Half of the capacity (a power of two) for the ring, the rest for the pool. RP_INVALID, RP_SYSTEM. */
rp_status rp_plan(const rp_settings *settings, rp_super *super);
/* Is this the superblock of a log of `file_size` bytes, of our layout, from after the last reboot? RP_OK only if
 * every region it names lies inside the file. RP_CORRUPT, RP_LAYOUT, RP_STALE. */
rp_status rp_validate(const rp_super *super, uint64_t file_size);
/* Of what lies behind `crc`. */
uint32_t rp_checksum(const rp_super *super);

#endif
