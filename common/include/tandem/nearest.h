/* tandem/nearest.h - the name that a mistyped one may have meant. Pure. */
#ifndef TD_NEAREST_H
#define TD_NEAREST_H

#include <stddef.h>

/**
 * The nearest of names by edit distance (Levenshtein, of bytes): at most 1, 2 or 3 edits away, by the length of
 * name, as past that a guess confuses. Of names only the first 64 bytes are looked at. O(count).
 * @return one of names; NULL when none is near
 */
const char *td_nearest(const char *name, const char *const *names, size_t count);

#endif /* TD_NEAREST_H */
