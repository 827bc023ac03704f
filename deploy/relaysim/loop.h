/* loop.h - epoll and timers of relaysim. One thread; nothing here blocks but epoll_wait. */
#ifndef RELAYSIM_LOOP_H
#define RELAYSIM_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tandem/err.h"

/** Embedded first in whatever owns a descriptor, so that `ready` can cast back. */
struct watch {
    int fd;            /* owned by who embeds this; -1 = none */
    uint32_t interest; /* EPOLL... bits now asked for */
    void (*ready)(struct watch *watch, uint32_t events);
};

/** Embedded in whatever waits. Zeroed = not armed. */
struct timer {
    uint64_t due_ns;
    size_t slot; /* place in the heap, from 1; 0 = not armed */
    void (*fire)(struct timer *timer);
};

struct loop {
    int epoll_fd;
    struct timer **heap; /* [1..heap_len], earliest first */
    size_t heap_len, heap_cap;
    uint64_t now_ns; /* monotonic, of this round */
    bool stop;
    bool busy; /* work is left: do not sleep in the next round */
    /* Runs after all events of a round. What was freed in the round is only given back here, because later
     * events of the same round may still point at it. */
    void (*round_end)(void *arg);
    void *arg;
};

uint64_t loop_clock_ns(void); /* monotonic, now */

int loop_init(struct loop *loop, struct td_err *reterr);
void loop_release(struct loop *loop);

/** Ask for events (EPOLLHUP and EPOLLERR always come); adds the descriptor when it is new. */
int loop_watch(struct loop *loop, struct watch *watch, uint32_t interest);
/** Forget and close watch->fd; harmless when it is -1. */
void loop_close(struct loop *loop, struct watch *watch);

/** (Re)arm; TD_ENOMEM leaves it unarmed. */
int loop_timer(struct loop *loop, struct timer *timer, uint64_t due_ns);
void loop_timer_stop(struct loop *loop, struct timer *timer);

/** Until loop->stop. */
int loop_run(struct loop *loop, struct td_err *reterr);

#endif /* RELAYSIM_LOOP_H */
