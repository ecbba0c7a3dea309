/* tls_setup.h - makes the TLS contexts of a snapshot out of its settings.
 *
 * Control only: it reads the files of certificates, keys and authorities, as the user that the process
 * is at that moment. At the start that may be root; a RELOAD needs the right to read them again
 * (as with PgBouncer). The same path with new contents is a new context. One that would be the same as
 * the running one is the running one: its tickets stay valid, and servers stay.
 *
 * Servers that were opened with another server context, or under another server_tls_sslmode, are
 * retired by each core when it gets the snapshot (pool/core.h). */
#ifndef CONTROL_TLS_SETUP_H
#define CONTROL_TLS_SETUP_H

#include "config/snapshot.h"

/* Gives both contexts to `snapshot`, which has just been loaded; `running` is the one before, or NULL.
 * False: it has none, and every mistake has been reported (LEVEL_ERROR) with the name of its setting. */
must_check bool tls_setup_load(struct snapshot *snapshot, const struct snapshot *running,
                               log_report *report, void *context);

/* What is in force stays so: the contexts of `running`, and both of its sslmodes. */
void tls_setup_keep(struct snapshot *snapshot, const struct snapshot *running);

/* SET of it needs tls_setup_load; of others tls_setup_keep is enough. */
bool tls_setup_is_about(const char *setting_name);

#endif
