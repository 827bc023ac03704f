/* tandem/settings.h - every setting of every program, read from one YAML file, TANDEM_... variables and _FILE
 * secrets.
 *
 * Order: command line > environment > file > default. A path such as dispatch.window is TANDEM_DISPATCH_WINDOW in
 * the environment; a secret is also read from the file named by TANDEM_..._FILE (or the key with _file in YAML).
 * Items of relays take TANDEM_RELAYS_<NAME>_<KEY> (name in capitals, other characters as _).
 * An unknown key is refused with its line and the nearest known name. */
#ifndef TD_SETTINGS_H
#define TD_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "tandem/err.h"

#define TD_RELAYS_MAX 16

struct td_strings {
    char **item;
    size_t count;
};

enum td_relay_tls { TD_TLS_IMPLICIT = 0, TD_TLS_STARTTLS = 1 };

struct td_relay_settings {
    char *name; /* 1..32 of a-z 0-9 - */
    char *host;
    int64_t port;   /* default 465 implicit, 587 starttls */
    int64_t tls;    /* enum td_relay_tls */
    char *ca_file;  /* NULL: the system's */
    char *user;     /* NULL: no AUTH */
    char *password; /* secret */
    char *country;  /* ISO 3166-1 alpha-2, required */
    char *operated_by;
    char *return_path_domain; /* MAIL FROM is token@this; bounces come back there */
    char *helo_name;          /* default: the host's name */
    char *ses_configuration_set; /* NULL: none; else the relay is SES and tells what becomes of each mail */
    char *rules;              /* NULL: the built-in rules alone; else <rules_dir>/<rules>.yaml is asked first */
    int64_t max_connections;  /* of the whole fleet's share in this process, default 20 */
    int64_t mails_per_connection;
    int64_t idle_timeout_ms; /* a connection idle for longer is closed (SES: 8 s) */
    int64_t tls_resume_ms;   /* how long after a full handshake its TLS session may be resumed; 0 = never */
    int64_t max_mails_per_s; /* quota; 0 = none known */
    int64_t daily_quota;     /* 0 = none known */
    int64_t bounce_warn, bounce_throttle, bounce_stop; /* per 10,000 of the mails it took, over all campaigns */
    int64_t max_message_bytes;
    bool pipelining;     /* use it when offered */
    int64_t bdat_window; /* mails in flight on one connection where CHUNKING is offered too */
    int64_t connect_timeout_ms, command_timeout_ms, data_timeout_ms, final_timeout_ms; /* RFC 5321 s.4.5.3.2 */
};

struct td_settings {
    char *instance; /* this process's name, default host name */
    char *log_level;
    bool log_json;

    char *kafka_brokers;
    char *kafka_topic_prefix;
    int64_t kafka_lanes; /* partitions of recipients, outbound and outcomes */
    int64_t kafka_replication;
    int64_t kafka_session_timeout_ms;
    struct td_strings kafka_properties; /* "name=value", handed to librdkafka as they are */

    char *redis_url; /* redis://[user:password@]host:port[/db]; rediss:// is TLS */
    char *redis_password;
    int64_t redis_timeout_ms;

    char *http_listen; /* host:port for /metrics /healthz /readyz /version */

    char *keys_token;   /* secret of the return-path token, >= 16 bytes */
    char *keys_address; /* secret of the address hash, >= 16 bytes */

    struct td_strings allowed_countries; /* relays elsewhere are never used */
    struct td_strings route;             /* default route, relay names in order */
    struct td_relay_settings relays[TD_RELAYS_MAX];
    size_t relay_count;

    char *message_id_domain;     /* right side of Message-ID */
    char *rules_dir;             /* NULL: the installation's */
    char *unsubscribe_https_url; /* default for campaigns that give none; NULL = none */

    int64_t ingestion_deadline_ms;          /* default campaign deadline, 24 h */
    int64_t ingestion_max_attachment_bytes; /* all attachments of one campaign together, 10 MiB */

    int64_t rendering_ahead; /* most mails a lane of outbound holds beyond what dispatch has committed */
    int64_t rendering_ahead_time_ms; /* and no more than it takes in this time */

    int64_t dispatch_window; /* mails in memory at once */
    int64_t dispatch_lane_lease_ms;
    int64_t dispatch_cache_bytes;   /* static pieces kept */
    int64_t dispatch_drain_ms;      /* at most, on SIGTERM */
    int64_t dispatch_redis_wait_ms; /* how long a newly taken lane waits for Redis */
    int64_t dispatch_report_ms;     /* health reports, 250 */
    int64_t dispatch_evidence_wait_ms; /* a mail in doubt waits for its relay's events */
    int64_t health_probe_ms;        /* first wait before an open relay is probed */
    int64_t health_probe_max_ms;

    char *bounce_lmtp_listen; /* host:port */
    char *bounce_domain;      /* domain of return paths it accepts; NULL = those of the relays */
    int64_t bounce_max_message_bytes;
    char *bounce_sns_listen;             /* host:port; NULL: no SNS */
    struct td_strings bounce_sns_topics; /* ARNs of topics that are believed */
    bool bounce_sns_sha256_only;         /* refuse signature version 1 (SHA-1) */
    char *bounce_sns_host;               /* NULL: sns.<region>.amazonaws.com */
    char *bounce_sns_ca_file;            /* NULL: the system's */

    struct td_origins *origins; /* private: where each value came from; NULL in settings made by hand */
};

struct td_override {
    const char *path; /* "http.listen" */
    const char *value;
};

/**
 * Read file (NULL: none), environment and overrides, check ranges and what belongs together.
 * @param ret  filled; release with td_settings_release. On failure it is empty.
 * @return TD_OK or TD_ECONFIG; the text names file, line, key and what to do
 */
int td_settings_load(struct td_settings *ret, const char *file, const struct td_override *overrides,
                     size_t override_count, struct td_err *reterr);
void td_settings_release(struct td_settings *settings);

/** Effective values as YAML, each with its origin as a comment; secrets as "***". */
void td_settings_print(const struct td_settings *settings, FILE *out);
/** One item of relays, as td_settings_print has it. */
void td_settings_print_relay(const struct td_settings *settings, size_t index, FILE *out);
/** Every option with type, default, range and help: Markdown for the docs (a test compares), or plain for --help.
 */
void td_settings_document(FILE *out, bool markdown);

/** What was read but should be mended, such as a secret that everybody may read; for the log. Never NULL. */
const struct td_strings *td_settings_warnings(const struct td_settings *settings);

const struct td_relay_settings *td_settings_relay(const struct td_settings *settings, const char *name);
/** Is this relay in an allowed country (the operator's list, narrowed by `also` when it is not empty)? */
bool td_relay_allowed(const struct td_settings *settings, const struct td_relay_settings *relay,
                      const char *const *also, size_t also_count);

#endif /* TD_SETTINGS_H */
