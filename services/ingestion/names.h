/* names.h - short names for the generated types that ingestion handles all the time. */
#ifndef INGESTION_NAMES_H
#define INGESTION_NAMES_H

#include "tandem/internal/v1/content.pb-c.h"
#include "tandem/internal/v1/recipients.pb-c.h"
#include "tandem/mail/v1/outcome.pb-c.h"
#include "tandem/mail/v1/submission.pb-c.h"

typedef Tandem__Mail__V1__Submission Submission;
typedef Tandem__Mail__V1__Campaign Campaign;
typedef Tandem__Mail__V1__Mailbox Mailbox;
typedef Tandem__Mail__V1__Attachment Attachment;
typedef Tandem__Mail__V1__AttachmentChunk AttachmentChunk;
typedef Tandem__Mail__V1__HeaderField HeaderField;
typedef Tandem__Mail__V1__Unsubscribe Unsubscribe;
typedef Tandem__Mail__V1__Recipient Recipient;
typedef Tandem__Mail__V1__RecipientBatch RecipientBatch;
typedef Tandem__Mail__V1__Command Command;
typedef Tandem__Mail__V1__Outcome Outcome;
typedef Tandem__Mail__V1__SubmissionAnswer SubmissionAnswer;
typedef Tandem__Mail__V1__RecipientOutcome RecipientOutcome;
typedef Tandem__Mail__V1__Refusal Refusal;
typedef Tandem__Internal__V1__CampaignContent CampaignContent;
typedef Tandem__Internal__V1__ContentPart ContentPart;
typedef Tandem__Internal__V1__RecipientChunk RecipientChunk;
typedef Tandem__Internal__V1__ChunkRecipient ChunkRecipient;
/* protobuf-c names a map's entry after its message, and the two that ingestion copies between are alike. */
typedef Tandem__Mail__V1__Recipient__FieldsEntry FieldsEntry;
typedef Tandem__Internal__V1__ChunkRecipient__FieldsEntry ChunkFieldsEntry;

#endif /* INGESTION_NAMES_H */
