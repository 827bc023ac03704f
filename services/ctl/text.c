#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* "..." with \x for x, or words up to the angle bracket. @return where it ends; NULL when too long or not closed
 */
static const char *read_phrase(const char *at, char name[TEXT_NAME_MAX])
{
    bool quoted = *at == '"';
    size_t len = 0;

    if (quoted)
        at++;
    while (*at && *at != (quoted ? '"' : '<')) {
        if (quoted && *at == '\\' && at[1])
            at++;
        if (len + 1 == TEXT_NAME_MAX)
            return NULL;
        name[len++] = *at++;
    }
    if (quoted && *at++ != '"')
        return NULL;
    while (!quoted && len > 0 && name[len - 1] == ' ')
        len--;
    name[len] = '\0';
    return at;
}

bool text_mailbox(const char *text, char name[TEXT_NAME_MAX], char *address, size_t size)
{
    size_t len;

    text += strspn(text, " ");
    name[0] = '\0';
    if (strchr(text, '<')) {
        text = read_phrase(text, name);
        if (!text)
            return false;
        text += strspn(text, " ");
        if (*text++ != '<')
            return false;
        len = strcspn(text, ">");
        if (text[len] != '>' || text[len + 1 + strspn(text + len + 1, " ")] != '\0')
            return false;
    } else {
        len = strcspn(text, " ");
        if (text[len + strspn(text + len, " ")] != '\0')
            return false;
    }
    if (len == 0 || len >= size)
        return false;
    memcpy(address, text, len);
    address[len] = '\0';
    return true;
}

bool text_number(const char *text, uint64_t max, uint64_t *ret)
{
    uint64_t value = 0;

    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || value > (max - (uint64_t)(*text - '0')) / 10)
            return false;
        value = value * 10 + (uint64_t)(*text - '0');
    }
    *ret = value;
    return value <= max;
}

bool text_duration_ms(const char *text, int64_t *ret_ms)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    size_t digits = strspn(text, "0123456789");
    char number[20];
    uint64_t value;

    if (digits == 0 || digits >= sizeof(number))
        return false;
    memcpy(number, text, digits);
    number[digits] = '\0';
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(text + digits, units[i].unit) != 0)
            continue;
        if (!text_number(number, (uint64_t)(365LL * 86400000 / units[i].ms), &value))
            return false;
        *ret_ms = (int64_t)value * units[i].ms;
        return true;
    }
    return false;
}

bool text_time_ms(const char *text, int64_t *ret_unix_ms)
{
    struct tm tm = {0};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    int64_t offset_s = 0, ms = 0;

    if (!rest)
        return false;
    if (*rest == '.') {
        size_t digits = strspn(rest + 1, "0123456789");
        int64_t scale = 100;

        if (digits == 0)
            return false;
        for (size_t i = 0; i < digits && i < 3; i++, scale /= 10)
            ms += (rest[1 + i] - '0') * scale;
        rest += 1 + digits;
    }
    if (*rest == '+' || *rest == '-') {
        static const char shape[] = "00:00";

        for (size_t i = 0; i < 5; i++)
            if (shape[i] == ':' ? rest[1 + i] != ':' : rest[1 + i] < '0' || rest[1 + i] > '9')
                return false;
        offset_s = ((rest[1] - '0') * 10 + rest[2] - '0') * 3600 + ((rest[4] - '0') * 10 + rest[5] - '0') * 60;
        if (*rest == '-')
            offset_s = -offset_s;
        rest += 6;
    } else if (*rest == 'Z' || *rest == 'z') {
        rest++;
    } else {
        return false;
    }
    if (*rest)
        return false;
    *ret_unix_ms = ((int64_t)timegm(&tm) - offset_s) * 1000 + ms;
    return true;
}

const char *text_media_type(const char *filename)
{
    static const char *const types[][2] = {
        {".pdf", "application/pdf"},
        {".png", "image/png"},
        {".jpg", "image/jpeg"},
        {".jpeg", "image/jpeg"},
        {".gif", "image/gif"},
        {".webp", "image/webp"},
        {".svg", "image/svg+xml"},
        {".ics", "text/calendar"},
        {".txt", "text/plain"},
        {".csv", "text/csv"},
        {".html", "text/html"},
        {".zip", "application/zip"},
        {".docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"},
        {".xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"},
        {".pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"},
        {".odt", "application/vnd.oasis.opendocument.text"},
        {".ods", "application/vnd.oasis.opendocument.spreadsheet"},
        {".epub", "application/epub+zip"},
        {".mp3", "audio/mpeg"},
        {".mp4", "video/mp4"},
    };
    const char *dot = strrchr(filename, '.');

    for (size_t i = 0; dot && i < sizeof(types) / sizeof(types[0]); i++)
        if (strcasecmp(dot, types[i][0]) == 0)
            return types[i][1];
    return "application/octet-stream";
}

void text_uuid(char out[37], const uint8_t hash[16])
{
    snprintf(out, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", hash[0], hash[1],
             hash[2], hash[3], hash[4], hash[5], (hash[6] & 0x0f) | 0x80, hash[7], (hash[8] & 0x3f) | 0x80,
             hash[9], hash[10], hash[11], hash[12], hash[13], hash[14], hash[15]);
}
