/* A worker in C: takes texts from one queue and sends how often each letter occurs in them, after their first word, to
 * another one.
 *
 *     count_letters QUEUE QUEUE      the files of two queues: Queue.path in Python
 *
 * Built against native/include/ringpost.h and the sources in native/src; nothing of it needs Python. A text is acked when
 * its answer is sent: whoever kills this program, the text comes again, to another one.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ringpost.h"

enum { TEXT = 1 }; /* the kind of a str's frame, see src/ringpost/codecs.py */

static void fail(const char *what, rp_status status) {
    fprintf(stderr, "cannot %s: status %d\n", what, (int)status);
    exit(1);
}

static void check(const char *what, rp_status status) {
    if (status != RP_OK) fail(what, status);
}

/* The text of a received frame; *length is its length. To be freed. */
static char *text_of(rp_log *log, const rp_frame *frame, const rp_receipt *receipt, size_t *length) {
    size_t before = frame->subject_len + frame->headers_len;
    const uint8_t *parts = (const uint8_t *)(frame + 1);
    size_t size = frame->size - sizeof *frame;
    if (frame->flags & RP_FRAME_LARGE) {
        rp_descriptor descriptor;
        memcpy(&descriptor, parts, sizeof descriptor);
        size = descriptor.length;
    }
    char *text = malloc(size + 1);
    if (!text) fail("make room for a text", RP_SYSTEM);
    if (frame->flags & RP_FRAME_LARGE)
        check("read a text", rp_read_large(log, RP_QUEUE_GROUP, receipt, frame, text, size));
    else
        memcpy(text, parts, size);
    *length = size - before;
    memmove(text, text + before, *length);
    return text;
}

static size_t count(const char *text, size_t length, char *answer, size_t size) {
    unsigned counts[26] = {0};
    const char *blank = memchr(text, ' ', length);
    int word = blank && blank - text < 32 ? (int)(blank - text) : 0;
    size_t written = (size_t)snprintf(answer, size, "%.*s ", word, text);
    for (size_t i = 0; i < length; i++)
        if (isalpha((unsigned char)text[i]) && (unsigned char)text[i] < 128)
            counts[tolower((unsigned char)text[i]) - 'a']++;
    for (int i = 0; i < 26; i++)
        if (counts[i])
            written += (size_t)snprintf(answer + written, size - written, "%c%u ", 'a' + i, counts[i]);
    return written;
}

static void work_off(rp_log *texts, rp_log *answers, const rp_frame *frame, rp_receipt *receipt) {
    char answer[32 + 26 * 16];
    size_t length;
    uint32_t lost;
    rp_status status;
    char *text = text_of(texts, frame, receipt, &length);
    rp_message message = {.kind = TEXT, .body = answer};
    message.body_len = count(text, length, answer, sizeof answer);
    free(text);
    while ((status = rp_put(answers, &message, RP_NEVER)) == RP_INTERRUPTED) {
    }
    check("send an answer", status);
    check("ack a text", rp_settle(texts, RP_QUEUE_GROUP, receipt, 1, RP_NEVER, &lost));
}

int main(int argc, char **argv) {
    static _Alignas(16) uint8_t buffer[sizeof(rp_frame) + RP_INLINE_MAX];
    rp_log *texts, *answers;
    rp_taken taken;
    rp_receipt receipt;
    if (argc != 3) return fprintf(stderr, "usage: %s QUEUE QUEUE\n", argv[0]), 2;
    check("attach to the texts", rp_attach(argv[1], &texts));
    check("attach to the answers", rp_attach(argv[2], &answers));
    for (;;) {
        rp_status status =
            rp_receive(texts, RP_QUEUE_GROUP, buffer, sizeof buffer, 1, 0, &receipt, RP_NEVER, &taken);
        if (status == RP_INTERRUPTED) continue; /* a signal, or a moment has passed */
        if (status == RP_SHUT_DOWN) break;
        check("receive a text", status);
        work_off(texts, answers, (const rp_frame *)buffer, &receipt);
    }
    rp_detach(texts);
    rp_detach(answers);
    return 0;
}
