/* The option table: the one place where a setting is named. It parses, checks, documents and prints. */
#include <stddef.h>

#include "../settings_int.h"

#define IN_ALL(field) offsetof(struct td_settings, field)
#define IN_RELAY(field) offsetof(struct td_relay_settings, field)

#define MS INT64_C(1)
#define SECOND (1000 * MS)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define KIB INT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

/* The member states of the European Union. A relay elsewhere needs a decision, so it needs a line in the file. */
#define EU "AT,BE,BG,HR,CY,CZ,DK,EE,FI,FR,DE,GR,HU,IE,IT,LV,LT,LU,MT,NL,PL,PT,RO,SK,SI,ES,SE"

static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
static const char *const tls_words[] = {[TD_TLS_IMPLICIT] = "implicit", [TD_TLS_STARTTLS] = "starttls", NULL};

const struct td_opt td_opts[] = {
    {.path = "instance", .type = TD_OPT_STRING, .offset = IN_ALL(instance), .check = td_check_instance,
     .def_note = "the host's name",
     .help = "Name of this process among its like: in logs, as static member of its Kafka group, as owner of lanes. "
             "Two processes of one service on one host need two names"},
    {.path = "message_id_domain", .type = TD_OPT_STRING, .offset = IN_ALL(message_id_domain),
     .check = td_check_domain, .def_note = "return_path_domain of the first relay of the route, else the host's name",
     .help = "Right side of Message-ID"},
    {.path = "unsubscribe_https_url", .type = TD_OPT_STRING, .offset = IN_ALL(unsubscribe_https_url),
     .check = td_check_https_url, .def_note = "none",
     .help = "One-click unsubscribe address (RFC 8058) of campaigns that give none"},
    {.path = "allowed_countries", .type = TD_OPT_STRINGS, .offset = IN_ALL(allowed_countries), .def = EU,
     .check = td_check_country,
     .help = "A relay in any other country is never used, not even when all others are down. "
             "Default: the member states of the EU"},
    {.path = "route", .type = TD_OPT_STRINGS, .offset = IN_ALL(route), .check = td_check_relay_name,
     .def_note = "all relays, as they stand in the file",
     .help = "Relays of a campaign that names none, the preferred one first"},

    {.path = "log.level", .type = TD_OPT_STRING, .offset = IN_ALL(log_level), .def = "info", .words = levels,
     .help = "Lines below this level are not written"},
    {.path = "log.json", .type = TD_OPT_BOOL, .offset = IN_ALL(log_json), .def = "false",
     .help = "JSON lines even on a terminal; elsewhere lines are JSON anyway"},

    {.path = "kafka.brokers", .type = TD_OPT_STRING, .offset = IN_ALL(kafka_brokers), .def = "localhost:9092",
     .help = "host:port of some brokers, with commas"},
    {.path = "kafka.topic_prefix", .type = TD_OPT_STRING, .offset = IN_ALL(kafka_topic_prefix), .def = "",
     .check = td_check_topic_prefix, .help = "Put before every topic and group name, so that two Tandems share a cluster"},
    {.path = "kafka.lanes", .type = TD_OPT_INT, .offset = IN_ALL(kafka_lanes), .def = "12", .min = 1, .max = 1000,
     .help = "Partitions of the topics that carry recipients, mails and outcomes; at least as many as dispatchers. "
             "Can be raised later, never lowered"},
    {.path = "kafka.replication", .type = TD_OPT_INT, .offset = IN_ALL(kafka_replication), .def = "1", .min = 1,
     .max = 15, .help = "Copies of each record that `tandemctl topics apply` asks for; 3 in production"},
    {.path = "kafka.session_timeout", .type = TD_OPT_DURATION, .offset = IN_ALL(kafka_session_timeout_ms),
     .def = "10s", .min = 6 * SECOND, .max = 30 * MINUTE,
     .help = "A process silent for so long loses its lanes to the others. Brokers refuse less than 6 s"},
    {.path = "kafka.properties", .type = TD_OPT_STRINGS, .offset = IN_ALL(kafka_properties),
     .check = td_check_property, .sensitive = true, .def_note = "none",
     .help = "name=value for librdkafka as it is (TLS, SASL, debug). kafka.properties_file reads them from a file, "
             "one a line, for those that hold a password"},

    {.path = "redis.url", .type = TD_OPT_STRING, .offset = IN_ALL(redis_url), .def = "redis://localhost:6379",
     .check = td_check_redis_url, .sensitive = true,
     .help = "redis://[user@]host:port[/db], or rediss:// for TLS where hiredis was built with it"},
    {.path = "redis.password", .type = TD_OPT_SECRET, .offset = IN_ALL(redis_password), .min = 1,
     .max = TD_SECRET_MAX, .def_note = "none", .help = "Password of Redis; better than one inside the URL"},
    {.path = "redis.timeout", .type = TD_OPT_DURATION, .offset = IN_ALL(redis_timeout_ms), .def = "500ms",
     .min = 10 * MS, .max = MINUTE, .help = "Deadline of one command; after it Redis counts as away"},

    {.path = "http.listen", .type = TD_OPT_STRING, .offset = IN_ALL(http_listen), .def = "127.0.0.1:9464",
     .check = td_check_listen,
     .help = "host:port of /metrics, /healthz, /readyz and /version; :port is every address, port 0 takes a free "
             "one (see http_port of the log's start event)"},

    {.path = "keys.token", .type = TD_OPT_SECRET, .offset = IN_ALL(keys_token), .min = 16, .max = TD_SECRET_MAX,
     .def_note = "none: every service needs it",
     .help = "Signs return paths, so that a bounce names its mail and nobody can forge one. Same in all services"},
    {.path = "keys.address", .type = TD_OPT_SECRET, .offset = IN_ALL(keys_address), .min = 16, .max = TD_SECRET_MAX,
     .def_note = "none: every service needs it",
     .help = "Key of the hashes that stand for addresses in logs, Redis and suppressions. Same in all services; "
             "with a new one old suppressions no longer match"},

    {.path = "ingestion.deadline", .type = TD_OPT_DURATION, .offset = IN_ALL(ingestion_deadline_ms), .def = "24h",
     .min = MINUTE, .max = 30 * DAY, .help = "A mail not sent by then expires, unless its campaign says otherwise"},
    {.path = "ingestion.max_attachment", .type = TD_OPT_SIZE, .offset = IN_ALL(ingestion_max_attachment_bytes),
     .def = "10MiB", .min = 0, .max = 100 * MIB, .help = "Attachments and images of one campaign together"},

    {.path = "rendering.ahead", .type = TD_OPT_INT, .offset = IN_ALL(rendering_ahead), .def = "2000", .min = 10,
     .max = 1000000,
     .help = "Most mails a lane holds beyond what dispatch has sent. Small, so that a pause or an unsubscribe acts soon"},

    {.path = "dispatch.window", .type = TD_OPT_INT, .offset = IN_ALL(dispatch_window), .def = "2000", .min = 1,
     .max = 100000, .help = "Mails in the memory of one dispatcher at once"},
    {.path = "dispatch.lane_lease", .type = TD_OPT_DURATION, .offset = IN_ALL(dispatch_lane_lease_ms), .def = "10s",
     .min = 2 * SECOND, .max = 5 * MINUTE,
     .help = "After a crash its lanes wait for so long before another dispatcher goes on with them"},
    {.path = "dispatch.cache", .type = TD_OPT_SIZE, .offset = IN_ALL(dispatch_cache_bytes), .def = "256MiB",
     .min = MIB, .max = 64 * GIB, .help = "Memory for the campaigns' static pieces and attachments"},
    {.path = "dispatch.drain", .type = TD_OPT_DURATION, .offset = IN_ALL(dispatch_drain_ms), .def = "20s",
     .min = SECOND, .max = 15 * MINUTE,
     .help = "Longest stop after SIGTERM, of any service; 5 s later the process leaves with code 75. "
             "Keep it below the supervisor's own patience"},
    {.path = "dispatch.redis_wait", .type = TD_OPT_DURATION, .offset = IN_ALL(dispatch_redis_wait_ms), .def = "60s",
     .min = 0, .max = HOUR,
     .help = "How long a newly taken lane waits for Redis before it goes on from Kafka alone"},
    {.path = "dispatch.report", .type = TD_OPT_DURATION, .offset = IN_ALL(dispatch_report_ms), .def = "250ms",
     .min = 50 * MS, .max = 10 * SECOND, .help = "How often counts that relay health rests on are shared"},

    {.path = "health.probe", .type = TD_OPT_DURATION, .offset = IN_ALL(health_probe_ms), .def = "1s",
     .min = 100 * MS, .max = HOUR, .help = "First wait before a relay that is down is tried again"},
    {.path = "health.probe_max", .type = TD_OPT_DURATION, .offset = IN_ALL(health_probe_max_ms), .def = "60s",
     .min = 100 * MS, .max = DAY, .help = "Longest such wait; it doubles from health.probe to this"},

    {.path = "bounce.lmtp_listen", .type = TD_OPT_STRING, .offset = IN_ALL(bounce_lmtp_listen),
     .def = "127.0.0.1:2024", .check = td_check_listen,
     .help = "host:port where the mail server delivers what comes back (LMTP, RFC 2033)"},
    {.path = "bounce.domain", .type = TD_OPT_STRING, .offset = IN_ALL(bounce_domain), .check = td_check_domain,
     .def_note = "return_path_domain of every relay", .help = "Domain of the return paths that are taken"},
    {.path = "bounce.max_message", .type = TD_OPT_SIZE, .offset = IN_ALL(bounce_max_message_bytes), .def = "256KiB",
     .min = 16 * KIB, .max = 64 * MIB, .help = "Longest report that is read; of a longer one nothing is"},
};
const size_t td_opt_count = sizeof(td_opts) / sizeof(td_opts[0]);

const struct td_opt td_relay_opts[] = {
    {.path = "name", .type = TD_OPT_STRING, .offset = IN_RELAY(name), .check = td_check_relay_name, .required = true,
     .help = "What routes, metrics and logs call it: 1 to 32 of a-z 0-9 -"},
    {.path = "host", .type = TD_OPT_STRING, .offset = IN_RELAY(host), .check = td_check_host, .required = true,
     .help = "Host name, also the name its certificate must have"},
    {.path = "port", .type = TD_OPT_INT, .offset = IN_RELAY(port), .min = 1, .max = 65535,
     .def_note = "465, or 587 with starttls", .help = "TCP port"},
    {.path = "tls", .type = TD_OPT_WORD, .offset = IN_RELAY(tls), .def = "implicit", .words = tls_words,
     .help = "TLS from the first byte, or required after STARTTLS. There is no way without TLS"},
    {.path = "ca_file", .type = TD_OPT_STRING, .offset = IN_RELAY(ca_file), .def_note = "the system's",
     .help = "Certificates to trust, PEM; for your own server"},
    {.path = "user", .type = TD_OPT_STRING, .offset = IN_RELAY(user), .def_note = "no AUTH", .help = "User name of AUTH"},
    {.path = "password", .type = TD_OPT_SECRET, .offset = IN_RELAY(password), .min = 1, .max = TD_SECRET_MAX,
     .def_note = "none", .help = "Password of AUTH"},
    {.path = "country", .type = TD_OPT_STRING, .offset = IN_RELAY(country), .check = td_check_country,
     .required = true, .help = "Where it stands and mails are processed: ISO 3166-1, two capitals. See allowed_countries"},
    {.path = "operated_by", .type = TD_OPT_STRING, .offset = IN_RELAY(operated_by), .def_note = "unsaid",
     .help = "Who runs it, for the record of processing"},
    {.path = "return_path_domain", .type = TD_OPT_STRING, .offset = IN_RELAY(return_path_domain),
     .check = td_check_domain, .def_note = "none: dispatch needs it",
     .help = "Domain of the envelope sender; its MX must lead bounces to tandem-bounce or, for SES, to SES"},
    {.path = "helo_name", .type = TD_OPT_STRING, .offset = IN_RELAY(helo_name), .check = td_check_host,
     .def_note = "the host's name", .help = "What EHLO says"},
    {.path = "max_connections", .type = TD_OPT_INT, .offset = IN_RELAY(max_connections), .def = "20", .min = 1,
     .max = 1000, .help = "Connections of one dispatcher"},
    {.path = "mails_per_connection", .type = TD_OPT_INT, .offset = IN_RELAY(mails_per_connection), .def = "200",
     .min = 1, .max = 100000, .help = "After so many a connection is closed and made anew"},
    {.path = "idle_timeout", .type = TD_OPT_DURATION, .offset = IN_RELAY(idle_timeout_ms), .def = "8s",
     .min = 100 * MS, .max = 10 * MINUTE,
     .help = "A connection without work is closed by us after this. SES closes it after 10 s, in the middle of the "
             "next mail if need be"},
    {.path = "max_mails_per_s", .type = TD_OPT_INT, .offset = IN_RELAY(max_mails_per_s), .def = "0", .min = 0,
     .max = 100000, .help = "Its rate limit, shared by all dispatchers; 0 = none known"},
    {.path = "daily_quota", .type = TD_OPT_INT, .offset = IN_RELAY(daily_quota), .def = "0", .min = 0,
     .max = 1000000000, .help = "Mails in any 24 h; 0 = none known"},
    {.path = "max_message", .type = TD_OPT_SIZE, .offset = IN_RELAY(max_message_bytes), .def = "40MiB",
     .min = 64 * KIB, .max = 1024 * MIB, .help = "Longest mail it takes; what EHLO says counts when it is less"},
    {.path = "pipelining", .type = TD_OPT_BOOL, .offset = IN_RELAY(pipelining), .def = "true",
     .help = "Use PIPELINING when it is offered"},
    {.path = "connect_timeout", .type = TD_OPT_DURATION, .offset = IN_RELAY(connect_timeout_ms), .def = "15s",
     .min = SECOND, .max = 5 * MINUTE, .help = "DNS, TCP, TLS, EHLO and AUTH together"},
    {.path = "command_timeout", .type = TD_OPT_DURATION, .offset = IN_RELAY(command_timeout_ms), .def = "60s",
     .min = SECOND, .max = 10 * MINUTE,
     .help = "Reply to MAIL, RCPT and RSET. RFC 5321 asks for 5 min because a server may look things up; a relay that "
             "thinks for a minute is ill, and until the final dot nothing is lost by asking the other one"},
    {.path = "data_timeout", .type = TD_OPT_DURATION, .offset = IN_RELAY(data_timeout_ms), .def = "120s",
     .min = SECOND, .max = 10 * MINUTE, .help = "Reply to DATA, and each piece of the mail sent (RFC 5321: 2 and 3 min)"},
    {.path = "final_timeout", .type = TD_OPT_DURATION, .offset = IN_RELAY(final_timeout_ms), .def = "600s",
     .min = 10 * SECOND, .max = HOUR,
     .help = "Reply to the final dot. As long as RFC 5321 asks: giving up early leaves the mail unconfirmed"},
};
const size_t td_relay_opt_count = sizeof(td_relay_opts) / sizeof(td_relay_opts[0]);
