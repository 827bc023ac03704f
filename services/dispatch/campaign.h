/* campaign.h - what dispatch keeps of a campaign: its state, which numbers are under way or done here, its ready mails.
 * Loop thread only. */
#ifndef CAMPAIGN_H
#define CAMPAIGN_H

#include <stdbool.h>
#include <stdint.h>

#include "mail.h"
#include "tandem/gcra.h"
#include "tandem/lanes.h"
#include "tandem/turns.h"

struct bits { /* one bit a recipient, grown on demand */
    uint8_t *byte;
    size_t len;
};
bool bits_get(const struct bits *bits, uint32_t i);
int bits_set(struct bits *bits, uint32_t i, bool on); /* TD_OK or TD_ENOMEM */

struct campaign {
    struct td_turn turn;       /* among those with something ready; first: a turn is its campaign */
    uint64_t served;           /* mails taken from `ready` in this process */
    uint64_t recipients;       /* 0: not known */
    char id[TD_CAMPAIGN_ID_MAX + 1];
    bool paused, cancelled;
    struct bits busy;          /* a mail of this number is in this process */
    struct bits doubted;       /* this process has left these to wait for evidence: a repeat must not go, also while Redis is away */
    struct bits done;          /* this process ended it: repeats are known even while Redis is away */
    struct mail_list ready;    /* not begun */
    struct mail_list go;       /* begun: offered first */
    struct mail_list begin;    /* to be asked of the ledger together */
    uint32_t cap_per_s;        /* the campaign's own rate, of all dispatchers together; 0 = none */
    struct td_gcra cap;        /* this process's share of it */
    bool lane[TD_LANES_MAX];   /* which lanes it uses, by number */
    size_t lane_count;         /* 0: its content has not been read yet */
    bool express;
    bool in_ring, in_begin;    /* of those with something in `go`; with something in `begin` */
    struct campaign *ring_next, *begin_next;
};

struct campaign_set;

struct campaign_set *campaign_set_new(void);
void campaign_set_free(struct campaign_set *campaigns);
struct campaign *campaign_get(struct campaign_set *campaigns, const char *id); /* made when new; NULL: out of memory */

/** Queue a mail, as READY or, when it has begun, as GO. front: it goes before the others. */
void campaign_ready(struct campaign_set *campaigns, struct mail *mail, bool front);
struct campaign_round { /* all zero: a new one */
    bool over[2]; /* bulk, express: none of them can, as long as nothing else happens */
};
/**
 * Offer what a begun mail waits for (a slot, a connection) to the campaigns with mails in `go`: express first, and its fifth
 * to bulk (tandem/turns.h); within each plain turns will do, as campaign_admit has decided how much of each is in `go`.
 * @param offer  @return true when its first mail went on
 * @return false when none did
 */
bool campaign_offer(struct campaign_set *campaigns, struct campaign_round *round, bool (*offer)(void *user, struct campaign *c),
                    void *user);
/**
 * Offer a place among the begun mails to the campaigns with ready ones, in order of tandem/turns.h (a quantum of one mail).
 * @param admit  @return true when it took a mail from the campaign's `ready`
 * @return false when none did
 */
bool campaign_admit(struct campaign_set *campaigns, bool (*admit)(void *user, struct campaign *c), void *user);
/** Mails in `ready` and `go` of the campaigns that are not paused. */
size_t campaign_waiting(const struct campaign_set *campaigns);

#endif /* CAMPAIGN_H */
