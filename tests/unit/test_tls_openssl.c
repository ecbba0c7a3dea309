/* A server session against `openssl s_client` on a unix socket: what another library says that ours, as a client,
 * cannot be made to say: a second handshake, and tickets that come back. */
#include "unit.h"

#include "crypto/tls.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>

#define FOLDER "tests/unit/tls/"

static const char suites[] =
    "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256";

struct server {
    char folder[64];
    struct sockaddr_un address;
    int listener;
};

static struct server server;

/* ---- the other program ---- */

struct peer {
    pid_t pid;
    int commands; /* its standard input */
    int fd;       /* our end of the connection */
    struct tls *tls;
    struct tls_output output;
    uint8_t input[32768];
    uint8_t got[4096];
    size_t got_bytes;
};

static bool put(struct tls_output *output, const void *data, size_t bytes)
{
    struct peer *peer = OWNER_OF(output, struct peer, output);

    return send(peer->fd, data, bytes, MSG_NOSIGNAL) == (ssize_t)bytes;
}

/* `more`: up to four further words. */
static void peer_start(struct peer *peer, struct tls_context *context, const char *const more[4])
{
    const char *words[16] = {"openssl", "s_client", "-unix", server.address.sun_path,
                             more[0],   more[1],    more[2], more[3]};
    const struct timeval limit = {.tv_sec = 20};
    int pipe_of_commands[2];

    *peer = (struct peer){.output.put = put};
    assert_int_equal(pipe(pipe_of_commands), 0);
    peer->pid = fork();
    assert_true(peer->pid >= 0);
    if (peer->pid == 0) {
        int nowhere = open("/dev/null", O_RDWR);

        dup2(pipe_of_commands[0], 0);
        dup2(nowhere, 1);
        dup2(nowhere, 2);
        close(pipe_of_commands[1]);
        execvp(words[0], (char *const *)words);
        _exit(127);
    }
    close(pipe_of_commands[0]);
    peer->commands = pipe_of_commands[1];
    assert_int_equal(setsockopt(server.listener, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)),
                     0);
    peer->fd = accept(server.listener, NULL, NULL);
    assert_true(peer->fd >= 0);
    assert_int_equal(setsockopt(peer->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    peer->tls = tls_create(context, NULL);
    assert_non_null(peer->tls);
}

static void peer_say(struct peer *peer, const char *line)
{
    assert_int_equal(write(peer->commands, line, strlen(line)), strlen(line));
}

static void peer_feed(struct peer *peer)
{
    ssize_t bytes = read(peer->fd, peer->input, sizeof(peer->input));

    if (bytes <= 0)
        fail_msg("the other end says nothing more");
    tls_feed(peer->tls, peer->input, (size_t)bytes);
}

static void peer_shake(struct peer *peer)
{
    enum tls_result result;

    do {
        peer_feed(peer);
        result = tls_handshake(peer->tls, &peer->output);
    } while (result == TLS_WANT_INPUT);
    if (result != TLS_OK)
        fail_msg("handshake: %s", tls_error(peer->tls));
}

/* Until `bytes` are there, or an end. */
static enum tls_result peer_read(struct peer *peer, size_t bytes)
{
    enum tls_result result;

    peer->got_bytes = 0;
    for (;;) {
        size_t got;

        result = tls_read(peer->tls, &peer->output, peer->got + peer->got_bytes,
                          sizeof(peer->got) - peer->got_bytes, &got);
        peer->got_bytes += got;
        if (result != TLS_WANT_INPUT || peer->got_bytes >= bytes)
            return result;
        peer_feed(peer);
    }
}

static void peer_end(struct peer *peer)
{
    close(peer->commands);
    close(peer->fd);
    tls_destroy(peer->tls);
    assert_int_equal(waitpid(peer->pid, NULL, 0), peer->pid);
}

static struct tls_context *make_context(bool gives_tickets)
{
    struct tls_options options = {.side = TLS_SIDE_SERVER,
                                  .protocols = TLS_PROTOCOL_1_2 | TLS_PROTOCOL_1_3,
                                  .certificate_file = FOLDER "p256.pem",
                                  .key_file = FOLDER "p256.key",
                                  .suites = suites,
                                  .gives_tickets = gives_tickets};
    char error[TLS_ERROR_BYTES] = "";
    struct tls_context *context = tls_context_create(&options, error);

    if (context == NULL)
        fail_msg("no context: %s", error);
    return context;
}

/* ---- tests ---- */

static void second_handshake_is_refused(void **state)
{
    static const char *const words[4] = {"-tls1_2"};
    struct tls_context *context = make_context(false);
    struct peer peer;

    (void)state;
    peer_start(&peer, context, words);
    peer_shake(&peer);
    peer_say(&peer, "hello\n");
    assert_int_equal(peer_read(&peer, 6), TLS_WANT_INPUT);
    assert_memory_equal(peer.got, "hello\n", 6);
    peer_say(&peer, "R\n");
    assert_int_equal(peer_read(&peer, 1), TLS_FAILED);
    assert_int_equal(peer.got_bytes, 0);
    assert_string_equal(tls_error(peer.tls), "a second handshake (renegotiation) is refused");
    peer_end(&peer);
    tls_context_release(context);
}

static void new_keys_are_answered(void **state)
{
    static const char *const words[4] = {"-tls1_3"};
    struct tls_context *context = make_context(false);
    struct peer peer;

    (void)state;
    peer_start(&peer, context, words);
    peer_shake(&peer);
    for (unsigned i = 0; i < 3; i++) {
        peer_say(&peer, i == 1 ? "k\n" : "K\n"); /* K: we are asked for new ones, too */
        /* The program takes one command of what it reads at once, so its message is waited for. */
        peer_feed(&peer);
        assert_int_equal(peer_read(&peer, 0), TLS_WANT_INPUT);
        assert_int_equal(peer.got_bytes, 0);
        peer_say(&peer, "hello\n");
        assert_int_equal(peer_read(&peer, 6), TLS_WANT_INPUT);
        assert_memory_equal(peer.got, "hello\n", 6);
        assert_true(tls_write(peer.tls, &peer.output, "answer\n", 7));
    }
    peer_say(&peer, "Q\n");
    assert_int_equal(peer_read(&peer, 1), TLS_CLOSED);
    peer_end(&peer);
    tls_context_release(context);
}

/* One connection to the end; its session is kept in a file, or taken from there. */
static bool is_resumed(struct tls_context *context, const char *protocol, const char *option,
                       const char *file)
{
    const char *const words[4] = {protocol, option, file};
    struct peer peer;
    bool resumed;

    peer_start(&peer, context, words);
    peer_shake(&peer);
    resumed = tls_was_resumed(peer.tls);
    peer_say(&peer, "hello\n");
    assert_int_equal(peer_read(&peer, 6), TLS_WANT_INPUT);
    assert_memory_equal(peer.got, "hello\n", 6);
    assert_true(tls_write(peer.tls, &peer.output, "answer\n", 7));
    peer_say(&peer, "Q\n");
    assert_int_equal(peer_read(&peer, 1), TLS_CLOSED);
    peer_end(&peer);
    return resumed;
}

static void tickets_resume_sessions_of_the_same_context(void **state)
{
    static const char *const protocols[] = {"-tls1_2", "-tls1_3"};
    struct tls_context *context = make_context(true), *other = make_context(true);
    struct tls_context *without = make_context(false);

    (void)state;
    for (size_t i = 0; i < COUNT_OF(protocols); i++) {
        char file[128];

        snprintf(file, sizeof(file), "%s/session", server.folder);
        assert_false(is_resumed(context, protocols[i], "-sess_out", file));
        assert_true(is_resumed(context, protocols[i], "-sess_in", file));
        assert_false(is_resumed(other, protocols[i], "-sess_in", file));
        unlink(file);
        assert_false(is_resumed(without, protocols[i], "-sess_out", file));
        if (access(file, R_OK) == 0)
            assert_false(is_resumed(without, protocols[i], "-sess_in", file));
        unlink(file);
    }
    tls_context_release(context);
    tls_context_release(other);
    tls_context_release(without);
}

/* ---- the socket ---- */

static int set_up(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    strcpy(server.folder, "/tmp/test_tls_XXXXXX");
    if (mkdtemp(server.folder) == NULL)
        return 1;
    server.address.sun_family = AF_UNIX;
    snprintf(server.address.sun_path, sizeof(server.address.sun_path), "%s/socket", server.folder);
    server.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return server.listener < 0 ||
           bind(server.listener, (struct sockaddr *)&server.address, sizeof(server.address)) < 0 ||
           listen(server.listener, 4) < 0 || !tls_init();
}

static int take_down(void **state)
{
    (void)state;
    close(server.listener);
    unlink(server.address.sun_path);
    return rmdir(server.folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(second_handshake_is_refused),
        cmocka_unit_test(new_keys_are_answered),
        cmocka_unit_test(tickets_resume_sessions_of_the_same_context),
    };

    if (system("openssl version > /dev/null 2>&1") != 0) {
        printf("test_tls_openssl: skipped, there is no openssl\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, set_up, take_down);
}
