#include "kafka_int.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct kafka_wake {
    uv_poll_t poll;
    uv_timer_t tick;
    int fd;
    unsigned open; /* handles the loop has not closed yet */
    enum td_stage stage;
    void (*fn)(void *user);
    void *user;
};

static const uint64_t one = 1; /* what an eventfd takes */

static void call(const struct kafka_wake *wake)
{
    enum td_stage before = td_stage(wake->stage);

    wake->fn(wake->user); /* may free it */
    td_stage(before);
}

static void on_event(uv_poll_t *poll, int status, int events)
{
    struct kafka_wake *wake = poll->data;
    uint64_t count;

    (void)status;
    (void)events;
    /* Reset before the queues are read: what comes in between wakes us once too often, never once too few. */
    if (read(wake->fd, &count, sizeof(count)) == (ssize_t)sizeof(count))
        call(wake);
}

static void on_tick(uv_timer_t *tick)
{
    call(tick->data);
}

static void on_closed(uv_handle_t *handle)
{
    struct kafka_wake *wake = handle->data;

    if (--wake->open > 0)
        return;
    close(wake->fd);
    free(wake);
}

struct kafka_wake *kafka_wake_new(uv_loop_t *loop, unsigned tick_ms, enum td_stage stage, void (*fn)(void *user), void *user)
{
    struct kafka_wake *wake = calloc(1, sizeof(*wake));

    if (!wake)
        return NULL;
    wake->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (wake->fd < 0 || uv_poll_init(loop, &wake->poll, wake->fd) < 0) {
        if (wake->fd >= 0)
            close(wake->fd);
        free(wake);
        return NULL;
    }
    wake->stage = stage;
    wake->fn = fn;
    wake->user = user;
    wake->open = 2;
    wake->poll.data = wake;
    wake->tick.data = wake;
    uv_timer_init(loop, &wake->tick); /* cannot fail, neither can the starts below with a valid fd and callback */
    uv_poll_start(&wake->poll, UV_READABLE, on_event);
    uv_timer_start(&wake->tick, on_tick, tick_ms, tick_ms);
    return wake;
}

void kafka_wake_watch(struct kafka_wake *wake, rd_kafka_queue_t *queue)
{
    rd_kafka_queue_io_event_enable(queue, wake->fd, &one, sizeof(one));
    /* The event comes when a queue goes from empty to not empty: what lies there already would never be told. */
    kafka_wake_soon(wake);
}

void kafka_wake_soon(struct kafka_wake *wake)
{
    /* Fails only when the counter is full, and then the loop wakes anyway. */
    if (write(wake->fd, &one, sizeof(one)) < 0)
        return;
}

void kafka_wake_free(struct kafka_wake *wake)
{
    if (!wake)
        return;
    uv_close((uv_handle_t *)&wake->poll, on_closed);
    uv_close((uv_handle_t *)&wake->tick, on_closed);
}
