#include "sns_envelope.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define TOKEN_MAX 1024
#define RSA_BITS_MIN 2048

/* Exact spelling: listmonk looked for another word and never saw these. */
static const char *const type_names[] = {[SNS_NOTIFICATION] = "Notification",
                                         [SNS_SUBSCRIPTION] = "SubscriptionConfirmation",
                                         [SNS_UNSUBSCRIPTION] = "UnsubscribeConfirmation"};

static const char *text(const json_t *json, const char *key)
{
    return json_string_value(json_object_get(json, key));
}

static int read_fields(struct sns_envelope *e, struct td_err *reterr)
{
    const char *version = text(e->json, "SignatureVersion");
    size_t type = 0;

    e->type_name = text(e->json, "Type");
    e->message_id = text(e->json, "MessageId");
    e->topic = text(e->json, "TopicArn");
    e->timestamp = text(e->json, "Timestamp");
    e->message = text(e->json, "Message");
    e->subject = text(e->json, "Subject");
    e->token = text(e->json, "Token");
    e->subscribe_url = text(e->json, "SubscribeURL");
    e->signature = text(e->json, "Signature");
    e->certificate_url = text(e->json, "SigningCertURL");
    if (!e->type_name || !e->message_id || !e->topic || !e->timestamp || !e->message || !e->signature ||
        !e->certificate_url || !version)
        return td_fail(reterr, TD_ESYNTAX, "a field of the envelope is missing");
    while (type <= SNS_UNSUBSCRIPTION && strcmp(type_names[type], e->type_name) != 0)
        type++;
    if (type > SNS_UNSUBSCRIPTION)
        return td_fail(reterr, TD_ESYNTAX, "unknown Type");
    e->type = (enum sns_type)type;
    if (e->type != SNS_NOTIFICATION && (!e->token || !e->subscribe_url))
        return td_fail(reterr, TD_ESYNTAX, "a confirmation without Token or SubscribeURL");
    e->version = strcmp(version, "1") == 0 ? 1 : strcmp(version, "2") == 0 ? 2 : 0;
    return e->version ? TD_OK : td_fail(reterr, TD_ESYNTAX, "unknown SignatureVersion");
}

int sns_read(const char *body, size_t len, struct sns_envelope *ret, struct td_err *reterr)
{
    struct sns_envelope envelope = {.json = NULL};
    int rc;

    *ret = envelope;
    if (len > SNS_BODY_MAX)
        return td_fail(reterr, TD_ETOOBIG, "a post of %zu bytes", len);
    envelope.json = json_loadb(body, len, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(envelope.json)) {
        json_decref(envelope.json);
        return td_fail(reterr, TD_ESYNTAX, "not a JSON object");
    }
    rc = read_fields(&envelope, reterr);
    if (rc < 0)
        json_decref(envelope.json);
    else
        *ret = envelope;
    return rc;
}

void sns_release(struct sns_envelope *envelope)
{
    json_decref(envelope->json);
    envelope->json = NULL;
}

int sns_string_to_sign(const struct sns_envelope *e, struct td_buf *out)
{
    const struct {
        const char *name, *value; /* in byte order of the names */
    } field[] = {{"Message", e->message},
                 {"MessageId", e->message_id},
                 {"Subject", e->type == SNS_NOTIFICATION ? e->subject : NULL},
                 {"SubscribeURL", e->type == SNS_NOTIFICATION ? NULL : e->subscribe_url},
                 {"Timestamp", e->timestamp},
                 {"Token", e->type == SNS_NOTIFICATION ? NULL : e->token},
                 {"TopicArn", e->topic},
                 {"Type", e->type_name}};

    for (size_t i = 0; i < sizeof(field) / sizeof(field[0]); i++) {
        int rc = field[i].value ? td_buf_adds(out, field[i].name) : TD_OK;

        if (rc == TD_OK && field[i].value)
            rc = td_buf_addc(out, '\n');
        if (rc == TD_OK && field[i].value)
            rc = td_buf_adds(out, field[i].value);
        if (rc == TD_OK && field[i].value)
            rc = td_buf_addc(out, '\n');
        if (rc < 0)
            return rc;
    }
    return TD_OK;
}

/* ---- whose certificate ---- */

bool sns_host(const char *topic, char *out, size_t size)
{
    const char *partition = strchr(topic, ':'), *region, *end;
    bool china;
    int len;

    region = partition ? strchr(partition + 1, ':') : NULL;
    region = region ? strchr(region + 1, ':') : NULL;
    end = region ? strchr(region + 1, ':') : NULL;
    if (!end || end == region + 1)
        return false;
    china = strncmp(partition, ":aws-cn:", 8) == 0;
    len = snprintf(out, size, "sns.%.*s.amazonaws.com%s", (int)(end - region - 1), region + 1, china ? ".cn" : "");
    return len > 0 && (size_t)len < size;
}

#define WORD "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

bool sns_certificate_url_fit(const char *url, const char *host)
{
    size_t host_len = strlen(host), name;

    if (strncmp(url, "https://", 8) != 0 || strncmp(url + 8, host, host_len) != 0)
        return false;
    url += 8 + host_len;
    if (*url != '/')
        return false; /* a longer host, a port, a user */
    name = strspn(url + 1, WORD);
    return name > 0 && name <= 200 && strcmp(url + 1 + name, ".pem") == 0;
}

/* Of Query parameters only what RFC 3986 s.2.3 leaves as it is may stand plain. */
static int add_escaped(struct td_buf *out, const char *value)
{
    int rc = TD_OK;

    for (; *value && rc == TD_OK; value++)
        rc = strchr(WORD ".~", *value) ? td_buf_addc(out, *value)
                                       : td_buf_printf(out, "%%%02X", (unsigned)(unsigned char)*value);
    return rc;
}

int sns_confirm_url(const struct sns_envelope *envelope, const char *host, struct td_buf *out)
{
    size_t len = strlen(envelope->token);
    int rc;

    if (len == 0 || len > TOKEN_MAX || strspn(envelope->token, WORD) != len)
        return TD_ESYNTAX;
    rc = td_buf_printf(out, "https://%s/?Action=ConfirmSubscription&TopicArn=", host);
    if (rc == TD_OK)
        rc = add_escaped(out, envelope->topic);
    if (rc == TD_OK)
        rc = td_buf_printf(out, "&Token=%s", envelope->token);
    return rc;
}

/* ---- the signature ---- */

EVP_PKEY *sns_certificate_key(const char *pem, size_t len, int64_t now_unix_s)
{
    BIO *bio = len <= SNS_PEM_MAX ? BIO_new_mem_buf(pem, (int)len) : NULL;
    X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    EVP_PKEY *key = NULL;
    time_t now = (time_t)now_unix_s;

    if (certificate && X509_cmp_time(X509_get0_notBefore(certificate), &now) < 0 &&
        X509_cmp_time(X509_get0_notAfter(certificate), &now) > 0)
        key = X509_get_pubkey(certificate);
    if (key && (!EVP_PKEY_is_a(key, "RSA") || EVP_PKEY_get_bits(key) < RSA_BITS_MIN)) {
        EVP_PKEY_free(key);
        key = NULL;
    }
    X509_free(certificate);
    BIO_free(bio);
    ERR_clear_error();
    return key;
}

/* Base64 in one line. @return number of bytes, 0 when it is none */
static size_t decode(const char *base64, unsigned char *out, size_t size)
{
    size_t len = strlen(base64), padding = 0;

    if (len == 0 || len % 4 || len / 4 * 3 > size)
        return 0;
    while (padding < 2 && base64[len - 1 - padding] == '=')
        padding++;
    if (EVP_DecodeBlock(out, (const unsigned char *)base64, (int)len) != (int)(len / 4 * 3))
        return 0;
    return len / 4 * 3 - padding;
}

int sns_verify(const struct sns_envelope *envelope, EVP_PKEY *key, struct td_err *reterr)
{
    const EVP_MD *digest = envelope->version == 1 ? EVP_sha1() : EVP_sha256();
    struct td_buf signed_text = TD_BUF_INIT((size_t)2 * SNS_BODY_MAX);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    unsigned char signature[1024];
    size_t len = decode(envelope->signature, signature, sizeof(signature));
    int rc = TD_EDENIED;

    if (!ctx || sns_string_to_sign(envelope, &signed_text) < 0)
        rc = td_fail(reterr, TD_ENOMEM, "no memory to verify a signature");
    else if (len && EVP_DigestVerifyInit(ctx, NULL, digest, NULL, key) == 1 &&
             EVP_DigestVerify(ctx, signature, len, (const unsigned char *)td_buf_str(&signed_text), signed_text.len) == 1)
        rc = TD_OK;
    else
        td_fail(reterr, TD_EDENIED, "the signature does not verify");
    EVP_MD_CTX_free(ctx);
    td_buf_release(&signed_text);
    ERR_clear_error();
    return rc;
}
