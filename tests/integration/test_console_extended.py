"""The console over the extended protocol, as drivers speak it: PostgreSQL's own messages, order and
errors, values in text and in binary."""

import struct

import pgwire
from harness import matches, ours, same
from pgwire import bind, close, describe, execute, flush, message, parse, query, sync, text

INT4, INT8, TEXT, FLOAT8, NUMERIC = 23, 20, 25, 701, 1700


def bind_formats(formats, portal="", statement="", values=()):
    body = text(portal) + text(statement) + struct.pack("!HH", 0, len(values))
    for value in values:
        body += struct.pack("!i", len(value)) + value
    return message("B", body + struct.pack(f"!H{len(formats)}H", len(formats), *formats))


def raw_rows(result):
    """The rows with values as bytes."""
    found = []
    for m in result.messages:
        if m.type != "D":
            continue
        at, row = 2, []
        for _ in range(struct.unpack_from("!H", m.body)[0]):
            size = struct.unpack_from("!i", m.body, at)[0]
            at += 4
            row.append(None if size < 0 else m.body[at:at + size])
            at += max(size, 0)
        found.append(row)
    return found


def formats_of(result):
    body = next(m.body for m in result.messages if m.type == "T")
    found, at = [], 2
    for _ in range(struct.unpack_from("!H", body)[0]):
        end = body.index(b"\0", at)
        found.append(struct.unpack_from("!H", body, end + 17)[0])
        at = end + 19
    return found


def from_binary(value, oid):
    if value is None or oid == TEXT:
        return value if value is None else value.decode()
    if oid in (INT4, INT8):
        return str(int.from_bytes(value, "big", signed=True))
    if oid == FLOAT8:
        return f"{struct.unpack('!d', value)[0]:.2f}"
    assert oid == NUMERIC
    count, weight, sign, scale = struct.unpack_from("!hhHH", value)
    assert (sign, scale) == (0, 0)
    digits = struct.unpack_from(f"!{count}H", value, 8)
    assert not digits or digits[-1] != 0
    return str(sum(digit * 10000 ** (weight - i) for i, digit in enumerate(digits)))


# ---- messages -----------------------------------------------------------------------------------

@ours
def test_extended_protocol_is_answered(t):
    with t.pooler().console() as console:
        result = console.client.batch(parse("", "show version") + bind() + describe("P") + execute())
        same(result.types, "12TDCZ")
        same((result.columns, result.tags), ([("version", 25)], ["SHOW"]))
        same(console.do("show version"), "SHOW")


@ours
def test_described_statement(t):
    with t.pooler().console() as console:
        c = console.client
        result = c.batch(parse("s", "show pools") + describe("S", "s"))
        same(result.types, "1tTZ")
        same(result.messages[1].body, b"\0\0", "no parameters")
        for _ in range(2):
            result = c.batch(bind("", "s") + execute())
            same(result.types[0] + result.types[-2:], "2CZ")
        same(c.batch(close("S", "s")).types, "3Z")
        same(c.batch(close("S", "s") + close("P", "nobody")).types, "33Z")


@ours
def test_commands_work(t):
    with t.pooler().console() as console:
        result = console.client.batch(parse("", "reload") + bind() + describe("P") + execute())
        same((result.types, result.tags), ("12nCZ", ["RELOAD"]))
        result = console.client.batch(parse("", "set pool_mode = statement") + bind() + execute())
        same(result.tags, ["SET pool_mode=statement"])
        result = console.client.batch(parse("", "show help") + describe("S") + bind() + execute())
        same(result.types, "1tn2NCZ")


@ours
def test_empty_text_is_an_empty_query(t):
    with t.pooler().console() as console:
        for nothing in ("", " ", ";"):
            result = console.client.batch(parse("", nothing) + bind() + describe("P") + execute())
            same(result.types, "12nIZ")


@ours
def test_a_batch_of_commands_is_answered_in_order(t):
    with t.pooler().console() as console:
        c = console.client
        data = b"".join(parse("", f"show {name}") + bind() + execute()
                        for name in ("version", "pools", "state", "lists"))
        c.send(data + sync() + query("show version") + parse("", "reload") + bind() + execute() + sync())
        first = c.results()
        same((first.types, first.tags), ("12DC12" + "D" * 1 + "C12DDDC12" + "D" * 14 + "CZ", ["SHOW"] * 4))
        same(c.results().types, "TNDCZ")  # the TLS library is named in a notice
        same(c.results().types, "12CZ")


@ours
def test_pieces_of_any_size(t):
    with t.pooler().console() as console:
        c = console.client
        data = parse("s", "show version") + describe("S", "s") + bind("p", "s") + execute("p") + sync()
        for size in (1, 2, 3, 7):
            c.send_split(data + close("S", "s") + sync(), size)
            same((c.results().types, c.results().types), ("1tT2DCZ", "3Z"))


@ours
def test_flush_brings_what_is_there(t):
    with t.pooler().console() as console:
        c = console.client
        c.send(parse("", "show pools") + flush())
        same(c.receive().type, "1")
        c.send(bind() + describe("P") + flush())
        same([c.receive().type, c.receive().type], ["2", "T"])
        c.send(execute() + flush())
        same([m.type for m in c.until("C")], ["D", "C"])
        c.send(sync())
        same(c.results().types, "Z")


# ---- errors -------------------------------------------------------------------------------------

@ours
def test_errors_skip_to_sync(t):
    with t.pooler().console() as console:
        c = console.client
        c.send(parse("", "nonsense") + bind() + execute() + query("show version") + sync() +
               query("show version"))
        result = c.results()
        same(result.types, "EZ")
        matches("invalid command 'nonsense'", result.errors[0].text)
        same(c.results().tags, ["SHOW"])
        same(c.batch(parse("", "show fds") + bind() + execute()).types[-2:], "CZ")


@ours
def test_rights_are_those_of_the_simple_protocol(t):
    pooler = t.pooler()
    with pooler.console(user="stats") as console:
        for command in ("show fds", "pause", "set pool_mode = session", "shutdown"):
            result = console.client.batch(parse("", command) + bind() + execute() + execute())
            same((result.types, result.errors[0].text), ("12EZ", "admin access needed"))
        same(console.do("show version"), "SHOW")


def error_of(result):
    return result.errors[0].sqlstate, result.errors[0].text


@ours
def test_names_that_are_unknown_or_taken(t):
    with t.pooler().console() as console:
        c = console.client
        same(error_of(c.batch(bind("", "s"))), ("26000", 'prepared statement "s" does not exist'))
        same(error_of(c.batch(bind())), ("26000", "unnamed prepared statement does not exist"))
        same(error_of(c.batch(describe("S", "s"))), ("26000", 'prepared statement "s" does not exist'))
        same(error_of(c.batch(describe("P", "p"))), ("34000", 'portal "p" does not exist'))
        same(error_of(c.batch(execute())), ("34000", 'portal "" does not exist'))
        same(c.batch(parse("s", "show version")).types, "1Z")
        same(error_of(c.batch(parse("s", "show version"))),
             ("42P05", 'prepared statement "s" already exists'))
        same(error_of(c.batch(bind("p", "s") + bind("p", "s"))), ("42P03", 'cursor "p" already exists'))
        same(c.batch(parse("", "show version") + parse("", "show state") + bind() + bind() +
                     execute()).types, "1122DDDCZ")
        # as in PostgreSQL, a simple query ends the unnamed statement, Sync the portals
        same(c.batch(bind("p", "s")).types, "2Z")
        same(error_of(c.batch(execute("p"))), ("34000", 'portal "p" does not exist'))
        c.query("show version")
        same(error_of(c.batch(bind())), ("26000", "unnamed prepared statement does not exist"))
        same(c.batch(bind("", "s") + execute()).types, "2DCZ")


@ours
def test_a_portal_runs_once(t):
    with t.pooler().console() as console:
        c = console.client
        result = c.batch(parse("", "reload") + bind() + execute() + execute())
        same((result.types, error_of(result)), ("12CEZ", ("55000", 'portal "" cannot be run')))
        result = c.batch(parse("", "show version") + bind() + execute() + execute())
        same(result.types, "12DCCZ")


@ours
def test_parameters_are_refused(t):
    with t.pooler().console() as console:
        c = console.client
        result = c.batch(parse("", "show version", oids=(25, 23)) + bind(values=("x", None)) + execute())
        same((result.types, error_of(result)),
             ("1EZ", ("08P01", "bind message supplies 2 parameters, but prepared statement \"\" requires 0")))
        matches(r"invalid command 'pause \$1'", error_of(c.batch(parse("", "pause $1")))[1])
        same(console.do("show version"), "SHOW")


@ours
def test_broken_messages_end_the_session_only(t):
    pooler = t.pooler()
    with pooler.console() as other:
        for type_, name, bodies in (
                ("P", "Parse", (b"", b"s", b"s\0show version", b"s\0show version\0", b"s\0show version\0\0\1", b"\0\0\0\0x")),
                ("B", "Bind", (b"", b"\0s\0", b"\0s\0\0\1", b"\0s\0\0\0\0\1\0\0\0\5abc\0\0",
                               b"\0s\0\0\0\0\1\xff\xff\xff\xfe\0\0", b"\0s\0\0\0\0\0\0\1", b"\0s\0\0\0\0\0\0\0x")),
                ("D", "Describe", (b"", b"S", b"Ss", b"X\0", b"S\0x")),
                ("C", "Close", (b"", b"P", b"Q\0")),
                ("E", "Execute", (b"", b"\0", b"\0\0\0\0", b"\0\0\0\0\0x"))):
            for body in bodies:
                with pooler.console() as console:
                    console.client.send(message(type_, body) + sync())
                    error = console.client.fatal()
                    same((error.severity, error.sqlstate, error.text),
                         ("FATAL", "08P01", f"broken {name} packet"), repr(body))
        same(other.do("show version"), "SHOW")


@ours
def test_limits_of_names_and_statements(t):
    pooler = t.pooler()
    with pooler.console() as console:
        c = console.client
        same(c.batch(parse("n" * 63, "show version") + bind("p" * 63, "n" * 63) + execute("p" * 63)).types,
             "12DCZ")
        same(error_of(c.batch(parse("n" * 64, "show version")))[0], "42622")
        same(error_of(c.batch(bind("", "n" * 3000)))[0], "26000")
        for number in range(255):
            same(c.batch(parse(f"s{number}", "show version")).types, "1Z")
        same(error_of(c.batch(parse("more", "show version"))),
             ("53400", "too many prepared statements and portals on the admin console"))
        same(c.batch(close("S", "s0") + parse("more", "show version")).types, "31Z")
        same(console.do("show version"), "SHOW")


# ---- formats and portals in pieces --------------------------------------------------------------

SHOWS = ("version", "state", "config", "databases", "lists", "users", "pools", "clients", "servers", "sockets",
         "stats", "stats_totals", "stats_averages", "totals", "mem", "timezone", "shards", "sharing", "sharing_policy", "sharing_classes")


@ours
def test_binary_values_are_those_of_the_text(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as worker, pooler.console() as console:
        for number in range(120):
            worker.value(f"select repeat('x', {number * 100})")
        c = console.client
        for name in SHOWS:
            plain = c.batch(parse("", f"show {name}") + bind() + describe("P") + execute())
            binary = c.batch(bind_formats((1,)) + describe("P") + execute())
            same((set(formats_of(plain)), set(formats_of(binary))), ({0}, {1}), name)
            same(plain.columns, binary.columns)
            oids = [oid for _, oid in plain.columns]
            # of the console's own session times and buffered bytes go on
            moving = {"request_time", "connect_time", "wait_us", "send_avail", "pkt_avail"}
            for row, raw in zip(plain.rows, raw_rows(binary), strict=True):
                for (column, oid), value, other in zip(plain.columns, row, raw):
                    if column not in moving and not (name == "mem" and column in ("used", "free", "memtotal")):
                        same(from_binary(other, oid), value, f"{name} {column}")
            assert set(oids) <= {INT4, INT8, TEXT, FLOAT8, NUMERIC}


@ours
def test_large_numbers_in_binary(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as worker, pooler.console() as console:
        worker.query("select repeat('x', 12000000)")  # total_sent: more than three digits of base 10,000
        c = console.client
        for _ in range(2):
            plain = c.batch(parse("", "show stats") + bind() + execute())
            binary = c.batch(bind_formats((1,)) + execute())
            sent = next(row[6 - 1] for row in plain.rows if row[0] == "app")
            assert int(sent) > 12000000
            row = next(row for row in raw_rows(binary) if row[0] == b"app")
            same(from_binary(row[5], NUMERIC), sent)


@ours
def test_formats_for_each_column(t):
    with t.pooler().console() as console:
        c = console.client
        same(c.batch(parse("s", "show lists")).types, "1Z")
        result = c.batch(bind_formats((0, 1), statement="s") + describe("P") + execute())
        same(formats_of(result), [0, 1])
        same(raw_rows(result)[0], [b"databases", struct.pack("!i", 3)])
        result = c.batch(bind_formats((1, 0), statement="s") + describe("P") + execute())
        same((formats_of(result), raw_rows(result)[0]), ([1, 0], [b"databases", b"3"]))
        same(error_of(c.batch(bind_formats((1, 0, 1), statement="s"))),
             ("08P01", "bind message has 3 result formats but query has 2 columns"))
        same(error_of(c.batch(bind_formats((2,), statement="s"))), ("22023", "unsupported format code: 2"))
        same(c.batch(parse("wide", "show sharing")).types, "1Z")
        result = c.batch(bind_formats([0] * 32 + [1], statement="wide") + describe("P") + execute())
        same(formats_of(result), [0] * 32 + [1], "the row of most columns")
        same(c.batch(parse("", "reload") + bind_formats((1,)) + execute()).types, "12CZ")
        same(c.query("show lists").rows[0], ("databases", "3"), "the simple protocol is text again")


@ours
def test_rows_in_pieces(t):
    with t.pooler().console() as console:
        c = console.client
        whole = c.query("show lists").rows
        same(len(whole), 14)
        result = c.batch(parse("", "show lists") + bind() + execute("", 5) + execute("", 5) + execute("", 0) +
                         execute("", 5))
        same(result.types, "12" + "D" * 5 + "s" + "D" * 5 + "s" + "D" * 4 + "CCZ")
        same(([row[0] for row in result.rows], result.tags), ([row[0] for row in whole], ["SHOW", "SHOW"]))
        result = c.batch(bind() + execute("", 14))
        same(result.types, "2" + "D" * 14 + "CZ")
        result = c.batch(bind() + execute("", 1) + parse("", "show version") + bind("q") + execute("q", 1) +
                         execute("", 1))
        same(result.types, "2Ds12DCDsZ")
        same(c.batch(bind()).types, "2Z")


@ours
def test_rows_in_pieces_go_out_one_by_one(t):
    with t.pooler().console() as console:
        c = console.client
        c.send(parse("", "show config") + bind() + execute("", 1) + flush())
        same([m.type for m in c.until("s")], ["1", "2", "D", "s"])
        seen = 1
        while True:
            c.send(execute("", 10) + flush())
            found = [m.type for m in c.until("sC")]
            seen += found.count("D")
            if found[-1] == "C":
                break
            same(found, ["D"] * 10 + ["s"])
        c.send(sync())
        same(c.results().types, "Z")
        same(seen, len(c.query("show config").rows))


@ours
def test_rows_that_come_one_after_the_other_wait_for_the_limit(t):
    """SHOW SOCKETS asks the workers three times, and could send what it has in between."""
    pooler = t.pooler(pool_mode="transaction")
    clients = [pooler.connect() for _ in range(20)]
    for c in clients:
        c.query("begin")
    with pooler.console() as console:
        for limit in (1, 5, 30):
            for _ in range(10):
                result = console.client.batch(parse("", "show sockets") + bind() + execute("", limit) + execute("", 0))
                same(result.types, "12" + "D" * limit + "s" + "D" * (41 - limit) + "CZ")
                same(len({row[20] for row in result.rows}), 41)


@ours
def test_sessions_that_leave_in_the_middle_harm_nobody(t):
    pooler = t.pooler(pool_mode="transaction")
    with pooler.connect() as holder, pooler.console() as other:
        holder.query("begin")
        for leave in ("terminate", "vanish", "reset"):
            for data in (parse("s", "show config") + bind("", "s") + execute("", 1),
                         parse("", "show pools") + bind() + execute() + flush(),
                         parse("", "show version")):
                with pooler.console() as console:
                    console.client.send(data)
                    if leave == "terminate":
                        console.client.send(flush())
                        console.client.until("1")
                    getattr(console.client, leave)()
        console = pooler.console()
        console.client.send(parse("", "pause") + bind() + execute() + sync())
        pooler.wait_log("PAUSE command issued")
        console.client.reset()
        same(other.do("show version"), "SHOW")
        same(other.do("resume"), "RESUME")


@ours
def test_pqexec_is_forbidden_to_the_console_too_and_the_extended_protocol_is_not(t):
    pooler = t.pooler(disable_pqexec=1)
    with pooler.connect("admin", "pgbouncer") as c:
        same(c.batch(pgwire.extended("show version")).tags, ["SHOW"])
        c.send(query("show version"))
        same(c.fatal().text, "PQexec disallowed")


@ours
def test_jdbcs_extra_float_digits_is_no_obstacle(t):
    pooler = t.pooler()
    c = pgwire.connect(pooler.port, "admin", "pgbouncer", extra_float_digits="2", application_name="jdbc")
    with c:
        for setting in ("extra_float_digits = 3", "application_name = 'PostgreSQL JDBC Driver'"):
            result = c.query(f"SET {setting}")
            same((result.types, result.notices[0]["M"]), ("NCZ", "SET ignored"))
        row = next(dict(zip([n for n, _ in r.columns], r.rows[0])) for r in [c.query("show clients")])
        same((row["application_name"], row["state"], row["local_port"]), ("jdbc", "active", str(pooler.port)))
    for database in ("app", "missing"):
        try:
            pgwire.connect(pooler.port, "app", database, extra_float_digits="2")
            raise AssertionError("a client of a database got in")
        except pgwire.PgError as error:
            same(error.text, "unsupported startup parameter: extra_float_digits")
    pooler.wait_log("unsupported startup parameter: extra_float_digits=2")
