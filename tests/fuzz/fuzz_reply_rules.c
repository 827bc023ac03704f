/* A hostile rule file, behind its first NUL a reply: whatever loads must keep the scopes apart. */
#include <string.h>

#include "fuzz.h"
#include "reply_rules.h"

static void check_class(enum smtp_phase phase, const struct smtp_reply *reply, const struct reply_class *class)
{
    PROMISE(class->reason && strchr(class->reason, '.') && strlen(class->reason) <= REPLY_REASON_MAX);
    PROMISE(class->action != ACT_REFUSE || (class->scope == SCOPE_RECIPIENT && reply->code >= 500));
    PROMISE(class->health < HEALTH_HARD || class->scope == SCOPE_RELAY);
    PROMISE(phase > PHASE_MAIL || class->scope != SCOPE_RECIPIENT);
    PROMISE(phase != PHASE_CONNECT || class->scope == SCOPE_RELAY);
    PROMISE(reply_scope_name(class->scope) && reply_action_name(class->action) && health_kind_name(class->health));
}

static void classify(const struct reply_rules *rules, const char *data, size_t len)
{
    struct smtp_reply_reader reader;
    struct smtp_reply reply;
    size_t used;

    smtp_reply_reader_init(&reader);
    if (smtp_reply_feed(&reader, data, len, &used, &reply) != 1 || reply.code < 400)
        return;
    for (enum smtp_phase phase = PHASE_CONNECT; phase < PHASE_COUNT; phase++) {
        struct reply_class class = reply_classify(rules, phase, &reply);

        check_class(phase, &reply, &class);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const replies[] = {"550 5.1.1 no such user\r\n", "450 4.2.2 over quota\r\n", "554 spam\r\n", "421 closing\r\n"};
    const uint8_t *nul = memchr(data, '\0', size);
    size_t len = nul ? (size_t)(nul - data) : size;
    struct reply_rules *rules = NULL;
    struct td_err err;

    if (reply_rules_read("fuzz", (const char *)data, len, &rules, &err) < 0) {
        PROMISE(err.text[0]);
        return 0;
    }
    PROMISE(rules->count <= REPLY_RULES_MAX);
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++)
        classify(rules, replies[i], strlen(replies[i]));
    if (nul)
        classify(rules, (const char *)nul + 1, size - len - 1);
    reply_rules_free(rules);
    return 0;
}
