/* control.h - the HTTP port of the relay: status, faults, limits. See README.md for the routes. */
#ifndef RELAYSIM_CONTROL_H
#define RELAYSIM_CONTROL_H

#include "sim.h"

/** From the control listener: serve one request on fd, then close it. */
void control_accept(struct sim *sim, int fd);

#endif /* RELAYSIM_CONTROL_H */
