/* Events in order of time, chance from the seed, and memory that belongs to a process. */
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/clock.h"

struct world sim;

/* Link option --wrap: these two are the C library's, and what the objects under test call is __wrap_*. */
void *__real_malloc(size_t bytes);
void __real_free(void *at);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *at, size_t bytes);
void __wrap_free(void *at);
char *__wrap_strdup(const char *text);

/* ---- memory of the world ---- */

enum { CHUNK = 1 << 20, CHUNKS_MAX = 1024 };
static char *chunk[CHUNKS_MAX];
static size_t chunk_now, chunk_used;

void *sim_alloc(size_t bytes)
{
    char *at;

    bytes = (bytes + 15) & ~(size_t)15;
    if (bytes > CHUNK)
        abort();
    if (chunk_used + bytes > CHUNK) {
        chunk_now++;
        chunk_used = 0;
    }
    if (chunk_now >= CHUNKS_MAX)
        abort();
    if (!chunk[chunk_now])
        chunk[chunk_now] = __real_malloc(CHUNK);
    if (!chunk[chunk_now])
        abort();
    at = chunk[chunk_now] + chunk_used;
    chunk_used += bytes;
    return memset(at, 0, bytes);
}

char *sim_strdup(const void *data, size_t len)
{
    char *copy = sim_alloc(len + 1);

    if (len)
        memcpy(copy, data, len);
    return copy;
}

void sim_arena_reset(void)
{
    chunk_now = chunk_used = 0;
}

/* ---- memory of processes ---- */

struct block {
    struct block *prev, *next;
    struct proc *owner;
    size_t bytes;
};

static void block_link(struct block *block)
{
    struct proc *owner = block->owner;

    block->prev = NULL;
    block->next = owner ? owner->blocks : NULL;
    if (!owner)
        return;
    if (owner->blocks)
        owner->blocks->prev = block;
    owner->blocks = block;
}

static void block_unlink(struct block *block)
{
    if (block->prev)
        block->prev->next = block->next;
    else if (block->owner)
        block->owner->blocks = block->next;
    if (block->next)
        block->next->prev = block->prev;
}

void *__wrap_malloc(size_t bytes)
{
    struct block *block = __real_malloc(sizeof(*block) + bytes);

    if (!block)
        return NULL;
    block->owner = sim.current;
    block->bytes = bytes;
    block_link(block);
    return block + 1;
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    void *at = __wrap_malloc(count * bytes);

    return at ? memset(at, 0, count * bytes) : NULL;
}

void __wrap_free(void *at)
{
    struct block *block = at;

    if (!at)
        return;
    block--;
    block_unlink(block);
    __real_free(block);
}

void *__wrap_realloc(void *at, size_t bytes)
{
    void *to = __wrap_malloc(bytes);
    size_t had = at ? ((struct block *)at - 1)->bytes : 0;

    if (to && at)
        memcpy(to, at, had < bytes ? had : bytes);
    if (to)
        __wrap_free(at);
    return to;
}

char *__wrap_strdup(const char *text)
{
    size_t len = strlen(text) + 1;
    char *copy = __wrap_malloc(len);

    return copy ? memcpy(copy, text, len) : NULL;
}

size_t sim_memory_left(const struct proc *proc)
{
    size_t left = 0;

    for (const struct block *block = proc->blocks; block; block = block->next)
        left++;
    return left;
}

void sim_memory_release(struct proc *proc)
{
    while (proc->blocks)
        __wrap_free(proc->blocks + 1);
}

/* ---- chance ---- */

uint64_t sim_below(uint64_t n)
{
    return td_rng_below(&sim.rng, n);
}

uint64_t sim_between(uint64_t low, uint64_t high)
{
    return low + sim_below(high - low + 1);
}

bool sim_chance(unsigned per_1000)
{
    return sim_below(1000) < per_1000;
}

/* ---- events ---- */

static bool before(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void heap_push(const struct event *event)
{
    size_t i = sim.events;

    if (sim.events == sim.heap_size) {
        size_t size = sim.heap_size ? 2 * sim.heap_size : 1024;
        struct event *heap = __real_malloc(size * sizeof(*heap));

        if (!heap)
            abort();
        if (sim.events)
            memcpy(heap, sim.heap, sim.events * sizeof(*heap));
        __real_free(sim.heap);
        sim.heap = heap;
        sim.heap_size = size;
    }
    sim.events++;
    while (i > 0 && before(event, &sim.heap[(i - 1) / 2])) {
        sim.heap[i] = sim.heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    sim.heap[i] = *event;
}

static struct event heap_pop(void)
{
    struct event top = sim.heap[0], last = sim.heap[--sim.events];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= sim.events)
            break;
        if (child + 1 < sim.events && before(&sim.heap[child + 1], &sim.heap[child]))
            child++;
        if (!before(&sim.heap[child], &last))
            break;
        sim.heap[i] = sim.heap[child];
        i = child;
    }
    sim.heap[i] = last;
    return top;
}

void sim_at(uint64_t at, struct proc *proc, sim_fn *fn, void *arg, uint64_t tag)
{
    struct event event = {at < sim.now ? sim.now : at, sim.seq++, proc, proc ? proc->life : 0, fn, arg, tag};

    heap_push(&event);
}

void sim_after(uint64_t us, struct proc *proc, sim_fn *fn, void *arg, uint64_t tag)
{
    sim_at(sim.now + us, proc, fn, arg, tag);
}

bool sim_step(void)
{
    struct event event;

    if (sim.events == 0)
        return false;
    event = heap_pop();
    sim.now = event.at;
    if (!event.proc) {
        sim.ran++;
        event.fn(event.arg, event.tag);
        return true;
    }
    if (!event.proc->alive || event.life != event.proc->life)
        return true;
    if (event.proc->stopped_until > sim.now) {
        event.at = event.proc->stopped_until; /* in the order they came: seq stays */
        heap_push(&event);
        return true;
    }
    sim.ran++;
    sim.current = event.proc;
    event.fn(event.arg, event.tag);
    sim_proc_turn(event.proc);
    sim.current = NULL;
    return true;
}

bool sim_effect(void)
{
    struct proc *p = sim.current;

    if (!p)
        return true;
    p->effects++;
    if (p->die_at && p->effects >= p->die_at)
        p->doomed = true;
    return !p->doomed;
}

/* ---- what happened ---- */

__attribute__((format(printf, 2, 0))) static void line(const char *who, const char *fmt, va_list args)
{
    printf("[%5llu.%06llu] %-3s ", (unsigned long long)(sim.now / SEC), (unsigned long long)(sim.now % SEC), who);
    vprintf(fmt, args);
    putchar('\n');
}

void sim_trace(const char *fmt, ...)
{
    va_list args;

    if (!sim.trace)
        return;
    va_start(args, fmt);
    line(sim.current ? sim.current->name : "-", fmt, args);
    va_end(args);
}

void sim_violation(const char *invariant, const char *fmt, ...)
{
    va_list args;
    char text[320];

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    sim_trace("VIOLATION %s: %s", invariant, text);
    if (sim.failed)
        return; /* the first one tells most */
    sim.failed = true;
    snprintf(sim.why, sizeof(sim.why), "%s: %s (at %llu ms)", invariant, text, (unsigned long long)(sim.now / MS));
}
