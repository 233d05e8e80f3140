/* heap-use-after-free */
#include "fires/outside.h"

int main(void) {
    rp_log *log = unnamed_log();
    rp_detach(log);
    return (int)log->me;
}
