/* waiting.h - mails that are in doubt and wait for evidence. Looked up in the ledger, and ended there and on mail.outcomes. Both
 * block, running the loop. */
#ifndef CTL_WAITING_H
#define CTL_WAITING_H

#include <stddef.h>

#include "ctl.h"

struct waiting_mail {
    uint32_t index;
    char relay[33]; /* that may have it; "" when nobody knows, as its dispatcher died */
};

struct waiting {
    struct waiting_mail *mail; /* by index; owned: free() */
    size_t count;
};

/** Those of a campaign. @return CTL_OK, or an exit code after saying why */
int waiting_read(struct ctl *ctl, const char *campaign_id, struct waiting *ret);
/** NULL: it does not wait */
const struct waiting_mail *waiting_find(const struct waiting *waiting, uint32_t index);
/** Give each its outcome, by the ledger first as everybody does, so that there is one. An accepted one counts for its relay.
 * @return exit code */
int waiting_end(struct ctl *ctl, const char *campaign_id, const struct waiting_mail *mail, size_t count, bool accepted);

#endif /* CTL_WAITING_H */
