/* Files that are not a log of this user, this machine and this layout are refused before they are mapped, and
 * noise in a mapped one never leads outside it. */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "inside.h"
#include "messages.h"

static void check_refused(rp_status why) {
    rp_log *log = NULL;
    CHECK_EQ(rp_attach(log_path(), &log), why);
    CHECK(log == NULL);
}

/* Writes `bytes` at `offset` of a good log's file, and attaches. */
static void check_patched(off_t offset, const void *bytes, size_t size, rp_status why) {
    rp_detach(small_log());
    int fd = open(log_path(), O_RDWR | O_CLOEXEC);
    CHECK(pwrite(fd, bytes, size, offset) == (ssize_t)size);
    close(fd);
    check_refused(why);
    CHECK_OK(rp_remove(log_path()));
}

static void truncated_files(void) {
    const off_t sizes[] = {0, 1, 511, 512, 4096, 65536};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        rp_detach(small_log());
        CHECK(truncate(log_path(), sizes[i]) == 0);
        check_refused(RP_CORRUPT);
        CHECK_OK(rp_remove(log_path()));
    }
    rp_log *log = small_log();
    off_t size = (off_t)log->geometry.file_size;
    rp_detach(log);
    CHECK(truncate(log_path(), size + 1) == 0);
    check_refused(RP_CORRUPT);
}

static void noise(void) {
    uint64_t random = 88172645463325252u, words[512];
    for (int round = 0; round < 50; round++) {
        for (size_t i = 0; i < COUNT(words); i++) words[i] = next_random(&random);
        check_patched(0, words, sizeof words, RP_CORRUPT);
    }
}

/* Right checksum, wrong geometry: the bounds are checked too. */
static void geometry_that_leads_outside(void) {
    const size_t fields[] = {offsetof(rp_super, ring_offset),   offsetof(rp_super, ring_size),
                             offsetof(rp_super, pool_offset),   offsetof(rp_super, pool_size),
                             offsetof(rp_super, groups_offset), offsetof(rp_super, slots_offset),
                             offsetof(rp_super, leases_offset), offsetof(rp_super, chunks_offset)};
    const uint64_t values[] = {0, 8, 4095, 65535, 1 << 30, UINT64_C(1) << 40, UINT64_MAX - 65535, UINT64_MAX};
    for (size_t f = 0; f < COUNT(fields); f++)
        for (size_t v = 0; v < COUNT(values); v++) {
            if (fields[f] == offsetof(rp_super, pool_size) && values[v] == 0) continue;
            rp_log *log = small_log();
            rp_super super = log->geometry;
            rp_detach(log);
            memcpy((uint8_t *)&super + fields[f], &values[v], sizeof values[v]);
            super.crc = rp_checksum(&super);
            CHECK_OK(rp_remove(log_path()));
            check_patched(0, &super, sizeof super, RP_CORRUPT);
        }
}

static void another_version_or_abi(void) {
    uint32_t other = rp_layout_version() + 1;
    check_patched(offsetof(rp_super, layout), &other, sizeof other, RP_LAYOUT);
    other = RP_ABI_TAG ^ (12u << 16); /* four-byte words */
    check_patched(offsetof(rp_super, abi), &other, sizeof other, RP_LAYOUT);
    check_patched(offsetof(rp_super, max_messages), &other, sizeof other, RP_CORRUPT); /* its checksum */
}

static void wrong_mode(void) {
    rp_detach(small_log());
    const mode_t modes[] = {0644, 0660, 0602, 0601};
    for (size_t i = 0; i < COUNT(modes); i++) {
        CHECK(chmod(log_path(), modes[i]) == 0);
        check_refused(RP_NOT_OURS);
        CHECK_IS(rp_remove(log_path()), RP_NOT_OURS);
        CHECK_IS(rp_collect(log_path()), RP_NOT_OURS);
    }
}

/* Whoever has another name of the file keeps it when it is removed, or can be led to it by a name of its own. */
static void another_name(void) {
    rp_detach(small_log());
    CHECK(link(log_path(), in_directory("same")) == 0);
    check_refused(RP_NOT_OURS);
    CHECK_IS(rp_remove(in_directory("same")), RP_NOT_OURS);
    CHECK(unlink(in_directory("same")) == 0);
    CHECK_OK(rp_remove(log_path()));
}

/* Private or a group's, as the directory is; never a mixture. */
static void privacy_is_that_of_the_directory(void) {
    rp_log *log;
    const mode_t directories[] = {0700, 02770}, files[] = {0600, 0660};
    for (int which = 0; which < 2; which++) {
        CHECK(chmod(test_directory, directories[which]) == 0);
        mode_t before = umask(0777);
        rp_detach(small_log());
        umask(before);
        struct stat st;
        CHECK(stat(log_path(), &st) == 0);
        CHECK_EQ(st.st_mode & 07777, files[which]);
        CHECK_OK(rp_attach(log_path(), &log));
        rp_detach(log);
        CHECK(chmod(test_directory, directories[!which]) == 0);
        check_refused(RP_NOT_OURS);
        CHECK_IS(rp_remove(log_path()), RP_NOT_OURS);
        CHECK(chmod(test_directory, directories[which]) == 0);
        CHECK_OK(rp_remove(log_path()));
    }
    const mode_t others[] = {0770, 0755, 0777, 01777, 02771, 02775, 02777, 03770};
    for (size_t i = 0; i < COUNT(others); i++) {
        CHECK(chmod(test_directory, others[i]) == 0);
        CHECK_IS(rp_create(log_path(), &(rp_settings){.capacity = RP_MIN_CAPACITY}, &log), RP_NOT_OURS);
    }
}

static void a_link_in_place_of_the_directory(void) {
    rp_log *log;
    char path[4096];
    CHECK(symlink(test_directory, in_directory("link")) == 0);
    snprintf(path, sizeof path, "%s/log", in_directory("link"));
    rp_detach(small_log());
    CHECK_IS(rp_attach(path, &log), RP_NOT_OURS);
    CHECK_IS(rp_remove(path), RP_NOT_OURS);
}

static void what_is_no_plain_file(void) {
    rp_log *log;
    rp_settings settings = {.capacity = RP_MIN_CAPACITY};
    CHECK(mkdir(log_path(), 0700) == 0);
    check_refused(RP_NOT_OURS);
    CHECK_IS(rp_create(log_path(), &settings, &log), RP_EXISTS);
    CHECK(rmdir(log_path()) == 0);

    CHECK(mkfifo(log_path(), 0600) == 0);
    check_refused(RP_NOT_OURS);
    CHECK(unlink(log_path()) == 0);

    CHECK_OK(rp_create(in_directory("real"), &settings, &log));
    CHECK(symlink(in_directory("real"), log_path()) == 0);
    check_refused(RP_NOT_OURS);
    CHECK_IS(rp_remove(log_path()), RP_NOT_OURS);
    CHECK(unlink(log_path()) == 0);

    CHECK(symlink(in_directory("nothing"), log_path()) == 0); /* a squatter's dangling link */
    check_refused(RP_NOT_OURS);
    CHECK_IS(rp_create(log_path(), &settings, &log), RP_EXISTS);
    CHECK(access(in_directory("nothing"), F_OK) != 0);
}

static void a_full_file_system(void) {
    struct statvfs fs;
    CHECK(statvfs(test_directory, &fs) == 0);
    if (fs.f_blocks == 0 || fs.f_blocks * fs.f_frsize > RP_MAX_CAPACITY / 2)
        return; /* no limit to run into */
    rp_log *log;
    CHECK_IS(rp_create(log_path(), &(rp_settings){.capacity = RP_MAX_CAPACITY}, &log), RP_NO_SPACE);
    CHECK(rmdir(test_directory) == 0 && mkdir(test_directory, 0700) == 0);
}

/* Any word may be noise: that gives an error, or nonsense, but nothing outside the mapping, and no hang. */
static void noise_in_the_words(void) {
    rp_log *log = small_log();
    rp_head *head = log->head;
    rp_group *group = log->groups;
    for (uint64_t i = 0; i < 500; i++) put_number(log, i);
    for (uint64_t i = 0; i < 200; i++) CHECK_EQ(take_number(log, 0), i);
    void *words[] = {&head->tail,
                     &head->oldest,
                     &head->limit,
                     &head->limit_sequence,
                     &head->known_tail,
                     &head->known_sequence,
                     &head->pool_next,
                     &head->done,
                     &group->read,
                     &group->acked,
                     &group->seen,
                     &log->chunks[0].word,
                     rp_frame_at(log, group->read),
                     rp_frame_at(log, group->read) + 1,
                     rp_frame_at(log, head->tail)};
    static uint8_t before[sizeof(rp_head) + sizeof(rp_group)];
    _Alignas(RP_ALIGN) static uint8_t buffer[1 << 17];
    uint64_t random = 4101842887655102017u, number;
    for (int round = 0; round < ROUNDS(4000); round++) {
        uint8_t *ring = memcpy(malloc(log->geometry.ring_size), log->ring, log->geometry.ring_size);
        rp_chunk chunk = log->chunks[0];
        memcpy(before, head, sizeof before);
        for (int i = round % 4; i >= 0; i--) {
            void *word = words[next_random(&random) % COUNT(words)];
            uint64_t value = next_random(&random) >> next_random(&random) % 64;
            if (round % 2) value &= ~UINT64_C(15);
            memcpy(word, &value, word == &head->pool_next ? 4 : 8);
        }
        rp_taken taken;
        rp_info info;
        rp_cursor cursor;
        rp_loan loan;
        rp_range range;
        try_put_number(log, 1);
        try_take_number(log, 0, &number);
        rp_try_take(log, 0, buffer, sizeof buffer, 100, &taken);
        rp_get_info(log, &info);
        rp_task_done(log);
        rp_group_range(log, 0, UINT64_MAX, sizeof buffer, &range);
        if (rp_borrow(log, 10000, RP_NOW, &loan) == RP_OK) commit_loan(log, &loan, RP_NOW);
        if (rp_cursor_open(log, true, &cursor) == RP_OK)
            rp_cursor_read(log, &cursor, buffer, sizeof buffer, 10, &taken);
        memcpy(head, before, sizeof before);
        memcpy(log->ring, ring, log->geometry.ring_size);
        log->chunks[0] = chunk;
        free(ring);
    }
    CHECK_EQ(take_number(log, 0), 200);
}

/* Bits of `armed` for events that do not exist must not be fired: what lies there are other things. */
static void noise_in_armed(void) {
    rp_log *log = create_log((rp_settings){.capacity = RP_MIN_CAPACITY, .groups = 1});
    size_t size = log->geometry.slot_count * sizeof(rp_slot);
    rp_slot *before = malloc(size);
    memcpy(before, log->slots, size);
    for (int i = 0; i < 2; i++) rp_store_relaxed(&log->head->armed[i], UINT64_MAX);
    put_number(log, 1);
    CHECK_EQ(take_number(log, 0), 1);
    CHECK(memcmp(before, log->slots, size) == 0);
    free(before);
}

RUN_TESTS(TEST(truncated_files), TEST(noise), TEST(geometry_that_leads_outside), TEST(another_version_or_abi),
          TEST(wrong_mode), TEST(another_name), TEST(privacy_is_that_of_the_directory),
          TEST(a_link_in_place_of_the_directory), TEST(what_is_no_plain_file), TEST(a_full_file_system),
          TEST(noise_in_the_words), TEST(noise_in_armed))
