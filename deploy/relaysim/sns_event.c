#include "sns_event.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "http_request.h"

#define ANSWER_MAX 65536

/* ---- a mail's headers ---- */

static bool named(struct slice line, const char *name, struct slice *ret_value)
{
    size_t len = strlen(name);

    if (line.len <= len || line.data[len] != ':' || strncasecmp(line.data, name, len) != 0)
        return false;
    *ret_value = (struct slice){line.data + len + 1, line.len - len - 1};
    while (ret_value->len && (*ret_value->data == ' ' || *ret_value->data == '\t')) {
        ret_value->data++;
        ret_value->len--;
    }
    while (ret_value->len && ret_value->data[ret_value->len - 1] == '\r')
        ret_value->len--;
    return true;
}

bool sns_read_head(struct slice head, struct td_buf *tags)
{
    bool found = false;

    td_buf_clear(tags);
    while (head.len) {
        const char *eol = memchr(head.data, '\n', head.len);
        struct slice line = {head.data, eol ? (size_t)(eol - head.data) : head.len}, value;

        if (named(line, "X-SES-CONFIGURATION-SET", &value))
            found = value.len > 0;
        else if (named(line, "X-SES-MESSAGE-TAGS", &value) && td_buf_add(tags, value.data, value.len) < 0)
            td_buf_clear(tags);
        head.data += line.len + (eol ? 1 : 0);
        head.len -= line.len + (eol ? 1 : 0);
    }
    return found;
}

/* ---- events ---- */

void sns_time(uint64_t unix_ms, char out[32])
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm tm;
    size_t len;

    gmtime_r(&seconds, &tm);
    len = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + len, 32 - len, ".%03uZ", (unsigned)(unix_ms % 1000));
}

static json_t *string_of(struct slice text)
{
    return json_stringn(text.data ? text.data : "", text.len); /* NULL when it is no UTF-8 */
}

static struct slice cut(struct slice *rest, char at)
{
    const char *end = rest->len ? memchr(rest->data, at, rest->len) : NULL;
    struct slice found = {rest->data, end ? (size_t)(end - rest->data) : rest->len};

    rest->data += found.len + (end ? 1 : 0);
    rest->len -= found.len + (end ? 1 : 0);
    while (found.len && *found.data == ' ') {
        found.data++;
        found.len--;
    }
    return found;
}

static json_t *tags_of(struct slice tags)
{
    json_t *object = json_object();

    while (tags.len) {
        struct slice value = cut(&tags, ','), name = cut(&value, '=');
        json_t *text = name.len && value.len ? string_of(value) : NULL;
        char key[65];

        if (text && name.len < sizeof(key)) {
            snprintf(key, sizeof(key), "%.*s", (int)name.len, name.data);
            json_object_set_new(object, key, json_pack("[o]", text));
        } else {
            json_decref(text);
        }
    }
    return object;
}

json_t *sns_event(const struct sns_mail *mail, const char *type, const char *status)
{
    char at[32], name[16];
    json_t *event, *more;

    sns_time(mail->unix_ms, at);
    event = json_pack("{s:s,s:{s:s,s:o*,s:s,s:[s],s:o}}", "eventType", type, "mail", "timestamp", at, "source",
                      string_of(mail->source), "messageId", mail->message_id, "destination", mail->recipient, "tags",
                      tags_of(mail->tags));
    if (strcmp(type, "Bounce") == 0)
        more = json_pack("{s:s,s:s,s:[{s:s,s:s,s:s,s:s}],s:s,s:s}", "bounceType", "Permanent", "bounceSubType", "General",
                         "bouncedRecipients", "emailAddress", mail->recipient, "action", "failed", "status", status,
                         "diagnosticCode", "smtp; 550 5.1.1 user unknown", "timestamp", at, "feedbackId", mail->message_id);
    else if (strcmp(type, "Delivery") == 0)
        more = json_pack("{s:s,s:[s],s:s}", "timestamp", at, "recipients", mail->recipient, "smtpResponse", "250 2.0.0 OK");
    else if (strcmp(type, "Complaint") == 0)
        more = json_pack("{s:[{s:s}],s:s,s:s,s:s}", "complainedRecipients", "emailAddress", mail->recipient, "timestamp", at,
                         "feedbackId", mail->message_id, "complaintFeedbackType", "abuse");
    else
        more = json_object();
    snprintf(name, sizeof(name), "%c%s", type[0] | 0x20, type + 1); /* "Bounce" is told in "bounce" */
    if (event && more)
        json_object_set_new(event, name, more);
    return event;
}

/* ---- signing: in byte order of the names, each name and value with a newline ---- */

static int text_to_sign(const json_t *envelope, struct td_buf *out)
{
    static const char *const note[] = {"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type", NULL};
    static const char *const confirm[] = {"Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type", NULL};
    const char *type = json_string_value(json_object_get(envelope, "Type"));
    int rc = TD_OK;

    for (const char *const *name = type && strcmp(type, "Notification") == 0 ? note : confirm; *name && rc == TD_OK; name++) {
        const char *value = json_string_value(json_object_get(envelope, *name));

        if (value)
            rc = td_buf_printf(out, "%s\n", *name);
        if (value && rc == TD_OK)
            rc = td_buf_adds(out, value);
        if (value && rc == TD_OK)
            rc = td_buf_addc(out, '\n');
    }
    return rc;
}

int sns_sign(json_t *envelope, EVP_PKEY *key, int version, uint64_t unix_ms, bool bad)
{
    struct td_buf text = TD_BUF_INIT(1u << 20);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    unsigned char signature[1024], base64[1400];
    size_t len = sizeof(signature);
    char at[32];
    int rc = TD_ENOMEM;

    sns_time(unix_ms, at);
    json_object_set_new(envelope, "Timestamp", json_string(at));
    json_object_set_new(envelope, "SignatureVersion", json_string(version == 2 ? "2" : "1"));
    if (ctx && text_to_sign(envelope, &text) == TD_OK && (!bad || td_buf_addc(&text, 'x') == TD_OK) &&
        EVP_DigestSignInit(ctx, NULL, version == 2 ? EVP_sha256() : EVP_sha1(), NULL, key) == 1 &&
        EVP_DigestSign(ctx, signature, &len, (const unsigned char *)td_buf_str(&text), text.len) == 1) {
        EVP_EncodeBlock(base64, signature, (int)len);
        rc = json_object_set_new(envelope, "Signature", json_string((const char *)base64)) == 0 ? TD_OK : TD_ENOMEM;
    }
    EVP_MD_CTX_free(ctx);
    td_buf_release(&text);
    return rc;
}

/* ---- what an HTTP server answers ---- */

int http_answer_read(struct slice bytes, int *ret_status, size_t *ret_len)
{
    const char *end = memmem(bytes.data ? bytes.data : "", bytes.len, "\r\n\r\n", 4);
    size_t length = 0, head;
    struct slice rest;
    int status = 0;

    if (!end)
        return bytes.len > HTTP_HEAD_MAX ? TD_ETOOBIG : TD_EAGAIN;
    head = (size_t)(end - bytes.data);
    if (head < 12 || memcmp(bytes.data, "HTTP/1.", 7) != 0 || bytes.data[8] != ' ')
        return TD_ESYNTAX;
    for (size_t i = 9; i < 12; i++) {
        if (bytes.data[i] < '0' || bytes.data[i] > '9')
            return TD_ESYNTAX;
        status = status * 10 + (bytes.data[i] - '0');
    }
    rest = (struct slice){bytes.data, head};
    while (rest.len) {
        struct slice line = cut(&rest, '\n'), value;

        if (named(line, "Transfer-Encoding", &value))
            return TD_ESYNTAX;
        if (!named(line, "Content-Length", &value))
            continue;
        length = 0;
        for (size_t i = 0; i < value.len; i++) {
            if (value.data[i] < '0' || value.data[i] > '9')
                return TD_ESYNTAX;
            length = length * 10 + (size_t)(value.data[i] - '0');
            if (length > ANSWER_MAX)
                return TD_ETOOBIG;
        }
    }
    if (bytes.len - head - 4 < length)
        return TD_EAGAIN;
    *ret_status = status;
    *ret_len = head + 4 + length;
    return TD_OK;
}
