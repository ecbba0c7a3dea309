"""Two or three features at once, each of which has a file of tests of its own."""

import os
import random
import threading

import certificates
import pgwire
from harness import OS_USER, PASSWORD, eventually, ours, refused, same, slow
from name_server import NameServer
from pgwire import query, startup
from test_auth_query import (LIST, begin_login, in_background, lock_of_secrets, looking_up,
                             looking_up_by_hba, sql, waiting_for_lock, who)
from test_cancel import SLEEP, running
from test_hba import as_user
from test_names import ADDRESS, FOUR, pooler_for
from test_pam import FAILED, current_user, matrix, pooler_with
from test_peers import free_ports, workers
from test_replication import rows
from test_restart import next_of
from tls_wire import V1_2, V1_3, Offer, client_context

SECRETS = {"plain": PASSWORD, "md5": pgwire.md5_secret("other", PASSWORD),
           "scram": pgwire.scram_secret(PASSWORD)}


# ---- HBA, and users who are looked up -----------------------------------------------------------

def lets_in(pooler, password, **rest):
    try:
        with pooler.connect("other", password=password, **rest) as c:
            same(c.value("select current_user"), "other")
            return True
    except pgwire.PgError as error:
        same((error.severity, error.sqlstate), ("FATAL", "08P01"))
        return False


# Which secrets (and none at all) suffice for which method, for a client with the right password.
FITS = {"trust": {"plain", "md5", "scram", "null"}, "password": {"plain", "md5", "scram"},
        "md5": {"plain", "md5", "scram"}, "scram-sha-256": {"plain", "scram"},
        "reject": set(), "cert": set(), "peer": set(), "pam": set(),
        "ldap ldapserver=127.0.0.1 ldapprefix=x": set()}


@ours
@slow(40)
def test_each_method_of_hba_is_heeded_for_each_kind_of_found_secret(t):
    sql(t, "drop table if exists found", "create table found (name text, secret text)")
    pooler = looking_up_by_hba(t, "host all admin 127.0.0.1/32 trust\n", auth_query="select name, secret from found where name = $1")
    for method, fits in FITS.items():
        pooler.write_file("hba.conf", f"host all other 127.0.0.1/32 {method}\n"
                                      "host all admin 127.0.0.1/32 trust\n")
        with pooler.console() as console:
            console.do("reload")
        for kind in ("plain", "md5", "scram", "null"):
            secret = f"'{SECRETS[kind]}'" if kind != "null" else "null"
            sql(t, "delete from found", f"insert into found values ('other', {secret})")
            same(lets_in(pooler, PASSWORD), kind in fits, f"{method}, {kind}")
            # Whoever has stolen the secret does not know the password. (With md5 he needs not: hence SCRAM.)
            stolen = [] if method == "md5" else [SECRETS["md5"], SECRETS["scram"]]
            for wrong in ["wrong", "", "null"] + stolen:
                if method != "trust":
                    same(lets_in(pooler, wrong), False, f"{method}, {kind}, {wrong!r}")
        sql(t, "delete from found")
        with refused("no such user"):
            pooler.connect("other", password=PASSWORD)


@ours
def test_peer_and_maps_hold_for_users_who_are_looked_up(t):
    ident = os.path.join(t.folder, "ident.conf")
    with open(ident, "w") as file:
        file.write(f"m {OS_USER} other\n")
    os.chmod(ident, 0o644)
    pooler = looking_up_by_hba(t, f"local all {OS_USER} peer\nlocal all all peer map=m\n",
                               auth_query="select $1 || '', null::text where $1 <> 'nobody'",
                               auth_ident_file=ident)
    with as_user(OS_USER):
        same(who(pooler, "other", None, host=pooler.folder), "other")
        for user in ("u_scram", "app2"):
            with refused("unix socket login rejected"):
                pooler.connect(user, host=pooler.folder)
        with refused("no such user"):
            pooler.connect("nobody", host=pooler.folder)


@ours
def test_forced_user_and_console_are_guarded_by_hba_for_who_is_looked_up(t):
    entry = t.postgres.address("app", user="app")
    pooler = looking_up_by_hba(t, "host forced all all scram-sha-256\nhost pgbouncer all all scram-sha-256\n"
                                  "host replication all all trust\nhost all all all reject\n",
                               databases={"forced": entry, "app": t.postgres.address("app")},
                               auth_dbname="app", admin_users="u_scram")
    same(who(pooler, "u_scram", database="forced"), "app")
    for user, password, wanted in (("u_scram", "wrong", "SASL authentication failed"),
                                   ("u_md5", PASSWORD, "SASL authentication failed"),
                                   ("stranger", PASSWORD, "no such user")):
        with refused(wanted):
            pooler.connect(user, "forced", password)
    with pooler.console("u_scram", PASSWORD) as console:
        same(console.do("reload"), "RELOAD")
    for params in ({}, {"replication": "true"}):
        with refused("SASL authentication failed"):
            pooler.console("u_scram", "wrong", **params)


@ours
def test_replication_of_users_who_are_looked_up_is_for_lines_of_replication(t):
    pooler = looking_up_by_hba(
        t, "host replication u_scram all scram-sha-256\nhost replication other all trust\n"
           "host app u_scram all scram-sha-256\nhost all u_md5 all md5\nhost all all all reject\n")
    sql(t, "alter role u_scram replication", "alter role u_md5 replication", "alter role other replication")

    def system(user, replication, password=PASSWORD, database="app"):
        with pooler.connect(user, database, password, replication=replication) as c:
            return len(c.query("IDENTIFY_SYSTEM").rows)
    for replication in ("true", "database"):
        same(system("u_scram", replication), 1)
        with refused("SASL authentication failed"):
            system("u_scram", replication, "wrong")
    same(system("u_md5", "database"), 1)
    same(system("other", "true", None), 1)
    for user, replication, wanted in (
            ("u_md5", "true", "no authentication method is found"),  # `all` is not for physical ones
            ("other", "database", "login rejected"), ("stranger", "true", "no such user"),
            ("stranger", "database", "no such user")):
        with refused(wanted):
            system(user, replication)
    with pooler.connect("u_scram", password=PASSWORD) as c:  # and what was learned serves the others
        same(c.value("select current_user"), "u_scram")


# ---- online restart while something is under way ------------------------------------------------

@ours
@slow(40)
def test_takeover_leaves_lookups_logins_and_replicas_where_they_are(t):
    auth_query, holder = lock_of_secrets(t)
    settings = dict(auth_type="scram-sha-256", auth_user="app", auth_query=auth_query,
                    userlist={**LIST, "other": PASSWORD}, default_pool_size=2)
    old = t.pooler(pool_mode="transaction", pidfile=os.path.join(t.folder, "pooler.pid"),
                   extra=workers(2), **settings)
    replica = old.connect("other", password=PASSWORD, replication="database")
    found = [begin_login(old, "u_scram") for _ in range(2)]
    waiting_for_lock(t, 2)
    found += [begin_login(old, "u_scram") for _ in range(3)]  # wait for a server of auth_user
    leaving = begin_login(old, "u_plain")
    asked_for_sasl = begin_login(old, "other")
    new = next_of(t, old, name="new", **settings)
    old.wait_log("another process takes over")
    leaving.vanish()
    same(len(replica.query("IDENTIFY_SYSTEM").rows), 1)
    with new.connect("other", password=PASSWORD) as c:
        same(c.value("select 1"), "1")
    fresh = begin_login(new, "u_scram")
    holder.query("commit")
    for client in found + [asked_for_sasl, fresh]:
        client.authenticate("other" if client is asked_for_sasl else "u_scram", PASSWORD)
        client.value("select 1")
    assert old.runs()
    for client in found + [asked_for_sasl, replica]:
        client.terminate()
    same(old.wait_exit(), 0)
    same(fresh.value("select current_user"), "u_scram")
    new.wait_log("the process before us has ended")


@ours
@slow(40)
def test_cancel_requests_of_a_cluster_find_the_clients_of_a_process_that_was_taken_over(t):
    ports = free_ports(t, 2)
    peers = {i + 1: f"host=127.0.0.1 port={port}" for i, port in enumerate(ports)}
    first, second = (t.pooler(listen_port=ports[i], peer_id=i + 1, peers=peers, extra=workers(2), name=f"p{i}",
                              pool_mode="transaction", pidfile=os.path.join(t.folder, f"{i}.pid"))
                     for i in range(2))
    old, other = first.connect(), second.connect()
    new = next_of(t, first, name="new", peer_id=1, peers=peers)
    with new.connect() as fresh:
        for client in (old, other, fresh):
            for process in (new, second):
                client.send(query(SLEEP))
                running(t)
                same(process.cancel(client.key), [])
                same(client.results().errors[0].sqlstate, "57014")
                same(client.value("select 1"), "1")
    old.terminate()
    same(first.wait_exit(), 0)


@ours
@slow(40)
def test_keys_of_the_old_process_stay_good_when_the_new_one_has_another_peer_id(t):
    for before, after in ((None, 2), (1, 2), (1, None)):
        name = f"from_{before}_to_{after}"
        settings = {"peers": {3: "host=127.0.0.1 port=1"}}
        first = t.pooler(pool_mode="transaction", peer_id=before, name=name, extra=workers(1),
                         pidfile=os.path.join(t.folder, f"{name}.pid"), **settings)
        with first.connect() as old:
            new = next_of(t, first, name=f"{name}_new", peer_id=after, extra=workers(1), **settings)
            for _ in range(3):
                old.send(query(SLEEP))
                running(t)
                same(new.cancel(old.key), [])
                same(old.results().errors[0].sqlstate, "57014", name)
        same(first.wait_exit(), 0)
        new.stop()


# ---- names ---------------------------------------------------------------------------------------

@ours
@slow(40)
def test_reload_to_another_host_while_the_old_name_is_looked_up_never_uses_the_old_one(t):
    names = NameServer(t, {"old.app.test": {"A": ["127.0.0.9"]}, "new.app.test": {"A": [FOUR]}})
    names.silent.add("old.app.test")
    pooler = pooler_for(t, names, databases={"app": t.postgres.address("app", host="old.app.test")},
                        extra=workers(2))
    answers = [in_background(lambda: who(pooler, "other", None, timeout=20)) for _ in range(3)]
    eventually(lambda: names.asked("old.app.test"), "the old name is asked for")
    with pooler.console() as console:
        console.do("pause app")
        pooler.databases = {"app": t.postgres.address("app", host="new.app.test")}
        pooler.write()
        console.do("reload")
        names.silent.clear()  # it answers now, when nobody wants it any more
        same([found for found in answers if found], [])
        console.do("resume app")
        for found in answers:
            same(eventually(lambda: found, "logged in", 15), ["other"])
        same({row["addr"] for row in rows(console, "servers")} - {FOUR}, set())
        # Addresses have changed while the pool was paused: what is opened afterwards goes to the new one.
        names.records["new.app.test"] = {"A": ["127.0.0.2"]}
        console.do("pause app")
        pooler.settings["dns_max_ttl"] = 0
        pooler.write()
        console.do("reload")  # a shorter time to live holds for what is known already
        waiter = begin_login(pooler, "other")
        console.do("resume app")
        waiter.authenticate("other", None)
        waiter.send(query(ADDRESS))
        pooler.wait_log(r"connect(ion)? (failed|timeout).*\(127\.0\.0\.2:|127\.0\.0\.2")
        waiter.vanish()
    assert "127.0.0.9" not in pooler.log()


# ---- PAM ----------------------------------------------------------------------------------------

@ours
@slow(40)
def test_pam_decides_behind_any_database_and_its_password_opens_each(t):
    pooler = pooler_with(t, matrix(t, u_scram=PASSWORD, u_plain=PASSWORD, other="Pam-pw"), extra=workers(2),
                         databases={"*": f"host={t.postgres.sockets} port={t.postgres.port}"})
    for database in ("app", "app2", "postgres", "app"):
        for user in ("u_scram", "u_plain"):
            same(current_user(pooler, user, PASSWORD, database=database), user)
        with refused(FAILED):
            pooler.connect("u_scram", database, "wrong")
        with refused(FAILED):
            pooler.connect("stranger", database, PASSWORD)
    # The server's word of a database that is not there is for who has proved who he is.
    with refused(FAILED):
        pooler.connect("u_scram", "nowhere", "wrong")
    with refused('database "nowhere" does not exist', "3D000"):
        pooler.connect("u_scram", "nowhere", PASSWORD)
    # Replication asks PAM, too.
    with refused(FAILED):
        pooler.connect("other", "app", "wrong", replication="database")
    with pooler.connect("other", "app", "Pam-pw", replication="database") as c:
        same(c.query("IDENTIFY_SYSTEM").rows[0][3], "app")


@ours
@slow(40)
def test_limits_hold_for_names_that_pam_lets_in_and_come_back(t):
    pooler = pooler_with(t, matrix(t, other="Pam-pw", u_plain=PASSWORD),
                         databases={"*": f"host={t.postgres.sockets} port={t.postgres.port}"},
                         max_user_client_connections=2, max_db_client_connections=3,
                         admin_users="u_plain")
    for _ in range(3):
        clients = [pooler.connect("other", "app", "Pam-pw") for _ in range(2)]
        with refused(r".*\(max_user_client_connections\)"):
            pooler.connect("other", "app2", "Pam-pw")
        clients.append(pooler.connect("u_plain", "app", PASSWORD))
        with refused(r".*\(max_db_client_connections\)"):
            pooler.connect("u_plain", "app", PASSWORD)
        for client in clients:
            client.terminate()

        with pooler.console("u_plain", PASSWORD) as console:
            eventually(lambda: not rows(console, "clients", database="app"), "all have left")


# ---- passwords that change ----------------------------------------------------------------------

def shards_use_the_newest(t, connect, change):
    """Clients on both workers; one of them comes after the change of the password."""
    clients = [connect(PASSWORD) for _ in range(4)]
    for client in clients:
        client.value("select 1")
    try:
        change()
        clients.append(connect("Newer-pw"))
        with clients[0].pooler.console(password="a") as console:
            for client in clients:
                console.do("reconnect")
                eventually(lambda: not rows(console, "servers", user="u_plain"), "the servers are closed")
                same(client.value("select current_user"), "u_plain")
    finally:  # others use the same PostgreSQL
        sql(t, f"alter role u_plain password '{PASSWORD}'")


def connects(pooler):
    def connect(password):
        client = pooler.connect("u_plain", password=password)
        client.pooler = pooler
        return client
    return connect


SHARDS = {"default_pool_size": 8, "pool_mode": "transaction", "server_login_retry": 5, "extra": workers(2)}


@ours
@slow(40)
def test_new_password_of_pam_opens_the_servers_of_all_workers(t):
    pooler = pooler_with(t, matrix(t, u_plain=PASSWORD, admin="a"), **SHARDS)

    def change():
        matrix(t, u_plain="Newer-pw", admin="a")
        sql(t, "alter role u_plain password 'Newer-pw'")
    shards_use_the_newest(t, connects(pooler), change)


@ours
@slow(40)
def test_new_secret_of_auth_query_opens_the_servers_of_all_workers(t):
    sql(t, "drop table if exists found", "create table found (name text, secret text)",
        f"insert into found values ('u_plain', '{PASSWORD}')")
    pooler = looking_up(t, auth_type="plain", auth_query="select name, secret from found where name = $1",
                        userlist={"app": "", "admin": "a"}, **SHARDS)
    shards_use_the_newest(t, connects(pooler), lambda: sql(
        t, "update found set secret = 'Newer-pw'", "alter role u_plain password 'Newer-pw'"))
    # What auth_file says goes before it, once it says something: on all workers.
    pooler.userlist["u_plain"] = PASSWORD
    pooler.write()
    with pooler.console(password="a") as console:
        console.do("reload")
        clients = [pooler.connect("u_plain", password=PASSWORD) for _ in range(4)]
        for client in clients:
            console.do("reconnect")
            eventually(lambda: not rows(console, "servers", user="u_plain"), "the servers are closed")
            same(client.value("select current_user"), "u_plain")


# ---- everything at once -------------------------------------------------------------------------

class Chaos:
    """Clients of all kinds who leave at any moment, until told to stop."""

    KINDS = (("other", None), ("u_scram", PASSWORD), ("u_md5", PASSWORD), ("u_scram", "wrong"), ("stranger", "x"),
             ("ldap", "x"), ("admin", None))
    DATABASES = ("app", "app2", "app", "nowhere", "pgbouncer")

    OFFERS = (None, None, Offer(client_context(low=V1_2, high=V1_2)), Offer(client_context(low=V1_3)),
              Offer(client_context(alpn=["postgresql"]), direct=True))

    def __init__(self, port, seed, count=10):
        self.port, self.is_over, self.served, self.strange = port, False, 0, []
        self.threads = [threading.Thread(target=self._live, args=(random.Random(seed * 100 + i),), daemon=True)
                        for i in range(count)]
        for thread in self.threads:
            thread.start()

    def _live(self, draw):
        while not self.is_over:
            user, password = draw.choice(self.KINDS)
            params = draw.choice(({}, {}, {"replication": "true"}, {"replication": "database"}))
            client = None
            try:
                client = pgwire.Client(self.port, timeout=draw.choice((0.01, 0.05, 3)), tls=draw.choice(self.OFFERS))
                client.send(startup({"user": user, "database": draw.choice(self.DATABASES), **params}))
                if draw.random() < 0.3:
                    client.silent_for(draw.random() * 0.05)
                    continue
                client.authenticate(user, password)
                self.served += 1
                if user == "admin" or params:
                    continue
                for _ in range(draw.randrange(4)):
                    client.send(query(f"select '{user}', current_user, pg_sleep({draw.random() * 0.01})"))
                    if draw.random() < 0.2:
                        pgwire.cancel(self.port, client.key, wait=False, tls=draw.choice(self.OFFERS))
                    row = client.results().rows
                    if row and tuple(row[0][:2]) != (user, user):
                        self.strange.append(row)
            except (pgwire.PgError, pgwire.TimedOut, pgwire.Closed, OSError):
                pass
            finally:
                if client is not None:
                    draw.choice((client.vanish, client.reset))()

    def end(self):
        self.is_over = True
        for thread in self.threads:
            thread.join()
        same(self.strange, [])


@ours
@slow(120)
def test_whoever_leaves_at_any_moment_leaves_nothing_behind(t):
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(10000)))
    print(f"CHAOS_SEED={seed}")
    draw = random.Random(seed)
    names = NameServer(t, {"db.app.test": {"A": [FOUR]}})
    sql(t, "alter role u_scram replication", "alter role other replication")
    made = certificates.of(t)
    t.postgres.of_one_test(**made.of_postgres())
    settings = dict(
        **made.of_clients("server", sslmode="allow"), **made.of_servers(sslmode="prefer"),
        auth_type="hba", auth_user="app", userlist={**LIST, "other": "", "admin": ""}, default_pool_size=3,
        databases={"app": t.postgres.address("app", host="db.app.test"), "*": t.postgres.address("app2")},
        auth_dbname="app", auth_query="select rolname, rolpassword from pg_authid, pg_sleep(random() / 50) "
                                      "where rolname = $1",
        auth_hba_file=os.path.join(t.folder, "hba.conf"), resolv_conf=names.resolv_conf, dns_max_ttl=0,
        client_login_timeout=2, suspend_timeout=1, server_login_retry=0.05, extra=workers(2))
    with open(settings["auth_hba_file"], "w") as file:
        file.write("local all admin trust\nhost all ldap all ldap ldapserver=127.0.0.1 ldapport=1 ldapprefix=x\n"
                   "host all other,admin all trust\nhost all u_md5 all md5\nhost all all all scram-sha-256\n"
                   "host replication other all trust\nhost replication all all scram-sha-256\n")
    os.chmod(settings["auth_hba_file"], 0o644)
    old = t.pooler(pool_mode="transaction", pidfile=os.path.join(t.folder, "pooler.pid"), **settings)
    pooler = old
    chaos = Chaos(old.port, seed)
    commands = ("reload", "reconnect", "kill app", "kill app2", "pause app", "resume app", "disable app",
                "enable app", "suspend", "resume", "show clients", "show servers", "show mem",
                "set server_tls_sslmode = 'disable'", "set server_tls_sslmode = 'verify-ca'", "set client_tls_sslmode = 'prefer'")
    for process in range(2):
        with pooler.console(host=pooler.settings["unix_socket_dir"], timeout=20) as console:
            def do(command):
                try:
                    console.do(command)
                except pgwire.PgError:
                    pass  # already paused, and the like
            for _ in range(60):
                command = draw.choice(commands)
                if draw.random() < 0.2:
                    names.silent ^= {"db.app.test"}
                if command.startswith("show"):
                    console.table(command)
                else:
                    do(command)
                if command in ("suspend", "pause app", "kill app", "kill app2"):
                    do(command.replace("suspend", "resume").replace("pause", "resume").replace("kill", "resume"))
            names.silent.clear()
            for command in ("resume", "resume app", "resume app2", "enable app", "enable app2"):
                do(command)
            seen = chaos.served
            eventually(lambda: chaos.served > seen, "somebody gets in", 10)
        if process == 0:
            pooler = next_of(t, old, name="new", **settings)
    chaos.end()
    same(old.wait_exit(15), 0)
    with pooler.console(host=pooler.settings["unix_socket_dir"]) as console:
        eventually(lambda: {row["user"] for row in rows(console, "clients")} == {"admin"}, "all have left", 10)
        eventually(lambda: sum(int(row["cl_active"]) + int(row["cl_waiting"])
                               for row in console.table("show pools") if row["database"] != "pgbouncer") == 0,
                   "nobody is counted in a pool", 15)
        lists = {row["list"]: row["items"] for row in console.table("show lists")}
        same((lists["login_clients"], lists["used_clients"]), ("0", "1"))

    def gets_in(user, password):
        try:
            return who(pooler, user, password) == user
        except pgwire.PgError as error:
            # A question that the name server has not answered is asked again after some seconds only.
            assert "client_login_timeout" in error.text, error
            return False
    for user, password in Chaos.KINDS[:3]:
        eventually(lambda: gets_in(user, password), f"{user} gets in", 20)
