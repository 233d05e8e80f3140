/* SEGV on unknown address */
#include "fires/outside.h"

int main(void) {
    rp_log *log = unnamed_log();
    uint8_t *end = (uint8_t *)log->file_map + log->geometry.file_size;
    *(uint8_t *volatile)end = 1;
    return 0;
}
