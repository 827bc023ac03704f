/* Any bytes as an LMTP client: nothing is kept past its limit, replies are whole lines, and how the bytes are cut
 * into pieces changes neither the replies nor what is handed over. The first byte chooses the pieces and who is
 * answered how. */
#include "fuzz.h"

#include <string.h>

#include "lmtp.h"

enum { CONTENT_MAX = 2000 };

struct far_side {
    struct lmtp *lmtp;
    struct td_buf out, seen;
};

static bool recipient(void *user, const char *address)
{
    (void)user;
    return address[0] != 'n';
}

static void message(void *user)
{
    struct far_side *far = user;
    const struct td_buf *content = lmtp_content(far->lmtp);

    PROMISE(lmtp_recipient_count(far->lmtp) >= 1 && lmtp_recipient_count(far->lmtp) <= LMTP_RCPT_MAX);
    PROMISE(content->len <= CONTENT_MAX && (!lmtp_cut(far->lmtp) || content->len == CONTENT_MAX));
    td_buf_printf(&far->seen, "%s>%s:", lmtp_sender(far->lmtp), lmtp_recipient(far->lmtp, 0));
    for (const char *at = lmtp_sender(far->lmtp); *at; at++)
        PROMISE(*at >= ' ' && *at <= '~');
    if (content->len)
        td_buf_add(&far->seen, content->data, content->len);
}

static void check_replies(const struct td_buf *out)
{
    for (const char *at = td_buf_str(out), *end; *at; at = end + 2) {
        end = strstr(at, "\r\n");
        PROMISE(end && end - at >= 4 && at[0] >= '2' && at[0] <= '5' && (at[3] == ' ' || at[3] == '-'));
    }
}

static void talk(struct far_side *far, const char *data, size_t size, size_t step)
{
    static const struct lmtp_ops ops = {recipient, message};
    int rc;

    td_buf_init(&far->out, 1 << 24);
    td_buf_init(&far->seen, 1 << 24);
    far->lmtp = lmtp_new("h", CONTENT_MAX, &ops, far);
    PROMISE(far->lmtp);
    rc = lmtp_feed(far->lmtp, NULL, 0, &far->out);
    for (size_t at = 0; rc == 0 && at < size; at += step) {
        rc = lmtp_feed(far->lmtp, data + at, size - at < step ? size - at : step, &far->out);
        for (size_t i = 0; rc == 0 && lmtp_waiting(far->lmtp); i++)
            rc = lmtp_answer(far->lmtp, i % 3 != 2, &far->out);
    }
    lmtp_free(far->lmtp);
    check_replies(&far->out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct far_side whole, pieces;
    const char *text = (const char *)data + 1;

    if (size == 0 || size > LMTP_INPUT_MAX)
        return 0;
    talk(&whole, text, size - 1, size);
    talk(&pieces, text, size - 1, (size_t)data[0] % 64 + 1);
    PROMISE(whole.seen.len == pieces.seen.len &&
            (!whole.seen.len || memcmp(whole.seen.data, pieces.seen.data, whole.seen.len) == 0));
    td_buf_release(&whole.out);
    td_buf_release(&whole.seen);
    td_buf_release(&pieces.out);
    td_buf_release(&pieces.seen);
    return 0;
}
