/* test_ldap_options.c - options of LDAP: what they mean, which mistakes are named, and what is asked
 * for a user, whatever his name holds. */
#include "unit.h"

#include "config/ldap_options.h"

static struct arena *arena;
static char error[LDAP_OPTIONS_ERROR_BYTES];

static const struct ldap_options *takes(const char *text)
{
    const struct ldap_options *options;

    arena_free(arena);
    arena = arena_new();
    options = ldap_options_parse(text, arena, error);
    if (options == NULL)
        fail_msg("refused: %s: %s", text, error);
    return options;
}

static void refuses(const char *text, const char *why)
{
    arena_free(arena);
    arena = arena_new();
    if (ldap_options_parse(text, arena, error) != NULL)
        fail_msg("taken: %s", text);
    if (strstr(error, why) == NULL)
        fail_msg("%s: \"%s\" is not in \"%s\"", text, why, error);
}

static void simple_bind_has_prefix_and_suffix(void **state)
{
    const struct ldap_options *options =
        takes("ldapserver=ldap.example ldapprefix=\"cn=\" ldapsuffix=\", dc=example, dc=net\"");
    char name[64];

    (void)state;
    assert_false(options->is_search);
    assert_false(options->starttls);
    assert_string_equal(options->uris, "ldap://ldap.example:389");
    assert_true(ldap_options_bind_name(options, "joe", name, sizeof(name)));
    assert_string_equal(name, "cn=joe, dc=example, dc=net");
    assert_true(ldap_options_bind_name(options, "joe", name, 27));
    assert_false(ldap_options_bind_name(options, "joe", name, 26));
    options = takes("ldapserver=ad ldapsuffix=@corp.example");
    assert_true(ldap_options_bind_name(options, "joe", name, sizeof(name)));
    assert_string_equal(name, "joe@corp.example");
}

static void search_has_a_base_a_name_and_a_filter(void **state)
{
    const struct ldap_options *options = takes(
        "ldapserver=a ldapport=1389 ldapbasedn=\"dc=example,dc=net\" ldapbinddn=\"cn=pg, x=y\" "
        "ldapbindpasswd=\"p w\"\"d\" ldapsearchattribute=cn ldaptls=1");

    (void)state;
    assert_true(options->is_search);
    assert_true(options->starttls);
    assert_string_equal(options->uris, "ldap://a:1389");
    assert_string_equal(options->basedn, "dc=example,dc=net");
    assert_string_equal(options->binddn, "cn=pg, x=y");
    assert_string_equal(options->bindpasswd, "p w\"d");
    assert_string_equal(options->searchfilter, "(cn=$username)");
    assert_int_equal(options->scope, LDAP_SEARCH_SUBTREE);
    options = takes("ldapserver=a ldapbasedn=x");
    assert_string_equal(options->searchfilter, "(uid=$username)");
    assert_string_equal(options->binddn, "");
    assert_string_equal(options->bindpasswd, "");
    options =
        takes("ldapserver=a ldapbasedn= ldapsearchfilter=\"(|(uid=$username)(mail=$username))\"");
    assert_string_equal(options->searchfilter, "(|(uid=$username)(mail=$username))");
}

static void servers_are_tried_in_their_order(void **state)
{
    (void)state;
    assert_string_equal(takes("ldapserver=\" a  b\tc \" ldapprefix=x")->uris,
                        "ldap://a:389 ldap://b:389 ldap://c:389");
    assert_string_equal(takes("ldapserver=\"[::1] b\" ldapscheme=ldaps ldapprefix=x")->uris,
                        "ldaps://[::1]:636 ldaps://b:636");
    assert_string_equal(takes("ldapserver=a ldapscheme=ldaps ldapport=1 ldapprefix=x")->uris,
                        "ldaps://a:1");
}

static void urls_say_all_of_it(void **state)
{
    const struct ldap_options *options =
        takes("ldapurl=\"ldap://h:12345/dc=example,dc=net?uid?sub\"");

    (void)state;
    assert_string_equal(options->uris, "ldap://h:12345");
    assert_string_equal(options->basedn, "dc=example,dc=net");
    assert_string_equal(options->searchfilter, "(uid=$username)");
    assert_int_equal(options->scope, LDAP_SEARCH_SUBTREE);
    options = takes("ldapurl=LDAPS://h/dc=a%20b%2Cc??one?(mail=$username)");
    assert_string_equal(options->uris, "ldaps://h:636");
    assert_string_equal(options->basedn, "dc=a b,c");
    assert_string_equal(options->searchfilter, "(mail=$username)");
    assert_int_equal(options->scope, LDAP_SEARCH_ONE);
    options = takes("ldapurl=\"ldap://[::1]:7/x?cn,sn\"");
    assert_string_equal(options->uris, "ldap://[::1]:7");
    assert_string_equal(options->searchfilter, "(cn=$username)");
    assert_int_equal(options->scope, LDAP_SEARCH_BASE);
    assert_string_equal(takes("ldapurl=ldap://h ldapprefix=x")->uris, "ldap://h:389");
    /* A later option wins. */
    assert_string_equal(takes("ldapurl=ldap://h/x ldapserver=other")->uris, "ldap://other:389");
    refuses("ldapurl=h/x", "is no URL");
    refuses("ldapurl=http://h/x", "schemes");
    refuses("ldapurl=ldapi://h/x", "schemes");
    refuses("ldapurl=ldap://h:x/x", "port");
    refuses("ldapurl=ldap://[::1/x", "without a ]");
    refuses("ldapurl=ldap://h/%2", "hexadecimal");
    refuses("ldapurl=ldap://h/%zz", "hexadecimal");
    refuses("ldapurl=ldap://h/x%00y", "hexadecimal");
    refuses("ldapurl=ldap://h/x??all", "scope");
    refuses("ldapurl=ldap://h/x?\?\?(a=b)?ext", "extensions");
    refuses("ldapurl=ldap:///x", "no server");
}

static void blanks_commas_quotes_and_comments_are_those_of_pg_hba(void **state)
{
    (void)state;
    assert_string_equal(takes("\"ldapserver=a b\",\tldapprefix=x # and more")->uris,
                        "ldap://a:389 ldap://b:389");
    assert_string_equal(takes("ldapserver=a ldapprefix=\"#\"")->prefix, "#");
    assert_string_equal(takes(",,ldapserver=a,,ldapprefix=\"\",")->prefix, "");
    refuses("ldapserver=a ldapprefix=\"x", "not closed");
    refuses("ldapserver=a ldapbasedn=dc=example,dc=net", "what follows ldapbasedn is no option");
}

static void mistakes_are_named_without_values(void **state)
{
    static const char *const cases[][2] = {
        {"", "is needed"},
        {"ldapserver=a", "one of ldapbasedn, ldapprefix and ldapsuffix is needed"},
        {"ldapprefix=x", "no server"},
        {"ldapserver=\" \" ldapprefix=x", "no server"},
        {"ldapserver=a:1 ldapprefix=x", "the port is ldapport's"},
        {"ldapserver=ldap://a ldapprefix=x", "names and addresses"},
        {"ldapserver=a ldapport=0 ldapprefix=x", "ldapport"},
        {"ldapserver=a ldapport=70000 ldapprefix=x", "ldapport"},
        {"ldapserver=a ldapport=+1 ldapprefix=x", "ldapport"},
        {"ldapserver=a ldapscheme=http ldapprefix=x", "ldapscheme"},
        {"ldapserver=a ldaptls=yes ldapprefix=x", "ldaptls is neither 0 nor 1"},
        {"ldapserver=a ldaptls=1 ldapscheme=ldaps ldapprefix=x", "StartTLS"},
        {"ldapserver=a ldapprefix=x ldapbasedn=y", "cannot be used together"},
        {"ldapserver=a ldapsuffix=x ldapbindpasswd=y", "cannot be used together"},
        {"ldapserver=a ldapprefix=x ldapurl=ldap://h/y", "cannot be used together"},
        {"ldapserver=a ldapbasedn=x ldapsearchattribute=a ldapsearchfilter=(a=b)", "together"},
        {"ldapserver=a ldapbasedn=x ldapsearchfilter=((a=b)", "parentheses"},
        {"ldapserver=a ldapbasedn=x ldapsearchfilter=)(", "parentheses"},
        {"ldapserver=a ldapbasedn=x ldapsearchfilter=", "empty"},
        {"ldapserver=a ldapbasedn=x ldapsearchattribute=a=b", "attribute"},
        {"ldapserver=a ldapserverr=b ldapprefix=x", "there is no option \"ldapserverr\""},
        {"server=a", "begins with \"ldap\""},
        {"ldapserver", "has a \"=\""},
    };

    (void)state;
    for (size_t index = 0; index < COUNT_OF(cases); index++)
        refuses(cases[index][0], cases[index][1]);
    refuses("ldapserver=a ldapbasedn=x ldapbindpasswd=my Secret", "what follows ldapbindpasswd");
    assert_null(strstr(error, "Secret"));
    refuses("ldapserver=a ldapbasedn=x ldapbindpasswd=my Sec=ret", "what follows ldapbindpasswd");
    assert_null(strstr(error, "Sec"));
}

static void length_is_limited(void **state)
{
    char text[LDAP_OPTIONS_BYTES_MAX + 2];
    const char head[] = "ldapserver=a ldapprefix=";

    (void)state;
    memset(text, 'x', sizeof(text));
    memcpy(text, head, sizeof(head) - 1);
    text[LDAP_OPTIONS_BYTES_MAX] = '\0';
    assert_int_equal(strlen(takes(text)->prefix), LDAP_OPTIONS_BYTES_MAX - sizeof(head) + 1);
    text[LDAP_OPTIONS_BYTES_MAX] = 'x';
    text[LDAP_OPTIONS_BYTES_MAX + 1] = '\0';
    refuses(text, "longer than 1023 bytes");
}

static void a_user_is_a_value_and_nothing_else(void **state)
{
    const struct ldap_options *options = takes("ldapserver=a ldapbasedn=x");
    char filter[128];

    (void)state;
    assert_true(ldap_options_filter(options, "joe", filter, sizeof(filter)));
    assert_string_equal(filter, "(uid=joe)");
    assert_true(ldap_options_filter(options, "*)(uid=*", filter, sizeof(filter)));
    assert_string_equal(filter, "(uid=\\2a\\29\\28uid=\\2a)");
    assert_true(ldap_options_filter(options, "a\\b\x01\xc3\xa4\x7f", filter, sizeof(filter)));
    assert_string_equal(filter, "(uid=a\\5cb\\01\\c3\\a4\\7f)");
    assert_true(ldap_options_filter(options, "$username", filter, sizeof(filter)));
    assert_string_equal(filter, "(uid=$username)");
    options = takes("ldapserver=a ldapbasedn=x ldapsearchfilter=(|(a=$username)(b=$username$))");
    assert_true(ldap_options_filter(options, "(", filter, sizeof(filter)));
    assert_string_equal(filter, "(|(a=\\28)(b=\\28$))");
}

static void a_filter_that_does_not_fit_is_told(void **state)
{
    const struct ldap_options *options = takes("ldapserver=a ldapbasedn=x");
    static const char wanted[] = "(uid=a\\2ab)";
    struct edge edge;

    (void)state;
    edge_init(&edge, 64);
    for (size_t bytes = 1; bytes <= sizeof(wanted); bytes++) {
        char *out = (char *)edge.end - bytes;

        assert_int_equal(ldap_options_filter(options, "a*b", out, bytes), bytes == sizeof(wanted));
    }
    assert_string_equal((char *)edge.end - sizeof(wanted), wanted);
    edge_release(&edge);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(simple_bind_has_prefix_and_suffix),
        cmocka_unit_test(search_has_a_base_a_name_and_a_filter),
        cmocka_unit_test(servers_are_tried_in_their_order),
        cmocka_unit_test(urls_say_all_of_it),
        cmocka_unit_test(blanks_commas_quotes_and_comments_are_those_of_pg_hba),
        cmocka_unit_test(mistakes_are_named_without_values),
        cmocka_unit_test(length_is_limited),
        cmocka_unit_test(a_user_is_a_value_and_nothing_else),
        cmocka_unit_test(a_filter_that_does_not_fit_is_told),
    };
    int result = cmocka_run_group_tests(tests, NULL, NULL);

    arena_free(arena);
    return result;
}
