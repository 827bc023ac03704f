/* A twin of bounce, as far as dispatch meets it: some time after a relay that tells (ses_configuration_set) took a mail, and nobody
 * has ended it yet, it is ended in the ledger as ACCEPTED when it is in doubt, and put on mail.outcomes a little later; else the
 * proof is noted. Some events never come. Sometimes bounce dies in between: then whoever meets the mail must publish what the
 * ledger keeps. */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

#include "tandem/pb.h"

#define GRACE_US (10 * SEC) /* as bounce: dispatch writes back what it ended while Redis was away */

struct told {
    struct campaign_world *campaign;
    uint32_t index;
    size_t relay;
    const void *outcome;
    size_t len;
};

static struct proc bounce = {.index = 0, .name = "bounce", .life = 1000000}; /* no dispatcher's id */

static void on_published(void *arg, uint64_t tag)
{
    struct told *told = arg;
    struct recipient *r = &told->campaign->rcpt[told->index];
    char key[TD_MAIL_KEY_MAX];

    (void)tag;
    sim_check_outcome(&bounce, key, td_mail_key(key, told->campaign->id, told->index), told->outcome, told->len);
    r->pending = NULL;
    r->pending_len = 0;
}

static void pack(struct told *told)
{
    Tandem__Mail__V1__Outcome outcome = TANDEM__MAIL__V1__OUTCOME__INIT;
    Tandem__Mail__V1__RecipientOutcome rcpt = TANDEM__MAIL__V1__RECIPIENT_OUTCOME__INIT;
    void *packed;

    rcpt.result = TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_ACCEPTED;
    rcpt.relay = sim.proc[0].settings.relays[told->relay].name;
    rcpt.reason = (char *)(uintptr_t) "evidence.ses_event";
    outcome.campaign_id = told->campaign->id;
    outcome.index = told->index;
    outcome.kind_case = TANDEM__MAIL__V1__OUTCOME__KIND_RECIPIENT;
    outcome.recipient = &rcpt;
    packed = td_pb_write(&outcome.base, &told->len);
    told->outcome = sim_strdup(packed, told->len);
    free(packed);
}

static void on_told(void *arg, uint64_t tag)
{
    struct told *told = arg;
    struct recipient *r = &told->campaign->rcpt[told->index];

    (void)tag;
    if (!sim_redis_well() || (sim_redis_well_since() > 0 && sim.now < sim_redis_well_since() + GRACE_US)) {
        sim_after(500 * MS, NULL, on_told, told, 0);
        return;
    }
    if (r->done)
        return;
    pack(told);
    if (!r->doubt) {
        sim_trace("  bounce notes %s/%u", told->campaign->id, told->index);
        if (!r->proof) {
            r->proof = told->outcome;
            r->proof_len = told->len;
        }
        return;
    }
    sim_trace("  bounce ends %s/%u", told->campaign->id, told->index);
    r->done = true;
    r->doubt = false;
    r->pending = r->ended = told->outcome;
    r->pending_len = r->ended_len = told->len;
    told->campaign->accepted[told->relay]++;
    if (sim_chance(700))
        sim_after(sim_between(1 * MS, 2 * SEC), NULL, on_published, told, 0);
}

void sim_evidence(struct campaign_world *campaign, uint32_t index, size_t relay)
{
    struct told *told;

    if (!sim.proc[0].settings.relays[relay].ses_configuration_set || sim_chance(300))
        return;
    told = sim_alloc(sizeof(*told));
    *told = (struct told){.campaign = campaign, .index = index, .relay = relay};
    sim_after(sim_chance(500) ? sim_between(20 * MS, 5 * SEC) : sim_between(5 * SEC, 60 * SEC), NULL, on_told, told, 0);
}
