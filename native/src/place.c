#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define LONGEST    4096
#define GROUP_MODE 02770 /* new files get the directory's group */

static int open_directory(const char *path, size_t length) {
    char copy[LONGEST];
    if (length >= sizeof copy) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(copy, path, length);
    copy[length] = 0;
    return open(length ? copy : ".", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static bool may_be_used(rp_place *place) {
    struct stat st;
    if (fstat(place->fd, &st) != 0) return false;
    place->group = st.st_gid;
    place->is_group = (st.st_mode & 07777) == GROUP_MODE;
    return place->is_group || (st.st_uid == geteuid() && (st.st_mode & 077) == 0);
}

rp_status rp_open_place(const char *path, rp_place *out) {
    const char *slash = strrchr(path, '/');
    out->name = slash ? slash + 1 : path;
    out->fd = open_directory(path, slash == path ? 1 : slash ? (size_t)(slash - path) : 0);
    if (out->fd < 0) {
        if (errno == ENOENT) return RP_NOT_FOUND;
        return errno == ENOTDIR || errno == EACCES || errno == EPERM ? RP_NOT_OURS
                                                                     : RP_SYSTEM; /* ENOTDIR: a link */
    }
    if (may_be_used(out)) return RP_OK;
    rp_close_place(out);
    return RP_NOT_OURS;
}

void rp_close_place(rp_place *place) {
    int saved = errno;
    close(place->fd);
    errno = saved;
}

bool rp_is_as_private_as(const rp_place *place, const struct stat *st) {
    if (st->st_nlink > 1)
        return false; /* by another name others may come to it, or keep it when it is removed */
    if (place->is_group) return st->st_gid == place->group && (st->st_mode & 07777) == 0660;
    return st->st_uid == geteuid() && (st->st_mode & 077) == 0;
}

bool rp_is_gone(const rp_place *place) {
    struct stat st;
    int saved = errno;
    bool gone = fstat(place->fd, &st) == 0 && st.st_nlink == 0;
    errno = saved;
    return gone;
}

bool rp_unguessable_name(const char *name, char *out, size_t size) {
    uint64_t random;
    if (getrandom(&random, sizeof random, 0) != sizeof random) return false;
    return (size_t)snprintf(out, size, "%s.%016" PRIx64 ".new", name, random) < size;
}

int rp_rename_in(const rp_place *place, const char *from, const char *to) {
    return renameat2(place->fd, from, place->fd, to, RENAME_NOREPLACE);
}
