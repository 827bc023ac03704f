/* recipients.h - a CSV file as a campaign's recipients, read twice: once to check and hash it, once to hand it in.
 */
#ifndef CTL_RECIPIENTS_H
#define CTL_RECIPIENTS_H

#include <stdint.h>

#include "csv.h"
#include "tandem/arena.h"
#include "tandem/mail/v1/submission.pb-c.h"

struct recipients;

/**
 * @param path  "-" is stdin, which is kept in a nameless temporary file
 * @return TD_OK, or the code of what is wrong with the file or its header
 */
int recipients_open(const char *path, struct recipients **ret, struct td_err *reterr);
void recipients_close(struct recipients *recipients); /* NULL is fine */

/** Begin again with the first recipient. */
int recipients_rewind(struct recipients *recipients, struct td_err *reterr);
/**
 * @param ret       in the arena
 * @param ret_line  where its row begins
 * @return 1; 0 at the end; negative
 */
int recipients_next(struct recipients *recipients, struct td_arena *arena, Tandem__Mail__V1__Recipient **ret,
                    size_t *ret_line, struct td_err *reterr);
/** SHA-256 of the bytes read since the last rewind; valid at the end. */
void recipients_sha256(struct recipients *recipients, uint8_t out[32]);

#endif /* CTL_RECIPIENTS_H */
