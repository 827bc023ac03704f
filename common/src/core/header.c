/* What a header field holds must read back as what was put in: text that a reader would take for an encoded word
 * is encoded, blanks that a reader would drop are encoded, and nothing can add a line (RFC 5322 s.2.2, RFC 2047).
 */
#include "tandem/header.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "tandem/mimeenc.h"
#include "tandem/utf8.h"

enum {
    FOLD_AT = 76, /* RFC 2047 s.2 for lines with encoded words; below RFC 5322's 78 */
    LINE_CHARS_MAX = 998,
    WORD_AROUND = 12, /* "=?UTF-8?Q?" and "?=" */
    WORD_CHARS_MAX = 75,
    NAME_MAX_CHARS = 76
};

int td_header_value_check(const char *value, size_t len, size_t max_bytes, struct td_err *reterr)
{
    uint32_t c = 0;
    size_t step;

    if (len > max_bytes)
        return td_fail(reterr, TD_ETOOBIG, "the value has %zu bytes, at most %zu are allowed", len, max_bytes);
    for (size_t i = 0; i < len; i += step) {
        step = td_utf8_next(value + i, len - i, &c);
        if (step == 0)
            return td_fail(reterr, TD_EINVAL, "the value is not UTF-8 at byte %zu", i);
        if (c < ' ' || (c >= 0x7f && c <= 0x9f))
            return td_fail(reterr, TD_EINVAL, "the value holds a control character at byte %zu", i);
        if ((c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069))
            return td_fail(reterr, TD_EINVAL, "the value holds a bidirectional override at byte %zu", i);
    }
    return TD_OK;
}

bool td_header_name_allowed(const char *name)
{
    static const char *const plain[] = {"Organization", "Keywords", "Comments"};
    size_t len = strnlen(name, NAME_MAX_CHARS + 1);

    if (len > NAME_MAX_CHARS)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = name[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-'))
            return false;
    }
    for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
        if (strcasecmp(name, plain[i]) == 0)
            return true;
    }
    return len > 2 && strncasecmp(name, "X-", 2) == 0 && strncasecmp(name, "X-SES-", 6) != 0 &&
           strncasecmp(name, "X-Tandem-", 9) != 0;
}

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_printable(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!(text[i] >= ' ' && text[i] <= '~'))
            return false;
    }
    return true;
}

/* May it stand as it is? A blank at either end would be lost, "=?" may begin an encoded word, and a word that no
 * line can hold cannot be folded. */
static bool is_plain(const char *text, size_t len, size_t name_len)
{
    size_t word = name_len + 2;

    if (!is_printable(text, len) || memmem(text, len, "=?", 2))
        return false;
    if (len > 0 && (text[0] == ' ' || text[len - 1] == ' '))
        return false;
    for (size_t i = 0; i < len; i++) {
        word = text[i] == ' ' && text[i - 1] != ' ' ? 1 : word + 1; /* text[0] is no blank */
        if (word > LINE_CHARS_MAX)
            return false;
    }
    return true;
}

/* Add text, folded before blanks. column is where the line stands; carried on. */
static int add_folded(struct td_buf *buf, const char *text, size_t len, size_t *column)
{
    size_t at = 0, end;
    int rc = TD_OK;

    while (at < len && rc == TD_OK) {
        for (end = at; end < len && text[end] == ' '; end++)
            continue; /* blanks go with the word after them */
        while (end < len && text[end] != ' ')
            end++;
        if (text[at] == ' ' && *column + (end - at) > FOLD_AT) {
            rc = td_buf_adds(buf, "\r\n");
            *column = 0;
        }
        if (rc == TD_OK)
            rc = td_buf_add(buf, text + at, end - at);
        *column += end - at;
        at = end;
    }
    return rc;
}

/* ---- RFC 2047 ---- */

/* Where the text stands decides what Q may leave alone (RFC 2047 s.5): in a phrase only letters, digits and !*+-/
 */
enum place { IN_TEXT, IN_PHRASE };

static bool q_literal(char c, enum place place)
{
    if (place == IN_PHRASE)
        return is_alnum(c) || (c != '\0' && strchr("!*+-/", c));
    return c > ' ' && c <= '~' && c != '=' && c != '?' && c != '_';
}

static size_t q_length(const char *text, size_t len, enum place place)
{
    size_t chars = 0;

    for (size_t i = 0; i < len; i++)
        chars += text[i] == ' ' || q_literal(text[i], place) ? 1 : 3;
    return chars;
}

static int add_q(struct td_buf *buf, const char *text, size_t len, enum place place)
{
    int rc = TD_OK;

    for (size_t i = 0; i < len && rc == TD_OK; i++) {
        if (text[i] == ' ')
            rc = td_buf_addc(buf, '_');
        else if (q_literal(text[i], place))
            rc = td_buf_addc(buf, text[i]);
        else
            rc = td_buf_printf(buf, "=%02X", (unsigned)(unsigned char)text[i]);
    }
    return rc;
}

/* Bytes of text, whole characters, whose encoded form has at most max characters; at least one character. */
static size_t word_bytes(const char *text, size_t len, size_t max, bool q, enum place place)
{
    size_t bytes = 0, chars = 0;

    while (bytes < len) {
        size_t step = td_utf8_next(text + bytes, len - bytes, NULL);

        if (step == 0)
            step = 1; /* a caller's mistake: never loop on it */
        chars = q ? chars + q_length(text + bytes, step, place) : (bytes + step + 2) / 3 * 4;
        if (chars > max && bytes > 0)
            break;
        bytes += step;
    }
    return bytes;
}

static int add_encoded_words(struct td_buf *buf, const char *text, size_t len, enum place place, size_t *column)
{
    bool q = q_length(text, len, place) <= (len + 2) / 3 * 4;
    int rc = TD_OK;

    for (size_t at = 0, bytes; at < len && rc == TD_OK; at += bytes) {
        size_t room = FOLD_AT > *column + WORD_AROUND ? FOLD_AT - *column - WORD_AROUND : 0, before;

        if (at > 0 || room < 16) { /* 16 hold any one character; later words stand on a line of their own */
            if (at == 0 && buf->len > 0 && buf->data[buf->len - 1] == ' ')
                buf->data[--buf->len] = '\0'; /* the blank after "Name:" now comes after the fold */
            rc = td_buf_adds(buf, "\r\n ");
            *column = 1;
            room = WORD_CHARS_MAX - WORD_AROUND;
        }
        bytes = word_bytes(text + at, len - at, room, q, place);
        before = buf->len;
        if (rc == TD_OK)
            rc = td_buf_adds(buf, q ? "=?UTF-8?Q?" : "=?UTF-8?B?");
        if (rc == TD_OK)
            rc = q ? add_q(buf, text + at, bytes, place) : td_base64(buf, text + at, bytes);
        if (rc == TD_OK)
            rc = td_buf_adds(buf, "?=");
        *column += buf->len - before;
    }
    return rc;
}

int td_header_add_text(struct td_buf *buf, const char *name, const char *value, size_t len)
{
    size_t name_len = strlen(name), column = name_len + 1;
    int rc = td_buf_printf(buf, "%s:", name);

    if (rc == TD_OK && len > 0) {
        rc = td_buf_addc(buf, ' ');
        column++;
    }
    if (rc == TD_OK)
        rc = is_plain(value, len, name_len) ? add_folded(buf, value, len, &column)
                                            : add_encoded_words(buf, value, len, IN_TEXT, &column);
    return rc < 0 ? rc : td_buf_adds(buf, "\r\n");
}

/* ---- mailboxes ---- */

/* Words of atext with one blank between them need no quotes (RFC 5322 s.3.2.5). */
static bool is_atoms(const char *phrase, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        bool blank = phrase[i] == ' ' && i > 0 && phrase[i - 1] != ' ';

        if (!blank && !is_alnum(phrase[i]) && !strchr("!#$%&'*+-/=?^_`{|}~", phrase[i]))
            return false;
    }
    return len > 0 && phrase[len - 1] != ' ';
}

static int add_quoted(struct td_buf *buf, const char *text, size_t len)
{
    int rc = td_buf_addc(buf, '"');

    for (size_t i = 0; i < len && rc == TD_OK; i++) {
        if (text[i] == '"' || text[i] == '\\')
            rc = td_buf_addc(buf, '\\');
        if (rc == TD_OK)
            rc = td_buf_addc(buf, text[i]);
    }
    return rc < 0 ? rc : td_buf_addc(buf, '"');
}

static int add_phrase(struct td_buf *buf, const char *phrase, size_t len, size_t *column)
{
    struct td_buf quoted = TD_BUF_INIT(2 * LINE_CHARS_MAX);
    int rc;

    if (!is_plain(phrase, len, *column) || len > LINE_CHARS_MAX / 2)
        return add_encoded_words(buf, phrase, len, IN_PHRASE, column);
    if (is_atoms(phrase, len))
        return add_folded(buf, phrase, len, column);
    rc = add_quoted(&quoted, phrase, len);
    if (rc == TD_OK)
        rc = add_folded(buf, quoted.data, quoted.len, column); /* a quoted string may be folded too (s.3.2.4) */
    td_buf_release(&quoted);
    return rc;
}

int td_header_add_mailbox(struct td_buf *buf, const char *name, const char *phrase, const char *address)
{
    size_t column = strlen(name) + 2, phrase_len = phrase ? strlen(phrase) : 0;
    int rc = td_buf_printf(buf, "%s: ", name);

    if (rc == TD_OK && phrase_len > 0) {
        rc = add_phrase(buf, phrase, phrase_len, &column);
        if (rc == TD_OK)
            rc = td_buf_printf(buf, "%s<%s>\r\n", column + 3 + strlen(address) > FOLD_AT ? "\r\n " : " ", address);
    } else if (rc == TD_OK) {
        rc = td_buf_printf(buf, "%s\r\n", address);
    }
    return rc;
}

/* ---- RFC 2231 ---- */

static size_t line_column(const struct td_buf *buf)
{
    const char *end = buf->len ? memrchr(buf->data, '\n', buf->len) : NULL;

    return end ? (size_t)(buf->data + buf->len - end) - 1 : buf->len;
}

/* attribute-char of RFC 2231 s.7 */
static bool is_attribute_char(char c)
{
    return is_alnum(c) || (c != '\0' && strchr("!#$&+-.^_`{|}~", c));
}

static int add_percent(struct td_buf *buf, const char *text, size_t len)
{
    int rc = TD_OK;

    for (size_t i = 0; i < len && rc == TD_OK; i++)
        rc = is_attribute_char(text[i]) ? td_buf_addc(buf, text[i])
                                        : td_buf_printf(buf, "%%%02X", (unsigned)(unsigned char)text[i]);
    return rc;
}

/* Whole characters whose form with percent signs has at most max characters; at least one character. */
static size_t percent_bytes(const char *text, size_t len, size_t max)
{
    size_t bytes = 0, chars = 0;

    while (bytes < len) {
        size_t step = td_utf8_next(text + bytes, len - bytes, NULL);

        if (step == 0)
            step = 1; /* a caller's mistake: never loop on it */
        for (size_t i = 0; i < step; i++)
            chars += is_attribute_char(text[bytes + i]) ? 1 : 3;
        if (chars > max && bytes > 0)
            break;
        bytes += step;
    }
    return bytes;
}

static int add_extended_param(struct td_buf *buf, const char *name, const char *value)
{
    enum { AROUND = 16 /* " *99*=UTF-8''" and ";" */ };
    size_t len = strlen(value), name_len = strlen(name), room;
    int rc = TD_OK;

    room = FOLD_AT > name_len + AROUND + 12 ? FOLD_AT - name_len - AROUND : 12;
    if (percent_bytes(value, len, room) == len) {
        rc = td_buf_printf(buf, ";\r\n %s*=UTF-8''", name);
        return rc < 0 ? rc : add_percent(buf, value, len);
    }
    for (size_t at = 0, bytes, part = 0; at < len && rc == TD_OK; at += bytes, part++) {
        bytes = percent_bytes(value + at, len - at, room);
        rc = td_buf_printf(buf, ";\r\n %s*%zu*=%s", name, part, part == 0 ? "UTF-8''" : "");
        if (rc == TD_OK)
            rc = add_percent(buf, value + at, bytes);
    }
    return rc;
}

int td_header_add_param(struct td_buf *buf, const char *name, const char *value)
{
    size_t len = strlen(value), name_len = strlen(name), chars = name_len + len + 3;
    int rc;

    for (size_t i = 0; i < len; i++)
        chars += value[i] == '"' || value[i] == '\\';
    /* "=?" in quotes is decoded by some readers, though RFC 2047 s.5 forbids it. */
    if (!is_printable(value, len) || memmem(value, len, "=?", 2) || chars + 2 > FOLD_AT)
        return add_extended_param(buf, name, value);
    rc = td_buf_printf(buf, "%s%s=", line_column(buf) + chars + 3 > FOLD_AT ? ";\r\n " : "; ", name);
    return rc < 0 ? rc : add_quoted(buf, value, len);
}
