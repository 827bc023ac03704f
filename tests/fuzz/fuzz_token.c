/* No input without the key is a token, and what the key's owner writes reads back. */
#include "fuzz.h"

#include <string.h>

#include "tandem/token.h"

static const char key[] = "the key of this fuzz target";
static const char *const relays[] = {"ses", "backup"};

/* Any bytes as campaign and index. */
static void round_trip(const uint8_t *data, size_t size)
{
    char campaign[TD_CAMPAIGN_ID_MAX + 2], local[TD_TOKEN_LOCAL_MAX];
    struct td_token token;
    uint32_t index = 0;
    size_t len, campaign_len;

    for (size_t i = 0; i < 4 && i < size; i++)
        index = index << 8 | data[i];
    campaign_len = size < sizeof(campaign) - 1 ? size : sizeof(campaign) - 1;
    memcpy(campaign, data, campaign_len);
    campaign[campaign_len] = '\0';
    len = td_token_write(local, TD_TOKEN_BOUNCE, key, sizeof(key), campaign, index, relays[index & 1]);
    PROMISE((len > 0) == td_campaign_id_valid(campaign));
    if (len == 0)
        return;
    PROMISE(len < TD_TOKEN_LOCAL_MAX && strlen(local) == len);
    PROMISE(td_token_read(local, len, TD_TOKEN_BOUNCE, key, sizeof(key), relays, 2, &token, NULL) == TD_OK);
    PROMISE(strcmp(token.campaign_id, campaign) == 0 && token.index == index && token.relay == (index & 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum td_token_purpose purposes[] = {TD_TOKEN_BOUNCE, TD_TOKEN_UNSUBSCRIBE};

    for (size_t i = 0; i < 2; i++) {
        struct td_err err = {TD_OK, ""};
        struct td_token token;
        int rc = td_token_read((const char *)data, size, purposes[i], key, sizeof(key), relays, 2, &token, &err);

        PROMISE(rc == TD_ESYNTAX || rc == TD_EDENIED);
        PROMISE((int)err.code == rc);
    }
    if (size > 0)
        round_trip(data, size);
    return 0;
}
