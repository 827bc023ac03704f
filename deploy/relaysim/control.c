#include "control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bouncer.h"
#include "http_request.h"
#include "sns.h"

#define REQUEST_NS (10 * UINT64_C(1000000000))

struct control {
    struct watch watch;
    struct timer timer;
    struct sim *sim;
    struct td_buf in, out;
    bool answered;
};

struct answer {
    int code;
    json_t *json; /* owned */
};

static struct answer failure(int code, const char *text)
{
    return (struct answer){code, json_pack("{s:s}", "error", text)};
}

/* ---- GET /status ---- */

static json_t *refused_counts(const struct counts *counts)
{
    json_t *object = json_object();
    char code[8];

    for (int i = 0; i < 200; i++)
        if (counts->refused[i]) {
            snprintf(code, sizeof(code), "%d", 400 + i);
            json_object_set_new(object, code, json_integer((json_int_t)counts->refused[i]));
        }
    return object;
}

/* Finished windows only, oldest first. */
static json_t *windows(struct sim *sim, size_t count, uint64_t now_ns)
{
    json_t *array = json_array();

    for (size_t back = count; back > 0; back--)
        json_array_append_new(array, json_integer(throttle_window(&sim->throttle, back, now_ns)));
    return array;
}

static uint64_t last_second(struct sim *sim, uint64_t now_ns)
{
    uint64_t sum = 0;

    for (size_t back = 1; back <= 10; back++)
        sum += throttle_window(&sim->throttle, back, now_ns);
    return sum;
}

/* "windows=N" of the query; 0 when it is not there. */
static size_t windows_asked(struct slice query)
{
    static const char name[] = "windows=";
    size_t count = 0;

    if (query.len < sizeof(name) || memcmp(query.data, name, sizeof(name) - 1) != 0)
        return 0;
    for (size_t i = sizeof(name) - 1; i < query.len && query.data[i] >= '0' && query.data[i] <= '9'; i++) {
        count = count * 10 + (size_t)(query.data[i] - '0');
        if (count > THROTTLE_WINDOWS - 1)
            return THROTTLE_WINDOWS - 1;
    }
    return count;
}

static struct answer get_status(struct sim *sim, struct slice query)
{
    uint64_t now_ns = loop_clock_ns();
    const struct counts *counts = &sim->counts;
    size_t window_count = windows_asked(query);
    json_t *json = json_pack(
        "{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "uptime_ms",
        (json_int_t)((now_ns - sim->started_ns) / 1000000u), "connections", (json_int_t)counts->connections,
        "connections_open", (json_int_t)sim->session_count, "tls_handshakes", (json_int_t)counts->tls_handshakes,
        "tls_resumed", (json_int_t)counts->tls_resumed, "accepted", (json_int_t)counts->mails, "recipients",
        (json_int_t)counts->recipients, "bytes", (json_int_t)counts->bytes, "lost", (json_int_t)counts->lost,
        "unoffered_pipelining", (json_int_t)counts->unoffered_pipelining, "last_second",
        (json_int_t)last_second(sim, now_ns), "dsn_sent", (json_int_t)counts->dsn_sent, "dsn_dropped",
        (json_int_t)counts->dsn_dropped, "dsn_waiting",
        (json_int_t)(sim->bouncer ? bouncer_waiting(sim->bouncer) : 0));

    json_object_set_new(json, "refused", refused_counts(counts));
    json_object_set_new(json, "faults", fault_list(&sim->faults, now_ns, sim->taken_ever));
    json_object_set_new(
        json, "limits",
        json_pack("{s:I,s:I}", "rate", (json_int_t)sim->throttle.rate, "daily", (json_int_t)sim->throttle.daily));
    if (sim->sns)
        json_object_set_new(json, "sns", sns_status(sim->sns));
    if (window_count)
        json_object_set_new(json, "windows_100ms", windows(sim, window_count, now_ns));
    return (struct answer){200, json};
}

/* ---- the rest ---- */

static struct answer post_fault(struct sim *sim, json_t *body)
{
    struct td_err err = {.code = TD_OK};
    uint64_t id = 0;
    char event[64];

    if (fault_add(&sim->faults, body, loop_clock_ns(), sim->taken_ever, &id, &err) < 0)
        return failure(400, err.text);
    snprintf(event, sizeof(event), "fault %llu set", (unsigned long long)id);
    ledger_event(&sim->ledger, sim_unix_us(sim, loop_clock_ns()), event);
    sim_check_refusing(sim);
    return (struct answer){200, json_pack("{s:I}", "id", (json_int_t)id)};
}

static struct answer delete_fault(struct sim *sim, struct slice path)
{
    uint64_t id = 0;
    size_t lifted;

    for (size_t i = sizeof("/fault/") - 1; i < path.len; i++) {
        if (path.data[i] < '0' || path.data[i] > '9' || i > 20)
            return failure(400, "/fault/<number>");
        id = id * 10 + (uint64_t)(path.data[i] - '0');
    }
    lifted = fault_lift(&sim->faults, id);
    ledger_event(&sim->ledger, sim_unix_us(sim, loop_clock_ns()), "faults lifted");
    sim_check_refusing(sim);
    return (struct answer){200, json_pack("{s:I}", "lifted", (json_int_t)lifted)};
}

static struct answer post_limits(struct sim *sim, json_t *body)
{
    json_int_t rate = (json_int_t)sim->throttle.rate, daily = (json_int_t)sim->throttle.daily;

    if (json_unpack(body, "{s?I,s?I!}", "rate", &rate, "daily", &daily) < 0 || rate < 0 ||
        rate > THROTTLE_RATE_MAX || daily < 0)
        return failure(400, "{\"rate\": 0..1000000, \"daily\": 0...}, 0 = no limit");
    if (throttle_set(&sim->throttle, (uint64_t)rate, (uint64_t)daily) < 0)
        return failure(503, "out of memory");
    ledger_event(&sim->ledger, sim_unix_us(sim, loop_clock_ns()), "limits set");
    return (struct answer){200, json_pack("{s:I,s:I}", "rate", rate, "daily", daily)};
}

static struct answer post_sns(struct sim *sim, json_t *body)
{
    struct td_err err;

    return sns_set(sim->sns, body, &err) < 0 ? failure(400, err.text) : (struct answer){200, sns_status(sim->sns)};
}

static struct answer post_reset(struct sim *sim)
{
    memset(&sim->counts, 0, sizeof(sim->counts));
    throttle_reset(&sim->throttle, loop_clock_ns());
    ledger_event(&sim->ledger, sim_unix_us(sim, loop_clock_ns()), "counts reset");
    return (struct answer){200, json_object()};
}

static bool is(struct slice text, const char *want)
{
    return text.len == strlen(want) && memcmp(text.data, want, text.len) == 0;
}

static bool starts(struct slice text, const char *want)
{
    return text.len > strlen(want) && memcmp(text.data, want, strlen(want)) == 0;
}

static struct answer post_json(struct sim *sim, const struct http_request *request)
{
    json_error_t error;
    json_t *body = json_loadb(request->body.data, request->body.len, JSON_REJECT_DUPLICATES, &error);
    struct answer answer;

    if (!body)
        return failure(400, error.text);
    answer = is(request->path, "/fault") ? post_fault(sim, body)
             : is(request->path, "/sns") ? post_sns(sim, body)
                                         : post_limits(sim, body);
    json_decref(body);
    return answer;
}

static struct answer route(struct sim *sim, const struct http_request *request)
{
    bool get = is(request->method, "GET"), post = is(request->method, "POST");

    if (get && is(request->path, "/status"))
        return get_status(sim, request->query);
    if (get && is(request->path, "/fault"))
        return (struct answer){200, fault_list(&sim->faults, loop_clock_ns(), sim->taken_ever)};
    if (post && (is(request->path, "/fault") || is(request->path, "/limits") || (sim->sns && is(request->path, "/sns"))))
        return post_json(sim, request);
    if (is(request->method, "DELETE") && (is(request->path, "/fault") || starts(request->path, "/fault/")))
        return delete_fault(sim, request->path);
    if (post && is(request->path, "/reset-counts"))
        return post_reset(sim);
    return failure(404,
                   "GET /status, GET /fault, POST /fault, DELETE /fault[/id], POST /limits, POST /sns, POST /reset-counts");
}

/* ---- the connection ---- */

static void control_close(struct control *control)
{
    loop_timer_stop(&control->sim->loop, &control->timer);
    loop_close(&control->sim->loop, &control->watch);
    td_buf_release(&control->in);
    td_buf_release(&control->out);
    free(control);
}

static void control_flush(struct control *control)
{
    while (control->out.len) {
        ssize_t sent = send(control->watch.fd, control->out.data, control->out.len, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN) {
            if (loop_watch(&control->sim->loop, &control->watch, EPOLLOUT) < 0)
                break;
            return;
        }
        if (sent < 0)
            break;
        td_buf_consume(&control->out, (size_t)sent);
    }
    control_close(control);
}

static void control_answer(struct control *control, struct answer answer)
{
    char *text = answer.json ? json_dumps(answer.json, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

    td_buf_printf(&control->out,
                  "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                  "Connection: close\r\n\r\n%s\n",
                  text ? answer.code : 500, answer.code == 200 ? "OK" : "Error", text ? strlen(text) + 1 : 1,
                  text ? text : "");
    free(text);
    json_decref(answer.json);
    control->answered = true;
    control_flush(control);
}

static void control_read(struct control *control)
{
    struct http_request request;
    char data[16384];
    ssize_t got = recv(control->watch.fd, data, sizeof(data), 0);
    int rc;

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        control_close(control);
        return;
    }
    rc = td_buf_add(&control->in, data, (size_t)got);
    if (rc == TD_OK)
        rc = http_request_read((struct slice){control->in.data, control->in.len}, &request);
    if (rc == TD_EAGAIN)
        return;
    if (rc == TD_OK)
        control_answer(control, route(control->sim, &request));
    else
        control_answer(control, rc == TD_ESYNTAX ? failure(400, "not understood") : failure(413, "too large"));
}

static void on_ready(struct watch *watch, uint32_t events)
{
    struct control *control = (struct control *)watch;

    (void)events;
    if (control->answered)
        control_flush(control);
    else
        control_read(control);
}

static void on_timer(struct timer *timer)
{
    control_close((struct control *)((char *)timer - offsetof(struct control, timer)));
}

void control_accept(struct sim *sim, int fd)
{
    struct control *control = calloc(1, sizeof(*control));

    if (!control) {
        close(fd);
        return;
    }
    control->watch = (struct watch){.fd = fd, .ready = on_ready};
    control->timer.fire = on_timer;
    control->sim = sim;
    td_buf_init(&control->in, HTTP_HEAD_MAX + HTTP_BODY_MAX);
    td_buf_init(&control->out, 1u << 20);
    if (loop_watch(&sim->loop, &control->watch, EPOLLIN) < 0 ||
        loop_timer(&sim->loop, &control->timer, sim->loop.now_ns + REQUEST_NS) < 0)
        control_close(control);
}
