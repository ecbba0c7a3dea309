#include "wire/startup.h"

#include <strings.h>

enum {
    CODE_CANCEL = 80877102,
    CODE_SSL = STARTUP_SSL_REQUEST_CODE,
    CODE_GSSENC = 80877104,
};

enum startup_kind startup_read(const uint8_t *data, size_t bytes, struct startup_packet *packet)
{
    uint32_t length;
    uint32_t code;

    *packet = (struct startup_packet){0};
    if (bytes == 0)
        return STARTUP_NEED_MORE;
    if (data[0] != 0)
        return STARTUP_TYPED_MESSAGE;
    if (bytes < 4)
        return bytes >= 2 && data[1] != 0 ? STARTUP_BAD : STARTUP_NEED_MORE;
    length = bytes_get_u32(data);
    if (length < 8 || length > STARTUP_BYTES_MAX)
        return STARTUP_BAD;
    if (bytes < 8)
        return STARTUP_NEED_MORE;
    code = bytes_get_u32(data + 4);
    switch (code) {
    case CODE_SSL:
    case CODE_GSSENC:
        if (length != 8)
            return STARTUP_BAD;
        break;
    case CODE_CANCEL:
        if (length != 16)
            return STARTUP_BAD;
        break;
    default:
        if (code >> 16 != 3 && code >> 16 != 2)
            return STARTUP_BAD;
    }
    if (bytes < length)
        return STARTUP_NEED_MORE;
    packet->packet_bytes = length;
    packet->minor = (uint16_t)code;
    packet->body = data + 8;
    packet->body_bytes = length - 8;
    switch (code) {
    case CODE_SSL:
        return STARTUP_SSL_REQUEST;
    case CODE_GSSENC:
        return STARTUP_GSSENC_REQUEST;
    case CODE_CANCEL:
        return STARTUP_CANCEL_REQUEST;
    default:
        return code >> 16 == 3 ? STARTUP_VERSION_3 : STARTUP_VERSION_2;
    }
}

bool startup_parameters(const struct startup_packet *packet,
                        bool (*each)(void *context, const char *name, const char *value),
                        void *context, bool *layout_is_bad)
{
    struct reader reader;

    *layout_is_bad = true;
    reader_init(&reader, packet->body, packet->body_bytes);
    if (packet->body_bytes == 0 || packet->body[packet->body_bytes - 1] != 0)
        return false;
    for (;;) {
        const char *name = reader_get_string(&reader);
        const char *value;

        if (name == NULL)
            return false;
        if (name[0] == '\0') {
            *layout_is_bad = reader_left(&reader) != 0;
            return !*layout_is_bad;
        }
        value = reader_get_string(&reader);
        if (value == NULL)
            return false;
        if (!each(context, name, value)) {
            *layout_is_bad = false;
            return false;
        }
    }
}

enum startup_replication startup_replication(const char *value)
{
    size_t bytes = strlen(value);

    if (strcmp(value, "database") == 0)
        return REPLICATION_LOGICAL;
    if (bytes > 0 &&
        (strcmp(value, "1") == 0 || strcasecmp(value, "on") == 0 ||
         strncasecmp(value, "true", bytes) == 0 || strncasecmp(value, "yes", bytes) == 0))
        return REPLICATION_PHYSICAL;
    return REPLICATION_NONE;
}

const char *startup_replication_value(enum startup_replication replication)
{
    static const char *const values[] = {
        [REPLICATION_NONE] = "no",
        [REPLICATION_LOGICAL] = "database",
        [REPLICATION_PHYSICAL] = "yes",
    };

    return values[replication];
}

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r' || byte == '\v' ||
           byte == '\f';
}

/* Copies one word, taking backslashes out. NULL: none is left, or no room (*form_is_bad). */
static const char *next_word(const char **position, char *word, size_t word_bytes,
                             bool *form_is_bad)
{
    const char *from = *position;
    size_t count = 0;

    while (is_blank(*from))
        from++;
    if (*from == '\0')
        return NULL;
    while (*from != '\0' && !is_blank(*from)) {
        if (*from == '\\' && from[1] != '\0')
            from++;
        if (count + 1 >= word_bytes) {
            *form_is_bad = true;
            return NULL;
        }
        word[count++] = *from++;
    }
    word[count] = '\0';
    *position = from;
    return word;
}

bool startup_options(const char *options, char *scratch, size_t scratch_bytes,
                     bool (*each)(void *context, const char *name, const char *value),
                     void *context, bool *form_is_bad)
{
    *form_is_bad = false;
    for (;;) {
        const char *word = next_word(&options, scratch, scratch_bytes, form_is_bad);
        char *name;
        char *equals;

        if (word == NULL)
            return !*form_is_bad;
        if (scratch[0] != '-' || (scratch[1] != 'c' && scratch[1] != '-'))
            goto bad;
        name = scratch + 2;
        if (scratch[1] == 'c' && name[0] == '\0') {
            if (next_word(&options, scratch, scratch_bytes, form_is_bad) == NULL)
                goto bad;
            name = scratch;
        }
        equals = strchr(name, '=');
        if (equals == NULL || equals == name)
            goto bad;
        *equals = '\0';
        for (char *byte = name; *byte != '\0'; byte++)
            if (*byte == '-')
                *byte = '_';
        if (!each(context, name, equals + 1))
            return false;
    }
bad:
    *form_is_bad = true;
    return false;
}
