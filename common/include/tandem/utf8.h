/* tandem/utf8.h - one character of UTF-8 at a time (RFC 3629). Pure. */
#ifndef TD_UTF8_H
#define TD_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * Decode the character at the start of text. Refuses overlong forms, surrogates and anything above U+10FFFF.
 * @param ret_char  may be NULL
 * @return its bytes, 1..4; 0 when len is 0 or the bytes are not UTF-8
 */
size_t td_utf8_next(const char *text, size_t len, uint32_t *ret_char);

/** Is all of it UTF-8? NUL counts as a character. O(len). */
bool td_utf8_valid(const char *text, size_t len);

#endif /* TD_UTF8_H */
