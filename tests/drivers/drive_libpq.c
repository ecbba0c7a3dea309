/* drive_libpq - the steps of tests/drivers/README.md in C: libpq with its prepared statements,
 * pipeline mode, single row mode, COPY, cancel. Connection parameters come from PGHOST and so on. */
#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECTIONS 3
#define SERVERS_MAX 16
#define REPEATS 20
#define ROWS 10000
#define LARGE_BYTES 1000000

static PGconn *conns[CONNECTIONS];
static const char *step = "";
static int pids[SERVERS_MAX];
static int pid_count;

static void fail(const char *what, PGconn *conn)
{
    fflush(stdout);
    fprintf(stderr, "step %s: %s: %s\n", step, what, PQerrorMessage(conn));
    exit(1);
}

/* One line of the transcript: the values, or the error's SQLSTATE and message. */
static void say(const char *about, PGresult *result)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

    printf("%s %s", step, about);
    if (state) {
        printf(" error %s %s\n", state, PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
    } else if (PQresultStatus(result) == PGRES_TUPLES_OK || PQresultStatus(result) == PGRES_SINGLE_TUPLE) {
        for (int row = 0; row < PQntuples(result); row++) {
            printf(" (");
            for (int column = 0; column < PQnfields(result); column++)
                printf("%s%s", column ? "," : "",
                       PQgetisnull(result, row, column) ? "NULL" : PQgetvalue(result, row, column));
            printf(")");
        }
        printf(" %s\n", PQcmdStatus(result));
    } else {
        printf(" %s %s\n", PQresStatus(PQresultStatus(result)), PQcmdStatus(result));
    }
    PQclear(result);
}

static void query(PGconn *conn, const char *about, const char *sql) { say(about, PQexec(conn, sql)); }

static void must(PGconn *conn, const char *sql)
{
    PGresult *result = PQexec(conn, sql);

    if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK)
        fail(sql, conn);
    PQclear(result);
}

static void note_server(int pid)
{
    for (int i = 0; i < pid_count; i++)
        if (pids[i] == pid)
            return;
    if (pid_count < SERVERS_MAX)
        pids[pid_count++] = pid;
}

static PGconn *open_connection(void)
{
    PGconn *conn = PQconnectdb("application_name=drive_libpq");

    if (PQstatus(conn) != CONNECTION_OK)
        fail("connect", conn);
    return conn;
}

static void simple(PGconn *conn)
{
    query(conn, "values", "select 1 as one, 'two' as two, null as nothing");
    query(conn, "several", "select 1; select 2; select 3");
    query(conn, "empty", "");
    query(conn, "create", "create table things (id int primary key, name text)");
    query(conn, "insert", "insert into things values (1, 'one'), (2, 'two')");
    query(conn, "update", "update things set name = upper(name)");
    query(conn, "setting", "show server_encoding");
}

static void types(PGconn *conn)
{
    static const char *const sql = "select $1::int, $2::bigint, $3::numeric, $4::text, $5::bytea, $6::bool, "
                                   "$7::text, $8::timestamp, $9::int[]";
    static const char *const values[] = {"-42",       "9007199254740993", "12345.678900",
                                         "it's \"quoted\" \\ \xc3\xa4\xe2\x82\xac\xf0\x9f\x90\x98",
                                         "\\x00ff10", "t",                NULL,
                                         "2024-02-29 12:34:56.789", "{1,NULL,3}"};
    PGresult *result;

    say("text", PQexecParams(conn, sql, 9, NULL, values, NULL, NULL, 0));
    result = PQexecParams(conn, "select $1::int4, $2::int8", 2, NULL, values, NULL, NULL, 1);
    printf("%s binary %d bytes, %d bytes\n", step, PQgetlength(result, 0, 0), PQgetlength(result, 0, 1));
    PQclear(result);
}

static void explicit_statements(PGconn *conn)
{
    const char *values[] = {"20", "22"};

    say("prepare", PQprepare(conn, "adding", "select $1::int + $2::int as sum", 2, NULL));
    for (int i = 0; i < 3; i++)
        say("execute", PQexecPrepared(conn, "adding", 2, values, NULL, NULL, 0));
    PGresult *described = PQdescribePrepared(conn, "adding");
    printf("%s describe %d parameters, %u and %u, column %s of type %u\n", step, PQnparams(described),
           PQparamtype(described, 0), PQparamtype(described, 1), PQfname(described, 0), PQftype(described, 0));
    PQclear(described);
    say("again", PQprepare(conn, "adding", "select 1", 0, NULL));
    say("other", PQprepare(conn, "same text", "select $1::int + $2::int as sum", 2, NULL));
    say("other", PQexecPrepared(conn, "same text", 2, values, NULL, NULL, 0));
    say("unknown", PQexecPrepared(conn, "nobody", 0, NULL, NULL, NULL, 0));
    say("unknown", PQdescribePrepared(conn, "nobody"));
    say("broken", PQprepare(conn, "broken", "selec 1", 0, NULL));
    say("broken", PQexecPrepared(conn, "broken", 0, NULL, NULL, NULL, 0));
    say("mended", PQprepare(conn, "broken", "select 'mended'", 0, NULL));
    say("mended", PQexecPrepared(conn, "broken", 0, NULL, NULL, NULL, 0));
    /* The unnamed statement outlives its batch, until the next Parse of it or simple query. */
    say("unnamed", PQprepare(conn, "", "select 'unnamed', $1::int", 1, NULL));
    say("unnamed", PQexecPrepared(conn, "", 1, values, NULL, NULL, 0));
    say("unnamed", PQexecPrepared(conn, "", 1, values, NULL, NULL, 0));
    say("unnamed", PQexec(conn, "select 'a simple query takes it away'"));
    say("unnamed", PQexecPrepared(conn, "", 1, values, NULL, NULL, 0));
}

static void deallocate(PGconn *conn)
{
    PQclear(PQprepare(conn, "Leaving", "select 'before'", 0, NULL));
    query(conn, "lower_case", "deallocate Leaving");
    query(conn, "quoted", "deallocate \"Leaving\"");
    say("gone", PQexecPrepared(conn, "Leaving", 0, NULL, NULL, NULL, 0));
    say("anew", PQprepare(conn, "Leaving", "select 'after'", 0, NULL));
    say("anew", PQexecPrepared(conn, "Leaving", 0, NULL, NULL, NULL, 0));
    query(conn, "unknown", "deallocate nobody");
}

/* The same name is another statement on each connection, and the server changes below them. */
static void interleave(void)
{
    static const char *const texts[CONNECTIONS] = {
        "select 'first', pg_backend_pid(), $1::int", "select 'second', pg_backend_pid(), $1::int",
        "select 'first', pg_backend_pid(), $1::int"};

    for (int i = 0; i < CONNECTIONS; i++)
        PQclear(PQprepare(conns[i], "mine", texts[i], 1, NULL));
    for (int round = 0; round < REPEATS; round++) {
        for (int i = 0; i < CONNECTIONS; i++) {
            PGconn *holder = conns[(i + 1) % CONNECTIONS];
            for (int held = 0; held < 2; held++) {
                char number[16];
                const char *values[] = {number};
                snprintf(number, sizeof(number), "%d", round);
                if (held)
                    must(holder, "begin");
                PGresult *result = PQexecPrepared(conns[i], "mine", 1, values, NULL, NULL, 0);
                if (PQresultStatus(result) != PGRES_TUPLES_OK)
                    fail("execute", conns[i]);
                note_server(atoi(PQgetvalue(result, 0, 1)));
                if (round % 10 == 0)
                    printf("%s %d %s %s\n", step, i, PQgetvalue(result, 0, 0), PQgetvalue(result, 0, 2));
                PQclear(result);
                if (held)
                    must(holder, "commit");
            }
        }
    }
}

static void errors(PGconn *conn)
{
    static const char *const broken[] = {"selec 1", "select 1/0", "insert into things values (1, 'again')",
                                         "select * from no_such_table", "select 'x'::int"};

    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        query(conn, "simple", broken[i]);
        say("extended", PQexecParams(conn, broken[i], 0, NULL, NULL, NULL, NULL, 0));
        query(conn, "usable", "select 1");
    }
    const char *zero[] = {"0"};
    say("prepared", PQprepare(conn, "divide", "select 10 / $1::int", 1, NULL));
    say("prepared", PQexecPrepared(conn, "divide", 1, zero, NULL, NULL, 0));
    zero[0] = "5";
    say("prepared", PQexecPrepared(conn, "divide", 1, zero, NULL, NULL, 0));
}

static void transactions(PGconn *conn, PGconn *other)
{
    step = "failed_transaction";
    query(conn, "begin", "begin");
    query(conn, "insert", "insert into things values (10, 'ten')");
    query(conn, "fails", "select 1/0");
    printf("%s status %d\n", step, PQtransactionStatus(conn));
    query(conn, "ignored", "select 1");
    say("ignored", PQprepare(conn, "late", "select 'late'", 0, NULL));
    query(conn, "rollback", "rollback");
    say("late", PQexecPrepared(conn, "late", 0, NULL, NULL, NULL, 0));
    say("late", PQprepare(conn, "late", "select 'late'", 0, NULL));
    say("late", PQexecPrepared(conn, "late", 0, NULL, NULL, NULL, 0));
    query(conn, "begin", "begin");
    say("inside", PQprepare(conn, "inside", "select 'prepared inside'", 0, NULL));
    query(conn, "rollback", "rollback");
    say("inside", PQexecPrepared(conn, "inside", 0, NULL, NULL, NULL, 0));

    step = "visible";
    query(conn, "begin", "begin");
    query(conn, "insert", "insert into things values (11, 'eleven')");
    query(other, "before", "select count(*) from things where id = 11");
    query(conn, "commit", "commit");
    query(other, "after", "select count(*) from things where id = 11");
    query(conn, "begin", "begin");
    query(conn, "delete", "delete from things where id = 11");
    query(conn, "rollback", "rollback");
    query(other, "rolled_back", "select count(*) from things where id = 11");

    step = "savepoint";
    query(conn, "begin", "begin");
    query(conn, "savepoint", "savepoint one");
    query(conn, "insert", "insert into things values (12, 'twelve')");
    query(conn, "fails", "insert into things values (1, 'again')");
    query(conn, "back", "rollback to one");
    query(conn, "insert", "insert into things values (13, 'thirteen')");
    query(conn, "release", "release one");
    query(conn, "commit", "commit");
    query(conn, "after", "select id from things where id in (12, 13)");
}

static void send_prepared(PGconn *conn, const char *name, const char *value)
{
    const char *values[] = {value};

    if (!PQsendQueryPrepared(conn, name, 1, values, NULL, NULL, 0))
        fail("PQsendQueryPrepared", conn);
}

/* What PQgetResult gives up to the `syncs`-th sync point. */
static void say_pipeline(PGconn *conn, int syncs)
{
    while (syncs) {
        PGresult *result = PQgetResult(conn);
        if (!result)
            continue;
        if (PQresultStatus(result) == PGRES_PIPELINE_SYNC)
            syncs--;
        say("result", result);
    }
}

static void pipeline(PGconn *conn)
{
    if (!PQenterPipelineMode(conn))
        fail("PQenterPipelineMode", conn);
    PQsendPrepare(conn, "pipe", "select 'pipe', 100 / $1::int", 1, NULL);
    for (int i = 0; i < 3; i++)
        send_prepared(conn, "pipe", "5");
    PQpipelineSync(conn);
    send_prepared(conn, "pipe", "10");
    send_prepared(conn, "pipe", "0");
    send_prepared(conn, "pipe", "20");
    PQsendPrepare(conn, "skipped", "select 'skipped', $1::int", 1, NULL);
    PQpipelineSync(conn);
    send_prepared(conn, "skipped", "1");
    PQpipelineSync(conn);
    PQsendPrepare(conn, "skipped", "select 'no longer skipped', $1::int", 1, NULL);
    send_prepared(conn, "skipped", "2");
    PQpipelineSync(conn);
    say_pipeline(conn, 4);
    /* A flush request instead of a sync: the answer must come all the same. */
    step = "flush";
    for (int i = 0; i < 3; i++) {
        send_prepared(conn, "pipe", "4");
        PQsendFlushRequest(conn);
        PQflush(conn);
        PGresult *result = PQgetResult(conn);
        say("result", result);
        while ((result = PQgetResult(conn)))
            PQclear(result);
    }
    PQsendPrepare(conn, "known", "select 'pipe', 100 / $1::int", 1, NULL);
    PQsendFlushRequest(conn);
    PQflush(conn);
    say("parse", PQgetResult(conn));
    PQclear(PQgetResult(conn));
    PQpipelineSync(conn);
    say_pipeline(conn, 1);
    if (!PQexitPipelineMode(conn))
        fail("PQexitPipelineMode", conn);
    step = "pipeline";
    say("after", PQexecPrepared(conn, "skipped", 1, (const char *[]){"3"}, NULL, NULL, 0));
}

static void batch(PGconn *conn)
{
    int done = 0;

    must(conn, "create table batch (id int, name text)");
    PQclear(PQprepare(conn, "batch", "insert into batch values ($1, $2)", 2, NULL));
    PQenterPipelineMode(conn);
    for (int i = 0; i < 500; i++) {
        char id[16], name[32];
        const char *values[] = {id, name};
        snprintf(id, sizeof(id), "%d", i);
        snprintf(name, sizeof(name), "name %d", i);
        if (!PQsendQueryPrepared(conn, "batch", 2, values, NULL, NULL, 0))
            fail("PQsendQueryPrepared", conn);
    }
    PQpipelineSync(conn);
    for (;;) {
        PGresult *result = PQgetResult(conn);
        ExecStatusType status = PQresultStatus(result);
        PQclear(result);
        if (status == PGRES_PIPELINE_SYNC)
            break;
        done += status == PGRES_COMMAND_OK;
    }
    PQexitPipelineMode(conn);
    printf("%s done %d\n", step, done);
    query(conn, "count", "select count(*), sum(id), max(name) from batch");
}

static void cursor(PGconn *conn)
{
    query(conn, "begin", "begin");
    query(conn, "declare", "declare walk cursor for select i from generate_series(1, 10) i");
    query(conn, "fetch", "fetch 3 from walk");
    query(conn, "fetch", "fetch 3 from walk");
    query(conn, "close", "close walk");
    query(conn, "commit", "commit");
}

static void copy(PGconn *conn)
{
    char *line;
    int bytes, rows = 0, sum = 0;

    must(conn, "create table copied (id int, name text)");
    query(conn, "in", "copy copied from stdin");
    for (int i = 0; i < ROWS; i++) {
        char row[64];
        int length = snprintf(row, sizeof(row), "%d\tname %d\n", i, i);
        if (PQputCopyData(conn, row, length) != 1)
            fail("PQputCopyData", conn);
    }
    PQputCopyEnd(conn, NULL);
    say("end", PQgetResult(conn));
    PQclear(PQgetResult(conn));
    query(conn, "out", "copy copied to stdout");
    while ((bytes = PQgetCopyData(conn, &line, 0)) > 0) {
        rows++;
        sum += bytes;
        PQfreemem(line);
    }
    printf("%s rows %d bytes %d\n", step, rows, sum);
    say("end", PQgetResult(conn));
    PQclear(PQgetResult(conn));
    query(conn, "in", "copy copied from stdin");
    PQputCopyData(conn, "not a number\tx\n", 15);
    PQputCopyEnd(conn, NULL);
    say("bad", PQgetResult(conn));
    PQclear(PQgetResult(conn));
    query(conn, "in", "copy copied from stdin");
    PQputCopyEnd(conn, "changed my mind");
    say("given_up", PQgetResult(conn));
    PQclear(PQgetResult(conn));
    query(conn, "usable", "select count(*) from copied");
}

static void large(PGconn *conn)
{
    char *value = malloc(LARGE_BYTES + 1);
    const char *values[] = {value};
    PGresult *result;
    long sum = 0;
    int rows = 0;

    memset(value, 'x', LARGE_BYTES);
    value[LARGE_BYTES] = 0;
    say("prepare", PQprepare(conn, "echo", "select $1::text", 1, NULL));
    for (int i = 0; i < 3; i++) {
        result = PQexecPrepared(conn, "echo", 1, values, NULL, NULL, 0);
        printf("%s value %d\n", step, PQntuples(result) == 1 && strcmp(PQgetvalue(result, 0, 0), value) == 0);
        PQclear(result);
    }
    PQsendQuery(conn, "select i, repeat('y', 100) from generate_series(1, 10000) i");
    PQsetSingleRowMode(conn);
    while ((result = PQgetResult(conn))) {
        if (PQresultStatus(result) == PGRES_SINGLE_TUPLE) {
            rows++;
            sum += atoi(PQgetvalue(result, 0, 0));
        }
        PQclear(result);
    }
    printf("%s rows %d sum %ld\n", step, rows, sum);
    /* A statement whose text is longer than a receive buffer. */
    char *text = malloc(LARGE_BYTES + 64);
    snprintf(text, LARGE_BYTES + 64, "select 'long', /* %.*s */ $1::int", 100000, value);
    say("long", PQprepare(conn, "long", text, 1, NULL));
    for (int i = 0; i < 3; i++)
        say("long", PQexecPrepared(conn, "long", 1, (const char *[]){"7"}, NULL, NULL, 0));
    free(text);
    free(value);
}

static void timeout(PGconn *conn)
{
    query(conn, "begin", "begin");
    query(conn, "set", "set local statement_timeout = 50");
    query(conn, "sleep", "select pg_sleep(30)");
    query(conn, "rollback", "rollback");
    query(conn, "usable", "select 1");
}

static void cancel(PGconn *conn, PGconn *other)
{
    char problem[256];
    int sleeps = 0;
    PGcancel *handle = PQgetCancel(conn);

    if (!PQsendQuery(conn, "select 'cancel me', pg_sleep(30)"))
        fail("PQsendQuery", conn);
    while (!sleeps) {
        PGresult *result = PQexec(other, "select count(*) from pg_stat_activity where datname = current_database() "
                                         "and wait_event = 'PgSleep'");
        sleeps = atoi(PQgetvalue(result, 0, 0));
        PQclear(result);
    }
    printf("%s sent %d\n", step, PQcancel(handle, problem, sizeof(problem)));
    PQfreeCancel(handle);
    say("answer", PQgetResult(conn));
    PQclear(PQgetResult(conn));
    query(conn, "usable", "select 1");
}

static void schema(PGconn *conn, PGconn *other)
{
    must(conn, "create table changing (id int)");
    must(conn, "insert into changing values (1)");
    PQclear(PQprepare(conn, "all", "select * from changing", 0, NULL));
    say("before", PQexecPrepared(conn, "all", 0, NULL, NULL, NULL, 0));
    must(other, "alter table changing add column name text default 'new'");
    say("after", PQexecPrepared(conn, "all", 0, NULL, NULL, NULL, 0));
    query(conn, "begin", "begin");
    must(conn, "select 1");
    say("inside", PQexecPrepared(conn, "all", 0, NULL, NULL, NULL, 0));
    query(conn, "rollback", "rollback");
    say("outside", PQexecPrepared(conn, "all", 0, NULL, NULL, NULL, 0));
}

static void discard(PGconn *conn, PGconn *other)
{
    PQclear(PQprepare(conn, "kept", "select 'kept'", 0, NULL));
    PQclear(PQprepare(other, "kept", "select 'kept'", 0, NULL));
    say("before", PQexecPrepared(conn, "kept", 0, NULL, NULL, NULL, 0));
    query(conn, "all", "deallocate all");
    say("after", PQexecPrepared(conn, "kept", 0, NULL, NULL, NULL, 0));
    say("other", PQexecPrepared(other, "kept", 0, NULL, NULL, NULL, 0));
    say("anew", PQprepare(conn, "kept", "select 'anew'", 0, NULL));
    say("anew", PQexecPrepared(conn, "kept", 0, NULL, NULL, NULL, 0));
    query(conn, "all", "discard all");
    say("after", PQexecPrepared(conn, "kept", 0, NULL, NULL, NULL, 0));
    say("other", PQexecPrepared(other, "kept", 0, NULL, NULL, NULL, 0));
    say("anew", PQprepare(conn, "kept", "select 'anew'", 0, NULL));
    say("anew", PQexecPrepared(conn, "kept", 0, NULL, NULL, NULL, 0));
}

static void listen_notify(PGconn *conn, PGconn *other)
{
    PGnotify *notice;

    query(conn, "listen", "listen news");
    query(other, "notify", "notify news, 'it is here'");
    while (!(notice = PQnotifies(conn))) {
        struct pollfd waiting = {.fd = PQsocket(conn), .events = POLLIN};
        poll(&waiting, 1, -1);
        PQconsumeInput(conn);
    }
    printf("%s got %s %s\n", step, notice->relname, notice->extra);
    PQfreemem(notice);
}

static void reconnect(PGconn *conn)
{
    PGresult *result = PQexec(conn, "select pg_terminate_backend(pg_backend_pid())");
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

    printf("%s killed %s\n", step, state ? state : "no state");
    PQclear(result);
    printf("%s status %d\n", step, PQstatus(conn));
    PQreset(conn);
    printf("%s status %d\n", step, PQstatus(conn));
    say("unknown", PQexecPrepared(conn, "kept", 0, NULL, NULL, NULL, 0));
    query(conn, "usable", "select 1");
}

int main(void)
{
    for (int i = 0; i < CONNECTIONS; i++)
        conns[i] = open_connection();
    PGconn *conn = conns[0], *other = conns[1];
    step = "simple", simple(conn);
    step = "types", types(conn);
    step = "explicit", explicit_statements(conn);
    step = "deallocate", deallocate(conn);
    step = "interleave", interleave();
    step = "errors", errors(conn);
    transactions(conn, other);
    step = "batch", batch(conn);
    step = "pipeline", pipeline(conn);
    step = "cursor", cursor(conn);
    step = "copy", copy(conn);
    step = "large", large(conn);
    step = "timeout", timeout(conn);
    step = "cancel", cancel(conn, other);
    step = "schema", schema(conn, other);
    step = "discard", discard(conn, other);
    if (strcmp(getenv("DRIVE_WAY"), "straight") == 0 || strcmp(getenv("DRIVE_WAY"), "session") == 0)
        step = "listen", listen_notify(conn, other);
    step = "reconnect", reconnect(conn);
    for (int i = 0; i < CONNECTIONS; i++)
        PQfinish(conns[i]);
    printf("# servers %d\nend\n", pid_count);
    return 0;
}
