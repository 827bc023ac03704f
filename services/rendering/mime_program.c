/* What a compiled campaign is asked for, and which campaigns compile to the same. */
#include "mime_int.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/pb.h"

void mime_free(struct mime_program *program)
{
    if (!program)
        return;
    template_free(program->subject);
    template_free(program->text);
    template_free(program->html);
    free(program->message_id_domain);
    free(program->unsubscribe_mailto);
    free(program->unsubscribe_url);
    free(program->token_key);
    free(program->slots);
    free(program->subject_slots);
    free(program->pieces);
    td_buf_release(&program->blob);
    free(program);
}

const char *mime_static(const struct mime_program *program, size_t *ret_len)
{
    *ret_len = program->blob.len;
    return program->blob.data;
}

const uint8_t *mime_static_sha256(const struct mime_program *program)
{
    return program->blob_sha256;
}

const char *mime_campaign_id(const struct mime_program *program)
{
    return program->campaign_id;
}

int mime_source_digest(const struct mime_source *source, uint8_t ret[32])
{
    Tandem__Mail__V1__Campaign mail = *source->campaign; /* shallow: only what is cleared here is ours */
    char date[32];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    size_t len;
    void *packed;
    int rc = TD_ENOMEM;

    mail.n_route = mail.n_allowed_countries = 0;
    mail.on_unconfirmed = TANDEM__MAIL__V1__ON_UNCONFIRMED__ON_UNCONFIRMED_UNSPECIFIED;
    mail.bounce_ceiling_per_10000 = mail.max_mails_per_s = mail.expected_recipients = 0;
    mail.not_before_unix_ms = mail.deadline_unix_ms = 0;
    snprintf(date, sizeof(date), "%lld", (long long)source->date_unix_ms);
    packed = td_pb_write(&mail.base, &len);
    if (ctx && packed && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
        EVP_DigestUpdate(ctx, date, strlen(date) + 1) == 1 && EVP_DigestUpdate(ctx, packed, len) == 1 &&
        EVP_DigestFinal_ex(ctx, ret, NULL) == 1)
        rc = TD_OK;
    free(packed);
    EVP_MD_CTX_free(ctx);
    return rc;
}
