/* redis_server.h - a real redis-server for one test program: own port on loopback, own directory, gone afterwards.
 */
#ifndef REDIS_SERVER_H
#define REDIS_SERVER_H

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>
#include <cmocka.h>

#include "tandem/clock.h"
#include "tandem/redis.h"

struct redis_server {
    pid_t pid; /* 0: stopped */
    unsigned port;
    char dir[64];
    char url[64];
};

static inline unsigned free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    close(fd);
    return ntohs(at.sin_port);
}

static inline bool port_answers(unsigned port)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool up = connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0;

    close(fd);
    return up;
}

/* options: more arguments for redis-server, ended by NULL; may be NULL. The port is kept over stop and start. */
static inline void redis_server_start(struct redis_server *server, const char *const *options)
{
    char port[8];
    const char *argv[40] = {"redis-server", "--port", port,    "--bind",    "127.0.0.1",   "--save", "",
                            "--appendonly", "no",     "--dir", server->dir, "--daemonize", "no",     "--loglevel",
                            "warning"};
    size_t n = 15;

    if (!server->port) {
        snprintf(server->dir, sizeof(server->dir), "%s/tandem-redis-XXXXXX",
                 getenv("TMPDIR") ? getenv("TMPDIR") : P_tmpdir);
        assert_non_null(mkdtemp(server->dir));
        server->port = free_port();
    }
    snprintf(port, sizeof(port), "%u", server->port);
    snprintf(server->url, sizeof(server->url), "redis://127.0.0.1:%u", server->port);
    while (options && *options && n < 39)
        argv[n++] = *options++;
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0) {
        if (!freopen("/dev/null", "w", stdout))
            _exit(127);
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* an assertion that ends the test must not leave a server behind */
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    for (int i = 0; i < 500 && !port_answers(server->port); i++) {
        assert_int_equal(waitpid(server->pid, NULL, WNOHANG), 0); /* it must not have died */
        usleep(10000);
    }
}

static inline void redis_server_stop(struct redis_server *server)
{
    if (server->pid > 0) {
        kill(server->pid, SIGCONT);
        kill(server->pid, SIGKILL);
        waitpid(server->pid, NULL, 0);
    }
    server->pid = 0;
}

static inline void redis_server_remove(struct redis_server *server)
{
    redis_server_stop(server);
    rmdir(server->dir);
}

/* Turn the loop until *done, at most ms. @return *done */
static inline bool loop_until(uv_loop_t *loop, const bool *done, unsigned ms)
{
    uint64_t end = td_mono_ms() + ms;

    while (!*done && td_mono_ms() < end) {
        uv_run(loop, UV_RUN_NOWAIT);
        usleep(50);
    }
    return *done;
}

static inline void loop_for(uv_loop_t *loop, unsigned ms)
{
    static const bool never = false;

    loop_until(loop, &never, ms);
}

static inline bool redis_wait_up(uv_loop_t *loop, const struct td_redis *redis, unsigned ms)
{
    uint64_t end = td_mono_ms() + ms;

    while (!td_redis_up(redis) && td_mono_ms() < end) {
        uv_run(loop, UV_RUN_NOWAIT);
        usleep(500);
    }
    return td_redis_up(redis);
}

#endif /* REDIS_SERVER_H */
