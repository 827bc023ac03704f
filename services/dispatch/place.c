#include "place.h"

#include "tandem/turns.h"

enum { PLACES_MIN = 8, PLACES_MAX = 256, PLACES_EXPRESS = 8 };

size_t place_most(size_t connections, bool express)
{
    size_t most = connections / 2;

    most = most < PLACES_MIN ? PLACES_MIN : most > PLACES_MAX ? PLACES_MAX : most;
    return most + (express ? PLACES_EXPRESS : 0);
}

bool place_free(const size_t begun[2], size_t connections, bool express)
{
    size_t all = place_most(connections, true);

    if (begun[0] + begun[1] >= all)
        return false;
    return express ? begun[1] < all - all / (TD_TURNS_EXPRESS + 1) : begun[0] < place_most(connections, false);
}
