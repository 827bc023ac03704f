/* flow_int.h - between flow_take.c, flow.c and flow_wait.c */
#ifndef FLOW_INT_H
#define FLOW_INT_H

#include "flow.h"

enum {
    LOOK_AGAIN_MS = 200, /* for a mail that only one relay may have, which is unfit now */
    CLOCKS_MS = 2000     /* by which clocks may differ */
};

/** Is it DELAYED, or to be, for longer than it need be? Its campaign was cancelled, or goes on after the pause that set it aside. */
bool flow_may_go_early(const struct mail *mail);
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
/** At exit: the calls only; their mails go with their lanes, or as orphans. */
void flow_forget_questions(struct dispatch *d);
void flow_release(struct dispatch *d, struct mail *mail);

#endif /* FLOW_INT_H */
