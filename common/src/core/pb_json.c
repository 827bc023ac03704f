/* By descriptor, so that a new field shows without a change here. Singular fields are written even when they are
 * zero (index 0 is a number, not a missing field); sub-messages only when set, of a oneof only the case that is
 * set. */
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/buf.h"
#include "tandem/id.h"
#include "tandem/json.h"
#include "tandem/mimeenc.h"
#include "tandem/pb.h"

static int json_message(struct td_buf *out, const ProtobufCMessage *msg);

/* 16 and 32 bytes are hashes: people compare them with what tandemctl and the logs print, in hex. */
static int json_bytes(struct td_buf *out, const ProtobufCBinaryData *bytes)
{
    char hex[2 * 32 + 1];
    int rc;

    if (bytes->len == 16 || bytes->len == 32) {
        td_hex(hex, bytes->data, bytes->len);
        return td_buf_printf(out, "\"%s\"", hex);
    }
    rc = td_buf_addc(out, '"');
    if (rc == TD_OK)
        rc = td_base64(out, bytes->data, bytes->len);
    return rc < 0 ? rc : td_buf_addc(out, '"');
}

static int json_double(struct td_buf *out, double value)
{
    if (isnan(value))
        return td_buf_adds(out, "\"NaN\"");
    if (isinf(value))
        return td_buf_adds(out, value > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    return td_buf_printf(out, "%.17g", value);
}

static int json_enum(struct td_buf *out, const ProtobufCEnumDescriptor *type, int32_t number)
{
    const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(type, number);

    if (!value) /* written by a newer program */
        return td_buf_printf(out, "%" PRId32, number);
    return td_buf_printf(out, "\"%s\"", value->name);
}

/* One value of a field; `at` is where protobuf-c keeps it. */
static int json_value(struct td_buf *out, const ProtobufCFieldDescriptor *field, const void *at)
{
    const char *text;

    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return td_buf_printf(out, "%" PRId32, *(const int32_t *)at);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return td_buf_printf(out, "%" PRIu32, *(const uint32_t *)at);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return td_buf_printf(out, "%" PRId64, *(const int64_t *)at);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return td_buf_printf(out, "%" PRIu64, *(const uint64_t *)at);
    case PROTOBUF_C_TYPE_FLOAT:
        return json_double(out, (double)*(const float *)at);
    case PROTOBUF_C_TYPE_DOUBLE:
        return json_double(out, *(const double *)at);
    case PROTOBUF_C_TYPE_BOOL:
        return td_buf_adds(out, *(const protobuf_c_boolean *)at ? "true" : "false");
    case PROTOBUF_C_TYPE_ENUM:
        return json_enum(out, field->descriptor, *(const int32_t *)at);
    case PROTOBUF_C_TYPE_STRING:
        text = *(char *const *)at;
        return text ? td_json_string(out, text, strlen(text)) : td_buf_adds(out, "\"\"");
    case PROTOBUF_C_TYPE_BYTES:
        return json_bytes(out, at);
    case PROTOBUF_C_TYPE_MESSAGE:
        return json_message(out, *(ProtobufCMessage *const *)at);
    }
    return TD_EBUG;
}

size_t td_pb_value_size(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_ENUM:
        return 4;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        break;
    }
    return sizeof(void *);
}

/* protobuf-c has no mark for a map: it is what protoc makes of one, repeated NameEntry{key = 1, value = 2}. */
static bool is_map(const ProtobufCFieldDescriptor *field)
{
    const ProtobufCMessageDescriptor *entry;
    size_t len;

    if (field->type != PROTOBUF_C_TYPE_MESSAGE || field->label != PROTOBUF_C_LABEL_REPEATED)
        return false;
    entry = field->descriptor;
    len = strlen(entry->short_name);
    return entry->n_fields == 2 && len > 5 && strcmp(entry->short_name + len - 5, "Entry") == 0 &&
           strcmp(entry->fields[0].name, "key") == 0 && strcmp(entry->fields[1].name, "value") == 0;
}

/* A key that came twice is written twice; JSON readers take the last one, as protobuf does. */
static int json_map_entry(struct td_buf *out, const ProtobufCMessage *entry)
{
    const ProtobufCFieldDescriptor *key = &entry->descriptor->fields[0], *value = &entry->descriptor->fields[1];
    bool quote = key->type != PROTOBUF_C_TYPE_STRING; /* a number, which JSON cannot have as a name */
    int rc = quote ? td_buf_addc(out, '"') : TD_OK;

    if (rc == TD_OK)
        rc = json_value(out, key, (const char *)entry + key->offset);
    if (rc == TD_OK)
        rc = td_buf_adds(out, quote ? "\":" : ":");
    if (rc < 0)
        return rc;
    if (value->type == PROTOBUF_C_TYPE_MESSAGE &&
        !*(ProtobufCMessage *const *)(const void *)((const char *)entry + value->offset))
        return td_buf_adds(out, "{}");
    return json_value(out, value, (const char *)entry + value->offset);
}

static int json_repeated(struct td_buf *out, const ProtobufCMessage *msg, const ProtobufCFieldDescriptor *field)
{
    size_t count = *(const size_t *)(const void *)((const char *)msg + field->quantifier_offset);
    const char *items = *(const char *const *)(const void *)((const char *)msg + field->offset);
    size_t size = td_pb_value_size(field->type);
    bool map = is_map(field);
    int rc = td_buf_addc(out, map ? '{' : '[');

    for (size_t i = 0; i < count && rc == TD_OK; i++) {
        if (i > 0)
            rc = td_buf_addc(out, ',');
        if (rc < 0)
            break;
        rc = map ? json_map_entry(out, *(ProtobufCMessage *const *)(const void *)(items + i * size))
                 : json_value(out, field, items + i * size);
    }
    return rc < 0 ? rc : td_buf_addc(out, map ? '}' : ']');
}

static bool is_present(const ProtobufCMessage *msg, const ProtobufCFieldDescriptor *field)
{
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return true;
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
        return *(const uint32_t *)(const void *)((const char *)msg + field->quantifier_offset) == field->id;
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return *(ProtobufCMessage *const *)(const void *)((const char *)msg + field->offset) != NULL;
    return true;
}

static int json_message(struct td_buf *out, const ProtobufCMessage *msg)
{
    const char *separator = "";
    int rc = td_buf_addc(out, '{');

    for (unsigned i = 0; i < msg->descriptor->n_fields && rc == TD_OK; i++) {
        const ProtobufCFieldDescriptor *field = &msg->descriptor->fields[i];

        if (!is_present(msg, field))
            continue;
        rc = td_buf_printf(out, "%s\"%s\":", separator, field->name);
        separator = ",";
        if (rc < 0)
            break;
        rc = field->label == PROTOBUF_C_LABEL_REPEATED ? json_repeated(out, msg, field)
                                                       : json_value(out, field, (const char *)msg + field->offset);
    }
    return rc < 0 ? rc : td_buf_addc(out, '}');
}

char *td_pb_to_json(const ProtobufCMessage *msg)
{
    struct td_buf out = TD_BUF_INIT(SIZE_MAX / 4); /* as large as the message, which had its own limit, makes it */
    int rc = json_message(&out, msg);

    if (rc < 0)
        td_buf_release(&out);
    return td_buf_take(&out, NULL); /* NULL when it was released */
}
