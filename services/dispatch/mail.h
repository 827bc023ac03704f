/* mail.h - one mail on its way through dispatch: the record, its place in the lists, what it waits for. Loop thread only.
 *
 *  LANE    the lane's lease is not ours yet          GO       begun, waits for a relay's connection and slot
 *  DELAYED its not_before is to come                 SENDING  a pool has it
 *  STATICS its campaign's static pieces are read     ENDING   outcome: ledger, then mail.outcomes
 *  READY   in its campaign's queue                   RETRYING to a retry topic, or what the ledger is told before that
 *  BEGIN   the ledger was asked
 *  LEDGER  the answer to `begin` was lost: it is asked again when Redis is back
 *
 * Only a few mails more than there are connections are past BEGIN at any time (place.h): after a crash each of
 * those is one that nobody knows about.
 */
#ifndef MAIL_H
#define MAIL_H

#include <stdbool.h>
#include <stdint.h>

#include "lane.h"
#include "pool.h"
#include "statics.h"
#include "tandem/arena.h"
#include "tandem/id.h"
#include "tandem/kafka.h"
#include "tandem/token.h"

#include "tandem/internal/v1/outbound.pb-c.h"
#include "tandem/mail/v1/outcome.pb-c.h"

#define RELAY_NAME_MAX 32

enum mail_state {
    MAIL_LANE,
    MAIL_DELAYED,
    MAIL_STATICS,
    MAIL_READY,
    MAIL_BEGIN,
    MAIL_LEDGER,
    MAIL_GO,
    MAIL_SENDING,
    MAIL_ENDING,
    MAIL_RETRYING
};

struct campaign;
struct dispatch;

struct mail {
    struct dispatch *dispatch;
    struct td_arena *arena; /* holds all below that is not named otherwise */
    Tandem__Internal__V1__OutboundMessage *msg;
    struct lane *lane;
    int64_t offset, timestamp_ms;
    struct campaign *campaign;
    enum mail_state state;
    bool dropped;    /* its lane went away while a call is under way: let go when that returns */
    bool begun;      /* it may be handed over */
    bool tried;      /* the ledger's bit may be set for it: not so when it begun while Redis was away */
    bool in_doubt;   /* resend: a copy handed over before may have arrived, so `tried` stays and no end but ACCEPTED is certain */
    bool counted;    /* against lane->unproven */
    bool parked;     /* DELAYED until Redis is back, which was not asked about it yet */
    bool unbegin;    /* DELAYED because Redis is away: next `tried` is to be cleared */
    bool retrying;   /* DELAYED because Redis is away: next comes the retry topic */
    bool set_aside;  /* its campaign is held or paused: out of the way of others, by a retry topic, without an attempt */
    bool twin;       /* DELAYED until the other copy of the same mail in this process has ended */
    bool hard_refusal; /* the relay says that the address takes no mail */
    bool of_express; /* it came from the express topic */
    bool orphan;     /* its lane went away while a relay had it: no offset any more, but an outcome */
    int64_t due_ms;  /* DELAYED: wall clock */
    struct mail *lane_prev, *lane_next; /* all mails of the lane */
    struct mail *next;                  /* the one list of its state */

    const struct static_blob *blob; /* a reference */
    struct slice *slices;           /* the first: head */
    char head[256];                 /* headers for the relay that has it now, which takes them out */
    struct mail_job job;
    char reverse_path[TD_TOKEN_LOCAL_MAX + 256]; /* of the relay that has it now */
    size_t relay;             /* index of the one that has or had it */
    uint64_t slot_us;         /* of that relay's rate, see pace_sent */
    int pinned;               /* only this relay may get it (resend of an unconfirmed one); -1 = any */
    uint32_t avoid;           /* bits of relays that refused it lately */
    uint64_t avoid_until_ms;  /* monotonic */
    uint32_t dice;            /* 0..9999 for ramps */
    unsigned reconnects;      /* how often a relay said that the connection had been idle too long */
    unsigned attempts;        /* hand-overs in this process and before */
    struct smtp_reply reply;  /* the last refusal, for an EXPIRED outcome */
    enum smtp_phase phase;
    const char *reason;
    char key[TD_MAIL_KEY_MAX];
    size_t key_len;
};

/**
 * Read a record of an outbound or retry topic and check what later code relies on.
 * @return TD_OK; TD_ESYNTAX/TD_ETOOBIG: a dead letter; TD_ENOMEM
 */
int mail_new(const struct td_record *rec, struct mail **ret, struct td_err *reterr);
void mail_free(struct mail *mail); /* its blob must have been given back */
bool mail_is_express(const struct mail *mail);

/** Point slices into the message and the blob. @return TD_OK, or TD_ESYNTAX when a segment lies outside */
int mail_slice(struct mail *mail, const struct static_blob *blob, struct td_err *reterr);

/** Name of the message tag that bounce looks for in the events of SES (SES_TAG of ses_event.h). */
#define MAIL_SES_TAG "tandem"
/** What depends on the relay: return path and, for SES with a configuration set, its headers. After mail_slice. */
void mail_for_relay(struct mail *mail, const struct td_relay_settings *relay, const char *token_key);

/** An Outcome about this mail, packed; malloc'd. relay "" when none. reply may be NULL. */
void *mail_outcome(const struct mail *mail, Tandem__Mail__V1__RecipientResult result, const char *relay,
                   const struct smtp_reply *reply, const char *reason, int64_t now_wall_ms, size_t *ret_len);
/** Read a packed Outcome that is ACCEPTED. @param ret_relay  the one that took the mail. @return false: it is none */
bool mail_accepted_by(const void *packed, size_t len, char ret_relay[RELAY_NAME_MAX + 1]);
/** Field of totals: "accepted", "refused", ... */
const char *mail_result_name(Tandem__Mail__V1__RecipientResult result);

/** A first-in-first-out list through mail->next. */
struct mail_list {
    struct mail *first, *last;
    size_t count;
};
void mail_push(struct mail_list *list, struct mail *mail);
void mail_push_front(struct mail_list *list, struct mail *mail);
struct mail *mail_pop(struct mail_list *list);
void mail_unlink(struct mail_list *list, struct mail *mail);

#endif /* MAIL_H */
