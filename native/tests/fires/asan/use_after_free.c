/* heap-use-after-free */
#include <stdlib.h>

int main(void) {
    char *volatile bytes = malloc(16);
    free(bytes);
    return bytes[0];
}
