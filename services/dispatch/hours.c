#include "hours.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/id.h"
#include "tandem/ledger.h"
#include "tandem/map.h"

enum {
    WAITING_MAX = 100000, /* while Redis is away; what is beyond the campaign's next mail makes good */
    UNDER_WAY_MAX = 1000,
    TEXT_MAX = 96 /* "<relay> <hour> a|h <total>" */
};

struct total {
    struct hours *owner;
    char campaign_id[TD_CAMPAIGN_ID_MAX + 1];
    char what[TEXT_MAX]; /* "<relay> <hour> a|h" */
    uint64_t value, told;
    bool under_way;
};

struct hours {
    struct td_redis *redis;
    struct td_map *map; /* by campaign and what */
    size_t under_way;
};

struct hours *hours_new(struct td_redis *redis)
{
    struct hours *h = calloc(1, sizeof(*h));

    if (!h)
        return NULL;
    h->redis = redis;
    h->map = td_map_new();
    if (h->map)
        return h;
    free(h);
    return NULL;
}

void hours_free(struct hours *h)
{
    struct total *total;
    size_t cursor = 0;

    if (!h)
        return;
    while ((total = td_map_next(h->map, &cursor)))
        free(total);
    td_map_free(h->map);
    free(h);
}

static size_t key_of(char *key, size_t size, const char *campaign_id, const char *what)
{
    return (size_t)snprintf(key, size, "%s %s", campaign_id, what);
}

static void note(struct hours *h, const char *campaign_id, const char *text)
{
    char what[TEXT_MAX], key[TD_CAMPAIGN_ID_MAX + TEXT_MAX + 2];
    const char *last = strrchr(text, ' ');
    struct total *total;
    size_t len;
    uint64_t value;

    if (!last || last == text || (size_t)(last - text) >= sizeof(what))
        return;
    memcpy(what, text, (size_t)(last - text));
    what[last - text] = '\0';
    value = strtoull(last + 1, NULL, 10);
    len = key_of(key, sizeof(key), campaign_id, what);
    total = td_map_get(h->map, key, len);
    if (!total && td_map_count(h->map) < WAITING_MAX) {
        total = calloc(1, sizeof(*total));
        if (total && td_map_set(h->map, key, len, total) < 0) {
            free(total);
            total = NULL;
        }
        if (total) {
            total->owner = h;
            snprintf(total->campaign_id, sizeof(total->campaign_id), "%s", campaign_id);
            memcpy(total->what, what, sizeof(total->what));
        }
    }
    if (total && value > total->value)
        total->value = value;
}

void hours_note(struct hours *h, const char *campaign_id, const struct td_reply *texts)
{
    for (size_t i = 0; i < td_reply_count(texts); i++)
        note(h, campaign_id, td_reply_str(td_reply_at(texts, i), NULL));
}

static void forget(struct total *total)
{
    char key[TD_CAMPAIGN_ID_MAX + TEXT_MAX + 2];

    td_map_remove(total->owner->map, key, key_of(key, sizeof(key), total->campaign_id, total->what));
    free(total);
}

static void on_told(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct total *total = user;

    (void)reply;
    total->under_way = false;
    total->owner->under_way--;
    if (!err && total->told >= total->value)
        forget(total);
}

/* @return false: never, so it is of no use */
static bool tell(struct total *total)
{
    char text[TEXT_MAX + 24];
    int rc;

    snprintf(text, sizeof(text), "%s %" PRIu64, total->what, total->value);
    total->told = total->value;
    rc = td_relay_count(total->owner->redis, total->campaign_id, text, on_told, total);
    total->under_way = td_redis_answers(rc);
    total->owner->under_way += total->under_way;
    return rc != TD_EINVAL;
}

void hours_flush(struct hours *h)
{
    struct total *total, *useless = NULL;
    size_t cursor = 0;

    if (!td_redis_up(h->redis))
        return;
    while (h->under_way < UNDER_WAY_MAX && (total = td_map_next(h->map, &cursor)))
        if (!total->under_way && !tell(total))
            useless = total;
    if (useless) /* one a turn: the map must not change under the walk */
        forget(useless);
}

size_t hours_waiting(const struct hours *h)
{
    return td_map_count(h->map);
}
