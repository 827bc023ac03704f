/* redis_reply.c - hiredis' replies as the header shows them, and the words that servers refuse with. */
#include "redis_reply.h"

#include <stdlib.h>
#include <string.h>
#include <hiredis/hiredis.h>

#include "tandem/redis.h"

static const redisReply *raw(const struct td_reply *reply)
{
    return (const redisReply *)(const void *)reply;
}

enum td_reply_type td_reply_type(const struct td_reply *reply)
{
    switch (reply ? raw(reply)->type : REDIS_REPLY_NIL) {
    case REDIS_REPLY_INTEGER:
        return TD_REPLY_INT;
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
        return TD_REPLY_STR;
    case REDIS_REPLY_ARRAY:
        return TD_REPLY_ARRAY;
    default:
        return TD_REPLY_NIL;
    }
}

const char *td_reply_str(const struct td_reply *reply, size_t *ret_len)
{
    bool is_str = td_reply_type(reply) == TD_REPLY_STR;

    if (ret_len)
        *ret_len = is_str ? (size_t)raw(reply)->len : 0;
    return is_str ? raw(reply)->str : "";
}

long long td_reply_int(const struct td_reply *reply)
{
    return td_reply_type(reply) == TD_REPLY_INT ? raw(reply)->integer
                                                : strtoll(td_reply_str(reply, NULL), NULL, 10);
}

size_t td_reply_count(const struct td_reply *reply)
{
    return td_reply_type(reply) == TD_REPLY_ARRAY ? raw(reply)->elements : 0;
}

const struct td_reply *td_reply_at(const struct td_reply *reply, size_t i)
{
    return i < td_reply_count(reply) ? (const struct td_reply *)(const void *)raw(reply)->element[i] : NULL;
}

/* In scripts of Redis 6 the word stands behind a dash inside. */
bool redis_is_away(const char *error)
{
    static const char *const word[] = {"READONLY ",   "LOADING ",     "MASTERDOWN ", "OOM ",   "MISCONF ",
                                       "NOREPLICAS ", "CLUSTERDOWN ", "BUSY ",       "NOVIEW "};

    for (size_t i = 0; i < sizeof(word) / sizeof(word[0]); i++) {
        const char *at = strstr(error, word[i]);

        if (at && (at == error || at[-1] == '-'))
            return true;
    }
    return false;
}

bool redis_is_wrong_server(const char *error)
{
    return strstr(error, "NOVIEW ") || strstr(error, "READONLY ") || strstr(error, "LOADING ") ||
           strstr(error, "MASTERDOWN ");
}

void redis_info_field(const char *info, const char *name, char *out, size_t size)
{
    const char *at = info;
    size_t len = strlen(name);

    out[0] = '\0';
    while ((at = strstr(at, name))) {
        if ((at == info || at[-1] == '\n') && at[len] == ':') {
            size_t n = strcspn(at + len + 1, "\r\n");

            if (n < size) {
                memcpy(out, at + len + 1, n);
                out[n] = '\0';
            }
            return;
        }
        at += len;
    }
}
