/* tls.h - TLS contexts of the relay: the good certificate, and bad ones made when a fault asks for them. */
#ifndef RELAYSIM_TLS_H
#define RELAYSIM_TLS_H

#include <openssl/ssl.h>

#include "fault.h"
#include "options.h"

struct tls {
    SSL_CTX *ctx[CERTIFICATE_COUNT]; /* owned; NULL = none (no --cert), or not made yet */
    X509 *issuer;                    /* owned; of the bad certificates, made at need without --ca */
    EVP_PKEY *issuer_key;
    const char *name;
};

/** Load certificate and issuer. Without --cert nothing is offered and TD_OK returned. */
int tls_init(struct tls *tls, const struct options *options, struct td_err *reterr);
void tls_release(struct tls *tls);

/** A certificate for a key, issued by --ca or by a CA made at start; the caller owns it. NULL when it cannot be made. */
X509 *tls_sign_certificate(struct tls *tls, const char *common_name, EVP_PKEY *key);

/** Context with this kind of certificate, made on first use; borrowed. NULL when it cannot be made. */
SSL_CTX *tls_context(struct tls *tls, enum fault_certificate kind);

#endif /* RELAYSIM_TLS_H */
