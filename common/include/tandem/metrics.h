/* tandem/metrics.h - counters, gauges and histograms, shown as Prometheus text 0.0.4. Loop thread only. */
#ifndef TD_METRICS_H
#define TD_METRICS_H

#include <stdint.h>

#include "tandem/buf.h"

struct td_metrics;
struct td_metric; /* one time series; lives as long as its td_metrics */

enum td_metric_type { TD_COUNTER, TD_GAUGE, TD_HISTOGRAM };

struct td_metrics *td_metrics_new(void);          /* NULL when out of memory */
void td_metrics_free(struct td_metrics *metrics); /* and its series; NULL is fine */

/**
 * Get or make a series. Names: tandem_<service>_<thing>_<unit>[_total]. Labels are bounded sets (relay, outcome),
 * never a campaign, domain or address.
 * @param labels  `relay="a",phase="rcpt"` or "" ; values must not hold quotes or backslashes
 * @return NULL only when out of memory; all calls below take NULL
 */
struct td_metric *td_metric(struct td_metrics *metrics, enum td_metric_type type, const char *name,
                            const char *help, const char *labels);
void td_metric_add(struct td_metric *metric, double value);       /* counter, gauge */
void td_metric_set(struct td_metric *metric, double value);       /* gauge */
void td_metric_observe(struct td_metric *metric, double seconds); /* histogram: 1 ms to 600 s */
double td_metric_value(const struct td_metric *metric);

/** Append all of it as text. Returns as td_buf_add. */
int td_metrics_write(const struct td_metrics *metrics, struct td_buf *out);

#endif /* TD_METRICS_H */
