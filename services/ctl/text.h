/* text.h - what people write on a command line. Pure. */
#ifndef CTL_TEXT_H
#define CTL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TEXT_NAME_MAX 201

/**
 * "Name <a@b>", "<a@b>" or "a@b"; the name may be in quotes, in which \ takes the next character as it is.
 * @param name     TEXT_NAME_MAX bytes; "" when there is none
 * @param address  size bytes; not checked any further
 * @return false when it has no such shape
 */
bool text_mailbox(const char *text, char name[TEXT_NAME_MAX], char *address, size_t size);

/** "90s", "30m", "24h", "7d", "1500ms". @return false when it is none or longer than 365 days */
bool text_duration_ms(const char *text, int64_t *ret_ms);

/** RFC 3339 such as 2026-03-01T08:00:00+01:00 or ...Z. @return false when it is none */
bool text_time_ms(const char *text, int64_t *ret_unix_ms);

/** A number in 0..max, digits only. */
bool text_number(const char *text, uint64_t max, uint64_t *ret);

/** The media type that a file's name suggests; application/octet-stream when none does. Static. */
const char *text_media_type(const char *filename);

/** A hash as a UUID: 8-4-4-4-12 hex digits of its first 16 bytes, version 8 (RFC 9562: made by own rules). */
void text_uuid(char out[37], const uint8_t hash[16]);

#endif /* CTL_TEXT_H */
