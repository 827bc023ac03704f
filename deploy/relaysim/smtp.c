#include "smtp.h"

#include <stdio.h>
#include <string.h>

#define RECIPIENTS_MAX 100
#define RECIPIENTS_MAX_SES 50

void smtp_say(struct session *session, const char *text, size_t len)
{
    if (td_buf_add(&session->out, text, len) < 0)
        session_end(session, SESSION_ENDS_RESET);
}

#define SAY(session, literal) smtp_say((session), (literal), sizeof(literal) - 1)

void smtp_reply(struct session *session, int code, const char *enhanced, const char *text)
{
    char line[560];
    bool status = *enhanced && !session->sim->options.ses;
    int len = snprintf(line, sizeof(line), "%d %s%s%s\r\n", code, status ? enhanced : "", status ? " " : "", text);

    if (code >= 400 && code < 600)
        session->sim->counts.refused[code - 400]++;
    smtp_say(session, line, (size_t)len);
    if (code == 421)
        session_end(session, SESSION_ENDS);
}

/* ---- faults ---- */

static const char *default_text(int code)
{
    switch (code) {
    case 421:
        return "Service not available, closing transmission channel";
    case 454:
        return "Temporary service failure";
    case 535:
        return "Authentication Credentials Invalid";
    case 550:
        return "Mailbox unavailable";
    case 552:
        return "Message is too long";
    default:
        return code < 300 ? "Ok" : code < 500 ? "Temporary service failure" : "Transaction failed";
    }
}

/* Not SMTP, not UTF-8, and without an end of line a client might wait for: then a line that looks like another
 * protocol. */
static const char garbage[] = "\x16\x03\xff\x80\xfe\0\x07garbage\r\nHTTP/1.1 200 OK\r\n\r\n";

static void fault_reply(struct session *session, const struct fault *fault)
{
    char line[FAULT_TEXT_MAX + 40];
    int len = snprintf(line, sizeof(line), "%d %s%s%s\r\n", fault->code, fault->enhanced,
                       *fault->enhanced ? " " : "", *fault->text ? fault->text : default_text(fault->code));

    if (fault->code >= 400)
        session->sim->counts.refused[fault->code - 400]++;
    smtp_say(session, line, (size_t)len);
    if (fault->code == 421)
        session_end(session, SESSION_ENDS);
}

/* Only "slow" leaves the point undone, to be done after the pause. */
void smtp_fault_do(struct session *session, const struct fault *fault, enum fault_point at)
{
    switch (fault->act) {
    case FAULT_HANG:
        session_hang(session);
        break;
    case FAULT_CLOSE:
        session_end(session, SESSION_ENDS);
        break;
    case FAULT_RESET:
    case FAULT_LOSE:
        session_end(session, SESSION_ENDS_RESET);
        break;
    case FAULT_REPLY:
        fault_reply(session, fault);
        if (at == FAULT_AT_BODY || at == FAULT_AT_BANNER)
            session_end(session, SESSION_ENDS);
        break;
    case FAULT_SLOW:
        session->fault_passed = true;
        session_pause(session, fault->delay_ms);
        break;
    case FAULT_GARBAGE:
        SAY(session, garbage);
        if (at == FAULT_AT_CONNECT || at == FAULT_AT_BODY)
            session_end(session, SESSION_ENDS);
        break;
    case FAULT_REFUSE:
    case FAULT_CERTIFICATE:
    case FAULT_STRIP:
    case FAULT_INJECT:
        break; /* asked for elsewhere, never struck at a point of a session */
    }
}

static bool fault_at(struct session *session, enum fault_point at, struct slice args)
{
    struct sim *sim = session->sim;
    const struct fault *fault;

    if (session->fault_passed) {
        session->fault_passed = false;
        return false;
    }
    fault = fault_strike_at(&sim->faults, at, args, sim->loop.now_ns, sim->taken_ever);
    if (!fault)
        return false;
    smtp_fault_do(session, fault, at);
    return true;
}

bool smtp_fault(struct session *session, enum fault_point at)
{
    return fault_at(session, at, (struct slice){"", 0});
}

void smtp_idle(struct session *session)
{
    if (session->sim->options.ses)
        smtp_reply(session, 451, "4.4.2", "4.4.2 Timeout waiting for data from client");
    else
        smtp_reply(session, 421, "4.4.2", "Timeout waiting for data from client");
    session_end(session, SESSION_ENDS);
}

/* ---- commands ---- */

static bool tls_offered(const struct session *session)
{
    const struct sim *sim = session->sim;

    return !session->ssl && sim->tls.ctx[CERTIFICATE_GOOD] && !sim->options.no_starttls && !session->stripped;
}

static bool auth_offered(const struct session *session)
{
    return session->sim->password && (session->ssl || session->sim->options.plaintext_auth);
}

static bool pipelining_offered(const struct session *session)
{
    return !session->sim->options.no_pipelining && !session->sim->options.ses;
}

static void greet(struct session *session)
{
    const struct options *options = &session->sim->options;
    char line[400];
    int len;

    session->state = SESSION_COMMAND;
    if (session->surplus) {
        smtp_reply(session, 421, "4.7.0", "Too many concurrent SMTP connections");
        return;
    }
    len = snprintf(line, sizeof(line), "220 %s ESMTP %s\r\n", options->name,
                   options->ses ? "SimpleEmailService-relaysim" : "relaysim");
    smtp_say(session, line, (size_t)len);
}

static void do_ehlo(struct session *session, bool extended)
{
    const struct sim *sim = session->sim;
    const char *name = sim->options.name;
    char text[800];
    int len;

    message_reset(&session->mail);
    session->greeted = true;
    if (!extended) {
        len = snprintf(text, sizeof(text), "250 %s\r\n", name);
        smtp_say(session, text, (size_t)len);
        return;
    }
    session->stripped =
        fault_strike(&session->sim->faults, FAULT_AT_OFFER, sim->loop.now_ns, sim->taken_ever) != NULL;
    if (sim->options.ses)
        len = snprintf(text, sizeof(text), "250-%s\r\n250-8BITMIME\r\n%s%s250 Ok\r\n", name,
                       tls_offered(session) ? "250-STARTTLS\r\n" : "",
                       auth_offered(session) ? "250-AUTH PLAIN LOGIN\r\n" : "");
    else
        len = snprintf(text, sizeof(text),
                       "250-%s\r\n%s250-SIZE %llu\r\n250-8BITMIME\r\n%s%s%s250 ENHANCEDSTATUSCODES\r\n", name,
                       pipelining_offered(session) ? "250-PIPELINING\r\n" : "",
                       (unsigned long long)sim->options.size, tls_offered(session) ? "250-STARTTLS\r\n" : "",
                       auth_offered(session) ? "250-AUTH PLAIN LOGIN\r\n" : "",
                       sim->options.chunking ? "250-CHUNKING\r\n" : "");
    smtp_say(session, text, (size_t)len);
}

static void do_starttls(struct session *session)
{
    struct sim *sim = session->sim;

    if (!tls_offered(session)) {
        smtp_reply(session, 502, "5.5.1", "STARTTLS not available");
        return;
    }
    SAY(session, "220 Ready to start TLS\r\n");
    if (fault_strike(&sim->faults, FAULT_AT_INJECT, sim->loop.now_ns, sim->taken_ever))
        SAY(session, "250 relaysim injected this in plaintext\r\n");
    session->state = SESSION_STARTTLS;
}

/* Refuses, and returns false, when mail may not begin yet. */
static bool may_send(struct session *session)
{
    const struct sim *sim = session->sim;

    if (!session->greeted)
        smtp_reply(session, 503, "5.5.1", "EHLO first");
    else if (sim->password && !session->ssl && !sim->options.plaintext_auth)
        smtp_reply(session, 530, "5.7.0", "Must issue a STARTTLS command first");
    else if (sim->password && !session->authenticated)
        smtp_reply(session, 530, "5.7.0", "Authentication required");
    else if (session->mail.open)
        smtp_reply(session, 503, "5.5.1", "Sender already given");
    else
        return true;
    return false;
}

static void do_mail(struct session *session, struct slice args)
{
    struct mail *mail = &session->mail;
    struct slice path, params;
    uint64_t bytes;

    if (!may_send(session))
        return;
    if (command_path(args, "FROM:", &path, &params) < 0 || command_size(params, &bytes) < 0) {
        smtp_reply(session, 501, "5.5.4", "Syntax: MAIL FROM:<address>");
        return;
    }
    if (bytes > session->sim->options.size) {
        smtp_reply(session, 552, "5.3.4", "Message is too long");
        return;
    }
    message_begin(session);
    if (td_buf_add(&mail->return_path, path.data, path.len) < 0) {
        mail->open = false;
        smtp_reply(session, 452, "4.3.1", "Insufficient system storage");
        return;
    }
    if (session->sim->options.ses)
        SAY(session, "250 Ok\r\n");
    else
        SAY(session, "250 2.1.0 Ok\r\n");
}

static void do_rcpt(struct session *session, struct slice args)
{
    struct mail *mail = &session->mail;
    bool ses = session->sim->options.ses;
    struct slice path, params;

    if (!mail->open) {
        smtp_reply(session, 503, "5.5.1", "MAIL first");
        return;
    }
    if (command_path(args, "TO:", &path, &params) < 0 || path.len == 0) {
        smtp_reply(session, ses ? 553 : 501, "5.1.3", "Invalid address");
        return;
    }
    if (mail->recipient_count >= (ses ? RECIPIENTS_MAX_SES : RECIPIENTS_MAX)) {
        smtp_reply(session, 452, "4.5.3", "Too many recipients");
        return;
    }
    if (td_buf_reserve(&mail->recipients, path.len + 1) < 0) {
        smtp_reply(session, 452, "4.3.1", "Insufficient system storage");
        return;
    }
    td_buf_add(&mail->recipients, path.data, path.len);
    td_buf_addc(&mail->recipients, '\0');
    mail->recipient_count++;
    if (ses)
        SAY(session, "250 Ok\r\n");
    else
        SAY(session, "250 2.1.5 Ok\r\n");
}

static void do_data(struct session *session)
{
    struct mail *mail = &session->mail;

    if (!mail->open || mail->chunked) {
        smtp_reply(session, 503, "5.5.1", mail->chunked ? "BDAT has begun" : "MAIL first");
    } else if (!mail->recipient_count) {
        smtp_reply(session, 554, "5.5.1", "No valid recipients");
    } else {
        SAY(session, "354 End data with <CR><LF>.<CR><LF>\r\n");
        session->state = SESSION_DATA;
    }
}

/* The octets of a chunk follow even when it is refused (RFC 3030 s.2), so they are read away in any case. */
static void do_bdat(struct session *session, struct slice args)
{
    struct mail *mail = &session->mail;
    uint64_t bytes;
    bool last;

    if (!session->sim->options.chunking || command_bdat(args, &bytes, &last) < 0) {
        smtp_reply(session, session->sim->options.chunking ? 501 : 502, "5.5.1", "BDAT not understood");
        session_end(session, SESSION_ENDS); /* the octets that follow cannot be told from commands */
        return;
    }
    mail->chunk_left = bytes;
    mail->chunk_last = last;
    mail->chunk_mute = true;
    session->state = SESSION_CHUNK;
    if (!mail->open) {
        smtp_reply(session, 503, "5.5.1", "MAIL first");
    } else if (!mail->recipient_count) {
        smtp_reply(session, 554, "5.5.1", "No valid recipients");
    } else {
        mail->chunk_mute = false;
        mail->chunked = true;
    }
}

static enum fault_point point_of(enum verb verb)
{
    switch (verb) {
    case VERB_EHLO:
    case VERB_HELO:
        return FAULT_AT_EHLO;
    case VERB_STARTTLS:
        return FAULT_AT_STARTTLS;
    case VERB_AUTH:
        return FAULT_AT_AUTH;
    case VERB_MAIL:
        return FAULT_AT_MAIL;
    case VERB_RCPT:
        return FAULT_AT_RCPT;
    case VERB_DATA:
    case VERB_BDAT:
        return FAULT_AT_DATA;
    case VERB_UNKNOWN:
    case VERB_RSET:
    case VERB_NOOP:
    case VERB_VRFY:
    case VERB_QUIT:
        break;
    }
    return FAULT_AT_OTHER;
}

/* A refused BDAT: whatever the fault said, its octets must not be read as commands. */
static void swallow_chunk(struct session *session, enum verb verb, struct slice args)
{
    struct mail *mail = &session->mail;

    if (verb != VERB_BDAT || session->state != SESSION_COMMAND ||
        command_bdat(args, &mail->chunk_left, &mail->chunk_last) < 0)
        return;
    mail->chunk_mute = true;
    session->state = SESSION_CHUNK;
}

static void dispatch(struct session *session, enum verb verb, struct slice args)
{
    switch (verb) {
    case VERB_EHLO:
    case VERB_HELO:
        do_ehlo(session, verb == VERB_EHLO);
        break;
    case VERB_STARTTLS:
        do_starttls(session);
        break;
    case VERB_AUTH:
        if (auth_offered(session))
            auth_begin(session, args);
        else
            smtp_reply(session, session->sim->password ? 538 : 502, "5.7.11", "AUTH not available here");
        break;
    case VERB_MAIL:
        do_mail(session, args);
        break;
    case VERB_RCPT:
        do_rcpt(session, args);
        break;
    case VERB_DATA:
        do_data(session);
        break;
    case VERB_BDAT:
        do_bdat(session, args);
        break;
    case VERB_RSET:
        message_reset(&session->mail);
        smtp_reply(session, 250, "2.0.0", "Ok");
        break;
    case VERB_NOOP:
        smtp_reply(session, 250, "2.0.0", "Ok");
        break;
    case VERB_VRFY:
        smtp_reply(session, 252, "2.0.0", "Send some mail, I will try my best");
        break;
    case VERB_QUIT:
        smtp_reply(session, 221, "2.0.0", "Bye");
        session_end(session, SESSION_ENDS);
        break;
    case VERB_UNKNOWN:
        smtp_reply(session, 500, "5.5.2", "Command not recognized");
        break;
    }
}

/* One line at the start of `bytes`, with its CRLF. 0 = not whole yet. */
static size_t take_line(struct session *session, struct slice bytes, struct slice *ret_line)
{
    const char *eol = memchr(bytes.data, '\n', bytes.len < COMMAND_LINE_MAX ? bytes.len : COMMAND_LINE_MAX);

    if (!eol) {
        if (bytes.len >= COMMAND_LINE_MAX) {
            smtp_reply(session, 500, "5.5.2", "Line too long");
            session_end(session, SESSION_ENDS);
        }
        return 0;
    }
    *ret_line = (struct slice){bytes.data, (size_t)(eol - bytes.data)};
    if (ret_line->len && eol[-1] == '\r')
        ret_line->len--;
    else
        ret_line->data = NULL; /* bare LF */
    return (size_t)(eol - bytes.data) + 1;
}

static size_t step_line(struct session *session, struct slice bytes)
{
    struct slice line, args;
    size_t used = take_line(session, bytes, &line);
    enum verb verb;

    if (!used)
        return 0;
    if (!line.data) {
        smtp_reply(session, 500, "5.5.2", "Lines end with CR LF");
        return used;
    }
    if (session->state == SESSION_AUTH) {
        auth_go_on(session, line);
        return used;
    }
    verb = command_verb(line, &args);
    if (fault_at(session, point_of(verb), args)) {
        if (session->paused)
            return 0; /* the same line again after the pause */
        swallow_chunk(session, verb, args);
        return used;
    }
    if (used < bytes.len && verb != VERB_BDAT && !pipelining_offered(session))
        session->sim->counts.unoffered_pipelining++;
    dispatch(session, verb, args);
    return used;
}

/* ---- message text ---- */

/* The fault in the middle of a message: its first octets are here. */
static bool body_fault(struct session *session)
{
    if (session->mail.body_seen)
        return false;
    if (smtp_fault(session, FAULT_AT_BODY))
        return true;
    session->mail.body_seen = true;
    return false;
}

static size_t step_data(struct session *session, struct slice bytes)
{
    struct slice piece;
    size_t used;
    bool ended;

    if (!bytes.len || body_fault(session))
        return 0;
    ended = dots_take(&session->mail.dots, bytes, &piece, &used);
    message_text(session, piece);
    if (ended)
        session->state = SESSION_FINAL;
    return used;
}

static size_t step_chunk(struct session *session, struct slice bytes)
{
    struct mail *mail = &session->mail;
    size_t used = bytes.len < mail->chunk_left ? bytes.len : (size_t)mail->chunk_left;

    if (used && !mail->chunk_mute) {
        if (body_fault(session))
            return 0;
        message_text(session, (struct slice){bytes.data, used});
    }
    mail->chunk_left -= used;
    if (mail->chunk_left)
        return used;
    session->state = SESSION_COMMAND;
    if (mail->chunk_mute)
        message_reset(mail); /* RFC 3030 s.2: after a refused chunk the transaction is over */
    else if (mail->chunk_last)
        session->state = SESSION_FINAL;
    else
        smtp_reply(session, 250, "2.0.0", "Chunk taken");
    return used;
}

size_t smtp_feed(struct session *session, const char *data, size_t len)
{
    size_t used = 0;

    while (session_ready_for_input(session)) {
        enum session_state before = session->state;
        struct slice rest = {data + used, len - used};
        size_t step = 0;

        if (before == SESSION_GREETING) {
            if (!smtp_fault(session, FAULT_AT_BANNER))
                greet(session);
            else if (!session->paused && session->state == SESSION_GREETING)
                session->state = SESSION_COMMAND;
        } else if (before == SESSION_DATA) {
            step = step_data(session, rest);
        } else if (before == SESSION_CHUNK) {
            step = step_chunk(session, rest);
        } else if (before == SESSION_FINAL) {
            if (message_final(session) && session->state == SESSION_FINAL)
                session->state = SESSION_COMMAND;
        } else {
            step = step_line(session, rest);
        }
        used += step;
        if (!step && session->state == before)
            break;
    }
    return used;
}
