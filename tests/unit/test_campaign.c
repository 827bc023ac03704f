/* Dispatch's queues: who gets a place among the begun mails, who the next slot. */
#include "unit.h"

#include <stdlib.h>

#include "campaign.h"

enum { MAILS = 4000 };

struct queue { /* a campaign and its mails */
    struct campaign *campaign;
    struct mail *mails;
    size_t gone;
    bool blocked;
};

struct bench {
    struct campaign_set *set;
    struct queue queue[4];
    size_t count, order[2 * MAILS], gone;
};

static void add(struct bench *b, const char *id, bool express, uint64_t recipients, size_t mails, bool begun)
{
    struct queue *q = &b->queue[b->count++];

    q->campaign = campaign_get(b->set, id);
    q->campaign->express = express;
    q->campaign->recipients = recipients;
    q->mails = calloc(mails, sizeof(*q->mails));
    assert_non_null(q->mails);
    for (size_t i = 0; i < mails; i++) {
        q->mails[i].campaign = q->campaign;
        q->mails[i].begun = begun;
        campaign_ready(b->set, &q->mails[i], false);
    }
}

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));

    b->set = campaign_set_new();
    *state = b;
    return b->set ? 0 : -1;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    for (size_t i = 0; i < b->count; i++)
        free(b->queue[i].mails);
    campaign_set_free(b->set);
    free(b);
    return 0;
}

static bool take(struct bench *b, struct campaign *c, struct mail_list *list)
{
    for (size_t i = 0; i < b->count; i++)
        if (b->queue[i].campaign == c) {
            if (b->queue[i].blocked || !mail_pop(list))
                return false;
            b->queue[i].gone++;
            b->order[b->gone++] = i;
            return true;
        }
    return false;
}

static bool offer(void *user, struct campaign *c)
{
    return take(user, c, &c->go);
}

static bool admit(void *user, struct campaign *c)
{
    return take(user, c, &c->ready);
}

/* One slot falls due at a time. */
static void slots(struct bench *b, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct campaign_round round = {{false, false}};

        campaign_offer(b->set, &round, offer, b);
    }
}

static void slots_go_to_express_first_and_a_fifth_to_bulk(void **state)
{
    struct bench *b = *state;

    add(b, "bulk", false, 0, MAILS, true);
    add(b, "express", true, 0, MAILS, true);
    slots(b, 5);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(b->order[i], 1);
    assert_int_equal(b->order[4], 0);
    slots(b, 1995);
    assert_int_equal(b->queue[0].gone, 400);
    assert_int_equal(b->queue[1].gone, 1600);
}

static void a_round_that_hands_out_many_has_the_same_shares(void **state)
{
    struct bench *b = *state;
    struct campaign_round round = {{false, false}};

    add(b, "bulk", false, 0, MAILS, true);
    add(b, "bulk2", false, 0, MAILS, true);
    add(b, "express", true, 0, 100, true);
    while (b->gone < 500)
        assert_true(campaign_offer(b->set, &round, offer, b));
    assert_int_equal(b->queue[2].gone, 100);
    for (size_t i = 124; i < 500; i++)
        assert_int_not_equal(b->order[i], 2); /* it was through after 125 */
    assert_in_range(b->queue[0].gone, 199, 201);
}

static void a_single_express_mail_gets_the_next_slot(void **state)
{
    struct bench *b = *state;

    add(b, "bulk", false, 0, MAILS, true);
    add(b, "express", true, 0, 1, true);
    b->queue[1].blocked = true; /* not there yet */
    for (size_t i = 0; i < 50; i++) {
        slots(b, i);
        b->queue[1].blocked = false;
        slots(b, 1);
        assert_int_equal(b->order[b->gone - 1], 1);
        b->queue[1].blocked = true;
        campaign_ready(b->set, &b->queue[1].mails[0], false);
    }
}

static void who_cannot_leaves_all_to_the_other(void **state)
{
    struct bench *b = *state;

    add(b, "bulk", false, 0, MAILS, true);
    add(b, "express", true, 0, MAILS, true);
    b->queue[1].blocked = true;
    slots(b, 1000);
    assert_int_equal(b->queue[0].gone, 1000);
    b->queue[0].blocked = true;
    slots(b, 100);
    assert_int_equal(b->gone, 1000);
    b->queue[1].blocked = false;
    slots(b, 1000);
    assert_int_equal(b->queue[1].gone, 1000);
    b->queue[0].blocked = false;
    slots(b, 100);
    assert_in_range(b->queue[0].gone, 1020, 1021); /* no more than its fifth, and the turn it is owed */
}

/* Who could not is not asked again before something has happened: there may be hundreds of them. */
static void in_a_round_each_is_asked_once_in_vain(void **state)
{
    struct bench *b = *state;
    struct campaign_round round = {{false, false}};

    add(b, "bulk", false, 0, 10, true);
    add(b, "express", true, 0, 10, true);
    b->queue[1].blocked = true;
    assert_true(campaign_offer(b->set, &round, offer, b));
    assert_true(round.over[1]);
    b->queue[1].blocked = false;
    while (campaign_offer(b->set, &round, offer, b))
        ;
    assert_int_equal(b->queue[0].gone, 10);
    assert_int_equal(b->queue[1].gone, 0);
}

static void places_are_shared_in_the_same_way(void **state)
{
    struct bench *b = *state;

    add(b, "large", false, 100000, MAILS, false);
    add(b, "small", false, 1000, MAILS / 4, false);
    add(b, "express", true, 100000, MAILS, false);
    for (size_t i = 0; i < 2000; i++)
        assert_true(campaign_admit(b->set, admit, b));
    assert_in_range(b->queue[2].gone, 1598, 1602);
    assert_in_range(b->queue[1].gone, 316, 324);
    assert_in_range(b->queue[0].gone, 76, 84);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(slots_go_to_express_first_and_a_fifth_to_bulk, setup, teardown),
        cmocka_unit_test_setup_teardown(a_round_that_hands_out_many_has_the_same_shares, setup, teardown),
        cmocka_unit_test_setup_teardown(a_single_express_mail_gets_the_next_slot, setup, teardown),
        cmocka_unit_test_setup_teardown(who_cannot_leaves_all_to_the_other, setup, teardown),
        cmocka_unit_test_setup_teardown(in_a_round_each_is_asked_once_in_vain, setup, teardown),
        cmocka_unit_test_setup_teardown(places_are_shared_in_the_same_way, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
