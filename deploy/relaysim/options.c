#include "options.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *argp_program_version = "tandem-relaysim " TD_VERSION;
error_t argp_err_exit_status = 64;

/* An option a line, in all three lists. */
/* clang-format off */
enum option_key {
    KEY_LISTEN = 256, KEY_LISTEN_TLS, KEY_CONTROL, KEY_CERT, KEY_KEY, KEY_CA, KEY_CA_KEY, KEY_USER, KEY_PASSWORD_FILE,
    KEY_PLAINTEXT_AUTH, KEY_NAME, KEY_PROFILE, KEY_NO_PIPELINING, KEY_NO_STARTTLS, KEY_CHUNKING, KEY_SIZE, KEY_RATE,
    KEY_DAILY, KEY_MAX_CONNECTIONS, KEY_DELAY, KEY_IDLE, KEY_LEDGER, KEY_LEDGER_HASH, KEY_STORE, KEY_READY_FILE,
    KEY_BOUNCE_SHARE, KEY_BOUNCE_TO, KEY_BOUNCE_MATCH, KEY_BOUNCE_STATUS,
    KEY_SNS, KEY_SNS_LISTEN, KEY_SNS_TOPIC, KEY_SNS_VERSION
};

static const struct argp_option option_table[] = {
    {"listen", KEY_LISTEN, "HOST:PORT", 0, "SMTP, with STARTTLS when there is a certificate; port 0 = a free one", 1},
    {"listen-tls", KEY_LISTEN_TLS, "HOST:PORT", 0, "SMTP with implicit TLS", 1},
    {"control", KEY_CONTROL, "HOST:PORT", 0, "HTTP with JSON: status, faults, limits", 1},
    {"ready-file", KEY_READY_FILE, "FILE", 0, "write ports and pid there (JSON) once listening", 1},
    {"cert", KEY_CERT, "FILE", 0, "certificate chain, PEM", 2},
    {"key", KEY_KEY, "FILE", 0, "its private key, PEM", 2},
    {"ca", KEY_CA, "FILE", 0, "issuer of the certificates that faults ask for", 2},
    {"ca-key", KEY_CA_KEY, "FILE", 0, "its private key", 2},
    {"no-starttls", KEY_NO_STARTTLS, NULL, 0, "do not offer STARTTLS", 2},
    {"user", KEY_USER, "NAME", 0, "require AUTH PLAIN or LOGIN as NAME", 3},
    {"password-file", KEY_PASSWORD_FILE, "FILE", 0, "its password: the first line", 3},
    {"plaintext-auth", KEY_PLAINTEXT_AUTH, NULL, 0, "allow AUTH without TLS", 3},
    {"name", KEY_NAME, "HOST", 0, "name in the greeting (relaysim.invalid)", 4},
    {"profile", KEY_PROFILE, "NAME", 0, "default, or ses: EHLO lines, replies and idle time of Amazon SES", 4},
    {"no-pipelining", KEY_NO_PIPELINING, NULL, 0, "do not offer PIPELINING", 4},
    {"chunking", KEY_CHUNKING, NULL, 0, "offer CHUNKING (BDAT)", 4},
    {"size", KEY_SIZE, "BYTES", 0, "largest message (41943040)", 4},
    {"rate", KEY_RATE, "N", 0, "at most N recipients in any second, else 454", 5},
    {"daily", KEY_DAILY, "N", 0, "at most N recipients in 24 hours, else 454", 5},
    {"max-connections", KEY_MAX_CONNECTIONS, "N", 0, "more get 421", 5},
    {"delay", KEY_DELAY, "MS", 0, "wait before each final reply", 5},
    {"idle", KEY_IDLE, "MS", 0, "close a silent connection after this (300000; ses: 10000)", 5},
    {"ledger", KEY_LEDGER, "FILE", 0, "append a line for each mail taken, before the reply", 6},
    {"ledger-hash", KEY_LEDGER_HASH, NULL, 0, "with the SHA-256 of the message", 6},
    {"store", KEY_STORE, "DIR", 0, "keep each mail as a file", 6},
    {"bounce-share", KEY_BOUNCE_SHARE, "PERCENT", 0, "this share of mails bounces", 7},
    {"bounce-to", KEY_BOUNCE_TO, "HOST:PORT", 0, "LMTP server that takes a DSN for each; else --sns tells", 7},
    {"bounce-match", KEY_BOUNCE_MATCH, "TEXT", 0, "only of mails to recipients that hold TEXT", 7},
    {"bounce-status", KEY_BOUNCE_STATUS, "X.Y.Z", 0, "status of a bounce (5.1.1)", 7},
    {"sns", KEY_SNS, "URL", 0, "post the events of Amazon SES there, as SNS would: http://HOST:PORT/PATH", 8},
    {"sns-listen", KEY_SNS_LISTEN, "HOST:PORT", 0, "HTTPS: certificate of the signatures, confirmation of the subscription", 8},
    {"sns-topic", KEY_SNS_TOPIC, "ARN", 0, "TopicArn (arn:aws:sns:eu-west-1:123456789012:relaysim)", 8},
    {"sns-version", KEY_SNS_VERSION, "1|2", 0, "signatures with SHA-1 or SHA-256 (1)", 8},
    {0}};
/* clang-format on */

static void number(struct argp_state *state, const char *name, const char *text, uint64_t max, uint64_t *ret)
{
    char *end = NULL;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno || end == text || *end || *text == '-' || value > max)
        argp_error(state, "--%s: a whole number from 0 to %llu", name, (unsigned long long)max);
    *ret = value;
}

static void percent(struct argp_state *state, const char *text, double *ret)
{
    char *end = NULL;

    *ret = strtod(text, &end);
    if (end == text || *end || !(*ret >= 0.0 && *ret <= 100.0))
        argp_error(state, "--bounce-share: a number from 0 to 100");
}

static void status(struct argp_state *state, const char *text)
{
    size_t len = strlen(text);

    if (len < 5 || len > 11 || (text[0] != '4' && text[0] != '5') || strspn(text, "0123456789.") != len)
        argp_error(state, "--bounce-status: such as 5.1.1");
}

static void profile(struct argp_state *state, const char *text, bool *ret_ses)
{
    *ret_ses = strcmp(text, "ses") == 0;
    if (!*ret_ses && strcmp(text, "default") != 0)
        argp_error(state, "--profile: default or ses");
}

static void sns_version(struct argp_state *state, const char *text, bool *ret_sha256)
{
    *ret_sha256 = strcmp(text, "2") == 0;
    if (!*ret_sha256 && strcmp(text, "1") != 0)
        argp_error(state, "--sns-version: 1 or 2");
}

static void name_check(struct argp_state *state, const char *text)
{
    if (!*text || strlen(text) > 255 ||
        strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") != strlen(text))
        argp_error(state, "--name: a host name");
}

static void check_together(struct argp_state *state, const struct options *o)
{
    if (!o->listen && !o->listen_tls)
        argp_error(state, "needs --listen or --listen-tls");
    if (!o->cert_file != !o->key_file)
        argp_error(state, "--cert and --key go together");
    if (!o->ca_file != !o->ca_key_file)
        argp_error(state, "--ca and --ca-key go together");
    if (o->listen_tls && !o->cert_file)
        argp_error(state, "--listen-tls needs --cert and --key");
    if (!o->user != !o->password_file)
        argp_error(state, "--user and --password-file go together");
    if (o->bounce_share > 0 ? !o->bounce_to && !o->sns_url : o->bounce_to != NULL)
        argp_error(state, "--bounce-share and --bounce-to (or --sns) go together");
    if (!o->sns_url != !o->sns_listen || (o->sns_url && !o->cert_file))
        argp_error(state, "--sns, --sns-listen and --cert go together");
    if (o->bounce_match && (!*o->bounce_match || !(o->bounce_share > 0)))
        argp_error(state, "--bounce-match: some text, and only with --bounce-share");
}

static error_t parse_one(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    /* clang-format off */
    switch (key) {
    case KEY_LISTEN: o->listen = arg; break;
    case KEY_LISTEN_TLS: o->listen_tls = arg; break;
    case KEY_CONTROL: o->control = arg; break;
    case KEY_READY_FILE: o->ready_file = arg; break;
    case KEY_CERT: o->cert_file = arg; break;
    case KEY_KEY: o->key_file = arg; break;
    case KEY_CA: o->ca_file = arg; break;
    case KEY_CA_KEY: o->ca_key_file = arg; break;
    case KEY_NO_STARTTLS: o->no_starttls = true; break;
    case KEY_USER: o->user = arg; break;
    case KEY_PASSWORD_FILE: o->password_file = arg; break;
    case KEY_PLAINTEXT_AUTH: o->plaintext_auth = true; break;
    case KEY_NAME: name_check(state, arg); o->name = arg; break;
    case KEY_PROFILE: profile(state, arg, &o->ses); break;
    case KEY_NO_PIPELINING: o->no_pipelining = true; break;
    case KEY_CHUNKING: o->chunking = true; break;
    case KEY_SIZE: number(state, "size", arg, UINT32_MAX, &o->size); break;
    case KEY_RATE: number(state, "rate", arg, 1000000, &o->rate); break;
    case KEY_DAILY: number(state, "daily", arg, UINT32_MAX, &o->daily); break;
    case KEY_MAX_CONNECTIONS: number(state, "max-connections", arg, 100000, &o->max_connections); break;
    case KEY_DELAY: number(state, "delay", arg, 3600000, &o->delay_ms); break;
    case KEY_IDLE: number(state, "idle", arg, 86400000, &o->idle_ms); break;
    case KEY_LEDGER: o->ledger_file = arg; break;
    case KEY_LEDGER_HASH: o->ledger_hash = true; break;
    case KEY_STORE: o->store_dir = arg; break;
    case KEY_BOUNCE_SHARE: percent(state, arg, &o->bounce_share); break;
    case KEY_BOUNCE_TO: o->bounce_to = arg; break;
    case KEY_BOUNCE_MATCH: o->bounce_match = arg; break;
    case KEY_BOUNCE_STATUS: status(state, arg); o->bounce_status = arg; break;
    case KEY_SNS: o->sns_url = arg; break;
    case KEY_SNS_LISTEN: o->sns_listen = arg; break;
    case KEY_SNS_TOPIC: o->sns_topic = arg; break;
    case KEY_SNS_VERSION: sns_version(state, arg, &o->sns_sha256); break;
    case ARGP_KEY_ARG: argp_error(state, "no argument is expected"); break;
    case ARGP_KEY_END: check_together(state, o); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    /* clang-format on */
    return 0;
}

void options_parse(struct options *options, int argc, char **argv)
{
    static const struct argp argp = {
        .options = option_table,
        .parser = parse_one,
        .doc =
            "An SMTP relay to rehearse with: takes mail, keeps a ledger, enforces limits, and fails when told "
            "to.\v"
            "Exit codes: 0 ended by SIGTERM or SIGINT, 64 wrong usage, 75 cannot go on, 78 wrong configuration."};

    *options = (struct options){.name = "relaysim.invalid", .bounce_status = "5.1.1",
                                .sns_topic = "arn:aws:sns:eu-west-1:123456789012:relaysim", .size = 41943040};
    argp_parse(&argp, argc, argv, 0, NULL, options);
    if (!options->idle_ms)
        options->idle_ms = options->ses ? 10000 : 300000;
}
