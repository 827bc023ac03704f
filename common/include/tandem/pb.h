/* tandem/pb.h - protobuf messages from outside, read within a budget. Pure (protobuf-c only). */
#ifndef TD_PB_H
#define TD_PB_H

#include <protobuf-c/protobuf-c.h>
#include <stdint.h>

#include "tandem/arena.h"
#include "tandem/err.h"

#define TD_PB_MAX_DEPTH 16
#define TD_PB_MAX_ELEMENTS 100000 /* sub-messages and repeated values of one message */

/** An arena's budget for a message of len bytes on the wire: its structs and pointers are larger than they were
 * there. */
static inline size_t td_pb_budget(size_t len)
{
    return 8 * len + 65536;
}

/**
 * Read one message. Before anything is allocated the wire bytes are walked by descriptor: depth, element
 * count, and every string must be UTF-8 without NUL (protobuf-c alone would cut it there, which is how an
 * address smuggles past a check), and no singular sub-message may come twice. Unknown fields are dropped.
 * @param data   the bytes; a Confluent frame (leading 0x00, 4-byte schema id, message index) is skipped,
 *               which is unambiguous because no protobuf message begins with 0x00
 * @param arena  holds the message; td_pb_budget(len) is enough
 * @param ret_msg  set on success; lives as long as the arena; never free it
 * @return TD_OK, TD_ESYNTAX (not such a message), TD_ETOOBIG (over a limit or the budget)
 */
int td_pb_read(const ProtobufCMessageDescriptor *type, const void *data, size_t len, struct td_arena *arena,
               ProtobufCMessage **ret_msg, struct td_err *reterr);

/** Pack a message into malloc'd memory; the caller frees. NULL when out of memory. */
void *td_pb_write(const ProtobufCMessage *msg, size_t *ret_len);

/**
 * A message as JSON for people (protobuf's JSON mapping: lowerCamelCase is NOT used, proto names are kept;
 * bytes as lower-case hex when 16 or 32 bytes long, else base64; 64-bit numbers as numbers).
 * Singular fields are written even when they are zero or empty, sub-messages and members of a oneof only when set.
 * @return malloc'd text the caller frees; NULL when out of memory
 */
char *td_pb_to_json(const ProtobufCMessage *msg);

/** Bytes that one value of a repeated field takes in the array where protobuf-c keeps it. */
size_t td_pb_value_size(ProtobufCType type);

/** Find one of Tandem's message types by its short name, such as "Submission" or "OutboundMessage"; NULL if none.
 */
const ProtobufCMessageDescriptor *td_pb_type(const char *short_name);

#endif /* TD_PB_H */
