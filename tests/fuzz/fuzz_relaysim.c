/* What relaysim reads from outside: commands, message text in any split, Message-ID, control requests, faults. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "fault.h"
#include "http_request.h"
#include "sns_event.h"

/* Unstuff the whole, handing over at most `step` more octets a time, as a socket would. */
static bool unstuff(const char *data, size_t size, size_t step, char *out, size_t *ret_len, size_t *ret_used)
{
    struct dots dots = {.begun = false};
    size_t used = 0, have = 0;
    bool ended = false;

    *ret_len = 0;
    while (!ended) {
        struct slice piece;
        size_t taken;

        ended = dots_take(&dots, (struct slice){data + used, have - used}, &piece, &taken);
        PROMISE(taken <= have - used && piece.len <= taken);
        memcpy(out + *ret_len, piece.data, piece.len);
        *ret_len += piece.len;
        used += taken;
        if (!ended && !taken) {
            if (have == size)
                break;
            have = size - have < step ? size : have + step;
        }
    }
    *ret_used = used;
    return ended;
}

static void check_dots(const char *data, size_t size)
{
    char *one = malloc(size + 1), *other = malloc(size + 1);
    size_t one_len, other_len, one_used, other_used;

    PROMISE(one && other);
    for (size_t step = 1; step <= 7; step += 2) {
        bool ended = unstuff(data, size, size, one, &one_len, &one_used);

        PROMISE(unstuff(data, size, step, other, &other_len, &other_used) == ended);
        if (ended) /* without an end, the last octets may wait longer in small steps */
            PROMISE(one_len == other_len && one_used == other_used && memcmp(one, other, one_len) == 0);
        if (ended && one_used > 3)
            PROMISE(memcmp(data + one_used - 5, "\r\n.\r\n", 5) == 0);
    }
    free(one);
    free(other);
}

static void check_command(struct slice line)
{
    struct slice args, path, params;
    uint64_t bytes;
    bool last;

    command_verb(line, &args);
    PROMISE(args.len <= line.len);
    if (command_path(args, "FROM:", &path, &params) == TD_OK || command_path(args, "TO:", &path, &params) == TD_OK) {
        PROMISE(path.len <= COMMAND_PATH_MAX);
        for (size_t i = 0; i < path.len; i++)
            PROMISE((unsigned char)path.data[i] >= 0x20 && path.data[i] != 0x7f);
        command_size(params, &bytes);
    }
    if (command_bdat(args, &bytes, &last) == TD_OK)
        PROMISE(bytes <= UINT64_C(1) << 40);
}

static void check_fault(const char *data, size_t size)
{
    struct faults *faults = calloc(1, sizeof(*faults));
    json_t *json = json_loadb(data, size, 0, NULL);
    uint64_t id;

    PROMISE(faults);
    if (json && fault_add(faults, json, 1, 0, &id, NULL) == TD_OK) {
        PROMISE(faults->count == 1 && faults->points);
        json_decref(fault_list(faults, 1, 0));
        for (enum fault_point at = FAULT_AT_CONNECT; at <= FAULT_AT_INJECT; at++) {
            fault_strike(faults, at, 1, UINT32_MAX);
            fault_strike_at(faults, at, (struct slice){data, size}, 1, UINT32_MAX);
        }
        PROMISE(fault_lift(faults, 0) <= 1);
    }
    json_decref(json);
    free(faults);
}

static void check_sns(struct slice bytes)
{
    struct td_buf tags = TD_BUF_INIT(SES_TAGS_MAX);
    struct sns_mail mail = {.message_id = "i", .source = bytes, .recipient = "r", .tags = bytes};
    int status = 0;
    size_t len = 0;

    sns_read_head(bytes, &tags);
    PROMISE(tags.len <= SES_TAGS_MAX);
    json_decref(sns_event(&mail, "Send", ""));
    if (http_answer_read(bytes, &status, &len) == TD_OK)
        PROMISE(len <= bytes.len && status >= 0 && status <= 999);
    td_buf_release(&tags);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct slice bytes = {text, size}, id;
    struct http_request request;
    size_t head = 0;

    check_command(bytes);
    check_dots(text, size);
    if (message_id_find(bytes, &id, &head))
        PROMISE(head <= size && id.len <= MESSAGE_ID_MAX);
    if (http_request_read(bytes, &request) == TD_OK)
        PROMISE(request.body.data + request.body.len <= text + size && request.path.len > 0);
    check_fault(text, size);
    check_sns(bytes);
    return 0;
}
