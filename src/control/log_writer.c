#include "control/log_writer.h"

#include "base/assert.h"
#include "base/clock.h"
#include "control/system_log.h"
#include "control/systemd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

enum { QUEUE_LINES = 1024 }; /* a power of two */

/* A bounded queue with a sequence number in each slot: `sequence` == position: free for the writer
 * of that position; position + 1: filled. (Dmitry Vyukov's scheme, one consumer.) */
struct slot {
    _Atomic uint64_t sequence;
    uint64_t wall_us;
    uint32_t bytes;
    uint8_t level;
    char text[LOG_TEXT_BYTES_MAX];
};

static struct {
    struct slot slots[QUEUE_LINES];
    _Atomic uint64_t head; /* next to be claimed */
    _Atomic uint64_t tail; /* next to be written; the writer's */
    _Atomic uint64_t lost;
    _Atomic uint32_t bell; /* futex: counts rings */
    atomic_bool asleep;
    pthread_mutex_t files; /* writer and reopen only: never a worker */
    struct log_options options;
    unsigned long long syslog_lost; /* lines that syslog has not taken */
    int fd;
    bool stderr_is_journal;
    bool is_running;
    pthread_t thread;
} writer = {.files = PTHREAD_MUTEX_INITIALIZER, .fd = -1};

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void sink(enum log_level level, const char *text, size_t bytes)
{
    uint64_t position = atomic_load_explicit(&writer.head, memory_order_relaxed);
    struct slot *slot;

    for (;;) {
        uint64_t sequence;

        slot = &writer.slots[position % QUEUE_LINES];
        sequence = atomic_load_explicit(&slot->sequence, memory_order_acquire);
        if (sequence == position) {
            if (atomic_compare_exchange_weak_explicit(&writer.head, &position, position + 1,
                                                      memory_order_relaxed, memory_order_relaxed))
                break;
        } else if (sequence < position) {
            atomic_fetch_add_explicit(&writer.lost, 1, memory_order_relaxed);
            return;
        } else {
            position = atomic_load_explicit(&writer.head, memory_order_relaxed);
        }
    }
    slot->wall_us = clock_wall_us();
    slot->level = (uint8_t)level;
    slot->bytes = (uint32_t)MIN(bytes, sizeof(slot->text));
    memcpy(slot->text, text, slot->bytes);
    atomic_store_explicit(&slot->sequence, position + 1, memory_order_seq_cst);
    if (atomic_load_explicit(&writer.asleep, memory_order_seq_cst)) {
        atomic_fetch_add(&writer.bell, 1);
        futex_wake(&writer.bell);
    }
}

size_t log_line_format(char line[LOG_LINE_BYTES_MAX], uint64_t wall_us, int pid,
                       enum log_level level, const char *text, size_t text_bytes)
{
    time_t seconds = (time_t)(wall_us / US_PER_S);
    struct tm local;
    size_t used;

    localtime_r(&seconds, &local);
    used = strftime(line, LOG_LINE_BYTES_MAX, "%Y-%m-%d %H:%M:%S", &local);
    used += (size_t)snprintf(line + used, LOG_LINE_BYTES_MAX - used, ".%03u %s [%d] %s ",
                             (unsigned)(wall_us / 1000 % 1000), local.tm_zone, pid,
                             log_level_name(level));
    for (size_t i = 0; i < text_bytes && used + 3 < LOG_LINE_BYTES_MAX; i++) {
        line[used++] = text[i];
        if (text[i] == '\n')
            line[used++] = '\t';
    }
    line[used++] = '\n';
    return used;
}

static void write_all(int fd, const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t count = write(fd, data, bytes);

        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return; /* a full disk must not stop the pooler */
        data += count;
        bytes -= (size_t)count;
    }
}

static void write_line(uint64_t wall_us, enum log_level level, const char *text, size_t bytes)
{
    static const int priorities[] = {LOG_CRIT, LOG_ERR,   LOG_WARNING,
                                     LOG_INFO, LOG_DEBUG, LOG_DEBUG};
    char line[LOG_LINE_BYTES_MAX];
    size_t line_bytes = log_line_format(line, wall_us, (int)getpid(), level, text, bytes);

    if (writer.stderr_is_journal)
        systemd_journal(priorities[level], text, bytes);
    else if (writer.options.to_stderr || (writer.options.fatal_to_stderr && level == LEVEL_FATAL))
        write_all(STDERR_FILENO, line, line_bytes);
    if (writer.fd >= 0)
        write_all(writer.fd, line, line_bytes);
    if (!writer.options.to_syslog || level > LEVEL_LOG)
        return;
    if (writer.syslog_lost > 0) {
        char lost[64];
        int lost_bytes = snprintf(lost, sizeof(lost), "%llu log lines lost", writer.syslog_lost);

        if (!system_log_write(wall_us, LOG_WARNING, lost, (size_t)lost_bytes)) {
            writer.syslog_lost++;
            return;
        }
        writer.syslog_lost = 0;
    }
    if (!system_log_write(wall_us, priorities[level], text, bytes))
        writer.syslog_lost++;
}

static void drain(void)
{
    pthread_mutex_lock(&writer.files);
    for (;;) {
        uint64_t position = atomic_load_explicit(&writer.tail, memory_order_relaxed);
        struct slot *slot = &writer.slots[position % QUEUE_LINES];
        uint64_t lost;

        if (atomic_load_explicit(&slot->sequence, memory_order_acquire) != position + 1)
            break;
        write_line(slot->wall_us, slot->level, slot->text, slot->bytes);
        atomic_store_explicit(&slot->sequence, position + QUEUE_LINES, memory_order_release);
        atomic_store_explicit(&writer.tail, position + 1, memory_order_release);
        lost = atomic_exchange_explicit(&writer.lost, 0, memory_order_relaxed);
        if (lost > 0) {
            char text[64];
            int bytes =
                snprintf(text, sizeof(text), "%llu log lines lost", (unsigned long long)lost);

            write_line(clock_wall_us(), LEVEL_WARNING, text, (size_t)bytes);
        }
    }
    pthread_mutex_unlock(&writer.files);
}

static bool has_lines(void)
{
    uint64_t position = atomic_load_explicit(&writer.tail, memory_order_relaxed);

    return atomic_load_explicit(&writer.slots[position % QUEUE_LINES].sequence,
                                memory_order_seq_cst) == position + 1;
}

static void *run(void *argument)
{
    (void)argument;
    (void)pthread_setname_np(pthread_self(), "log");
    for (;;) {
        uint32_t bell = atomic_load(&writer.bell);

        drain();
        atomic_store_explicit(&writer.asleep, true, memory_order_seq_cst);
        if (!has_lines())
            futex_wait(&writer.bell, bell);
        atomic_store_explicit(&writer.asleep, false, memory_order_seq_cst);
    }
    return NULL;
}

static bool set_options(const struct log_options *options)
{
    int fd = -1;

    if (options->path != NULL && options->path[0] != '\0') {
        fd = open(options->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0)
            return false;
    }
    pthread_mutex_lock(&writer.files);
    if (writer.fd >= 0)
        close(writer.fd);
    writer.fd = fd;
    writer.options = *options;
    writer.stderr_is_journal = options->to_stderr && systemd_stderr_is_journal();
    system_log_close();
    if (options->to_syslog)
        system_log_open(options->syslog_ident != NULL ? options->syslog_ident : "pgbouncer",
                        options->syslog_facility);
    pthread_mutex_unlock(&writer.files);
    return true;
}

static void assert_hook(void)
{
    log_writer_flush();
}

bool log_writer_start(const struct log_options *options)
{
    sigset_t all, before;

    if (!set_options(options)) {
        fprintf(stderr, "could not open logfile '%s': %s\n", options->path, strerror(errno));
        return false;
    }
    for (uint64_t i = 0; i < QUEUE_LINES; i++)
        atomic_init(&writer.slots[i].sequence, i);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    writer.is_running = pthread_create(&writer.thread, NULL, run, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!writer.is_running)
        return false;
    log_set_sink(sink);
    assert_set_hook(assert_hook);
    return true;
}

bool log_writer_reopen(const struct log_options *options)
{
    log_writer_flush();
    return set_options(options);
}

void log_writer_flush(void)
{
    uint64_t until = atomic_load(&writer.head);

    if (!writer.is_running || pthread_equal(pthread_self(), writer.thread))
        return;
    while (atomic_load_explicit(&writer.tail, memory_order_acquire) < until) {
        atomic_fetch_add(&writer.bell, 1);
        futex_wake(&writer.bell);
        usleep(200);
    }
    /* The last line may still be on its way to the file. */
    pthread_mutex_lock(&writer.files);
    pthread_mutex_unlock(&writer.files);
}
