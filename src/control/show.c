#include "control/show.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* clang-format off */
const struct show_table show_tables[] = {
    {.name = "HELP", .columns = {{NULL, 0}}},
    {.name = "VERSION", .columns = {
        {"version", TYPE_TEXT}, {NULL, 0}}},
    {.name = "STATE", .columns = {
        {"key", TYPE_TEXT}, {"value", TYPE_TEXT}, {NULL, 0}}},
    {.name = "CONFIG", .columns = {
        {"key", TYPE_TEXT}, {"value", TYPE_TEXT}, {"default", TYPE_TEXT},
        {"changeable", TYPE_TEXT}, {NULL, 0}}},
    {.name = "DATABASES", .columns = {
        {"name", TYPE_TEXT}, {"host", TYPE_TEXT}, {"port", TYPE_INT4}, {"database", TYPE_TEXT},
        {"force_user", TYPE_TEXT}, {"pool_size", TYPE_INT4}, {"min_pool_size", TYPE_INT4},
        {"reserve_pool_size", TYPE_INT4}, {"server_lifetime", TYPE_INT4}, {"pool_mode", TYPE_TEXT},
        {"load_balance_hosts", TYPE_TEXT}, {"max_connections", TYPE_INT4},
        {"current_connections", TYPE_INT4}, {"max_client_connections", TYPE_INT4},
        {"current_client_connections", TYPE_INT4}, {"paused", TYPE_INT4}, {"disabled", TYPE_INT4}, {NULL, 0}},
     .old_column = {"reserve_pool", TYPE_INT4}},
    {.name = "PEERS", .columns = {
        {"peer_id", TYPE_INT4}, {"host", TYPE_TEXT}, {"port", TYPE_INT4}, {"pool_size", TYPE_INT4}, {NULL, 0}}},
    {.name = "LISTS", .columns = {
        {"list", TYPE_TEXT}, {"items", TYPE_INT4}, {NULL, 0}}},
    {.name = "USERS", .columns = {
        {"name", TYPE_TEXT}, {"pool_size", TYPE_TEXT}, {"reserve_pool_size", TYPE_TEXT},
        {"pool_mode", TYPE_TEXT}, {"max_user_connections", TYPE_INT4},
        {"current_connections", TYPE_INT4}, {"max_user_client_connections", TYPE_INT4},
        {"current_client_connections", TYPE_INT4}, {NULL, 0}}},
    {.name = "POOLS", .columns = {
        {"database", TYPE_TEXT}, {"user", TYPE_TEXT}, {"cl_active", TYPE_INT4},
        {"cl_waiting", TYPE_INT4}, {"cl_active_cancel_req", TYPE_INT4},
        {"cl_waiting_cancel_req", TYPE_INT4}, {"sv_active", TYPE_INT4},
        {"sv_active_cancel", TYPE_INT4}, {"sv_being_canceled", TYPE_INT4}, {"sv_idle", TYPE_INT4},
        {"sv_used", TYPE_INT4}, {"sv_tested", TYPE_INT4}, {"sv_login", TYPE_INT4},
        {"maxwait", TYPE_INT4}, {"maxwait_us", TYPE_INT4}, {"pool_mode", TYPE_TEXT},
        {"load_balance_hosts", TYPE_TEXT}, {NULL, 0}}},
    /* Not PgBouncer's: the shards of the pools. */
    {.name = "SHARDS", .columns = {
        {"database", TYPE_TEXT}, {"user", TYPE_TEXT}, {"worker", TYPE_INT4},
        {"cl_active", TYPE_INT4}, {"cl_waiting", TYPE_INT4}, {"sv_active", TYPE_INT4},
        {"sv_idle", TYPE_INT4}, {"sv_starting", TYPE_INT4}, {"lent", TYPE_INT8},
        {"borrowed", TYPE_INT8}, {"maxwait_us", TYPE_INT8}, {NULL, 0}}},
    /* Not PgBouncer's: prepared statements that are tracked. */
    {.name = "PREPARED", .admin_only = true, .columns = {
        {"name", TYPE_TEXT}, {"text", TYPE_TEXT}, {"parameter_types", TYPE_TEXT},
        {"bytes", TYPE_INT8}, {"uses", TYPE_INT8}, {"clients", TYPE_INT4}, {"servers", TYPE_INT4},
        {NULL, 0}}},
    /* Not PgBouncer's: what shares servers (pool/sharing.h), each shard of a pool for itself. The reasons stand
     * in the order of their enumerations. */
    {.name = "SHARING", .columns = {
        {"database", TYPE_TEXT}, {"user", TYPE_TEXT}, {"worker", TYPE_INT4}, {"server_sharing", TYPE_TEXT},
        {"server_limit", TYPE_INT4}, {"servers", TYPE_INT4}, {"queued", TYPE_INT4}, {"shared", TYPE_INT8},
        {"joined", TYPE_INT8}, {"depth_avg", TYPE_FLOAT8}, {"depth_max", TYPE_INT8}, {"wait_us", TYPE_INT8},
        {"sets", TYPE_INT8}, {"again_lost", TYPE_INT8}, {"again_canceled", TYPE_INT8},
        {"again_alone", TYPE_INT8}, {"again_moved", TYPE_INT8},
        {"refused_pieces", TYPE_INT8}, {"refused_no_read", TYPE_INT8}, {"refused_keyword", TYPE_INT8},
        {"refused_function", TYPE_INT8}, {"refused_several", TYPE_INT8}, {"refused_doubt", TYPE_INT8},
        {"refused_batch", TYPE_INT8}, {"refused_statement", TYPE_INT8}, {"refused_client", TYPE_INT8},
        {"apart_unknown", TYPE_INT8}, {"apart_slow", TYPE_INT8}, {"apart_erratic", TYPE_INT8},
        {"apart_runs_long", TYPE_INT8}, {"apart_depth", TYPE_INT8}, {"apart_parameters", TYPE_INT8},
        {"apart_needed", TYPE_INT8}, {NULL, 0}}},
    /* How its server_limit is found (pool/sharing_policy.h). Trials stand in the order of their directions. */
    {.name = "SHARING_POLICY", .columns = {
        {"database", TYPE_TEXT}, {"user", TYPE_TEXT}, {"worker", TYPE_INT4}, {"ceiling", TYPE_INT4},
        {"server_limit", TYPE_INT4}, {"limit_now", TYPE_INT4}, {"raised", TYPE_INT8}, {"lowered", TYPE_INT8}, {"changed", TYPE_INT8},
        {"more_trials", TYPE_INT4}, {"more_gain_percent", TYPE_FLOAT8}, {"fewer_trials", TYPE_INT4},
        {"fewer_gain_percent", TYPE_FLOAT8}, {"double_trials", TYPE_INT4},
        {"double_gain_percent", TYPE_FLOAT8}, {"half_trials", TYPE_INT4}, {"half_gain_percent", TYPE_FLOAT8},
        {"answers_per_s", TYPE_FLOAT8}, {"busy_avg", TYPE_FLOAT8},
        {"queued_avg", TYPE_FLOAT8}, {"client_us_avg", TYPE_FLOAT8}, {"took_us_avg", TYPE_FLOAT8},
        {"floor_us_avg", TYPE_FLOAT8}, {NULL, 0}}},
    /* And the classes of statements that shared, with the text of one. */
    {.name = "SHARING_CLASSES", .admin_only = true, .columns = {
        {"database", TYPE_TEXT}, {"user", TYPE_TEXT}, {"class", TYPE_TEXT}, {"text", TYPE_TEXT},
        {"count", TYPE_INT8}, {"mean_us", TYPE_INT8}, {"deviation_us", TYPE_INT8},
        {"floor_us", TYPE_INT8}, {"follow", TYPE_TEXT}, {NULL, 0}}},
    {.name = "PEER_POOLS", .columns = {
        {"peer_id", TYPE_INT4}, {"cl_active_cancel_req", TYPE_INT4},
        {"cl_waiting_cancel_req", TYPE_INT4}, {"sv_active_cancel", TYPE_INT4},
        {"sv_login", TYPE_INT4}, {NULL, 0}}},
    {.name = "CLIENTS", .columns = {
        {"type", TYPE_TEXT}, {"user", TYPE_TEXT}, {"database", TYPE_TEXT},
        {"replication", TYPE_TEXT}, {"state", TYPE_TEXT}, {"addr", TYPE_TEXT}, {"port", TYPE_INT4},
        {"local_addr", TYPE_TEXT}, {"local_port", TYPE_INT4}, {"connect_time", TYPE_TEXT},
        {"request_time", TYPE_TEXT}, {"wait", TYPE_INT4}, {"wait_us", TYPE_INT4},
        {"close_needed", TYPE_INT4}, {"ptr", TYPE_TEXT}, {"link", TYPE_TEXT},
        {"remote_pid", TYPE_INT4}, {"tls", TYPE_TEXT}, {"application_name", TYPE_TEXT},
        {"prepared_statements", TYPE_INT4}, {"id", TYPE_INT4}, {NULL, 0}}},
    {.name = "SERVERS", .columns = {
        {"type", TYPE_TEXT}, {"user", TYPE_TEXT}, {"database", TYPE_TEXT},
        {"replication", TYPE_TEXT}, {"state", TYPE_TEXT}, {"addr", TYPE_TEXT}, {"port", TYPE_INT4},
        {"local_addr", TYPE_TEXT}, {"local_port", TYPE_INT4}, {"connect_time", TYPE_TEXT},
        {"request_time", TYPE_TEXT}, {"wait", TYPE_INT4}, {"wait_us", TYPE_INT4},
        {"close_needed", TYPE_INT4}, {"ptr", TYPE_TEXT}, {"link", TYPE_TEXT},
        {"remote_pid", TYPE_INT4}, {"tls", TYPE_TEXT}, {"application_name", TYPE_TEXT},
        {"prepared_statements", TYPE_INT4}, {"id", TYPE_INT4}, {NULL, 0}}},
    {.name = "SOCKETS", .columns = {
        {"type", TYPE_TEXT}, {"user", TYPE_TEXT}, {"database", TYPE_TEXT},
        {"replication", TYPE_TEXT}, {"state", TYPE_TEXT}, {"addr", TYPE_TEXT}, {"port", TYPE_INT4},
        {"local_addr", TYPE_TEXT}, {"local_port", TYPE_INT4}, {"connect_time", TYPE_TEXT},
        {"request_time", TYPE_TEXT}, {"wait", TYPE_INT4}, {"wait_us", TYPE_INT4},
        {"close_needed", TYPE_INT4}, {"ptr", TYPE_TEXT}, {"link", TYPE_TEXT},
        {"remote_pid", TYPE_INT4}, {"tls", TYPE_TEXT}, {"application_name", TYPE_TEXT},
        {"prepared_statements", TYPE_INT4}, {"id", TYPE_INT4}, {"recv_pos", TYPE_INT4},
        {"pkt_pos", TYPE_INT4}, {"pkt_remain", TYPE_INT4}, {"send_pos", TYPE_INT4},
        {"send_remain", TYPE_INT4}, {"pkt_avail", TYPE_INT4}, {"send_avail", TYPE_INT4}, {NULL, 0}}},
    {.name = "ACTIVE_SOCKETS", .columns = {
        {"type", TYPE_TEXT}, {"user", TYPE_TEXT}, {"database", TYPE_TEXT},
        {"replication", TYPE_TEXT}, {"state", TYPE_TEXT}, {"addr", TYPE_TEXT}, {"port", TYPE_INT4},
        {"local_addr", TYPE_TEXT}, {"local_port", TYPE_INT4}, {"connect_time", TYPE_TEXT},
        {"request_time", TYPE_TEXT}, {"wait", TYPE_INT4}, {"wait_us", TYPE_INT4},
        {"close_needed", TYPE_INT4}, {"ptr", TYPE_TEXT}, {"link", TYPE_TEXT},
        {"remote_pid", TYPE_INT4}, {"tls", TYPE_TEXT}, {"application_name", TYPE_TEXT},
        {"prepared_statements", TYPE_INT4}, {"id", TYPE_INT4}, {"recv_pos", TYPE_INT4},
        {"pkt_pos", TYPE_INT4}, {"pkt_remain", TYPE_INT4}, {"send_pos", TYPE_INT4},
        {"send_remain", TYPE_INT4}, {"pkt_avail", TYPE_INT4}, {"send_avail", TYPE_INT4}, {NULL, 0}}},
    {.name = "FDS", .admin_only = true, .columns = {
        {"fd", TYPE_INT4}, {"task", TYPE_TEXT}, {"user", TYPE_TEXT}, {"database", TYPE_TEXT},
        {"addr", TYPE_TEXT}, {"port", TYPE_INT4}, {"cancel", TYPE_INT8}, {"link", TYPE_INT4},
        {"client_encoding", TYPE_TEXT}, {"std_strings", TYPE_TEXT}, {"datestyle", TYPE_TEXT},
        {"timezone", TYPE_TEXT}, {"password", TYPE_TEXT}, {"scram_client_key", TYPE_BYTEA},
        {"scram_server_key", TYPE_BYTEA}, {NULL, 0}}},
    {.name = "STATS", .columns = {
        {"database", TYPE_TEXT}, {"total_server_assignment_count", TYPE_NUMERIC},
        {"total_xact_count", TYPE_NUMERIC}, {"total_query_count", TYPE_NUMERIC},
        {"total_received", TYPE_NUMERIC}, {"total_sent", TYPE_NUMERIC},
        {"total_xact_time", TYPE_NUMERIC}, {"total_query_time", TYPE_NUMERIC},
        {"total_wait_time", TYPE_NUMERIC}, {"total_client_parse_count", TYPE_NUMERIC},
        {"total_server_parse_count", TYPE_NUMERIC}, {"total_bind_count", TYPE_NUMERIC},
        {"total_client_login_count", TYPE_NUMERIC}, {"avg_server_assignment_count", TYPE_NUMERIC},
        {"avg_xact_count", TYPE_NUMERIC}, {"avg_query_count", TYPE_NUMERIC},
        {"avg_recv", TYPE_NUMERIC}, {"avg_sent", TYPE_NUMERIC}, {"avg_xact_time", TYPE_NUMERIC},
        {"avg_query_time", TYPE_NUMERIC}, {"avg_wait_time", TYPE_NUMERIC},
        {"avg_client_parse_count", TYPE_NUMERIC}, {"avg_server_parse_count", TYPE_NUMERIC},
        {"avg_bind_count", TYPE_NUMERIC}, {"avg_client_login_count", TYPE_NUMERIC}, {NULL, 0}},
     .old_column = {"total_requests", TYPE_NUMERIC}},
    {.name = "STATS_TOTALS", .columns = {
        {"database", TYPE_TEXT}, {"server_assignment_count", TYPE_NUMERIC},
        {"xact_count", TYPE_NUMERIC}, {"query_count", TYPE_NUMERIC},
        {"bytes_received", TYPE_NUMERIC}, {"bytes_sent", TYPE_NUMERIC},
        {"xact_time", TYPE_NUMERIC}, {"query_time", TYPE_NUMERIC}, {"wait_time", TYPE_NUMERIC},
        {"client_parse_count", TYPE_NUMERIC}, {"server_parse_count", TYPE_NUMERIC},
        {"bind_count", TYPE_NUMERIC}, {"client_login_count", TYPE_NUMERIC}, {NULL, 0}}},
    {.name = "STATS_AVERAGES", .columns = {
        {"database", TYPE_TEXT}, {"server_assignment_count", TYPE_NUMERIC},
        {"xact_count", TYPE_NUMERIC}, {"query_count", TYPE_NUMERIC},
        {"bytes_received", TYPE_NUMERIC}, {"bytes_sent", TYPE_NUMERIC},
        {"xact_time", TYPE_NUMERIC}, {"query_time", TYPE_NUMERIC}, {"wait_time", TYPE_NUMERIC},
        {"avg_client_parse_count", TYPE_NUMERIC}, {"avg_server_parse_count", TYPE_NUMERIC},
        {"avg_bind_count", TYPE_NUMERIC}, {"avg_client_login_count", TYPE_NUMERIC}, {NULL, 0}}},
    {.name = "TOTALS", .columns = {
        {"name", TYPE_TEXT}, {"value", TYPE_NUMERIC}, {NULL, 0}}},
    {.name = "MEM", .columns = {
        {"name", TYPE_TEXT}, {"size", TYPE_INT4}, {"used", TYPE_INT4}, {"free", TYPE_INT4},
        {"memtotal", TYPE_INT4}, {NULL, 0}}},
    {.name = "DNS_HOSTS", .columns = {
        {"hostname", TYPE_TEXT}, {"ttl", TYPE_INT8}, {"addrs", TYPE_TEXT}, {NULL, 0}}},
    {.name = "DNS_ZONES", .columns = {
        {"zonename", TYPE_TEXT}, {"serial", TYPE_INT8}, {"count", TYPE_INT4}, {NULL, 0}}},
    /* What drivers ask for at connect. */
    {.name = "client_encoding", .value = "UTF-8",
     .columns = {{"client_encoding", TYPE_TEXT}, {NULL, 0}}},
    {.name = "default_transaction_isolation", .value = "read committed",
     .columns = {{"default_transaction_isolation", TYPE_TEXT}, {NULL, 0}}},
    {.name = "standard_conforming_strings", .value = "on",
     .columns = {{"standard_conforming_strings", TYPE_TEXT}, {NULL, 0}}},
    {.name = "datestyle", .value = "ISO",
     .columns = {{"datestyle", TYPE_TEXT}, {NULL, 0}}},
    {.name = "timezone", .value = "GMT",
     .columns = {{"timezone", TYPE_TEXT}, {NULL, 0}}},
};
/* clang-format on */
const size_t show_table_count = COUNT_OF(show_tables);

uint8_t *output_room(struct output *output, size_t bytes)
{
    if (output->bytes + bytes > output->bytes_max) {
        output->bytes_max = MAX(output->bytes + bytes, output->bytes_max * 2);
        output->data = realloc(output->data, output->bytes_max);
        assert(output->data != NULL);
    }
    output->bytes += bytes;
    return output->data + output->bytes - bytes;
}

void output_put(struct output *output, const void *data, size_t bytes)
{
    if (bytes > 0)
        memcpy(output_room(output, bytes), data, bytes);
}

void output_release(struct output *output)
{
    free(output->data);
    *output = (struct output){0};
}

static void put_u16(struct output *output, unsigned value)
{
    bytes_put_u16(output_room(output, 2), (uint16_t)value);
}

static void put_u32(struct output *output, uint32_t value)
{
    bytes_put_u32(output_room(output, 4), value);
}

/* Returns where the length goes. */
static size_t begin(struct output *output, uint8_t type)
{
    output_put(output, &type, 1);
    put_u32(output, 0);
    return output->bytes - 4;
}

static void end(struct output *output, size_t position)
{
    bytes_put_u32(output->data + position, (uint32_t)(output->bytes - position));
}

const struct show_table *show_find(const char *name)
{
    for (size_t i = 0; i < show_table_count; i++)
        if (strcasecmp(show_tables[i].name, name) == 0)
            return &show_tables[i];
    return NULL;
}

static unsigned own_column_count(const struct show_table *table)
{
    unsigned count = 0;

    while (table->columns[count].name != NULL)
        count++;
    return count;
}

unsigned show_column_count(const struct output *output, const struct show_table *table)
{
    return own_column_count(table) + (output->has_old_columns && table->old_column.name != NULL);
}

static const struct show_column *column_at(const struct show_table *table, unsigned index)
{
    return index < own_column_count(table) ? &table->columns[index] : &table->old_column;
}

static bool is_binary(const struct output *output, unsigned index)
{
    assert(index < SHOW_COLUMNS_MAX);
    return (output->binary_columns >> index & 1) != 0;
}

/* As PostgreSQL's typlen. */
static unsigned type_bytes(int type)
{
    switch (type) {
    case TYPE_INT4:
        return 4;
    case TYPE_INT8:
    case TYPE_FLOAT8:
        return 8;
    default:
        return 0xffff;
    }
}

void show_row_description(struct output *output, const struct show_table *table)
{
    size_t position = begin(output, 'T');
    unsigned count = show_column_count(output, table);

    put_u16(output, count);
    for (unsigned i = 0; i < count; i++) {
        const struct show_column *column = column_at(table, i);

        output_put(output, column->name, strlen(column->name) + 1);
        put_u32(output, 0);
        put_u16(output, 0);
        put_u32(output, (uint32_t)column->type);
        put_u16(output, type_bytes(column->type));
        put_u32(output, 0xffffffff);
        put_u16(output, is_binary(output, i));
    }
    end(output, position);
}

void show_row_begin(struct show_row *row, struct output *output, const struct show_table *table)
{
    *row = (struct show_row){.output = output, .table = table, .begin = begin(output, 'D')};
    put_u16(output, show_column_count(output, table));
}

/* A whole number as PostgreSQL's numeric: base 10,000, the first digit's weight, no zeros at the
 * end. */
static void put_numeric(struct output *output, int64_t number)
{
    uint64_t left = number < 0 ? -(uint64_t)number : (uint64_t)number;
    uint16_t digits[5]; /* the lowest first */
    unsigned count = 0, zeros = 0;

    for (; left > 0; left /= 10000)
        digits[count++] = (uint16_t)(left % 10000);
    while (zeros < count && digits[zeros] == 0)
        zeros++;
    put_u32(output, 8 + 2 * (count - zeros));
    put_u16(output, count - zeros);
    put_u16(output, count > 0 ? count - 1 : 0);
    put_u16(output, number < 0 ? 0x4000 : 0);
    put_u16(output, 0);
    for (unsigned i = count; i-- > zeros;)
        put_u16(output, digits[i]);
}

/* Hex digits behind a \x. */
static void put_bytea(struct output *output, const char *text)
{
    size_t bytes = (strlen(text) - 2) / 2;

    assert(text[0] == '\\' && text[1] == 'x' && strlen(text) % 2 == 0);
    put_u32(output, (uint32_t)bytes);
    for (size_t i = 0; i < bytes; i++) {
        const char hex[] = {text[2 + 2 * i], text[3 + 2 * i], '\0'};
        uint8_t byte = (uint8_t)strtoul(hex, NULL, 16);

        output_put(output, &byte, 1);
    }
}

static void put_u64(struct output *output, uint64_t value)
{
    put_u32(output, (uint32_t)(value >> 32));
    put_u32(output, (uint32_t)value);
}

static void put_binary(struct output *output, int type, const char *text)
{
    int64_t number = strtoll(text, NULL, 10);
    double decimal;
    uint64_t bits;

    switch (type) {
    case TYPE_INT4:
        put_u32(output, 4);
        put_u32(output, (uint32_t)number);
        break;
    case TYPE_INT8:
        put_u32(output, 8);
        put_u64(output, (uint64_t)number);
        break;
    case TYPE_FLOAT8:
        decimal = strtod(text, NULL);
        memcpy(&bits, &decimal, sizeof(bits));
        put_u32(output, 8);
        put_u64(output, bits);
        break;
    case TYPE_NUMERIC:
        put_numeric(output, number);
        break;
    default:
        assert(type == TYPE_BYTEA);
        put_bytea(output, text);
    }
}

void show_text(struct show_row *row, const char *text)
{
    struct output *output = row->output;
    unsigned index = row->count++;
    int type;

    assert(index < own_column_count(row->table) + (row->table->old_column.name != NULL));
    if (index >= show_column_count(output, row->table))
        return; /* an old one that was not asked for */
    type = column_at(row->table, index)->type;
    if (text == NULL) {
        put_u32(output, 0xffffffff);
    } else if (is_binary(output, index) && type != TYPE_TEXT) {
        put_binary(output, type, text);
    } else {
        put_u32(output, (uint32_t)strlen(text));
        output_put(output, text, strlen(text));
    }
}

void show_number(struct show_row *row, int64_t number)
{
    char text[32];

    snprintf(text, sizeof(text), "%" PRId64, number);
    show_text(row, text);
}

void show_float(struct show_row *row, double number)
{
    char text[64];

    snprintf(text, sizeof(text), number > -1e15 && number < 1e15 ? "%.2f" : "%g", number);
    show_text(row, text);
}

void show_row_end(struct show_row *row)
{
    assert(row->count == own_column_count(row->table) + (row->table->old_column.name != NULL));
    end(row->output, row->begin);
}

void show_message(struct output *output, uint8_t type, const void *body, size_t bytes)
{
    size_t position = begin(output, type);

    output_put(output, body, bytes);
    end(output, position);
}

void show_complete(struct output *output, const char *tag)
{
    show_message(output, 'C', tag, strlen(tag) + 1);
}

void show_ready(struct output *output)
{
    show_message(output, 'Z', "I", 1);
}

void show_error(struct output *output, const char *severity, const char *sqlstate,
                const char *message, const char *detail)
{
    bool is_notice = strcmp(severity, "NOTICE") == 0;
    size_t position = begin(output, is_notice ? 'N' : 'E');

    if (sqlstate == NULL)
        sqlstate = is_notice ? "00000" : "08P01";
    output_put(output, "S", 1);
    output_put(output, severity, strlen(severity) + 1);
    output_put(output, "C", 1);
    output_put(output, sqlstate, strlen(sqlstate) + 1);
    output_put(output, "M", 1);
    output_put(output, message, strlen(message) + 1);
    if (detail != NULL) {
        output_put(output, "D", 1);
        output_put(output, detail, strlen(detail) + 1);
    }
    output_put(output, "", 1);
    end(output, position);
}
