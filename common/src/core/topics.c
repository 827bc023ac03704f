/* Partition counts: a mail's lane is the same partition number on recipients, outbound, express and retry, so
 * those follow kafka.lanes; outcomes carry one record a mail and follow too. The rest see few records: three, so
 * that each broker of a usual cluster leads one and up to three processes share the work. Dead letters are read by
 * a person: one partition, in order. */
#include "tandem/topics.h"

#include <stdio.h>

#define LANES 0
#define DAYS(n) ((n)*24LL * 3600 * 1000)

const struct td_topic td_topics[TD_T_COUNT] = {
    [TD_T_SUBMISSIONS] = {"mail.submissions", 3, false, DAYS(7), "Submission"},
    /* Records whose key begins with "part/" hold a ContentPart. */
    [TD_T_CONTENTS] = {"mail.contents", 3, true, -1, "CampaignContent"},
    [TD_T_RECIPIENTS] = {"mail.recipients", LANES, false, DAYS(7), "RecipientChunk"},
    [TD_T_OUTBOUND] = {"mail.outbound", LANES, false, DAYS(7), "OutboundMessage"},
    [TD_T_EXPRESS] = {"mail.outbound.express", LANES, false, DAYS(7), "OutboundMessage"},
    [TD_T_RETRY_1M] = {"mail.retry.1m", LANES, false, DAYS(7), "OutboundMessage"},
    [TD_T_RETRY_10M] = {"mail.retry.10m", LANES, false, DAYS(7), "OutboundMessage"},
    [TD_T_RETRY_1H] = {"mail.retry.1h", LANES, false, DAYS(7), "OutboundMessage"},
    [TD_T_OUTCOMES] = {"mail.outcomes", LANES, false, DAYS(90), "Outcome"},
    [TD_T_FEEDBACK] = {"mail.feedback", 3, false, DAYS(30), "Feedback"},
    [TD_T_SUPPRESSIONS] = {"mail.suppressions", 3, true, -1, "Suppression"},
    [TD_T_DEAD_LETTERS] = {"mail.dead-letters", 1, false, DAYS(14), NULL},
};

void td_topic_name(char *out, size_t size, const char *prefix, enum td_topic_id id)
{
    snprintf(out, size, "%s%s", prefix ? prefix : "", td_topics[id].name);
}
