/* relays.h - the relays of the configuration: pool, health and pace of each, and the choice for one mail. Loop thread only. */
#ifndef RELAYS_H
#define RELAYS_H

#include "health.h"
#include "mail.h"
#include "route.h"
#include "tandem/metrics.h"

struct relays;

struct relays_ops {
    void (*attempted)(void *user, struct mail *mail, const struct attempt_result *result);
    /** A relay may take more now: mails that wait should be offered again. */
    void (*moved)(void *user);
    /** first: this process made the change and tells the others. */
    void (*changed)(void *user, const char *relay, enum relay_state from, const struct relay_view *view, bool first);
    /** What bulk may do there changed. first: as above. */
    void (*bounces)(void *user, const char *relay, enum bounce_level from, const struct relay_view *view, bool first);
    /** A campaign bounces too much there and leaves this relay; told by one process of the fleet. */
    void (*campaign_left)(void *user, const char *relay, const char *campaign_id, const char *evidence);
};

int relays_new(uv_loop_t *loop, const struct td_settings *settings, struct td_redis *redis, struct td_metrics *metrics,
               const struct relays_ops *ops, void *user, struct relays **ret, struct td_err *reterr);
/** Close all connections; cb when none is left. */
void relays_stop(struct relays *relays, void (*cb)(void *user), void *user);
void relays_free(struct relays *relays);

/** Choose for this mail now. SEND has taken the slot and the trial grant: relays_send must follow. */
enum route_answer relays_choose(struct relays *relays, struct mail *mail, size_t *ret_relay);
/** Is there a relay of its route that might take it and is not in mail->avoid? */
bool relays_left(const struct relays *relays, const struct mail *mail);
/** What relays_choose would say, without taking anything. */
enum route_answer relays_look(struct relays *relays, const struct mail *mail);
/** How long its campaign has had no relay of its route, for bounces, its own or a relay's, ms; 0: it has one. As of the last relays_look. */
uint64_t relays_held_ms(const struct relays *relays, const struct mail *mail);
/** Connections that are up, to all relays together. */
size_t relays_connections(const struct relays *relays);
int relays_send(struct relays *relays, struct mail *mail, size_t relay);
/** Does this relay tell by events what it took (ses_configuration_set)? */
bool relays_tells(const struct relays *relays, size_t relay);
/** Does any relay of its route? */
bool relays_any_tells(const struct relays *relays, const struct mail *mail);
const char *relays_name(const struct relays *relays, size_t relay);
/** Its own classification rules, for reply_classify; NULL: none. */
const struct reply_rules *relays_rules(const struct relays *relays, size_t relay);
/** Tell health what a reply said of the relay. */
void relays_report(struct relays *relays, size_t relay, const struct reply_class *class);
/** How many mails wait, so that slots are leased by need. */
void relays_want(struct relays *relays, size_t waiting);
/** What part of all lanes this process has, 0..1: its share of each rate while Redis is away. */
void relays_part(struct relays *relays, double part);
/** At least one relay may be used, as far as is known. */
bool relays_any_fit(const struct relays *relays);

#endif /* RELAYS_H */
