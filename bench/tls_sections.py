"""The benchmark's sections about TLS; bench.py runs them.

Both poolers get the same certificates, one protocol version and one cipher, so that neither gains by an easier choice; the
clients are pgbench and bench/tls_storm.c, OpenSSL both. What was really agreed upon is looked at in each run."""
import os
import re
import statistics
import subprocess
import sys

# Protocol -> (setting of the poolers, cipher with an ECDSA certificate, with an RSA one).
PROTOCOLS = {
    "1.3": ("tlsv1.3", "TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
    "1.2": ("tlsv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
}
KEYS = {
    "ecdsa": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
    "rsa": ["-newkey", "rsa:2048"],
}


def cipher_of(protocol, certificate):
    return PROTOCOLS[protocol][1 if certificate == "ecdsa" else 2]


def median_of(results):
    return {key: statistics.median([r[key] for r in results]) for key in results[0]}


def ratio_of(found, key, over="pgsplice", under="pgbouncer"):
    """Of the same round, then the median; nothing when only one of them is measured."""
    if over not in found or under not in found:
        return None
    return statistics.median([a[key] / b[key] for a, b in zip(found[over], found[under])])


class TlsSections:
    def tls(self):
        self.tls_idle()
        self.tls_handshakes()
        self.tls_storm()
        self.tls_pgbench()
        self.tls_bulk()

    # what they share

    def tls_file(self, certificate, kind):
        folder = os.path.join(self.folder, "tls")
        if not os.path.isdir(folder):
            os.mkdir(folder)
            self.give(folder)
            for name, key in KEYS.items():
                files = [os.path.join(folder, f"{name}.{end}") for end in ("crt", "key")]
                subprocess.run(["openssl", "req", "-x509", *key, "-noenc", "-days", "30", "-subj", "/CN=localhost", "-addext",
                                "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", files[0], "-keyout", files[1]],
                               check=True, capture_output=True)
                os.chmod(files[1], 0o600)
                for path in files:
                    self.give(path)
        return os.path.join(folder, f"{certificate}.{kind}")

    def tls_start(self, what, protocol, certificate="ecdsa", server=False, **more):
        """A pooler that takes clients with TLS and without; `server`: it speaks TLS to PostgreSQL, too. PgBouncer 1.18 cannot
        name ciphers of TLS 1.3, so OpenSSL's configuration does."""
        name, *_ = PROTOCOLS[protocol]
        cipher = cipher_of(protocol, certificate)
        settings = (f"client_tls_sslmode = allow\nclient_tls_cert_file = {self.tls_file(certificate, 'crt')}\n"
                    f"client_tls_key_file = {self.tls_file(certificate, 'key')}\nclient_tls_protocols = {name}\n")
        if protocol == "1.2":
            settings += f"client_tls_ciphers = {cipher}\nserver_tls_ciphers = {cipher}\n"
        elif what == "pgsplice":
            settings += f"client_tls13_ciphers = {cipher}\nserver_tls13_ciphers = {cipher}\n"
        if server:
            settings += f"server_tls_sslmode = require\nserver_tls_protocols = {name}\n"
        return self.start(what, settings=settings, environment=self.openssl_rules(), **more)

    def openssl_rules(self):
        """For what cannot be told otherwise: pgbench's cipher, and PgBouncer's with TLS 1.3."""
        path = os.path.join(self.folder, "openssl.cnf")
        if not os.path.exists(path):
            with open(path, "w") as file:
                file.write("openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = rules\n[rules]\n"
                           f"Ciphersuites = {PROTOCOLS['1.3'][1]}\n")
        return {"OPENSSL_CONF": path}

    def tls_client(self, protocol, certificate, *arguments, popen=False):
        """One run of tls_storm: its line as a dictionary. `popen`: a running one, which has said `ready` or `open`."""
        environment = {**os.environ, "TLS_PROTOCOL": protocol}
        if protocol != "none":
            environment["TLS_CIPHER"] = cipher_of(protocol, certificate)
        if self.options.groups:
            environment["TLS_GROUPS"] = self.options.groups
        command = [os.path.join(self.options.out, self.options.client), *[str(a) for a in arguments]]
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        if popen:
            line = client.stdout.readline()
            if not line:
                sys.exit(f"{' '.join(command)} failed")
            return client, line
        return self.tls_result(client, protocol, certificate)

    def tls_result(self, client, protocol, certificate):
        out = client.communicate()[0]
        if client.returncode != 0:
            sys.exit("the TLS clients failed")
        values = dict(word.split("=", 1) for word in out.splitlines()[-1].split())
        self.tls_check(values.pop("tls"), protocol, certificate)
        return {key: float(value) for key, value in values.items()}

    def tls_check(self, agreed, protocol, certificate):
        wanted = "none" if protocol == "none" else f"TLSv{protocol}/{cipher_of(protocol, certificate)}/"
        if not agreed.startswith(wanted):
            sys.exit(f"agreed upon {agreed}, wanted {wanted}")
        self.agreed.add(agreed)

    def server_tls(self, is_on, certificate="ecdsa"):
        """PostgreSQL begins or stops to offer TLS; new connections only."""
        for command in (f"alter system set ssl_cert_file = '{self.tls_file(certificate, 'crt')}'",
                        f"alter system set ssl_key_file = '{self.tls_file(certificate, 'key')}'",
                        f"alter system set ssl = {'on' if is_on else 'off'}", "select pg_reload_conf()"):
            self.sql(command)
        while (self.sql("show ssl").strip() == "on") != is_on:
            pass

    def in_turn(self, poolers, measure):
        """{what: [result of each round]}; who begins alternates."""
        found = {what: [] for what in poolers}
        for round_number in range(self.options.rounds):
            order = list(poolers)
            for what in order if round_number % 2 == 0 else reversed(order):
                found[what].append(measure(what, *poolers[what][:2]))
        return found

    def judge_ratio(self, text, ratio, limit, at_most):
        if ratio is not None:
            self.judge(f"{text}, pgsplice/PgBouncer", ratio, limit, at_most)

    # the sections

    def tls_idle(self):
        """Opened one after the other, and 16 at a time, when handshakes' memory lies between that of sessions."""
        count = 500 if self.options.quick else 4000
        self.say(f"\n## TLS: resident memory of {count} idle clients\n")
        self.say("| protocol | opened | what | before MiB | after MiB | bytes for each |")
        self.say("|---|---|---|---|---|---|")
        each = {}
        for protocol, at_once in (("none", 1), ("1.3", 1), ("1.3", 16), ("1.2", 1), ("1.2", 16)):
            for what in self.poolers:
                process, port, stop = self.tls_start(what, "1.3" if protocol == "none" else protocol)

                def idle(count):
                    return self.tls_client(protocol, "ecdsa", "idle", port, "postgres", "postgres", count, at_once, popen=True)
                idle(50)[0].communicate()  # the heap and the pool are warm
                before = process.rss_bytes()
                client, line = idle(count)
                self.tls_check(re.search(r"tls=(\S+)", line)[1], protocol, "ecdsa")
                after = process.rss_bytes()
                each[protocol, at_once, what] = (after - before) / count
                self.record("tls_idle", what, protocol=protocol, at_once=at_once, before=before, after=after,
                            bytes_each=each[protocol, at_once, what])
                self.say(f"| {protocol} | {at_once} at a time | {what} | {before / 2**20:.1f} | {after / 2**20:.1f} | "
                         f"{each[protocol, at_once, what]:.0f} |")
                client.communicate()
                stop()
        self.say()
        for protocol, at_once in (("1.3", 1), ("1.3", 16), ("1.2", 1), ("1.2", 16)):
            if len(self.poolers) == 2:
                self.judge_ratio(f"resident bytes of an idle client, TLS {protocol}, opened {at_once} at a time",
                                 each[protocol, at_once, "pgsplice"] / each[protocol, at_once, "pgbouncer"], 0.5, True)

    def tls_handshakes(self):
        self.say("\n## TLS: handshakes per second (full; login and Terminate with each; 16 at a time)\n")
        self.say("| protocol | certificate | what | logins/s | pooler CPU us each | client CPU us each | client's share |")
        self.say("|---|---|---|---|---|---|---|")
        ratios = {}
        for protocol, certificate in (("none", "ecdsa"), ("1.3", "ecdsa"), ("1.3", "rsa"), ("1.2", "ecdsa"), ("1.2", "rsa")):
            poolers = {what: self.tls_start(what, "1.3" if protocol == "none" else protocol, certificate)
                       for what in self.poolers}

            def measure(_, process, port):
                cpu = process.cpu_us()
                result = self.tls_client(protocol, certificate, "logins", port, "postgres", "postgres",
                                         self.options.seconds, 16)
                return {"per_second": result["count"] / result["seconds"],
                        "cpu_us": (process.cpu_us() - cpu) / result["count"],
                        "client_us": result["own_cpu"] * 1e6 / result["count"]}
            found = self.in_turn(poolers, measure)
            for what, results in found.items():
                row = median_of(results)
                self.record("tls_handshakes", what, protocol=protocol, certificate=certificate, **row)
                self.say(f"| {protocol} | {'-' if protocol == 'none' else certificate} | {what} | {row['per_second']:.0f} | "
                         f"{row['cpu_us']:.0f} | {row['client_us']:.0f} | "
                         f"{row['client_us'] / (row['client_us'] + row['cpu_us']):.2f} |")
                poolers[what][2]()
            ratios[protocol, certificate] = [ratio_of(found, key) for key in ("per_second", "cpu_us")]
        self.say()
        for (protocol, certificate), (rate, cpu) in ratios.items():
            if protocol != "none":
                target = 1.5 if certificate == "ecdsa" else 0.8
                self.judge_ratio(f"handshakes per second, TLS {protocol}, {certificate}", rate, target, False)
                self.judge_ratio(f"CPU per handshake, TLS {protocol}, {certificate}", cpu, round(1 / target, 2), True)

    def tls_storm(self):
        """Ten busy clients, alone and while others shake hands: at a rate that both poolers can bear, so that they carry the
        same; then as fast as each of them lets it."""
        self.say("\n## TLS: ten busy clients while a storm of handshakes goes on (1.3, 16 at a time)\n")
        self.say("| certificate | storm | what | quiet p50 us | quiet p99 us | storm p50 us | storm p99 us | storm max ms | "
                 "storm tx/s | logins/s | p99 storm/quiet |")
        self.say("|---|---|---|---|---|---|---|---|---|---|---|")
        ratios = {}
        for certificate in ("ecdsa", "rsa"):
            poolers = {what: self.tls_start(what, "1.3", certificate) for what in self.poolers}
            for rate in (500, 0):
                def measure(_, process, port):
                    def busy(seconds):
                        return self.tls_client("1.3", certificate, "busy", port, "postgres", "postgres", seconds, 10)
                    busy(1)  # PostgreSQL's caches and the pool's servers
                    quiet = busy(self.options.seconds)
                    client, _ = self.tls_client("1.3", certificate, "busy", port, "postgres", "postgres", 0, 10, popen=True)
                    storm = self.tls_client("1.3", certificate, "logins", port, "postgres", "postgres", self.options.seconds,
                                            16, rate)
                    result = self.tls_result(client, "1.3", certificate)
                    return {"quiet_p50": quiet["p50"], "quiet_p99": quiet["p99"], "p50": result["p50"], "p99": result["p99"],
                            "max": result["max"], "tps": result["count"] / result["seconds"],
                            "storm_rate": storm["count"] / storm["seconds"], "ratio": result["p99"] / quiet["p99"]}
                found = self.in_turn(poolers, measure)
                text = f"{rate}/s" if rate else "unlimited"
                for what, results in found.items():
                    row = median_of(results)
                    self.record("tls_storm", what, certificate=certificate, rate=rate, **row)
                    self.say(f"| {certificate} | {text} | {what} | {row['quiet_p50']:.0f} | {row['quiet_p99']:.0f} | "
                             f"{row['p50']:.0f} | {row['p99']:.0f} | {row['max'] / 1000:.1f} | {row['tps']:.0f} | "
                             f"{row['storm_rate']:.0f} | {row['ratio']:.2f} |")
                ratios[certificate, text] = ratio_of(found, "p99")
            for _, _, stop in poolers.values():
                stop()
        self.say()
        for (certificate, text), ratio in ratios.items():
            self.judge_ratio(f"p99 of busy clients during a storm, {certificate}, {text}", ratio, 1.0, True)

    def tls_pgbench(self):
        self.say("\n## TLS: pgbench -S, pool of 40, one worker\n")
        self.say("Prepared: PgBouncer in session mode, pgsplice in transaction mode.\n")
        self.say("| protocol | query | clients | what | tx/s | p50 us | p99 us | CPU us/tx | user us/tx |")
        self.say("|---|---|---|---|---|---|---|---|---|")
        ratios = {}
        for protocol, mode in (("1.3", "simple"), ("1.3", "prepared"), ("1.2", "simple"), ("none", "simple")):
            poolers = {what: self.tls_start(what, "1.3" if protocol == "none" else protocol, pool=40,
                                            mode="session" if (mode, what) == ("prepared", "pgbouncer") else "transaction")
                       for what in self.poolers}
            environment = {"PGSSLMODE": "disable" if protocol == "none" else "require", **self.openssl_rules()}
            if protocol != "none":
                for _, port, _ in poolers.values():
                    self.tls_check(self.libpq_agreed(port, environment), protocol, "ecdsa")
            for clients in (1, 8, 32):
                found = self.in_turn(poolers, lambda _, process, port: self.one(
                    port, process, mode, clients, self.options.seconds, environment=environment))
                for what, results in found.items():
                    row = median_of(results)
                    self.record("tls_pgbench", what, protocol=protocol, mode=mode, clients=clients, **row)
                    self.say(f"| {protocol} | {mode} | {clients} | {what} | {row['tps']:.0f} | {row['p50_us']:.0f} | "
                             f"{row['p99_us']:.0f} | {row['cpu_us']:.2f} | {row['user_us']:.2f} |")
                if protocol != "none":
                    ratios[protocol, mode, clients] = ratio_of(found, "cpu_us"), ratio_of(found, "tps")
            for _, _, stop in poolers.values():
                stop()
        self.say()
        for (protocol, mode, clients), (cpu, tps) in ratios.items():
            self.judge_ratio(f"CPU per transaction, TLS {protocol}, {mode}, {clients} clients", cpu, 0.9, True)
            self.judge_ratio(f"tx/s, TLS {protocol}, {mode}, {clients} clients", tps, 1.0, False)

    def libpq_agreed(self, port, environment):
        out = subprocess.run(["psql", "-X", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-c", "\\conninfo", "postgres"],
                             check=True, capture_output=True, text=True, env={**os.environ, **environment}).stdout
        words = re.search(r"protocol: ([^,]+), cipher: ([^,]+),", out)
        return f"{words[1]}/{words[2]}/" if words else "none"

    def tls_bulk(self):
        megabytes = 200 if self.options.quick else 1000
        self.say(f"\n## TLS: {megabytes} MB through the pooler\n")
        self.say("| TLS to | protocol | what | answer | MB/s | pooler CPU s/GB | client CPU s/GB | client's reads of KB |")
        self.say("|---|---|---|---|---|---|---|---|")
        queries = {
            "COPY": f"copy (select repeat('x', 8000) from generate_series(1, {megabytes * 125})) to stdout (format binary)",
            "rows": f"select repeat('x', 1000) from generate_series(1, {megabytes * 500})",
        }
        ratios = {}
        for sides, protocol in (("nobody", "none"), ("client", "1.3"), ("client", "1.2"), ("both", "1.3"), ("both", "1.2")):
            if sides == "both":
                self.server_tls(True)
            poolers = {what: self.tls_start(what, "1.3" if protocol == "none" else protocol, server=sides == "both")
                       for what in self.poolers}
            if sides == "both":
                for _, port, _ in poolers.values():
                    self.tls_check(self.sql("select version || '/' || cipher || '/' from pg_stat_ssl "
                                            "where pid = pg_backend_pid()", port).strip(), protocol, "ecdsa")
            for answer, query in queries.items():
                def measure(_, process, port):
                    cpu = process.cpu_us()
                    result = self.tls_client(protocol, "ecdsa", "read", port, "postgres", "postgres", query)
                    gigabytes = result["bytes"] / 1e9
                    return {"mb_s": gigabytes * 1000 / result["seconds"],
                            "cpu_s_gb": (process.cpu_us() - cpu) / 1e6 / gigabytes,
                            "client_s_gb": result["own_cpu"] / gigabytes,
                            "read_kb": result["bytes"] / result["reads"] / 1000}
                found = self.in_turn(poolers, measure)
                for what, results in found.items():
                    row = median_of(results)
                    self.record("tls_bulk", what, sides=sides, protocol=protocol, answer=answer, **row)
                    self.say(f"| {sides} | {protocol} | {what} | {answer} | {row['mb_s']:.0f} | {row['cpu_s_gb']:.3f} | "
                             f"{row['client_s_gb']:.3f} | {row['read_kb']:.1f} |")
                ratios[sides, protocol, answer] = ratio_of(found, "mb_s"), ratio_of(found, "cpu_s_gb")
            for _, _, stop in poolers.values():
                stop()
            if sides == "both":
                self.server_tls(False)
        self.say()
        for (sides, protocol, answer), (rate, cpu) in ratios.items():
            if protocol != "none":
                self.judge_ratio(f"{answer} MB/s, TLS {protocol} to {sides}", rate, 1.0, False)
                self.judge_ratio(f"{answer} CPU per GB, TLS {protocol} to {sides}", cpu, 1.0, True)
