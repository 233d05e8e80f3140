/* Patterns and subjects against a matcher that is too simple to be wrong: it tries everything.
 *
 * The input: a pattern, a line feed, a subject.
 */
#include <stdlib.h>
#include <string.h>

#include "ringpost.h"

#define WORDS 24 /* the simple one takes exponential time */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct word {
    const char *at;
    size_t size;
} word;

/* -1: too many. */
static int split(const char *text, size_t size, word *words) {
    int count = 0;
    if (size == 0) return 0;
    for (size_t start = 0, end = 0; end <= size; end++) {
        if (end < size && text[end] != '.') continue;
        if (count == WORDS) return -1;
        words[count++] = (word){text + start, end - start};
        start = end + 1;
    }
    return count;
}

static bool same(word a, word b) { return a.size == b.size && memcmp(a.at, b.at, a.size) == 0; }
static bool is(word a, char what) { return a.size == 1 && *a.at == what; }

static bool fits(const word *pattern, int wanted, const word *subject, int given) {
    if (wanted == 0) return given == 0;
    if (is(*pattern, '#'))
        return fits(pattern + 1, wanted - 1, subject, given) ||
               (given && fits(pattern, wanted, subject + 1, given - 1));
    return given && (is(*pattern, '*') || same(*pattern, *subject)) &&
           fits(pattern + 1, wanted - 1, subject + 1, given - 1);
}

/* 1, 0; -1: too much for it. */
static int simply(const char *pattern, size_t pattern_len, const char *subject, size_t subject_len) {
    word wanted[WORDS], given[WORDS];
    int words = split(subject, subject_len, given), hashes = 0;
    for (size_t start = 0, end = 0; end <= pattern_len; end++) {
        if (end < pattern_len && pattern[end] != ' ') continue;
        int count = split(pattern + start, end - start, wanted);
        for (int i = 0; i < count; i++) hashes += is(wanted[i], '#');
        if (count < 0 || words < 0 || hashes > 4) return -1;
        if (fits(wanted, count, given, words)) return 1;
        start = end + 1;
    }
    return 0;
}

/* Of exactly this size, so that a sanitizer knows its end. */
static char *copy(const uint8_t *from, size_t size) {
    char *to = malloc(size);
    if (to && size) memcpy(to, from, size);
    return to;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *line = size ? memchr(data, '\n', size) : NULL;
    if (!line) return -1;
    size_t pattern_len = (size_t)(line - data), subject_len = size - pattern_len - 1;
    char *pattern = copy(data, pattern_len), *subject = copy(line + 1, subject_len);
    if (pattern && subject) {
        int expected = simply(pattern, pattern_len, subject, subject_len);
        bool got = rp_subject_matches(pattern, pattern_len, subject, subject_len);
        if (expected >= 0 && got != (expected == 1)) abort();
    }
    free(pattern);
    free(subject);
    return 0;
}
