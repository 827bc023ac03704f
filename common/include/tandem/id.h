/* tandem/id.h - names of campaigns and mails, the address hash, hex and base32. Pure (OpenSSL for HMAC). */
#ifndef TD_ID_H
#define TD_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TD_CAMPAIGN_ID_MAX 36
#define TD_MAIL_KEY_MAX (TD_CAMPAIGN_ID_MAX + 1 + 10 + 1) /* "campaign/4294967295" and NUL */
#define TD_HASH_BYTES 16                                  /* address hash */
#define TD_KEY_BYTES_MIN 16                               /* shortest secret key accepted */

/** 1..36 of a-z 0-9 - _, beginning with a letter or digit. */
bool td_campaign_id_valid(const char *id);

/** "campaign/index", the key of every record about one mail. @return its length */
size_t td_mail_key(char out[TD_MAIL_KEY_MAX], const char *campaign_id, uint32_t index);

/** Undo td_mail_key. campaign must hold TD_CAMPAIGN_ID_MAX + 1 bytes. @return false when it is no such key */
bool td_mail_key_parse(const char *key, size_t len, char *campaign, uint32_t *ret_index);

/** First 16 bytes of HMAC-SHA256(key, lower-cased address). The same person has the same hash everywhere. */
void td_address_hash(const void *key, size_t key_len, const char *address, uint8_t out[TD_HASH_BYTES]);

/** Lower-case hex; out holds 2 * len + 1 bytes. */
void td_hex(char *out, const void *data, size_t len);
/** @return false when hex is not exactly 2 * len hex digits */
bool td_unhex(void *out, size_t len, const char *hex);

#endif /* TD_ID_H */
