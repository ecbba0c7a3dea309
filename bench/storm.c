/* storm.c - a client for the benchmark: opens many sessions and keeps them, logs in as fast as it
 * can, or asks and measures how long the answers take.
 *
 *   storm idle   HOST PORT USER PASSWORD DATABASE COUNT
 *       opens COUNT, says `open N`, ends with its stdin
 *   storm logins HOST PORT USER PASSWORD DATABASE SECONDS THREADS
 *       says `N logins in S seconds`
 *   storm users  HOST PORT USER PASSWORD DATABASE LOGINS THREADS USERS
 *       LOGINS logins of USER0, USER1 .. in turn, at nice 19, so that this program's own hashing
 *       takes the CPU from nobody; says `N logins in S seconds, F failed`
 *   storm busy   HOST PORT USER PASSWORD DATABASE SECONDS CLIENTS
 *       each client asks as `pgbench -S` does; 0 seconds: until the end of stdin. Says `ready`,
 *       then `N transactions in S seconds, p50 A p95 B p99 C max D us`
 *
 * SCRAM's slow step is done once for each user and salt, so that the pooler and not this program is
 * measured. */
#include "base/bytes.h"
#include "base/clock.h"
#include "crypto/random.h"
#include "crypto/scram.h"
#include "wire/message.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

struct target {
    struct sockaddr_in address;
    const char *user, *password, *database;
    uint64_t until_us;
};

struct scram_cache {
    uint8_t salt[SCRAM_SALT_BYTES_MAX];
    uint8_t salt_bytes;
    uint32_t iterations;
    uint8_t salted[SCRAM_KEY_BYTES];
};

static atomic_ullong login_count, failed_count;
static atomic_uint thread_count;

static bool send_all(int fd, const void *data, size_t bytes)
{
    return send(fd, data, bytes, MSG_NOSIGNAL) == (ssize_t)bytes;
}

/* What has come and was not looked at yet: one recv for the whole welcome, not two for each
 * message. */
struct incoming {
    uint8_t data[16384];
    size_t begin, end;
};

/* The next message whole, in place. NULL: the connection has ended, or it does not fit. */
static const uint8_t *receive_message(int fd, struct incoming *incoming, uint32_t *body_bytes)
{
    for (;;) {
        size_t have = incoming->end - incoming->begin;
        uint8_t *message = incoming->data + incoming->begin;
        ssize_t count;

        if (have >= 5 && have >= (size_t)bytes_get_u32(message + 1) + 1) {
            *body_bytes = bytes_get_u32(message + 1) - 4;
            incoming->begin += (size_t)*body_bytes + 5;
            return message;
        }
        memmove(incoming->data, message, have);
        incoming->begin = 0;
        incoming->end = have;
        count = recv(fd, incoming->data + have, sizeof(incoming->data) - have, 0);
        if (count <= 0)
            return NULL;
        incoming->end += (size_t)count;
    }
}

static bool send_password(int fd, const struct writer *payload)
{
    uint8_t message[1024];
    struct writer writer;

    writer_init(&writer, message, sizeof(message));
    message_password(&writer, payload->data, payload->bytes);
    return send_all(fd, message, writer.bytes);
}

static bool authenticate(int fd, const struct target *target, const uint8_t *body, uint32_t bytes,
                         struct scram_client *scram, struct scram_cache *cache)
{
    uint32_t code = bytes_get_u32(body);
    uint8_t data[512], first[SCRAM_CLIENT_FIRST_ROOM], random[SCRAM_NONCE_BYTES];
    uint8_t client_key[32], stored_key[32], server_key[32];
    char nonce[SCRAM_NONCE_TEXT_BYTES_MAX];
    struct writer writer, first_writer;

    writer_init(&writer, data, sizeof(data));
    switch (code) {
    case AUTHENTICATION_OK:
        return true;
    case AUTHENTICATION_SASL:
        if (!random_bytes(random, sizeof(random)))
            return false;
        scram_nonce_text(random, nonce);
        writer_init(&first_writer, first, sizeof(first));
        writer_put_string(&writer, scram_client_start(scram, &(struct scram_channel){0},
                                                      SCRAM_OFFER_PLAIN, nonce, &first_writer));
        writer_put_u32(&writer, (uint32_t)first_writer.bytes);
        writer_put(&writer, first, first_writer.bytes);
        return send_password(fd, &writer);
    case AUTHENTICATION_SASL_CONTINUE:
        if (scram_client_challenge(scram, body + 4, bytes - 4) != SCRAM_OK)
            return false;
        if (cache->iterations != scram->iterations || cache->salt_bytes != scram->salt_bytes ||
            memcmp(cache->salt, scram->salt, scram->salt_bytes) != 0) {
            memcpy(cache->salt, scram->salt, scram->salt_bytes);
            cache->salt_bytes = scram->salt_bytes;
            cache->iterations = scram->iterations;
            scram_salted_password(target->password, strlen(target->password), scram->salt,
                                  scram->salt_bytes, scram->iterations, cache->salted);
        }
        scram_keys_from_salted(cache->salted, client_key, stored_key, server_key);
        scram_client_prove(scram, client_key, server_key, &writer);
        return send_password(fd, &writer);
    case AUTHENTICATION_SASL_FINAL:
        return scram_client_finish(scram, body + 4, bytes - 4) == SCRAM_OK;
    default:
        fprintf(stderr, "authentication method %u\n", code);
        return false;
    }
}

/* A session that has seen ReadyForQuery; -1: it failed (said). */
static int log_in(const struct target *target, struct scram_cache *cache, unsigned source)
{
    /* A source address for each thread: 28,000 ports of one would be used up in two seconds. */
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(0x7f000002 + source)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    uint8_t packet[512];
    struct incoming incoming;
    struct scram_client scram = {0};
    struct writer writer;
    size_t begin;

    incoming.begin = incoming.end = 0;
    if (fd >= 0) {
        (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
        (void)!bind(fd, (struct sockaddr *)&from, sizeof(from));
    }
    if (fd < 0 ||
        connect(fd, (const struct sockaddr *)&target->address, sizeof(target->address)) < 0) {
        fprintf(stderr, "connect: %s\n", strerror(errno));
        goto fail;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    writer_init(&writer, packet, sizeof(packet));
    begin = message_begin(&writer, 0);
    writer_put_u32(&writer, 3 << 16);
    writer_put_string(&writer, "user");
    writer_put_string(&writer, target->user);
    writer_put_string(&writer, "database");
    writer_put_string(&writer, target->database);
    writer_put_u8(&writer, 0);
    message_end(&writer, begin);
    if (!send_all(fd, packet, writer.bytes))
        goto fail;
    for (;;) {
        uint32_t bytes;
        const uint8_t *header = receive_message(fd, &incoming, &bytes);
        const uint8_t *body;

        if (header == NULL)
            goto fail;
        body = header + 5;
        if (header[0] == 'R' && !authenticate(fd, target, body, bytes, &scram, cache))
            goto fail;
        if (header[0] == 'E') {
            struct error_fields fields;

            if (error_fields_read(body, bytes, &fields))
                fprintf(stderr, "%s\n", fields.message);
            goto fail;
        }
        if (header[0] == 'Z')
            return fd;
    }
fail:
    if (fd >= 0)
        close(fd);
    return -1;
}

static void *storm(void *argument)
{
    static const uint8_t terminate[] = {'X', 0, 0, 0, 4};
    const struct target *target = argument;
    struct scram_cache cache = {0};
    unsigned source = atomic_fetch_add(&thread_count, 1);

    while (clock_now_us() < target->until_us) {
        int fd = log_in(target, &cache, source);

        if (fd < 0)
            return NULL;
        atomic_fetch_add(&login_count, 1);
        (void)!send_all(fd, terminate, sizeof(terminate));
        close(fd);
    }
    return NULL;
}

/* ---- many users ---- */

enum { USERS_MAX = 10000, USER_BYTES = 64 };

static struct user_cache {
    pthread_mutex_t lock;
    struct scram_cache cache;
} user_caches[USERS_MAX];

struct user_storm {
    struct target target;
    unsigned login_count_max, user_count;
    atomic_uint next;
};

static void *log_in_users(void *argument)
{
    static const uint8_t terminate[] = {'X', 0, 0, 0, 4};
    struct user_storm *storm = argument;
    unsigned source = atomic_fetch_add(&thread_count, 1);

    for (;;) {
        unsigned number = atomic_fetch_add(&storm->next, 1);
        struct user_cache *shared = &user_caches[number % storm->user_count];
        struct target target = storm->target;
        struct scram_cache cache;
        char user[USER_BYTES];
        int fd;

        if (number >= storm->login_count_max)
            return NULL;
        snprintf(user, sizeof(user), "%s%u", storm->target.user, number % storm->user_count);
        target.user = user;
        pthread_mutex_lock(&shared->lock);
        cache = shared->cache;
        pthread_mutex_unlock(&shared->lock);
        fd = log_in(&target, &cache, source);
        pthread_mutex_lock(&shared->lock);
        shared->cache = cache;
        pthread_mutex_unlock(&shared->lock);
        atomic_fetch_add(fd < 0 ? &failed_count : &login_count, 1);
        if (fd >= 0) {
            (void)!send_all(fd, terminate, sizeof(terminate));
            close(fd);
        }
    }
}

static int run_users(const struct target *target, int argc, char **argv)
{
    static struct user_storm all;
    uint64_t begin_us = clock_now_us();
    int threads = argc > 8 ? atoi(argv[8]) : 50;
    int users = argc > 9 ? atoi(argv[9]) : 200;
    pthread_t ids[256];

    if (threads < 1 || threads > 256 || users < 1 || users > USERS_MAX)
        return 2;
    all.target = *target;
    all.login_count_max = (unsigned)atoi(argv[7]);
    all.user_count = (unsigned)users;
    for (int i = 0; i < users; i++)
        pthread_mutex_init(&user_caches[i].lock, NULL);
    if (setpriority(PRIO_PROCESS, 0, 19) != 0)
        return 1;
    for (int i = 0; i < threads; i++)
        if (pthread_create(&ids[i], NULL, log_in_users, &all) != 0)
            return 1;
    for (int i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    printf("%llu logins in %.3f seconds, %llu failed\n",
           (unsigned long long)atomic_load(&login_count), (double)(clock_now_us() - begin_us) / 1e6,
           (unsigned long long)atomic_load(&failed_count));
    return 0;
}

/* ---- busy clients ---- */

enum { BUSY_MAX = 256, SAMPLES_MAX = 4 * 1000 * 1000, ACCOUNTS = 1000 * 1000 };

struct busy {
    const struct target *target;
    pthread_t thread;
    uint32_t *samples_us;
    size_t count;
    unsigned number;
    bool has_failed;
};

static atomic_uint ready_count;
static atomic_bool must_begin, must_stop;

static bool ask(int fd, struct incoming *incoming, uint64_t *random)
{
    uint8_t message[128];
    char sql[80];
    struct writer writer;

    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    snprintf(sql, sizeof(sql), "SELECT abalance FROM pgbench_accounts WHERE aid = %u;",
             (unsigned)(*random >> 33) % ACCOUNTS + 1);
    writer_init(&writer, message, sizeof(message));
    message_query(&writer, sql);
    if (!send_all(fd, message, writer.bytes))
        return false;
    for (;;) {
        uint32_t bytes;
        const uint8_t *answer = receive_message(fd, incoming, &bytes);

        if (answer == NULL || answer[0] == 'E')
            return false;
        if (answer[0] == 'Z')
            return true;
    }
}

static void *be_busy(void *argument)
{
    struct busy *busy = argument;
    struct scram_cache cache = {0};
    struct incoming incoming = {.begin = 0};
    uint64_t random = busy->number;
    int fd = log_in(busy->target, &cache, 200 + busy->number);

    busy->has_failed = fd < 0;
    atomic_fetch_add(&ready_count, 1);
    while (!atomic_load(&must_begin))
        usleep(1000);
    while (!busy->has_failed && !atomic_load_explicit(&must_stop, memory_order_relaxed) &&
           busy->count < SAMPLES_MAX) {
        uint64_t begin_us = clock_now_us();

        busy->has_failed = !ask(fd, &incoming, &random);
        busy->samples_us[busy->count++] = (uint32_t)(clock_now_us() - begin_us);
    }
    if (fd >= 0)
        close(fd);
    return NULL;
}

static int compare_samples(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

    return (a > b) - (a < b);
}

static int run_busy(const struct target *target, double seconds, unsigned count)
{
    static struct busy all[BUSY_MAX];
    uint64_t begin_us, end_us;
    uint32_t *samples_us;
    size_t total = 0;
    char byte;

    for (unsigned i = 0; i < count; i++) {
        all[i].target = target;
        all[i].number = i;
        all[i].samples_us = malloc(SAMPLES_MAX * sizeof(uint32_t));
        if (all[i].samples_us == NULL ||
            pthread_create(&all[i].thread, NULL, be_busy, &all[i]) != 0)
            return 1;
    }
    while (atomic_load(&ready_count) < count)
        usleep(1000);
    printf("ready\n");
    fflush(stdout);
    begin_us = clock_now_us();
    atomic_store(&must_begin, true);
    if (seconds > 0)
        usleep((useconds_t)(seconds * 1e6));
    else
        while (read(STDIN_FILENO, &byte, 1) > 0)
            ;
    atomic_store(&must_stop, true);
    end_us = clock_now_us();
    for (unsigned i = 0; i < count; i++) {
        pthread_join(all[i].thread, NULL);
        if (all[i].has_failed) {
            fprintf(stderr, "a busy client was sent away\n");
            return 1;
        }
        total += all[i].count;
    }
    samples_us = malloc(total * sizeof(uint32_t));
    if (samples_us == NULL || total == 0)
        return 1;
    total = 0;
    for (unsigned i = 0; i < count; i++) {
        memcpy(samples_us + total, all[i].samples_us, all[i].count * sizeof(uint32_t));
        total += all[i].count;
    }
    qsort(samples_us, total, sizeof(uint32_t), compare_samples);
    printf("%zu transactions in %.3f seconds, p50 %u p95 %u p99 %u max %u us\n", total,
           (double)(end_us - begin_us) / 1e6, samples_us[total * 50 / 100],
           samples_us[total * 95 / 100], samples_us[total * 99 / 100], samples_us[total - 1]);
    return 0;
}

int main(int argc, char **argv)
{
    struct target target = {.address.sin_family = AF_INET};
    struct scram_cache cache = {0};
    struct rlimit limit;

    if (argc < 8) {
        fprintf(stderr, "see the head of bench/storm.c\n");
        return 2;
    }
    if (inet_pton(AF_INET, argv[2], &target.address.sin_addr) != 1)
        return 2;
    target.address.sin_port = htons((uint16_t)atoi(argv[3]));
    target.user = argv[4];
    target.password = argv[5];
    target.database = argv[6];
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (strcmp(argv[1], "idle") == 0) {
        int count = atoi(argv[7]);
        char byte;

        for (int i = 0; i < count; i++)
            if (log_in(&target, &cache, (unsigned)i / 20000) < 0)
                return 1;
        printf("open %d\n", count);
        fflush(stdout);
        while (read(STDIN_FILENO, &byte, 1) > 0)
            ;
        return 0;
    }
    if (strcmp(argv[1], "busy") == 0) {
        int clients = argc > 8 ? atoi(argv[8]) : 10;

        return run_busy(&target, atof(argv[7]),
                        (unsigned)(clients < 1          ? 1
                                   : clients > BUSY_MAX ? BUSY_MAX
                                                        : clients));
    }
    if (strcmp(argv[1], "users") == 0)
        return run_users(&target, argc, argv);
    {
        uint64_t begin_us = clock_now_us();
        int threads = argc > 8 ? atoi(argv[8]) : 16;
        pthread_t ids[256];

        threads = threads < 1 ? 1 : threads > 256 ? 256 : threads;
        target.until_us = begin_us + (uint64_t)(atof(argv[7]) * 1e6);
        for (int i = 0; i < threads; i++)
            if (pthread_create(&ids[i], NULL, storm, &target) != 0)
                return 1;
        for (int i = 0; i < threads; i++)
            pthread_join(ids[i], NULL);
        printf("%llu logins in %.3f seconds\n", (unsigned long long)atomic_load(&login_count),
               (double)(clock_now_us() - begin_us) / 1e6);
    }
    return 0;
}
