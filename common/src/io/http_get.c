/* The client of --healthcheck: images need no curl. */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../hostport.h"
#include "tandem/clock.h"
#include "tandem/http.h"

/* Wait for events until the deadline. */
static int wait_for(int fd, short events, uint64_t deadline_ms)
{
    struct pollfd pfd = {.fd = fd, .events = events};
    uint64_t now = td_mono_ms();
    int n;

    if (now >= deadline_ms)
        return TD_ETIMEOUT;
    do
        n = poll(&pfd, 1, (int)(deadline_ms - now));
    while (n < 0 && errno == EINTR);
    return n > 0 ? TD_OK : n == 0 ? TD_ETIMEOUT : TD_EIO;
}

static int connect_to(const struct td_hostport *hostport, uint64_t deadline_ms, int *ret_fd)
{
    /* Without AI_PASSIVE an empty host is the loopback address: where a server on all addresses hears us. */
    struct addrinfo hints = {.ai_flags = AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *found = NULL;
    socklen_t len = sizeof(int);
    int fd, error = 0, rc = TD_EIO;
    char port[8];

    snprintf(port, sizeof(port), "%d", hostport->port);
    if (getaddrinfo(hostport->host[0] ? hostport->host : NULL, port, &hints, &found) != 0)
        return TD_EIO;
    for (const struct addrinfo *at = found; at && rc != TD_OK; at = at->ai_next) { /* :port may be IPv4 or IPv6 */
        fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
            continue;
        rc = connect(fd, at->ai_addr, at->ai_addrlen) == 0 ? TD_OK : TD_EIO;
        if (rc == TD_EIO && errno == EINPROGRESS)
            rc = wait_for(fd, POLLOUT, deadline_ms);
        if (rc == TD_OK && (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error))
            rc = TD_EIO;
        if (rc == TD_OK)
            *ret_fd = fd;
        else
            close(fd);
    }
    freeaddrinfo(found);
    return rc;
}

static int read_status(int fd, uint64_t deadline_ms)
{
    char line[64]; /* "HTTP/1.1 200 " is all we need */
    size_t len = 0;

    while (len < 12) {
        int rc = wait_for(fd, POLLIN, deadline_ms);
        ssize_t n;

        if (rc < 0)
            return rc;
        n = recv(fd, line + len, sizeof(line) - 1 - len, 0);
        if (n <= 0)
            return TD_EIO;
        len += (size_t)n;
    }
    line[len] = '\0';
    if (strncmp(line, "HTTP/1.", 7) != 0 || line[8] != ' ' || strspn(line + 9, "0123456789") != 3)
        return TD_ESYNTAX;
    return (int)strtol(line + 9, NULL, 10);
}

int td_http_get_status(const char *listen_text, const char *path, unsigned timeout_ms)
{
    uint64_t deadline_ms = td_mono_ms() + timeout_ms;
    struct td_hostport hostport;
    char request[512];
    int fd = -1, len, rc;

    if (td_hostport_parse(listen_text, &hostport) < 0 || hostport.port == 0)
        return TD_EINVAL;
    len = snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                   path);
    if (len >= (int)sizeof(request))
        return TD_EINVAL;
    rc = connect_to(&hostport, deadline_ms, &fd);
    if (rc < 0)
        return rc;
    if (send(fd, request, (size_t)len, MSG_NOSIGNAL) == len) /* it fits any socket buffer */
        rc = read_status(fd, deadline_ms);
    else
        rc = TD_EIO;
    close(fd);
    return rc;
}
