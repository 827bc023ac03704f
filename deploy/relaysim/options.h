/* options.h - the command line of relaysim. */
#ifndef RELAYSIM_OPTIONS_H
#define RELAYSIM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "tandem/err.h"

struct options {
    const char *listen, *listen_tls, *control; /* HOST:PORT; NULL = none */
    const char *cert_file, *key_file;          /* of the good certificate */
    const char *ca_file, *ca_key_file;         /* issuer of the bad certificates; NULL = made at start */
    const char *user;
    const char *password_file;
    const char *name;
    const char *ledger_file, *ready_file, *store_dir;
    const char *bounce_to, *bounce_status, *bounce_match;
    const char *sns_url, *sns_listen, *sns_topic; /* NULL: no events */
    bool sns_sha256;     /* signature version 2 */
    double bounce_share; /* percent */
    uint64_t size, rate, daily, max_connections, delay_ms, idle_ms;
    bool plaintext_auth, no_pipelining, no_starttls, chunking, ledger_hash, ses;
};

/** Parse, or exit with 64 (usage) as argp does; --help and --version exit with 0. Strings point into argv. */
void options_parse(struct options *options, int argc, char **argv);

#endif /* RELAYSIM_OPTIONS_H */
