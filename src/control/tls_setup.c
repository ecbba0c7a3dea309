#include "control/tls_setup.h"

#include "base/assert.h"
#include "crypto/tls_ciphers.h"

#include <stdarg.h>
#include <stdio.h>

/* The settings of one side, and the lists that are made of them. */
struct side {
    const char *name; /* "client" or "server": how its settings begin */
    const char *certificate_file, *key_file, *authorities_file;
    const char *ciphers, *ciphers_13, *protocols, *curve;
    int dhe; /* enum tls_dheparams */
    char suites[2 * TLS_SUITES_BYTES], groups[TLS_GROUPS_BYTES];
    struct tls_options options;
    log_report *report;
    void *context;
    bool has_mistake;
};

static void say(struct side *side, enum log_level level, const char *format, ...) printf_like(3, 4);

static void say(struct side *side, enum log_level level, const char *format, ...)
{
    char text[LOG_TEXT_BYTES_MAX];
    size_t used = (size_t)snprintf(text, sizeof(text), "%s_", side->name);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text + used, sizeof(text) - used, format, arguments);
    va_end(arguments);
    if (level == LEVEL_ERROR)
        side->has_mistake = true;
    side->report(side->context, level, text);
}

static bool has_text(const char *text)
{
    return text != NULL && *text != '\0';
}

/* ---- from words to lists ---- */

static void read_protocols(struct side *side)
{
    unsigned possible = tls_protocols(), missing;
    bool is_all;

    if (!tls_protocols_parse(side->protocols, &side->options.protocols)) {
        say(side, LEVEL_ERROR,
            "tls_protocols: \"%.100s\" is no list of tlsv1.0, tlsv1.1, tlsv1.2, tlsv1.3, all, "
            "secure",
            side->protocols);
        return;
    }
    /* `all` has always meant all that there are. */
    is_all = (~side->options.protocols &
              (TLS_PROTOCOL_1_0 | TLS_PROTOCOL_1_1 | TLS_PROTOCOL_1_2 | TLS_PROTOCOL_1_3)) == 0;
    missing = side->options.protocols & ~possible;
    side->options.protocols &= possible;
    if (side->options.protocols == 0)
        say(side, LEVEL_ERROR, "tls_protocols: \"%.100s\" has none that the TLS library has",
            side->protocols);
    else if (missing != 0 && !is_all)
        say(side, LEVEL_WARNING, "tls_protocols: the TLS library has no%s%s, left out",
            (missing & TLS_PROTOCOL_1_0) != 0 ? " tlsv1.0" : "",
            (missing & TLS_PROTOCOL_1_1) != 0 ? " tlsv1.1" : "");
}

/* Adds those that the library has; false: it has none. */
static bool put_suites(struct side *side, const struct tls_cipher_list *list)
{
    size_t used = strlen(side->suites), before = used;
    char names[TLS_SUITES_BYTES], *rest = names, *name;

    memcpy(names, list->suites, sizeof(names));
    while ((name = strsep(&rest, ":")) != NULL)
        if (tls_has_suite(name))
            used += (size_t)snprintf(side->suites + used, sizeof(side->suites) - used, "%s%s",
                                     used == 0 ? "" : ":", name);
    assert(used < sizeof(side->suites));
    return used > before;
}

static void take_list(struct side *side, const char *setting, const char *wanted, bool is_good,
                      const struct tls_cipher_list *list)
{
    if (list->unknown[0] != '\0')
        say(side, LEVEL_WARNING, "%s: not known or not offered, left out: %s", setting,
            list->unknown);
    if (!is_good || !put_suites(side, list))
        say(side, LEVEL_ERROR, "%s: \"%.200s\" leaves no suite that is possible here", setting,
            wanted == NULL ? "" : wanted);
}

static void read_suites(struct side *side)
{
    unsigned flags = tls_has_fast_aes() ? TLS_CIPHERS_FAST_AES : 0;
    struct tls_cipher_list list;
    bool is_good;

    switch (tls_groups_parse(side->curve, side->groups)) {
    case TLS_GROUPS_GOOD:
        break;
    case TLS_GROUPS_NONE:
        flags |= TLS_CIPHERS_WITHOUT_ECDHE;
        break;
    case TLS_GROUPS_BAD:
        say(side, LEVEL_ERROR,
            "tls_ecdhcurve: \"%.100s\" is none of none, auto, X25519, prime256v1, secp384r1, "
            "secp521r1",
            side->curve);
        break;
    }
    if (side->dhe == TLS_DHEPARAMS_NONE)
        flags |= TLS_CIPHERS_WITHOUT_DHE;
    if ((side->options.protocols & TLS_PROTOCOL_1_3) != 0) {
        is_good = tls_ciphers_translate_13(side->ciphers_13, flags, &list);
        take_list(side, "tls13_ciphers", side->ciphers_13, is_good, &list);
    }
    if ((side->options.protocols & ~(unsigned)TLS_PROTOCOL_1_3) != 0) {
        is_good = tls_ciphers_translate(side->ciphers, flags, &list);
        take_list(side, "tls_ciphers", side->ciphers, is_good, &list);
    }
}

static struct tls_context *make_context(struct side *side, struct tls_context *running)
{
    struct tls_options *options = &side->options;
    struct tls_context *context;
    char error[TLS_ERROR_BYTES] = "";

    read_protocols(side);
    read_suites(side);
    options->certificate_file = side->certificate_file;
    options->key_file = side->key_file;
    options->suites = side->suites;
    options->groups = side->groups[0] != '\0' ? side->groups : NULL;
    options->dhe = side->dhe == TLS_DHEPARAMS_NONE     ? TLS_DHE_NONE
                   : side->dhe == TLS_DHEPARAMS_LEGACY ? TLS_DHE_1024
                                                       : TLS_DHE_2048;
    if (side->has_mistake)
        return NULL;
    context = tls_context_create(options, error);
    if (context == NULL) {
        say(side, LEVEL_ERROR, "tls: %s", error);
        return NULL;
    }
    if (running != NULL && tls_context_is_same(context, running)) {
        tls_context_release(context);
        return tls_context_reference(running);
    }
    return context;
}

/* ---- the two sides ---- */

static struct tls_context *make_client_side(struct side *side, const struct settings *settings,
                                            struct tls_context *running)
{
    bool has_authorities = has_text(settings->client_tls_ca_file);

    side->name = "client";
    side->certificate_file = settings->client_tls_cert_file;
    side->key_file = settings->client_tls_key_file;
    side->ciphers = settings->client_tls_ciphers;
    side->ciphers_13 = settings->client_tls13_ciphers;
    side->protocols = settings->client_tls_protocols;
    side->curve = settings->client_tls_ecdhcurve;
    side->dhe = settings->client_tls_dheparams;
    if (settings->auth_type == AUTH_CERT && settings->client_tls_sslmode < TLS_MODE_VERIFY_CA)
        say(side, LEVEL_ERROR, "tls_sslmode has to be verify-full for auth_type cert");
    if (settings->client_tls_sslmode == TLS_MODE_DISABLE)
        return NULL;
    if (!has_text(side->key_file) || !has_text(side->certificate_file))
        say(side, LEVEL_ERROR,
            "tls_sslmode needs client_tls_key_file and client_tls_cert_file, unless it is disable");
    if (settings->client_tls_sslmode >= TLS_MODE_VERIFY_CA && !has_authorities)
        say(side, LEVEL_ERROR, "tls_sslmode verify-ca and verify-full need client_tls_ca_file");
    side->options.side = TLS_SIDE_SERVER;
    side->options.alpn = "postgresql";
    side->options.verify = settings->client_tls_sslmode >= TLS_MODE_VERIFY_CA ? TLS_VERIFY_CHAIN
                           : has_authorities                                  ? TLS_VERIFY_IF_GIVEN
                                                                              : TLS_VERIFY_NONE;
    side->options.authorities_file = has_authorities ? settings->client_tls_ca_file : NULL;
    side->options.gives_tickets = side->options.verify == TLS_VERIFY_NONE;
    return make_context(side, running);
}

static struct tls_context *make_server_side(struct side *side, const struct settings *settings,
                                            struct tls_context *running)
{
    bool verifies = settings->server_tls_sslmode >= TLS_MODE_VERIFY_CA;

    side->name = "server";
    side->certificate_file = settings->server_tls_cert_file;
    side->key_file = settings->server_tls_key_file;
    side->ciphers = settings->server_tls_ciphers;
    side->ciphers_13 = settings->server_tls13_ciphers;
    side->protocols = settings->server_tls_protocols;
    side->dhe = TLS_DHEPARAMS_AUTO;
    if (settings->server_tls_sslmode == TLS_MODE_DISABLE)
        return NULL;
    if (has_text(side->key_file) != has_text(side->certificate_file))
        say(side, LEVEL_ERROR, "tls_key_file and server_tls_cert_file need each other");
    if (verifies && !has_text(settings->server_tls_ca_file))
        say(side, LEVEL_ERROR,
            "tls_sslmode verify-ca and verify-full need server_tls_ca_file (the system's "
            "authorities: /etc/ssl/certs/ca-certificates.crt)");
    side->options.side = TLS_SIDE_CLIENT;
    side->options.verify = settings->server_tls_sslmode == TLS_MODE_VERIFY_FULL ? TLS_VERIFY_HOST
                           : verifies                                           ? TLS_VERIFY_CHAIN
                                                                                : TLS_VERIFY_NONE;
    side->options.authorities_file = verifies ? settings->server_tls_ca_file : NULL;
    return make_context(side, running);
}

/* ---- for others ---- */

bool tls_setup_load(struct snapshot *snapshot, const struct snapshot *running, log_report *report,
                    void *context)
{
    struct side client_side = {.report = report, .context = context};
    struct side server_side = {.report = report, .context = context};
    struct tls_context *client_tls, *server_tls;

    client_tls = make_client_side(&client_side, &snapshot->settings,
                                  running != NULL ? running->client_tls : NULL);
    server_tls = make_server_side(&server_side, &snapshot->settings,
                                  running != NULL ? running->server_tls : NULL);
    if (client_side.has_mistake || server_side.has_mistake) {
        if (client_tls != NULL)
            tls_context_release(client_tls);
        if (server_tls != NULL)
            tls_context_release(server_tls);
        return false;
    }
    snapshot_set_tls(snapshot, client_tls, server_tls, tls_context_release);
    return true;
}

void tls_setup_keep(struct snapshot *snapshot, const struct snapshot *running)
{
    snapshot->settings.client_tls_sslmode = running->settings.client_tls_sslmode;
    snapshot->settings.server_tls_sslmode = running->settings.server_tls_sslmode;
    snapshot_set_tls(
        snapshot, running->client_tls != NULL ? tls_context_reference(running->client_tls) : NULL,
        running->server_tls != NULL ? tls_context_reference(running->server_tls) : NULL,
        tls_context_release);
}

bool tls_setup_is_about(const char *setting_name)
{
    return strncmp(setting_name, "client_tls", strlen("client_tls")) == 0 ||
           strncmp(setting_name, "server_tls", strlen("server_tls")) == 0;
}
