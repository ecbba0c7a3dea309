#include "world.h"

#include "wire/message.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SERVER_SCRAM_ITERATIONS = 2, ERROR_BYTES_MAX = 256, ALPHABET = 26 };

struct world world;

const struct database databases[DATABASES] = {
    {"shop", "shop", NULL},
    {"store", "warehouse", NULL},
    {"fixed", "fixed", "alice"},
};

const struct login_name login_names[LOGINS] = {
    {"bob", "bob's"},
    {"alice", "alice's"},
    {"carol", "carol's"},
};

/* ---- bytes ---- */

void heap_put(struct heap *heap, const void *data, size_t bytes)
{
    if (bytes == 0)
        return;
    if (heap->begin == heap->end)
        heap->begin = heap->end = 0;
    if (heap->end + bytes > heap->room) {
        if (heap->begin > 0)
            memmove(heap->data, heap->data + heap->begin, heap->end - heap->begin);
        heap->end -= heap->begin;
        heap->begin = 0;
        while (heap->end + bytes > heap->room)
            heap->room = heap->room * 2 + 256;
        heap->data = realloc(heap->data, heap->room);
        assert(heap->data != NULL);
    }
    memcpy(heap->data + heap->end, data, bytes);
    heap->end += bytes;
}

void heap_free(struct heap *heap)
{
    free(heap->data);
    *heap = (struct heap){0};
}

void put_message(struct heap *heap, char type, const void *body, size_t bytes)
{
    uint8_t header[5] = {(uint8_t)type};

    bytes_put_u32(header + 1, (uint32_t)(bytes + 4));
    heap_put(heap, header, 5);
    heap_put(heap, body, bytes);
}

bool take_message(struct heap *heap, char *type, const uint8_t **body, size_t *bytes)
{
    const uint8_t *at = heap->data + heap->begin;

    if (heap_bytes(heap) < 5)
        return false;
    *bytes = bytes_get_u32(at + 1) - 4;
    assert(*bytes < 1 << 20);
    if (heap_bytes(heap) < 5 + *bytes)
        return false;
    *type = (char)at[0];
    *body = at + 5;
    heap->begin += 5 + *bytes;
    return true;
}

void put_error(struct heap *heap, const char *severity, const char *sqlstate, const char *format,
               ...)
{
    char message[ERROR_BYTES_MAX / 2];
    uint8_t body[ERROR_BYTES_MAX];
    struct writer writer;
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    writer_init(&writer, body, sizeof(body));
    writer_put_u8(&writer, 'S');
    writer_put_string(&writer, severity);
    writer_put_u8(&writer, 'C');
    writer_put_string(&writer, sqlstate);
    writer_put_u8(&writer, 'M');
    writer_put_string(&writer, message);
    writer_put_u8(&writer, 0);
    assert(!writer.overflow);
    put_message(heap, 'E', body, writer.bytes);
}

void put_authentication(struct heap *heap, uint32_t code, const void *data, size_t bytes)
{
    uint8_t body[SCRAM_MESSAGE_BYTES_MAX];
    struct writer writer;

    writer_init(&writer, body, sizeof(body));
    writer_put_u32(&writer, code);
    writer_put(&writer, data, bytes);
    assert(!writer.overflow);
    put_message(heap, 'R', body, writer.bytes);
}

/* ---- questions and answers ---- */

unsigned row_count(unsigned arg)
{
    return arg % 8;
}

unsigned row_bytes(unsigned arg)
{
    return arg / 8 % 23 == 0 ? 3000 + arg % 9000 : 40 + arg % 200;
}

static char filler[ROW_BYTES_MAX + ALPHABET];

size_t make_row(char text[ROW_BYTES_MAX], unsigned owner, unsigned number, unsigned row,
                const char *name, unsigned bytes)
{
    size_t at =
        (size_t)snprintf(text, ROW_TEXT_BYTES_MAX, "A %u %u %u [%s] ", owner, number, row, name);
    unsigned letter = (owner * 7 + number * 5 + row * 3) % ALPHABET;

    if (at < bytes) {
        memcpy(text + at, filler + letter, bytes - at);
        at = bytes;
    }
    return at;
}

/* ---- the whole ---- */

void world_begin(void)
{
    struct sim *sim = world.sim;

    world = (struct world){.sim = sim,
                           .is_logged = getenv("SIM_LOG") != NULL,
                           .copy_fails_early = getenv("SIM_COPY_FAILS_EARLY") != NULL};
    for (size_t i = 0; i < sizeof(filler); i++)
        filler[i] = (char)('a' + i % ALPHABET);
    for (unsigned i = 0; i < LOGINS; i++) {
        const struct login_name *login = &login_names[i];
        uint8_t salted[SCRAM_KEY_BYTES];
        uint8_t salt[SCRAM_SALT_DEFAULT_BYTES] = {(uint8_t)(i + 1), 2, 3};

        scram_salted_password(login->password, strlen(login->password), salt, sizeof(salt),
                              SERVER_SCRAM_ITERATIONS, salted);
        scram_secret_make(&world.secrets[i], salted, salt, sizeof(salt), SERVER_SCRAM_ITERATIONS);
    }
    (void)scram_secret_format(&world.secrets[LOGINS - 1], world.carol_secret);
}

void world_log_line(const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "%9llu ", (unsigned long long)(world_now_us() % 1000000000));
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}
