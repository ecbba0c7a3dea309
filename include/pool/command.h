/* command.h - what control tells a core to do: a letter there, run between two completions, and
 * back.
 *
 * Belongs to control; it is the core's from the post to the answer. */
#ifndef POOL_COMMAND_H
#define POOL_COMMAND_H

#include "pool/core.h"

enum command_kind {
    COMMAND_SNAPSHOT, /* takes `snapshot` (one reference) */
    COMMAND_PAUSE,
    COMMAND_RESUME, /* without database: ends PAUSE and SUSPEND of everything */
    COMMAND_SUSPEND,
    COMMAND_SUSPEND_DROP, /* closes what keeps a SUSPEND from being complete */
    COMMAND_RECONNECT,
    COMMAND_DISABLE,
    COMMAND_ENABLE,
    COMMAND_KILL,
    COMMAND_KILL_CLIENT, /* `id`; answers `found` */
    COMMAND_SHUTDOWN,    /* `shutdown` */
    COMMAND_HOST,        /* `host`: an address of it is gone */
    COMMAND_CANCEL,      /* `cancel_key`, of a request that another process got; answers `found` */
};

struct command {
    struct letter
        letter; /* `open` must be command_open on the way there; control's own on the way back */
    letter_open *answered;
    enum command_kind kind;
    bool has_database; /* else: all */
    char database[DATABASE_NAME_BYTES_MAX];
    struct snapshot *snapshot;
    enum shutdown_mode shutdown;
    uint64_t id;
    uint8_t cancel_key[8];
    bool found;
    const struct host_news *host; /* control's, until all have answered */
    void *owner;                  /* control's */
};

/* The context is the core; runs the command and posts it back to control. */
void command_open(struct letter *letter, void *core);

#endif
