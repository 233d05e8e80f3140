/* shift exponent 64 is too large */
#include <stdint.h>

int main(void) {
    unsigned volatile bits = 64;
    return (int)(UINT64_C(1) << bits);
}
