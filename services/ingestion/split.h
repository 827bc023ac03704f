/* split.h - how recipients become chunks on lanes, and an attachment becomes parts. Pure. */
#ifndef INGESTION_SPLIT_H
#define INGESTION_SPLIT_H

#include <stddef.h>
#include <stdint.h>

#define SPLIT_RECIPIENTS 500      /* most in a chunk, and how many neighbours share a lane, past the first 10,000 */
#define SPLIT_BYTES (800 * 1000)  /* most packed bytes of a chunk; Kafka's default record limit is 1,048,588 */
#define SPLIT_PART_BYTES 900000   /* every part of an attachment but the last */
#define SPLIT_INDEX_MAX 16777215u /* highest recipient number: what the ledger's keys are bounded by */

struct split_item {
    uint32_t index; /* the recipient's number */
    size_t bytes;   /* packed, <= SPLIT_BYTES */
};

struct split_chunk {
    uint32_t lane;
    uint32_t group;      /* split_group of its numbers: the number in the record's key */
    size_t first, count; /* range of the items */
};

/**
 * Which neighbours share a chunk and a lane: the first 1,000 numbers by 25, those up to 10,000 by 100, all above by
 * 500. So a small campaign lies evenly on its lanes, and each dispatcher has its part of it; a large one does not
 * need small records.
 */
uint32_t split_group(uint32_t index);

/**
 * Cut items, in rising order of index, into chunks. A recipient's lane depends on its number alone, so that the
 * same batch sent again, or cut another way, meets its earlier self in one lane.
 * @param lane_count  > 0
 * @param out         room for `count` chunks, the worst case
 * @return chunks written
 */
size_t split_recipients(const struct split_item *items, size_t count, const uint32_t *lanes, size_t lane_count,
                        struct split_chunk *out);

/** Parts that `bytes` make: at least 1. */
uint32_t split_part_count(uint64_t bytes);
/** Bytes of part `part` of part_count when the whole has `bytes`. */
size_t split_part_bytes(uint64_t bytes, uint32_t part);

#define SPLIT_PART_KEY_MAX (5 + 64 + 1 + 10 + 1)
/** "part/<sha256 in hex>/<part>". @return its length */
size_t split_part_key(char out[SPLIT_PART_KEY_MAX], const uint8_t sha256[32], uint32_t part);

#endif /* INGESTION_SPLIT_H */
