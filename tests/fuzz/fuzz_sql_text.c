/* fuzz_sql_text.c - SQL texts from foreign bytes (wire/sql_text.h), with both ways to read '\'. */
#include "wire/sql_text.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_places(const struct sql_prepare *found, size_t bytes)
{
    assert(found->name_bytes >= 1 && found->name_bytes <= SQL_NAME_BYTES_MAX);
    assert(strlen(found->name) == found->name_bytes);
    assert(found->written_bytes >= found->name_bytes || found->name_bytes == SQL_NAME_BYTES_MAX);
    assert(found->written_offset <= bytes);
    assert(found->written_bytes <= bytes - found->written_offset);
    assert(found->rest_offset >= found->written_offset + found->written_bytes);
    assert(found->rest_offset <= bytes);
    assert(found->rest_bytes <= bytes - found->rest_offset);
}

/* The text with its name alone exchanged is of the same kind, and has the new name. */
static void check_rewritten(const char *text, size_t bytes, bool standard,
                            enum sql_prepare_kind kind, const struct sql_prepare *found)
{
    static const char name[] = "\"x;\"\"'\"";
    size_t behind = found->written_offset + found->written_bytes;
    size_t count = found->written_offset + sizeof(name) - 1 + (bytes - behind);
    char *copy = malloc(count);
    struct sql_prepare again;

    assert(copy != NULL);
    memcpy(copy, text, found->written_offset);
    memcpy(copy + found->written_offset, name, sizeof(name) - 1);
    memcpy(copy + found->written_offset + sizeof(name) - 1, text + behind, bytes - behind);
    assert(sql_prepare_read(copy, count, standard, &again) == kind);
    assert(strcmp(again.name, "x;\"'") == 0);
    assert(again.rest_bytes == found->rest_bytes);
    free(copy);
}

/* What is cut lies in order, begins and ends with what belongs to it, and is one statement when it is cut again;
 * the first look has not missed any. */
static void check_split(const char *text, size_t bytes, bool standard, bool is_utf8)
{
    struct sql_splitter splitter, inner;
    size_t last = 0, offset, count, inner_offset, inner_count;
    struct sql_prepare found;

    if (!sql_split_begin(&splitter, text, bytes, standard, is_utf8))
        return;
    while (sql_split_next(&splitter, &offset, &count) == SQL_SPLIT_STATEMENT) {
        const char *statement = text + offset;

        assert(offset >= last && count > 0 && count <= bytes - offset);
        assert(splitter.at >= offset + count && splitter.at <= bytes);
        last = offset + count;
        assert(sql_split_begin(&inner, statement, count, standard, is_utf8));
        assert(sql_split_next(&inner, &inner_offset, &inner_count) == SQL_SPLIT_STATEMENT);
        assert(inner_offset == 0 && inner_count == count);
        assert(sql_split_next(&inner, &inner_offset, &inner_count) == SQL_SPLIT_END);
        if (sql_prepare_read(statement, count, standard, &found) != SQL_OTHER)
            assert(sql_may_be_prepare(text, bytes) || sql_may_have_more(text, bytes));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    /* A copy of exactly this size, so that a byte too far is seen. */
    char *text = malloc(bytes > 0 ? bytes : 1);
    bool is_cacheable, may_be_prepare;

    assert(text != NULL);
    if (bytes > 0)
        memcpy(text, data, bytes);
    is_cacheable = sql_is_cacheable(text, bytes);
    may_be_prepare = sql_may_be_prepare(text, bytes);
    for (int standard = 0; standard < 2; standard++) {
        struct sql_prepare found;
        enum sql_prepare_kind kind = sql_prepare_read(text, bytes, standard != 0, &found);

        check_split(text, bytes, standard != 0, false);
        check_split(text, bytes, standard != 0, true);
        if (kind == SQL_OTHER)
            continue;
        assert(may_be_prepare);
        assert(!is_cacheable);
        if (kind == SQL_DEALLOCATE_ALL || kind == SQL_DISCARD_ALL)
            continue;
        check_places(&found, bytes);
        check_rewritten(text, bytes, standard != 0, kind, &found);
    }
    free(text);
    return 0;
}
