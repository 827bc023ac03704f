/* smtp_transaction.c - two tables: what a reply means to what was asked, and the states of one mail.
 *
 * Everything written is a command or content with a position in the stream; the commands that expect a reply stand
 * in `asks`, in order, because replies come in order (RFC 2920 s.3.1). A reply answers the oldest ask, and only
 * when that was handed to the socket; anything else means that the two sides no longer agree on where they are:
 * the connection ends. */
#include "smtp_transaction.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "smtp_transaction_int.h"

/* So long after its last reply a relay is taken to be there still: enough for the next mails of a window whose
 * replies all came at once, and far less than any relay calls idle. */
#define AWAKE_US 50000

enum reply_kind { REPLY_2YZ, REPLY_354, REPLY_3YZ, REPLY_REFUSAL, REPLY_CLOSING, REPLY_KIND_COUNT };
enum meaning {
    MEANS_GARBAGE = 0, /* cannot belong to this: end the connection */
    MEANS_GO_ON,
    MEANS_SEND,     /* the content may come */
    MEANS_ACCEPTED, /* the relay has the mail */
    MEANS_REFUSED,  /* the relay has not got it, and the connection stays good */
    MEANS_CLOSING,  /* refused, and the relay hangs up */
    MEANS_BYE
};

/* clang-format off */
static const enum meaning meaning[ASK_COUNT][REPLY_KIND_COUNT] = {
    /*                  2yz             354            3yz  4yz 5yz        421, 4.4.2 */
    [ASK_MAIL]      = {MEANS_GO_ON,    0,             0,    MEANS_REFUSED, MEANS_CLOSING},
    [ASK_RCPT]      = {MEANS_GO_ON,    0,             0,    MEANS_REFUSED, MEANS_CLOSING},
    [ASK_DATA]      = {0,              MEANS_SEND,    0,    MEANS_REFUSED, MEANS_CLOSING},
    [ASK_FINAL]     = {MEANS_ACCEPTED, 0,             0,    MEANS_REFUSED, MEANS_CLOSING},
    [ASK_EMPTY_DOT] = {MEANS_GO_ON,    0,             0,    MEANS_GO_ON,   MEANS_CLOSING},
    [ASK_RSET]      = {MEANS_GO_ON,    0,             0,    0,             MEANS_CLOSING},
    [ASK_NOOP]      = {MEANS_GO_ON,    0,             0,    0,             MEANS_CLOSING},
    [ASK_QUIT]      = {MEANS_BYE,      MEANS_BYE, MEANS_BYE, MEANS_BYE,    MEANS_BYE},
};
/* clang-format on */

/* NONE -> QUEUED -> ENVELOPE -> BODY -> FINAL -> NONE      A cell left out is forbidden.
 *                       |         |       |
 *                       v         +--> NONE                REFUSED: its result is out, replies to the rest of
 *                    REFUSED <------------+                its envelope or to its BDAT are still to be read.
 *                       +--> NONE */
static const struct {
    bool legal;
    enum mail_state to;
} next_state[MS_COUNT][ME_COUNT] = {
    [MS_NONE] = {[ME_START] = {true, MS_QUEUED}},
    [MS_QUEUED] = {[ME_ASK] = {true, MS_ENVELOPE}, [ME_SETTLE] = {true, MS_NONE}},
    [MS_ENVELOPE] = {[ME_ASK] = {true, MS_ENVELOPE},
                     [ME_GO] = {true, MS_BODY},
                     [ME_REFUSE] = {true, MS_REFUSED},
                     [ME_SETTLE] = {true, MS_NONE}},
    [MS_BODY] = {[ME_LAST] = {true, MS_FINAL}, [ME_SETTLE] = {true, MS_NONE}},
    [MS_FINAL] = {[ME_REFUSE] = {true, MS_REFUSED}, [ME_SETTLE] = {true, MS_NONE}},
    [MS_REFUSED] = {[ME_SETTLE] = {true, MS_NONE}},
};

const char *smtp_phase_name(enum smtp_phase phase)
{
    static const char *const name[PHASE_COUNT] = {"connect", "mail", "rcpt", "data", "body", "final"};

    return (unsigned)phase < PHASE_COUNT ? name[phase] : "?";
}

const char *attempt_kind_name(enum attempt_kind kind)
{
    static const char *const name[] = {"accepted", "replied", "not_taken", "unconfirmed", "invalid"};

    return (unsigned)kind < sizeof(name) / sizeof(name[0]) ? name[kind] : "?";
}

static size_t slots_of(const struct smtp_offer *offer)
{
    if (!offer->pipelining)
        return 1;
    if (!offer->chunking)
        return SMTP_PIPELINED_MAX;
    return offer->window < 1 ? 1 : offer->window > SMTP_WINDOW_MAX ? SMTP_WINDOW_MAX : offer->window;
}

struct smtp_transaction *smtp_transaction_new(const struct smtp_offer *offer, struct smtp_buffers *buffers)
{
    struct smtp_transaction *tx = calloc(1, sizeof(*tx));

    if (!tx)
        return NULL;
    tx->offer = *offer;
    tx->buffers = buffers;
    tx->slots = slots_of(offer);
    tx->ask_max = tx->slots * ASKS_PER_MAIL + ASKS_MORE;
    tx->flight = calloc(tx->slots, sizeof(*tx->flight));
    tx->results = calloc(tx->slots, sizeof(*tx->results));
    tx->asks = calloc(tx->ask_max, sizeof(*tx->asks));
    if (!tx->flight || !tx->results || !tx->asks) {
        smtp_transaction_free(tx);
        return NULL;
    }
    smtp_reply_reader_init(&tx->reader);
    return tx;
}

void smtp_transaction_free(struct smtp_transaction *tx)
{
    if (!tx)
        return;
    smtp_out_drop(tx);
    free(tx->flight);
    free(tx->results);
    free(tx->asks);
    free(tx);
}

size_t smtp_transaction_slots(const struct smtp_transaction *tx)
{
    return tx->slots;
}

bool smtp_chunked(const struct smtp_transaction *tx)
{
    return tx->offer.pipelining && tx->offer.chunking;
}

void smtp_mail_step(struct in_flight *mail, enum mail_event event)
{
    assert(next_state[mail->state][event].legal);
    mail->state = next_state[mail->state][event].to;
}

/* ---- results ---- */

static void result_push(struct smtp_transaction *tx, struct in_flight *mail, enum attempt_kind kind,
                        enum smtp_phase phase, const struct smtp_reply *reply, uint64_t now_us)
{
    struct done_mail *done = &tx->results[(tx->result_first + tx->result_count) % tx->slots];

    assert(tx->result_count < tx->slots);
    tx->result_count++;
    done->user = mail->mail.user;
    done->result.kind = kind;
    done->result.phase = phase;
    done->result.reused = mail->reused;
    done->result.final_us = kind == ATTEMPT_ACCEPTED && now_us > mail->dot_us ? now_us - mail->dot_us : 0;
    if (reply)
        done->result.reply = *reply;
    else
        memset(&done->result.reply, 0, sizeof(done->result.reply));
}

bool smtp_transaction_result(struct smtp_transaction *tx, void **ret_user, struct attempt_result *ret)
{
    struct done_mail *done = &tx->results[tx->result_first];

    if (tx->result_count == 0)
        return false;
    *ret_user = done->user;
    *ret = done->result;
    tx->result_first = (tx->result_first + 1) % tx->slots;
    tx->result_count--;
    return true;
}

bool smtp_transaction_has_result(const struct smtp_transaction *tx)
{
    return tx->result_count > 0;
}

static bool dot_was_handed_over(const struct smtp_transaction *tx, const struct in_flight *mail)
{
    return mail->dot_at != 0 && tx->sent >= mail->dot_at;
}

struct in_flight *smtp_oldest(struct smtp_transaction *tx, unsigned states)
{
    struct in_flight *found = NULL;

    for (size_t i = 0; i < tx->slots; i++) {
        struct in_flight *mail = &tx->flight[i];

        if ((1u << mail->state & states) && (!found || mail->serial < found->serial))
            found = mail;
    }
    return found;
}

static enum smtp_phase phase_of(const struct smtp_transaction *tx, const struct in_flight *mail)
{
    if (dot_was_handed_over(tx, mail))
        return PHASE_FINAL;
    return mail->phase; /* with BDAT the content may be composed while MAIL is not answered */
}

/* The end of the connection: what is known about each mail follows from its phase alone. */
static void end_all(struct smtp_transaction *tx, enum smtp_end why)
{
    struct in_flight *mail;

    /* 421, then the end of the stream, and no reply in between: nothing behind the 421 was carried out. */
    bool proven = tx->closing && why == SMTP_END_CLOSED;

    if (tx->end != SMTP_OPEN)
        return;
    tx->end = tx->closing ? SMTP_END_421 : why;
    while ((mail = smtp_oldest(tx, ~(1u << MS_NONE)))) {
        if (mail->state != MS_REFUSED)
            result_push(tx, mail,
                        dot_was_handed_over(tx, mail) && !proven ? ATTEMPT_UNCONFIRMED : ATTEMPT_NOT_TAKEN,
                        proven ? mail->phase : phase_of(tx, mail), NULL, 0);
        smtp_mail_step(mail, ME_SETTLE);
    }
    tx->body = NULL;
    tx->ask_count = 0;
    smtp_out_drop(tx); /* nothing more goes out: above all no dot behind half a mail */
}

void smtp_transaction_fail(struct smtp_transaction *tx, enum smtp_end why)
{
    end_all(tx, why);
}

bool smtp_transaction_in_doubt(const struct smtp_transaction *tx)
{
    for (size_t i = 0; i < tx->slots; i++)
        if (tx->flight[i].state != MS_NONE && tx->flight[i].state != MS_REFUSED &&
            dot_was_handed_over(tx, &tx->flight[i]))
            return true;
    return false;
}

/* ---- starting ---- */

static bool path_fit(const char *path)
{
    size_t len = strlen(path);

    /* A CR or LF here would start a new command. td_addr_check has been here before; this wall does not lean on
     * it. */
    for (size_t i = 0; i < len; i++)
        if (path[i] < ' ' || path[i] > '~' || path[i] == '<' || path[i] == '>')
            return false;
    return len <= PATH_MAX_OCTETS;
}

bool smtp_transaction_room(const struct smtp_transaction *tx)
{
    size_t used = tx->result_count, waiting = 0, queued_bytes = 0;

    if (tx->end != SMTP_OPEN || tx->wants_quit || tx->closing)
        return false;
    for (size_t i = 0; i < tx->slots; i++) {
        const struct in_flight *mail = &tx->flight[i];

        used += mail->state != MS_NONE;
        /* A mail is tied to this connection only when it goes out with what goes out next. */
        if (mail->state == MS_QUEUED || mail->state == MS_ENVELOPE) {
            waiting++;
            queued_bytes += mail->holds && mail->phase != PHASE_DATA ? CHUNK_BYTES : mail->bytes + ENVELOPE_BYTES;
        }
    }
    if (smtp_chunked(tx) && tx->awake && !tx->body && queued_bytes < CHUNK_BYTES)
        waiting = 0;
    return waiting == 0 && used < tx->slots;
}

static int refuse_here(struct attempt_result *ret, enum attempt_kind kind, bool reused)
{
    memset(ret, 0, sizeof(*ret));
    ret->kind = kind;
    ret->phase = PHASE_MAIL;
    ret->reused = reused;
    if (kind == ATTEMPT_REPLIED) {
        ret->reply.code = 552;
        snprintf(ret->reply.enhanced, sizeof(ret->reply.enhanced), "5.3.4");
        snprintf(ret->reply.text, sizeof(ret->reply.text), "larger than the SIZE that the relay offers");
    }
    return 0;
}

int smtp_transaction_start(struct smtp_transaction *tx, const struct smtp_mail *mail, uint64_t now_us,
                           struct attempt_result *ret)
{
    struct in_flight *slot = NULL;
    bool reused = tx->mails > 0;
    size_t bytes, dots;

    assert(smtp_transaction_room(tx));
    if (!path_fit(mail->reverse_path) || !mail->recipient[0] || !path_fit(mail->recipient) ||
        !smtp_content_check(mail->slices, mail->slice_count, &bytes, &dots))
        return refuse_here(ret, ATTEMPT_INVALID, reused);
    if (tx->offer.size_max > 0 && bytes > tx->offer.size_max)
        return refuse_here(ret, ATTEMPT_REPLIED, reused);

    if (!smtp_transaction_busy(tx))
        tx->awake = tx->heard_us != 0 && now_us < tx->heard_us + AWAKE_US;
    for (size_t i = 0; i < tx->slots && !slot; i++)
        if (tx->flight[i].state == MS_NONE)
            slot = &tx->flight[i];
    assert(slot);
    *slot = (struct in_flight){.phase = PHASE_MAIL, .mail = *mail, .bytes = bytes, .dots = dots, .reused = reused};
    slot->serial = tx->mails++;
    smtp_mail_step(slot, ME_START);
    return 1;
}

void smtp_transaction_noop(struct smtp_transaction *tx)
{
    tx->wants_noop = true;
}

void smtp_transaction_quit(struct smtp_transaction *tx)
{
    tx->wants_quit = true;
}

void smtp_transaction_wrote(struct smtp_transaction *tx, size_t n, uint64_t now_us)
{
    assert(n <= tx->out_len - tx->out_off);
    if (n == 0)
        return;
    tx->out_off += n;
    tx->sent += n;
    tx->progress++;
    for (size_t i = 0; i < tx->slots; i++) {
        struct in_flight *mail = &tx->flight[i];

        if (mail->state == MS_FINAL && mail->dot_us == 0 && dot_was_handed_over(tx, mail)) {
            mail->dot_us = now_us;
            mail->dot_is_news = tx->news = true;
        }
    }
}

bool smtp_transaction_sent(struct smtp_transaction *tx, void **ret_user)
{
    for (size_t i = 0; tx->news && i < tx->slots; i++) {
        struct in_flight *mail = &tx->flight[i];

        if (!mail->dot_is_news)
            continue;
        mail->dot_is_news = false;
        if (mail->state == MS_FINAL) {
            *ret_user = mail->mail.user;
            return true;
        }
    }
    tx->news = false;
    return false;
}

/* ---- replies ---- */

static enum reply_kind kind_of(const struct smtp_reply *reply)
{
    if (reply->code == 421 || (reply->code >= 400 && strcmp(reply->enhanced, "4.4.2") == 0))
        return REPLY_CLOSING; /* 4.4.2 is "bad connection": a relay that timed out says so and hangs up */
    if (reply->code >= 400)
        return REPLY_REFUSAL;
    if (reply->code == 354)
        return REPLY_354;
    return reply->code >= 300 ? REPLY_3YZ : REPLY_2YZ;
}

static bool more_to_read(const struct smtp_transaction *tx, const struct in_flight *mail)
{
    for (size_t i = 0; i < tx->ask_count; i++)
        if (tx->asks[(tx->ask_first + i) % tx->ask_max].mail == mail)
            return true;
    return false;
}

/* All replies to this mail have been read, none took it. */
static void mail_synced(struct smtp_transaction *tx, struct in_flight *mail, bool transaction_open)
{
    smtp_mail_step(mail, ME_SETTLE);
    /* What has been composed behind it began with a RSET of its own. */
    tx->owes_rset = transaction_open && tx->ask_count == 0;
}

static void reply_go_on(struct smtp_transaction *tx, struct in_flight *mail, enum ask what)
{
    if (!mail)
        return;
    if (mail->state != MS_REFUSED)
        mail->phase = what == ASK_MAIL ? PHASE_RCPT : mail->state == MS_ENVELOPE ? PHASE_DATA : PHASE_BODY;
    else if (!more_to_read(tx, mail))
        mail_synced(tx, mail, true);
}

static void reply_accepted(struct smtp_transaction *tx, struct in_flight *mail, const struct smtp_reply *reply,
                           uint64_t now_us)
{
    if (mail->state == MS_REFUSED) { /* taken by BDAT without a recipient? */
        end_all(tx, SMTP_END_GARBAGE);
        return;
    }
    result_push(tx, mail, ATTEMPT_ACCEPTED, PHASE_FINAL, reply, now_us);
    smtp_mail_step(mail, ME_SETTLE);
    if (tx->ask_count == 0)
        tx->in_doubt = false;
}

static void reply_send(struct smtp_transaction *tx, struct in_flight *mail)
{
    if (mail->state == MS_REFUSED) {
        /* RFC 2920 s.3.1: DATA was taken although no recipient was. An empty message ends it. */
        tx->owes_dot = true;
        mail_synced(tx, mail, false);
        return;
    }
    smtp_mail_step(mail, ME_GO);
    mail->phase = PHASE_BODY;
    tx->body = mail;
    smtp_content_begin(&tx->content, mail->mail.slices, mail->mail.slice_count, mail->dots);
}

static void reply_refused(struct smtp_transaction *tx, const struct pending_ask *asked,
                          const struct smtp_reply *reply)
{
    struct in_flight *mail = asked->mail;
    bool final = asked->what == ASK_FINAL;

    if (mail->state != MS_REFUSED) {
        result_push(tx, mail, ATTEMPT_REPLIED, final ? PHASE_FINAL : mail->phase, reply, 0);
        smtp_mail_step(mail, ME_REFUSE);
    }
    if (!more_to_read(tx, mail))
        mail_synced(tx, mail, !final || smtp_chunked(tx));
}

static bool any_in_doubt(const struct smtp_transaction *tx)
{
    for (size_t i = 0; i < tx->slots; i++)
        if (tx->flight[i].state == MS_FINAL && dot_was_handed_over(tx, &tx->flight[i]))
            return true;
    return false;
}

/* The relay hangs up with a reason: that is the answer to the mail it stands against, and the end for those
 * behind. Whole mails behind it (BDAT) are in doubt until the stream ends: some servers say 421 and go on. */
static void reply_closing(struct smtp_transaction *tx, struct in_flight *mail, enum smtp_phase phase,
                          const struct smtp_reply *reply, enum smtp_end why)
{
    if (mail && mail->state != MS_REFUSED) {
        result_push(tx, mail, ATTEMPT_REPLIED, phase, reply, 0);
        smtp_mail_step(mail, mail->state == MS_BODY ? ME_SETTLE : ME_REFUSE);
    }
    if (why != SMTP_END_421 || !any_in_doubt(tx)) {
        end_all(tx, why);
        return;
    }
    if (mail && mail->state == MS_REFUSED && !more_to_read(tx, mail))
        smtp_mail_step(mail, ME_SETTLE);
    tx->closing = true;
    smtp_out_drop(tx);
}

/* A reply before its command was out. Only a refusal in the middle of the content makes sense: the dot is not out,
 * so the relay cannot have the mail, but the rest of the content would be read as commands: end here. */
static void reply_early(struct smtp_transaction *tx, struct in_flight *mail, const struct smtp_reply *reply)
{
    if (mail && reply->code >= 400)
        reply_closing(tx, mail, PHASE_BODY, reply, reply->code == 421 ? SMTP_END_421 : SMTP_END_GARBAGE);
    else
        end_all(tx, reply->code == 421 ? SMTP_END_421 : SMTP_END_GARBAGE);
}

static void reply_take(struct smtp_transaction *tx, const struct smtp_reply *reply, uint64_t now_us)
{
    struct pending_ask asked;
    bool is_out;

    tx->progress++;
    tx->awake = true;
    tx->heard_us = now_us;
    if (tx->ask_count == 0) {
        reply_early(tx, tx->body, reply);
        return;
    }
    asked = tx->asks[tx->ask_first];
    /* A relay may refuse a BDAT before it has read all octets away. They are all composed, so the two stay in
     * step. */
    is_out =
        tx->sent >= asked.at || (smtp_chunked(tx) && asked.what == ASK_FINAL && kind_of(reply) == REPLY_REFUSAL);
    if (!is_out) {
        reply_early(tx, asked.what == ASK_FINAL ? asked.mail : NULL, reply);
        return;
    }
    tx->ask_first = (tx->ask_first + 1) % tx->ask_max;
    tx->ask_count--;
    switch (meaning[asked.what][kind_of(reply)]) {
    case MEANS_GO_ON:
        reply_go_on(tx, asked.mail, asked.what);
        break;
    case MEANS_SEND:
        reply_send(tx, asked.mail);
        break;
    case MEANS_ACCEPTED:
        reply_accepted(tx, asked.mail, reply, now_us);
        break;
    case MEANS_REFUSED:
        reply_refused(tx, &asked, reply);
        break;
    case MEANS_CLOSING:
        reply_closing(tx, asked.mail,
                      asked.what == ASK_FINAL ? PHASE_FINAL
                      : asked.mail            ? asked.mail->phase
                                              : PHASE_MAIL,
                      reply, SMTP_END_421);
        break;
    case MEANS_BYE:
        end_all(tx, SMTP_END_QUIT);
        break;
    case MEANS_GARBAGE:
        end_all(tx, SMTP_END_GARBAGE);
        break;
    }
}

void smtp_transaction_in(struct smtp_transaction *tx, const char *data, size_t len, uint64_t now_us)
{
    while (len > 0 && tx->end == SMTP_OPEN) {
        struct smtp_reply reply;
        size_t used = 0;
        int rc = smtp_reply_feed(&tx->reader, data, len, &used, &reply);

        data += used;
        len -= used;
        if (rc < 0)
            end_all(tx, SMTP_END_GARBAGE);
        else if (rc > 0)
            reply_take(tx, &reply, now_us);
    }
}

/* ---- questions ---- */

bool smtp_transaction_busy(const struct smtp_transaction *tx)
{
    for (size_t i = 0; i < tx->slots; i++)
        if (tx->flight[i].state != MS_NONE)
            return true;
    return false;
}

bool smtp_transaction_idle(const struct smtp_transaction *tx)
{
    return !smtp_transaction_busy(tx) && tx->ask_count == 0 && tx->out_off == tx->out_len &&
           tx->result_count == 0 && !tx->owes_dot && !tx->owes_rset && !tx->wants_noop && !tx->wants_quit;
}

enum smtp_end smtp_transaction_end(const struct smtp_transaction *tx)
{
    return tx->end;
}

bool smtp_transaction_expects(const struct smtp_transaction *tx)
{
    return tx->ask_count > 0 && tx->sent >= tx->asks[tx->ask_first].at;
}

enum smtp_wait smtp_transaction_wait(const struct smtp_transaction *tx)
{
    if (tx->end != SMTP_OPEN)
        return SMTP_WAIT_NOTHING;
    if (tx->closing)
        return SMTP_WAIT_COMMAND;
    /* With BDAT a relay may work on one mail while our socket is full of the next: what waits is the reply. */
    if ((tx->body || tx->out_off < tx->out_len) && !smtp_transaction_expects(tx))
        return SMTP_WAIT_DATA;
    if (tx->ask_count == 0)
        return SMTP_WAIT_NOTHING;
    switch (tx->asks[tx->ask_first].what) {
    case ASK_FINAL:
    case ASK_EMPTY_DOT:
        return SMTP_WAIT_FINAL;
    case ASK_DATA:
        return SMTP_WAIT_DATA;
    case ASK_MAIL:
    case ASK_RCPT:
    case ASK_RSET:
    case ASK_NOOP:
    case ASK_QUIT:
    case ASK_COUNT:
        break;
    }
    return SMTP_WAIT_COMMAND;
}

uint64_t smtp_transaction_progress(const struct smtp_transaction *tx)
{
    return tx->progress;
}

bool smtp_transaction_closing(const struct smtp_transaction *tx)
{
    return tx->closing;
}

uint64_t smtp_transaction_mails(const struct smtp_transaction *tx)
{
    return tx->mails;
}
