/* A log for programs that do not come to their end: its file has no name any more. */
#ifndef OUTSIDE_H
#define OUTSIDE_H

#include "harness.h"
#include "segment.h"

static inline rp_log *unnamed_log(void) {
    snprintf(test_directory, sizeof test_directory, "/dev/shm/ringpost-test-XXXXXX");
    CHECK(mkdtemp(test_directory));
    rp_log *log = small_log();
    CHECK(unlink(log_path()) == 0 && rmdir(test_directory) == 0);
    return log;
}

#endif
