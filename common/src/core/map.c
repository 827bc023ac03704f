/* Open addressing with linear probing; a removed entry's followers are moved up, so there are no tombstones. */
#include "tandem/map.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../hash.h"
#include "tandem/err.h"

struct entry {
    void *value; /* NULL: free */
    char *key;
    size_t key_len;
    uint64_t hash;
};

struct td_map {
    struct entry *entries;
    size_t cap, count; /* cap is a power of two */
};

struct td_map *td_map_new(void)
{
    struct td_map *map = calloc(1, sizeof(*map));

    if (!map)
        return NULL;
    map->cap = 16;
    map->entries = calloc(map->cap, sizeof(*map->entries));
    if (!map->entries) {
        free(map);
        return NULL;
    }
    return map;
}

void td_map_free(struct td_map *map)
{
    if (!map)
        return;
    for (size_t i = 0; i < map->cap; i++)
        free(map->entries[i].key);
    free(map->entries);
    free(map);
}

size_t td_map_count(const struct td_map *map)
{
    return map->count;
}

/* Where the key is, or the free entry where it would go. */
static size_t slot_of(const struct td_map *map, const void *key, size_t key_len, uint64_t hash)
{
    size_t i = (size_t)hash & (map->cap - 1);

    while (map->entries[i].value) {
        const struct entry *e = &map->entries[i];

        if (e->hash == hash && e->key_len == key_len && memcmp(e->key, key, key_len) == 0)
            break;
        i = (i + 1) & (map->cap - 1);
    }
    return i;
}

void *td_map_get(const struct td_map *map, const void *key, size_t key_len)
{
    return map->entries[slot_of(map, key, key_len, td_hash_key(key, key_len))].value;
}

static int grow(struct td_map *map)
{
    struct entry *old = map->entries;
    size_t old_cap = map->cap;
    struct entry *entries = calloc(old_cap * 2, sizeof(*entries));

    if (!entries)
        return TD_ENOMEM;
    map->entries = entries;
    map->cap = old_cap * 2;
    for (size_t i = 0; i < old_cap; i++)
        if (old[i].value)
            entries[slot_of(map, old[i].key, old[i].key_len, old[i].hash)] = old[i];
    free(old);
    return TD_OK;
}

int td_map_set(struct td_map *map, const void *key, size_t key_len, void *value)
{
    uint64_t hash = td_hash_key(key, key_len);
    struct entry *e;
    char *copy;

    if (map->count * 4 >= map->cap * 3 && grow(map) < 0)
        return TD_ENOMEM;
    e = &map->entries[slot_of(map, key, key_len, hash)];
    if (e->value) {
        e->value = value;
        return TD_OK;
    }
    copy = malloc(key_len ? key_len : 1);
    if (!copy)
        return TD_ENOMEM;
    memcpy(copy, key, key_len);
    *e = (struct entry){value, copy, key_len, hash};
    map->count++;
    return TD_OK;
}

void *td_map_remove(struct td_map *map, const void *key, size_t key_len)
{
    size_t hole = slot_of(map, key, key_len, td_hash_key(key, key_len)), i = hole;
    void *value = map->entries[hole].value;

    if (!value)
        return NULL;
    free(map->entries[hole].key);
    for (;;) {
        size_t home;

        i = (i + 1) & (map->cap - 1);
        if (!map->entries[i].value)
            break;
        home = (size_t)map->entries[i].hash & (map->cap - 1);
        /* An entry may move up to the hole unless its home lies between hole and itself. */
        if (((i - home) & (map->cap - 1)) >= ((i - hole) & (map->cap - 1))) {
            map->entries[hole] = map->entries[i];
            hole = i;
        }
    }
    map->entries[hole] = (struct entry){NULL, NULL, 0, 0};
    map->count--;
    return value;
}

void *td_map_next(const struct td_map *map, size_t *cursor)
{
    while (*cursor < map->cap) {
        const struct entry *e = &map->entries[(*cursor)++];

        if (e->value)
            return e->value;
    }
    return NULL;
}
