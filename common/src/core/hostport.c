#include "../hostport.h"

#include <stdlib.h>
#include <string.h>

#include "tandem/err.h"

int td_hostport_parse(const char *text, struct td_hostport *ret)
{
    const char *colon = strrchr(text, ':'), *digits = colon ? colon + 1 : "";
    size_t len = colon ? (size_t)(colon - text) : 0, digit_count = strlen(digits);
    long port;

    if (digit_count < 1 || digit_count > 5 || strspn(digits, "0123456789") != digit_count)
        return TD_EINVAL;
    port = strtol(digits, NULL, 10);
    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        text++;
        len -= 2;
    } else if (memchr(text, ':', len)) {
        return TD_EINVAL; /* ::1:80 could be read two ways */
    }
    if (port > 65535 || len >= sizeof(ret->host) || strcspn(text, " /@[]") < len)
        return TD_EINVAL;
    memcpy(ret->host, text, len);
    ret->host[len] = '\0';
    ret->port = (int)port;
    return TD_OK;
}
