/* The LMTP server on a real loop and real sockets; the client is a blocking socket between turns of the loop. */
#include "unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lmtp_server.h"

enum when { NOW_TAKEN, NOW_LATER, WAIT };

struct owed {
    struct lmtp_session *session;
    size_t recipient;
};

struct bench {
    uv_loop_t loop;
    struct lmtp_server *server;
    enum when when;
    struct owed owed[100];
    size_t owed_count, messages;
};

static bool on_recipient(void *user, const char *address)
{
    (void)user;
    return address[0] != 'n';
}

static void on_message(void *user, struct lmtp_session *session, size_t recipient)
{
    struct bench *b = user;

    b->messages++;
    if (b->when == WAIT)
        b->owed[b->owed_count++] = (struct owed){session, recipient};
    else
        lmtp_session_answer(session, recipient, b->when == NOW_TAKEN);
}

static int setup(void **state)
{
    static const struct lmtp_server_ops ops = {on_recipient, on_message};
    struct bench *b = calloc(1, sizeof(*b));
    struct td_err err;

    assert_non_null(b);
    uv_loop_init(&b->loop);
    if (lmtp_server_new(&b->loop, "127.0.0.1:0", 10000, &ops, b, &b->server, &err) < 0)
        fail_msg("%s", err.text);
    *state = b;
    return 0;
}

static void turn(struct bench *b)
{
    uv_run(&b->loop, UV_RUN_NOWAIT);
}

static int teardown(void **state)
{
    struct bench *b = *state;

    lmtp_server_free(b->server);
    for (size_t i = 0; i < b->owed_count; i++) /* answers that come after the end */
        lmtp_session_answer(b->owed[i].session, b->owed[i].recipient, true);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&b->loop), 0);
    free(b);
    return 0;
}

static int dial(struct bench *b)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)lmtp_server_port(b->server))};
    struct timeval patience = {0, 2000};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Turns of the loop until what came ends with `tail`; NULL: until the server has closed. */
static void hear(struct bench *b, int fd, const char *tail)
{
    char got[100000];
    size_t n = 0;

    for (int i = 0; i < 2000; i++) {
        ssize_t r;

        turn(b);
        r = recv(fd, got + n, sizeof(got) - 1 - n, 0);
        if (r > 0)
            n += (size_t)r;
        got[n] = '\0';
        if (tail ? n >= strlen(tail) && strcmp(got + n - strlen(tail), tail) == 0 : r == 0)
            return;
    }
    fail_msg("\"%s\" did not come; this did: %s", tail ? tail : "the end", got);
}

#define MAIL_TO(who) "MAIL FROM:<>\r\nRCPT TO:<" who "@x>\r\nDATA\r\nhej\r\n.\r\n"
#define DATA_OK "354 End with a dot\r\n"
#define TAKEN "250 2.0.0 Ok\r\n"
#define LATER "451 4.3.0 Try again later\r\n"

/* The service may answer from inside its callback: pipelined mails must each be seen once. */
static void answers_at_once(void **state)
{
    struct bench *b = *state;
    int fd = dial(b);

    b->when = NOW_LATER;
    say(fd, "LHLO m\r\n" MAIL_TO("a") MAIL_TO("b") MAIL_TO("c") "QUIT\r\n");
    hear(b, fd,
         LATER "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n" DATA_OK LATER "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n" DATA_OK LATER
               "221 2.0.0 Bye\r\n");
    assert_int_equal(b->messages, 3);
    hear(b, fd, NULL);
    close(fd);
}

static void answers_later_go_out_in_order(void **state)
{
    struct bench *b = *state;
    int fd = dial(b);

    b->when = WAIT;
    say(fd, "LHLO m\r\nMAIL FROM:<>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<n@x>\r\nRCPT "
            "TO:<c@x>\r\nDATA\r\nx\r\n.\r\nNOOP\r\n");
    hear(b, fd, DATA_OK);
    assert_int_equal(b->owed_count, 3);
    lmtp_session_answer(b->owed[2].session, 2, true);
    lmtp_session_answer(b->owed[1].session, 1, false);
    turn(b);
    lmtp_session_answer(b->owed[0].session, 0, true);
    b->owed_count = 0;
    hear(b, fd, TAKEN LATER TAKEN TAKEN);
    close(fd);
}

static void a_client_that_goes_away_is_outlived_by_its_mail(void **state)
{
    struct bench *b = *state;
    int fd = dial(b);

    b->when = WAIT;
    say(fd, "LHLO m\r\n" MAIL_TO("a"));
    hear(b, fd, DATA_OK);
    close(fd);
    for (int i = 0; i < 10; i++)
        turn(b);
    assert_string_equal(lmtp_recipient(lmtp_session_dialogue(b->owed[0].session), 0), "a@x");
    assert_string_equal(lmtp_session_peer(b->owed[0].session), "127.0.0.1");
    lmtp_session_answer(b->owed[0].session, 0, true);
    b->owed_count = 0;
}

static void stop_answers_what_it_owes(void **state)
{
    struct bench *b = *state;
    int idle = dial(b), busy = dial(b);

    b->when = WAIT;
    hear(b, idle, " LMTP Tandem\r\n");
    say(busy, "LHLO m\r\n" MAIL_TO("a"));
    hear(b, busy, DATA_OK);
    lmtp_server_stop(b->server);
    hear(b, idle, "421 4.3.2 Going down\r\n");
    hear(b, idle, NULL);
    lmtp_session_answer(b->owed[0].session, 0, true);
    b->owed_count = 0;
    hear(b, busy, TAKEN "421 4.3.2 Going down\r\n");
    hear(b, busy, NULL);
    close(idle);
    close(busy);
}

static void freed_while_an_answer_is_owed(void **state)
{
    struct bench *b = *state;
    int fd = dial(b);

    b->when = WAIT;
    say(fd, "LHLO m\r\n" MAIL_TO("a"));
    hear(b, fd, DATA_OK); /* teardown frees the server and answers after that */
    close(fd);
}

static void sessions_past_the_limit_are_told_so(void **state)
{
    struct bench *b = *state;
    int fd[LMTP_SESSIONS_MAX + 1];

    for (size_t i = 0; i < COUNT(fd); i++) {
        fd[i] = dial(b);
        turn(b);
    }
    hear(b, fd[LMTP_SESSIONS_MAX - 1], " LMTP Tandem\r\n");
    hear(b, fd[LMTP_SESSIONS_MAX], "421 4.3.2 Too many sessions\r\n");
    hear(b, fd[LMTP_SESSIONS_MAX], NULL);
    close(fd[0]);
    for (int i = 0; i < 10; i++)
        turn(b);
    close(fd[LMTP_SESSIONS_MAX]);
    fd[LMTP_SESSIONS_MAX] = dial(b); /* one has gone: there is room again */
    hear(b, fd[LMTP_SESSIONS_MAX], " LMTP Tandem\r\n");
    for (size_t i = 1; i < COUNT(fd); i++)
        close(fd[i]);
}

/* Replies pile up for a client that never reads: it is cut off before they cost much. */
static void a_client_that_does_not_read_is_cut_off(void **state)
{
    struct bench *b = *state;
    int fd = dial(b);
    static char flood[5 * 4096];
    ssize_t n = 0;

    for (size_t i = 0; i < sizeof(flood); i += 6)
        memcpy(flood + i, "NOOP\r\n", i + 6 <= sizeof(flood) ? 6 : sizeof(flood) - i);
    for (size_t i = 0; i < 100000 && n >= 0; i++) { /* until the server's end is closed */
        n = send(fd, flood, sizeof(flood) / 6 * 6, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            n = 0;
        turn(b);
    }
    assert_true(n < 0);
    close(fd);
}

static void an_address_that_is_none_is_refused(void **state)
{
    static const char *const listen[] = {"", "2024", "127.0.0.1:notaport", "192.0.2.1:1", "no such host:2024"};
    static const struct lmtp_server_ops ops = {on_recipient, on_message};
    struct bench *b = *state;
    struct lmtp_server *server;
    struct td_err err;
    char taken[32];

    for (size_t i = 0; i < COUNT(listen); i++)
        assert_int_equal(lmtp_server_new(&b->loop, listen[i], 100, &ops, b, &server, &err), TD_ECONFIG);
    snprintf(taken, sizeof(taken), "127.0.0.1:%d", lmtp_server_port(b->server));
    assert_int_equal(lmtp_server_new(&b->loop, taken, 100, &ops, b, &server, &err), TD_ECONFIG);
    assert_non_null(strstr(err.text, "in use"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answers_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_later_go_out_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_that_goes_away_is_outlived_by_its_mail, setup, teardown),
        cmocka_unit_test_setup_teardown(stop_answers_what_it_owes, setup, teardown),
        cmocka_unit_test_setup_teardown(freed_while_an_answer_is_owed, setup, teardown),
        cmocka_unit_test_setup_teardown(sessions_past_the_limit_are_told_so, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_that_does_not_read_is_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(an_address_that_is_none_is_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
