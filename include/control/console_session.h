/* console_session.h - one session of the console, and what its files share.
 *
 * console.c has its life and its bytes, console_show.c the SHOWs, console_act.c the other commands,
 * console_extended.c the extended protocol. Each command ends with exactly one of console_complete
 * and console_failed, then or later; until then the session is busy, and what it sends waits.
 *
 * Control's thread. */
#ifndef CONTROL_CONSOLE_SESSION_H
#define CONTROL_CONSOLE_SESSION_H

#include "base/bytes.h"
#include "control/console_command.h"
#include "control/request.h"
#include "control/show.h"
#include "crypto/tls.h"
#include "pool/core.h"

enum {
    INPUT_BYTES_MAX = 64 * 1024,
    /* So much more may come at a time when it is decrypted: a record that was begun before, and one receive. */
    INPUT_TLS_BYTES = 2 * (TLS_RECORD_BYTES_MAX + TLS_RECORD_EXTRA_BYTES),
    /* With so much of its answers unread no further command is looked at. */
    OUTPUT_FULL_BYTES = 256 * 1024,
    CONSOLE_STATEMENTS_MAX = 256, /* of a session; portals count, too */
};

/* A prepared statement or portal of the extended protocol. */
struct console_statement {
    char name[64];
    struct console_command command; /* without a word: an empty text */
    bool is_portal;
    bool was_run;
    uint64_t binary_columns; /* see struct output */
    uint8_t *rest;           /* rows that an Execute with a limit has left */
    size_t rest_bytes;
};

/* A session on TLS. */
struct console_tls {
    struct tls *session;
    struct tls_output output;
    uint8_t *sealed; /* ciphertext that waits for the socket */
    size_t sealed_bytes, sealed_max, sent_bytes;
    bool has_ended; /* nothing that can be read will come any more */
};

struct session {
    struct session *next;
    int fd;
    struct console_tls *tls; /* NULL: plain */
    bool is_admin;
    bool is_busy;     /* workers are asked */
    bool is_extended; /* the command at hand came by Execute */
    bool skips_to_sync;
    bool is_closing; /* as soon as its output is out */
    bool waits_for_suspend;
    char user[USER_NAME_BYTES_MAX];
    uint8_t key[8];
    struct request *request;
    const struct show_table *table;
    struct core_counts counts; /* of SHOW LISTS */
    struct console_command command;
    struct peer_name peer;
    uint64_t connect_us, request_us; /* request: the last message */
    char application_name[128];
    char set_tag[352]; /* of a SET that is being carried out */
    uint8_t input[INPUT_BYTES_MAX + INPUT_TLS_BYTES];
    size_t input_bytes;
    struct output output;
    size_t sent_bytes;
    /* SHOW FDS: listening sockets that go along with the rows that begin at these bytes of the output. */
    struct attachment {
        size_t at_byte;
        size_t listener;
    } * attachments;
    size_t attachment_count, attached_count;
    bool is_successor; /* the process after us: it counts as nobody, and tells of cancel requests */
    uint64_t id;
    struct console_statement *statements;
    unsigned statement_count, statement_max;
    struct console_statement *executed; /* by the Execute at hand */
    uint32_t row_limit;                 /* of that Execute; 0: none */
    size_t
        execute_begin; /* with a row_limit nothing behind this goes out before all rows are there */
};

/* All of them. */
extern struct session *console_sessions;
extern unsigned console_session_count;

/* ---- console.c ---- */

/* An ErrorResponse, logged; the command goes on. sqlstate NULL: 08P01. */
void console_error(struct session *session, const char *sqlstate, const char *text);
/* The command is answered: what comes next may be looked at. */
void console_over(struct session *session);
void console_failed(struct session *session, const char *text);
void console_complete(struct session *session, const char *tag);
/* The session's last words. */
void console_fatal(struct session *session, const char *text);
/* Looks at what the session has sent. Due after a command that was answered later than it came. */
void console_go_on(struct session *session);
/* What the command asked of the workers is true on all of them: answered, with its word for a tag. */
void console_request_over(struct session *session, struct request *request);

/* ---- console_act.c ---- */

/* False: not a command; the error was sent, and the command is not over yet. A text of white space
 * and semicolons is a command without a word. */
must_check bool console_check(struct session *session, const char *text,
                              struct console_command *command);
/* Runs session->command, of any kind. */
void console_run(struct session *session);
/* The session goes: what it has begun is finished without it. */
void console_act_abandon(struct session *session);

/* ---- console_show.c ---- */

void console_show(struct session *session, const struct show_table *table);
/* What a command shows; NULL: it is not a SHOW. */
const struct show_table *console_table(const struct console_command *command);

/* ---- console_tls.c ---- */

/* Takes over `session`, which may be NULL. False: no memory. */
must_check bool console_tls_start(struct session *session, struct tls *tls);
void console_tls_end(struct session *session);
/* As recv(), into session->input. */
ssize_t console_receive(struct session *session) must_check;
/* What console_receive gave was the last. */
static inline bool console_tls_has_ended(const struct session *session)
{
    return session->tls != NULL && session->tls->has_ended;
}
/* As send(), of the next `bytes` of the output; what it says it has taken may still wait in `sealed`. */
ssize_t console_tls_send(struct session *session, size_t bytes) must_check;
static inline bool console_tls_is_waiting(const struct session *session)
{
    return session->tls != NULL && session->tls->sent_bytes < session->tls->sealed_bytes;
}

/* ---- console_takeover.c ---- */

/* Who is on our unix socket as our own user, and so could do everything to us anyway. */
bool console_is_own_user(const struct session *session);
/* Rows of the listening sockets; whoever may take them over gets them with their rows. Clients and
 * servers are not handed over. */
void console_show_fds(struct session *session);
/* SHUTDOWN TAKEOVER, of the session that got the sockets: answered when nobody accepts here any more. */
void console_run_takeover(struct session *session);
/* CANCEL key: a cancel request came to the process after us, which does not know the key. */
void console_run_cancel(struct session *session);
/* As much of the next `bytes` of the output as can go out together: with one descriptor at most, which
 * goes with the first byte of its row. As send(). */
ssize_t console_send(struct session *session, size_t bytes) must_check;
void console_forget_attachments(struct session *session);

/* ---- console_extended.c ---- */

/* Parse, Bind, Describe, Close or Execute. */
void console_extended(struct session *session, uint8_t type, const uint8_t *body, size_t bytes);
/* Of a command that came by Execute. */
void console_extended_complete(struct session *session, const char *tag);
void console_extended_sync(struct session *session);
/* A simple query ends the unnamed statement and all portals. */
void console_extended_simple(struct session *session);
void console_extended_release(struct session *session);

#endif
