/* RFC 5321 s.4.1.2, narrowed: no source route, no address literal, no SMTPUTF8. All that reaches the output has
 * been checked octet by octet, so that nothing in it can end an SMTP command or a header field. */
#include "tandem/addr.h"

#include <idn2.h>
#include <stdbool.h>
#include <string.h>

#include "tandem/utf8.h"

enum {
    LOCAL_MAX = 64,    /* RFC 5321 s.4.5.3.1.1 */
    LABEL_MAX = 63,    /* RFC 1035 s.2.3.4 */
    DOMAIN_MAX = 253,  /* 255 octets on the wire */
    ADDRESS_MAX = 254, /* a path of 256 with its angle brackets */
    UNICODE_MAX = 1024 /* no domain that fits as A-labels is longer as UTF-8 */
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_alnum(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* atext of RFC 5322 s.3.2.3 */
static bool is_atext(char c)
{
    return is_alnum(c) || (c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", c));
}

static bool is_dot_atom(const char *text, size_t len)
{
    bool after_dot = true;

    for (size_t i = 0; i < len; i++) {
        if (text[i] == '.' && after_dot)
            return false;
        if (text[i] != '.' && !is_atext(text[i]))
            return false;
        after_dot = text[i] == '.';
    }
    return !after_dot;
}

/* Length of the quoted string at the start, quotes included. 0: it never ends, or holds what may not be there. */
static size_t quoted_length(const char *text, size_t len)
{
    for (size_t i = 1; i < len; i++) {
        if (text[i] == '"')
            return i + 1;
        if (text[i] == '\\')
            i++;
        if (i == len || !(text[i] >= ' ' && text[i] <= '~'))
            return 0;
    }
    return 0;
}

/* "john"@ and john@ are one mailbox: write the shortest form, so that one person has one address hash. */
static size_t write_unquoted(char *out, const char *text, size_t len)
{
    char plain[LOCAL_MAX];
    size_t plain_len = 0, at = 0;

    for (size_t i = 1; i + 1 < len; i++) {
        if (text[i] == '\\')
            i++;
        plain[plain_len++] = text[i];
    }
    if (plain_len == 0)
        return 0;
    if (is_dot_atom(plain, plain_len)) {
        memcpy(out, plain, plain_len);
        return plain_len;
    }
    out[at++] = '"';
    for (size_t i = 0; i < plain_len; i++) {
        if (plain[i] == '"' || plain[i] == '\\')
            out[at++] = '\\';
        out[at++] = plain[i];
    }
    out[at++] = '"';
    return at;
}

/* A domain in ASCII, lower-cased into out. */
static int check_domain(const char *domain, size_t len, char *out, size_t *ret_len, struct td_err *reterr)
{
    size_t label = 0, labels = 1;
    bool digits_only = true;

    if (len == 0 || len > DOMAIN_MAX)
        return td_fail(reterr, TD_EINVAL, "the domain has %zu octets, not 1 to %d", len, DOMAIN_MAX);
    for (size_t i = 0; i < len; i++) {
        char c = domain[i];

        if (c == '.') {
            if (label == 0 || out[i - 1] == '-')
                return td_fail(reterr, TD_EINVAL, "a label of the domain is empty or ends with a hyphen");
            label = 0;
            labels++;
            digits_only = true;
        } else {
            if (!is_alnum(c) && (c != '-' || label == 0))
                return td_fail(reterr, TD_EINVAL, "the domain holds a character that no host name has");
            if (++label > LABEL_MAX)
                return td_fail(reterr, TD_EINVAL, "a label of the domain has more than %d octets", LABEL_MAX);
            digits_only = digits_only && is_digit(c);
        }
        out[i] = (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
    }
    if (label == 0 || out[len - 1] == '-')
        return td_fail(reterr, TD_EINVAL, "the domain ends with a dot or a hyphen");
    if (labels < 2)
        return td_fail(reterr, TD_EINVAL, "the domain has one label only");
    if (digits_only)
        return td_fail(reterr, TD_EINVAL, "the domain ends in digits: an IP address");
    *ret_len = len;
    return TD_OK;
}

/* To A-labels first. UTS 46 maps some characters to ASCII ones, even "@": the result is checked like any other. */
static int check_unicode_domain(const char *domain, size_t len, char *out, size_t *ret_len, struct td_err *reterr)
{
    char text[UNICODE_MAX + 1];
    char *ascii = NULL;
    int rc;

    if (!td_utf8_valid(domain, len))
        return td_fail(reterr, TD_EINVAL, "the domain is not UTF-8");
    memcpy(text, domain, len);
    text[len] = '\0';
    rc = idn2_to_ascii_8z(text, &ascii, IDN2_NONTRANSITIONAL | IDN2_NFC_INPUT);
    if (rc == IDN2_MALLOC)
        return td_fail(reterr, TD_ENOMEM, "domain in A-labels");
    if (rc != IDN2_OK)
        return td_fail(reterr, TD_EINVAL, "the domain has no form in A-labels: %s", idn2_strerror(rc));
    rc = check_domain(ascii, strlen(ascii), out, ret_len, reterr);
    idn2_free(ascii);
    return rc;
}

static int check_local(const char *local, size_t len, char *out, size_t *ret_len, struct td_err *reterr)
{
    if (len == 0)
        return td_fail(reterr, TD_EINVAL, "the part before the @ is empty");
    if (len > LOCAL_MAX)
        return td_fail(reterr, TD_EINVAL, "the part before the @ has more than %d octets", LOCAL_MAX);
    if (local[0] == '"') {
        *ret_len = write_unquoted(out, local, len);
        return *ret_len ? TD_OK : td_fail(reterr, TD_EINVAL, "the part before the @ is empty");
    }
    if (!is_dot_atom(local, len))
        return td_fail(reterr, TD_EINVAL, "the part before the @ holds a dot or a character where none may be");
    memcpy(out, local, len);
    *ret_len = len;
    return TD_OK;
}

/* A CR or LF in a mailbox would start a new SMTP command, a NUL would end a C string: refuse them before all else.
 * *ret_ascii tells if the domain needs libidn2, which the usual address never meets. */
static int check_octets(const char *address, size_t len, size_t *ret_at, bool *ret_ascii, struct td_err *reterr)
{
    size_t at;

    *ret_ascii = true;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)address[i];

        if (c < ' ' || c == 0x7f)
            return td_fail(reterr, TD_EINVAL, "the address holds a control character at byte %zu", i);
        if (c >= 0x80)
            *ret_ascii = false;
    }
    if (address[0] == '"') {
        at = quoted_length(address, len);
        if (at == 0 || at == len || address[at] != '@')
            return td_fail(reterr, TD_EINVAL, "the quoted part does not end before an @");
    } else {
        const char *sign = memchr(address, '@', len);

        if (!sign)
            return td_fail(reterr, TD_EINVAL, "the address has no @");
        at = (size_t)(sign - address);
    }
    *ret_at = at;
    return TD_OK;
}

int td_addr_check(const char *address, size_t len, char out[TD_ADDR_MAX], struct td_err *reterr)
{
    char local[LOCAL_MAX * 2], domain[DOMAIN_MAX];
    size_t at = 0, local_len = 0, domain_len = 0;
    bool ascii;
    int rc;

    if (len == 0 || len > UNICODE_MAX)
        return td_fail(reterr, TD_EINVAL, "the address has %zu octets, not 1 to %d", len, ADDRESS_MAX);
    rc = check_octets(address, len, &at, &ascii, reterr);
    if (rc < 0)
        return rc;
    rc = check_local(address, at, local, &local_len, reterr);
    if (rc < 0)
        return rc;
    rc = ascii ? check_domain(address + at + 1, len - at - 1, domain, &domain_len, reterr)
               : check_unicode_domain(address + at + 1, len - at - 1, domain, &domain_len, reterr);
    if (rc < 0)
        return rc;
    if (local_len + 1 + domain_len > ADDRESS_MAX)
        return td_fail(reterr, TD_EINVAL, "the address has more than %d octets", ADDRESS_MAX);
    memcpy(out, local, local_len);
    out[local_len] = '@';
    memcpy(out + local_len + 1, domain, domain_len);
    out[local_len + 1 + domain_len] = '\0';
    return TD_OK;
}
