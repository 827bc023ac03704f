/* tandem/token.h - the signed token that ties a bounce or an unsubscribe to its mail. Pure (OpenSSL for HMAC).
 *
 * A return path's local part: purpose "b", then "+" campaign "." index in base 36 "." 2 + 14 characters of base32
 * (a-z 2-7): a tag of the relay and a 70-bit MAC over purpose, campaign, index and relay. An unsubscribe token has
 * purpose "u" and relay "". At most 63 octets (RFC 5321 s.4.5.3.1.1 allows 64); all lower case, and read without
 * regard to case, since some MTAs change it. A report to an address whose MAC does not verify is forged or not
 * ours and changes nothing. */
#ifndef TD_TOKEN_H
#define TD_TOKEN_H

#include <stddef.h>
#include <stdint.h>

#include "tandem/err.h"
#include "tandem/id.h"

#define TD_TOKEN_LOCAL_MAX 64

enum td_token_purpose { TD_TOKEN_BOUNCE = 'b', TD_TOKEN_UNSUBSCRIBE = 'u' };

struct td_token {
    char campaign_id[TD_CAMPAIGN_ID_MAX + 1];
    uint32_t index;
    size_t relay; /* which of the relay names given to td_token_read */
};

/** @return length of the local part written; 0 when campaign_id is not valid */
size_t td_token_write(char out[TD_TOKEN_LOCAL_MAX], enum td_token_purpose purpose, const void *key, size_t key_len,
                      const char *campaign_id, uint32_t index, const char *relay);

/**
 * @param address  whole address or local part, as it came (len bytes)
 * @param relays   names of all configured relays; the tag must be of one of them
 * @return TD_OK; TD_ESYNTAX: not a token; TD_EDENIED: the MAC does not verify or the relay is unknown
 */
int td_token_read(const char *address, size_t len, enum td_token_purpose purpose, const void *key, size_t key_len,
                  const char *const *relays, size_t relay_count, struct td_token *ret, struct td_err *reterr);

/**
 * The same token as the value of a message tag of SES, which takes letters, digits, "-" and "_" only: what follows
 * "b+", with "-" in place of the dots. @return length; 0 when `local` is no token's local part
 */
size_t td_token_tag(char out[TD_TOKEN_LOCAL_MAX], const char *local);
/** And back, to be given to td_token_read. @return TD_OK or TD_ESYNTAX */
int td_token_untag(char out[TD_TOKEN_LOCAL_MAX], const char *tag, size_t len);

#endif /* TD_TOKEN_H */
