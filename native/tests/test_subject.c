/* Patterns of subjects, as AMQP has them. */
#include <string.h>

#include "harness.h"

static bool matches(const char *pattern, const char *subject) {
    return rp_subject_matches(pattern, strlen(pattern), subject, strlen(subject));
}

static void words_are_compared_whole(void) {
    CHECK(matches("eu.dax", "eu.dax"));
    CHECK(!matches("eu.dax", "eu.da"));
    CHECK(!matches("eu.da", "eu.dax"));
    CHECK(!matches("eu", "eu.dax"));
    CHECK(!matches("eu.dax", "eu"));
    CHECK(!matches("eudax", "eu.dax"));
    CHECK(matches("", ""));
    CHECK(!matches("", "eu"));
    CHECK(!matches("eu", ""));
}

static void a_star_is_one_word(void) {
    CHECK(matches("*", "eu"));
    CHECK(!matches("*", ""));
    CHECK(!matches("*", "eu.dax"));
    CHECK(matches("*.dax", "eu.dax"));
    CHECK(matches("eu.*", "eu.dax"));
    CHECK(!matches("eu.*", "eu"));
    CHECK(matches("*.*", "eu.dax"));
    CHECK(matches("eu.*.close", "eu.dax.close"));
    CHECK(!matches("e*", "eu")); /* a whole word or none */
    CHECK(matches("*.", "eu.")); /* an empty word is a word */
}

static void a_hash_is_any_number_of_words(void) {
    CHECK(matches("#", ""));
    CHECK(matches("#", "eu"));
    CHECK(matches("#", "eu.dax.close"));
    CHECK(matches("eu.#", "eu"));
    CHECK(matches("eu.#", "eu.dax.close"));
    CHECK(!matches("eu.#", "us.dow"));
    CHECK(matches("#.close", "close"));
    CHECK(matches("#.close", "eu.close.close"));
    CHECK(!matches("#.close", "eu.close.open"));
    CHECK(matches("#.#", "eu"));
    CHECK(matches("#.*", "eu"));
    CHECK(!matches("#.*", ""));
    CHECK(matches("eu.#.close", "eu.close"));
    CHECK(matches("#.a.#.b.#", "x.a.a.y.b"));
    CHECK(!matches("#.a.#.b.#", "x.b.a.y"));
}

static uint32_t split(const char *text, const char **words, size_t *lengths) {
    uint32_t count = 0;
    while (*text) {
        words[count] = text;
        lengths[count++] = strcspn(text, ".");
        text += lengths[count - 1];
        if (*text) text++;
    }
    return count;
}

/* The definition, word by word. */
static bool by_definition(const char **p, size_t *pl, uint32_t pn, const char **s, size_t *sl, uint32_t sn) {
    if (pn == 0) return sn == 0;
    if (pl[0] == 1 && *p[0] == '#')
        return by_definition(p + 1, pl + 1, pn - 1, s, sl, sn) ||
               (sn && by_definition(p, pl, pn, s + 1, sl + 1, sn - 1));
    if (sn == 0) return false;
    bool same = (pl[0] == 1 && *p[0] == '*') || (pl[0] == sl[0] && memcmp(p[0], s[0], pl[0]) == 0);
    return same && by_definition(p + 1, pl + 1, pn - 1, s + 1, sl + 1, sn - 1);
}

static void make_words(char *out, const char *alphabet, unsigned *seed) {
    uint32_t count = (uint32_t)(rand_r(seed) % 6);
    for (uint32_t i = 0; i < count; i++) {
        if (i) *out++ = '.';
        *out++ = alphabet[(size_t)rand_r(seed) % strlen(alphabet)];
    }
    *out = 0;
}

static void every_pattern_means_what_it_is_defined_to(void) {
    unsigned seed = 1;
    for (int i = 0; i < ROUNDS(200000); i++) {
        char pattern[16], subject[16];
        const char *p[8], *s[8];
        size_t pl[8], sl[8];
        make_words(pattern, "ab*#", &seed);
        make_words(subject, "ab", &seed);
        uint32_t pn = split(pattern, p, pl), sn = split(subject, s, sl);
        if (matches(pattern, subject) != by_definition(p, pl, pn, s, sl, sn))
            FAIL("pattern '%s', subject '%s'", pattern, subject);
    }
}

RUN_TESTS(TEST(words_are_compared_whole), TEST(a_star_is_one_word), TEST(a_hash_is_any_number_of_words),
          TEST(every_pattern_means_what_it_is_defined_to))
