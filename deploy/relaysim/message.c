/* message.c - the text of a message as it comes, and what happens when it is whole. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bouncer.h"
#include "smtp.h"
#include "sns.h"
#include "sns_event.h"

void message_reset(struct mail *mail)
{
    mail->open = false;
    mail->chunked = false;
    mail->recipient_count = 0;
    td_buf_clear(&mail->recipients);
    td_buf_clear(&mail->return_path);
}

void message_begin(struct session *session)
{
    struct mail *mail = &session->mail;

    message_reset(mail);
    mail->open = true;
    mail->body_seen = mail->too_big = mail->head_done = mail->bounce = false;
    mail->dots.begun = false;
    mail->bytes = 0;
    mail->message_id_len = 0;
    td_buf_clear(&mail->head);
    td_buf_clear(&mail->text);
    session->delay_passed = false;
    if (session->sha)
        EVP_DigestInit_ex(session->sha, EVP_sha256(), NULL);
}

/* The header section, or as much of it as is looked at, is here. */
static void head_known(struct session *session, struct slice head, struct slice id)
{
    struct mail *mail = &session->mail;

    mail->head_done = true;
    memcpy(mail->message_id, id.len ? id.data : "-", id.len ? id.len : 1);
    mail->message_id_len = id.len ? id.len : 1;
    mail->ses_events = session->sim->sns && sns_read_head(head, &mail->ses_tags);
    mail->bounce = (session->sim->bouncer || mail->ses_events) && mail->return_path.len &&
                   bouncer_chooses(&session->sim->options, (struct slice){mail->message_id, mail->message_id_len},
                                   (struct slice){mail->recipients.data, mail->recipients.len});
    if (mail->bounce && head.data != mail->head.data) {
        td_buf_clear(&mail->head);
        td_buf_add(&mail->head, head.data, head.len < MESSAGE_HEAD_MAX ? head.len : MESSAGE_HEAD_MAX);
    }
}

static void head_text(struct session *session, struct slice piece)
{
    struct mail *mail = &session->mail;
    size_t room = MESSAGE_HEAD_MAX - mail->head.len, head = 0;
    struct slice id;

    /* The usual case: the header section comes in one piece, and nothing is copied. */
    if (!mail->head.len && message_id_find(piece, &id, &head)) {
        head_known(session, (struct slice){piece.data, head}, id);
        return;
    }
    if (td_buf_add(&mail->head, piece.data, piece.len < room ? piece.len : room) < 0)
        return;
    if (message_id_find((struct slice){mail->head.data, mail->head.len}, &id, &head)) {
        mail->head.len = head;
        head_known(session, (struct slice){mail->head.data, head}, id);
    } else if (mail->head.len == MESSAGE_HEAD_MAX) {
        head_known(session, (struct slice){mail->head.data, mail->head.len}, id);
    }
}

void message_text(struct session *session, struct slice piece)
{
    struct mail *mail = &session->mail;

    mail->bytes += piece.len;
    if (mail->bytes > session->sim->options.size)
        mail->too_big = true; /* read to its end, kept nowhere */
    if (mail->too_big || !piece.len)
        return;
    if (!mail->head_done)
        head_text(session, piece);
    if (session->sha)
        EVP_DigestUpdate(session->sha, piece.data, piece.len);
    if (session->sim->options.store_dir && td_buf_add(&mail->text, piece.data, piece.len) < 0)
        mail->too_big = true;
}

/* A message may end within its header section; then the last field is looked at as if an empty line followed. */
static void head_finish(struct session *session)
{
    struct mail *mail = &session->mail;
    struct slice id = {NULL, 0};
    size_t head = mail->head.len, len = mail->head.len;

    if (mail->head_done)
        return;
    if (len && td_buf_add(&mail->head, "\r\n", 2) == TD_OK) {
        message_id_find((struct slice){mail->head.data, mail->head.len}, &id, &head);
        mail->head.len = len;
    }
    head_known(session, (struct slice){mail->head.data, len}, id);
}

/* Whole or not at all: written under another name first. */
static int store(struct sim *sim, const struct mail *mail)
{
    char path[1100], part[1100];
    const char *dir = sim->options.store_dir;
    uint64_t number = ++sim->stored;
    size_t done = 0;
    int fd, rc = TD_EIO;

    if (snprintf(path, sizeof(path), "%s/%ld-%08" PRIu64 ".eml", dir, (long)getpid(), number) >=
            (int)sizeof(path) ||
        snprintf(part, sizeof(part), "%s/.%ld-%08" PRIu64, dir, (long)getpid(), number) >= (int)sizeof(part))
        return TD_ETOOBIG;
    fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return TD_EIO;
    while (done < mail->text.len) {
        ssize_t wrote = write(fd, mail->text.data + done, mail->text.len - done);

        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            break;
        done += (size_t)wrote;
    }
    if (close(fd) == 0 && done == mail->text.len && rename(part, path) == 0)
        rc = TD_OK;
    else
        unlink(part);
    return rc;
}

/* A line for each recipient. */
static int write_down(struct session *session, uint64_t now_ns, int code)
{
    struct sim *sim = session->sim;
    struct mail *mail = &session->mail;
    unsigned char sha256[EVP_MAX_MD_SIZE];
    struct ledger_entry entry = {.unix_us = sim_unix_us(sim, now_ns),
                                 .peer_port = session->peer_port,
                                 .message_id = {mail->message_id, mail->message_id_len},
                                 .bytes = mail->bytes,
                                 .code = code};
    const char *recipient = mail->recipients.data;

    if (session->sha && EVP_DigestFinal_ex(session->sha, sha256, NULL) == 1)
        entry.sha256 = sha256;
    for (uint32_t i = 0; i < mail->recipient_count; i++) {
        int rc;

        entry.recipient = (struct slice){recipient, strlen(recipient)};
        rc = ledger_add(&sim->ledger, &entry);
        if (rc < 0)
            return rc;
        recipient += entry.recipient.len + 1;
    }
    return TD_OK;
}

static void put_hex(char *at, uint64_t number, size_t digits)
{
    while (digits) {
        at[--digits] = "0123456789abcdef"[number & 15];
        number >>= 4;
    }
}

/* As long as SES's, and as unique: time, number, process. Of the mail that was taken last. */
static void ses_id(const struct sim *sim, uint64_t now_ns, char out[SES_ID_MAX])
{
    memcpy(out, "0000000000000000-00000000-0000-4000-8000-000000000000-000000", 61);
    put_hex(out, sim_unix_us(sim, now_ns) / 1000u, 16);
    put_hex(out + 17, sim->taken_ever, 8);
    put_hex(out + 26, sim->taken_ever >> 32, 4);
    put_hex(out + 41, (uint64_t)getpid(), 12);
}

/* From here on the mail is the relay's. code 0: the peer will not be told. */
static int take(struct session *session, uint64_t now_ns, int code)
{
    struct sim *sim = session->sim;
    struct mail *mail = &session->mail;
    char id[SES_ID_MAX];

    head_finish(session);
    if (sim->options.store_dir && store(sim, mail) < 0)
        return TD_EIO;
    if (write_down(session, now_ns, code) < 0)
        return TD_EIO;
    sim->counts.mails++;
    sim->counts.recipients += mail->recipient_count;
    sim->counts.bytes += mail->bytes;
    sim->counts.lost += code == 0;
    sim->taken_ever++;
    throttle_count(&sim->throttle, now_ns);
    if (mail->bounce && sim->bouncer)
        bouncer_add(sim->bouncer, mail, sim_unix_us(sim, now_ns) / 1000000u);
    ses_id(sim, now_ns, id);
    if (sim->sns)
        sns_add(sim->sns, mail, id, mail->bounce && !sim->bouncer, sim_unix_us(sim, now_ns) / 1000u);
    sim_check_refusing(sim);
    return TD_OK;
}

static void reply_taken(struct session *session, uint64_t now_ns)
{
    struct sim *sim = session->sim;

    if (sim->options.ses) {
        char line[SES_ID_MAX + 16] = "250 Ok ";

        ses_id(sim, now_ns, line + 7);
        memcpy(line + 67, "\r\n", 3);
        smtp_say(session, line, 69);
    } else {
        char line[] = "250 2.0.0 Ok: queued as 000000000000\r\n";

        put_hex(line + 24, sim->taken_ever, 12);
        smtp_say(session, line, sizeof(line) - 1);
    }
}

/* Refuses, and returns false, when size, rate or quota say no. */
static bool within_limits(struct session *session, uint64_t now_ns)
{
    struct mail *mail = &session->mail;

    if (mail->too_big) {
        smtp_reply(session, 552, "5.3.4", "Message is too long");
        return false;
    }
    switch (throttle_take(&session->sim->throttle, mail->recipient_count, now_ns)) {
    case THROTTLE_FIT:
        return true;
    case THROTTLE_OVER_RATE:
        smtp_reply(session, 454, "", "Throttling failure: Maximum sending rate exceeded.");
        break;
    case THROTTLE_OVER_DAY:
        smtp_reply(session, 454, "", "Throttling failure: Daily message quota exceeded.");
        break;
    }
    return false;
}

/* The code the ledger names for a mail that is taken under this fault; -1: it is not taken. */
static int code_under(const struct fault *fault)
{
    if (!fault)
        return 250;
    if (fault->act == FAULT_REPLY)
        return fault->code < 300 ? fault->code : -1;
    return fault->act == FAULT_LOSE || fault->taken ? 0 : -1;
}

bool message_final(struct session *session)
{
    struct sim *sim = session->sim;
    const struct fault *fault = NULL;
    uint64_t now_ns;
    int code;

    if (sim->options.delay_ms && !session->delay_passed) {
        session->delay_passed = true;
        session_pause(session, sim->options.delay_ms);
        return false;
    }
    now_ns = loop_clock_ns();
    if (session->fault_passed)
        session->fault_passed = false;
    else
        fault = fault_strike(&sim->faults, FAULT_AT_FINAL, now_ns, sim->taken_ever);
    if (fault && fault->act == FAULT_SLOW) {
        smtp_fault_do(session, fault, FAULT_AT_FINAL);
        return false;
    }
    code = code_under(fault);
    if (code >= 0 && !within_limits(session, now_ns))
        fault = NULL; /* refused for a reason of its own */
    else if (code >= 0 && take(session, now_ns, code) < 0)
        smtp_reply(session, 451, "4.3.0", "Temporary service failure");
    else if (fault)
        smtp_fault_do(session, fault, FAULT_AT_FINAL);
    else
        reply_taken(session, now_ns);
    message_reset(&session->mail);
    return true;
}
