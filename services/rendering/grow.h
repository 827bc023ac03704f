/* grow.h - an array that doubles. */
#ifndef RENDERING_GROW_H
#define RENDERING_GROW_H

#include <stddef.h>
#include <stdlib.h>

/**
 * Room for one more element.
 * @param array  malloc'd, or NULL with *cap 0
 * @param count  elements in use
 * @param size   of one element
 * @return where the array is now, with *cap raised; NULL when out of memory, and the array is as it was
 */
static inline void *grow(void *array, size_t *cap, size_t count, size_t size)
{
    size_t want = *cap ? *cap * 2 : 16;
    void *more;

    if (count < *cap)
        return array;
    more = realloc(array, want * size);
    if (more)
        *cap = want;
    return more;
}

#endif /* RENDERING_GROW_H */
