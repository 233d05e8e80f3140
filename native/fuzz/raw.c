/* Any bytes as the file, the rest of 1 MiB, or of a quarter of that, zero. With an even first byte (which is not part of
 * the file) what nobody hits by chance is made right: the superblock's magic number, versions, boot and checksum.
 */
#include "geometry.h"
#include "operations.h"
#include "scenes.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[128];

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    make_scenes();
    snprintf(path, sizeof path, "%s/raw", scene_directory);
    return 0;
}

static void make_right(rp_super *super, uint64_t size) {
    const rp_super *good = (const rp_super *)scenes[0].good;
    super->magic = good->magic;
    super->layout = good->layout;
    super->abi = good->abi;
    memcpy(super->boot_id, good->boot_id, sizeof super->boot_id);
    super->file_size = size;
    super->crc = rp_checksum(super);
}

static void write_file(const uint8_t *data, size_t size, uint64_t whole, bool right) {
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    MUST(fd >= 0 && write(fd, data, size) == (ssize_t)size && ftruncate(fd, (off_t)whole) == 0);
    if (right && size >= sizeof(rp_super)) {
        rp_super super;
        memcpy(&super, data, sizeof super);
        make_right(&super, whole);
        MUST(pwrite(fd, &super, sizeof super, 0) == sizeof super);
    }
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    rp_log *log;
    session my;
    if (size == 0 || size > 1 << 18) return -1;
    write_file(data + 1, size - 1, data[0] & 2 ? 1 << 20 : 1 << 18, !(data[0] & 1));
    if (rp_attach(path, &log) == RP_OK) {
        start_session(&my, log, 100000);
        for (size_t i = 0; i < OPERATIONS; i++) operations[i].run(&my, (uint8_t)(i * 37 + size));
        end_session(&my);
        rp_detach(log);
    }
    rp_collect(path);
    rp_remove(path);
    return 0;
}
