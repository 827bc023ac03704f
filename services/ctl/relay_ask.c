#include "relay_ask.h"

#include "tandem/clock.h"

#define TICK_MS 50

void relay_ask_end(struct relay_ask *ask, int code)
{
    ask->done = true;
    ask->code = code;
    uv_stop(&ask->ctl->loop);
}

void relay_asked(struct relay_ask *ask, int rc)
{
    ask->waiting = td_redis_answers(rc);
}

bool relay_answered(struct relay_ask *ask, const struct td_err *err)
{
    ask->waiting = false;
    if (!err)
        return true;
    /* Away: the timer asks again, for as long as the user waits. */
    if (err->code != TD_EIO || td_mono_ms() - ask->begun_ms > ask->ctl->timeout_ms)
        relay_ask_end(ask, ctl_error(err));
    return false;
}

static void on_timer(uv_timer_t *timer)
{
    struct relay_ask *ask = timer->data;

    if (!ask->waiting && !ask->done)
        ask->step(ask);
}

int relay_ask_run(struct relay_ask *ask)
{
    struct ctl *ctl = ask->ctl;
    struct td_err err;

    ask->begun_ms = td_mono_ms();
    ask->code = CTL_FAILED;
    if (td_redis_new(&ctl->loop, ctl->settings.redis_url, ctl->settings.redis_password,
                     (unsigned)ctl->settings.redis_timeout_ms, &ask->redis, &err) < 0)
        return ctl_error(&err);
    uv_timer_init(&ctl->loop, &ask->timer);
    ask->timer.data = ask;
    uv_timer_start(&ask->timer, on_timer, TICK_MS, TICK_MS);
    ctl_run(ctl);
    uv_close((uv_handle_t *)&ask->timer, NULL);
    td_redis_forget(ask->redis, ask);
    td_redis_free(ask->redis);
    uv_run(&ctl->loop, UV_RUN_DEFAULT); /* until the handles, which are on the caller's stack, are closed */
    return ask->code;
}
