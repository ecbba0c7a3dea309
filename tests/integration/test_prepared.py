"""Prepared statements in transaction mode: PostgreSQL itself says what the answers must be. Each script of
messages runs straight at PostgreSQL and, between other clients, through the pooler, and what comes
back is compared message by message."""

import random
import re

import pgwire
from harness import eventually, ours, refused, same, slow
from pgwire import (bind, close, describe, execute, extended, flush, message, parse, query, sync)

OWN_NAME = "pgsplice_"


def brief_message(found):
    """What is not the same: a name longer than 63 bytes is cut off in our errors, and where a client has
    given a text two names PostgreSQL's errors may come with the other one."""
    if found.type != "E":
        return (found.type, found.body)
    fields = found.fields()
    text = fields["M"]
    assert OWN_NAME not in text, text
    if "does not exist" in text or "already exists" in text:
        text = re.sub(r'"(.{63}).*"', r'"\1"', text)
    elif "bind message supplies" in text:
        text = re.sub(r'"(.*)"', '"..."', text)
    return ("E", fields["S"], fields["C"], text)


def by_batch(seen):
    """A transcript, cut after each ReadyForQuery."""
    batches = [[]]
    for found in seen:
        batches[-1].append(found)
        if found[0] == "Z":
            batches.append([])
    return batches[:-1]


def has_parted(got, wanted):
    """In an aborted transaction a statement that would have to be prepared first is refused (25P02), where
    one that is there can still be described. From there on the two are in different transactions."""
    refusals = [i for i, found in enumerate(got) if found[0] == "E" and found[2] == "25P02"]
    return bool(refusals) and got[:refusals[0]] == wanted[:refusals[0]] and got != wanted


def transcript(client, syncs, timeout=10.0):
    """Everything up to that many ReadyForQuery."""
    seen = []
    for _ in range(syncs):
        seen += [brief_message(m) for m in client.until("Z", timeout) if m.type not in "NSA"]
    return seen


# ---- random scripts ------------------------------------------------------------------------------

TEXTS = (
    ("select 1", 0), ("select $1::int + 1", 1), ("select 'a' || $1::text, 2", 1), ("select 1/$1::int", 1),
    ("select * from no_such_table", 0), ("selct", 0), ("values (1), (2), (3)", 0), ("", 0),
    ("select " + "1 + " * 6000 + "1", 0), ("insert into prepared_t values ($1)", 1),
    ("select count(*) >= 0 from prepared_t where a = $1", 1), ("rollback", 0), ("begin", 0), ("commit", 0),
)
NAMES = ("", "a", "b", "a name of more than twenty-four bytes", "x" * 70)


class Script:
    """One client's rounds: bytes, and how many ReadyForQuery they bring. The unnamed statement is only parsed
    at the beginning of a batch: where an error skips its Parse, PostgreSQL keeps the older one, and the
    pooler says that there is none. DISCARD ALL is not followed by anything in the same round, for a Bind
    of what it has dropped would find it again."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.rounds = []
        self.known = {}
        for _ in range(self.random.randint(3, 14)):
            self.rounds.append(self._round())

    def _round(self):
        if self.random.random() < 0.08:
            return query(self.random.choice(("deallocate all", "discard all"))), 1
        data, syncs = b"", 0
        for _ in range(self.random.choice((1, 1, 1, 2, 4))):
            if self.random.random() < 0.2:
                data += query(self.random.choice((
                    "select 1", "begin", "commit", "rollback", "select 1/0", "begin; select 1/0",
                    "select 2; select 3", "deallocate a; select 1/0; deallocate b", "rollback; deallocate a",
                    "select ';'; deallocate b;; deallocate a;", "select 1; deallocate all")))
            else:
                data += self._batch()
            syncs += 1
        return data, syncs

    def _batch(self):
        data = b""
        if self.random.random() < 0.4:
            data += self._parse("") + (self._run("") if self.random.random() < 0.8 else b"")
        for _ in range(self.random.choice((1, 2, 3, 3, 4, 6, 9))):
            data += self._step()
            if self.random.random() < 0.05:
                data += flush()
        return data + sync()

    def _step(self):
        name = self.random.choice(NAMES)
        choice = self.random.random()
        if choice < 0.35:
            name = name or "a"
            data = close("S", name) if self.random.random() < 0.5 else b""
            data += self._parse(name)
            if self.random.random() < 0.6:
                data += self._run(name)
            return data
        if choice < 0.7:
            return self._run(name)
        if choice < 0.8:
            return describe("S", name)
        if choice < 0.9:
            return close("S", name)
        if choice < 0.95:
            return close("P", "")
        return execute()

    def _parse(self, name):
        sql, self.known[name[:63]] = self.random.choice(TEXTS)
        return parse(name, sql)

    def _run(self, name):
        count = self.known.get(name[:63], 0)
        if self.random.random() < 0.05:
            count += 1
        data = bind("", name, [self.random.choice((0, 1, 7))] * count)
        if self.random.random() < 0.5:
            data += describe("P")
        return data + execute(rows=self.random.choice((0, 0, 1)))


def run_scripts(t, pooler, scripts, split):
    """All clients' rounds in turn, so that their servers change."""
    straight = [t.postgres.connect() for _ in scripts]
    pooled = [pooler.connect() for _ in scripts]
    parted = set()
    for number in range(max(len(script.rounds) for script in scripts)):
        for i, script in enumerate(scripts):
            if number >= len(script.rounds) or i in parted:
                continue
            data, syncs = script.rounds[number]
            straight[i].send(data)
            wanted = transcript(straight[i], syncs)
            if split:
                cuts = sorted(script.random.sample(range(1, len(data)), min(len(data) - 1, 5)))
                pooled[i].send_split(data, cuts)
            else:
                pooled[i].send(data)
            got = transcript(pooled[i], syncs)
            if any(has_parted(g, w) for g, w in zip(by_batch(got), by_batch(wanted))):
                parted.add(i)
                continue
            assert got == wanted, \
                f"client {i}, round {number}, {data!r}\n got {got}\n wanted {wanted}"
    for client in straight + pooled:
        client.vanish()


def make_random_test(first, count, **settings):
    @slow(60)
    @ours
    def test(t):
        with t.postgres.connect() as c:
            c.query("drop table if exists prepared_t; create table prepared_t (a int)")
        pooler = t.pooler(**{"pool_mode": "transaction", "default_pool_size": 8, **settings})
        for seed in range(first, first + count):
            scripts = [Script(seed * 3 + i) for i in range(3)]
            try:
                run_scripts(t, pooler, scripts, split=seed % 2 == 1)
            except (AssertionError, pgwire.Closed, pgwire.TimedOut) as error:
                raise AssertionError(f"seed {seed}: {error}") from None
    return test


test_random_scripts_are_answered_as_by_postgresql = make_random_test(0, 60)
test_random_scripts_with_room_for_one_statement = make_random_test(100, 40, max_prepared_statements=1)
test_random_scripts_with_room_for_two_statements = make_random_test(200, 40, max_prepared_statements=2)




# ---- one thing at a time -------------------------------------------------------------------------

def run(statement, *values):
    return bind("", statement, values) + describe("P") + execute()


def own_names(client):
    """What the server that answers has prepared under the pooler's names: text by name."""
    rows = client.query("select name, statement from pg_prepared_statements "
                        f"where name like '{OWN_NAME}%'").rows
    return {name: sql for name, sql in rows}


def stats_of(console):
    return next(row for row in console.table("show stats_totals") if row["database"] == "app")


def two_servers(t, **settings):
    """A pooler of two servers, a client that holds one of them when asked to, and one that prepares."""
    pooler = t.pooler(**{"pool_mode": "transaction", "default_pool_size": 2, **settings})
    return pooler, pooler.connect(), pooler.connect()


def on_both_servers(holder, client, work):
    """Runs `work` on a server, and then on another one."""
    first = client.pid()
    work()
    holder.query("begin")
    if holder.pid() != first:
        holder.query("rollback")
        client.query("begin")
        holder.query("begin")
        client.query("rollback")
    try:
        assert client.pid() != holder.pid()
        work()
    finally:
        holder.query("rollback")


@ours
def test_a_statement_works_on_servers_that_have_never_seen_it(t):
    pooler, holder, client = two_servers(t)
    with holder, client:
        same(client.batch(parse("s", "select $1::int * 2") + describe("S", "s")).types, "1tTZ")
        on_both_servers(holder, client, lambda: same(client.batch(run("s", 21)).rows, [("42",)]))
        same(client.batch(parse("", "select 1") + run("s", 4)).types, "12TDCZ")


@ours
def test_flush_brings_every_answer(t):
    pooler, holder, client = two_servers(t)
    with holder, client:
        for _ in range(3):  # the first time it is parsed, later its Parse is answered without that
            client.send(parse("s", "select $1::text") + flush())
            client.until("1")
            client.send(describe("S", "s") + flush())
            client.until("T")
            client.send(bind("", "s", ["x"]) + flush())
            client.until("2")
            client.send(execute() + close("S", "s") + flush())
            client.until("3")
            client.send(sync())
            client.until("Z")


@ours
def test_errors_of_names_leave_the_connection(t):
    pooler, holder, client = two_servers(t)
    with holder, client:
        result = client.batch(run("nobody") + parse("a", "select 1"))
        same((result.types, str(result.errors[0])),
             ("EZ", 'ERROR 26000 prepared statement "nobody" does not exist'))
        # postgres.js goes by the routine.
        same([result.errors[0].fields[key] for key in "VR"], ["ERROR", "FetchPreparedStatement"])
        result = client.batch(parse("a", "select 1") + parse("a", "select 2"))
        same((result.types, str(result.errors[0])),
             ("1EZ", 'ERROR 42P05 prepared statement "a" already exists'))
        same(client.batch(run("a")).rows, [("1",)])
        result = client.batch(bind("", "", []) + execute())
        same(str(result.errors[0]), "ERROR 26000 unnamed prepared statement does not exist")
        same(client.batch(close("S", "nobody") + close("S", "a")).types, "33Z")
        same(client.batch(run("a")).errors[0].sqlstate, "26000")


@ours
def test_what_an_error_skipped_does_not_exist(t):
    pooler, holder, client = two_servers(t)
    with holder, client:
        client.batch(parse("kept", "select 'kept'"))
        result = client.batch(parse("a", "select 1/$1::int") + run("a", 0) + parse("b", "select 2") + close("S", "kept"))
        same((result.types, result.errors[0].sqlstate), ("1EZ", "22012"))
        same(client.batch(run("b")).errors[0].sqlstate, "26000")
        same(client.batch(run("kept")).rows, [("kept",)])
        same(client.batch(run("a", 1)).rows, [("1",)])
        client.send(run("a", 0) + parse("c", "select 3") + sync() + parse("c", "select 4") + sync() + run("c") + sync())
        same([client.results().types[-2:] for _ in range(2)], ["EZ", "1Z"])
        same(client.results().rows, [("4",)])


@ours
def test_two_clients_with_the_same_text_share_a_statement(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as a, pooler.connect() as b, pooler.console() as console:
        a.batch(parse("x", "select $1::int + 1", (23,)))
        b.batch(parse("y", "select $1::int + 1", (23,)))
        b.batch(parse("z", "select $1::int + 1"))
        same(sorted(own_names(a).values()), ["select $1::int + 1"] * 2)
        same(a.batch(run("x", 1)).rows + b.batch(run("y", 2)).rows, [("2",), ("3",)])
        rows = {row["parameter_types"]: row for row in console.table("show prepared")}
        same((rows["23"]["clients"], rows["23"]["servers"], rows["23"]["uses"], rows["23"]["text"]),
             ("2", "1", "2", "select $1::int + 1"))
        assert rows["23"]["name"] in own_names(a)
        same([row["prepared_statements"] for row in console.table("show servers")], ["2"])
        same(sorted(row["prepared_statements"] for row in console.table("show clients") if row["user"] == "app"),
             ["1", "2"])
        stats = stats_of(console)
        same([stats[key] for key in ("client_parse_count", "server_parse_count", "bind_count")], ["3", "2", "2"])


@ours
def test_a_text_that_nobody_has_is_forgotten(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.console() as console:
        with pooler.connect() as a:
            a.batch(parse("x", "select 1") + parse("y", "select 'long" + "g" * 100000 + "'"))
            same(len(console.table("show prepared")), 2)
            longest = max(console.table("show prepared"), key=lambda row: int(row["bytes"]))
            same((len(longest["text"]), longest["text"][-3:]), (1003, "..."))
        eventually(lambda: {row["clients"] for row in console.table("show prepared")} == {"0"}, "the client is gone")
        console.do("reconnect")
        eventually(lambda: console.table("show prepared") == [], "no statement is left")


@ours
def test_the_least_recently_used_goes_first(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, max_prepared_statements=2)
    with pooler.connect() as c:
        for name in "abc":
            c.batch(parse(name, f"select '{name}'"))
        same(sorted(own_names(c).values()), ["select 'b'", "select 'c'"])
        same(c.batch(run("b")).rows, [("b",)])
        same(c.batch(run("a")).rows, [("a",)])
        same(sorted(own_names(c).values()), ["select 'a'", "select 'b'"])
        same(c.batch(run("c") + run("b") + run("a")).rows, [("c",), ("b",), ("a",)])
        same(len(own_names(c)), 2)


@ours
def test_reload_changes_the_number_and_loses_nobody(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1, max_prepared_statements=10)
    with pooler.connect() as c, pooler.console() as console:
        for name in "abcdef":
            c.batch(parse(name, f"select '{name}'"))
        same(len(own_names(c)), 6)
        pooler.change(max_prepared_statements=3)
        eventually(lambda: console.config("max_prepared_statements") == "3", "reloaded")
        c.batch(parse("g", "select 'g'"))
        same(len(own_names(c)), 3)
        pooler.change(max_prepared_statements=0)
        eventually(lambda: console.config("max_prepared_statements") == "0", "reloaded")
        same(c.batch(run("a") + run("b") + run("g")).rows, [("a",), ("b",), ("g",)])
        with pooler.connect() as other:  # for whoever has prepared nothing yet it is off
            same(other.batch(parse("mine", "select 1")).types, "1Z")
            same(other.value("select count(*) from pg_prepared_statements where name = 'mine'"), "1")


@ours
def test_discard_all_and_deallocate_all_empty_both_sides(t):
    pooler, holder, client = two_servers(t)
    with holder, client:
        for command in ("discard all", "deallocate all"):
            for send in (client.query, lambda sql: client.batch(parse("", sql) + bind() + execute())):
                client.batch(parse("s", "select 1"))
                send(command)
                same(own_names(client), {})
                same(client.batch(run("s")).errors[0].sqlstate, "26000")
        holder.batch(parse("h", "select 'h'"))
        client.query("discard all")
        on_both_servers(client, holder, lambda: same(holder.batch(run("h")).rows, [("h",)]))
        client.batch(parse("s", "select 1"))
        client.send(query("deallocate all") + run("s") + sync())
        same([client.results().types, client.results().errors[0].sqlstate], ["CZ", "26000"])


@ours
def test_a_copy_in_a_pipeline_holds_nobody(t):
    """It throws away the Sync whose answer would have settled what was parsed before it."""
    pooler, holder, client = two_servers(t)
    with holder, client:
        client.query("drop table if exists copied; create table copied (a int)")
        client.send(parse("s", "select 7") + parse("", "copy copied from stdin") + bind() + execute() + sync() +
                    pgwire.copy_data(b"1\n") + pgwire.copy_done() + run("s") + sync())
        result = client.results()
        same((result.types, result.rows), ("112GC2TDCZ", [("7",)]))
        same(client.value("select count(*) from copied"), "1")


@ours
def test_deallocate_all_in_the_middle_of_a_batch(t):
    """What follows in the same batch does not wait for it: its Sync is still to come."""
    pooler, holder, client = two_servers(t)
    with holder, client:
        client.batch(parse("s", "select 1"))
        result = client.batch(parse("", "deallocate all") + bind() + execute() + run("s"))
        same((result.types, result.errors[0].sqlstate), ("12CEZ", "26000"))
        client.batch(parse("s", "select 2"))
        client.send(parse("", "selct") + flush())
        client.until("E")
        result = client.batch(query("deallocate all") + run("s"))  # all of it is skipped
        same((result.types, client.batch(run("s")).rows), ("Z", [("2",)]))


@ours
def test_a_large_parameter_of_a_known_statement(t):
    pooler, holder, client = two_servers(t)
    with holder, client:
        client.batch(parse("s", "select length($1::text)"))
        for _ in range(3):
            same(client.batch(run("s", "x" * 300000)).rows, [("300000",)])
            same(client.batch(bind("", "s", ["x" * 300000]) + execute()).rows, [("300000",)])


@ours
def test_deallocate_by_name(t):
    pooler, holder, client = two_servers(t)
    with holder, client:
        for send in (client.query, lambda sql: client.batch(parse("", sql) + bind() + execute())):
            client.batch(parse("_pg3_0", "select 1"))
            holder.batch(parse("mine", "select 1"))
            on_both_servers(holder, client, lambda: None)
            same(send('DEALLOCATE "_pg3_0"').tags, ["DEALLOCATE"])
            same(client.batch(run("_pg3_0")).errors[0].sqlstate, "26000")
            client.batch(parse("_pg3_0", "select 2"))
            same(client.batch(run("_pg3_0")).rows, [("2",)])
            same(send("deallocate prepare _pg3_0 -- done").tags, ["DEALLOCATE"])
            same(holder.batch(run("mine")).rows, [("1",)])
            holder.batch(close("S", "mine"))
        with refused('prepared statement "nobody" does not exist', "26000"):
            client.query("deallocate nobody")
        client.batch(parse("a", "select 1"))
        client.query("begin")
        with refused(sqlstate="22012"):
            client.query("select 1/0")
        with refused(sqlstate="25P02"):
            client.query("deallocate a")
        client.query("rollback")
        same(client.batch(run("a")).rows, [("1",)])


def change_server(holder, client):
    """The holder takes the server that the client had last, out of two, and keeps it until the next time."""
    first = client.pid()
    holder.query("rollback; begin")
    if holder.pid() != first:
        holder.query("rollback")
        client.query("begin")
        holder.query("begin")
        client.query("rollback")
    same(holder.pid(), first)


def same_as_straight(t, pooler, holder, client, steps):
    """Each step is bytes and how many ReadyForQuery they bring; between them the client changes its server, where it is
    outside of a transaction."""
    status = "I"
    with t.postgres.connect() as straight:
        for data, syncs in steps:
            if status == "I":
                change_server(holder, client)
            for each in (straight, client):
                each.send(data)
            got, wanted = transcript(client, syncs), transcript(straight, syncs)
            assert got == wanted, (data, got, wanted)
            status = got[-1][1].decode()


SEVERAL = (
    'select 1;deallocate "a"',
    "select 1; DEALLOCATE PREPARE a; select 2",
    "/* ; */ select ';' ;; deallocate a -- ;",
    "deallocate a; deallocate b; select 3",
    "select 1/0; deallocate a",
    "deallocate a; select 1/0; deallocate b",
    "deallocate a; selct",
    "deallocate nobody; deallocate a",
    "deallocate a; deallocate b; deallocate a",
    "deallocate a; execute a",
    "deallocate all; deallocate a",
    "deallocate a; deallocate all; execute b(1)",
    "select 1; deallocate all",
    "select 1; discard all; deallocate a",
    "prepare x as select 1; deallocate x; deallocate a",
    "prepare x as select 1; deallocate x; select 1/0; deallocate a",
    "deallocate a; prepare a as select 7; execute a; deallocate a",
    "execute a; execute b(3); deallocate a; execute b(4); deallocate b",
    "explain (costs off) execute b(1); create temp table several as execute a; drop table several",
    "select ';deallocate a;', $$;deallocate a;$$ as \";deallocate a;\"; select 2",
    "set standard_conforming_strings = off; set standard_conforming_strings = on; deallocate a",
    "select '\u00e9;'; deallocate a",
    "select '\\'; deallocate a",
)


@slow(60)
@ours
def test_names_among_several_statements_as_without_a_pooler(t):
    pooler, holder, client = two_servers(t)
    used = (run("a") + sync() + run("b", 5) + sync(), 2)
    away = (close("S", "a") + close("S", "b") + sync() + query("deallocate all"), 2)
    with holder, client:
        for number, sql in enumerate(SEVERAL):
            # Texts that no server has seen.
            prepared = parse("a", f"select 'a' -- {number}") + parse("b", f"select $1::int -- {number}") + sync()
            for before, after in (((), ()), (("begin",), ("rollback",)), (("begin", "select 1/0"), ("rollback",))):
                same_as_straight(t, pooler, holder, client, [
                    (prepared, 1), *((query(each), 1) for each in before), (query(sql), 1), used,
                    *((query(each), 1) for each in after), used, away])
            same_as_straight(t, pooler, holder, client, [  # nothing is waited for
                (prepared + query(sql) + used[0] + parse("a", "select 2") + run("a") + sync(), 5), used,
                (query(sql) + query(sql) + used[0], 4), away])


@ours
def test_strings_among_several_statements_are_read_as_the_client_has_set(t):
    pooler, holder, client = two_servers(t)
    prepared = parse("a", "select 'a'") + parse("b", "select 5") + sync()
    used = (run("a") + sync() + run("b") + sync(), 2)
    sql = query("select '\\'; deallocate b;', ';'; deallocate a")
    off, on = query("set standard_conforming_strings = off"), query("set standard_conforming_strings = on")
    with holder, client:
        same_as_straight(t, pooler, holder, client, [
            (prepared, 1), (off, 1), (sql, 1), used, (query("select '\\'; deallocate b"), 1), used, (on, 1), used])
        client.query("deallocate all")
        same_as_straight(t, pooler, holder, client, [(prepared + off + sql + used[0], 5), (on, 1), used])


@ours
def test_a_driver_that_deallocates_in_savepoints_and_uses_names_again(t):
    pooler, holder, client = two_servers(t)
    steps = []
    for text in ("1", "2", "3"):
        steps += [(query("begin"), 1), (query("savepoint _per_query_svp_"), 1),
                  (parse("_PLAN0x1", f"select {text}") + run("_PLAN0x1") + sync(), 1),
                  (query('SAVEPOINT _per_query_svp_;DEALLOCATE "_PLAN0x1";RELEASE _per_query_svp_'), 1),
                  (parse("_PLAN0x1", "select 'x'::int") + sync(), 1),
                  (query("ROLLBACK TO _per_query_svp_"), 1),
                  (parse("_PLAN0x2", "select 5") + sync(), 1), (query("select 1/0"), 1),
                  (query('ROLLBACK;DEALLOCATE "_PLAN0x2"'), 1)]
    with holder, client:
        same_as_straight(t, pooler, holder, client, steps)


@ours
def test_eight_names_are_deallocated_in_one_text_and_more_stay(t):
    pooler, holder, client = two_servers(t)
    with holder, client:
        names = [f"n{i}" for i in range(9)]
        client.batch(b"".join(parse(name, f"select '{name}'") for name in names))
        sql = ";".join(f"deallocate {name}" for name in names)
        with refused('prepared statement "n0" does not exist', "26000"):
            client.query(sql)
        on_both_servers(holder, client, lambda: [
            same(client.batch(run(name)).rows, [(name,)]) for name in names])
        same(client.query(sql.rpartition(";")[0]).tags, ["DEALLOCATE"] * 8)
        for name in names[:8]:
            same(client.batch(run(name)).errors[0].sqlstate, "26000")
        same(client.batch(run("n8")).rows, [("n8",)])


@ours
def test_what_one_text_executes_has_to_fit_on_a_server(t):
    pooler, holder, client = two_servers(t, max_prepared_statements=2)
    with holder, client:
        for name in "abcd":
            client.batch(parse(name, f"select '{name}'"))
        for one, other in ("ab", "cd", "ac", "ca", "bd"):
            change_server(holder, client)
            same(client.query(f"execute {one}; execute {other}; execute {one}").rows, [(one,), (other,), (one,)])
            assert len(own_names(client)) <= 2
        change_server(holder, client)
        with refused('prepared statement "a" does not exist', "26000"):
            client.query("execute a; execute b; execute c")
        same(client.query("execute a; execute a; deallocate a").tags, ["SELECT 1", "SELECT 1", "DEALLOCATE"])


@ours
def test_rollback_and_execute_finds_the_statement_where_it_is(t):
    pooler, holder, client = two_servers(t)
    with holder, client:
        client.batch(parse("a", "select 1"))
        client.query("begin")
        client.batch(run("a"))
        with refused(sqlstate="22012"):
            client.query("select 1/0")
        same(client.query("rollback; execute a").tags, ["ROLLBACK", "SELECT 1"])
        change_server(holder, client)
        client.query("begin")
        with refused(sqlstate="22012"):
            client.query("select 1/0")
        with refused('prepared statement "a" does not exist', "26000"):  # see rewrite_sql.h
            client.query("rollback; execute a")
        same(client.query("select 2; execute a").rows, [("2",), ("1",)])
        same(client.batch(run("a")).rows, [("1",)])


@ours
def test_a_text_of_several_statements_in_pieces(t):
    pooler, holder, client = two_servers(t)
    with holder, client:
        for blanks in (0, 6000, 8500):  # above 16 KiB it is not looked at
            data = query(f"select 1{' ' * blanks};{' ' * blanks}deallocate s;select 2")
            wanted = (["SELECT 1", "DEALLOCATE", "SELECT 1"], []) if len(data) < 16384 else (["SELECT 1"], ["26000"])
            for at in sorted({*range(1, min(len(data), 40)), len(data) // 2, len(data) - 12, len(data) - 1}):
                client.batch(parse("s", "select 1"))
                client.send(data[:at])
                same(holder.value("select 3"), "3")
                client.send(data[at:])
                result = client.results()
                same((result.tags, [error.sqlstate for error in result.errors]), wanted)
                client.batch(close("S", "s"))


@ours
def test_reconnect_and_a_lost_server_cost_nothing(t):
    pooler, holder, client = two_servers(t)
    with holder, client, pooler.console() as console:
        client.batch(parse("s", "select $1::int"))
        console.do("reconnect")
        same(client.batch(run("s", 5)).rows, [("5",)])
        pid = client.pid()
        t.postgres.value(f"select pg_terminate_backend({pid}, 5000)", "postgres")
        eventually(lambda: console.pool()["sv_idle"] == 0, "the server is gone")
        same(client.batch(run("s", 6)).rows, [("6",)])


@ours
def test_a_server_that_is_lent_takes_its_statements_along(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1,
                      extra="[pgsplice]\nworker_threads = 2\npool_shards = 2\n")
    clients = [pooler.connect() for _ in range(4)]
    with pooler.console() as console:
        for number, c in enumerate(clients):
            c.batch(parse("s", "select 'all'") + parse("own", f"select {number}"))
        for _ in range(10):
            for number, c in enumerate(clients):
                same(c.batch(run("s") + run("own")).rows, [("all",), (str(number),)])
        lent = sum(int(row["lent"]) for row in console.table("show shards"))
        assert lent > 10, lent
        same(stats_of(console)["server_parse_count"], "5")
        same(len(own_names(clients[0])), 5)
    for c in clients:
        c.vanish()


@ours
def test_parameters_of_the_client_count(t):
    """A literal is read when a statement is parsed: under the reader's own DateStyle."""
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    sql = "select extract(month from date '01/02/2003')"
    with pooler.connect(DateStyle="ISO, MDY") as american, pooler.connect(DateStyle="ISO, DMY") as british:
        american.batch(parse("s", sql))
        british.batch(parse("s", sql))
        same([american.batch(run("s")).rows, british.batch(run("s")).rows], [[("1",)], [("2",)]])
        same(len(own_names(american)), 2)


@ours
def test_messages_in_pieces_of_any_size(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as c:
        long_text = "select '" + "x" * 200000 + "' || $1::text"
        script = parse("s", "select $1::int + 1") + run("s", 1) + describe("S", "s") + close("S", "s") + sync()
        for sizes in (1, 2, 3, 7, 11):
            c.send_split(script, sizes)
            same(c.results().types, "12TDCtT3Z")
        for sizes in (1000, 65536, 1 << 20):
            c.send_split(parse("long", long_text) + run("long", "y") + close("S", "long") + sync(), sizes)
            result = c.results()
            same((result.types, len(result.rows[0][0])), ("12TDC3Z", 200001))


@ours
def test_a_broken_message_ends_its_client_only(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as other:
        for broken, text in ((message("P", b"no end"), "broken Parse packet"), (message("P", b"s\0select 1\0"), "broken Parse packet"),
                             (message("P", b"s\0select 1\0\0\2\0\0\0\1"), "broken Parse packet"),
                             (message("P", b"s\0select 1\0\0\0more"), "broken Parse packet"),
                             (message("B", b"portal\0name"), "broken Bind packet"), (message("B", b""), "broken Bind packet")):
            with pooler.connect() as c:
                c.send(broken + sync())
                same(c.fatal().text, text)
        same(other.value("select 1"), "1")


@ours
def test_the_unnamed_statement_outlives_its_batch(t):
    pooler, holder, client = two_servers(t)
    with holder, client:
        client.batch(parse("", "select $1::int * 3"))
        holder.batch(parse("", "select 'of the holder'") + run(""))
        for _ in range(4):  # a simple Query drops the unnamed statement: the servers change by the holder alone
            holder.query("begin")
            same(client.batch(run("", 5)).rows, [("15",)])
            holder.query("rollback")
            holder.batch(parse("", "select 'of the holder'") + run(""))
            same(client.batch(run("", 5)).rows, [("15",)])
        client.query("select 1")
        same(client.batch(run("", 5)).errors[0].sqlstate, "26000")


@ours
def test_unnamed_statements_that_come_again_are_kept(t):
    for wanted in (1, 0):
        pooler = t.pooler(pool_mode="transaction", default_pool_size=1,
                          extra=f"[pgsplice]\ncache_unnamed_statements = {wanted}\n", name=f"p{wanted}x")
        with pooler.connect() as c:
            for number in range(5):
                result = c.batch(parse("", "select $1::int + 1") + run("", number))
                same((result.types, result.rows), ("12TDCZ", [(str(number + 1),)]))
                c.batch(parse("", f"select {number}, 'of its own'") + run(""))
            same(list(own_names(c).values()), ["select $1::int + 1"] * wanted)


# ---- healing -------------------------------------------------------------------------------------

def changed_table(t, pooler):
    """A function that changes the result of `select * from changing`."""
    admin = t.postgres.connect()
    admin.query("drop table if exists changing; create table changing (a int); insert into changing values (1)")
    state = {"columns": 1}

    def change():
        state["columns"] += 1
        admin.query(f"alter table changing add column c{state['columns']} int default {state['columns']}")
        return tuple(["1"] + [str(i) for i in range(2, state["columns"] + 1)])
    return change


@ours
def test_a_changed_table_is_not_noticed(t):
    pooler, holder, client = two_servers(t)
    change = changed_table(t, pooler)
    with holder, client:
        client.batch(parse("s", "select * from changing"))
        for _ in range(3):
            wanted = change()
            result = client.batch(run("s"))
            same((result.types, result.rows), ("2TDCZ", [wanted]))
        wanted = change()
        client.send(bind("", "s", []) + describe("P") + flush())
        client.until("T")
        client.send(execute() + sync())
        same(client.results().rows, [wanted])


@ours
def test_a_query_behind_a_batch_that_was_healed_while_open(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    change = changed_table(t, pooler)
    with pooler.connect() as c:
        c.batch(parse("s", "select * from changing"))
        change()
        c.send(bind("", "s", []) + flush())
        c.until("2")
        c.send(query("select 1") + query("select 2"))
        same([c.results().rows, c.results().rows], [[("1",)], [("2",)]])
        same(c.value("select 3"), "3")


@ours
def test_who_was_told_what_a_result_looks_like_is_told_of_the_change(t):
    """A driver that describes its statement once reads rows by that: it must get PostgreSQL's error, from servers that
    have the old plan and from those that have never seen it; and not from one with an old plan after it
    has described the statement anew."""
    pooler, holder, client = two_servers(t)
    change = changed_table(t, pooler)
    with holder, client:
        for name in "abc":
            result = client.batch(parse(name, "select * from changing") + describe("S", name))
            same(result.types, "1tTZ")
            on_both_servers(holder, client, lambda: same(client.batch(bind("", name, []) + execute()).types, "2DCZ"))
            change()

            def refuses():
                same(client.batch(run(name)).errors[0].sqlstate, "0A000")
                same(client.batch(bind("", name, []) + execute()).errors[0].sqlstate, "0A000")
            on_both_servers_outside(t, holder, client, refuses)


def on_both_servers_outside(t, holder, client, work):
    """As on_both_servers, for work that fails and so must not be in a transaction."""
    work()
    client.query("begin")
    holder.query("begin")
    client.query("rollback")
    work()
    holder.query("rollback")
    work()


@ours
def test_a_statement_that_was_run_and_never_described(t):
    """Its client may rely on the columns it has seen: with a Describe in the batch it does not."""
    for wanted in (1, 0):
        pooler = t.pooler(pool_mode="transaction", default_pool_size=1, name=f"h{wanted}x",
                          extra=f"[pgsplice]\nheal_statements = {wanted}\n")
        change = changed_table(t, pooler)
        with pooler.connect() as c:
            c.batch(parse("s", "select * from changing"))
            columns = change()
            same(c.batch(bind("", "s", []) + execute()).rows, [columns])  # it has never run it
            change()
            same(c.batch(bind("", "s", []) + execute()).errors[0].sqlstate, "0A000")
            same(c.batch(run("s")).errors, [])  # prepared again since
            columns = change()
            result = c.batch(run("s"))
            if wanted:
                same(result.rows, [columns])
            else:
                same(result.errors[0].sqlstate, "0A000")


@ours
def test_an_unnamed_statement_never_sees_that_it_was_kept(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    change = changed_table(t, pooler)
    wanted = ("1",)
    with pooler.connect() as c:
        for _ in range(4):
            for _ in range(3):
                result = c.batch(parse("", "select * from changing") + run(""))
                same((result.types, result.rows), ("12TDCZ", [wanted]))
            wanted = change()
            # With more behind it nothing could be repeated.
            c.send((parse("", "select * from changing") + run("") + sync()) * 3)
            same([c.results().rows for _ in range(3)], [[wanted]] * 3)
        for _ in range(2):
            c.send(parse("", "select * from changing") + run("") + sync())
            c.send(parse("", "select * from changing") + run("") + sync())
            same([c.results().rows for _ in range(2)], [[wanted]] * 2)
            wanted = change()
        c.query("drop table changing")
        result = c.batch(parse("", "select * from changing") + run(""))
        same(result.errors[0].sqlstate, "42P01")
        c.query("create table changing (other text)")
        same(c.batch(parse("", "select * from changing") + run("")).types, "12TCZ")


@ours
def test_in_a_transaction_the_client_is_told_and_the_statement_renewed(t):
    pooler, holder, client = two_servers(t)
    change = changed_table(t, pooler)
    with holder, client:
        client.batch(parse("s", "select * from changing"))
        client.query("begin")
        wanted = change()
        result = client.batch(run("s"))
        same((result.types, str(result.errors[0]), result.status),
             ("EZ", "ERROR 0A000 cached plan must not change result type", "E"))
        client.query("rollback")
        client.query("begin")
        same(client.batch(run("s")).rows, [wanted])
        client.query("rollback")


@ours
def test_whether_a_describe_follows_is_waited_for(t):
    """It decides whether the client relies on the columns it has seen. Some drivers send each message by itself."""
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    change = changed_table(t, pooler)
    with pooler.connect() as c, pooler.console() as console:
        c.batch(parse("s", "select * from changing"))
        c.batch(run("s"))
        for next_message, sqlstate in ((describe("P"), None), (b"", "0A000")) * 3:
            columns = change()
            before = int(stats_of(console)["bytes_received"])
            c.send(bind("", "s", []))
            eventually(lambda: int(stats_of(console)["bytes_received"]) > before, "the Bind has arrived")
            c.send(next_message + execute() + sync())
            result = c.results()
            same((result.rows, [error.sqlstate for error in result.errors]),
                 ([], [sqlstate]) if sqlstate else ([columns], []))


@ours
def test_a_statement_lost_behind_our_back_is_prepared_again(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as c:
        c.query("create or replace function forget_them() returns void language plpgsql as $$"
                "declare n text; begin for n in select name from pg_prepared_statements loop "
                "execute 'deallocate ' || quote_ident(n); end loop; end $$")
        c.batch(parse("a", "select 'a'") + parse("b", "select 'b'"))
        c.query("select forget_them()")
        same(own_names(c), {})
        result = c.batch(run("a") + run("b"))
        same((result.types, result.rows), ("2TDC2TDCZ", [("a",), ("b",)]))
        c.query("begin")
        c.query("select forget_them()")
        result = c.batch(run("a"))
        same(str(result.errors[0]), 'ERROR 26000 prepared statement "a" does not exist')
        c.query("rollback")
        same(c.batch(run("a") + run("b")).rows, [("a",), ("b",)])


@ours
def test_a_lost_statement_of_a_client_that_was_told_its_columns(t):
    """It is described again before the batch is repeated: without DDL nobody notices, with it the client is told."""
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    change = changed_table(t, pooler)
    blind = bind("", "s", []) + execute()
    with pooler.connect() as c:
        c.query("create or replace function forget_them() returns void language plpgsql as $$"
                "declare n text; begin for n in select name from pg_prepared_statements loop "
                "execute 'deallocate ' || quote_ident(n); end loop; end $$")
        c.batch(parse("s", "select * from changing") + describe("S", "s"))
        for _ in range(2):
            c.query("select forget_them()")
            same(c.batch(blind).rows, [("1",)])
        c.query("select forget_them()")
        c.send(bind("", "s", []) + flush())
        c.until("2")
        c.send(execute() + sync())
        same(c.results().rows, [("1",)])
        c.query("select forget_them()")
        change()
        result = c.batch(blind)
        same((result.types, result.errors[0].sqlstate), ("EZ", "0A000"))
        c.query("select forget_them()")
        c.send(bind("", "s", []) + flush())
        same(c.until("E")[-1].error().sqlstate, "0A000")
        c.send(sync())
        same(c.results().types, "Z")
        c.query("select forget_them(); drop table changing")
        result = c.batch(blind)
        same((result.types, result.errors[0].sqlstate), ("EZ", "42P01"))
        same(c.value("select 1"), "1")


@ours
def test_what_cannot_be_repeated_is_an_error_and_works_the_next_time(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    change = changed_table(t, pooler)
    with pooler.connect() as c:
        c.batch(parse("s", "select * from changing") + parse("one", "select 1"))
        wanted = change()
        result = c.batch(run("one") + run("s"))  # a row has gone out
        same((result.types, result.errors[0].sqlstate), ("2TDCEZ", "0A000"))
        same(c.batch(run("one") + run("s")).rows, [("1",), wanted])
        wanted = change()
        c.send(run("s") + sync() + run("one") + sync())  # more was sent behind it
        same([c.results().errors[0].sqlstate, c.results().rows], ["0A000", [("1",)]])
        same(c.batch(run("s")).rows, [wanted])


# ---- SQL -----------------------------------------------------------------------------------------

@ours
def test_sql_prepare_works_on_every_server(t):
    pooler, holder, client = two_servers(t, extra="[pgsplice]\ntrack_sql_prepare = 1\n")
    with holder, client, pooler.console() as console:
        same(client.query("prepare plan (int) as select $1 + 1").tags, ["PREPARE"])
        on_both_servers(holder, client, lambda: same(client.query("execute plan(4)").rows, [("5",)]))
        on_both_servers(holder, client, lambda: same(
            client.batch(parse("", "execute plan(7)") + run("")).rows, [("8",)]))
        on_both_servers(holder, client, lambda: same(client.batch(run("plan", 9)).rows, [("10",)]))
        with refused('prepared statement "plan" already exists', "42P05"):
            client.query("prepare plan as select 2")
        same(client.value("execute plan(1)"), "2")
        same(client.query("explain (costs off) execute plan(1)").rows, [("Result",)])
        same([row["text"] for row in console.table("show prepared")], ["PREPARE ... (int) as select $1 + 1"])
        holder.query("PREPARE plan AS SELECT 'of the holder'")
        on_both_servers(holder, client, lambda: same(client.value("execute plan(1)"), "2"))
        same(holder.value("execute plan"), "of the holder")
        same(client.query("deallocate plan").tags, ["DEALLOCATE"])
        with refused('prepared statement "plan" does not exist', "26000"):
            client.query("execute plan(1)")
        same(holder.value("execute plan"), "of the holder")


@ours
def test_a_statement_of_sql_described_twice_in_a_batch(t):
    pooler, holder, client = two_servers(t, extra="[pgsplice]\ntrack_sql_prepare = 1\n")
    with holder, client:
        client.query("prepare plan (int) as select $1 + 1")
        on_both_servers(holder, client, lambda: client.batch(describe("S", "plan") + describe("S", "plan")))
        same(client.batch(run("plan", 1)).rows, [("2",)])


@ours
def test_a_prepare_that_fails_is_none(t):
    pooler, holder, client = two_servers(t, extra="[pgsplice]\ntrack_sql_prepare = 1\n")
    with holder, client:
        with refused(sqlstate="42P01"):
            client.query("prepare plan as select * from no_such_table")
        with refused(sqlstate="26000"):
            client.query("execute plan")
        client.query("prepare plan as select 1")
        client.query("begin")
        with refused(sqlstate="22012"):
            client.query("select 1/0")
        with refused(sqlstate="25P02"):
            client.query("prepare other as select 1")
        with refused(sqlstate="25P02"):
            client.query("deallocate plan")
        client.query("rollback")
        same(client.value("execute plan"), "1")
        with refused(sqlstate="26000"):
            client.query("execute other")
        client.query("discard all")
        with refused(sqlstate="26000"):
            client.query("execute plan")


@ours
def test_without_the_setting_prepare_passes_as_it_is(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as c:
        c.query("prepare plan as select 1")
        same(c.value("select name from pg_prepared_statements"), "plan")
        same(c.value("execute plan"), "1")
        c.batch(parse("over_the_wire", "select 2"))
        same(c.value("execute over_the_wire"), "2")
        c.query("deallocate plan")
