/* A relay that says anything, in pieces of any size, to a transaction with mails in flight: bytes from the corpus are the
 * replies; the first one chooses the mode. Every mail must get exactly one result, and none is accepted before its last octet is out. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "smtp_transaction.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fail_if(int condition)
{
    if (condition)
        abort();
}

/* Mails whose end is in these bytes: a dot, or with BDAT the content itself. */
static uint64_t count_ends(const char *out, size_t len, int chunking)
{
    const char *end = chunking ? "\r\n\r\n.a\r\n" : "\r\n.\r\n";
    size_t n = strlen(end);
    uint64_t count = 0;

    for (const char *at; len > 0 && (at = memmem(out, len, end, n)); out = at + n, count++)
        len -= (size_t)(at + n - out);
    return count;
}

static size_t drain(struct smtp_transaction *tx, uint64_t *dots)
{
    struct attempt_result result;
    size_t count = 0;
    void *user;

    while (smtp_transaction_result(tx, &user, &result)) {
        count++;
        if (result.kind == ATTEMPT_ACCEPTED)
            fail_if((*dots)-- == 0);
        fail_if(memchr(result.reply.text, '\0', sizeof(result.reply.text)) == NULL);
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct slice slice = {"Subject: x\r\n\r\n.a\r\n", 18};
    const struct smtp_mail mail = {"a@example.com", "b@example.net", &slice, 1, NULL};
    struct smtp_offer offer = {.pipelining = size > 0 && (data[0] & 1), .size = size > 0 && (data[0] & 2),
                               .chunking = size > 0 && (data[0] & 128), .window = 4};
    struct smtp_buffers *buffers = smtp_buffers_new();
    struct smtp_transaction *tx = buffers ? smtp_transaction_new(&offer, buffers) : NULL;
    size_t piece = size > 0 ? 1u + (data[0] >> 2 & 31) : 1, begun = 0, ended = 0;
    uint64_t dots = 0;

    if (!tx) {
        smtp_buffers_free(buffers);
        return 0;
    }
    for (size_t at = 1; at < size;) {
        size_t n = piece < size - at ? piece : size - at, len;
        struct attempt_result result;
        const char *out;

        while (smtp_transaction_room(tx) && begun - ended < smtp_transaction_slots(tx))
            begun += (size_t)smtp_transaction_start(tx, &mail, at, &result);
        len = smtp_transaction_out(tx, &out);
        dots += count_ends(out, len, offer.pipelining && offer.chunking);
        smtp_transaction_wrote(tx, len, at);
        smtp_transaction_in(tx, (const char *)data + at, n, at);
        ended += drain(tx, &dots);
        at += n;
    }
    smtp_transaction_fail(tx, SMTP_END_LOST);
    ended += drain(tx, &dots);
    fail_if(begun != ended);
    smtp_transaction_free(tx);
    smtp_buffers_free(buffers);
    return 0;
}
