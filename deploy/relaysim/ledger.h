/* ledger.h - which mails the relay took: an append-only file that tests trust. Format: README.md.
 *
 * Lines gather in memory during a round of the loop and go out in one write(2); from the first line on no
 * reply of that round is sent before. So a mail that a client knows to be taken is in the file, even after SIGKILL. */
#ifndef RELAYSIM_LEDGER_H
#define RELAYSIM_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "tandem/buf.h"
#include "tandem/err.h"
#include "command.h"

struct ledger {
    int fd; /* -1 = no file asked for */
    struct td_buf lines;
};

struct ledger_entry {
    uint64_t unix_us;
    uint16_t peer_port;
    struct slice recipient, message_id;
    uint64_t bytes;
    const unsigned char *sha256; /* 32 octets, or NULL */
    int code;                    /* of the reply; 0 = lost */
};

/** Open for appending (file NULL: off). A torn last line, of a process that was killed, is cut off. */
int ledger_open(struct ledger *ledger, const char *file, struct td_err *reterr);
void ledger_close(struct ledger *ledger);

int ledger_add(struct ledger *ledger, const struct ledger_entry *entry);
/** "# <unix_us> <text>": start, fault set and the like. */
int ledger_event(struct ledger *ledger, uint64_t unix_us, const char *text);

/** Has something gathered that must be written before a reply goes out? */
bool ledger_waits(const struct ledger *ledger);
/** Write what has gathered. TD_EIO: it is not there, so no reply may go out. */
int ledger_flush(struct ledger *ledger, struct td_err *reterr);

#endif /* RELAYSIM_LEDGER_H */
