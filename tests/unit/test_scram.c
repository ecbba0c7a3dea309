#include "crypto/scram.h"

#include "crypto/secret.h"

#include "guarded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t process_key[SCRAM_KEY_BYTES] = "a key that a process makes once";
static const char server_nonce[] = "3rfcNHYJY1ZVvWVs7jAAAAAA";
static const char client_nonce[] = "fyko+d2lbbFgONRv9qkxdawL";
static const struct scram_channel plain;
/* What is bound to does not matter, but that it is the same. */
static const struct scram_channel bound = {
    .is_tls = true, .binding_bytes = 32, .binding = "hash of the server's certificate"};
static const struct scram_channel bound_elsewhere = {
    .is_tls = true, .binding_bytes = 32, .binding = "hash of somebody's certificate.."};
static const struct scram_channel bound_shorter = {
    .is_tls = true, .binding_bytes = 31, .binding = "hash of the server's certificat"};
static const struct scram_channel unbindable = {.is_tls = true};
enum { BOTH_OFFERS = SCRAM_OFFER_PLAIN | SCRAM_OFFER_PLUS };

static const char pencil_secret[] =
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

/* ---- keys and secrets ---- */

static void salt_password(const char *password, size_t bytes, const struct scram_secret *secret,
                          uint8_t salted[SCRAM_KEY_BYTES])
{
    scram_salted_password(guarded_copy(password, bytes), bytes, secret->salt, secret->salt_bytes,
                          secret->iterations, salted);
}

static void keys_are_those_of_pbkdf2_and_hmac(void **state)
{
    /* Computed with Python's hashlib for RFC 7677's password, salt and iterations. */
    static const uint8_t expected_client_key[SCRAM_KEY_BYTES] = {
        0xa6, 0x0f, 0xc9, 0x23, 0xd6, 0x7e, 0x86, 0x44, 0xa9, 0x2d, 0x16,
        0xb9, 0x6e, 0xda, 0x5e, 0xf4, 0x65, 0x6b, 0x0c, 0x72, 0x5c, 0x48,
        0x43, 0x74, 0xbe, 0x25, 0x53, 0x55, 0x76, 0x99, 0x6e, 0x8b};
    uint8_t salted[SCRAM_KEY_BYTES], client_key[SCRAM_KEY_BYTES];
    uint8_t stored_key[SCRAM_KEY_BYTES], server_key[SCRAM_KEY_BYTES];
    struct scram_secret secret, made;

    (void)state;
    assert_true(scram_secret_parse(&secret, pencil_secret));
    salt_password("pencil", 6, &secret, salted);
    scram_keys_from_salted(salted, client_key, stored_key, server_key);
    assert_memory_equal(client_key, expected_client_key, SCRAM_KEY_BYTES);
    assert_memory_equal(stored_key, secret.stored_key, SCRAM_KEY_BYTES);
    assert_memory_equal(server_key, secret.server_key, SCRAM_KEY_BYTES);
    scram_secret_make(&made, salted, secret.salt, secret.salt_bytes, secret.iterations);
    assert_true(scram_secret_equal(&made, &secret));
    assert_true(scram_secret_check(&secret, salted));
    salted[0] ^= 1;
    assert_false(scram_secret_check(&secret, salted));
}

/* What PostgreSQL 15 stored in pg_authid.rolpassword. */
static const struct {
    const char *password;
    const char *secret;
} stored_by_postgresql[] = {
    {"pencil",
     "SCRAM-SHA-256$4096:Y4NWHMZHq4yJ19swdu6NIQ==$"
     "6uK/8SSM0Tts0ymdT3jW0kJWDqoDI23heSS2HHmQ+D4=:YU2+DBq47ozyhc9o9XTW4k5PiAp1G13gyT/KtsNrzO8="},
    {"p\xC3\xA4ssw\xC3\xB6rd",
     "SCRAM-SHA-256$4096:IeAQpf/rZ+XmZyqHhC76RQ==$"
     "867oerlGx9ZmibIH1NRY3nkidNfp6dIzl7JlvlAX2vA=:ODnWrfnXYix9a2G6zI4cAlOeubCFgOUqqPlndEtNwKE="},
    {"pa\xCC\x88ss\xC2\xA0IX\xC2\xAD\xE2\x85\xA8", /* mapped and normalized: "p\u00e4ss IXIX" */
     "SCRAM-SHA-256$4096:8m5aFwIi8N2H02bMg/l+HA==$"
     "zwefwKXIFbe+CM/XqdvEIHP1wkqaCbyJC/Lu6gmZpjI=:gSXqydJJwVmVkpt4b/cWRtR6jL8KdPbixBaTzOAPzG0="},
    {"\xD8\xA7\xD8\xB1", /* right-to-left */
     "SCRAM-SHA-256$4096:dibcm6icxS3QGNvxEkDF2w==$"
     "9Cp7ayMcdzvmyjta0NxCwp9icRSZMR1wRDdWNtrnuh8=:ewpwj7gAatDQvS8BRsXYAWP+a5OC3N4lUKpqjdXa0YI="},
    {"x\xCD\x80 kept raw", /* U+0340 is forbidden */
     "SCRAM-SHA-256$4096:u+fBivqd6YixqFQPsryEAw==$"
     "hvr9jRDkamvJnXn6mk+em+Ndko6A4saYf9/Hj0b96dk=:D+8uSPA9KU3b3DbKySX1Hc11/dih4+++DFtsAH8/ZRc="},
    {"\xF0\x9F\x98\x80 emoji", /* unassigned in Unicode 3.2 */
     "SCRAM-SHA-256$4096:5kyTrZ0lKeupYh2vD6h5HA==$"
     "T8nt4vSC5MFAzTYzruWDq3VJI3T7bBa5/0N31RXm4xE=:fKsqpTsc/VWW6M5EakBOYnIIQEtmO5I+igFpq+Qvqag="},
    {"\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E\xEF\xBE\x8A\xEF\xBE\x9F\xEF\xBD\xBD\xEF\xBE\x9C"
     "\xEF\xBD\xB0\xEF\xBE\x84\xEF\xBE\x9E", /* half-width kana */
     "SCRAM-SHA-256$4096:IYA8VTVUjavihxOzrn63fg==$"
     "OUyjIlgtMXXGiqQg02M733Abjio5mqVnhNeBU/AOPAk=:1hEmH+59gXUloOP+XRaKw4EkEBRPh781pJ+6itWoMUQ="},
    {"p\xE4ss latin1", /* no UTF-8, from a SQL_ASCII database */
     "SCRAM-SHA-256$4096:tna3YfH1/35fl09+oTQ+ew==$"
     "XL7Gyvt+fETfRb/ktGzXGZSLztFhWEQo4yQO/cl6uMw=:hcXq9SDaWsptoHPUk5WavSH8ExR8O/yISerdmHvhOEc="},
};

static void secrets_are_those_of_postgresql(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(stored_by_postgresql); i++) {
        char text[SCRAM_SECRET_TEXT_BYTES_MAX];
        uint8_t salted[SCRAM_KEY_BYTES];
        struct scram_secret secret;

        assert_true(scram_secret_parse(&secret, stored_by_postgresql[i].secret));
        assert_int_equal(scram_secret_format(&secret, text),
                         strlen(stored_by_postgresql[i].secret));
        assert_string_equal(text, stored_by_postgresql[i].secret);
        salt_password(stored_by_postgresql[i].password, strlen(stored_by_postgresql[i].password),
                      &secret, salted);
        assert_true(scram_secret_check(&secret, salted));
    }
}

#define KEY "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
#define SALT_64                                                                                    \
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="

static void malformed_secrets_are_plain_text(void **state)
{
    static const char *const wrong[] = {
        "",
        "SCRAM-SHA-256",
        "SCRAM-SHA-256$",
        "SCRAM-SHA-1$4096:c2FsdA==$" KEY ":" KEY,
        "scram-sha-256$4096:c2FsdA==$" KEY ":" KEY,
        " SCRAM-SHA-256$4096:c2FsdA==$" KEY ":" KEY,
        "SCRAM-SHA-256$4096:c2FsdA==$" KEY ":" KEY " ",
        "SCRAM-SHA-256$4096:c2FsdA==$" KEY ":" KEY ":" KEY,
        "SCRAM-SHA-256$0:c2FsdA==$" KEY ":" KEY,
        "SCRAM-SHA-256$04096:c2FsdA==$" KEY ":" KEY,
        "SCRAM-SHA-256$-1:c2FsdA==$" KEY ":" KEY,
        "SCRAM-SHA-256$+1:c2FsdA==$" KEY ":" KEY,
        "SCRAM-SHA-256$2147483648:c2FsdA==$" KEY ":" KEY,
        "SCRAM-SHA-256$99999999999999999999:c2FsdA==$" KEY ":" KEY,
        "SCRAM-SHA-256$:c2FsdA==$" KEY ":" KEY,
        "SCRAM-SHA-256$4096:$" KEY ":" KEY,
        "SCRAM-SHA-256$4096:c2FsdA=$" KEY ":" KEY,
        "SCRAM-SHA-256$4096:c2FsdA==$" KEY,
        "SCRAM-SHA-256$4096:c2FsdA==$" KEY ":",
        "SCRAM-SHA-256$4096:c2FsdA==$c2FsdA==:" KEY,
        "SCRAM-SHA-256$4096:c2FsdA==$" KEY ":c2FsdA==",
        "SCRAM-SHA-256$4096:c2FsdA==$" KEY "AAAA:" KEY,
        "SCRAM-SHA-256$4096:AA" SALT_64 "$" KEY ":" KEY,
        "SCRAM-SHA-256$4096:AAAA" SALT_64 "$" KEY ":" KEY,
    };
    struct scram_secret secret;
    char text[SCRAM_SECRET_TEXT_BYTES_MAX];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(wrong); i++)
        assert_false(scram_secret_parse(&secret, guarded_copy(wrong[i], strlen(wrong[i]) + 1)));
    for (size_t bytes = 0; bytes < sizeof(pencil_secret) - 1; bytes++) {
        memcpy(text, pencil_secret, bytes);
        text[bytes] = '\0';
        assert_false(scram_secret_parse(&secret, guarded_copy(text, bytes + 1)));
    }
    assert_true(scram_secret_parse(&secret, "SCRAM-SHA-256$2147483647:" SALT_64 "$" KEY ":" KEY));
    assert_int_equal(secret.salt_bytes, SCRAM_SALT_BYTES_MAX);
    assert_string_equal(secret.salt_text, SALT_64);
    assert_true(scram_secret_format(&secret, text) > 0);
}

static void mock_secret_is_the_same_for_the_same_name(void **state)
{
    static const uint8_t other_key[SCRAM_KEY_BYTES] = {1};
    struct scram_secret one, again, other;

    (void)state;
    scram_secret_mock(&one, process_key, "nobody", 6, 4096);
    scram_secret_mock(&again, process_key, "nobody", 6, 4096);
    assert_true(one.is_mock);
    assert_int_equal(one.salt_bytes, SCRAM_SALT_DEFAULT_BYTES);
    assert_true(scram_secret_equal(&one, &again));
    scram_secret_mock(&other, process_key, "nobodx", 6, 4096);
    assert_memory_not_equal(one.salt, other.salt, SCRAM_SALT_DEFAULT_BYTES);
    scram_secret_mock(&other, other_key, "nobody", 6, 4096);
    assert_memory_not_equal(one.salt, other.salt, SCRAM_SALT_DEFAULT_BYTES);
}

/* ---- golden exchanges ---- */

struct golden {
    char role[16], password[64], secret[256], server_nonce[64], client_nonce[64];
    char client_first[256], server_first[256], client_final[512], server_final[256];
    char gs2[4], binding[132];
};

/* The channel of the end that is ours. */
static struct scram_channel golden_channel(const struct golden *golden)
{
    struct scram_channel channel = {.is_tls = golden->gs2[0] == 'y' || golden->gs2[0] == 'p'};
    unsigned byte;

    for (const char *at = golden->binding; sscanf(at, "%2x", &byte) == 1; at += 2)
        channel.binding[channel.binding_bytes++] = (uint8_t)byte;
    assert_int_equal(channel.binding_bytes > 0, golden->gs2[0] == 'p');
    return channel;
}

/* Reads up to an empty line. False at the end of the file. */
static bool golden_read(FILE *file, struct golden *golden)
{
    const struct {
        const char *name;
        char *value;
        size_t bytes;
    } fields[] = {
#define FIELD(field) {#field, golden->field, sizeof(golden->field)}
        FIELD(role),         FIELD(password),     FIELD(secret),       FIELD(server_nonce),
        FIELD(client_nonce), FIELD(client_first), FIELD(server_first), FIELD(client_final),
        FIELD(server_final), FIELD(gs2),          FIELD(binding),
    };
    char line[768];

    memset(golden, 0, sizeof(*golden));
    while (fgets(line, sizeof(line), file) != NULL) {
        char *value;

        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '#')
            continue;
        if (line[0] == '\0' && golden->role[0] != '\0')
            return true;
        if (line[0] == '\0')
            continue;
        value = strchr(line, ' ');
        assert_non_null(value);
        *value++ = '\0';
        for (size_t i = 0; i <= COUNT_OF(fields); i++) {
            assert_in_range(i, 0, COUNT_OF(fields) - 1); /* no such field */
            if (strcmp(fields[i].name, line) != 0)
                continue;
            assert_in_range(strlen(value), 1, fields[i].bytes - 1);
            memcpy(fields[i].value, value, strlen(value) + 1);
            break;
        }
    }
    return golden->role[0] != '\0';
}

#define assert_written(out, expected)                                                              \
    do {                                                                                           \
        assert_int_equal((out)->bytes, strlen(expected));                                          \
        assert_memory_equal((out)->data, expected, (out)->bytes);                                  \
        (out)->bytes = 0;                                                                          \
    } while (0)

static void golden_exchanges_come_out_byte_for_byte(void **state)
{
    FILE *file = fopen("tests/golden/scram.txt", "r");
    struct golden golden;
    size_t count = 0;

    (void)state;
    assert_non_null(file);
    while (golden_read(file, &golden)) {
        uint8_t salted[SCRAM_KEY_BYTES], client_key[SCRAM_KEY_BYTES], found_key[SCRAM_KEY_BYTES];
        uint8_t stored_key[SCRAM_KEY_BYTES], server_key[SCRAM_KEY_BYTES];
        struct scram_channel channel = golden_channel(&golden);
        bool is_plus = golden.gs2[0] == 'p';
        struct scram_secret secret;
        struct writer out;
        char data[512];

        count++;
        writer_init(&out, data, sizeof(data));
        assert_true(scram_secret_parse(&secret, golden.secret));
        salt_password(golden.password, strlen(golden.password), &secret, salted);
        assert_true(scram_secret_check(&secret, salted));
        scram_keys_from_salted(salted, client_key, stored_key, server_key);
        if (strcmp(golden.role, "server") == 0) {
            struct scram_server server = {0};

            assert_int_equal(scram_server_start(&server, &channel,
                                                is_plus ? SCRAM_OFFER_PLUS : SCRAM_OFFER_PLAIN,
                                                golden.client_first, strlen(golden.client_first),
                                                golden.server_nonce, &secret, &out),
                             SCRAM_OK);
            assert_written(&out, golden.server_first);
            assert_int_equal(scram_server_finish(&server, golden.client_final,
                                                 strlen(golden.client_final), found_key, &out),
                             SCRAM_OK);
            assert_written(&out, golden.server_final);
            assert_memory_equal(found_key, client_key, SCRAM_KEY_BYTES);
        } else {
            struct scram_client client;

            assert_string_equal(scram_client_start(&client, &channel,
                                                   is_plus ? BOTH_OFFERS : SCRAM_OFFER_PLAIN,
                                                   golden.client_nonce, &out),
                                is_plus ? SCRAM_MECHANISM_PLUS : SCRAM_MECHANISM);
            assert_written(&out, golden.client_first);
            assert_int_equal(
                scram_client_challenge(&client, golden.server_first, strlen(golden.server_first)),
                SCRAM_OK);
            assert_true(scram_client_matches(&client, &secret));
            scram_client_prove(&client, client_key, server_key, &out);
            assert_written(&out, golden.client_final);
            assert_int_equal(
                scram_client_finish(&client, golden.server_final, strlen(golden.server_final)),
                SCRAM_OK);
        }
    }
    fclose(file);
    assert_int_equal(count, 8);
}

/* ---- our client with our server, and somebody between them ---- */

enum message { CLIENT_FIRST, SERVER_FIRST, CLIENT_FINAL, SERVER_FINAL, MESSAGES };

/* Changes one message: keeps `keep` bytes, then has `byte` at `position`, then appends. */
struct meddler {
    enum message message;
    size_t keep;
    size_t position;
    int byte; /* -1: none */
    const char *append;
    size_t append_bytes;
};

static const struct meddler nobody = {.message = MESSAGES, .keep = SIZE_MAX, .byte = -1};

struct outcome {
    enum message failed_at; /* MESSAGES: all went well */
    enum scram_result result;
    uint8_t client_key[SCRAM_KEY_BYTES];
    size_t bytes[MESSAGES]; /* of the messages as they were written */
};

struct exchange {
    struct scram_secret secret;
    uint8_t client_key[SCRAM_KEY_BYTES];
    uint8_t server_key[SCRAM_KEY_BYTES];
    const struct scram_channel *client_channel, *server_channel;
    unsigned hidden_offers; /* of the server's, somebody has taken these out of its list */
};

static void exchange_init(struct exchange *exchange, const char *password)
{
    uint8_t salted[SCRAM_KEY_BYTES], stored_key[SCRAM_KEY_BYTES];

    exchange->client_channel = exchange->server_channel = &plain;
    exchange->hidden_offers = 0;
    assert_true(scram_secret_parse(&exchange->secret, pencil_secret));
    salt_password(password, strlen(password), &exchange->secret, salted);
    scram_keys_from_salted(salted, exchange->client_key, stored_key, exchange->server_key);
}

static const uint8_t *deliver(enum message message, struct writer *out,
                              const struct meddler *meddler, struct outcome *outcome, size_t *bytes)
{
    uint8_t data[SCRAM_MESSAGE_BYTES_MAX * 2];

    outcome->bytes[message] = *bytes = out->bytes;
    memcpy(data, out->data, out->bytes);
    out->bytes = 0;
    if (message == meddler->message) {
        *bytes = MIN(*bytes, meddler->keep);
        if (meddler->byte >= 0)
            data[meddler->position] = (uint8_t)meddler->byte;
        if (meddler->append_bytes > 0)
            memcpy(data + *bytes, meddler->append, meddler->append_bytes);
        *bytes += meddler->append_bytes;
    }
    return guarded_copy(data, *bytes);
}

static struct outcome exchange_run(const struct exchange *exchange, const struct meddler *meddler)
{
    struct outcome outcome = {0};
    struct scram_server server = {0};
    struct scram_client client;
    struct writer out;
    const uint8_t *data;
    const char *mechanism;
    char memory[512];
    size_t bytes;

    writer_init(&out, memory, sizeof(memory));
    mechanism =
        scram_client_start(&client, exchange->client_channel,
                           scram_server_offers(exchange->server_channel) & ~exchange->hidden_offers,
                           client_nonce, &out);
    assert_non_null(mechanism);

    outcome.failed_at = CLIENT_FIRST;
    data = deliver(CLIENT_FIRST, &out, meddler, &outcome, &bytes);
    outcome.result = scram_server_start(
        &server, exchange->server_channel,
        strcmp(mechanism, SCRAM_MECHANISM_PLUS) == 0 ? SCRAM_OFFER_PLUS : SCRAM_OFFER_PLAIN, data,
        bytes, server_nonce, &exchange->secret, &out);
    if (outcome.result != SCRAM_OK)
        return outcome;

    outcome.failed_at = SERVER_FIRST;
    data = deliver(SERVER_FIRST, &out, meddler, &outcome, &bytes);
    outcome.result = scram_client_challenge(&client, data, bytes);
    if (outcome.result != SCRAM_OK)
        return outcome;
    scram_client_prove(&client, exchange->client_key, exchange->server_key, &out);

    outcome.failed_at = CLIENT_FINAL;
    data = deliver(CLIENT_FINAL, &out, meddler, &outcome, &bytes);
    outcome.result = scram_server_finish(&server, data, bytes, outcome.client_key, &out);
    if (outcome.result != SCRAM_OK) {
        assert_int_equal(out.bytes, 0);
        return outcome;
    }

    outcome.failed_at = SERVER_FINAL;
    data = deliver(SERVER_FINAL, &out, meddler, &outcome, &bytes);
    outcome.result = scram_client_finish(&client, data, bytes);
    if (outcome.result == SCRAM_OK)
        outcome.failed_at = MESSAGES;
    return outcome;
}

static void right_password_succeeds_and_yields_client_key(void **state)
{
    struct exchange exchange;
    struct outcome outcome;

    (void)state;
    exchange_init(&exchange, "pencil");
    outcome = exchange_run(&exchange, &nobody);
    assert_int_equal(outcome.result, SCRAM_OK);
    assert_int_equal(outcome.failed_at, MESSAGES);
    assert_memory_equal(outcome.client_key, exchange.client_key, SCRAM_KEY_BYTES);
}

static void wrong_password_fails_at_the_proof(void **state)
{
    static const uint8_t untouched[SCRAM_KEY_BYTES];
    struct exchange exchange;
    struct outcome outcome;

    (void)state;
    exchange_init(&exchange, "pencil ");
    outcome = exchange_run(&exchange, &nobody);
    assert_int_equal(outcome.failed_at, CLIENT_FINAL);
    assert_int_equal(outcome.result, SCRAM_WRONG_PROOF);
    assert_memory_equal(outcome.client_key, untouched, SCRAM_KEY_BYTES);
}

static void mock_fails_even_with_the_right_keys(void **state)
{
    struct exchange exchange;
    struct outcome outcome;

    (void)state;
    exchange_init(&exchange, "pencil");
    exchange.secret.is_mock = true;
    outcome = exchange_run(&exchange, &nobody);
    assert_int_equal(outcome.failed_at, CLIENT_FINAL);
    assert_int_equal(outcome.result, SCRAM_WRONG_PROOF);

    scram_secret_mock(&exchange.secret, process_key, "nobody", 6, 4096);
    outcome = exchange_run(&exchange, &nobody);
    assert_int_equal(outcome.failed_at, CLIENT_FINAL);
    assert_int_equal(outcome.result, SCRAM_WRONG_PROOF);
}

static void server_without_our_secret_is_found_out(void **state)
{
    struct exchange exchange;
    struct outcome outcome;

    (void)state;
    exchange_init(&exchange, "pencil");
    exchange.secret.server_key[31] ^= 1;
    outcome = exchange_run(&exchange, &nobody);
    assert_int_equal(outcome.failed_at, SERVER_FINAL);
    assert_int_equal(outcome.result, SCRAM_WRONG_SIGNATURE);
}

static void truncate_messages(const struct scram_channel *channel)
{
    struct exchange exchange;
    struct outcome whole;

    exchange_init(&exchange, "pencil");
    exchange.client_channel = exchange.server_channel = channel;
    whole = exchange_run(&exchange, &nobody);
    for (enum message message = 0; message < MESSAGES; message++) {
        assert_true(whole.bytes[message] > 0);
        for (size_t keep = 0; keep < whole.bytes[message]; keep++) {
            struct meddler meddler = {.message = message, .keep = keep, .byte = -1};

            assert_int_not_equal(exchange_run(&exchange, &meddler).result, SCRAM_OK);
        }
    }
}

static void no_truncated_message_succeeds(void **state)
{
    (void)state;
    truncate_messages(&plain);
    truncate_messages(&bound);
}

static void corrupt_messages(const struct scram_channel *channel)
{
    struct exchange exchange;
    struct outcome whole;

    exchange_init(&exchange, "pencil");
    exchange.client_channel = exchange.server_channel = channel;
    whole = exchange_run(&exchange, &nobody);
    for (enum message message = 0; message < MESSAGES; message++) {
        for (size_t position = 0; position < whole.bytes[message]; position++) {
            size_t survivors = 0;

            for (int byte = 0; byte < 256; byte++) {
                struct meddler meddler = {
                    .message = message, .keep = SIZE_MAX, .position = position, .byte = byte};

                survivors += exchange_run(&exchange, &meddler).result == SCRAM_OK;
            }
            assert_int_equal(survivors, 1); /* the byte that was there */
        }
    }
}

static void no_corrupted_message_succeeds(void **state)
{
    (void)state;
    corrupt_messages(&plain);
    corrupt_messages(&bound);
}

static void lengthen_messages(const struct scram_channel *channel)
{
    static const struct {
        const char *text;
        size_t bytes;
    } tails[] = {{"", 1},  {",", 1},    {"=", 1},    {" ", 1},
                 {"A", 1}, {",x=y", 4}, {"AAAA", 4}, {"\n", 1}};
    static char huge[SCRAM_MESSAGE_BYTES_MAX];
    struct exchange exchange;

    memset(huge, 'A', sizeof(huge));
    exchange_init(&exchange, "pencil");
    exchange.client_channel = exchange.server_channel = channel;
    for (enum message message = 0; message < MESSAGES; message++) {
        struct meddler meddler = {.message = message, .keep = SIZE_MAX, .byte = -1};

        for (size_t i = 0; i < COUNT_OF(tails); i++) {
            meddler.append = tails[i].text;
            meddler.append_bytes = tails[i].bytes;
            assert_int_not_equal(exchange_run(&exchange, &meddler).result, SCRAM_OK);
        }
        meddler.append = huge;
        meddler.append_bytes = sizeof(huge);
        assert_int_equal(exchange_run(&exchange, &meddler).result, SCRAM_TOO_LONG);
    }
}

static void no_lengthened_message_succeeds(void **state)
{
    (void)state;
    lengthen_messages(&plain);
    lengthen_messages(&bound);
}

/* ---- channel binding ---- */

#define NONCE_128                                                                                  \
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"                             \
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static struct outcome meet(const struct scram_channel *client_channel,
                           const struct scram_channel *server_channel, unsigned hidden_offers)
{
    struct exchange exchange;

    exchange_init(&exchange, "pencil");
    exchange.client_channel = client_channel;
    exchange.server_channel = server_channel;
    exchange.hidden_offers = hidden_offers;
    return exchange_run(&exchange, &nobody);
}

static void ends_of_one_channel_bind_to_it(void **state)
{
    (void)state;
    assert_int_equal(meet(&bound, &bound, 0).result, SCRAM_OK);
    /* Only the one end can: no binding, and no downgrade. */
    assert_int_equal(meet(&unbindable, &bound, 0).result, SCRAM_OK);
    assert_int_equal(meet(&plain, &bound, 0).result, SCRAM_OK);
    assert_int_equal(meet(&bound, &unbindable, 0).result, SCRAM_OK);
    assert_int_equal(meet(&bound, &plain, 0).result, SCRAM_OK);
    assert_int_equal(meet(&unbindable, &unbindable, 0).result, SCRAM_OK);
}

static void who_sits_between_two_channels_is_found_out(void **state)
{
    const struct scram_channel *const others[] = {&bound_elsewhere, &bound_shorter};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        assert_int_equal(meet(others[i], &bound, 0).result, SCRAM_WRONG_BINDING);
        assert_int_equal(meet(others[i], &bound, 0).failed_at, CLIENT_FINAL);
        assert_int_equal(meet(&bound, others[i], 0).result, SCRAM_WRONG_BINDING);
    }
    /* He takes PLUS out of the list. */
    assert_int_equal(meet(&bound_elsewhere, &bound, SCRAM_OFFER_PLUS).result, SCRAM_DOWNGRADED);
    assert_int_equal(meet(&bound, &bound, SCRAM_OFFER_PLUS).result, SCRAM_DOWNGRADED);
    /* Also where his own certificate is one that nothing can be bound to. */
    assert_int_equal(meet(&unbindable, &bound, SCRAM_OFFER_PLUS).result, SCRAM_DOWNGRADED);
}

/* He takes PLUS out of the list and turns the "y" into "n", so that the server sees no downgrade. */
static void downgrade_that_is_hidden_in_the_first_message_is_seen_in_the_last(void **state)
{
    struct meddler flag = {.message = CLIENT_FIRST, .keep = SIZE_MAX, .position = 0, .byte = 'n'};
    struct exchange exchange;
    struct outcome outcome;

    (void)state;
    exchange_init(&exchange, "pencil");
    exchange.client_channel = &bound_elsewhere;
    exchange.server_channel = &bound;
    exchange.hidden_offers = SCRAM_OFFER_PLUS;
    outcome = exchange_run(&exchange, &flag);
    assert_int_equal(outcome.result, SCRAM_BINDING_CHANGED);
}

/* And he turns c= into that of "n,,", too: but the proof is of "y,,". */
static void well_hidden_downgrade_breaks_the_proof(void **state)
{
    static const char first[] = "n,,n=,r=fyko+d2lbbFgONRv9qkxdawL";
    struct scram_server server = {0};
    struct scram_client client;
    struct exchange exchange;
    uint8_t client_key[SCRAM_KEY_BYTES];
    char memory[512], final[512];
    size_t final_bytes;
    struct writer out;

    (void)state;
    exchange_init(&exchange, "pencil");
    writer_init(&out, memory, sizeof(memory));
    assert_non_null(
        scram_client_start(&client, &bound_elsewhere, SCRAM_OFFER_PLAIN, client_nonce, &out));
    assert_written(&out, "y,,n=,r=fyko+d2lbbFgONRv9qkxdawL");
    assert_int_equal(scram_server_start(&server, &bound, SCRAM_OFFER_PLAIN, first,
                                        sizeof(first) - 1, server_nonce, &exchange.secret, &out),
                     SCRAM_OK);
    assert_int_equal(scram_client_challenge(&client, out.data, out.bytes), SCRAM_OK);
    writer_init(&out, final, sizeof(final));
    scram_client_prove(&client, exchange.client_key, exchange.server_key, &out);
    assert_memory_equal(final, "c=eSws,", 7);
    memcpy(final, "c=biws,", 7);
    final_bytes = out.bytes;
    writer_init(&out, memory, sizeof(memory));
    assert_int_equal(scram_server_finish(&server, final, final_bytes, client_key, &out),
                     SCRAM_WRONG_PROOF);
}

static void mechanism_of_the_client_is_the_best_that_both_can(void **state)
{
    static const struct {
        const struct scram_channel *channel;
        unsigned offers;
        const char *mechanism, *begin;
    } cases[] = {
        {&plain, SCRAM_OFFER_PLAIN, SCRAM_MECHANISM, "n,,n="},
        {&plain, BOTH_OFFERS, SCRAM_MECHANISM, "n,,n="}, /* somebody else's TLS is in between */
        {&plain, SCRAM_OFFER_PLUS, NULL, NULL},
        {&plain, 0, NULL, NULL},
        {&unbindable, SCRAM_OFFER_PLAIN, SCRAM_MECHANISM, "y,,n="},
        {&unbindable, BOTH_OFFERS, SCRAM_MECHANISM, "n,,n="}, /* the server is not deceived */
        {&unbindable, SCRAM_OFFER_PLUS, NULL, NULL},
        {&bound, SCRAM_OFFER_PLAIN, SCRAM_MECHANISM, "y,,n="},
        {&bound, BOTH_OFFERS, SCRAM_MECHANISM_PLUS, "p=tls-server-end-point,,n="},
        {&bound, SCRAM_OFFER_PLUS, SCRAM_MECHANISM_PLUS, "p=tls-server-end-point,,n="},
        {&bound, 0, NULL, NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct scram_client client;
        char memory[SCRAM_CLIENT_FIRST_ROOM];
        struct writer out;
        const char *mechanism;

        writer_init(&out, memory, sizeof(memory));
        mechanism =
            scram_client_start(&client, cases[i].channel, cases[i].offers, client_nonce, &out);
        if (cases[i].mechanism == NULL) {
            assert_null(mechanism);
            assert_int_equal(out.bytes, 0);
            continue;
        }
        assert_string_equal(mechanism, cases[i].mechanism);
        assert_memory_equal(out.data, cases[i].begin, strlen(cases[i].begin));
    }
}

static void plus_is_offered_where_there_is_something_to_bind_to(void **state)
{
    (void)state;
    assert_int_equal(scram_server_offers(&plain), SCRAM_OFFER_PLAIN);
    assert_int_equal(scram_server_offers(&unbindable), SCRAM_OFFER_PLAIN);
    assert_int_equal(scram_server_offers(&bound), BOTH_OFFERS);
}

static void client_first_on_tls_is_read_as_postgresql_does(void **state)
{
#define TYPE "p=tls-server-end-point"
    static const struct {
        const struct scram_channel *channel;
        unsigned mechanism;
        const char *message;
        enum scram_result result;
        const char *type; /* in the error */
    } cases[] = {
        {&bound, SCRAM_OFFER_PLUS, TYPE ",,n=,r=abc", SCRAM_OK, NULL},
        {&bound, SCRAM_OFFER_PLUS, TYPE ",,n=user,r=abc,x=extension", SCRAM_OK, NULL},
        {&bound, SCRAM_OFFER_PLUS, TYPE ",,n=,r=" NONCE_128, SCRAM_OK, NULL},
        {&bound, SCRAM_OFFER_PLUS, "n,,n=,r=abc", SCRAM_NOT_BOUND, NULL},
        {&bound, SCRAM_OFFER_PLUS, "y,,n=,r=abc", SCRAM_NOT_BOUND, NULL},
        {&bound, SCRAM_OFFER_PLUS, "z,,n=,r=abc", SCRAM_BAD, NULL},
        {&bound, SCRAM_OFFER_PLUS, "P=tls-server-end-point,,n=,r=abc", SCRAM_BAD, NULL},
        {&bound, SCRAM_OFFER_PLUS, "p=tls-unique,,n=,r=abc", SCRAM_BINDING_TYPE, "tls-unique"},
        {&bound, SCRAM_OFFER_PLUS, TYPE "x,,n=,r=abc", SCRAM_BINDING_TYPE, "tls-server-end-pointx"},
        {&bound, SCRAM_OFFER_PLUS, "p=tls-server-end-poin,,n=,r=abc", SCRAM_BINDING_TYPE,
         "tls-server-end-poin"},
        {&bound, SCRAM_OFFER_PLUS, "p=TLS-server-end-point,,n=,r=abc", SCRAM_BINDING_TYPE,
         "TLS-server-end-point"},
        {&bound, SCRAM_OFFER_PLUS, "p=,,n=,r=abc", SCRAM_BINDING_TYPE, ""},
        {&bound, SCRAM_OFFER_PLUS, "p=a\x1b[2J\xff b,,n=,r=abc", SCRAM_BINDING_TYPE, "a?[2J??b"},
        {&bound, SCRAM_OFFER_PLUS, "p=" NONCE_128 NONCE_128 ",,n=,r=abc", SCRAM_BINDING_TYPE,
         "0123456789abcdef0123456789abcd"},
        {&bound, SCRAM_OFFER_PLUS, TYPE ",a=root,n=,r=abc", SCRAM_AUTHZID, NULL},
        {&bound, SCRAM_OFFER_PLUS, TYPE ",,m=new,n=,r=abc", SCRAM_BAD_EXTENSION, NULL},
        {&bound, SCRAM_OFFER_PLUS,
         TYPE ",,n=" NONCE_128 NONCE_128 NONCE_128 NONCE_128 NONCE_128 ",r=abc", SCRAM_TOO_LONG,
         NULL},
        {&bound, SCRAM_OFFER_PLUS, TYPE ",b,n=,r=abc", SCRAM_BAD, NULL},
        {&bound, SCRAM_OFFER_PLUS, TYPE ",n=,r=abc", SCRAM_BAD, NULL},
        {&bound, SCRAM_OFFER_PLUS, TYPE ",,", SCRAM_BAD, NULL},
        {&bound, SCRAM_OFFER_PLUS, TYPE ",", SCRAM_BAD, NULL},
        {&bound, SCRAM_OFFER_PLUS, TYPE, SCRAM_BAD, NULL},
        {&bound, SCRAM_OFFER_PLUS, "p", SCRAM_BAD, NULL},
        {&bound, SCRAM_OFFER_PLUS, "p,", SCRAM_BAD, NULL},
        {&bound, SCRAM_OFFER_PLUS, "n", SCRAM_BAD, NULL},
        {&bound, SCRAM_OFFER_PLUS, "", SCRAM_BAD, NULL},
        {&bound, SCRAM_OFFER_PLAIN, "n,,n=,r=abc", SCRAM_OK, NULL},
        {&bound, SCRAM_OFFER_PLAIN, "y,,n=,r=abc", SCRAM_DOWNGRADED, NULL},
        {&bound, SCRAM_OFFER_PLAIN, TYPE ",,n=,r=abc", SCRAM_CHANNEL_BINDING, NULL},
        {&unbindable, SCRAM_OFFER_PLAIN, "n,,n=,r=abc", SCRAM_OK, NULL},
        {&unbindable, SCRAM_OFFER_PLAIN, "y,,n=,r=abc", SCRAM_OK, NULL},
        {&unbindable, SCRAM_OFFER_PLAIN, TYPE ",,n=,r=abc", SCRAM_CHANNEL_BINDING, NULL},
    };
    struct scram_secret secret;
    char data[SCRAM_SERVER_FIRST_ROOM];

    (void)state;
    assert_true(scram_secret_parse(&secret, pencil_secret));
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        size_t bytes = strlen(cases[i].message);
        struct scram_server server = {0};
        struct writer out;

        writer_init(&out, data, sizeof(data));
        assert_int_equal(scram_server_start(&server, cases[i].channel, cases[i].mechanism,
                                            guarded_copy(cases[i].message, bytes), bytes,
                                            server_nonce, &secret, &out),
                         cases[i].result);
        assert_int_equal(out.bytes > 0, cases[i].result == SCRAM_OK);
        if (cases[i].result == SCRAM_BINDING_TYPE)
            assert_string_equal(scram_server_binding_type(&server), cases[i].type);
    }
}

static void client_final_on_tls_is_compared_exactly(void **state)
{
#define BOUND_TEXT "cD10bHMtc2VydmVyLWVuZC1wb2ludCwsaGFzaCBvZiB0aGUgc2VydmVyJ3MgY2VydGlmaWNhdGU="
#define NONCES "abc3rfcNHYJY1ZVvWVs7jAAAAAA"
    static const struct {
        const char *message;
        enum scram_result result;
    } cases[] = {
        {"c=" BOUND_TEXT ",r=" NONCES ",p=" KEY, SCRAM_WRONG_PROOF},
        {"c=" BOUND_TEXT ",r=" NONCES ",x=extension,p=" KEY, SCRAM_WRONG_PROOF},
        {"c=biws,r=" NONCES ",p=" KEY, SCRAM_WRONG_BINDING},
        {"c=eSws,r=" NONCES ",p=" KEY, SCRAM_WRONG_BINDING},
        {"c=,r=" NONCES ",p=" KEY, SCRAM_WRONG_BINDING},
        /* The header alone, a byte less, a byte more, no padding, another hash. */
        {"c=cD10bHMtc2VydmVyLWVuZC1wb2ludCws,r=" NONCES ",p=" KEY, SCRAM_WRONG_BINDING},
        {"c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsaGFzaCBvZiB0aGUgc2VydmVyJ3MgY2VydGlmaWNhdA==,r=" NONCES
         ",p=" KEY,
         SCRAM_WRONG_BINDING},
        {"c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsaGFzaCBvZiB0aGUgc2VydmVyJ3MgY2VydGlmaWNhdGUA,r=" NONCES
         ",p=" KEY,
         SCRAM_WRONG_BINDING},
        {"c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsaGFzaCBvZiB0aGUgc2VydmVyJ3MgY2VydGlmaWNhdGU,r=" NONCES
         ",p=" KEY,
         SCRAM_WRONG_BINDING},
        {"c=" BOUND_TEXT "x,r=" NONCES ",p=" KEY, SCRAM_WRONG_BINDING},
        {"c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsSGFzaCBvZiB0aGUgc2VydmVyJ3MgY2VydGlmaWNhdGU=,r=" NONCES
         ",p=" KEY,
         SCRAM_WRONG_BINDING},
        {"c=" BOUND_TEXT ",r=abc,p=" KEY, SCRAM_BAD_NONCE},
        {"c=" BOUND_TEXT ",r=" NONCES, SCRAM_BAD},
        {"", SCRAM_BAD},
    };
    static const char first[] = TYPE ",,n=,r=abc";
    struct scram_secret secret;
    char data[SCRAM_SERVER_FIRST_ROOM];

    (void)state;
    assert_true(scram_secret_parse(&secret, pencil_secret));
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        size_t bytes = strlen(cases[i].message);
        uint8_t client_key[SCRAM_KEY_BYTES];
        struct scram_server server = {0};
        struct writer out;

        writer_init(&out, data, sizeof(data));
        assert_int_equal(scram_server_start(&server, &bound, SCRAM_OFFER_PLUS, first,
                                            sizeof(first) - 1, server_nonce, &secret, &out),
                         SCRAM_OK);
        out.bytes = 0;
        assert_int_equal(scram_server_finish(&server, guarded_copy(cases[i].message, bytes), bytes,
                                             client_key, &out),
                         cases[i].result);
        assert_int_equal(out.bytes, 0);
    }
}

/* Nobody can tell from it who is a stranger. */
static void mock_runs_to_its_end_on_tls(void **state)
{
    struct exchange exchange;
    struct outcome outcome;

    (void)state;
    exchange_init(&exchange, "pencil");
    exchange.client_channel = exchange.server_channel = &bound;
    scram_secret_mock(&exchange.secret, process_key, "nobody", 6, 4096);
    outcome = exchange_run(&exchange, &nobody);
    assert_int_equal(outcome.failed_at, CLIENT_FINAL);
    assert_int_equal(outcome.result, SCRAM_WRONG_PROOF);
}

static void longest_messages_fit_their_rooms(void **state)
{
    static const char long_nonce[] = "0123456789abcdef0123456789abcdef";
    static const char challenge[] =
        "r=0123456789abcdef0123456789abcdef" NONCE_128 ",s=" SALT_64 ",i=10000000";
    struct scram_channel channel = {.is_tls = true, .binding_bytes = SCRAM_BINDING_BYTES_MAX};
    static const uint8_t key[SCRAM_KEY_BYTES] = {7};
    char first[SCRAM_CLIENT_FIRST_ROOM], final[SCRAM_CLIENT_FINAL_ROOM];
    struct scram_client client;
    struct writer out;

    (void)state;
    writer_init(&out, first, sizeof(first));
    assert_non_null(scram_client_start(&client, &channel, BOTH_OFFERS, long_nonce, &out));
    assert_false(out.overflow);
    assert_int_equal(scram_client_challenge(&client, challenge, sizeof(challenge) - 1), SCRAM_OK);
    writer_init(&out, final, sizeof(final));
    scram_client_prove(&client, key, key, &out);
    assert_false(out.overflow);
    assert_int_equal(out.bytes, 2 + 120 + 3 + 32 + 128 + 3 + 44);
}

/* ---- what each fault is called ---- */

static void client_first_is_read_as_postgresql_does(void **state)
{
    static const struct {
        const char *message;
        enum scram_result result;
    } cases[] = {
        {"n,,n=,r=abc", SCRAM_OK},
        {"y,,n=,r=abc", SCRAM_OK},
        {"n,,n=user=2Cname,r=abc", SCRAM_OK},
        {"n,,n=*,r=abc,x=extension,y=", SCRAM_OK},
        {"n,,n=,r=" NONCE_128, SCRAM_OK},
        {"n,,n=,r=" NONCE_128 "0", SCRAM_TOO_LONG},
        {"n,,n=" NONCE_128 NONCE_128 NONCE_128 NONCE_128 NONCE_128 ",r=abc", SCRAM_TOO_LONG},
        {"p=tls-server-end-point,,n=,r=abc", SCRAM_CHANNEL_BINDING},
        {"p", SCRAM_CHANNEL_BINDING},
        {"n,a=root,n=,r=abc", SCRAM_AUTHZID},
        {"n,,m=new,n=,r=abc", SCRAM_BAD_EXTENSION},
        {"n,,n=,r=", SCRAM_BAD},
        {"n,,n=,r=a b", SCRAM_BAD},
        {"n,,n=,r=a\x7f", SCRAM_BAD},
        {"n,,n=,r=a\xc3\xa9", SCRAM_BAD},
        {"n,,r=abc", SCRAM_BAD},
        {"n,,r=abc,n=", SCRAM_BAD},
        {"n,,n=,r=abc,", SCRAM_BAD},
        {"n,,n=,r=abc,x", SCRAM_BAD},
        {"n,,n=,r=abc,1=x", SCRAM_BAD},
        {"n,,n=,r=abc,,x=y", SCRAM_BAD},
        {"n,b,n=,r=abc", SCRAM_BAD},
        {"z,,n=,r=abc", SCRAM_BAD},
        {"N,,n=,r=abc", SCRAM_BAD},
        {"n", SCRAM_BAD},
        {"n,", SCRAM_BAD},
        {"n,,", SCRAM_BAD},
        {"n,,n", SCRAM_BAD},
        {"n,,n=", SCRAM_BAD},
        {"", SCRAM_BAD},
    };
    struct scram_secret secret;
    char data[SCRAM_SERVER_FIRST_ROOM];

    (void)state;
    assert_true(scram_secret_parse(&secret, pencil_secret));
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        size_t bytes = strlen(cases[i].message);
        struct scram_server server = {0};
        struct writer out;

        writer_init(&out, data, sizeof(data));
        assert_int_equal(scram_server_start(&server, &plain, SCRAM_OFFER_PLAIN,
                                            guarded_copy(cases[i].message, bytes), bytes,
                                            server_nonce, &secret, &out),
                         cases[i].result);
        assert_int_equal(out.bytes > 0, cases[i].result == SCRAM_OK);
    }
}

static void longest_server_first_fits(void **state)
{
    static const char first[] = "n,,n=,r=" NONCE_128;
    static const char own[] = "0123456789abcdef0123456789abcdef";
    struct scram_server server = {0};
    struct scram_secret secret;
    char data[SCRAM_SERVER_FIRST_ROOM];
    struct writer out;

    (void)state;
    writer_init(&out, data, sizeof(data));
    assert_true(scram_secret_parse(&secret, "SCRAM-SHA-256$2147483647:" SALT_64 "$" KEY ":" KEY));
    assert_int_equal(scram_server_start(&server, &plain, SCRAM_OFFER_PLAIN, first,
                                        sizeof(first) - 1, own, &secret, &out),
                     SCRAM_OK);
    assert_written(&out, "r=" NONCE_128 "0123456789abcdef0123456789abcdef"
                         ",s=" SALT_64 ",i=2147483647");
}

static void client_final_faults_are_told_apart(void **state)
{
#define BOTH "abc3rfcNHYJY1ZVvWVs7jAAAAAA"
    static const struct {
        const char *message;
        enum scram_result result;
    } cases[] = {
        {"c=biws,r=" BOTH ",p=" KEY, SCRAM_WRONG_PROOF},
        {"c=biws,r=" BOTH ",x=extension,p=" KEY, SCRAM_WRONG_PROOF},
        {"c=eSws,r=" BOTH ",p=" KEY, SCRAM_BINDING_CHANGED},
        {"c=,r=" BOTH ",p=" KEY, SCRAM_BINDING_CHANGED},
        {"c=cD10bHMtc2VydmVyLWVuZC1wb2ludCws,r=" BOTH ",p=" KEY, SCRAM_BINDING_CHANGED},
        {"c=biws,r=abc,p=" KEY, SCRAM_BAD_NONCE},
        {"c=biws,r=" BOTH "A,p=" KEY, SCRAM_BAD_NONCE},
        {"c=biws,r=,p=" KEY, SCRAM_BAD_NONCE},
        {"c=biws,r=" BOTH, SCRAM_BAD},
        {"c=biws,r=" BOTH ",", SCRAM_BAD},
        {"c=biws,r=" BOTH ",p=", SCRAM_BAD},
        {"c=biws,r=" BOTH ",p=c2FsdA==", SCRAM_BAD},
        {"c=biws,r=" BOTH ",p=" KEY "AAAA", SCRAM_BAD},
        {"c=biws,r=" BOTH ",p=" KEY ",x=y", SCRAM_BAD},
        {"c=biws,r=" BOTH ",p=" KEY ",p=" KEY, SCRAM_BAD},
        {"r=" BOTH ",c=biws,p=" KEY, SCRAM_BAD},
        {"c=biws,p=" KEY, SCRAM_BAD},
        {"p=" KEY, SCRAM_BAD},
        {"", SCRAM_BAD},
    };
    struct scram_secret secret;
    char data[SCRAM_SERVER_FIRST_ROOM];

    (void)state;
    assert_true(scram_secret_parse(&secret, pencil_secret));
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        size_t bytes = strlen(cases[i].message);
        uint8_t client_key[SCRAM_KEY_BYTES];
        struct scram_server server = {0};
        struct writer out;

        writer_init(&out, data, sizeof(data));
        assert_int_equal(scram_server_start(&server, &plain, SCRAM_OFFER_PLAIN, "n,,n=,r=abc", 11,
                                            server_nonce, &secret, &out),
                         SCRAM_OK);
        out.bytes = 0;
        assert_int_equal(scram_server_finish(&server, guarded_copy(cases[i].message, bytes), bytes,
                                             client_key, &out),
                         cases[i].result);
        assert_int_equal(out.bytes, 0);
    }
}

static void start_client(struct scram_client *client, struct writer *out)
{
    assert_string_equal(scram_client_start(client, &plain, SCRAM_OFFER_PLAIN, client_nonce, out),
                        SCRAM_MECHANISM);
}

static void challenge_faults_are_told_apart(void **state)
{
#define OWN "fyko+d2lbbFgONRv9qkxdawL"
    static const struct {
        const char *message;
        enum scram_result result;
    } cases[] = {
        {"r=" OWN "x,s=c2FsdA==,i=4096", SCRAM_OK},
        {"r=" OWN "x,s=c2FsdA==,i=1", SCRAM_OK},
        {"r=" OWN "x,s=c2FsdA==,i=10000000", SCRAM_OK},
        {"r=" OWN "x,s=c2FsdA==,i=4096,x=extension", SCRAM_OK},
        {"r=" OWN NONCE_128 ",s=" SALT_64 ",i=4096", SCRAM_OK},
        {"r=" OWN NONCE_128 "x,s=c2FsdA==,i=4096", SCRAM_TOO_LONG},
        {"r=" OWN "x,s=AAAA" SALT_64 ",i=4096", SCRAM_TOO_LONG},
        {"r=" OWN "x,s=" SALT_64 ",i=4096,x=" NONCE_128 NONCE_128, SCRAM_TOO_LONG},
        {"r=" OWN ",s=c2FsdA==,i=4096", SCRAM_BAD_NONCE},
        {"r=fyko,s=c2FsdA==,i=4096", SCRAM_BAD_NONCE},
        {"r=Fyko+d2lbbFgONRv9qkxdawLx,s=c2FsdA==,i=4096", SCRAM_BAD_NONCE},
        {"r=" OWN "x,s=,i=4096", SCRAM_BAD_SALT},
        {"r=" OWN "x,s=c2FsdA=,i=4096", SCRAM_BAD_SALT},
        {"r=" OWN "x,s=c2F*dA==,i=4096", SCRAM_BAD_SALT},
        {"r=" OWN "x,s=c2FsdA==,i=", SCRAM_BAD_ITERATIONS},
        {"r=" OWN "x,s=c2FsdA==,i=0", SCRAM_BAD_ITERATIONS},
        {"r=" OWN "x,s=c2FsdA==,i=-1", SCRAM_BAD_ITERATIONS},
        {"r=" OWN "x,s=c2FsdA==,i=4096x", SCRAM_BAD_ITERATIONS},
        {"r=" OWN "x,s=c2FsdA==,i= 4096", SCRAM_BAD_ITERATIONS},
        {"r=" OWN "x,s=c2FsdA==,i=10000001", SCRAM_BAD_ITERATIONS},
        {"r=" OWN "x,s=c2FsdA==,i=4294967297", SCRAM_BAD_ITERATIONS},
        {"r=" OWN "x,s=c2FsdA==,i=18446744073709551617", SCRAM_BAD_ITERATIONS},
        {"m=new,r=" OWN "x,s=c2FsdA==,i=4096", SCRAM_BAD_EXTENSION},
        {"r=" OWN "\xc3\xa9,s=c2FsdA==,i=4096", SCRAM_BAD},
        {"r=" OWN "x,i=4096,s=c2FsdA==", SCRAM_BAD},
        {"r=" OWN "x,s=c2FsdA==", SCRAM_BAD},
        {"r=" OWN "x,s=c2FsdA==,i=4096,", SCRAM_BAD},
        {"s=c2FsdA==,i=4096", SCRAM_BAD},
        {"e=other-error", SCRAM_BAD},
        {"", SCRAM_BAD},
    };
    char data[SCRAM_CLIENT_FIRST_ROOM];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        size_t bytes = strlen(cases[i].message);
        struct scram_client client;
        struct writer out;

        writer_init(&out, data, sizeof(data));
        start_client(&client, &out);
        assert_int_equal(
            scram_client_challenge(&client, guarded_copy(cases[i].message, bytes), bytes),
            cases[i].result);
    }
}

static void verdict_faults_are_told_apart(void **state)
{
    static const struct {
        const char *message;
        enum scram_result result;
    } cases[] = {
        {"e=invalid-proof", SCRAM_SERVER_ERROR},
        {"e=", SCRAM_SERVER_ERROR},
        {"e=line\nbreak", SCRAM_BAD},
        {"e=\x1b[2J", SCRAM_BAD},
        {"e=\xff", SCRAM_BAD},
        {"v=" KEY, SCRAM_WRONG_SIGNATURE},
        {"v=", SCRAM_BAD_SIGNATURE},
        {"v=c2FsdA==", SCRAM_BAD_SIGNATURE},
        {"v=" KEY "AAAA", SCRAM_BAD_SIGNATURE},
        {"v=*" KEY, SCRAM_BAD_SIGNATURE},
        {"v=" KEY ",x=y", SCRAM_BAD},
        {"x=" KEY, SCRAM_BAD},
        {"v", SCRAM_BAD},
        {"", SCRAM_BAD},
    };
    static const char challenge[] = "r=" OWN "x,s=c2FsdA==,i=4096";
    static const uint8_t key[SCRAM_KEY_BYTES] = {7};
    char data[SCRAM_CLIENT_FINAL_ROOM];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        size_t bytes = strlen(cases[i].message);
        struct scram_client client;
        struct writer out;

        writer_init(&out, data, sizeof(data));
        start_client(&client, &out);
        assert_int_equal(scram_client_challenge(&client, challenge, sizeof(challenge) - 1),
                         SCRAM_OK);
        assert_int_equal(client.iterations, 4096);
        assert_int_equal(client.salt_bytes, 4);
        assert_memory_equal(client.salt, "salt", 4);
        out.bytes = 0;
        scram_client_prove(&client, key, key, &out);
        assert_int_equal(scram_client_finish(&client, guarded_copy(cases[i].message, bytes), bytes),
                         cases[i].result);
    }
}

static void keys_of_another_salt_do_not_match(void **state)
{
    struct scram_secret secret;
    struct scram_client client;
    struct writer out;
    char data[SCRAM_CLIENT_FIRST_ROOM];
    static const char challenge[] = "r=" OWN "x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    (void)state;
    writer_init(&out, data, sizeof(data));
    assert_true(scram_secret_parse(&secret, pencil_secret));
    start_client(&client, &out);
    assert_int_equal(scram_client_challenge(&client, challenge, sizeof(challenge) - 1), SCRAM_OK);
    assert_true(scram_client_matches(&client, &secret));
    secret.iterations++;
    assert_false(scram_client_matches(&client, &secret));
    secret.iterations--;
    secret.salt[15] ^= 1;
    assert_false(scram_client_matches(&client, &secret));
    secret.salt[15] ^= 1;
    secret.salt_bytes--;
    assert_false(scram_client_matches(&client, &secret));
}

static void nonces_are_printable_and_results_have_texts(void **state)
{
    static const uint8_t random[SCRAM_NONCE_BYTES] = {0xff, 0xfe, 0xfd};
    char text[SCRAM_NONCE_TEXT_BYTES_MAX];

    (void)state;
    scram_nonce_text(random, text);
    assert_string_equal(text, "//79AAAAAAAAAAAAAAAAAAAA");
    for (int result = SCRAM_OK; result <= SCRAM_WRONG_SIGNATURE; result++)
        assert_string_not_equal(scram_result_text((enum scram_result)result),
                                "unknown SCRAM result");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_those_of_pbkdf2_and_hmac),
        cmocka_unit_test(secrets_are_those_of_postgresql),
        cmocka_unit_test(malformed_secrets_are_plain_text),
        cmocka_unit_test(mock_secret_is_the_same_for_the_same_name),
        cmocka_unit_test(golden_exchanges_come_out_byte_for_byte),
        cmocka_unit_test(right_password_succeeds_and_yields_client_key),
        cmocka_unit_test(wrong_password_fails_at_the_proof),
        cmocka_unit_test(mock_fails_even_with_the_right_keys),
        cmocka_unit_test(server_without_our_secret_is_found_out),
        cmocka_unit_test(no_truncated_message_succeeds),
        cmocka_unit_test(no_corrupted_message_succeeds),
        cmocka_unit_test(no_lengthened_message_succeeds),
        cmocka_unit_test(ends_of_one_channel_bind_to_it),
        cmocka_unit_test(who_sits_between_two_channels_is_found_out),
        cmocka_unit_test(downgrade_that_is_hidden_in_the_first_message_is_seen_in_the_last),
        cmocka_unit_test(well_hidden_downgrade_breaks_the_proof),
        cmocka_unit_test(mechanism_of_the_client_is_the_best_that_both_can),
        cmocka_unit_test(plus_is_offered_where_there_is_something_to_bind_to),
        cmocka_unit_test(client_first_on_tls_is_read_as_postgresql_does),
        cmocka_unit_test(client_final_on_tls_is_compared_exactly),
        cmocka_unit_test(mock_runs_to_its_end_on_tls),
        cmocka_unit_test(longest_messages_fit_their_rooms),
        cmocka_unit_test(client_first_is_read_as_postgresql_does),
        cmocka_unit_test(longest_server_first_fits),
        cmocka_unit_test(client_final_faults_are_told_apart),
        cmocka_unit_test(challenge_faults_are_told_apart),
        cmocka_unit_test(verdict_faults_are_told_apart),
        cmocka_unit_test(keys_of_another_salt_do_not_match),
        cmocka_unit_test(nonces_are_printable_and_results_have_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
