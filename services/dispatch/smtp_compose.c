/* smtp_compose.c - what goes out next: commands as far as the mode and the replies so far allow, content in chunks
 * with the final dot in the last, and behind it the next mail's envelope. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "smtp_transaction_int.h"

#define BUFFERS_KEPT 16 /* more than this are in use only while sockets are full */

struct smtp_buffers {
    char *kept[BUFFERS_KEPT];
    size_t count;
};

struct smtp_buffers *smtp_buffers_new(void)
{
    return calloc(1, sizeof(struct smtp_buffers));
}

void smtp_buffers_free(struct smtp_buffers *buffers)
{
    if (!buffers)
        return;
    while (buffers->count > 0)
        free(buffers->kept[--buffers->count]);
    free(buffers);
}

static bool out_get(struct smtp_transaction *tx)
{
    struct smtp_buffers *buffers = tx->buffers;

    if (!tx->out)
        tx->out = buffers->count > 0 ? buffers->kept[--buffers->count] : malloc(OUT_BYTES);
    return tx->out != NULL;
}

void smtp_out_drop(struct smtp_transaction *tx)
{
    struct smtp_buffers *buffers = tx->buffers;

    tx->out_off = tx->out_len = 0;
    if (tx->out && buffers->count < BUFFERS_KEPT)
        buffers->kept[buffers->count++] = tx->out;
    else
        free(tx->out);
    tx->out = NULL;
}

static void compose(struct smtp_transaction *tx, const char *bytes, size_t len)
{
    assert(len <= OUT_BYTES - tx->out_len);
    memcpy(tx->out + tx->out_len, bytes, len);
    tx->out_len += len;
    tx->composed += len;
}

/* By hand: four commands a mail, and printf would cost more than the rest of the dialogue. */
static void compose_text(struct smtp_transaction *tx, const char *text)
{
    compose(tx, text, strlen(text));
}

static void compose_number(struct smtp_transaction *tx, size_t number)
{
    char digits[20];
    size_t at = sizeof(digits);

    do
        digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    compose(tx, digits + at, sizeof(digits) - at);
}

static void ask(struct smtp_transaction *tx, enum ask what, struct in_flight *mail)
{
    struct pending_ask *entry = &tx->asks[(tx->ask_first + tx->ask_count) % tx->ask_max];

    assert(tx->ask_count < tx->ask_max);
    *entry = (struct pending_ask){what, mail, tx->composed};
    tx->ask_count++;
}

static void compose_ask(struct smtp_transaction *tx, enum ask what, struct in_flight *mail)
{
    switch (what) {
    case ASK_MAIL:
        compose_text(tx, "MAIL FROM:<");
        compose_text(tx, mail->mail.reverse_path);
        if (tx->offer.size) {
            compose_text(tx, "> SIZE=");
            compose_number(tx, mail->bytes);
            compose_text(tx, "\r\n");
        } else {
            compose_text(tx, ">\r\n");
        }
        break;
    case ASK_RCPT:
        compose_text(tx, "RCPT TO:<");
        compose_text(tx, mail->mail.recipient);
        compose_text(tx, ">\r\n");
        break;
    case ASK_DATA:
        compose_text(tx, "DATA\r\n");
        break;
    case ASK_FINAL:
    case ASK_EMPTY_DOT:
        compose_text(tx, ".\r\n");
        break;
    case ASK_RSET:
        compose_text(tx, "RSET\r\n");
        break;
    case ASK_NOOP:
        compose_text(tx, "NOOP\r\n");
        break;
    case ASK_QUIT:
        compose_text(tx, "QUIT\r\n");
        break;
    case ASK_COUNT:
        break;
    }
    ask(tx, what, mail);
}

/* The content is whole, up to here. */
static void content_ends(struct smtp_transaction *tx)
{
    tx->body->dot_at = tx->composed;
    smtp_mail_step(tx->body, ME_LAST);
    tx->body = NULL;
}

/* @return true when the content is whole and what ends it has been composed */
static bool compose_content(struct smtp_transaction *tx)
{
    struct in_flight *mail = tx->body;
    size_t most = smtp_chunked(tx) ? OUT_BYTES : CHUNK_BYTES;
    size_t n;

    if (tx->out_len < most) {
        n = smtp_content_copy(&tx->content, tx->out + tx->out_len, most - tx->out_len);
        tx->out_len += n;
        tx->composed += n;
    }
    if (!smtp_content_at_end(&tx->content))
        return false;
    if (smtp_chunked(tx))
        ask(tx, ASK_FINAL, mail); /* the relay counts: nothing marks the end */
    else                          /* the content ends in CRLF, so this makes CRLF . CRLF, in the same write */
        compose_ask(tx, ASK_FINAL, mail);
    content_ends(tx);
    return true;
}

static bool data_is_asked(const struct smtp_transaction *tx)
{
    for (size_t i = 0; i < tx->ask_count; i++)
        if (tx->asks[(tx->ask_first + i) % tx->ask_max].what == ASK_DATA)
            return true;
    return false;
}

/* DATA is the last of a group: what may follow hangs on its reply. In lock step everything is. */
static bool may_command(const struct smtp_transaction *tx)
{
    return tx->offer.pipelining ? !data_is_asked(tx) : tx->ask_count == 0;
}

static struct in_flight *next_to_ask(struct smtp_transaction *tx)
{
    struct in_flight *mail = smtp_oldest(tx, 1u << MS_QUEUED | 1u << MS_ENVELOPE);

    return mail && mail->asked < 3 ? mail : NULL;
}

#define BDAT_BYTES 40 /* the command is shorter */

static void compose_bdat(struct smtp_transaction *tx, struct in_flight *mail)
{
    compose_text(tx, "BDAT ");
    compose_number(tx, mail->bytes);
    compose_text(tx, " LAST\r\n");
    smtp_mail_step(mail, ME_GO);
    if (mail->phase == PHASE_DATA)
        mail->phase = PHASE_BODY;
    mail->asked++;
    tx->body = mail;
    /* RFC 3030 s.2: no dots doubled. */
    smtp_content_begin(&tx->content, mail->mail.slices, mail->mail.slice_count, 0);
}

static size_t out_left(const struct smtp_transaction *tx)
{
    return OUT_BYTES - tx->out_len;
}

/* MAIL, RCPT and BDAT of one mail, in one go or as far as it may. What is refused while its content is still to be
 * composed would leave us with a promise of octets and without the mail: so content either fits in what goes out
 * now, whole, or begins when its recipient is accepted. @return false when nothing may be composed now */
static bool compose_chunked(struct smtp_transaction *tx, struct in_flight *mail)
{
    bool holds = mail->bytes > CHUNK_BYTES || !tx->awake;

    if (mail->state == MS_QUEUED) {
        if (out_left(tx) < ENVELOPE_BYTES + (holds ? 0 : mail->bytes))
            return false; /* when this has been written */
        mail->holds = holds;
        if (tx->in_doubt)
            compose_ask(tx, ASK_RSET, NULL);
        tx->in_doubt = true;
        smtp_mail_step(mail, ME_ASK);
        compose_ask(tx, ASK_MAIL, mail);
        compose_ask(tx, ASK_RCPT, mail);
        mail->asked = 2;
    }
    if (mail->holds && mail->phase != PHASE_DATA)
        return false;
    if (out_left(tx) < BDAT_BYTES + (mail->bytes > CHUNK_BYTES ? 0 : mail->bytes))
        return false;
    compose_bdat(tx, mail);
    return true; /* the content comes next */
}

/* Compose one thing. @return false when nothing may be composed now */
static bool compose_next(struct smtp_transaction *tx)
{
    struct in_flight *mail;

    if (tx->owes_dot) {
        compose_ask(tx, ASK_EMPTY_DOT, NULL);
        tx->owes_dot = false;
        return true;
    }
    if (tx->body)
        return compose_content(tx);
    if (!may_command(tx))
        return false;
    if (tx->owes_rset) {
        compose_ask(tx, ASK_RSET, NULL);
        tx->owes_rset = tx->in_doubt = false;
        return true;
    }
    mail = next_to_ask(tx);
    if (mail && smtp_chunked(tx))
        return compose_chunked(tx, mail);
    if (mail) {
        static const enum ask order[] = {ASK_MAIL, ASK_RCPT, ASK_DATA};

        smtp_mail_step(mail, ME_ASK);
        compose_ask(tx, order[mail->asked++], mail);
        return true;
    }
    if (tx->ask_count > 0 || smtp_transaction_busy(tx))
        return false;
    if (tx->wants_noop) {
        tx->wants_noop = false;
        compose_ask(tx, ASK_NOOP, NULL);
        return true;
    }
    if (tx->wants_quit && !tx->quit_asked) {
        tx->quit_asked = true;
        compose_ask(tx, ASK_QUIT, NULL);
        return true;
    }
    return false;
}

size_t smtp_transaction_out(struct smtp_transaction *tx, const char **ret_data)
{
    if (tx->out_off == tx->out_len && tx->end == SMTP_OPEN && !tx->closing) {
        tx->out_off = tx->out_len = 0;
        while (out_get(tx) && compose_next(tx))
            ;
        if (tx->out_len == 0)
            smtp_out_drop(tx);
    }
    *ret_data = tx->out ? tx->out + tx->out_off : NULL;
    return tx->out_len - tx->out_off;
}
