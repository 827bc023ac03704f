#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "smtp_content.h"
#include "smtp_transaction.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static const char content[] = "Subject: x\r\n\r\n.a\r\nb\r\n";
static const char on_wire[] = "Subject: x\r\n\r\n..a\r\nb\r\n.\r\n";
static const char envelope[] = "MAIL FROM:<from@a.example>\r\nRCPT TO:<to@b.example>\r\nDATA\r\n";

static struct smtp_buffers *buffers;

struct talk {
    struct smtp_transaction *tx;
    struct slice slice;
    struct smtp_mail mail;
    uint64_t now_us;
};

static void talk_begin(struct talk *talk, bool pipelining)
{
    struct smtp_offer offer = {.pipelining = pipelining};

    talk->tx = smtp_transaction_new(&offer, buffers);
    talk->slice = (struct slice){content, sizeof(content) - 1};
    talk->mail = (struct smtp_mail){"from@a.example", "to@b.example", &talk->slice, 1, "first"};
    talk->now_us = 1000;
    assert_non_null(talk->tx);
}

static void start(struct talk *talk, const char *name)
{
    struct attempt_result result;

    talk->mail.user = (void *)(uintptr_t)name;
    assert_true(smtp_transaction_room(talk->tx));
    assert_int_equal(smtp_transaction_start(talk->tx, &talk->mail, talk->now_us, &result), 1);
}

/* What goes out now must be exactly this. */
static void writes(struct talk *talk, const char *expected)
{
    const char *data;
    size_t n = smtp_transaction_out(talk->tx, &data);

    assert_int_equal(n, strlen(expected));
    assert_memory_equal(data, expected, n);
    smtp_transaction_wrote(talk->tx, n, talk->now_us);
    assert_int_equal(smtp_transaction_out(talk->tx, &data), 0);
}

static void hears(struct talk *talk, const char *bytes)
{
    talk->now_us += 1000;
    smtp_transaction_in(talk->tx, bytes, strlen(bytes), talk->now_us);
}

static struct attempt_result result_of(struct talk *talk, const char *name, enum attempt_kind kind, enum smtp_phase phase)
{
    struct attempt_result result;
    void *user;

    assert_true(smtp_transaction_result(talk->tx, &user, &result));
    assert_string_equal(user, name);
    assert_string_equal(attempt_kind_name(result.kind), attempt_kind_name(kind));
    assert_string_equal(smtp_phase_name(result.phase), smtp_phase_name(phase));
    return result;
}

/* Its last octet has been handed over: told once. */
static void is_sent(struct talk *talk, const char *name)
{
    void *user;

    assert_true(smtp_transaction_sent(talk->tx, &user));
    assert_string_equal(user, name);
}

static void none_sent(struct talk *talk)
{
    void *user;

    assert_false(smtp_transaction_sent(talk->tx, &user));
}

static void no_result(struct talk *talk)
{
    assert_false(smtp_transaction_has_result(talk->tx));
}

static void lock_step_asks_one_thing_at_a_time(void **unused)
{
    struct talk talk;
    struct attempt_result result;

    (void)unused;
    talk_begin(&talk, false);
    for (int i = 0; i < 2; i++) {
        start(&talk, "first");
        assert_false(smtp_transaction_room(talk.tx));
        writes(&talk, "MAIL FROM:<from@a.example>\r\n");
        assert_int_equal(smtp_transaction_wait(talk.tx), SMTP_WAIT_COMMAND);
        hears(&talk, "250 ok\r\n");
        writes(&talk, "RCPT TO:<to@b.example>\r\n");
        hears(&talk, "250 ok\r\n");
        writes(&talk, "DATA\r\n");
        assert_int_equal(smtp_transaction_wait(talk.tx), SMTP_WAIT_DATA);
        hears(&talk, "354 go\r\n");
        writes(&talk, on_wire);
        assert_int_equal(smtp_transaction_wait(talk.tx), SMTP_WAIT_FINAL);
        hears(&talk, "250 2.0.0 Ok id-1\r\n");
        result = result_of(&talk, "first", ATTEMPT_ACCEPTED, PHASE_FINAL);
        assert_int_equal(result.final_us, 1000);
        assert_int_equal(result.reused, i > 0);
        assert_string_equal(result.reply.text, "Ok id-1");
        assert_true(smtp_transaction_idle(talk.tx));
        assert_int_equal(smtp_transaction_wait(talk.tx), SMTP_WAIT_NOTHING);
    }
    smtp_transaction_free(talk.tx);
}

static void pipelining_puts_the_next_envelope_behind_the_dot(void **unused)
{
    struct talk talk;
    char both[400];

    (void)unused;
    talk_begin(&talk, true);
    start(&talk, "first");
    assert_false(smtp_transaction_room(talk.tx));
    writes(&talk, envelope);
    hears(&talk, "250 ok\r\n250 ok\r\n354 go\r\n");
    start(&talk, "second");
    snprintf(both, sizeof(both), "%s%s", on_wire, envelope);
    writes(&talk, both);
    hears(&talk, "250 first is in\r\n250 ok\r\n");
    result_of(&talk, "first", ATTEMPT_ACCEPTED, PHASE_FINAL);
    no_result(&talk);
    hears(&talk, "250 ok\r\n354 go\r\n");
    writes(&talk, on_wire);
    hears(&talk, "250 second is in\r\n");
    result_of(&talk, "second", ATTEMPT_ACCEPTED, PHASE_FINAL);
    smtp_transaction_free(talk.tx);
}

static void a_refused_recipient_leaves_the_connection_in_step(void **unused)
{
    struct talk talk;

    (void)unused;
    talk_begin(&talk, true);
    start(&talk, "first");
    writes(&talk, envelope);
    hears(&talk, "250 ok\r\n550 5.1.1 no\r\n");
    result_of(&talk, "first", ATTEMPT_REPLIED, PHASE_RCPT); /* at once, not when the rest is read */
    start(&talk, "second");
    hears(&talk, "554 no valid recipients\r\n");
    writes(&talk, "RSET\r\nMAIL FROM:<from@a.example>\r\nRCPT TO:<to@b.example>\r\nDATA\r\n");
    hears(&talk, "250 reset\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    writes(&talk, on_wire);
    hears(&talk, "250 in\r\n");
    result_of(&talk, "second", ATTEMPT_ACCEPTED, PHASE_FINAL);
    smtp_transaction_free(talk.tx);
}

/* RFC 2920 s.3.1 */
static void a_354_without_recipients_is_answered_by_a_dot_alone(void **unused)
{
    struct talk talk;

    (void)unused;
    talk_begin(&talk, true);
    start(&talk, "first");
    writes(&talk, envelope);
    hears(&talk, "250 ok\r\n550 5.1.1 no\r\n354 go\r\n");
    result_of(&talk, "first", ATTEMPT_REPLIED, PHASE_RCPT);
    writes(&talk, ".\r\n");
    assert_false(smtp_transaction_idle(talk.tx));
    hears(&talk, "554 no recipients\r\n");
    assert_true(smtp_transaction_idle(talk.tx));
    start(&talk, "second");
    writes(&talk, envelope);
    smtp_transaction_free(talk.tx);
}

static void a_refused_sender_is_one_result_however_many_replies_follow(void **unused)
{
    struct talk talk;
    struct attempt_result result;

    (void)unused;
    talk_begin(&talk, true);
    start(&talk, "first");
    writes(&talk, envelope);
    hears(&talk, "454 Throttling failure: Maximum sending rate exceeded\r\n503 bad sequence\r\n503 bad sequence\r\n");
    result = result_of(&talk, "first", ATTEMPT_REPLIED, PHASE_MAIL);
    assert_int_equal(result.reply.code, 454);
    no_result(&talk);
    writes(&talk, "RSET\r\n");
    hears(&talk, "250 ok\r\n");
    assert_true(smtp_transaction_idle(talk.tx));
    smtp_transaction_free(talk.tx);
}

/* The heart of rule 3: whatever the last write was cut to, the phase says what the relay can have. */
static void lost_is_unconfirmed_only_when_the_whole_dot_was_handed_over(void **unused)
{
    static const enum smtp_end ends[] = {SMTP_END_LOST, SMTP_END_TIMEOUT, SMTP_END_GARBAGE};
    size_t whole = strlen(on_wire);

    (void)unused;
    for (size_t e = 0; e < LENGTH(ends); e++)
        for (size_t n = 0; n <= whole; n++) {
            struct talk talk;
            const char *data;

            talk_begin(&talk, true);
            start(&talk, "first");
            writes(&talk, envelope);
            hears(&talk, "250 ok\r\n250 ok\r\n354 go\r\n");
            assert_int_equal(smtp_transaction_out(talk.tx, &data), whole);
            smtp_transaction_wrote(talk.tx, n, 5);
            if (n == whole)
                is_sent(&talk, "first");
            none_sent(&talk);
            smtp_transaction_fail(talk.tx, ends[e]);
            if (n < whole)
                result_of(&talk, "first", ATTEMPT_NOT_TAKEN, PHASE_BODY);
            else
                result_of(&talk, "first", ATTEMPT_UNCONFIRMED, PHASE_FINAL);
            no_result(&talk);
            assert_int_equal(smtp_transaction_out(talk.tx, &data), 0); /* nothing more, above all no dot */
            assert_false(smtp_transaction_room(talk.tx));
            smtp_transaction_free(talk.tx);
        }
}

static void lost_with_two_in_flight_judges_each_by_its_own_phase(void **unused)
{
    size_t first = strlen(on_wire), whole = first + strlen(envelope);

    (void)unused;
    for (size_t n = 0; n <= whole; n++) {
        struct talk talk;
        const char *data;

        talk_begin(&talk, true);
        start(&talk, "first");
        writes(&talk, envelope);
        hears(&talk, "250 ok\r\n250 ok\r\n354 go\r\n");
        start(&talk, "second");
        assert_int_equal(smtp_transaction_out(talk.tx, &data), whole);
        smtp_transaction_wrote(talk.tx, n, 5);
        smtp_transaction_fail(talk.tx, SMTP_END_LOST);
        result_of(&talk, "first", n < first ? ATTEMPT_NOT_TAKEN : ATTEMPT_UNCONFIRMED, n < first ? PHASE_BODY : PHASE_FINAL);
        assert_true(result_of(&talk, "second", ATTEMPT_NOT_TAKEN, PHASE_MAIL).reused);
        no_result(&talk);
        smtp_transaction_free(talk.tx);
    }
}


struct row {
    const char *name;
    const char *replies; /* after the envelope */
    enum attempt_kind kind;
    enum smtp_phase phase;
    int code;
    enum smtp_end end;
};

/* clang-format off */
static const struct row rows[] = {
    {"354 to MAIL",        "354 go\r\n",                                  ATTEMPT_NOT_TAKEN, PHASE_MAIL, 0, SMTP_END_GARBAGE},
    {"334 to RCPT",        "250 ok\r\n334 go\r\n",                        ATTEMPT_NOT_TAKEN, PHASE_RCPT, 0, SMTP_END_GARBAGE},
    {"250 to DATA",        "250 ok\r\n250 ok\r\n250 ok\r\n",              ATTEMPT_NOT_TAKEN, PHASE_DATA, 0, SMTP_END_GARBAGE},
    {"garbage",            "250 ok\r\nhello\r\n",                         ATTEMPT_NOT_TAKEN, PHASE_RCPT, 0, SMTP_END_GARBAGE},
    {"early 250",          "250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n", ATTEMPT_NOT_TAKEN, PHASE_BODY, 0, SMTP_END_GARBAGE},
    {"early 552",          "250 ok\r\n250 ok\r\n354 go\r\n552 big\r\n",   ATTEMPT_REPLIED,   PHASE_BODY, 552, SMTP_END_GARBAGE},
    {"early 421",          "250 ok\r\n250 ok\r\n354 go\r\n421 bye\r\n",   ATTEMPT_REPLIED,   PHASE_BODY, 421, SMTP_END_421},
    {"421 to MAIL",        "421 bye\r\n",                                 ATTEMPT_REPLIED,   PHASE_MAIL, 421, SMTP_END_421},
    {"421 to RCPT",        "250 ok\r\n421 bye\r\n",                       ATTEMPT_REPLIED,   PHASE_RCPT, 421, SMTP_END_421},
    {"421 to DATA",        "250 ok\r\n250 ok\r\n421 bye\r\n",             ATTEMPT_REPLIED,   PHASE_DATA, 421, SMTP_END_421},
    {"451 4.4.2 to MAIL",  "451 4.4.2 Timeout waiting for data\r\n",      ATTEMPT_REPLIED,   PHASE_MAIL, 451, SMTP_END_421},
    {"refused, then 250",  "250 ok\r\n550 no\r\n250 what\r\n",            ATTEMPT_REPLIED,   PHASE_RCPT, 550, SMTP_END_GARBAGE},
    {"refused, then lost", "250 ok\r\n550 no\r\n421 bye\r\n",             ATTEMPT_REPLIED,   PHASE_RCPT, 550, SMTP_END_421},
};
/* clang-format on */

static void a_reply_that_cannot_belong_ends_the_connection(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < LENGTH(rows); i++)
        for (size_t cut = 0; cut < strlen(rows[i].replies); cut++) { /* in two pieces, at every place */
            struct talk talk;
            struct attempt_result result;

            talk_begin(&talk, true);
            start(&talk, "first");
            writes(&talk, envelope);
            smtp_transaction_in(talk.tx, rows[i].replies, cut, 1);
            smtp_transaction_in(talk.tx, rows[i].replies + cut, strlen(rows[i].replies) - cut, 1);
            result = result_of(&talk, "first", rows[i].kind, rows[i].phase);
            assert_int_equal(result.reply.code, rows[i].code);
            no_result(&talk);
            assert_int_equal(smtp_transaction_end(talk.tx), rows[i].end);
            smtp_transaction_free(talk.tx);
        }
}

static void a_word_nobody_asked_for_ends_an_idle_connection(void **unused)
{
    struct talk talk;

    (void)unused;
    talk_begin(&talk, true);
    hears(&talk, "421 idle too long\r\n");
    assert_int_equal(smtp_transaction_end(talk.tx), SMTP_END_421);
    smtp_transaction_free(talk.tx);
    talk_begin(&talk, true);
    hears(&talk, "250 ok\r\n");
    assert_int_equal(smtp_transaction_end(talk.tx), SMTP_END_GARBAGE);
    smtp_transaction_free(talk.tx);
}

static void a_421_to_the_dot_frees_the_mail_behind_it(void **unused)
{
    struct talk talk;
    const char *data;
    size_t n;

    (void)unused;
    talk_begin(&talk, true);
    start(&talk, "first");
    writes(&talk, envelope);
    hears(&talk, "250 ok\r\n250 ok\r\n354 go\r\n");
    start(&talk, "second");
    n = smtp_transaction_out(talk.tx, &data);
    smtp_transaction_wrote(talk.tx, n, 5);
    hears(&talk, "421 closing\r\n");
    result_of(&talk, "first", ATTEMPT_REPLIED, PHASE_FINAL);
    result_of(&talk, "second", ATTEMPT_NOT_TAKEN, PHASE_MAIL);
    smtp_transaction_free(talk.tx);
}

static void quit_waits_for_what_is_in_flight(void **unused)
{
    struct talk talk;

    (void)unused;
    talk_begin(&talk, false);
    start(&talk, "first");
    writes(&talk, "MAIL FROM:<from@a.example>\r\n");
    smtp_transaction_quit(talk.tx);
    hears(&talk, "550 no\r\n");
    result_of(&talk, "first", ATTEMPT_REPLIED, PHASE_MAIL);
    assert_false(smtp_transaction_room(talk.tx));
    writes(&talk, "RSET\r\n");
    hears(&talk, "250 ok\r\n");
    writes(&talk, "QUIT\r\n");
    assert_false(smtp_transaction_room(talk.tx));
    hears(&talk, "221 bye\r\n");
    assert_int_equal(smtp_transaction_end(talk.tx), SMTP_END_QUIT);
    smtp_transaction_free(talk.tx);
}

static void size_is_said_when_offered_and_kept(void **unused)
{
    struct smtp_offer offer = {.size = true, .size_max = sizeof(content) - 1};
    struct attempt_result result;
    struct talk talk;

    (void)unused;
    talk_begin(&talk, false);
    smtp_transaction_free(talk.tx);
    talk.tx = smtp_transaction_new(&offer, buffers);
    start(&talk, "first");
    writes(&talk, "MAIL FROM:<from@a.example> SIZE=21\r\n");
    smtp_transaction_free(talk.tx);
    offer.size_max--;
    talk.tx = smtp_transaction_new(&offer, buffers);
    assert_int_equal(smtp_transaction_start(talk.tx, &talk.mail, 1, &result), 0);
    assert_int_equal(result.kind, ATTEMPT_REPLIED);
    assert_int_equal(result.reply.code, 552);
    assert_true(smtp_transaction_idle(talk.tx));
    smtp_transaction_free(talk.tx);
}

static void an_address_that_is_a_command_is_invalid(void **unused)
{
    static const char *const bad[] = {"a@b>\r\nRCPT TO:<c@d", "a\n@b", "a\r@b", "<a@b>", "a@b\xc3\xa4", "a\x7f@b",
                                      "x23456789012345678901234567890123456789012345678901234567890123456789012345678901234567890"
                                      "x23456789012345678901234567890123456789012345678901234567890123456789012345678901234567890"
                                      "x2345678901234567890123456789012345678901234567890123456789012345678901234567890"};
    struct attempt_result result;
    struct talk talk;

    (void)unused;
    talk_begin(&talk, true);
    for (size_t i = 0; i < 2 * LENGTH(bad); i++) {
        struct smtp_mail mail = talk.mail;

        *(i % 2 ? &mail.recipient : &mail.reverse_path) = bad[i / 2];
        assert_int_equal(smtp_transaction_start(talk.tx, &mail, 1, &result), 0);
        assert_int_equal(result.kind, ATTEMPT_INVALID);
    }
    talk.mail.recipient = "";
    assert_int_equal(smtp_transaction_start(talk.tx, &talk.mail, 1, &result), 0);
    assert_int_equal(result.kind, ATTEMPT_INVALID);
    talk.mail.recipient = "a@b";
    talk.mail.reverse_path = ""; /* the null reverse-path is an address */
    start(&talk, "first");
    writes(&talk, "MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n");
    smtp_transaction_free(talk.tx);
}

/* ---- BDAT ---- */

#define CONTENT "Subject: x\r\n\r\n.a\r\nb\r\n" /* as it is: no dots are doubled */
#define ENVELOPE "MAIL FROM:<from@a.example>\r\nRCPT TO:<to@b.example>\r\n"
#define CHUNK "BDAT 21 LAST\r\n" CONTENT
#define MAIL_BEHIND "RSET\r\n" ENVELOPE CHUNK

static void chunked_begin(struct talk *talk, uint32_t window)
{
    struct smtp_offer offer = {.pipelining = true, .chunking = true, .window = window};

    talk_begin(talk, true);
    smtp_transaction_free(talk->tx);
    talk->tx = smtp_transaction_new(&offer, buffers);
    assert_non_null(talk->tx);
}

static const char *const nth[] = {"first", "second", "third", "fourth"};

/* One mail accepted, so that the relay is known to be there; then this many on their way. */
static void chunked_fill(struct talk *talk, uint32_t window, size_t count)
{
    char expected[600] = CHUNK;
    size_t len = strlen(expected);

    chunked_begin(talk, window);
    start(talk, "first");
    writes(talk, ENVELOPE);
    hears(talk, "250 ok\r\n250 ok\r\n"); /* a held mail may go now: it is asked what goes out only below */
    for (size_t i = 1; i < count; i++) {
        start(talk, nth[i]);
        len += (size_t)snprintf(expected + len, sizeof(expected) - len, "%s", MAIL_BEHIND);
    }
    writes(talk, expected);
}

static void bdat_fills_its_window_without_waiting(void **unused)
{
    struct talk talk;

    (void)unused;
    chunked_fill(&talk, 3, 3);
    assert_int_equal(smtp_transaction_slots(talk.tx), 3);
    assert_false(smtp_transaction_room(talk.tx));
    assert_int_equal(smtp_transaction_wait(talk.tx), SMTP_WAIT_FINAL);
    hears(&talk, "250 first is in\r\n250 reset\r\n250 ok\r\n250 ok\r\n");
    result_of(&talk, "first", ATTEMPT_ACCEPTED, PHASE_FINAL);
    start(&talk, "fourth");
    writes(&talk, MAIL_BEHIND);
    hears(&talk, "250 second is in\r\n250 reset\r\n250 ok\r\n250 ok\r\n250 third is in\r\n");
    result_of(&talk, "second", ATTEMPT_ACCEPTED, PHASE_FINAL);
    result_of(&talk, "third", ATTEMPT_ACCEPTED, PHASE_FINAL);
    hears(&talk, "250 reset\r\n250 ok\r\n250 ok\r\n250 in\r\n");
    result_of(&talk, "fourth", ATTEMPT_ACCEPTED, PHASE_FINAL);
    assert_true(smtp_transaction_idle(talk.tx));
    start(&talk, "first"); /* a moment later, and all before was taken: at once, without RSET */
    writes(&talk, ENVELOPE CHUNK);
    hears(&talk, "250 ok\r\n250 ok\r\n250 in\r\n");
    result_of(&talk, "first", ATTEMPT_ACCEPTED, PHASE_FINAL);
    smtp_transaction_free(talk.tx);
}

/* After a silence the relay may be gone: its answer to MAIL comes before any mail is put in doubt. */
static void bdat_wakes_a_silent_relay_before_it_sends_content(void **unused)
{
    struct talk talk;

    (void)unused;
    chunked_begin(&talk, 8); /* a new connection is no better: it may have been warmed long ago */
    start(&talk, "first");
    assert_false(smtp_transaction_room(talk.tx));
    writes(&talk, ENVELOPE);
    hears(&talk, "250 ok\r\n");
    assert_false(smtp_transaction_room(talk.tx));
    hears(&talk, "550 no\r\n");
    result_of(&talk, "first", ATTEMPT_REPLIED, PHASE_RCPT);
    smtp_transaction_free(talk.tx);

    chunked_begin(&talk, 8);
    start(&talk, "first");
    writes(&talk, ENVELOPE);
    hears(&talk, "454 no\r\n250 a recipient without a sender\r\n");
    result_of(&talk, "first", ATTEMPT_REPLIED, PHASE_MAIL);
    writes(&talk, "RSET\r\n");
    hears(&talk, "250 ok\r\n");
    assert_true(smtp_transaction_idle(talk.tx));
    smtp_transaction_free(talk.tx);

    chunked_fill(&talk, 8, 1);
    hears(&talk, "250 in\r\n");
    result_of(&talk, "first", ATTEMPT_ACCEPTED, PHASE_FINAL);
    talk.now_us += 5000000;
    start(&talk, "second");
    assert_false(smtp_transaction_room(talk.tx));
    writes(&talk, ENVELOPE);
    smtp_transaction_fail(talk.tx, SMTP_END_LOST);
    assert_true(result_of(&talk, "second", ATTEMPT_NOT_TAKEN, PHASE_MAIL).reused);
    smtp_transaction_free(talk.tx);
}

static void bdat_refused_recipients_cost_only_themselves(void **unused)
{
    struct talk talk;

    (void)unused;
    chunked_fill(&talk, 4, 3);
    hears(&talk, "250 first is in\r\n250 reset\r\n250 ok\r\n550 5.1.1 no\r\n");
    result_of(&talk, "first", ATTEMPT_ACCEPTED, PHASE_FINAL);
    result_of(&talk, "second", ATTEMPT_REPLIED, PHASE_RCPT); /* at once */
    hears(&talk, "554 no valid recipients\r\n250 reset\r\n454 4.7.0 not so fast\r\n503 MAIL first\r\n503 MAIL first\r\n");
    assert_int_equal(result_of(&talk, "third", ATTEMPT_REPLIED, PHASE_MAIL).reply.code, 454);
    no_result(&talk);
    writes(&talk, "RSET\r\n"); /* nothing behind the last one brought its own */
    hears(&talk, "250 reset\r\n");
    assert_true(smtp_transaction_idle(talk.tx));
    start(&talk, "fourth");
    writes(&talk, ENVELOPE CHUNK);
    hears(&talk, "250 ok\r\n250 ok\r\n554 5.6.0 not this\r\n");
    result_of(&talk, "fourth", ATTEMPT_REPLIED, PHASE_FINAL);
    writes(&talk, "RSET\r\n");
    smtp_transaction_free(talk.tx);
}

static void bdat_refused_before_its_content_is_out_stays_in_step(void **unused)
{
    struct talk talk;
    const char *data;
    size_t n;

    (void)unused;
    chunked_fill(&talk, 4, 1);
    start(&talk, "second");
    n = smtp_transaction_out(talk.tx, &data);
    smtp_transaction_wrote(talk.tx, n - 5, 5);
    hears(&talk, "250 in\r\n250 reset\r\n250 ok\r\n550 no\r\n554 no recipients\r\n");
    result_of(&talk, "first", ATTEMPT_ACCEPTED, PHASE_FINAL);
    result_of(&talk, "second", ATTEMPT_REPLIED, PHASE_RCPT);
    n = smtp_transaction_out(talk.tx, &data); /* the rest of what was promised, then RSET */
    smtp_transaction_wrote(talk.tx, n, 5);
    assert_int_equal(n, 5);
    writes(&talk, "RSET\r\n");
    smtp_transaction_free(talk.tx);
}

/* Whatever the writes were cut to: in doubt is a mail whose last octet was handed over, and no other. */
static void bdat_lost_leaves_those_in_doubt_that_were_handed_over(void **unused)
{
    static const enum smtp_end ends[] = {SMTP_END_LOST, SMTP_END_CLOSED, SMTP_END_TIMEOUT, SMTP_END_GARBAGE};
    size_t end[3] = {strlen(CHUNK), strlen(CHUNK MAIL_BEHIND), strlen(CHUNK MAIL_BEHIND MAIL_BEHIND)};

    (void)unused;
    for (size_t e = 0; e < LENGTH(ends); e++)
        for (size_t n = 0; n <= end[2]; n++) {
            struct talk talk;
            const char *data;

            chunked_begin(&talk, 3);
            start(&talk, "first");
            writes(&talk, ENVELOPE);
            hears(&talk, "250 ok\r\n250 ok\r\n");
            start(&talk, "second");
            start(&talk, "third");
            assert_int_equal(smtp_transaction_out(talk.tx, &data), end[2]);
            smtp_transaction_wrote(talk.tx, n, 5);
            for (size_t i = 0; i < 3 && n >= end[i]; i++)
                is_sent(&talk, nth[i]);
            none_sent(&talk);
            smtp_transaction_fail(talk.tx, ends[e]);
            for (size_t i = 0; i < 3; i++)
                if (n >= end[i])
                    result_of(&talk, nth[i], ATTEMPT_UNCONFIRMED, PHASE_FINAL);
                else
                    result_of(&talk, nth[i], ATTEMPT_NOT_TAKEN, i == 0 ? PHASE_BODY : PHASE_MAIL);
            no_result(&talk);
            assert_int_equal(smtp_transaction_out(talk.tx, &data), 0);
            smtp_transaction_free(talk.tx);
        }
}

/* clang-format off */
static const struct {
    const char *name;
    const char *replies; /* the first mail's BDAT is answered next; two more are out */
    int first, second, third; /* code, 0 = in doubt */
} broken[] = {
    {"354 to BDAT",            "354 go\r\n",                                                   0,   0,   0},
    {"no reply",               "hello\r\n",                                                    0,   0,   0},
    {"550 to RSET",            "250 in\r\n550 no\r\n",                                         250, 0,   0},
    {"354 to MAIL",            "250 in\r\n250 ok\r\n354 go\r\n",                               250, 0,   0},
    {"refused, then accepted", "250 in\r\n250 ok\r\n250 ok\r\n550 no\r\n250 taken\r\n",        250, 550, 0},
    {"one too many",           "250 in\r\n250 ok\r\n250 ok\r\n250 ok\r\n250 in\r\n"
                               "250 ok\r\n250 ok\r\n250 ok\r\n250 in\r\n250 in\r\n",           250, 250, 250},
};
/* clang-format on */

static void in_doubt_or(struct talk *talk, const char *name, int code)
{
    struct attempt_result result;
    void *user;

    assert_true(smtp_transaction_result(talk->tx, &user, &result));
    assert_string_equal(user, name);
    assert_int_equal(result.reply.code, code);
    assert_int_equal(result.kind, code == 0 ? ATTEMPT_UNCONFIRMED : code < 300 ? ATTEMPT_ACCEPTED : ATTEMPT_REPLIED);
}

static void bdat_a_reply_that_cannot_belong_ends_the_connection(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < LENGTH(broken); i++)
        for (size_t cut = 0; cut < strlen(broken[i].replies); cut++) {
            struct talk talk;

            chunked_fill(&talk, 3, 3);
            smtp_transaction_in(talk.tx, broken[i].replies, cut, 1);
            smtp_transaction_in(talk.tx, broken[i].replies + cut, strlen(broken[i].replies) - cut, 1);
            in_doubt_or(&talk, "first", broken[i].first);
            in_doubt_or(&talk, "second", broken[i].second);
            in_doubt_or(&talk, "third", broken[i].third);
            no_result(&talk);
            assert_int_equal(smtp_transaction_end(talk.tx), SMTP_END_GARBAGE);
            smtp_transaction_free(talk.tx);
        }
}

/* A relay that has had enough mails on one connection says 421 to MAIL and closes: the mails behind were never looked at. */
static void bdat_behind_a_421_the_end_of_the_stream_decides(void **unused)
{
    static const struct {
        enum smtp_end end;
        enum attempt_kind kind;
        enum smtp_phase phase;
    } after[] = {{SMTP_END_CLOSED, ATTEMPT_NOT_TAKEN, PHASE_MAIL},
                 {SMTP_END_LOST, ATTEMPT_UNCONFIRMED, PHASE_FINAL},
                 {SMTP_END_TIMEOUT, ATTEMPT_UNCONFIRMED, PHASE_FINAL}};

    (void)unused;
    for (size_t i = 0; i < LENGTH(after); i++) {
        struct talk talk;

        chunked_fill(&talk, 4, 3);
        hears(&talk, "250 first is in\r\n250 reset\r\n421 4.7.0 enough\r\n");
        result_of(&talk, "first", ATTEMPT_ACCEPTED, PHASE_FINAL);
        result_of(&talk, "second", ATTEMPT_REPLIED, PHASE_MAIL);
        no_result(&talk);
        assert_true(smtp_transaction_closing(talk.tx));
        assert_false(smtp_transaction_room(talk.tx));
        assert_int_equal(smtp_transaction_wait(talk.tx), SMTP_WAIT_COMMAND);
        smtp_transaction_fail(talk.tx, after[i].end);
        result_of(&talk, "third", after[i].kind, after[i].phase);
        assert_int_equal(smtp_transaction_end(talk.tx), SMTP_END_421);
        smtp_transaction_free(talk.tx);
    }
}

/* And one that says 421 and goes on all the same is believed in what it says next. */
static void bdat_replies_behind_a_421_count(void **unused)
{
    struct talk talk;

    (void)unused;
    chunked_fill(&talk, 4, 3);
    hears(&talk, "250 first is in\r\n250 reset\r\n250 ok\r\n421 not this one\r\n");
    result_of(&talk, "first", ATTEMPT_ACCEPTED, PHASE_FINAL);
    result_of(&talk, "second", ATTEMPT_REPLIED, PHASE_RCPT);
    hears(&talk, "503 no\r\n250 reset\r\n250 ok\r\n250 ok\r\n250 third is in\r\n");
    result_of(&talk, "third", ATTEMPT_ACCEPTED, PHASE_FINAL);
    smtp_transaction_free(talk.tx);
}

static void bdat_quit_waits_for_the_window(void **unused)
{
    struct talk talk;

    (void)unused;
    chunked_fill(&talk, 2, 2);
    smtp_transaction_quit(talk.tx);
    hears(&talk, "250 in\r\n250 reset\r\n250 ok\r\n250 ok\r\n");
    result_of(&talk, "first", ATTEMPT_ACCEPTED, PHASE_FINAL);
    assert_false(smtp_transaction_room(talk.tx));
    hears(&talk, "250 in\r\n");
    result_of(&talk, "second", ATTEMPT_ACCEPTED, PHASE_FINAL);
    writes(&talk, "QUIT\r\n");
    hears(&talk, "221 bye\r\n");
    assert_int_equal(smtp_transaction_end(talk.tx), SMTP_END_QUIT);
    smtp_transaction_free(talk.tx);
}

/* Larger than the send buffer: only when its recipient is accepted, then piece by piece and the next one right behind. */
static void bdat_holds_back_a_large_mail_until_its_recipient_is_accepted(void **unused)
{
    size_t len = 200000, got = 0, n;
    char *data = malloc(len), *out = malloc(len + 1000);
    const char *piece;
    struct talk talk;

    (void)unused;
    for (size_t i = 0; i < len; i++)
        data[i] = i % 100 == 98 ? '\r' : i % 100 == 99 ? '\n' : '.';
    chunked_fill(&talk, 4, 1);
    talk.slice = (struct slice){data, len};
    start(&talk, "second");
    writes(&talk, "RSET\r\n" ENVELOPE);
    assert_false(smtp_transaction_room(talk.tx));
    hears(&talk, "250 in\r\n250 reset\r\n250 ok\r\n550 no\r\n");
    result_of(&talk, "first", ATTEMPT_ACCEPTED, PHASE_FINAL);
    result_of(&talk, "second", ATTEMPT_REPLIED, PHASE_RCPT);
    start(&talk, "third");
    writes(&talk, "RSET\r\n" ENVELOPE);
    hears(&talk, "250 reset\r\n250 ok\r\n250 ok\r\n");
    while ((n = smtp_transaction_out(talk.tx, &piece)) > 0) {
        memcpy(out + got, piece, n);
        got += n;
        smtp_transaction_wrote(talk.tx, n, 7);
        assert_int_equal(smtp_transaction_wait(talk.tx), got < len ? SMTP_WAIT_DATA : SMTP_WAIT_FINAL);
    }
    assert_int_equal(got, len + strlen("BDAT 200000 LAST\r\n"));
    assert_memory_equal(out, "BDAT 200000 LAST\r\n", got - len);
    assert_memory_equal(out + got - len, data, len);
    hears(&talk, "250 third is in\r\n");
    result_of(&talk, "third", ATTEMPT_ACCEPTED, PHASE_FINAL);
    smtp_transaction_free(talk.tx);
    free(data);
    free(out);
}

/* Mails of any size up to the buffer's: never half a promise, and what is said to be n octets are n octets. */
static void bdat_sizes_around_the_buffer_add_up(void **unused)
{
    static const size_t sizes[] = {20, 10000, 33000, 50000, 65000, 65535, 65536, 65537, 70000};
    char *data = malloc(70000);
    struct talk talk;

    (void)unused;
    for (size_t s = 0; s < LENGTH(sizes); s++) {
        size_t mails = 0, results = 0, octets = 0;

        memset(data, 'x', 70000);
        for (size_t i = 0; i + 2 <= sizes[s]; i += 100)
            memcpy(data + i, "\r\n", 2);
        memcpy(data + sizes[s] - 2, "\r\n", 2);
        chunked_begin(&talk, 5);
        talk.slice = (struct slice){data, sizes[s]};
        while (results < 12) {
            struct attempt_result result;
            const char *out;
            void *user;
            size_t n;

            while (mails < 12 && smtp_transaction_room(talk.tx)) {
                start(&talk, "first");
                mails++;
            }
            n = smtp_transaction_out(talk.tx, &out);
            assert_true(n > 0);
            smtp_transaction_wrote(talk.tx, n, 5);
            for (size_t at = 0; at < n;) { /* the relay: reads commands, counts octets */
                size_t rest = octets < n - at ? octets : n - at;
                const char *lf;

                at += rest;
                octets -= rest;
                if (rest > 0 && octets == 0)
                    hears(&talk, "250 in\r\n");
                if (at == n || octets > 0)
                    break;
                lf = memchr(out + at, '\n', n - at);
                assert_non_null(lf);
                if (out[at] == 'B')
                    octets = strtoul(out + at + 5, NULL, 10);
                else
                    hears(&talk, "250 ok\r\n");
                at = (size_t)(lf - out) + 1;
            }
            while (smtp_transaction_result(talk.tx, &user, &result)) {
                assert_int_equal(result.kind, ATTEMPT_ACCEPTED);
                results++;
            }
        }
        assert_int_equal(octets, 0);
        smtp_transaction_free(talk.tx);
    }
    free(data);
}

/* ---- content ---- */

/* An independent reading of the rule, byte by byte. */
static bool fit(const char *data, size_t len)
{
    size_t line = 0;

    if (len < 2 || data[len - 2] != '\r' || data[len - 1] != '\n')
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)data[i];

        if (c == 0 || c > 127)
            return false;
        if (c == '\r' && (i + 1 == len || data[i + 1] != '\n'))
            return false;
        if (c == '\n' && (i == 0 || data[i - 1] != '\r'))
            return false;
        line = c == '\n' ? 0 : line + (c != '\r');
        if (line > SMTP_LINE_MAX)
            return false;
    }
    return true;
}

static size_t stuff(const char *data, size_t len, char *out)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        if (data[i] == '.' && (i == 0 || data[i - 1] == '\n'))
            out[n++] = '.';
        out[n++] = data[i];
    }
    return n;
}

static void check_content(const char *data, size_t len, size_t cut, size_t room)
{
    struct slice slices[4] = {{data, 0}, {data, cut}, {data + cut, 0}, {data + cut, len - cut}};
    struct smtp_content_reader reader;
    char expected[64], out[64];
    size_t bytes = 0, dots = 0, n = 0;
    bool good = smtp_content_check(slices, LENGTH(slices), &bytes, &dots);

    assert_int_equal(good, fit(data, len));
    if (!good)
        return;
    assert_int_equal(bytes, len);
    smtp_content_begin(&reader, slices, LENGTH(slices), dots);
    while (!smtp_content_at_end(&reader)) {
        size_t more = smtp_content_copy(&reader, out + n, room);

        assert_in_range(more, 1, room);
        n += more;
    }
    assert_int_equal(n, stuff(data, len, expected));
    assert_int_equal(n, len + dots);
    assert_memory_equal(out, expected, n);
}

/* Smuggling: every sequence of six of these bytes, cut between two slices at every place. */
static void no_sequence_of_line_ends_and_dots_gets_past(void **unused)
{
    static const char alphabet[] = {'\r', '\n', '.', 'a', '\0', '\x85'};
    char data[8];
    size_t total = 6 * 6 * 6 * 6 * 6 * 6;

    (void)unused;
    for (size_t i = 0; i < total; i++) {
        size_t rest = i;

        for (size_t k = 0; k < 6; k++, rest /= 6)
            data[k] = alphabet[rest % 6];
        memcpy(data + 6, "\r\n", 2);
        for (size_t cut = 0; cut <= 8; cut++)
            check_content(data, 8, cut, 2 + cut);
        check_content(data, 6, 3, 2);
    }
}

static void lines_are_measured_across_slices(void **unused)
{
    char *data = malloc(2200);
    size_t bytes, dots;

    (void)unused;
    memset(data, 'x', 2200);
    for (size_t len = 996; len <= 1000; len++)
        for (size_t cut = 0; cut <= len + 2; cut += 83) {
            struct slice slices[2] = {{data, cut}, {data + cut, len + 2 - cut}};

            memset(data, 'x', 2200);
            memcpy(data + len, "\r\n", 2);
            assert_int_equal(smtp_content_check(slices, 2, &bytes, &dots), len <= SMTP_LINE_MAX);
        }
    free(data);
}

static void bytes_are_found_wherever_they_stand(void **unused)
{
    char data[300]; /* blocks, words and single bytes: see smtp_content.c */
    size_t bytes, dots;

    (void)unused;
    for (size_t at = 0; at < sizeof(data) - 2; at++)
        for (int c = 0; c < 256; c++) {
            struct slice slice = {data, sizeof(data)};

            memset(data, 'x', sizeof(data));
            memcpy(data + sizeof(data) - 2, "\r\n", 2);
            data[at] = (char)c;
            assert_int_equal(smtp_content_check(&slice, 1, &bytes, &dots), fit(data, sizeof(data)));
        }
}

static void line_ends_are_counted_however_many(void **unused)
{
    char data[1024];
    struct slice slice = {data, sizeof(data)};
    size_t bytes, dots;

    (void)unused;
    for (size_t i = 0; i < sizeof(data); i += 2)
        memcpy(data + i, "\r\n", 2);
    assert_true(smtp_content_check(&slice, 1, &bytes, &dots));
    for (size_t i = 0; i + 2 < sizeof(data); i++) {
        char was = data[i];

        data[i] = '\r';
        assert_int_equal(smtp_content_check(&slice, 1, &bytes, &dots), was == '\r');
        data[i] = was;
    }
    memset(data, '\r', sizeof(data) - 1); /* as many as a counter can hold, and wrong all the same */
    assert_false(smtp_content_check(&slice, 1, &bytes, &dots));
}

/* Larger than the send buffer: in pieces, each stuffed right, the dot at the end of the last. */
static void a_large_mail_comes_in_pieces_that_fit_together(void **unused)
{
    size_t lines = 30000, len = 0, got = 0, n;
    char *data = malloc(lines * 14), *out = malloc(lines * 16), *expected = malloc(lines * 16);
    const char *piece;
    struct talk talk;

    (void)unused;
    for (size_t i = 0; i < lines; i++)
        len += (size_t)sprintf(data + len, i % 3 ? "%zu\r\n" : ".%zu\r\n", i);
    talk_begin(&talk, true);
    talk.slice = (struct slice){data, len};
    start(&talk, "first");
    writes(&talk, envelope);
    hears(&talk, "250 ok\r\n250 ok\r\n354 go\r\n");
    while ((n = smtp_transaction_out(talk.tx, &piece)) > 0) {
        assert_int_equal(smtp_transaction_wait(talk.tx), SMTP_WAIT_DATA);
        memcpy(out + got, piece, n);
        got += n;
        smtp_transaction_wrote(talk.tx, n, 7);
    }
    n = stuff(data, len, expected);
    memcpy(expected + n, ".\r\n", 3);
    assert_int_equal(got, n + 3);
    assert_memory_equal(out, expected, got);
    hears(&talk, "250 in\r\n");
    result_of(&talk, "first", ATTEMPT_ACCEPTED, PHASE_FINAL);
    smtp_transaction_free(talk.tx);
    free(data);
    free(out);
    free(expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lock_step_asks_one_thing_at_a_time),
        cmocka_unit_test(pipelining_puts_the_next_envelope_behind_the_dot),
        cmocka_unit_test(a_refused_recipient_leaves_the_connection_in_step),
        cmocka_unit_test(a_354_without_recipients_is_answered_by_a_dot_alone),
        cmocka_unit_test(a_refused_sender_is_one_result_however_many_replies_follow),
        cmocka_unit_test(lost_is_unconfirmed_only_when_the_whole_dot_was_handed_over),
        cmocka_unit_test(lost_with_two_in_flight_judges_each_by_its_own_phase),
        cmocka_unit_test(a_reply_that_cannot_belong_ends_the_connection),
        cmocka_unit_test(a_word_nobody_asked_for_ends_an_idle_connection),
        cmocka_unit_test(a_421_to_the_dot_frees_the_mail_behind_it),
        cmocka_unit_test(quit_waits_for_what_is_in_flight),
        cmocka_unit_test(size_is_said_when_offered_and_kept),
        cmocka_unit_test(an_address_that_is_a_command_is_invalid),
        cmocka_unit_test(bdat_fills_its_window_without_waiting),
        cmocka_unit_test(bdat_wakes_a_silent_relay_before_it_sends_content),
        cmocka_unit_test(bdat_refused_recipients_cost_only_themselves),
        cmocka_unit_test(bdat_refused_before_its_content_is_out_stays_in_step),
        cmocka_unit_test(bdat_lost_leaves_those_in_doubt_that_were_handed_over),
        cmocka_unit_test(bdat_a_reply_that_cannot_belong_ends_the_connection),
        cmocka_unit_test(bdat_behind_a_421_the_end_of_the_stream_decides),
        cmocka_unit_test(bdat_replies_behind_a_421_count),
        cmocka_unit_test(bdat_quit_waits_for_the_window),
        cmocka_unit_test(bdat_holds_back_a_large_mail_until_its_recipient_is_accepted),
        cmocka_unit_test(bdat_sizes_around_the_buffer_add_up),
        cmocka_unit_test(no_sequence_of_line_ends_and_dots_gets_past),
        cmocka_unit_test(lines_are_measured_across_slices),
        cmocka_unit_test(bytes_are_found_wherever_they_stand),
        cmocka_unit_test(line_ends_are_counted_however_many),
        cmocka_unit_test(a_large_mail_comes_in_pieces_that_fit_together),
    };

    int rc;

    buffers = smtp_buffers_new();
    rc = cmocka_run_group_tests_name("smtp_transaction", tests, NULL, NULL);
    smtp_buffers_free(buffers);
    return rc;
}
