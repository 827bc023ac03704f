/* The walk below reads the wire as protobuf-c 1.4 does, but allocates nothing, so that what protobuf-c is shown
 * can cost no more than the limits say. It is stricter: field numbers of zero, wire types that do not fit the
 * field, groups and text that is not UTF-8 are refused; so is a singular message given twice, which no writer
 * makes, which protobuf-c merges otherwise than other readers, and which can cost it time in the square of the
 * bytes. */
#include "tandem/pb.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/utf8.h"

enum wire { WIRE_VARINT = 0, WIRE_64BIT = 1, WIRE_BYTES = 2, WIRE_32BIT = 5 };

enum {
    VARINT_BYTES_MAX = 10,
    SHORT_VARINT_BYTES_MAX = 5, /* tags and lengths */
    FRAME_INDEXES_MAX = 16,
    FRAME_SCHEMA_ID_BYTES = 4
};

struct walk {
    size_t elements;
    struct td_err *reterr;
};

struct field {
    uint32_t number;
    enum wire wire;
    const uint8_t *value; /* of WIRE_BYTES: what is inside */
    size_t len;
};

/* @return bytes taken, 0 when it does not end within max bytes */
static size_t read_varint(const uint8_t *data, size_t len, size_t max, uint64_t *ret)
{
    uint64_t value = 0;

    for (size_t i = 0; i < len && i < max; i++) {
        value |= (uint64_t)(data[i] & 0x7f) << (7 * i);
        if (data[i] < 0x80) {
            *ret = value;
            return i + 1;
        }
    }
    return 0;
}

/* @return bytes of the whole field, 0 when it is malformed */
static size_t read_field(const uint8_t *data, size_t len, struct field *ret)
{
    uint64_t tag, number;
    size_t head = read_varint(data, len, SHORT_VARINT_BYTES_MAX, &tag), size;

    if (head == 0 || tag > UINT32_MAX || tag >> 3 == 0)
        return 0;
    ret->number = (uint32_t)(tag >> 3);
    data += head;
    len -= head;
    switch (tag & 7) {
    case WIRE_VARINT:
        ret->wire = WIRE_VARINT;
        size = read_varint(data, len, VARINT_BYTES_MAX, &number);
        if (size == 0)
            return 0;
        break;
    case WIRE_64BIT:
        ret->wire = WIRE_64BIT;
        size = 8;
        break;
    case WIRE_32BIT:
        ret->wire = WIRE_32BIT;
        size = 4;
        break;
    case WIRE_BYTES:
        ret->wire = WIRE_BYTES;
        size = read_varint(data, len, SHORT_VARINT_BYTES_MAX, &number);
        if (size == 0 || number > len - size)
            return 0;
        head += size;
        data += size;
        len -= size;
        size = (size_t)number;
        break;
    default:
        return 0; /* groups, and types that do not exist */
    }
    if (size > len)
        return 0;
    ret->value = data;
    ret->len = size;
    return head + size;
}

static enum wire wire_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return WIRE_BYTES;
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return WIRE_32BIT;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return WIRE_64BIT;
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_BOOL:
    case PROTOBUF_C_TYPE_ENUM:
        break;
    }
    return WIRE_VARINT;
}

/* Numbers in a packed field. @return false when the last one is cut off or one is too long */
static bool count_packed(const struct field *field, enum wire wire, size_t *ret_count)
{
    size_t at = 0, count = 0, step;
    uint64_t number;

    if (wire != WIRE_VARINT) {
        size_t each = wire == WIRE_64BIT ? 8 : 4;

        *ret_count = field->len / each;
        return field->len % each == 0;
    }
    for (; at < field->len; at += step, count++) {
        step = read_varint(field->value + at, field->len - at, VARINT_BYTES_MAX, &number);
        if (step == 0)
            return false;
    }
    *ret_count = count;
    return true;
}

static int walk_count(struct walk *walk, size_t more)
{
    walk->elements += more;
    if (walk->elements > TD_PB_MAX_ELEMENTS)
        return td_fail(walk->reterr, TD_ETOOBIG, "more than %d elements in one message", TD_PB_MAX_ELEMENTS);
    return TD_OK;
}

static int walk_message(struct walk *walk, const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t len,
                        unsigned depth);

/* @return false when it was seen before. Our messages have at most 19 fields. */
static bool first_of_its_kind(const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *field,
                              uint64_t *seen)
{
    uint64_t bit = UINT64_C(1) << ((field - type->fields) & 63);
    bool first = (*seen & bit) == 0;

    *seen |= bit;
    return first;
}

static int walk_field(struct walk *walk, const ProtobufCMessageDescriptor *type, const struct field *field,
                      unsigned depth, uint64_t *seen)
{
    const ProtobufCFieldDescriptor *known = protobuf_c_message_descriptor_get_field(type, field->number);
    enum wire wire;
    size_t packed = 1;

    if (!known) /* dropped later, but protobuf-c copies it first */
        return walk_count(walk, 1);
    wire = wire_of(known->type);
    if (field->wire != wire) {
        if (known->label != PROTOBUF_C_LABEL_REPEATED || wire == WIRE_BYTES || field->wire != WIRE_BYTES ||
            !count_packed(field, wire, &packed))
            return td_fail(walk->reterr, TD_ESYNTAX, "%s.%s has wire type %d", type->short_name, known->name,
                           (int)field->wire);
    }
    if (known->type == PROTOBUF_C_TYPE_STRING) {
        if (memchr(field->value, '\0', field->len))
            return td_fail(walk->reterr, TD_ESYNTAX, "%s.%s holds a NUL", type->short_name, known->name);
        if (!td_utf8_valid((const char *)field->value, field->len))
            return td_fail(walk->reterr, TD_ESYNTAX, "%s.%s is not UTF-8", type->short_name, known->name);
    }
    if (known->label == PROTOBUF_C_LABEL_REPEATED || known->type == PROTOBUF_C_TYPE_MESSAGE) {
        int rc = walk_count(walk, packed);

        if (rc < 0)
            return rc;
    }
    if (known->type == PROTOBUF_C_TYPE_MESSAGE && known->label != PROTOBUF_C_LABEL_REPEATED &&
        !first_of_its_kind(type, known, seen))
        return td_fail(walk->reterr, TD_ESYNTAX, "%s.%s is given twice", type->short_name, known->name);
    if (known->type == PROTOBUF_C_TYPE_MESSAGE)
        return walk_message(walk, known->descriptor, field->value, field->len, depth + 1);
    return TD_OK;
}

static int walk_message(struct walk *walk, const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t len,
                        unsigned depth)
{
    struct field field;
    uint64_t seen = 0; /* singular messages, a bit each */
    size_t step;
    int rc;

    if (depth > TD_PB_MAX_DEPTH)
        return td_fail(walk->reterr, TD_ETOOBIG, "messages nested more than %d deep", TD_PB_MAX_DEPTH);
    for (; len > 0; data += step, len -= step) {
        step = read_field(data, len, &field);
        if (step == 0)
            return td_fail(walk->reterr, TD_ESYNTAX, "%s: malformed %zu bytes before its end", type->short_name,
                           len);
        rc = walk_field(walk, type, &field, depth, &seen);
        if (rc < 0)
            return rc;
    }
    return TD_OK;
}

/* Confluent wire format: 0x00, schema id, then the path of the message in its schema: a zigzag count and as many
 * indexes; the usual path [0] is the single byte 0. @return bytes of the frame, 0 when it is malformed */
static size_t frame_length(const uint8_t *data, size_t len)
{
    size_t at = 1 + FRAME_SCHEMA_ID_BYTES, step;
    uint64_t count, index;

    if (len <= at)
        return 0;
    step = read_varint(data + at, len - at, SHORT_VARINT_BYTES_MAX, &count);
    if (step == 0 || (count & 1) != 0 || count / 2 > FRAME_INDEXES_MAX) /* odd is negative */
        return 0;
    at += step;
    for (uint64_t i = 0; i < count / 2; i++) {
        step = read_varint(data + at, len - at, SHORT_VARINT_BYTES_MAX, &index);
        if (step == 0)
            return 0;
        at += step;
    }
    return at;
}

static void *arena_alloc(void *arena, size_t size)
{
    return td_arena_alloc(arena, size);
}

static void arena_free(void *arena, void *at)
{
    (void)arena; /* it dies with the arena */
    (void)at;
}

static void drop_unknown(ProtobufCMessage *msg);

static void drop_unknown_below(ProtobufCMessage *msg, const ProtobufCFieldDescriptor *field)
{
    const char *member = (const char *)msg + field->offset;
    const void *quantifier = (const char *)msg + field->quantifier_offset;

    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        ProtobufCMessage *const *items = *(ProtobufCMessage *const *const *)(const void *)member;

        for (size_t i = 0; i < *(const size_t *)quantifier; i++)
            drop_unknown(items[i]);
        return;
    }
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) && *(const uint32_t *)quantifier != field->id)
        return;
    if (*(ProtobufCMessage *const *)(const void *)member)
        drop_unknown(*(ProtobufCMessage *const *)(const void *)member);
}

/* Depth is known to be within the limit here. */
static void drop_unknown(ProtobufCMessage *msg)
{
    msg->n_unknown_fields = 0;
    msg->unknown_fields = NULL;
    for (unsigned i = 0; i < msg->descriptor->n_fields; i++) {
        if (msg->descriptor->fields[i].type == PROTOBUF_C_TYPE_MESSAGE)
            drop_unknown_below(msg, &msg->descriptor->fields[i]);
    }
}

int td_pb_read(const ProtobufCMessageDescriptor *type, const void *data, size_t len, struct td_arena *arena,
               ProtobufCMessage **ret_msg, struct td_err *reterr)
{
    ProtobufCAllocator allocator = {arena_alloc, arena_free, arena};
    struct walk walk = {0, reterr};
    const uint8_t *bytes = data;
    ProtobufCMessage *msg;
    int rc;

    if (len > 0 && bytes[0] == 0) {
        size_t frame = frame_length(bytes, len);

        if (frame == 0)
            return td_fail(reterr, TD_ESYNTAX, "begins with 0x00, but not with a schema registry's frame");
        bytes += frame;
        len -= frame;
    }
    rc = walk_message(&walk, type, bytes, len, 1);
    if (rc < 0)
        return rc;
    msg = protobuf_c_message_unpack(type, &allocator, len, bytes);
    if (!msg) /* the walk found nothing wrong with it: the arena ran out */
        return td_fail(reterr, TD_ETOOBIG, "%s of %zu bytes needs more memory than one message may have",
                       type->short_name, len);
    drop_unknown(msg);
    *ret_msg = msg;
    return TD_OK;
}

void *td_pb_write(const ProtobufCMessage *msg, size_t *ret_len)
{
    size_t size = protobuf_c_message_get_packed_size(msg);
    uint8_t *bytes = malloc(size ? size : 1); /* an empty message is a value, not a tombstone */

    if (!bytes)
        return NULL;
    *ret_len = protobuf_c_message_pack(msg, bytes);
    return bytes;
}
