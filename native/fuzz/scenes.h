/* Segments in which something has happened, as files: what mutations start from. */
#ifndef SCENES_H
#define SCENES_H

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "segment.h"

#define PAGE 4096u

typedef struct scene {
    const char *name;
    rp_settings settings;
    void (*play)(rp_log *log);
    char path[128];
    uint8_t *good; /* what the file was; private memory */
    uint8_t *file; /* mapped, shared */
    size_t size;
} scene;

#define MUST(expression)                                                                                     \
    do {                                                                                                     \
        if (!(expression)) {                                                                                 \
            fprintf(stderr, "%s:%d: not %s: %m\n", __FILE__, __LINE__, #expression);                         \
            _exit(3);                                                                                        \
        }                                                                                                    \
    } while (0)

/* ---- what happens --------------------------------------------------------------------------- */

static void put_sized(rp_log *log, const char *subject, size_t size) {
    static uint8_t body[RP_INLINE_MAX];
    rp_message message = {.subject = subject, .subject_len = strlen(subject)};
    if (size + message.subject_len <= RP_INLINE_MAX) {
        message.body = body;
        message.body_len = size;
        rp_try_put(log, &message);
        return;
    }
    rp_loan loan;
    if (rp_borrow(log, size, RP_NOW, &loan) != RP_OK) return;
    memcpy(loan.data, subject, message.subject_len);
    if (rp_commit(log, &loan, &message, RP_NOW) != RP_OK) rp_abort(log, &loan);
}

static uint32_t open_named(rp_log *log, const char *name, rp_group_settings settings) {
    uint32_t group = 0;
    bool made;
    MUST(rp_group_open(log, name, &settings, RP_NOW, &group, &made) == RP_OK);
    return group;
}

static void take_some(rp_log *log, uint32_t group, uint32_t count) {
    _Alignas(RP_ALIGN) static uint8_t buffer[1 << 17];
    rp_taken taken;
    while (count-- && rp_try_take(log, group, buffer, sizeof buffer, 1, &taken) == RP_OK) continue;
}

/* Some stay in hand, some are acked, some given back. */
static void lease_some(rp_log *log, uint32_t group) {
    _Alignas(RP_ALIGN) static uint8_t buffer[1 << 17];
    static rp_receipt receipts[64];
    rp_taken taken;
    uint32_t lost, done;
    if (rp_try_receive(log, group, buffer, sizeof buffer, 20, 0, receipts, &taken) != RP_OK) return;
    if (taken.count < 12) return;
    rp_settle(log, group, receipts, 3, RP_NOW, &lost);
    rp_give_back(log, group, receipts + 4, 2, 0, false, RP_NOW, &lost, &done);
    rp_give_back(log, group, receipts + 7, 2, INT64_C(60000000000), true, RP_NOW, &lost, &done);
    rp_extend(log, group, &receipts[10], INT64_C(60000000000), RP_NOW);
}

static void used_queue(rp_log *log) {
    for (int i = 0; i < 40; i++) {
        put_sized(log, "", (size_t)i * 37);
        if (i % 10 == 0) put_sized(log, "", 20000);
        take_some(log, 0, 1);
    }
    for (int i = 0; i < 10; i++) put_sized(log, "", (size_t)i * 100);
    put_sized(log, "", 17000);
    put_sized(log, "a.b", 40);
}

static void full_queue(rp_log *log) {
    for (int i = 0; i < 70; i++) put_sized(log, "", 3000);
    for (int i = 0; i < 70; i++) put_sized(log, "", 1);
}

static void leased_queue(rp_log *log) {
    for (int i = 0; i < 60; i++) put_sized(log, "", (size_t)i);
    put_sized(log, "", 20000);
    lease_some(log, 0);
    lease_some(log, 0);
}

static void topic(rp_log *log) {
    uint32_t some = open_named(log, "some", (rp_group_settings){.pattern = "a.# *.b", .policy = 7});
    uint32_t all = open_named(log, "all", (rp_group_settings){.from_start = true});
    open_named(log, "late", (rp_group_settings){.pattern = "never.#.ever"});
    static const char *subjects[] = {"a", "a.b", "b.c.d", "x.b", ""};
    for (int i = 0; i < 60; i++) put_sized(log, subjects[i % 5], (size_t)i * 5);
    put_sized(log, "a.large", 9000);
    put_sized(log, "a.larger", 17000);
    put_sized(log, "other", 17000);
    take_some(log, some, 4);
    take_some(log, all, 9);
    lease_some(log, some);
    lease_some(log, all);
}

static void lossy_topic(rp_log *log) {
    uint32_t some = open_named(log, "some", (rp_group_settings){.lossy = true, .pattern = "a.*"});
    uint32_t all = open_named(log, "all", (rp_group_settings){.lossy = true, .ends_with_us = true});
    put_sized(log, "a.b", 17000);
    take_some(log, all, 1);
    for (int i = 0; i < 50; i++) put_sized(log, i % 2 ? "a.b" : "c", 2000); /* laps both */
    put_sized(log, "a.b", 17000);
    take_some(log, some, 1);
}

/* Group 0 stands at a frame that the ring has lost; another one does not. */
static void stored_queue(rp_log *log) {
    for (int i = 0; i < 40; i++) put_sized(log, "", (size_t)i * 10);
    put_sized(log, "", 17000);
    take_some(log, 0, 5);
    lease_some(log, 0);
    for (int i = 0; i < 60; i++) {
        put_sized(log, "a.b", 2000);
        rp_set_durable(log, rp_tail(log));
    }
    uint32_t late = open_named(log, "late", (rp_group_settings){.pattern = "a.#"});
    for (int i = 0; i < 20; i++) put_sized(log, i % 3 ? "a.c" : "b", 50);
    lease_some(log, late);
}

static void stored_topic(rp_log *log) {
    uint32_t all = open_named(log, "all", (rp_group_settings){.from_start = true});
    for (int i = 0; i < 40; i++) put_sized(log, "s", (size_t)i * 10);
    lease_some(log, all);
}

static void levels(rp_log *log) {
    rp_add_level(log, 3);
    put_sized(log, "", 5);
    rp_set_alarm(log, 1);
    rp_task_done(log);
    rp_shut_down(log, false, RP_NOW);
}

static scene scenes[] = {
    {.name = "used", .play = used_queue},
    {.name = "full", .play = full_queue, .settings = {.max_messages = 100}},
    {.name = "leased", .play = leased_queue},
    {.name = "topic", .play = topic, .settings = {.broadcast = true, .keep_history = true, .groups = 6}},
    {.name = "lossy", .play = lossy_topic, .settings = {.broadcast = true}},
    {.name = "stored",
     .play = stored_queue,
     .settings = {.stored = true, .first_position = 4096, .first_sequence = 9}},
    {.name = "stored-topic", .play = stored_topic, .settings = {.stored = true, .broadcast = true}},
    {.name = "levels", .play = levels, .settings = {.levels = true, .auto_delete = true}},
};

#define SCENES (sizeof scenes / sizeof *scenes)

/* ---- files ---------------------------------------------------------------------------------- */

static char scene_directory[64];

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *where) {
    (void)st, (void)type, (void)where;
    return remove(path);
}

static void remove_scenes(void) { nftw(scene_directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS); }

/* The file as it was before anybody mutated it, under its name. Only pages that differ are written. */
static void restore_scene(scene *at) {
    struct stat st;
    if (at->file && stat(at->path, &st) == 0 && (size_t)st.st_size == at->size) {
        for (size_t page = 0; page < at->size; page += PAGE)
            if (memcmp(at->file + page, at->good + page, PAGE) != 0)
                memcpy(at->file + page, at->good + page, PAGE);
        return;
    }
    if (at->file) munmap(at->file, at->size);
    unlink(at->path);
    int fd = open(at->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    MUST(fd >= 0 && ftruncate(fd, (off_t)at->size) == 0);
    at->file = mmap(NULL, at->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    MUST(at->file != MAP_FAILED);
    close(fd);
    memcpy(at->file, at->good, at->size);
}

static void play_scene(scene *at) {
    rp_log *log;
    snprintf(at->path, sizeof at->path, "%s/%s", scene_directory, at->name);
    at->settings.capacity = RP_MIN_CAPACITY;
    MUST(rp_create(at->path, &at->settings, &log) == RP_OK);
    at->play(log);
    at->size = log->geometry.file_size;
    at->good = malloc(at->size);
    MUST(at->good);
    memcpy(at->good, log->file_map, at->size);
    rp_detach(log);
    unlink(at->path);
    restore_scene(at);
}

/* In $FUZZ_DIRECTORY, which is somebody else's to remove, or in a directory that goes with this process. */
static void make_scenes(void) {
    const char *given = getenv("FUZZ_DIRECTORY");
    snprintf(scene_directory, sizeof scene_directory, "%s/scenes-XXXXXX", given ? given : "/dev/shm");
    MUST(mkdtemp(scene_directory));
    atexit(remove_scenes);
    for (size_t i = 0; i < SCENES; i++) play_scene(&scenes[i]);
}

#endif
