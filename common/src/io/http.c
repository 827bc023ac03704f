/* libmicrohttpd without threads: its epoll descriptor sits in the loop as one uv_poll, and a timer runs it when it
 * says that time, not a socket, is what it waits for (closing idle connections). Handlers run inside MHD_run, on
 * the loop.
 *
 * Nobody outside may hold memory here: 64 connections, 10 s without a byte, 64 KiB of body (or what the route
 * says). A longer body is answered 413 at once when its length is announced; else it is read and dropped up to
 * 1 MiB, then the connection is closed.
 *
 * A request that is answered later: its connection is suspended, and resumed by the answer; libmicrohttpd then
 * calls on_request once more, which queues it. */
#include "tandem/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../hostport.h"
#include "tandem/stages.h"

enum {
    CONNECTIONS_MAX = 64,
    IDLE_S = 10,
    CONNECTION_BYTES = 32 * 1024, /* request line and headers */
    BODY_MAX = 64 * 1024,
    DROP_MAX = 1024 * 1024,
    RESPONSE_MAX = 4 * 1024 * 1024
};

struct route {
    char *method, *path;
    td_http_handler *handler;     /* one of the two is set */
    td_http_later_handler *later;
    void *user;
    size_t body_max;
    struct route *next;
};

struct td_http {
    struct MHD_Daemon *daemon;
    uv_poll_t poll;
    uv_timer_t timer;
    int open_handles; /* freed when both are closed */
    int port;
    struct route *routes;
    struct td_http_later *waiting; /* requests whose answer is to come */
};

/* A request, from its headers until its connection is done with it and it has been answered. */
struct td_http_later {
    struct td_http *http;
    struct MHD_Connection *connection; /* NULL: gone */
    struct td_http_later *prev, *next; /* of http->waiting */
    struct td_buf body, text;
    size_t dropped;
    bool waiting; /* the handler has it and has not answered */
    bool suspended;
    int status; /* 0: no answer yet */
};

static enum MHD_Result reply(struct MHD_Connection *connection, int status, const char *type, struct td_buf *body,
                             const char *allow)
{
    struct MHD_Response *response;
    enum MHD_Result result;
    size_t len;
    char *data;

    len = body->len;
    data = td_buf_take(body, NULL);
    /* On success the response owns data and frees it; on failure we still do. */
    response = MHD_create_response_from_buffer(len, data ? data : (void *)(uintptr_t) "",
                                               data ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    if (!response) {
        free(data);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (allow)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, allow);
    result = MHD_queue_response(connection, (unsigned)status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result reply_error(struct MHD_Connection *connection, int status, const char *text,
                                   const char *allow)
{
    struct td_buf body = TD_BUF_INIT(256);
    enum MHD_Result result = MHD_NO;

    if (td_buf_printf(&body, "{\"error\":\"%s\"}\n", text) == TD_OK)
        result = reply(connection, status, "application/json", &body, allow);
    td_buf_release(&body);
    return result;
}

/* HEAD is GET whose body libmicrohttpd keeps back. */
static bool is_method(const char *route_method, const char *method)
{
    return strcmp(route_method, strcmp(method, "HEAD") == 0 ? "GET" : method) == 0;
}

/* ret_other: a route with this path and another method. */
static const struct route *route_find(const struct td_http *http, const char *path, const char *method,
                                      const struct route **ret_other)
{
    for (const struct route *route = http->routes; route; route = route->next) {
        if (strcmp(route->path, path) != 0)
            continue;
        if (is_method(route->method, method))
            return route;
        *ret_other = route;
    }
    return NULL;
}

static enum MHD_Result reply_later(struct td_http_later *request)
{
    return reply(request->connection, request->status, "application/json", &request->text, NULL);
}

static enum MHD_Result hand_over(const struct route *route, const struct td_http_request *req,
                                 struct td_http_later *request)
{
    struct td_http *http = request->http;

    request->waiting = true;
    request->next = http->waiting;
    if (request->next)
        request->next->prev = request;
    http->waiting = request;
    route->later(route->user, req, request);
    if (request->status)
        return reply_later(request);
    request->suspended = true;
    MHD_suspend_connection(request->connection);
    return MHD_YES;
}

static enum MHD_Result answer(struct td_http *http, struct MHD_Connection *connection, const char *path,
                              const char *method, struct td_http_later *request)
{
    struct td_http_request req = {method, path, td_buf_str(&request->body), request->body.len};
    struct td_http_response res = {200, "application/json", TD_BUF_INIT(RESPONSE_MAX)};
    const struct route *other = NULL, *route = route_find(http, path, method, &other);
    enum MHD_Result result;

    if (route && route->later)
        return hand_over(route, &req, request);
    if (!route)
        return other ? reply_error(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "method not allowed", other->method)
                     : reply_error(connection, MHD_HTTP_NOT_FOUND, "not found", NULL);
    route->handler(route->user, &req, &res);
    result = reply(connection, res.status, res.content_type, &res.body, NULL);
    td_buf_release(&res.body);
    return result;
}

static bool announces_too_much(struct MHD_Connection *connection, size_t body_max)
{
    const char *text = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);

    return text && strtoull(text, NULL, 10) > body_max; /* libmicrohttpd has checked that it is a number */
}

static size_t body_max_of(const struct td_http *http, const char *path, const char *method)
{
    const struct route *other = NULL, *route = route_find(http, path, method, &other);

    return route ? route->body_max : BODY_MAX;
}

/* Called with the headers, then with each piece of the body, then with *size 0; once more when it was suspended. */
static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *data, size_t *size,
                                  void **slot)
{
    struct td_http_later *request = *slot;

    (void)version;
    if (!request) {
        size_t body_max = body_max_of(cls, path, method);

        if (announces_too_much(connection, body_max))
            return reply_error(connection, MHD_HTTP_CONTENT_TOO_LARGE, "body too large", NULL);
        request = calloc(1, sizeof(*request));
        if (!request)
            return MHD_NO;
        request->http = cls;
        request->connection = connection;
        td_buf_init(&request->body, body_max);
        td_buf_init(&request->text, RESPONSE_MAX);
        *slot = request;
        return MHD_YES;
    }
    if (*size > 0) {
        if (request->dropped || td_buf_add(&request->body, data, *size) < 0)
            request->dropped += *size;
        *size = 0;
        return request->dropped > DROP_MAX ? MHD_NO : MHD_YES;
    }
    if (request->dropped)
        return reply_error(connection, MHD_HTTP_CONTENT_TOO_LARGE, "body too large", NULL);
    if (request->status)
        return reply_later(request);
    return answer(cls, connection, path, method, request);
}

static void request_free(struct td_http_later *request)
{
    td_buf_release(&request->body);
    td_buf_release(&request->text);
    free(request);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **slot,
                         enum MHD_RequestTerminationCode code)
{
    struct td_http_later *request = *slot;

    (void)cls;
    (void)connection;
    (void)code;
    if (!request)
        return;
    *slot = NULL;
    request->connection = NULL;
    if (!request->waiting)
        request_free(request);
}

static void on_timer(uv_timer_t *timer);

static void run(struct td_http *http)
{
    enum td_stage before = td_stage(TD_STAGE_HTTP);
    MHD_UNSIGNED_LONG_LONG wait_ms = 0;

    MHD_run(http->daemon);
    td_stage(before);
    if (MHD_get_timeout(http->daemon, &wait_ms) == MHD_YES)
        uv_timer_start(&http->timer, on_timer, wait_ms, 0);
    else
        uv_timer_stop(&http->timer);
}

static void on_timer(uv_timer_t *timer)
{
    run(timer->data);
}

static void not_waiting(struct td_http_later *request)
{
    if (request->prev)
        request->prev->next = request->next;
    else
        request->http->waiting = request->next;
    if (request->next)
        request->next->prev = request->prev;
    request->prev = request->next = NULL;
}

void td_http_answer(struct td_http_later *request, int status, const char *json)
{
    request->waiting = false;
    if (!request->http) { /* td_http_free was faster */
        request_free(request);
        return;
    }
    not_waiting(request);
    request->status = status;
    td_buf_adds(&request->text, json);
    if (!request->suspended) /* from inside the handler */
        return;
    request->suspended = false;
    MHD_resume_connection(request->connection);
    uv_timer_start(&request->http->timer, on_timer, 0, 0); /* not from here: it may be called from anywhere */
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    run(poll->data);
}

/* A bound, listening, non-blocking socket. */
static int listen_on(const char *listen_text, int *ret_fd, int *ret_port, struct td_err *reterr)
{
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *found = NULL;
    struct sockaddr_storage bound;
    socklen_t bound_len = sizeof(bound);
    struct td_hostport hostport;
    int fd = -1, on = 1, rc;
    char port[8];

    if (td_hostport_parse(listen_text, &hostport) < 0)
        return td_fail(reterr, TD_ECONFIG, "http: cannot listen on %s: not host:port", listen_text);
    snprintf(port, sizeof(port), "%d", hostport.port);
    rc = getaddrinfo(hostport.host[0] ? hostport.host : NULL, port, &hints, &found);
    if (rc != 0)
        return td_fail(reterr, TD_ECONFIG, "http: cannot listen on %s: %s", listen_text, gai_strerror(rc));
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, CONNECTIONS_MAX) < 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &bound_len) < 0 ||
        getnameinfo((struct sockaddr *)&bound, bound_len, NULL, 0, port, sizeof(port), NI_NUMERICSERV) != 0) {
        /* Who has the port may be our predecessor that still drains: a restart later mends it. */
        rc = td_fail(reterr, errno == EADDRINUSE ? TD_EAGAIN : TD_ECONFIG, "http: cannot listen on %s: %s",
                     listen_text, strerror(errno));
        if (fd >= 0)
            close(fd);
    } else {
        *ret_fd = fd;
        *ret_port = (int)strtol(port, NULL, 10);
        rc = TD_OK;
    }
    freeaddrinfo(found);
    return rc;
}

int td_http_new(uv_loop_t *loop, const char *listen_text, struct td_http **ret, struct td_err *reterr)
{
    struct td_http *http = calloc(1, sizeof(*http));
    const union MHD_DaemonInfo *info;
    int fd = -1, rc;

    if (!http)
        return td_fail(reterr, TD_ENOMEM, "http: no memory");
    rc = listen_on(listen_text, &fd, &http->port, reterr);
    if (rc < 0)
        goto out;
    http->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, http, /* */
                                    MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
                                    (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S,
                                    MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
                                    MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_END);
    if (!http->daemon) {
        close(fd);
        rc = td_fail(reterr, TD_EFATAL, "http: cannot start on %s", listen_text);
        goto out;
    }
    info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info || uv_poll_init(loop, &http->poll, info->epoll_fd) < 0) {
        MHD_stop_daemon(http->daemon); /* closes fd */
        rc = td_fail(reterr, TD_EFATAL, "http: no epoll descriptor");
        goto out;
    }
    uv_timer_init(loop, &http->timer);
    http->poll.data = http->timer.data = http;
    http->open_handles = 2;
    uv_poll_start(&http->poll, UV_READABLE, on_poll);
    *ret = http;
    http = NULL;
out:
    free(http);
    return rc;
}

static int route_add(struct td_http *http, const char *method, const char *path, const struct route *as)
{
    struct route *route = calloc(1, sizeof(*route));

    if (!route)
        return TD_ENOMEM;
    *route = *as;
    route->method = strdup(method);
    route->path = strdup(path);
    route->next = http->routes;
    if (!route->method || !route->path) {
        free(route->method);
        free(route->path);
        free(route);
        return TD_ENOMEM;
    }
    http->routes = route;
    return TD_OK;
}

int td_http_route(struct td_http *http, const char *method, const char *path, td_http_handler *handler, void *user)
{
    return route_add(http, method, path, &(struct route){.handler = handler, .user = user, .body_max = BODY_MAX});
}

int td_http_route_later(struct td_http *http, const char *method, const char *path, size_t body_max,
                        td_http_later_handler *handler, void *user)
{
    return route_add(http, method, path, &(struct route){.later = handler, .user = user, .body_max = body_max});
}

int td_http_port(const struct td_http *http)
{
    return http->port;
}

static void on_closed(uv_handle_t *handle)
{
    struct td_http *http = handle->data;

    if (--http->open_handles == 0)
        free(http);
}

void td_http_free(struct td_http *http)
{
    struct route *route, *next;

    if (!http)
        return;
    uv_poll_stop(&http->poll); /* before its descriptor goes */
    while (http->waiting) {    /* a daemon with suspended connections must not be stopped */
        struct td_http_later *request = http->waiting;

        not_waiting(request);
        if (request->suspended)
            MHD_resume_connection(request->connection);
        request->http = NULL;
    }
    MHD_stop_daemon(http->daemon);
    for (route = http->routes; route; route = next) {
        next = route->next;
        free(route->method);
        free(route->path);
        free(route);
    }
    uv_close((uv_handle_t *)&http->poll, on_closed);
    uv_close((uv_handle_t *)&http->timer, on_closed);
}
