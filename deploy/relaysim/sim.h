/* sim.h - the relay as a whole: what its sessions, its control port and its bouncer share. One thread. */
#ifndef RELAYSIM_SIM_H
#define RELAYSIM_SIM_H

#include "fault.h"
#include "ledger.h"
#include "throttle.h"
#include "loop.h"
#include "options.h"
#include "tls.h"

#define INPUT_MAX (256u * 1024u) /* one read; the buffer is shared by all sessions and stays in the cache */

struct session;
struct bouncer;
struct sns;

struct counts {
    uint64_t connections; /* accepted, since start or reset */
    uint64_t tls_handshakes, tls_resumed;
    uint64_t mails; /* taken, also those whose reply was lost */
    uint64_t recipients, bytes, lost;
    uint64_t unoffered_pipelining;  /* commands sent ahead though PIPELINING was not offered */
    uint64_t refused[200];          /* replies 400..599, by code less 400 */
    uint64_t dsn_sent, dsn_dropped; /* see bouncer.h */
};

/** A listening SMTP socket. `refuse` closes it and opens it again on the same port. */
struct listener {
    struct watch watch;
    struct sim *sim;
    const char *where; /* as given; NULL = not asked for */
    uint16_t port;     /* chosen, kept for opening again */
    bool implicit_tls;
};

struct sim {
    struct options options;
    struct loop loop;
    struct tls tls;
    struct ledger ledger;
    struct throttle throttle;
    struct faults faults;
    struct counts counts;
    char *password; /* owned; NULL without --user */
    struct listener listener[2], control;
    bool refusing; /* the SMTP listeners are closed by a fault */
    struct timer refuse_timer;
    struct bouncer *bouncer; /* NULL without --bounce-to */
    struct sns *sns;         /* NULL without --sns */
    char *input;             /* INPUT_MAX octets, owned */
    uint64_t unix_offset_ns; /* steady clock + this = time of day, fixed at start, so ledger times never step */
    uint64_t started_ns, taken_ever, stored;
    struct session *sessions; /* all living */
    size_t session_count;
    struct session *dirty; /* to be flushed at the end of the round */
    struct session *again; /* have input that could not be read or used yet */
    struct session *dead;  /* freed at the end of the round */
};

static inline uint64_t sim_unix_us(const struct sim *sim, uint64_t now_ns)
{
    return (now_ns + sim->unix_offset_ns) / 1000u;
}

/** Open, or open again, a listener; on TD_EIO it stays closed. */
int listener_open(struct listener *listener, void (*ready)(struct watch *, uint32_t), struct td_err *reterr);

/** HOST:PORT or [HOST]:PORT to an address; the names of a host are looked up, so only at start. */
struct sockaddr_storage;
int address_parse(const char *where, struct sockaddr_storage *ret, unsigned *ret_len, struct td_err *reterr);

/** After any change of faults or counts that may start or end a "refuse". */
void sim_check_refusing(struct sim *sim);

#endif /* RELAYSIM_SIM_H */
