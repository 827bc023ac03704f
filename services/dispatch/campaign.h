/* campaign.h - what dispatch keeps of a campaign: its state, which numbers are under way or done here, its ready mails.
 * Loop thread only. */
#ifndef CAMPAIGN_H
#define CAMPAIGN_H

#include <stdbool.h>
#include <stdint.h>

#include "mail.h"
#include "tandem/gcra.h"

struct bits { /* one bit a recipient, grown on demand */
    uint8_t *byte;
    size_t len;
};
bool bits_get(const struct bits *bits, uint32_t i);
int bits_set(struct bits *bits, uint32_t i, bool on); /* TD_OK or TD_ENOMEM */

struct campaign {
    char id[TD_CAMPAIGN_ID_MAX + 1];
    bool paused, cancelled;
    struct bits busy;          /* a mail of this number is in this process */
    struct bits done;          /* this process ended it: repeats are known even while Redis is away */
    struct mail_list ready;    /* not begun */
    struct mail_list go;       /* begun: offered first */
    struct mail_list begin;    /* to be asked of the ledger together */
    struct td_gcra cap;        /* the campaign's own rate */
    bool express;
    bool in_ring, in_begin;
    struct campaign *ring_next, *begin_next;
};

struct campaigns;

struct campaigns *campaigns_new(void);
void campaigns_free(struct campaigns *campaigns);
struct campaign *campaigns_get(struct campaigns *campaigns, const char *id); /* made when new; NULL: out of memory */

/** Queue a mail, as READY or, when it has begun, as GO; its campaign joins the ring of those with something ready. front: it goes before the others. */
void campaigns_ready(struct campaigns *campaigns, struct mail *mail, bool front);
/**
 * Two rings, express and bulk: the next campaign of one, NULL when it is empty. The caller takes a mail from its list or
 * leaves it; either way the next call gives another one: a quantum of one mail each (deficit round robin with mails of
 * equal cost).
 */
struct campaign *campaigns_turn(struct campaigns *campaigns, bool express);
size_t campaigns_ring(const struct campaigns *campaigns, bool express); /* how many are in it */

#endif /* CAMPAIGN_H */
