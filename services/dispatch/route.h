/* route.h - which relay of its route one mail takes now (DESIGN s.7). Pure. */
#ifndef ROUTE_H
#define ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is known of one relay for one mail, in the order of the route. */
struct route_relay {
    bool never;     /* country not allowed, or the message is too big for it: no state of affairs changes that */
    bool avoided;   /* it refused this mail a moment ago, or the campaign bounces too much there */
    bool well;      /* closed or limited */
    bool limited;   /* what it cannot take at once flows on to the next relay */
    bool grant;     /* half-open: one trial mail may go */
    bool room;      /* a connection and a slot are free now */
    bool throttled; /* this mail is bulk, of which the relay gets a part: share; what is beyond it flows on, and where no other
                       relay is fit it may have `spare` */
    bool spare;     /* throttled: a slot for what is beyond its part is free now */
    uint32_t share; /* 0..10000: part of the mail it may get while it ramps up or is throttled */
};

enum route_answer {
    ROUTE_SEND,  /* through `relay` */
    ROUTE_WAIT,  /* `relay` will have room soon */
    ROUTE_HOLD,  /* no relay is fit now: keep it, spend nothing */
    ROUTE_NEVER  /* no relay of the route may ever take it */
};

/**
 * @param dice   0..9999, the same for one mail at each call, so that a ramp does not flicker
 * @param relay  index into relays; set for SEND and WAIT
 */
enum route_answer route_choose(const struct route_relay *relays, size_t count, uint32_t dice, size_t *relay);

#endif /* ROUTE_H */
