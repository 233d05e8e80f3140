/* load of misaligned address */
#include <stdint.h>

static _Alignas(16) uint8_t bytes[32];

int main(void) {
    void *volatile frame = bytes + 1;
    return (int)*(uint64_t *)frame;
}
