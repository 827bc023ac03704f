/* hostport.h - "host:port" as settings give it. Pure. */
#ifndef TD_HOSTPORT_H
#define TD_HOSTPORT_H

struct td_hostport {
    char host[254]; /* "" = every address */
    int port;       /* 0..65535 */
};

/** host:port, [v6]:port, :port. @return TD_OK or TD_EINVAL (ret is unchanged) */
int td_hostport_parse(const char *text, struct td_hostport *ret);

#endif /* TD_HOSTPORT_H */
