/* ctl.h - what tandemctl's commands share. One command runs in a process, so it may block where it says so. */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "tandem/buf.h"
#include "tandem/cmdline.h"
#include "tandem/err.h"
#include "tandem/settings.h"

enum ctl_exit {
    CTL_OK = 0,
    CTL_FAILED = 1,      /* it did not work, or what was looked for is not so */
    CTL_USAGE = 2,       /* options, a file or the configuration */
    CTL_PARTLY = 3,      /* a campaign ended and not everybody got it */
    CTL_UNREACHABLE = 4, /* Kafka, Redis or ingestion did not answer */
    CTL_REFUSED = 5,     /* ingestion refused it */
    CTL_INTERRUPTED = 130
};

struct ctl {
    /* options that every command takes */
    struct td_cmdline cmdline;
    bool json, quiet, no_color;
    unsigned timeout_ms;

    uv_loop_t loop;
    struct td_settings settings;
    bool loaded;
};

/** --config, --set, --json, -q, --no-color, --timeout; its input is a struct ctl. */
extern const struct argp ctl_common_argp;

/** For the commands' own parsers: `struct ctl` for the common options as first child input. */
struct ctl_input {
    struct ctl *ctl; /* first in every command's own input */
};
extern const struct argp_child ctl_children[];
/** What ARGP_KEY_INIT has to do. */
void ctl_input_init(struct argp_state *state);
/** Run a parser for one command. argv[0] is the program's name. @return CTL_OK, or CTL_USAGE when parsing did not
 * exit */
int ctl_parse(const struct argp *argp, int argc, char **argv, void *input);

/** Read the settings. @return CTL_OK or CTL_USAGE, said on stderr */
int ctl_load(struct ctl *ctl);
/** "tandemctl: ..." on stderr. */
void ctl_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/** The same unless -q. */
void ctl_note(const struct ctl *ctl, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** Say what went wrong and give the exit code that fits. */
int ctl_error(const struct td_err *err);
/** Run the loop until something calls uv_stop. */
void ctl_run(struct ctl *ctl);
/** For parsers of commands with one argument, a campaign: takes it and asks for it. @return as an argp parser */
error_t ctl_one_campaign(int key, char *arg, struct argp_state *state, const char **id);
/** @return false, said on stderr, when it is none */
bool ctl_campaign_id(const char *text);
/** Write a C string as a JSON string. */
int ctl_json_string(struct td_buf *out, const char *text);
/** ,"name":"value". name: as it stands. */
int ctl_json_field(struct td_buf *out, const char *name, const char *value);

/* ---- commands: argv[0] is "tandemctl noun verb" ---- */
int ctl_topics_apply(struct ctl *ctl, int argc, char **argv);
int ctl_topics_list(struct ctl *ctl, int argc, char **argv);
int ctl_campaign_submit(struct ctl *ctl, int argc, char **argv);
int ctl_campaign_status(struct ctl *ctl, int argc, char **argv);
int ctl_campaign_watch(struct ctl *ctl, int argc, char **argv);
int ctl_campaign_audit(struct ctl *ctl, int argc, char **argv);
int ctl_campaign_pause(struct ctl *ctl, int argc, char **argv);
int ctl_campaign_resume(struct ctl *ctl, int argc, char **argv);
int ctl_campaign_cancel(struct ctl *ctl, int argc, char **argv);
int ctl_campaign_rate(struct ctl *ctl, int argc, char **argv);
int ctl_campaign_route(struct ctl *ctl, int argc, char **argv);
int ctl_unconfirmed_list(struct ctl *ctl, int argc, char **argv);
int ctl_unconfirmed_settle(struct ctl *ctl, int argc, char **argv);
int ctl_relay_list(struct ctl *ctl, int argc, char **argv);
int ctl_relay_show(struct ctl *ctl, int argc, char **argv);
int ctl_relay_test(struct ctl *ctl, int argc, char **argv);
int ctl_relay_pause(struct ctl *ctl, int argc, char **argv);
int ctl_relay_drain(struct ctl *ctl, int argc, char **argv);
int ctl_relay_enable(struct ctl *ctl, int argc, char **argv);
int ctl_decode(struct ctl *ctl, int argc, char **argv);
int ctl_encode(struct ctl *ctl, int argc, char **argv);

/** Watch a campaign until it is finished. settings are loaded. @return exit code */
int ctl_watch(struct ctl *ctl, const char *campaign_id);

#endif /* CTL_CTL_H */
