#ifndef SCRIPTED_TLS_H
#define SCRIPTED_TLS_H

#include <openssl/ssl.h>

#include "scripted_relay.h"

/** CERT_SOON_EXPIRED is made anew, valid from now for CERT_SOON_S. No relay that shows it may be running. */
void scripted_tls_soon(void);
SSL_CTX *scripted_tls_context(enum certificate kind); /* borrowed */

#endif /* SCRIPTED_TLS_H */
