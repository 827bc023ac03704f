#include "ses_event.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "sns_envelope.h"

static const struct {
    const char *word, *name;
} kinds[] = {[SES_OTHER] = {"", "other"},
             [SES_SEND] = {"Send", "send"},
             [SES_DELIVERY] = {"Delivery", "delivery"},
             [SES_DELAY] = {"DeliveryDelay", "delay"},
             [SES_BOUNCE] = {"Bounce", "bounce"},
             [SES_COMPLAINT] = {"Complaint", "complaint"},
             [SES_REJECT] = {"Reject", "reject"}};

const char *ses_kind_name(enum ses_kind kind)
{
    return kinds[kind].name;
}

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));

    return value ? value : "";
}

/* Copy what fits whole; a longer value reads as none. */
static void keep(char *out, size_t size, const char *value)
{
    size_t len = strlen(value);

    if (len >= size)
        len = 0;
    memcpy(out, value, len);
    out[len] = '\0';
}

#define KEEP(field, value) keep(field, sizeof(field), value)

static enum ses_kind kind_of(const json_t *json)
{
    const char *word = text(json, "eventType");

    if (!*word)
        word = text(json, "notificationType");
    for (size_t i = SES_SEND; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].word, word) == 0)
            return (enum ses_kind)i;
    return SES_OTHER;
}

static void read_mail(const json_t *mail, struct ses_event *ret)
{
    const json_t *values = json_object_get(json_object_get(mail, "tags"), SES_TAG);
    const char *tag = json_string_value(json_array_get(values, 0));

    KEEP(ret->tag, tag ? tag : "");
    KEEP(ret->source, text(mail, "source"));
    KEEP(ret->message_id, text(mail, "messageId"));
    if (strspn(ret->message_id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") !=
        strlen(ret->message_id))
        ret->message_id[0] = '\0';
}

/* The same shape as a status of a report: a class of 2, 4 or 5 and two numbers of one to three digits. */
static void read_status(char out[12], const char *status)
{
    int class, subject, detail, end = 0;

    out[0] = '\0';
    if (strlen(status) < 12 && strspn(status, "0123456789.") == strlen(status) &&
        sscanf(status, "%1d.%3d.%3d%n", &class, &subject, &detail, &end) == 3 && status[end] == '\0' &&
        (class == 2 || class == 4 || class == 5))
        snprintf(out, 12, "%d.%d.%d", class, subject, detail);
}

/* "smtp; 550 5.1.1 user unknown": the text behind "smtp;", with its code apart. */
static void read_diagnostic(struct dsn *dsn, const char *diagnostic)
{
    int code = 0, end = 0;

    if (strncmp(diagnostic, "smtp;", 5) != 0)
        return;
    diagnostic += 5;
    diagnostic += strspn(diagnostic, " ");
    if (sscanf(diagnostic, "%3d%n", &code, &end) == 1 && end == 3 && code >= 200 && code <= 599)
        dsn->reply_code = code;
    snprintf(dsn->diagnostic, sizeof(dsn->diagnostic), "%s", diagnostic);
    for (char *c = dsn->diagnostic; *c; c++)
        if (*c == '\r' || *c == '\n')
            *c = ' ';
}

static void read_bounce(const json_t *bounce, struct ses_event *ret)
{
    const json_t *first = json_array_get(json_object_get(bounce, "bouncedRecipients"), 0);
    const char *type = text(bounce, "bounceType");

    ret->bounce = strcmp(type, "Permanent") == 0   ? SES_PERMANENT
                  : strcmp(type, "Transient") == 0 ? SES_TRANSIENT
                                                   : SES_UNDETERMINED;
    KEEP(ret->sub_type, text(bounce, "bounceSubType"));
    ret->dsn.kind = REPORT_FAILED;
    read_status(ret->dsn.status, text(first, "status"));
    read_diagnostic(&ret->dsn, text(first, "diagnosticCode"));
}

int ses_event_read(const char *raw, size_t len, struct ses_event *ret, struct td_err *reterr)
{
    struct sns_envelope envelope;
    json_t *json;
    int rc;

    memset(ret, 0, sizeof(*ret));
    rc = sns_read(raw, len, &envelope, reterr);
    if (rc < 0)
        return rc;
    json = json_loads(envelope.message, 0, NULL);
    if (json_is_object(json)) {
        ret->kind = kind_of(json);
        read_mail(json_object_get(json, "mail"), ret);
        if (ret->kind == SES_BOUNCE)
            read_bounce(json_object_get(json, "bounce"), ret);
        if (ret->kind == SES_COMPLAINT) {
            KEEP(ret->sub_type, text(json_object_get(json, "complaint"), "complaintSubType"));
            KEEP(ret->feedback, text(json_object_get(json, "complaint"), "complaintFeedbackType"));
        }
    } else {
        rc = td_fail(reterr, TD_ENOTFOUND, "a message that is no event of SES");
    }
    json_decref(json);
    sns_release(&envelope);
    return rc;
}

/* ---- what it does ---- */

static struct ses_effect permanent(const struct ses_event *event)
{
    struct bounce_verdict said = bounce_classify(&event->dsn);
    struct ses_effect effect = {.bounced = true, .suppress = true};

    if (strcmp(event->sub_type, "OnAccountSuppressionList") == 0) {
        /* SES did not try, and does not count it: it must not trip a ceiling. */
        effect.verdict = (struct bounce_verdict){BOUNCE_BLOCK, "bounce.relay_suppressed"};
        return effect;
    }
    effect.verdict = (struct bounce_verdict){BOUNCE_HARD, "bounce.permanent"};
    if (said.class == BOUNCE_HARD)
        effect.verdict = said; /* the same, said better */
    return effect;
}

static struct ses_effect transient(const struct ses_event *event)
{
    static const struct {
        const char *sub_type;
        struct bounce_verdict verdict;
    } known[] = {{"MailboxFull", {BOUNCE_SOFT, "bounce.mailbox_full"}},
                 {"MessageTooLarge", {BOUNCE_MESSAGE, "bounce.too_large"}},
                 {"ContentRejected", {BOUNCE_BLOCK, "bounce.content"}},
                 {"AttachmentRejected", {BOUNCE_BLOCK, "bounce.content"}}};

    /* SES calls a domain that does not exist transient (listmonk #1463): here the status is right. */
    if (strcmp(event->dsn.status, "5.4.4") == 0)
        return (struct ses_effect){
            .bounced = true, .suppress = true, .verdict = {BOUNCE_HARD, "bounce.domain_unknown"}};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(known[i].sub_type, event->sub_type) == 0)
            return (struct ses_effect){.bounced = true, .verdict = known[i].verdict};
    return (struct ses_effect){.bounced = true, .verdict = {BOUNCE_SOFT, "bounce.transient"}};
}

struct ses_effect ses_event_effect(const struct ses_event *event)
{
    if (event->kind == SES_BOUNCE && event->bounce == SES_PERMANENT)
        return permanent(event);
    if (event->kind == SES_BOUNCE && event->bounce == SES_TRANSIENT)
        return transient(event);
    if (event->kind == SES_BOUNCE)
        return (struct ses_effect){.bounced = true, .verdict = {BOUNCE_SOFT, "bounce.undetermined"}};
    if (event->kind == SES_REJECT)
        return (struct ses_effect){.bounced = true, .verdict = {BOUNCE_BLOCK, "bounce.relay_rejected"}};
    /* not-spam takes a complaint back; auth-failure is about our signature (RFC 5965, RFC 6591). */
    if (event->kind != SES_COMPLAINT || strcmp(event->feedback, "not-spam") == 0 ||
        strcmp(event->feedback, "auth-failure") == 0)
        return (struct ses_effect){.bounced = false};
    /* On the account's list for an older complaint: nobody complained of this mail, which was not delivered. */
    if (strcmp(event->sub_type, "OnAccountSuppressionList") == 0)
        return (struct ses_effect){.suppress = true};
    return (struct ses_effect){.complained = true, .suppress = true};
}
