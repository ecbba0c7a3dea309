/* startup.h - what a client may send before it has logged in: the packets without a type byte
 * (protocol: "Start-up", StartupMessage, SSLRequest, GSSENCRequest, CancelRequest).
 *
 * Pure: any thread; strings point into the caller's bytes. */
#ifndef WIRE_STARTUP_H
#define WIRE_STARTUP_H

#include "base/bytes.h"

/* The length word must fit 16 bits, as PgBouncer has it. */
enum { STARTUP_BYTES_MAX = 65535 };

enum { STARTUP_SSL_REQUEST_CODE = 80877103 };

enum startup_kind {
    STARTUP_NEED_MORE,
    STARTUP_SSL_REQUEST,
    STARTUP_GSSENC_REQUEST,
    STARTUP_CANCEL_REQUEST, /* body: 8 bytes of key */
    STARTUP_VERSION_3,      /* `minor` tells; body: name and value pairs */
    STARTUP_VERSION_2,
    STARTUP_TYPED_MESSAGE, /* the first byte is not 0: a typed message, or something foreign */
    STARTUP_BAD,           /* bad packet header */
};

struct startup_packet {
    uint32_t packet_bytes; /* all of it, once the kind is known */
    uint16_t minor;
    const uint8_t *body;
    size_t body_bytes;
};

/* Looks at the first `bytes` of `data`. For every kind but NEED_MORE, TYPED_MESSAGE and BAD the
 * packet is there as a whole. */
enum startup_kind startup_read(const uint8_t *data, size_t bytes, struct startup_packet *packet);

/* Calls `each` for each parameter in order. False: the layout is broken (no final zero, or bytes
 * after it), or `each` returned false. */
must_check bool startup_parameters(const struct startup_packet *packet,
                                   bool (*each)(void *context, const char *name, const char *value),
                                   void *context, bool *layout_is_bad);

/* What the startup parameter `replication` asks for. */
enum startup_replication { REPLICATION_NONE, REPLICATION_LOGICAL, REPLICATION_PHYSICAL };

/* `database`: logical. PostgreSQL's words for true, each of which may be cut off as long as it is not one for false too
 * (src/backend/utils/adt/bool.c): physical. Everything else: none, as in PgBouncer. */
enum startup_replication startup_replication(const char *value);
/* What a server must be sent for it, and what the log shows: no, database, yes. */
const char *startup_replication_value(enum startup_replication replication);

/* Splits the value of the startup parameter `options` (PostgreSQL: process_postgres_switches): `-c
 * k=v`,
 * `-ck=v`, `--k=v`, separated by white space, a backslash takes the next byte as it is; `-` in a
 * long name stands for `_`. `scratch` holds the names and values while `each` looks at them. False:
 * something else stood there, or `each` returned false. */
must_check bool startup_options(const char *options, char *scratch, size_t scratch_bytes,
                                bool (*each)(void *context, const char *name, const char *value),
                                void *context, bool *form_is_bad);

#endif
