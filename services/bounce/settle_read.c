/* What a record of mail.feedback says: a report by mail, or an event of SES, and about which mail. */
#include <stdio.h>
#include <string.h>

#include "ses_event.h"
#include "settle_int.h"
#include "tandem/pb.h"

#include "tandem/internal/v1/feedback.pb-c.h"

#define SUPPRESSED_FOR(why) TANDEM__MAIL__V1__SUPPRESSION_REASON__SUPPRESSION_REASON_##why

static int token_of(struct settle *s, const char *address, struct report *r)
{
    const char *key = s->settings->keys_token;

    if (td_token_read(address, strlen(address), TD_TOKEN_BOUNCE, key, strlen(key), s->relays, s->settings->relay_count,
                      &r->token, NULL) < 0)
        return TD_EDENIED;
    r->relay = s->relays[r->token.relay];
    return TD_OK;
}

static int read_mail(struct settle *s, const Tandem__Internal__V1__Feedback *msg, struct report *r, enum ignored *ret_why,
                     struct td_err *reterr)
{
    struct dsn dsn = {.kind = REPORT_NONE};

    if (token_of(s, msg->envelope_recipient, r) < 0)
        return td_fail(reterr, TD_EDENIED, "its return path does not verify");
    /* What cannot be read as mail, or is too deep, reports nothing. */
    *ret_why = IGNORED_NO_FAILURE;
    if (dsn_read(msg->raw.data, msg->raw.len, &dsn, reterr) < 0 || dsn.kind != REPORT_FAILED)
        return td_fail(reterr, TD_ENOTFOUND, "%s", dsn.kind == REPORT_NONE ? "no delivery report" : "nobody bounced");
    r->evidence = "evidence.report";
    r->bounced = true;
    r->verdict = bounce_classify(&dsn);
    r->suppress = r->verdict.class == BOUNCE_HARD;
    r->suppress_why = SUPPRESSED_FOR(HARD_BOUNCE);
    memcpy(r->status, dsn.status, sizeof(r->status));
    return TD_OK;
}

/* The tag says which mail it was; so does the return path, which SES tells as the mail's source. Never an address. */
static int event_token(struct settle *s, const struct ses_event *event, struct report *r)
{
    char local[TD_TOKEN_LOCAL_MAX];

    if (td_token_untag(local, event->tag, strlen(event->tag)) == TD_OK && token_of(s, local, r) == TD_OK)
        return TD_OK;
    return token_of(s, event->source, r);
}

static int read_event(struct settle *s, const Tandem__Internal__V1__Feedback *msg, struct report *r, enum ignored *ret_why,
                      struct td_err *reterr)
{
    struct ses_event event;
    struct ses_effect effect;
    int rc = ses_event_read((const char *)msg->raw.data, msg->raw.len, &event, reterr);

    *ret_why = IGNORED_NO_EVENT;
    if (rc < 0)
        return rc;
    td_metric_add(s->events[event.kind], 1);
    if (event.kind == SES_OTHER)
        return td_fail(reterr, TD_ENOTFOUND, "an event that says nothing of delivery");
    if (event_token(s, &event, r) < 0)
        return td_fail(reterr, TD_EDENIED, "neither its tag nor its source verifies");
    effect = ses_event_effect(&event);
    r->evidence = "evidence.ses_event";
    r->bounced = effect.bounced;
    r->verdict = effect.verdict;
    r->complained = effect.complained;
    r->suppress = effect.suppress;
    r->suppress_why = event.kind == SES_COMPLAINT ? SUPPRESSED_FOR(COMPLAINT) : SUPPRESSED_FOR(HARD_BOUNCE);
    memcpy(r->status, event.dsn.status, sizeof(r->status));
    memcpy(r->relay_message_id, event.message_id, sizeof(r->relay_message_id));
    if (strspn(event.feedback, "abcdefghijklmnopqrstuvwxyz-") == strlen(event.feedback))
        memcpy(r->feedback, event.feedback, sizeof(r->feedback));
    return TD_OK;
}

int settle_read(struct settle *s, const struct td_record *rec, struct report *r, enum ignored *ret_why,
                struct td_err *reterr)
{
    struct td_arena *arena = td_arena_new(td_pb_budget(rec->len));
    Tandem__Internal__V1__Feedback *msg = NULL;
    int rc;

    if (!arena)
        return td_fail(reterr, TD_ENOMEM, "report");
    rc = td_pb_read(&tandem__internal__v1__feedback__descriptor, rec->value, rec->len, arena,
                    (ProtobufCMessage **)&msg, reterr);
    if (rc == TD_OK) {
        r->received_ms = msg->received_at_unix_ms;
        if (msg->source == TANDEM__INTERNAL__V1__FEEDBACK_SOURCE__FEEDBACK_SOURCE_MAIL)
            rc = read_mail(s, msg, r, ret_why, reterr);
        else if (msg->source == TANDEM__INTERNAL__V1__FEEDBACK_SOURCE__FEEDBACK_SOURCE_SES_EVENT)
            rc = read_event(s, msg, r, ret_why, reterr);
        else
            rc = td_fail(reterr, TD_ESYNTAX, "feedback of a kind that this release does not know");
    }
    td_arena_free(arena);
    return rc;
}
