#include "dsn.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const struct {
    const char *status; /* beginning of it */
    int code;
    const char *text;
} reasons[] = {
    {"5.1.", 550, "Unknown user; mailbox does not exist"},
    {"5.2.2", 552, "Mailbox is full"},
    {"5.7.", 554, "Message refused by policy"},
    {"4.2.2", 452, "Mailbox is full"},
    {"4.4.", 451, "Host did not answer until the message expired"},
    {"4.", 451, "Temporary failure until the message expired"},
    {"5.", 554, "Message could not be delivered"},
};

static size_t reason_of(const char *status)
{
    size_t i = 0;

    while (i + 1 < sizeof(reasons) / sizeof(reasons[0]) &&
           strncmp(status, reasons[i].status, strlen(reasons[i].status)) != 0)
        i++;
    return i;
}

/* Text of the mail with a dot before each line that begins with one. */
static int add_stuffed(struct td_buf *out, struct slice text)
{
    const char *at = text.data, *end = text.data + text.len;
    int rc = TD_OK;

    while (rc == TD_OK && at < end) {
        const char *eol = memchr(at, '\n', (size_t)(end - at));
        size_t line = eol ? (size_t)(eol - at) + 1 : (size_t)(end - at);

        if (*at == '.')
            rc = td_buf_addc(out, '.');
        if (rc == TD_OK)
            rc = td_buf_add(out, at, line);
        at += line;
    }
    return rc;
}

static int add_head(const struct dsn *dsn, struct td_buf *out, const char *date)
{
    return td_buf_printf(out,
                         "Date: %s\r\n"
                         "From: Mail Delivery System <mailer-daemon@%s>\r\n"
                         "To: <%.*s>\r\n"
                         "Subject: Undelivered Mail Returned to Sender\r\n"
                         "Message-ID: <dsn.%" PRIu64 ".%" PRIu64 "@%s>\r\n"
                         "Auto-Submitted: auto-replied\r\n"
                         "MIME-Version: 1.0\r\n"
                         "Content-Type: multipart/report; report-type=delivery-status;\r\n"
                         " boundary=\"dsn-%" PRIu64 "-%" PRIu64 "\"\r\n\r\n",
                         date, dsn->reporting_mta, (int)dsn->return_path.len, dsn->return_path.data, dsn->unix_s,
                         dsn->number, dsn->reporting_mta, dsn->unix_s, dsn->number);
}

static int add_recipients(const struct dsn *dsn, struct td_buf *out)
{
    size_t reason = reason_of(dsn->status);
    const char *at = dsn->recipients.data, *end = at + dsn->recipients.len;
    int rc = TD_OK;

    for (; rc == TD_OK && at < end; at += strlen(at) + 1)
        rc = td_buf_printf(out,
                           "\r\nFinal-Recipient: rfc822; %s\r\n"
                           "Action: failed\r\n"
                           "Status: %s\r\n"
                           "Remote-MTA: dns; mx.%s\r\n"
                           "Diagnostic-Code: smtp; %d %s %s\r\n",
                           at, dsn->status, dsn->reporting_mta, reasons[reason].code, dsn->status,
                           reasons[reason].text);
    return rc;
}

int dsn_compose(const struct dsn *dsn, struct td_buf *out)
{
    char date[64], boundary[64];
    time_t when = (time_t)dsn->unix_s;
    struct tm tm;
    int rc;

    gmtime_r(&when, &tm);
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S +0000", &tm);
    snprintf(boundary, sizeof(boundary), "dsn-%" PRIu64 "-%" PRIu64, dsn->unix_s, dsn->number);
    rc = add_head(dsn, out, date);
    if (rc == TD_OK)
        rc = td_buf_printf(out,
                           "--%s\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
                           "Your message could not be delivered: %s\r\n\r\n"
                           "--%s\r\nContent-Type: message/delivery-status\r\n\r\n"
                           "Reporting-MTA: dns; %s\r\nArrival-Date: %s\r\n",
                           boundary, reasons[reason_of(dsn->status)].text, boundary, dsn->reporting_mta, date);
    if (rc == TD_OK)
        rc = add_recipients(dsn, out);
    if (rc == TD_OK)
        rc = td_buf_printf(out, "\r\n--%s\r\nContent-Type: text/rfc822-headers\r\n\r\n", boundary);
    if (rc == TD_OK)
        rc = add_stuffed(out, dsn->head);
    if (rc == TD_OK)
        rc = td_buf_printf(out, "\r\n--%s--\r\n.\r\n", boundary);
    return rc;
}
