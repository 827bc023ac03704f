#include "tandem/curl_loop.h"

#include <stdlib.h>

#include "tandem/stages.h"

struct td_curl_loop {
    uv_loop_t *loop;
    CURLM *multi;
    uv_timer_t timer; /* libcurl's one timer */
    void (*done)(void *owner, CURLcode result);
};

/* A socket that libcurl watches (also the resolver's pair). */
struct watch {
    uv_poll_t poll;
    struct td_curl_loop *curl;
    curl_socket_t fd;
};

CURLM *td_curl_loop_multi(const struct td_curl_loop *curl)
{
    return curl->multi;
}

/* After every call into the multi handle, never from inside one: `done` may remove handles. */
static void take_done(struct td_curl_loop *curl)
{
    CURLMsg *msg;
    int left;

    while ((msg = curl_multi_info_read(curl->multi, &left))) {
        void *owner = NULL;
        CURLcode result = msg->data.result;

        if (msg->msg == CURLMSG_DONE &&
            curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&owner) == CURLE_OK && owner)
            curl->done(owner, result);
    }
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;
    struct td_curl_loop *curl = watch->curl;
    int flags = status < 0 ? CURL_CSELECT_ERR : 0, running;
    enum td_stage before = td_stage(TD_STAGE_CONNECT);

    flags |= events & UV_READABLE ? CURL_CSELECT_IN : 0;
    flags |= events & UV_WRITABLE ? CURL_CSELECT_OUT : 0;
    curl_multi_socket_action(curl->multi, watch->fd, flags, &running);
    take_done(curl);
    td_stage(before);
}

static void on_timer(uv_timer_t *timer)
{
    struct td_curl_loop *curl = timer->data;
    enum td_stage before = td_stage(TD_STAGE_CONNECT);
    int running;

    curl_multi_socket_action(curl->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    take_done(curl);
    td_stage(before);
}

static int timer_wanted(CURLM *multi, long timeout_ms, void *user)
{
    struct td_curl_loop *curl = user;

    (void)multi;
    if (timeout_ms < 0)
        uv_timer_stop(&curl->timer);
    else
        uv_timer_start(&curl->timer, on_timer, (uint64_t)timeout_ms, 0);
    return 0;
}

static void owner_freed(uv_handle_t *handle)
{
    free(handle->data);
}

static int socket_wanted(CURL *easy, curl_socket_t fd, int what, void *user, void *socket_user)
{
    struct td_curl_loop *curl = user;
    struct watch *watch = socket_user;
    int events = 0;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        /* The handle is done with this socket, which may live on as ours: uv_close frees the number at once. */
        if (watch)
            uv_close((uv_handle_t *)&watch->poll, owner_freed);
        curl_multi_assign(curl->multi, fd, NULL);
        return 0;
    }
    if (!watch) {
        watch = calloc(1, sizeof(*watch));
        if (!watch || uv_poll_init_socket(curl->loop, &watch->poll, fd) < 0) {
            free(watch);
            return -1;
        }
        watch->poll.data = watch;
        watch->curl = curl;
        watch->fd = fd;
        curl_multi_assign(curl->multi, fd, watch);
    }
    events |= what == CURL_POLL_IN || what == CURL_POLL_INOUT ? UV_READABLE : 0;
    events |= what == CURL_POLL_OUT || what == CURL_POLL_INOUT ? UV_WRITABLE : 0;
    return uv_poll_start(&watch->poll, events, on_socket) < 0 ? -1 : 0;
}

struct td_curl_loop *td_curl_loop_new(uv_loop_t *loop, void (*done)(void *owner, CURLcode result))
{
    struct td_curl_loop *curl = calloc(1, sizeof(*curl));

    if (curl)
        curl->multi = curl_multi_init();
    if (!curl || !curl->multi) {
        free(curl);
        return NULL;
    }
    curl->loop = loop;
    curl->done = done;
    uv_timer_init(loop, &curl->timer);
    curl->timer.data = curl;
    curl_multi_setopt(curl->multi, CURLMOPT_SOCKETFUNCTION, socket_wanted);
    curl_multi_setopt(curl->multi, CURLMOPT_SOCKETDATA, curl);
    curl_multi_setopt(curl->multi, CURLMOPT_TIMERFUNCTION, timer_wanted);
    curl_multi_setopt(curl->multi, CURLMOPT_TIMERDATA, curl);
    return curl;
}

void td_curl_loop_free(struct td_curl_loop *curl)
{
    if (!curl)
        return;
    curl_multi_cleanup(curl->multi);
    uv_close((uv_handle_t *)&curl->timer, owner_freed);
}
