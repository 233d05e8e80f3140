/* A file system without O_TMPFILE; and $NO_TMPFILE_THEN happens when a segment is to get its name for the first time:
 * "kill", or "unlink" (somebody takes its file away). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

typedef int open_function(int directory, const char *path, int flags, ...);
typedef int rename_function(int from_directory, const char *from, int to_directory, const char *to,
                            unsigned flags);

int openat(int directory, const char *path, int flags, ...) {
    open_function *real = (open_function *)dlsym(RTLD_NEXT, "openat");
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if ((flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return real(directory, path, flags, mode);
}

int renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned flags) {
    static int calls;
    rename_function *real = (rename_function *)dlsym(RTLD_NEXT, "renameat2");
    const char *then = getenv("NO_TMPFILE_THEN");
    if (then && calls++ == 0) {
        if (strcmp(then, "kill") == 0) raise(SIGKILL);
        unlinkat(from_directory, from, 0);
    }
    return real(from_directory, from, to_directory, to, flags);
}
