#ifndef SCRIPTED_TLS_H
#define SCRIPTED_TLS_H

#include <openssl/ssl.h>

#include "scripted_relay.h"

SSL_CTX *scripted_tls_context(enum certificate kind); /* borrowed */

#endif /* SCRIPTED_TLS_H */
