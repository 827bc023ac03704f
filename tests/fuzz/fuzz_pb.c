/* Any bytes as any message of a topic: read within the budget or refused; what was read writes and reads back the
 * same, holds nothing unknown, and has a JSON form. */
#include "fuzz.h"

#include <string.h>

#include "tandem/pb.h"
#include "tandem/utf8.h"

static const char *const types[] = {"Submission",      "CampaignContent", "ContentPart", "RecipientChunk",
                                    "OutboundMessage", "Outcome",         "Feedback",    "Suppression"};

static void check_message(const ProtobufCMessage *msg)
{
    struct td_arena *arena = td_arena_new(1 << 22);
    ProtobufCMessage *again = NULL;
    size_t len, len_again;
    uint8_t *bytes = td_pb_write(msg, &len), *bytes_again = NULL;
    char *json = td_pb_to_json(msg);

    PROMISE(arena && bytes && json && json[0] == '{' && td_utf8_valid(json, strlen(json)));
    for (const char *c = json; *c; c++)
        PROMISE((unsigned char)*c >= ' ');
    PROMISE(td_pb_read(msg->descriptor, bytes, len, arena, &again, NULL) == TD_OK);
    bytes_again = td_pb_write(again, &len_again);
    PROMISE(bytes_again && len == len_again && memcmp(bytes, bytes_again, len) == 0);
    free(bytes);
    free(bytes_again);
    free(json);
    td_arena_free(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        const ProtobufCMessageDescriptor *type = td_pb_type(types[i]);
        struct td_arena *arena = td_arena_new(td_pb_budget(size)), *small = td_arena_new(size % 997);
        struct td_err err = {TD_OK, ""};
        ProtobufCMessage *msg = NULL;
        int rc;

        PROMISE(type && arena && small);
        rc = td_pb_read(type, data, size, arena, &msg, &err);
        PROMISE(rc == TD_OK || rc == TD_ESYNTAX || rc == TD_ETOOBIG);
        PROMISE((rc == TD_OK) == (msg != NULL) && (int)err.code == rc);
        PROMISE(td_arena_used(arena) <= td_pb_budget(size));
        if (msg)
            check_message(msg);
        rc = td_pb_read(type, data, size, small, &msg, NULL);
        PROMISE(rc == TD_OK || rc == TD_ESYNTAX || rc == TD_ETOOBIG);
        td_arena_free(arena);
        td_arena_free(small);
    }
    return 0;
}
