/* local part = purpose "+" campaign "." index in base 36 "." tag MAC
 *               1       1   1..36   1      1..7          1  2  14      <= 63 octets
 * No part can hold the "." or "+" around it, so there is one way to read it. */
#include "tandem/token.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdbool.h>
#include <string.h>

enum { TAG_CHARS = 2, MAC_CHARS = 14, SEAL_CHARS = TAG_CHARS + MAC_CHARS, INDEX_CHARS_MAX = 7 };

static const char base32[] = "abcdefghijklmnopqrstuvwxyz234567";
static const char base36[] = "0123456789abcdefghijklmnopqrstuvwxyz";

/* The tag only says which relay to try first; two relays with the same tag are told apart by the MAC. */
static void write_tag(char out[TAG_CHARS], const char *relay)
{
    uint32_t hash = 2166136261U;

    for (const unsigned char *c = (const unsigned char *)relay; *c; c++)
        hash = (hash ^ *c) * 16777619U;
    hash ^= hash >> 15;
    out[0] = base32[hash >> 5 & 31];
    out[1] = base32[hash & 31];
}

/* Every part is followed by NUL or has a fixed size: no two inputs give the same bytes. */
static size_t mac_input(unsigned char *out, size_t size, char purpose, const char *campaign_id, uint32_t index,
                        const char *relay)
{
    size_t campaign_len = strlen(campaign_id) + 1, relay_len = strlen(relay), at = 0;

    if (6 + campaign_len + relay_len > size)
        return 0;
    out[at++] = 't'; /* the same secret may key other hashes: this one is a token's */
    out[at++] = (unsigned char)purpose;
    memcpy(out + at, campaign_id, campaign_len);
    at += campaign_len;
    for (unsigned shift = 0; shift < 32; shift += 8)
        out[at++] = (unsigned char)(index >> shift);
    memcpy(out + at, relay, relay_len);
    return at + relay_len;
}

static int write_seal(char out[SEAL_CHARS], char purpose, const void *key, size_t key_len, const char *campaign_id,
                      uint32_t index, const char *relay)
{
    unsigned char input[256], mac[EVP_MAX_MD_SIZE];
    unsigned mac_len = 0;
    size_t len = mac_input(input, sizeof(input), purpose, campaign_id, index, relay);

    if (len == 0 || !HMAC(EVP_sha256(), key, (int)key_len, input, len, mac, &mac_len))
        return TD_EINVAL;
    write_tag(out, relay);
    for (unsigned i = 0; i < MAC_CHARS; i++) {
        unsigned bit = i * 5, two_bytes = (unsigned)mac[bit / 8] << 8 | mac[bit / 8 + 1];

        out[TAG_CHARS + i] = base32[two_bytes >> (11 - bit % 8) & 31];
    }
    return TD_OK;
}

static size_t write_index(char out[INDEX_CHARS_MAX], uint32_t index)
{
    char reversed[INDEX_CHARS_MAX];
    size_t len = 0;

    do {
        reversed[len++] = base36[index % 36];
        index /= 36;
    } while (index);
    for (size_t i = 0; i < len; i++)
        out[i] = reversed[len - 1 - i];
    return len;
}

size_t td_token_write(char out[TD_TOKEN_LOCAL_MAX], enum td_token_purpose purpose, const void *key, size_t key_len,
                      const char *campaign_id, uint32_t index, const char *relay)
{
    size_t campaign_len, at = 0;

    if (!td_campaign_id_valid(campaign_id))
        return 0;
    if (purpose == TD_TOKEN_UNSUBSCRIBE)
        relay = ""; /* one link for a mail, whichever relay it takes */
    campaign_len = strlen(campaign_id);
    out[at++] = (char)purpose;
    out[at++] = '+';
    memcpy(out + at, campaign_id, campaign_len);
    at += campaign_len;
    out[at++] = '.';
    at += write_index(out + at, index);
    out[at++] = '.';
    if (write_seal(out + at, (char)purpose, key, key_len, campaign_id, index, relay) < 0)
        return 0;
    at += SEAL_CHARS;
    out[at] = '\0';
    return at;
}

/* The local part in lower case. @return its length, 0 when there is none or it is too long */
static size_t lower_local_part(char out[TD_TOKEN_LOCAL_MAX], const char *address, size_t len)
{
    size_t at = 0;

    if (len && address[0] == '<') {
        address++;
        len--;
    }
    while (at < len && address[at] != '@' && address[at] != '>') {
        char c = address[at];

        if (at == TD_TOKEN_LOCAL_MAX - 1 || c == '\0')
            return 0;
        out[at++] = (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
    }
    out[at] = '\0';
    return at;
}

/* One way to write each number: no leading zero, at most 2^32 - 1. */
static int read_index(const char *text, size_t len, uint32_t *ret_index)
{
    uint64_t index = 0;

    if (len == 0 || len > INDEX_CHARS_MAX || (text[0] == '0' && len > 1))
        return TD_ESYNTAX;
    for (size_t i = 0; i < len; i++) {
        const char *digit = memchr(base36, text[i], 36);

        if (!digit)
            return TD_ESYNTAX;
        index = index * 36 + (uint64_t)(digit - base36);
    }
    if (index > UINT32_MAX)
        return TD_ESYNTAX;
    *ret_index = (uint32_t)index;
    return TD_OK;
}

/* Cut a local part into its fields. *ret_seal points into it. */
static int split_token(const char *local, size_t len, char purpose, struct td_token *ret, const char **ret_seal)
{
    const char *first_dot, *last_dot;

    if (len < 2 || local[0] != purpose || local[1] != '+')
        return TD_ESYNTAX;
    first_dot = memchr(local, '.', len);
    last_dot = memrchr(local, '.', len);
    if (!first_dot || first_dot == last_dot || local + len - last_dot - 1 != SEAL_CHARS)
        return TD_ESYNTAX;
    if (first_dot - local - 2 > TD_CAMPAIGN_ID_MAX)
        return TD_ESYNTAX;
    memcpy(ret->campaign_id, local + 2, (size_t)(first_dot - local - 2));
    ret->campaign_id[first_dot - local - 2] = '\0';
    if (!td_campaign_id_valid(ret->campaign_id))
        return TD_ESYNTAX;
    for (size_t i = 1; i <= SEAL_CHARS; i++) {
        if (!memchr(base32, last_dot[i], 32))
            return TD_ESYNTAX;
    }
    *ret_seal = last_dot + 1;
    return read_index(first_dot + 1, (size_t)(last_dot - first_dot - 1), &ret->index);
}

int td_token_read(const char *address, size_t len, enum td_token_purpose purpose, const void *key, size_t key_len,
                  const char *const *relays, size_t relay_count, struct td_token *ret, struct td_err *reterr)
{
    static const char *const no_relay[] = {""};
    char local[TD_TOKEN_LOCAL_MAX], seal[SEAL_CHARS];
    const char *given;
    struct td_token token = {.relay = 0};
    size_t local_len = lower_local_part(local, address, len);

    if (split_token(local, local_len, (char)purpose, &token, &given) < 0)
        return td_fail(reterr, TD_ESYNTAX, "not a token of Tandem");
    if (purpose == TD_TOKEN_UNSUBSCRIBE) {
        relays = no_relay;
        relay_count = 1;
    }
    for (size_t i = 0; i < relay_count; i++) {
        write_tag(seal, relays[i]);
        if (memcmp(seal, given, TAG_CHARS) != 0)
            continue;
        if (write_seal(seal, (char)purpose, key, key_len, token.campaign_id, token.index, relays[i]) == TD_OK &&
            CRYPTO_memcmp(seal, given, SEAL_CHARS) == 0) {
            token.relay = i;
            *ret = token;
            return TD_OK;
        }
    }
    return td_fail(reterr, TD_EDENIED, "the token's MAC does not verify, or its relay is not configured");
}

/* A campaign's id may hold "-"; neither number nor seal can, so the last two separate. */
size_t td_token_tag(char out[TD_TOKEN_LOCAL_MAX], const char *local)
{
    size_t len = strnlen(local, TD_TOKEN_LOCAL_MAX);

    if (len < 3 || len == TD_TOKEN_LOCAL_MAX || local[0] != TD_TOKEN_BOUNCE || local[1] != '+')
        return 0;
    for (size_t i = 2; i <= len; i++)
        out[i - 2] = (char)(local[i] == '.' ? '-' : local[i]);
    return len - 2;
}

int td_token_untag(char out[TD_TOKEN_LOCAL_MAX], const char *tag, size_t len)
{
    unsigned dots = 0;

    if (len == 0 || len + 2 >= TD_TOKEN_LOCAL_MAX || memchr(tag, '\0', len))
        return TD_ESYNTAX;
    out[0] = TD_TOKEN_BOUNCE;
    out[1] = '+';
    out[len + 2] = '\0';
    for (size_t i = len; i-- > 0;) {
        bool separates = tag[i] == '-' && dots < 2;

        dots += separates;
        out[i + 2] = (char)(separates ? '.' : tag[i]);
    }
    return dots == 2 ? TD_OK : TD_ESYNTAX;
}
