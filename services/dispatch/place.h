/* place.h - how many mails may have begun and be with no relay: after a crash each is one that nobody knows about. Pure. */
#ifndef PLACE_H
#define PLACE_H

#include <stdbool.h>
#include <stddef.h>

/** For so many connections: bulk may have half as many, 8 at least and 256 at most; with express 8 more in all. */
size_t place_most(size_t connections, bool express);
/**
 * May one more begin? Bulk leaves express its 8; express leaves bulk its part of a fifth (TD_TURNS_EXPRESS), which would never
 * find a place otherwise while an express campaign fills each that falls free.
 * @param begun  bulk, express
 */
bool place_free(const size_t begun[2], size_t connections, bool express);

#endif /* PLACE_H */
