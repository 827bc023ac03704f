/* flow.h - how one mail moves through dispatch, step by step, and what all steps share. Loop thread only. */
#ifndef FLOW_H
#define FLOW_H

#include "campaign.h"
#include "lane.h"
#include "mail.h"
#include "outcomes.h"
#include "relays.h"
#include "statics.h"
#include "tandem/app.h"
#include "tandem/kafka.h"
#include "tandem/redis.h"

struct begin_call;

struct dispatch {
    struct td_app *app;
    const struct td_settings *settings;
    struct td_redis *redis;
    struct td_kafka_out *out;
    struct td_kafka_in *in;
    struct td_kafka_table *contents;
    struct campaign_set *campaigns;
    struct lane_set *lanes;
    struct statics *statics;
    struct outcomes *outcomes;
    struct relays *relays;

    uv_timer_t *tick, *pump;
    uv_timer_cb on_pump;
    uint64_t cap_wait_us;        /* until a capped campaign may go on; 0 = none waits */
    size_t begun[2];             /* mails in BEGIN or GO, bulk and express: see place.h */
    size_t in_memory[2];         /* mails, bulk and express, each bounded by dispatch.window */
    bool held[2];                /* lanes of that class are not read because its window is full */
    struct mail_list delayed;    /* not_before is to come */
    struct mail *orphans;        /* without a lane, through lane_next: a relay, Redis or Kafka has them still */
    struct begin_call *unanswered; /* questions to the ledger that wait for Redis */
    char run[40];                /* unique to this run of this process */
    uint64_t begin_count;
    struct campaign *begins;     /* campaigns with mails to ask the ledger for */
    bool redis_was_up;
    bool draining, lost;         /* lanes are being given back */
    bool quitting;               /* the group has let us go, relays are being left */
    bool giving_back;            /* nothing is left of them but the commit */
    uint64_t drain_until_ms, give_back_until_ms, commit_at_ms;

    struct {
        struct td_metric *in_memory, *outcome[8], *attempts, *retries, *unconfirmed_attempts, *ledger_away, *repeats,
            *dead_letters, *doubts, *proven;
    } m;
};

extern const struct td_service dispatch_service;

void flow_metrics(struct dispatch *d);
void flow_record(struct dispatch *d, struct lane *lane, const struct td_record *rec);
void flow_lane_owned(struct dispatch *d, struct lane *lane);
void flow_lane_lost(struct dispatch *d, struct lane *lane);
void flow_ledger_back(struct dispatch *d);
void flow_attempted(struct dispatch *d, struct mail *mail, const struct attempt_result *result);
void flow_finished(struct dispatch *d, struct mail *mail);
/** Offer what is ready to the relays, soon and once however often it is called. */
void flow_pump_soon(struct dispatch *d);
void flow_pump(struct dispatch *d);
void flow_tick(struct dispatch *d);
/** Lanes go away: drop what has not started, let the rest finish. */
void flow_drain(struct dispatch *d);
void flow_drained_check(struct dispatch *d);
/** Mails about which a relay or the ledger still owes an answer. */
size_t flow_without_outcome(const struct dispatch *d);
/** At exit, when no callback can come any more. */
void flow_free_all(struct dispatch *d);

#endif /* FLOW_H */
