/* Every top-level message of proto/. A unit test reads the .proto files and misses none here. */
#include "tandem/pb.h"

#include <string.h>

#include "tandem/internal/v1/content.pb-c.h"
#include "tandem/internal/v1/feedback.pb-c.h"
#include "tandem/internal/v1/outbound.pb-c.h"
#include "tandem/internal/v1/recipients.pb-c.h"
#include "tandem/mail/v1/outcome.pb-c.h"
#include "tandem/mail/v1/submission.pb-c.h"
#include "tandem/mail/v1/suppression.pb-c.h"

static const ProtobufCMessageDescriptor *const types[] = {
    &tandem__mail__v1__submission__descriptor,
    &tandem__mail__v1__mailbox__descriptor,
    &tandem__mail__v1__campaign__descriptor,
    &tandem__mail__v1__attachment__descriptor,
    &tandem__mail__v1__attachment_chunk__descriptor,
    &tandem__mail__v1__header_field__descriptor,
    &tandem__mail__v1__unsubscribe__descriptor,
    &tandem__mail__v1__recipient__descriptor,
    &tandem__mail__v1__recipient_batch__descriptor,
    &tandem__mail__v1__seal__descriptor,
    &tandem__mail__v1__command__descriptor,
    &tandem__mail__v1__single_mail__descriptor,
    &tandem__mail__v1__outcome__descriptor,
    &tandem__mail__v1__submission_answer__descriptor,
    &tandem__mail__v1__refusal__descriptor,
    &tandem__mail__v1__recipient_outcome__descriptor,
    &tandem__mail__v1__bounce_fact__descriptor,
    &tandem__mail__v1__settlement__descriptor,
    &tandem__mail__v1__complaint_fact__descriptor,
    &tandem__mail__v1__relay_change__descriptor,
    &tandem__mail__v1__suppression__descriptor,
    &tandem__internal__v1__campaign_content__descriptor,
    &tandem__internal__v1__content_part__descriptor,
    &tandem__internal__v1__feedback__descriptor,
    &tandem__internal__v1__outbound_message__descriptor,
    &tandem__internal__v1__segment__descriptor,
    &tandem__internal__v1__recipient_chunk__descriptor,
    &tandem__internal__v1__chunk_recipient__descriptor,
};

const ProtobufCMessageDescriptor *td_pb_type(const char *short_name)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(types[i]->short_name, short_name) == 0)
            return types[i];
    }
    return NULL;
}
