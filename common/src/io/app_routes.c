/* What every service answers over HTTP. */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../app_int.h"
#include "tandem/clock.h"
#include "tandem/json.h"

static void grow(struct td_metric *counter, double to)
{
    if (to > td_metric_value(counter))
        td_metric_add(counter, to - td_metric_value(counter));
}

/* Not the open descriptors: PR_SET_DUMPABLE 0 makes /proc/self/fd root's. */
static void read_process(struct td_app_run *run)
{
    FILE *in = fopen("/proc/self/statm", "re");
    struct rusage usage;
    long pages = 0;

    if (in) {
        if (fscanf(in, "%*d %ld", &pages) == 1)
            td_metric_set(run->rss, (double)pages * (double)sysconf(_SC_PAGESIZE));
        fclose(in);
    }
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        double cpu = (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6 +
                     (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6;

        grow(run->cpu, cpu); /* a counter of the kernel's: we add what it grew */
    }
}

static struct td_metric *stage_metric(struct td_app_run *run, const char *stage)
{
    char labels[48];

    snprintf(labels, sizeof(labels), "stage=\"%s\"", stage);
    return td_metric(run->app.metrics, TD_COUNTER, "tandem_stage_cpu_seconds_total",
                     "CPU time of the process by what it was spent on; threads are librdkafka's, all else the loop's.", labels);
}

/* Only of the stages that this service has. */
static void read_stages(struct td_app_run *run)
{
    double threads = (double)(td_process_cpu_ns() - td_thread_cpu_ns()) / 1e9;

    td_stages_share(&run->stages);
    for (int i = 0; i < TD_STAGE_COUNT; i++) {
        if (!run->stage[i] && run->stages.seconds[i] > 0)
            run->stage[i] = stage_metric(run, td_stage_name((enum td_stage)i));
        grow(run->stage[i], run->stages.seconds[i]);
    }
    if (!run->threads)
        run->threads = stage_metric(run, "threads");
    grow(run->threads, threads);
}

static void on_metrics(void *user, const struct td_http_request *req, struct td_http_response *res)
{
    struct td_app_run *run = user;

    (void)req;
    read_process(run);
    read_stages(run);
    res->content_type = "text/plain; version=0.0.4; charset=utf-8";
    if (td_metrics_write(run->app.metrics, &res->body) < 0) {
        td_buf_clear(&res->body); /* half a page would be read as a reset */
        res->status = 500;
    }
}

static void on_healthz(void *user, const struct td_http_request *req, struct td_http_response *res)
{
    (void)user;
    (void)req;
    td_buf_adds(&res->body, "{\"status\":\"ok\"}\n"); /* the loop runs, or nobody would answer */
}

static void on_readyz(void *user, const struct td_http_request *req, struct td_http_response *res)
{
    struct td_app_run *run = user;
    char why[200] = "";
    bool ready = false;

    (void)req;
    if (run->stopping || run->finished)
        snprintf(why, sizeof(why), "stopping");
    else if (!run->started)
        snprintf(why, sizeof(why), "starting");
    else
        ready = !run->service->ready || run->service->ready(run->state, why, sizeof(why));
    res->status = ready ? 200 : 503;
    td_buf_printf(&res->body, "{\"ready\":%s,\"why\":", ready ? "true" : "false");
    td_json_string(&res->body, why, strlen(why));
    td_buf_adds(&res->body, "}\n");
}

static void on_version(void *user, const struct td_http_request *req, struct td_http_response *res)
{
    struct td_app_run *run = user;

    (void)req;
    td_buf_printf(&res->body, "{\"service\":\"%s\",\"version\":\"%s\"}\n", run->service->name, TD_VERSION);
}

int td_app_routes(struct td_app_run *run)
{
    struct td_http *http = run->app.http;
    int rc = td_http_route(http, "GET", "/metrics", on_metrics, run);

    if (rc == TD_OK)
        rc = td_http_route(http, "GET", "/healthz", on_healthz, run);
    if (rc == TD_OK)
        rc = td_http_route(http, "GET", "/readyz", on_readyz, run);
    return rc == TD_OK ? td_http_route(http, "GET", "/version", on_version, run) : rc;
}
