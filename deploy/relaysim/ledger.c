#include "ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINES_MAX (64u << 20)
#define LINES_WRITE (1u << 20) /* write early: a round of many mails must not hold its lines for long */

/* The last line has no end when a process died in write(2). Its reply was never sent: that mail was not taken. */
static int cut_torn_line(int fd, off_t *ret_cut)
{
    char tail[4096];
    off_t size = lseek(fd, 0, SEEK_END), keep = size;

    *ret_cut = 0;
    while (keep > 0) {
        size_t want = keep < (off_t)sizeof(tail) ? (size_t)keep : sizeof(tail);
        ssize_t got = pread(fd, tail, want, keep - (off_t)want);
        const char *eol;

        if (got != (ssize_t)want)
            return TD_EIO;
        eol = memrchr(tail, '\n', want);
        if (eol) {
            keep -= (off_t)want - (eol - tail) - 1;
            break;
        }
        keep -= (off_t)want;
    }
    if (keep == size)
        return TD_OK;
    *ret_cut = size - keep;
    return ftruncate(fd, keep) == 0 ? TD_OK : TD_EIO;
}

int ledger_open(struct ledger *ledger, const char *file, struct td_err *reterr)
{
    off_t cut = 0;
    struct stat st;

    td_buf_init(&ledger->lines, LINES_MAX);
    ledger->fd = -1;
    if (!file)
        return TD_OK;
    ledger->fd = open(file, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (ledger->fd < 0)
        return td_fail(reterr, TD_ECONFIG, "ledger %s: %s", file, strerror(errno));
    if (fstat(ledger->fd, &st) == 0 && S_ISREG(st.st_mode) && cut_torn_line(ledger->fd, &cut) < 0)
        return td_fail(reterr, TD_EIO, "ledger %s: cannot cut its torn last line: %s", file, strerror(errno));
    if (cut)
        return td_buf_printf(&ledger->lines, "# 0 torn line of %lld octets cut off\n", (long long)cut);
    return TD_OK;
}

void ledger_close(struct ledger *ledger)
{
    if (ledger->fd >= 0)
        close(ledger->fd);
    ledger->fd = -1;
    td_buf_release(&ledger->lines);
}

/* What a client sent must not make a column or a line of its own. */
static void put_text(char **at, struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];

        *(*at)++ = c < 0x20 || c == 0x7f ? '?' : (char)c;
    }
}

static void put_number(char **at, uint64_t number)
{
    char digits[20];
    size_t n = 0;

    do
        digits[n++] = (char)('0' + number % 10);
    while (number /= 10);
    while (n)
        *(*at)++ = digits[--n];
}

static void put_hash(char **at, const unsigned char *sha256)
{
    static const char hex[] = "0123456789abcdef";

    if (!sha256)
        *(*at)++ = '-';
    for (size_t i = 0; sha256 && i < 32; i++) {
        *(*at)++ = hex[sha256[i] >> 4];
        *(*at)++ = hex[sha256[i] & 15];
    }
}

int ledger_add(struct ledger *ledger, const struct ledger_entry *entry)
{
    /* By hand: this runs for every mail, and printf would cost more than the rest of the mail's bookkeeping. */
    char line[COMMAND_PATH_MAX + MESSAGE_ID_MAX + 200], *at = line;
    int rc;

    if (ledger->fd < 0)
        return TD_OK;
    put_number(&at, entry->unix_us);
    *at++ = '\t';
    put_number(&at, entry->peer_port);
    *at++ = '\t';
    put_text(&at, entry->recipient);
    *at++ = '\t';
    put_text(&at, entry->message_id);
    *at++ = '\t';
    put_number(&at, entry->bytes);
    *at++ = '\t';
    put_hash(&at, entry->sha256);
    *at++ = '\t';
    if (entry->code)
        put_number(&at, (uint64_t)entry->code);
    else
        put_text(&at, (struct slice){"lost", 4});
    *at++ = '\n';
    rc = td_buf_add(&ledger->lines, line, (size_t)(at - line));
    if (rc == TD_OK && ledger->lines.len > LINES_WRITE)
        rc = ledger_flush(ledger, NULL);
    return rc;
}

int ledger_event(struct ledger *ledger, uint64_t unix_us, const char *text)
{
    return ledger->fd < 0 ? TD_OK
                          : td_buf_printf(&ledger->lines, "# %llu %s\n", (unsigned long long)unix_us, text);
}

bool ledger_waits(const struct ledger *ledger)
{
    return ledger->lines.len > 0;
}

int ledger_flush(struct ledger *ledger, struct td_err *reterr)
{
    size_t done = 0;

    while (done < ledger->lines.len) {
        ssize_t wrote = write(ledger->fd, ledger->lines.data + done, ledger->lines.len - done);

        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return td_fail(reterr, TD_EIO, "ledger: %s", wrote < 0 ? strerror(errno) : "nothing written");
        done += (size_t)wrote;
    }
    td_buf_clear(&ledger->lines);
    return TD_OK;
}
