/* console_message.h - reads what a console session sends in the extended protocol (protocol:
 * "Message Formats"): Parse, Bind, Describe, Close, Execute.
 *
 * Pure; strings point into the body; any thread. Values of parameters are skipped: no command of the
 * console has parameters. */
#ifndef CONTROL_CONSOLE_MESSAGE_H
#define CONTROL_CONSOLE_MESSAGE_H

#include "base/base.h"

struct console_message {
    const char *name;         /* of the statement (Parse), or portal, or either (Describe, Close) */
    const char *source;       /* Parse: the text; Bind: the statement's name */
    bool is_portal;           /* Describe, Close: of a portal */
    unsigned parameter_count; /* Bind */
    unsigned format_count;    /* Bind: how many formats of results are given */
    uint64_t binary_columns;  /* Bind: a bit for each of the first 64 of these that is 1 */
    int bad_format;           /* Bind: a format that is neither 0 nor 1; else 0 */
    uint32_t row_limit;       /* Execute: 0 is all */
};

/* False: not such a message, or not properly formed to its last byte. */
must_check bool console_message_read(uint8_t type, const uint8_t *body, size_t bytes,
                                     struct console_message *message);

#endif
