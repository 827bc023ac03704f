/* sim_report.h - relay_report.lua in C, as far as what it answers matters to sending: states, epochs, probes,
 * grants. */
#ifndef SIM_REPORT_H
#define SIM_REPORT_H

#include "sim.h"

struct td_reply *sim_report(const struct sim_call *call);
void sim_report_reset(void);

#endif /* SIM_REPORT_H */
