#include "waiting.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay_ask.h"
#include "tandem/clock.h"
#include "tandem/kafka.h"
#include "tandem/ledger.h"
#include "tandem/pb.h"
#include "text.h"

#include "tandem/mail/v1/outcome.pb-c.h"

enum { FLUSH_MS = 10000 };

/* ---- looking ---- */

struct look {
    struct relay_ask ask; /* first */
    const char *campaign_id;
    struct waiting *found;
};

static void fail_memory(struct relay_ask *ask)
{
    relay_ask_end(ask, ctl_error(&(struct td_err){TD_ENOMEM, "no memory for mails in doubt"}));
}

static int by_index(const void *a, const void *b)
{
    const struct waiting_mail *x = a, *y = b;

    return (x->index > y->index) - (x->index < y->index);
}

/* index, relay, index, relay, ... */
static void on_doubt(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct look *look = user;
    struct waiting *found = look->found;
    size_t count = td_reply_count(reply) / 2;

    if (!relay_answered(&look->ask, err))
        return;
    found->mail = calloc(count + 1, sizeof(*found->mail));
    if (!found->mail) {
        fail_memory(&look->ask);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct waiting_mail *mail = &found->mail[found->count];
        const char *relay = td_reply_str(td_reply_at(reply, 2 * i + 1), NULL);
        uint64_t index;

        if (!text_number(td_reply_str(td_reply_at(reply, 2 * i), NULL), TD_LEDGER_INDEX_MAX, &index) ||
            strspn(relay, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(relay) || strlen(relay) >= sizeof(mail->relay))
            continue; /* nothing that dispatch writes */
        mail->index = (uint32_t)index;
        snprintf(mail->relay, sizeof(mail->relay), "%s", relay);
        found->count++;
    }
    qsort(found->mail, found->count, sizeof(*found->mail), by_index);
    relay_ask_end(&look->ask, CTL_OK);
}

static void look_step(struct relay_ask *ask)
{
    struct look *look = (struct look *)ask;
    char key[TD_CAMPAIGN_ID_MAX + 24];

    snprintf(key, sizeof(key), "td:{c:%s}:doubt", look->campaign_id);
    relay_asked(ask, td_redis_command(ask->redis, (struct td_arg[]){TD_ARG_STR("HGETALL"), TD_ARG_STR(key)}, 2, on_doubt, look));
}

int waiting_read(struct ctl *ctl, const char *campaign_id, struct waiting *ret)
{
    struct look look = {.ask = {.ctl = ctl, .step = look_step}, .campaign_id = campaign_id, .found = ret};

    *ret = (struct waiting){NULL, 0};
    return relay_ask_run(&look.ask);
}

const struct waiting_mail *waiting_find(const struct waiting *waiting, uint32_t index)
{
    const struct waiting_mail key = {.index = index};

    return waiting->count ? bsearch(&key, waiting->mail, waiting->count, sizeof(key), by_index) : NULL;
}

/* ---- ending: the ledger first, then mail.outcomes. Should this program die in between, dispatch finds the outcome in
 * the ledger when the mail comes round, and publishes it. ---- */

struct packed {
    void *data; /* NULL: somebody was faster */
    size_t len;
};

struct ending {
    struct relay_ask ask; /* first */
    const char *campaign_id;
    const struct waiting_mail *mail;
    size_t count, at; /* at: which goes to the ledger next */
    bool accepted;
    struct packed *packed;
    size_t on_their_way;
    int64_t now_ms;
    int code;
};

static void *outcome_of(const struct ending *e, size_t *ret_len)
{
    Tandem__Mail__V1__Outcome outcome = TANDEM__MAIL__V1__OUTCOME__INIT;
    Tandem__Mail__V1__RecipientOutcome rcpt = TANDEM__MAIL__V1__RECIPIENT_OUTCOME__INIT;

    rcpt.result = e->accepted ? TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_ACCEPTED
                              : TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_REFUSED;
    rcpt.relay = (char *)(uintptr_t)e->mail[e->at].relay;
    rcpt.reason = (char *)(uintptr_t) "evidence.operator";
    rcpt.attempts = 1;
    outcome.campaign_id = (char *)(uintptr_t)e->campaign_id;
    outcome.index = e->mail[e->at].index;
    outcome.at_unix_ms = e->now_ms;
    outcome.service = (char *)(uintptr_t) "tandemctl";
    outcome.kind_case = TANDEM__MAIL__V1__OUTCOME__KIND_RECIPIENT;
    outcome.recipient = &rcpt;
    return td_pb_write(&outcome.base, ret_len);
}

static void end_step(struct relay_ask *ask);

static void on_ended(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct ending *e = user;

    if (!relay_answered(&e->ask, err))
        return;
    if (td_reply_count(reply) > TD_ENDED_OTHERS) {
        ctl_say("number %u has got its outcome meanwhile", (unsigned)e->mail[e->at].index);
        free(e->packed[e->at].data);
        e->packed[e->at].data = NULL;
    }
    e->at++;
    end_step(&e->ask);
}

static void end_step(struct relay_ask *ask)
{
    struct ending *e = (struct ending *)ask;
    struct td_ended ended = {.result = e->accepted ? "accepted" : "refused"};
    struct packed *packed = &e->packed[e->at];

    if (e->at == e->count) {
        relay_ask_end(ask, CTL_OK);
        return;
    }
    if (!packed->data) /* a question without an answer is asked again, with the same outcome */
        packed->data = outcome_of(e, &packed->len);
    if (!packed->data) {
        fail_memory(ask);
        return;
    }
    ended.index = e->mail[e->at].index;
    ended.relay = e->accepted ? e->mail[e->at].relay : ""; /* refused for the address's fault: nobody says so */
    ended.outcome = packed->data;
    ended.outcome_len = packed->len;
    relay_asked(ask, td_ledger_end(ask->redis, e->campaign_id, &ended, 1, on_ended, e));
}

static void on_delivered(void *user, int64_t offset, const struct td_err *err)
{
    struct ending *e = user;

    (void)offset;
    if (err)
        e->code = ctl_error(err);
    if (--e->on_their_way == 0)
        uv_stop(&e->ask.ctl->loop);
}

static int publish(struct ending *e)
{
    struct ctl *ctl = e->ask.ctl;
    struct td_kafka_out *out;
    struct td_err err;

    e->code = CTL_OK;
    if (td_kafka_out_new(&ctl->loop, &ctl->settings, NULL, &out, &err) < 0)
        return ctl_error(&err);
    for (size_t i = 0; i < e->at; i++) {
        char key[TD_MAIL_KEY_MAX];
        size_t key_len = td_mail_key(key, e->campaign_id, e->mail[i].index);

        if (!e->packed[i].data)
            continue;
        if (td_kafka_out_send(out, TD_T_OUTCOMES, -1, key, key_len, e->packed[i].data, e->packed[i].len, NULL, 0, on_delivered,
                              e, &err) < 0)
            e->code = ctl_error(&err);
        else
            e->on_their_way++;
    }
    if (e->on_their_way)
        ctl_run(ctl);
    td_kafka_out_free(out, FLUSH_MS);
    uv_run(&ctl->loop, UV_RUN_DEFAULT);
    return e->code;
}

int waiting_end(struct ctl *ctl, const char *campaign_id, const struct waiting_mail *mail, size_t count, bool accepted)
{
    struct ending e = {.ask = {.ctl = ctl, .step = end_step},
                       .campaign_id = campaign_id,
                       .mail = mail,
                       .count = count,
                       .accepted = accepted,
                       .now_ms = td_wall_ms()};
    int code, published;

    e.packed = calloc(count + 1, sizeof(*e.packed));
    if (!e.packed)
        return ctl_error(&(struct td_err){TD_ENOMEM, "no memory for outcomes"});
    code = relay_ask_run(&e.ask);
    published = publish(&e); /* what the ledger has, also when the rest failed */
    for (size_t i = 0; i < count; i++)
        free(e.packed[i].data);
    free(e.packed);
    return code != CTL_OK ? code : published;
}
