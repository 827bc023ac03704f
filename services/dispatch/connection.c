/* connection.c - moves bytes between the transaction and a socket that libcurl has connected, and keeps the clock.
 */
#include "connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include "connector_int.h"
#include "tandem/clock.h"
#include "tandem/stages.h"

#define READ_BYTES 8192
#define WRITE_BUDGET                                                                                              \
    (256 * 1024) /* then the loop sees to the others, and to what this relay has to say meanwhile */
#define TLS_RECORD_BYTES 16384
#define QUIT_WAIT_MS 2000 /* how long a relay may take to say good-bye */

struct connection {
    struct connector *connector;
    const struct connection_ops *ops;
    void *user;
    CURL *easy;
    struct smtp_transaction *tx; /* NULL while connecting */
    struct handshake handshake;
    struct tls_share *share; /* NULL: it resumes nothing */
    bool resumed;
    bool apart;
    void *tls; /* of tls_read_ahead */
    char error_text[CURL_ERROR_SIZE];
    uv_poll_t poll; /* only once up */
    curl_socket_t fd;
    bool polls;
    bool wants_write;
    bool was_writing; /* what the loop was told last */
    uv_timer_t timer;
    uint64_t timer_due_us; /* when the timer fires; 0 = not running */
    uint64_t deadline_us;  /* when the present wait is too long */
    uint64_t progress;     /* as of the present wait */
    uint64_t now_us;       /* when the loop last came here: asking the clock shows when done for each step */
    enum smtp_wait wait;
    bool was_idle;
    bool quitting;
    bool running; /* inside run */
    bool closed;
    int handles; /* still to be closed by the loop */
};

enum smtp_end connection_end(const struct connection *conn)
{
    if (!conn->tx)
        return SMTP_OPEN;
    return smtp_transaction_closing(conn->tx) ? SMTP_END_421 : smtp_transaction_end(conn->tx);
}

size_t connection_slots(const struct connection *conn)
{
    return smtp_transaction_slots(conn->tx);
}

bool connection_resumed(const struct connection *conn)
{
    return conn->resumed;
}

uint64_t connection_mails(const struct connection *conn)
{
    return conn->tx ? smtp_transaction_mails(conn->tx) : 0;
}

static uint64_t libcurl_took_us(const struct connection *conn, CURLINFO what)
{
    curl_off_t us = 0;

    return curl_easy_getinfo(conn->easy, what, &us) == CURLE_OK && us > 0 ? (uint64_t)us : 0;
}

enum connection_stage connection_stage(const struct connection *conn)
{
    if (conn->tx || conn->handshake.replies > 0)
        return CONNECTION_GREETED;
    if (libcurl_took_us(conn, CURLINFO_APPCONNECT_TIME_T) > 0)
        return CONNECTION_SECURED;
    return libcurl_took_us(conn, CURLINFO_NAMELOOKUP_TIME_T) > 0 ? CONNECTION_REACHING : CONNECTION_RESOLVING;
}

uint64_t connection_secured_us(const struct connection *conn)
{
    uint64_t all_us = libcurl_took_us(conn, CURLINFO_APPCONNECT_TIME_T), name_us = libcurl_took_us(conn, CURLINFO_NAMELOOKUP_TIME_T);

    return all_us > name_us ? all_us - name_us : 0;
}

void connection_set_apart(struct connection *conn)
{
    conn->apart = true;
}

static void heard(const struct connection *conn, uint64_t now_us)
{
    if (!conn->apart)
        connector_heard(conn->connector, now_us);
}

static void on_line(void *user)
{
    heard(user, td_mono_us());
}

static void handle_closed(uv_handle_t *handle)
{
    struct connection *conn = handle->data;

    if (--conn->handles == 0)
        free(conn);
}

static void easy_free(struct connection *conn)
{
    curl_easy_cleanup(conn->easy);
    conn->easy = NULL;
    tls_sessions_put(connector_sessions(conn->connector), conn->share);
    conn->share = NULL;
}

/* Order matters: the loop lets go of the socket before libcurl closes it, or the number could be another's
 * already. */
void connection_close(struct connection *conn)
{
    if (conn->closed)
        return;
    conn->closed = true;
    if (conn->polls)
        uv_close((uv_handle_t *)&conn->poll, handle_closed);
    uv_close((uv_handle_t *)&conn->timer, handle_closed);
    connector_remove(conn->connector, conn->easy);
    easy_free(conn);
    /* Now: its buffer goes back to the connector, which may be closed before us. */
    smtp_transaction_free(conn->tx);
    conn->tx = NULL;
}

int connection_open(struct connector *connector, const struct connection_ops *ops, void *user,
                    struct connection **ret, struct td_err *reterr)
{
    const struct td_relay_settings *relay = connector_relay(connector);
    struct connection *conn = calloc(1, sizeof(*conn));

    if (!conn)
        return td_fail(reterr, TD_ENOMEM, "connection to %s", relay->name);
    conn->connector = connector;
    conn->ops = ops;
    conn->user = user;
    handshake_init(&conn->handshake);
    conn->handshake.heard = on_line;
    conn->handshake.user = conn;
    conn->easy = connector_easy(connector, &conn->handshake, conn->error_text);
    if (conn->easy)
        conn->share = tls_sessions_take(connector_sessions(connector), conn->easy, td_mono_ms());
    if (!conn->easy || connector_add(connector, conn->easy, conn) < 0) {
        easy_free(conn);
        free(conn);
        return td_fail(reterr, TD_ENOMEM, "connection to %s", relay->name);
    }
    uv_timer_init(connector_loop(connector), &conn->timer);
    conn->timer.data = conn;
    conn->handles = 1;
    *ret = conn;
    return TD_OK;
}

/* ---- waits ---- */

static uint64_t wait_us(const struct connection *conn, enum smtp_wait wait)
{
    const struct td_relay_settings *relay = connector_relay(conn->connector);
    int64_t ms = relay->idle_timeout_ms;

    if (conn->quitting && wait == SMTP_WAIT_COMMAND)
        return QUIT_WAIT_MS * UINT64_C(1000);
    switch (wait) {
    case SMTP_WAIT_NOTHING:
        break;
    case SMTP_WAIT_COMMAND:
        ms = relay->command_timeout_ms;
        break;
    case SMTP_WAIT_DATA:
        ms = relay->data_timeout_ms;
        break;
    case SMTP_WAIT_FINAL:
        ms = relay->final_timeout_ms;
        break;
    }
    return (uint64_t)ms * 1000;
}

static void on_timer(uv_timer_t *timer);
static void run(struct connection *conn);

/* Deadlines move with every reply; the timer is only set when it would fire too late. Firing early costs a look.
 */
static void set_deadline(struct connection *conn, uint64_t now_us)
{
    enum smtp_wait wait = smtp_transaction_wait(conn->tx);
    uint64_t progress = smtp_transaction_progress(conn->tx);

    if (conn->deadline_us == 0 || wait != conn->wait || progress != conn->progress) {
        conn->wait = wait;
        conn->progress = progress;
        conn->deadline_us = now_us + wait_us(conn, wait);
    }
    if (conn->timer_due_us == 0 || conn->timer_due_us > conn->deadline_us) {
        conn->timer_due_us = conn->deadline_us;
        uv_update_time(connector_loop(conn->connector));
        uv_timer_start(&conn->timer, on_timer, (conn->deadline_us - now_us) / 1000 + 1, 0);
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct connection *conn = timer->data;
    uint64_t now_us = td_mono_us();

    conn->timer_due_us = 0;
    if (now_us < conn->deadline_us) {
        set_deadline(conn, now_us);
        return;
    }
    conn->deadline_us = 0;
    if (conn->wait == SMTP_WAIT_NOTHING && smtp_transaction_idle(conn->tx)) {
        conn->ops->stale(conn->user);
        if (!conn->closed && conn->timer_due_us == 0)
            set_deadline(conn, now_us);
        return;
    }
    smtp_transaction_fail(conn->tx, conn->quitting ? SMTP_END_QUIT : SMTP_END_TIMEOUT);
    run(conn);
}

/* ---- bytes ---- */

/* Until there is no more, since TLS may hold records that the socket no longer shows; or until every reply that is
 * due has come: to ask for more then is a system call for nothing, in lock step one a reply. What comes unasked is
 * seen when the socket shows it, or with the next reply (hear_held). */
static void read_due(struct connection *conn)
{
    char data[READ_BYTES];

    while (smtp_transaction_end(conn->tx) == SMTP_OPEN) {
        size_t n = 0;
        CURLcode rc = curl_easy_recv(conn->easy, data, sizeof(data), &n);

        if (rc == CURLE_AGAIN)
            return;
        if (rc != CURLE_OK || n == 0) {
            /* n = 0 is TLS close_notify: a stream cut off without one is an error to libcurl. */
            smtp_transaction_fail(conn->tx, conn->quitting   ? SMTP_END_QUIT
                                            : rc == CURLE_OK ? SMTP_END_CLOSED
                                                             : SMTP_END_LOST);
            return;
        }
        conn->now_us = td_mono_us();
        heard(conn, conn->now_us);
        smtp_transaction_in(conn->tx, data, n, conn->now_us);
        if (n < sizeof(data) && !smtp_transaction_expects(conn->tx))
            return;
    }
}

static void read_all(struct connection *conn)
{
    enum td_stage before = td_stage(TD_STAGE_REPLY);

    read_due(conn);
    td_stage(before);
}

static size_t compose(struct connection *conn, const char **ret_data)
{
    enum td_stage before = td_stage(TD_STAGE_COMPOSE);
    size_t len = smtp_transaction_out(conn->tx, ret_data);

    td_stage(before);
    return len;
}

/* TLS turns one write into a write a record, each of which TCP would send on its own: hold them back until all are
 * there. */
static void hold_records(const struct connection *conn, int on)
{
    setsockopt(conn->fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on)); /* no harm when it cannot */
}

static void write_all(struct connection *conn)
{
    size_t budget = WRITE_BUDGET;
    void *mail_user;
    const char *data;
    size_t len;

    conn->wants_write = false;
    while ((len = compose(conn, &data)) > 0) {
        size_t n = 0;
        bool many_records = len > TLS_RECORD_BYTES;
        CURLcode rc;

        if (many_records)
            hold_records(conn, 1);
        rc = curl_easy_send(conn->easy, data, len, &n);
        if (many_records)
            hold_records(conn, 0);
        if (rc == CURLE_AGAIN || (rc == CURLE_OK && n == 0)) {
            conn->wants_write = true;
            return;
        }
        if (rc != CURLE_OK) {
            /* What the relay said before it hung up says more than the broken pipe. */
            read_all(conn);
            smtp_transaction_fail(conn->tx, SMTP_END_LOST);
            return;
        }
        conn->now_us = td_mono_us();
        smtp_transaction_wrote(conn->tx, n, conn->now_us);
        while (smtp_transaction_sent(conn->tx, &mail_user))
            conn->ops->sent(conn->user, mail_user, conn->now_us);
        if (n >= budget) {
            conn->wants_write = true;
            return;
        }
        budget -= n;
    }
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct connection *conn = poll->data;

    if (status < 0 || (events & (UV_READABLE | UV_DISCONNECT)))
        read_all(conn);
    run(conn);
}

static void watch(struct connection *conn)
{
    int events = UV_READABLE | (conn->wants_write ? UV_WRITABLE : 0);

    /* uv_poll_start costs two system calls even when nothing changes. */
    if (uv_is_active((uv_handle_t *)&conn->poll) && conn->was_writing == conn->wants_write)
        return;
    conn->was_writing = conn->wants_write;
    uv_poll_start(&conn->poll, events, on_ready);
}

/* ---- running ---- */

static void give_results(struct connection *conn)
{
    struct attempt_result result;
    void *mail_user;

    while (smtp_transaction_result(conn->tx, &mail_user, &result))
        conn->ops->result(conn->user, mail_user, &result);
}

/* @return true when one was taken */
static bool take_mails(struct connection *conn)
{
    struct attempt_result result;
    struct smtp_mail mail;
    bool taken = false;

    while (!conn->quitting && smtp_transaction_room(conn->tx) && conn->ops->next(conn->user, &mail))
        if (smtp_transaction_start(conn->tx, &mail, conn->now_us, &result))
            taken = true;
        else
            conn->ops->result(conn->user, mail.user, &result);
    return taken;
}

/* A reply that came together with one before it, read ahead when it was not yet due: poll(2) will not show it.
 * @return true when there was one */
static bool hear_held(struct connection *conn)
{
    uint64_t before = smtp_transaction_progress(conn->tx);

    if (smtp_transaction_end(conn->tx) != SMTP_OPEN || !smtp_transaction_expects(conn->tx) ||
        !tls_has_more(conn->tls))
        return false;
    read_all(conn);
    return smtp_transaction_progress(conn->tx) != before;
}

static void exchange(struct connection *conn)
{
    bool taken, heard;

    conn->running = true;
    conn->now_us = td_mono_us();
    do { /* a window fills write by write */
        give_results(conn);
        taken = take_mails(conn);
        write_all(conn);
        heard = hear_held(conn);
    } while (heard || smtp_transaction_has_result(conn->tx) || (taken && !conn->wants_write));
    conn->running = false;
}

static void exchange_over(struct connection *conn)
{
    bool idle;

    if (smtp_transaction_end(conn->tx) != SMTP_OPEN) {
        conn->ops->ended(conn->user, smtp_transaction_end(conn->tx));
        connection_close(conn);
        return;
    }
    watch(conn);
    set_deadline(conn, conn->now_us);
    idle = smtp_transaction_idle(conn->tx);
    if (idle && !conn->was_idle) {
        conn->was_idle = true;
        conn->ops->idle(conn->user);
    } else {
        conn->was_idle = idle;
    }
}

static void run(struct connection *conn)
{
    enum td_stage before;

    if (conn->running || conn->closed)
        return; /* whoever runs it now sees what changed */
    before = td_stage(TD_STAGE_SEND);
    exchange(conn);
    exchange_over(conn);
    td_stage(before);
}

void connection_run(struct connection *conn)
{
    conn->was_idle =
        false; /* the pool has taken it off its list: it must hear again when there was nothing after all */
    run(conn);
}

void connection_give_up(struct connection *conn)
{
    smtp_transaction_fail(conn->tx, SMTP_END_TIMEOUT);
    run(conn);
}

bool connection_final_out(const struct connection *conn)
{
    return smtp_transaction_in_doubt(conn->tx);
}

void connection_quit(struct connection *conn)
{
    conn->quitting = true;
    smtp_transaction_quit(conn->tx);
    run(conn);
}

void connection_noop(struct connection *conn)
{
    conn->was_idle = false;
    smtp_transaction_noop(conn->tx);
    run(conn);
}

/* ---- coming up ---- */

static void fail(struct connection *conn, CURLcode rc, enum relay_event event, const char *detail)
{
    char text[160];

    if (event == RELAY_EVENT_COUNT)
        event = handshake_event(&conn->handshake, conn->easy, rc, connector_relay(conn->connector),
                                connector_own_rules(conn->connector), conn->error_text, text, sizeof(text));
    if (event == RELAY_TLS)
        tls_sessions_forget(connector_sessions(conn->connector));
    conn->ops->failed(conn->user, event, detail ? detail : text);
    connection_close(conn);
}

/* libcurl has refused anything else already. This asks what the socket really is, and trusts nobody.
 * @return NULL, or why no mail may go over it */
static const char *not_safe(struct connection *conn)
{
    enum tls_session session = tls_session_look(conn->easy);

#ifdef TD_TEST_PLAINTEXT
    if (connector_relay(conn->connector)->tls == TD_TLS_STARTTLS)
        return NULL;
#endif
    conn->resumed = session == TLS_SESSION_RESUMED;
    if (session == TLS_SESSION_EXPIRED)
        return "certificate has expired";
    return session == TLS_SESSION_NONE ? "not encrypted" : NULL;
}

static int prepare(struct connection *conn)
{
    const struct td_relay_settings *relay = connector_relay(conn->connector);
    struct smtp_offer offer = conn->handshake.offer;
    curl_socket_t fd = CURL_SOCKET_BAD;

    offer.pipelining = offer.pipelining && relay->pipelining;
    offer.window = (uint32_t)relay->bdat_window;
    if (relay->max_message_bytes > 0 &&
        (offer.size_max == 0 || offer.size_max > (uint64_t)relay->max_message_bytes))
        offer.size_max = (uint64_t)relay->max_message_bytes;
    conn->tx = smtp_transaction_new(&offer, connector_buffers(conn->connector));
    if (!conn->tx || curl_easy_getinfo(conn->easy, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK ||
        fd == CURL_SOCKET_BAD || uv_poll_init_socket(connector_loop(conn->connector), &conn->poll, fd) < 0)
        return TD_EIO;
    conn->fd = fd;
    conn->poll.data = conn;
    conn->polls = true;
    conn->handles++;
    return TD_OK;
}

void connection_connect_done(struct connection *conn, CURLcode rc)
{
    const struct td_relay_settings *relay = connector_relay(conn->connector);
    const char *why;

    if (rc != CURLE_OK) {
        fail(conn, rc, RELAY_EVENT_COUNT, NULL);
        return;
    }
    /* libcurl goes on without AUTH where the relay offers none, or fell back to HELO: credentials would never have
     * been tried, and a "relaying denied" against every recipient would follow. */
    if (relay->user && !conn->handshake.authenticated) {
        fail(conn, rc, RELAY_EVENT_COUNT, NULL);
        return;
    }
    if (prepare(conn) < 0) {
        fail(conn, rc, RELAY_CONNECT, "out of memory");
        return;
    }
    /* The first call also ties the connection to the handle again; until then libcurl would take it for an idle
     * one that it may close. */
    read_all(conn);
    why = not_safe(conn);
    if (why) {
        fail(conn, rc, RELAY_TLS, why);
        return;
    }
    conn->tls = tls_read_ahead(conn->easy);
    conn->ops->up(conn->user);
    run(conn);
}
