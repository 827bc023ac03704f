/* silence.h - a relay from which nothing comes: is it slow, or gone? Pure; pool_silence.c looks every some ms.
 *
 *   WELL --somebody waits, nothing came for its patience--> ASKED --a greeting, or anything to those who wait--> WELL, more patient
 *                                                             '--nothing, not even on the probe's connection--> GONE
 *
 * Time is that in which we were awake: what came while we were not lies unread in sockets. */
#ifndef SILENCE_H
#define SILENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Mean and mean deviation of how long something takes, as TCP keeps them (RFC 6298). */
struct took {
    uint64_t mean_us, deviation_us; /* 0, 0: never yet */
};
void took_add(struct took *took, uint64_t us);

struct silence {
    struct took final;  /* final replies, from the dot */
    struct took secure; /* new connections, from the first packet to the end of the TLS handshake */
    uint64_t looked_us, heard_us; /* at the last look */
    uint64_t deaf_us;   /* somebody has waited and heard nothing for so long */
    uint64_t quiet_us;  /* of it, since a probe last said that it is only slow */
    uint64_t asked_us;  /* of it, since the probe was opened */
    bool asked;
    unsigned slow; /* probes in a row that found it slow: each doubles the patience */
};

/* What the probe, if any, has got from the relay. */
enum silence_probe {
    PROBE_NONE,     /* there is none, or its name is still being looked up */
    PROBE_REACHING, /* not one octet */
    PROBE_SECURED,  /* TLS, which may be another machine's, in front of the relay */
    PROBE_GREETED   /* a line of SMTP */
};

struct silence_view {
    uint64_t now_us;
    uint64_t heard_us; /* when one of those who wait last heard something */
    size_t waiting;    /* connections that wait for the relay, the probe not counted */
    size_t most;       /* that may be open */
    enum silence_probe probe;
    bool others; /* all have left it, since a probe of another process was not answered */
};

enum silence_step {
    SILENCE_NONE,
    SILENCE_ASK,   /* open a probe */
    SILENCE_STALE, /* the relay is well, but these connections say nothing: their network may have forgotten them */
    SILENCE_GONE   /* leave it */
};

enum silence_step silence_look(struct silence *silence, const struct silence_view *view);
/** A mail was taken so long after its dot. */
void silence_final(struct silence *silence, uint64_t us);
/** The probe is over: it went well, or failed in its own way, such as a name that does not resolve. Ask again later. */
void silence_answered(struct silence *silence);

/** How long nothing may come before it is asked, and then before it is left. */
uint64_t silence_patience_us(const struct silence *silence);
uint64_t silence_probe_patience_us(const struct silence *silence);

#endif /* SILENCE_H */
