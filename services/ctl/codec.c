/* decode and encode: records as kcat moves them, and JSON. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "json_pb.h"
#include "tandem/arena.h"
#include "tandem/pb.h"

#define INPUT_MAX (16 << 20)
#define FRAME_NULL 0xffffffffu /* kcat's length of a tombstone */

struct codec_input {
    struct ctl *ctl; /* first: see ctl_input */
    const char *type;
    bool framed;
};

static const struct argp_option decode_options[] = {
    {"framed", 'f', NULL, 0, "Many records, each after its length in 4 bytes, as kcat -f '%R%s' writes them", 0},
    {0}};

static error_t parse_codec(int key, char *arg, struct argp_state *state)
{
    struct codec_input *input = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        ctl_input_init(state);
        return 0;
    case 'f':
        input->framed = true;
        return 0;
    case ARGP_KEY_ARG:
        if (strcmp(arg, "-") == 0 && input->type)
            return 0; /* stdin, which it is anyway */
        if (input->type)
            argp_error(state, "one type at a time");
        input->type = arg;
        return 0;
    case ARGP_KEY_END:
        if (!input->type)
            argp_error(state,
                       "which type? Such as Submission, Outcome, Suppression, CampaignContent, OutboundMessage");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int read_all(struct td_buf *in)
{
    char chunk[65536];
    size_t got;

    while ((got = fread(chunk, 1, sizeof(chunk), stdin)) > 0)
        if (td_buf_add(in, chunk, got) < 0) {
            ctl_say("more than %d bytes on stdin", INPUT_MAX);
            return CTL_FAILED;
        }
    return CTL_OK;
}

static int decode_one(const ProtobufCMessageDescriptor *type, const char *data, size_t len)
{
    struct td_arena *arena = td_arena_new(td_pb_budget(len));
    ProtobufCMessage *message;
    struct td_err err;
    char *json = NULL;
    int rc;

    if (!arena)
        return CTL_FAILED;
    rc = td_pb_read(type, data, len, arena, &message, &err);
    /* kcat ends a record with a line end of its own unless told not to. */
    if (rc < 0 && len > 0 && data[len - 1] == '\n')
        rc = td_pb_read(type, data, len - 1, arena, &message, NULL);
    if (rc == TD_OK)
        json = td_pb_to_json(message);
    if (json)
        puts(json);
    else
        ctl_say("%s", rc < 0 ? err.text : "no memory");
    free(json);
    td_arena_free(arena);
    return json ? CTL_OK : CTL_FAILED;
}

/* Read as they come: a stream from kcat may be longer than memory. */
static int decode_frames(const ProtobufCMessageDescriptor *type)
{
    unsigned char head[4];
    int code = CTL_OK;

    while (fread(head, 1, sizeof(head), stdin) == sizeof(head)) {
        size_t len = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
        char *data;

        if (len == FRAME_NULL) {
            puts("null");
            continue;
        }
        if (len > INPUT_MAX) {
            ctl_say("a record of %zu bytes: is the format '%%R%%s'?", len);
            return CTL_FAILED;
        }
        data = malloc(len + 1);
        if (!data || fread(data, 1, len, stdin) != len) {
            free(data);
            ctl_say("the last record is cut off");
            return CTL_FAILED;
        }
        if (decode_one(type, data, len) != CTL_OK)
            code = CTL_FAILED;
        free(data);
    }
    return code;
}

static const ProtobufCMessageDescriptor *type_of(const char *name)
{
    const ProtobufCMessageDescriptor *type = td_pb_type(name);

    if (!type)
        ctl_say("there is no type \"%s\"; proto/README.md lists them", name);
    return type;
}

int ctl_decode(struct ctl *ctl, int argc, char **argv)
{
    static const struct argp argp = {
        decode_options,
        parse_codec,
        "TYPE",
        "A record on stdin as one line of JSON: kcat -C ... -c 1 | tandemctl decode Outcome",
        ctl_children,
        NULL,
        NULL};
    struct codec_input input = {ctl, NULL, false};
    struct td_buf in = TD_BUF_INIT(INPUT_MAX);
    const ProtobufCMessageDescriptor *type;
    int code = ctl_parse(&argp, argc, argv, &input);

    if (code != CTL_OK)
        return code;
    type = type_of(input.type);
    if (!type)
        return CTL_USAGE;
    if (input.framed)
        return decode_frames(type);
    code = read_all(&in);
    if (code == CTL_OK)
        code = decode_one(type, td_buf_str(&in), in.len);
    td_buf_release(&in);
    return code;
}

int ctl_encode(struct ctl *ctl, int argc, char **argv)
{
    static const struct argp argp = {
        NULL,
        parse_codec,
        "TYPE",
        "JSON on stdin, as decode writes it, as a record: tandemctl encode Submission < x.json "
        "> x.bin; kcat -P -t mail.submissions -k ID x.bin",
        ctl_children,
        NULL,
        NULL};
    struct codec_input input = {ctl, NULL, false};
    struct td_buf in = TD_BUF_INIT(INPUT_MAX);
    const ProtobufCMessageDescriptor *type;
    struct td_arena *arena = NULL;
    ProtobufCMessage *message;
    struct td_err err;
    void *packed = NULL;
    size_t len = 0;
    int code = ctl_parse(&argp, argc, argv, &input);

    if (code != CTL_OK)
        return code;
    type = type_of(input.type);
    if (!type)
        return CTL_USAGE;
    code = read_all(&in);
    if (code != CTL_OK)
        goto out;
    arena = td_arena_new(64 * in.len + 65536);
    if (!arena || json_pb_read(type, td_buf_str(&in), in.len, arena, &message, &err) < 0) {
        ctl_say("%s", arena ? err.text : "no memory");
        code = CTL_USAGE;
        goto out;
    }
    packed = td_pb_write(message, &len);
    code = packed && fwrite(packed, 1, len, stdout) == len && fflush(stdout) == 0 ? CTL_OK : CTL_FAILED;
out:
    free(packed);
    td_arena_free(arena);
    td_buf_release(&in);
    return code;
}
