#include "tandem/id.h"

#include <assert.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

static bool id_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool id_valid(const char *id, size_t len)
{
    if (len == 0 || len > TD_CAMPAIGN_ID_MAX || !id_char(id[0]))
        return false;
    for (size_t i = 1; i < len; i++) {
        if (!id_char(id[i]) && id[i] != '-' && id[i] != '_')
            return false;
    }
    return true;
}

bool td_campaign_id_valid(const char *id)
{
    return id_valid(id, strnlen(id, TD_CAMPAIGN_ID_MAX + 1));
}

size_t td_mail_key(char out[TD_MAIL_KEY_MAX], const char *campaign_id, uint32_t index)
{
    int len = snprintf(out, TD_MAIL_KEY_MAX, "%s/%u", campaign_id, (unsigned)index);

    assert(len > 0 && len < TD_MAIL_KEY_MAX); /* callers hold valid ids */
    return (size_t)len;
}

bool td_mail_key_parse(const char *key, size_t len, char *campaign, uint32_t *ret_index)
{
    const char *slash = memchr(key, '/', len);
    size_t id_len = slash ? (size_t)(slash - key) : 0;
    uint64_t index = 0;

    if (!slash || !id_valid(key, id_len) || id_len + 1 == len || len - id_len - 1 > 10)
        return false;
    /* "c/01" would be a second key of the same mail, on another partition. */
    if (slash[1] == '0' && len - id_len > 2)
        return false;
    for (size_t i = id_len + 1; i < len; i++) {
        if (key[i] < '0' || key[i] > '9')
            return false;
        index = index * 10 + (uint64_t)(key[i] - '0');
    }
    if (index > UINT32_MAX)
        return false;
    memcpy(campaign, key, id_len);
    campaign[id_len] = '\0';
    *ret_index = (uint32_t)index;
    return true;
}

void td_address_hash(const void *key, size_t key_len, const char *address, uint8_t out[TD_HASH_BYTES])
{
    unsigned char lower[320], mac[EVP_MAX_MD_SIZE];
    unsigned mac_len = 0;
    size_t len = strnlen(address, sizeof(lower));

    /* Addresses have passed td_addr_check, so none is longer than 254. */
    for (size_t i = 0; i < len; i++)
        lower[i] = (unsigned char)(address[i] >= 'A' && address[i] <= 'Z' ? address[i] + ('a' - 'A') : address[i]);
    if (!HMAC(EVP_sha256(), key, (int)key_len, lower, len, mac, &mac_len))
        memset(mac, 0, sizeof(mac)); /* out of memory inside OpenSSL: a hash that matches nobody */
    memcpy(out, mac, TD_HASH_BYTES);
}

void td_hex(char *out, const void *data, size_t len)
{
    static const char digit[] = "0123456789abcdef";
    const uint8_t *byte = data;

    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digit[byte[i] >> 4];
        out[2 * i + 1] = digit[byte[i] & 15];
    }
    out[2 * len] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool td_unhex(void *out, size_t len, const char *hex)
{
    uint8_t *byte = out;

    if (strnlen(hex, 2 * len + 1) != 2 * len)
        return false;
    for (size_t i = 0; i < len; i++) {
        int high = hex_value(hex[2 * i]), low = hex_value(hex[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        byte[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
