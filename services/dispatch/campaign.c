#include "campaign.h"

#include <stdlib.h>
#include <string.h>

#include "tandem/map.h"

struct ring {
    struct campaign *first, *last;
    size_t count;
};

struct campaign_set {
    struct td_map *by_id;
    struct ring ring[2];    /* bulk, express: with something in `go` */
    struct td_share slots;  /* of express and bulk */
    struct td_turns turns;  /* with something in `ready` */
};

bool bits_get(const struct bits *bits, uint32_t i)
{
    return i / 8 < bits->len && (bits->byte[i / 8] >> (i % 8) & 1);
}

int bits_set(struct bits *bits, uint32_t i, bool on)
{
    size_t need = (size_t)i / 8 + 1;

    if (need > bits->len) {
        size_t len = need < 64 ? 64 : need + need / 2;
        uint8_t *byte;

        if (!on)
            return TD_OK;
        byte = realloc(bits->byte, len);
        if (!byte)
            return TD_ENOMEM;
        memset(byte + bits->len, 0, len - bits->len);
        bits->byte = byte;
        bits->len = len;
    }
    if (on)
        bits->byte[i / 8] |= (uint8_t)(1u << (i % 8));
    else
        bits->byte[i / 8] &= (uint8_t)~(1u << (i % 8));
    return TD_OK;
}

struct campaign_set *campaign_set_new(void)
{
    struct campaign_set *c = calloc(1, sizeof(*c));

    if (c)
        c->by_id = td_map_new();
    if (c && c->by_id) {
        td_turns_init(&c->turns, 1);
        return c;
    }
    free(c);
    return NULL;
}

void campaign_set_free(struct campaign_set *campaigns)
{
    size_t cursor = 0;
    struct campaign *c;

    if (!campaigns)
        return;
    while ((c = td_map_next(campaigns->by_id, &cursor))) {
        free(c->busy.byte);
        free(c->doubted.byte);
        free(c->done.byte);
        free(c);
    }
    td_map_free(campaigns->by_id);
    free(campaigns);
}

struct campaign *campaign_get(struct campaign_set *campaigns, const char *id)
{
    size_t len = strlen(id);
    struct campaign *c = td_map_get(campaigns->by_id, id, len);

    if (c || len > TD_CAMPAIGN_ID_MAX)
        return c;
    c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    memcpy(c->id, id, len);
    if (td_map_set(campaigns->by_id, id, len, c) < 0) {
        free(c);
        return NULL;
    }
    return c;
}

static void ring_push(struct ring *ring, struct campaign *c)
{
    c->ring_next = NULL;
    if (ring->last)
        ring->last->ring_next = c;
    else
        ring->first = c;
    ring->last = c;
    ring->count++;
    c->in_ring = true;
}

static struct campaign *ring_pop(struct ring *ring)
{
    struct campaign *c = ring->first;

    ring->first = c->ring_next;
    if (!ring->first)
        ring->last = NULL;
    ring->count--;
    c->in_ring = false;
    return c;
}

void campaign_ready(struct campaign_set *campaigns, struct mail *mail, bool front)
{
    struct campaign *c = mail->campaign;
    struct mail_list *list = mail->begun ? &c->go : &c->ready;

    mail->state = mail->begun ? MAIL_GO : MAIL_READY;
    if (front)
        mail_push_front(list, mail);
    else
        mail_push(list, mail);
    if (!mail->begun)
        td_turns_join(&campaigns->turns, &c->turn, td_turn_class(c->express, c->recipients, c->served));
    else if (!c->in_ring)
        ring_push(&campaigns->ring[c->express], c);
}

static struct campaign *ring_turn(struct ring *ring)
{
    /* Campaigns whose mails are all gone fall out here; the one returned goes to the end. */
    while (ring->first) {
        struct campaign *c = ring_pop(ring);

        if (c->go.count == 0)
            continue;
        ring_push(ring, c);
        return c;
    }
    return NULL;
}

static bool offer_ring(struct ring *ring, bool (*offer)(void *user, struct campaign *c), void *user)
{
    for (size_t idle = 0; idle < ring->count; idle++) {
        struct campaign *c = ring_turn(ring);

        if (!c)
            return false;
        if (offer(user, c))
            return true;
    }
    return false;
}

bool campaign_offer(struct campaign_set *campaigns, struct campaign_round *round, bool (*offer)(void *user, struct campaign *c),
                    void *user)
{
    bool both = campaigns->ring[0].count > 0 && campaigns->ring[1].count > 0;
    bool bulk = td_share_second(&campaigns->slots, TD_TURNS_EXPRESS);

    for (int i = 0; i < 2; i++, bulk = !bulk) {
        if (round->over[!bulk])
            continue;
        if (offer_ring(&campaigns->ring[!bulk], offer, user)) {
            td_share_took(&campaigns->slots, TD_TURNS_EXPRESS, bulk, 1, both, 1);
            return true;
        }
        round->over[!bulk] = true;
    }
    return false;
}

struct admission {
    struct campaign_set *campaigns;
    bool (*admit)(void *user, struct campaign *c);
    void *user;
};

static unsigned admit_one(void *user, struct td_turn *turn, enum td_turn_class *class)
{
    const struct admission *a = user;
    struct campaign *c = (struct campaign *)turn;

    if (c->ready.count == 0) {
        td_turns_leave(&a->campaigns->turns, turn);
        return 0;
    }
    if (!a->admit(a->user, c))
        return 0;
    c->served++;
    *class = td_turn_class(c->express, c->recipients, c->served);
    return 1;
}

bool campaign_admit(struct campaign_set *campaigns, bool (*admit)(void *user, struct campaign *c), void *user)
{
    struct admission a = {campaigns, admit, user};

    return td_turns_serve(&campaigns->turns, admit_one, &a) > 0;
}

size_t campaign_waiting(const struct campaign_set *campaigns)
{
    size_t waiting = 0;

    for (size_t i = 0; i < 2; i++)
        for (const struct campaign *c = campaigns->ring[i].first; c; c = c->ring_next)
            waiting += c->paused ? 0 : c->go.count;
    for (size_t i = 0; i < TD_TURN_CLASSES; i++)
        for (const struct td_turn *turn = campaigns->turns.first[i]; turn; turn = turn->next)
            waiting += ((const struct campaign *)turn)->paused ? 0 : ((const struct campaign *)turn)->ready.count;
    return waiting;
}
