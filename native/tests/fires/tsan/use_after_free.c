/* heap-use-after-free */
#include <pthread.h>
#include <stdlib.h>

static void *release(void *bytes) {
    free(bytes);
    return NULL;
}

int main(void) {
    pthread_t other;
    int *volatile bytes = calloc(4, sizeof *bytes);
    pthread_create(&other, NULL, release, bytes);
    pthread_join(other, NULL);
    return bytes[0];
}
