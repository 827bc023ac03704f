/* What one text must look like, and what belongs together. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../hostport.h"
#include "../settings_int.h"
#include "tandem/nearest.h"

static bool only(const char *value, const char *allowed, size_t max)
{
    size_t len = strlen(value);

    return len >= 1 && len <= max && strspn(value, allowed) == len;
}

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGIT "0123456789"

const char *td_check_relay_name(const char *value)
{
    return only(value, LOWER DIGIT "-", 32) ? NULL : "must be 1 to 32 of a-z 0-9 -";
}

const char *td_check_country(const char *value)
{
    return strlen(value) == 2 && only(value, UPPER, 2) ? NULL : "must be a country of two capitals, as DE";
}

const char *td_check_domain(const char *value)
{
    bool fine =
        only(value, LOWER UPPER DIGIT "-.", 253) && value[0] != '.' && value[0] != '-' && !strstr(value, "..");

    return fine ? NULL : "must be a domain in ASCII (xn-- for others)";
}

const char *td_check_host(const char *value)
{
    /* A domain, or an address literal of RFC 5321 s.4.1.3, or a bare IPv6 address. */
    return only(value, LOWER UPPER DIGIT "-.:[]", 253) ? NULL : "must be a host name or an address";
}

const char *td_check_listen(const char *value)
{
    struct td_hostport hostport;

    return td_hostport_parse(value, &hostport) == TD_OK ? NULL
                                                        : "must be host:port, as 127.0.0.1:9464 or [::1]:9464";
}

const char *td_check_redis_url(const char *value)
{
    const char *rest = strncmp(value, "redis://", 8) == 0    ? value + 8
                       : strncmp(value, "rediss://", 9) == 0 ? value + 9
                                                             : "";

    return *rest && *rest != '/' ? NULL : "must begin with redis:// or rediss:// and name a host";
}

const char *td_check_https_url(const char *value)
{
    bool fine =
        strncmp(value, "https://", 8) == 0 && value[8] && strlen(value) <= 1000 && !strpbrk(value, " <>\"");

    return fine ? NULL : "must begin with https:// and hold no blank, quote or angle bracket";
}

const char *td_check_topic_prefix(const char *value)
{
    return only(value, LOWER UPPER DIGIT "._-", 100) ? NULL : "must be at most 100 of letters, digits, . _ -";
}

const char *td_check_ses_name(const char *value)
{
    return only(value, LOWER UPPER DIGIT "_-", 64) ? NULL : "must be 1 to 64 of letters, digits, _ -";
}

/* arn:<partition>:sns:<region>:<account>:<name>; the region goes into a host name. */
const char *td_check_sns_topic(const char *value)
{
    static const char why[] = "must be the ARN of a topic, as arn:aws:sns:eu-west-1:123456789012:name";
    static const char *const allowed[] = {LOWER "-", "sns", LOWER DIGIT "-", DIGIT, LOWER UPPER DIGIT "_-."};
    const char *at = value + 4;

    if (strncmp(value, "arn:", 4) != 0 || strlen(value) > 400)
        return why;
    for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++) {
        size_t n = strspn(at, allowed[i]);

        if (n == 0 || n > 256 || at[n] != (i == 4 ? '\0' : ':') || (i == 1 && strncmp(at, "sns:", 4) != 0))
            return why;
        at += n + 1;
    }
    return NULL;
}

const char *td_check_instance(const char *value)
{
    return only(value, LOWER UPPER DIGIT "._-", 64) ? NULL : "must be at most 64 of letters, digits, . _ -";
}

const char *td_check_property(const char *value)
{
    const char *equal = strchr(value, '=');

    return equal && equal > value ? NULL : "must be name=value";
}

/* The host's name in characters that Kafka, Redis and SMTP all take. */
static char *host_name(void)
{
    char name[65] = "";

    if (gethostname(name, sizeof(name) - 1) < 0 || !*name)
        return strdup("localhost");
    for (char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '.' && *c != '-')
            *c = '-';
    return strdup(name);
}

static int route_complete(struct td_settings *settings)
{
    for (size_t i = 0; i < settings->relay_count; i++) {
        int rc = settings->relays[i].name ? td_strings_add(&settings->route, settings->relays[i].name) : TD_OK;

        if (rc < 0)
            return rc;
    }
    return TD_OK;
}

static char *message_id_domain(const struct td_settings *settings)
{
    const struct td_relay_settings *first =
        settings->route.count ? td_settings_relay(settings, settings->route.item[0]) : NULL;

    return first && first->return_path_domain ? strdup(first->return_path_domain) : host_name();
}

int td_settings_complete(struct td_settings *settings, struct td_err *reterr)
{
    bool whole;

    if (settings->route.count == 0 && route_complete(settings) < 0)
        return td_fail(reterr, TD_ENOMEM, "no memory for settings");
    if (!settings->instance)
        settings->instance = host_name();
    if (!settings->message_id_domain)
        settings->message_id_domain = message_id_domain(settings);
    whole = settings->instance && settings->message_id_domain;
    for (size_t i = 0; i < settings->relay_count; i++) {
        struct td_relay_settings *relay = &settings->relays[i];

        if (relay->port == 0)
            relay->port = relay->tls == TD_TLS_STARTTLS ? 587 : 465;
        if (!relay->helo_name)
            relay->helo_name = host_name();
        whole = whole && relay->helo_name;
    }
    return whole ? TD_OK : td_fail(reterr, TD_ENOMEM, "no memory for settings");
}

static int check_relay(const struct td_settings *settings, size_t index, struct td_err *reterr)
{
    const struct td_relay_settings *relay = &settings->relays[index];
    size_t line = settings->origins->relay_line[index];

    for (size_t i = 0; i < td_relay_opt_count; i++) {
        const struct td_opt *opt = &td_relay_opts[i];
        const char *const *field = (const char *const *)(const void *)((const char *)relay + opt->offset);

        if (opt->required && !*field)
            return td_settings_fail_at(settings, line, reterr, "relays[%zu]%s%s%s: %s is missing", index,
                                       relay->name ? " (" : "", relay->name ? relay->name : "",
                                       relay->name ? ")" : "", opt->path);
    }
    for (size_t i = 0; i < index; i++)
        if (strcmp(settings->relays[i].name, relay->name) == 0)
            return td_settings_fail_at(settings, line, reterr, "two relays are called '%s'", relay->name);
    if (!relay->user != !relay->password)
        return td_settings_fail_at(settings, line, reterr, "relay '%s' has a %s but no %s", relay->name,
                                   relay->user ? "user" : "password", relay->user ? "password" : "user");
    if (relay->bounce_warn > relay->bounce_throttle || relay->bounce_throttle > relay->bounce_stop)
        return td_settings_fail_at(settings, line, reterr,
                                   "relay '%s': bounce_warn, bounce_throttle and bounce_stop must rise in this order",
                                   relay->name);
    return TD_OK;
}

/* Line of a global option when it is from the file, else of nothing. */
static size_t line_of(const struct td_settings *settings, const char *path)
{
    const struct td_opt *opt = td_opt_find(td_opts, td_opt_count, path);

    return settings->origins->global[opt - td_opts].line;
}

static int check_route(const struct td_settings *settings, struct td_err *reterr)
{
    size_t line = line_of(settings, "route");

    for (size_t i = 0; i < settings->route.count; i++) {
        const char *name = settings->route.item[i];
        const struct td_relay_settings *relay = td_settings_relay(settings, name);
        const char *names[TD_RELAYS_MAX], *near;

        for (size_t j = 0; j < settings->relay_count; j++)
            names[j] = settings->relays[j].name;
        near = relay ? NULL : td_nearest(name, names, settings->relay_count);
        if (!relay)
            return td_settings_fail_at(settings, line, reterr, "route: there is no relay '%s'%s%s%s", name,
                                       near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
        for (size_t j = 0; j < i; j++)
            if (strcmp(settings->route.item[j], name) == 0)
                return td_settings_fail_at(settings, line, reterr, "route: relay '%s' stands there twice", name);
        if (!td_relay_allowed(settings, relay, NULL, 0))
            return td_settings_fail_at(settings, line, reterr,
                                       "route: relay '%s' is in %s, which is not in allowed_countries", name,
                                       relay->country);
    }
    return TD_OK;
}

int td_settings_check(const struct td_settings *settings, struct td_err *reterr)
{
    for (size_t i = 0; i < settings->relay_count; i++) {
        int rc = check_relay(settings, i, reterr);

        if (rc < 0)
            return rc;
    }
    if (settings->bounce_sns_listen && settings->bounce_sns_topics.count == 0)
        return td_settings_fail_at(settings, line_of(settings, "bounce.sns_listen"), reterr,
                                   "bounce.sns_listen needs bounce.sns_topics: which topics are believed");
    if (settings->health_probe_ms > settings->health_probe_max_ms)
        return td_settings_fail_at(settings, line_of(settings, "health.probe_max"), reterr,
                                   "health.probe_max must not be less than health.probe");
    return check_route(settings, reterr);
}

const struct td_relay_settings *td_settings_relay(const struct td_settings *settings, const char *name)
{
    for (size_t i = 0; i < settings->relay_count; i++)
        if (settings->relays[i].name && strcmp(settings->relays[i].name, name) == 0)
            return &settings->relays[i];
    return NULL;
}

static bool among(const char *country, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i], country) == 0)
            return true;
    return false;
}

bool td_relay_allowed(const struct td_settings *settings, const struct td_relay_settings *relay,
                      const char *const *also, size_t also_count)
{
    const struct td_strings *allowed = &settings->allowed_countries;

    return relay->country && among(relay->country, (const char *const *)allowed->item, allowed->count) &&
           (also_count == 0 || among(relay->country, also, also_count));
}
