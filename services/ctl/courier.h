/* courier.h - submissions on their way to ingestion, and its answers. Loop thread only. */
#ifndef CTL_COURIER_H
#define CTL_COURIER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ctl.h"
#include "tandem/mail/v1/outcome.pb-c.h"
#include "tandem/mail/v1/submission.pb-c.h"

struct courier;

struct courier_ops {
    /** The answer to the submission of this number; once each. */
    void (*on_answer)(void *user, uint32_t number, const Tandem__Mail__V1__SubmissionAnswer *answer);
    /** Kafka did not take a record, or no answer came within --timeout of the last one. */
    void (*on_trouble)(void *user, const struct td_err *err);
};

/** Connects, which may block up to --timeout. ctl's settings are loaded. */
int courier_new(struct ctl *ctl, const char *campaign_id, const struct courier_ops *ops, void *user,
                struct courier **ret, struct td_err *reterr);
/** Number, name and hand over; body and what it points to are copied. TD_EAGAIN: the producer's queue is full. */
int courier_send(struct courier *courier, Tandem__Mail__V1__Submission *submission, uint32_t *ret_number,
                 struct td_err *reterr);
/** How many have no answer yet. */
size_t courier_unanswered(const struct courier *courier);
void courier_free(struct courier *courier); /* NULL is fine */

/** For a person: "code (field): sentence" of each refusal, on stderr. */
void courier_print_refusals(const Tandem__Mail__V1__SubmissionAnswer *answer);

#endif /* CTL_COURIER_H */
