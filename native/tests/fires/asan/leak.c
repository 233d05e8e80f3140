/* LeakSanitizer: detected memory leaks */
#include <stdlib.h>

int main(void) {
    char *volatile bytes = malloc(16);
    bytes = NULL;
    return bytes != NULL;
}
