/* tandem/arena.h - memory that dies together, with a budget that input cannot exceed. Pure. Not thread-safe. */
#ifndef TD_ARENA_H
#define TD_ARENA_H

#include <stddef.h>

struct td_arena; /* opaque */

/**
 * @param budget_bytes  most it will ever hand out; allocations past it return NULL
 * @return NULL when out of memory
 */
struct td_arena *td_arena_new(size_t budget_bytes);
void td_arena_free(struct td_arena *arena); /* and all it handed out; NULL is fine */
void td_arena_clear(struct td_arena *arena);

/** Aligned to max_align_t, not zeroed. NULL when over budget or out of memory. */
void *td_arena_alloc(struct td_arena *arena, size_t bytes);
void *td_arena_zalloc(struct td_arena *arena, size_t bytes);
void *td_arena_memdup(struct td_arena *arena, const void *data, size_t len);
char *td_arena_strdup(struct td_arena *arena, const char *str);
char *td_arena_strndup(struct td_arena *arena, const char *str, size_t len);
size_t td_arena_used(const struct td_arena *arena);

#endif /* TD_ARENA_H */
