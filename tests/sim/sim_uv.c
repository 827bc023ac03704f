/* libuv's timers, prepare, check and idle handles over the virtual clock; td_clock; chance for those who ask the
 * system. */
#include "sim.h"

#include <openssl/rand.h>
#include <string.h>

#include "tandem/clock.h"

struct sim_timer {
    uv_timer_t *handle; /* NULL once closed */
    uint64_t due_ms;
    uint64_t turn; /* of the event that counts */
    bool active;
};

struct sim_hook {
    struct sim_hook *next;
    uv_handle_t *handle;
    void (*run)(uv_handle_t *handle);
};

struct sim_closing {
    struct sim_closing *next;
    uv_handle_t *handle;
    uv_close_cb cb;
};

static uint64_t boot_us(void)
{
    return 1000 * SEC; /* no clock starts at 0 */
}

uint64_t td_mono_us(void)
{
    return boot_us() + sim.now;
}

uint64_t td_mono_ms(void)
{
    return td_mono_us() / 1000;
}

int64_t td_wall_ms(void)
{
    return INT64_C(1800000000000) + (int64_t)(sim.now / MS) + (sim.current ? sim.current->skew_ms : 0);
}

static struct proc *proc_of(const uv_loop_t *loop)
{
    return loop->data;
}

/* ---- timers ---- */

static struct sim_timer *timer_of(const uv_handle_t *handle)
{
    return handle->u.reserved[0];
}

int uv_timer_init(uv_loop_t *loop, uv_timer_t *handle)
{
    struct sim_timer *timer = sim_alloc(sizeof(*timer));

    timer->handle = handle;
    handle->loop = loop;
    handle->type = UV_TIMER;
    handle->u.reserved[0] = timer;
    return 0;
}

static void on_due(void *arg, uint64_t turn)
{
    struct sim_timer *timer = arg;
    uv_timer_t *handle = timer->handle;

    if (!timer->active || timer->turn != turn)
        return;
    timer->active = false;
    if (handle->repeat)
        uv_timer_start(handle, handle->timer_cb, handle->repeat, handle->repeat);
    handle->timer_cb(handle);
}

int uv_timer_start(uv_timer_t *handle, uv_timer_cb cb, uint64_t timeout, uint64_t repeat)
{
    struct sim_timer *timer = timer_of((uv_handle_t *)handle);

    if (!timer || !timer->handle)
        return UV_EINVAL;
    handle->timer_cb = cb;
    handle->repeat = repeat;
    timer->active = true;
    timer->turn++;
    timer->due_ms = td_mono_ms() + timeout;
    sim_at(timeout ? timer->due_ms * MS - boot_us() : sim.now, proc_of(handle->loop), on_due, timer, timer->turn);
    return 0;
}

int uv_timer_stop(uv_timer_t *handle)
{
    timer_of((uv_handle_t *)handle)->active = false;
    return 0;
}

uint64_t uv_timer_get_due_in(const uv_timer_t *handle)
{
    const struct sim_timer *timer = timer_of((const uv_handle_t *)handle);
    uint64_t now = td_mono_ms();

    return timer->active && timer->due_ms > now ? timer->due_ms - now : 0;
}

/* ---- prepare, check, idle ---- */

static struct sim_hook *hook_add(uv_loop_t *loop, uv_handle_t *handle)
{
    struct sim_hook *hook = sim_alloc(sizeof(*hook));
    struct proc *proc = proc_of(loop);

    hook->handle = handle;
    hook->next = proc->hooks;
    proc->hooks = hook;
    handle->loop = loop;
    handle->u.reserved[0] = hook;
    return hook;
}

static void run_prepare(uv_handle_t *handle)
{
    uv_prepare_t *prepare = (uv_prepare_t *)handle;

    if (prepare->prepare_cb)
        prepare->prepare_cb(prepare);
}

static void run_check(uv_handle_t *handle)
{
    uv_check_t *check = (uv_check_t *)handle;

    if (check->check_cb)
        check->check_cb(check);
}

int uv_prepare_init(uv_loop_t *loop, uv_prepare_t *handle)
{
    handle->prepare_cb = NULL;
    handle->type = UV_PREPARE;
    hook_add(loop, (uv_handle_t *)handle)->run = run_prepare;
    return 0;
}

int uv_prepare_start(uv_prepare_t *handle, uv_prepare_cb cb)
{
    handle->prepare_cb = cb;
    return 0;
}

int uv_check_init(uv_loop_t *loop, uv_check_t *handle)
{
    handle->check_cb = NULL;
    handle->type = UV_CHECK;
    hook_add(loop, (uv_handle_t *)handle)->run = run_check;
    return 0;
}

int uv_check_start(uv_check_t *handle, uv_check_cb cb)
{
    handle->check_cb = cb;
    return 0;
}

int uv_idle_init(uv_loop_t *loop, uv_idle_t *handle)
{
    handle->idle_cb = NULL;
    handle->type = UV_IDLE;
    handle->loop = loop;
    return 0;
}

/* An active idle handle only keeps the loop turning. */
int uv_idle_start(uv_idle_t *handle, uv_idle_cb cb)
{
    if (!handle->idle_cb)
        proc_of(handle->loop)->idle_handles++;
    handle->idle_cb = cb;
    return 0;
}

int uv_idle_stop(uv_idle_t *handle)
{
    if (handle->idle_cb)
        proc_of(handle->loop)->idle_handles--;
    handle->idle_cb = NULL;
    return 0;
}

/* ---- all handles ---- */

int uv_is_active(const uv_handle_t *handle)
{
    if (handle->type == UV_TIMER)
        return timer_of(handle)->active;
    return 0;
}

void uv_close(uv_handle_t *handle, uv_close_cb cb)
{
    struct proc *proc = proc_of(handle->loop);
    struct sim_closing *closing = sim_alloc(sizeof(*closing));

    if (handle->type == UV_TIMER) {
        timer_of(handle)->active = false;
        timer_of(handle)->handle = NULL;
    } else if (handle->type == UV_IDLE) {
        uv_idle_stop((uv_idle_t *)handle);
    } else {
        ((struct sim_hook *)handle->u.reserved[0])->run = NULL;
    }
    closing->handle = handle;
    closing->cb = cb;
    closing->next = proc->closing;
    proc->closing = closing;
}

void uv_update_time(uv_loop_t *loop)
{
    (void)loop;
}

static void nothing(void *arg, uint64_t tag)
{
    struct proc *proc = arg;

    (void)tag;
    proc->turn_due = false;
}

void sim_uv_close_all(struct proc *proc)
{
    while (proc->closing) {
        struct sim_closing *closing = proc->closing;

        proc->closing = closing->next;
        if (closing->cb)
            closing->cb(closing->handle);
    }
}

/* One turn of the loop after what has just happened. */
void sim_uv_turn(struct proc *proc)
{
    struct sim_hook **at = &proc->hooks, *hook;

    for (hook = proc->hooks; hook; hook = hook->next)
        if (hook->run)
            hook->run(hook->handle);
    while ((hook = *at)) {
        if (hook->run)
            at = &hook->next;
        else
            *at = hook->next;
    }
    sim_uv_close_all(proc);
    if (proc->idle_handles > 0 && !proc->turn_due) {
        proc->turn_due = true;
        sim_after(10, proc, nothing, proc, 0);
    }
}

/* ---- what the system would draw ---- */

int RAND_bytes(unsigned char *buf, int num)
{
    for (int i = 0; i < num; i++)
        buf[i] = (unsigned char)sim_below(256);
    return 1;
}

int uv_random(uv_loop_t *loop, uv_random_t *req, void *buf, size_t buflen, unsigned flags, uv_random_cb cb)
{
    (void)loop;
    (void)req;
    (void)flags;
    (void)cb;
    RAND_bytes(buf, (int)buflen);
    return 0;
}

uv_pid_t uv_os_getpid(void)
{
    return sim.current ? (uv_pid_t)sim.current->index + 1 : 0;
}
