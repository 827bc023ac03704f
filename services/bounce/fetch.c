#include "fetch.h"

#include <stdbool.h>
#include <stdlib.h>

#include "tandem/buf.h"
#include "tandem/curl_loop.h"

enum { CONNECT_MS = 4000, ALL_MS = 8000 };

struct fetch {
    struct td_curl_loop *curl;
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

static void request_end(struct request *r, CURLcode result)
{
    struct fetch *fetch = r->owner;
    struct td_err err;
    long status = 0;

    curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_multi_remove_handle(td_curl_loop_multi(fetch->curl), r->easy);
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

static void on_done(void *owner, CURLcode result)
{
    request_end(owner, result);
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
    SET(CURLOPT_QUICK_EXIT, 1L); /* giving up must not join a resolver thread that hangs in DNS: that blocks the loop */
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
    if (!r->easy || !prepare(r, url) || curl_multi_add_handle(td_curl_loop_multi(fetch->curl), r->easy) != CURLM_OK) {
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
        fetch->curl = td_curl_loop_new(loop, on_done);
    if (!fetch || !fetch->curl) {
        free(fetch);
        return td_fail(reterr, TD_ENOMEM, "fetch");
    }
    fetch->ca_file = ca_file;
    *ret = fetch;
    return TD_OK;
}

void fetch_free(struct fetch *fetch)
{
    if (!fetch)
        return;
    while (fetch->requests)
        request_end(fetch->requests, CURLE_ABORTED_BY_CALLBACK);
    td_curl_loop_free(fetch->curl);
    free(fetch);
}
