/* scripted_tls.c - a certificate authority for one test run: nothing on disk but the CA file, all of it thrown away. */
#include "scripted_tls.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scripted_relay.h"

static char ca_path[256];
static SSL_CTX *contexts[CERT_COUNT];
static EVP_PKEY *ca_key, *relay_key;
static X509 *ca;
static unsigned char ticket_keys[80];

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "scripted_tls: %s failed\n", what);
        abort();
    }
}

static void extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext;

    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    must(ext && X509_add_ext(cert, ext, -1), "extension");
    X509_EXTENSION_free(ext);
}

/* issuer NULL: self-signed CA. */
static X509 *certificate(EVP_PKEY *key, const char *name, X509 *issuer, EVP_PKEY *issuer_key, const char *san, long from,
                         long until)
{
    static long serial = 1;
    X509 *cert = X509_new();
    X509_NAME *subject = X509_get_subject_name(cert);

    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(cert), from);
    X509_gmtime_adj(X509_getm_notAfter(cert), until);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(cert, issuer ? X509_get_subject_name(issuer) : subject);
    extend(cert, issuer ? issuer : cert, NID_basic_constraints, issuer ? "CA:FALSE" : "critical,CA:TRUE");
    if (san)
        extend(cert, issuer, NID_subject_alt_name, san);
    must(X509_sign(cert, issuer_key, EVP_sha256()) > 0, "sign");
    return cert;
}

static SSL_CTX *context(EVP_PKEY *key, X509 *cert)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

    must(ctx && SSL_CTX_use_certificate(ctx, cert) == 1 && SSL_CTX_use_PrivateKey(ctx, key) == 1, "context");
    return ctx;
}

static void know_tickets(SSL_CTX *ctx)
{
    must(SSL_CTX_set_tlsext_ticket_keys(ctx, ticket_keys, sizeof(ticket_keys)) == 1, "ticket keys");
}

const char *scripted_tls_new(void)
{
    const char *dir = getenv("TMPDIR");
    EVP_PKEY *other_key = EVP_EC_gen("P-256");
    X509 *other_ca = certificate(other_key, "test CA", NULL, other_key, NULL, -3600, 86400);
    struct {
        enum certificate kind;
        bool other;
        const char *san;
        long from, until;
    } row[] = {
        {CERT_GOOD, false, "IP:127.0.0.1,DNS:localhost", -3600, 86400},
        {CERT_WRONG_NAME, false, "DNS:mail.example.org", -3600, 86400},
        {CERT_UNKNOWN_CA, true, "IP:127.0.0.1", -3600, 86400},
        {CERT_EXPIRED, false, "IP:127.0.0.1", -7200, -3600},
    };
    FILE *file;
    int fd;

    ca_key = EVP_EC_gen("P-256");
    relay_key = EVP_EC_gen("P-256");
    ca = certificate(ca_key, "test CA", NULL, ca_key, NULL, -3600, 86400);
    must(RAND_bytes(ticket_keys, sizeof(ticket_keys)) == 1, "random");
    snprintf(ca_path, sizeof(ca_path), "%s/td_engine_ca_XXXXXX", dir && *dir ? dir : "/tmp");
    fd = mkstemp(ca_path);
    file = fd >= 0 ? fdopen(fd, "w") : NULL;
    must(file && PEM_write_X509(file, ca) == 1, "CA file");
    fclose(file);
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        X509 *cert = certificate(relay_key, "relay", row[i].other ? other_ca : ca, row[i].other ? other_key : ca_key, row[i].san,
                                 row[i].from, row[i].until);

        contexts[row[i].kind] = context(relay_key, cert);
        if (!row[i].other)
            know_tickets(contexts[row[i].kind]);
        X509_free(cert);
    }
    X509_free(other_ca);
    EVP_PKEY_free(other_key);
    return ca_path;
}

void scripted_tls_soon(void)
{
    X509 *cert = certificate(relay_key, "relay", ca, ca_key, "IP:127.0.0.1", -3600, CERT_SOON_S);

    SSL_CTX_free(contexts[CERT_SOON_EXPIRED]);
    contexts[CERT_SOON_EXPIRED] = context(relay_key, cert);
    know_tickets(contexts[CERT_SOON_EXPIRED]);
    X509_free(cert);
}

void scripted_tls_free(void)
{
    for (size_t i = 0; i < sizeof(contexts) / sizeof(contexts[0]); i++)
        SSL_CTX_free(contexts[i]);
    X509_free(ca);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(relay_key);
    unlink(ca_path);
}

SSL_CTX *scripted_tls_context(enum certificate kind)
{
    return contexts[kind];
}
