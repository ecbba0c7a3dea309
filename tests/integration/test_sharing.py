"""Sharing a server: what shares and what does not, and that nobody can tell. PostgreSQL itself says what the answers
must be: messages are compared byte by byte."""

import os
import struct
import subprocess

import certificates
import pgwire
from harness import POSTGRES_BIN, eventually, ours, refused, same, slow
from pgwire import bind, close, describe, execute, flush, parse, query, sync
from sharing import PREPARED, Figures, Load, row_of, shares, sharing_pooler, tables, text_of
from tls_wire import Offer


def stream(client, syncs=1, timeout=10):
    """All messages up to that many ReadyForQuery, as they are."""
    return [(m.type, m.body) for _ in range(syncs) for m in client.until("Z", timeout)]


def compared(t, pooler, data, syncs=1, **params):
    """Sent whole through the pooler, and straight: the same comes back."""
    with t.postgres.connect(**params) as straight, pooler.connect(**params) as pooled:
        straight.send(data)
        pooled.send(data)
        wanted, got = stream(straight, syncs), stream(pooled, syncs)
        assert got == wanted, f"{data[:300]!r}\n got {str(got)[:900]}\n wanted {str(wanted)[:900]}"


# ---- what shares ----------------------------------------------------------------------------------

SHARED_TEXTS = (
    "select 1", "SELECT 1;", "  select 1 ;  ", "/* a /* nested */ comment */ select 1 -- end",
    "-- first line\nselect 1", "\n\tselect\n1\n", "values (1), (2), (3)", "table sharing_t", "(select 1)",
    "with x as (select 1 as a) select a from x", "select ';'", "select 'it''s; update'", 'select 1 as "update; set"',
    "select $$ insert; $$", "select $a$ $$ lock $a$", "select E'\\'; delete'", "select null, null::text, ''",
    "select count(*) from sharing_t", "select * from sharing_t where a = 1", "select * from sharing_t where false",
    "select a, b from sharing_t order by a limit 2 offset 1", "select max(a), lower('X'), coalesce(null, 1) from sharing_t",
    "select 1 union all select 2", "select exists (select 1 from sharing_t)", "select '2001-02-03'::date, 1.5::numeric, true",
    "select array[1, 2, 3], row(1, 'x')", "select case when a > 1 then 'more' else 'less' end from sharing_t",
    "select 1/0", "select * from no_such_table", "select no_such_column from sharing_t", "select 'x'::int",
    "select (1 / (3 - a))::text from sharing_t order by a", "select * from me where pid < 0", "select from sharing_t",
    "select * from noise",
)

REFUSED_TEXTS = (
    "insert into sharing_t values (100, 'x')", "update sharing_t set b = b", "delete from sharing_t where a = 100",
    "select * from sharing_t for update", "select * from sharing_t for no key update", "select * from sharing_t for share",
    "select * from sharing_t for key share", "select 1 into temp sharing_into", "with x as (delete from sharing_t where false returning a) select a from x",
    "with x as (insert into sharing_t values (101, 'y') returning a) select a from x", "set search_path = public",
    "reset search_path", "begin; commit", "select 1; select 2", "select set_config('search_path', 'public', false)",
    "select pg_sleep(0)", "select nextval('sharing_s')", "select setval('sharing_s', 1)", "select pg_advisory_lock(1), pg_advisory_unlock(1)",
    "select pg_backend_pid() > 0", "select pg_notify('x', 'y')", "select txid_current() > 0", "select sharing_side_effect()",
    "begin; lock table sharing_t; commit", "notify x", "listen x; unlisten x", "create temp table sharing_c (a int); drop table sharing_c",
    "explain select 1", "analyze sharing_t", "checkpoint", "prepare sharing_p as select 1; deallocate sharing_p", "do $$ begin end $$",
    "select lo_create(0) > 0", "select currval('no_sequence')", "call no_procedure()", "execute no_statement", "fetch all from no_cursor",
    "", ";", "  ", "selct 1", "select 'no end", "show search_path",
)


def samples(t):
    with t.postgres.connect() as c:
        c.query("""drop view if exists noise; drop table if exists sharing_t; drop sequence if exists sharing_s;
            create table sharing_t (a int, b text); insert into sharing_t values (1, 'one'), (2, null), (3, 'three'), (4, '');
            create sequence sharing_s;
            create or replace function sharing_side_effect() returns int language sql as 'select 1';
            create or replace function noisy() returns text language plpgsql as
                $$ begin raise notice 'first %', 1; raise warning 'second'; return 'x'; end $$;
            create view noise as select noisy() as said from sharing_t""")
    tables(t)


def asks(pooler, data, figures, syncs=1, before=b""):
    """How many of three times went the shared way; a client for it alone."""
    with pooler.connect() as c:
        if before:
            c.send(before)
            c.until("Z")
        since = figures.now()
        for _ in range(3):
            c.send(data)
            for _ in range(syncs):
                c.until("Z")
        now = figures.now()
        return now.get("shared", 0) - since.get("shared", 0)


def must_share(pooler, figures, what, data, wanted=True, **more):
    if shares:
        count = asks(pooler, data, figures, **more)
        assert (count >= 2) if wanted else (count == 0), f"{what!r}: shared {count} of 3 times"


@ours
@slow(60)
def test_reads_share_and_are_answered_as_by_postgresql(t):
    samples(t)
    pooler = sharing_pooler(t)
    with pooler.console() as console:
        figures = Figures(console)
        for sql in SHARED_TEXTS:
            compared(t, pooler, query(sql))
            must_share(pooler, figures, sql, query(sql))
            batch = parse("", sql) + bind() + describe("P") + execute() + sync()
            compared(t, pooler, batch)
            must_share(pooler, figures, "batch " + sql, batch)


@ours
@slow(60)
def test_what_writes_locks_or_is_not_known_does_not_share(t):
    samples(t)
    pooler = sharing_pooler(t)
    with pooler.console() as console:
        figures = Figures(console)
        for sql in REFUSED_TEXTS:
            must_share(pooler, figures, sql, query(sql), wanted=False)
            if sql.count(";") == 0:
                batch = parse("", sql) + bind() + describe("P") + execute() + sync()
                must_share(pooler, figures, "batch " + sql, batch, wanted=False)
        if shares:
            row = figures.now()
            assert row["shared"] == figures.before.get("shared", 0), row


RUN = bind("", "s", ["7"]) + describe("P") + execute() + sync()
PREPARE = parse("s", "select $1::int + a from sharing_t order by a") + sync()
TEXT = "select $1::text, a, b from sharing_t order by a"

SHARED_BATCHES = {
    "unnamed with a value": parse("", TEXT) + bind("", "", ["x"]) + describe("P") + execute() + sync(),
    "unnamed with NULL": parse("", TEXT) + bind("", "", [None]) + describe("P") + execute() + sync(),
    "unnamed without Describe": parse("", TEXT) + bind("", "", ["x"]) + execute() + sync(),
    "unnamed with types": parse("", TEXT, (25,)) + bind("", "", ["x"]) + describe("P") + execute() + sync(),
    "unnamed, binary": parse("", "select $1::int4 + a, b from sharing_t order by a", (23,)) +
                       bind("", "", [struct.pack("!i", 7)], binary=True) + describe("P") + execute() + sync(),
    "unnamed, no rows": parse("", "select a from sharing_t where a = $1::int") + bind("", "", [99]) + describe("P") + execute() + sync(),
}
SHARED_RUNS = {
    "prepared": RUN,
    "prepared without Describe": bind("", "s", ["7"]) + execute() + sync(),
    "prepared, error in Bind": bind("", "s", ["seven"]) + execute() + sync(),
    "prepared, error in execution": bind("", "s", ["2147483647"]) + execute() + sync(),
    "prepared, NULL": bind("", "s", [None]) + execute() + sync(),
}
OTHER_BATCHES = {
    "Sync alone": sync(),
    "Describe only": parse("", TEXT) + describe("S") + sync(),
    "Bind only": parse("", TEXT) + bind("", "", ["x"]) + sync(),
    "limit of rows": parse("", TEXT) + bind("", "", ["x"]) + execute(rows=2) + sync(),
    "limit of rows, twice": parse("", TEXT) + bind("", "", ["x"]) + execute(rows=2) + execute(rows=9) + sync(),
    "named portal": parse("", TEXT) + bind("c", "", ["x"]) + execute("c") + sync(),
    "two statements": parse("", "select 1") + bind() + execute() + parse("", "select 2") + bind() + execute() + sync(),
    "Flush": parse("", TEXT) + bind("", "", ["x"]) + flush() + execute() + sync(),
    "write": parse("", "insert into sharing_log values ('x', $1)") + bind("", "", [1]) + execute() + sync(),
    "COPY": parse("", "copy sharing_t to stdout") + bind() + execute() + sync(),
    "cursor": parse("", "declare sharing_c cursor for select 1") + bind() + execute() + sync(),
    "unknown statement": bind("", "unknown") + execute() + sync(),
}
# What may go either way, but must be answered like PostgreSQL.
EITHER = {
    "too few values": parse("", TEXT) + bind() + execute() + sync(),
    "described statement": parse("", TEXT) + describe("S") + bind("", "", ["x"]) + execute() + sync(),
    "closed portal": parse("", TEXT) + bind("", "", ["x"]) + execute() + close("P") + sync(),
    "empty text": parse("", "") + bind() + describe("P") + execute() + sync(),
    "error in Parse": parse("", "select * from no_such_table") + bind() + execute() + sync(),
}


@ours
@slow(60)
def test_batches_share_and_are_answered_as_by_postgresql(t):
    samples(t)
    pooler = sharing_pooler(t)
    with pooler.console() as console:
        figures = Figures(console)
        for what, data in SHARED_BATCHES.items():
            compared(t, pooler, data)
            must_share(pooler, figures, what, data)
        for what, data in SHARED_RUNS.items():
            for _ in range(2):
                with t.postgres.connect() as straight, pooler.connect() as pooled:
                    for c in (straight, pooled):
                        c.send(PREPARE)
                        c.until("Z")
                        for _ in range(3):
                            c.send(data)
                            c.until("Z")
                        c.send(data)
                    same(stream(pooled), stream(straight), what)
            must_share(pooler, figures, what, data, before=PREPARE)


@ours
@slow(60)
def test_other_batches_go_the_ordinary_way(t):
    samples(t)
    pooler = sharing_pooler(t)
    with pooler.console() as console:
        figures = Figures(console)
        for what, data in OTHER_BATCHES.items():
            if what not in ("unknown statement",):  # worded by us
                compared(t, pooler, data)
            must_share(pooler, figures, what, data, wanted=False)
        for what, data in EITHER.items():
            for _ in range(3):
                compared(t, pooler, data)


@ours
@slow(60)
def test_everything_is_answered_as_by_postgresql_in_pieces_and_in_pipelines(t):
    samples(t)
    pooler = sharing_pooler(t)
    requests = [query(sql) for sql in SHARED_TEXTS] + list(SHARED_BATCHES.values()) + list(EITHER.values()) + \
        [data for what, data in OTHER_BATCHES.items() if what != "unknown statement"]
    with t.postgres.connect() as straight, pooler.connect(timeout=15) as pooled, pooler.connect() as pieces:
        for start in range(0, len(requests), 7):
            data = b"".join(requests[start:start + 7])
            for c in (straight, pooled):
                c.send(data)
            pieces.send_split(data, 11)
            count = len(requests[start:start + 7])
            wanted = stream(straight, count)
            same(stream(pooled, count), wanted, "pipeline")
            same(stream(pieces, count), wanted, "pieces")


@ours
def test_rows_of_megabytes_are_answered_as_by_postgresql(t):
    pooler = sharing_pooler(t)
    for size in (1, 8000, 16383, 70000, 3000000):
        compared(t, pooler, query(f"select 'a', repeat('y', {size}), 'z'"))
        compared(t, pooler, query(f"select repeat('y', {size // 3}), g from generate_series(1, 4) g"))
        compared(t, pooler, parse("", f"select $1::text, repeat('y', {size})") + bind("", "", ["v" * (size // 2)]) + describe("P") +
                 execute() + sync())


@ours
def test_in_a_transaction_block_nobody_shares(t):
    samples(t)
    pooler = sharing_pooler(t)
    with pooler.console() as console, pooler.connect() as c:
        c.query("begin")
        figures = Figures(console)
        for _ in range(5):
            same(c.value("select 1"), "1")
            same(c.batch(parse("", "select 1") + bind() + execute()).rows, [("1",)])
        same(figures.since("shared"), 0)
        c.query("commit")
        same(c.value("select 1"), "1")
        if shares:
            assert figures.since("shared") == 1, figures.now()


@ours
def test_in_session_mode_nobody_shares(t):
    samples(t)
    pooler = sharing_pooler(t, size=2, pool_mode="session")
    with pooler.console() as console, pooler.connect() as a, pooler.connect() as b:
        figures = Figures(console)
        for c in (a, b) * 5:
            same(c.value("select 1"), "1")
        same(figures.since("shared"), 0)


@ours
def test_in_statement_mode_clients_share(t):
    samples(t)
    pooler = sharing_pooler(t, pool_mode="statement")
    with pooler.console() as console:
        figures = Figures(console)
        with Load(pooler, 8) as load:
            load.goes_on(500)
        figures.has("shared", "joined")


@ours
def test_simple_queries_that_are_not_allowed_do_not_share(t):
    pooler = sharing_pooler(t, disable_pqexec=1)
    for _ in range(3):
        with pooler.connect() as c:
            same(c.batch(parse("", "select 1") + bind() + execute()).rows, [("1",)])
            c.send(query("select 1"))
            same(str(c.fatal()), "FATAL 08P01 PQexec disallowed")


@ours
def test_server_sharing_off_shares_nothing(t):
    tables(t)
    pooler = sharing_pooler(t, sharing="off")
    with pooler.console() as console, Load(pooler, 8) as load:
        load.goes_on(400)
        if shares:
            same(Figures(console).now().get("shared", 0), 0)


@ours
def test_entry_of_a_database_may_say_that_it_is_not_shared(t):
    tables(t)
    tables(t, "app2")
    pooler = sharing_pooler(t, databases={"app": t.postgres.address("app", server_sharing="off"),
                                          "app2": t.postgres.address("app2")})
    with pooler.console() as console:
        app, app2 = Figures(console), Figures(console, "app2")
        with Load(pooler, 8) as one, Load(pooler, 8, database="app2") as other:
            one.goes_on(300)
            other.goes_on(300)
        same(app.now().get("shared", 0), 0)
        app2.has("shared", "joined")


@ours
def test_clients_are_answered_by_one_backend_at_a_time(t):
    # The others of the pool are for those who must not wait: of a slow one, of one that is not known.
    tables(t)
    pooler = sharing_pooler(t, sharing=1, size=4)
    with pooler.console() as console:
        figures = Figures(console)
        clients = [pooler.connect() for _ in range(12)]
        seen = {}

        def is_one():
            seen.clear()
            for c in clients:
                c.send(query("select pid from me where 'x' <> ''"))
            for c in clients:
                pid = c.results().value()
                seen[pid] = seen.get(pid, 0) + 1
            return len(seen) == 1 and figures.since("joined") > 0
        if shares:
            eventually(is_one, "all twelve are answered by one", 20)
        figures.rest()


# ---- parameters -------------------------------------------------------------------------------------

PARAMETERS = (
    {}, {"DateStyle": "German, DMY"}, {"TimeZone": "Asia/Tokyo"}, {"client_encoding": "LATIN1"}, {"application_name": "mine"},
    {"DateStyle": "SQL, MDY", "TimeZone": "America/New_York", "application_name": "two"},
    {"client_encoding": "UTF8", "TimeZone": "UTC"}, {"client_encoding": "SJIS", "DateStyle": "Postgres, DMY"},
)
SHOWN = ("select 'tag %d', timestamptz '2001-02-03 04:05:06+00', date '2009-08-07', 'x' as c "
         "union all select * from shown where t < 'b'")


@ours
@slow(60)
def test_clients_with_other_parameters_get_their_own_values(t):
    with t.postgres.connect() as c:
        c.query("drop view if exists shown; create view shown as select 'a' as t, timestamptz '2011-12-13 14:15:16+00', "
                "date '2010-09-08', current_setting('application_name') || ' ' || current_setting('client_encoding')")
    pooler = sharing_pooler(t, size=2)
    with pooler.console() as console:
        figures = Figures(console)
        straight = [t.postgres.connect(**params) for params in PARAMETERS]
        pooled = [pooler.connect(timeout=15, **params) for params in PARAMETERS]
        more = [pooler.connect(timeout=15, **PARAMETERS[i % 2]) for i in range(6)]
        for turn in range(60):
            data = query(SHOWN % turn)
            for c in straight + pooled + more:
                c.send(data)
            wanted = [stream(c) for c in straight]
            for i, c in enumerate(pooled):
                same(stream(c), wanted[i], str(PARAMETERS[i]))
            for i, c in enumerate(more):
                same(stream(c), wanted[i % 2], str(PARAMETERS[i % 2]))
        for i, c in enumerate(pooled):
            c.query("begin")
            for name in ("DateStyle", "TimeZone", "client_encoding", "application_name", "standard_conforming_strings"):
                same(c.value(f"show {name}"), straight[i].value(f"show {name}"), str(PARAMETERS[i]))
            c.query("commit")
        figures.has("shared")


@ours
@slow(60)
def test_letters_of_other_encodings_arrive_as_they_are(t):
    with t.postgres.connect() as c:
        c.query("drop table if exists letters; create table letters (l text); insert into letters values ('äöü'), ('ß')")
    pooler = sharing_pooler(t)
    straight = [t.postgres.connect(client_encoding=e) for e in ("LATIN1", "UTF8")]
    pooled = [pooler.connect(client_encoding=e) for e in ("LATIN1", "UTF8") * 4]
    for turn in range(40):
        for clients in (straight, pooled):
            for i, c in enumerate(clients):
                word = "grün".encode(("latin-1", "utf-8")[i % 2])
                c.send(query(b"select l, '" + word + b"', %d from letters" % turn))
        wanted = [stream(c) for c in straight]
        for i, c in enumerate(pooled):
            same(stream(c), wanted[i % 2])


@ours
@slow(60)
def test_set_of_one_client_is_not_seen_by_those_who_share_with_him(t):
    pooler = sharing_pooler(t)
    with t.postgres.connect() as straight, pooler.connect() as setter:
        others = [pooler.connect() for _ in range(6)]
        for turn in range(30):
            zone = ("Asia/Tokyo", "UTC", "Europe/Berlin")[turn % 3]
            for sql in (f"set TimeZone = '{zone}'", f"select timestamptz '2001-02-03 04:05:06+00', {turn}",
                        "begin; set local TimeZone = 'Asia/Kolkata'; select timestamptz '2001-02-03 04:05:06+00'; commit",
                        f"select timestamptz '2001-02-03 04:05:06+00', {turn}",
                        f"begin; set TimeZone = 'Asia/Kathmandu'; rollback", f"select timestamptz '2001-02-03 04:05:06+00', {turn}"):
                for c in others:
                    c.send(query(f"select timestamptz '2001-02-03 04:05:06+00', {turn}"))
                straight.send(query(sql))
                setter.send(query(sql))
                same(stream(setter), stream(straight), sql)
                for c in others:
                    same(c.results().rows, [("2001-02-03 04:05:06+00", str(turn))])


@ours
def test_quotes_are_read_as_the_client_means_them(t):
    # Without standard_conforming_strings a backslash escapes the quote: what looks like a literal may not be one.
    pooler = sharing_pooler(t)
    with t.postgres.connect(standard_conforming_strings="off") as straight:
        old = [pooler.connect(standard_conforming_strings="off") for _ in range(3)]
        new = [pooler.connect() for _ in range(3)]
        for turn in range(20):
            sql = rf"select 'it\'s ' || '{turn}'"
            for c in (straight, *old):
                c.send(query(sql))
            for c in new:
                c.send(query(rf"select 'back\' || '{turn}'"))
            wanted = [m for m in stream(straight)]
            for c in old:
                same([m for m in stream(c)], wanted)
            for c in new:
                same(c.results().rows, [("back\\" + str(turn),)])


# ---- fairness -----------------------------------------------------------------------------------------

@ours
@slow(90)
def test_who_needs_a_server_of_his_own_gets_it_while_others_share(t):
    # So many share the servers that none of them would ever be free: what they ask takes more time than asking it.
    script = os.path.join(t.folder, "read.sql")
    with open(script, "w") as file:
        file.write("select count(*) from generate_series(1, 1500)\n")
    pooler = sharing_pooler(t, sharing=2, size=2)
    load = subprocess.Popen([f"{POSTGRES_BIN}/pgbench", "-h", "127.0.0.1", "-p", str(pooler.port), "-U", "app", "-n", "-f", script,
                             "-c", "64", "-T", "60", "app"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with pooler.connect(timeout=15) as c, pooler.connect(timeout=15) as other, pooler.console() as console:
        figures = Figures(console)
        if shares:
            eventually(lambda: figures.since("shared") > 2000, "they share")
        most = 0
        for turn in range(30):
            before = figures.now().get("shared", 0)
            c.query("begin")
            if turn % 2:
                other.query("begin")  # now there is no server for anybody else
                other.query("commit")
            most = max(most, figures.now().get("shared", 0) - before)
            same(c.value("select 1"), "1")
            c.query("commit")
        # What was queued before him, on two servers, and what the other one answered meanwhile.
        assert most < 2000, f"{most} others were answered while he waited"
        figures.has("apart_needed")
    load.kill()
    load.wait()


@ours
@slow(60)
def test_several_who_need_servers_of_their_own_get_them_all(t):
    tables(t)
    pooler = sharing_pooler(t, sharing=2, size=2)
    with pooler.console() as console, Load(pooler, 20, silence=20) as load:
        load.goes_on(500)
        owners = [pooler.connect() for _ in range(2)]
        for _ in range(10):
            for c in owners:
                c.send(query("begin"))
            for c in owners:
                same(c.results().tags, ["BEGIN"])
            load.check()
            for c in owners:
                c.query("commit")
            load.goes_on(100)


@ours
@slow(60)
def test_who_shares_is_not_passed_over_by_those_who_do_not(t):
    tables(t)
    pooler = sharing_pooler(t, sharing=1, size=1)
    from sharing import q_block, q_write
    with Load(pooler, 10, {q_block: 1, q_write: 1}) as load:
        load.goes_on(200)
        with pooler.connect() as c:
            most = 0
            for i in range(40):
                before = load.answers
                same(c.query(text_of("reader", i)).rows, [row_of("reader", i)])
                most = max(most, load.answers - before)
        assert most < 200, most


# ---- statements --------------------------------------------------------------------------------------

@ours
@slow(60)
def test_statements_survive_ddl_while_many_share_them(t):
    with t.postgres.connect() as c:
        c.query("drop table if exists sharing_ddl; create table sharing_ddl (a int); insert into sharing_ddl values (1)")
    pooler = sharing_pooler(t, size=2)
    with t.postgres.connect() as owner, pooler.console() as console:
        figures = Figures(console)
        clients = [pooler.connect() for _ in range(8)]
        for c in clients:
            same(c.batch(parse("d", "select * from sharing_ddl where a = $1::int")).types, "1Z")
        wanted = ("1",)
        for turn in range(30):
            for _ in range(4):
                for c in clients:
                    c.send(bind("", "d", ["1"]) + describe("P") + execute() + sync())
                for c in clients:
                    result = c.results()
                    same((result.errors, result.rows, len(result.columns)), ([], [wanted], len(wanted)))
            owner.query(f"alter table sharing_ddl add column c{turn} int default {turn}")
            wanted += (str(turn),)
        figures.has("shared")


@ours
@slow(60)
def test_statement_whose_columns_changed_is_told_as_without_sharing(t):
    def transcripts(sharing):
        with t.postgres.connect() as owner:
            owner.query("drop table if exists sharing_star; create table sharing_star (a int); insert into sharing_star values (1)")
            pooler = sharing_pooler(t, sharing=sharing)
            clients = [pooler.connect() for _ in range(3)]
            found = []
            for c in clients:
                found.append(c.batch(parse("d", "select * from sharing_star") + describe("S", "d")).types)
            for sql in (None, "alter table sharing_star add column b int", "alter table sharing_star drop column b"):
                if sql:
                    owner.query(sql)
                for _ in range(3):
                    for c in clients:
                        c.send(bind("", "d") + describe("P") + execute() + sync())
                    results = [c.results() for c in clients]
                    found += [(r.types, r.rows, r.columns, [str(e) for e in r.errors]) for r in results]
            return found
    same(transcripts(1), transcripts("off"))


@ours
@slow(60)
def test_discard_and_deallocate_of_others_are_not_noticed(t):
    tables(t)
    pooler = sharing_pooler(t)
    with Load(pooler, 8) as load, pooler.connect() as c:
        for turn in range(60):
            c.batch(parse("mine", PREPARED) + parse("d", "select 1"))
            c.query(("discard all", "deallocate all")[turn % 2])
            with refused(sqlstate="26000"):
                result = c.batch(bind("", "mine", ["a", 1]) + execute())
                raise result.errors[0]
            load.goes_on(10)


@ours
@slow(60)
def test_statements_that_are_evicted_are_found_again(t):
    pooler = sharing_pooler(t, size=2, max_prepared_statements=2)
    with pooler.console() as console:
        figures = Figures(console)
        clients = [pooler.connect() for _ in range(8)]
        for c in clients:
            for s in range(6):
                same(c.batch(parse(f"s{s}", f"select {s}, $1::text, $2::int * {s + 1}")).types, "1Z")
        for turn in range(60):
            for i, c in enumerate(clients):
                s = (turn * 3 + i * 5) % 6
                c.send(bind("", f"s{s}", [f"c{i}", turn]) + execute() + sync())
            for i, c in enumerate(clients):
                s = (turn * 3 + i * 5) % 6
                result = c.results()
                same((result.errors, result.rows), ([], [(str(s), f"c{i}", str(turn * (s + 1)))]))
        figures.has("shared")


@ours
@slow(60)
def test_statements_in_sql_are_tracked_beside_shared_ones(t):
    tables(t)
    pooler = sharing_pooler(t, more="track_sql_prepare = 1\n")
    with Load(pooler, 8) as load, pooler.connect() as c:
        c.query("prepare mine as select $1::int * 2")
        for i in range(60):
            same(c.value(f"execute mine({i})"), str(i * 2))
            load.goes_on(5)
        c.query("deallocate mine")


@ours
@slow(60)
def test_shared_statements_without_a_cache_of_unnamed_ones(t):
    samples(t)
    pooler = sharing_pooler(t, more="cache_unnamed_statements = 0\n")
    for data in list(SHARED_BATCHES.values()) + list(EITHER.values()):
        for _ in range(2):
            compared(t, pooler, data)
    with Load(pooler, 10) as load:
        load.goes_on(600)


# ---- TLS ----------------------------------------------------------------------------------------------

@ours
@slow(60)
def test_servers_are_shared_in_tls_on_both_sides(t):
    tables(t)
    made = certificates.of(t)
    t.postgres.of_one_test(**made.of_postgres())
    pooler = sharing_pooler(t, size=2, **made.of_clients("server", sslmode="require"), **made.of_servers(sslmode="verify-full"))
    pooler.console_host = pooler.folder
    with pooler.console() as console:
        figures = Figures(console)
        with Load(pooler, 16, tls=Offer()) as load:
            load.goes_on(1500)
        figures.has("shared", "joined")
