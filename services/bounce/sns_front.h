/* sns_front.h - where SNS posts the events of SES: each is verified and on mail.feedback before it is answered.
 * Loop thread only.
 *
 * 200 taken; 4xx: never again with the same (SNS does not retry); 503: again (Kafka or the certificate is away). */
#ifndef SNS_FRONT_H
#define SNS_FRONT_H

#include <uv.h>

#include "tandem/kafka.h"
#include "tandem/metrics.h"
#include "tandem/settings.h"

struct sns_front;

/** @param on_fatal  the producer is broken for good. Listens at bounce.sns_listen, which must be set. */
int sns_front_new(uv_loop_t *loop, const struct td_settings *settings, struct td_metrics *metrics,
                  struct td_kafka_out *out, void (*on_fatal)(void *user, const struct td_err *err), void *user,
                  struct sns_front **ret, struct td_err *reterr);
/** New posts are answered 503. */
void sns_front_stop(struct sns_front *front);
/** After out was freed, so that no callback comes any more. NULL is fine. */
void sns_front_free(struct sns_front *front);

#endif /* SNS_FRONT_H */
