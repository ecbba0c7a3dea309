#include "pool/params.h"

#include "base/bytes.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { QUOTED_BYTES_MAX = 127 };

/* At the beginning of a set's buffer. */
struct param_set {
    struct buffer *next; /* in its bucket */
    uint64_t parse_hash;
    uint32_t hash;
    uint32_t bytes;     /* of the offsets and the text */
    uint16_t offsets[]; /* from here on; 0: not known */
};

static struct param_set *set_of(const struct buffer *buffer)
{
    return (struct param_set *)(void *)buffer->data;
}

static bool is_separator(char byte)
{
    return byte == ',' || byte == ' ' || byte == '\t';
}

void param_names_init(struct param_names *names, const char *extra, char *storage,
                      size_t storage_bytes)
{
    static const char *const built_in[] = {"DateStyle", "client_encoding", "TimeZone",
                                           "standard_conforming_strings", "application_name"};
    size_t used = 0;

    names->count = 0;
    for (size_t i = 0; i < COUNT_OF(built_in); i++)
        names->names[names->count++] = built_in[i];
    while (extra != NULL && *extra != '\0') {
        size_t bytes = 0;

        while (is_separator(*extra))
            extra++;
        while (extra[bytes] != '\0' && !is_separator(extra[bytes]))
            bytes++;
        if (bytes == 0 || used + bytes + 1 > storage_bytes || names->count == PARAMS_COUNT_MAX)
            break;
        memcpy(storage + used, extra, bytes);
        storage[used + bytes] = '\0';
        if (param_names_find(names, storage + used) < 0) {
            names->names[names->count++] = storage + used;
            used += bytes + 1;
        }
        extra += bytes;
    }
}

int param_names_find(const struct param_names *names, const char *name)
{
    for (unsigned i = 0; i < names->count; i++)
        if (strcasecmp(names->names[i], name) == 0)
            return (int)i;
    return -1;
}

void param_table_init(struct param_table *table, const struct param_names *names,
                      struct buffer_pool *buffers)
{
    *table = (struct param_table){.names = names, .buffers = buffers};
}

const char *params_value(const struct buffer *set, unsigned index)
{
    const struct param_set *params;

    if (set == NULL)
        return NULL;
    params = set_of(set);
    if (params->offsets[index] == 0)
        return NULL;
    return (const char *)params->offsets + params->offsets[index];
}

uint64_t params_parse_hash(const struct buffer *set)
{
    return set != NULL ? set_of(set)->parse_hash : 0;
}

static uint64_t parse_hash(const struct param_table *table, const char *const *values)
{
    struct siphash siphash;

    siphash_begin(&siphash, &table->key);
    for (unsigned i = 0; i < table->names->count; i++) {
        const char *value = values[i] != NULL ? values[i] : "\1";

        if (i != PARAM_APPLICATION_NAME)
            siphash_add(&siphash, value, strlen(value) + 1);
    }
    return siphash_end(&siphash).words[0];
}

void params_values(const struct param_table *table, const struct buffer *set, const char **values)
{
    for (unsigned i = 0; i < table->names->count; i++)
        values[i] = params_value(set, i);
}

struct buffer *params_intern(struct param_table *table, const char *const *values)
{
    unsigned count = table->names->count;
    uint32_t bytes = (uint32_t)(count * sizeof(uint16_t));
    uint32_t hash = 2166136261u; /* FNV-1a */
    struct buffer *buffer;
    struct param_set *set;
    uint32_t position;

    for (unsigned i = 0; i < count; i++) {
        const char *value = values[i] != NULL ? values[i] : "\1";

        for (const char *byte = value; *byte != '\0'; byte++)
            hash = (hash ^ (uint8_t)*byte) * 16777619u;
        hash = (hash ^ 0u) * 16777619u;
        if (values[i] != NULL)
            bytes += (uint32_t)strlen(values[i]) + 1;
        if (bytes > UINT16_MAX / 2)
            return NULL;
    }
    for (buffer = table->buckets[hash % PARAMS_BUCKETS]; buffer != NULL; buffer = set->next) {
        bool same;

        set = set_of(buffer);
        same = set->hash == hash && set->bytes == bytes;
        for (unsigned i = 0; same && i < count; i++) {
            const char *value = params_value(buffer, i);

            same = value == NULL || values[i] == NULL ? value == values[i]
                                                      : strcmp(value, values[i]) == 0;
        }
        if (same)
            return buffer_reference(buffer);
    }
    buffer = buffer_park(table->buffers, sizeof(*set) + bytes);
    if (buffer == NULL)
        return NULL;
    set = set_of(buffer);
    *set = (struct param_set){
        .next = table->buckets[hash % PARAMS_BUCKETS], .hash = hash, .bytes = bytes};
    set->parse_hash = parse_hash(table, values);
    position = (uint32_t)(count * sizeof(uint16_t));
    for (unsigned i = 0; i < count; i++) {
        uint32_t value_bytes;

        set->offsets[i] = 0;
        if (values[i] == NULL)
            continue;
        value_bytes = (uint32_t)strlen(values[i]) + 1;
        set->offsets[i] = (uint16_t)position;
        memcpy((char *)set->offsets + position, values[i], value_bytes);
        position += value_bytes;
    }
    assert(position == bytes);
    table->buckets[hash % PARAMS_BUCKETS] = buffer;
    return buffer;
}

struct buffer *params_with(struct param_table *table, struct buffer *base, unsigned index,
                           const char *value)
{
    const char *values[PARAMS_COUNT_MAX];

    params_values(table, base, values);
    values[index] = value;
    return params_intern(table, values);
}

void params_release(struct param_table *table, struct buffer *set)
{
    if (set == NULL)
        return;
    if (set->reference_count == 1) {
        struct buffer **link = &table->buckets[set_of(set)->hash % PARAMS_BUCKETS];

        while (*link != set)
            link = &set_of(*link)->next;
        *link = set_of(set)->next;
    }
    buffer_release(table->buffers, set);
}

enum { NO_VALUE = 0xffff };

size_t params_pack(const struct param_table *table, const char *const *values, void *out,
                   size_t out_bytes)
{
    struct writer writer;

    writer_init(&writer, out, out_bytes);
    for (unsigned i = 0; i < table->names->count; i++) {
        writer_put_u16(&writer, values[i] != NULL ? (uint16_t)strlen(values[i]) : NO_VALUE);
        if (values[i] != NULL)
            writer_put_string(&writer, values[i]);
    }
    return writer.overflow ? 0 : writer.bytes;
}

void params_unpack(const struct param_table *table, const void *packed, size_t bytes,
                   const char **values)
{
    struct reader reader;

    reader_init(&reader, packed, bytes);
    for (unsigned i = 0; i < table->names->count; i++) {
        values[i] = NULL;
        if (reader_left(&reader) > 0 && reader_get_u16(&reader) != NO_VALUE)
            values[i] = reader_get_string(&reader);
    }
}

/* A literal that means the same whatever standard_conforming_strings is. False: too long. */
static bool quote(const char *value, char quoted[QUOTED_BYTES_MAX + 1])
{
    size_t bytes = 0;

    if (strchr(value, '\\') != NULL)
        quoted[bytes++] = 'E';
    quoted[bytes++] = '\'';
    for (; *value != '\0'; value++) {
        if (bytes + 3 > QUOTED_BYTES_MAX)
            return false;
        if (*value == '\'' || *value == '\\')
            quoted[bytes++] = *value;
        quoted[bytes++] = *value;
    }
    quoted[bytes++] = '\'';
    quoted[bytes] = '\0';
    return true;
}

bool params_write_set(const struct param_table *table, const struct buffer *wanted,
                      const struct buffer *actual, char *query, size_t query_bytes)
{
    size_t used = 0;

    query[0] = '\0';
    for (unsigned i = 0; i < table->names->count; i++) {
        const char *want = params_value(wanted, i);
        const char *have = params_value(actual, i);
        char quoted[QUOTED_BYTES_MAX + 1];
        int bytes;

        if (want == NULL || have == NULL || strcasecmp(want, have) == 0)
            continue;
        /* search_path is a list of quoted names already. */
        if (strcasecmp(table->names->names[i], "search_path") == 0 && want[0] != '\0') {
            if (strlen(want) > QUOTED_BYTES_MAX || strchr(want, ';') != NULL)
                continue;
            strcpy(quoted, want);
        } else if (!quote(want, quoted)) {
            continue;
        }
        bytes = snprintf(query + used, query_bytes - used, "SET %s=%s;", table->names->names[i],
                         quoted);
        if (bytes < 0 || (size_t)bytes >= query_bytes - used) {
            query[used] = '\0';
            break;
        }
        used += (size_t)bytes;
    }
    return used > 0;
}
