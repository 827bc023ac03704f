/* A mail that may have been sent, under `hold`: nobody may send it again, and evidence may say that it was taken.
 *
 *   reply lost, or `tried` under a new owner
 *     -> no relay tells: UNCONFIRMED
 *     -> the ledger is told (ledger_doubt.lua): from now on bounce or an operator may end it. It says
 *          DONE: somebody has ended it, and wrote its outcome
 *          PROVEN: its relay told before anybody was in doubt: ACCEPTED
 *          else: retry topic, with a mark in the record and `tried` left set -> it comes round -> the ledger is told again, and
 *            when the time is up UNCONFIRMED
 *
 * So one outcome, whoever comes first: all ends go through the ledger's `end`, and wait for it. The mark is in the record, too,
 * since Redis may forget, or be away when the doubt begins. */
#include "flow_int.h"

#include <stdlib.h>
#include <string.h>

#include "tandem/clock.h"
#include "tandem/log.h"

#define ACCEPTED TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_ACCEPTED
#define UNCONFIRMED TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_UNCONFIRMED

enum { TELL_AGAIN_MS = 500 }; /* Redis is away */

bool flow_doubts(const struct mail *mail)
{
    return mail->msg->evidence_until_unix_ms > 0;
}

int64_t flow_doubt_round(const struct mail *mail, int64_t now_ms, size_t *ret_step)
{
    static const int64_t delay_ms[] = {60000, 600000, 3600000};
    int64_t left = mail->msg->evidence_until_unix_ms - now_ms;
    size_t i = 0;

    while (i + 1 < sizeof(delay_ms) / sizeof(delay_ms[0]) && left + 1000 >= delay_ms[i + 1]) /* it was that long a moment ago */
        i++;
    *ret_step = i;
    return left < 0 ? 0 : left < delay_ms[i] ? left : delay_ms[i];
}

/* protobuf-c frees nothing of a message that lies in an arena. */
static char *keep(struct mail *mail, const char *text)
{
    size_t len = strlen(text) + 1;
    char *copy = td_arena_alloc(mail->arena, len);

    if (copy)
        memcpy(copy, text, len);
    return copy;
}

static bool is_ours(const struct dispatch *d, const struct mail *mail)
{
    return mail->lane && !d->lost && !mail->lane->fenced;
}

static void in_doubt(struct dispatch *d, struct mail *mail)
{
    if (mail->in_doubt || td_wall_ms() < mail->msg->evidence_until_unix_ms)
        flow_retry_produce(d, mail);
    else
        flow_end(d, mail, UNCONFIRMED, mail->msg->evidence_relay, NULL, mail->msg->evidence_reason);
}

static void on_told(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct mail *mail = user;
    struct dispatch *d = mail->dispatch;
    size_t len = 0;
    const char *outcome = td_reply_str(td_reply_at(reply, 1), &len);
    long long verdict = td_reply_int(td_reply_at(reply, 0));

    if (!is_ours(d, mail) || (mail->dropped && !mail->in_doubt)) {
        flow_drop(d, mail); /* what was told stays true, and it is never sent */
    } else if (err && mail->in_doubt) {
        flow_retry_produce(d, mail); /* the record bears the mark; the ledger is told when it comes round */
    } else if (err) {
        flow_delay(d, mail, td_wall_ms() + TELL_AGAIN_MS); /* whether it was proven only the ledger knows */
    } else if (verdict == TD_DONE) {
        td_metric_add(d->m.proven, 1);
        if (len)
            outcomes_again(d->outcomes, mail, outcome, len);
        else
            flow_finished(d, mail);
    } else if (verdict != TD_PROVEN || !flow_proven(d, mail, outcome, len)) {
        in_doubt(d, mail);
    }
}

void flow_doubt_tell(struct dispatch *d, struct mail *mail)
{
    int rc = td_ledger_doubt(d->redis, mail->campaign->id, mail->msg->index, mail->msg->evidence_relay, on_told, mail);

    mail->state = MAIL_RETRYING;
    if (!td_redis_answers(rc))
        on_told(mail, NULL, &(struct td_err){.code = TD_ENOMEM});
}

void flow_doubt(struct dispatch *d, struct mail *mail, int relay, const char *reason)
{
    const char *name = relay >= 0 ? relays_name(d->relays, (size_t)relay) : "";
    char *kept_name = keep(mail, name), *kept_reason = keep(mail, reason);

    if (!(relay >= 0 ? relays_tells(d->relays, (size_t)relay) : relays_any_tells(d->relays, mail)) || !kept_name || !kept_reason) {
        flow_end(d, mail, UNCONFIRMED, name, NULL, reason);
        return;
    }
    mail->in_doubt = true; /* `tried` stays, whatever becomes of this process or its lane */
    mail->pinned = relay;
    if (!is_ours(d, mail)) {
        /* Its record is another owner's, who finds `tried`; but which relay may have it only we know. */
        td_ledger_doubt(d->redis, mail->campaign->id, mail->msg->index, name, NULL, NULL);
        flow_drop(d, mail);
        return;
    }
    if (bits_set(&mail->campaign->doubted, mail->msg->index, true) < 0) {
        td_app_fail(d->app, &(struct td_err){TD_ENOMEM, "no memory for a mail in doubt"});
        return;
    }
    mail->lane->in_doubt = true; /* the next owner, too, must ask before it sends a repeat */
    td_metric_add(d->m.doubts, 1);
    td_log(TD_INFO, "mail.doubt", "msg=%s relay=%s reason=%s", mail->key, *name ? name : "-", reason);
    flow_blob_back(d, mail);
    mail->msg->evidence_until_unix_ms = td_wall_ms() + d->settings->dispatch_evidence_wait_ms;
    mail->msg->evidence_relay = kept_name;
    mail->msg->evidence_reason = kept_reason;
    flow_doubt_tell(d, mail);
}

bool flow_proven(struct dispatch *d, struct mail *mail, const void *outcome, size_t len)
{
    char relay[RELAY_NAME_MAX + 1];
    void *copy = mail_accepted_by(outcome, len, relay) ? malloc(len) : NULL;

    if (!copy)
        return false;
    memcpy(copy, outcome, len);
    if (bits_set(&mail->campaign->done, mail->msg->index, true) < 0) {
        free(copy);
        return false;
    }
    flow_blob_back(d, mail);
    td_metric_add(d->m.proven, 1);
    td_metric_add(d->m.outcome[ACCEPTED], 1);
    td_log(TD_INFO, "mail.settled", "msg=%s relay=%s to=accepted by=evidence", mail->key, relay);
    outcomes_end(d->outcomes, mail, "accepted", relay, copy, len, true);
    return true;
}
