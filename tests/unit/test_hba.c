/* test_hba.c - HBA files: what is read, what is left out, and who matches; against Python's ipaddress
 * and against a second implementation that is as simple as it can be. */
#include "config_files.h"
#include "unit.h"

#include "config/hba.h"

#include <arpa/inet.h>
#include <sys/socket.h>

static struct reported reported;

/* The configuration with these files beside it: "hba" and perhaps "ident", lists. NULL: refused. */
static struct snapshot *load_beside(const char *hba, const char *ident,
                                    const struct test_file *lists)
{
    struct test_file files[16] = {
        {"t.ini", ident != NULL ? "[pgbouncer]\nauth_type = hba\nauth_hba_file = etc/hba\n"
                                  "auth_ident_file = etc/ident\n"
                                : "[pgbouncer]\nauth_type = hba\nauth_hba_file = etc/hba\n"}};
    size_t count = 1;

    if (hba != NULL)
        files[count++] = (struct test_file){"etc/hba", hba};
    if (ident != NULL)
        files[count++] = (struct test_file){"etc/ident", ident};
    while (lists != NULL && lists->path != NULL)
        files[count++] = *lists++;
    assert_true(count < COUNT_OF(files));
    return load_files(files, &reported);
}

static struct snapshot *load_rules(const char *hba)
{
    struct snapshot *snapshot = load_beside(hba, "m os app\n", NULL);

    if (snapshot == NULL)
        fail_msg("refused: %s", reported.text);
    return snapshot;
}

/* `from`: "unix", an address, or an address with "+tls". */
static const struct hba_rule *find(const struct snapshot *snapshot, const char *database,
                                   const char *user, const char *from,
                                   enum hba_replication replication)
{
    char address[64];
    uint8_t bytes[16] = {0};
    struct hba_question question = {.database = database,
                                    .user = user,
                                    .family = AF_UNIX,
                                    .address = bytes,
                                    .replication = replication};
    const char *plus = strchr(from, '+');

    if (strcmp(from, "unix") != 0) {
        snprintf(address, sizeof(address), "%.*s", plus != NULL ? (int)(plus - from) : 63, from);
        question.family = strchr(address, ':') != NULL ? AF_INET6 : AF_INET;
        question.has_tls = plus != NULL;
        assert_int_equal(inet_pton(question.family, address, bytes), 1);
    }
    return hba_find(&snapshot->hba, &question);
}

/* The line of the rule that decides, 0: none. */
static int line_for(const struct snapshot *snapshot, const char *database, const char *user,
                    const char *from)
{
    const struct hba_rule *rule = find(snapshot, database, user, from, HBA_NO_REPLICATION);

    return rule != NULL ? rule->line : 0;
}

static void the_first_line_that_matches_decides(void **state)
{
    struct snapshot *snapshot = load_rules("local app app md5\n"
                                           "host all app 10.0.0.0/8 trust\n"
                                           "host all all 10.0.0.0/24 reject\n"
                                           "hostssl all all all cert\n"
                                           "hostnossl all all all scram-sha-256\n"
                                           "local all all peer\n");

    (void)state;
    assert_string_equal(reported.text, "");
    assert_int_equal(line_for(snapshot, "app", "app", "unix"), 1);
    assert_int_equal(line_for(snapshot, "app", "ann", "unix"), 6);
    assert_int_equal(line_for(snapshot, "x", "app", "unix"), 6);
    assert_int_equal(line_for(snapshot, "x", "app", "10.0.0.1"), 2);
    assert_int_equal(line_for(snapshot, "x", "ann", "10.0.0.1"), 3);
    assert_int_equal(line_for(snapshot, "x", "ann", "10.0.1.1"), 5);
    assert_int_equal(line_for(snapshot, "x", "ann", "10.0.1.1+tls"), 4);
    assert_int_equal(line_for(snapshot, "x", "ann", "::1"), 5);
    assert_int_equal(line_for(snapshot, "x", "ann", "::1+tls"), 4);
    snapshot_release(snapshot);
}

static void each_method_has_its_word(void **state)
{
    static const struct {
        const char *word;
        int method; /* -1: refused */
    } words[] = {
        {"trust", AUTH_TRUST},
        {"reject", AUTH_REJECT},
        {"md5", AUTH_MD5},
        {"password", AUTH_PLAIN},
        {"scram-sha-256", AUTH_SCRAM_SHA_256},
        {"cert", AUTH_CERT},
        {"peer", AUTH_PEER},
        {"ldap ldapserver=x ldapprefix=y", AUTH_LDAP},
        {"plain", -1},
        {"pam", -1},
        {"any", -1},
        {"hba", -1},
        {"ident", -1},
        {"gss", -1},
        {"sspi", -1},
        {"radius", -1},
        {"bsd", -1},
        {"MD5", -1},
        {"\"md5\"", -1},
        {"md", -1},
        {"md5 md5", -1},
        {"md5,", -1},
        {"", -1},
        {"# md5", -1},
        {"md5 \"", -1},
        {"trust clientcert=verify-full", -1},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(words); i++)
        for (int is_local = 0; is_local < 2; is_local++) {
            char text[200];
            struct snapshot *snapshot;

            snprintf(text, sizeof(text), "%s %s\n", is_local ? "local all all" : "host all all all",
                     words[i].word);
            snapshot = load_rules(text);
            assert_int_equal(snapshot->hba.rule_count, words[i].method < 0 ? 0 : 1);
            if (words[i].method >= 0)
                assert_int_equal(snapshot->hba.rules[0].method, words[i].method);
            else
                assert_reported(&reported, "WARNING could not parse hba config line 1: ");
            snapshot_release(snapshot);
        }
}

static void maps_are_found_when_the_file_is_read(void **state)
{
    struct snapshot *snapshot = load_beside(
        "local all all peer map=m\nlocal all all md5 map=\"m m\" # c\n"
        "local all all cert map=n\nlocal all all peer map=\nlocal all all peer map=m map=m\n"
        "local all all peer \"map=m\"\nlocal all all peer Map=m\nlocal all all peer\n",
        "m os app\n\"m m\" x y\n", NULL);

    (void)state;
    assert_non_null(snapshot);
    assert_int_equal(snapshot->hba.rule_count, 3);
    assert_ptr_equal(snapshot->hba.rules[0].map, ident_find(&snapshot->hba.ident, "m"));
    assert_ptr_equal(snapshot->hba.rules[1].map, ident_find(&snapshot->hba.ident, "m m"));
    assert_null(snapshot->hba.rules[2].map);
    assert_reported(&reported, "line 3: there is no map \"n\" in auth_ident_file in configuration "
                               "(etc/hba:3)");
    assert_reported(&reported, "line 4: map= needs a name");
    for (int line = 5; line <= 7; line++) {
        char text[64];

        snprintf(text, sizeof(text), "line %d: unsupported parameters", line);
        assert_reported(&reported, text);
    }
    assert_true(hba_allows_peer(&snapshot->hba.rules[0], "os", "app"));
    assert_false(hba_allows_peer(&snapshot->hba.rules[0], "app", "app"));
    assert_true(hba_allows_peer(&snapshot->hba.rules[2], "app", "app"));
    assert_false(hba_allows_peer(&snapshot->hba.rules[2], "App", "app"));
    snapshot_release(snapshot);
}

static void ldap_options_are_kept_as_they_stand(void **state)
{
    char text[HBA_OPTIONS_BYTES_MAX + 64];
    struct snapshot *snapshot = load_rules(
        "host all all all ldap  ldapserver=a ldapprefix=\"cn=\" # x \r\nlocal all all ldap\n");

    (void)state;
    assert_int_equal(snapshot->hba.rule_count, 2);
    assert_string_equal(snapshot->hba.rules[0].options, "ldapserver=a ldapprefix=\"cn=\" # x");
    assert_string_equal(snapshot->hba.rules[0].ldap->prefix, "cn=");
    /* It lets nobody in, and hides what comes behind it. */
    assert_int_equal(count_lines(reported.text, ""), 1);
    assert_reported(&reported, "WARNING this line lets nobody in: ldap: one of ldapbasedn, "
                               "ldapprefix and ldapsuffix is needed in configuration (etc/hba:2)");
    assert_string_equal(snapshot->hba.rules[1].options, "");
    assert_null(snapshot->hba.rules[1].ldap);
    snapshot_release(snapshot);
    for (size_t over = 0; over < 2; over++) {
        strcpy(text, "local all all ldap ");
        memset(text + strlen(text), 'x', HBA_OPTIONS_BYTES_MAX + over + 1);
        text[strlen("local all all ldap ") + HBA_OPTIONS_BYTES_MAX + over] = '\0';
        snapshot = load_rules(text);
        assert_int_equal(snapshot->hba.rule_count, 1 - over);
        snapshot_release(snapshot);
    }
}

static void names_keywords_and_quotes(void **state)
{
    struct snapshot *snapshot = load_rules("local a , \"b c\",d x md5\n"
                                           "local sameuser all md5\n"
                                           "local \"sameuser\",\"all\",\"replication\" all md5\n"
                                           "local all \"all\",\"@x\",\"+y\",\"/z\" md5\n"
                                           "local s sameuser,ann md5\n"
                                           "local s replication md5\n"
                                           "local \"samerole\" all md5\n");

    (void)state;
    assert_string_equal(reported.text, "");
    assert_int_equal(line_for(snapshot, "a", "x", "unix"), 1);
    assert_int_equal(line_for(snapshot, "b c", "x", "unix"), 1);
    assert_int_equal(line_for(snapshot, "d", "x", "unix"), 1);
    assert_int_equal(line_for(snapshot, "b", "x", "unix"), 0);
    assert_int_equal(line_for(snapshot, "A", "x", "unix"), 0);
    assert_int_equal(line_for(snapshot, "q", "q", "unix"), 2);
    assert_int_equal(line_for(snapshot, "sameuser", "q", "unix"), 3);
    assert_int_equal(line_for(snapshot, "all", "q", "unix"), 3);
    assert_int_equal(line_for(snapshot, "replication", "q", "unix"), 3);
    assert_int_equal(line_for(snapshot, "q", "all", "unix"), 4);
    assert_int_equal(line_for(snapshot, "q", "@x", "unix"), 4);
    assert_int_equal(line_for(snapshot, "q", "+y", "unix"), 4);
    assert_int_equal(line_for(snapshot, "q", "/z", "unix"), 4);
    assert_int_equal(line_for(snapshot, "s", "ann", "unix"), 5);
    assert_int_equal(line_for(snapshot, "s", "s", "unix"), 2);
    assert_int_equal(line_for(snapshot, "s", "replication", "unix"), 0);
    assert_int_equal(line_for(snapshot, "samerole", "q", "unix"), 7);
    snapshot_release(snapshot);
}

static void physical_replication_has_its_own_keyword(void **state)
{
    struct snapshot *snapshot = load_rules("local all app md5\n"
                                           "local sameuser all md5\n"
                                           "local db,replication all md5\n"
                                           "local logical eve md5\n");

    (void)state;
    assert_int_equal(find(snapshot, "db", "app", "unix", HBA_PHYSICAL)->line, 3);
    assert_int_equal(find(snapshot, "app", "app", "unix", HBA_PHYSICAL)->line, 3);
    assert_int_equal(find(snapshot, "db", "app", "unix", HBA_LOGICAL)->line, 1);
    assert_int_equal(find(snapshot, "logical", "eve", "unix", HBA_LOGICAL)->line, 4);
    assert_int_equal(find(snapshot, "eve", "eve", "unix", HBA_LOGICAL)->line, 2);
    assert_null(find(snapshot, "x", "eve", "unix", HBA_LOGICAL));
    assert_null(find(snapshot, "replication", "eve", "unix", HBA_NO_REPLICATION));
    assert_int_equal(find(snapshot, "db", "eve", "unix", HBA_NO_REPLICATION)->line, 3);
    snapshot_release(snapshot);
}

static void bad_lines_are_left_out_and_the_rest_is_used(void **state)
{
    static const char *const bad[] = {
        "foo",
        "Local all all md5",
        "\"local\" all all md5",
        "hostgssenc all all all md5",
        "local",
        "local all",
        "local all all",
        "host all all md5",
        "local all all all md5",
        "local ,a all md5",
        "local a, md5",
        "local a,,b all md5",
        "local samerole all md5",
        "local samegroup all md5",
        "local all samerole md5",
        "local +a all md5",
        "local all +a md5",
        "local /a all md5",
        "local a,/b all md5",
        "local @ all md5",
        "local @\"x\" all md5",
        "local \"a all md5",
        "host all all all",
        "local all all md5 x=y",
        "local all all md5 map",
        "local a b c md5",
        "\xef\xbb\xbflocal all all md5",
        "include x",
    };
    char text[4096] = "";

    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        strcat(text, bad[i]);
        strcat(text, "\nlocal all all md5\n");
    }
    snapshot_release(load_rules(text));
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        char wanted[100];

        snprintf(wanted, sizeof(wanted),
                 "WARNING could not parse hba config line %zu: ", 2 * i + 1);
        assert_reported(&reported, wanted);
        snprintf(wanted, sizeof(wanted), " in configuration (etc/hba:%zu)\n", 2 * i + 1);
        assert_reported(&reported, wanted);
    }
    assert_int_equal(count_lines(reported.text, ""), COUNT_OF(bad));
    struct snapshot *snapshot = load_rules(text);
    assert_int_equal(snapshot->hba.rule_count, COUNT_OF(bad));
    snapshot_release(snapshot);
}

/* A `?` in the text becomes a NUL byte. */
static char *open_with_nul(void *context, const char *path, struct arena *arena, size_t *bytes)
{
    char *text = arena_copy_string(arena, context);

    (void)path;
    *bytes = strlen(text);
    for (size_t i = 0; i < *bytes; i++)
        text[i] = text[i] == '?' ? '\0' : text[i];
    return text;
}

static void a_nul_byte_breaks_its_line_only(void **state)
{
    char text[] = "local all all? md5\nlocal al? all md5\n?\nlocal all all ldap a?b\n"
                  "local all \"a?\" md5\nlocal all all md5 ?\nlocal all all md5\n";
    struct config_report report = {.report = test_report, .context = &reported};
    struct hba_input input = {
        .open = open_with_nul, .open_context = text, .report = &report, .hba_path = "h"};
    struct hba hba;

    (void)state;
    reported.bytes = 0;
    input.arena = arena_new();
    hba_read(&input, &hba);
    assert_int_equal(hba.rule_count, 1);
    assert_int_equal(hba.rules[0].line, 7);
    assert_int_equal(count_lines(reported.text, "WARNING could not parse hba config line"), 6);
    arena_free(input.arena);
}

static void files_of_names(void **state)
{
    static const struct test_file lists[] = {
        {"etc/a", "one, two\n\n# three\nfour # five\n\"six seven\" \"all\"\n@b,@/abs/c\n"},
        {"etc/b", "eight"},
        {"/abs/c", "nine\n@b\n"}, /* relative to the HBA file */
        {"etc/empty", ""},
        {"etc/keywords", "sameuser\nreplication"},
        {"etc/all", "all"},
        {"etc/bad", "one\n+two\n"},
        {"etc/loop", "one @loop\n"},
        {NULL, NULL},
    };
    static const char *const names[] = {"one", "two", "four", "six seven", "all", "eight", "nine"};
    struct snapshot *snapshot = load_beside("local @a x md5\nlocal x @empty md5\n"
                                            "local @keywords k md5\nlocal x ann,@b,bob md5\n"
                                            "local @bad all md5\nlocal @loop all md5\n"
                                            "local y,@all z md5\n",
                                            NULL, lists);

    (void)state;
    assert_non_null(snapshot);
    for (size_t i = 0; i < COUNT_OF(names); i++)
        assert_int_equal(line_for(snapshot, names[i], "x", "unix"), 1);
    assert_int_equal(line_for(snapshot, "three", "x", "unix"), 0);
    assert_int_equal(line_for(snapshot, "five", "x", "unix"), 0);
    assert_int_equal(line_for(snapshot, "x", "x", "unix"), 0);
    assert_int_equal(line_for(snapshot, "k", "k", "unix"), 3);
    assert_int_equal(find(snapshot, "", "k", "unix", HBA_PHYSICAL)->line, 3);
    assert_int_equal(line_for(snapshot, "x", "ann", "unix"), 4);
    assert_int_equal(line_for(snapshot, "x", "eight", "unix"), 4);
    assert_int_equal(line_for(snapshot, "x", "bob", "unix"), 4);
    assert_int_equal(line_for(snapshot, "x", "one", "unix"), 0);
    assert_int_equal(line_for(snapshot, "anything", "z", "unix"), 7);
    assert_reported(&reported, "line 5: +two is not supported: it needs the roles of a database");
    assert_reported(&reported, "line 6: @loop: files name each other (more than 10 deep)");
    assert_int_equal(count_lines(reported.text, ""), 2);
    snapshot_release(snapshot);
}

static void files_that_are_not_there_fail_the_load(void **state)
{
    (void)state;
    assert_null(load_beside(NULL, NULL, NULL));
    assert_string_equal(reported.text,
                        "ERROR could not open auth_hba_file etc/hba: No such file or "
                        "directory in configuration (t.ini:3)\n");
    assert_null(
        load_beside("local all all md5\n\nlocal @nix all md5\nlocal @nix all md5\n", NULL, NULL));
    assert_string_equal(reported.text, "ERROR could not open the file etc/nix: No such file or "
                                       "directory in configuration (etc/hba:3)\n");
    assert_mistake("[pgbouncer]\nauth_type = hba\n",
                   "auth_type hba needs auth_hba_file in configuration (t.ini:2)");
    assert_mistake("[pgbouncer]\nauth_type = hba\nauth_hba_file = \n",
                   "auth_type hba needs auth_hba_file");
    {
        const struct test_file files[] = {
            {"t.ini", "[pgbouncer]\nauth_type = hba\nauth_hba_file = h\nauth_ident_file = i\n"},
            {"h", ""},
            {NULL, NULL}};

        assert_null(load_files(files, &reported));
        assert_string_equal(reported.text,
                            "ERROR could not open auth_ident_file i: No such file or "
                            "directory in configuration (t.ini:4)\n");
    }
    snapshot_release(
        load_silent("[pgbouncer]\nauth_type = md5\nauth_hba_file = h\nauth_ident_file = i\n"));
}

static void everything_has_a_limit(void **state)
{
    static const char line[] = "local all all md5\n";
    char *text = malloc((HBA_RULES_MAX + 1) * strlen(line) + 1);
    struct test_file lists[] = {{"etc/l", text},
                                {"etc/two", "@one @one"},
                                {"etc/one", "@x @x"},
                                {"etc/x", "@y @y @y @y @y @y @y @y"},
                                {"etc/y", "@z @z @z @z @z @z @z @z @z"},
                                {"etc/z", "@q @q @q @q @q @q @q @q"},
                                {"etc/q", "a"},
                                {NULL, NULL}};

    (void)state;
    for (int i = 0; i <= HBA_RULES_MAX; i++)
        strcpy(text + (size_t)i * strlen(line), line);
    assert_null(load_beside(text, NULL, NULL));
    assert_string_equal(reported.text,
                        "ERROR auth_hba_file has more than 10000 rules in configuration "
                        "(etc/hba:10001)\n");
    text[HBA_RULES_MAX * strlen(line)] = '\0';
    snapshot_release(load_rules(text));

    assert_null(load_beside("local @two all md5\n", NULL, lists));
    assert_string_equal(reported.text, "ERROR auth_hba_file reads more than 1000 files by @ in "
                                       "configuration (etc/hba:1)\n");

    /* 150,000 names, seven times. */
    for (size_t i = 0; i < 150000; i++)
        text[i] = i % 2 == 0 ? 'n' : '\n';
    text[150000] = '\0';
    assert_null(load_beside("local @l,@l,@l,@l,@l,@l,@l @l,@l,@l,@l,@l,@l,@l md5\n", NULL, lists));
    assert_string_equal(reported.text, "ERROR auth_hba_file names more than 1000000 names in "
                                       "configuration (etc/hba:1)\n");
    free(text);
}

static void set_keeps_the_rules(void **state)
{
    struct snapshot *snapshot =
        load_rules("local app,b all peer map=m\nhost all ann 10.0.0.0/8 ldap "
                   "ldapserver=x ldapprefix=y\n");
    struct snapshot *changed = snapshot_with_setting(snapshot, "default_pool_size", "7");

    (void)state;
    assert_non_null(changed);
    snapshot_release(snapshot);
    assert_int_equal(line_for(changed, "b", "x", "unix"), 1);
    assert_int_equal(line_for(changed, "b", "ann", "10.2.3.4"), 2);
    assert_true(hba_allows_peer(&changed->hba.rules[0], "os", "app"));
    assert_string_equal(changed->hba.rules[1].options, "ldapserver=x ldapprefix=y");
    assert_string_equal(changed->hba.rules[1].ldap->prefix, "y");
    assert_null(snapshot_with_setting(changed, "auth_hba_file", "/not/there"));
    snapshot = snapshot_with_setting(changed, "auth_type", "md5");
    assert_int_equal(snapshot->hba.rule_count, 0);
    snapshot_release(snapshot);
    snapshot_release(changed);
}

static void nobody_comes_from_an_unknown_place(void **state)
{
    struct snapshot *snapshot = load_rules("local all all md5\nhost all all all md5\n");
    struct hba_question question = {.database = "a", .user = "a", .family = 0};

    (void)state;
    assert_null(hba_find(&snapshot->hba, &question));
    snapshot_release(snapshot);
}

/* ---- addresses, by Python ---- */

static void addresses_match_as_pythons_do(void **state)
{
    FILE *file = fopen("tests/golden/hba_addresses.txt", "r");
    char line[300], text[400];
    size_t count = 0;

    (void)state;
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        char *client, *answer;
        struct snapshot *snapshot;

        if (line[0] == '#')
            continue;
        line[strcspn(line, "\n")] = '\0';
        client = strchr(line, '|');
        assert_non_null(client);
        *client++ = '\0';
        answer = strchr(client, '|');
        assert_non_null(answer);
        *answer++ = '\0';
        snprintf(text, sizeof(text), "host all all %s md5\n", line);
        snapshot = load_rules(text);
        if ((snapshot->hba.rule_count == 0) != (strcmp(answer, "bad") == 0))
            fail_msg("%s should be %s: %s", line, answer, reported.text);
        if ((line_for(snapshot, "a", "b", client) == 1) != (strcmp(answer, "yes") == 0))
            fail_msg("%s for %s: it should be %s", line, client, answer);
        snapshot_release(snapshot);
        count++;
    }
    fclose(file);
    assert_true(count > 500);
}

/* ---- against a second implementation ---- */

/* A rule as the test makes it up: it is printed into a file, and matched here without it. */
struct made_rule {
    enum hba_transport transport;
    char databases[4][24], users[4][24]; /* as written; "": no more */
    bool is_all;
    int family;
    uint8_t address[16];
    unsigned bits;
    bool is_bad; /* something in it makes the line unreadable */
};

static const char *const made_words[] = {
    "all",   "sameuser",  "replication",     "\"all\"", "a",        "b",     "\"a\"", "\"c d\"",
    "e\"\"", "\"e\"\"\"", "\"replication\"", "+a",      "samerole", "@list", "\"b\""};
static const char *const asked_names[] = {"a",   "b",           "c d", "e\"",
                                          "all", "replication", "zed", "l1"};

static uint64_t seed;

static bool happens(unsigned one_in)
{
    return random_below(&seed, one_in) == 0;
}

static void make_names(char names[4][24], bool *is_bad)
{
    size_t count = 1 + (size_t)random_below(&seed, 3);

    memset(names, 0, 4 * 24);
    for (size_t i = 0; i < count; i++) {
        const char *word = made_words[random_below(&seed, COUNT_OF(made_words))];

        /* The bad ones are rare, else hardly a line would be read. */
        while ((word[0] == '+' || word[0] == 's' || word[0] == 'e') && !happens(4))
            word = made_words[random_below(&seed, COUNT_OF(made_words))];
        strcpy(names[i], word);
        *is_bad |= word[0] == '+' || strcmp(word, "samerole") == 0 || strcmp(word, "e\"\"") == 0;
    }
}

static void make_address(uint8_t address[16])
{
    /* Few bits differ, so that there are matches. */
    memset(address, 0, 16);
    address[0] = 10;
    address[1] = (uint8_t)(random_below(&seed, 4) << 6);
    address[3] = (uint8_t)random_below(&seed, 4);
    address[15] = (uint8_t)random_below(&seed, 2);
}

static void make_rule(struct made_rule *rule)
{
    size_t bytes;

    memset(rule, 0, sizeof(*rule));
    rule->transport = (enum hba_transport)random_below(&seed, 4);
    make_names(rule->databases, &rule->is_bad);
    make_names(rule->users, &rule->is_bad);
    rule->is_all = happens(4);
    rule->family = happens(2) ? AF_INET : AF_INET6;
    bytes = rule->family == AF_INET ? 4 : 16;
    make_address(rule->address);
    rule->bits = (unsigned)random_below(&seed, bytes * 8 + 1);
    for (size_t bit = rule->bits; bit < bytes * 8; bit++)
        if (!happens(50))
            rule->address[bit / 8] &= (uint8_t) ~(0x80u >> bit % 8);
}

static size_t print_blank(char *text)
{
    static const char *const blanks[] = {" ", "\t", "   ", " \t "};

    return (size_t)sprintf(text, "%s", blanks[random_below(&seed, COUNT_OF(blanks))]);
}

static size_t print_names(char *text, char names[4][24])
{
    size_t used = 0;

    for (size_t i = 0; names[i][0] != '\0'; i++) {
        if (i > 0)
            used += (size_t)sprintf(text + used, "%s,%s", happens(4) ? " " : "",
                                    happens(4) ? "\t" : "");
        used += (size_t)sprintf(text + used, "%s", names[i]);
    }
    return used;
}

static size_t print_rule(char *text, struct made_rule *rule)
{
    static const char *const words[] = {"local", "host", "hostssl", "hostnossl"};
    char address[INET6_ADDRSTRLEN];
    size_t used = happens(5) ? print_blank(text) : 0;

    used += (size_t)sprintf(text + used, "%s", words[rule->transport]);
    used += print_blank(text + used);
    used += print_names(text + used, rule->databases);
    used += print_blank(text + used);
    used += print_names(text + used, rule->users);
    used += print_blank(text + used);
    if (rule->transport != HBA_LOCAL) {
        if (rule->is_all)
            used += (size_t)sprintf(text + used, "all");
        else
            used += (size_t)sprintf(
                text + used, "%s/%u",
                inet_ntop(rule->family, rule->address, address, sizeof(address)), rule->bits);
        used += print_blank(text + used);
    }
    return used + (size_t)sprintf(text + used, "md5%s\n", happens(4) ? "# x" : "");
}

/* The list file says `l1, sameuser`. */
static bool made_names_match(char names[4][24], bool is_user, const struct hba_question *question)
{
    const char *asked = is_user ? question->user : question->database;
    bool is_same = strcmp(question->database, question->user) == 0;

    for (size_t i = 0; names[i][0] != '\0'; i++) {
        const char *word = names[i];
        char plain[24] = "";

        if (!is_user && question->replication == HBA_PHYSICAL) {
            if (strcmp(word, "replication") == 0)
                return true;
            continue;
        }
        if (strcmp(word, "all") == 0 || (strcmp(word, "sameuser") == 0 && is_same))
            return true;
        if (strcmp(word, "@list") == 0 && (is_same || strcmp(asked, "l1") == 0))
            return true;
        if (word[0] == '"') {
            if (strcmp(word, "\"e\"\"\"") == 0)
                strcpy(plain, "e\"");
            else
                snprintf(plain, sizeof(plain), "%.*s", (int)strlen(word) - 2, word + 1);
            if (strcmp(plain, asked) == 0)
                return true;
        } else if (strcmp(word, "all") != 0 && strcmp(word, "sameuser") != 0 &&
                   strcmp(word, "replication") != 0 && strcmp(word, asked) == 0) {
            return true;
        }
    }
    return false;
}

static bool made_rule_matches(struct made_rule *rule, const struct hba_question *question)
{
    if (rule->is_bad)
        return false;
    if ((rule->transport == HBA_LOCAL) != (question->family == AF_UNIX))
        return false;
    if (rule->transport == HBA_HOSTSSL && !question->has_tls)
        return false;
    if (rule->transport == HBA_HOSTNOSSL && question->has_tls)
        return false;
    if (rule->transport != HBA_LOCAL && !rule->is_all) {
        size_t bits = rule->family == AF_INET ? 32 : 128;

        if (rule->family != question->family)
            return false;
        for (size_t bit = 0; bit < bits; bit++) {
            unsigned theirs = question->address[bit / 8] >> (7 - bit % 8) & 1;
            unsigned ours = rule->address[bit / 8] >> (7 - bit % 8) & 1;

            if (bit < rule->bits ? theirs != ours : ours != 0)
                return false;
        }
    }
    return made_names_match(rule->databases, false, question) &&
           made_names_match(rule->users, true, question);
}

static void random_rules_match_as_the_naive_reading_says(void **state)
{
    enum { RULES = 12, FILES = 1500, QUESTIONS = 60 };
    static const struct test_file lists[] = {{"etc/list", "l1, sameuser"}, {NULL, NULL}};
    struct made_rule rules[RULES];
    static char text[RULES * 400];
    size_t matched = 0;

    (void)state;
    seed = 4711;
    for (int round = 0; round < FILES; round++) {
        struct snapshot *snapshot;
        size_t used = 0;

        for (size_t i = 0; i < RULES; i++) {
            make_rule(&rules[i]);
            used += print_rule(text + used, &rules[i]);
        }
        snapshot = load_beside(text, NULL, lists);
        assert_non_null(snapshot);
        for (int i = 0; i < QUESTIONS; i++) {
            static const int families[] = {AF_UNIX, AF_INET, AF_INET6};
            uint8_t address[16];
            struct hba_question question = {
                .database = asked_names[random_below(&seed, COUNT_OF(asked_names))],
                .user = asked_names[random_below(&seed, COUNT_OF(asked_names))],
                .family = families[random_below(&seed, 3)],
                .address = address,
                .replication = happens(6)   ? HBA_PHYSICAL
                               : happens(6) ? HBA_LOGICAL
                                            : HBA_NO_REPLICATION,
            };
            const struct hba_rule *found;
            size_t wanted = 0;

            make_address(address);
            question.has_tls = question.family != AF_UNIX && happens(2);
            found = hba_find(&snapshot->hba, &question);
            while (wanted < RULES && !made_rule_matches(&rules[wanted], &question))
                wanted++;
            if ((found == NULL ? RULES : (size_t)found->line - 1) != wanted)
                fail_msg("database %s, user %s: line %d instead of %zu of\n%s", question.database,
                         question.user, found == NULL ? 0 : found->line, wanted + 1, text);
            matched += found != NULL;
        }
        snapshot_release(snapshot);
    }
    assert_true(matched > FILES * QUESTIONS / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_line_that_matches_decides),
        cmocka_unit_test(each_method_has_its_word),
        cmocka_unit_test(maps_are_found_when_the_file_is_read),
        cmocka_unit_test(ldap_options_are_kept_as_they_stand),
        cmocka_unit_test(names_keywords_and_quotes),
        cmocka_unit_test(physical_replication_has_its_own_keyword),
        cmocka_unit_test(bad_lines_are_left_out_and_the_rest_is_used),
        cmocka_unit_test(a_nul_byte_breaks_its_line_only),
        cmocka_unit_test(files_of_names),
        cmocka_unit_test(files_that_are_not_there_fail_the_load),
        cmocka_unit_test(everything_has_a_limit),
        cmocka_unit_test(set_keeps_the_rules),
        cmocka_unit_test(nobody_comes_from_an_unknown_place),
        cmocka_unit_test(addresses_match_as_pythons_do),
        cmocka_unit_test(random_rules_match_as_the_naive_reading_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
