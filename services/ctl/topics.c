#include <stdio.h>
#include <string.h>

#include "ctl.h"
#include "tandem/kafka.h"
#include "tandem/topics.h"

static error_t parse_none(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    switch (key) {
    case ARGP_KEY_INIT:
        ctl_input_init(state);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "it takes no arguments");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void report(void *user, const char *topic, const char *what)
{
    const struct ctl *ctl = user;

    if (ctl->json)
        printf("{\"topic\":\"%s\",\"result\":\"%s\"}\n", topic, what);
    else if (!ctl->quiet || (strcmp(what, "created") != 0 && strcmp(what, "exists") != 0))
        printf("%-32s %s\n", topic, what);
}

int ctl_topics_apply(struct ctl *ctl, int argc, char **argv)
{
    static const struct argp argp = {
        NULL,
        parse_none,
        NULL,
        "Create the topics that are missing, with the partitions and retention of the "
        "configuration. Topics that are there stay as they are.",
        ctl_children,
        NULL,
        NULL};
    struct ctl_input input = {ctl};
    struct td_err err;
    int code = ctl_parse(&argp, argc, argv, &input);

    if (code == CTL_OK)
        code = ctl_load(ctl);
    if (code != CTL_OK)
        return code;
    return td_kafka_topics_apply(&ctl->settings, report, ctl, &err) < 0 ? ctl_error(&err) : CTL_OK;
}

int ctl_topics_list(struct ctl *ctl, int argc, char **argv)
{
    static const struct argp argp = {NULL,         parse_none, NULL, "What topics there are by the configuration.",
                                     ctl_children, NULL,       NULL};
    struct ctl_input input = {ctl};
    int code = ctl_parse(&argp, argc, argv, &input);

    if (code == CTL_OK)
        code = ctl_load(ctl);
    if (code != CTL_OK)
        return code;
    if (!ctl->json)
        printf("%-32s %10s %10s  %s\n", "topic", "partitions", "kept", "record");
    for (int id = 0; id < TD_T_COUNT; id++) {
        const struct td_topic *topic = &td_topics[id];
        int partitions = topic->partitions ? topic->partitions : (int)ctl->settings.kafka_lanes;
        char name[256], kept[24] = "for ever";

        td_topic_name(name, sizeof(name), ctl->settings.kafka_topic_prefix, (enum td_topic_id)id);
        if (topic->compacted)
            snprintf(kept, sizeof(kept), "compacted");
        else if (topic->retention_ms >= 0)
            snprintf(kept, sizeof(kept), "%lld h", topic->retention_ms / 3600000);
        if (ctl->json)
            printf(
                "{\"topic\":\"%s\",\"partitions\":%d,\"compacted\":%s,\"retention_ms\":%lld,\"record\":\"%s\"}\n",
                name, partitions, topic->compacted ? "true" : "false", topic->retention_ms,
                topic->message ? topic->message : "");
        else
            printf("%-32s %10d %10s  %s\n", name, partitions, kept,
                   topic->message ? topic->message : "as it came");
    }
    return CTL_OK;
}
