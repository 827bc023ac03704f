/* Keys of a table: open addressing over pointers to items that hold their key, so that a million keys cost about
 * 80 MB (with td_map, half as much again: a key of its own each), and a list of cached values by last use. Only
 * items whose value is cached pay for the list. */
#include "kafka_int.h"

#include <stdlib.h>
#include <string.h>

#include "../hash.h"

struct kafka_cached {
    struct kafka_cached *newer, *older;
    struct kafka_item *item;
    struct td_table_value *value; /* one reference */
};

struct kafka_index {
    struct kafka_item **slots;
    size_t cap, count; /* cap is a power of two */
    struct kafka_cached *newest, *oldest;
    size_t bytes, limit; /* of values and their list */
};

struct td_table_value *td_table_value_ref(struct td_table_value *value)
{
    value->refs++;
    return value;
}

void td_table_value_unref(struct td_table_value *value)
{
    if (value && --value->refs == 0)
        free(value);
}

static uint32_t hash_of(const void *key, size_t len)
{
    return (uint32_t)(td_hash_key(key, len) >> 32);
}

struct kafka_index *kafka_index_new(size_t cache_bytes)
{
    struct kafka_index *index = calloc(1, sizeof(*index));

    if (!index)
        return NULL;
    index->limit = cache_bytes;
    index->cap = 64;
    index->slots = calloc(index->cap, sizeof(*index->slots));
    if (!index->slots) {
        free(index);
        return NULL;
    }
    return index;
}

/* ---- the cache ---- */

static size_t cost(const struct td_table_value *value)
{
    return sizeof(struct kafka_cached) + sizeof(*value) + value->len;
}

static void unlink_cached(struct kafka_index *index, struct kafka_cached *cached)
{
    *(cached->newer ? &cached->newer->older : &index->newest) = cached->older;
    *(cached->older ? &cached->older->newer : &index->oldest) = cached->newer;
}

static void link_newest(struct kafka_index *index, struct kafka_cached *cached)
{
    cached->newer = NULL;
    cached->older = index->newest;
    *(index->newest ? &index->newest->newer : &index->oldest) = cached;
    index->newest = cached;
}

static void drop_cached(struct kafka_index *index, struct kafka_cached *cached)
{
    unlink_cached(index, cached);
    index->bytes -= cost(cached->value);
    cached->item->cached = NULL;
    td_table_value_unref(cached->value);
    free(cached);
}

void kafka_index_cache(struct kafka_index *index, struct kafka_item *item, struct td_table_value *value)
{
    struct kafka_cached *cached;

    if (item->cached)
        drop_cached(index, item->cached);
    if (cost(value) > index->limit)
        return;
    while (index->bytes + cost(value) > index->limit)
        drop_cached(index, index->oldest); /* NOLINT(clang-analyzer-unix.Malloc): unlinked before it is freed */
    cached = malloc(sizeof(*cached));
    if (!cached)
        return; /* it can be read again */
    cached->item = item;
    cached->value = td_table_value_ref(value);
    item->cached = cached;
    index->bytes += cost(value);
    link_newest(index, cached);
}

struct td_table_value *kafka_index_cached(struct kafka_index *index, struct kafka_item *item)
{
    if (!item->cached)
        return NULL;
    unlink_cached(index, item->cached);
    link_newest(index, item->cached);
    return item->cached->value;
}

size_t kafka_index_cached_bytes(const struct kafka_index *index)
{
    return index->bytes;
}

/* ---- the keys ---- */

/* Where the key is, or the free slot where it would go. */
static size_t slot_of(const struct kafka_index *index, const void *key, size_t key_len, uint32_t hash)
{
    size_t i = hash & (index->cap - 1);

    while (index->slots[i]) {
        const struct kafka_item *item = index->slots[i];

        if (item->hash == hash && item->key_len == key_len && memcmp(item->key, key, key_len) == 0)
            break;
        i = (i + 1) & (index->cap - 1);
    }
    return i;
}

static bool grow(struct kafka_index *index)
{
    struct kafka_item **old = index->slots, **slots = calloc(index->cap * 2, sizeof(*slots));
    size_t old_cap = index->cap;

    if (!slots)
        return false;
    index->slots = slots;
    index->cap = old_cap * 2;
    for (size_t i = 0; i < old_cap; i++) {
        size_t at;

        if (!old[i])
            continue;
        at = old[i]->hash & (index->cap - 1);
        while (slots[at])
            at = (at + 1) & (index->cap - 1);
        slots[at] = old[i];
    }
    free(old);
    return true;
}

struct kafka_item *kafka_index_find(const struct kafka_index *index, const void *key, size_t key_len)
{
    return index->slots[slot_of(index, key, key_len, hash_of(key, key_len))];
}

struct kafka_item *kafka_index_put(struct kafka_index *index, const void *key, size_t key_len, uint16_t partition,
                                   int64_t offset)
{
    uint32_t hash = hash_of(key, key_len);
    struct kafka_item *item;
    size_t at;

    if (key_len > KAFKA_KEY_MAX || (index->count * 10 >= index->cap * 7 && !grow(index)))
        return NULL;
    at = slot_of(index, key, key_len, hash);
    item = index->slots[at];
    if (!item) {
        item = malloc(sizeof(*item) + key_len);
        if (!item)
            return NULL;
        item->cached = NULL;
        item->hash = hash;
        item->key_len = (uint16_t)key_len;
        memcpy(item->key, key, key_len);
        index->slots[at] = item;
        index->count++;
    } else if (item->cached) {
        drop_cached(index, item->cached);
    }
    item->partition = partition;
    item->offset = offset;
    return item;
}

void kafka_index_remove(struct kafka_index *index, const void *key, size_t key_len)
{
    size_t mask = index->cap - 1, hole = slot_of(index, key, key_len, hash_of(key, key_len)), i = hole;
    struct kafka_item *item = index->slots[hole];

    if (!item)
        return;
    if (item->cached)
        drop_cached(index, item->cached);
    free(item);
    for (;;) {
        i = (i + 1) & mask;
        if (!index->slots[i])
            break;
        /* An entry may move up to the hole unless its home lies between hole and itself. */
        if (((i - index->slots[i]->hash) & mask) >= ((i - hole) & mask)) {
            index->slots[hole] = index->slots[i];
            hole = i;
        }
    }
    index->slots[hole] = NULL;
    index->count--;
}

size_t kafka_index_count(const struct kafka_index *index)
{
    return index->count;
}

void kafka_index_free(struct kafka_index *index)
{
    if (!index)
        return;
    while (index->oldest)
        drop_cached(index, index->oldest); /* NOLINT(clang-analyzer-unix.Malloc): the same */
    for (size_t i = 0; i < index->cap; i++)
        free(index->slots[i]);
    free(index->slots);
    free(index);
}
