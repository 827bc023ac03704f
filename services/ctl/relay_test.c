/* relay test: connect, TLS, EHLO, AUTH, QUIT, and tell what the relay said. The handle is dispatch's own (connector_easy), so
 * what works here works there. It blocks, as one command in a process may. */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <curl/curl.h>
#include <openssl/ssl.h>

#include "connector_int.h"
#include "relay_input.h"
#include "reply_rules.h"
#include "tandem/buf.h"
#include "tandem/clock.h"
#include "tandem/log.h"

enum { OFFERS_MAX = 32, OFFER_LEN = 128, CERT_TEXT = 512, QUIT_WAIT_MS = 3000, SOON_DAYS = 21 };

struct test {
    const struct td_relay_settings *relay;
    CURL *easy;
    struct handshake handshake;
    char offers[OFFERS_MAX][OFFER_LEN];
    size_t offer_count;
    bool ehlo; /* within an answer to EHLO, behind its first line */
    char names[CERT_TEXT], issuer[CERT_TEXT], until[64];
    int64_t days_left;
    bool has_certificate;
    const char *tls_version;
    char address[64];
    double dns_ms, tcp_ms, tls_ms, ready_ms;
    bool quit;
    enum relay_event event; /* RELAY_UP: all went well */
    char detail[160];
};

/* What the relay says goes to a terminal: without what that would obey. */
static void copy_printable(char *out, size_t size, const char *text, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len && text[i] && n + 1 < size; i++)
        out[n++] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    out[n] = '\0';
}

/* While a line comes in, since libcurl tells nothing of the session later. Before STARTTLS there is none. */
static void read_tls(struct test *test)
{
    struct curl_tlssessioninfo *info = NULL;

    if (curl_easy_getinfo(test->easy, CURLINFO_TLS_SSL_PTR, &info) == CURLE_OK && info && info->internals &&
        info->backend == CURLSSLBACKEND_OPENSSL)
        test->tls_version = SSL_get_version(info->internals);
}

/* ---- what it offers ---- */

static void offer_line(struct test *test, const char *line, size_t len)
{
    while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
        len--;
    if (len < 4 || strncmp(line, "250", 3) != 0)
        return;
    if (!test->ehlo)
        test->offer_count = 0; /* what was said before STARTTLS does not count */
    else if (test->offer_count < OFFERS_MAX)
        copy_printable(test->offers[test->offer_count++], OFFER_LEN, line + 4, len - 4);
    test->ehlo = line[3] == '-';
}

static size_t on_line(char *line, size_t size, size_t count, void *user)
{
    struct test *test = user;

    if (!test->tls_version)
        read_tls(test);
    offer_line(test, line, size * count);
    return handshake_line(&test->handshake, line, size * count) ? size * count : 0;
}

/* ---- its certificate ---- */

/* "DNS:a.example, DNS:b.example" as "a.example, b.example". */
static void read_names(struct test *test, const char *value)
{
    char text[CERT_TEXT], *out = test->names;
    const char *from = text;

    copy_printable(text, sizeof(text), value, strlen(value));
    while (*from) {
        if (strncmp(from, "DNS:", 4) == 0)
            from += 4;
        else
            *out++ = *from++;
    }
    *out = '\0';
}

static void read_certificate(struct test *test)
{
    struct curl_certinfo *info = NULL;
    time_t until = -1;

    if (curl_easy_getinfo(test->easy, CURLINFO_CERTINFO, &info) != CURLE_OK || !info || info->num_of_certs < 1)
        return;
    for (const struct curl_slist *item = info->certinfo[0]; item; item = item->next) {
        const char *value = strchr(item->data, ':');

        if (!value)
            continue;
        value++;
        if (strncmp(item->data, "X509v3 Subject Alternative Name:", 32) == 0) {
            read_names(test, value);
        } else if (strncmp(item->data, "Issuer:", 7) == 0) {
            copy_printable(test->issuer, sizeof(test->issuer), value, strlen(value));
        } else if (strncmp(item->data, "Expire date:", 12) == 0) {
            copy_printable(test->until, sizeof(test->until), value, strlen(value));
            until = curl_getdate(value, NULL);
        } else if (strncmp(item->data, "Subject:", 8) == 0 && !test->names[0]) {
            copy_printable(test->names, sizeof(test->names), value, strlen(value));
        }
    }
    test->has_certificate = true;
    test->days_left = until < 0 ? -1 : ((int64_t)until - td_wall_ms() / 1000) / 86400;
}

/* ---- the connection ---- */

static double ms_of(CURL *easy, CURLINFO what)
{
    curl_off_t us = 0;

    return curl_easy_getinfo(easy, what, &us) == CURLE_OK ? (double)us / 1000 : 0;
}

static void read_times(struct test *test)
{
    char *address = NULL;

    if (curl_easy_getinfo(test->easy, CURLINFO_PRIMARY_IP, &address) == CURLE_OK && address)
        copy_printable(test->address, sizeof(test->address), address, strlen(address));
    test->dns_ms = ms_of(test->easy, CURLINFO_NAMELOOKUP_TIME_T);
    test->tcp_ms = ms_of(test->easy, CURLINFO_CONNECT_TIME_T);
    test->tls_ms = ms_of(test->easy, CURLINFO_APPCONNECT_TIME_T);
    test->ready_ms = ms_of(test->easy, CURLINFO_TOTAL_TIME_T);
}

/* @return true when 221 came: the relay let us go as it should */
static bool say_quit(CURL *easy)
{
    curl_socket_t fd = CURL_SOCKET_BAD;
    struct smtp_reply_reader reader;
    struct smtp_reply reply;
    uint64_t until = td_mono_ms() + QUIT_WAIT_MS;
    char text[512];
    size_t n = 0;

    smtp_reply_reader_init(&reader);
    if (curl_easy_getinfo(easy, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK || fd == CURL_SOCKET_BAD ||
        curl_easy_send(easy, "QUIT\r\n", 6, &n) != CURLE_OK || n != 6)
        return false;
    while (td_mono_ms() < until) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        CURLcode rc = curl_easy_recv(easy, text, sizeof(text), &n);

        if (rc == CURLE_OK && n > 0)
            return smtp_reply_feed(&reader, text, n, &n, &reply) == 1 && reply.code == 221;
        if (rc != CURLE_AGAIN || poll(&wait, 1, QUIT_WAIT_MS) <= 0)
            return false;
    }
    return false;
}

static int run(struct ctl *ctl, struct test *test, const struct reply_rules *rules)
{
    char error_text[CURL_ERROR_SIZE] = "";
    struct connector *connector = NULL;
    struct td_err err;
    CURLcode rc;

    handshake_init(&test->handshake);
    if (connector_new(&ctl->loop, test->relay, &connector, &err) < 0)
        return ctl_error(&err);
    test->easy = connector_easy(connector, &test->handshake, error_text);
    if (!test->easy || curl_easy_setopt(test->easy, CURLOPT_CERTINFO, 1L) != CURLE_OK ||
        curl_easy_setopt(test->easy, CURLOPT_HEADERFUNCTION, on_line) != CURLE_OK ||
        curl_easy_setopt(test->easy, CURLOPT_HEADERDATA, test) != CURLE_OK) {
        ctl_say("out of memory");
        curl_easy_cleanup(test->easy);
        connector_free(connector);
        uv_run(&ctl->loop, UV_RUN_DEFAULT);
        return CTL_FAILED;
    }
    rc = curl_easy_perform(test->easy);
    read_times(test);
    read_certificate(test);
    if (rc != CURLE_OK || (test->relay->user && !test->handshake.authenticated))
        test->event = handshake_event(&test->handshake, test->easy, rc, test->relay, rules, error_text, test->detail,
                                      sizeof(test->detail));
    else
        test->quit = say_quit(test->easy);
    curl_easy_cleanup(test->easy);
    connector_free(connector);
    uv_run(&ctl->loop, UV_RUN_DEFAULT);
    return test->event == RELAY_UP ? CTL_OK : CTL_FAILED;
}

/* ---- telling ---- */

static const char *event_words(enum relay_event event)
{
    static const char *const words[RELAY_EVENT_COUNT] = {
        [RELAY_UP] = "it is well",
        [RELAY_DNS] = "its name does not resolve",
        [RELAY_CONNECT] = "no connection comes up: host, port, firewall?",
        [RELAY_TLS] = "TLS fails: ca_file, the name in the certificate, or tls: implicit or starttls?",
        [RELAY_BANNER] = "it does not answer as an SMTP server that takes us",
        [RELAY_AUTH] = "it refuses our credentials: user, password?",
        [RELAY_RESET] = "the connection broke",
        [RELAY_TOO_MANY] = "it has too many connections from us",
        [RELAY_QUOTA] = "its quota is used up",
        [RELAY_SUSPENDED] = "our account there is paused",
    };

    return words[event];
}

static void print_text(const struct test *test)
{
    const struct td_relay_settings *relay = test->relay;

    printf("relay        %s, %s port %" PRId64 ", %s\n", relay->name, relay->host, relay->port,
           relay->tls == TD_TLS_IMPLICIT ? "TLS from the first byte" : "STARTTLS");
    if (test->tcp_ms > 0)
        printf("connected    %s; name after %.0f ms, TCP %.0f ms, ready %.0f ms\n", test->address, test->dns_ms, test->tcp_ms,
               test->ready_ms);
    if (test->has_certificate) {
        printf("TLS          %s, certificate for %s\n", test->tls_version ? test->tls_version : "yes", test->names);
        printf("             issued by %s\n", test->issuer);
        printf("             until %s, %" PRId64 " days from now%s\n", test->until, test->days_left,
               test->days_left < SOON_DAYS ? ": SOON" : "");
    }
    for (size_t i = 0; i < test->offer_count; i++)
        printf("%-12s %s\n", i ? "" : "EHLO offers", test->offers[i]);
    if (test->handshake.authenticated)
        printf("AUTH         accepted\n");
    else if (!relay->user)
        printf("AUTH         not asked for: no user is configured\n");
    if (test->event == RELAY_UP)
        printf("QUIT         %s\n", test->quit ? "answered" : "not answered");
    printf("result       %s%s%s%s\n", event_words(test->event), *test->detail ? " (" : "", test->detail, *test->detail ? ")" : "");
}

static void print_json(const struct test *test)
{
    struct td_buf out = TD_BUF_INIT(65536);
    const struct {
        const char *name, *value;
    } fields[] = {{"result", relay_event_name(test->event)},
                  {"result_words", event_words(test->event)},
                  {"detail", test->detail},
                  {"address", test->address},
                  {"tls", test->tls_version ? test->tls_version : ""},
                  {"certificate_names", test->names},
                  {"certificate_issuer", test->issuer},
                  {"certificate_until", test->until}};
    int rc = td_buf_adds(&out, "{\"relay\":");

    if (rc == TD_OK)
        rc = ctl_json_string(&out, test->relay->name);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]) && rc == TD_OK; i++)
        rc = ctl_json_field(&out, fields[i].name, fields[i].value);
    if (rc == TD_OK && test->has_certificate)
        rc = td_buf_printf(&out, ",\"certificate_days_left\":%" PRId64, test->days_left);
    if (rc == TD_OK)
        rc = td_buf_printf(&out, ",\"ready_ms\":%.0f,\"authenticated\":%s,\"quit_answered\":%s,\"offers\":[", test->ready_ms,
                           test->handshake.authenticated ? "true" : "false", test->quit ? "true" : "false");
    for (size_t i = 0; i < test->offer_count && rc == TD_OK; i++) {
        rc = i ? td_buf_addc(&out, ',') : TD_OK;
        if (rc == TD_OK)
            rc = ctl_json_string(&out, test->offers[i]);
    }
    if (rc == TD_OK)
        rc = td_buf_adds(&out, "]}");
    if (rc == TD_OK)
        puts(td_buf_str(&out));
    td_buf_release(&out);
}

int ctl_relay_test(struct ctl *ctl, int argc, char **argv)
{
    struct relay_input input = {.wants_name = true};
    struct test test = {.event = RELAY_UP};
    struct reply_rules *rules = NULL;
    struct td_err err;
    int code = relay_parse(ctl, argc, argv, "NAME",
                           "Connect to a relay as dispatch does: TLS, EHLO, AUTH, QUIT. No mail is sent, nothing is changed, and "
                           "what is known of its health is not asked. Exit code 0 when all went well, else 1.",
                           &input);

    if (code != CTL_OK)
        return code;
    test.relay = &ctl->settings.relays[input.index];
    if (reply_rules_of(&ctl->settings, test.relay, &rules, &err) < 0)
        return ctl_error(&err);
    code = run(ctl, &test, rules);
    if (ctl->json)
        print_json(&test);
    else
        print_text(&test);
    reply_rules_free(rules);
    return code;
}
