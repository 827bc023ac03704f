#include "tandem/turns.h"

enum td_turn_class td_turn_class(bool express, uint64_t recipients, uint64_t served)
{
    if (express)
        return TD_TURN_EXPRESS;
    return recipients > TD_TURNS_SMALL_MAILS || served >= TD_TURNS_SMALL_MAILS ? TD_TURN_LARGE : TD_TURN_SMALL;
}

void td_turns_init(struct td_turns *turns, unsigned quantum)
{
    *turns = (struct td_turns){.quantum = quantum};
}

void td_turns_join(struct td_turns *turns, struct td_turn *turn, enum td_turn_class class)
{
    if (turn->in)
        return;
    *turn = (struct td_turn){.prev = turns->last[class], .class = class, .in = true, .left = turns->quantum};
    if (turn->prev)
        turn->prev->next = turn;
    else
        turns->first[class] = turn;
    turns->last[class] = turn;
    turns->count[class]++;
}

void td_turns_leave(struct td_turns *turns, struct td_turn *turn)
{
    enum td_turn_class class = turn->class;

    if (!turn->in)
        return;
    if (turn->prev)
        turn->prev->next = turn->next;
    else
        turns->first[class] = turn->next;
    if (turn->next)
        turn->next->prev = turn->prev;
    else
        turns->last[class] = turn->prev;
    turns->count[class]--;
    turn->in = false;
}

/* A turn that is used up goes to the end; what it took too much is taken off the next one. */
static void took(struct td_turns *turns, struct td_turn *turn, enum td_turn_class class, unsigned mails)
{
    int64_t left = turn->left - mails;

    if (!turn->in)
        return;
    turn->left = left;
    if (left > 0 && class == turn->class)
        return;
    td_turns_leave(turns, turn);
    td_turns_join(turns, turn, class);
    turn->left += left < 0 ? left : 0;
    if (turn->left < 1)
        turn->left = 1;
}

static unsigned serve_class(struct td_turns *turns, enum td_turn_class class,
                            unsigned (*serve)(void *user, struct td_turn *turn, enum td_turn_class *class),
                            void *user)
{
    for (struct td_turn *turn = turns->first[class], *next; turn; turn = next) {
        enum td_turn_class after = class;
        unsigned mails;

        next = turn->next;
        mails = serve(user, turn, &after);
        if (mails > 0) {
            took(turns, turn, after, mails);
            return mails;
        }
    }
    return 0;
}

bool td_share_second(const struct td_share *share, unsigned weight)
{
    return share->lead >= (int64_t)weight;
}

void td_share_took(struct td_share *share, unsigned weight, bool second, unsigned mails, bool both, unsigned quantum)
{
    int64_t most = (int64_t)quantum * weight, lead = share->lead + (second ? -(int64_t)mails * weight : (int64_t)mails);

    share->lead = !both ? 0 : lead > most ? most : lead < -most ? -most : lead;
}

typedef unsigned serve_fn(void *user, struct td_turn *turn, enum td_turn_class *class);

static unsigned serve_bulk(struct td_turns *turns, serve_fn *serve, void *user)
{
    bool both = turns->count[TD_TURN_SMALL] > 0 && turns->count[TD_TURN_LARGE] > 0;
    bool large = td_share_second(&turns->small, TD_TURNS_SMALL);
    unsigned mails = serve_class(turns, large ? TD_TURN_LARGE : TD_TURN_SMALL, serve, user);

    if (mails == 0) {
        large = !large;
        mails = serve_class(turns, large ? TD_TURN_LARGE : TD_TURN_SMALL, serve, user);
    }
    td_share_took(&turns->small, TD_TURNS_SMALL, large, mails, both, turns->quantum);
    return mails;
}

unsigned td_turns_serve(struct td_turns *turns,
                        unsigned (*serve)(void *user, struct td_turn *turn, enum td_turn_class *class),
                        void *user)
{
    bool both = turns->count[TD_TURN_EXPRESS] > 0 && turns->count[TD_TURN_SMALL] + turns->count[TD_TURN_LARGE] > 0;
    bool bulk = td_share_second(&turns->express, TD_TURNS_EXPRESS);
    unsigned mails = bulk ? serve_bulk(turns, serve, user) : serve_class(turns, TD_TURN_EXPRESS, serve, user);

    if (mails == 0) {
        bulk = !bulk;
        mails = bulk ? serve_bulk(turns, serve, user) : serve_class(turns, TD_TURN_EXPRESS, serve, user);
    }
    td_share_took(&turns->express, TD_TURNS_EXPRESS, bulk, mails, both, turns->quantum);
    return mails;
}
