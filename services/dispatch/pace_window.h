/* pace_window.h - one dispatcher's own slots of a relay's rate, and when its mails really went: no second may hold
 * more of its mails than it had slots. Pure; times are td_mono_us, and what lies more than a second back is forgotten.
 *
 * A slot is a moment for MAIL. What the relay counts is the mail, when its last octet is there: some round trips
 * later, and later still where a process waits for a processor, a connection has gone stale, or octets were lost on
 * the way. A mail that comes later than most comes close to those of the next second's slots, and one of these is to be
 * given up for it.
 *
 * Several dispatchers together keep the rate when each does, because all slots together keep it; but one that has less
 * than two slots a second may have none to give up in time. */
#ifndef PACE_WINDOW_H
#define PACE_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#define PACE_WINDOW_MS 1024 /* a second, and what a mail may be late without its slot being missed */

struct pace_window {
    uint64_t now_ms; /* the newest of the milliseconds below, which are a ring */
    uint16_t slots[PACE_WINDOW_MS];   /* due then, used or lost */
    uint16_t started[PACE_WINDOW_MS]; /* mails of those slots that are not whole yet */
    uint16_t sent[PACE_WINDOW_MS];    /* mails whose last octet went then */
    uint32_t slots_sum, started_sum, sent_sum; /* of a second, and of what a mail may be late */
    uint64_t late_until_us; /* no second that ends from then on holds a mail that was late */
    uint64_t usual_us, quicker_at_us; /* from slot to last octet: half of the mails are quicker; when the last one was */
    uint32_t ways;                    /* seen, up to some */
    uint32_t spent;                   /* on slots given up lately, in slots */
};

/** May a mail begin now? Its slot is then told by pace_window_slot; if not, too, as not used. */
bool pace_window_fits(struct pace_window *w, uint64_t now_us);
/** A slot of ours has come. @param used  a mail has begun on it */
void pace_window_slot(struct pace_window *w, uint64_t due_us, bool used, uint64_t now_us);
/** The mail that began on this slot is whole: its last octet was handed to the socket. One that never is needs no
 * word: it counts where its slot was. @param slot_us  0: it went once more, without a slot of its own */
void pace_window_sent(struct pace_window *w, uint64_t slot_us, uint64_t now_us);

/** Our slots of the last second were really so much earlier than was thought: the mails on them were late. */
void pace_window_earlier(struct pace_window *w, uint64_t by_us, uint64_t now_us);

#endif /* PACE_WINDOW_H */
