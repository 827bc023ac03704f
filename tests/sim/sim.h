/* sim.h - the simulated world around several real dispatchers: one virtual clock, one queue of events, one seed.
 *
 * What is real: services/dispatch (service, flow, mail, campaign, lane, statics, outcomes, relays, route,
 * classify, health, pace, pool), common/src/core and ledger.c. What is simulated: libuv's timers, the clock, Redis
 * and its scripts, Kafka and its group, connections and relays. A dispatcher is a `struct proc`: its memory is
 * tracked (malloc is wrapped at link time), so that kill -9 really takes it away.
 *
 * One world at a time: twins of libraries have no argument that leads to it, hence `sim`. */
#ifndef SIM_H
#define SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "tandem/app.h"
#include "tandem/kafka.h"
#include "tandem/redis.h"
#include "tandem/rng.h"
#include "tandem/settings.h"
#include "tandem/token.h"

#include "tandem/mail/v1/outcome.pb-c.h"

#define MS UINT64_C(1000)
#define SEC UINT64_C(1000000)

enum {
    SIM_PROCS = 3,
    SIM_RELAYS = 2,
    SIM_CAMPAIGNS = 3,
    SIM_PARTS = 6,  /* partitions of each topic of lanes */
    SIM_TOPICS = 5, /* express, outbound, three retry topics */
    SIM_LANES = SIM_TOPICS * SIM_PARTS
};

typedef void sim_fn(void *arg, uint64_t tag);

/* ---- a dispatcher ---- */

struct block; /* of tracked memory */

struct proc {
    unsigned index;
    char name[8]; /* "d1" */
    bool alive;
    unsigned life;          /* rises with every start and end: events of an earlier life are dropped */
    uint64_t stopped_until; /* SIGSTOP */
    int64_t skew_ms;        /* of its wall clock */
    struct block *blocks;
    struct td_app app;
    uv_loop_t loop;
    struct td_settings settings;
    char instance[16];
    void *state; /* struct dispatch */
    bool stopping, exit_wanted;
    uint64_t restart_at; /* for a process that has ended, or is about to */
    uint64_t effects;    /* calls that reach the outside */
    uint64_t die_at;     /* kill -9 just before this one; 0 = no */
    bool doomed;         /* past die_at: nothing it does is seen any more */
    bool kafka_cut, redis_cut;
    size_t idle_handles;
    bool turn_due;
    struct sim_hook *hooks; /* prepare and check handles */
    struct sim_closing *closing;
    struct td_redis *redis;
    struct td_kafka_in *in;
    struct td_kafka_out *out;
    struct td_kafka_table *table;
};

/* ---- what was submitted ---- */

struct recipient {
    uint8_t partition;           /* of outbound or express */
    uint8_t records;             /* in the outbound topic: 2 = a repeat */
    uint8_t refusal[SIM_RELAYS]; /* enum refusal */
    uint8_t deferrals;           /* 4yz before it is taken */
    uint16_t taken[SIM_RELAYS];  /* the relay's ledger */
    /* The view in Redis. */
    bool tried, done;
    const void *pending, *ended; /* ended: what the ledger took as its end, kept when pending is gone */
    size_t pending_len, ended_len;
    bool doubt;        /* evidence may end it */
    const void *proof; /* noted while nobody was in doubt */
    size_t proof_len;
    bool doubted;  /* somebody ever was, or had its proof in place of a verdict */
    bool evidence; /* an outcome says that evidence ended it */
    /* What is on mail.outcomes. */
    const void *outcome;
    size_t outcome_len, distinct;
    Tandem__Mail__V1__RecipientResult result;
    int8_t relay; /* of the outcome */
    bool hard;    /* it says hard_refusal */
    const char *reason;
    bool loose; /* ended without the ledger */
    uint32_t loose_by[2];
    uint32_t publisher;  /* process and life */
    bool publishers;     /* more than one */
    uint8_t unconfirmed; /* attempts whose reply was lost */
    uint8_t retried;     /* times the ledger said TRIED: under resend it goes again */
    uint32_t go_by;      /* process that the ledger has let go on with it */
    uint8_t killed;      /* hand-overs whose process died */
    bool unledgered;
    bool sender_died; /* one that sent or ended it without the ledger */
};

enum refusal { REFUSAL_NONE, REFUSAL_HARD, REFUSAL_SOFT_FIRST, REFUSAL_MESSAGE, REFUSAL_FICKLE };

struct campaign_world {
    char id[16];
    uint32_t count;
    bool resend, express;
    int64_t deadline_ms;
    unsigned route_len;
    uint8_t route[SIM_RELAYS];
    bool only_country[SIM_RELAYS]; /* allowed countries: empty, or that of this relay */
    bool narrowed;
    bool bad[SIM_RELAYS]; /* a fifth of its addresses take no mail, says this relay */
    int state; /* Tandem__Internal__V1__CampaignState */
    uint64_t revision;
    uint8_t sha[32];
    char *blob;
    size_t blob_len;
    struct recipient *rcpt;
    /* Totals. */
    uint64_t accepted[SIM_RELAYS], refused[SIM_RELAYS];
    const char *left[SIM_RELAYS]; /* tripped: its evidence */
    bool held;
    struct begun *begun; /* answers of begin by token */
};

/* ---- events ---- */

struct event {
    uint64_t at, seq;
    struct proc *proc; /* NULL: the world's */
    unsigned life;
    sim_fn *fn;
    void *arg;
    uint64_t tag;
};

/* ---- the world ---- */

struct world {
    uint64_t seed, now;
    struct td_rng rng; /* faults and chance */
    struct proc proc[SIM_PROCS];
    struct proc *current; /* whose code runs; NULL: the world's */
    struct campaign_world campaign[SIM_CAMPAIGNS];
    size_t campaigns;
    uint32_t recipients;
    struct event *heap;
    size_t events, heap_size;
    uint64_t seq, ran;
    bool trace, failed, calm; /* calm: all faults are over */
    uint64_t calm_at, end_at;
    uint64_t taken_at; /* the last mail that a relay took */
    char why[400];
    /* For the bound on what may be in doubt. */
    uint64_t may_doubt, unconfirmed, lost_replies, accepted;
    uint64_t kills, ends, weakened, weakened_repeats, weakened_alive;
    uint32_t open;    /* recipients without an outcome */
    uint32_t to_come; /* records not yet on their topic */
    uint32_t garbage, dead_letters;
    bool emptied;
};

extern struct world sim;

struct sim_options {
    bool trace;
    bool empty_redis; /* Redis may come back without its data */
};

/** Run one seed. @return true when every invariant held; sim.why says which did not */
bool sim_run(uint64_t seed, const struct sim_options *options);

/* ---- sim_core.c ---- */
void *sim_alloc(size_t bytes); /* zeroed; lives until the seed is over */
char *sim_strdup(const void *data, size_t len);
void sim_arena_reset(void);
void sim_at(uint64_t at, struct proc *proc, sim_fn *fn, void *arg, uint64_t tag);
void sim_after(uint64_t us, struct proc *proc, sim_fn *fn, void *arg, uint64_t tag);
bool sim_step(void); /* @return false when nothing is left */
void sim_trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void sim_violation(const char *invariant, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
uint64_t sim_below(uint64_t n);
uint64_t sim_between(uint64_t low, uint64_t high); /* both included */
bool sim_chance(unsigned per_1000);
/** Is what current does now seen by the outside? false: it dies before that. */
bool sim_effect(void);
size_t sim_memory_left(const struct proc *proc); /* blocks that its code has not freed */
void sim_memory_release(struct proc *proc);

/* ---- sim_uv.c ---- */
void sim_uv_turn(struct proc *proc);
void sim_uv_close_all(struct proc *proc);

/* ---- sim_proc.c ---- */
void sim_proc_init(struct proc *proc, unsigned index);
void sim_proc_start(struct proc *proc);
void sim_proc_kill(struct proc *proc, const char *why);
void sim_proc_stop(struct proc *proc);
void sim_proc_turn(struct proc *proc);  /* after every event of it */
void sim_proc_doubt(struct proc *proc); /* what it holds may become unconfirmed */

/* ---- sim_redis.c, sim_scripts.c ---- */
struct sim_lease {
    char owner[112];
    uint64_t until;
    uint64_t fence;
    bool clean;
};
void sim_redis_reset(void);
void sim_redis_down(bool down);
void sim_redis_hang(uint64_t until);
void sim_redis_drop(struct proc *proc); /* its connection breaks */
void sim_redis_killed(struct proc *proc);
void sim_redis_lose_reply(struct proc *proc); /* the next call is carried out, its reply never comes */
void sim_redis_empty(void);
const struct sim_lease *sim_lease_of(const char *lane);
bool sim_redis_well(void);
uint64_t sim_redis_well_since(void); /* when it came back, or will */

struct sim_call {
    const char *script; /* or the command's name */
    struct td_arg *key, *arg;
    size_t keys, args;
    struct proc *by;
};
struct td_reply *sim_script(const struct sim_call *call);
void sim_scripts_reset(void);
void sim_publish(const char *text);
struct td_reply *sim_reply_int(long long value);
struct td_reply *sim_reply_str(const void *data, size_t len);
struct td_reply *sim_reply_nil(void);
struct td_reply *sim_reply_array(size_t count);
void sim_reply_set(struct td_reply *array, size_t i, struct td_reply *value);

/* ---- sim_log.c, sim_group.c ---- */
struct sim_record {
    const void *key, *value;
    size_t key_len, len;
    int64_t timestamp_ms;
};
struct sim_partition {
    struct sim_record *record;
    size_t count, size;
    int64_t committed; /* -1: none */
    const char *note;  /* beside it; NULL: none */
};
void sim_log_reset(void);
void sim_log_killed(struct proc *proc);
struct sim_partition *sim_partition_of(struct td_lane lane);
void sim_append(struct td_lane lane, const void *key, size_t key_len, const void *value, size_t len);
void sim_content_changed(struct campaign_world *campaign);
void sim_produce_fault(struct proc *proc, int kind); /* enum produce_fault: for the next record */
enum produce_fault { PRODUCE_NOT_WRITTEN = 1, PRODUCE_WRITTEN, PRODUCE_FATAL };
void sim_lag(uint64_t *ret_lag);
size_t sim_lane_index(struct td_lane lane); /* SIM_LANES when it is none */
struct td_lane sim_lane_at(size_t index);
bool sim_log_covers(const char *key, size_t key_len);

void sim_group_reset(void);
void sim_group_appended(struct td_lane lane);
void sim_group_killed(struct proc *proc);
void sim_group_lose_commits(struct proc *proc, unsigned count);
void sim_group_shake(void); /* a rebalance for no reason */
uint64_t sim_session_us(void);

/* ---- sim_relay.c ---- */
enum relay_mode {
    MODE_WELL,
    MODE_REFUSING,
    MODE_SLOW,
    MODE_TARPIT,
    MODE_BUSY,
    MODE_AUTH,
    MODE_FAILING,
    MODE_PAUSED,
    MODE_COUNT
};
void sim_relays_reset(void);
void sim_relay_mode(size_t relay, enum relay_mode mode);
void sim_relay_reset(size_t relay);                    /* all its connections break, wherever they are */
void sim_relay_loses(size_t relay, unsigned per_1000); /* final replies */
void sim_relays_killed(struct proc *proc);

/* ---- sim_evidence.c ---- */
void sim_evidence(struct campaign_world *campaign, uint32_t index, size_t relay); /* it took this mail, and may tell */

/* ---- sim_world.c ---- */
void sim_world_make(const struct sim_options *options);
bool sim_mail_find(const void *key, size_t len, struct campaign_world **ret, uint32_t *ret_index);
struct campaign_world *sim_campaign(const char *id, size_t len);

/* ---- sim_check.c ---- */
uint32_t sim_id_of(const struct proc *proc); /* of this life */
void sim_check_outcome(struct proc *by, const void *key, size_t key_len, const void *value, size_t len);
void sim_check_commit(struct td_lane lane, int64_t from, int64_t to);
void sim_check_end(void);
void sim_check_died(const struct proc *proc);

#endif /* SIM_H */
