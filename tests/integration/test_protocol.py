"""The wire: what a client may say, and what it hears, with nothing changed on the way."""

import struct
import time

import pgwire
from harness import matches, ours, plain, refused, same, slow
from pgwire import (bind, close, copy_data, copy_done, copy_fail, describe, execute, extended,
                    flush,
                    message, parse, query, startup, sync, text)


def test_simple_query_brings_rows_and_tag(t):
    with t.pooler().connect() as c:
        result = c.query("select 1 as a, 'x' as b union all select 2, null order by 1")
        same(result.types, "TDDCZ")
        same([name for name, _ in result.columns], ["a", "b"])
        same(result.rows, [("1", "x"), ("2", None)])
        same(result.tags, ["SELECT 2"])


def test_several_statements_in_one_query_each_answer(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        result = c.query("select 1; select 2; begin; select 3; commit")
        same(result.tags, ["SELECT 1", "SELECT 1", "BEGIN", "SELECT 1", "COMMIT"])
        same(result.types.count("Z"), 1)


def test_empty_query_is_answered(t):
    with t.pooler().connect() as c:
        same(c.query("").types, "IZ")
        same(c.query(" ; ").types, "IZ")


def test_error_keeps_the_connection_and_all_fields(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        with refused(sqlstate="22012") as caught:
            c.query("select 1/0")
        for field in "SVCMFLR":
            assert field in caught[0].fields, caught[0].fields
        same(c.value("select 7"), "7")


def test_extended_query_brings_the_same_as_direct(t):
    data = (parse("", "select $1::int + 1, $2::text") + bind("", "", ["41", None]) +
            describe("S") + describe("P") + execute())
    with t.pooler(pool_mode="transaction").connect() as c, t.postgres.connect() as direct:
        got, wanted = c.batch(data), direct.batch(data)
        same(got.types, "12tTTDCZ")
        same([(m.type, m.body) for m in got.messages], [(m.type, m.body) for m in wanted.messages])


def test_binary_parameters_and_results_pass(t):
    with t.pooler().connect() as c:
        data = (parse("", "select $1::bytea", [17]) + bind("", "", [b"\0\1\xff"], True) + execute())
        result = c.batch(data)
        row = next(m for m in result.messages if m.type == "D")
        same(row.body, struct.pack("!HI", 1, 3) + b"\0\1\xff")


def test_pipelined_simple_queries_are_answered_in_order(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        c.send(b"".join(query(f"select {i}") for i in range(200)))
        same([c.results().value() for _ in range(200)], [str(i) for i in range(200)])


def test_pipelined_batches_are_answered_in_order(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        c.send(b"".join(extended(f"select {i}") + sync() for i in range(200)))
        same([c.results().value() for _ in range(200)], [str(i) for i in range(200)])


def test_pipelined_simple_and_extended_mix(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        c.send(query("select 1") + extended("select 2") + sync() + query("select 3; select 33") +
               extended("select 4") + extended("select 5") + sync() + query("select 6"))
        same([c.results().rows for _ in range(5)],
             [[("1",)], [("2",)], [("3",), ("33",)], [("4",), ("5",)], [("6",)]])


def test_error_in_a_batch_skips_to_its_sync_only(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        c.send(extended("select 1") + extended("select 1/0") + extended("select 3") + sync() +
               extended("select 4") + sync())
        first, second = c.results(), c.results()
        same(first.types, "12TDC1EZ")
        same(first.errors[0].sqlstate, "22012")
        same(second.value(), "4")


def test_several_syncs_in_a_row_each_answer(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        c.send(sync() * 5)
        same([c.results().types for _ in range(5)], ["Z"] * 5)
        same(c.value("select 1"), "1")


def test_flush_brings_what_is_there_without_sync(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        c.send(parse("", "select 5") + flush())
        same(c.receive().type, "1")
        c.send(bind() + describe("P") + flush())
        same([c.receive().type for _ in range(2)], ["2", "T"])
        c.send(execute() + flush())
        same([c.receive().type for _ in range(2)], ["D", "C"])
        c.send(sync())
        same(c.receive().type, "Z")


def test_named_parse_then_flush_is_answered_at_once(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        c.send(parse("s1", "select 5") + flush())
        same(c.receive().type, "1")
        c.send(sync())
        same(c.receive().type, "Z")


def test_named_statements_live_as_long_as_the_session(t):
    pooler = t.pooler(pool_mode="session", default_pool_size=1)
    with pooler.connect() as c:
        same(c.batch(parse("mine", "select $1::int * 2")).types, "1Z")
        for i in range(3):
            same(c.batch(bind("", "mine", [i]) + execute()).value(), str(i * 2))
        same(c.batch(describe("S", "mine")).types, "tTZ")
        c.terminate()
    with pooler.connect() as c:
        same(c.batch(bind("", "mine", [1])).errors[0].sqlstate, "26000")
        same(c.batch(parse("mine", "select 1")).types, "1Z")


def test_mistakes_with_statement_names_keep_the_session(t):
    with t.pooler(pool_mode="session").connect() as c:
        same(c.batch(parse("twice", "select 1")).types, "1Z")
        same(c.batch(parse("twice", "select 2")).errors[0].sqlstate, "42P05")
        same(c.batch(bind("", "unknown")).errors[0].sqlstate, "26000")
        same(c.batch(describe("S", "unknown")).errors[0].sqlstate, "26000")
        same(c.batch(close("S", "unknown")).types, "3Z")
        same(c.batch(bind("", "twice") + execute()).value(), "1")


def test_describe_and_close_of_portals_pass(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        result = c.batch(parse("", "select 1 as one") + bind("p") + describe("P", "p") +
                         execute("p") + close("P", "p") + describe("S"))
        same(result.types, "12TDC3tTZ")
        same(result.columns, [("one", 23)])


def test_parse_without_sync_holds_the_server(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as c, pooler.connect() as second, pooler.console() as console:
        c.send(parse("", "select 5") + flush())
        same(c.receive().type, "1")
        second.send(query("select 6"))
        console.wait_pool(sv_active=1, cl_waiting=1)
        assert second.silent_for(0.1)
        c.send(sync())
        same(c.results().types, "Z")
        same(second.results().value(), "6")


def test_portal_is_suspended_and_resumed(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        c.send(parse("", "select generate_series(1, 5)") + bind() + execute("", 2) +
               execute("", 2) +
               execute("", 2) + sync())
        result = c.results()
        same(result.types, "12DDsDDsDCZ")


def test_portal_lives_over_flushes_inside_a_transaction(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        c.query("begin")
        c.batch(parse("", "select generate_series(1, 3)") + bind("p1"))
        same(c.batch(execute("p1", 2)).rows, [("1",), ("2",)])
        same(c.batch(execute("p1", 2)).rows, [("3",)])
        same(c.batch(close("P", "p1")).types, "3Z")
        c.query("commit")


def test_sync_tells_the_transaction_state(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        same(c.query("begin").status, "T")
        c.send(query("select 1/0"))
        same(c.results().status, "E")
        same(c.query("rollback").status, "I")


def test_copy_in_arrives(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        c.query("drop table if exists copy_in; create table copy_in (n int, s text)")
        c.send(query("copy copy_in from stdin"))
        same(c.receive().type, "G")
        c.send(b"".join(copy_data(f"{i}\trow {i}\n".encode()) for i in range(1000)) + copy_done())
        same(c.results().tags, ["COPY 1000"])
        same(c.value("select sum(n) from copy_in"), "499500")


def test_copy_out_arrives_whole(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        c.send(query("copy (select generate_series(1, 20000)) to stdout"))
        result = c.results()
        data = b"".join(m.body for m in result.messages if m.type == "d")
        same(data, b"".join(b"%d\n" % i for i in range(1, 20001)))
        same(result.types[0] + result.types[-3:], "HcCZ")


def test_copy_in_that_the_client_fails_leaves_the_session_usable(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        c.query("drop table if exists copy_fail; create table copy_fail (n int)")
        c.send(query("copy copy_fail from stdin"))
        same(c.receive().type, "G")
        c.send(copy_data(b"1\n") + copy_fail("no more"))
        result = c.results()
        same(result.errors[0].sqlstate, "57014")
        same(c.value("select count(*) from copy_fail"), "0")


def test_copy_in_that_the_server_fails_swallows_the_rest(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as c, pooler.connect() as second:
        c.query("drop table if exists copy_bad; create table copy_bad (n int)")
        c.send(query("copy copy_bad from stdin"))
        same(c.receive().type, "G")
        c.send(copy_data(b"not a number\n"))
        result = c.results()
        same(result.errors[0].sqlstate, "22P02")
        # libpq has not seen the error yet and goes on sending; PostgreSQL ignores it
        c.send(copy_data(b"2\n") + copy_done())
        same(c.value("select count(*) from copy_bad"), "0")
        same(second.value("select 2"), "2")


def test_copy_data_after_a_failed_copy_does_not_reach_the_next_client(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as c, pooler.connect() as second:
        c.query("drop table if exists copy_late; create table copy_late (n int)")
        c.send(query("copy copy_late from stdin"))
        same(c.receive().type, "G")
        c.send(copy_data(b"bad\n"))
        assert c.results().errors
        second.send(query("copy copy_late from stdin"))
        same(second.receive().type, "G")
        c.send(copy_data(b"666\n") + copy_done())
        second.send(copy_data(b"1\n") + copy_done())
        same(second.results().tags, ["COPY 1"])
        same(c.value("select sum(n) from copy_late"), "1")


def test_copy_in_through_the_extended_protocol_with_sync_right_behind_execute(t):
    # libpq's PQexecParams sends Sync with Execute and once more after CopyDone; the first one is
    # swallowed by PostgreSQL's COPY, so only one ReadyForQuery comes (manual, "COPY Operations")
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as c, pooler.connect() as second:
        c.query("drop table if exists copy_ext; create table copy_ext (n int)")
        c.send(parse("", "copy copy_ext from stdin") + bind() + describe("P") + execute() + sync())
        same("".join(m.type for m in c.until("G")), "12nG")
        second.send(query("select 'second'"))
        assert second.silent_for(0.1), "the server of a running COPY was given away"
        c.send(copy_data(b"1\n2\n") + copy_done() + sync())
        result = c.results()
        same(result.tags, ["COPY 2"])
        same(second.results().value(), "second")
        same(c.value("select sum(n) from copy_ext"), "3")


def test_copy_out_through_the_extended_protocol(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        result = c.batch(parse("", "copy (select 1) to stdout") + bind() + execute())
        same(result.types, "12HdcCZ")


def test_copy_fail_through_the_extended_protocol(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=1)
    with pooler.connect() as c, pooler.connect() as second:
        c.query("drop table if exists copy_extf; create table copy_extf (n int)")
        c.send(parse("", "copy copy_extf from stdin") + bind() + execute() + sync())
        c.until("G")
        c.send(copy_fail("stop") + sync())
        result = c.results()
        same(result.errors[0].sqlstate, "57014")
        same(second.value("select 5"), "5")
        same(c.value("select count(*) from copy_extf"), "0")


def test_function_call_is_answered(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        oid = int(c.value("select oid from pg_proc where proname = 'int4pl'"))
        c.send(pgwire.function_call(oid, [20, 22]))
        result = c.results()
        same(result.types, "VZ")
        same(result.messages[0].body, struct.pack("!i", 2) + b"42")


def test_notices_reach_the_client_that_caused_them(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        c.query("do $$ begin raise notice 'hear me'; end $$")
        same([n["M"] for n in c.notices], ["hear me"])


def test_notifications_arrive_in_session_mode(t):
    pooler = t.pooler(pool_mode="session")
    with pooler.connect() as listener, pooler.connect() as sender:
        listener.query("listen news")
        pid = sender.pid()
        sender.query("notify news, 'hello'")
        listener.until("A")
        same(listener.notifications, [(pid, "news", "hello")])


def test_parameter_status_is_forwarded(t):
    with t.pooler(pool_mode="session").connect() as c:
        c.query("set timezone = 'Asia/Tokyo'")
        same(c.params["TimeZone"], "Asia/Tokyo")
        c.query("set application_name = 'someone'")
        same(c.params["application_name"], "someone")


def test_terminate_ends_the_connection(t):
    pooler = t.pooler()
    with pooler.connect() as c:
        same(c.terminate(), [])
    pooler.wait_log(r"closing because: client close request \(age=\d+s\)")


# ---- before the startup packet ------------------------------------------------------------------

@plain
def test_encryption_requests_are_declined_in_any_order(t):
    pooler = t.pooler()
    for order in ("s", "g", "sg", "gs", "ssgg", "gsgs"):
        with pooler.open() as c:
            for kind in order:
                c.send(pgwire.ssl_request() if kind == "s" else pgwire.gssenc_request())
                same(c.raw(1), b"N", order)
            c.login()
            same(c.value("select 1"), "1")


@plain
def test_bytes_behind_an_encryption_request_are_refused(t):
    # An attacker in the middle could slip them in before TLS begins.
    pooler = t.pooler()
    for request, name in ((pgwire.ssl_request(), "SSL request"),
                          (pgwire.gssenc_request(), "GSSAPI encryption request")):
        with pooler.open() as c:
            c.send(request + startup({"user": "app", "database": "app"}))
            if c.raw(1) != b"N":
                c.buffer[:0] = b"E"
            same(c.fatal().text, f"received unencrypted data after {name}")


@ours
def test_newer_protocol_is_negotiated_down(t):
    pooler = t.pooler()
    for version in (0x00030001, pgwire.PROTOCOL_3_2, 0x00030063):
        with pooler.open() as c:
            first = c.login(version=version)[0]
            same(first.type, "v")
            same(first.body, struct.pack("!II", 0x00030000, 0))
            same(len(c.key[1]), 4)
            same(c.value("select 1"), "1")


@ours
def test_unknown_protocol_options_are_listed(t):
    with t.pooler().open() as c:
        first = c.login(**{"_pq_.first": "1", "_pq_.second": "x"})[0]
        same(first.type, "v")
        same(first.body, struct.pack("!II", 0x00030000, 2) + b"_pq_.first\0_pq_.second\0")
        same(c.value("select 1"), "1")


def test_protocol_3_0_is_not_negotiated(t):
    with t.pooler().open() as c:
        assert all(m.type != "v" for m in c.login())


def test_protocol_2_is_refused_in_words(t):
    with t.pooler().open() as c:
        c.send(struct.pack("!II", 296, pgwire.PROTOCOL_2_0) + b"app".ljust(288, b"\0"))
        same(c.fatal().text, "old V2 protocol not supported")


def test_unknown_startup_codes_are_a_bad_packet_header(t):
    pooler = t.pooler()
    for code in (0x00040000, 0x00010000, 0, 80877105):
        with pooler.open() as c:
            c.send(pgwire.untyped(code, b"user\0app\0\0"))
            error = c.fatal()
            matches(r"^bad packet header: '[0-9a-f]{1,16}'$", error.text)
            same((error.severity, error.sqlstate), ("FATAL", "08P01"))
    pooler.usable()


def test_wrong_startup_lengths_are_a_bad_packet_header(t):
    pooler = t.pooler()
    for size in (0, 1, 4, 7):
        with pooler.open() as c:
            c.send(struct.pack("!II", size, pgwire.PROTOCOL_3_0) + b"user\0app\0\0")
            matches(r"^bad packet header: ", c.fatal().text)
    pooler.usable()


def test_too_long_startup_is_refused_before_its_body(t):
    pooler = t.pooler(client_login_timeout=3)
    with pooler.open() as c:
        c.send(struct.pack("!II", 0x00FFFFFF, pgwire.PROTOCOL_3_0))
        matches(r"^bad packet header: ", c.fatal(2).text)
    pooler.usable()


@ours
def test_large_startup_is_fine(t):
    pooler = t.pooler()
    with pooler.connect(application_name="n" * 60, TimeZone="UTC", DateStyle="ISO, MDY") as c:
        same(c.value("select 1"), "1")
    pooler = t.pooler(ignore_startup_parameters="padding")
    with pooler.connect(padding="x" * 12000) as c:
        same(c.value("select 1"), "1")


def test_http_and_garbage_end_within_the_login_timeout(t):
    pooler = t.pooler(client_login_timeout=0.5)
    for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" * 64, bytes(range(1, 255)),
                 b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
        with pooler.open() as c:
            try:
                c.send(data)
                c.raw(1 << 20, 3)
            except (pgwire.Closed, OSError):
                pass
    pooler.usable()


@ours
def test_startup_without_terminator_is_refused(t):
    with t.pooler().open() as c:
        c.send(pgwire.untyped(pgwire.PROTOCOL_3_0, b"user\0app\0"))
        error = c.fatal()
        same(error.text, "invalid startup packet layout: expected terminator as last byte")


@ours
def test_startup_with_bytes_behind_its_terminator_is_refused(t):
    with t.pooler().open() as c:
        c.send(pgwire.untyped(pgwire.PROTOCOL_3_0, b"user\0app\0\0xyz\0"))
        same(c.fatal().severity, "FATAL")


def test_startup_without_user_is_refused(t):
    pooler = t.pooler()
    for params in ({}, {"database": "app"}, {"user": ""}):
        with pooler.open() as c:
            c.send(startup(params))
            same(c.fatal().text, "no username supplied")


def test_too_long_user_is_refused(t):
    pooler = t.pooler()
    with pooler.open() as c:
        c.send(startup({"user": "u" * 128, "database": "app"}))
        same(c.fatal().text, "username too long")
    with pooler.open() as c:
        c.send(startup({"user": "u" * 127, "database": "app"}))
        same(c.fatal().text, '"trust" authentication failed')


def test_unsupported_startup_parameter_is_named(t):
    pooler = t.pooler()
    with refused("unsupported startup parameter: extra_float_digits", "08P01", "FATAL"):
        pooler.connect(extra_float_digits="2")
    pooler.usable()


def test_database_defaults_to_the_user(t):
    with t.pooler().connect(database=None) as c:
        same(c.value("select current_database()"), "app")


def test_second_startup_is_refused(t):
    with t.pooler(auth_type="plain", userlist={"app": "x"}).open() as c:
        c.send(startup({"user": "app", "database": "app"}))
        same(c.receive().type, "R")
        c.send(startup({"user": "app", "database": "app"}))
        same(c.fatal().severity, "FATAL")


def test_password_before_startup_is_refused(t):
    with t.pooler().open() as c:
        c.send(message("p", text("secret")))
        same(c.fatal().text, "client password pkt before startup packet")


def test_query_before_startup_is_refused(t):
    pooler = t.pooler()
    with pooler.open() as c:
        c.send(query("select 1"))
        found = c.closed()
        assert not any(m.type in "DCZ" for m in found), found
    pooler.usable()


# ---- afterwards ---------------------------------------------------------------------------------

def test_unknown_message_types_end_the_client(t):
    pooler = t.pooler(pool_mode="transaction")
    for kind in "aRZTK1!":
        with pooler.connect() as c:
            c.send(message(kind, b"xxxx"))
            same(c.fatal().text, "unknown pkt", kind)
    pooler.usable()


def test_message_length_below_four_ends_the_client(t):
    pooler = t.pooler()
    for size in (0, 3):
        with pooler.connect() as c:
            c.send(b"Q" + struct.pack("!I", size) + b"select 1\0")
            matches(r"^bad packet header: '51", c.fatal().text)
    pooler.usable()


def test_max_packet_size_is_enforced_on_the_announced_length(t):
    pooler = t.pooler(max_packet_size=1000)
    with pooler.connect() as c:
        same(c.value("select '" + "x" * 900 + "'"), "x" * 900)
        c.send(b"Q" + struct.pack("!I", 1 << 20))
        matches(r"^bad packet header: ", c.fatal().text)
    pooler.usable()


def test_server_message_over_max_packet_size_ends_the_pair(t):
    pooler = t.pooler(max_packet_size=4000, pool_mode="transaction")
    with pooler.connect() as c:
        c.send(query("select repeat('x', 10000)"))
        same(c.fatal().text, "bad pkt header")
    pooler.usable()


def test_query_without_its_zero_is_refused_by_someone(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as c:
        c.send(message("Q", b"select 1"))
        try:
            found = c.until("Z", 1)
        except pgwire.Closed:
            found = []
        assert not any(m.type == "D" for m in found), found
    pooler.usable()


def test_copy_messages_without_a_copy_are_dropped(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        c.send(copy_data(b"x") + copy_done() + copy_fail("y"))
        same(c.value("select 3"), "3")


# ---- pieces -------------------------------------------------------------------------------------

@ours
def test_startup_cut_at_every_position_is_understood(t):
    pooler = t.pooler()
    data = startup({"user": "app", "database": "app", "application_name": "cut"})
    for cut in range(1, len(data)):
        with pooler.open() as c:
            c.send_split(data, [cut], 0.0005)
            c.authenticate("app", None)


def test_query_cut_at_every_position_is_understood(t):
    data = query("select 'cut me'")
    with t.pooler(pool_mode="transaction").connect() as c:
        for cut in range(1, len(data)):
            c.send_split(data, [cut], 0.0005)
            same(c.results().value(), "cut me")


def test_batch_cut_at_every_position_is_understood(t):
    data = parse("", "select $1::text") + bind("", "", ["v"]) + describe("P") + execute() + sync()
    with t.pooler(pool_mode="transaction").connect() as c:
        for cut in range(1, len(data)):
            c.send_split(data, [cut], 0.0003)
            same(c.results().value(), "v")


def test_named_statement_cut_at_every_position_is_understood(t):
    with t.pooler(pool_mode="transaction").connect() as c:
        data = (parse("st", "select $1::text") + bind("", "st", ["v"]) + execute() +
                close("S", "st") +
                sync())
        for cut in range(1, len(data)):
            c.send_split(data, [cut], 0.0003)
            result = c.results()
            same((result.types, result.rows), ("12DC3Z", [("v",)]), f"cut at {cut}")


@plain
@ours
def test_single_bytes_are_understood(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.open() as c:
        c.send_split(pgwire.ssl_request())
        same(c.raw(1), b"N")
        c.send_split(startup({"user": "app", "database": "app"}))
        c.authenticate("app", None)
        c.send_split(query("select 1") + extended("select 2") + sync())
        same([c.results().value() for _ in range(2)], ["1", "2"])


@ours
def test_server_answers_cut_anywhere_are_understood(t):
    def script(server):
        server.startup()
        for byte in server.WELCOME:
            server.send(bytes([byte]))
        while True:
            if server.receive().type == "X":
                return
            answer = (message("T", struct.pack("!H", 1) + b"v\0" +
                              struct.pack("!IHIhIH", 0, 0, 25, -1, 0xFFFFFFFF, 0)) +
                      message("D", struct.pack("!HI", 1, 5) + b"piece") +
                      message("C", b"SELECT 1\0") + pgwire.ready())
            for start in range(0, len(answer), 3):
                server.send(answer[start:start + 3])
                time.sleep(0.0003)
    fake = t.fake_server(script)
    pooler = t.pooler(databases={"app": t.fake_entry(fake)}, pool_mode="transaction")
    with pooler.connect() as c:
        for _ in range(5):
            same(c.value("select whatever"), "piece")


# ---- size and back-pressure ---------------------------------------------------------------------

MEGABYTE = 1 << 20


def warmed_up(pooler, c):
    """The memory after every buffer has been used; what comes later must fit in the same ones."""
    assert len(c.value(f"select repeat('w', {60 * MEGABYTE})", 20)) == 60 * MEGABYTE
    c.batch(parse("", "select length($1::text)") + bind("", "", [b"w" * 30 * MEGABYTE]) + execute())
    return pooler.memory("VmHWM")


def grown(pooler, before):
    return (pooler.memory("VmHWM") - before) / MEGABYTE


@slow(40)
def test_row_of_100_megabytes_passes_in_constant_memory(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect(timeout=30) as c:
        before = warmed_up(pooler, c)
        c.send(query(f"select repeat('x', {100 * MEGABYTE})"))
        got, tail = 0, b""
        while not tail.endswith(pgwire.ready()):
            data = c.socket.recv(1 << 20)
            assert data, "closed"
            got += len(data)
            tail = (tail + data)[-16:]
        assert got > 100 * MEGABYTE, got
        assert grown(pooler, before) < 20, f"grew by {grown(pooler, before):.1f} MB"
        same(c.value("select 1"), "1")


@slow(40)
def test_bind_of_50_megabytes_passes_in_constant_memory(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect(timeout=30) as c:
        before = warmed_up(pooler, c)
        size = 50 * MEGABYTE
        result = c.batch(parse("", "select length($1::text)") + bind("", "", [b"y" * size]) +
                         execute())
        same(result.value(), str(size))
        assert grown(pooler, before) < 20, f"grew by {grown(pooler, before):.1f} MB"


@slow(40)
def test_slow_reader_costs_little_memory_and_stops_nobody(t):
    pooler = t.pooler(pool_mode="transaction", default_pool_size=5)
    with pooler.connect(timeout=20) as other:
        before = warmed_up(pooler, other)
        slow_ones = [pooler.connect(receive_bytes=4096) for _ in range(3)]
        for one in slow_ones:
            one.send(query("select repeat('z', 30000000)"))
        for i in range(200):
            same(other.value(f"select {i}"), str(i))
        assert grown(pooler, before) < 20, f"grew by {grown(pooler, before):.1f} MB"
        for one in slow_ones[:2]:
            one.vanish()
        result = slow_ones[2].results(25)
        same(len(result.rows[0][0]), 30000000)
        same(other.value("select 1"), "1")


def test_pipeline_whose_answers_are_read_late_arrives_whole(t):
    with t.pooler(pool_mode="transaction").connect() as c, t.postgres.connect() as watcher:
        c.send(b"".join(query(f"select {i}, repeat('p', 2000)") for i in range(3000)))
        pid = t.postgres.backends()  # a moment in which nobody reads
        assert pid and watcher.value("select 1") == "1"
        for i in range(3000):
            same(c.results().rows[0][0], str(i))


# ---- the ways in --------------------------------------------------------------------------------

def test_unix_socket_works(t):
    pooler = t.pooler()
    with pooler.connect(host=pooler.folder) as c:
        same(c.value("select 1"), "1")
        c.send(pgwire.query("select 2"))
        same(c.results().value(), "2")


def test_encryption_is_declined_on_the_unix_socket(t):
    pooler = t.pooler()
    with pooler.open(pooler.folder) as c:
        c.send(pgwire.ssl_request())
        same(c.raw(1), b"N")
        c.login()


def test_unix_socket_to_the_server_works(t):
    pooler = t.pooler(databases={"app": t.postgres.address(host=t.postgres.sockets)})
    with pooler.connect() as c:
        same(c.value("select inet_server_addr() is null"), "t")


def test_ipv6_works_on_both_sides(t):
    pooler = t.pooler(listen_addr="127.0.0.1, ::1",
                      databases={"app": t.postgres.address(host="::1")})
    with pooler.connect(host="::1") as c:
        same(c.value("select host(inet_server_addr())"), "::1")
    pooler.wait_log(r"C-0x[0-9a-f]+: app/app@\[::1\]:\d+ login attempt")


def test_listen_on_all_addresses_takes_both_families(t):
    pooler = t.pooler(listen_addr="*")
    for host in ("127.0.0.1", "::1"):
        with pooler.connect(host=host) as c:
            same(c.value("select 1"), "1")


def test_server_host_name_is_resolved(t):
    pooler = t.pooler(databases={"app": t.postgres.address(host="localhost")})
    with pooler.connect() as c:
        same(c.value("select 1"), "1")


def test_any_database_entry_serves_unlisted_names(t):
    entry = " ".join(w for w in t.postgres.address().split() if not w.startswith("dbname"))
    pooler = t.pooler(databases={"*": entry})
    with pooler.connect(database="app2") as c:
        same(c.value("select current_database()"), "app2")
    pooler.wait_log("registered new auto-database")
