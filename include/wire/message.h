/* message.h - makes the messages that the pooler itself sends (protocol: "Message Formats").
 *
 * Each function writes one whole message behind what the writer holds; a message that does not fit
 * sets the writer's overflow. Pure. */
#ifndef WIRE_MESSAGE_H
#define WIRE_MESSAGE_H

#include "base/bytes.h"

enum severity { SEVERITY_FATAL, SEVERITY_ERROR, SEVERITY_NOTICE };

/* An error as PostgreSQL words it. The strings belong to whoever made it; NULL: field left out. */
struct pg_error {
    enum severity severity;
    const char *sqlstate; /* NULL: 08P01, protocol_violation, as PgBouncer says of its own errors */
    const char *message;
    const char *detail;
    const char *hint;
    const char *
        routine; /* of an error that stands for PostgreSQL's own: field R, and then V; drivers look at it */
};

/* Begins a message of `type` (0: a startup packet, no type byte); returns where it began. */
size_t message_begin(struct writer *writer, uint8_t type);
/* Fills in the length. */
void message_end(struct writer *writer, size_t begin);

/* AuthenticationRequest: code, then `bytes` of data. Codes below. */
void message_authentication(struct writer *writer, uint32_t code, const void *data, size_t bytes);
void message_parameter_status(struct writer *writer, const char *name, const char *value);
void message_backend_key_data(struct writer *writer, const uint8_t key[8]);
void message_ready_for_query(struct writer *writer, uint8_t status);
/* ErrorResponse, or NoticeResponse for SEVERITY_NOTICE. */
void message_error(struct writer *writer, const struct pg_error *error);
void message_query(struct writer *writer, const char *text);
/* PasswordMessage and its SASL kin: all of type 'p'. */
void message_password(struct writer *writer, const void *data, size_t bytes);
void message_command_complete(struct writer *writer, const char *tag);
/* CancelRequest, a special packet. */
void message_cancel_request(struct writer *writer, const uint8_t key[8]);

enum authentication_code {
    AUTHENTICATION_OK = 0,
    AUTHENTICATION_CLEARTEXT = 3,
    AUTHENTICATION_MD5 = 5,
    AUTHENTICATION_SASL = 10,
    AUTHENTICATION_SASL_CONTINUE = 11,
    AUTHENTICATION_SASL_FINAL = 12,
};

/* Reads the fields of an ErrorResponse or NoticeResponse body. Strings point into the body; a field
 * that is missing is "" (a rogue server may leave out SQLSTATE). False: not properly terminated. */
struct error_fields {
    const char *severity; /* in the server's language */
    const char
        *fixed_severity; /* ERROR, FATAL, PANIC ...: of servers before 9.6 the same as the first */
    const char *sqlstate;
    const char *message;
    const char *routine; /* PostgreSQL's function that said it: the same in every language */
};
must_check bool error_fields_read(const uint8_t *body, size_t bytes, struct error_fields *fields);

#endif
