#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tandem/err.h"
#include "tandem/metrics.h"

static void page_is_prometheus_text(void **unused)
{
    struct td_metrics *metrics = td_metrics_new();
    struct td_buf page = TD_BUF_INIT(1 << 16);

    (void)unused;
    td_metric_add(td_metric(metrics, TD_COUNTER, "tandem_x_mails_total", "Mails.\nBack\\slash.", "relay=\"a\""),
                  3);
    td_metric_set(td_metric(metrics, TD_GAUGE, "tandem_x_depth", "Depth.", ""), -0.5);
    td_metric_add(td_metric(metrics, TD_COUNTER, "tandem_x_mails_total", "Mails.", "relay=\"b\""), 1e15);
    assert_int_equal(td_metrics_write(metrics, &page), TD_OK);
    /* The two series of one family stand together, though another was made between them. */
    assert_string_equal(td_buf_str(&page), "# HELP tandem_x_mails_total Mails.\\nBack\\\\slash.\n"
                                           "# TYPE tandem_x_mails_total counter\n"
                                           "tandem_x_mails_total{relay=\"a\"} 3\n"
                                           "tandem_x_mails_total{relay=\"b\"} 1e+15\n"
                                           "# HELP tandem_x_depth Depth.\n"
                                           "# TYPE tandem_x_depth gauge\n"
                                           "tandem_x_depth -0.5\n");
    td_buf_release(&page);
    td_metrics_free(metrics);
}

static void same_name_and_labels_are_one_series(void **unused)
{
    struct td_metrics *metrics = td_metrics_new();
    struct td_metric *a = td_metric(metrics, TD_COUNTER, "n_total", "N.", "k=\"1\"");

    (void)unused;
    assert_ptr_equal(td_metric(metrics, TD_COUNTER, "n_total", "N.", "k=\"1\""), a);
    assert_ptr_not_equal(td_metric(metrics, TD_COUNTER, "n_total", "N.", "k=\"2\""), a);
    td_metric_add(a, 1);
    td_metric_add(a, 2);
    assert_true(td_metric_value(a) == 3);
    td_metrics_free(metrics);
}

static void histogram_counts_up_to_its_bounds(void **unused)
{
    struct td_metrics *metrics = td_metrics_new();
    struct td_metric *metric = td_metric(metrics, TD_HISTOGRAM, "t_seconds", "T.", "p=\"dot\"");
    struct td_buf page = TD_BUF_INIT(1 << 16);

    (void)unused;
    td_metric_observe(metric, 0.001); /* on a bound: inside it */
    td_metric_observe(metric, 0.3);
    td_metric_observe(metric, 601);
    td_metric_observe(metric, (double)NAN); /* would poison the sum for ever */
    assert_int_equal(td_metrics_write(metrics, &page), TD_OK);
    assert_non_null(strstr(td_buf_str(&page), "# TYPE t_seconds histogram\n"
                                              "t_seconds_bucket{p=\"dot\",le=\"0.001\"} 1\n"));
    assert_non_null(strstr(td_buf_str(&page), "t_seconds_bucket{p=\"dot\",le=\"0.25\"} 1\n"
                                              "t_seconds_bucket{p=\"dot\",le=\"0.5\"} 2\n"));
    assert_non_null(strstr(td_buf_str(&page), "t_seconds_bucket{p=\"dot\",le=\"600\"} 2\n"
                                              "t_seconds_bucket{p=\"dot\",le=\"+Inf\"} 3\n"
                                              "t_seconds_sum{p=\"dot\"} 601.301\n"
                                              "t_seconds_count{p=\"dot\"} 3\n"));
    assert_true(td_metric_value(metric) == 3);
    td_buf_release(&page);
    td_metrics_free(metrics);
}

static void null_metric_is_ignored(void **unused)
{
    (void)unused;
    td_metric_add(NULL, 1);
    td_metric_set(NULL, 1);
    td_metric_observe(NULL, 1);
    assert_true(td_metric_value(NULL) == 0);
    td_metrics_free(NULL);
}

static void page_past_its_limit_is_an_error(void **unused)
{
    struct td_metrics *metrics = td_metrics_new();
    struct td_buf page = TD_BUF_INIT(40);

    (void)unused;
    td_metric_add(td_metric(metrics, TD_COUNTER, "tandem_a_name_long_enough_total", "N.", ""), 1);
    assert_int_equal(td_metrics_write(metrics, &page), TD_ETOOBIG);
    td_buf_release(&page);
    td_metrics_free(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_is_prometheus_text),           cmocka_unit_test(same_name_and_labels_are_one_series),
        cmocka_unit_test(histogram_counts_up_to_its_bounds), cmocka_unit_test(null_metric_is_ignored),
        cmocka_unit_test(page_past_its_limit_is_an_error),
    };

    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
