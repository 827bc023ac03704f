/* A blob is in one of three lives: loading (its parts are asked for), in use (refs > 0), idle (kept while there is room;
 * the one idle for longest goes first). */
#include "statics.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/id.h"
#include "tandem/map.h"
#include "tandem/pb.h"

#include "tandem/internal/v1/content.pb-c.h"

enum { PART_BYTES = 900000, WAIT_MS = 30000, BLOB_MAX = 64 * 1024 * 1024 };

struct waiter {
    struct waiter *next;
    void (*cb)(void *user, const struct static_blob *blob, const struct td_err *err);
    void *user;
};

struct blob {
    struct static_blob pub; /* first: a static_blob is the blob it lies in */
    struct statics *owner;
    uint8_t sha256[STATIC_SHA_BYTES];
    char *data;
    size_t parts, parts_left;
    bool failed; /* a part failed; waits for the other parts' callbacks */
    struct td_err err;
    unsigned refs;
    struct waiter *waiters, **last_waiter; /* told in the order in which they came: a lane's mails begin in theirs */
    struct blob *idle_prev, *idle_next;
};

struct part_get {
    struct blob *blob;
    size_t part;
};

struct statics {
    struct td_kafka_table *contents;
    struct td_map *blobs; /* sha256 -> struct blob */
    struct blob idle;     /* list head; idle.idle_next is the oldest */
    size_t bytes, limit;
};

int statics_new(struct td_kafka_table *contents, size_t cache_bytes, struct statics **ret, struct td_err *reterr)
{
    struct statics *s = calloc(1, sizeof(*s));

    if (s)
        s->blobs = td_map_new();
    if (!s || !s->blobs) {
        free(s);
        return td_fail(reterr, TD_ENOMEM, "static pieces' cache");
    }
    s->contents = contents;
    s->limit = cache_bytes;
    s->idle.idle_prev = s->idle.idle_next = &s->idle;
    *ret = s;
    return TD_OK;
}

static void idle_remove(struct blob *b)
{
    if (!b->idle_next)
        return;
    b->idle_prev->idle_next = b->idle_next;
    b->idle_next->idle_prev = b->idle_prev;
    b->idle_prev = b->idle_next = NULL;
}

static void blob_free(struct blob *b)
{
    struct waiter *next;

    for (struct waiter *w = b->waiters; w; w = next) {
        next = w->next;
        free(w);
    }
    free(b->data);
    free(b);
}

static void blob_forget(struct statics *s, struct blob *b)
{
    idle_remove(b);
    td_map_remove(s->blobs, b->sha256, sizeof(b->sha256));
    s->bytes -= b->pub.len;
    blob_free(b);
}

void statics_free(struct statics *s)
{
    size_t cursor = 0;
    struct blob *b;

    if (!s)
        return;
    while ((b = td_map_next(s->blobs, &cursor)))
        blob_free(b);
    td_map_free(s->blobs);
    free(s);
}

static void make_room(struct statics *s)
{
    while (s->bytes > s->limit && s->idle.idle_next != &s->idle)
        blob_forget(s, s->idle.idle_next);
}

void statics_unref(struct statics *s, const struct static_blob *pub)
{
    struct blob *b = (struct blob *)(uintptr_t)pub;

    if (!pub || --b->refs)
        return;
    b->idle_prev = s->idle.idle_prev;
    b->idle_next = &s->idle;
    b->idle_prev->idle_next = b->idle_next->idle_prev = b;
    make_room(s);
}

/* All parts have answered: tell who waits. Callbacks may ask for other blobs, so the list is taken first. */
static void blob_settle(struct blob *b)
{
    struct statics *s = b->owner;
    struct waiter *w = b->waiters, *next;
    uint8_t sha[STATIC_SHA_BYTES];

    if (!b->failed && (EVP_Digest(b->data, b->pub.len, sha, NULL, EVP_sha256(), NULL) != 1 ||
                       memcmp(sha, b->sha256, sizeof(sha)) != 0)) {
        b->failed = true;
        td_fail(&b->err, TD_ESYNTAX, "static pieces do not have the SHA-256 they are named by");
    }
    b->waiters = NULL;
    b->last_waiter = &b->waiters;
    b->refs++; /* held here while callbacks come and go */
    for (; w; w = next) {
        next = w->next;
        if (!b->failed)
            b->refs++;
        w->cb(w->user, b->failed ? NULL : &b->pub, b->failed ? &b->err : NULL);
        free(w);
    }
    if (b->failed) {
        b->refs = 0;
        blob_forget(s, b);
    } else {
        statics_unref(s, &b->pub);
    }
}

static int part_copy(struct blob *b, size_t part, const struct td_table_value *value, struct td_err *reterr)
{
    size_t at = part * PART_BYTES, want = b->pub.len - at < PART_BYTES ? b->pub.len - at : PART_BYTES;
    struct td_arena *arena = td_arena_new(value->len * 2 + 65536);
    Tandem__Internal__V1__ContentPart *msg = NULL;
    int rc;

    if (!arena)
        return td_fail(reterr, TD_ENOMEM, "content part");
    rc = td_pb_read(&tandem__internal__v1__content_part__descriptor, value->data, value->len, arena,
                    (ProtobufCMessage **)&msg, reterr);
    if (rc == TD_OK && msg->content.len != want)
        rc = td_fail(reterr, TD_ESYNTAX, "content part %zu has %zu bytes, not %zu", part, msg->content.len, want);
    if (rc == TD_OK && want)
        memcpy(b->data + at, msg->content.data, want);
    td_arena_free(arena);
    return rc;
}

static void on_part(void *user, struct td_table_value *value, const struct td_err *err)
{
    struct part_get *get = user;
    struct blob *b = get->blob;
    struct td_err why;

    if (!b->failed) {
        if (err) {
            b->failed = true;
            b->err = *err;
        } else if (!value) {
            b->failed = true;
            td_fail(&b->err, TD_ENOTFOUND, "content part %zu did not come within %d s", get->part, WAIT_MS / 1000);
        } else if (part_copy(b, get->part, value, &why) < 0) {
            b->failed = true;
            b->err = why;
        }
    }
    free(get);
    if (--b->parts_left == 0)
        blob_settle(b);
}

static void blob_load(struct blob *b)
{
    char hex[2 * STATIC_SHA_BYTES + 1], key[32 + sizeof(hex)];

    td_hex(hex, b->sha256, sizeof(b->sha256));
    b->parts_left = b->parts + 1; /* one for this loop: parts may answer at once */
    for (size_t part = 0; part < b->parts; part++) {
        struct part_get *get = malloc(sizeof(*get));
        int len = snprintf(key, sizeof(key), "part/%s/%zu", hex, part);

        if (!get || td_kafka_table_get(b->owner->contents, key, (size_t)len, WAIT_MS, on_part,
                                       memcpy(get, &(struct part_get){b, part}, sizeof(*get))) < 0) {
            free(get);
            b->failed = true;
            td_fail(&b->err, TD_ENOMEM, "content part");
            b->parts_left--;
        }
    }
    if (--b->parts_left == 0)
        blob_settle(b);
}

static struct blob *blob_new(struct statics *s, const uint8_t *sha256, size_t bytes)
{
    struct blob *b = bytes <= BLOB_MAX ? calloc(1, sizeof(*b)) : NULL;

    if (!b)
        return NULL;
    b->data = malloc(bytes ? bytes : 1);
    memcpy(b->sha256, sha256, sizeof(b->sha256));
    if (!b->data || td_map_set(s->blobs, sha256, STATIC_SHA_BYTES, b) < 0) {
        blob_free(b);
        return NULL;
    }
    b->owner = s;
    b->last_waiter = &b->waiters;
    b->pub = (struct static_blob){b->data, bytes};
    b->parts = (bytes + PART_BYTES - 1) / PART_BYTES;
    s->bytes += bytes;
    return b;
}

void statics_get(struct statics *s, const uint8_t sha256[STATIC_SHA_BYTES], size_t bytes,
                 void (*cb)(void *user, const struct static_blob *blob, const struct td_err *err), void *user)
{
    struct blob *b = td_map_get(s->blobs, sha256, STATIC_SHA_BYTES);
    struct waiter *w;
    struct td_err err;
    bool fresh = !b;

    if (b && b->parts_left == 0 && !b->failed && b->pub.len == bytes) {
        idle_remove(b);
        b->refs++;
        cb(user, &b->pub, NULL);
        return;
    }
    if (!b) {
        make_room(s);
        b = blob_new(s, sha256, bytes);
    }
    w = b && b->pub.len == bytes ? malloc(sizeof(*w)) : NULL;
    if (!w) {
        td_fail(&err, b ? TD_ESYNTAX : TD_ENOMEM, "static pieces of %zu bytes", bytes);
        cb(user, NULL, &err);
        return;
    }
    *w = (struct waiter){NULL, cb, user};
    *b->last_waiter = w;
    b->last_waiter = &w->next;
    if (fresh)
        blob_load(b);
}
