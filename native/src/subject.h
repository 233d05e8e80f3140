/* Subjects and patterns, as AMQP's topic exchanges have them: words with dots between; in a pattern `*` stands for
 * exactly one word and `#` for any number of words, none too.
 */
#ifndef RP_SUBJECT_H
#define RP_SUBJECT_H

#include "log.h"

/* Does the frame at `position`, committed and not overwritten, go to a group with this pattern (empty: all)? */
bool rp_frame_matches(const rp_log *log, uint64_t position, uint64_t span, const char *pattern,
                      size_t pattern_len);

#endif
