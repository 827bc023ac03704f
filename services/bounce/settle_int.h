/* settle_int.h - between settle.c, settle_read.c and settle_write.c */
#ifndef SETTLE_INT_H
#define SETTLE_INT_H

#include "bounce_classify.h"
#include "settle.h"
#include "tandem/id.h"
#include "tandem/token.h"

#include "tandem/mail/v1/outcome.pb-c.h"
#include "tandem/mail/v1/suppression.pb-c.h"

enum ignored { IGNORED_FORGED, IGNORED_NO_FAILURE, IGNORED_NO_EVENT, IGNORED_UNFIT, IGNORED_COUNT };

/* A report by mail or an event of SES, under way. */
struct report {
    struct report *prev, *next; /* of all that are under way */
    struct report *again_next;
    struct settle *owner;
    struct td_lane lane;
    int64_t offset, received_ms;
    bool forgotten;  /* its lane is gone: it ends without `done`, and counts no more as under way */

    /* What it says. */
    struct td_token token;
    const char *relay;
    const char *evidence; /* reason of the outcome, should the mail have none yet: whatever comes back was sent */
    bool bounced;         /* verdict and status hold */
    struct bounce_verdict verdict;
    char status[12];
    bool complained;
    char feedback[24]; /* kind of complaint */
    bool suppress;
    Tandem__Mail__V1__SuppressionReason suppress_why;
    char relay_message_id[80];

    /* What has been done. */
    uint8_t hash[TD_HASH_BYTES];
    bool has_hash;
    bool known;       /* the mail has its outcome, on mail.outcomes */
    bool doubted;     /* the ledger says that it is in doubt: we may end it */
    bool noted;       /* somebody has it under way: the proof is kept in the ledger, and the outcome is theirs to say */
    bool ended;       /* by us, in the ledger: outcome is to be published */
    void *outcome;    /* packed; owned */
    size_t outcome_len;
    size_t tells;      /* calls that tell its relay what the campaign has there */
    void (*then)(struct report *r); /* when they have answered */
    size_t deliveries; /* records on their way */
    bool failed;       /* one of those was not made, or not written */

    /* Not readable: it only goes to the dead letters. */
    bool dead;
    const char *dead_reason;
    size_t key_len, raw_len;
    char *raw; /* key and value of the record */
};

struct settle {
    const struct td_settings *settings;
    struct td_redis *redis;
    struct td_kafka_out *out;
    struct settle_ops ops;
    void *user;
    const char *relays[TD_RELAYS_MAX];
    uv_timer_t *timer;
    struct report *all, *again; /* again: those that wait for their next try */
    size_t busy;
    bool redis_was_up;
    uint64_t redis_up_ms; /* when it came back, monotonic; 0: it has not been away */
    void (*drained)(void *user);
    uint64_t drain_until_ms;
    struct td_metric *by_class[BOUNCE_UNKNOWN + 1], *ignored[IGNORED_COUNT], *dead, *no_hash, *m_busy, *events[7],
        *complaints, *settled, *noted;
};

/* settle_read.c */
/** @return TD_OK; TD_ENOTFOUND: it says nothing that counts (*ret_why); TD_EDENIED: forged or not ours; TD_ESYNTAX,
 * TD_ETOOBIG: no Feedback; TD_ENOMEM */
int settle_read(struct settle *settle, const struct td_record *rec, struct report *r, enum ignored *ret_why,
                struct td_err *reterr);

/* settle_write.c */
/** ACCEPTED by r->relay, packed; the same bytes whenever it is asked for this record. NULL: no memory */
void *settle_outcome(const struct report *r, size_t *ret_len);
/** All records of a report; settle_written at the end. */
void settle_publish(struct report *r);
void settle_dead_letter(struct report *r);

/* settle.c */
/** All is on its topics, or not all was written: then it is tried again. */
void settle_written(struct report *r, bool all);

#endif /* SETTLE_INT_H */
