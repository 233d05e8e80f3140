/* heap-buffer-overflow */
#include <stdlib.h>

int main(void) {
    char *volatile bytes = malloc(16);
    return bytes[16];
}
