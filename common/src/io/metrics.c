/* Families in the order they were first asked for, each with its series; a map finds a series by name and labels.
 */
#include "tandem/metrics.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/err.h"
#include "tandem/map.h"

/* 1 ms to 600 s: from a reply in the same rack to the ten minutes that RFC 5321 grants the final dot. */
static const double bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                1,     2.5,    5,     10,   30,    60,   120, 300,  600};
enum { BUCKETS = sizeof(bounds) / sizeof(bounds[0]), KEY_MAX = 1024 };

struct histogram {
    uint64_t bucket[BUCKETS + 1]; /* not cumulative; the last is +Inf */
    uint64_t count;
};

struct td_metric {
    enum td_metric_type type;
    double value;         /* of a histogram: the sum */
    struct histogram *in; /* histograms only */
    char *labels;
    struct td_metric *next; /* of the family */
};

struct family {
    enum td_metric_type type;
    char *name, *help;
    struct td_metric *first, **last;
    struct family *next;
};

struct td_metrics {
    struct family *first, **last;
    struct td_map *by_key; /* name, NUL, labels -> td_metric; name -> family */
};

struct td_metrics *td_metrics_new(void)
{
    struct td_metrics *metrics = calloc(1, sizeof(*metrics));

    if (!metrics)
        return NULL;
    metrics->last = &metrics->first;
    metrics->by_key = td_map_new();
    if (!metrics->by_key) {
        free(metrics);
        return NULL;
    }
    return metrics;
}

static void metric_free(struct td_metric *metric)
{
    if (!metric)
        return;
    free(metric->in);
    free(metric->labels);
    free(metric);
}

static void family_free(struct family *family)
{
    struct td_metric *metric, *next;

    if (!family)
        return;
    for (metric = family->first; metric; metric = next) {
        next = metric->next;
        metric_free(metric);
    }
    free(family->name);
    free(family->help);
    free(family);
}

void td_metrics_free(struct td_metrics *metrics)
{
    struct family *family, *next;

    if (!metrics)
        return;
    for (family = metrics->first; family; family = next) {
        next = family->next;
        family_free(family);
    }
    td_map_free(metrics->by_key);
    free(metrics);
}

static struct family *family_get(struct td_metrics *metrics, enum td_metric_type type, const char *name,
                                 const char *help)
{
    struct family *family = td_map_get(metrics->by_key, name, strlen(name));

    if (family)
        return family;
    family = calloc(1, sizeof(*family));
    if (!family)
        return NULL;
    family->type = type;
    family->last = &family->first;
    family->name = strdup(name);
    family->help = strdup(help);
    if (!family->name || !family->help || td_map_set(metrics->by_key, name, strlen(name), family) < 0) {
        family_free(family);
        return NULL;
    }
    *metrics->last = family;
    metrics->last = &family->next;
    return family;
}

static struct td_metric *metric_new(enum td_metric_type type, const char *labels)
{
    struct td_metric *metric = calloc(1, sizeof(*metric));

    if (!metric)
        return NULL;
    metric->type = type;
    metric->labels = strdup(labels);
    if (type == TD_HISTOGRAM)
        metric->in = calloc(1, sizeof(*metric->in));
    if (!metric->labels || (type == TD_HISTOGRAM && !metric->in)) {
        metric_free(metric);
        return NULL;
    }
    return metric;
}

struct td_metric *td_metric(struct td_metrics *metrics, enum td_metric_type type, const char *name,
                            const char *help, const char *labels)
{
    struct td_buf key = TD_BUF_INIT(KEY_MAX);
    struct td_metric *metric = NULL;
    struct family *family;

    assert(!strpbrk(labels, "\\\n"));
    if (td_buf_add(&key, name, strlen(name) + 1) < 0 || td_buf_adds(&key, labels) < 0)
        goto out;
    metric = td_map_get(metrics->by_key, key.data, key.len);
    if (metric)
        goto out;
    family = family_get(metrics, type, name, help);
    if (!family)
        goto out;
    assert(family->type == type); /* one name, one type: else the whole page is refused by the scraper */
    metric = metric_new(family->type, labels);
    if (metric && td_map_set(metrics->by_key, key.data, key.len, metric) < 0) {
        metric_free(metric);
        metric = NULL;
    }
    if (metric) {
        *family->last = metric;
        family->last = &metric->next;
    }
out:
    td_buf_release(&key);
    return metric;
}

void td_metric_add(struct td_metric *metric, double value)
{
    if (!metric)
        return;
    assert(metric->type != TD_HISTOGRAM);
    assert(metric->type != TD_COUNTER || value >= 0);
    metric->value += value;
}

void td_metric_set(struct td_metric *metric, double value)
{
    if (!metric)
        return;
    assert(metric->type == TD_GAUGE);
    metric->value = value;
}

void td_metric_observe(struct td_metric *metric, double seconds)
{
    size_t i = 0;

    if (!metric || isnan(seconds))
        return;
    assert(metric->type == TD_HISTOGRAM);
    while (i < BUCKETS && seconds > bounds[i])
        i++;
    metric->in->bucket[i]++;
    metric->in->count++;
    metric->value += seconds;
}

double td_metric_value(const struct td_metric *metric)
{
    if (!metric)
        return 0;
    return metric->in ? (double)metric->in->count : metric->value;
}

static int write_number(struct td_buf *out, double value)
{
    char text[32];

    if (isnan(value))
        return td_buf_adds(out, "NaN");
    if (isinf(value))
        return td_buf_adds(out, value > 0 ? "+Inf" : "-Inf");
    snprintf(text, sizeof(text), "%.15g", value);
    if (strtod(text, NULL) != value) /* 15 digits print 0.1 as 0.1; 17 are exact for all */
        snprintf(text, sizeof(text), "%.17g", value);
    return td_buf_adds(out, text);
}

/* name suffix {labels,extra} value \n */
static int write_sample(struct td_buf *out, const char *name, const char *suffix, const char *labels,
                        const char *extra, double value)
{
    int rc = td_buf_printf(out, "%s%s", name, suffix);

    if (rc == TD_OK && (*labels || *extra))
        rc = td_buf_printf(out, "{%s%s%s}", labels, *labels && *extra ? "," : "", extra);
    if (rc == TD_OK)
        rc = td_buf_addc(out, ' ');
    if (rc == TD_OK)
        rc = write_number(out, value);
    return rc == TD_OK ? td_buf_addc(out, '\n') : rc;
}

static int write_histogram(struct td_buf *out, const char *name, const struct td_metric *metric)
{
    uint64_t total = 0;
    int rc = TD_OK;

    for (size_t i = 0; i <= BUCKETS && rc == TD_OK; i++) {
        char le[32];

        total += metric->in->bucket[i];
        if (i < BUCKETS)
            snprintf(le, sizeof(le), "le=\"%g\"", bounds[i]);
        else
            snprintf(le, sizeof(le), "le=\"+Inf\"");
        rc = write_sample(out, name, "_bucket", metric->labels, le, (double)total);
    }
    if (rc == TD_OK)
        rc = write_sample(out, name, "_sum", metric->labels, "", metric->value);
    return rc == TD_OK ? write_sample(out, name, "_count", metric->labels, "", (double)metric->in->count) : rc;
}

static int write_help(struct td_buf *out, const struct family *family)
{
    static const char *const type[] = {
        [TD_COUNTER] = "counter", [TD_GAUGE] = "gauge", [TD_HISTOGRAM] = "histogram"};
    int rc = td_buf_printf(out, "# HELP %s ", family->name);

    for (const char *c = family->help; *c && rc == TD_OK; c++)
        rc = *c == '\n' ? td_buf_adds(out, "\\n") : *c == '\\' ? td_buf_adds(out, "\\\\") : td_buf_addc(out, *c);
    return rc == TD_OK ? td_buf_printf(out, "\n# TYPE %s %s\n", family->name, type[family->type]) : rc;
}

int td_metrics_write(const struct td_metrics *metrics, struct td_buf *out)
{
    int rc = TD_OK;

    for (const struct family *family = metrics->first; family && rc == TD_OK; family = family->next) {
        rc = write_help(out, family);
        for (const struct td_metric *metric = family->first; metric && rc == TD_OK; metric = metric->next)
            rc = metric->in ? write_histogram(out, family->name, metric)
                            : write_sample(out, family->name, "", metric->labels, "", metric->value);
    }
    return rc;
}
