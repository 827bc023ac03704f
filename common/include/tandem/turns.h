/* tandem/turns.h - whose turn it is: campaigns that share a lane, a window or a relay. Pure. Not thread-safe.
 *
 * Three classes. EXPRESS goes first; bulk is the rest. While both have something, EXPRESS gets TD_TURNS_EXPRESS of
 * every TD_TURNS_EXPRESS + 1 mails, so that an express campaign of a million leaves bulk its fifth. Of bulk, SMALL are
 * campaigns of few recipients, and those of an unknown number of which little has been served; LARGE are the others:
 * while both have something, SMALL gets TD_TURNS_SMALL of every TD_TURNS_SMALL + 1 mails, whatever the number of
 * campaigns in either. So a small campaign is soon through, and however many small ones come, the large ones keep
 * their part. Within a class: deficit round robin, `quantum` mails a turn. Nobody who waits costs the others anything,
 * and no time that a class had nothing to do in is made up for but by a few turns. */
#ifndef TD_TURNS_H
#define TD_TURNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TD_TURNS_EXPRESS = 4,       /* mails of express to each one of bulk */
    TD_TURNS_SMALL = 4,         /* mails of small campaigns to each one of large ones */
    TD_TURNS_SMALL_MAILS = 2000 /* a campaign of more is large */
};

enum td_turn_class { TD_TURN_EXPRESS = 0, TD_TURN_SMALL, TD_TURN_LARGE, TD_TURN_CLASSES };

/** The class of a campaign. recipients: as it says itself, 0 when it does not. served: mails so far. */
enum td_turn_class td_turn_class(bool express, uint64_t recipients, uint64_t served);

struct td_turn { /* part of what takes turns; all zero: not in. Only turns.c looks inside. */
    struct td_turn *prev, *next;
    enum td_turn_class class;
    bool in;
    int64_t left; /* of its turn */
};

/* Two that share, whichever the first is: of the first's mails less its weight times those of the second. */
struct td_share {
    int64_t lead;
};
/** Is it the second's turn, of those that take one mail for `weight` of the first? */
bool td_share_second(const struct td_share *share, unsigned weight);
/**
 * One of them took so many mails.
 * @param both     something of either waits: else nothing is owed
 * @param quantum  mails a turn: no more than this one turn of the second, and its weight's of the first, is owed
 */
void td_share_took(struct td_share *share, unsigned weight, bool second, unsigned mails, bool both, unsigned quantum);

struct td_turns {
    struct td_turn *first[TD_TURN_CLASSES], *last[TD_TURN_CLASSES];
    size_t count[TD_TURN_CLASSES];
    unsigned quantum;
    struct td_share express, small; /* EXPRESS and bulk; SMALL and LARGE */
};

void td_turns_init(struct td_turns *turns, unsigned quantum);
/** To the end of its class; nothing when it is in. */
void td_turns_join(struct td_turns *turns, struct td_turn *turn, enum td_turn_class class);
void td_turns_leave(struct td_turns *turns, struct td_turn *turn); /* nothing when it is not in */
/**
 * Offer the turn, in order, until somebody takes it.
 * @param serve  @return mails served, > 0: the turn was taken, and anybody may have left or joined; 0: it cannot
 *               now, and nobody has, but it may have left itself.
 * @param class  its class from now on
 * @return the taker's mails; 0: nobody can
 */
unsigned td_turns_serve(struct td_turns *turns,
                        unsigned (*serve)(void *user, struct td_turn *turn, enum td_turn_class *class),
                        void *user);

#endif /* TD_TURNS_H */
