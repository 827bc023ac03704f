/* waiting.h - mails that were begun and have no outcome yet: with a relay at this moment, or in doubt and waiting for
 * evidence. Looked up in Redis, and ended there and on mail.outcomes. Both block, running the loop. */
#ifndef CTL_WAITING_H
#define CTL_WAITING_H

#include <stddef.h>

#include "ctl.h"

struct waiting {
    uint32_t *index; /* owned: free() */
    size_t count;
};

/**
 * Numbers of a campaign that were begun and not ended over WAITING_MS, so that those just under way are left out.
 * @return CTL_OK, or an exit code after saying why
 */
int waiting_read(struct ctl *ctl, const char *campaign_id, struct waiting *ret);
/** Give each its outcome, by the ledger first as everybody does, so that there is one. @return exit code */
int waiting_end(struct ctl *ctl, const char *campaign_id, const uint32_t *index, size_t count, bool accepted);

#endif /* CTL_WAITING_H */
