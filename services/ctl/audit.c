#include "audit.h"

#include <stdlib.h>
#include <string.h>

#define LEDGER_COLUMNS 7
#define RELAY_NAME_MAX 64

struct mail {
    uint8_t result; /* 0: none yet */
    uint8_t relay;  /* 1-based place in relays, 0: none */
    bool conflict;
    uint8_t copies; /* in the relays' ledgers, 255 = that many or more */
};

struct audit {
    struct mail *mails;
    uint32_t cap, seen;
    char *relays[AUDIT_RELAYS_MAX];
    size_t relay_count;
};

struct audit *audit_new(void)
{
    return calloc(1, sizeof(struct audit));
}

void audit_free(struct audit *audit)
{
    if (!audit)
        return;
    for (size_t i = 0; i < audit->relay_count; i++)
        free(audit->relays[i]);
    free(audit->mails);
    free(audit);
}

static struct mail *mail_at(struct audit *audit, uint32_t index)
{
    if (index >= audit->cap) {
        uint32_t cap = audit->cap ? audit->cap : 1024;
        struct mail *mails;

        while (cap <= index)
            cap *= 2;
        mails = realloc(audit->mails, cap * sizeof(*mails));
        if (!mails)
            return NULL;
        memset(mails + audit->cap, 0, (cap - audit->cap) * sizeof(*mails));
        audit->mails = mails;
        audit->cap = cap;
    }
    if (index >= audit->seen)
        audit->seen = index + 1;
    return &audit->mails[index];
}

/* 1-based; 0 for "" and for more relays than anybody configures */
static uint8_t relay_number(struct audit *audit, const char *relay)
{
    if (!*relay)
        return 0;
    for (size_t i = 0; i < audit->relay_count; i++)
        if (strcmp(audit->relays[i], relay) == 0)
            return (uint8_t)(i + 1);
    if (audit->relay_count == AUDIT_RELAYS_MAX || strlen(relay) > RELAY_NAME_MAX)
        return 0;
    audit->relays[audit->relay_count] = strdup(relay);
    if (!audit->relays[audit->relay_count])
        return 0;
    return (uint8_t)++audit->relay_count;
}

int audit_outcome(struct audit *audit, uint32_t index, unsigned result, const char *relay)
{
    struct mail *mail;
    uint8_t number;

    if (result == 0 || result >= AUDIT_RESULTS || index > AUDIT_INDEX_MAX)
        return TD_EINVAL;
    mail = mail_at(audit, index);
    if (!mail)
        return TD_ENOMEM;
    number = relay_number(audit, relay);
    if (mail->result && (mail->result != result || mail->relay != number))
        mail->conflict = true;
    if (!mail->result) {
        mail->result = (uint8_t)result;
        mail->relay = number;
    }
    return TD_OK;
}

/* "<campaign.index@domain>", brackets or none. @return false when it is of another campaign */
static bool message_index(const char *text, size_t len, const char *campaign_id, uint32_t *ret)
{
    size_t id_len = strlen(campaign_id), digits = 0;
    uint64_t index = 0;

    if (len > 0 && *text == '<') {
        text++;
        len--;
    }
    if (len < id_len + 3 || memcmp(text, campaign_id, id_len) != 0 || text[id_len] != '.')
        return false;
    for (text += id_len + 1, len -= id_len + 1; digits < len && text[digits] >= '0' && text[digits] <= '9';
         digits++) {
        index = index * 10 + (uint64_t)(text[digits] - '0');
        if (index > AUDIT_INDEX_MAX)
            return false;
    }
    *ret = (uint32_t)index;
    return digits > 0 && digits < len && text[digits] == '@';
}

int audit_ledger_line(struct audit *audit, const char *campaign_id, const char *line, size_t len)
{
    const char *column[LEDGER_COLUMNS], *end = line + len;
    size_t column_len[LEDGER_COLUMNS], count = 0;
    struct mail *mail;
    uint32_t index;

    if (len == 0 || *line == '#')
        return TD_OK;
    for (const char *at = line;;) {
        const char *tab = memchr(at, '\t', (size_t)(end - at));

        if (count == LEDGER_COLUMNS)
            return TD_ESYNTAX;
        column[count] = at;
        column_len[count++] = (size_t)((tab ? tab : end) - at);
        if (!tab)
            break;
        at = tab + 1;
    }
    if (count != LEDGER_COLUMNS || column_len[6] == 0)
        return TD_ESYNTAX;
    if (column[6][0] != '2' && column[6][0] != 'l')
        return TD_OK;
    if (!message_index(column[3], column_len[3], campaign_id, &index))
        return TD_OK;
    mail = mail_at(audit, index);
    if (!mail)
        return TD_ENOMEM;
    if (mail->copies < UINT8_MAX)
        mail->copies++;
    return TD_OK;
}

uint32_t audit_seen(const struct audit *audit)
{
    return audit->seen;
}

void audit_sum(const struct audit *audit, uint32_t submitted, bool with_ledger, struct audit_sums *ret)
{
    enum { ACCEPTED = 1, UNCONFIRMED = 7 };
    uint32_t count = submitted > audit->seen ? submitted : audit->seen;

    memset(ret, 0, sizeof(*ret));
    ret->submitted = submitted;
    ret->relay_count = audit->relay_count;
    for (size_t i = 0; i < audit->relay_count; i++)
        ret->relay[i] = audit->relays[i];
    for (uint32_t i = 0; i < count; i++) {
        struct mail none = {0, 0, false, 0};
        const struct mail *mail = i < audit->seen ? &audit->mails[i] : &none;

        ret->results[mail->result]++;
        if (mail->result == ACCEPTED && mail->relay)
            ret->by_relay[mail->relay - 1]++;
        if (mail->conflict)
            ret->conflicts++;
        if (mail->result == 0 || (with_ledger && mail->result == ACCEPTED && mail->copies == 0))
            ret->lost++;
        if (mail->copies > 1)
            ret->duplicates++;
        /* A number that was never submitted and that a relay took is as much too many. */
        if (mail->copies > 0 && ((mail->result != ACCEPTED && mail->result != UNCONFIRMED) || i >= submitted))
            ret->extra++;
    }
    ret->well = ret->lost == 0 && ret->duplicates == 0 && ret->extra == 0 && ret->conflicts == 0;
}
