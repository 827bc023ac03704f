/* tandem/map.h - a hash map from bytes to a pointer. Pure. Not thread-safe. Keys are copied; values are the
 * caller's. */
#ifndef TD_MAP_H
#define TD_MAP_H

#include <stddef.h>

struct td_map;

struct td_map *td_map_new(void);      /* NULL when out of memory */
void td_map_free(struct td_map *map); /* not the values; NULL is fine */
size_t td_map_count(const struct td_map *map);
void *td_map_get(const struct td_map *map, const void *key, size_t key_len); /* NULL when absent */
/** Set or replace. value must not be NULL. @return TD_OK or TD_ENOMEM (unchanged) */
int td_map_set(struct td_map *map, const void *key, size_t key_len, void *value);
/** @return the value that was there, NULL when absent */
void *td_map_remove(struct td_map *map, const void *key, size_t key_len);
/** Walk: *cursor begins at 0; NULL at the end. The map must not change meanwhile. */
void *td_map_next(const struct td_map *map, size_t *cursor);

#endif /* TD_MAP_H */
