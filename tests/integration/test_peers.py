"""Several processes as one cluster: a cancel request reaches the right one wherever it arrives.

Marked @ours as a whole: Debian's PgBouncer is too old for peers. The bytes on the wire are checked by
hand here, since they are what a newer PgBouncer in the same cluster sees."""

import contextlib
import os
import socket
import struct
import threading
import time

import pgwire
from harness import covers, eventually, free_port, ours, reload_shows_nothing, same, slow
from pgwire import query
from test_cancel import SLEEP, running

CANCEL = struct.pack("!II", 16, pgwire.CANCEL_REQUEST)


def workers(count):
    return f"[pgsplice]\nworker_threads = {count}\n"


def free_ports(t, count):
    """Different ones, which nobody has yet."""
    ports = set()
    while len(ports) < count:
        ports.add(free_port(t.slot))
    return list(ports)


def cluster(t, count, threads=1, **settings):
    """Processes 1 to `count`, each of which knows all of them."""
    ports = free_ports(t, count)
    peers = {i + 1: f"host=127.0.0.1 port={port}" for i, port in enumerate(ports)}
    settings.setdefault("pool_mode", "transaction")
    return [t.pooler(listen_port=port, peer_id=i + 1, peers=peers, extra=workers(threads), **settings)
            for i, port in enumerate(ports)]


def raw_key(client):
    return struct.pack("!I", client.key[0]) + client.key[1]


def foreign_key(number, hops=3):
    """A key of a peer, that nobody has."""
    key = bytearray(os.urandom(8))
    key[0] &= 0x7F
    key[1], key[2] = number & 0xFF, number >> 8
    key[7] = key[7] & 0xFC | hops
    return bytes(key)


def send_raw(port, key, host="127.0.0.1", wait=True, timeout=5):
    with pgwire.Client(port, host, timeout=timeout) as client:
        client.send(CANCEL + key)
        return client.closed() if wait else None


class FakePeer:
    """Listens as another process of the cluster and keeps what it is sent. Answers (closes) when the gate is
    open."""

    def __init__(self, listener, is_open=True):
        self.listener = listener
        self.gate = threading.Event()
        if is_open:
            self.gate.set()
        self.requests = []
        self.open_count = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                taken, _ = self.listener.accept()
            except OSError:
                return
            self.open_count += 1
            threading.Thread(target=self._serve, args=(taken,), daemon=True).start()

    def _serve(self, taken):
        with taken:
            data = b""
            while len(data) < 16:
                more = taken.recv(100)
                if not more:
                    return
                data += more
            self.requests.append(data)
            self.gate.wait(30)

    def keys(self):
        return [data[8:] for data in self.requests]


def fake_peer(t, is_open=True):
    port = free_port(t.slot)
    fake = FakePeer(socket.create_server(("127.0.0.1", port)), is_open)
    fake.port = port
    return fake


def pooler_with(t, entries, threads=1, peer_id=1, **settings):
    settings.setdefault("pool_mode", "transaction")
    return t.pooler(peer_id=peer_id, peers=entries, extra=workers(threads), **settings)


def peer_pool(pooler, number):
    with pooler.console() as console:
        return next({key: int(value) for key, value in row.items()}
                    for row in console.table("show peer_pools") if row["peer_id"] == str(number))


def wait_peer_pool(pooler, number, **wanted):
    eventually(lambda: wanted.items() <= peer_pool(pooler, number).items(), f"peer pool {wanted}")


def cancels(t, client, port, **rest):
    """A request that is sent to `port` ends the client's query."""
    client.send(query(SLEEP))
    running(t)
    same(pgwire.cancel(port, client.key, **rest), [])
    same(client.results().errors[0].sqlstate, "57014")
    same(client.value("select 1"), "1")


# ---- from one to another ------------------------------------------------------------------------

@ours
def test_cancel_works_from_each_of_three_processes_to_each(t):
    poolers = cluster(t, 3)
    for owner in poolers:
        with owner.connect() as c:
            for other in poolers:
                cancels(t, c, other.port)


@ours
def test_cancel_works_between_processes_of_several_workers(t):
    poolers = cluster(t, 2, threads=4)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(poolers[i % 2].connect()) for i in range(6)]
        for i, c in enumerate(clients):
            cancels(t, c, poolers[(i + 1) % 2].port)


@ours
def test_cancel_works_with_so_reuseport_whoever_accepts_it(t):
    port = free_port(t.slot)
    folders = {}
    poolers = []
    for number in (1, 2, 3):
        folders[number] = os.path.join(t.folder, f"node{number}")
    peers = {number: f"host={folder} port={port}" for number, folder in folders.items()}
    for number in (1, 2, 3):
        poolers.append(t.pooler(name=f"node{number}", listen_port=port, so_reuseport=1,
                                peer_id=number, pool_mode="transaction", peers=peers,
                                extra=workers(1)))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(poolers[0].connect()) for _ in range(12)]
        assert len({c.key[0] >> 16 & 0xFF for c in clients}) > 1, "all by one process"
        for c in clients:
            cancels(t, c, port)


@ours
def test_key_names_its_process_and_has_three_hops(t):
    pooler = pooler_with(t, {}, peer_id=0x1234)
    with pooler.connect() as c, pooler.console() as console:
        for key in (raw_key(c), raw_key(console.client)):
            same((key[0] & 0x80, key[1], key[2], key[7] & 3), (0, 0x34, 0x12, 3))


@covers("settings", "peer_id")
@covers("peer_options", "port")
@ours
def test_foreign_request_goes_on_with_one_hop_less(t):
    fake = fake_peer(t)
    pooler = pooler_with(t, {258: f"host=127.0.0.1 port={fake.port}"}, threads=2)
    for hops in (3, 2, 1):
        key = foreign_key(258, hops)
        same(send_raw(pooler.port, key), [])
        same(fake.requests.pop(), CANCEL + key[:7] + bytes([key[7] & 0xFC | hops - 1]))
    same(send_raw(pooler.port, foreign_key(258, 0)), [])
    pooler.wait_log("closing because: failed to forward cancel request because its TTL was exhausted")
    same(fake.requests, [])


@ours
def test_request_that_a_peer_sent_on_is_ours(t):
    # as it comes from another process: with fewer hops left than the client's key has
    pooler = pooler_with(t, {}, threads=2)
    with pooler.connect() as c:
        for hops in (2, 1, 0):
            c.send(query(SLEEP))
            running(t)
            key = raw_key(c)
            send_raw(pooler.port, key[:7] + bytes([key[7] & 0xFC | hops]))
            same(c.results().errors[0].sqlstate, "57014")


@ours
def test_loops_end_after_three_hops(t):
    # each of the two takes the other for number 9
    ports = free_ports(t, 2)
    poolers = [t.pooler(listen_port=ports[i], peer_id=i + 1,
                        peers={9: f"host=127.0.0.1 port={ports[1 - i]}"}) for i in range(2)]
    same(send_raw(ports[0], foreign_key(9)), [])
    logs = lambda what: sum(pooler.log().count(what) for pooler in poolers)
    eventually(lambda: logs("closing because: failed to forward cancel request because its TTL was "
                            "exhausted") == 1, "one end")
    eventually(lambda: logs("closing because: successfully sent cancel request") == 3, "three hops")


@ours
def test_unknown_peers_and_our_own_entry_get_nothing(t):
    fake = fake_peer(t)
    pooler = pooler_with(t, {1: f"host=127.0.0.1 port={fake.port}",
                             2: f"host=127.0.0.1 port={fake.port}"})
    same(send_raw(pooler.port, foreign_key(3)), [])
    pooler.wait_log("closing because: could not find peer to forward request to")
    same(send_raw(pooler.port, foreign_key(1)), [])
    pooler.usable()
    same(fake.requests, [])


@ours
def test_without_a_peer_id_nothing_is_sent_on(t):
    fake = fake_peer(t)
    pooler = pooler_with(t, {2: f"host=127.0.0.1 port={fake.port}"}, peer_id=0)
    pooler.wait_log(r"\[peers\] has no effect without peer_id")
    same(send_raw(pooler.port, foreign_key(2)), [])
    same(fake.requests, [])


@ours
def test_request_is_carried_on_though_its_sender_hangs_up(t):
    fake = fake_peer(t, is_open=False)
    pooler = pooler_with(t, {2: f"host=127.0.0.1 port={fake.port} pool_size=1"}, threads=3)
    for _ in range(3):
        send_raw(pooler.port, foreign_key(2), wait=False)
    wait_peer_pool(pooler, 2, cl_active_cancel_req=1, cl_waiting_cancel_req=2)
    fake.gate.set()
    eventually(lambda: len(fake.requests) == 3, "all three arrive")


@ours
def test_cancel_of_a_console_session_reaches_it_through_a_peer(t):
    one, other = cluster(t, 2, threads=2)
    with one.connect() as busy, one.console() as console:
        busy.query("begin")
        console.client.send(query("pause"))
        eventually(lambda: "PAUSE command issued" in one.log(), "PAUSE is in the log")
        assert console.client.silent_for(0.1)
        same(pgwire.cancel(other.port, console.client.key), [])
        with one.connect() as c:
            same(c.value("select 1"), "1")
        busy.query("commit")


# ---- where a peer is ----------------------------------------------------------------------------

@covers("peer_options", "host")
@reload_shows_nothing  # an entry without a host is a mistake
@ours
def test_peer_is_found_by_name_and_by_directory(t):
    # the name has ::1, too, where nobody listens
    fake = fake_peer(t)
    folder = os.path.join(t.folder, "sockets")
    os.makedirs(folder)
    os.chmod(folder, 0o777)
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(f"{folder}/.s.PGSQL.7777")
    os.chmod(f"{folder}/.s.PGSQL.7777", 0o777)
    unix.listen()
    by_directory = FakePeer(unix)
    abstract = socket.socket(socket.AF_UNIX)
    name = f"peers{os.getpid()}"
    abstract.bind(f"\0{name}/.s.PGSQL.7778")
    abstract.listen()
    by_abstract = FakePeer(abstract)
    pooler = pooler_with(t, {2: f"host=localhost port={fake.port}", 3: f"host={folder} port=7777",
                             4: f"host=@{name} port=7778"}, threads=2)
    for _ in range(3):
        for number, peer in ((2, fake), (3, by_directory), (4, by_abstract)):
            same(send_raw(pooler.port, foreign_key(number)), [])
            same(len(peer.requests), 1, f"peer {number}")
            peer.requests.clear()


@ours
def test_peer_whose_name_is_unknown_holds_nobody(t):
    pooler = pooler_with(t, {2: "host=no-such-host.invalid"})
    for _ in range(3):
        same(send_raw(pooler.port, foreign_key(2)), [])
    pooler.wait_log(r"WARNING peer 2 \(no-such-host.invalid, port 6432\): cannot forward cancel requests")
    same(pooler.log().count("WARNING peer 2"), 1)


@ours
def test_reload_adds_moves_and_removes_peers(t):
    first, second = fake_peer(t), fake_peer(t)
    pooler = pooler_with(t, {}, threads=2)

    def becomes(entries):
        pooler.peers = entries
        pooler.write()
        pooler.reload()

    def arrives():
        first.requests.clear()
        second.requests.clear()
        same(send_raw(pooler.port, foreign_key(2)), [])
        return len(first.requests), len(second.requests)
    same(arrives(), (0, 0))
    becomes({2: f"host=127.0.0.1 port={first.port}"})
    same(arrives(), (1, 0))
    becomes({2: f"host=127.0.0.1 port={second.port}"})
    same(arrives(), (0, 1))
    becomes({3: f"host=127.0.0.1 port={second.port}"})
    same(arrives(), (0, 0))
    becomes({2: f"host=localhost port={second.port}"})
    same(arrives(), (0, 1))
    becomes({2: f"host=localhost port={first.port}"})
    same(arrives(), (1, 0))


@ours
def test_reload_ends_what_waits_for_a_peer_that_is_gone(t):
    fake = fake_peer(t, is_open=False)
    pooler = pooler_with(t, {2: f"host=127.0.0.1 port={fake.port} pool_size=1"})
    with pooler.open() as sent, pooler.open() as waits:
        sent.send(CANCEL + foreign_key(2))
        wait_peer_pool(pooler, 2, cl_active_cancel_req=1)
        waits.send(CANCEL + foreign_key(2))
        wait_peer_pool(pooler, 2, cl_waiting_cancel_req=1)
        pooler.peers = {}
        pooler.write()
        pooler.reload()
        same(waits.closed(), [])
        fake.gate.set()
        same(sent.closed(), [])
    same(len(fake.requests), 1)
    pooler.usable()


@ours
def test_keys_of_before_stay_good_when_peer_id_changes(t):
    fake = fake_peer(t)
    for threads in (1, 3):
        entries = {number: f"host=127.0.0.1 port={fake.port}" for number in (1, 2, 3)}
        pooler = pooler_with(t, entries, threads=threads, peer_id=0)
        clients = [pooler.connect()]
        consoles = [pooler.console()]
        for number in (1, 2):
            pooler.change(peer_id=number)
            clients.append(pooler.connect())
            consoles.append(pooler.console())
        for c in clients:
            cancels(t, c, pooler.port)
        for console in consoles:
            with pooler.connect() as busy:
                busy.query("begin")
                console.client.send(query("pause"))
                assert console.client.silent_for(0.1)
                same(pooler.cancel(console.client.key), [])
                with pooler.connect() as c:
                    same(c.value("select 1"), "1")
                busy.query("commit")
        same(fake.requests, [])
        # and what is not ours goes on all the same
        same(send_raw(pooler.port, foreign_key(1)), [])
        same(send_raw(pooler.port, foreign_key(3)), [])
        same([key[1] for key in fake.keys()], [1, 3])
        fake.requests.clear()


# ---- limits, and peers that do not do their part ------------------------------------------------

@covers("peer_options", "pool_size")
@ours
def test_pool_size_limits_what_is_in_flight_and_the_rest_waits(t):
    fake = fake_peer(t, is_open=False)
    pooler = pooler_with(t, {2: f"host=127.0.0.1 port={fake.port} pool_size=2"}, threads=3)
    with contextlib.ExitStack() as stack:
        senders = [stack.enter_context(pooler.open()) for _ in range(6)]
        for sender in senders:
            sender.send(CANCEL + foreign_key(2))
        wait_peer_pool(pooler, 2, cl_active_cancel_req=2, cl_waiting_cancel_req=4,
                       sv_active_cancel=2, sv_login=0)
        with pooler.console() as console:
            states = sorted(row["state"] for row in console.table("show clients")
                            if row["database"] == "(nodb)")
            same(states, ["active_cancel_req"] * 2 + ["waiting_cancel_req"] * 4)
        eventually(lambda: fake.open_count == 2, "two arrive")
        fake.gate.set()
        for sender in senders:
            same(sender.closed(), [])
    same(len(fake.requests), 6)
    wait_peer_pool(pooler, 2, cl_active_cancel_req=0, cl_waiting_cancel_req=0)


@ours
def test_default_pool_size_holds_for_peers_and_a_reload_raises_it(t):
    fake = fake_peer(t, is_open=False)
    pooler = pooler_with(t, {2: f"host=127.0.0.1 port={fake.port}"}, default_pool_size=1)
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(pooler.open()).send(CANCEL + foreign_key(2))
        wait_peer_pool(pooler, 2, cl_active_cancel_req=1, cl_waiting_cancel_req=3)
        pooler.change(default_pool_size=3)
        wait_peer_pool(pooler, 2, cl_active_cancel_req=3, cl_waiting_cancel_req=1)
        fake.gate.set()


@ours
def test_waiting_for_a_peer_ends_with_cancel_wait_timeout(t):
    fake = fake_peer(t, is_open=False)
    pooler = pooler_with(t, {2: f"host=127.0.0.1 port={fake.port} pool_size=1"},
                         cancel_wait_timeout=0.5)
    with pooler.open() as sent, pooler.open() as waits, pooler.connect() as c:
        started = time.monotonic()
        sent.send(CANCEL + foreign_key(2))
        wait_peer_pool(pooler, 2, cl_active_cancel_req=1)
        waits.send(CANCEL + foreign_key(2))
        same(sent.closed(), [])
        same(waits.closed(), [])
        assert 0.45 <= time.monotonic() - started < 3
        same(c.value("select 1"), "1")
    eventually(lambda: pooler.log().count("closing because: cancel_wait_timeout") == 2, "both say why")
    wait_peer_pool(pooler, 2, cl_active_cancel_req=0, cl_waiting_cancel_req=0)


@ours
def test_peer_that_never_answers_holds_its_place_for_server_connect_timeout_only(t):
    fake = fake_peer(t, is_open=False)
    pooler = pooler_with(t, {2: f"host=127.0.0.1 port={fake.port} pool_size=1"},
                         cancel_wait_timeout=0, server_connect_timeout=0.4)
    with pooler.open() as first, pooler.open() as second:
        first.send(CANCEL + foreign_key(2))
        wait_peer_pool(pooler, 2, cl_active_cancel_req=1)
        second.send(CANCEL + foreign_key(2))
        same(first.closed(), [])
        same(second.closed(), [])
    pooler.wait_log(r"WARNING peer 2 \(.*\): cannot forward cancel requests: no answer")


@ours
def test_dead_peer_holds_nothing_and_is_named_once(t):
    port = free_port(t.slot)
    pooler = pooler_with(t, {2: f"host=127.0.0.1 port={port}"}, threads=2)
    with pooler.connect() as c:
        for _ in range(50):
            same(send_raw(pooler.port, foreign_key(2)), [])
        cancels(t, c, pooler.port)
        eventually(lambda: pooler.log().count("WARNING peer 2") == 1, "said once")
        pooler.wait_log(rf"WARNING peer 2 \(127.0.0.1, port {port}\): cannot forward cancel requests: "
                        "Connection refused")
        fake = FakePeer(socket.create_server(("127.0.0.1", port)))
        same(send_raw(pooler.port, foreign_key(2)), [])
        same(len(fake.requests), 1)
        pooler.wait_log("peer 2: can be reached again")
    wait_peer_pool(pooler, 2, cl_active_cancel_req=0, cl_waiting_cancel_req=0, sv_login=0)


@ours
@slow(60)
def test_many_cancels_at_once_through_a_peer_all_arrive(t):
    one, other = cluster(t, 2, threads=4, default_pool_size=12, max_client_conn=100)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(one.connect()) for _ in range(12)]
        watcher = stack.enter_context(t.postgres.connect(user="postgres", database="postgres"))
        for _ in range(3):
            for c in clients:
                c.send(query(SLEEP))
            eventually(lambda: watcher.query(
                "select 1 from pg_stat_activity where state = 'active' and query like '%sleep%'"
                " and pid <> pg_backend_pid()").tags == ["SELECT 12"], "all of them sleep")
            for c in clients:
                pgwire.cancel(other.port, c.key, wait=False)
            for c in clients:
                same(c.results().errors[0].sqlstate, "57014")


# ---- the console --------------------------------------------------------------------------------

@ours
def test_console_shows_peers(t):
    pooler = pooler_with(t, {1: "host=127.0.0.1", 12: "host=/tmp/b port=7 pool_size=3",
                             7: "host=@a port=8"}, default_pool_size=11)
    with pooler.console() as console:
        same([tuple(row.values()) for row in console.table("show peers")],
             [("1", "127.0.0.1", "6432", "11"), ("7", "@a", "8", "11"), ("12", "/tmp/b", "7", "3")])
        same([tuple(row.values()) for row in console.table("show peer_pools")],
             [("7", "0", "0", "0", "0"), ("12", "0", "0", "0", "0")])
        lists = {row["list"]: row["items"] for row in console.table("show lists")}
        same((lists["peers"], lists["peer_pools"]), ("3", "2"))
