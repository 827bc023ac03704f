#include "session.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "smtp.h"
#include "sns_event.h"

#define OUT_MAX (4u << 20)
#define OUT_HIGH (128u << 10) /* replies waiting; past it no more commands are read */
#define DRAIN_MS 2000
#define MS_NS UINT64_C(1000000)

static void session_run(struct session *session);
static void session_flush(struct session *session);

static void session_kill(struct session *session, bool reset)
{
    struct sim *sim = session->sim;
    struct linger linger = {.l_onoff = 1, .l_linger = 0}; /* close() then sends RST */

    if (session->state == SESSION_DEAD)
        return;
    if (reset)
        setsockopt(session->watch.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    session->state = SESSION_DEAD;
    loop_timer_stop(&sim->loop, &session->timer);
    loop_close(&sim->loop, &session->watch);
    if (session->prev)
        session->prev->next = session->next;
    else
        sim->sessions = session->next;
    if (session->next)
        session->next->prev = session->prev;
    sim->session_count--;
    session->prev = NULL;
    session->next = sim->dead; /* next_dirty may still be in use */
    sim->dead = session;
}

static void session_free(struct session *session)
{
    SSL_free(session->ssl);
    EVP_MD_CTX_free(session->sha);
    td_buf_release(&session->in);
    td_buf_release(&session->out);
    td_buf_release(&session->mail.return_path);
    td_buf_release(&session->mail.recipients);
    td_buf_release(&session->mail.head);
    td_buf_release(&session->mail.ses_tags);
    td_buf_release(&session->mail.text);
    free(session);
}

static void mark_dirty(struct session *session)
{
    if (session->is_dirty)
        return;
    session->is_dirty = true;
    session->next_dirty = session->sim->dirty;
    session->sim->dirty = session;
}

static void mark_again(struct session *session)
{
    if (session->is_again)
        return;
    session->is_again = true;
    session->next_again = session->sim->again;
    session->sim->again = session;
}

static void arm_idle(struct session *session)
{
    uint64_t due = session->active_ns + session->sim->options.idle_ms * MS_NS;

    if (loop_timer(&session->sim->loop, &session->timer, due) < 0)
        session_kill(session, true);
}

void session_pause(struct session *session, uint64_t ms)
{
    session->paused = true;
    if (loop_timer(&session->sim->loop, &session->timer, loop_clock_ns() + ms * MS_NS) < 0)
        session_end(session, SESSION_ENDS_RESET);
}

void session_hang(struct session *session)
{
    session->state = SESSION_HUNG;
    loop_timer_stop(&session->sim->loop, &session->timer);
    if (loop_watch(&session->sim->loop, &session->watch, EPOLLRDHUP) < 0)
        session_end(session, SESSION_ENDS_RESET);
}

void session_end(struct session *session, enum session_end end)
{
    session->end = end;
    mark_dirty(session);
}

bool session_ready_for_input(const struct session *session)
{
    return !session->paused && session->end == SESSION_STAYS && session->state >= SESSION_GREETING &&
           session->state <= SESSION_FINAL && session->out.len - session->out_sent < OUT_HIGH;
}

/* Idle deadlines are checked when they fire, not moved at every read. */
static void on_timer(struct timer *timer)
{
    struct session *session = (struct session *)((char *)timer - offsetof(struct session, timer));
    uint64_t idle_ns = session->sim->options.idle_ms * MS_NS;

    if (session->paused) {
        session->paused = false;
        session->active_ns = session->sim->loop.now_ns;
        arm_idle(session);
        session_run(session);
    } else if (session->state == SESSION_DRAIN || session->end != SESSION_STAYS) {
        session_kill(session, true);
    } else if (session->sim->loop.now_ns - session->active_ns < idle_ns) {
        arm_idle(session);
    } else if (session->state == SESSION_HANDSHAKE) {
        session_kill(session, false);
    } else {
        smtp_idle(session);
        if (loop_timer(&session->sim->loop, &session->timer, session->sim->loop.now_ns + DRAIN_MS * MS_NS) < 0)
            session_kill(session, true);
    }
}

/* ---- reading ---- */

/* Octets read into data, 0 = none now. Sets eof; kills on an error. */
static size_t read_plain(struct session *session, char *data, size_t room)
{
    ssize_t got = recv(session->watch.fd, data, room, 0);

    if (got > 0)
        return (size_t)got;
    if (got == 0)
        session->eof = true;
    else if (errno != EAGAIN && errno != EINTR)
        session_kill(session, false);
    return 0;
}

static size_t read_tls(struct session *session, char *data, size_t room)
{
    size_t total = 0, got = 0;
    int error;

    while (total < room && SSL_read_ex(session->ssl, data + total, room - total, &got) == 1)
        total += got;
    if (total == room)
        return total;
    error = SSL_get_error(session->ssl, 0);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        session->eof = true; /* also on a TLS error: what came before it is still answered if it can be */
    ERR_clear_error();
    return total;
}

static void keep_rest(struct session *session, const char *data, size_t len)
{
    td_buf_clear(&session->in);
    if (len && td_buf_add(&session->in, data, len) < 0)
        session_kill(session, true);
}

/* Use up what is kept from before and, when `more`, what can be read now. */
static void session_take(struct session *session, bool more)
{
    struct sim *sim = session->sim;
    size_t kept = session->in.len, total = kept, used;

    if (kept)
        memcpy(sim->input, session->in.data, kept);
    if (more && !session->eof && kept < INPUT_MAX)
        total += session->ssl ? read_tls(session, sim->input + kept, INPUT_MAX - kept)
                              : read_plain(session, sim->input + kept, INPUT_MAX - kept);
    if (session->state == SESSION_DEAD)
        return;
    if (total > kept)
        session->active_ns = sim->loop.now_ns;
    used = smtp_feed(session, sim->input, total);
    if (session->state == SESSION_DEAD)
        return;
    if (total > used || kept)
        keep_rest(session, sim->input + used, total - used);
    session->held = !session_ready_for_input(session) && (total > used || (session->ssl && total == INPUT_MAX));
    /* OpenSSL may hold records that epoll knows nothing of. */
    if (session->ssl && session_ready_for_input(session) && SSL_has_pending(session->ssl) && total == INPUT_MAX)
        mark_again(session);
    mark_dirty(session);
}

/* After a pause, or when the peer has read its replies: go on without being woken by input. */
static void session_run(struct session *session)
{
    if (!session_ready_for_input(session))
        return;
    session_take(session, session->ssl && SSL_has_pending(session->ssl));
}

static void handshake(struct session *session)
{
    int rc = SSL_do_handshake(session->ssl);

    if (rc == 1) {
        session->sim->counts.tls_handshakes++;
        if (SSL_session_reused(session->ssl))
            session->sim->counts.tls_resumed++;
        session->state = session->implicit_tls ? SESSION_GREETING : SESSION_COMMAND;
        session_take(session, true);
        return;
    }
    rc = SSL_get_error(session->ssl, rc);
    ERR_clear_error();
    if (rc == SSL_ERROR_WANT_WRITE)
        loop_watch(&session->sim->loop, &session->watch, EPOLLIN | EPOLLOUT);
    else if (rc != SSL_ERROR_WANT_READ)
        session_kill(session, false);
}

static void drain(struct session *session)
{
    ssize_t got = recv(session->watch.fd, session->sim->input, INPUT_MAX, 0);

    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
        session_kill(session, false);
}

static void on_ready(struct watch *watch, uint32_t events)
{
    struct session *session = (struct session *)watch;

    if (session->state == SESSION_HUNG) {
        session_kill(session, false); /* asked for EPOLLRDHUP only: the peer gave up */
    } else if (session->state == SESSION_DRAIN) {
        drain(session);
    } else if (session->state == SESSION_HANDSHAKE && session->ssl) {
        handshake(session);
    } else if (events & EPOLLERR) {
        session_kill(session, false);
    } else {
        if (events & EPOLLOUT)
            mark_dirty(session);
        if (!(events & (EPOLLIN | EPOLLHUP)))
            return;
        if (session_ready_for_input(session) && !session->eof) {
            session_take(session, true);
            if (!ledger_waits(&session->sim->ledger)) /* else at the end of the round: the ledger goes first */
                session_flush(session);
        } else if (events & EPOLLHUP) {
            session_kill(session, false);
        } else {
            session->masked = true;
            mark_dirty(session);
        }
    }
}

/* ---- sending ---- */

/* Sends what it can. TD_EAGAIN: the peer must read first; TD_EIO: it is gone. */
static int send_out(struct session *session)
{
    while (session->out_sent < session->out.len) {
        const char *data = session->out.data + session->out_sent;
        size_t len = session->out.len - session->out_sent, sent = 0;

        if (session->ssl) {
            if (SSL_write_ex(session->ssl, data, len, &sent) != 1) {
                int error = SSL_get_error(session->ssl, 0);

                ERR_clear_error();
                return error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ ? TD_EAGAIN : TD_EIO;
            }
        } else {
            ssize_t rc = send(session->watch.fd, data, len, MSG_NOSIGNAL);

            if (rc < 0 && errno == EINTR)
                continue;
            if (rc < 0)
                return errno == EAGAIN ? TD_EAGAIN : TD_EIO;
            sent = (size_t)rc;
        }
        session->out_sent += sent;
    }
    td_buf_clear(&session->out);
    session->out_sent = 0;
    return TD_OK;
}

static void begin_drain(struct session *session)
{
    if (session->ssl && session->state != SESSION_HANDSHAKE) {
        SSL_shutdown(session->ssl); /* close_notify, without waiting for the peer's */
        ERR_clear_error();
    }
    shutdown(session->watch.fd, SHUT_WR);
    session->state = SESSION_DRAIN;
    session->paused = false;
    if (loop_watch(&session->sim->loop, &session->watch, EPOLLIN) < 0 ||
        loop_timer(&session->sim->loop, &session->timer, session->sim->loop.now_ns + DRAIN_MS * MS_NS) < 0)
        session_kill(session, true);
}

static void begin_tls(struct session *session)
{
    const struct fault *fault = fault_strike(&session->sim->faults, FAULT_AT_HANDSHAKE, session->sim->loop.now_ns,
                                             session->sim->taken_ever);
    SSL_CTX *ctx = tls_context(&session->sim->tls, fault ? fault->certificate : CERTIFICATE_GOOD);

    session->ssl = ctx ? SSL_new(ctx) : NULL;
    if (!session->ssl || SSL_set_fd(session->ssl, session->watch.fd) != 1) {
        session_kill(session, true);
        return;
    }
    SSL_set_accept_state(session->ssl);
    session->state = SESSION_HANDSHAKE;
    session->masked = false;
    /* Whatever came in plaintext behind STARTTLS is dropped: it could have been injected (RFC 3207 s.6). */
    td_buf_clear(&session->in);
    session->held = false;
    session->greeted = session->authenticated = false;
    message_reset(&session->mail);
    if (loop_watch(&session->sim->loop, &session->watch, EPOLLIN) < 0)
        session_kill(session, true);
}

/* EPOLLET alone asks for nothing, but keeps the descriptor in epoll, so that a reset is still heard. */
static void set_interest(struct session *session, bool out_full)
{
    uint32_t interest = out_full ? EPOLLOUT : 0;

    if (session_ready_for_input(session) && !session->eof)
        session->masked = false;
    if (!session->masked)
        interest |= EPOLLIN;
    if (loop_watch(&session->sim->loop, &session->watch, interest ? interest : EPOLLET) < 0)
        session_kill(session, true);
}

/* All that was said has been sent: what now? */
static void flushed(struct session *session)
{
    if (session->end == SESSION_ENDS_RESET)
        session_kill(session, true);
    else if (session->end == SESSION_ENDS)
        begin_drain(session);
    else if (session->state == SESSION_HUNG)
        return;
    else if (session->state == SESSION_STARTTLS)
        begin_tls(session);
    else if (session->held && session_ready_for_input(session))
        mark_again(session);
    else if (session->eof && !session->paused)
        session_kill(session, false);
    else
        set_interest(session, false);
}

static void session_flush(struct session *session)
{
    int rc;

    if (session->state == SESSION_DEAD || session->state == SESSION_DRAIN)
        return;
    rc = send_out(session);
    if (rc == TD_EIO)
        session_kill(session, session->end == SESSION_ENDS_RESET);
    else if (rc == TD_OK)
        flushed(session);
    else if (session->end == SESSION_ENDS_RESET)
        session_kill(session, true);
    else if (session->state != SESSION_HUNG)
        set_interest(session, true);
}

static void run_again(struct sim *sim)
{
    struct session *session = sim->again;

    sim->again = NULL;
    while (session) {
        struct session *next = session->next_again;

        session->is_again = false;
        if (session->state != SESSION_DEAD)
            session_run(session);
        session = next;
    }
}

int session_round_end(struct sim *sim, struct td_err *reterr)
{
    int rc;

    run_again(sim);
    rc = ledger_flush(&sim->ledger, reterr);
    if (rc < 0)
        return rc;
    while (sim->dirty) {
        struct session *session = sim->dirty;

        sim->dirty = session->next_dirty;
        session->is_dirty = false;
        session_flush(session);
    }
    sim->loop.busy = sim->again != NULL;
    while (sim->dead) {
        struct session *session = sim->dead;

        if (session->is_again) /* still linked: freed when that list has been walked */
            break;
        sim->dead = session->next;
        session_free(session);
    }
    return TD_OK;
}

void session_free_all(struct sim *sim)
{
    while (sim->sessions)
        session_kill(sim->sessions, false);
    while (sim->dead) {
        struct session *session = sim->dead;

        sim->dead = session->next;
        session_free(session);
    }
}

/* ---- beginning ---- */

static struct session *session_new(struct listener *listener, int fd, uint16_t peer_port)
{
    struct sim *sim = listener->sim;
    struct session *session = calloc(1, sizeof(*session));

    if (!session)
        return NULL;
    session->watch = (struct watch){.fd = fd, .ready = on_ready};
    session->timer.fire = on_timer;
    session->sim = sim;
    session->implicit_tls = listener->implicit_tls;
    session->peer_port = peer_port;
    session->active_ns = sim->loop.now_ns;
    td_buf_init(&session->in, INPUT_MAX);
    td_buf_init(&session->out, OUT_MAX);
    td_buf_init(&session->mail.return_path, COMMAND_PATH_MAX);
    td_buf_init(&session->mail.recipients, 256u * (COMMAND_PATH_MAX + 1));
    td_buf_init(&session->mail.head, MESSAGE_HEAD_MAX);
    td_buf_init(&session->mail.ses_tags, SES_TAGS_MAX);
    td_buf_init(&session->mail.text, sim->options.size + 1);
    if (sim->options.ledger_hash && !(session->sha = EVP_MD_CTX_new())) {
        free(session);
        return NULL;
    }
    session->next = sim->sessions;
    if (sim->sessions)
        sim->sessions->prev = session;
    sim->sessions = session;
    sim->session_count++;
    return session;
}

void session_accept(struct listener *listener, int fd, uint16_t peer_port)
{
    struct sim *sim = listener->sim;
    struct session *session = session_new(listener, fd, peer_port);
    int one = 1;

    if (!session) {
        close(fd);
        return;
    }
    sim->counts.connections++;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    session->state = SESSION_GREETING;
    arm_idle(session);
    if (session->state == SESSION_DEAD || loop_watch(&sim->loop, &session->watch, EPOLLIN) < 0) {
        session_kill(session, true);
        return;
    }
    mark_dirty(session);
    if (smtp_fault(session, FAULT_AT_CONNECT))
        return;
    session->surplus = sim->options.max_connections && sim->session_count > sim->options.max_connections;
    if (listener->implicit_tls)
        session->state = SESSION_STARTTLS; /* nothing to say first: TLS begins at the end of the round */
    else
        session_run(session);
}
