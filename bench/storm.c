/* storm.c - a client for the benchmark: opens many sessions and keeps them, or logs in as fast as
 * it can.
 *
 *   storm idle   HOST PORT USER PASSWORD DATABASE COUNT      opens COUNT, says `open N`, ends with
 * its stdin storm logins HOST PORT USER PASSWORD DATABASE SECONDS THREADS   says `N logins in S
 * seconds`
 *
 * SCRAM's slow step is done once for each salt, so that the pooler and not this program is
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

static atomic_ullong login_count;
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
        scram_client_start(scram, nonce, &first_writer);
        writer_put_string(&writer, SCRAM_MECHANISM);
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
