/* tls_storm.c - a client for the benchmark that speaks TLS, by OpenSSL as libpq does (a third party
 * to both poolers), or by our own library: tls_client.h.
 *
 *   tls_storm idle   PORT USER DATABASE COUNT [THREADS]  opens COUNT, so many at a time, says
 *                                                        `open=N tls=..`, ends with its stdin
 *   tls_storm logins PORT USER DATABASE SECONDS THREADS [RATE]
 *                                                        logs in and leaves, as fast as it can, or
 *                                                        RATE times a second
 *   tls_storm busy   PORT USER DATABASE SECONDS CLIENTS  asks as `pgbench -S` does; 0 seconds: until
 *                                                        the end of stdin; says `ready` first
 *   tls_storm read   PORT USER DATABASE SQL              reads the answer and throws it away
 *
 * Its result is one line `name=value name=value ..`; `own_cpu` is what it has used itself, seconds
 * of all its threads; `tls` is what was agreed upon. Ends with 1 when anything failed.
 *
 * From the environment: what tls_client.h names, and `none` as TLS_PROTOCOL for plain text. With
 * trust only, on 127.0.0.1. */
#include "tls_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { THREADS_MAX = 256, ROOM_BYTES = 256 * 1024, ACCOUNTS = 1000 * 1000, SAMPLES_MAX = 4000000 };

struct session {
    int fd;
    struct tls_client *tls; /* NULL: plain text */
};

/* What has come and was not looked at yet. */
struct incoming {
    size_t begin, end;
    uint8_t *data;
};

static struct sockaddr_in address;
static const char *user, *database;
static bool has_tls;
static double storm_begin, until, rate;
static atomic_ullong login_count, ticket_count;
static atomic_uint thread_count, ready_count;
static atomic_bool must_begin, must_stop, has_failed;

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double own_cpu(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static bool fail(const char *what)
{
    char text[256] = "";

    if (!atomic_exchange(&has_failed, true)) {
        tls_client_explain(text, sizeof(text));
        fprintf(stderr, "%s: %s, %s\n", what, strerror(errno), text);
    }
    return false;
}

static void put_u32(uint8_t *out, uint32_t value)
{
    value = htonl(value);
    memcpy(out, &value, sizeof(value));
}

static uint32_t get_u32(const uint8_t *data)
{
    uint32_t value;

    memcpy(&value, data, sizeof(value));
    return ntohl(value);
}

static bool session_send(struct session *session, const void *data, size_t bytes)
{
    if (session->tls != NULL)
        return tls_client_send(session->tls, data, bytes);
    return send(session->fd, data, bytes, MSG_NOSIGNAL) == (ssize_t)bytes;
}

static ssize_t session_receive(struct session *session, void *out, size_t room)
{
    return session->tls != NULL ? tls_client_receive(session->tls, out, room)
                                : recv(session->fd, out, room, 0);
}

/* The next message whole, in place. NULL: the end. */
static const uint8_t *receive_message(struct session *session, struct incoming *in)
{
    for (;;) {
        size_t have = in->end - in->begin;
        uint8_t *message = in->data + in->begin;
        ssize_t count;

        if (have >= 5 && have >= (size_t)get_u32(message + 1) + 1) {
            in->begin += (size_t)get_u32(message + 1) + 1;
            return message;
        }
        memmove(in->data, message, have);
        in->begin = 0;
        in->end = have;
        count = session_receive(session, in->data + have, ROOM_BYTES - have);
        if (count <= 0)
            return NULL;
        in->end += (size_t)count;
    }
}

static void session_close(struct session *session, bool says_goodbye)
{
    static const uint8_t terminate[] = {'X', 0, 0, 0, 4};

    if (says_goodbye)
        (void)session_send(session, terminate, sizeof(terminate));
    tls_client_close(session->tls, says_goodbye);
    if (session->fd >= 0)
        close(session->fd);
}

static bool start_tls(struct session *session)
{
    static const uint8_t request[] = {0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f};
    char answer = 0;

    if (send(session->fd, request, sizeof(request), MSG_NOSIGNAL) != sizeof(request) ||
        recv(session->fd, &answer, 1, 0) != 1 || answer != 'S')
        return fail("SSLRequest");
    session->tls = tls_client_open(session->fd);
    return session->tls != NULL || fail("handshake");
}

/* A session that has seen ReadyForQuery. `source`: 28,000 ports of one address are soon used up. */
static bool log_in(struct session *session, struct incoming *in, unsigned source)
{
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(0x7f000002 + source)};
    uint8_t packet[512] = {0};
    int one = 1, bytes;

    session->tls = NULL;
    session->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    in->begin = in->end = 0;
    if (session->fd < 0)
        return fail("socket");
    (void)setsockopt(session->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
    (void)!bind(session->fd, (struct sockaddr *)&from, sizeof(from));
    if (connect(session->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return fail("connect");
    (void)setsockopt(session->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (has_tls && !start_tls(session))
        return false;
    put_u32(packet + 4, 3 << 16);
    bytes = 8 + snprintf((char *)packet + 8, sizeof(packet) - 8, "user%c%s%cdatabase%c%s%c", 0,
                         user, 0, 0, database, 0);
    put_u32(packet, (uint32_t)bytes + 1);
    if (!session_send(session, packet, (size_t)bytes + 1))
        return fail("startup packet");
    for (;;) {
        const uint8_t *message = receive_message(session, in);

        if (message == NULL || message[0] == 'E' ||
            (message[0] == 'R' && get_u32(message + 5) != 0))
            return fail(message == NULL ? "end during the login" : (const char *)message + 5);
        if (message[0] == 'Z')
            return true;
    }
}

static void *storm(void *argument)
{
    unsigned source = atomic_fetch_add(&thread_count, 1);
    struct incoming in = {.data = malloc(ROOM_BYTES)};

    (void)argument;
    while (now() < until && !atomic_load(&must_stop)) {
        struct session session;
        bool is_good;

        if (rate > 0) {
            double ahead = storm_begin + (double)atomic_fetch_add(&ticket_count, 1) / rate - now();

            if (ahead > 0)
                usleep((useconds_t)(ahead * 1e6));
        }
        is_good = log_in(&session, &in, source);
        if (is_good)
            atomic_fetch_add(&login_count, 1);
        session_close(&session, is_good);
        if (!is_good)
            break;
    }
    free(in.data);
    return NULL;
}

static void describe(struct session *session, char text[TLS_CLIENT_TEXT_BYTES])
{
    if (session->tls == NULL)
        strcpy(text, "none");
    else
        tls_client_describe(session->tls, text);
}

static int run_logins(double seconds, int threads)
{
    struct incoming in = {.data = malloc(ROOM_BYTES)};
    struct session first;
    pthread_t ids[THREADS_MAX];
    char text[TLS_CLIENT_TEXT_BYTES], byte;
    double begin, cpu;

    if (!log_in(&first, &in, 0))
        return 1;
    describe(&first, text);
    session_close(&first, true);
    begin = now();
    cpu = own_cpu();
    storm_begin = begin;
    until = seconds > 0 ? begin + seconds : 1e18;
    printf("ready\n");
    fflush(stdout);
    for (int i = 0; i < threads; i++)
        if (pthread_create(&ids[i], NULL, storm, NULL) != 0)
            return 1;
    if (seconds <= 0) {
        while (read(STDIN_FILENO, &byte, 1) > 0)
            ;
        atomic_store(&must_stop, true);
    }
    for (int i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    printf("count=%llu seconds=%.4f own_cpu=%.4f tls=%s\n",
           (unsigned long long)atomic_load(&login_count), now() - begin, own_cpu() - cpu, text);
    return atomic_load(&has_failed) ? 1 : 0;
}

/* ---- busy clients ---- */

struct busy {
    pthread_t thread;
    uint32_t *samples_us;
    size_t count;
    unsigned number;
    char text[TLS_CLIENT_TEXT_BYTES];
};

static bool ask(struct session *session, struct incoming *in, uint64_t *random)
{
    uint8_t message[128] = {'Q'};
    int bytes;

    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    bytes = snprintf((char *)message + 5, sizeof(message) - 5,
                     "SELECT abalance FROM pgbench_accounts WHERE aid = %u;",
                     (unsigned)(*random >> 33) % ACCOUNTS + 1);
    put_u32(message + 1, (uint32_t)bytes + 5);
    if (!session_send(session, message, (size_t)bytes + 6))
        return false;
    for (;;) {
        const uint8_t *answer = receive_message(session, in);

        if (answer == NULL || answer[0] == 'E')
            return false;
        if (answer[0] == 'Z')
            return true;
    }
}

static void *be_busy(void *argument)
{
    struct busy *busy = argument;
    struct incoming in = {.data = malloc(ROOM_BYTES)};
    struct session session;
    uint64_t random = busy->number;
    bool is_good = log_in(&session, &in, 200 + busy->number);

    if (is_good)
        describe(&session, busy->text);
    atomic_fetch_add(&ready_count, 1);
    while (!atomic_load(&must_begin))
        usleep(1000);
    while (is_good && !atomic_load(&must_stop) && busy->count < SAMPLES_MAX) {
        double begin = now();

        is_good = ask(&session, &in, &random) || fail("a busy client was sent away");
        busy->samples_us[busy->count++] = (uint32_t)((now() - begin) * 1e6);
    }
    session_close(&session, is_good);
    return NULL;
}

static int compare_samples(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

    return (a > b) - (a < b);
}

static int run_busy(double seconds, unsigned clients)
{
    static struct busy all[THREADS_MAX];
    double begin, end, cpu;
    uint32_t *samples_us;
    size_t total = 0;
    char byte;

    for (unsigned i = 0; i < clients; i++) {
        all[i].number = i;
        all[i].samples_us = malloc(SAMPLES_MAX * sizeof(uint32_t));
        if (all[i].samples_us == NULL ||
            pthread_create(&all[i].thread, NULL, be_busy, &all[i]) != 0)
            return 1;
    }
    while (atomic_load(&ready_count) < clients)
        usleep(1000);
    printf("ready\n");
    fflush(stdout);
    begin = now();
    cpu = own_cpu();
    atomic_store(&must_begin, true);
    if (seconds > 0)
        usleep((useconds_t)(seconds * 1e6));
    else
        while (read(STDIN_FILENO, &byte, 1) > 0)
            ;
    atomic_store(&must_stop, true);
    end = now();
    for (unsigned i = 0; i < clients; i++) {
        pthread_join(all[i].thread, NULL);
        total += all[i].count;
    }
    if (atomic_load(&has_failed) || total == 0)
        return 1;
    samples_us = malloc(total * sizeof(uint32_t));
    if (samples_us == NULL)
        return 1;
    total = 0;
    for (unsigned i = 0; i < clients; i++) {
        memcpy(samples_us + total, all[i].samples_us, all[i].count * sizeof(uint32_t));
        total += all[i].count;
    }
    qsort(samples_us, total, sizeof(uint32_t), compare_samples);
    printf("count=%zu seconds=%.4f own_cpu=%.4f p50=%u p95=%u p99=%u max=%u tls=%s\n", total,
           end - begin, own_cpu() - cpu, samples_us[total * 50 / 100], samples_us[total * 95 / 100],
           samples_us[total * 99 / 100], samples_us[total - 1], all[0].text);
    return 0;
}

/* ---- one large answer ---- */

static int run_read(const char *sql)
{
    static const uint8_t last_words[] = {'Z', 0, 0, 0, 5, 'I'};
    size_t length = strlen(sql), total = 0, reads = 0;
    struct incoming in = {.data = malloc(ROOM_BYTES)};
    struct session session;
    uint8_t *message = malloc(length + 6);
    uint8_t tail[sizeof(last_words)] = {0};
    double begin, cpu;
    char text[TLS_CLIENT_TEXT_BYTES];

    if (message == NULL || in.data == NULL || !log_in(&session, &in, 0))
        return 1;
    describe(&session, text);
    message[0] = 'Q';
    put_u32(message + 1, (uint32_t)length + 5);
    memcpy(message + 5, sql, length + 1);
    begin = now();
    cpu = own_cpu();
    if (!session_send(&session, message, length + 6))
        return 1;
    while (memcmp(tail, last_words, sizeof(tail)) != 0) {
        ssize_t count = session_receive(&session, in.data, ROOM_BYTES);
        size_t kept;

        if (count <= 0) {
            fail("end in the middle of the answer");
            return 1;
        }
        reads++;
        total += (size_t)count;
        kept = (size_t)count < sizeof(tail) ? (size_t)count : sizeof(tail);
        memmove(tail, tail + kept, sizeof(tail) - kept);
        memcpy(tail + sizeof(tail) - kept, in.data + count - kept, kept);
    }
    printf("bytes=%zu seconds=%.4f own_cpu=%.4f reads=%zu tls=%s\n", total, now() - begin,
           own_cpu() - cpu, reads, text);
    session_close(&session, true);
    return 0;
}

/* ---- idle clients ---- */

static struct session *idle_sessions;
static unsigned idle_count;

static void *open_idle(void *argument)
{
    struct incoming in = {.data = malloc(ROOM_BYTES)};
    unsigned number;

    (void)argument;
    while ((number = atomic_fetch_add(&thread_count, 1)) < idle_count &&
           log_in(&idle_sessions[number], &in, number / 20000))
        atomic_fetch_add(&login_count, 1);
    free(in.data);
    return NULL;
}

static int run_idle(unsigned count, int threads)
{
    char text[TLS_CLIENT_TEXT_BYTES] = "none", byte;
    pthread_t ids[THREADS_MAX];

    idle_count = count;
    idle_sessions = calloc(count, sizeof(*idle_sessions));
    for (int i = 0; i < threads; i++)
        if (idle_sessions == NULL || pthread_create(&ids[i], NULL, open_idle, NULL) != 0)
            return 1;
    for (int i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    if (atomic_load(&login_count) < count)
        return 1;
    if (count > 0)
        describe(&idle_sessions[0], text);
    printf("open=%u tls=%s\n", count, text);
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    return 0;
}

static bool choose_tls(void)
{
    const char *protocol = getenv("TLS_PROTOCOL");

    has_tls = protocol == NULL || strcmp(protocol, "none") != 0;
    return !has_tls || tls_client_init(protocol, getenv("TLS_CIPHER"), getenv("TLS_GROUPS"));
}

static int clamp(const char *text)
{
    int number = atoi(text);

    return number < 1 ? 1 : number > THREADS_MAX ? THREADS_MAX : number;
}

int main(int argc, char **argv)
{
    struct rlimit limit;

    if (argc < 6 || !choose_tls()) {
        fprintf(stderr, "see the head of bench/tls_storm.c\n");
        return 2;
    }
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)atoi(argv[2]));
    user = argv[3];
    database = argv[4];
    (void)signal(SIGPIPE, SIG_IGN);
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (strcmp(argv[1], "idle") == 0)
        return run_idle((unsigned)atoi(argv[5]), clamp(argc > 6 ? argv[6] : "1"));
    if (strcmp(argv[1], "read") == 0)
        return run_read(argv[5]);
    if (argc < 7)
        return 2;
    rate = argc > 7 ? atof(argv[7]) : 0;
    if (strcmp(argv[1], "logins") == 0)
        return run_logins(atof(argv[5]), clamp(argv[6]));
    if (strcmp(argv[1], "busy") == 0)
        return run_busy(atof(argv[5]), (unsigned)clamp(argv[6]));
    return 2;
}
