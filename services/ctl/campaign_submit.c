/* campaign submit: CAMPAIGN -> PARTS -> BATCHES -> SEAL -> DONE, each answered before the next begins, with a
 * window of submissions under way inside PARTS and BATCHES. The recipients file is read as it goes; what is in
 * memory is a batch. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/sha.h>

#include "courier.h"
#include "recipients.h"
#include "split.h"
#include "submit_check.h"
#include "submit_options.h"
#include "tandem/clock.h"
#include "tandem/id.h"
#include "tandem/pb.h"
#include "text.h"

#define WINDOW 16
#define BATCH_BYTES 800000
/* 500 rows of the reader's limit of 1 MiB would never fit a record anyway. */
#define BATCH_ARENA_BYTES (64 << 20)
#define LINE_MS 10000

enum phase { CAMPAIGN, PARTS, BATCHES, SEAL, DONE };

struct sent { /* a submission without an answer */
    uint32_t number;
    size_t count;
    size_t *line; /* of a batch: where its recipients' rows begin; owned */
};

struct submit {
    struct submit_options options;
    struct ctl *ctl;
    char id[TD_CAMPAIGN_ID_MAX + 1];
    struct td_arena *arena, *batch_arena;
    Tandem__Mail__V1__Campaign campaign;
    struct recipients *recipients;
    struct courier *courier;
    enum phase phase;
    bool single_sent; /* CAMPAIGN and SEAL are one submission each */
    bool asked;       /* something of this phase went out: CAMPAIGN and SEAL have one submission each */
    struct sent sent[WINDOW];
    size_t sent_count;
    size_t file; /* PARTS: which file, and its part */
    uint32_t part;
    uint32_t next_index, total; /* BATCHES; total was counted before */
    bool rows_end;
    /* a row that did not fit into the last batch */
    Tandem__Mail__V1__Recipient *held;
    size_t held_line;
    uint32_t taken;
    uint64_t refused, shown_ms;
    uv_signal_t interrupt;
    int code;
    bool ended;
};

static void end(struct submit *submit, int code)
{
    if (!submit->ended)
        submit->code = code;
    submit->ended = true;
    uv_stop(&submit->ctl->loop);
}

/* ---- first reading: is the file sound, how many are they, what is the campaign's id? ---- */

static int read_through(struct submit *submit)
{
    struct td_arena *arena = td_arena_new(4 << 20);
    Tandem__Mail__V1__Recipient *recipient;
    struct td_err err = {TD_ENOMEM, "no memory for recipients"};
    uint64_t count = 0;
    size_t line;
    int rc = TD_ENOMEM;

    while (arena && (rc = recipients_next(submit->recipients, arena, &recipient, &line, &err)) == 1) {
        count++;
        if (protobuf_c_message_get_packed_size(&recipient->base) > BATCH_BYTES || count > SPLIT_INDEX_MAX) {
            rc = td_fail(&err, TD_EINVAL, "line %zu: %s", line,
                         count > SPLIT_INDEX_MAX ? "more recipients than a campaign may have"
                                                 : "the row is too large");
            break;
        }
        td_arena_clear(arena);
    }
    td_arena_free(arena);
    if (rc == 0 && count == 0)
        rc = td_fail(&err, TD_EINVAL, "the recipients file has a header and nobody in it");
    submit->total = (uint32_t)count;
    return rc < 0 ? ctl_error(&err) : CTL_OK;
}

/* The same campaign, files and recipients have the same id, so that handing them in again is no second campaign.
 */
static int make_id(struct submit *submit)
{
    uint8_t hash[SHA256_DIGEST_LENGTH], rows[SHA256_DIGEST_LENGTH];
    size_t len;
    void *packed;
    uint8_t *all;

    if (submit->options.id) {
        if (!ctl_campaign_id(submit->options.id))
            return CTL_USAGE;
        snprintf(submit->id, sizeof(submit->id), "%s", submit->options.id);
        return CTL_OK;
    }
    packed = td_pb_write(&submit->campaign.base, &len);
    all = packed ? realloc(packed, len + sizeof(rows)) : NULL;
    if (!all) {
        free(packed);
        return CTL_FAILED;
    }
    recipients_sha256(submit->recipients, rows);
    memcpy(all + len, rows, sizeof(rows));
    SHA256(all, len + sizeof(rows), hash);
    free(all);
    text_uuid(submit->id, hash);
    return CTL_OK;
}

/* ---- sending ---- */

static void pump(struct submit *submit);

static bool send_one(struct submit *submit, Tandem__Mail__V1__Submission *submission, size_t *line, size_t count)
{
    struct td_err err;
    uint32_t number;
    int rc = courier_send(submit->courier, submission, &number, &err);

    if (rc == TD_OK) {
        submit->sent[submit->sent_count++] = (struct sent){number, count, line};
        return true;
    }
    free(line);
    end(submit, ctl_error(&err));
    return false;
}

static bool send_campaign(struct submit *submit)
{
    Tandem__Mail__V1__Submission submission = TANDEM__MAIL__V1__SUBMISSION__INIT;

    submission.body_case = TANDEM__MAIL__V1__SUBMISSION__BODY_CAMPAIGN;
    submission.campaign = &submit->campaign;
    return send_one(submit, &submission, NULL, 0);
}

static bool send_seal(struct submit *submit)
{
    Tandem__Mail__V1__Submission submission = TANDEM__MAIL__V1__SUBMISSION__INIT;
    Tandem__Mail__V1__Seal seal = TANDEM__MAIL__V1__SEAL__INIT;

    seal.recipient_count = submit->next_index;
    submission.body_case = TANDEM__MAIL__V1__SUBMISSION__BODY_SEAL;
    submission.seal = &seal;
    return send_one(submit, &submission, NULL, 0);
}

/* @return false when there is none left */
static bool send_part(struct submit *submit)
{
    Tandem__Mail__V1__Submission submission = TANDEM__MAIL__V1__SUBMISSION__INIT;
    Tandem__Mail__V1__AttachmentChunk chunk = TANDEM__MAIL__V1__ATTACHMENT_CHUNK__INIT;
    struct submit_file *file;

    while (submit->file < submit->options.file_count && !submit->options.file[submit->file].chunked)
        submit->file++;
    if (submit->file == submit->options.file_count)
        return false;
    file = &submit->options.file[submit->file];
    chunk.sha256 = (ProtobufCBinaryData){32, file->sha256};
    chunk.part = submit->part;
    chunk.part_count = split_part_count(file->len);
    chunk.content = (ProtobufCBinaryData){split_part_bytes(file->len, submit->part),
                                          (uint8_t *)file->data + (size_t)submit->part * SPLIT_PART_BYTES};
    submission.body_case = TANDEM__MAIL__V1__SUBMISSION__BODY_ATTACHMENT_CHUNK;
    submission.attachment_chunk = &chunk;
    if (++submit->part == chunk.part_count) {
        submit->part = 0;
        submit->file++;
    }
    return send_one(submit, &submission, NULL, 0);
}

/* The next row, the held one first. @return 1, 0 at the end, negative when the loop was ended */
static int next_row(struct submit *submit, Tandem__Mail__V1__Recipient **ret, size_t *ret_line)
{
    struct td_err err;
    int rc;

    if (submit->held) {
        *ret = submit->held;
        *ret_line = submit->held_line;
        submit->held = NULL;
        return 1;
    }
    rc = recipients_next(submit->recipients, submit->batch_arena, ret, ret_line, &err);
    if (rc < 0)
        end(submit, ctl_error(&err));
    return rc;
}

/* The held row outlives the batch's arena: through its wire form into the arena emptied for the next batch. */
static bool keep_held(struct submit *submit)
{
    ProtobufCMessage *message;
    size_t len;
    void *packed = td_pb_write(&submit->held->base, &len);
    int rc = packed ? TD_OK : TD_ENOMEM;

    td_arena_clear(submit->batch_arena);
    if (rc == TD_OK)
        rc =
            td_pb_read(&tandem__mail__v1__recipient__descriptor, packed, len, submit->batch_arena, &message, NULL);
    free(packed);
    if (rc < 0) {
        ctl_say("line %zu: the row cannot be kept", submit->held_line);
        end(submit, CTL_FAILED);
        return false;
    }
    submit->held = (Tandem__Mail__V1__Recipient *)message;
    return true;
}

/* @return false when there is none left, or the loop was ended */
static bool send_batch(struct submit *submit)
{
    Tandem__Mail__V1__Submission submission = TANDEM__MAIL__V1__SUBMISSION__INIT;
    Tandem__Mail__V1__RecipientBatch batch = TANDEM__MAIL__V1__RECIPIENT_BATCH__INIT;
    Tandem__Mail__V1__Recipient *rows[SPLIT_RECIPIENTS], *row;
    size_t *line = malloc(SPLIT_RECIPIENTS * sizeof(*line)), row_line, bytes = 0;
    int rc = line ? 0 : -1;

    batch.first_index = submit->next_index;
    batch.recipients = rows;
    while (line && batch.n_recipients < SPLIT_RECIPIENTS && (rc = next_row(submit, &row, &row_line)) == 1) {
        bytes += protobuf_c_message_get_packed_size(&row->base) + 8;
        if (bytes > BATCH_BYTES && batch.n_recipients > 0) {
            submit->held = row;
            submit->held_line = row_line;
            break;
        }
        line[batch.n_recipients] = row_line;
        rows[batch.n_recipients++] = row;
    }
    submit->rows_end = rc == 0;
    if (rc < 0 || batch.n_recipients == 0) {
        free(line);
        return false;
    }
    submit->next_index += (uint32_t)batch.n_recipients;
    submission.body_case = TANDEM__MAIL__V1__SUBMISSION__BODY_RECIPIENT_BATCH;
    submission.recipient_batch = &batch;
    if (!send_one(submit, &submission, line, batch.n_recipients))
        return false;
    if (submit->held)
        return keep_held(submit);
    td_arena_clear(submit->batch_arena);
    return true;
}

static bool phase_send(struct submit *submit)
{
    switch (submit->phase) {
    case CAMPAIGN:
        return !submit->asked && send_campaign(submit);
    case PARTS:
        return send_part(submit);
    case BATCHES:
        return !submit->rows_end && send_batch(submit);
    case SEAL:
        return !submit->asked && send_seal(submit);
    case DONE:
        break;
    }
    return false;
}

static void pump(struct submit *submit)
{
    while (!submit->ended && submit->sent_count < WINDOW && phase_send(submit))
        submit->asked = true;
    if (submit->ended || submit->sent_count > 0)
        return;
    submit->phase++;
    submit->asked = false;
    if (submit->phase == DONE)
        end(submit, CTL_OK);
    else
        pump(submit);
}

/* ---- answers ---- */

/* "recipient_batch.recipients[17].address" -> 17 */
static bool refused_row(const char *field, size_t count, size_t *ret)
{
    static const char prefix[] = "recipient_batch.recipients[";
    char digits[12];
    uint64_t row;
    size_t len;

    if (strncmp(field, prefix, sizeof(prefix) - 1) != 0)
        return false;
    len = strspn(field + sizeof(prefix) - 1, "0123456789");
    if (len == 0 || len >= sizeof(digits))
        return false;
    memcpy(digits, field + sizeof(prefix) - 1, len);
    digits[len] = '\0';
    if (!text_number(digits, count - 1, &row))
        return false;
    *ret = (size_t)row;
    return true;
}

static void print_rows(struct submit *submit, const struct sent *sent,
                       const Tandem__Mail__V1__SubmissionAnswer *answer)
{
    for (size_t i = 0; i < answer->n_refusals; i++) {
        const Tandem__Mail__V1__Refusal *refusal = answer->refusals[i];
        size_t row;

        submit->refused++;
        if (refused_row(refusal->field, sent->count, &row))
            fprintf(stderr, "  line %zu: %s: %s\n", sent->line[row], refusal->code, refusal->sentence);
        else
            fprintf(stderr, "  %s (%s): %s\n", refusal->code, refusal->field, refusal->sentence);
    }
}

static void show_progress(struct submit *submit)
{
    uint64_t now_ms = td_mono_ms();
    bool terminal = !submit->ctl->no_color && isatty(STDERR_FILENO);

    if (submit->ctl->quiet || submit->phase != BATCHES)
        return;
    if (submit->shown_ms == 0 && !terminal)
        submit->shown_ms = now_ms; /* a short one needs no line */
    if (now_ms - submit->shown_ms < (terminal ? 200 : LINE_MS))
        return;
    submit->shown_ms = now_ms;
    fprintf(stderr, terminal ? "\r%u of %u recipients handed in\033[K" : "%u of %u recipients handed in\n",
            submit->taken, submit->total);
    if (terminal && submit->taken == submit->total)
        fputc('\n', stderr);
}

static void on_answer(void *user, uint32_t number, const Tandem__Mail__V1__SubmissionAnswer *answer)
{
    struct submit *submit = user;
    size_t i = 0;

    while (i < submit->sent_count && submit->sent[i].number != number)
        i++;
    if (i == submit->sent_count || submit->ended)
        return;
    if (!answer->accepted) {
        ctl_say("refused (%s)", answer->body);
        courier_print_refusals(answer);
        end(submit, CTL_REFUSED);
        return;
    }
    if (submit->sent[i].line)
        print_rows(submit, &submit->sent[i], answer);
    submit->taken += (uint32_t)submit->sent[i].count;
    free(submit->sent[i].line);
    submit->sent[i] = submit->sent[--submit->sent_count];
    show_progress(submit);
    pump(submit);
}

static void on_trouble(void *user, const struct td_err *err)
{
    struct submit *submit = user;

    if (submit->ended)
        return;
    ctl_error(err);
    ctl_say("handed in so far: %u of %u; the same command goes on with it", submit->taken, submit->total);
    end(submit, CTL_UNREACHABLE);
}

static void on_interrupt(uv_signal_t *signal, int number)
{
    struct submit *submit = signal->data;

    (void)number;
    ctl_say(
        "stopped: %u of %u recipients of campaign %s are handed in and will be sent; the same command goes on, "
        "`tandemctl campaign cancel %s` stops it",
        submit->taken, submit->total, submit->id, submit->id);
    end(submit, CTL_INTERRUPTED);
}

/* ---- the command ---- */

static int hand_in(struct submit *submit)
{
    static const struct courier_ops ops = {on_answer, on_trouble};
    struct ctl *ctl = submit->ctl;
    struct td_err err;

    submit->batch_arena = td_arena_new(BATCH_ARENA_BYTES);
    if (!submit->batch_arena || recipients_rewind(submit->recipients, &err) < 0)
        return CTL_FAILED;
    if (courier_new(ctl, submit->id, &ops, submit, &submit->courier, &err) < 0)
        return ctl_error(&err);
    uv_signal_init(&ctl->loop, &submit->interrupt);
    submit->interrupt.data = submit;
    uv_signal_start(&submit->interrupt, on_interrupt, SIGINT);
    pump(submit);
    if (!submit->ended)
        ctl_run(ctl);
    courier_free(submit->courier);
    uv_close((uv_handle_t *)&submit->interrupt, NULL);
    uv_run(&ctl->loop, UV_RUN_DEFAULT); /* until the handles are closed */
    return submit->code;
}

static void print_result(const struct submit *submit)
{
    if (submit->ctl->json)
        printf("{\"campaign_id\":\"%s\",\"recipients\":%u,\"refused\":%" PRIu64 "}\n", submit->id, submit->taken,
               submit->refused);
    else if (isatty(STDOUT_FILENO) && !submit->ctl->quiet)
        printf("campaign %s: %u recipients handed in, %" PRIu64 " of them refused%s\n", submit->id, submit->taken,
               submit->refused, submit->refused ? " (at least; see above)" : "");
    else
        puts(submit->id);
    fflush(stdout);
}

static int run(struct submit *submit)
{
    struct submit_options *options = &submit->options;
    struct td_err err;
    int code;

    submit->arena = td_arena_new(8 << 20);
    if (!submit->arena)
        return CTL_FAILED;
    code = submit_campaign(options, submit->arena, &submit->campaign);
    if (code != CTL_OK)
        return code;
    if (recipients_open(options->recipients, &submit->recipients, &err) < 0)
        return ctl_error(&err);
    code = read_through(submit);
    submit->campaign.expected_recipients = submit->total;
    if (code == CTL_OK)
        code = make_id(submit);
    if (code != CTL_OK)
        return code;
    /* After the id was made of the rest: "24 hours from now" is another moment each time. */
    if (options->deadline_ms)
        submit->campaign.deadline_unix_ms = td_wall_ms() + options->deadline_ms;
    if (options->preview)
        return submit_preview(options, submit->id, &submit->campaign, submit->recipients);
    if (options->dry_run)
        return submit_dry_run(options, submit->id, &submit->campaign, submit->recipients);
    code = hand_in(submit);
    if (code == CTL_OK)
        print_result(submit);
    return code;
}

int ctl_campaign_submit(struct ctl *ctl, int argc, char **argv)
{
    struct submit submit = {.ctl = ctl, .code = CTL_FAILED};
    int code = submit_options_parse(&submit.options, ctl, argc, argv);

    if (code == CTL_OK)
        code = ctl_load(ctl);
    if (code == CTL_OK)
        code = run(&submit);
    for (size_t i = 0; i < submit.sent_count; i++)
        free(submit.sent[i].line);
    recipients_close(submit.recipients);
    td_arena_free(submit.batch_arena);
    td_arena_free(submit.arena);
    submit_options_release(&submit.options);
    if (code == CTL_OK && submit.options.watch && !submit.options.dry_run && !submit.options.preview)
        code = ctl_watch(ctl, submit.id);
    return code;
}
