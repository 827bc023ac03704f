/* A mail that may have been sent, under `hold`: nobody may send it again, and evidence may say that it was taken.
 *
 *   reply lost, or `tried` under a new owner
 *     -> no relay tells: UNCONFIRMED
 *     -> retry topic, with a mark in the record and `tried` left set -> it comes round -> the ledger says
 *          DONE: bounce or an operator had evidence, and its outcome is written
 *          else: another round while there is time, then UNCONFIRMED
 *
 * So one outcome, whoever comes first: both ends go through the ledger's `end`. The mark is in the record, not in Redis,
 * which may forget. */
#include "flow_int.h"

#include <stdlib.h>
#include <string.h>

#include "tandem/clock.h"
#include "tandem/log.h"

#define UNCONFIRMED TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_UNCONFIRMED

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
    if (!mail->lane || d->lost || mail->lane->fenced) {
        flow_drop(d, mail); /* its record is another owner's, who finds `tried` */
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
    flow_retry_produce(d, mail);
}

void flow_doubt_begun(struct dispatch *d, struct mail *mail, const struct td_begun *begun)
{
    if (mail->dropped) {
        flow_drop(d, mail); /* begun is not set: what was asked changes nothing, it is never sent */
    } else if (begun->verdict == TD_DONE) {
        td_metric_add(d->m.proven, 1);
        if (begun->outcome)
            outcomes_again(d->outcomes, mail, begun->outcome, begun->outcome_len);
        else
            flow_finished(d, mail);
    } else if (td_wall_ms() < mail->msg->evidence_until_unix_ms) {
        flow_retry_produce(d, mail);
    } else {
        flow_end(d, mail, UNCONFIRMED, mail->msg->evidence_relay, NULL, mail->msg->evidence_reason);
    }
}
