/* signed integer overflow */
#include <limits.h>

int main(void) {
    int volatile most = INT_MAX;
    return most + 1;
}
