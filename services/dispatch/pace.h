/* pace.h - when the next mail may go to a relay: future slots leased from Redis (GCRA, common/lua/pace.lua),
 * shared by all dispatchers, never above the relay's quota and evenly spaced. Loop thread only. While Redis is
 * away: 0.8 x quota x the part of all lanes that this process has. Lanes have one owner each, so those parts are never
 * more than one together, whoever joins meanwhile; who has Redis leaves as much free for dispatchers that are not heard. A
 * relay without max_mails_per_s is not paced. */
#ifndef PACE_H
#define PACE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "tandem/err.h"
#include "tandem/redis.h"
#include "tandem/settings.h"

struct pace;

/** @param due  called when a slot has become due after pace_take said "wait" */
int pace_new(uv_loop_t *loop, struct td_redis *redis, const struct td_settings *settings,
             void (*due)(void *user, size_t relay), void *user, struct pace **ret, struct td_err *reterr);
void pace_free(struct pace *pace);

/** Take the slot that is due now. @param ret_slot_us  its moment, td_mono_us, for pace_sent; 0: the relay is not paced
 * @return 0: taken; else microseconds until it is worth asking again (`due` will be called) */
uint64_t pace_take(struct pace *pace, size_t relay, uint64_t *ret_slot_us);
/** The last octet of the mail that took this slot (0: that has been told of, and it went once more) was handed to the socket:
 * one that went late takes the room of a later one. Not needed for a mail that never went. */
void pace_sent(struct pace *pace, size_t relay, uint64_t slot_us, uint64_t now_us);
/** Tell how many mails wait, so that leases fit the need. Nothing is leased until pace_take asks: a slot that is
 * leased and not used is rate and quota lost. */
void pace_want(struct pace *pace, size_t relay, uint32_t waiting);
/** limited: part of the configured rate, 0..1. */
void pace_factor(struct pace *pace, size_t relay, double factor);
/** What part of all lanes this process has, 0..1; 0 until told. */
void pace_part(struct pace *pace, double part);
/** Is the relay's quota for now used up, so that mail should flow to the next relay rather than wait? true when
 * the next slot is more than max_wait_us away. */
bool pace_full(const struct pace *pace, size_t relay, uint64_t max_wait_us);

/** How many dispatchers share this relay's rate, as far as is known: at least 1. */
unsigned pace_members(const struct pace *pace, size_t relay);

#endif /* PACE_H */
