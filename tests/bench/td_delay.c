/* td_delay.c - a proxy on 127.0.0.1 that makes every octet arrive later: td_delay LISTEN-PORT PORT ONE-WAY-MICROSECONDS
 *
 * Each direction delays by that much, so a round trip costs twice as much; bandwidth is not limited, and no slow start
 * is modelled. What has come is put in a queue with the time at which it is due. Ends when its standard input does. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PIECE_BYTES 65536
#define QUEUE_MAX 256 /* pieces of one direction: 16 MiB, then the sender waits */
#define EVENTS_MAX 128

struct piece {
    struct piece *next;
    uint64_t due_us;
    size_t len, off; /* len 0: the end */
    char data[PIECE_BYTES];
};

/* What comes from one socket and goes to its peer. */
struct side {
    int fd;
    struct side *peer, *next;
    struct piece *first, *last;
    size_t queued;
    bool ended;
};

static struct side *sides;

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static struct sockaddr_in address(const char *port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static struct side *side_new(int epoll_fd, int fd)
{
    struct side *side = calloc(1, sizeof(*side));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = side};
    int on = 1;

    if (!side)
        abort();
    side->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    side->next = sides;
    sides = side;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    return side;
}

static void take_connection(int epoll_fd, int listener, const char *port)
{
    struct sockaddr_in to = address(port);
    int in = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    int out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct side *a, *b;

    if (in < 0 || out < 0 || connect(out, (struct sockaddr *)&to, sizeof(to)) < 0) {
        if (in >= 0)
            close(in);
        if (out >= 0)
            close(out);
        return;
    }
    a = side_new(epoll_fd, in);
    b = side_new(epoll_fd, out);
    a->peer = b;
    b->peer = a;
}

static void watch(int epoll_fd, struct side *side, bool reads)
{
    struct epoll_event event = {.events = reads ? EPOLLIN : 0, .data.ptr = side};

    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, side->fd, &event);
}

static void take_bytes(int epoll_fd, struct side *side, uint64_t delay_us)
{
    struct piece *piece = side->ended ? NULL : malloc(sizeof(*piece));
    ssize_t n;

    if (!piece)
        return;
    n = recv(side->fd, piece->data, sizeof(piece->data), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        free(piece);
        return;
    }
    piece->next = NULL;
    piece->off = 0;
    piece->len = n > 0 ? (size_t)n : 0;
    piece->due_us = now_us() + delay_us;
    if (side->last)
        side->last->next = piece;
    else
        side->first = piece;
    side->last = piece;
    side->ended = n <= 0;
    if (++side->queued >= QUEUE_MAX || side->ended)
        watch(epoll_fd, side, false);
}

static void piece_gone(int epoll_fd, struct side *side)
{
    struct piece *piece = side->first;

    side->first = piece->next;
    if (!side->first)
        side->last = NULL;
    free(piece);
    if (side->queued-- == QUEUE_MAX && !side->ended)
        watch(epoll_fd, side, true);
}

/* @return when the next piece is due, or UINT64_MAX */
static uint64_t give_bytes(int epoll_fd, struct side *side, uint64_t now)
{
    while (side->first && side->first->due_us <= now) {
        struct piece *piece = side->first;
        ssize_t n = 0;

        if (piece->len == 0)
            shutdown(side->peer->fd, SHUT_WR);
        else
            n = send(side->peer->fd, piece->data + piece->off, piece->len - piece->off, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return now + 200; /* its socket is full: look again soon */
        piece->off += n > 0 ? (size_t)n : 0;
        if (n < 0 || piece->off == piece->len)
            piece_gone(epoll_fd, side);
    }
    return side->first ? side->first->due_us : UINT64_MAX;
}

static bool is_over(const struct side *side)
{
    return side->ended && !side->first && side->peer->ended && !side->peer->first;
}

static void side_free(struct side *side)
{
    struct side **at = &sides;

    while (*at != side)
        at = &(*at)->next;
    *at = side->next;
    close(side->fd);
    free(side);
}

/* Both ends closed and all delivered. */
static void bury(void)
{
    struct side *side = sides;

    while (side) {
        if (is_over(side)) {
            side_free(side->peer);
            side_free(side);
            side = sides; /* the list has changed */
        } else {
            side = side->next;
        }
    }
}

int main(int argc, char **argv)
{
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), epoll_fd = epoll_create1(EPOLL_CLOEXEC), on = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listener}, events[EVENTS_MAX];
    struct epoll_event input = {.events = EPOLLIN, .data.ptr = &input};
    struct sockaddr_in at;
    uint64_t delay_us;

    if (argc != 4) {
        fprintf(stderr, "usage: %s LISTEN-PORT PORT ONE-WAY-MICROSECONDS\n", argv[0]);
        return 64;
    }
    at = address(argv[1]);
    delay_us = strtoull(argv[3], NULL, 10);
    prctl(PR_SET_TIMERSLACK, 1000UL);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(listener, 512) < 0) {
        perror(argv[1]);
        return 75;
    }
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &input);
    for (;;) {
        uint64_t now = now_us(), due = now + 1000000;
        struct timespec wait;
        int count;

        for (struct side *side = sides; side; side = side->next) {
            uint64_t next = give_bytes(epoll_fd, side, now);

            due = next < due ? next : due;
        }
        bury();
        now = now_us();
        wait = (struct timespec){0, due > now ? (long)(due - now > 999999 ? 999999 : due - now) * 1000 : 0};
        count = epoll_pwait2(epoll_fd, events, EVENTS_MAX, &wait, NULL);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == &input)
                return 0;
            if (events[i].data.ptr == &listener)
                take_connection(epoll_fd, listener, argv[2]);
            else
                take_bytes(epoll_fd, events[i].data.ptr, delay_us);
        }
    }
}
