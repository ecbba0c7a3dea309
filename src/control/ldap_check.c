#include "control/ldap_check.h"

#include "base/clock.h"

#include <errno.h>
#include <ldap.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum { NAME_BYTES_MAX = 2048, FILTER_BYTES_MAX = 8192 };

void ldap_check_start(void)
{
    LDAPAPIInfo info = {.ldapai_info_version = LDAP_API_INFO_VERSION};

    if (ldap_get_option(NULL, LDAP_OPT_API_INFO, &info) == LDAP_OPT_SUCCESS) {
        ldap_memfree(info.ldapai_vendor_name);
        ber_memvfree((void **)info.ldapai_extensions);
    }
}

/* ---- a connection that is not waited for without end ----
 *
 * The library's timeouts are for connecting and for answers. A TLS handshake it reads and writes
 * without one (Debian's build), and a server that says nothing there would hold the thread. So below TLS lies a layer
 * of ours, which waits for the socket itself. */

struct patience {
    struct ldap_conncb callback; /* first: it is what we are given back */
    uint64_t timeout_us, deadline_us;
};

static bool wait_for(Sockbuf_IO_Desc *layer, short events)
{
    const struct patience *patience = layer->sbiod_pvt;
    struct pollfd socket = {.fd = -1, .events = events};
    int result;

    (void)ber_sockbuf_ctrl(layer->sbiod_sb, LBER_SB_OPT_GET_FD, &socket.fd);
    do {
        uint64_t now_us = clock_now_us();
        uint64_t left_us = patience->deadline_us > now_us ? patience->deadline_us - now_us : 0;

        result = poll(&socket, 1, (int)MIN((left_us + US_PER_MS - 1) / US_PER_MS, INT_MAX));
    } while (result < 0 && errno == EINTR);
    if (result == 0)
        errno = ETIMEDOUT;
    return result > 0;
}

static int layer_setup(Sockbuf_IO_Desc *layer, void *patience)
{
    layer->sbiod_pvt = patience;
    return 0;
}

static int layer_remove(Sockbuf_IO_Desc *layer)
{
    (void)layer;
    return 0;
}

static int layer_control(Sockbuf_IO_Desc *layer, int option, void *argument)
{
    return LBER_SBIOD_CTRL_NEXT(layer, option, argument);
}

static ber_slen_t layer_read(Sockbuf_IO_Desc *layer, void *data, ber_len_t bytes)
{
    return wait_for(layer, POLLIN) ? LBER_SBIOD_READ_NEXT(layer, data, bytes) : -1;
}

static ber_slen_t layer_write(Sockbuf_IO_Desc *layer, void *data, ber_len_t bytes)
{
    return wait_for(layer, POLLOUT) ? LBER_SBIOD_WRITE_NEXT(layer, data, bytes) : -1;
}

static Sockbuf_IO patient_layer = {
    .sbi_setup = layer_setup,
    .sbi_remove = layer_remove,
    .sbi_ctrl = layer_control,
    .sbi_read = layer_read,
    .sbi_write = layer_write,
    .sbi_close = layer_remove,
};

static int connected(LDAP *ldap, Sockbuf *buffer, LDAPURLDesc *url, struct sockaddr *address,
                     struct ldap_conncb *callback)
{
    struct patience *patience = OWNER_OF(callback, struct patience, callback);

    (void)ldap;
    (void)url;
    (void)address;
    patience->deadline_us = clock_now_us() + patience->timeout_us;
    return ber_sockbuf_add_io(buffer, &patient_layer, LBER_SBIOD_LEVEL_PROVIDER + 1, patience);
}

static void disconnected(LDAP *ldap, Sockbuf *buffer, struct ldap_conncb *callback)
{
    (void)ldap;
    (void)buffer;
    (void)callback;
}

/* ---- what is asked ---- */

/* With what the server, or the library, has to say about it: foreign text, for the log. */
static bool fail(struct password_check *check, LDAP *ldap, const char *what, int result)
{
    char *details = NULL;

    if (ldap != NULL)
        (void)ldap_get_option(ldap, LDAP_OPT_DIAGNOSTIC_MESSAGE, &details);
    snprintf(check->reason, sizeof(check->reason), "LDAP: %s: %s%s%s", what,
             ldap_err2string(result), details != NULL && details[0] != '\0' ? ": " : "",
             details != NULL ? details : "");
    ldap_memfree(details);
    for (char *at = check->reason; *at != '\0'; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = '?';
    return false;
}

static struct timeval timeout_of(const struct password_check *check)
{
    return (struct timeval){.tv_sec = (time_t)(check->timeout_us / US_PER_S),
                            .tv_usec = (suseconds_t)(check->timeout_us % US_PER_S)};
}

static bool set_options(struct password_check *check, LDAP *ldap, struct patience *patience)
{
    const struct timeval timeout = timeout_of(check);
    const int version = LDAP_VERSION3;
    int result = ldap_set_option(ldap, LDAP_OPT_PROTOCOL_VERSION, &version);

    if (result == LDAP_OPT_SUCCESS)
        result = ldap_set_option(ldap, LDAP_OPT_NETWORK_TIMEOUT, &timeout);
    if (result == LDAP_OPT_SUCCESS)
        result = ldap_set_option(ldap, LDAP_OPT_TIMEOUT, &timeout);
    if (result == LDAP_OPT_SUCCESS)
        result = ldap_set_option(ldap, LDAP_OPT_CONNECT_CB, &patience->callback);
    return result == LDAP_OPT_SUCCESS || fail(check, ldap, "setting options", LDAP_LOCAL_ERROR);
}

static int bind_as(LDAP *ldap, const char *name, const char *password)
{
    struct berval credentials = {.bv_len = strlen(password), .bv_val = (char *)(uintptr_t)password};

    return ldap_sasl_bind_s(ldap, name, LDAP_SASL_SIMPLE, &credentials, NULL, NULL, NULL);
}

/* The name of the one entry that fits, freed by the caller with ldap_memfree. NULL: none, or
 * several. */
static char *search(struct password_check *check, LDAP *ldap)
{
    static const int scopes[] = {[LDAP_SEARCH_BASE] = LDAP_SCOPE_BASE,
                                 [LDAP_SEARCH_ONE] = LDAP_SCOPE_ONELEVEL,
                                 [LDAP_SEARCH_SUBTREE] = LDAP_SCOPE_SUBTREE};
    static char no_attributes[] = LDAP_NO_ATTRS;
    char *attributes[] = {no_attributes, NULL};
    const struct ldap_options *options = check->ldap;
    struct timeval timeout = timeout_of(check);
    char filter[FILTER_BYTES_MAX];
    LDAPMessage *found = NULL;
    char *name = NULL;
    int result, count;

    if (!ldap_options_filter(options, check->user, filter, sizeof(filter))) {
        (void)fail(check, NULL, "making the filter", LDAP_FILTER_ERROR);
        return NULL;
    }
    /* More than one is as bad as none: two are enough to know. */
    result = ldap_search_ext_s(ldap, options->basedn, scopes[options->scope], filter, attributes, 0,
                               NULL, NULL, &timeout, 2, &found);
    count = found != NULL ? ldap_count_entries(ldap, found) : 0;
    if (result != LDAP_SUCCESS)
        (void)fail(check, ldap, "searching for the user", result);
    else if (count != 1)
        snprintf(check->reason, sizeof(check->reason), "LDAP: %s fits the search",
                 count == 0 ? "no entry" : "more than one entry");
    else
        name = ldap_get_dn(ldap, ldap_first_entry(ldap, found));
    if (found != NULL)
        (void)ldap_msgfree(found);
    return name;
}

static bool search_and_bind(struct password_check *check, LDAP *ldap)
{
    int result = bind_as(ldap, check->ldap->binddn, check->ldap->bindpasswd);
    char *name;

    if (result != LDAP_SUCCESS)
        return fail(check, ldap, "binding as ldapbinddn for the search", result);
    name = search(check, ldap);
    if (name == NULL)
        return false;
    /* A bind without a name is anonymous, and succeeds with any password. */
    result = name[0] != '\0' ? bind_as(ldap, name, check->password) : LDAP_INVALID_CREDENTIALS;
    ldap_memfree(name);
    return result == LDAP_SUCCESS || fail(check, ldap, "binding as the user", result);
}

static bool simple_bind(struct password_check *check, LDAP *ldap)
{
    char name[NAME_BYTES_MAX];
    int result = LDAP_INVALID_CREDENTIALS;

    if (ldap_options_bind_name(check->ldap, check->user, name, sizeof(name)) && name[0] != '\0')
        result = bind_as(ldap, name, check->password);
    return result == LDAP_SUCCESS || fail(check, ldap, "binding as the user", result);
}

static bool ask(struct password_check *check, LDAP *ldap)
{
    int result;

    if (check->ldap->starttls) {
        result = ldap_start_tls_s(ldap, NULL, NULL);
        if (result != LDAP_SUCCESS)
            return fail(check, ldap, "StartTLS", result);
    }
    return check->ldap->is_search ? search_and_bind(check, ldap) : simple_bind(check, ldap);
}

void ldap_check_run(struct job *job)
{
    struct password_check *check = OWNER_OF(job, struct password_check, job);
    struct patience patience = {
        .callback = {.lc_add = connected, .lc_del = disconnected},
        .timeout_us = check->timeout_us,
    };
    LDAP *ldap = NULL;
    int result;

    /* A bind with a name and no password is anonymous, and succeeds. */
    assert(check->password[0] != '\0');
    result = ldap_initialize(&ldap, check->ldap->uris);
    if (result != LDAP_SUCCESS) {
        (void)fail(check, NULL, "ldap_initialize", result);
        return;
    }
    check->is_right = set_options(check, ldap, &patience) && ask(check, ldap);
    (void)ldap_unbind_ext_s(ldap, NULL, NULL);
}
