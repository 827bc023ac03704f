#include "tandem/utf8.h"

size_t td_utf8_next(const char *text, size_t len, uint32_t *ret_char)
{
    static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000}; /* by bytes; below it the form is overlong */
    const unsigned char *s = (const unsigned char *)text;
    uint32_t c;
    size_t bytes;

    if (len == 0)
        return 0;
    c = s[0];
    if (c < 0x80)
        bytes = 1;
    else if (c >= 0xc2 && c <= 0xdf)
        bytes = 2;
    else if (c >= 0xe0 && c <= 0xef)
        bytes = 3;
    else if (c >= 0xf0 && c <= 0xf4)
        bytes = 4;
    else
        return 0;
    if (bytes > len)
        return 0;
    if (bytes > 1)
        c &= 0x7fU >> bytes;
    for (size_t i = 1; i < bytes; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3fU);
    }
    if (c < lowest[bytes] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    if (ret_char)
        *ret_char = c;
    return bytes;
}

bool td_utf8_valid(const char *text, size_t len)
{
    size_t i = 0, step;

    while (i < len) {
        if ((unsigned char)text[i] < 0x80) {
            i++;
            continue;
        }
        step = td_utf8_next(text + i, len - i, NULL);
        if (step == 0)
            return false;
        i += step;
    }
    return true;
}
