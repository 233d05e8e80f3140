#include "subject.h"

#include <string.h>

#include "frames.h"

typedef struct words {
    const char *at, *end; /* at > end: behind the last word */
} words;

static words words_of(const char *text, size_t length) {
    /* an empty subject has no word */
    return (words){.at = length ? text : text + 1, .end = text + length};
}

static size_t word_length(const words *rest) {
    const char *dot = memchr(rest->at, '.', (size_t)(rest->end - rest->at));
    return (size_t)((dot ? dot : rest->end) - rest->at);
}

static bool is_over(const words *rest) { return rest->at > rest->end; }

static void next_word(words *rest) { rest->at += word_length(rest) + 1; }

static bool is_word(const words *rest, char what) { return word_length(rest) == 1 && *rest->at == what; }

static bool same_word(const words *a, const words *b) {
    size_t length = word_length(a);
    return length == word_length(b) && memcmp(a->at, b->at, length) == 0;
}

/* Each `#` takes no word at first; where the rest does not match, the last `#` takes one more. */
static bool matches_one(const char *pattern, size_t pattern_len, const char *subject, size_t subject_len) {
    words wanted = words_of(pattern, pattern_len), given = words_of(subject, subject_len);
    words behind_hash = wanted, taken_by_hash = given;
    bool seen_hash = false;
    while (!is_over(&given)) {
        if (!is_over(&wanted) && is_word(&wanted, '#')) {
            next_word(&wanted);
            behind_hash = wanted;
            taken_by_hash = given;
            seen_hash = true;
        } else if (!is_over(&wanted) && (is_word(&wanted, '*') || same_word(&wanted, &given))) {
            next_word(&wanted);
            next_word(&given);
        } else if (seen_hash) {
            next_word(&taken_by_hash);
            given = taken_by_hash;
            wanted = behind_hash;
        } else {
            return false;
        }
    }
    while (!is_over(&wanted) && is_word(&wanted, '#')) next_word(&wanted);
    return is_over(&wanted);
}

bool rp_subject_matches(const char *pattern, size_t pattern_len, const char *subject, size_t subject_len) {
    for (;;) {
        const char *blank = memchr(pattern, ' ', pattern_len);
        size_t length = blank ? (size_t)(blank - pattern) : pattern_len;
        if (matches_one(pattern, length, subject, subject_len)) return true;
        if (!blank) return false;
        pattern = blank + 1;
        pattern_len -= length + 1;
    }
}

bool rp_frame_matches(const rp_log *log, uint64_t position, uint64_t span, const char *pattern,
                      size_t pattern_len) {
    if (pattern_len == 0) return true;
    const rp_frame *frame = rp_frame_at(log, position);
    size_t length = rp_read_once(frame->subject_len);
    if (!(rp_read_once(frame->flags) & RP_FRAME_LARGE)) {
        if (length > span - sizeof *frame) return false;
        return rp_subject_matches(pattern, pattern_len, (const char *)(frame + 1), length);
    }
    if (!log->pool) return true; /* in a view: its caller will see */
    rp_frame header;
    rp_descriptor descriptor;
    if (rp_read_descriptor(log, position, &header, &descriptor) != RP_OK) return false;
    const char *payload = (const char *)log->pool + (uint64_t)descriptor.first * RP_GRANULE;
    return rp_subject_matches(pattern, pattern_len, payload, header.subject_len);
}
