/* ses_event.h - what an event of Amazon SES says about one mail. Pure.
 *
 * SES guide, "Contents of event data that Amazon SES publishes to Amazon SNS" (eventType, of a configuration set) and
 * "Amazon SNS notification contents" (notificationType, of an identity). Unknown fields and types are skipped. The
 * addresses in it are not trusted and not kept: a signed token says which mail it is about. */
#ifndef SES_EVENT_H
#define SES_EVENT_H

#include <stdbool.h>

#include "bounce_classify.h"

/** Name of the message tag that holds the token (td_token_tag). */
#define SES_TAG "tandem"

enum ses_kind {
    SES_OTHER,    /* says nothing that counts: Open, Click, Subscription, Rendering Failure, or a type not known */
    SES_SEND,     /* SES took it */
    SES_DELIVERY, /* and the recipient's server took it */
    SES_DELAY,    /* not yet */
    SES_BOUNCE,
    SES_COMPLAINT,
    SES_REJECT /* SES took it, and then found a virus */
};

enum ses_bounce { SES_UNDETERMINED, SES_PERMANENT, SES_TRANSIENT };

struct ses_event {
    enum ses_kind kind;
    char tag[80];         /* value of SES_TAG, "" when there is none */
    char source[400];     /* envelope sender of the mail, "" when it is not said */
    char message_id[80];  /* SES's: letters, digits and "-", else "" */
    enum ses_bounce bounce;
    char sub_type[40];    /* bounceSubType or complaintSubType */
    char feedback[24];    /* complaintFeedbackType */
    struct dsn dsn;       /* of the first bounced recipient; Tandem's mails have one */
};

/** What a bounce, complaint or reject does. */
struct ses_effect {
    bool bounced;                  /* verdict holds */
    struct bounce_verdict verdict;
    bool complained;
    bool suppress;                 /* the address is not to be written to again */
};

/**
 * @param raw  the SNS envelope as it came; it was verified before it was written down
 * @return TD_OK; TD_ESYNTAX or TD_ETOOBIG: no envelope; TD_ENOTFOUND: an envelope whose Message is no event (SNS posts
 * a plain sentence when a topic is tried out)
 */
int ses_event_read(const char *raw, size_t len, struct ses_event *ret, struct td_err *reterr);
/** Never suppresses for what is not about the address: mailbox full, content, a complaint of kind not-spam. */
struct ses_effect ses_event_effect(const struct ses_event *event);
/** "send", "delivery", ... */
const char *ses_kind_name(enum ses_kind kind);

#endif /* SES_EVENT_H */
