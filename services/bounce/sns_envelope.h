/* sns_envelope.h - a post of Amazon SNS: what it says, what its signature is over, whom its certificate may come
 * from. Pure: the certificate is an argument.
 *
 * SNS guide, "Verifying the signatures of Amazon SNS messages". A post is believed only when its topic is on the
 * operator's list, its certificate came from the host of that topic's region, and its signature verifies. */
#ifndef SNS_ENVELOPE_H
#define SNS_ENVELOPE_H

#include <jansson.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tandem/buf.h"
#include "tandem/err.h"

enum {
    SNS_BODY_MAX = 256 * 1024, /* of a post; SNS's own limit of a message */
    SNS_PEM_MAX = 16 * 1024,   /* of a certificate file */
    SNS_URL_MAX = 2048
};

enum sns_type { SNS_NOTIFICATION, SNS_SUBSCRIPTION, SNS_UNSUBSCRIPTION };

/* All strings point into json, which is owned. */
struct sns_envelope {
    json_t *json;
    enum sns_type type;
    int version; /* 1: SHA-1, 2: SHA-256 */
    const char *type_name, *message_id, *topic, *timestamp, *message, *signature, *certificate_url;
    const char *subject;              /* NULL when there is none */
    const char *token, *subscribe_url; /* NULL in a notification */
};

/**
 * @param body  UTF-8 JSON of at most SNS_BODY_MAX bytes; keys that are not known are skipped
 * @return TD_OK; TD_ETOOBIG; TD_ESYNTAX: no envelope (ret is empty then)
 */
int sns_read(const char *body, size_t len, struct sns_envelope *ret, struct td_err *reterr);
void sns_release(struct sns_envelope *envelope);

/** The bytes that are signed: for each field its name and its value, each with a newline, the last one included.
 * @return as td_buf_add */
int sns_string_to_sign(const struct sns_envelope *envelope, struct td_buf *out);

/** Host that speaks for a topic: sns.<region>.amazonaws.com, in China with .cn. @param topic  an ARN that
 * td_check_sns_topic has passed. @return false when it does not fit */
bool sns_host(const char *topic, char *out, size_t size);
/**
 * May the certificate be fetched from there? https, exactly this host, no user, port (but that of host), query or
 * fragment, one path segment that ends in .pem. @param host  as of sns_host, or the operator's stand-in, which may
 * have a port
 */
bool sns_certificate_url_fit(const char *url, const char *host);
/** URL that confirms a subscription, put together from what was checked; the envelope's own SubscribeURL is never
 * followed. @return TD_OK; TD_ESYNTAX: the token is none; as td_buf_add */
int sns_confirm_url(const struct sns_envelope *envelope, const char *host, struct td_buf *out);

/** The key of a certificate, PEM. @return NULL when it is none, not of RSA with 2048 bits or more, or now_unix_s
 * is outside its time; free with EVP_PKEY_free */
EVP_PKEY *sns_certificate_key(const char *pem, size_t len, int64_t now_unix_s);
/** @return TD_OK; TD_EDENIED: the signature does not verify; TD_ENOMEM */
int sns_verify(const struct sns_envelope *envelope, EVP_PKEY *key, struct td_err *reterr);

#endif /* SNS_ENVELOPE_H */
