"""A real LDAP server (slapd, mdb) in a folder of the test, on loopback."""

import os
import socket
import subprocess

from harness import Skip, as_os_user, eventually, free_port, give_to_os_user

SLAPD = "/usr/sbin/slapd"
BASE = "dc=example,dc=net"
PEOPLE = f"ou=people,{BASE}"
READER, READER_PASSWORD = f"cn=reader,{BASE}", "Reader pw,1"

CONF = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/slapd.pid
argsfile {folder}/slapd.args
# A bind with a name and without a password is anonymous and succeeds: the trap for poolers.
allow bind_anon_dn
{tls}
database mdb
suffix "{base}"
directory {folder}/data
maxsize 1048576
access to attrs=userPassword by anonymous auth
access to * by dn.exact="{reader}" read by * none
"""

TLS = """
TLSCACertificateFile {folder}/cert.pem
TLSCertificateFile {folder}/cert.pem
TLSCertificateKeyFile {folder}/key.pem
"""


class Slapd:
    """`people`: uid -> password. `mails`: uid -> mail."""

    def __init__(self, test, people, mails=None, tls=False):
        if not os.path.exists(SLAPD):
            raise Skip("slapd is not installed")
        self.folder = os.path.join(test.folder, "ldap")
        self.port = free_port(test.slot)
        self.tls_port = free_port(test.slot) if tls else None
        self.process = None
        os.makedirs(os.path.join(self.folder, "data"))
        if tls:
            self._make_certificate()
        self._write("slapd.conf", CONF.format(folder=self.folder, base=BASE, reader=READER,
                                              tls=TLS.format(folder=self.folder) if tls else ""))
        self._write("all.ldif", self._ldif(people, mails or {}))
        for name in ("", "data"):
            give_to_os_user(os.path.join(self.folder, name))
        subprocess.run([SLAPD, "-T", "add", "-f", self._path("slapd.conf"), "-l", self._path("all.ldif")],
                       check=True, capture_output=True, cwd="/", **as_os_user())
        self.start()

    def _path(self, name):
        return os.path.join(self.folder, name)

    def _write(self, name, content):
        with open(self._path(name), "w") as file:
            file.write(content)
        give_to_os_user(self._path(name))

    def _ldif(self, people, mails):
        entries = [f"dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: x\n",
                   f"dn: {PEOPLE}\nobjectClass: organizationalUnit\nou: people\n",
                   f"dn: {READER}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\n"
                   f"cn: reader\nuserPassword: {READER_PASSWORD}\n"]
        for uid, password in people.items():
            mail = f"mail: {mails[uid]}\n" if uid in mails else ""
            entries.append(f"dn: uid={uid},{PEOPLE}\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: {uid}\n"
                           f"sn: {uid}\n{mail}userPassword: {password}\n")
        return "\n".join(entries)

    def _make_certificate(self):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                        "-keyout", self._path("key.pem"), "-out", self._path("cert.pem"),
                        "-subj", "/CN=ldap", "-addext", "subjectAltName=IP:127.0.0.1"],
                       check=True, capture_output=True)
        for name in ("key.pem", "cert.pem"):
            give_to_os_user(self._path(name))

    @property
    def certificate(self):
        return self._path("cert.pem")

    def start(self):
        urls = f"ldap://127.0.0.1:{self.port}/"
        if self.tls_port:
            urls += f" ldap://127.0.0.2:{self.port}/ ldaps://127.0.0.1:{self.tls_port}/"
        with open(self._path("log"), "ab") as log:
            self.process = subprocess.Popen([SLAPD, "-f", self._path("slapd.conf"), "-h", urls, "-d", "stats"],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                            **as_os_user())

        def listens():
            assert self.process.poll() is None, self.log()[-1500:]
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return True
            except OSError:
                return False
        eventually(listens, "slapd listens", 10)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)

    def log(self):
        with open(self._path("log"), errors="replace") as file:
            return file.read()

    def options(self, rest):
        return f'ldapserver=127.0.0.1 ldapport={self.port} {rest}'
