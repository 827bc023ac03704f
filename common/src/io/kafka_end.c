/* How a handle ends.
 *
 * rd_kafka_destroy waits for the handle's threads, and those of a consumer wait for the answers to its commits: with the
 * broker gone that is session.timeout.ms, with one that hangs socket.timeout.ms (60 s), and no flag of destroy cuts it short
 * (rd_kafka_cgrp_try_terminate, releases 2.0 to 2.10). So each handle is destroyed on a thread of its own. Usually we wait for
 * it there and then; while the process stops we do not, and td_kafka_ended waits for all of them together, as long as there is
 * time. */
#include "kafka_int.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "tandem/clock.h"
#include "tandem/stop.h"

struct ending {
    struct ending *next;
    rd_kafka_t *rk;
    pthread_t thread;
    bool over; /* under lock */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct ending *endings; /* loop thread only; their `over` is not */

static void make_changed(void)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&changed, &attr);
    pthread_condattr_destroy(&attr);
}

static void destroy(rd_kafka_t *rk)
{
    rd_kafka_destroy_flags(rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}

static void *destroy_one(void *user)
{
    struct ending *ending = user;

    destroy(ending->rk);
    pthread_mutex_lock(&lock);
    ending->over = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return NULL;
}

void kafka_handle_end(rd_kafka_t *rk)
{
    struct ending *ending = td_stop_by(TD_STOP_CLOSE) == UINT64_MAX ? NULL : calloc(1, sizeof(*ending));

    pthread_once(&once, make_changed);
    if (ending)
        ending->rk = rk;
    if (!ending || pthread_create(&ending->thread, NULL, destroy_one, ending) != 0) {
        free(ending);
        destroy(rk);
        return;
    }
    ending->next = endings;
    endings = ending;
}

static bool wait_over(const struct ending *ending, uint64_t by_ms)
{
    const struct timespec until = {(time_t)(by_ms / 1000), (long)(by_ms % 1000) * 1000000};
    bool over;

    pthread_mutex_lock(&lock);
    while (!ending->over && pthread_cond_timedwait(&changed, &lock, &until) == 0)
        ;
    over = ending->over;
    pthread_mutex_unlock(&lock);
    return over;
}

size_t td_kafka_ended(uint64_t by_ms)
{
    struct ending **at = &endings;
    size_t left = 0;

    while (*at) {
        struct ending *ending = *at;

        if (!wait_over(ending, by_ms)) {
            at = &ending->next;
            left++;
            continue;
        }
        pthread_join(ending->thread, NULL);
        *at = ending->next;
        free(ending);
    }
    return left;
}
