#include "loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_PER_ROUND 256

uint64_t loop_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int loop_init(struct loop *loop, struct td_err *reterr)
{
    memset(loop, 0, sizeof(*loop));
    loop->now_ns = loop_clock_ns();
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0)
        return td_fail(reterr, TD_EFATAL, "epoll_create1: %s", strerror(errno));
    return TD_OK;
}

void loop_release(struct loop *loop)
{
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    free(loop->heap);
    loop->epoll_fd = -1;
    loop->heap = NULL;
}

int loop_watch(struct loop *loop, struct watch *watch, uint32_t interest)
{
    struct epoll_event event = {.events = interest, .data.ptr = watch};

    if (watch->interest == interest)
        return TD_OK;
    if (epoll_ctl(loop->epoll_fd, watch->interest ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, watch->fd, &event) < 0)
        return TD_EIO;
    watch->interest = interest;
    return TD_OK;
}

void loop_close(struct loop *loop, struct watch *watch)
{
    (void)loop; /* close() takes the descriptor out of epoll, as nothing here duplicates it */
    if (watch->fd >= 0)
        close(watch->fd);
    watch->fd = -1;
    watch->interest = 0;
}

static void heap_put(struct loop *loop, size_t slot, struct timer *timer)
{
    loop->heap[slot] = timer;
    timer->slot = slot;
}

static void heap_settle(struct loop *loop, size_t slot)
{
    struct timer *timer = loop->heap[slot];

    while (slot > 1 && loop->heap[slot / 2]->due_ns > timer->due_ns) {
        heap_put(loop, slot, loop->heap[slot / 2]);
        slot /= 2;
    }
    for (;;) {
        size_t child = slot * 2;

        if (child < loop->heap_len && loop->heap[child + 1]->due_ns < loop->heap[child]->due_ns)
            child++;
        if (child > loop->heap_len || loop->heap[child]->due_ns >= timer->due_ns)
            break;
        heap_put(loop, slot, loop->heap[child]);
        slot = child;
    }
    heap_put(loop, slot, timer);
}

int loop_timer(struct loop *loop, struct timer *timer, uint64_t due_ns)
{
    if (!timer->slot) {
        if (loop->heap_len + 2 > loop->heap_cap) {
            size_t cap = loop->heap_cap ? loop->heap_cap * 2 : 64;
            struct timer **heap = realloc(loop->heap, cap * sizeof(*heap));

            if (!heap)
                return TD_ENOMEM;
            loop->heap = heap;
            loop->heap_cap = cap;
        }
        heap_put(loop, ++loop->heap_len, timer);
    }
    timer->due_ns = due_ns;
    heap_settle(loop, timer->slot);
    return TD_OK;
}

void loop_timer_stop(struct loop *loop, struct timer *timer)
{
    size_t slot = timer->slot;
    struct timer *last;

    if (!slot)
        return;
    timer->slot = 0;
    last = loop->heap[loop->heap_len--];
    if (last == timer)
        return;
    heap_put(loop, slot, last);
    heap_settle(loop, slot);
}

static void fire_due(struct loop *loop)
{
    while (loop->heap_len && loop->heap[1]->due_ns <= loop->now_ns) {
        struct timer *timer = loop->heap[1];

        loop_timer_stop(loop, timer);
        timer->fire(timer);
    }
}

static int sleep_ms(const struct loop *loop)
{
    uint64_t now, wait_ms;

    if (loop->busy)
        return 0;
    if (!loop->heap_len)
        return -1;
    now = loop_clock_ns();
    if (loop->heap[1]->due_ns <= now)
        return 0;
    wait_ms = (loop->heap[1]->due_ns - now) / 1000000u + 1; /* up: waking early would only spin */
    return wait_ms > 60000 ? 60000 : (int)wait_ms;
}

int loop_run(struct loop *loop, struct td_err *reterr)
{
    struct epoll_event events[EVENTS_PER_ROUND];

    while (!loop->stop) {
        int count = epoll_wait(loop->epoll_fd, events, EVENTS_PER_ROUND, sleep_ms(loop));

        if (count < 0 && errno != EINTR)
            return td_fail(reterr, TD_EFATAL, "epoll_wait: %s", strerror(errno));
        loop->now_ns = loop_clock_ns();
        for (int i = 0; i < count; i++) {
            struct watch *watch = events[i].data.ptr;

            if (watch->fd >= 0) /* closed earlier in this round */
                watch->ready(watch, events[i].events);
        }
        fire_due(loop);
        loop->round_end(loop->arg);
    }
    return TD_OK;
}
