/* redis_url.h - reads redis.url. Pure. */
#ifndef TD_REDIS_URL_H
#define TD_REDIS_URL_H

#include <stdbool.h>

struct td_err;

/* Where Redis is and who we are there. */
struct redis_target {
    char host[256];
    char port[6];
    char user[128];     /* "" = the default user */
    char password[512]; /* "" = no AUTH */
    char db[6];         /* "" = 0 */
    bool tls;
};

/** @return TD_OK or TD_ECONFIG; the text never repeats the URL, which may hold a password */
int redis_url_parse(struct redis_target *target, const char *url, struct td_err *reterr);

#endif /* TD_REDIS_URL_H */
