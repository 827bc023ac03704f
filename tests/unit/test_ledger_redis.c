/* The ledger's scripts in a real redis-server that this program starts on its own port and stops. */
#include "redis_group.h"

#include "tandem/ledger.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct answer {
    bool done;
    enum td_code code;
    long long integer;
    size_t more;      /* elements after the first, of an array */
    long long second; /* the first of those */
    long long third;
    long long other;  /* of td_ledger_end: the first that had ended otherwise */
    char second_text[32];
    char text[512];
    size_t text_len;
};

static void on_answer(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct answer *answer = user;
    const char *text = td_reply_str(reply, &answer->text_len);

    answer->done = true;
    answer->code = err ? err->code : TD_OK;
    answer->integer = td_reply_int(td_reply_type(reply) == TD_REPLY_ARRAY ? td_reply_at(reply, 0) : reply);
    answer->more = td_reply_count(reply) ? td_reply_count(reply) - 1 : 0;
    answer->second = td_reply_int(td_reply_at(reply, 1));
    answer->third = td_reply_int(td_reply_at(reply, 2));
    answer->other = td_reply_int(td_reply_at(reply, TD_ENDED_OTHERS));
    snprintf(answer->second_text, sizeof(answer->second_text), "%s", td_reply_at(reply, 1) ? td_reply_str(td_reply_at(reply, 1), NULL) : "");
    assert_true(answer->text_len < sizeof(answer->text));
    memcpy(answer->text, text, answer->text_len + 1);
}

static struct answer shared;

/* What a call that must succeed is answered; rc: what the call returned. */
static long long number_of(int rc)
{
    assert_int_equal(rc, TD_OK);
    assert_true(loop_until(&loop, &shared.done, 3000));
    assert_int_equal(shared.code, TD_OK);
    shared.done = false;
    return shared.integer;
}

static long long ask(const char *const *words)
{
    struct td_arg args[8];
    size_t n = 0;

    for (; words[n]; n++)
        args[n] = TD_ARG_STR(words[n]);
    return number_of(td_redis_command(redis, args, n, on_answer, &shared));
}
#define ASK(...) ask((const char *const[]){__VA_ARGS__, NULL})

struct begun {
    bool done;
    enum td_code code;
    size_t count;
    char verdicts[TD_LEDGER_BATCH + 1]; /* G D T P */
    char outcome[TD_LEDGER_BATCH][16];
};
static struct begun begun;

static void on_begun(void *user, const struct td_begun *mails, size_t count, const struct td_err *err)
{
    (void)user;
    begun.done = true;
    begun.code = err ? err->code : TD_OK;
    begun.count = count;
    for (size_t i = 0; i < count; i++) {
        begun.verdicts[i] = "GDTP"[mails[i].verdict];
        snprintf(begun.outcome[i], sizeof(begun.outcome[i]), "%.*s", (int)mails[i].outcome_len,
                 mails[i].outcome ? (const char *)mails[i].outcome : "");
    }
    begun.verdicts[count] = '\0';
}

static const char *begin_as(const char *campaign, const char *token, const uint32_t *index, size_t count)
{
    memset(&begun, 0, sizeof(begun));
    assert_int_equal(td_ledger_begin_as(redis, campaign, token, index, count, on_begun, NULL), TD_OK);
    assert_true(loop_until(&loop, &begun.done, 3000));
    assert_int_equal(begun.code, TD_OK);
    return begun.verdicts;
}

static const char *begin(const char *campaign, const uint32_t *index, size_t count)
{
    return begin_as(campaign, "", index, count);
}

static void a_mail_goes_once_then_is_tried_then_done(void **unused)
{
    static const uint32_t index[] = {0, 7, 999999};
    const struct td_ended ended[] = {{7, "accepted", "ses", "out7", 4}};

    (void)unused;
    assert_string_equal(begin("life", index, 3), "GGG");
    assert_string_equal(begin("life", index, 3), "TTT");
    assert_int_equal(number_of(td_ledger_end(redis, "life", ended, 1, on_answer, &shared)), 1);
    assert_string_equal(begin("life", index, 3), "TDT");
    assert_string_equal(begun.outcome[1], "out7"); /* mail.outcomes may lack it */
    assert_int_equal(number_of(td_ledger_published(redis, "life", &index[1], 1, on_answer, &shared)), 1);
    assert_string_equal(begin("life", index, 3), "TDT");
    assert_string_equal(begun.outcome[1], "");
    assert_string_equal(begin("other", index, 3), "GGG"); /* campaigns do not mix */
}

static void an_end_told_twice_counts_once(void **unused)
{
    const struct td_ended first[] = {
        {1, "accepted", "ses", "a", 1}, {2, "refused", "", "b", 1}, {3, "suppressed", "", "c", 1}, {5, "refused", "ses", "e", 1}};
    const struct td_ended again[] = {{1, "accepted", "backup", "z", 1}, {4, "accepted", "backup", "d", 1}};
    static const uint32_t published[] = {1};

    (void)unused;
    assert_int_equal(number_of(td_ledger_end(redis, "twice", first, 4, on_answer, &shared)), 4);
    assert_int_equal(number_of(td_ledger_published(redis, "twice", published, 1, on_answer, &shared)), 1);
    assert_int_equal(number_of(td_ledger_end(redis, "twice", first, 4, on_answer, &shared)), 0);
    assert_int_equal(shared.more, TD_ENDED_OTHERS); /* the hours, and one: of 1, published, nobody knows any more which outcome it had: not ours to say */
    assert_int_equal(number_of(td_ledger_end(redis, "twice", again, 2, on_answer, &shared)), 1);
    assert_int_equal(shared.more, TD_ENDED_OTHERS);
    assert_int_equal(shared.other, 0); /* the first in the call had ended otherwise */
    assert_int_equal(ASK("HGET", "td:{c:twice}:totals", "accepted"), 2);
    assert_int_equal(ASK("HGET", "td:{c:twice}:totals", "accepted:ses"), 1);
    assert_int_equal(ASK("HGET", "td:{c:twice}:totals", "accepted:backup"), 1);
    assert_int_equal(ASK("HGET", "td:{c:twice}:totals", "refused"), 2);
    assert_int_equal(ASK("HGET", "td:{c:twice}:totals", "refused:ses"), 1); /* of those, for the address's fault */
    assert_int_equal(ASK("HLEN", "td:{c:twice}:totals"), 6);
    assert_int_equal(ASK("HGET", "td:{c:twice}:totals", "suppressed"), 1);
    assert_int_equal(ASK("HEXISTS", "td:{c:twice}:pending", "1"), 0); /* published stays published */
    assert_int_equal(ASK("HLEN", "td:{c:twice}:pending"), 4);
}

/* What bounce asks before it ends a mail whose relay has told of it. */
static void a_look_tells_the_end_and_what_is_not_published(void **unused)
{
    const struct td_ended ended = {7, "accepted", "ses", "packed", 6};
    const uint32_t index = 7;

    (void)unused;
    assert_int_equal(number_of(td_ledger_look(redis, "look", 7, on_answer, &shared)), 0);
    assert_int_equal(number_of(td_ledger_end(redis, "look", &ended, 1, on_answer, &shared)), 1);
    assert_int_equal(number_of(td_ledger_look(redis, "look", 7, on_answer, &shared)), 1);
    assert_string_equal(shared.second_text, "packed");
    assert_int_equal(number_of(td_ledger_published(redis, "look", &index, 1, on_answer, &shared)), 1);
    assert_int_equal(number_of(td_ledger_look(redis, "look", 7, on_answer, &shared)), 1);
    assert_string_equal(shared.second_text, "");
    assert_int_equal(number_of(td_ledger_look(redis, "look", 8, on_answer, &shared)), 0);
    assert_int_equal(td_ledger_look(redis, "look", TD_LEDGER_INDEX_MAX + 1, on_answer, &shared), TD_EINVAL);
}

static long long doubt(const char *campaign, uint32_t index, const char *relay)
{
    return number_of(td_ledger_doubt(redis, campaign, index, relay, on_answer, &shared));
}

static long long note(const char *campaign, uint32_t index, const char *outcome)
{
    return number_of(td_ledger_note(redis, campaign, index, outcome, strlen(outcome), on_answer, &shared));
}

static long long look_doubt(const char *campaign, uint32_t index)
{
    number_of(td_ledger_look(redis, campaign, index, on_answer, &shared));
    return shared.third;
}

/* First the doubt, then the evidence. */
static void a_mail_in_doubt_is_ended_by_whoever_has_evidence(void **unused)
{
    static const uint32_t index[] = {4, 5};
    const struct td_ended proof = {4, "accepted", "ses", "proof4", 6}, late = {4, TD_UNPROVEN, "", "late4", 5},
                          none = {5, TD_UNPROVEN, "", "late5", 5};

    (void)unused;
    begin("doubt", index, 2);
    assert_int_equal(look_doubt("doubt", 4), 0);
    assert_int_equal(doubt("doubt", 4, "ses"), TD_TRIED);
    assert_int_equal(doubt("doubt", 4, ""), TD_TRIED); /* its next owner, who does not know */
    assert_int_equal(doubt("doubt", 5, ""), TD_TRIED);
    ASK("HGET", "td:{c:doubt}:doubt", "4");
    assert_string_equal(shared.text, "ses");
    assert_int_equal(look_doubt("doubt", 4), 1);
    assert_int_equal(note("doubt", 4, "proof4"), TD_NOTE_DOUBT); /* to be ended, not noted */
    assert_int_equal(ASK("EXISTS", "td:{c:doubt}:evidence"), 0);
    assert_int_equal(number_of(td_ledger_end(redis, "doubt", &proof, 1, on_answer, &shared)), 1);
    assert_int_equal(number_of(td_ledger_end(redis, "doubt", &late, 1, on_answer, &shared)), 0);
    assert_int_equal(shared.more, TD_ENDED_OTHERS); /* evidence came first */
    assert_int_equal(doubt("doubt", 4, ""), TD_DONE);
    assert_string_equal(shared.second_text, "proof4");
    assert_int_equal(note("doubt", 4, "again"), TD_NOTE_DONE);
    assert_int_equal(number_of(td_ledger_end(redis, "doubt", &none, 1, on_answer, &shared)), 1); /* nothing came */
    assert_int_equal(ASK("HGET", "td:{c:doubt}:totals", "accepted:ses"), 1);
    assert_int_equal(ASK("HGET", "td:{c:doubt}:totals", "unconfirmed"), 1);
    assert_int_equal(ASK("HLEN", "td:{c:doubt}:totals"), 3);
    assert_int_equal(ASK("EXISTS", "td:{c:doubt}:doubt"), 0); /* nothing of it stays */
}

/* First the evidence, while somebody has the mail under way, then the doubt, or none. */
static void evidence_that_comes_early_is_kept_for_the_doubt(void **unused)
{
    static const uint32_t index[] = {1, 2, 3, 4};
    const struct td_ended by_sender = {1, "accepted", "ses", "reply1", 6}, unproven = {2, TD_UNPROVEN, "", "late2", 5},
                          proven = {2, "accepted", "ses", "proof2", 6}, said = {3, "unconfirmed", "", "late3", 5};

    (void)unused;
    assert_string_equal(begin_as("early", "me-1", index, 4), "GGGG");
    assert_int_equal(note("early", 1, "proof1"), TD_NOTED);
    assert_int_equal(note("early", 2, "proof2"), TD_NOTED);
    assert_int_equal(note("early", 2, "other2"), TD_NOTED); /* the first one stays */
    assert_int_equal(note("early", 3, "proof3"), TD_NOTED);
    assert_int_equal(note("early", 9, "proof9"), TD_NOTED); /* begun without the ledger, perhaps */
    assert_int_equal(ASK("GETBIT", "td:{c:early}:done", "1"), 0); /* noted is not ended */

    assert_int_equal(number_of(td_ledger_end(redis, "early", &by_sender, 1, on_answer, &shared)), 1);
    assert_int_equal(shared.more, 1); /* the sender's own word is no other */
    assert_int_equal(doubt("early", 2, "ses"), TD_PROVEN);
    assert_string_equal(shared.second_text, "proof2");
    assert_string_equal(begin("early", &index[1], 3), "PPT"); /* a new owner */
    assert_string_equal(begun.outcome[0], "proof2");
    assert_string_equal(begun.outcome[1], "proof3");
    assert_string_equal(begin_as("early", "me-1", index, 4), "DPPG"); /* asked again, as if the answer had been lost */
    assert_int_equal(number_of(td_ledger_end(redis, "early", &unproven, 1, on_answer, &shared)), 0);
    assert_int_equal(shared.more, TD_ENDED_OTHERS);
    assert_int_equal(shared.other, 0);
    assert_int_equal(number_of(td_ledger_end(redis, "early", &proven, 1, on_answer, &shared)), 1);
    /* What is on mail.outcomes already is written down as it is. */
    assert_int_equal(number_of(td_ledger_end(redis, "early", &said, 1, on_answer, &shared)), 1);
    assert_int_equal(ASK("HLEN", "td:{c:early}:evidence"), 1); /* that of 9 */
    assert_string_equal(begin("early", (const uint32_t[]){9}, 1), "P");
    assert_int_equal(ASK("EXISTS", "td:{c:early}:doubt"), 0);
}

static void a_mail_the_relay_did_not_take_may_go_again(void **unused)
{
    static const uint32_t index[] = {10, 11};
    const struct td_ended ended[] = {{11, "accepted", "ses", "x", 1}};

    (void)unused;
    assert_string_equal(begin("undo", index, 2), "GG");
    assert_int_equal(number_of(td_ledger_end(redis, "undo", ended, 1, on_answer, &shared)), 1);
    assert_int_equal(number_of(td_ledger_undo(redis, "undo", index, 2, on_answer, &shared)), 1);
    assert_int_equal(number_of(td_ledger_undo(redis, "undo", index, 2, on_answer, &shared)), 0);
    assert_string_equal(begin("undo", index, 2), "GD"); /* done is never undone */
}

static void a_begin_with_a_token_may_be_repeated(void **unused)
{
    static const uint32_t index[] = {1, 2, 3};
    const struct td_ended ended[] = {{2, "accepted", "ses", "two", 3}};

    (void)unused;
    assert_string_equal(begin("token", &index[2], 1), "G"); /* somebody else tried 3 */
    assert_string_equal(begin_as("token", "run1-1", index, 3), "GGT");
    assert_string_equal(begin_as("token", "run1-1", index, 3), "GGT"); /* as if the first answer had been lost */
    assert_string_equal(begin_as("token", "run1-2", index, 3), "TTT");
    assert_int_equal(number_of(td_ledger_end(redis, "token", ended, 1, on_answer, &shared)), 1);
    assert_string_equal(begin_as("token", "run1-1", index, 3), "GDT");
    assert_string_equal(begun.outcome[1], "two");
    assert_in_range(ASK("TTL", "td:{c:token}:begun:run1-1"), 590, 600);
}

static void a_full_batch_fits(void **unused)
{
    static uint32_t index[TD_LEDGER_BATCH];
    static struct td_ended ended[TD_LEDGER_BATCH];

    (void)unused;
    for (uint32_t i = 0; i < TD_LEDGER_BATCH; i++) {
        index[i] = TD_LEDGER_INDEX_MAX - i * 3;
        ended[i] = (struct td_ended){index[i], "accepted", "ses", "o", 1};
    }
    begin("batch", index, TD_LEDGER_BATCH);
    assert_int_equal(strspn(begun.verdicts, "G"), TD_LEDGER_BATCH);
    assert_int_equal(number_of(td_ledger_end(redis, "batch", ended, TD_LEDGER_BATCH, on_answer, &shared)),
                     TD_LEDGER_BATCH);
    begin("batch", index, TD_LEDGER_BATCH);
    assert_int_equal(strspn(begun.verdicts, "D"), TD_LEDGER_BATCH);
    assert_int_equal(number_of(td_ledger_published(redis, "batch", index, TD_LEDGER_BATCH, on_answer, &shared)),
                     TD_LEDGER_BATCH);
    assert_int_equal(ASK("HGET", "td:{c:batch}:totals", "accepted:ses"), TD_LEDGER_BATCH);
}

static void what_is_out_of_range_is_refused_at_once(void **unused)
{
    static const uint32_t far[] = {TD_LEDGER_INDEX_MAX + 1}, many[TD_LEDGER_BATCH + 1];
    const struct td_ended ended[] = {{TD_LEDGER_INDEX_MAX + 1, "accepted", "ses", "o", 1}};

    (void)unused;
    assert_int_equal(td_ledger_begin(redis, "x", far, 1, on_begun, NULL), TD_EINVAL);
    assert_int_equal(td_ledger_begin(redis, "x", many, COUNT(many), on_begun, NULL), TD_EINVAL);
    assert_int_equal(td_ledger_begin(redis, "x", many, 0, on_begun, NULL), TD_EINVAL);
    assert_int_equal(td_ledger_begin(redis, "x}:y", many, 1, on_begun, NULL), TD_EINVAL);
    assert_int_equal(td_ledger_begin_as(redis, "x", "a}b", many, 1, on_begun, NULL), TD_EINVAL);
    assert_int_equal(td_ledger_end(redis, "x", ended, 1, on_answer, NULL), TD_EINVAL);
    assert_int_equal(td_ledger_doubt(redis, "x", TD_LEDGER_INDEX_MAX + 1, "ses", on_answer, NULL), TD_EINVAL);
    assert_int_equal(td_ledger_note(redis, "x", TD_LEDGER_INDEX_MAX + 1, "o", 1, on_answer, NULL), TD_EINVAL);
    assert_int_equal(td_ledger_bounce(redis, "x", TD_LEDGER_INDEX_MAX + 1, "ses", "hard", NULL, NULL), TD_EINVAL);
    assert_int_equal(td_lane_acquire(redis, "a{b", "me", 100, on_answer, NULL), TD_EINVAL);
}

static void admitted_recipients_count_once_and_keep_their_hash(void **unused)
{
    static const uint32_t index[] = {0, 5}, again[] = {5, 6};
    uint8_t hash[2][TD_HASH_BYTES];

    (void)unused;
    memset(hash[0], 'a', TD_HASH_BYTES);
    memset(hash[1], 'b', TD_HASH_BYTES);
    assert_int_equal(number_of(td_ledger_admit(redis, "admit", index, hash, 2, on_answer, &shared)), 2);
    memset(hash[0], 'c', TD_HASH_BYTES);
    assert_int_equal(number_of(td_ledger_admit(redis, "admit", again, hash, 2, on_answer, &shared)), 1);
    assert_int_equal(ASK("HGET", "td:{c:admit}:totals", "submitted"), 3);
    ASK("GETRANGE", "td:{c:admit}:addr", "80", "111"); /* 5 x 16 .. 7 x 16 - 1 */
    assert_string_equal(shared.text, "bbbbbbbbbbbbbbbb"
                                     "bbbbbbbbbbbbbbbb");
    number_of(td_ledger_seal(redis, "admit", 7, on_answer, &shared));
    assert_int_equal(ASK("HGET", "td:{c:admit}:totals", "count"), 7);
}

static void a_bounce_counts_once_and_hard_wins(void **unused)
{
    static const struct {
        uint32_t index;
        const char *class_name;
        int counted;
    } row[] = {{1, "hard", 1}, {1, "hard", 0},  {1, "soft", 0}, {2, "soft", 1},  {2, "soft", 0},
               {2, "hard", 1}, {3, "block", 1}, {3, "soft", 0}, {3, "block", 0}, {4, "soft", 1}};

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++)
        assert_int_equal(number_of(td_ledger_bounce(redis, "bounce", row[i].index, "ses", row[i].class_name,
                                                    on_answer, &shared)),
                         row[i].counted);
    assert_int_equal(ASK("HGET", "td:{c:bounce}:totals", "hard:ses"), 2);
    assert_int_equal(ASK("HGET", "td:{c:bounce}:totals", "soft:ses"), 1);
    assert_int_equal(ASK("HGET", "td:{c:bounce}:totals", "block:ses"), 1);
}

static void every_key_of_a_campaign_goes_after_thirty_days(void **unused)
{
    static const char *const part[] = {"seen", "addr", "totals", "tried", "done", "pending", "bounced", "doubt", "evidence"};
    static const uint32_t index[] = {1};
    const struct td_ended ended[] = {{1, "accepted", "ses", "o", 1}};
    const uint8_t hash[1][TD_HASH_BYTES] = {{1}};
    char key[64];

    (void)unused;
    number_of(td_ledger_admit(redis, "ttl", index, hash, 1, on_answer, &shared));
    begin("ttl", index, 1);
    number_of(td_ledger_end(redis, "ttl", ended, 1, on_answer, &shared));
    number_of(td_ledger_bounce(redis, "ttl", 1, "ses", "hard", on_answer, &shared));
    note("ttl", 2, "proof");
    doubt("ttl", 3, "ses");
    for (size_t i = 0; i < COUNT(part); i++) {
        snprintf(key, sizeof(key), "td:{c:ttl}:%s", part[i]);
        assert_in_range(ASK("TTL", key), 29 * 86400, 30 * 86400);
    }
}

static void a_lane_has_one_owner_and_a_rising_fence(void **unused)
{
    long long wait;

    (void)unused;
    assert_int_equal(number_of(td_lane_acquire(redis, "out-1", "a", 60000, on_answer, &shared)), 1);
    assert_int_equal(shared.second, 2); /* nobody had it before */
    assert_int_equal(number_of(td_lane_acquire(redis, "out-1", "a", 60000, on_answer, &shared)), 1);
    wait = -number_of(td_lane_acquire(redis, "out-1", "b", 60000, on_answer, &shared));
    assert_in_range(wait, 50000, 60000);
    assert_int_equal(number_of(td_lane_release(redis, "out-1", "b", true, on_answer, &shared)), 0);
    assert_int_equal(number_of(td_lane_acquire(redis, "out-1", "a", 60000, on_answer, &shared)), 1);
    assert_int_equal(number_of(td_lane_release(redis, "out-1", "a", true, on_answer, &shared)), 1);
    assert_int_equal(number_of(td_lane_acquire(redis, "out-1", "b", 60000, on_answer, &shared)), 2);
    assert_int_equal(shared.second, 1); /* let go clean */
    assert_int_equal(number_of(td_lane_release(redis, "out-1", "b", false, on_answer, &shared)), 1);
    assert_int_equal(number_of(td_lane_acquire(redis, "out-1", "c", 60000, on_answer, &shared)), 3);
    assert_int_equal(shared.second, 0);
    assert_int_equal(number_of(td_lane_acquire(redis, "out-2", "b", 60000, on_answer, &shared)), 1);
}

static void a_lease_that_ran_out_is_lost_to_the_next(void **unused)
{
    (void)unused;
    assert_int_equal(number_of(td_lane_acquire(redis, "short", "a", 30, on_answer, &shared)), 1);
    loop_for(&loop, 60);
    assert_int_equal(number_of(td_lane_acquire(redis, "short", "b", 60000, on_answer, &shared)), 2);
    assert_int_equal(shared.second, 0); /* it ran out: who knows what the other one did */
    assert_true(number_of(td_lane_acquire(redis, "short", "a", 30, on_answer, &shared)) < 0);
}

struct checked {
    bool done;
    enum td_code code;
    char list[601];
};

static void on_checked(void *user, const uint8_t *suppressed, size_t count, const struct td_err *err)
{
    struct checked *checked = user;

    checked->done = true;
    checked->code = err ? err->code : TD_OK;
    for (size_t i = 0; i < count; i++)
        checked->list[i] = suppressed[i] ? 'x' : '.';
}

static void suppressed_hashes_are_found(void **unused)
{
    static uint8_t hash[600][TD_HASH_BYTES];
    struct checked checked = {0};

    (void)unused;
    for (size_t i = 0; i < COUNT(hash); i++) {
        hash[i][0] = (uint8_t)(i * 7);
        hash[i][15] = (uint8_t)(i >> 8);
        hash[i][14] = (uint8_t)i;
    }
    assert_int_equal(number_of(td_suppression_add(redis, hash[1], on_answer, &shared)), 1);
    assert_int_equal(number_of(td_suppression_add(redis, hash[1], on_answer, &shared)), 0);
    number_of(td_suppression_add(redis, hash[0], on_answer, &shared));
    number_of(td_suppression_add(redis, hash[599], on_answer, &shared));
    assert_int_equal(number_of(td_suppression_remove(redis, hash[0], on_answer, &shared)), 1);
    assert_int_equal(td_suppression_check(redis, hash, 600, on_checked, &checked), TD_OK);
    assert_true(loop_until(&loop, &checked.done, 3000));
    assert_int_equal(checked.code, TD_OK);
    for (size_t i = 0; i < COUNT(hash); i++)
        assert_int_equal(checked.list[i], i == 1 || i == 599 ? 'x' : '.');
}

static void a_million_recipients_take_a_quarter_of_a_megabyte_of_bits(void **unused)
{
    static const uint32_t last[] = {999999};
    const struct td_ended ended[] = {{999999, "accepted", "ses", "o", 1}};

    (void)unused;
    begin("million", last, 1);
    number_of(td_ledger_end(redis, "million", ended, 1, on_answer, &shared));
    assert_int_equal(ASK("STRLEN", "td:{c:million}:tried") + ASK("STRLEN", "td:{c:million}:done"), 250000);
}

/* Last: it takes the server away. */
static void without_redis_every_call_fails_by_its_callback(void **unused)
{
    static const uint32_t index[] = {1};
    const uint8_t hash[3][TD_HASH_BYTES] = {{1}};
    struct checked checked = {0};

    (void)unused;
    redis_server_stop(&server);
    loop_for(&loop, 50);
    memset(&begun, 0, sizeof(begun));
    assert_int_equal(td_ledger_begin(redis, "x", index, 1, on_begun, NULL), TD_EIO);
    assert_true(loop_until(&loop, &begun.done, 1000));
    assert_int_equal(begun.code, TD_EIO);
    assert_int_equal(begun.count, 0);
    assert_int_equal(td_suppression_check(redis, hash, 3, on_checked, &checked), TD_EIO);
    assert_true(loop_until(&loop, &checked.done, 1000));
    assert_int_equal(checked.code, TD_EIO);
}

static int group_start(void **state)
{
    return redis_group_start(state) || ASK("SET", "td:{view}", "0 test") != 0; /* without it the ledger answers nothing */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mail_goes_once_then_is_tried_then_done),
        cmocka_unit_test(an_end_told_twice_counts_once),
        cmocka_unit_test(a_look_tells_the_end_and_what_is_not_published),
        cmocka_unit_test(a_mail_in_doubt_is_ended_by_whoever_has_evidence),
        cmocka_unit_test(evidence_that_comes_early_is_kept_for_the_doubt),
        cmocka_unit_test(a_mail_the_relay_did_not_take_may_go_again),
        cmocka_unit_test(a_begin_with_a_token_may_be_repeated),
        cmocka_unit_test(a_full_batch_fits),
        cmocka_unit_test(what_is_out_of_range_is_refused_at_once),
        cmocka_unit_test(admitted_recipients_count_once_and_keep_their_hash),
        cmocka_unit_test(a_bounce_counts_once_and_hard_wins),
        cmocka_unit_test(every_key_of_a_campaign_goes_after_thirty_days),
        cmocka_unit_test(a_lane_has_one_owner_and_a_rising_fence),
        cmocka_unit_test(a_lease_that_ran_out_is_lost_to_the_next),
        cmocka_unit_test(suppressed_hashes_are_found),
        cmocka_unit_test(a_million_recipients_take_a_quarter_of_a_megabyte_of_bits),
        cmocka_unit_test(without_redis_every_call_fails_by_its_callback),
    };

    return cmocka_run_group_tests(tests, group_start, redis_group_end);
}
