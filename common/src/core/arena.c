/* Chunks in a list, each at least CHUNK_MIN; big allocations get a chunk of their own. */
#include "tandem/arena.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_MIN = 4096 };

struct chunk {
    struct chunk *next;
    size_t size, used;
    alignas(max_align_t) char data[];
};

struct td_arena {
    struct chunk *chunks; /* newest first */
    size_t budget, used;
};

struct td_arena *td_arena_new(size_t budget_bytes)
{
    struct td_arena *arena = calloc(1, sizeof(*arena));

    if (arena)
        arena->budget = budget_bytes;
    return arena;
}

void td_arena_clear(struct td_arena *arena)
{
    struct chunk *next;

    for (struct chunk *c = arena->chunks; c; c = next) {
        next = c->next;
        free(c);
    }
    arena->chunks = NULL;
    arena->used = 0;
}

void td_arena_free(struct td_arena *arena)
{
    if (!arena)
        return;
    td_arena_clear(arena);
    free(arena);
}

void *td_arena_alloc(struct td_arena *arena, size_t bytes)
{
    const size_t align = alignof(max_align_t);
    struct chunk *c = arena->chunks;
    void *at;

    if (bytes > arena->budget)
        return NULL;
    bytes = (bytes + align - 1) / align * align;
    if (bytes == 0)
        bytes = align;
    if (bytes > arena->budget - arena->used)
        return NULL;
    if (!c || c->size - c->used < bytes) {
        size_t size = bytes > CHUNK_MIN ? bytes : CHUNK_MIN;

        c = malloc(sizeof(*c) + size);
        if (!c)
            return NULL;
        *c = (struct chunk){.next = arena->chunks, .size = size};
        arena->chunks = c;
    }
    at = c->data + c->used;
    c->used += bytes;
    arena->used += bytes;
    return at;
}

void *td_arena_zalloc(struct td_arena *arena, size_t bytes)
{
    void *at = td_arena_alloc(arena, bytes);

    if (at)
        memset(at, 0, bytes);
    return at;
}

void *td_arena_memdup(struct td_arena *arena, const void *data, size_t len)
{
    void *at = td_arena_alloc(arena, len);

    if (at && len)
        memcpy(at, data, len);
    return at;
}

char *td_arena_strndup(struct td_arena *arena, const char *str, size_t len)
{
    char *at = len < (size_t)-1 ? td_arena_alloc(arena, len + 1) : NULL;

    if (!at)
        return NULL;
    memcpy(at, str, len);
    at[len] = '\0';
    return at;
}

char *td_arena_strdup(struct td_arena *arena, const char *str)
{
    return td_arena_strndup(arena, str, strlen(str));
}

size_t td_arena_used(const struct td_arena *arena)
{
    return arena->used;
}
