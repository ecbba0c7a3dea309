#include "control/console.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "control/console_session.h"
#include "control/control.h"
#include "crypto/random.h"
#include "pool/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct session *console_sessions;
unsigned console_session_count;

/* ---- answers ---- */

void console_error(struct session *session, const char *sqlstate, const char *text)
{
    log_write(LEVEL_ERROR, "C-0x%llx: pgbouncer/%s@console %s", (unsigned long long)session->id,
              session->user, text);
    log_write(LEVEL_WARNING, "C-0x%llx: pgbouncer/%s@console pooler error: %s",
              (unsigned long long)session->id, session->user, text);
    show_error(&session->output, "ERROR", sqlstate, text, NULL);
}

void console_fatal(struct session *session, const char *text)
{
    log_write(LEVEL_LOG, "C-0x%llx: pgbouncer/%s@console closing because: %s",
              (unsigned long long)session->id, session->user, text);
    show_error(&session->output, "FATAL", NULL, text, NULL);
    session->is_closing = true;
}

void console_over(struct session *session)
{
    session->is_busy = false;
    if (!session->is_extended)
        show_ready(&session->output);
}

void console_failed(struct session *session, const char *text)
{
    console_error(session, NULL, text);
    if (session->is_extended)
        session->skips_to_sync = true;
    console_over(session);
}

void console_complete(struct session *session, const char *tag)
{
    if (session->is_extended)
        console_extended_complete(session, tag);
    else
        show_complete(&session->output, tag);
    console_over(session);
}

/* ---- sessions ---- */

static void session_close(struct session *session)
{
    struct session **link = &console_sessions;

    while (*link != session)
        link = &(*link)->next;
    *link = session->next;
    console_session_count--;
    if (!session->is_successor)
        usage_give(&control_usage()->client_count);
    console_forget_attachments(session);
    console_act_abandon(session);
    console_extended_release(session);
    output_release(&session->output);
    console_tls_end(session);
    close(session->fd);
    free(session);
    if (console_session_count == 0)
        control_consoles_gone();
}

/* What may go out. Rows of an Execute with a limit wait until it is known how many there are. */
static size_t sendable_bytes(const struct session *session)
{
    if (session->is_busy && session->is_extended && session->row_limit > 0)
        return session->execute_begin;
    return session->output.bytes;
}

static void flush(struct session *session)
{
    while (session->sent_bytes < sendable_bytes(session)) {
        size_t bytes = sendable_bytes(session) - session->sent_bytes;
        ssize_t count =
            session->tls != NULL ? console_tls_send(session, bytes) : console_send(session, bytes);

        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EAGAIN)
            return;
        if (count < 0) {
            session->is_closing = true;
            session->sent_bytes = session->output.bytes;
            return;
        }
        session->sent_bytes += (size_t)count;
    }
    if (console_tls_is_waiting(session) && console_tls_send(session, 0) < 0 && errno != EAGAIN)
        session->is_closing = true;
    if (session->sent_bytes == session->output.bytes) {
        session->output.bytes = 0;
        session->sent_bytes = 0;
        session->execute_begin = 0;
        console_forget_attachments(session);
    }
}

static void simple_query(struct session *session, const uint8_t *body, size_t bytes)
{
    session->is_extended = false;
    session->output.binary_columns = 0;
    console_extended_simple(session);
    if (bytes == 0 || memchr(body, 0, bytes) != body + bytes - 1) {
        console_fatal(session, "incomplete query");
        return;
    }
    session->is_busy = true;
    if (!console_check(session, (const char *)body, &session->command)) {
        console_over(session);
    } else if (session->command.word[0] == '\0') {
        show_message(&session->output, 'I', NULL, 0);
        console_over(session);
    } else {
        console_run(session);
    }
}

static void message(struct session *session, uint8_t type, const uint8_t *body, size_t bytes)
{
    char text[96];

    session->request_us = clock_now_us();
    if (type == 'X') {
        session->is_closing = true;
        return;
    }
    if (type == 'S') {
        session->skips_to_sync = false;
        console_extended_sync(session);
        show_ready(&session->output);
        return;
    }
    if (session->skips_to_sync)
        return;
    session->output.has_old_columns = control_snapshot()->settings.console_old_columns;
    switch (type) {
    case 'Q':
        if (control_snapshot()->settings.disable_pqexec)
            console_fatal(session, "PQexec disallowed");
        else
            simple_query(session, body, bytes);
        break;
    case 'P':
    case 'B':
    case 'D':
    case 'C':
    case 'E':
        console_extended(session, type, body, bytes);
        break;
    case 'H':
        break;
    default:
        snprintf(text, sizeof(text), "unsupported packet type for admin console: %d", type);
        console_error(session, NULL, text);
        show_ready(&session->output);
        console_fatal(session, "bad packet");
    }
}

void console_go_on(struct session *session)
{
    while (!session->is_busy && !session->is_closing && session->input_bytes >= 5 &&
           session->output.bytes - session->sent_bytes < OUTPUT_FULL_BYTES) {
        uint32_t length = bytes_get_u32(session->input + 1);
        uint8_t *body = session->input + 5;
        static uint8_t copy[INPUT_BYTES_MAX];
        uint8_t type = session->input[0];

        if (length < 4 || length + 1 > INPUT_BYTES_MAX) {
            console_fatal(session, "incomplete pkt");
            break;
        }
        if (session->input_bytes < length + 1)
            break;
        memcpy(copy, body, length - 4);
        session->input_bytes -= length + 1;
        memmove(session->input, session->input + length + 1, session->input_bytes);
        message(session, type, copy, length - 4);
    }
    flush(session);
}

void console_request_over(struct session *session, struct request *request)
{
    session->request = NULL;
    request_release(request);
    console_complete(session, session->command.word);
    console_go_on(session);
}

static void take_application_name(struct session *session, const struct handover *handover)
{
    static const struct param_names names = {.count = PARAM_APPLICATION_NAME + 1};
    const struct param_table table = {.names = &names};
    const char *values[PARAM_APPLICATION_NAME + 1];
    const char *name;

    params_unpack(&table, handover->params, handover->params_bytes, values);
    name = values[PARAM_APPLICATION_NAME];
    snprintf(session->application_name, sizeof(session->application_name), "%s",
             name != NULL ? name : "");
}

void console_start(const struct handover *handover)
{
    static const char *const parameters[][2] = {
        {"server_version", PGSPLICE_VERSION "/pgsplice"},
        {"client_encoding", "UTF8"},
        {"server_encoding", "UTF8"},
        {"DateStyle", "ISO"},
        {"TimeZone", "GMT"},
        {"standard_conforming_strings", "on"},
        {"is_superuser", "on"},
        {"integer_datetimes", "on"},
    };
    struct session *session = calloc(1, sizeof(*session));
    uint8_t zero[4] = {0};
    char pair[256];

    if (session == NULL || console_session_count == CONSOLE_SESSIONS_MAX ||
        !random_bytes(session->key, sizeof(session->key)) ||
        !console_tls_start(session, handover->tls)) {
        log_write(LEVEL_WARNING, "no room for another console session");
        tls_destroy(handover->tls);
        close(handover->fd);
        usage_give(&control_usage()->client_count);
        free(session);
        return;
    }
    cancel_key_mark(session->key, control_snapshot()->settings.peer_id);
    session->fd = handover->fd;
    (void)fcntl(session->fd, F_SETFL, O_NONBLOCK);
    session->is_admin = handover->is_admin;
    session->peer = handover->peer;
    session->connect_us = session->request_us = handover->connect_us;
    take_application_name(session, handover);
    session->id = handover->id;
    strcpy(session->user, handover->user);
    session->next = console_sessions;
    console_sessions = session;
    console_session_count++;
    show_message(&session->output, 'R', zero, sizeof(zero));
    for (size_t i = 0; i < COUNT_OF(parameters); i++) {
        int bytes = snprintf(pair, sizeof(pair), "%s%c%s", parameters[i][0], 0, parameters[i][1]);

        show_message(&session->output, 'S', pair, (size_t)bytes + 1);
    }
    show_message(&session->output, 'K', session->key, sizeof(session->key));
    show_ready(&session->output);
    memcpy(session->input, handover->leftover, handover->leftover_bytes);
    session->input_bytes = handover->leftover_bytes;
    console_go_on(session);
}

size_t console_poll_fill(struct pollfd *fds, size_t count_max)
{
    size_t count = 0;
    struct session *next;

    for (struct session *session = console_sessions; session != NULL; session = next) {
        next = session->next;
        if (session->is_closing && session->output.bytes == session->sent_bytes &&
            !console_tls_is_waiting(session))
            session_close(session);
    }
    for (struct session *session = console_sessions; session != NULL && count < count_max;
         session = session->next) {
        fds[count] = (struct pollfd){.fd = session->fd};
        if (session->input_bytes < INPUT_BYTES_MAX)
            fds[count].events = POLLIN;
        if (sendable_bytes(session) > session->sent_bytes || console_tls_is_waiting(session))
            fds[count].events |= POLLOUT;
        count++;
    }
    return count;
}

void console_poll_events(const struct pollfd *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct session *session = console_sessions;

        if (fds[i].revents == 0)
            continue;
        while (session != NULL && session->fd != fds[i].fd)
            session = session->next;
        if (session == NULL)
            continue;
        if ((fds[i].revents & POLLOUT) != 0) {
            flush(session);
            console_go_on(session); /* what waited for room */
        }
        if ((fds[i].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
            ssize_t bytes = console_receive(session);

            if (bytes > 0) {
                session->input_bytes += (size_t)bytes;
                console_go_on(session);
                if (console_tls_has_ended(session))
                    session_close(session);
            } else if (bytes == 0 || (errno != EAGAIN && errno != EINTR)) {
                session_close(session);
            }
        }
    }
}

bool console_cancel(const uint8_t key[8])
{
    for (struct session *session = console_sessions; session != NULL; session = session->next)
        if (cancel_key_is_same(session->key, key)) {
            struct request *request;

            if (!session->is_admin || control_mode() == CONTROL_ACTIVE ||
                control_shutdown_mode() != SHUTDOWN_NONE)
                return true;
            request = request_make(control_requests(), &console_sessions, request_release);
            control_resume(request);
            return true;
        }
    return false;
}
