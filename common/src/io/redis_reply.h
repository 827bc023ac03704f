/* redis_reply.h - what a server's words mean. Pure. */
#ifndef TD_REDIS_REPLY_H
#define TD_REDIS_REPLY_H

#include <stdbool.h>
#include <stddef.h>

/** Not this server, not now: READONLY, LOADING, MASTERDOWN, OOM, MISCONF and their like. */
bool redis_is_away(const char *error);
/** A server that has become a replica stays one: look for the master again. Out of memory passes by itself. */
bool redis_is_wrong_server(const char *error);
/** "name:value\r\n" of INFO; "" when it is not there or does not fit. */
void redis_info_field(const char *info, const char *name, char *out, size_t size);

#endif /* TD_REDIS_REPLY_H */
