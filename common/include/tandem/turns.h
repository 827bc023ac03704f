/* tandem/turns.h - whose turn it is: campaigns that share a lane, a window or a relay. Pure. Not thread-safe.
 *
 * Three classes. EXPRESS goes before all others. SMALL are campaigns of few recipients, and those of an unknown
 * number of which little has been served; LARGE are the rest: while both have something, SMALL gets TD_TURNS_SMALL
 * of every TD_TURNS_SMALL + 1 mails, whatever the number of campaigns in either. So a small campaign is soon
 * through, and however many small ones come, the large ones keep their part. Within a class: deficit round robin,
 * `quantum` mails a turn. Nobody who waits costs the others anything, and no time that a class had nothing to do in
 * is made up for. */
#ifndef TD_TURNS_H
#define TD_TURNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
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

struct td_turns {
    struct td_turn *first[TD_TURN_CLASSES], *last[TD_TURN_CLASSES];
    size_t count[TD_TURN_CLASSES];
    int64_t quantum;
    int64_t lead; /* mails of SMALL less TD_TURNS_SMALL times those of LARGE, while both had some */
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
