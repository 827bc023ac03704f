#include "fetch.h"

#include <curl/curl.h>
#include <stdbool.h>
#include <stdlib.h>

#include "tandem/buf.h"

enum { CONNECT_MS = 4000, ALL_MS = 8000 };

struct fetch {
    uv_loop_t *loop;
    CURLM *multi;
    uv_timer_t timer; /* libcurl's one timer */
    const char *ca_file;
    struct request *requests;
};

struct request {
    struct fetch *owner;
    struct request *prev, *next;
    CURL *easy;
    struct td_buf body;
    fetch_done *done;
    void *user;
};

struct watch {
    uv_poll_t poll;
    struct fetch *owner;
    curl_socket_t fd;
};

static void request_end(struct request *r, CURLcode result)
{
    struct fetch *fetch = r->owner;
    struct td_err err;
    long status = 0;

    curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_multi_remove_handle(fetch->multi, r->easy);
    curl_easy_cleanup(r->easy);
    if (r->prev)
        r->prev->next = r->next;
    else
        fetch->requests = r->next;
    if (r->next)
        r->next->prev = r->prev;
    if (result != CURLE_OK)
        td_fail(&err, TD_EIO, "%s", curl_easy_strerror(result));
    else
        td_fail(&err, TD_EIO, "HTTP status %ld", status);
    if (result == CURLE_OK && status == 200)
        r->done(r->user, td_buf_str(&r->body), r->body.len, NULL);
    else
        r->done(r->user, NULL, 0, &err);
    td_buf_release(&r->body);
    free(r);
}

static void take_done(struct fetch *fetch)
{
    CURLMsg *msg;
    int left;

    while ((msg = curl_multi_info_read(fetch->multi, &left))) {
        struct request *r = NULL;
        CURLcode result = msg->data.result;

        if (msg->msg == CURLMSG_DONE && curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&r) == CURLE_OK && r)
            request_end(r, result);
    }
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;
    struct fetch *fetch = watch->owner;
    int flags = status < 0 ? CURL_CSELECT_ERR : 0, running;

    flags |= events & UV_READABLE ? CURL_CSELECT_IN : 0;
    flags |= events & UV_WRITABLE ? CURL_CSELECT_OUT : 0;
    curl_multi_socket_action(fetch->multi, watch->fd, flags, &running);
    take_done(fetch);
}

static void on_timer(uv_timer_t *timer)
{
    struct fetch *fetch = timer->data;
    int running;

    curl_multi_socket_action(fetch->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    take_done(fetch);
}

static int timer_wanted(CURLM *multi, long timeout_ms, void *user)
{
    struct fetch *fetch = user;

    (void)multi;
    if (timeout_ms < 0)
        uv_timer_stop(&fetch->timer);
    else
        uv_timer_start(&fetch->timer, on_timer, (uint64_t)timeout_ms, 0);
    return 0;
}

static void watch_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static int socket_wanted(CURL *easy, curl_socket_t fd, int what, void *user, void *socket_user)
{
    struct fetch *fetch = user;
    struct watch *watch = socket_user;
    int events = 0;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (watch)
            uv_close((uv_handle_t *)&watch->poll, watch_closed);
        curl_multi_assign(fetch->multi, fd, NULL);
        return 0;
    }
    if (!watch) {
        watch = calloc(1, sizeof(*watch));
        if (!watch || uv_poll_init_socket(fetch->loop, &watch->poll, fd) < 0) {
            free(watch);
            return -1;
        }
        watch->poll.data = watch;
        watch->owner = fetch;
        watch->fd = fd;
        curl_multi_assign(fetch->multi, fd, watch);
    }
    events |= what == CURL_POLL_IN || what == CURL_POLL_INOUT ? UV_READABLE : 0;
    events |= what == CURL_POLL_OUT || what == CURL_POLL_INOUT ? UV_WRITABLE : 0;
    return uv_poll_start(&watch->poll, events, on_socket) < 0 ? -1 : 0;
}

static size_t on_body(char *data, size_t size, size_t count, void *user)
{
    struct request *r = user;

    return td_buf_add(&r->body, data, size * count) == TD_OK ? size * count : 0;
}

#define SET(option, value) failed |= curl_easy_setopt(r->easy, option, value) != CURLE_OK

static bool prepare(struct request *r, const char *url)
{
    bool failed = false;

    SET(CURLOPT_URL, url);
    SET(CURLOPT_PROTOCOLS_STR, "https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (r->owner->ca_file)
        SET(CURLOPT_CAINFO, r->owner->ca_file);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    SET(CURLOPT_TIMEOUT_MS, (long)ALL_MS);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_USERAGENT, "tandem-bounce");
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, r);
    SET(CURLOPT_PRIVATE, r);
    return !failed;
}

int fetch_get(struct fetch *fetch, const char *url, size_t max_bytes, fetch_done *done, void *user)
{
    struct request *r = calloc(1, sizeof(*r));

    if (!r)
        return TD_ENOMEM;
    *r = (struct request){.owner = fetch, .easy = curl_easy_init(), .done = done, .user = user};
    td_buf_init(&r->body, max_bytes);
    if (!r->easy || !prepare(r, url) || curl_multi_add_handle(fetch->multi, r->easy) != CURLM_OK) {
        curl_easy_cleanup(r->easy);
        free(r);
        return TD_ENOMEM;
    }
    r->next = fetch->requests;
    if (r->next)
        r->next->prev = r;
    fetch->requests = r;
    return TD_OK;
}

int fetch_new(uv_loop_t *loop, const char *ca_file, struct fetch **ret, struct td_err *reterr)
{
    struct fetch *fetch = calloc(1, sizeof(*fetch));

    if (fetch)
        fetch->multi = curl_multi_init();
    if (!fetch || !fetch->multi) {
        free(fetch);
        return td_fail(reterr, TD_ENOMEM, "fetch");
    }
    fetch->loop = loop;
    fetch->ca_file = ca_file;
    uv_timer_init(loop, &fetch->timer);
    fetch->timer.data = fetch;
    curl_multi_setopt(fetch->multi, CURLMOPT_SOCKETFUNCTION, socket_wanted);
    curl_multi_setopt(fetch->multi, CURLMOPT_SOCKETDATA, fetch);
    curl_multi_setopt(fetch->multi, CURLMOPT_TIMERFUNCTION, timer_wanted);
    curl_multi_setopt(fetch->multi, CURLMOPT_TIMERDATA, fetch);
    *ret = fetch;
    return TD_OK;
}

static void fetch_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void fetch_free(struct fetch *fetch)
{
    if (!fetch)
        return;
    while (fetch->requests)
        request_end(fetch->requests, CURLE_ABORTED_BY_CALLBACK);
    curl_multi_cleanup(fetch->multi);
    uv_close((uv_handle_t *)&fetch->timer, fetch_closed);
}
