/* Members that come, leave, die, are slow and are fenced; brokers that go and come back. */
#include "live.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tandem/clock.h"

bool case_fifty_thousand_arrive_once(struct live *live)
{
    enum { RECORDS = 50000 };
    struct tally *tally = calloc(1, sizeof(*tally));
    struct member member;
    uint64_t began = td_mono_ms();
    bool ok = live_topics(live) && numbers_all(live, 0, RECORDS);

    fprintf(stderr, "  written in %" PRIu64 " ms\n", td_mono_ms() - began);
    began = td_mono_ms();
    if (ok && member_join(live, &member, "a", tally)) {
        ok = tally_until(live, tally, RECORDS);
        fprintf(stderr, "  read in %" PRIu64 " ms\n", td_mono_ms() - began);
        live_for(live, 500); /* nothing may follow */
        ok = member_leave(live, &member) && ok && tally_check(live, tally, RECORDS, true);
    }
    free(tally);
    return ok;
}

/* Two members, then one leaves in order while records are written. It commits what it has read, so nothing
 * repeats. */
static bool share_and_leave(struct live *live, struct tally *tally, struct member *a, struct member *b)
{
    enum { RECORDS = 20000 };
    int64_t left_at[LANES];
    bool left[LANES];
    uint64_t left_ms;
    int mine;

    while (!(a->lanes == LANES / 2 && b->lanes == LANES / 2))
        live_for(live, 20);
    CHECK(numbers_all(live, 0, RECORDS / 2), "write");
    CHECK(tally_until(live, tally, RECORDS / 2), "read");
    memcpy(left, b->owns, sizeof(left));
    memcpy(left_at, b->next, sizeof(left_at));
    mine = a->assignments;
    left_ms = td_mono_ms();
    CHECK(member_leave(live, b), "leave");
    b->in = NULL;
    while (a->assignments == mine && td_mono_ms() - left_ms < PATIENCE_MS)
        live_for(live, 10);
    left_ms = td_mono_ms() - left_ms;
    fprintf(stderr, "  lanes taken over %" PRIu64 " ms after the other began to leave\n", left_ms);
    CHECK(left_ms < SESSION_MS / 2, "%" PRIu64 " ms", left_ms); /* it said so: nobody waited for the end of its session */
    CHECK(numbers_all(live, RECORDS / 2, RECORDS), "write");
    CHECK(tally_until(live, tally, RECORDS), "read");
    CHECK(a->assignments == mine + 1 && a->lanes == LANES, "%d assignments, %d lanes", a->assignments, a->lanes);
    for (int i = 0; i < LANES; i++)
        CHECK(!left[i] || a->start[i] == left_at[i], "lane %d taken over at %" PRId64 ", left at %" PRId64, i,
              a->start[i], left_at[i]);
    CHECK(a->lost == 0 && b->lost == 0, "lanes were lost");
    return tally_check(live, tally, RECORDS, true);
}

bool case_two_members_share_and_one_leaves(struct live *live)
{
    struct tally *tally = calloc(1, sizeof(*tally));
    struct member a, b;
    bool ok = live_topics(live) && member_join(live, &a, "a", tally) && member_join(live, &b, "b", tally) &&
              share_and_leave(live, tally, &a, &b);

    if (b.in)
        member_leave(live, &b);
    ok = member_leave(live, &a) && ok;
    free(tally);
    return ok;
}

/* Who is alone stays a member, and is given its lanes at once when it is back by its name. Somebody else by another name would
 * wait for the end of its session, which tells that it did stay. */
static bool come_back(struct live *live, struct tally *tally, struct member *member, const char *instance, uint64_t *ret_ms)
{
    uint64_t began;

    CHECK(member_join(live, member, "a", tally), "join");
    while (member->lanes != LANES)
        live_for(live, 10);
    CHECK(member_leave(live, member), "leave");
    began = td_mono_ms();
    CHECK(member_join(live, member, instance, tally), "join again");
    while (member->lanes != LANES && td_mono_ms() - began < PATIENCE_MS)
        live_for(live, 10);
    *ret_ms = td_mono_ms() - began;
    fprintf(stderr, "  lanes of a after %" PRIu64 " ms to %s\n", *ret_ms, instance);
    return member_leave(live, member);
}

bool case_the_last_member_stays(struct live *live)
{
    struct tally *tally = calloc(1, sizeof(*tally));
    struct member member;
    uint64_t same_ms = 0, other_ms = 0;
    bool ok = live_topics(live) && come_back(live, tally, &member, "a", &same_ms) &&
              come_back(live, tally, &member, "b", &other_ms);

    free(tally);
    CHECK(ok, "members");
    CHECK(same_ms < SESSION_MS / 2 && other_ms > SESSION_MS / 2, "%" PRIu64 " and %" PRIu64 " ms", same_ms, other_ms);
    return true;
}

/* ---- a member in another process ---- */

static struct tally *map_tally(const char *file)
{
    int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    void *map = MAP_FAILED;

    if (fd >= 0 && ftruncate(fd, sizeof(struct tally)) == 0)
        map = mmap(NULL, sizeof(struct tally), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    return map == MAP_FAILED ? NULL : map;
}

/* Reads, counts and commits until it is killed. */
int live_member_process(struct live *live, const char *instance, const char *tally_file)
{
    struct tally *tally = map_tally(tally_file);
    struct member member;

    if (!tally || !member_join(live, &member, instance, tally))
        return 1;
    for (;;)
        uv_run(&live->loop, UV_RUN_ONCE);
}

static pid_t start_member(struct live *live, const char *instance, const char *tally_file)
{
    pid_t pid = fork();

    if (pid == 0) {
        execl(live->self, live->self, "--member", live->brokers, live->prefix, instance, tally_file, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static bool replace_killed(struct live *live, struct tally *ours, struct tally *theirs, const char *file)
{
    enum { RECORDS = 20000 };
    struct numbers numbers;
    struct member a;
    uint64_t killed_ms, deadline = td_mono_ms() + PATIENCE_MS;
    pid_t pid = start_member(live, "killed", file);
    bool ok, dead = false;

    CHECK(pid > 0 && member_join(live, &a, "a", ours), "members");
    ok = numbers_begin(live, &numbers, 0, RECORDS);
    while (ok && a.lanes != LANES / 2 && td_mono_ms() < deadline)
        live_for(live, 20);
    /* Written slowly, so that the kill comes in the middle. */
    while (ok && !numbers.done && td_mono_ms() < deadline) {
        numbers.end = numbers.next + 400 < RECORDS ? numbers.next + 400 : RECORDS;
        ok = numbers_pump(live, &numbers);
        live_for(live, 20);
        if (!dead && theirs->records > RECORDS / 8) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
            dead = true;
            killed_ms = td_mono_ms();
        }
        numbers.done = numbers.acked == RECORDS;
    }
    numbers_end(&numbers);
    while (ok && dead && a.lanes != LANES && td_mono_ms() < deadline)
        live_for(live, 20);
    if (dead)
        fprintf(stderr, "  lanes taken over %" PRIu64 " ms after SIGKILL\n", td_mono_ms() - killed_ms);
    live_for(live, 3000);
    for (int i = 0; i < LANES && ok; i++) {
        if (theirs->committed[i] == 0)
            continue;
        /* From what it had committed, or what was on its way when it died; never past what it had read. */
        ok = a.start[i] <= theirs->committed[i] && a.start[i] > 0;
    }
    for (int i = 0; i < RECORDS; i++)
        ours->seen[i] = (uint8_t)(ours->seen[i] + theirs->seen[i]);
    ok = member_leave(live, &a) && ok;
    if (!dead)
        kill(pid, SIGKILL);
    CHECK(dead, "the other member read only %d records", theirs->records);
    CHECK(ok, "lanes not taken over where the other member was");
    return tally_check(live, ours, RECORDS, false);
}

bool case_a_killed_member_is_replaced(struct live *live)
{
    char file[300];
    struct tally *ours = calloc(1, sizeof(*ours)), *theirs;
    bool ok;

    snprintf(file, sizeof(file), "%s/tally", live->dir);
    theirs = map_tally(file);
    ok = ours && theirs && live_topics(live) && replace_killed(live, ours, theirs, file);
    if (theirs)
        munmap(theirs, sizeof(*theirs));
    unlink(file);
    free(ours);
    return ok;
}

/* ---- a slow hand-over ---- */

static bool slow_hand_over(struct live *live, struct tally *tally, struct member *a, struct member *b)
{
    enum { RECORDS = 4000 };
    uint64_t deadline = td_mono_ms() + PATIENCE_MS;
    int64_t at[LANES];

    CHECK(numbers_all(live, 0, RECORDS) && tally_until(live, tally, RECORDS), "begin");
    a->manual = true;
    a->commit_every = 0;
    CHECK(member_join(live, b, "b", tally), "join");
    CHECK(live_until(live, &a->revoking), "no revocation");
    CHECK(numbers_all(live, RECORDS, RECORDS + 400), "write");
    live_for(live, 2000);
    CHECK(tally->records == RECORDS, "%d records read while lanes were handed back", tally->records - RECORDS);
    CHECK(td_kafka_in_alive_ms(a->in) + 3000 > td_mono_ms(), "the group forgot a member that hands back");
    memcpy(at, a->next, sizeof(at));
    member_commit_all(a);
    memset(a->owns, 0, sizeof(a->owns));
    a->lanes = 0;
    a->manual = false;
    td_kafka_in_revoke_done(a->in);
    while (!(a->lanes == LANES / 2 && b->lanes == LANES / 2) && td_mono_ms() < deadline)
        live_for(live, 20);
    CHECK(a->lanes == LANES / 2 && b->lanes == LANES / 2, "%d and %d lanes", a->lanes, b->lanes);
    for (int i = 0; i < LANES; i++)
        CHECK((a->owns[i] ? a->start[i] : b->start[i]) == at[i], "lane %d begins elsewhere than it was committed",
              i);
    CHECK(a->lost == 0, "lanes were lost");
    CHECK(tally_until(live, tally, RECORDS + 400), "read");
    return tally_check(live, tally, RECORDS + 400, true);
}

bool case_revoke_may_take_two_seconds(struct live *live)
{
    struct tally *tally = calloc(1, sizeof(*tally));
    struct member a, b = {.in = NULL};
    bool ok = live_topics(live) && member_join(live, &a, "a", tally) && slow_hand_over(live, tally, &a, &b);

    a.manual = b.manual = false;
    if (b.in)
        ok = member_leave(live, &b) && ok;
    ok = member_leave(live, &a) && ok;
    free(tally);
    return ok;
}

bool case_the_same_instance_twice_is_fatal(struct live *live)
{
    struct tally *tally = calloc(1, sizeof(*tally));
    struct member old, new;
    uint64_t deadline = td_mono_ms() + PATIENCE_MS;
    bool ok = live_topics(live) && member_join(live, &old, "a", tally);

    while (ok && old.lanes != LANES && td_mono_ms() < deadline)
        live_for(live, 20);
    ok = ok && member_join(live, &new, "a", tally);
    ok = ok && live_until(live, &old.fatal);
    while (ok && new.lanes != LANES && td_mono_ms() < deadline)
        live_for(live, 20);
    ok = ok && new.lanes == LANES && !new.fatal;
    member_leave(live, &old); /* closes although it is in no group any more */
    ok = member_leave(live, &new) && ok;
    free(tally);
    CHECK(ok, "the older process was not told to end, or the newer has no lanes");
    return true;
}

/* ---- the broker goes ---- */

static bool outage(struct live *live, const char *how, struct tally *tally, struct member *a)
{
    enum { RECORDS = 30000 };
    struct numbers numbers;
    uint64_t deadline = td_mono_ms() + 2 * PATIENCE_MS;
    bool ok, gone = false, back = false;

    ok = numbers_begin(live, &numbers, 0, RECORDS);
    while (ok && numbers.acked + numbers.failed < RECORDS && td_mono_ms() < deadline) {
        numbers.end = numbers.next + 100 < RECORDS ? numbers.next + 100 : RECORDS;
        ok = numbers_pump(live, &numbers);
        live_for(live, 20);
        if (!gone && tally->records > RECORDS / 4) {
            ok = live_broker_outage(live, how, &back);
            gone = true;
        }
    }
    numbers_end(&numbers);
    ok = ok && live_until(live, &back);
    CHECK(ok && gone, "outage");
    CHECK(numbers.acked == RECORDS && numbers.failed == 0, "%d written, %d failed", numbers.acked, numbers.failed);
    CHECK(tally_until(live, tally, RECORDS), "read");
    while (!td_kafka_in_committed(a->in) && td_mono_ms() < deadline)
        live_for(live, 20);
    CHECK(td_kafka_in_committed(a->in), "commits did not settle");
    return tally_check(live, tally, RECORDS, false);
}

static bool broker_goes(struct live *live, const char *how)
{
    struct tally *tally = calloc(1, sizeof(*tally));
    struct member a;
    bool ok = live_topics(live) && member_join(live, &a, "a", tally) && outage(live, how, tally, &a);

    ok = member_leave(live, &a) && ok;
    free(tally);
    return ok;
}

bool case_stopped_broker_loses_nothing(struct live *live)
{
    return broker_goes(live, "stop");
}

bool case_killed_broker_loses_nothing(struct live *live)
{
    return broker_goes(live, "kill");
}
