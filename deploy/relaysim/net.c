/* net.c - listening sockets and addresses. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sim.h"

int address_parse(const char *where, struct sockaddr_storage *ret, unsigned *ret_len, struct td_err *reterr)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    const char *colon = strrchr(where, ':');
    char host[256];
    size_t len = colon ? (size_t)(colon - where) : 0;
    int rc;

    if (!colon || len >= sizeof(host))
        return td_fail(reterr, TD_ECONFIG, "\"%s\" is not HOST:PORT", where);
    memcpy(host, where, len);
    host[len] = '\0';
    if (len >= 2 && host[0] == '[' && host[len - 1] == ']') {
        memmove(host, host + 1, len - 2);
        host[len - 2] = '\0';
    }
    rc = getaddrinfo(*host ? host : NULL, colon + 1, &hints, &found);
    if (rc != 0)
        return td_fail(reterr, TD_ECONFIG, "\"%s\": %s", where, gai_strerror(rc));
    memcpy(ret, found->ai_addr, found->ai_addrlen);
    *ret_len = found->ai_addrlen;
    freeaddrinfo(found);
    return TD_OK;
}

static in_port_t *port_of(struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET6 ? &((struct sockaddr_in6 *)address)->sin6_port
                                          : &((struct sockaddr_in *)address)->sin_port;
}

int listener_open(struct listener *listener, void (*ready)(struct watch *, uint32_t), struct td_err *reterr)
{
    struct sockaddr_storage address = {0};
    unsigned len = 0;
    int one = 1, rc = address_parse(listener->where, &address, &len, reterr);
    int fd = rc < 0 ? -1 : socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (rc < 0)
        return rc;
    if (listener->port)
        *port_of(&address) = htons(listener->port); /* again: the port that was chosen the first time */
    listener->watch = (struct watch){.fd = fd, .ready = ready};
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, (struct sockaddr *)&address, len) < 0 || listen(fd, 1024) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) < 0) {
        rc = td_fail(reterr, TD_EIO, "%s: %s", listener->where, strerror(errno));
        goto fail;
    }
    /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): getsockname set it */
    listener->port = ntohs(*port_of(&address));
    rc = loop_watch(&listener->sim->loop, &listener->watch, EPOLLIN);
    if (rc == TD_OK)
        return TD_OK;
    td_fail(reterr, rc, "%s: epoll", listener->where);
fail:
    loop_close(&listener->sim->loop, &listener->watch);
    return rc;
}
