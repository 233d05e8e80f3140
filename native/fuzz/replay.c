/* Feeds files to a target, without libFuzzer: `build/test/replay_NAME` those in fuzz/corpus/NAME, or those it is given. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SECONDS 120 /* the watchdog, for all of them */

static void feed(const char *path) {
    FILE *file = fopen(path, "rb");
    long size = file && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    uint8_t *data = size >= 0 ? malloc((size_t)size + 1) : NULL;
    uint8_t *exact = NULL;
    if (!data || fseek(file, 0, SEEK_SET) != 0 || fread(data, 1, (size_t)size, file) != (size_t)size) {
        fprintf(stderr, "FAILED cannot read %s\n", path);
        exit(1);
    }
    fclose(file);
    exact = malloc((size_t)size);
    if (size) memcpy(exact, data, (size_t)size);
    LLVMFuzzerTestOneInput(exact, (size_t)size);
    free(exact);
    free(data);
}

static int feed_all(const char *directory) {
    DIR *inputs = opendir(directory);
    int count = 0;
    for (struct dirent *entry; inputs && (entry = readdir(inputs));) {
        char path[1024];
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        feed(path);
        count++;
    }
    if (inputs) closedir(inputs);
    return count;
}

int main(int argc, char **argv) {
    const char *name = strstr(argv[0], "replay_");
    char directory[256];
    alarm(SECONDS);
    if (LLVMFuzzerInitialize) LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++) feed(argv[i]);
    snprintf(directory, sizeof directory, "fuzz/corpus/%s", name ? name + strlen("replay_") : "");
    int count = argc > 1 ? argc - 1 : feed_all(directory);
    printf("%s %s: %d inputs\n", count ? "ok    " : "FAILED", name ? name : argv[0], count);
    return count ? 0 : 1;
}
