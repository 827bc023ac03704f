/* smtp_compose.c - what goes out next: commands as far as the mode and the replies so far allow, content in chunks
 * with the final dot in the last, and behind it the next mail's envelope. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "smtp_transaction_int.h"

static void compose(struct smtp_transaction *tx, const char *bytes, size_t len)
{
    assert(len <= sizeof(tx->out) - tx->out_len);
    memcpy(tx->out + tx->out_len, bytes, len);
    tx->out_len += len;
    tx->composed += len;
}

static void ask(struct smtp_transaction *tx, enum ask what, struct in_flight *mail)
{
    struct pending_ask *entry = &tx->asks[(tx->ask_first + tx->ask_count) % ASKS_MAX];

    assert(tx->ask_count < ASKS_MAX);
    *entry = (struct pending_ask){what, mail, tx->composed};
    tx->ask_count++;
}

static void compose_ask(struct smtp_transaction *tx, enum ask what, struct in_flight *mail)
{
    char line[PATH_MAX_OCTETS + 64];
    int len = 0;

    switch (what) {
    case ASK_MAIL:
        len = snprintf(line, sizeof(line), "MAIL FROM:<%s>", mail->mail.reverse_path);
        if (tx->offer.size)
            len += snprintf(line + len, sizeof(line) - (size_t)len, " SIZE=%zu", mail->bytes);
        len += snprintf(line + len, sizeof(line) - (size_t)len, "\r\n");
        break;
    case ASK_RCPT:
        len = snprintf(line, sizeof(line), "RCPT TO:<%s>\r\n", mail->mail.recipient);
        break;
    case ASK_DATA:
        len = snprintf(line, sizeof(line), "DATA\r\n");
        break;
    case ASK_FINAL:
    case ASK_EMPTY_DOT:
        len = snprintf(line, sizeof(line), ".\r\n");
        break;
    case ASK_RSET:
        len = snprintf(line, sizeof(line), "RSET\r\n");
        break;
    case ASK_NOOP:
        len = snprintf(line, sizeof(line), "NOOP\r\n");
        break;
    case ASK_QUIT:
        len = snprintf(line, sizeof(line), "QUIT\r\n");
        break;
    case ASK_COUNT:
        break;
    }
    assert(len > 0 && (size_t)len < sizeof(line));
    compose(tx, line, (size_t)len);
    ask(tx, what, mail);
}

/* @return true when the content is whole and its dot behind it */
static bool compose_content(struct smtp_transaction *tx)
{
    struct in_flight *mail = tx->body;
    size_t n;

    if (tx->out_len < CHUNK_BYTES) {
        n = smtp_content_copy(&tx->content, tx->out + tx->out_len, CHUNK_BYTES - tx->out_len);
        tx->out_len += n;
        tx->composed += n;
    }
    if (!smtp_content_at_end(&tx->content))
        return false;
    /* The content ends in CRLF, so this makes CRLF . CRLF, in the same write. */
    compose_ask(tx, ASK_FINAL, mail);
    mail->dot_at = tx->composed;
    smtp_mail_step(mail, ME_DOT);
    tx->body = NULL;
    return true;
}

static bool data_is_asked(const struct smtp_transaction *tx)
{
    for (size_t i = 0; i < tx->ask_count; i++)
        if (tx->asks[(tx->ask_first + i) % ASKS_MAX].what == ASK_DATA)
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
    for (size_t i = 0; i < SMTP_IN_FLIGHT_MAX; i++) {
        struct in_flight *mail = &tx->flight[i];

        if (mail->state == MS_QUEUED || (mail->state == MS_ENVELOPE && mail->asked < 3))
            return mail;
    }
    return NULL;
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
        tx->owes_rset = false;
        return true;
    }
    mail = next_to_ask(tx);
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
    if (tx->out_off == tx->out_len && tx->end == SMTP_OPEN) {
        tx->out_off = tx->out_len = 0;
        while (compose_next(tx))
            ;
    }
    *ret_data = tx->out + tx->out_off;
    return tx->out_len - tx->out_off;
}
