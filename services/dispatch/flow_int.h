/* flow_int.h - between flow_take.c, flow_begin.c, flow.c, flow_wait.c and flow_doubt.c */
#ifndef FLOW_INT_H
#define FLOW_INT_H

#include "flow.h"
#include "tandem/ledger.h"

enum {
    LOOK_AGAIN_MS = 200, /* for a mail that only one relay may have, which is unfit now */
    CLOCKS_MS = 2000     /* by which clocks may differ */
};

/** Is it DELAYED, or to be, for longer than it need be? Its campaign was cancelled, or goes on after the pause that set it aside. */
bool flow_may_go_early(const struct mail *mail);
/** One mail more or less in memory: stop or go on reading the lanes of its class. */
void flow_count(struct dispatch *d, bool express, int change);
void flow_prepare(struct dispatch *d, struct mail *mail);
void flow_delay(struct dispatch *d, struct mail *mail, int64_t due_wall_ms);
/** It has begun, is with no relay and none will have it soon: back to where it may wait without being in doubt. */
void flow_unbegin(struct dispatch *d, struct mail *mail);
void flow_retry(struct dispatch *d, struct mail *mail, const char *reason);
void flow_end(struct dispatch *d, struct mail *mail, Tandem__Mail__V1__RecipientResult result, const char *relay,
              const struct smtp_reply *reply, const char *reason);
void flow_blob_back(struct dispatch *d, struct mail *mail);
/** Not ours any more and not handed over: clear `tried` if we set it, forget it; its record comes to the next owner. */
void flow_drop(struct dispatch *d, struct mail *mail);

/* flow_begin.c */
/** A mail more or less (1, -1) is in BEGIN or GO. */
void flow_begun(struct dispatch *d, const struct mail *mail, int change);
/** To be asked of the ledger, which makes it GO, or ends it. */
void flow_begin(struct dispatch *d, struct mail *mail);
/** Ask for all that flow_begin has gathered. */
void flow_flush_begins(struct dispatch *d);
/** At exit: the calls only; their mails go with their lanes, or as orphans. */
void flow_forget_questions(struct dispatch *d);

/* flow_wait.c */
/** Put the mail as it is on a retry topic; the watermark moves when it is there. */
void flow_retry_produce(struct dispatch *d, struct mail *mail);

/* flow_doubt.c: it may have been sent, on_unconfirmed is hold */
/**
 * It is with no relay any more and nobody knows whether one took it. UNCONFIRMED, or first a wait for evidence where a relay gives it.
 * @param relay  index of the one that may have it; -1: not known
 */
void flow_doubt(struct dispatch *d, struct mail *mail, int relay, const char *reason);
/** Its record says that it waits for evidence: it is never sent. */
bool flow_doubts(const struct mail *mail);
/** Delay of the next round of such a wait, and the topic of it: 0 = .1m, 1 = .10m, 2 = .1h. */
int64_t flow_doubt_round(const struct mail *mail, int64_t now_ms, size_t *ret_step);
/** Of one that waits and has come round: tell the ledger, which may know that it has ended or is proven. */
void flow_doubt_tell(struct dispatch *d, struct mail *mail);
/** Its relay has told that it took it: end it with this outcome. @return false: that is none, or no memory */
bool flow_proven(struct dispatch *d, struct mail *mail, const void *outcome, size_t len);

void flow_release(struct dispatch *d, struct mail *mail);

#endif /* FLOW_INT_H */
