"""Where servers are: names and their addresses, lists of hosts, sockets."""

import os
import re
import socket
import threading
import time

import pgwire
from harness import FakeConnection, covers, eventually, free_port, matches, ours, refused, same, slow
from name_server import NameServer

FOUR, SIX = "127.0.0.1", "::1"
BRISK = "[pgsplice]\nserver_login_retry_max = 0\n"
ADDRESS = "select host(inet_server_addr())"


def pooler_for(t, names, databases=None, **settings):
    """A pooler that asks `names`; its `app` is at db.app.test unless told otherwise."""
    if databases is None:
        databases = {"app": t.postgres.address("app", host="db.app.test")}
    settings.setdefault("pool_mode", "transaction")
    settings.setdefault("server_login_retry", 0.1)
    settings.setdefault("extra", BRISK)
    return t.pooler(databases=databases, resolv_conf=names.resolv_conf, **settings)


def row(console, table, key):
    found = [line for line in console.table(f"show {table}") if list(line.values())[0] == key]
    return found[0] if found else None


def waiting(pooler, database="app"):
    """A client that has begun to log in, and waits for the server."""
    client = pooler.open(timeout=20)
    client.send(pgwire.startup({"user": "app", "database": database}))
    return client


# ---- answers ------------------------------------------------------------------------------------

@covers("settings", "resolv_conf")
def test_resolv_conf_names_the_name_servers(t):
    names = NameServer(t, {"db.app.test": {"A": [FOUR]}})
    pooler = pooler_for(t, names)
    with pooler.connect() as c:
        same(c.value(ADDRESS), FOUR)
    same(names.seen and names.seen[0][0], "db.app.test")


@ours
def test_resolv_conf_is_read_again_by_a_reload(t):
    silent, names = NameServer(t), NameServer(t, {"db.app.test": {"A": [FOUR]}})
    silent.silent.add("db.app.test")
    pooler = pooler_for(t, silent)
    with waiting(pooler) as c:
        eventually(lambda: silent.seen, "the first one is asked")
        os.replace(names.resolv_conf, silent.resolv_conf)
        pooler.reload()
        # The question that was on its way is asked again, too.
        c.authenticate("app", None)
        same(c.value(ADDRESS), FOUR)


@ours
def test_resolv_conf_that_is_not_there_is_said(t):
    pooler = t.pooler(resolv_conf="/nowhere/resolv.conf")
    pooler.wait_log("WARNING cannot read resolv_conf '/nowhere/resolv.conf': No such file or directory")
    pooler.usable()


@ours
def test_addresses_of_a_name_take_turns(t):
    names = NameServer(t, {"db.app.test": {"A": [FOUR], "AAAA": [SIX]}})
    pooler = pooler_for(t, names, default_pool_size=4, extra=BRISK + "worker_threads = 1\n")
    clients = [pooler.connect() for _ in range(4)]
    for c in clients:
        c.query("begin")
    same(sorted(c.value(ADDRESS) for c in clients), [FOUR, FOUR, SIX, SIX])
    with pooler.console() as console:
        found = row(console, "dns_hosts", "db.app.test")
        same(found["addrs"], "127.0.0.1:0,[::1]:0")
        assert 0 < int(found["ttl"]) <= 15, found
        same(row(console, "lists", "dns_names")["items"], "1")
        same(row(console, "lists", "dns_zones")["items"], "0")


@ours
def test_one_question_serves_all_pools_and_cores(t):
    names = NameServer(t, {"db.app.test": {"A": [FOUR]}})
    entry = t.postgres.address("app", host="db.app.test")
    pooler = pooler_for(t, names, databases={f"app{i}": entry for i in range(10)}, dns_max_ttl=600,
                        extra=BRISK + "worker_threads = 4\n")
    for i in range(10):
        for user in ("app", "other"):
            pooler.connect(user, f"app{i}").terminate()
    same((names.asked("db.app.test"), names.asked("db.app.test", "AAAA")), (1, 1))


@ours
def test_names_of_the_hosts_file_are_asked_of_nobody(t):
    names = NameServer(t)
    hosts = os.path.join(t.folder, "hosts")
    with open(hosts, "w") as file:
        file.write("127.0.0.1 db.app.test\n")
    os.environ["CARES_HOSTS"] = hosts
    entry = t.postgres.address("app", host="localhost")
    pooler = pooler_for(t, names, databases={"app": t.postgres.address(host="db.app.test"), "app2": entry})
    del os.environ["CARES_HOSTS"]
    with pooler.connect() as c, pooler.connect(database="app2") as local:
        same(c.value(ADDRESS), FOUR)
        assert local.value(ADDRESS) in (FOUR, SIX)
    same(names.seen, [])


@ours
def test_truncated_answer_is_asked_for_again_over_tcp(t):
    names = NameServer(t, {"db.app.test": {"A": [FOUR]}})
    names.cut.add("db.app.test")
    pooler = pooler_for(t, names)
    with pooler.connect() as c:
        same(c.value(ADDRESS), FOUR)
    assert ("db.app.test", "A", "tcp") in names.seen, names.seen


@ours
def test_family_of_addresses_that_nobody_answers_for_is_not_waited_for(t):
    names = NameServer(t, {"db.app.test": {"A": [FOUR]}})
    names.silent.add(("db.app.test", "AAAA"))
    pooler = pooler_for(t, names)
    with waiting(pooler) as c:
        c.authenticate("app", None)
        same(c.value(ADDRESS), FOUR)
    same(names.asked("db.app.test", "AAAA"), 1)  # not even asked a second time


@ours
def test_garbage_from_the_name_server_is_no_answer(t):
    names = NameServer(t, {"db.app.test": {"A": [FOUR]}})
    databases = {"app": t.postgres.address(host="db.app.test"), "app2": t.postgres.address("app2")}
    pooler = pooler_for(t, names, databases, server_connect_timeout=0.5, dns_nxdomain_ttl=0.1)
    names.garbage = b""
    with waiting(pooler) as c:
        eventually(lambda: names.seen, "it is asked")
        for garbage in (b"x", os.urandom(40), os.urandom(500), b"\0" * 12, b"\xff" * 600):
            names.garbage = garbage
            before = len(names.seen)
            eventually(lambda: len(names.seen) > before, "it is asked again", 12)
            pooler.connect(database="app2").terminate()
        names.garbage = None
        c.authenticate("app", None)
        same(c.value(ADDRESS), FOUR)


# ---- how long they hold -------------------------------------------------------------------------

@covers("settings", "dns_max_ttl")
@ours
def test_answer_is_asked_for_again_after_dns_max_ttl(t):
    names = NameServer(t, {"db.app.test": {"A": [FOUR]}})
    # Each server serves once: each query opens one.
    pooler = pooler_for(t, names, dns_max_ttl=0.3, server_lifetime=0)
    with pooler.connect() as c:
        eventually(lambda: c.value(ADDRESS) and names.asked("db.app.test") >= 3, "it is asked anew", 8)


@ours
def test_answer_is_used_as_long_as_dns_max_ttl(t):
    names = NameServer(t, {"db.app.test": {"A": [FOUR]}})
    pooler = pooler_for(t, names, dns_max_ttl=600, server_lifetime=0)
    with pooler.connect() as c:
        pids = {c.pid() for _ in range(5)}
    same(len(pids), 5)
    same(names.asked("db.app.test"), 1)


@ours
def test_dns_max_ttl_0_asks_for_each_connection(t):
    names = NameServer(t, {"db.app.test": {"A": [FOUR]}})
    pooler = pooler_for(t, names, dns_max_ttl=0, server_lifetime=0)
    with pooler.connect() as c:
        same(c.value(ADDRESS), FOUR)  # the server that the login has opened
        for _ in range(5):
            before = names.asked("db.app.test")
            same(c.value(ADDRESS), FOUR)
            assert names.asked("db.app.test") > before, "not asked for this one"


@ours
def test_min_pool_size_is_kept_with_a_dns_max_ttl_of_0(t):
    names = NameServer(t, {"db.app.test": {"A": [FOUR]}})
    pooler_for(t, names, {"app": t.postgres.address("app", host="db.app.test", user="other", min_pool_size=3)},
               dns_max_ttl=0)
    eventually(lambda: len(t.postgres.backends("other")) == 3, "three servers are open", 8)


@covers("settings", "dns_nxdomain_ttl")
@ours
def test_name_that_is_not_there_is_asked_for_again_after_dns_nxdomain_ttl(t):
    names = NameServer(t)
    pooler = pooler_for(t, names, dns_nxdomain_ttl=0.3)
    with waiting(pooler) as c:
        pooler.wait_log("WARNING host name lookup of db.app.test failed: Domain name not found")
        names.records["db.app.test"] = {"A": [FOUR]}
        eventually(lambda: names.asked("db.app.test") >= 2, "it is asked again", 6)
        c.authenticate("app", None)
        same(c.value(ADDRESS), FOUR)


@ours
def test_failure_is_believed_for_dns_nxdomain_ttl_by_all(t):
    names = NameServer(t)
    entry = t.postgres.address(host="db.app.test")
    pooler = pooler_for(t, names, databases={"app": entry, "app2": entry}, dns_nxdomain_ttl=600,
                        query_wait_timeout=1)
    with waiting(pooler) as c, waiting(pooler, "app2") as other:
        for client in (c, other):
            error = client.fatal(6)
            same(error.text, "query_wait_timeout")
            matches("server DNS lookup failed", error.fields["D"])
            matches(r"in \d{3}\.\d seconds", error.fields["H"])
    same(names.asked("db.app.test"), 1)
    # A RELOAD believes nothing.
    names.records["db.app.test"] = {"A": [FOUR]}
    with waiting(pooler) as c:
        pooler.reload()
        c.authenticate("app", None)
        same(c.value(ADDRESS), FOUR)


@ours
def test_servfail_is_a_failure(t):
    names = NameServer(t, {"db.app.test": {"A": [FOUR]}})
    names.failing.add("db.app.test")
    pooler = pooler_for(t, names, dns_nxdomain_ttl=0.1)
    with waiting(pooler) as c:
        pooler.wait_log("WARNING host name lookup of db.app.test failed: Could not contact DNS servers")
        names.failing.clear()
        c.authenticate("app", None)
        same(c.value(ADDRESS), FOUR)


@ours
def test_silent_name_server_holds_up_nobody_else_and_is_given_up_in_time(t):
    names = NameServer(t, {"db.app.test": {"A": [FOUR]}})
    silent = [f"db.silent{i}.test" for i in range(20)]
    names.silent.update(silent)
    databases = {name: f"host={name} dbname=app" for name in silent}
    databases.update(app=t.postgres.address("app", host="db.app.test"), app2=t.postgres.address("app2"))
    pooler = pooler_for(t, names, databases, server_connect_timeout=2, query_wait_timeout=4)
    held = [waiting(pooler, name) for name in silent for _ in range(2)]
    eventually(lambda: all(names.asked(name) for name in silent), "all are asked for")
    started = time.monotonic()
    same(pooler.connect().value(ADDRESS), FOUR)
    same(pooler.connect(database="app2").value(ADDRESS), FOUR)
    assert time.monotonic() - started < 1.5, "others had to wait"
    for client in held:
        matches("server DNS lookup failed", client.fatal(8).fields["D"])
    same(len(re.findall("host name lookup of db.silent0.test failed: no answer in time", pooler.log())), 1)


# ---- answers that change ------------------------------------------------------------------------

def changing(t, **settings):
    """The name has moved from 127.0.0.1 to ::1."""
    names = NameServer(t, {"db.app.test": {"A": [FOUR]}, "app.test": {"SOA": 1}})
    pooler = pooler_for(t, names, **settings)
    return names, pooler


@ours
def test_servers_of_an_address_that_is_gone_end_when_they_are_free(t):
    names, pooler = changing(t, dns_max_ttl=0, extra=BRISK + "worker_threads = 4\n")
    with pooler.connect() as idle, pooler.connect() as busy, pooler.connect() as another:
        busy.query("begin")
        old = busy.pid()
        another.query("begin")
        another.query("commit")
        names.records["db.app.test"] = {"AAAA": [SIX]}
        another.query("begin")  # a free server
        same(idle.value("select 1"), "1")  # a new connection, or the second of the old ones
        with pooler.connect("other") as third:  # another pool opens one: the change is seen
            same(third.value(ADDRESS), SIX)
        pooler.wait_log("host db.app.test: addresses have changed")
        same(busy.pid(), old)
        another.query("commit")
        busy.query("commit")
        pooler.wait_log("closing because: obsolete connection")
        eventually(lambda: old not in t.postgres.backends(), "the busy one ends when it is free")
        same({c.value(ADDRESS) for c in (idle, busy, another)}, {SIX})


@ours
def test_servers_live_on_when_an_address_is_added_or_the_name_is_lost(t):
    names, pooler = changing(t, dns_max_ttl=0, dns_nxdomain_ttl=0)
    with pooler.connect() as c:
        pid = c.pid()
        names.records["db.app.test"] = {"A": [FOUR], "AAAA": [SIX]}
        pooler.connect("other").terminate()
        del names.records["db.app.test"]
        with pooler.connect("other") as other:
            other.query("begin")
            with waiting(pooler, "app") as third:
                third.vanish()
        same(c.pid(), pid)


@ours
def test_members_of_a_list_are_left_alone(t):
    names = NameServer(t, {"db.app.test": {"A": [FOUR]}})
    pooler = pooler_for(t, names, databases={"app": t.postgres.address(host="db.app.test,db.app.test")},
                        dns_max_ttl=0)
    with pooler.connect() as c:
        pid = c.pid()
        names.records["db.app.test"] = {"AAAA": [SIX]}
        with pooler.connect("other") as other:
            same(other.value(ADDRESS), SIX)
        pooler.wait_log("host db.app.test: addresses have changed")
        same(c.pid(), pid)


@covers("settings", "dns_zone_check_period")
@ours
def test_zone_with_a_new_serial_is_looked_up_again(t):
    names, pooler = changing(t, dns_max_ttl=600, dns_zone_check_period=0.2)
    with pooler.connect() as c, pooler.console() as console:
        same(c.value(ADDRESS), FOUR)
        eventually(lambda: names.asked("app.test", "SOA") >= 2, "the serial is looked at")
        same(row(console, "dns_zones", "app.test"), {"zonename": "app.test", "serial": "1", "count": "1"})
        same(names.asked("db.app.test"), 1)
        names.records["db.app.test"] = {"AAAA": [SIX]}
        names.records["app.test"] = {"SOA": 2}
        pooler.wait_log("zone app.test: serial changed from 1 to 2")
        eventually(lambda: c.value(ADDRESS) == SIX, "the idle server has ended")
        same(row(console, "dns_zones", "app.test")["serial"], "2")
        same(row(console, "lists", "dns_zones")["items"], "1")


# ---- lists of hosts -----------------------------------------------------------------------------

class Hosts:
    """Servers on one port of several loopback addresses; each answers with its own. A server may be down."""

    def __init__(self, t, *addresses):
        self.port = free_port(t.slot)
        self.seen, self.listeners, self.links = [], {}, {}
        self.refuses = set()
        for address in addresses:
            self.begin(address)

    def begin(self, address):
        self.listeners[address] = socket.create_server((address, self.port))
        self.links[address] = []
        threading.Thread(target=self._accept, args=(address, self.listeners[address]), daemon=True).start()

    def end(self, address):
        """Its connections end, too."""
        self.listeners[address].shutdown(socket.SHUT_RDWR)
        self.listeners[address].close()
        for link in self.links[address]:
            link.shutdown(socket.SHUT_RDWR)

    def _accept(self, address, listener):
        while True:
            try:
                taken, _ = listener.accept()
            except OSError:
                return
            self.links[address].append(taken)
            threading.Thread(target=self._serve, args=(address, taken), daemon=True).start()

    def _serve(self, address, taken):
        server = FakeConnection(taken)
        try:
            server.startup()
            self.seen.append(address)
            if address in self.refuses:
                server.send(pgwire.error_response(S="FATAL", C="57P03", M="the database system is starting up"))
                taken.close()
                return
            server.send(server.WELCOME)
            server.serve_one_value(address)
        except (OSError, pgwire.Closed):
            pass

    def entry(self, hosts, **more):
        words = {"host": hosts, "port": self.port, "dbname": "app", **more}
        return " ".join(f"{key}={value}" for key, value in words.items())


def hosts_pooler(t, hosts, entry, **settings):
    """Each query of its clients opens a connection."""
    settings.setdefault("extra", BRISK)
    settings.setdefault("server_login_retry", 0.1)
    return t.pooler(pool_mode="transaction", databases={"app": entry}, server_lifetime=0, **settings)


ONE, TWO, THREE = "127.0.0.1", "127.0.0.2", "127.0.0.3"


def test_each_new_connection_takes_the_next_host(t):
    hosts = Hosts(t, ONE, TWO, THREE)
    pooler = hosts_pooler(t, hosts, hosts.entry(f"{ONE},{TWO},{THREE}"))
    with pooler.connect() as c:
        for _ in range(8):
            same(c.value("select 1"), hosts.seen[-1])
    turns = [ONE, TWO, THREE]
    at = turns.index(hosts.seen[0])
    same(hosts.seen[:9], [turns[(at + i) % 3] for i in range(len(hosts.seen[:9]))])


@ours
def test_turn_is_the_same_on_all_cores(t):
    hosts = Hosts(t, ONE, TWO)
    pooler = t.pooler(databases={"app": hosts.entry(f"{ONE},{TWO}", pool_size=4)}, pool_mode="session",
                      extra="[pgsplice]\nworker_threads = 4\npool_shards = 4\n")
    clients = [pooler.connect() for _ in range(4)]  # each on a core of its own
    answers = [c.value("select 1") for c in clients]
    same((answers.count(ONE), answers.count(TWO)), (2, 2))


@ours
def test_name_with_more_addresses_gets_no_more_turns(t):
    hosts = Hosts(t, ONE, TWO, THREE)
    names = NameServer(t, {"two.app.test": {"A": [TWO, THREE]}})
    pooler = hosts_pooler(t, hosts, hosts.entry(f"{ONE},two.app.test"), resolv_conf=names.resolv_conf,
                          extra=BRISK + "worker_threads = 1\n")
    with pooler.connect() as c:
        while len(hosts.seen) < 8:
            c.value("select 1")
    same([hosts.seen[:8].count(address) for address in (ONE, TWO, THREE)], [4, 2, 2])


@covers("database_options", "load_balance_hosts")
@ours
def test_disable_stays_with_a_host_until_a_connection_to_it_fails(t):
    hosts = Hosts(t, ONE, TWO)
    pooler = hosts_pooler(t, hosts, hosts.entry(f"{ONE},{TWO}", load_balance_hosts="disable"))
    with pooler.connect() as c:
        for _ in range(4):
            same(c.value("select 1"), ONE)
        hosts.end(ONE)
        eventually(lambda: c.value("select 1") == TWO, "the other one serves")
        hosts.begin(ONE)
        for _ in range(4):
            same(c.value("select 1"), TWO)
        with pooler.console() as console:
            same(row(console, "databases", "app")["load_balance_hosts"], "disable")


@ours
def test_disable_leaves_a_host_that_refuses_logins(t):
    hosts = Hosts(t, ONE, TWO)
    hosts.refuses.add(ONE)
    pooler = hosts_pooler(t, hosts, hosts.entry(f"{ONE},{TWO}", load_balance_hosts="disable"))
    with waiting(pooler) as c:
        c.authenticate("app", None)
        for _ in range(4):
            same(c.value("select 1"), TWO)
    same(hosts.seen.count(ONE), 1)


def test_host_that_is_down_is_passed_over(t):
    hosts = Hosts(t, TWO)
    pooler = hosts_pooler(t, hosts, hosts.entry(f"{ONE},{TWO}"), query_wait_timeout=10)
    with pooler.connect() as c:
        for _ in range(6):
            same(c.value("select 1"), TWO)


@ours
def test_name_that_nobody_knows_is_passed_over(t):
    hosts = Hosts(t, TWO)
    names = NameServer(t)
    pooler = hosts_pooler(t, hosts, hosts.entry(f"nobody.app.test,{TWO}"), resolv_conf=names.resolv_conf,
                          server_login_retry=60)
    with pooler.connect() as c:
        for _ in range(6):
            same(c.value("select 1"), TWO)
    same(names.asked("nobody.app.test"), 1)


# ---- sockets ------------------------------------------------------------------------------------

@ours
def test_abstract_sockets_work_on_both_sides(t):
    inner = t.pooler(unix_socket_dir=f"@inner-{t.slot}-{os.getpid()}", listen_addr=None,
                     databases={"app": t.postgres.address(host=t.postgres.sockets)}, start=False)
    inner.launch()
    inner.wait_log("process up")
    entry = f"host={inner.settings['unix_socket_dir']} port={inner.port} dbname=app"
    outer = t.pooler(databases={"app": entry}, unix_socket_dir=None)
    with outer.connect() as c:
        same(c.value("select inet_server_addr() is null"), "t")
    inner.wait_log(r"C-0x[0-9a-f]+: app/app@unix.* login attempt")
    matches(f"listening on unix:{inner.settings['unix_socket_dir']}/.s.PGSQL.{inner.port}", inner.log())


def test_entry_without_a_host_is_in_unix_socket_dir(t):
    pooler = t.pooler(databases={"app": f"port={t.postgres.port}"}, unix_socket_dir=t.postgres.sockets)
    with pooler.connect() as c:
        same(c.value("select inet_server_addr() is null"), "t")


@ours
def test_list_may_mix_directories_and_addresses(t):
    pooler = t.pooler(pool_mode="transaction", server_lifetime=0,
                      databases={"app": t.postgres.address(host=f"{t.postgres.sockets},{SIX},{FOUR}")})
    with pooler.connect() as c:
        found = [c.value(f"select coalesce(host(inet_server_addr()), 'unix')") for _ in range(6)]
    same(sorted(found), sorted(["unix", SIX, FOUR] * 2))


@ours
def test_socket_path_that_is_too_long_is_said(t):
    pooler = t.pooler(databases={"app": f"host=/{'x' * 120} port=1"}, query_wait_timeout=1)
    with waiting(pooler) as c:
        matches("unix socket path too long", c.fatal(5).fields["D"])


@ours
def test_ipv6_literal_with_a_zone_is_no_name(t):
    names = NameServer(t)
    pooler = pooler_for(t, names, databases={"app": t.postgres.address(host="::1%1")})
    with pooler.connect() as c:
        same(c.value(ADDRESS), SIX)
    same(names.seen, [])
