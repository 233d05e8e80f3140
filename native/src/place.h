/* The directory that a segment lies in, and who may use what is there.
 *
 * A directory is private (ours, closed to everybody else), or a group's (mode 2770: whoever is in its group may
 * enter, write and remove). What lies in it must be just as private: a file of ours of mode 0600, or one of mode
 * 0660 of the same group, whoever made it. Which of the two it is to be is asked for where directories are
 * made; here it is what the directory says.
 *
 * The directory is opened first, without following a link, and looked at through its descriptor; all that is
 * opened, made, linked or unlinked is then named in that directory. So nobody can put another directory in its
 * place between the look and the use.
 */
#ifndef RP_PLACE_H
#define RP_PLACE_H

#include <stdbool.h>
#include <sys/stat.h>

#include "ringpost.h"

typedef struct rp_place {
    int fd; /* O_PATH */
    bool is_group;
    gid_t group;
    const char *name; /* what is asked for in it; lies in the path it was opened for */
} rp_place;

/* The directory of `path`. RP_NOT_FOUND, RP_NOT_OURS, RP_SYSTEM. */
rp_status rp_open_place(const char *path, rp_place *out);
/* Keeps errno. */
void rp_close_place(rp_place *place);

/* Of files made here, whatever the umask. */
static inline mode_t rp_mode_in(const rp_place *place) { return place->is_group ? 0660 : 0600; }
/* May we trust a file that was found in it? Its type is the caller's business. */
bool rp_is_as_private_as(const rp_place *place, const struct stat *st);
/* Somebody removed the directory meanwhile. Keeps errno. */
bool rp_is_gone(const rp_place *place);
/* A name beside `name` that nobody guesses. */
bool rp_unguessable_name(const char *name, char *out, size_t size);
/* Give `from` its name `to`, if that is free; errno. */
int rp_rename_in(const rp_place *place, const char *from, const char *to);

#endif
