/* Somebody is stopped between two steps, and goes on when others have done what they like. The place is a question to the
 * kernel if somebody lives: fcntl() here does what the test says, and then asks.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>

#include "inside.h"
#include "messages.h"

static void (*meanwhile)(void *);
static void *with;

int fcntl(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    int result = (int)syscall(SYS_fcntl, fd, command, argument);
    void (*run)(void *) = meanwhile;
    if (command == F_OFD_GETLK && run) { /* what it was told is old now */
        meanwhile = NULL;
        run(with);
    }
    return result;
}

typedef struct reuse {
    rp_log *log;
    uint32_t old, new;
} reuse;

static void open_and_die(void *argument) {
    reuse *all = argument;
    bool made;
    CHECK_OK(
        rp_group_open(all->log, "old", &(rp_group_settings){.ends_with_us = true}, RP_NOW, &all->old, &made));
    raise(SIGKILL);
}

static void open_in_its_place(void *argument) {
    reuse *all = argument;
    bool made;
    CHECK_OK(
        rp_group_open(all->log, "new", &(rp_group_settings){.ends_with_us = true}, RP_NOW, &all->new, &made));
}

/* Who finds that a group's process is dead closes that group, and not the one that has its place since. */
static void the_group_in_a_dead_ones_place_stays(void) {
    reuse *all = shared_memory(sizeof *all);
    uint64_t number, put = 0;
    all->log = small_log();
    wait_for(start_process(open_and_die, all));
    EVENTUALLY(rp_is_dead(all->log, rp_load_relaxed(&rp_group_of(all->log, all->old)->owner)));
    while (rp_try_put_with(all->log, &(rp_message){.body = &put, .body_len = sizeof put}, NULL) == RP_OK)
        put++;
    while (try_take_number(all->log, RP_QUEUE_GROUP, &number) == RP_OK) {
    }
    with = all;
    meanwhile = open_in_its_place;
    CHECK_OK(try_put_number(all->log, put)); /* the dead one held it back */
    CHECK(!meanwhile);
    CHECK_EQ(all->new & RP_GROUP_NUMBER, all->old & RP_GROUP_NUMBER);
    CHECK_EQ(take_number(all->log, all->new), put);
}

RUN_TESTS(TEST(the_group_in_a_dead_ones_place_stays))
