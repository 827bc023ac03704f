/* auth.c - AUTH PLAIN and LOGIN (RFC 4954, RFC 4616). */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>
#include <strings.h>

#include "smtp.h"

#define SECRET_MAX 1024 /* octets of a decoded answer */

/* Strict base64 of one line. Returns the length, or -1. `ret` has room for SECRET_MAX + 3. */
static int decode(struct slice text, unsigned char *ret)
{
    int len;

    if (text.len == 0)
        return 0;
    if (text.len % 4 || text.len > SECRET_MAX / 3 * 4)
        return -1;
    len = EVP_DecodeBlock(ret, (const unsigned char *)text.data, (int)text.len);
    if (len < 0)
        return -1;
    if (text.data[text.len - 1] == '=') /* EVP_DecodeBlock counts the padding as octets */
        len--;
    if (text.data[text.len - 2] == '=')
        len--;
    return len;
}

static bool same(const unsigned char *data, size_t len, const char *want)
{
    return len == strlen(want) && CRYPTO_memcmp(data, want, len) == 0;
}

static void finish(struct session *session, bool right)
{
    session->state = SESSION_COMMAND;
    session->authenticated = right;
    if (right)
        smtp_reply(session, 235, "2.7.0", "Authentication successful.");
    else
        smtp_reply(session, 535, "5.7.8", "Authentication Credentials Invalid");
}

/* authorization NUL user NUL password */
static void check_plain(struct session *session, const unsigned char *data, size_t len)
{
    const unsigned char *user = memchr(data, '\0', len), *password = NULL;

    if (user) {
        user++;
        password = memchr(user, '\0', len - (size_t)(user - data));
    }
    if (!password) {
        finish(session, false);
        return;
    }
    password++;
    finish(session, same(user, (size_t)(password - user) - 1, session->sim->options.user) &&
                        same(password, len - (size_t)(password - data), session->sim->password));
}

static void answer(struct session *session, struct slice line)
{
    unsigned char data[SECRET_MAX + 4];
    int len = decode(line, data);

    if (len < 0) {
        session->state = SESSION_COMMAND;
        smtp_reply(session, 501, "5.5.2", "Cannot decode the answer");
    } else if (session->auth_step == AUTH_PLAIN) {
        check_plain(session, data, (size_t)len);
    } else if (session->auth_step == AUTH_LOGIN_USER) {
        session->auth_user_right = same(data, (size_t)len, session->sim->options.user);
        session->auth_step = AUTH_LOGIN_PASSWORD;
        smtp_reply(session, 334, "", "UGFzc3dvcmQ6"); /* "Password:" */
    } else {
        finish(session, same(data, (size_t)len, session->sim->password) && session->auth_user_right);
    }
    OPENSSL_cleanse(data, sizeof(data));
}

void auth_go_on(struct session *session, struct slice line)
{
    if (line.len == 1 && line.data[0] == '*') {
        session->state = SESSION_COMMAND;
        smtp_reply(session, 501, "5.7.0", "Authentication cancelled");
        return;
    }
    answer(session, line);
}

void auth_begin(struct session *session, struct slice args)
{
    const char *space = memchr(args.data, ' ', args.len);
    size_t name = space ? (size_t)(space - args.data) : args.len;
    struct slice initial = {args.data + name, args.len - name};
    bool plain = name == 5 && strncasecmp(args.data, "PLAIN", 5) == 0;

    while (initial.len && initial.data[0] == ' ') {
        initial.data++;
        initial.len--;
    }
    if (session->authenticated || session->mail.open || !session->greeted) {
        smtp_reply(session, 503, "5.5.1", "Not now");
        return;
    }
    if (!plain && !(name == 5 && strncasecmp(args.data, "LOGIN", 5) == 0)) {
        smtp_reply(session, 504, "5.5.4", "PLAIN or LOGIN");
        return;
    }
    session->auth_step = plain ? AUTH_PLAIN : AUTH_LOGIN_USER;
    session->state = SESSION_AUTH;
    if (initial.len == 1 && initial.data[0] == '=')
        initial.len = 0; /* RFC 4954 s.4: "=" is an empty initial response */
    else if (!initial.len) {
        smtp_reply(session, 334, "", plain ? "" : "VXNlcm5hbWU6"); /* "Username:" */
        return;
    }
    answer(session, initial);
}
