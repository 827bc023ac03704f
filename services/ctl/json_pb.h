/* json_pb.h - JSON as td_pb_to_json writes it, back into a message. Pure (jansson). */
#ifndef CTL_JSON_PB_H
#define CTL_JSON_PB_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

#include "tandem/arena.h"
#include "tandem/err.h"

#define JSON_PB_MAX (16 << 20)

/**
 * Names are those of the .proto; enums by name or number; bytes as base64, or as hex when they are 16 or 32 bytes
 * long; 64-bit numbers as numbers or strings. An unknown name is refused: a typing error must not become a missing
 * field.
 * @param arena  holds the message
 * @return TD_OK; TD_ESYNTAX (line and column, or the path of the field, are in the text); TD_ETOOBIG; TD_ENOMEM
 */
int json_pb_read(const ProtobufCMessageDescriptor *type, const char *text, size_t len, struct td_arena *arena,
                 ProtobufCMessage **ret, struct td_err *reterr);

#endif /* CTL_JSON_PB_H */
