/* scripted_relay.h - a TLS relay in threads of the test process that misbehaves once, at one place, as a row says. */
#ifndef SCRIPTED_RELAY_H
#define SCRIPTED_RELAY_H

#include <stdbool.h>
#include <stddef.h>

enum place { AT_NOWHERE, AT_BANNER, AT_EHLO, AT_AUTH, AT_MAIL, AT_RCPT, AT_DATA, AT_BODY, AT_FINAL, AT_IDLE };

enum fault {
    DO_REPLY,     /* say `text` instead, go on */
    DO_REPLY_END, /* say `text`, close */
    DO_RESET,     /* RST */
    DO_CLOSE,     /* FIN */
    DO_HANG,      /* say nothing more */
    DO_GARBAGE,   /* bytes that are no SMTP */
    DO_BYTEWISE,  /* the right reply, one byte a record */
    DO_TWICE      /* the right reply, and a second one nobody asked for */
};

/* All but UNKNOWN_CA know each other's session tickets, as a server does that was only given another certificate. */
enum certificate { CERT_GOOD, CERT_WRONG_NAME, CERT_UNKNOWN_CA, CERT_EXPIRED, CERT_SOON_EXPIRED, CERT_COUNT };
#define CERT_SOON_S 3 /* how long SOON_EXPIRED is valid from the relay's start */

struct script {
    const char *name;
    enum place place;
    enum fault fault;
    const char *text;
    int times;               /* connections that misbehave, from the first; 0 = 1 */
    bool no_pipelining;
    bool chunking;
    int after_mails;         /* misbehave when so many have been taken */
    bool starttls;
    bool no_starttls_offered;
    bool inject_after_starttls; /* a plaintext reply right behind "220 go ahead" */
    bool no_auth_offered;
    bool data_says_354;      /* 354 although no recipient was accepted */
    enum certificate certificate;
    int certificate_from;    /* shown from the n-th connection on; 0: always */
    int certificate_until;   /* and up to this one; 0: for ever */
    bool tls12;
    int frozen_from;         /* the n-th connection and all after it get not an octet, not even of TLS, before scripted_relay_thaw */
    int slow_final_ms;       /* final replies take so long, from the mail after after_mails on */
    int max_connections;     /* 0: any; more get 421 */
    int refuse_every;        /* every n-th RCPT gets 550 */
    const char *size;        /* offer "SIZE <size>" */
};

struct seen {
    int connections;
    int most_at_once;
    int handshakes;     /* TLS done */
    int resumed;        /* of those, without a certificate */
    int auths;          /* AUTH commands, encrypted or not */
    int plaintext_bad;  /* anything but EHLO, STARTTLS, QUIT before TLS */
    int mails;          /* final dots answered 250 */
    int rsets, quits, noops, empty_dots;
    int data_without_reading; /* commands that came behind DATA before its 354 */
    int chunks;         /* BDAT commands */
    size_t last_bytes;  /* of the last mail, dots undone */
    unsigned last_sum;  /* additive checksum of it */
};

struct scripted_relay;

/** Make keys and certificates. @return path of the CA file; removed by scripted_tls_free */
const char *scripted_tls_new(void);
void scripted_tls_free(void);

/** @return port in *port */
struct scripted_relay *scripted_relay_start(const struct script *script, int *port);
struct seen scripted_relay_seen(struct scripted_relay *relay);
/** Reset every established connection and stop listening, as when the process dies. */
void scripted_relay_die(struct scripted_relay *relay);
/** Frozen connections are served. */
void scripted_relay_thaw(struct scripted_relay *relay);
void scripted_relay_stop(struct scripted_relay *relay);

#endif /* SCRIPTED_RELAY_H */
