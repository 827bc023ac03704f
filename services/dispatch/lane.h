/* lane.h - the lanes this process owns: lease, watermark, their mails. Loop thread only.
 *
 * A lane has one owner (DESIGN s.5): Kafka's group gives it, a lease in Redis makes sure that the owner before has let go
 * or is dead. While Redis is away a lane already owned stays owned; a new one waits up to dispatch.redis_wait. */
#ifndef LANE_H
#define LANE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "tandem/kafka.h"
#include "tandem/redis.h"
#include "tandem/settings.h"
#include "tandem/watermark.h"

#include "done_runs.h"

enum { LANE_SPAN = 1 << 20 }; /* records between the oldest unfinished and the newest; 128 KiB of bits a lane */

#define LANE_NAME_MAX 48

struct mail;

struct campaign;

struct unproven {
    struct unproven *next;
    const struct campaign *campaign;
    size_t left;
};

struct lane {
    struct td_lane id;
    char name[LANE_NAME_MAX]; /* "mail.outbound-3", the lease's name */
    struct td_watermark *wm;
    bool owned;            /* mails may start */
    bool clean;            /* taken over with nothing in doubt: whatever is read from it nobody can have begun */
    bool first;            /* nobody owned it since Redis' view was built: the same for what was written later than that */
    size_t unproven;       /* not clean: the owner before may have begun mails among so many of the first not done yet */
    struct unproven *left; /* of those, by campaign: each is begun in its order, not all of them together */
    bool in_doubt;         /* a relay had mails of it when it was given back, or some wait for evidence */
    bool fenced;           /* someone else has the lease now: start nothing, commit nothing */
    bool asking;           /* a lease call is under way */
    bool revoked;          /* taken away: nothing new starts, mails are dropped as they come free */
    bool paused;           /* delivery is paused: a delayed head, or the watermark is far behind */
    int64_t owned_at_ms;   /* wall clock: the owner before cannot have touched what was written later */
    uint64_t fenced_at_ms;
    uint64_t asked_at_ms, ask_again_ms, fresh_at_ms; /* monotonic; fresh_at: when the lease last began to run */
    int64_t fresh_from;    /* first offset read that nobody before us can have begun; -1: not seen yet */
    int64_t committed;     /* last offset handed to Kafka */
    size_t committed_done, committed_resting; /* and with it, how many above it are done, and rest */
    struct done_runs *before; /* what the owner before had done above the offset; NULL: nothing */
    struct mail *mails;    /* all of it, newest first */
    struct lane *next;
};

struct lane_set;

/** run: unique to this run of this process. owned: called when a lane's mails may start; lost: its lease is someone else's. */
int lane_set_new(struct td_redis *redis, const struct td_settings *settings, const char *run,
                 void (*owned)(void *user, struct lane *lane), void (*lost)(void *user, struct lane *lane), void *user,
                 struct lane_set **ret, struct td_err *reterr);
void lane_set_free(struct lane_set *set);

/** Begin to own it. note: what the owner before left beside its offset (done_runs.h). NULL when out of memory. */
struct lane *lane_add(struct lane_set *set, struct td_lane id, const char *note);
struct lane *lane_find(const struct lane_set *set, struct td_lane id);
/** How many of this campaign's mails are still unproven. NULL when out of memory. */
size_t *lane_unproven(struct lane *lane, const struct campaign *campaign);
struct lane *lane_first(const struct lane_set *set); /* walk by ->next */
/** Give all leases back and forget the lanes; they must have no mails. committed: the group has taken the offsets of all that
 * is done. Without that the next owner reads mails again that have ended, and must not trust the lane to be clean. */
void lane_set_clear(struct lane_set *set, bool committed);
/** May something new start? Not under a lease that has run out: the process may have slept while another took over. While
 * Redis is away nobody can take a lease, so what is owned stays owned. */
bool lane_may_start(const struct lane_set *set, const struct lane *lane, uint64_t now_ms);
/** A lane was fenced long ago and the group still gives it to us: what was dropped then must be read again, by a new process. */
bool lane_set_stuck(const struct lane_set *set, uint64_t now_ms);
/** Ask for and renew leases: call every 100 ms or so. */
void lane_set_tick(struct lane_set *set, uint64_t now_ms);

#endif /* LANE_H */
