/* tandem/stop.h - how the time of a stop, dispatch.drain, is shared out, so that the whole of it holds whatever is away.
 *
 * It begins with SIGTERM. Each stage ends at a fixed part of it; what one leaves over the next ones have. Loop thread only. */
#ifndef TD_STOP_H
#define TD_STOP_H

#include <stdint.h>

/* Until when, in sixteenths of the whole. */
enum td_stop_stage {
    TD_STOP_WORK = 8,       /* what is under way may come to its end */
    TD_STOP_COMMIT = 10,    /* offsets of what is done may be taken */
    TD_STOP_HAND_BACK = 11, /* the same where a service has forgotten to say that it is done */
    TD_STOP_LEAVE = 12,     /* the group may let us go */
    TD_STOP_QUIT = 13,      /* relays may say good-bye */
    TD_STOP_FLUSH = 14,     /* records may be acknowledged */
    TD_STOP_CLOSE = 15,     /* Kafka clients may close; the rest is for memory */
    TD_STOP_END = 16
};

/** The stop begins now and has so long. Once; later calls change nothing. */
void td_stop_begin(uint64_t drain_ms);
/** When this stage ends, monotonic ms; UINT64_MAX while nobody stops. */
uint64_t td_stop_by(enum td_stop_stage stage);
/** The earlier of by_ms (monotonic) and the end of this stage. */
uint64_t td_stop_sooner(uint64_t by_ms, enum td_stop_stage stage);

#endif /* TD_STOP_H */
