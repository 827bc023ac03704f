/* scripted_relay.c - blocking OpenSSL, one thread a connection: slow and plain to read. What it counts is what it saw. */
#include "scripted_relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "scripted_tls.h"

#define CONNECTIONS_MAX 256

struct scripted_relay {
    struct script script;
    int listener;
    pthread_t thread;
    pthread_mutex_t lock;
    struct seen seen;
    int at_once;
    int rcpts;
    bool stopping, thawed;
    int fds[CONNECTIONS_MAX]; /* open ones, -1 free */
    pthread_t threads[CONNECTIONS_MAX];
    int thread_count;
};

struct peer {
    struct scripted_relay *relay;
    int number; /* 1 = first connection */
    int slot;
    int fd;
    SSL *ssl;
    char data[4096];
    size_t len;
    bool gone;
    bool misbehaves; /* still to come on this connection */
    bool in_mail;    /* MAIL was accepted; ends with RSET or a mail taken, not with a refused BDAT (as in Postfix) */
    int rcpts;       /* accepted in this transaction */
};

#define COUNT(peer, field)                                                                                                \
    do {                                                                                                                  \
        pthread_mutex_lock(&(peer)->relay->lock);                                                                         \
        (peer)->relay->seen.field++;                                                                                      \
        pthread_mutex_unlock(&(peer)->relay->lock);                                                                       \
    } while (0)

static void say(struct peer *peer, const char *text, size_t len)
{
    while (len > 0 && !peer->gone) {
        ssize_t n = peer->ssl ? SSL_write(peer->ssl, text, (int)len) : send(peer->fd, text, len, MSG_NOSIGNAL);

        if (n <= 0) {
            peer->gone = true;
            return;
        }
        text += n;
        len -= (size_t)n;
    }
}

static void say_line(struct peer *peer, const char *text)
{
    char line[600];
    int n = snprintf(line, sizeof(line), "%s\r\n", text);

    say(peer, line, (size_t)n);
}

static bool fill(struct peer *peer)
{
    ssize_t n;

    if (peer->gone || peer->len == sizeof(peer->data))
        return false;
    n = peer->ssl ? SSL_read(peer->ssl, peer->data + peer->len, (int)(sizeof(peer->data) - peer->len))
                  : recv(peer->fd, peer->data + peer->len, sizeof(peer->data) - peer->len, 0);
    if (n <= 0) {
        peer->gone = true;
        return false;
    }
    peer->len += (size_t)n;
    return true;
}

static bool read_line(struct peer *peer, char *line, size_t size)
{
    for (;;) {
        char *lf = memchr(peer->data, '\n', peer->len);

        if (lf) {
            size_t n = (size_t)(lf - peer->data);

            snprintf(line, size, "%.*s", (int)(n > 0 && peer->data[n - 1] == '\r' ? n - 1 : n), peer->data);
            peer->len -= n + 1;
            memmove(peer->data, lf + 1, peer->len);
            return true;
        }
        if (!fill(peer))
            return false;
    }
}

static void hang(struct peer *peer)
{
    while (fill(peer))
        peer->len = 0;
}

static void reset(struct peer *peer)
{
    struct linger linger = {1, 0};

    setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    peer->gone = true;
}

/* @return true when the fault took the place of the reply */
static bool misbehave(struct peer *peer, enum place place, const char *right)
{
    const struct script *script = &peer->relay->script;

    if (!peer->misbehaves || script->place != place || scripted_relay_seen(peer->relay).mails < script->after_mails)
        return false;
    peer->misbehaves = false;
    switch (script->fault) {
    case DO_REPLY:
        say_line(peer, script->text);
        return true;
    case DO_REPLY_END:
        say_line(peer, script->text);
        if (peer->ssl)
            SSL_shutdown(peer->ssl);
        shutdown(peer->fd, SHUT_WR);
        hang(peer);
        return true;
    case DO_RESET:
        reset(peer);
        return true;
    case DO_CLOSE:
        peer->gone = true;
        return true;
    case DO_HANG:
        hang(peer);
        return true;
    case DO_GARBAGE:
        say(peer, "\x16\x03HTTP/1.1 200 OK\r\n", 19);
        return true;
    case DO_BYTEWISE:
        for (size_t i = 0; right[i]; i++)
            say(peer, right + i, 1);
        say(peer, "\r", 1);
        say(peer, "\n", 1);
        return true;
    case DO_TWICE:
        say_line(peer, right);
        say_line(peer, right);
        return true;
    }
    return false;
}

static void answer(struct peer *peer, enum place place, const char *right)
{
    if (!misbehave(peer, place, right))
        say_line(peer, right);
}

static void take_tls(struct peer *peer)
{
    const struct script *script = &peer->relay->script;
    bool bad = peer->number >= script->certificate_from &&
               (script->certificate_until == 0 || peer->number <= script->certificate_until);

    peer->ssl = SSL_new(scripted_tls_context(bad ? script->certificate : CERT_GOOD));
    if (script->tls12)
        SSL_set_max_proto_version(peer->ssl, TLS1_2_VERSION);
    SSL_set_fd(peer->ssl, peer->fd);
    if (SSL_accept(peer->ssl) != 1) {
        peer->gone = true;
        return;
    }
    COUNT(peer, handshakes);
    if (SSL_session_reused(peer->ssl))
        COUNT(peer, resumed);
}

static void say_ehlo(struct peer *peer)
{
    const struct script *script = &peer->relay->script;
    char text[400];

    snprintf(text, sizeof(text), "250-relay.example\r\n%s%s%s%s%s%s%s250 8BITMIME",
             script->no_pipelining ? "" : "250-PIPELINING\r\n", script->chunking ? "250-CHUNKING\r\n" : "",
             script->size ? "250-SIZE " : "",
             script->size ? script->size : "", script->size ? "\r\n" : "",
             script->starttls && !peer->ssl && !script->no_starttls_offered ? "250-STARTTLS\r\n" : "",
             script->no_auth_offered || (script->starttls && !peer->ssl && !script->no_starttls_offered)
                 ? ""
                 : "250-AUTH PLAIN LOGIN\r\n");
    answer(peer, AT_EHLO, text);
}

/* The content up to the dot, dots undone. */
static bool read_content(struct peer *peer)
{
    char line[1200];
    size_t bytes = 0;
    unsigned sum = 0;
    bool first = true;

    while (read_line(peer, line, sizeof(line))) {
        const char *at = line;

        if (first && peer->misbehaves && peer->relay->script.place == AT_BODY) {
            misbehave(peer, AT_BODY, "");
            if (peer->gone)
                return false;
        }
        first = false;
        if (strcmp(line, ".") == 0) {
            pthread_mutex_lock(&peer->relay->lock);
            peer->relay->seen.last_bytes = bytes;
            peer->relay->seen.last_sum = sum;
            pthread_mutex_unlock(&peer->relay->lock);
            if (bytes == 0)
                COUNT(peer, empty_dots);
            return bytes > 0;
        }
        if (*at == '.')
            at++;
        bytes += strlen(at) + 2;
        for (; *at; at++)
            sum += (unsigned char)*at;
    }
    return false;
}

static void do_data(struct peer *peer)
{
    bool has_rcpt = peer->rcpts > 0;

    peer->rcpts = 0;
    if (!has_rcpt && !peer->relay->script.data_says_354) {
        say_line(peer, "554 5.5.1 no valid recipients");
        return;
    }
    if (peer->len > 0)
        COUNT(peer, data_without_reading);
    peer->in_mail = false;
    if (misbehave(peer, AT_DATA, "354 go ahead")) {
        if (peer->gone || peer->relay->script.fault == DO_REPLY)
            return;
    } else {
        say_line(peer, "354 go ahead");
    }
    if (!read_content(peer)) {
        if (!peer->gone)
            say_line(peer, "554 5.5.1 no valid recipients");
        return;
    }
    if (peer->relay->script.slow_final_ms && scripted_relay_seen(peer->relay).mails >= peer->relay->script.after_mails)
        usleep((useconds_t)peer->relay->script.slow_final_ms * 1000);
    if (misbehave(peer, AT_FINAL, "250 2.0.0 Ok 0123456789")) {
        if (!peer->gone && peer->relay->script.fault == DO_BYTEWISE)
            COUNT(peer, mails);
        return;
    }
    COUNT(peer, mails);
    say_line(peer, "250 2.0.0 Ok 0123456789");
}

/* Octets as they come: counted and summed like a mail by DATA. @return false: the connection is gone */
static bool read_chunk(struct peer *peer, size_t left, struct seen *ret)
{
    while (left > 0) {
        size_t n;

        if (peer->len == 0 && !fill(peer))
            return false;
        n = peer->len < left ? peer->len : left;
        for (size_t i = 0; i < n; i++)
            ret->last_sum += peer->data[i] != '\r' && peer->data[i] != '\n' ? (unsigned char)peer->data[i] : 0;
        ret->last_bytes += n;
        left -= n;
        peer->len -= n;
        memmove(peer->data, peer->data + n, peer->len);
    }
    return true;
}

static void do_bdat(struct peer *peer, const char *args)
{
    bool has_rcpt = peer->rcpts > 0;
    struct seen chunk = {0};

    COUNT(peer, chunks);
    peer->rcpts = 0;
    if (has_rcpt && peer->misbehaves && peer->relay->script.place == AT_BODY) {
        misbehave(peer, AT_BODY, "");
        if (peer->gone)
            return;
    }
    if (has_rcpt)
        peer->in_mail = false;
    if (!read_chunk(peer, strtoul(args, NULL, 10), &chunk))
        return;
    if (!has_rcpt) {
        say_line(peer, "503 5.5.1 no valid recipients");
        return;
    }
    pthread_mutex_lock(&peer->relay->lock);
    peer->relay->seen.last_bytes = chunk.last_bytes;
    peer->relay->seen.last_sum = chunk.last_sum;
    pthread_mutex_unlock(&peer->relay->lock);
    if (misbehave(peer, AT_FINAL, "250 2.0.0 Ok 0123456789")) {
        if (!peer->gone && peer->relay->script.fault == DO_BYTEWISE)
            COUNT(peer, mails);
        return;
    }
    COUNT(peer, mails);
    say_line(peer, "250 2.0.0 Ok 0123456789");
}

static void do_mail(struct peer *peer)
{
    enum fault fault = peer->relay->script.fault;

    if (peer->in_mail) {
        say_line(peer, "503 5.5.1 nested MAIL");
        return;
    }
    if (misbehave(peer, AT_MAIL, "250 2.1.0 Ok")) {
        peer->in_mail = fault == DO_BYTEWISE || fault == DO_TWICE;
        return;
    }
    peer->in_mail = true;
    say_line(peer, "250 2.1.0 Ok");
}

static void do_rcpt(struct peer *peer)
{
    int every = peer->relay->script.refuse_every;
    int number;

    if (!peer->in_mail) {
        say_line(peer, "503 5.5.1 MAIL first");
        return;
    }
    pthread_mutex_lock(&peer->relay->lock);
    number = ++peer->relay->rcpts;
    pthread_mutex_unlock(&peer->relay->lock);
    if (every && number % every == 0) {
        say_line(peer, "550 5.1.1 user unknown");
        return;
    }
    if (misbehave(peer, AT_RCPT, "250 2.1.5 Ok")) {
        peer->rcpts += peer->relay->script.fault == DO_BYTEWISE || peer->relay->script.fault == DO_TWICE;
        return;
    }
    peer->rcpts++;
    say_line(peer, "250 2.1.5 Ok");
}

static bool starts(const char *line, const char *word)
{
    return strncasecmp(line, word, strlen(word)) == 0;
}

static void do_command(struct peer *peer, const char *line)
{
    const struct script *script = &peer->relay->script;

    if (!peer->ssl && !starts(line, "EHLO") && !starts(line, "STARTTLS") && !starts(line, "QUIT"))
        COUNT(peer, plaintext_bad);
    if (starts(line, "EHLO")) {
        say_ehlo(peer);
    } else if (starts(line, "STARTTLS")) {
        if (script->inject_after_starttls)
            say(peer, "220 go ahead\r\n250-injected\r\n250 AUTH PLAIN\r\n", 44);
        else
            say_line(peer, "220 go ahead");
        take_tls(peer);
    } else if (starts(line, "AUTH")) {
        COUNT(peer, auths);
        answer(peer, AT_AUTH, "235 2.7.0 welcome");
    } else if (starts(line, "MAIL")) {
        do_mail(peer);
    } else if (starts(line, "RCPT")) {
        do_rcpt(peer);
    } else if (starts(line, "DATA")) {
        do_data(peer);
    } else if (starts(line, "BDAT ") && script->chunking) {
        do_bdat(peer, line + 5);
    } else if (starts(line, "RSET")) {
        COUNT(peer, rsets);
        peer->in_mail = false;
        peer->rcpts = 0;
        say_line(peer, "250 2.0.0 Ok");
    } else if (starts(line, "NOOP")) {
        COUNT(peer, noops);
        say_line(peer, "250 2.0.0 Ok");
    } else if (starts(line, "QUIT")) {
        COUNT(peer, quits);
        say_line(peer, "221 2.0.0 Bye");
        if (peer->ssl)
            SSL_shutdown(peer->ssl);
        peer->gone = true;
    } else {
        say_line(peer, "500 5.5.2 what?");
    }
}

static bool is_frozen(struct scripted_relay *relay)
{
    bool frozen;

    pthread_mutex_lock(&relay->lock);
    frozen = !relay->thawed && !relay->stopping;
    pthread_mutex_unlock(&relay->lock);
    return frozen;
}

static void serve(struct peer *peer)
{
    const struct script *script = &peer->relay->script;
    char line[1200];
    int mails_before;

    while (script->frozen_from && peer->number >= script->frozen_from && is_frozen(peer->relay))
        usleep(2000);
    if (!script->starttls)
        take_tls(peer);
    if (peer->gone)
        return;
    if (script->max_connections && peer->relay->at_once > script->max_connections) {
        say_line(peer, "421 Too many concurrent SMTP connections");
        return;
    }
    answer(peer, AT_BANNER, "220 relay.example ESMTP");
    while (!peer->gone && read_line(peer, line, sizeof(line))) {
        mails_before = scripted_relay_seen(peer->relay).mails;
        do_command(peer, line);
        /* An idle connection is one that has just delivered. */
        if (!peer->gone && scripted_relay_seen(peer->relay).mails > mails_before && peer->len == 0)
            misbehave(peer, AT_IDLE, "");
    }
}

static void *peer_thread(void *arg)
{
    struct peer *peer = arg;
    struct scripted_relay *relay = peer->relay;

    serve(peer);
    SSL_free(peer->ssl);
    pthread_mutex_lock(&relay->lock);
    close(peer->fd);
    relay->fds[peer->slot] = -1;
    relay->at_once--;
    pthread_mutex_unlock(&relay->lock);
    free(peer);
    return NULL;
}

static void *accept_thread(void *arg)
{
    struct scripted_relay *relay = arg;

    for (;;) {
        int fd = accept(relay->listener, NULL, NULL);
        int on = 1;
        struct peer *peer;

        if (fd < 0)
            return NULL;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* a reset must not swallow the reply before it */
        peer = calloc(1, sizeof(*peer));
        pthread_mutex_lock(&relay->lock);
        if (!peer || relay->stopping || relay->thread_count == CONNECTIONS_MAX) {
            pthread_mutex_unlock(&relay->lock);
            close(fd);
            free(peer);
            continue;
        }
        peer->relay = relay;
        peer->fd = fd;
        peer->number = ++relay->seen.connections;
        peer->misbehaves = peer->number <= (relay->script.times ? relay->script.times : 1);
        if (++relay->at_once > relay->seen.most_at_once)
            relay->seen.most_at_once = relay->at_once;
        peer->slot = relay->thread_count++;
        relay->fds[peer->slot] = fd;
        pthread_create(&relay->threads[peer->slot], NULL, peer_thread, peer);
        pthread_mutex_unlock(&relay->lock);
    }
}

struct scripted_relay *scripted_relay_start(const struct script *script, int *port)
{
    struct scripted_relay *relay = calloc(1, sizeof(*relay));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);

    if (!relay)
        abort();
    relay->script = *script;
    if (script->certificate == CERT_SOON_EXPIRED)
        scripted_tls_soon();
    pthread_mutex_init(&relay->lock, NULL);
    relay->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(relay->listener, (struct sockaddr *)&address, len) < 0 || listen(relay->listener, 128) < 0 ||
        getsockname(relay->listener, (struct sockaddr *)&address, &len) < 0)
        abort();
    *port = ntohs(address.sin_port);
    pthread_create(&relay->thread, NULL, accept_thread, relay);
    return relay;
}

struct seen scripted_relay_seen(struct scripted_relay *relay)
{
    struct seen seen;

    pthread_mutex_lock(&relay->lock);
    seen = relay->seen;
    pthread_mutex_unlock(&relay->lock);
    return seen;
}

void scripted_relay_die(struct scripted_relay *relay)
{
    struct linger linger = {1, 0};

    pthread_mutex_lock(&relay->lock);
    relay->stopping = true;
    shutdown(relay->listener, SHUT_RDWR);
    for (int i = 0; i < relay->thread_count; i++) {
        if (relay->fds[i] < 0)
            continue;
        setsockopt(relay->fds[i], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
        shutdown(relay->fds[i], SHUT_RD); /* wakes the thread, whose close then resets */
    }
    pthread_mutex_unlock(&relay->lock);
}

void scripted_relay_thaw(struct scripted_relay *relay)
{
    pthread_mutex_lock(&relay->lock);
    relay->thawed = true;
    pthread_mutex_unlock(&relay->lock);
}

void scripted_relay_stop(struct scripted_relay *relay)
{
    scripted_relay_die(relay);
    pthread_join(relay->thread, NULL);
    for (int i = 0; i < relay->thread_count; i++)
        pthread_join(relay->threads[i], NULL);
    close(relay->listener);
    pthread_mutex_destroy(&relay->lock);
    free(relay);
}
