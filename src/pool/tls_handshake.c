#include "pool/tls_handshake.h"

#include "wire/message.h"
#include "wire/startup.h"

#include <stdlib.h>
#include <string.h>

static void step_run(struct job *job);
static void step_done(struct letter *letter, void *core);

static struct core *core_of(const struct tls_handshake *handshake)
{
    return core_of_loop(handshake->conn->loop);
}

/* The helper's. */
static bool keep_output(struct tls_output *sink, const void *data, size_t bytes)
{
    struct tls_handshake *handshake = OWNER_OF(sink, struct tls_handshake, sink);
    uint8_t *bigger;

    if (bytes > TLS_HANDSHAKE_OUTPUT_BYTES_MAX - handshake->output_bytes)
        return false;
    bigger = realloc(handshake->output, handshake->output_bytes + bytes);
    if (bigger == NULL)
        return false;
    memcpy(bigger + handshake->output_bytes, data, bytes);
    handshake->output = bigger;
    handshake->output_bytes += bytes;
    return true;
}

static void free_handshake(struct core *core, struct tls_handshake *handshake)
{
    assert(!handshake->job_in_flight);
    tls_destroy(handshake->session);
    tls_context_release(handshake->context);
    free(handshake->output);
    if (handshake->given != NULL)
        buffer_release(core->loop.buffers, handshake->given);
    if (handshake->waiting != NULL)
        buffer_release(core->loop.buffers, handshake->waiting);
    slab_give(&core->tls_handshakes, handshake);
}

static struct tls_handshake *make(struct conn *conn, struct tls_context *context,
                                  tls_handshake_over *over)
{
    struct core *core = core_of_loop(conn->loop);
    struct tls_handshake *handshake = slab_take(&core->tls_handshakes);

    if (handshake == NULL)
        return NULL;
    *handshake = (struct tls_handshake){
        .conn = conn,
        .over = over,
        .context = tls_context_reference(context),
        .sink.put = keep_output,
    };
    return handshake;
}

struct tls_handshake *tls_handshake_accept(struct conn *conn, struct tls_context *context,
                                           tls_handshake_over *over)
{
    struct tls_handshake *handshake = make(conn, context, over);

    if (handshake != NULL)
        handshake->accepts = true;
    return handshake;
}

struct tls_handshake *tls_handshake_connect(struct conn *conn, struct tls_context *context,
                                            const char *host, bool must_have_tls,
                                            tls_handshake_over *over)
{
    struct tls_handshake *handshake = make(conn, context, over);
    uint8_t request[8];
    struct writer writer;

    if (handshake == NULL)
        return NULL;
    handshake->is_asking = true;
    handshake->must_have_tls = must_have_tls;
    strncpy(handshake->host, host, sizeof(handshake->host) - 1);
    writer_init(&writer, request, sizeof(request));
    writer_put_u32(&writer, sizeof(request));
    writer_put_u32(&writer, STARTUP_SSL_REQUEST_CODE);
    if (conn_push_copy(conn, request, sizeof(request)))
        return handshake;
    free_handshake(core_of_loop(conn->loop), handshake);
    return NULL;
}

void tls_handshake_abandon(struct tls_handshake *handshake)
{
    struct core *core = core_of(handshake);

    handshake->conn = NULL;
    if (handshake->job_in_flight)
        job_set_cancelled(&handshake->job, true);
    else
        free_handshake(core, handshake);
}

static void end(struct tls_handshake *handshake, enum tls_handshake_end how, const char *error)
{
    struct conn *conn = handshake->conn;
    tls_handshake_over *over = handshake->over;
    char text[TLS_ERROR_BYTES];

    strncpy(text, error, sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    tls_handshake_abandon(handshake);
    over(conn, how, text);
}

/* ---- one step, by a helper ---- */

static void step_run(struct job *job)
{
    struct tls_handshake *handshake = OWNER_OF(job, struct tls_handshake, job);

    if (handshake->session == NULL)
        handshake->session =
            tls_create(handshake->context, handshake->host[0] != '\0' ? handshake->host : NULL);
    if (handshake->session == NULL) {
        handshake->result = TLS_FAILED;
        return;
    }
    if (handshake->given != NULL)
        tls_feed(handshake->session, handshake->given->data, handshake->given_bytes);
    handshake->result = tls_handshake(handshake->session, &handshake->sink);
}

static void post_step(struct tls_handshake *handshake)
{
    struct core *core = core_of(handshake);

    assert(!handshake->job_in_flight);
    assert(handshake->given == NULL);
    handshake->given = handshake->waiting;
    handshake->given_bytes = handshake->waiting_bytes;
    handshake->waiting = NULL;
    handshake->waiting_bytes = 0;
    handshake->job = (struct job){
        .letter.open = step_done,
        .run = step_run,
        .kind = handshake->accepts ? JOB_TLS_ACCEPT : JOB_TLS_CONNECT,
        .core_index = core->index,
    };
    handshake->job_in_flight = core->ports->post_job(core, &handshake->job);
    if (!handshake->job_in_flight)
        end(handshake, TLS_HANDSHAKE_BUSY, JOB_REFUSED_TEXT);
}

/* The connection is the session's: what the handshake did not use goes to it, in order. */
static void succeed(struct tls_handshake *handshake, struct core *core)
{
    struct conn *conn = handshake->conn;
    tls_handshake_over *over = handshake->over;

    if (!conn_start_tls(conn, handshake->session)) {
        end(handshake, TLS_HANDSHAKE_FAILED, "out of memory");
        return;
    }
    handshake->session = NULL;
    over(conn, TLS_HANDSHAKE_TLS, "");
    /* The conn is still there: only conn_loop_flush frees it. After this it may be another core's. */
    conn_received_early(conn, handshake->waiting != NULL ? handshake->waiting->data : NULL,
                        handshake->waiting_bytes);
    handshake->conn = NULL;
    free_handshake(core, handshake);
}

static void step_done(struct letter *letter, void *context)
{
    struct tls_handshake *handshake = OWNER_OF(letter, struct tls_handshake, job.letter);
    struct core *core = context;

    handshake->job_in_flight = false;
    if (handshake->conn == NULL) {
        free_handshake(core, handshake);
        return;
    }
    assert(handshake->job.was_run);
    if (handshake->output_bytes > 0 &&
        !conn_push_copy(handshake->conn, handshake->output, handshake->output_bytes)) {
        end(handshake, TLS_HANDSHAKE_FAILED, "out of memory");
        return;
    }
    handshake->has_answered = handshake->has_answered || handshake->output_bytes > 0;
    free(handshake->output);
    handshake->output = NULL;
    handshake->output_bytes = 0;
    switch (handshake->result) {
    case TLS_OK:
        succeed(handshake, core);
        return;
    case TLS_WANT_INPUT:
        if (handshake->given != NULL)
            buffer_release(core->loop.buffers, handshake->given);
        handshake->given = NULL;
        if (handshake->waiting != NULL)
            post_step(handshake);
        else
            conn_say_deferred_end(handshake->conn);
        return;
    default:
        end(handshake, TLS_HANDSHAKE_FAILED,
            handshake->session != NULL ? tls_error(handshake->session) : "out of memory");
    }
}

/* ---- what comes ---- */

/* False: too much, or no memory. */
static bool keep_input(struct tls_handshake *handshake, const void *data, size_t bytes)
{
    struct buffer_pool *buffers = handshake->conn->loop->buffers;
    struct buffer *waiting = handshake->waiting;
    size_t total = handshake->waiting_bytes + bytes;
    uint32_t bytes_max = handshake->accepts && !handshake->has_answered ? TLS_HELLO_BYTES_MAX
                                                                        : TLS_HANDSHAKE_BYTES_MAX;

    if (bytes > bytes_max - handshake->total_bytes)
        return false;
    if (waiting == NULL || total > waiting->bytes_max) {
        struct buffer *bigger = buffer_park(buffers, total);

        if (bigger == NULL)
            return false;
        if (waiting != NULL) {
            memcpy(bigger->data, waiting->data, handshake->waiting_bytes);
            buffer_release(buffers, waiting);
        }
        handshake->waiting = waiting = bigger;
    }
    memcpy(waiting->data + handshake->waiting_bytes, data, bytes);
    handshake->waiting_bytes = (uint32_t)total;
    handshake->total_bytes += (uint32_t)bytes;
    return true;
}

static void answered(struct tls_handshake *handshake, const uint8_t *data, size_t bytes)
{
    if (data[0] == 'N' && bytes == 1 && handshake->must_have_tls)
        end(handshake, TLS_HANDSHAKE_REFUSED, "server refused SSL");
    else if (data[0] == 'N' && bytes == 1)
        end(handshake, TLS_HANDSHAKE_PLAIN, "");
    else if (data[0] != 'S' && data[0] != 'N')
        end(handshake, TLS_HANDSHAKE_BAD_ANSWER, "bad sslreq answer");
    else if (bytes > 1)
        end(handshake, TLS_HANDSHAKE_SMUGGLED, "received unencrypted data after SSL response");
    else {
        handshake->is_asking = false;
        post_step(handshake);
    }
}

void tls_handshake_received(struct tls_handshake *handshake, const void *data, size_t bytes)
{
    if (bytes == 0)
        return;
    if (handshake->is_asking) {
        answered(handshake, data, bytes);
        return;
    }
    if (!keep_input(handshake, data, bytes))
        end(handshake, TLS_HANDSHAKE_FAILED, "too many bytes in the handshake");
    else if (!handshake->job_in_flight)
        post_step(handshake);
}

bool tls_handshake_defers_end(struct tls_handshake *handshake)
{
    if (handshake->job_in_flight)
        conn_defer_end(handshake->conn);
    return handshake->job_in_flight;
}
