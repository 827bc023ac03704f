/* submit_options.h - the command line of `campaign submit`, and the Campaign made of it. */
#ifndef CTL_SUBMIT_OPTIONS_H
#define CTL_SUBMIT_OPTIONS_H

#include "ctl.h"
#include "tandem/arena.h"
#include "tandem/mail/v1/submission.pb-c.h"

#define SUBMIT_FILES_MAX 50
#define SUBMIT_INLINE_MAX                                                                                         \
    600000 /* bytes of attachments that may ride in the Campaign's own record, all together */

struct submit_file {
    const char *path, *content_id; /* content_id NULL: an attachment */
    char *data;
    size_t len;
    uint8_t sha256[32];
    bool chunked; /* handed in as AttachmentChunks */
};

struct submit_options {
    struct ctl *ctl; /* first: see ctl_input */
    const char *recipients, *subject, *html, *text, *from, *reply_to, *id, *list_id, *unsubscribe_url,
        *unsubscribe_mailto, *language;
    char *route, *countries;
    bool one_click, express, dry_run, watch;
    Tandem__Mail__V1__OnUnconfirmed on_unconfirmed;
    uint64_t rate, preview, bounce_ceiling;
    int64_t deadline_ms, not_before_ms;
    struct submit_file file[SUBMIT_FILES_MAX];
    size_t file_count;
};

/** @return CTL_OK or CTL_USAGE; --help and errors exit */
int submit_options_parse(struct submit_options *options, struct ctl *ctl, int argc, char **argv);
void submit_options_release(struct submit_options *options);

/**
 * Read the files and make the Campaign; strings are borrowed from options or in the arena.
 * @return CTL_OK or an exit code, said on stderr
 */
int submit_campaign(struct submit_options *options, struct td_arena *arena, Tandem__Mail__V1__Campaign *ret);

#endif /* CTL_SUBMIT_OPTIONS_H */
