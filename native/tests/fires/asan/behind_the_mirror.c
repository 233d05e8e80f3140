/* SEGV on unknown address */
#include "fires/outside.h"

int main(void) {
    rp_log *log = unnamed_log();
    return log->ring[2 * log->geometry.ring_size];
}
