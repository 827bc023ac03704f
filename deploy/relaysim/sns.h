/* sns.h - plays Amazon SES telling by SNS what becomes of mails: events posted to --sns, signed; the certificate and
 * the confirmation of the subscription at --sns-listen (HTTPS). sns.c: events and their posts; sns_https.c: the rest. */
#ifndef RELAYSIM_SNS_H
#define RELAYSIM_SNS_H

#include <jansson.h>

#include "session.h"

struct sns;

/** @return NULL with reterr */
struct sns *sns_new(struct sim *sim, struct td_err *reterr);
void sns_free(struct sns *sns); /* NULL is fine; what waits is lost */

/** Queue the events of a mail just taken. bounced: a permanent bounce, else a delivery. Copies what it needs. */
void sns_add(struct sns *sns, const struct mail *mail, const char *message_id, bool bounced, uint64_t unix_ms);

/** POST /sns: {"signature": "good" | "bad", "topic": ARN, "certificate_url": URL, "delay_ms": n, "twice": bool,
 * "mute": bool, "complain": bool}; what is left out is as at the start. @return TD_OK or TD_EINVAL */
int sns_set(struct sns *sns, json_t *object, struct td_err *reterr);
/** For GET /status; the caller owns it. */
json_t *sns_status(const struct sns *sns);

/* Between sns.c and sns_https.c */
struct sns_https;
/** @param pem  served at every path that ends in .pem. token: what confirms; confirmed is called each time it does */
struct sns_https *sns_https_new(struct sim *sim, const char *pem, const char *token, void (*confirmed)(void *user),
                                void *user, struct td_err *reterr);
void sns_https_free(struct sns_https *https);
uint16_t sns_https_port(const struct sns_https *https);

#endif /* RELAYSIM_SNS_H */
