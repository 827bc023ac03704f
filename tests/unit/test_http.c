#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tandem/http.h"

/* The client is a thread with blocking sockets; the server runs on the loop of the test. */
struct client {
    int port;
    const char *request;
    size_t request_len;
    char answer[8192];
    size_t len;
    bool hang_up;    /* do not wait for an answer */
    int healthcheck; /* status of td_http_get_status, when request is NULL */
    uv_async_t done;
};

struct fixture {
    uv_loop_t loop;
    struct td_http *http;
    int calls;
    size_t body_len;
    struct td_http_later *later; /* not answered yet */
    uv_timer_t timer;
};

static void on_echo(void *user, const struct td_http_request *req, struct td_http_response *res)
{
    struct fixture *fx = user;

    fx->calls++;
    fx->body_len = req->body_len;
    res->status = 201;
    res->content_type = "text/plain";
    td_buf_printf(&res->body, "%s %s %.10s", req->method, req->path, req->body);
}

static void on_empty(void *user, const struct td_http_request *req, struct td_http_response *res)
{
    struct fixture *fx = user;

    (void)req;
    (void)res;
    fx->calls++;
}

static void on_time(uv_timer_t *timer)
{
    struct fixture *fx = timer->data;

    td_http_answer(fx->later, 503, "later");
    fx->later = NULL;
    uv_close((uv_handle_t *)timer, NULL);
}

/* "now": from inside; "soon": in 20 ms; else never. */
static void on_later(void *user, const struct td_http_request *req, struct td_http_later *later)
{
    struct fixture *fx = user;

    fx->calls++;
    fx->body_len = req->body_len;
    if (strncmp(req->body, "now", 3) == 0) {
        td_http_answer(later, 202, "now");
        return;
    }
    fx->later = later;
    if (strncmp(req->body, "soon", 4) == 0) {
        uv_timer_init(&fx->loop, &fx->timer);
        fx->timer.data = fx;
        uv_timer_start(&fx->timer, on_time, 20, 0);
    }
}

static int setup(void **state)
{
    struct fixture *fx = calloc(1, sizeof(*fx));
    struct td_err err;

    uv_loop_init(&fx->loop);
    if (td_http_new(&fx->loop, "127.0.0.1:0", &fx->http, &err) < 0)
        return -1;
    td_http_route(fx->http, "POST", "/echo", on_echo, fx);
    td_http_route(fx->http, "GET", "/empty", on_empty, fx);
    td_http_route_later(fx->http, "POST", "/later", 256 * 1024, on_later, fx);
    *state = fx;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fx = *state;

    td_http_free(fx->http);
    uv_run(&fx->loop, UV_RUN_DEFAULT); /* ends: nothing of the server keeps the loop */
    if (uv_loop_close(&fx->loop) != 0)
        return -1;
    free(fx);
    return 0;
}

static void on_done(uv_async_t *async)
{
    uv_close((uv_handle_t *)async, NULL);
    uv_stop(async->loop);
}

static void client_main(void *arg)
{
    struct client *client = arg;
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)client->port)};
    char listen_text[32];
    size_t sent = 0;
    ssize_t n = 0;
    int fd;

    snprintf(listen_text, sizeof(listen_text), "127.0.0.1:%d", client->port);
    if (!client->request) {
        client->healthcheck = td_http_get_status(listen_text, "/empty", 2000);
        uv_async_send(&client->done);
        return;
    }
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0) {
        while (sent < client->request_len && n >= 0) {
            n = send(fd, client->request + sent, client->request_len - sent, MSG_NOSIGNAL);
            sent += n > 0 ? (size_t)n : 0;
        }
        shutdown(fd, SHUT_WR);
        while (!client->hang_up &&
               (n = recv(fd, client->answer + client->len, sizeof(client->answer) - 1 - client->len, 0)) > 0)
            client->len += (size_t)n;
    }
    close(fd);
    uv_async_send(&client->done);
}

static void connect_and_send(struct fixture *fx, struct client *client, const char *request, size_t len,
                             bool hang_up)
{
    uv_thread_t thread;

    memset(client, 0, sizeof(*client));
    client->hang_up = hang_up;
    client->port = td_http_port(fx->http);
    client->request = request;
    client->request_len = len;
    uv_async_init(&fx->loop, &client->done, on_done);
    uv_thread_create(&thread, client_main, client);
    uv_run(&fx->loop, UV_RUN_DEFAULT);
    uv_thread_join(&thread);
    uv_run(&fx->loop, UV_RUN_NOWAIT); /* closes the async */
    client->answer[client->len] = '\0';
}

static const char *exchange_bytes(struct fixture *fx, struct client *client, const char *request, size_t len)
{
    connect_and_send(fx, client, request, len, false);
    return client->answer;
}

static const char *exchange(struct fixture *fx, struct client *client, const char *request)
{
    return exchange_bytes(fx, client, request, request ? strlen(request) : 0);
}

static void routes_by_path_and_method(void **state)
{
    static const struct {
        const char *request, *status, *has;
    } row[] = {
        {"GET /empty HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 ",
         "Content-Type: application/json\r\n"},
        {"GET /empty?a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 ",
         "Content-Length: 0\r\n"},
        {"HEAD /empty HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 ", "no-store"},
        {"GET /empty/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 ",
         "{\"error\":\"not found\"}"},
        {"GET /../empty HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 404 ", ""},
        {"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 405 ", "Allow: POST\r\n"},
        {"DELETE /empty HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 405 ", "Allow: GET\r\n"},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 201 ",
         "POST /echo hi"},
        {"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: "
         "chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
         "HTTP/1.1 201 ", "POST /echo abc"},
    };
    struct client client;

    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        const char *answer = exchange(*state, &client, row[i].request);

        assert_memory_equal(answer, row[i].status, strlen(row[i].status));
        assert_non_null(strstr(answer, row[i].has));
    }
}

static size_t add_chunks(char *out, size_t len, int count)
{
    for (int i = 0; i < count; i++) {
        memcpy(out + len, "1000\r\n", 6);
        memset(out + len + 6, 'x', 4096);
        memcpy(out + len + 6 + 4096, "\r\n", 2);
        len += 6 + 4096 + 2;
    }
    return len;
}

static void body_too_long_never_reaches_a_handler(void **state)
{
    static const char announced[] = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n";
    static const char chunked[] =
        "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    struct fixture *fx = *state;
    struct client client;
    char *flood = calloc(1, 4 << 20);
    size_t len = sizeof(chunked) - 1;

    memcpy(flood, chunked, len);
    assert_memory_equal(exchange(fx, &client, announced), "HTTP/1.1 413 ", 13);

    len = add_chunks(flood, len, 20); /* 80 KiB: over the limit, so answered at its end */
    memcpy(flood + len, "0\r\n\r\n", 5);
    assert_memory_equal(exchange_bytes(fx, &client, flood, len + 5), "HTTP/1.1 413 ", 13);

    len = add_chunks(flood, len, 500); /* 2 MiB without an end: hung up on */
    assert_string_equal(exchange_bytes(fx, &client, flood, len), "");
    assert_int_equal(fx->calls, 0);
    free(flood);
}

static void longest_body_is_taken_whole(void **state)
{
    struct fixture *fx = *state;
    struct client client;
    char *request = calloc(1, 70000);
    size_t len = (size_t)snprintf(request, 200,
                                  "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                                  "Content-Length: 65536\r\n\r\n");

    memset(request + len, 'y', 65536);
    assert_memory_equal(exchange_bytes(fx, &client, request, len + 65536), "HTTP/1.1 201 ", 13);
    assert_int_equal(fx->body_len, 65536);
    free(request);
}

static void garbage_is_refused_and_the_server_lives(void **state)
{
    static const char *const garbage[] = {"\r\n\r\n\r\n",
                                          "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                                          "GET",
                                          "GET /empty",
                                          "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
                                          "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab"};
    struct fixture *fx = *state;
    struct client client;

    for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++)
        connect_and_send(fx, &client, garbage[i], strlen(garbage[i]), true);
    assert_int_equal(fx->calls, 0);
    exchange(fx, &client, NULL);
    assert_int_equal(client.healthcheck, 200);
    assert_int_equal(fx->calls, 1);
}

static void headers_without_end_are_refused(void **state)
{
    struct fixture *fx = *state;
    struct client client;
    char *request = calloc(1, 200000);
    size_t len = (size_t)snprintf(request, 100, "GET /empty HTTP/1.1\r\nHost: x\r\n");

    for (int i = 0; i < 3000; i++)
        len += (size_t)snprintf(request + len, 60, "X-Header-%05d: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", i);
    exchange_bytes(fx, &client, request, len);
    assert_int_equal(fx->calls, 0);
    free(request);
}

static void two_requests_on_one_connection(void **state)
{
    struct fixture *fx = *state;
    struct client client;
    const char *answer = exchange(fx, &client,
                                  "GET /empty HTTP/1.1\r\nHost: x\r\n\r\n"
                                  "GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");

    assert_memory_equal(answer, "HTTP/1.1 200 ", 13);
    assert_non_null(strstr(answer, "HTTP/1.1 404 "));
}

/* A POST to /later of len bytes that begins with `word`. */
static const char *post_later(struct fixture *fx, struct client *client, const char *word, size_t len)
{
    char head[128];
    int head_len = snprintf(head, sizeof(head), "POST /later HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n", len);
    char *request = malloc((size_t)head_len + len);

    memcpy(request, head, (size_t)head_len);
    memset(request + head_len, 'x', len);
    memcpy(request + head_len, word, strlen(word));
    exchange_bytes(fx, client, request, (size_t)head_len + len);
    free(request);
    return client->answer;
}

static void an_answer_may_come_later(void **state)
{
    struct fixture *fx = *state;
    struct client client;

    assert_non_null(strstr(post_later(fx, &client, "now", 8), "202"));
    assert_non_null(strstr(client.answer, "\r\n\r\nnow"));
    assert_non_null(strstr(post_later(fx, &client, "soon", 200 * 1024), "503"));
    assert_non_null(strstr(client.answer, "\r\n\r\nlater"));
    assert_int_equal(fx->body_len, 200 * 1024);
    assert_non_null(strstr(post_later(fx, &client, "soon", 256 * 1024 + 1), "413"));
    assert_int_equal(fx->calls, 2);
}

/* The server goes away first; the answer then only frees the request. */
static void an_answer_may_come_too_late(void **state)
{
    static const char request[] = "POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nnever";
    struct fixture *fx = *state;
    struct client client;

    connect_and_send(fx, &client, request, sizeof(request) - 1, true);
    for (int i = 0; i < 1000 && !fx->later; i++)
        uv_run(&fx->loop, UV_RUN_NOWAIT);
    assert_non_null(fx->later);
    td_http_free(fx->http);
    fx->http = NULL;
    td_http_answer(fx->later, 200, "nobody");
}

static void listen_errors_say_why(void **state)
{
    struct fixture *fx = *state;
    struct td_http *http = NULL;
    struct td_err err;
    char taken[32];

    snprintf(taken, sizeof(taken), "127.0.0.1:%d", td_http_port(fx->http));
    assert_int_equal(td_http_new(&fx->loop, taken, &http, &err), TD_EAGAIN);
    assert_non_null(strstr(err.text, "in use"));
    assert_int_equal(td_http_new(&fx->loop, "127.0.0.1", &http, &err), TD_ECONFIG);
    assert_int_equal(td_http_new(&fx->loop, "127.0.0.1:99999", &http, &err), TD_ECONFIG);
    assert_null(http);
    assert_int_equal(td_http_get_status("127.0.0.1:0", "/", 100), TD_EINVAL);
}

static void nobody_there_is_an_error(void **state)
{
    struct fixture *fx = *state;
    struct td_http *gone = NULL;
    char listen_text[32];

    assert_int_equal(td_http_new(&fx->loop, "[::1]:0", &gone, NULL), TD_OK);
    snprintf(listen_text, sizeof(listen_text), "[::1]:%d", td_http_port(gone));
    td_http_free(gone);
    assert_int_equal(td_http_get_status(listen_text, "/empty", 500), TD_EIO);
    /* One that accepts and says nothing: our loop is not running. */
    snprintf(listen_text, sizeof(listen_text), "127.0.0.1:%d", td_http_port(fx->http));
    assert_int_equal(td_http_get_status(listen_text, "/empty", 50), TD_ETIMEOUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(routes_by_path_and_method, setup, teardown),
        cmocka_unit_test_setup_teardown(body_too_long_never_reaches_a_handler, setup, teardown),
        cmocka_unit_test_setup_teardown(longest_body_is_taken_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(garbage_is_refused_and_the_server_lives, setup, teardown),
        cmocka_unit_test_setup_teardown(headers_without_end_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(two_requests_on_one_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(an_answer_may_come_later, setup, teardown),
        cmocka_unit_test_setup_teardown(an_answer_may_come_too_late, setup, teardown),
        cmocka_unit_test_setup_teardown(listen_errors_say_why, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_there_is_an_error, setup, teardown),
    };

    return cmocka_run_group_tests_name("http", tests, NULL, NULL);
}
