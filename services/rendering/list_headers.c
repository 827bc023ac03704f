#include "list_headers.h"

#include <string.h>

static const char token_tag[] = "{{token}}";
enum { TOKEN_TAG_LEN = sizeof(token_tag) - 1 };

static bool alnum(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool list_id_valid(const char *list_id)
{
    size_t len = strlen(list_id);

    if (len == 0 || len > 200 || !strchr(list_id, '.'))
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)list_id[i];

        if (c == '.' && (i == 0 || i + 1 == len || list_id[i - 1] == '.'))
            return false;
        if (!alnum(c) && !strchr(".-_", c))
            return false;
    }
    return true;
}

int list_url_check(const char *url, struct td_err *reterr)
{
    size_t len = strlen(url);

    if (len > LIST_URL_MAX)
        return td_fail(reterr, TD_ETOOBIG, "the unsubscribe URL is over %d bytes", LIST_URL_MAX);
    if (strncmp(url, "https://", 8) != 0 || len == 8 || strncmp(url + 8, token_tag, TOKEN_TAG_LEN) == 0)
        return td_fail(reterr, TD_EINVAL, "the unsubscribe URL does not begin with https:// and a host");
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)url[i];

        if (strncmp(url + i, token_tag, TOKEN_TAG_LEN) == 0) {
            i += TOKEN_TAG_LEN - 1;
            continue;
        }
        /* A comma ends nothing inside <>, but some readers split there: it must come percent-encoded. */
        if (c <= 0x20 || c >= 0x7F || strchr("<>\"\\^`{|},", c))
            return td_fail(reterr, TD_EINVAL, "the unsubscribe URL has a character that must be percent-encoded");
    }
    return TD_OK;
}

/* Percent-encode all but unreserved characters (RFC 3986 s.2.3) and those in `also`. */
static int add_encoded(struct td_buf *buf, const char *text, const char *also)
{
    int rc = TD_OK;

    for (; *text && rc == TD_OK; text++) {
        unsigned char c = (unsigned char)*text;

        rc = alnum(c) || strchr("-._~", c) || strchr(also, c) ? td_buf_addc(buf, *text)
                                                              : td_buf_printf(buf, "%%%02X", c);
    }
    return rc;
}

int list_url_add(struct td_buf *buf, const char *url, const char *token)
{
    const char *tag;
    int rc = TD_OK;

    while (rc == TD_OK && (tag = strstr(url, token_tag)) != NULL) {
        rc = td_buf_add(buf, url, (size_t)(tag - url));
        if (rc == TD_OK)
            rc = add_encoded(buf, token, "");
        url = tag + TOKEN_TAG_LEN;
    }
    return rc < 0 ? rc : td_buf_adds(buf, url);
}

int list_mailto_add(struct td_buf *buf, const char *address, const char *token)
{
    int rc = td_buf_adds(buf, "mailto:");

    if (rc == TD_OK)
        rc = add_encoded(buf, address, "@");
    if (rc == TD_OK)
        rc = td_buf_adds(buf, "?subject=unsubscribe-");
    return rc < 0 ? rc : add_encoded(buf, token, "");
}

int list_unsubscribe_add(struct td_buf *buf, const char *mailto, const char *url, const char *token)
{
    int rc = td_buf_adds(buf, "List-Unsubscribe: ");

    if (rc == TD_OK && *mailto) {
        rc = td_buf_addc(buf, '<');
        if (rc == TD_OK)
            rc = list_mailto_add(buf, mailto, token);
        if (rc == TD_OK)
            rc = td_buf_adds(buf, *url ? ">,\r\n " : ">");
    }
    if (rc == TD_OK && *url) {
        rc = td_buf_addc(buf, '<');
        if (rc == TD_OK)
            rc = list_url_add(buf, url, token);
        if (rc == TD_OK)
            rc = td_buf_addc(buf, '>');
    }
    return rc < 0 ? rc : td_buf_adds(buf, "\r\n");
}
