/* Nothing lies beside a mapping: each one gets GUARD bytes on both sides that nobody may touch, so that a read behind
 * the end is a fault and not a look at what happens to be mapped there. Linked with -Wl,--wrap=mmap,--wrap=munmap.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#define GUARD (UINT64_C(1) << 20)
#define PAGE  4096u

void *__real_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t size);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t size);

static size_t whole_pages(size_t size) { return (size + PAGE - 1) / PAGE * PAGE; }

void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    if (at || (flags & MAP_FIXED)) return __real_mmap(at, size, protection, flags, fd, offset);
    size_t pages = whole_pages(size), all = pages + 2 * GUARD;
    uint8_t *room = __real_mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) return MAP_FAILED;
    void *got = __real_mmap(room + GUARD, size, protection, flags | MAP_FIXED, fd, offset);
    if (got == MAP_FAILED) {
        int saved = errno;
        __real_munmap(room, all);
        errno = saved;
    }
    return got;
}

int __wrap_munmap(void *at, size_t size) {
    return __real_munmap((uint8_t *)at - GUARD, whole_pages(size) + 2 * GUARD);
}

int64_t still_ns = INT64_C(1000000000000); /* see still.h */
