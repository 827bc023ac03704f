/* redis_url.c - redis://[[user]:password@]host[:port][/db], read strictly: a typing error must not become a host.
 */
#include "redis_url.h"

#include <ctype.h>
#include <string.h>

#include "tandem/err.h"

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* %XX decoded; false when it does not fit, is malformed or holds a NUL. */
static bool decode(char *out, size_t size, const char *in, size_t len)
{
    size_t at = 0;

    for (size_t i = 0; i < len; i++) {
        char c = in[i];

        if (c == '%') {
            int high = i + 2 < len ? hex_digit(in[i + 1]) : -1;
            int low = i + 2 < len ? hex_digit(in[i + 2]) : -1;

            if (high < 0 || low < 0 || high + low == 0)
                return false;
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (at + 1 >= size)
            return false;
        out[at++] = c;
    }
    out[at] = '\0';
    return true;
}

/* A number of 1..max_digits digits between low and high. */
static bool number(char *out, size_t size, const char *in, size_t len, long low, long high)
{
    long value = 0;

    if (len == 0 || len >= size)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!isdigit((unsigned char)in[i]))
            return false;
        value = value * 10 + (in[i] - '0');
    }
    memcpy(out, in, len);
    out[len] = '\0';
    return value >= low && value <= high;
}

static bool read_host(struct redis_target *target, const char *at, size_t len)
{
    if (len == 0 || len >= sizeof(target->host))
        return false;
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)at[i]) && !strchr("-._:", at[i]))
            return false;
    memcpy(target->host, at, len);
    target->host[len] = '\0';
    return true;
}

static bool read_host_port(struct redis_target *target, const char *at, size_t len)
{
    const char *colon = memchr(at, ':', len);
    size_t host_len = colon ? (size_t)(colon - at) : len;

    if (len > 0 && at[0] == '[') { /* an IPv6 address */
        const char *close = memchr(at, ']', len);

        if (!close || !read_host(target, at + 1, (size_t)(close - at) - 1))
            return false;
        colon = close + 1 < at + len ? close + 1 : NULL;
        if (colon && *colon != ':')
            return false;
    } else if (!read_host(target, at, host_len)) {
        return false;
    }
    if (colon)
        return number(target->port, sizeof(target->port), colon + 1, (size_t)(at + len - colon) - 1, 1, 65535);
    memcpy(target->port, "6379", 5);
    return true;
}

static bool read_login(struct redis_target *target, const char *at, size_t len)
{
    const char *colon = memchr(at, ':', len);

    return colon && decode(target->user, sizeof(target->user), at, (size_t)(colon - at)) &&
           decode(target->password, sizeof(target->password), colon + 1, (size_t)(at + len - colon) - 1) &&
           target->password[0];
}

int redis_url_parse(struct redis_target *target, const char *url, struct td_err *reterr)
{
    const char *at = url ? url : "";
    const char *login, *slash;
    size_t len;

    memset(target, 0, sizeof(*target));
    if (strncmp(at, "rediss://", 9) == 0)
        target->tls = true;
    else if (strncmp(at, "redis://", 8) != 0)
        return td_fail(reterr, TD_ECONFIG, "redis.url must begin with redis:// or rediss://");
    at += target->tls ? 9 : 8;
    login = strrchr(at, '@');
    if (login) {
        if (!read_login(target, at, (size_t)(login - at)))
            return td_fail(reterr, TD_ECONFIG,
                           "redis.url: before @ it must say user:password or :password "
                           "(%%XX for special characters)");
        at = login + 1;
    }
    slash = strchr(at, '/');
    len = slash ? (size_t)(slash - at) : strlen(at);
    if (!read_host_port(target, at, len))
        return td_fail(reterr, TD_ECONFIG, "redis.url: it must name a host and, after a colon, a port 1..65535");
    if (slash && slash[1] && !number(target->db, sizeof(target->db), slash + 1, strlen(slash + 1), 0, 9999))
        return td_fail(reterr, TD_ECONFIG, "redis.url: after / it must say the number of a database");
    return TD_OK;
}
