#include "command.h"

#include <string.h>
#include <strings.h>

static const struct {
    const char *name;
    enum verb verb;
} verbs[] = {
    {"MAIL", VERB_MAIL}, {"RCPT", VERB_RCPT}, {"DATA", VERB_DATA}, {"BDAT", VERB_BDAT},
    {"RSET", VERB_RSET}, {"EHLO", VERB_EHLO}, {"HELO", VERB_HELO}, {"STARTTLS", VERB_STARTTLS},
    {"AUTH", VERB_AUTH}, {"NOOP", VERB_NOOP}, {"VRFY", VERB_VRFY}, {"QUIT", VERB_QUIT},
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static struct slice trim(struct slice text)
{
    while (text.len && is_space(text.data[0])) {
        text.data++;
        text.len--;
    }
    while (text.len && is_space(text.data[text.len - 1]))
        text.len--;
    return text;
}

enum verb command_verb(struct slice line, struct slice *ret_args)
{
    size_t word = 0;

    while (word < line.len && !is_space(line.data[word]))
        word++;
    *ret_args = trim((struct slice){line.data + word, line.len - word});
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        if (strlen(verbs[i].name) == word && strncasecmp(verbs[i].name, line.data, word) == 0)
            return verbs[i].verb;
    return VERB_UNKNOWN;
}

/* Length of the path up to its '>', or SIZE_MAX. A quoted local part may hold '>' and spaces. */
static size_t path_length(struct slice text)
{
    bool quoted = false, escaped = false;

    for (size_t i = 0; i < text.len && i <= COMMAND_PATH_MAX; i++) {
        unsigned char c = (unsigned char)text.data[i];

        if (c < 0x20 || c == 0x7f)
            return SIZE_MAX; /* would split a line of the ledger or of a DSN */
        if (escaped)
            escaped = false;
        else if (c == '"')
            quoted = !quoted;
        else if (quoted)
            escaped = c == '\\';
        else if (c == '>')
            return i;
        else if (c == '<' || c == ' ')
            return SIZE_MAX;
    }
    return SIZE_MAX;
}

int command_path(struct slice args, const char *keyword, struct slice *ret_path, struct slice *ret_params)
{
    size_t skip = strlen(keyword), len;

    if (args.len < skip || strncasecmp(args.data, keyword, skip) != 0)
        return TD_ESYNTAX;
    args = trim((struct slice){args.data + skip, args.len - skip});
    if (!args.len || args.data[0] != '<')
        return TD_ESYNTAX;
    args.data++;
    args.len--;
    len = path_length(args);
    if (len == SIZE_MAX)
        return TD_ESYNTAX;
    *ret_path = (struct slice){args.data, len};
    *ret_params = trim((struct slice){args.data + len + 1, args.len - len - 1});
    return TD_OK;
}

/* Digits at the start of text; returns how many, 0 = none or over 2^40. */
static size_t read_number(struct slice text, uint64_t *ret)
{
    uint64_t value = 0;
    size_t i = 0;

    for (; i < text.len && text.data[i] >= '0' && text.data[i] <= '9'; i++) {
        value = value * 10 + (uint64_t)(text.data[i] - '0');
        if (value > (UINT64_C(1) << 40))
            return 0;
    }
    *ret = value;
    return i;
}

int command_size(struct slice params, uint64_t *ret_bytes)
{
    *ret_bytes = 0;
    while (params.len) {
        size_t word = 0;

        while (word < params.len && !is_space(params.data[word]))
            word++;
        if (word > 5 && strncasecmp(params.data, "SIZE=", 5) == 0)
            return read_number((struct slice){params.data + 5, word - 5}, ret_bytes) == word - 5 ? TD_OK
                                                                                                 : TD_ESYNTAX;
        params = trim((struct slice){params.data + word, params.len - word});
    }
    return TD_OK;
}

int command_bdat(struct slice args, uint64_t *ret_bytes, bool *ret_last)
{
    size_t digits = read_number(args, ret_bytes);
    struct slice rest;

    if (!digits || (digits < args.len && !is_space(args.data[digits])))
        return TD_ESYNTAX;
    rest = trim((struct slice){args.data + digits, args.len - digits});
    *ret_last = rest.len == 4 && strncasecmp(rest.data, "LAST", 4) == 0;
    return rest.len && !*ret_last ? TD_ESYNTAX : TD_OK;
}

/* A dot stands at the start of a line, at bytes.data[0]. */
static bool dot_take(struct slice bytes, size_t *ret_used)
{
    static const char end[] = ".\r\n";
    size_t seen = bytes.len < 3 ? bytes.len : 3;

    if (memcmp(bytes.data, end, seen) != 0) {
        *ret_used = 1; /* stuffed */
        return false;
    }
    *ret_used = seen == 3 ? 3 : 0;
    return seen == 3;
}

bool dots_take(struct dots *dots, struct slice bytes, struct slice *ret_piece, size_t *ret_used)
{
    const char *at = bytes.data, *end = bytes.data + bytes.len;
    size_t dot_used;

    *ret_piece = (struct slice){bytes.data, 0};
    *ret_used = 0;
    if (!bytes.len)
        return false;
    if (!dots->begun) {
        bool ended = false;

        if (bytes.data[0] == '.') {
            ended = dot_take(bytes, ret_used);
            dots->begun = *ret_used > 0;
            return ended;
        }
        dots->begun = true;
    }
    /* Hopping from line to line with memchr beats memmem of a short needle, which steps by its length. */
    while ((at = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        bool crlf = at > bytes.data && at[-1] == '\r';
        bool ended;

        at++;
        if (!crlf)
            continue;
        if (at == end || *at == '.') {
            size_t line_end = (size_t)(at - bytes.data);

            if (at == end) {
                *ret_piece = (struct slice){bytes.data, line_end - 2};
                *ret_used = line_end - 2; /* the CRLF may be that of the end */
                return false;
            }
            ended = dot_take((struct slice){at, (size_t)(end - at)}, &dot_used);
            ret_piece->len = dot_used ? line_end : line_end - 2;
            *ret_used = dot_used ? line_end + dot_used : line_end - 2;
            return ended;
        }
    }
    ret_piece->len = bytes.len - (end[-1] == '\r' ? 1 : 0);
    *ret_used = ret_piece->len;
    return false;
}

/* What stands between < and > of a field body, unfolded or not. */
static struct slice angle(const char *data, const char *end)
{
    const char *open = memchr(data, '<', (size_t)(end - data));
    const char *close = open ? memchr(open, '>', (size_t)(end - open)) : NULL;

    if (!close || close - open - 1 > MESSAGE_ID_MAX)
        return (struct slice){NULL, 0};
    return (struct slice){open + 1, (size_t)(close - open - 1)};
}

bool message_id_find(struct slice bytes, struct slice *ret_id, size_t *ret_head)
{
    static const char name[] = "Message-ID:";
    const char *line = bytes.data, *end = bytes.data + bytes.len, *field = NULL;

    *ret_id = (struct slice){NULL, 0};
    while (line < end) {
        const char *eol = memchr(line, '\n', (size_t)(end - line));

        if (field && !is_space(*line)) {
            *ret_id = angle(field, line);
            field = NULL;
        }
        if (!eol)
            return false;
        if (eol - line <= 1 && (eol == line || *line == '\r')) {
            *ret_head = (size_t)(line - bytes.data);
            return true;
        }
        if (!ret_id->len && (size_t)(eol - line) > sizeof(name) - 1 &&
            strncasecmp(line, name, sizeof(name) - 1) == 0)
            field = line + sizeof(name) - 1;
        line = eol + 1;
    }
    return false;
}
