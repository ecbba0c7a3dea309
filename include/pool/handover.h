/* handover.h - a session that goes from the core that accepted it to where it belongs: another core
 * (its pool's, or the one that knows a cancel key or sends it on to a peer), or control (the console).
 *
 * The struct is part of the sender's login (slab); it is the receiver's from the post on, which
 * takes the descriptor and what it needs, and posts the letter back with handover_returned, so that
 * the sender can free it. Nothing of it may be used after that. */
#ifndef POOL_HANDOVER_H
#define POOL_HANDOVER_H

#include "pool/core.h"
#include "wire/startup.h"

enum handover_kind { HANDOVER_CLIENT, HANDOVER_CANCEL, HANDOVER_CONSOLE };

enum {
    HANDOVER_LEFTOVER_BYTES = 2048,
    HANDOVER_PARAMS_BYTES = 2048,
    HANDOVER_OPTIONS_BYTES = 1024,
};

struct handover {
    struct letter letter;
    enum handover_kind kind;
    unsigned from_core, to_core;
    unsigned hop_count;  /* of a cancel: how many cores have looked for the key */
    bool is_for_peer;    /* of a cancel: not ours, to be sent on */
    int fd;              /* quiet: no op, nothing queued */
    struct tls *tls;     /* goes along; NULL: plain */
    struct shard *shard; /* of a client: where it is counted already */
    struct peer_name peer;
    uint64_t id, connect_us;
    char database[DATABASE_NAME_BYTES_MAX]; /* as the client asked for it */
    char user[USER_NAME_BYTES_MAX];         /* login name */
    bool is_admin;                          /* console: in admin_users */
    bool
        is_anybody; /* auth_type any: `user` is only what it calls itself, the entry's user= is meant */
    uint8_t cancel_key[8];
    /* SCRAM keys learned from the client's login, for the server's. */
    bool has_scram_keys;
    uint8_t client_key[32], server_key[32];
    /* A password for the server's login: what PAM or LDAP has let the client in with, or the secret that
     * auth_query has found; NULL: none. Lies in the sender's login. */
    const char *password;
    bool password_is_found; /* by auth_query */
    /* Tracked parameters that the client asked for: for each a length (0xffff: none) and the bytes
     * with their closing zero. */
    uint16_t params_bytes;
    uint8_t params[HANDOVER_PARAMS_BYTES];
    enum startup_replication replication;
    char options[HANDOVER_OPTIONS_BYTES]; /* with replication: as the client sent them */
    /* What the client has sent after its login. */
    uint32_t leftover_bytes;
    uint8_t leftover[HANDOVER_LEFTOVER_BYTES];
};

/* Opened by a core: takes the session in. */
void handover_open(struct letter *letter, void *core);
/* Opened by the core that sent it. */
void handover_returned(struct letter *letter, void *core);

#endif
