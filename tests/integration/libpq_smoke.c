/* libpq_smoke.c - what applications do through libpq, one scenario for each name.
 *
 * libpq_smoke CONNINFO SCENARIO; status 0 and nothing printed when the scenario went as it must. */
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static PGconn *conn;

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, conn ? PQerrorMessage(conn) : "");
    exit(1);
}

static void expect(int true_or_not, const char *what)
{
    if (!true_or_not)
        fail(what);
}

static void expect_value(PGresult *result, const char *value, const char *what)
{
    if (PQresultStatus(result) != PGRES_TUPLES_OK || strcmp(PQgetvalue(result, 0, 0), value) != 0)
        fail(what);
    PQclear(result);
}

static void expect_status(PGresult *result, ExecStatusType status, const char *what)
{
    if (PQresultStatus(result) != status) {
        fprintf(stderr, "got %s\n", PQresStatus(PQresultStatus(result)));
        fail(what);
    }
    PQclear(result);
}

static void end_of_results(const char *what)
{
    expect(PQgetResult(conn) == NULL, what);
}

static void send_number(int number)
{
    char text[16];
    const char *values[1] = {text};
    snprintf(text, sizeof text, "%d", number);
    expect(PQsendQueryParams(conn, "select $1::int * 3", 1, NULL, values, NULL, NULL, 0) == 1,
           "send");
}

static void expect_number(int number)
{
    char text[16];
    snprintf(text, sizeof text, "%d", number * 3);
    expect_value(PQgetResult(conn), text, "answer in the pipeline");
    end_of_results("end of one answer");
}

static void scenario_pipeline(void)
{
    expect(PQenterPipelineMode(conn) == 1, "enter pipeline mode");
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 50; i++)
            send_number(i);
        expect(PQpipelineSync(conn) == 1, "sync");
        for (int i = 0; i < 50; i++)
            expect_number(i);
        expect_status(PQgetResult(conn), PGRES_PIPELINE_SYNC, "pipeline sync");
    }
    expect(PQexitPipelineMode(conn) == 1, "exit pipeline mode");
    expect_value(PQexec(conn, "select 5"), "5", "query after the pipeline");
}

static void scenario_pipeline_flush(void)
{
    expect(PQenterPipelineMode(conn) == 1, "enter pipeline mode");
    send_number(1);
    expect(PQsendFlushRequest(conn) == 1 && PQflush(conn) == 0, "flush request");
    expect_number(1);
    send_number(2);
    expect(PQpipelineSync(conn) == 1, "sync");
    expect_number(2);
    expect_status(PQgetResult(conn), PGRES_PIPELINE_SYNC, "pipeline sync");
    expect(PQexitPipelineMode(conn) == 1, "exit pipeline mode");
}

static void scenario_pipeline_error(void)
{
    expect(PQenterPipelineMode(conn) == 1, "enter pipeline mode");
    send_number(1);
    expect(PQsendQueryParams(conn, "select 1/0", 0, NULL, NULL, NULL, NULL, 0) == 1, "send");
    send_number(3);
    expect(PQpipelineSync(conn) == 1, "sync");
    send_number(4);
    expect(PQpipelineSync(conn) == 1, "second sync");
    expect_number(1);
    expect_status(PQgetResult(conn), PGRES_FATAL_ERROR, "the failing query");
    end_of_results("end of the failing query");
    expect_status(PQgetResult(conn), PGRES_PIPELINE_ABORTED, "the skipped query");
    end_of_results("end of the skipped query");
    expect_status(PQgetResult(conn), PGRES_PIPELINE_SYNC, "first sync");
    expect_number(4);
    expect_status(PQgetResult(conn), PGRES_PIPELINE_SYNC, "second sync");
    expect(PQexitPipelineMode(conn) == 1, "exit pipeline mode");
}

/* Inside one transaction, so that transaction pooling keeps the server. */
static void scenario_prepared(void)
{
    const char *values[1] = {"14"};
    expect_status(PQexec(conn, "begin"), PGRES_COMMAND_OK, "begin");
    expect_status(PQprepare(conn, "smoke", "select $1::int * 3", 0, NULL), PGRES_COMMAND_OK,
                  "prepare");
    expect_status(PQdescribePrepared(conn, "smoke"), PGRES_COMMAND_OK, "describe");
    for (int i = 0; i < 10; i++)
        expect_value(PQexecPrepared(conn, "smoke", 1, values, NULL, NULL, 0), "42", "execute");
    expect_status(PQexec(conn, "deallocate smoke"), PGRES_COMMAND_OK, "deallocate");
    expect_status(PQexec(conn, "commit"), PGRES_COMMAND_OK, "commit");
}

static void scenario_copy(void)
{
    char line[64];
    char *data;
    int count = 0;
    expect_status(PQexec(conn, "drop table if exists smoke_copy; create table smoke_copy (n int)"),
                  PGRES_COMMAND_OK, "create");
    expect_status(PQexec(conn, "copy smoke_copy from stdin"), PGRES_COPY_IN, "copy in");
    for (int i = 0; i < 20000; i++) {
        int bytes = snprintf(line, sizeof line, "%d\n", i);
        expect(PQputCopyData(conn, line, bytes) == 1, "copy data");
    }
    expect(PQputCopyEnd(conn, NULL) == 1, "copy end");
    expect_status(PQgetResult(conn), PGRES_COMMAND_OK, "result of copy in");
    end_of_results("end of copy in");
    expect_status(PQexec(conn, "copy smoke_copy to stdout"), PGRES_COPY_OUT, "copy out");
    while (PQgetCopyData(conn, &data, 0) > 0) {
        PQfreemem(data);
        count++;
    }
    expect(count == 20000, "number of lines copied out");
    expect_status(PQgetResult(conn), PGRES_COMMAND_OK, "result of copy out");
    end_of_results("end of copy out");
    expect_status(PQexec(conn, "drop table smoke_copy"), PGRES_COMMAND_OK, "drop");
}

/* PQexecParams sends Sync at once, before the COPY data: PostgreSQL ignores that one. */
static void scenario_copy_extended(void)
{
    expect_status(
        PQexec(conn, "drop table if exists smoke_copyx; create table smoke_copyx (n int)"),
        PGRES_COMMAND_OK, "create");
    expect_status(PQexecParams(conn, "copy smoke_copyx from stdin", 0, NULL, NULL, NULL, NULL, 0),
                  PGRES_COPY_IN, "copy in");
    expect(PQputCopyData(conn, "1\n2\n", 4) == 1, "copy data");
    expect(PQputCopyEnd(conn, NULL) == 1, "copy end");
    expect_status(PQgetResult(conn), PGRES_COMMAND_OK, "result of copy in");
    end_of_results("end of copy in");
    expect_status(PQexecParams(conn, "copy smoke_copyx from stdin", 0, NULL, NULL, NULL, NULL, 0),
                  PGRES_COPY_IN, "second copy in");
    expect(PQputCopyEnd(conn, "changed my mind") == 1, "copy failed by us");
    expect_status(PQgetResult(conn), PGRES_FATAL_ERROR, "result of the failed copy");
    end_of_results("end of the failed copy");
    expect_value(PQexec(conn, "select sum(n) from smoke_copyx"), "3", "what was copied");
    expect_status(PQexec(conn, "drop table smoke_copyx"), PGRES_COMMAND_OK, "drop");
}

static void scenario_cancel(void)
{
    char error[256];
    PGcancel *cancel = PQgetCancel(conn);
    PGresult *result;
    struct pollfd wait = {.fd = PQsocket(conn), .events = POLLIN};
    expect(PQsendQuery(conn, "do $$ begin raise notice 'runs'; perform pg_sleep(20); end $$") == 1,
           "send");
    /* The notice comes only when the query runs; it fills the socket and nothing else does. */
    expect(poll(&wait, 1, 5000) == 1, "the query runs");
    expect(PQcancel(cancel, error, sizeof error) == 1, error);
    PQfreeCancel(cancel);
    result = PQgetResult(conn);
    expect(PQresultStatus(result) == PGRES_FATAL_ERROR, "cancelled");
    expect(strcmp(PQresultErrorField(result, PG_DIAG_SQLSTATE), "57014") == 0,
           "sqlstate of the cancel");
    PQclear(result);
    end_of_results("end of the cancelled query");
    expect_value(PQexec(conn, "select 1"), "1", "query after the cancel");
}

static void scenario_nonblocking(void)
{
    const size_t size = 3000000;
    char *text = malloc(size + 100);
    int flushed;
    expect(text != NULL, "memory");
    strcpy(text, "select length('");
    memset(text + 15, 'n', size);
    strcpy(text + 15 + size, "')");
    expect(PQsetnonblocking(conn, 1) == 0, "nonblocking");
    expect(PQsendQuery(conn, text) == 1, "send");
    while ((flushed = PQflush(conn)) == 1) {
        struct pollfd wait = {.fd = PQsocket(conn), .events = POLLIN | POLLOUT};
        expect(poll(&wait, 1, 5000) == 1, "room to write");
        if (wait.revents & POLLIN)
            expect(PQconsumeInput(conn) == 1, "consume");
    }
    expect(flushed == 0, "flush");
    while (PQisBusy(conn)) {
        struct pollfd wait = {.fd = PQsocket(conn), .events = POLLIN};
        expect(poll(&wait, 1, 5000) == 1, "an answer");
        expect(PQconsumeInput(conn) == 1, "consume");
    }
    expect_value(PQgetResult(conn), "3000000", "length");
    end_of_results("end of the answer");
    free(text);
}

static void scenario_single_row(void)
{
    int rows = 0;
    PGresult *result;
    expect(PQsendQuery(conn, "select generate_series(1, 5000)") == 1, "send");
    expect(PQsetSingleRowMode(conn) == 1, "single row mode");
    while ((result = PQgetResult(conn)) != NULL) {
        if (PQresultStatus(result) == PGRES_SINGLE_TUPLE)
            rows++;
        else
            expect(PQresultStatus(result) == PGRES_TUPLES_OK, "end of rows");
        PQclear(result);
    }
    expect(rows == 5000, "number of rows");
}

/* For database pgbouncer: both protocols. */
static void scenario_console(void)
{
    PGresult *result = PQexec(conn, "show pools");
    expect(PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) >= 1, "show pools");
    PQclear(result);
    expect_status(PQexec(conn, "reload"), PGRES_COMMAND_OK, "reload");
    expect_status(PQexec(conn, "nonsense"), PGRES_FATAL_ERROR, "an unknown command");
}

static void scenario_console_extended(void)
{
    PGresult *result = PQexecParams(conn, "show pools", 0, NULL, NULL, NULL, NULL, 0);
    expect(PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) >= 1, "show pools");
    PQclear(result);
    expect_status(PQexecParams(conn, "reload", 0, NULL, NULL, NULL, NULL, 0), PGRES_COMMAND_OK,
                  "reload");
    expect_status(PQexecParams(conn, "nonsense", 0, NULL, NULL, NULL, NULL, 0), PGRES_FATAL_ERROR,
                  "an unknown command");
    expect_status(PQprepare(conn, "p", "show version", 0, NULL), PGRES_COMMAND_OK, "prepare");
    expect_status(PQexecPrepared(conn, "p", 0, NULL, NULL, NULL, 0), PGRES_TUPLES_OK, "execute");
}

static const struct {
    const char *name;
    void (*run)(void);
} scenarios[] = {
    {"pipeline", scenario_pipeline},
    {"pipeline_flush", scenario_pipeline_flush},
    {"pipeline_error", scenario_pipeline_error},
    {"prepared", scenario_prepared},
    {"copy", scenario_copy},
    {"copy_extended", scenario_copy_extended},
    {"cancel", scenario_cancel},
    {"nonblocking", scenario_nonblocking},
    {"single_row", scenario_single_row},
    {"console", scenario_console},
    {"console_extended", scenario_console_extended},
};

static void no_notices(void *argument, const char *text)
{
    (void)argument;
    (void)text;
}

int main(int argc, char **argv)
{
    expect(argc == 3, "usage: libpq_smoke CONNINFO SCENARIO");
    conn = PQconnectdb(argv[1]);
    expect(PQstatus(conn) == CONNECTION_OK, "connect");
    PQsetNoticeProcessor(conn, no_notices, NULL);
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) {
        if (strcmp(argv[2], scenarios[i].name) != 0)
            continue;
        scenarios[i].run();
        expect(PQtransactionStatus(conn) == PQTRANS_IDLE, "idle at the end");
        PQfinish(conn);
        return 0;
    }
    fail("unknown scenario");
}
