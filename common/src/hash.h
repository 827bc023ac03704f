/* hash.h - a hash for tables and for spreading, not against an enemy. Never leaves common/. */
#ifndef TD_HASH_H
#define TD_HASH_H

#include <stddef.h>
#include <stdint.h>

/* FNV-1a. It barely mixes the last byte: who looks at few bits of it mixes once more. */
static inline uint64_t td_fnv1a(const void *data, size_t len)
{
    const unsigned char *p = data;
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

/* For tables whose keys are our own ids and hashes, as many as were admitted: high bits are good, low bits are
 * too. */
static inline uint64_t td_hash_key(const void *key, size_t len)
{
    uint64_t h = td_fnv1a(key, len);

    return (h ^ (h >> 32)) * UINT64_C(0x9e3779b97f4a7c15);
}

#endif /* TD_HASH_H */
