/* Any bytes as a post of SNS and the event of SES in it: read or refused within limits; what is read is terminated,
 * has the form promised, and never suppresses an address for what is no bounce and no complaint. */
#include "fuzz.h"

#include <string.h>

#include "ses_event.h"
#include "sns_envelope.h"

static void check_envelope(const char *data, size_t size)
{
    struct sns_envelope envelope;
    struct td_buf text = TD_BUF_INIT(2 * SNS_BODY_MAX), url = TD_BUF_INIT(4096);
    char host[256];
    int rc = sns_read(data, size, &envelope, NULL);

    PROMISE(rc == TD_OK || rc == TD_ETOOBIG || rc == TD_ESYNTAX);
    if (rc == TD_OK) {
        PROMISE(sns_string_to_sign(&envelope, &text) == TD_OK);
        PROMISE(strncmp(td_buf_str(&text), "Message\n", 8) == 0 && td_buf_str(&text)[text.len - 1] == '\n');
        if (sns_host(envelope.topic, host, sizeof(host)))
            PROMISE(!sns_certificate_url_fit(envelope.certificate_url, host) || strstr(envelope.certificate_url, host));
        if (envelope.token && sns_confirm_url(&envelope, "h", &url) == TD_OK)
            PROMISE(!strpbrk(td_buf_str(&url), " \r\n#@"));
    }
    sns_release(&envelope);
    td_buf_release(&text);
    td_buf_release(&url);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ses_event event;
    struct ses_effect effect;
    int rc;

    check_envelope((const char *)data, size);
    rc = ses_event_read((const char *)data, size, &event, NULL);
    PROMISE(rc == TD_OK || rc == TD_ETOOBIG || rc == TD_ESYNTAX || rc == TD_ENOTFOUND);
    PROMISE(memchr(event.tag, '\0', sizeof(event.tag)) && memchr(event.source, '\0', sizeof(event.source)) &&
            memchr(event.dsn.status, '\0', sizeof(event.dsn.status)) && !strpbrk(event.dsn.diagnostic, "\r\n"));
    effect = ses_event_effect(&event);
    PROMISE(!effect.suppress || event.kind == SES_BOUNCE || event.kind == SES_COMPLAINT);
    PROMISE(!effect.bounced || (effect.verdict.reason && bounce_class_name(effect.verdict.class)[0]));
    return 0;
}
