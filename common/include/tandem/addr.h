/* tandem/addr.h - one mailbox address from outside, checked and made fit for RCPT TO. Pure (libidn2). */
#ifndef TD_ADDR_H
#define TD_ADDR_H

#include <stddef.h>

#include "tandem/err.h"

#define TD_ADDR_MAX 255 /* 254 octets (RFC 5321 s.4.5.3.1.3, path of 256 with <>) and NUL */

/**
 * Check an addr-spec and write it as it goes into an SMTP command: dot-atom or quoted local part of at most 64
 * octets, ASCII only (SMTPUTF8 is not offered by the relays we know); domain in A-labels (IDNA2008, UTS 46
 * mapping), at least two labels, no address literal. Refuses CR, LF, NUL, every control, source routes, comments,
 * angle brackets: refuses, never strips. The domain is lower-cased; the local part keeps its case.
 * @param out  TD_ADDR_MAX bytes, set only on success
 * @return TD_OK, or TD_EINVAL with a sentence that does not quote the address
 */
int td_addr_check(const char *address, size_t len, char out[TD_ADDR_MAX], struct td_err *reterr);

#endif /* TD_ADDR_H */
