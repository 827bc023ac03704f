#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../common/src/hostport.h"
#include "../../common/src/settings_int.h"

#define RELAY(name) "  - name: " name "\n    host: smtp.example.eu\n    country: DE\n"
#define ONE_RELAY "relays:\n" RELAY("ses")

static int load(struct td_settings *settings, const char *yaml, char *const *env, struct td_err *err)
{
    return td_settings_load_text(settings, "tandem.yaml", yaml, yaml ? strlen(yaml) : 0, env, NULL, 0, err);
}

static char *slurp(const char *path)
{
    FILE *in = fopen(path, "r");
    char *text = calloc(1, 1 << 20);

    assert_non_null(in);
    assert_true(fread(text, 1, (1 << 20) - 1, in) > 0);
    fclose(in);
    return text;
}

/* A file with text in the build's temporary directory; caller frees the path. */
static char *temp_file(const char *text, size_t len, mode_t mode)
{
    char *path = strdup("test_settings_XXXXXX");
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), len);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
    return path;
}

static void nothing_given_is_the_defaults(void **unused)
{
    struct td_settings s;
    struct td_err err;

    (void)unused;
    assert_int_equal(load(&s, NULL, NULL, &err), TD_OK);
    assert_string_equal(s.kafka_brokers, "localhost:9092");
    assert_string_equal(s.kafka_topic_prefix, "");
    assert_int_equal(s.kafka_lanes, 12);
    assert_int_equal(s.redis_timeout_ms, 500);
    assert_int_equal(s.dispatch_cache_bytes, 256 << 20);
    assert_int_equal(s.ingestion_deadline_ms, 24 * 3600 * 1000);
    assert_int_equal(s.health_probe_max_ms, 60000);
    assert_int_equal(s.allowed_countries.count, 27);
    assert_int_equal(s.relay_count, 0);
    assert_int_equal(s.route.count, 0);
    assert_null(s.keys_token);
    assert_null(s.redis_password);
    assert_true(strlen(s.instance) > 0);
    assert_string_equal(s.message_id_domain, s.instance);
    td_settings_release(&s);
}

static void every_kind_of_value_is_read(void **unused)
{
    static const char yaml[] =
        "---\n"
        "# a comment\n"
        "instance: d-1\n"
        "route: [backup, ses]\n"
        "allowed_countries: [DE, NO]\n" /* to YAML 1.1 an unquoted NO is false; not to us */
        "log:\n"
        "  # only comments in here\n"
        "kafka:\n"
        "  brokers: \"a:9092,b:9092\"\n"
        "  lanes: 24\n"
        "  properties:\n"
        "    - security.protocol=SASL_SSL\n"
        "    - sasl.password=a,b\n"
        "dispatch: {window: 10, lane_lease: 5m, cache: 1GiB}\n"
        "dispatch.drain: 7s\n" /* the path as everybody writes it is fine too */
        "http:\n"
        "  listen: '[::1]:9464'\n"
        "relays:\n"
        "  - name: ses\n"
        "    host: email-smtp.eu-central-1.amazonaws.com\n"
        "    country: DE\n"
        "    return_path_domain: bounce.example.eu\n"
        "    user: AKIA\n"
        "    password: \"se\\\"cret\"\n"
        "    max_message: 1000000\n"
        "    pipelining: off\n"
        "  - {name: backup, host: mx.example.no, country: 'NO', tls: starttls, idle_timeout: ~}\n";
    struct td_settings s;
    struct td_err err;

    (void)unused;
    if (load(&s, yaml, NULL, &err) < 0)
        fail_msg("%s", err.text);
    assert_string_equal(s.instance, "d-1");
    assert_string_equal(s.allowed_countries.item[1], "NO");
    assert_string_equal(s.log_level, "info");
    assert_int_equal(s.kafka_lanes, 24);
    assert_string_equal(s.kafka_properties.item[1], "sasl.password=a,b");
    assert_int_equal(s.dispatch_lane_lease_ms, 300000);
    assert_int_equal(s.dispatch_drain_ms, 7000);
    assert_int_equal(s.dispatch_cache_bytes, 1 << 30);
    assert_int_equal(s.relay_count, 2);
    assert_string_equal(s.relays[0].password, "se\"cret");
    assert_int_equal(s.relays[0].port, 465);
    assert_int_equal(s.relays[0].max_message_bytes, 1000000);
    assert_false(s.relays[0].pipelining);
    assert_int_equal(s.relays[0].command_timeout_ms, 60000);
    assert_int_equal(s.relays[1].port, 587);
    assert_int_equal(s.relays[1].tls, TD_TLS_STARTTLS);
    assert_int_equal(s.relays[1].idle_timeout_ms, 8000);
    assert_true(s.relays[1].pipelining);
    assert_null(s.relays[1].user);
    assert_string_equal(s.route.item[0], "backup");
    /* The first relay of the route has no return path of its own, so the host's name stands in. */
    assert_string_equal(s.message_id_domain, s.relays[0].helo_name);
    assert_ptr_equal(td_settings_relay(&s, "backup"), &s.relays[1]);
    assert_null(td_settings_relay(&s, "none"));
    td_settings_release(&s);
}

static void refused_with_file_line_and_what_to_do(void **unused)
{
    static const struct {
        const char *yaml, *text;
    } row[] = {
        {"relays:\n" RELAY("ses") "    max_conections: 5\n",
         "tandem.yaml:5: unknown key 'max_conections' in relays[0]; did you mean 'max_connections'?"},
        {"kafka:\n  borkers: x\n", "tandem.yaml:2: unknown key 'borkers' in kafka; did you mean 'brokers'?"},
        {"kafak:\n  brokers: x\n", "tandem.yaml:1: unknown key 'kafak'; did you mean 'kafka'?"},
        {"bounce:\n  sns_listen: :2025\n", "tandem.yaml:2: bounce.sns_listen needs bounce.sns_topics: which topics are believed"},
        {"bounce:\n  sns_topics: ['arn:aws:sns:eu-west-1:1:']\n",
         "tandem.yaml:2: bounce.sns_topics: 'arn:aws:sns:eu-west-1:1:' must be the ARN of a topic, as arn:aws:sns:eu-west-1:123456789012:name"},
        {"bounce:\n  sns_topics: ['arn:aws:sqs:eu-west-1:1:x']\n",
         "tandem.yaml:2: bounce.sns_topics: 'arn:aws:sqs:eu-west-1:1:x' must be the ARN of a topic, as arn:aws:sns:eu-west-1:123456789012:name"},
        {"bounce:\n  sns_topics: ['arn:aws:sns:eu-west-1@evil.com:1:x']\n",
         "tandem.yaml:2: bounce.sns_topics: 'arn:aws:sns:eu-west-1@evil.com:1:x' must be the ARN of a topic, as arn:aws:sns:eu-west-1:123456789012:name"},
        {"bounce:\n  sns_topics: ['arn:aws:sns:eu-west-1:1:x y']\n",
         "tandem.yaml:2: bounce.sns_topics: 'arn:aws:sns:eu-west-1:1:x y' must be the ARN of a topic, as arn:aws:sns:eu-west-1:123456789012:name"},
        {"bounce:\n  sns_topics: ['arn:aws:sns:eu-west-1:1:x:y']\n",
         "tandem.yaml:2: bounce.sns_topics: 'arn:aws:sns:eu-west-1:1:x:y' must be the ARN of a topic, as arn:aws:sns:eu-west-1:123456789012:name"},
        {"relay: []\n", "tandem.yaml:1: unknown key 'relay'; did you mean 'relays'?"},
        {"zzzzzzzzzzzz: 1\n", "tandem.yaml:1: unknown key 'zzzzzzzzzzzz'"},
        {"instance_file: x\n", "tandem.yaml:1: unknown key 'instance_file'"},
        {"dispatch.window: 1\ndispatch: {window: 2}\n", "tandem.yaml:2: dispatch.window: given twice"},
        {"relays.ses.port: 1\n", "tandem.yaml:1: unknown key 'relays.ses.port'"},
        {"\"a\\nb\": 1\n", "tandem.yaml:1: unknown key 'a?b'"},
        {"kafka:\n  lanes: 3\n  lanes: 4\n", "tandem.yaml:3: kafka.lanes: given twice"},
        {"kafka:\n  lanes: 3\nhttp:\nkafka:\n", "tandem.yaml:4: 'kafka' stands there twice"},
        {"redis:\n  password: a\n  password_file: b\n",
         "tandem.yaml:3: redis.password_file: given twice, or both as value and as file"},
        {"kafka:\n  lanes: many\n", "tandem.yaml:2: kafka.lanes: 'many' is not a whole number"},
        {"relays:\n" RELAY("ses") "    bounce_stop: five\n",
         "tandem.yaml:5: relays[0].bounce_stop: 'five' is not a percentage; write a number, at most two decimals and %, as in "
         "2.5%"},
        {"relays:\n" RELAY("ses") "    bounce_stop: 5.125%\n",
         "tandem.yaml:5: relays[0].bounce_stop: '5.125%' is not a percentage; write a number, at most two decimals and %, as in "
         "2.5%"},
        {"relays:\n" RELAY("ses") "    bounce_stop: 101%\n",
         "tandem.yaml:5: relays[0].bounce_stop: 101% is out of range, 0.01% to 100%"},
        {"relays:\n" RELAY("ses") "    bounce_stop: -1%\n",
         "tandem.yaml:5: relays[0].bounce_stop: '-1%' is not a percentage; write a number, at most two decimals and %, as in "
         "2.5%"},
        {"relays:\n" RELAY("ses") "    bounce_warn: 4.5 %\n",
         "tandem.yaml:2: relay 'ses': bounce_warn, bounce_throttle and bounce_stop must rise in this order"},
        {"kafka:\n  lanes: 3.5\n", "tandem.yaml:2: kafka.lanes: '3.5' is not a whole number"},
        {"kafka:\n  lanes: 0\n", "tandem.yaml:2: kafka.lanes: 0 is out of range, 1 to 1000"},
        {"kafka:\n  lanes: 99999999999999999999\n",
         "tandem.yaml:2: kafka.lanes: '99999999999999999999' is not a whole number"},
        {"kafka:\n  lanes: [3]\n", "tandem.yaml:2: kafka.lanes: takes one value, not a list"},
        {"kafka:\n  lanes: {a: 3}\n", "tandem.yaml:2: kafka.lanes: takes one value, not a mapping"},
        {"kafka: 3\n", "tandem.yaml:1: kafka: takes a mapping of key: value"},
        {"- a\n", "tandem.yaml:1: takes a mapping of key: value"},
        {"? [a]\n: b\n", "tandem.yaml:1: a key must be a word"},
        {"redis:\n  timeout: 5\n", "tandem.yaml:2: redis.timeout: '5' is not a duration; write a whole number and "
                                   "ms, s, m, h or d, as in 30s"},
        {"redis:\n  timeout: 2h\n", "tandem.yaml:2: redis.timeout: 2h is out of range, 10ms to 1m"},
        {"redis:\n  timeout: 9223372036854775807d\n", "tandem.yaml:2: redis.timeout: '9223372036854775807d' is "
                                                      "not a duration; write a whole number and ms, s, m, h "
                                                      "or d, as in 30s"},
        {"dispatch:\n  cache: 10MB\n", "tandem.yaml:2: dispatch.cache: '10MB' is not a size; write a whole number "
                                       "of bytes, or one with KiB, MiB or GiB"},
        {"log:\n  json: maybe\n", "tandem.yaml:2: log.json: 'maybe' is not true or false"},
        {"log:\n  level: loud\n", "tandem.yaml:2: log.level: 'loud' is none of: debug, info, warn, error"},
        {"relays:\n" RELAY("ses") "    tls: none\n",
         "tandem.yaml:5: relays[0].tls: 'none' is none of: implicit, starttls"},
        {"relays:\n" RELAY("ses") "    port: 0\n", "tandem.yaml:5: relays[0].port: 0 is out of range, 1 to 65535"},
        {"relays:\n  - name: SES\n", "tandem.yaml:2: relays[0].name: 'SES' must be 1 to 32 of a-z 0-9 -"},
        {"relays:\n  - name: a\n    country: Germany\n",
         "tandem.yaml:3: relays[0].country: 'Germany' must be a country of two capitals, as DE"},
        {"relays:\n  - name: a\n    host: x\n", "tandem.yaml:2: relays[0] (a): country is missing"},
        {"relays:\n  - host: x\n    country: DE\n", "tandem.yaml:2: relays[0]: name is missing"},
        {"relays:\n" RELAY("a") RELAY("b") RELAY("a"), "tandem.yaml:8: two relays are called 'a'"},
        {"relays:\n" RELAY("a") "    user: x\n", "tandem.yaml:2: relay 'a' has a user but no password"},
        {"relays:\n" RELAY("a") "    password: x\n", "tandem.yaml:2: relay 'a' has a password but no user"},
        {"relays: {a: b}\n", "tandem.yaml:1: relays: takes a list; begin each relay with '- name: ...'"},
        {"relays:\n  - a\n", "tandem.yaml:2: relays[0]: takes a mapping of key: value"},
        {"route: [ses, bakcup]\nrelays:\n" RELAY("ses") RELAY("backup"),
         "tandem.yaml:1: route: there is no relay 'bakcup'; did you mean 'backup'?"},
        {"route: [ses, ses]\n" ONE_RELAY, "tandem.yaml:1: route: relay 'ses' stands there twice"},
        {"allowed_countries: [FR]\nroute: [ses]\n" ONE_RELAY,
         "tandem.yaml:2: route: relay 'ses' is in DE, which is not in allowed_countries"},
        {"allowed_countries: [FR]\n" ONE_RELAY,
         "tandem.yaml: route: relay 'ses' is in DE, which is not in allowed_countries"},
        {"health:\n  probe: 2m\n", "tandem.yaml: health.probe_max must not be less than health.probe"},
        {"keys:\n  token: hunter2\n",
         "tandem.yaml:2: keys.token: a secret of at least 16 bytes is needed, this one has 7"},
        {"redis:\n  url: http://:hunter2@x\n",
         "tandem.yaml:2: redis.url: must begin with redis:// or rediss:// and name a host"},
        {"kafka:\n  properties: [hunter2]\n", "tandem.yaml:2: kafka.properties: must be name=value"},
        {"http:\n  listen: 9464\n",
         "tandem.yaml:2: http.listen: '9464' must be host:port, as 127.0.0.1:9464 or [::1]:9464"},
        {"relays:\n" RELAY("a") "    helo_name: \"a\\r\\nMAIL\"\n",
         "tandem.yaml:5: relays[0].helo_name: holds a control character"},
        {"instance: \"a\\0b\"\n", "tandem.yaml:1: holds a control character"},
        {"route: [a, '']\n", "tandem.yaml:1: route: an empty item in the list"},
        {"route: [a, [b]]\n", "tandem.yaml:1: route: takes a list of words"},
        {"kafka: &k\n  lanes: 3\n", "tandem.yaml:1: anchors and aliases are not supported"},
        {"a: *k\n", "tandem.yaml:1: unknown key 'a'"},
        {"instance: *k\n", "tandem.yaml:1: anchors and aliases are not supported"},
        {"instance: a\n---\ninstance: b\n", "tandem.yaml:2: a second document"},
        {"instance: a\n\tlog: b\n", "tandem.yaml:2: not YAML: found a tab character that violates indentation"},
    };
    struct td_settings s;
    struct td_err err;

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        err.text[0] = '\0';
        if (load(&s, row[i].yaml, NULL, &err) != TD_ECONFIG)
            fail_msg("row %zu was taken: %s", i, row[i].yaml);
        assert_string_equal(err.text, row[i].text);
        assert_null(strstr(err.text, "hunter2"));
        assert_null(s.kafka_brokers); /* empty on failure */
    }
}

static void environment_beats_the_file_and_set_beats_both(void **unused)
{
    static const char yaml[] = "http:\n  listen: 127.0.0.1:1\nkafka:\n  lanes: 1\nredis:\n  timeout: 1s\n"
                               "relays:\n" RELAY("ses-eu") RELAY("b");
    char *env[] = {"HOME=/nowhere",
                   "TANDEM_HTTP_LISTEN=127.0.0.1:2",
                   "TANDEM_KAFKA_LANES=2",
                   "TANDEM_ROUTE= b , ses-eu",
                   "TANDEM_RELAYS_SES_EU_PORT=2465",
                   "TANDEM_RELAYS_B_MAX_MAILS_PER_S=7",
                   "TANDEM_REDIS_TIMEOUT=",
                   "TANDEM_CONFIG=/x",
                   "TANDEM_TEST_ANYTHING=1",
                   "TANDEM_DISPATCH_SERVICE_HOST=10.0.0.1",
                   "TANDEM_DISPATCH_SERVICE_PORT_METRICS=9464",
                   "TANDEM_DISPATCH_PORT=tcp://10.0.0.1:9464",
                   "TANDEM_DISPATCH_PORT_9464_TCP_ADDR=10.0.0.1",
                   NULL};
    struct td_override overrides[] = {
        {"http.listen", "127.0.0.1:3"}, {"http.listen", "127.0.0.1:4"}, {"relays.b.helo_name", "mail.example.eu"}};
    struct td_settings s;
    struct td_err err = {TD_OK, ""};

    (void)unused;
    assert_int_equal(td_settings_load_text(&s, "f", yaml, strlen(yaml), env, overrides, 3, &err), TD_OK);
    assert_string_equal(s.http_listen, "127.0.0.1:4");
    assert_int_equal(s.kafka_lanes, 2);
    assert_int_equal(s.redis_timeout_ms, 1000); /* an empty variable is none */
    assert_int_equal(s.relays[0].port, 2465);
    assert_int_equal(s.relays[1].port, 465);
    assert_int_equal(s.relays[1].max_mails_per_s, 7);
    assert_string_equal(s.relays[1].helo_name, "mail.example.eu");
    assert_int_equal(s.route.count, 2);
    assert_string_equal(s.route.item[0], "b");
    td_settings_release(&s);
}

static void unknown_variables_and_paths_are_refused(void **unused)
{
    static const struct {
        const char *variable, *text;
    } row[] = {
        {"TANDEM_DISPACH_WINDOW=1",
         "TANDEM_DISPACH_WINDOW: no such setting; did you mean TANDEM_DISPATCH_WINDOW?"},
        {"TANDEM_RELAYS_SES_PROT=1",
         "TANDEM_RELAYS_SES_PROT: no such setting; did you mean TANDEM_RELAYS_SES_PORT?"},
        {"TANDEM_RELAYS_OTHERONE_COUNTRY=FR",
         "TANDEM_RELAYS_OTHERONE_COUNTRY: no such setting, or no relay of that name in the file"},
        {"TANDEM_RELAYS_SES_NAME=x",
         "TANDEM_RELAYS_SES_NAME: no such setting, or no relay of that name in the file"},
        {"TANDEM_SOMETHING_ELSE_ENTIRELY=1",
         "TANDEM_SOMETHING_ELSE_ENTIRELY: no such setting; unset it, or see --help for all"},
        {"TANDEM_KAFKA_LANES_FILE=x", "TANDEM_KAFKA_LANES_FILE: no such setting; unset it, or see --help for all"},
        {"TANDEM_RELAYS_SES_OPERATED_BY=\xff", "TANDEM_RELAYS_SES_OPERATED_BY: is not UTF-8"},
        {"TANDEM_KAFKA_LANES=x", "TANDEM_KAFKA_LANES: 'x' is not a whole number"},
        {"TANDEM_KEYS_TOKEN=hunter2",
         "TANDEM_KEYS_TOKEN: a secret of at least 16 bytes is needed, this one has 7"},
        {"TANDEM_KEYS_TOKEN_FILE=/does/not/exist",
         "TANDEM_KEYS_TOKEN: cannot read /does/not/exist: No such file or directory"},
    };
    static const struct {
        struct td_override set;
        const char *text;
    } set_row[] = {
        {{"http.lisen", "x"}, "--set http.lisen: no such setting; did you mean http.listen?"},
        {{"HTTP_LISTEN", "x"}, "--set HTTP_LISTEN: no such setting"},
        {{"kafka.lanes", "0"}, "--set kafka.lanes: 0 is out of range, 1 to 1000"},
        {{"relays.ses.port", "x"}, "--set relays.ses.port: 'x' is not a whole number"},
        {{"keys.token", "0123456789abcdef"},
         "--set keys.token: every user can read a command line; use keys.token_file"},
    };
    struct td_settings s;
    struct td_err err;

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        char *env[] = {(char *)(uintptr_t)row[i].variable, NULL};

        assert_int_equal(load(&s, ONE_RELAY, env, &err), TD_ECONFIG);
        assert_string_equal(err.text, row[i].text);
    }
    for (size_t i = 0; i < sizeof(set_row) / sizeof(set_row[0]); i++) {
        assert_int_equal(
            td_settings_load_text(&s, "f", ONE_RELAY, strlen(ONE_RELAY), NULL, &set_row[i].set, 1, &err),
            TD_ECONFIG);
        assert_string_equal(err.text, set_row[i].text);
    }
}

static void secrets_come_from_files(void **unused)
{
    char *good = temp_file("0123456789abcdef\r\n", 18, 0600),
         *open = temp_file("pass word, long enough\n\n", 24, 0644);
    char *empty = temp_file("\n", 1, 0600), *binary = temp_file("a\0b", 3, 0600);
    char *properties = temp_file("sasl.username=u\n\n  sasl.password=a,b\n", 37, 0600);
    char yaml[512], variable[128];
    char *env[] = {variable, NULL};
    struct td_settings s;
    struct td_err err = {TD_OK, ""};

    (void)unused;
    snprintf(yaml, sizeof(yaml),
             "keys:\n  token_file: %s\n  address_file: %s\nredis:\n  password_file: %s\nkafka:\n  "
             "properties_file: %s\n",
             good, open, open, properties);
    if (load(&s, yaml, NULL, &err) < 0)
        fail_msg("%s", err.text);
    assert_string_equal(s.keys_token, "0123456789abcdef");
    assert_string_equal(s.redis_password, "pass word, long enough\n"); /* one line end is cut, no more */
    assert_int_equal(s.kafka_properties.count, 2);
    assert_string_equal(s.kafka_properties.item[1], "sasl.password=a,b");
    assert_int_equal(td_settings_warnings(&s)->count, 1);
    assert_non_null(strstr(td_settings_warnings(&s)->item[0], open));
    td_settings_release(&s);

    snprintf(yaml, sizeof(yaml), "redis:\n  password_file: %s\n", empty);
    assert_int_equal(load(&s, yaml, NULL, &err), TD_ECONFIG);
    assert_non_null(strstr(err.text, "tandem.yaml:2: redis.password: "));
    assert_non_null(strstr(err.text, "is empty"));
    /* A file that a higher layer replaces is not even opened. */
    snprintf(variable, sizeof(variable), "TANDEM_REDIS_PASSWORD_FILE=%s", good);
    assert_int_equal(load(&s, yaml, env, &err), TD_OK);
    td_settings_release(&s);
    snprintf(variable, sizeof(variable), "TANDEM_REDIS_PASSWORD_FILE=%s", binary);
    assert_int_equal(load(&s, yaml, env, &err), TD_ECONFIG);
    assert_non_null(strstr(err.text, "is not text"));

    unlink(good), unlink(open), unlink(empty), unlink(binary), unlink(properties);
    free(good), free(open), free(empty), free(binary), free(properties);
}

static void credentials_of_systemd_stand_for_relative_paths(void **unused)
{
    static const char yaml[] = "redis:\n  password_file: secrets/redis\nkeys:\n  token_file: key\n";
    char directory[] = "test_credentials_XXXXXX", variable[64], path[96];
    char *env[] = {variable, NULL}, *key = NULL;
    struct td_settings s;
    struct td_err err;
    FILE *out;

    (void)unused;
    assert_non_null(mkdtemp(directory));
    snprintf(variable, sizeof(variable), "CREDENTIALS_DIRECTORY=%s", directory);
    snprintf(path, sizeof(path), "%s/secrets_redis", directory);
    out = fopen(path, "w");
    assert_non_null(out);
    fputs("pw\n", out);
    fclose(out);
    assert_int_equal(load(&s, yaml, env, &err), TD_ECONFIG);
    assert_string_equal(err.text, "tandem.yaml:4: keys.token: cannot read key: No such file or directory");
    key = temp_file("0123456789abcdef", 16, 0600); /* not a credential: found where it says */
    assert_int_equal(rename(key, "key"), 0);
    assert_int_equal(load(&s, yaml, env, &err), TD_OK);
    assert_string_equal(s.redis_password, "pw");
    assert_string_equal(s.keys_token, "0123456789abcdef");
    td_settings_release(&s);
    unlink("key");
    unlink(path);
    rmdir(directory);
    free(key);
}

static void too_much_is_refused(void **unused)
{
    char *text = malloc(2 << 20), *at = text;
    struct td_settings s;
    struct td_err err;

    (void)unused;
    memset(text, '#', (1 << 20) + 1);
    text[(1 << 20) + 1] = '\0';
    assert_int_equal(load(&s, text, NULL, &err), TD_ECONFIG);
    assert_string_equal(err.text, "tandem.yaml: longer than 1048576 bytes");

    at += snprintf(at, 16, "relays:\n");
    for (int i = 0; i < TD_RELAYS_MAX + 1; i++)
        at += snprintf(at, 64, "  - name: r%d\n", i);
    assert_int_equal(load(&s, text, NULL, &err), TD_ECONFIG);
    assert_string_equal(err.text, "tandem.yaml:18: more than 16 relays");

    at = text + snprintf(text, 16, "route: [");
    for (int i = 0; i < 65; i++)
        at += snprintf(at, 8, "a,");
    snprintf(at, 8, "b]\n");
    assert_int_equal(load(&s, text, NULL, &err), TD_ECONFIG);
    assert_string_equal(err.text, "tandem.yaml:1: route: a list of more than 64");

    memset(text, '[', 100000); /* no recursion, no quadratic time */
    text[100000] = '\0';
    assert_int_equal(load(&s, text, NULL, &err), TD_ECONFIG);

    at = text + snprintf(text, 16, "instance: ");
    memset(at, 'a', 5000);
    at[5000] = '\0';
    assert_int_equal(load(&s, text, NULL, &err), TD_ECONFIG);
    free(text);
}

/* noinline: gcc 12 takes the buffer of open_memstream for the variable that points to it, and warns. */
static __attribute__((noinline)) char *printed(const struct td_settings *settings)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    td_settings_print(settings, out);
    fclose(out);
    return text;
}

static void print_masks_secrets_and_reads_back(void **unused)
{
    static const char yaml[] =
        "keys:\n  token: 0123456789abcdef-hunter2\nredis:\n  url: redis://u:hunter2@h:6379/1\n"
        "kafka:\n  properties: [sasl.password=hunter2, debug=cgrp, \"sasl.password=x://hunter2@y\"]\n"
        "relays:\n" RELAY("ses") "    user: u\n    password: hunter2\n    operated_by: \"A \\\"B\\\\ C\"\n";
    char *env[] = {"TANDEM_KAFKA_LANES=5", NULL};
    struct td_settings s, again;
    struct td_err err;
    char *text, *text_again, *masked;

    (void)unused;
    assert_int_equal(load(&s, yaml, env, &err), TD_OK);
    text = printed(&s);
    assert_null(strstr(text, "hunter2"));
    assert_non_null(strstr(text, "  url: \"redis://u:***@h:6379/1\" # tandem.yaml:4\n"));
    assert_non_null(strstr(text, "  lanes: 5 # TANDEM_KAFKA_LANES\n"));
    assert_non_null(strstr(text, "  window: 2000 # default\n"));
    assert_non_null(strstr(
        text, "  properties: [\"sasl.password=***\", \"debug=cgrp\", \"sasl.password=***\"] # tandem.yaml:6\n"));
    assert_non_null(strstr(text, "  deadline: 24h # default\n"));
    assert_non_null(strstr(text, "  - name: \"ses\" # tandem.yaml:8\n"));
    assert_non_null(strstr(text, "    password: \"***\" # tandem.yaml:12\n"));
    assert_non_null(strstr(text, "  address: null # default\n"));

    /* With the masked key replaced the print is a file that means the same. */
    masked = strstr(text, "\"***\" # tandem.yaml:2");
    assert_non_null(masked);
    memset(masked, 'k', strcspn(masked, "\n"));
    if (load(&again, text, NULL, &err) < 0)
        fail_msg("%s", err.text);
    assert_string_equal(again.relays[0].operated_by, "A \"B\\ C");
    assert_int_equal(again.kafka_lanes, 5);
    assert_int_equal(again.relays[0].final_timeout_ms, s.relays[0].final_timeout_ms);
    assert_int_equal(again.dispatch_cache_bytes, s.dispatch_cache_bytes);
    text_again = printed(&again);
    assert_null(strstr(text_again, "kkkk"));
    td_settings_release(&again);
    td_settings_release(&s);
    free(text_again);
    free(text);
}

static void countries_narrow_but_never_widen(void **unused)
{
    static const char *const fr[] = {"FR"}, *const us_de[] = {"US", "DE"};
    struct td_settings s;
    struct td_err err;

    (void)unused;
    assert_int_equal(load(&s, "route: [ses]\n" ONE_RELAY "  - {name: us, host: x, country: US}\n", NULL, &err),
                     TD_OK);
    assert_true(td_relay_allowed(&s, &s.relays[0], NULL, 0));
    assert_false(td_relay_allowed(&s, &s.relays[0], fr, 1));
    assert_true(td_relay_allowed(&s, &s.relays[0], us_de, 2));
    assert_false(td_relay_allowed(&s, &s.relays[1], NULL, 0));
    assert_false(
        td_relay_allowed(&s, &s.relays[1], us_de, 2)); /* a campaign cannot allow what the operator does not */
    td_settings_release(&s);
}

static void host_and_port_have_one_reading(void **unused)
{
    static const struct {
        const char *text, *host;
        int port;
    } row[] = {
        {"127.0.0.1:80", "127.0.0.1", 80}, {":0", "", 0}, {"[::1]:65535", "::1", 65535}, {"a.b:1", "a.b", 1}};
    static const char *const bad[] = {"",       ":",     "80",   "a:",    "a:b",   "a:-1", "a:65536", "a:123456",
                                      "::1:80", "a b:1", "[a:1", "a@b:1", "a/b:1", "a: 1", "a:+1"};
    struct td_hostport hostport;

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        assert_int_equal(td_hostport_parse(row[i].text, &hostport), TD_OK);
        assert_string_equal(hostport.host, row[i].host);
        assert_int_equal(hostport.port, row[i].port);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(td_hostport_parse(bad[i], &hostport), TD_EINVAL);
}

/* Each variable names one setting: no two paths may fall together, and rows of a section stand together. */
static void table_is_sound(void **unused)
{
    char names[TD_OPTS_MAX + TD_RELAY_OPTS_MAX][160];
    struct td_settings s;
    struct td_err err;

    (void)unused;
    assert_true(td_opt_count <= TD_OPTS_MAX);
    assert_true(td_relay_opt_count <= TD_RELAY_OPTS_MAX);
    for (size_t i = 0; i < td_opt_count + td_relay_opt_count; i++) {
        bool global = i < td_opt_count;

        td_env_name(global ? &td_opts[i] : &td_relay_opts[i - td_opt_count], global ? NULL : "x", names[i], 160);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(names[i], names[j]);
    }
    assert_string_equal(td_relay_opts[0].path, "name");       /* settings_env.c skips it */
    assert_int_equal(load(&s, ONE_RELAY, NULL, &err), TD_OK); /* every default passes its own check */
    td_settings_release(&s);
}

/* TANDEM_TEST_UPDATE=1 writes the page anew. */
static void page_is_made_from_the_table(void **unused)
{
    const char *path = TD_TESTS_DIR "/../deploy/CONFIGURATION.md";
    char *text = NULL, *page;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len), *file;

    (void)unused;
    td_settings_document(out, true);
    fclose(out);
    if (getenv("TANDEM_TEST_UPDATE")) {
        file = fopen(path, "w");
        assert_non_null(file);
        fwrite(text, 1, len, file);
        fclose(file);
    }
    page = slurp(path);
    assert_string_equal(page, text);
    free(page);
    free(text);
}

static void example_file_loads(void **unused)
{
    char *env[] = {"TANDEM_KEYS_TOKEN=0123456789abcdef",
                   "TANDEM_KEYS_ADDRESS=0123456789abcdef",
                   "TANDEM_RELAYS_SES_PASSWORD=x",
                   "TANDEM_RELAYS_BACKUP_PASSWORD=x",
                   "TANDEM_REDIS_PASSWORD=x",
                   NULL};
    char *text = slurp(TD_TESTS_DIR "/../deploy/tandem.example.yaml");
    struct td_settings s;
    struct td_err err;

    (void)unused;
    if (load(&s, text, env, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(s.relay_count, 2);
    assert_int_equal(s.route.count, 2);
    td_settings_release(&s);
    free(text);
}

static void file_that_cannot_be_read_is_named(void **unused)
{
    struct td_settings s;
    struct td_err err;

    (void)unused;
    assert_int_equal(td_settings_load(&s, "/does/not/exist.yaml", NULL, 0, &err), TD_ECONFIG);
    assert_string_equal(err.text, "/does/not/exist.yaml: No such file or directory");
    assert_int_equal(td_settings_load(&s, "/", NULL, 0, &err), TD_ECONFIG);
    td_settings_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_given_is_the_defaults),
        cmocka_unit_test(every_kind_of_value_is_read),
        cmocka_unit_test(refused_with_file_line_and_what_to_do),
        cmocka_unit_test(environment_beats_the_file_and_set_beats_both),
        cmocka_unit_test(unknown_variables_and_paths_are_refused),
        cmocka_unit_test(secrets_come_from_files),
        cmocka_unit_test(credentials_of_systemd_stand_for_relative_paths),
        cmocka_unit_test(too_much_is_refused),
        cmocka_unit_test(print_masks_secrets_and_reads_back),
        cmocka_unit_test(countries_narrow_but_never_widen),
        cmocka_unit_test(host_and_port_have_one_reading),
        cmocka_unit_test(table_is_sound),
        cmocka_unit_test(page_is_made_from_the_table),
        cmocka_unit_test(example_file_loads),
        cmocka_unit_test(file_that_cannot_be_read_is_named),
    };

    return cmocka_run_group_tests_name("settings", tests, NULL, NULL);
}
