/* notify.h - tells systemd (Type=notify) how we are. Nothing without $NOTIFY_SOCKET. Never leaves common/. */
#ifndef TD_NOTIFY_H
#define TD_NOTIFY_H

#include <stdint.h>

/** "READY=1", "STOPPING=1", "WATCHDOG=1". A lost message is not worth an error. */
void td_notify(const char *state);

/** How often WATCHDOG=1 is due, half of what systemd grants; 0 = it does not ask. */
uint64_t td_notify_watchdog_ms(void);

#endif /* TD_NOTIFY_H */
