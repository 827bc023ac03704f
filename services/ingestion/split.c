/* The first group of numbers goes to the first lane, the next to the second, and so on round the campaign's lanes. */
#include "split.h"

#include <inttypes.h>
#include <stdio.h>

#include "tandem/id.h"

uint32_t split_group(uint32_t index)
{
    enum { FEW = 1000, FEW_A_GROUP = 25, SOME = 10000, SOME_A_GROUP = 100 };
    const uint32_t some_from = FEW / FEW_A_GROUP, rest_from = some_from + (SOME - FEW) / SOME_A_GROUP;

    if (index < FEW)
        return index / FEW_A_GROUP;
    if (index < SOME)
        return some_from + (index - FEW) / SOME_A_GROUP;
    return rest_from + (index - SOME) / SPLIT_RECIPIENTS;
}

size_t split_recipients(const struct split_item *items, size_t count, const uint32_t *lanes, size_t lane_count,
                        struct split_chunk *out)
{
    size_t chunks = 0, bytes = 0;

    for (size_t i = 0; i < count; i++) {
        uint32_t group = split_group(items[i].index);
        struct split_chunk *chunk = chunks ? &out[chunks - 1] : NULL;

        if (!chunk || chunk->group != group || bytes + items[i].bytes > SPLIT_BYTES) {
            chunk = &out[chunks++];
            *chunk = (struct split_chunk){lanes[group % lane_count], group, i, 0};
            bytes = 0;
        }
        chunk->count++;
        bytes += items[i].bytes;
    }
    return chunks;
}

uint32_t split_part_count(uint64_t bytes)
{
    return bytes ? (uint32_t)((bytes + SPLIT_PART_BYTES - 1) / SPLIT_PART_BYTES) : 1;
}

size_t split_part_bytes(uint64_t bytes, uint32_t part)
{
    uint64_t begin = (uint64_t)part * SPLIT_PART_BYTES;

    if (begin >= bytes)
        return 0;
    return bytes - begin < SPLIT_PART_BYTES ? (size_t)(bytes - begin) : SPLIT_PART_BYTES;
}

size_t split_part_key(char out[SPLIT_PART_KEY_MAX], const uint8_t sha256[32], uint32_t part)
{
    char hex[65];

    td_hex(hex, sha256, 32);
    return (size_t)snprintf(out, SPLIT_PART_KEY_MAX, "part/%s/%" PRIu32, hex, part);
}
