"""What works without TLS works in it, on both sides at once: large and small, many, on several cores."""

import hashlib
import os
import random
import re
import select
import subprocess
import threading

import certificates
import pgwire
from harness import POSTGRES_BIN, eventually, is_sanitized, matches, ours, refused, same, slow
from pgwire import bind, close, copy_data, copy_done, describe, execute, extended, parse, query, sync
from test_cancel import SLEEP, running
from test_isolation import converse
from test_peers import cluster
from test_tls_servers import IS_TLS, Backend
from tls_wire import V1_2, V1_3, Offer, TlsSocket, client_context, server_context

FOUR = "[pgsplice]\nworker_threads = 4\npool_shards = 2\n"


def both_sides(t, certificate="server", **settings):
    """TLS before and behind the pooler."""
    made = certificates.of(t)
    t.postgres.of_one_test(**made.of_postgres())
    pooler = t.pooler(**{"pool_mode": "transaction", **made.of_clients(certificate, sslmode="require"),
                         **made.of_servers(sslmode="verify-full"), **settings})
    pooler.console_host = pooler.folder
    return pooler


def info(t, pooler, **more):
    words = {"host": "localhost", "hostaddr": "127.0.0.1", "port": pooler.port, "user": "app", "dbname": "app",
             "sslmode": "verify-full", "sslrootcert": certificates.of(t).path("ca"), "sslcert": "/none", **more}
    return " ".join(f"{key}={value}" for key, value in words.items())


def psql(t, pooler, sql, seconds=40, **more):
    return t.run_program([f"{POSTGRES_BIN}/psql", "-XAt", "-v", "ON_ERROR_STOP=1", "-d", info(t, pooler, **more)],
                         input=sql, seconds=seconds).stdout


# ---- large --------------------------------------------------------------------------------------

@slow(90)
def test_copy_of_200_megabytes_in_both_directions(t):
    pooler = both_sides(t)
    kilobyte = "md5(n::text) || repeat(md5((n * 7)::text), 31)"  # 1,024 bytes, each row its own
    straight = f"copy (select {kilobyte} from generate_series(1, 200000) n) to stdout"
    path = os.path.join(t.folder, "large")
    psql(t, pooler, f"\\o {path}\n{straight};\n")
    size = os.path.getsize(path)
    same(size, 200000 * 1025)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    wanted = hashlib.md5()
    for n in range(1, 200001):
        wanted.update(f"{hashlib.md5(str(n).encode()).hexdigest()}{hashlib.md5(str(n * 7).encode()).hexdigest() * 31}\n".encode())
    same(digest, wanted.hexdigest())
    psql(t, pooler, f"drop table if exists large; create unlogged table large (line text);\n\\copy large from '{path}'\n")
    same(psql(t, pooler, f"select count(*), count(*) filter (where line = {kilobyte}) from (select line, row_number() over () n from large) x"),
         "200000|200000\n")
    psql(t, pooler, "drop table large")


def test_large_rows_and_large_parameters(t):
    pooler = both_sides(t)
    for version in (V1_2, V1_3):
        with pooler.connect(tls=Offer(client_context(low=version, high=version)), timeout=15) as c:
            for size in (1, 16383, 16384, 16385, 32768, 65536, 1000000, 20000000):
                value = c.value(f"select repeat('y', {size})")
                assert value == "y" * size, (size, len(value))
            value = "z" * 5000000
            result = c.batch(extended("select md5($1), length($1)", [value]))
            same(result.rows, [(hashlib.md5(value.encode()).hexdigest(), "5000000")])


def test_each_length_around_a_records_end(t):
    """Answers whose end is just before, at, and behind the end of a record or buffer."""
    pooler = both_sides(t)
    with pooler.connect(tls=Offer()) as c:
        sizes = [size + d for size in (100, 4096, 8192, 16384, 32768, 49152) for d in range(-40, 41, 3)]
        c.send(b"".join(query(f"select repeat('r', {size})") for size in sizes))
        for size in sizes:
            same(len(c.results(10).value()), size)


def test_slow_reader_stops_only_himself(t):
    pooler = both_sides(t, default_pool_size=2)
    slow_one = pooler.connect(tls=Offer(), receive_bytes=4096, timeout=30)
    slow_one.send(query("select repeat('s', 1000) from generate_series(1, 40000)"))
    before = pooler.memory()
    with pooler.connect(tls=Offer()) as other:
        for i in range(50):
            same(other.value(f"select {i}"), str(i))
        assert pooler.memory() - before < 24 << 20, pooler.memory() - before
    result = slow_one.results(25)
    same(len(result.rows), 40000)
    same(set(result.rows), {("s" * 1000,)})
    slow_one.vanish()


@ours
@slow(60)
def test_many_slow_readers_stop_nobody_else(t):
    """More of them than there are receive buffers. Each gets all of his rows in the end."""
    pooler = both_sides(t, default_pool_size=45, extra="[pgsplice]\nworker_threads = 1\nreceive_buffer_count_max = 128\n")
    readers = [pooler.connect(tls=Offer(), receive_bytes=8192, timeout=30) for _ in range(40)]
    for i, c in enumerate(readers):
        c.send(query(f"select '<{i}>' || repeat('r', 2000) from generate_series(1, 600)"))
    with pooler.connect(tls=Offer(), timeout=10) as other:
        for i in range(20):
            same(other.value(f"select repeat('o', 30000) || {i}"), "o" * 30000 + str(i))
        other.send(query("select length('" + "p" * 2000000 + "')"))
        same(other.results(10).value(), "2000000")
    for i, c in enumerate(readers):
        same(set(c.results(20).rows), {(f"<{i}>" + "r" * 2000,)})
        c.vanish()


@ours
@slow(30)
def test_client_that_only_sends_stops_only_himself(t):
    """Questions without end, and no answer is read: what waits in us is bounded."""
    pooler = both_sides(t, default_pool_size=2, extra="[pgsplice]\nworker_threads = 1\n")
    sender = pooler.connect(tls=Offer(), receive_bytes=4096)
    sender.socket.raw.setblocking(False)
    before, sent, data = pooler.memory(), 0, b""
    wire = query("select repeat('a', 10000)" + " " * 2000)
    while True:
        if not data:
            data = sender.socket.sealed(wire * 5)
        try:
            sent = sender.socket.raw.send(data)
            data = data[sent:]
        except BlockingIOError:
            if sender_is_stopped(sender):
                break
    with pooler.connect(tls=Offer()) as other:
        same(other.value("select 1"), "1")
    assert is_sanitized() or pooler.memory() - before < 8 << 20, pooler.memory() - before
    sender.vanish()


def sender_is_stopped(client):
    """Nothing more is taken for a while."""
    return not select.select([], [client.socket.raw], [], 0.5)[1]


# ---- small, many --------------------------------------------------------------------------------

def test_pipelines_of_the_extended_protocol(t):
    pooler = both_sides(t, default_pool_size=2)
    with pooler.connect(tls=Offer()) as c:
        c.send(b"".join(extended("select $1::int * 2", [i]) + sync() for i in range(500)))
        for i in range(500):
            same(c.results(10).rows, [(str(2 * i),)])
        c.send(b"".join(extended("select $1::int * 3", [i]) for i in range(500)) + sync())
        same(c.results(10).rows, [(str(3 * i),) for i in range(500)])
        c.send(b"".join(query(f"select {i}") for i in range(500)))
        for i in range(500):
            same(c.results(10).value(), str(i))


@ours
def test_prepared_statements_on_any_server(t):
    pooler = both_sides(t, default_pool_size=3)
    clients = [pooler.connect(tls=Offer()) for _ in range(6)]
    for i, c in enumerate(clients):
        same(c.batch(parse("s", f"select $1::int + {i}")).errors, [])
    for c in clients[:3]:
        c.query("begin")  # so that each server is used
    for round_ in range(3):
        for i, c in enumerate(clients[:3] if round_ == 0 else clients):
            same(c.batch(bind("", "s", [100]) + describe("P") + execute()).rows, [(str(100 + i),)])
            if round_ == 0:
                c.query("commit")
    for c in clients:
        same(c.batch(close("S", "s")).errors, [])
        same(c.terminate(), [])


def test_session_mode(t):
    pooler = both_sides(t, pool_mode="session", default_pool_size=3)
    clients = [pooler.connect(tls=Offer()) for _ in range(3)]
    for i, c in enumerate(clients):
        c.query(f"set work_mem = '{100 + i}kB'; create temp table own (n int); insert into own values ({i})")
    for i, c in enumerate(clients):
        same((c.value("show work_mem"), c.value("select n from own"), c.value(IS_TLS)), (f"{100 + i}kB", str(i), "t"))
        c.terminate()
    with pooler.connect(tls=Offer()) as c:
        same(c.value("select to_regclass('own') is null"), "t")


def test_notices_notifications_and_errors(t):
    pooler = both_sides(t, pool_mode="session")
    with pooler.connect(tls=Offer()) as c, pooler.connect(tls=Offer()) as other:
        c.query("listen news")
        other.query("notify news, 'in TLS'")
        c.until("A")
        same(c.notifications[0][1:], ("news", "in TLS"))
        same(c.query("do $$ begin raise notice 'hello'; end $$").notices[0]["M"], "hello")
        with refused("division by zero", "22012"):
            c.query("select 1/0")
        same(c.value("select 1"), "1")


def test_copy_in_that_fails_and_copy_that_is_cut_off(t):
    pooler = both_sides(t, default_pool_size=1)
    with pooler.connect(tls=Offer()) as c:
        c.query("drop table if exists cut_copy; create table cut_copy (n int)")
        c.send(query("copy cut_copy from stdin"))
        same(c.receive().type, "G")
        c.send(copy_data(b"1\nnot a number\n") + copy_done())
        result = c.results()
        same(result.errors[0].sqlstate, "22P02")
    gone = pooler.connect(tls=Offer())
    gone.send(query("copy cut_copy from stdin"))
    same(gone.receive().type, "G")
    gone.send(copy_data(b"1\n2\n" * 30000))
    gone.vanish()
    with pooler.connect(tls=Offer(), timeout=10) as c:
        same(c.value("select count(*) from cut_copy"), "0")


@ours
def test_pgbench_over_tls(t):
    pooler = both_sides(t, default_pool_size=4)
    script = os.path.join(t.folder, "script.sql")
    with open(script, "w") as file:
        file.write("\\set n random(1, 1000000)\nselect :n + 1;\n")
    for mode in ("simple", "extended", "prepared"):
        done = t.run_program([f"{POSTGRES_BIN}/pgbench", "-n", "-M", mode, "-f", script, "-c", "8", "-j", "2", "-t", "100", info(t, pooler)])
        matches("number of transactions actually processed: 800/800", done.stdout)
        matches("number of failed transactions: 0 ", done.stdout)


# ---- cancel -------------------------------------------------------------------------------------

def test_cancel_requests_come_over_tls_and_without(t):
    """libpq before 17 sends them without TLS even where that is required: they are all a client can say then."""
    pooler = both_sides(t)
    with pooler.connect(tls=Offer()) as c:
        for tls in (Offer(), None):
            c.send(query(SLEEP))
            running(t)
            same(pooler.cancel(c.key, tls=tls), [])
            same(c.results().errors[0].sqlstate, "57014")
        pooler.cancel((c.key[0], b"\0\0\0\0"), tls=Offer())
        same(c.value("select 1"), "1")


@ours
def test_cancel_requests_over_direct_tls(t):
    pooler = both_sides(t)
    with pooler.connect(tls=Offer(client_context(alpn=["postgresql"]), direct=True)) as c:
        c.send(query(SLEEP))
        running(t)
        same(pooler.cancel(c.key, tls=Offer(client_context(alpn=["postgresql"]), direct=True)), [])
        same(c.results().errors[0].sqlstate, "57014")


@ours
def test_cancel_requests_go_to_servers_as_their_mode_says(t):
    """In TLS where servers are to be spoken to in it, and never in plain text where that is required."""
    for mode, certificate, wanted in (("disable", "server", "plain"), ("prefer", "server", "TLS"), ("prefer", None, "plain"),
                                      ("verify-full", "server", "TLS")):
        backend, cancels = Backend(t, certificate), []

        def serve(connection):
            code = connection.startup(backend.secure if backend.context else None)
            if code == pgwire.CANCEL_REQUEST:
                cancels.append("TLS" if isinstance(connection.socket, TlsSocket) else "plain")
                return
            connection.send(connection.WELCOME)
            while connection.receive().type != "Q":
                pass
            eventually(lambda: cancels, "the request")
            connection.send(pgwire.error_response(S="ERROR", C="57014", M="canceled") + pgwire.ready())
            connection.receive()
        backend.fake.script = serve
        made = certificates.of(t)
        pooler = t.pooler(pool_mode="transaction", databases={"app": f"host=127.0.0.1 port={backend.port}"},
                          **made.of_servers(sslmode=mode))
        with pooler.connect() as c:
            c.send(query("select what()"))
            with pooler.console() as console:
                console.wait_pool(sv_active=1)
            pooler.cancel(c.key)
            same(c.results().errors[0].sqlstate, "57014")
        same(cancels, [wanted], mode)
        pooler.stop()


@ours
def test_cancel_requests_reach_servers_of_the_rules_before(t):
    """Who is in a long query while TLS is switched off or on, or its host is called otherwise, can still be cancelled."""
    pooler = both_sides(t)
    for change in ({"server_tls_sslmode": "disable"}, {"server_tls_sslmode": "verify-full"}, "elsewhere.invalid"):
        with pooler.connect(tls=Offer()) as c:
            c.send(query(SLEEP))
            running(t)
            if isinstance(change, str):
                pooler.databases["app"] = f"host={change} port={t.postgres.port} dbname=app"
                change = {}
            pooler.change(**change)
            same(pooler.cancel(c.key), [])
            same(c.results().errors[0].sqlstate, "57014")


@ours
@slow(60)
def test_cancel_arrives_though_its_sender_hangs_up_behind_the_handshake(t):
    """tokio-postgres does: its request and its end come while a helper is still at the handshake's last step."""
    pooler = both_sides(t, default_pool_size=12, max_client_conn=13, extra="[pgsplice]\nworker_threads = 4\n")
    clients = [pooler.connect(tls=Offer(), timeout=10) for _ in range(12)]

    def hang_up(c, how):
        one = pgwire.Client(pooler.port, tls=Offer(client_context(low=how[0], high=how[0])))
        one.send(pgwire.cancel_request(*c.key))
        if how[1] == "close_notify":
            one.socket.close_notify()
        (one.reset if how[1] == "reset" else one.vanish)()
    with t.postgres.admin() as watcher:
        for how in ((V1_3, "vanish"), (V1_3, "close_notify"), (V1_2, "vanish"), (V1_3, "tickets")):
            if how[1] == "tickets":  # they come when nobody reads any more, so that the end is a reset
                pooler.change(client_tls_ca_file=None)
            for c in clients:
                c.send(query(SLEEP))
            eventually(lambda: watcher.query("select 1 from pg_stat_activity where state = 'active' and query like '%sleep%'"
                                             " and pid <> pg_backend_pid()").tags == ["SELECT 12"], "all of them sleep")
            for c in clients:
                hang_up(c, how)
            for c in clients:
                same(c.results().errors[0].sqlstate, "57014", how)


@ours
def test_cancel_requests_know_the_host_that_the_server_had(t):
    """The entry has another host by now, which the server's certificate is not for."""
    made = certificates.of(t)
    t.postgres.of_one_test(**made.of_postgres("localhost"))
    here = t.postgres.address("app")
    pooler = t.pooler(pool_mode="transaction", databases={"app": re.sub(r"host=\S+", "host=localhost", here)},
                      **made.of_clients("server", sslmode="require"), **made.of_servers(sslmode="verify-full"))
    pooler.console_host = pooler.folder
    with pooler.connect(tls=Offer()) as c:
        c.send(query(SLEEP))
        running(t)
        pooler.databases["app"] = re.sub(r"host=\S+", "host=127.0.0.1", here)
        pooler.change()
        same(pooler.cancel(c.key), [])
        same(c.results().errors[0].sqlstate, "57014")


@ours
def test_cancel_request_is_not_given_to_a_server_that_is_not_believed(t):
    for other in ("elsewhere", None):
        check_other_server(t, other)


def check_other_server(t, other):
    """It has this certificate, or no TLS, when the request comes."""
    backend, codes = Backend(t, "server"), []
    made = certificates.of(t)

    def serve(connection):
        codes.append(connection.startup(backend.secure if backend.context else None))
        connection.send(connection.WELCOME)
        while connection.receive().type != "Q":
            pass
        again.wait(5)
        connection.send(pgwire.message("C", b"SELECT 0\0") + pgwire.ready())
        connection.receive()
    again = threading.Event()
    backend.fake.script = serve
    pooler = t.pooler(pool_mode="transaction", databases={"app": f"host=127.0.0.1 port={backend.port}"}, cancel_wait_timeout=2,
                      **made.of_servers(sslmode="verify-full"))
    with pooler.connect(timeout=10) as c:
        c.send(query("select what()"))
        with pooler.console() as console:
            console.wait_pool(sv_active=1)
        backend.context = other and server_context(made.path(other), made.key(other))
        pooler.cancel(c.key)
        pooler.wait_log("failed to send cancel request")
        again.set()
        same(c.results().tags, ["SELECT 0"])
    same(codes, [pgwire.PROTOCOL_3_0])


def test_psql_is_cancelled_by_ctrl_c(t):
    pooler = both_sides(t)
    process = subprocess.Popen([f"{POSTGRES_BIN}/psql", "-XAtd", info(t, pooler), "-c", SLEEP], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    running(t)
    process.send_signal(2)
    matches("canceling statement due to user request", process.communicate(timeout=10)[1])


@ours
def test_cancel_requests_find_their_process_in_a_cluster(t):
    """Clients of both processes have to use TLS; a request comes in TLS to the one that has not got its client."""
    made = certificates.of(t)
    first, second = cluster(t, 2, **made.of_clients("server", sslmode="require"))
    for has, gets in ((first, second), (second, first)):
        with has.connect(tls=Offer()) as c:
            c.send(query(SLEEP))
            running(t)
            same(gets.cancel(c.key, tls=Offer()), [])
            same(c.results().errors[0].sqlstate, "57014")


# ---- replication --------------------------------------------------------------------------------

@ours
def test_replication_over_tls(t):
    pooler = both_sides(t)
    with pooler.connect(tls=Offer(), replication="database") as c:
        row = c.query("IDENTIFY_SYSTEM").rows[0]
        same(row[3], "app")
    pooler.wait_log(r"login attempt: db=app user=app tls=TLSv1\.3/\S+ replication=database")
    path = os.path.join(t.folder, "changes")
    with t.postgres.admin() as admin:
        admin.query("select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = 'in_tls'")
    tool = [f"{POSTGRES_BIN}/pg_recvlogical", "-d", info(t, pooler), "-S", "in_tls"]
    t.run_program([*tool, "-P", "test_decoding", "--create-slot"])
    try:
        with t.postgres.connect() as c:
            c.query("drop table if exists changes; create table changes (n int, filling text)")
            c.query("insert into changes select n, repeat('f', 3000) from generate_series(1, 1000) n")
            end = c.value("select pg_current_wal_insert_lsn()")
        t.run_program([*tool, "--start", "-f", path, "-E", end, "-o", "skip-empty-xacts=1"], seconds=20)
        with open(path) as file:
            found = re.findall(r"n\[integer\]:(\d+) filling\[text\]:'(f+)'", file.read())
        same((len(found), [(int(n), len(f)) for n, f in found] == [(n, 3000) for n in range(1, 1001)]), (1000, True))
    finally:
        with t.postgres.admin() as admin:
            admin.query("select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = 'in_tls'")


# ---- several cores ------------------------------------------------------------------------------

@ours
def test_clients_are_handed_to_other_cores_with_their_tls(t):
    """A session begins on the core that accepted it and goes to the one of its pool's shard; bytes that came with the login's
    end go along."""
    pooler = both_sides(t, default_pool_size=8, extra=FOUR)
    for version in (V1_2, V1_3):
        offer = Offer(client_context(low=version, high=version))
        clients = []
        for i in range(16):
            c = pooler.open(tls=offer)
            # The first queries come right behind the startup packet, in its record and in one of their own.
            c.send(pgwire.startup({"user": "app", "database": "app"}) + query(f"select {i}"))
            c.send(query(f"select {i} + 1000"))
            clients.append(c)
        for i, c in enumerate(clients):
            c.authenticate("app", None)
            same((c.results().value(), c.results().value()), (str(i), str(i + 1000)))
            same(c.value("select repeat('h', 50000) || '!'"), "h" * 50000 + "!")
        with pooler.console() as console:
            shards = [row for row in console.table("show shards") if row["database"] == "app"]
            assert len(shards) == 2, shards
        for c in clients:
            same(c.terminate(), [])
            same(c.socket.end, "close_notify")


@ours
def test_servers_in_tls_are_lent_between_cores(t):
    pooler = both_sides(t, default_pool_size=2, extra="[pgsplice]\nworker_threads = 2\npool_shards = 2\n")
    clients = [pooler.connect(tls=Offer(), timeout=10) for _ in range(8)]
    for round_ in range(10):
        for i, c in enumerate(clients):
            same(c.value(f"select {i} + {round_} from pg_stat_ssl where ssl and pid = pg_backend_pid()"), str(i + round_))
    for c in clients:
        c.send(query("select 'together' from pg_sleep(0.01)"))
    for c in clients:
        same(c.results().value(), "together")
    with pooler.console() as console:
        lent = sum(int(row["lent"]) for row in console.table("show shards") if row["database"] == "app")
        assert lent > 0, lent
        assert len(t.postgres.backends()) <= 2


# ---- nobody sees another's bytes ----------------------------------------------------------------

class MixedPooler:
    """Clients in TLS of both versions and without, in turn."""

    def __init__(self, pooler):
        self.pooler, self.count = pooler, 0

    def connect(self, **more):
        self.count += 1
        tls = (Offer(client_context(low=V1_2, high=V1_2)), Offer(client_context(low=V1_3)), None)[self.count % 3]
        return self.pooler.connect(tls=tls, **more)


@ours
@slow(40)
def test_isolation_in_tls_with_few_servers(t):
    pooler = both_sides(t, default_pool_size=2, client_tls_sslmode="allow", extra=FOUR)
    assert converse(MixedPooler(pooler), 20, 3, 11) > 100


@ours
@slow(40)
def test_isolation_in_tls_while_clients_vanish(t):
    pooler = both_sides(t, default_pool_size=4, client_tls_sslmode="allow", max_client_conn=500, extra=FOUR)
    assert converse(MixedPooler(pooler), 12, 3, 12, abandon=True) > 50
    pooler.usable()


@ours
@slow(40)
def test_many_tagged_clients_get_their_own_bytes(t):
    """Each of them checks every byte of answers that only he can get."""
    pooler = both_sides(t, default_pool_size=5, extra=FOUR)
    problems, done = [], [0]

    def talk(tag):
        chance = random.Random(tag)
        try:
            with pooler.connect(tls=Offer(), timeout=20) as c:
                for _ in range(25):
                    size = chance.choice((1, 50, 500, 5000, 16384, 40000))
                    want = (f"<{tag}>" * size)[:size]
                    got = c.value(f"select left(repeat('<{tag}>', {size}), {size})")
                    if got != want:
                        problems.append((tag, size, got[:100]))
                    done[0] += 1
        except Exception as problem:
            problems.append((tag, repr(problem)))
    threads = [threading.Thread(target=talk, args=(tag,)) for tag in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(problems, [])
    same(done[0], 24 * 25)


# ---- other ways to stop -------------------------------------------------------------------------

def test_pause_suspend_and_shutdown_with_tls_clients(t):
    pooler = both_sides(t, default_pool_size=2)
    with pooler.connect(tls=Offer(), timeout=10) as c, pooler.console() as console:
        for stop, go in (("pause", "resume"), ("suspend", "resume")):
            same(console.do(stop), stop.upper())
            c.send(query("select 'waited'"))
            same(console.do(go), go.upper())
            same(c.results().value(), "waited")
        # A handshake that begins while everything is suspended is done afterwards.
        same(console.do("suspend"), "SUSPEND")
        late = pooler.open(timeout=10)
        late.send(pgwire.ssl_request())
        same(console.do("resume"), "RESUME")
        same(late.raw(1), b"S")
        late.socket = TlsSocket(late.socket, client_context()).handshake()
        late.login()
        same(late.value("select 1"), "1")
        late.vanish()
        c.query("begin")
        pooler.signal(2)
        same(c.value("select 'still'"), "still")
        c.send(query("commit"))
        c.until("Z")
        c.closed()
    same(pooler.wait_exit(5), 0)


def test_idle_timeout_and_kill_are_told_in_tls(t):
    pooler = both_sides(t, client_idle_timeout=1)
    with pooler.connect(tls=Offer()) as c:
        same(c.value("select 1"), "1")
        same(c.fatal(6).text, "client_idle_timeout")
        same(c.socket.end, "close_notify")
