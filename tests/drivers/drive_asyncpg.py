"""asyncpg: binary everywhere, a statement cache of its own, named statements for each query."""

import asyncio
import datetime
import decimal
import io
import os

import asyncpg

from steps import console_line, finish, rows, say, servers

TEXT = "it's \"quoted\" \\ ä€🐘"


async def connect(**more):
    return await asyncpg.connect(ssl=os.environ["PGSSLMODE"], **more)


async def attempt(step, about, work):
    try:
        result = await work
    except asyncpg.PostgresError as error:
        say(step, about, type(error).__name__, error.sqlstate, str(error).splitlines()[0])
        return
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:  # the driver itself does not understand the answer
        say(step, about, type(error).__name__, error)
        return
    say(step, about, result)


async def simple(conn):
    rows("simple", "values", await conn.fetch("select 1 as one, 'two' as two, null as nothing"))
    say("simple", "create", await conn.execute("create table things (id int primary key, name text)"))
    say("simple", "insert", await conn.execute("insert into things values (1, 'one'), (2, 'two')"))
    say("simple", "several", await conn.execute("select 1; select 2"))


async def types(conn):
    given = (-42, 9007199254740993, decimal.Decimal("12345.678900"), TEXT, b"\0\xff\x10", True, None,
             datetime.datetime(2024, 2, 29, 12, 34, 56, 789000), [1, None, 3])
    for _ in range(2):
        rows("types", "values", await conn.fetch(
            "select $1::int, $2::bigint, $3::numeric, $4::text, $5::bytea, $6::bool, $7::text, "
            "$8::timestamp, $9::int[]", *given))
    await conn.execute("create type mood as enum ('sad', 'glad')")
    await conn.execute("create type pair as (a int, b mood)")
    # types that the driver must ask the catalogue for
    say("types", "enum", await conn.fetchval("select $1::mood", "glad"))
    say("types", "pair", tuple(await conn.fetchval("select (7, 'sad')::pair")))
    say("types", "enums", await conn.fetchval("select $1::mood[]", ["glad", "sad"]))


async def repeat(conn):
    say("repeat", *[await conn.fetchval("select $1::int * 2", i) for i in range(20)])
    few = await connect(statement_cache_size=2)  # the driver itself closes statements
    say("repeat", "few", *[await few.fetchval(f"select {i % 4} + $1::int", i) for i in range(20)])
    await few.close()
    none = await connect(statement_cache_size=0)
    say("repeat", "none", *[await none.fetchval("select $1::int * 2", i) for i in range(20)])
    await none.close()


async def explicit(conn):
    adding = await conn.prepare("select $1::int + $2::int as sum")
    for number in range(3):
        say("explicit", await adding.fetchval(number, 100))
    say("explicit", adding.get_parameters()[0].name, adding.get_attributes()[0].name)
    second = await conn.prepare("select $1::int + $2::int as sum")
    say("explicit", "second", await second.fetchval(1, 2), await adding.fetchval(3, 4))
    del adding, second
    say("explicit", "after", await conn.fetchval("select 1"))


async def interleave(conns):
    for number in range(20):
        for index, conn in enumerate(conns):
            for holder in (None, conns[(index + 1) % len(conns)]):
                if holder:
                    held = holder.transaction()
                    await held.start()
                pid, tag, got = await conn.fetchrow("select pg_backend_pid(), $1::text, $2::int",
                                                    f"c{index}", number)
                servers.add(pid)
                if number % 5 == 0:
                    say("interleave", index, tag, got)
                if holder:
                    await held.commit()


async def at_once(conns):
    """All connections at the same time, more than there are servers."""
    async def work(index, conn):
        return [await conn.fetchval(f"select {index} * 100 + $1::int", i) for i in range(50)]
    more = [await connect() for _ in range(5)]
    for found in await asyncio.gather(*(work(i, conn) for i, conn in enumerate(conns + more))):
        say("at_once", sum(found), found[0], found[-1])
    for conn in more:
        await conn.close()


async def errors(conn):
    for query in ("selec 1", "select 1/0", "insert into things values (1, 'again')",
                  "select * from no_such_table", "select 'x'::int"):
        await attempt("errors", "extended", conn.fetch(query))
        await attempt("errors", "simple", conn.execute(query))
        say("errors", "usable", await conn.fetchval("select 1"))
    for divisor in (5, 0, 2):
        await attempt("errors", "prepared", conn.fetchval("select 10 / $1::int", divisor))


async def transactions(conn, other):
    async def inside():
        async with conn.transaction():
            await conn.execute("insert into things values ($1, 'ten')", 10)
            await conn.fetchval("select 1 / $1::int", 0)
    await attempt("failed_transaction", "block", inside())
    await conn.execute("begin")
    await attempt("failed_transaction", "fails", conn.fetchval("select 1 / $1::int", 0))
    await attempt("failed_transaction", "ignored", conn.fetchval("select 'never prepared'"))
    await conn.execute("rollback")
    say("failed_transaction", "late", await conn.fetchval("select 'never prepared'"))
    count = "select count(*) from things where id = $1"
    say("failed_transaction", "after", await conn.fetchval(count, 10))
    async with conn.transaction(isolation="serializable"):
        await conn.execute("insert into things values ($1, 'eleven')", 11)
        say("visible", "before", await other.fetchval(count, 11))
    say("visible", "after", await other.fetchval(count, 11))
    async with conn.transaction():
        await conn.execute("insert into things values ($1, 'twelve')", 12)
        try:
            async with conn.transaction():
                await conn.execute("insert into things values ($1, 'thirteen')", 13)
                await conn.execute("insert into things values ($1, 'again')", 1)
        except asyncpg.UniqueViolationError:
            say("savepoint", "rolled back")
        await conn.execute("insert into things values ($1, 'fourteen')", 14)
    rows("savepoint", "after", await other.fetch("select id from things where id > 11 order by 1"))


async def batch(conn):
    await conn.execute("create table batch (id int primary key, name text)")
    insert = "insert into batch values ($1, $2)"
    await conn.executemany(insert, [(i, f"name {i}") for i in range(500)])
    await attempt("batch", "fails", conn.executemany(insert, [(1000, "new"), (1, "again"), (1001, "new")]))
    rows("batch", "sum", await conn.fetch("select count(*), sum(id) from batch"))


async def cursors(conn):
    async with conn.transaction():
        found = [tuple(row) async for row in conn.cursor(
            "select i, 'row ' || i from generate_series($1::int, 10) i", 1, prefetch=3)]
        rows("cursor", "rows", found)
        cursor = await conn.cursor("select i from generate_series(1, 10) i")
        rows("cursor", "fetch", await cursor.fetch(4))
        await cursor.forward(2)
        rows("cursor", "forward", await cursor.fetch(2))


async def copy(conn):
    await conn.execute("create table copied (id int, name text)")
    say("copy", "in", await conn.copy_records_to_table("copied", records=[(i, f"name {i}") for i in range(10000)]))
    out = io.BytesIO()
    say("copy", "out", await conn.copy_from_query("select * from copied where id < $1 order by id", 9000, output=out),
        len(out.getvalue()))
    await attempt("copy", "bad", conn.copy_to_table("copied", source=io.BytesIO(b"no number\tx\n")))
    say("copy", "count", await conn.fetchval("select count(*) from copied"))


async def large(conn):
    big = "x" * 1000000
    for _ in range(3):
        say("large", "value", await conn.fetchval("select $1::text", big) == big)
        say("large", "bytes", await conn.fetchval("select $1::bytea", big.encode()) == big.encode())
    found = await conn.fetch("select i, repeat('y', 100) from generate_series(1, $1::int) i", 10000)
    say("large", "rows", len(found), sum(row[0] for row in found))


async def timeout(conn, other):
    async def slow():
        async with conn.transaction():
            await conn.execute("set local statement_timeout = 50")
            await conn.fetch("select pg_sleep($1)", 30)
    await attempt("timeout", "sleep", slow())
    say("timeout", "usable", await conn.fetchval("select 1"))
    # the driver's own timeout sends a cancel request
    try:
        await conn.fetch("select pg_sleep($1)", 30, timeout=0.2)
    except asyncio.TimeoutError:
        say("timeout", "cancelled")
    say("timeout", "usable", await conn.fetchval("select 1"))
    asleep = asyncio.ensure_future(conn.fetch("select pg_sleep($1)", 30))
    while not await other.fetchval("select count(*) from pg_stat_activity where datname = current_database() "
                                   "and wait_event = 'PgSleep'"):
        pass
    asleep.cancel()
    try:
        await asleep
    except asyncio.CancelledError:
        say("cancel", "cancelled")
    say("cancel", "usable", await conn.fetchval("select 1"))


async def schema(conn, other):
    await conn.execute("create table changing (id int)")
    await conn.execute("insert into changing values (1)")
    everything = "select * from changing where id = $1"

    async def look():
        return [dict(row) for row in await conn.fetch(everything, 1)]
    await attempt("schema", "before", look())
    await other.execute("alter table changing add column name text default 'new'")
    # asyncpg itself prepares anew after 0A000; it must not be fooled by our doing so
    await attempt("schema", "after", look())
    await attempt("schema", "again", look())
    await other.execute("alter table changing alter column name drop default, "
                        "alter column name type int using 5")
    await attempt("schema", "type", look())
    async with conn.transaction():
        await attempt("schema", "inside", look())
    await other.execute("alter table changing drop column name")
    await attempt("schema", "dropped", look())


async def discard(conn, other):
    kept = "select $1::text || ' kept'"
    say("discard", "before", await conn.fetchval(kept, "a"), await other.fetchval(kept, "a"))
    await conn.execute("discard all")
    await conn.reload_schema_state()
    say("discard", "after", await conn.fetchval(kept, "b"), await other.fetchval(kept, "b"))
    await conn.reset()
    say("discard", "reset", await conn.fetchval(kept, "c"))


async def pools():
    async with asyncpg.create_pool(ssl=os.environ["PGSSLMODE"], min_size=2, max_size=4) as pool:
        async def work(number):
            async with pool.acquire() as conn:
                async with conn.transaction():
                    return await conn.fetchval("select $1::int * 7", number)
        say("pool", sum(await asyncio.gather(*(work(i) for i in range(40)))))


async def listen(conn, other):
    heard = asyncio.get_running_loop().create_future()
    await conn.add_listener("news", lambda _, pid, channel, payload: heard.set_result((channel, payload)))
    await other.execute("select pg_notify('news', $1)", "it is here")
    say("listen", *await heard)


async def reconnect(conn):
    try:
        await conn.fetch("select pg_terminate_backend(pg_backend_pid())")
    except (asyncpg.PostgresError, OSError) as error:
        say("reconnect", type(error).__name__)
    again = await connect()
    say("reconnect", await again.fetchval("select $1::text || ' kept'", "d"))
    await again.close()


async def console():
    """Prepared and in binary; a row alone is an Execute with a limit."""
    conn = await connect()
    for _ in range(3):
        for command in os.environ["DRIVE_COMMANDS"].split("\n"):
            try:
                found = await conn.fetch(command)
            except asyncpg.PostgresError as error:
                say("console", command, "error", error.sqlstate)
                continue
            if found:
                assert await conn.fetchrow(command) == found[0]
                console_line(command, [tuple(row) for row in found])
            else:
                say("console", command, "done")
    await conn.close()
    finish()


async def main():
    conns = [await connect() for _ in range(3)]
    conn, other = conns[0], conns[1]
    await simple(conn)
    await types(conn)
    await repeat(conn)
    await explicit(conn)
    await interleave(conns)
    await at_once(conns)
    await errors(conn)
    await transactions(conn, other)
    await batch(conn)
    await cursors(conn)
    await copy(conn)
    await large(conn)
    await timeout(conn, other)
    await schema(conn, other)
    await discard(conn, other)
    await pools()
    if os.environ["DRIVE_WAY"] in ("straight", "session"):
        await listen(conn, other)
    await reconnect(conn)
    await conns[1].close()
    await conns[2].close()
    finish()


asyncio.run(console() if os.environ["DRIVE_WAY"] == "console" else main())
