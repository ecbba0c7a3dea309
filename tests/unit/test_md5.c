#include "crypto/md5.h"

#include "guarded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const char secret_of_user[] = "md54d45974e13472b5a0be3533de4666414";
static const uint8_t salt[MD5_SALT_BYTES] = {1, 2, 3, 4};
static const char answer_of_user[] = "md5a3576f1ae039b8996bc4fc2720f9c71a";

static void secret_is_md5_of_password_and_user(void **state)
{
    char secret[MD5_TEXT_BYTES];

    (void)state;
    md5_make_secret("password", 8, "user", 4, secret);
    assert_string_equal(secret, secret_of_user);
    md5_make_secret("", 0, "", 0, secret);
    assert_string_equal(secret, "md5d41d8cd98f00b204e9800998ecf8427e"); /* RFC 1321 A.5 */
}

static void answer_is_md5_of_secret_and_salt(void **state)
{
    char answer[MD5_TEXT_BYTES];

    (void)state;
    md5_make_answer(secret_of_user, salt, answer);
    assert_string_equal(answer, answer_of_user);
}

static void only_the_exact_answer_is_right(void **state)
{
    char wrong[MD5_TEXT_BYTES + 1];

    (void)state;
    assert_true(md5_check_answer(secret_of_user, salt, answer_of_user, MD5_TEXT_BYTES - 1));
    for (size_t bytes = 0; bytes < MD5_TEXT_BYTES - 1; bytes++)
        assert_false(
            md5_check_answer(secret_of_user, salt, guarded_copy(answer_of_user, bytes), bytes));
    assert_false(md5_check_answer(secret_of_user, salt, answer_of_user, MD5_TEXT_BYTES));
    for (size_t i = 0; i < MD5_TEXT_BYTES - 1; i++) {
        memcpy(wrong, answer_of_user, MD5_TEXT_BYTES);
        wrong[i] ^= 1;
        assert_false(md5_check_answer(secret_of_user, salt, wrong, MD5_TEXT_BYTES - 1));
    }
}

static void secret_is_known_by_its_form(void **state)
{
    char text[MD5_TEXT_BYTES + 1] = {0};

    (void)state;
    assert_true(md5_is_secret(secret_of_user));
    assert_false(md5_is_secret(""));
    assert_false(md5_is_secret("md5"));
    assert_false(md5_is_secret("MD54d45974e13472b5a0be3533de4666414"));
    assert_false(md5_is_secret("md54D45974e13472b5a0be3533de4666414"));
    assert_false(md5_is_secret("md54d45974e13472b5a0be3533de46664144"));
    assert_false(md5_is_secret("md54g45974e13472b5a0be3533de4666414"));
    for (size_t bytes = 0; bytes < MD5_TEXT_BYTES - 1; bytes++) {
        memcpy(text, secret_of_user, bytes);
        text[bytes] = '\0';
        assert_false(md5_is_secret(guarded_copy(text, bytes + 1)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secret_is_md5_of_password_and_user),
        cmocka_unit_test(answer_is_md5_of_secret_and_salt),
        cmocka_unit_test(only_the_exact_answer_is_right),
        cmocka_unit_test(secret_is_known_by_its_form),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
