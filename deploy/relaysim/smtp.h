/* smtp.h - what the relay answers: commands, message text, limits, faults. No descriptor is touched here. */
#ifndef RELAYSIM_SMTP_H
#define RELAYSIM_SMTP_H

#include "session.h"

/**
 * Go on with the session as far as these octets reach (also with none: a greeting or a final reply may be due).
 * @return how many were used up; the caller keeps the rest for the next call
 */
size_t smtp_feed(struct session *session, const char *data, size_t len);

/** Do what the fault at this point asks for. true: it has taken over, the caller does nothing more. */
bool smtp_fault(struct session *session, enum fault_point at);
void smtp_fault_do(struct session *session, const struct fault *fault, enum fault_point at);

/** The peer was silent for too long. */
void smtp_idle(struct session *session);

/** Queue "<code>[ <enhanced>] <text>"; enhanced ("" = none) is left out in the ses profile. 421 also ends. */
void smtp_reply(struct session *session, int code, const char *enhanced, const char *text);
/** Queue octets as they are. */
void smtp_say(struct session *session, const char *text, size_t len);

/* message.c: the text of a message and its end. */
void message_begin(struct session *session); /* MAIL was taken */
void message_reset(struct mail *mail);
void message_text(struct session *session, struct slice piece);
/** The text is whole: decide, write it down, answer. false: paused, call again. */
bool message_final(struct session *session);

/* auth.c */
void auth_begin(struct session *session, struct slice args);
void auth_go_on(struct session *session, struct slice line);

#endif /* RELAYSIM_SMTP_H */
