#include "json_pb.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "tandem/id.h"
#include "tandem/mimeenc.h"
#include "tandem/pb.h"

struct context {
    struct td_arena *arena;
    struct td_err *reterr;
};

static int read_object(struct context *ctx, const ProtobufCMessageDescriptor *type, json_t *object,
                       ProtobufCMessage **ret);

static int wrong(struct context *ctx, const ProtobufCFieldDescriptor *field, const char *wants)
{
    return td_fail(ctx->reterr, TD_ESYNTAX, "field %s: wants %s", field->name, wants);
}

static int no_memory(struct context *ctx)
{
    return td_fail(ctx->reterr, TD_ENOMEM, "no memory for the message");
}

static int read_integer(struct context *ctx, const ProtobufCFieldDescriptor *field, json_t *value, int64_t min,
                        uint64_t max, uint64_t *ret)
{
    const char *text;
    char *end;

    if (json_is_integer(value)) {
        json_int_t number = json_integer_value(value);

        if (number < min || (number > 0 && (uint64_t)number > max))
            return wrong(ctx, field, "a number within its range");
        *ret = (uint64_t)number;
        return TD_OK;
    }
    text = json_string_value(value);
    if (!text || !*text || strlen(text) > 20)
        return wrong(ctx, field, "a whole number");
    *ret = *text == '-' ? (uint64_t)strtoll(text, &end, 10) : strtoull(text, &end, 10);
    if (*end || (*text == '-' && (int64_t)*ret < min) || (*text != '-' && *ret > max))
        return wrong(ctx, field, "a number within its range");
    return TD_OK;
}

static int read_enum(struct context *ctx, const ProtobufCFieldDescriptor *field, json_t *value, int32_t *ret)
{
    const ProtobufCEnumValue *named;
    uint64_t number;
    int rc;

    if (json_is_string(value)) {
        named = protobuf_c_enum_descriptor_get_value_by_name(field->descriptor, json_string_value(value));
        if (!named)
            return wrong(ctx, field, "a name of its enum, as the .proto writes it");
        *ret = named->value;
        return TD_OK;
    }
    rc = read_integer(ctx, field, value, INT32_MIN, INT32_MAX, &number);
    if (rc == TD_OK)
        *ret = (int32_t)number;
    return rc;
}

static int read_bytes(struct context *ctx, const ProtobufCFieldDescriptor *field, json_t *value,
                      ProtobufCBinaryData *ret)
{
    const char *text = json_string_value(value);
    size_t len;
    int got;

    if (!text)
        return wrong(ctx, field, "base64, or hex");
    len = strlen(text);
    ret->data = td_arena_alloc(ctx->arena, len + 1);
    if (!ret->data)
        return no_memory(ctx);
    if ((len == 32 || len == 64) && td_unhex(ret->data, len / 2, text)) {
        ret->len = len / 2;
        return TD_OK;
    }
    got = td_base64_decode(ret->data, text, len);
    if (got < 0)
        return wrong(ctx, field, "base64, or hex");
    ret->len = (size_t)got;
    return TD_OK;
}

static int read_string(struct context *ctx, const ProtobufCFieldDescriptor *field, json_t *value, char **ret)
{
    const char *text = json_string_value(value);

    if (!text || strlen(text) != json_string_length(value))
        return wrong(ctx, field, "a string without NUL");
    *ret = td_arena_strdup(ctx->arena, text);
    return *ret ? TD_OK : no_memory(ctx);
}

static int read_number(struct context *ctx, const ProtobufCFieldDescriptor *field, json_t *value, void *at)
{
    uint64_t number = 0;
    int rc;

    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        rc = read_integer(ctx, field, value, INT32_MIN, INT32_MAX, &number);
        *(int32_t *)at = (int32_t)number;
        return rc;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        rc = read_integer(ctx, field, value, 0, UINT32_MAX, &number);
        *(uint32_t *)at = (uint32_t)number;
        return rc;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        rc = read_integer(ctx, field, value, INT64_MIN, INT64_MAX, &number);
        *(int64_t *)at = (int64_t)number;
        return rc;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        rc = read_integer(ctx, field, value, 0, UINT64_MAX, &number);
        *(uint64_t *)at = number;
        return rc;
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
    case PROTOBUF_C_TYPE_BOOL:
    case PROTOBUF_C_TYPE_ENUM:
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        break;
    }
    return td_fail(ctx->reterr, TD_EBUG, "field %s: no number", field->name);
}

static int read_value(struct context *ctx, const ProtobufCFieldDescriptor *field, json_t *value, void *at)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return read_number(ctx, field, value, at);
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
        if (!json_is_number(value))
            return wrong(ctx, field, "a number");
        if (field->type == PROTOBUF_C_TYPE_FLOAT)
            *(float *)at = (float)json_number_value(value);
        else
            *(double *)at = json_number_value(value);
        return TD_OK;
    case PROTOBUF_C_TYPE_BOOL:
        if (!json_is_boolean(value))
            return wrong(ctx, field, "true or false");
        *(protobuf_c_boolean *)at = json_is_true(value);
        return TD_OK;
    case PROTOBUF_C_TYPE_ENUM:
        return read_enum(ctx, field, value, at);
    case PROTOBUF_C_TYPE_STRING:
        return read_string(ctx, field, value, at);
    case PROTOBUF_C_TYPE_BYTES:
        return read_bytes(ctx, field, value, at);
    case PROTOBUF_C_TYPE_MESSAGE:
        return read_object(ctx, field->descriptor, value, at);
    }
    return TD_EBUG;
}

/* An object given for a repeated field is a map: repeated entries of key (1) and value (2). */
static int read_map(struct context *ctx, const ProtobufCFieldDescriptor *field, json_t *object,
                    ProtobufCMessage **items)
{
    const ProtobufCMessageDescriptor *type = field->descriptor;
    const char *key;
    json_t *value;
    size_t i = 0;

    json_object_foreach(object, key, value)
    {
        ProtobufCMessage *entry = td_arena_alloc(ctx->arena, type->sizeof_message);
        char *name;
        int rc;

        if (!entry)
            return no_memory(ctx);
        protobuf_c_message_init(type, entry);
        if (type->n_fields != 2 || type->fields[0].type != PROTOBUF_C_TYPE_STRING)
            return wrong(ctx, field, "a list");
        name = td_arena_strdup(ctx->arena, key);
        if (!name)
            return no_memory(ctx);
        *(char **)(void *)((char *)entry + type->fields[0].offset) = name;
        rc = read_value(ctx, &type->fields[1], value, (char *)entry + type->fields[1].offset);
        if (rc < 0)
            return rc;
        items[i++] = entry;
    }
    return TD_OK;
}

static int read_repeated(struct context *ctx, const ProtobufCFieldDescriptor *field, json_t *value,
                         ProtobufCMessage *msg)
{
    bool map = json_is_object(value) && field->type == PROTOBUF_C_TYPE_MESSAGE;
    size_t count = map ? json_object_size(value) : json_array_size(value), size = td_pb_value_size(field->type);
    char *items;
    int rc = TD_OK;

    if (!map && !json_is_array(value))
        return wrong(ctx, field, "a list");
    items = td_arena_zalloc(ctx->arena, (count + 1) * size);
    if (!items)
        return no_memory(ctx);
    if (map)
        rc = read_map(ctx, field, value, (ProtobufCMessage **)(void *)items);
    for (size_t i = 0; !map && rc == TD_OK && i < count; i++)
        rc = read_value(ctx, field, json_array_get(value, i), items + i * size);
    *(size_t *)(void *)((char *)msg + field->quantifier_offset) = count;
    *(char **)(void *)((char *)msg + field->offset) = items;
    return rc;
}

static int read_field(struct context *ctx, const ProtobufCFieldDescriptor *field, json_t *value,
                      ProtobufCMessage *msg)
{
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return read_repeated(ctx, field, value, msg);
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        uint32_t *which = (uint32_t *)(void *)((char *)msg + field->quantifier_offset);

        if (*which != 0)
            return td_fail(ctx->reterr, TD_ESYNTAX, "field %s: only one of its group may be set", field->name);
        *which = field->id;
    }
    return read_value(ctx, field, value, (char *)msg + field->offset);
}

static int read_object(struct context *ctx, const ProtobufCMessageDescriptor *type, json_t *object,
                       ProtobufCMessage **ret)
{
    ProtobufCMessage *msg;
    const char *name;
    json_t *value;

    if (!json_is_object(object))
        return td_fail(ctx->reterr, TD_ESYNTAX, "a %s is an object", type->short_name);
    msg = td_arena_alloc(ctx->arena, type->sizeof_message);
    if (!msg)
        return no_memory(ctx);
    protobuf_c_message_init(type, msg);
    json_object_foreach(object, name, value)
    {
        const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(type, name);
        int rc;

        if (!field)
            return td_fail(ctx->reterr, TD_ESYNTAX, "a %s has no field \"%.64s\"", type->short_name, name);
        if (json_is_null(value))
            continue;
        rc = read_field(ctx, field, value, msg);
        if (rc < 0)
            return rc;
    }
    *ret = msg;
    return TD_OK;
}

int json_pb_read(const ProtobufCMessageDescriptor *type, const char *text, size_t len, struct td_arena *arena,
                 ProtobufCMessage **ret, struct td_err *reterr)
{
    struct context ctx = {arena, reterr};
    json_error_t error;
    json_t *root;
    int rc;

    if (len > JSON_PB_MAX)
        return td_fail(reterr, TD_ETOOBIG, "JSON of more than %d bytes", JSON_PB_MAX);
    root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return td_fail(reterr, TD_ESYNTAX, "line %d, column %d: %s", error.line, error.column, error.text);
    rc = read_object(&ctx, type, root, ret);
    json_decref(root);
    return rc;
}
