#include "tls.h"

#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#define DAY_S 86400L

static SSL_CTX *context_new(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());

    if (!ctx)
        return NULL;
    if (!SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) ||
        !SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20") ||
        !SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"relaysim", 8)) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    /* One read(2) then brings many records: half the system calls of a busy connection. */
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_read_buffer_len(ctx, 65536);
    return ctx;
}

static int load_good(struct tls *tls, const struct options *options, struct td_err *reterr)
{
    SSL_CTX *ctx = context_new();

    if (!ctx)
        return td_fail(reterr, TD_EFATAL, "TLS context");
    tls->ctx[CERTIFICATE_GOOD] = ctx;
    if (SSL_CTX_use_certificate_chain_file(ctx, options->cert_file) != 1)
        return td_fail(reterr, TD_ECONFIG, "no certificate in %s", options->cert_file);
    if (SSL_CTX_use_PrivateKey_file(ctx, options->key_file, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(ctx) != 1)
        return td_fail(reterr, TD_ECONFIG, "%s does not hold the key of %s", options->key_file,
                       options->cert_file);
    return TD_OK;
}

static int load_issuer(struct tls *tls, const struct options *options, struct td_err *reterr)
{
    FILE *cert = fopen(options->ca_file, "re"), *key = fopen(options->ca_key_file, "re");
    int rc = TD_OK;

    if (cert)
        tls->issuer = PEM_read_X509(cert, NULL, NULL, NULL);
    if (key)
        tls->issuer_key = PEM_read_PrivateKey(key, NULL, NULL, NULL);
    if (!tls->issuer || !tls->issuer_key || X509_check_private_key(tls->issuer, tls->issuer_key) != 1)
        rc = td_fail(reterr, TD_ECONFIG, "%s and %s are not a CA and its key", options->ca_file,
                     options->ca_key_file);
    if (cert)
        fclose(cert);
    if (key)
        fclose(key);
    return rc;
}

int tls_init(struct tls *tls, const struct options *options, struct td_err *reterr)
{
    int rc = TD_OK;

    memset(tls, 0, sizeof(*tls));
    tls->name = options->name;
    if (!options->cert_file)
        return TD_OK;
    rc = load_good(tls, options, reterr);
    if (rc == TD_OK && options->ca_file)
        rc = load_issuer(tls, options, reterr);
    return rc;
}

void tls_release(struct tls *tls)
{
    for (size_t i = 0; i < CERTIFICATE_COUNT; i++)
        SSL_CTX_free(tls->ctx[i]);
    X509_free(tls->issuer);
    EVP_PKEY_free(tls->issuer_key);
    memset(tls, 0, sizeof(*tls));
}

static bool add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *extension;
    bool added;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    added = extension && X509_add_ext(cert, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return added;
}

struct certificate_plan {
    const char *common_name;
    const char *alt_names; /* NULL: a CA */
    long from_s, to_s;     /* relative to now */
};

/* Signed by issuer_key, or by itself when issuer is NULL. The caller owns the result. */
static X509 *certificate_new(const struct certificate_plan *plan, EVP_PKEY *key, X509 *issuer,
                             EVP_PKEY *issuer_key)
{
    X509 *cert = X509_new();
    X509_NAME *subject = cert ? X509_get_subject_name(cert) : NULL;
    uint32_t serial = 0;

    if (!subject || RAND_bytes((unsigned char *)&serial, sizeof(serial)) != 1)
        goto fail;
    if (!X509_set_version(cert, 2) || !ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), serial) ||
        !X509_gmtime_adj(X509_getm_notBefore(cert), plan->from_s) ||
        !X509_gmtime_adj(X509_getm_notAfter(cert), plan->to_s) || !X509_set_pubkey(cert, key) ||
        !X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)plan->common_name, -1, -1,
                                    0) ||
        !X509_set_issuer_name(cert, issuer ? X509_get_subject_name(issuer) : subject))
        goto fail;
    if (!add_extension(cert, issuer ? issuer : cert, NID_basic_constraints,
                       plan->alt_names ? "critical,CA:FALSE" : "critical,CA:TRUE") ||
        !add_extension(cert, issuer ? issuer : cert, NID_subject_key_identifier, "hash"))
        goto fail;
    if (plan->alt_names && !add_extension(cert, issuer ? issuer : cert, NID_subject_alt_name, plan->alt_names))
        goto fail;
    if (!X509_sign(cert, issuer ? issuer_key : key, EVP_sha256()))
        goto fail;
    return cert;
fail:
    X509_free(cert);
    return NULL;
}

static bool issuer_ready(struct tls *tls)
{
    static const struct certificate_plan plan = {"relaysim made this CA at start", NULL, -DAY_S, 365 * DAY_S};

    if (tls->issuer)
        return true;
    tls->issuer_key = EVP_EC_gen("P-256");
    if (tls->issuer_key)
        tls->issuer = certificate_new(&plan, tls->issuer_key, NULL, NULL);
    return tls->issuer != NULL;
}

X509 *tls_sign_certificate(struct tls *tls, const char *common_name, EVP_PKEY *key)
{
    struct certificate_plan plan = {common_name, "DNS:sns.amazonaws.com", -DAY_S, 30 * DAY_S};

    return issuer_ready(tls) ? certificate_new(&plan, key, tls->issuer, tls->issuer_key) : NULL;
}

static X509 *bad_certificate(struct tls *tls, enum fault_certificate kind, EVP_PKEY *key)
{
    struct certificate_plan plan = {"localhost", "DNS:localhost,IP:127.0.0.1,IP:::1", -DAY_S, 30 * DAY_S};
    char alt_names[400];

    if (!issuer_ready(tls))
        return NULL;
    snprintf(alt_names, sizeof(alt_names), "%s,DNS:%s", plan.alt_names, tls->name);
    plan.alt_names = alt_names; /* all names right, so that only what was asked for is wrong */
    switch (kind) {
    case CERTIFICATE_EXPIRED:
        plan.from_s = -30 * DAY_S;
        plan.to_s = -DAY_S;
        break;
    case CERTIFICATE_WRONG_NAME:
        plan.common_name = "other-relay.invalid";
        plan.alt_names = "DNS:other-relay.invalid";
        break;
    case CERTIFICATE_SELF_SIGNED:
        return certificate_new(&plan, key, NULL, NULL);
    case CERTIFICATE_GOOD:
    case CERTIFICATE_COUNT:
        return NULL;
    }
    return certificate_new(&plan, key, tls->issuer, tls->issuer_key);
}

SSL_CTX *tls_context(struct tls *tls, enum fault_certificate kind)
{
    EVP_PKEY *key = NULL;
    X509 *cert = NULL;
    SSL_CTX *ctx = NULL;

    if (tls->ctx[kind] || kind == CERTIFICATE_GOOD)
        return tls->ctx[kind];
    key = EVP_EC_gen("P-256");
    cert = key ? bad_certificate(tls, kind, key) : NULL;
    ctx = cert ? context_new() : NULL;
    if (ctx && (SSL_CTX_use_certificate(ctx, cert) != 1 || SSL_CTX_use_PrivateKey(ctx, key) != 1)) {
        SSL_CTX_free(ctx);
        ctx = NULL;
    }
    X509_free(cert);
    EVP_PKEY_free(key);
    tls->ctx[kind] = ctx;
    return ctx;
}
