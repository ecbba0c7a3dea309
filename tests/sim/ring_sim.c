#include "ring_sim.h"

#include "base/list.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define HIDE(data, bytes) ASAN_POISON_MEMORY_REGION(data, bytes)
#define SHOW(data, bytes) ASAN_UNPOISON_MEMORY_REGION(data, bytes)
#else
#define HIDE(data, bytes) ((void)(data), (void)(bytes))
#define SHOW(data, bytes) ((void)(data), (void)(bytes))
#endif

enum {
    FDS_MAX = 65536,
    FD_FIRST = 3,
    RING_FD_FIRST = 1000000,
    PIPE_BYTES_MAX = 65536,
    RECEIVES_PER_STEP_MAX = 4,
    POISON = 0xdb,
};

/* ---- what the world is made of ---- */

struct address {
    struct sockaddr_storage storage;
    socklen_t bytes;
};

/* One direction of a connection. */
struct pipe {
    uint8_t *data;
    size_t bytes_max;
    size_t begin;
    size_t bytes;
    bool has_ended; /* after these bytes comes the end */
};

struct stream {
    struct list link; /* sim->streams, or a listener's backlog */
    struct pipe to_pooler;
    struct pipe to_world;
    struct sim_peer *peer; /* NULL: closed by the world */
    bool pooler_closed;
    bool is_reset;
    struct address pooler_address; /* of the pooler's end */
    struct address world_address;
    uint32_t world_uid; /* who runs the world's end of a unix socket */
};

struct sim_peer {
    struct sim *sim;
    struct stream *stream;
};

enum file_kind { FILE_FREE, FILE_SOCKET, FILE_LISTENER };

struct file {
    enum file_kind kind;
    bool is_closing; /* ring_close was called, and not yet submitted */
    bool is_shut_down;
    int error; /* of the connection, told once */
    int family;
    unsigned started;       /* ops on it */
    struct stream *stream;  /* NULL: not connected */
    struct address address; /* of a listener */
    struct list backlog;
};

struct server {
    struct list link;
    struct address address;
    sim_connected *connected;
    void *context;
};

enum work_kind { WORK_ACCEPT, WORK_RECEIVE, WORK_SEND, WORK_CONNECT };

/* A started op, as the kernel sees it. */
struct work {
    struct list link; /* ring->works, once submitted */
    struct op *op;
    enum work_kind kind;
    int fd;
    bool is_new;       /* not looked at yet */
    bool is_cancelled; /* the cancel has been submitted */
    bool is_done;      /* its last completion is under way */
    /* send */
    struct iovec vector[RING_SEND_VECTOR_MAX];
    size_t vector_count;
    uint8_t *copy; /* of all bytes, when it was started */
    size_t bytes;
    size_t taken; /* the completion is due when above 0 */
    /* connect */
    struct address address;
    uint64_t hangs_until_us; /* 0: does not */
};

enum submission_kind { SUBMIT_WORK, SUBMIT_CANCEL, SUBMIT_CLOSE, SUBMIT_SHUTDOWN, SUBMIT_WAKE };

struct submission {
    enum submission_kind kind;
    struct work *work;
    struct op *op;
    int fd;
};

struct pending {
    struct list link;
    struct work *work;
    int result;
    bool more;
    int buffer_index; /* -1: none */
};

struct ring {
    struct list link;
    struct sim *sim;
    struct ring_options options;
    int fd;
    bool in_turn;
    bool is_woken;
    struct list works;
    struct list completions;
    struct submission *submissions;
    unsigned submission_count;
    unsigned submission_max;
    /* Buffers that the kernel has, oldest first. */
    uint16_t *buffers;
    unsigned buffer_first;
    unsigned buffer_count;
    struct ring_counters counters;
};

struct sim {
    uint64_t random;
    uint64_t trace;
    uint64_t now_us;
    struct sim_faults faults;
    size_t pipe_bytes;
    struct file *files;
    int file_end; /* descriptors at and above were never used */
    struct list rings;
    struct list servers;
    struct list streams;
    int ring_count;
    uint16_t next_port;
};

static struct sim *world;

/* ---- chance and trace ---- */

uint64_t sim_random(struct sim *sim)
{
    uint64_t value = sim->random += UINT64_C(0x9e3779b97f4a7c15);

    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

uint64_t sim_below(struct sim *sim, uint64_t limit)
{
    assert(limit > 0);
    return sim_random(sim) % limit;
}

bool sim_chance(struct sim *sim, unsigned per_mille)
{
    return per_mille > 0 && sim_below(sim, 1000) < per_mille;
}

void sim_note(struct sim *sim, uint64_t fact)
{
    sim->trace = (sim->trace ^ fact) * UINT64_C(0x100000001b3);
    sim->trace ^= sim->trace >> 29;
}

uint64_t sim_trace(const struct sim *sim)
{
    return sim->trace;
}

uint64_t sim_now_us(const struct sim *sim)
{
    return sim->now_us;
}

void sim_advance(struct sim *sim, uint64_t us)
{
    sim->now_us += us;
}

void sim_set_faults(struct sim *sim, const struct sim_faults *faults)
{
    sim->faults = *faults;
}

void sim_set_pipe_bytes(struct sim *sim, size_t bytes)
{
    assert(bytes <= PIPE_BYTES_MAX);
    sim->pipe_bytes = bytes;
}

static unsigned draw(struct sim *sim, unsigned per_mille_max)
{
    return sim_below(sim, 2) == 0 ? 0 : 1 + (unsigned)sim_below(sim, per_mille_max);
}

void sim_draw_faults(struct sim *sim, struct sim_faults *faults)
{
    *faults = (struct sim_faults){
        .split = draw(sim, 900),
        .receive_end = draw(sim, 500),
        .spurious_shortage = draw(sim, 100),
        .short_send = draw(sim, 900),
        .delay = draw(sim, 800),
        .send_late = draw(sim, 800),
        .cancel_late = draw(sim, 900),
        .reset = draw(sim, 4),
        .connect_refused = draw(sim, 100),
        .connect_hangs = draw(sim, 30),
        .accept_error = draw(sim, 50),
        .socket_error = draw(sim, 30),
    };
}

/* ---- pipes and streams ---- */

static void pipe_init(struct sim *sim, struct pipe *pipe)
{
    *pipe = (struct pipe){.bytes_max = sim->pipe_bytes};
    if (pipe->bytes_max == 0)
        pipe->bytes_max = 1 + sim_below(sim, (uint64_t)1 << sim_below(sim, 17));
    pipe->data = malloc(pipe->bytes_max);
    assert(pipe->data != NULL);
}

static void pipe_put(struct pipe *pipe, const uint8_t *data, size_t bytes)
{
    assert(bytes <= pipe->bytes_max - pipe->bytes);
    while (bytes > 0) {
        size_t end = (pipe->begin + pipe->bytes) % pipe->bytes_max;
        size_t count = MIN(bytes, pipe->bytes_max - end);

        memcpy(pipe->data + end, data, count);
        pipe->bytes += count;
        data += count;
        bytes -= count;
    }
}

static void pipe_take(struct pipe *pipe, uint8_t *data, size_t bytes)
{
    assert(bytes <= pipe->bytes);
    while (bytes > 0) {
        size_t count = MIN(bytes, pipe->bytes_max - pipe->begin);

        memcpy(data, pipe->data + pipe->begin, count);
        pipe->begin = (pipe->begin + count) % pipe->bytes_max;
        pipe->bytes -= count;
        data += count;
        bytes -= count;
    }
}

static uint16_t port_take(struct sim *sim)
{
    sim->next_port = sim->next_port < 32768 || sim->next_port > 60000 ? 32768 : sim->next_port;
    return sim->next_port++;
}

/* Some address of this family that nobody else has. */
static void address_make(struct sim *sim, struct address *address, int family)
{
    uint16_t port = htons(port_take(sim));

    *address =
        (struct address){.storage.ss_family = (sa_family_t)family, .bytes = sizeof(sa_family_t)};
    if (family == AF_INET) {
        struct sockaddr_in *inet = (struct sockaddr_in *)&address->storage;

        inet->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        inet->sin_port = port;
        address->bytes = sizeof(*inet);
    } else if (family == AF_INET6) {
        struct sockaddr_in6 *inet = (struct sockaddr_in6 *)&address->storage;

        inet->sin6_addr = in6addr_loopback;
        inet->sin6_port = port;
        address->bytes = sizeof(*inet);
    }
}

static void address_set(struct address *address, const struct sockaddr *from, socklen_t bytes)
{
    assert(bytes <= sizeof(address->storage));
    *address = (struct address){.bytes = bytes};
    memcpy(&address->storage, from, bytes);
}

static bool address_is(const struct address *address, const struct sockaddr *other, socklen_t bytes)
{
    return address->bytes == bytes && memcmp(&address->storage, other, bytes) == 0;
}

static struct stream *stream_create(struct sim *sim)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    struct sim_peer *peer = calloc(1, sizeof(*peer));

    assert(stream != NULL);
    assert(peer != NULL);
    pipe_init(sim, &stream->to_pooler);
    pipe_init(sim, &stream->to_world);
    *peer = (struct sim_peer){.sim = sim, .stream = stream};
    stream->peer = peer;
    list_init(&stream->link);
    list_push_back(&sim->streams, &stream->link);
    return stream;
}

static void stream_free_if_unused(struct stream *stream)
{
    if (stream->peer != NULL || !stream->pooler_closed)
        return;
    list_remove(&stream->link);
    free(stream->to_pooler.data);
    free(stream->to_world.data);
    free(stream);
}

/* What has arrived can be read, what was under way is lost. */
static void pipe_break(struct sim *sim, struct pipe *pipe)
{
    if (pipe->bytes > 0)
        pipe->bytes = sim_below(sim, pipe->bytes + 1);
}

static struct file *file_of_stream(struct sim *sim, const struct stream *stream)
{
    for (int fd = FD_FIRST; fd < sim->file_end; fd++)
        if (sim->files[fd].kind == FILE_SOCKET && sim->files[fd].stream == stream)
            return &sim->files[fd];
    return NULL;
}

static void stream_reset(struct sim *sim, struct stream *stream)
{
    struct file *file = file_of_stream(sim, stream);

    if (stream->is_reset)
        return;
    stream->is_reset = true;
    pipe_break(sim, &stream->to_pooler);
    pipe_break(sim, &stream->to_world);
    if (file != NULL)
        file->error = ECONNRESET;
}

/* ---- descriptors ---- */

static struct file *file_at(struct sim *sim, int fd)
{
    struct file *file;

    assert(fd >= FD_FIRST);
    assert(fd < FDS_MAX);
    file = &sim->files[fd];
    assert(file->kind != FILE_FREE);
    assert(!file->is_closing);
    return file;
}

/* The lowest that is free, as the kernel does it: a number used too long is soon somebody else's.
 */
static int file_open(struct sim *sim, enum file_kind kind)
{
    int fd = FD_FIRST;

    while (fd < FDS_MAX && sim->files[fd].kind != FILE_FREE)
        fd++;
    assert(fd < FDS_MAX);
    sim->files[fd] = (struct file){.kind = kind};
    list_init(&sim->files[fd].backlog);
    sim->file_end = MAX(sim->file_end, fd + 1);
    return fd;
}

static void file_close(struct sim *sim, int fd)
{
    struct file *file = &sim->files[fd];
    struct stream *stream = file->stream;

    assert(file->kind != FILE_FREE);
    assert(file->started == 0);
    while (!list_is_empty(&file->backlog)) {
        struct stream *waiting = OWNER_OF(list_front(&file->backlog), struct stream, link);

        list_remove(&waiting->link);
        list_push_back(&sim->streams, &waiting->link);
        waiting->pooler_closed = true;
        stream_reset(sim, waiting);
        stream_free_if_unused(waiting);
    }
    file->kind = FILE_FREE;
    file->stream = NULL;
    if (stream == NULL)
        return;
    /* TCP: bytes that nobody will read end the connection with a reset, which may overtake what was
     * sent. */
    if (stream->to_pooler.bytes > 0 && !stream->is_reset)
        stream_reset(sim, stream);
    stream->to_world.has_ended = true;
    stream->pooler_closed = true;
    stream_free_if_unused(stream);
}

/* ---- the world ---- */

struct sim *sim_create(uint64_t seed)
{
    struct sim *sim = calloc(1, sizeof(*sim));

    assert(sim != NULL);
    assert(world == NULL);
    sim->random = seed;
    sim->now_us = UINT64_C(1000000000) + sim_below(sim, US_PER_S * 1000);
    sim->files = calloc(FDS_MAX, sizeof(*sim->files));
    assert(sim->files != NULL);
    sim->file_end = FD_FIRST;
    list_init(&sim->rings);
    list_init(&sim->servers);
    list_init(&sim->streams);
    world = sim;
    return sim;
}

void sim_reseed(struct sim *sim, uint64_t seed)
{
    sim->random = seed;
}

void sim_destroy(struct sim *sim)
{
    assert(list_is_empty(&sim->rings));
    for (int fd = FD_FIRST; fd < sim->file_end; fd++)
        if (sim->files[fd].kind != FILE_FREE)
            file_close(sim, fd);
    while (!list_is_empty(&sim->streams)) {
        struct stream *stream = OWNER_OF(list_front(&sim->streams), struct stream, link);

        sim_peer_close(stream->peer);
    }
    while (!list_is_empty(&sim->servers)) {
        struct server *server = OWNER_OF(list_front(&sim->servers), struct server, link);

        list_remove(&server->link);
        free(server);
    }
    free(sim->files);
    free(sim);
    world = NULL;
}

unsigned sim_open_fds(const struct sim *sim)
{
    unsigned count = 0;

    for (int fd = FD_FIRST; fd < sim->file_end; fd++)
        count += sim->files[fd].kind != FILE_FREE;
    return count;
}

unsigned sim_started_ops(const struct sim *sim)
{
    unsigned count = 0;

    for (int fd = FD_FIRST; fd < sim->file_end; fd++)
        count += sim->files[fd].started;
    return count;
}

int sim_listen(struct sim *sim, const struct sockaddr *address, socklen_t address_bytes)
{
    int fd = file_open(sim, FILE_LISTENER);

    sim->files[fd].family = address->sa_family;
    address_set(&sim->files[fd].address, address, address_bytes);
    return fd;
}

struct sim_peer *sim_connect(struct sim *sim, const struct sockaddr *address,
                             socklen_t address_bytes)
{
    struct file *chosen = NULL;
    struct stream *stream;
    unsigned count = 0;

    for (int fd = FD_FIRST; fd < sim->file_end; fd++) {
        struct file *file = &sim->files[fd];

        if (file->kind == FILE_LISTENER && !file->is_closing &&
            address_is(&file->address, address, address_bytes) && sim_below(sim, ++count) == 0)
            chosen = file;
    }
    if (chosen == NULL)
        return NULL;
    stream = stream_create(sim);
    list_remove(&stream->link);
    list_push_back(&chosen->backlog, &stream->link);
    stream->pooler_address = chosen->address;
    address_make(sim, &stream->world_address, chosen->family);
    return stream->peer;
}

void sim_peer_set_address(struct sim_peer *peer, const struct sockaddr *address,
                          socklen_t address_bytes)
{
    address_set(&peer->stream->world_address, address, address_bytes);
}

void sim_peer_set_uid(struct sim_peer *peer, uint32_t uid)
{
    peer->stream->world_uid = uid;
}

static struct server *server_find(struct sim *sim, const struct sockaddr *address, socklen_t bytes)
{
    list_for_each(link, &sim->servers)
    {
        struct server *server = OWNER_OF(link, struct server, link);

        if (address_is(&server->address, address, bytes))
            return server;
    }
    return NULL;
}

void sim_serve(struct sim *sim, const struct sockaddr *address, socklen_t address_bytes,
               sim_connected *connected, void *context)
{
    struct server *server = calloc(1, sizeof(*server));

    assert(server != NULL);
    assert(server_find(sim, address, address_bytes) == NULL);
    address_set(&server->address, address, address_bytes);
    server->connected = connected;
    server->context = context;
    list_init(&server->link);
    list_push_back(&sim->servers, &server->link);
}

void sim_serve_end(struct sim *sim, const struct sockaddr *address, socklen_t address_bytes)
{
    struct server *server = server_find(sim, address, address_bytes);

    assert(server != NULL);
    list_remove(&server->link);
    free(server);
}

int sim_pair(struct sim *sim, struct sim_peer **peer)
{
    int fd = file_open(sim, FILE_SOCKET);
    struct stream *stream = stream_create(sim);

    sim->files[fd].family = AF_INET;
    sim->files[fd].stream = stream;
    address_make(sim, &stream->pooler_address, AF_INET);
    address_make(sim, &stream->world_address, AF_INET);
    *peer = stream->peer;
    return fd;
}

size_t sim_peer_write_room(const struct sim_peer *peer)
{
    const struct stream *stream = peer->stream;

    if (stream->to_pooler.has_ended || stream->is_reset)
        return 0;
    return stream->to_pooler.bytes_max - stream->to_pooler.bytes;
}

size_t sim_peer_write(struct sim_peer *peer, const void *data, size_t bytes)
{
    size_t count = MIN(bytes, sim_peer_write_room(peer));

    if (peer->stream->pooler_closed && count > 0) {
        stream_reset(peer->sim, peer->stream);
        return 0;
    }
    pipe_put(&peer->stream->to_pooler, data, count);
    if (count > 0)
        sim_note(peer->sim, count);
    return count;
}

size_t sim_peer_readable(const struct sim_peer *peer)
{
    return peer->stream->to_world.bytes;
}

size_t sim_peer_read(struct sim_peer *peer, void *data, size_t bytes_max)
{
    size_t count = MIN(bytes_max, peer->stream->to_world.bytes);

    pipe_take(&peer->stream->to_world, data, count);
    if (count > 0)
        sim_note(peer->sim, ~(uint64_t)count);
    return count;
}

bool sim_peer_is_at_end(const struct sim_peer *peer)
{
    const struct stream *stream = peer->stream;

    return stream->to_world.bytes == 0 && (stream->to_world.has_ended || stream->is_reset);
}

bool sim_peer_is_reset(const struct sim_peer *peer)
{
    return peer->stream->is_reset;
}

void sim_peer_shutdown(struct sim_peer *peer)
{
    peer->stream->to_pooler.has_ended = true;
}

void sim_peer_reset(struct sim_peer *peer)
{
    stream_reset(peer->sim, peer->stream);
}

void sim_peer_close(struct sim_peer *peer)
{
    struct stream *stream = peer->stream;

    if (stream->to_world.bytes > 0)
        stream_reset(peer->sim, stream);
    stream->to_pooler.has_ended = true;
    stream->peer = NULL;
    free(peer);
    stream_free_if_unused(stream);
}

/* ---- rings ---- */

static void buffers_hand_over(struct ring *ring, uint16_t index)
{
    struct buffer_pool *pool = ring->options.buffers;
    unsigned last = (ring->buffer_first + ring->buffer_count) & (pool->receive_count_max - 1);

    assert(ring->buffer_count < pool->receive_count_max);
    assert(pool->receive[index].reference_count == 0);
    ring->buffers[last] = index;
    ring->buffer_count++;
    memset(pool->receive[index].data, POISON, pool->receive_bytes);
    HIDE(pool->receive[index].data, pool->receive_bytes);
}

/* As ring_uring.c does it: what came back, and a few more when they run low. */
static void buffers_give(struct ring *ring)
{
    struct buffer_pool *pool = ring->options.buffers;
    uint32_t available = pool->receive_count - pool->receive_used;

    for (uint32_t i = 0; i < pool->returned_count; i++)
        buffers_hand_over(ring, pool->returned[i]);
    pool->returned_count = 0;
    if (available < 16)
        for (int i = 0; i < 64 && pool->receive_count < pool->receive_count_max; i++)
            buffers_hand_over(ring, (uint16_t)pool->receive_count++);
}

/* The oldest of those that the kernel has. Its poison tells whether somebody wrote into it. */
static uint16_t buffer_take(struct ring *ring)
{
    struct buffer_pool *pool = ring->options.buffers;
    uint16_t index = ring->buffers[ring->buffer_first];
    const uint8_t *data = pool->receive[index].data;
    bool is_untouched;

    assert(ring->buffer_count > 0);
    ring->buffer_first = (ring->buffer_first + 1) & (pool->receive_count_max - 1);
    ring->buffer_count--;
    SHOW(data, pool->receive_bytes);
    is_untouched = data[0] == POISON && memcmp(data, data + 1, pool->receive_bytes - 1) == 0;
    assert(is_untouched);
    return index;
}

struct ring *ring_create(const struct ring_options *options, char error[RING_ERROR_BYTES])
{
    struct ring *ring = calloc(1, sizeof(*ring));

    assert(world != NULL);
    assert(ring != NULL);
    error[0] = '\0';
    ring->sim = world;
    ring->options = *options;
    ring->fd = RING_FD_FIRST + world->ring_count++;
    ring->submission_max = MAX(options->entries, 1);
    ring->submissions = calloc(ring->submission_max, sizeof(*ring->submissions));
    ring->buffers = calloc(options->buffers->receive_count_max, sizeof(*ring->buffers));
    assert(ring->submissions != NULL);
    assert(ring->buffers != NULL);
    list_init(&ring->link);
    list_init(&ring->works);
    list_init(&ring->completions);
    list_push_back(&world->rings, &ring->link);
    buffers_give(ring);
    return ring;
}

static void work_free(struct work *work)
{
    free(work->copy);
    free(work);
}

static void ring_submit(struct ring *ring);

void ring_destroy(struct ring *ring)
{
    struct buffer_pool *pool = ring->options.buffers;

    ring_submit(ring);
    assert(list_is_empty(&ring->works));
    assert(list_is_empty(&ring->completions));
    for (uint32_t i = 0; i < pool->receive_count_max; i++)
        SHOW(pool->receive[i].data, pool->receive_bytes);
    list_remove(&ring->link);
    free(ring->submissions);
    free(ring->buffers);
    free(ring);
}

void ring_set_busy_poll(struct ring *ring, uint64_t busy_poll_us)
{
    ring->options.busy_poll_us = busy_poll_us;
}

const char *ring_describe(const struct ring *ring)
{
    (void)ring;
    return "simulated kernel";
}

int ring_fd(const struct ring *ring)
{
    return ring->fd;
}

const struct ring_counters *ring_counters(const struct ring *ring)
{
    return &ring->counters;
}

static struct submission *submission_take(struct ring *ring)
{
    if (ring->submission_count == ring->submission_max)
        ring_submit(ring);
    return &ring->submissions[ring->submission_count++];
}

static struct work *op_start(struct ring *ring, struct op *op, enum work_kind kind, int fd)
{
    struct file *file = file_at(ring->sim, fd);
    struct work *work;

    assert(!op->started);
    assert(op->done != NULL);
    work = calloc(1, sizeof(*work));
    assert(work != NULL);
    op->started = true;
    op->cancelling = false;
    file->started++;
    *work = (struct work){.op = op, .kind = kind, .fd = fd, .is_new = true};
    list_init(&work->link);
    return work;
}

static void work_submit(struct ring *ring, struct work *work)
{
    struct submission *submission = submission_take(ring);

    *submission = (struct submission){.kind = SUBMIT_WORK, .work = work};
}

void ring_accept(struct ring *ring, struct op *op, int listen_fd)
{
    assert(file_at(ring->sim, listen_fd)->kind == FILE_LISTENER);
    work_submit(ring, op_start(ring, op, WORK_ACCEPT, listen_fd));
}

void ring_receive(struct ring *ring, struct op *op, int fd)
{
    assert(file_at(ring->sim, fd)->kind == FILE_SOCKET);
    work_submit(ring, op_start(ring, op, WORK_RECEIVE, fd));
}

void ring_send(struct ring *ring, struct op *op, int fd, const struct iovec *vector, size_t count)
{
    struct work *work;
    size_t at = 0;

    assert(count > 0);
    assert(count <= RING_SEND_VECTOR_MAX);
    assert(file_at(ring->sim, fd)->kind == FILE_SOCKET);
    work = op_start(ring, op, WORK_SEND, fd);
    ring->counters.sends++;
    memcpy(work->vector, vector, count * sizeof(*vector));
    work->vector_count = count;
    for (size_t i = 0; i < count; i++)
        work->bytes += vector[i].iov_len;
    assert(work->bytes > 0);
    work->copy = malloc(work->bytes);
    assert(work->copy != NULL);
    for (size_t i = 0; i < count; i++) {
        memcpy(work->copy + at, vector[i].iov_base, vector[i].iov_len);
        at += vector[i].iov_len;
    }
    work_submit(ring, work);
}

void ring_connect(struct ring *ring, struct op *op, int fd, const struct sockaddr *address,
                  socklen_t address_bytes)
{
    struct work *work;

    assert(file_at(ring->sim, fd)->kind == FILE_SOCKET);
    assert(file_at(ring->sim, fd)->stream == NULL);
    work = op_start(ring, op, WORK_CONNECT, fd);
    address_set(&work->address, address, address_bytes);
    work_submit(ring, work);
    ring_submit(ring);
}

void ring_cancel(struct ring *ring, struct op *op)
{
    if (!op->started || op->cancelling)
        return;
    op->cancelling = true;
    *submission_take(ring) = (struct submission){.kind = SUBMIT_CANCEL, .op = op};
}

void ring_close(struct ring *ring, int fd)
{
    struct file *file = file_at(ring->sim, fd);

    assert(file->started == 0);
    file->is_closing = true;
    *submission_take(ring) = (struct submission){.kind = SUBMIT_CLOSE, .fd = fd};
}

int ring_socket(struct ring *ring, int family)
{
    int fd;

    if (sim_chance(ring->sim, ring->sim->faults.socket_error))
        return -EMFILE;
    fd = file_open(ring->sim, FILE_SOCKET);
    ring->sim->files[fd].family = family;
    return fd;
}

void ring_shutdown(struct ring *ring, int fd)
{
    assert(file_at(ring->sim, fd)->kind == FILE_SOCKET);
    *submission_take(ring) = (struct submission){.kind = SUBMIT_SHUTDOWN, .fd = fd};
}

void ring_wake(struct ring *ring, int other_fd)
{
    assert(other_fd != ring->fd);
    *submission_take(ring) = (struct submission){.kind = SUBMIT_WAKE, .fd = other_fd};
}

int ring_peer_address(struct ring *ring, int fd, struct sockaddr_storage *address)
{
    struct file *file = file_at(ring->sim, fd);

    if (file->stream == NULL || file->stream->is_reset)
        return -ENOTCONN;
    *address = file->stream->world_address.storage;
    return 0;
}

int ring_local_address(struct ring *ring, int fd, struct sockaddr_storage *address)
{
    struct file *file = file_at(ring->sim, fd);

    if (file->kind == FILE_LISTENER)
        *address = file->address.storage;
    else if (file->stream != NULL)
        *address = file->stream->pooler_address.storage;
    else
        *address = (struct sockaddr_storage){.ss_family = (sa_family_t)file->family};
    return 0;
}

uint32_t ring_peer_pid(struct ring *ring, int fd)
{
    return file_at(ring->sim, fd)->family == AF_UNIX ? 4711 : 0;
}

bool ring_peer_is_same_user(struct ring *ring, int fd)
{
    return file_at(ring->sim, fd)->family == AF_UNIX;
}

bool ring_peer_uid(struct ring *ring, int fd, uint32_t *uid)
{
    struct file *file = file_at(ring->sim, fd);

    if (file->family != AF_UNIX || file->stream == NULL || file->stream->is_reset)
        return false;
    *uid = file->stream->world_uid;
    return true;
}

void ring_set_option(struct ring *ring, int fd, int level, int option, int value)
{
    (void)level;
    (void)option;
    (void)value;
    (void)file_at(ring->sim, fd);
}

/* ---- the kernel at work ---- */

static void complete(struct ring *ring, struct work *work, int result, bool more, int buffer_index)
{
    struct pending *pending = calloc(1, sizeof(*pending));

    assert(pending != NULL);
    assert(!work->is_done);
    *pending = (struct pending){
        .work = work, .result = result, .more = more, .buffer_index = buffer_index};
    list_init(&pending->link);
    list_push_back(&ring->completions, &pending->link);
    if (!more) {
        work->is_done = true;
        list_remove(&work->link);
    }
    sim_note(ring->sim, (uint64_t)work->kind << 56 ^ (uint64_t)work->fd << 32 ^
                            (uint64_t)(uint32_t)result ^ (uint64_t)more << 55);
}

static void finish(struct ring *ring, struct work *work, int result)
{
    complete(ring, work, result, false, -1);
}

/* ring_send's promise: "The bytes must stay until completion". */
static void send_check(const struct work *work)
{
    size_t at = 0;

    for (size_t i = 0; i < work->vector_count; i++) {
        bool bytes_of_a_send_have_stayed =
            memcmp(work->copy + at, work->vector[i].iov_base, work->vector[i].iov_len) == 0;

        assert(bytes_of_a_send_have_stayed);
        at += work->vector[i].iov_len;
    }
}

static struct work *work_find(struct ring *ring, const struct op *op)
{
    list_for_each(link, &ring->works)
    {
        struct work *work = OWNER_OF(link, struct work, link);

        if (work->op == op)
            return work;
    }
    return NULL;
}

static void ring_submit(struct ring *ring)
{
    struct sim *sim = ring->sim;
    unsigned count = ring->submission_count;

    ring->submission_count = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct submission *submission = &ring->submissions[i];
        struct work *work;

        switch (submission->kind) {
        case SUBMIT_WORK:
            list_push_back(&ring->works, &submission->work->link);
            break;
        case SUBMIT_CANCEL:
            work = work_find(ring, submission->op);
            if (work != NULL)
                work->is_cancelled = true;
            break;
        case SUBMIT_CLOSE:
            file_close(sim, submission->fd);
            break;
        case SUBMIT_SHUTDOWN:
            sim->files[submission->fd].is_shut_down = true;
            if (sim->files[submission->fd].stream != NULL)
                sim->files[submission->fd].stream->to_world.has_ended = true;
            break;
        case SUBMIT_WAKE:
            list_for_each(link, &sim->rings)
            {
                struct ring *other = OWNER_OF(link, struct ring, link);

                if (other->fd == submission->fd)
                    other->is_woken = true;
            }
            break;
        }
    }
    ring->counters.enters++;
}

static bool is_readable(const struct file *file)
{
    return file->stream == NULL || file->stream->to_pooler.bytes > 0 || file->error != 0 ||
           file->stream->to_pooler.has_ended || file->stream->is_reset || file->is_shut_down;
}

/* Whether an operation could go on now. */
static bool work_is_ready(const struct ring *ring, const struct work *work)
{
    const struct sim *sim = ring->sim;
    const struct file *file = &sim->files[work->fd];

    if (work->is_cancelled)
        return true;
    switch (work->kind) {
    case WORK_ACCEPT:
        return !list_is_empty(&file->backlog);
    case WORK_RECEIVE:
        return is_readable(file) || (work->is_new && ring->buffer_count == 0);
    case WORK_SEND:
        return work->taken > 0 || file->stream == NULL || file->error != 0 || file->is_shut_down ||
               file->stream->is_reset || file->stream->peer == NULL ||
               file->stream->to_world.bytes < file->stream->to_world.bytes_max;
    case WORK_CONNECT:
        return work->hangs_until_us <= sim->now_us;
    }
    return false;
}

static void accept_step(struct ring *ring, struct work *work)
{
    struct sim *sim = ring->sim;
    struct file *file = &sim->files[work->fd];
    struct stream *stream;
    int fd;

    if (sim_chance(sim, sim->faults.accept_error)) {
        finish(ring, work, -EMFILE);
        return;
    }
    stream = OWNER_OF(list_front(&file->backlog), struct stream, link);
    list_remove(&stream->link);
    list_push_back(&sim->streams, &stream->link);
    fd = file_open(sim, FILE_SOCKET);
    file = &sim->files[fd];
    file->family = stream->pooler_address.storage.ss_family;
    file->stream = stream;
    if (stream->is_reset)
        file->error = ECONNRESET;
    complete(ring, work, fd, true, -1);
}

static void receive_step(struct ring *ring, struct work *work)
{
    struct sim *sim = ring->sim;
    struct file *file = &sim->files[work->fd];
    struct buffer_pool *pool = ring->options.buffers;
    unsigned times = 1 + (unsigned)sim_below(sim, RECEIVES_PER_STEP_MAX);

    if (file->stream == NULL) {
        finish(ring, work, -ENOTCONN);
        return;
    }
    if (sim_chance(sim, sim->faults.reset))
        stream_reset(sim, file->stream);
    while (times-- > 0 && is_readable(file)) {
        struct pipe *pipe = &file->stream->to_pooler;
        size_t bytes = MIN(pipe->bytes, (size_t)pool->receive_bytes);
        bool more = !sim_chance(sim, sim->faults.receive_end);
        uint16_t index;

        /* The kernel picks a buffer before it looks at the socket, so an end needs one too. */
        if (ring->buffer_count == 0 || sim_chance(sim, sim->faults.spurious_shortage)) {
            finish(ring, work, -ENOBUFS);
            return;
        }
        if (bytes == 0) {
            int error = file->error;

            file->error = 0;
            finish(ring, work, -error);
            return;
        }
        if (sim_chance(sim, sim->faults.split))
            bytes = 1 + sim_below(sim, bytes);
        index = buffer_take(ring);
        pipe_take(pipe, pool->receive[index].data, bytes);
        complete(ring, work, (int)bytes, more, index);
        if (!more)
            return;
    }
    if (work->is_new && ring->buffer_count == 0)
        finish(ring, work, -ENOBUFS);
    work->is_new = false;
}

static void send_step(struct ring *ring, struct work *work)
{
    struct sim *sim = ring->sim;
    struct file *file = &sim->files[work->fd];
    struct stream *stream = file->stream;
    size_t room;

    if (work->taken > 0) {
        finish(ring, work, (int)work->taken);
        return;
    }
    send_check(work);
    if (stream == NULL) {
        finish(ring, work, -ENOTCONN);
        return;
    }
    if (file->error != 0) {
        int error = file->error;

        file->error = 0;
        finish(ring, work, -error);
        return;
    }
    if (file->is_shut_down || stream->is_reset) {
        finish(ring, work, -EPIPE);
        return;
    }
    if (stream->peer == NULL) {
        /* It is taken, arrives where nobody reads, and a reset comes back. */
        work->taken = work->bytes;
        stream_reset(sim, stream);
    } else {
        room = MIN(stream->to_world.bytes_max - stream->to_world.bytes, work->bytes);
        if (room == 0)
            return;
        if (sim_chance(sim, sim->faults.short_send))
            room = 1 + sim_below(sim, room);
        pipe_put(&stream->to_world, work->copy, room);
        work->taken = room;
    }
    if (!sim_chance(sim, sim->faults.send_late))
        finish(ring, work, (int)work->taken);
}

static void connect_step(struct ring *ring, struct work *work)
{
    struct sim *sim = ring->sim;
    struct file *file = &sim->files[work->fd];
    struct server *server =
        server_find(sim, (const struct sockaddr *)&work->address.storage, work->address.bytes);

    if (work->hangs_until_us > 0) {
        finish(ring, work, -ETIMEDOUT);
        return;
    }
    if (work->is_new && sim_chance(sim, sim->faults.connect_hangs)) {
        work->hangs_until_us = sim->now_us + SIM_CONNECT_TIMEOUT_US;
        return;
    }
    work->is_new = false;
    if (server == NULL || sim_chance(sim, sim->faults.connect_refused)) {
        finish(ring, work, -ECONNREFUSED);
        return;
    }
    file->stream = stream_create(sim);
    file->stream->world_address = work->address;
    address_make(sim, &file->stream->pooler_address, file->family);
    finish(ring, work, 0);
    server->connected(server->context, file->stream->peer);
}

static void work_step(struct ring *ring, struct work *work)
{
    struct sim *sim = ring->sim;

    if (!work_is_ready(ring, work) || sim_chance(sim, sim->faults.delay))
        return;
    if (work->is_cancelled && work->taken == 0) {
        if (!sim_chance(sim, sim->faults.cancel_late)) {
            finish(ring, work, -ECANCELED);
            return;
        }
        work->is_cancelled = false;
        if (work_is_ready(ring, work))
            work->is_cancelled = true;
        else {
            work->is_cancelled = true;
            return;
        }
    }
    switch (work->kind) {
    case WORK_ACCEPT:
        accept_step(ring, work);
        break;
    case WORK_RECEIVE:
        receive_step(ring, work);
        break;
    case WORK_SEND:
        send_step(ring, work);
        break;
    case WORK_CONNECT:
        connect_step(ring, work);
        break;
    }
}

/* Looks at each operation once, in an order that the seed draws. */
static void ring_progress(struct ring *ring)
{
    struct sim *sim = ring->sim;
    struct list order;

    list_init(&order);
    while (!list_is_empty(&ring->works)) {
        struct list *link = list_front(&ring->works);

        list_remove(link);
        if (sim_below(sim, 2) == 0)
            list_push_front(&order, link);
        else
            list_push_back(&order, link);
    }
    while (!list_is_empty(&order)) {
        struct list *link = list_front(&order);

        list_remove(link);
        list_push_back(&ring->works, link);
        work_step(ring, OWNER_OF(link, struct work, link));
    }
}

bool sim_would_return(struct ring *ring, uint64_t deadline_us)
{
    assert(!ring->in_turn);
    buffers_give(ring);
    ring_submit(ring);
    ring_progress(ring);
    return !list_is_empty(&ring->completions) || ring->is_woken || deadline_us <= ring->sim->now_us;
}

bool sim_is_rung(const struct ring *ring)
{
    if (ring->is_woken)
        return true;
    list_for_each(link, &ring->sim->rings)
    {
        const struct ring *other = OWNER_OF(link, struct ring, link);

        for (unsigned i = 0; i < other->submission_count; i++)
            if (other->submissions[i].kind == SUBMIT_WAKE && other->submissions[i].fd == ring->fd)
                return true;
    }
    return false;
}

bool sim_has_work(struct sim *sim)
{
    list_for_each(link, &sim->rings)
    {
        struct ring *ring = OWNER_OF(link, struct ring, link);

        if (ring->submission_count > 0 || !list_is_empty(&ring->completions) || ring->is_woken)
            return true;
        list_for_each(work_link,
                      &ring->works) if (work_is_ready(ring, OWNER_OF(work_link, struct work,
                                                                     link))) return true;
    }
    return false;
}

uint64_t sim_next_us(const struct sim *sim)
{
    uint64_t next_us = UINT64_MAX;

    list_for_each(link, &sim->rings)
    {
        list_for_each(work_link, &OWNER_OF(link, struct ring, link)->works)
        {
            const struct work *work = OWNER_OF(work_link, struct work, link);

            if (work->hangs_until_us > 0)
                next_us = MIN(next_us, work->hangs_until_us);
        }
    }
    return next_us;
}

static void deliver(struct ring *ring, struct pending *pending)
{
    struct work *work = pending->work;
    struct op *op = work->op;
    struct completion completion = {.result = pending->result, .more = pending->more};

    assert(op->started);
    if (work->kind == WORK_SEND)
        send_check(work);
    if (pending->buffer_index >= 0) {
        completion.buffer =
            buffer_receive_filled(ring->options.buffers, (uint16_t)pending->buffer_index);
        ring->counters.receives++;
    }
    if (completion.result == -ENOBUFS)
        ring->counters.buffer_shortages++;
    if (!completion.more) {
        struct file *file = &ring->sim->files[work->fd];

        assert(file->started > 0);
        file->started--;
        op->started = false;
        work_free(work);
    }
    free(pending);
    op->done(op, &completion);
}

unsigned ring_turn(struct ring *ring, uint64_t deadline_us)
{
    struct list due;
    unsigned count = 0;

    (void)deadline_us;
    assert(!ring->in_turn);
    buffers_give(ring);
    ring_submit(ring);
    ring_progress(ring);
    ring->in_turn = true;
    ring->is_woken = false;
    if (ring->options.now_us != NULL)
        *ring->options.now_us = ring->sim->now_us;
    list_init(&due);
    list_append_all(&due, &ring->completions);
    while (!list_is_empty(&due)) {
        struct pending *pending = OWNER_OF(list_front(&due), struct pending, link);

        list_remove(&pending->link);
        deliver(ring, pending);
        count++;
    }
    ring->in_turn = false;
    ring->counters.completions += count;
    return count;
}

/* Time costs nothing here. */
void ring_gather(struct ring *ring, unsigned count, unsigned patience_us)
{
    (void)ring;
    (void)count;
    (void)patience_us;
}

bool ring_gathered_in_vain(const struct ring *ring)
{
    (void)ring;
    return false;
}
