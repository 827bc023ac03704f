#include "route.h"

/* The first well relay whose share admits this mail. Where it has no room: a limited one is passed over (its mail flows
 * on), as is a throttled one for what is beyond its part; any other is waited for, since the order of the route is the operator's wish. */
static enum route_answer first_fit(const struct route_relay *relays, size_t count, uint32_t dice, bool ignore_ramp,
                                   size_t *relay)
{
    enum route_answer best = ROUTE_HOLD;

    for (size_t i = 0; i < count; i++) {
        const struct route_relay *r = &relays[i];
        bool beyond = dice >= r->share, room = r->room && (!beyond || !r->throttled || r->spare);

        if (r->never || r->avoided)
            continue;
        if (r->grant && r->room) {
            *relay = i;
            return ROUTE_SEND;
        }
        if (!r->well || r->share == 0 || (beyond && !ignore_ramp))
            continue;
        if (room) {
            *relay = i;
            return ROUTE_SEND;
        }
        if (best == ROUTE_HOLD) {
            *relay = i;
            best = ROUTE_WAIT;
        }
        if (!r->limited && !(beyond && r->throttled))
            return ROUTE_WAIT;
    }
    return best;
}

enum route_answer route_choose(const struct route_relay *relays, size_t count, uint32_t dice, size_t *relay)
{
    enum route_answer answer = first_fit(relays, count, dice, false, relay);
    bool any = false;

    if (answer != ROUTE_HOLD)
        return answer;
    /* Nobody else is fit: then a relay that is still ramping up takes all, a throttled one what it may have besides. */
    answer = first_fit(relays, count, dice, true, relay);
    if (answer != ROUTE_HOLD)
        return answer;
    for (size_t i = 0; i < count; i++)
        any = any || !relays[i].never;
    return any ? ROUTE_HOLD : ROUTE_NEVER;
}
