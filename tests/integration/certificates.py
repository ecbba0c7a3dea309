"""The run's certificates: made by the openssl program when the first test wants them, for all tests.

They lie in the run's folder and are nobody's secret. What each of them is for stands in the tables below.
"""

import contextlib
import fcntl
import os
import subprocess

from harness import Skip, give_to_os_user

OPENSSL = "/usr/bin/openssl"

NOW = ("20200101000000Z", "20991231235959Z")
PAST = ("20200101000000Z", "20210101000000Z")
FUTURE = ("20900101000000Z", "20991231235959Z")

HERE = "DNS:localhost,IP:127.0.0.1,IP:::1"


def name_in_der(name):
    """An alternative name with a NUL in it, as the openssl program takes it: what a reader of C strings takes for another name."""
    one = bytes([0x82, len(name)]) + name.encode()
    return "DER:" + (bytes([0x30, len(one)]) + one).hex(":")


NUL_HOST = name_in_der("localhost\0.elsewhere.test")
NUL_USER = name_in_der("app\0.elsewhere.test")

# name: (issuer or None, subject)
AUTHORITIES = {
    "ca": (None, "/CN=CA of the tests"),
    "other-ca": (None, "/CN=another CA"),
    "intermediate": ("ca", "/CN=CA below the CA"),
}

# name: (issuer, key, subject, alternative names or None, purpose, from and to)
CERTIFICATES = {
    "server": ("ca", "ec", "/CN=server", HERE, "serverAuth", NOW),
    "server-new": ("ca", "ec", "/CN=server-new", HERE, "serverAuth", NOW),
    "server-rsa": ("ca", "rsa", "/CN=server", HERE, "serverAuth", NOW),
    "server-ed25519": ("ca", "ed25519", "/CN=server", HERE, "serverAuth", NOW),
    "server-chain": ("intermediate", "ec", "/CN=server", HERE, "serverAuth", NOW),
    "server-other": ("other-ca", "ec", "/CN=server", HERE, "serverAuth", NOW),
    "server-revoked": ("ca", "ec", "/CN=server", HERE, "serverAuth", NOW),
    "server-as-client": ("ca", "ec", "/CN=server", HERE, "clientAuth", NOW),
    "server-by-leaf": ("server", "ec", "/CN=server", HERE, "serverAuth", NOW),
    "localhost": ("ca", "ec", "/CN=server", "DNS:localhost", "serverAuth", NOW),
    "upper-case": ("ca", "ec", "/CN=server", "DNS:LocalHost", "serverAuth", NOW),
    "address": ("ca", "ec", "/CN=server", "IP:127.0.0.1,IP:::1", "serverAuth", NOW),
    "address-as-name": ("ca", "ec", "/CN=server", "DNS:127.0.0.1,DNS:::1", "serverAuth", NOW),
    "cn-localhost": ("ca", "ec", "/CN=localhost", None, "serverAuth", NOW),
    "cn-beside-names": ("ca", "ec", "/CN=localhost", "DNS:elsewhere.test", "serverAuth", NOW),
    "cn-address": ("ca", "ec", "/CN=127.0.0.1", None, "serverAuth", NOW),
    "wildcard": ("ca", "ec", "/CN=server", "DNS:*.pooler.test", "serverAuth", NOW),
    "elsewhere": ("ca", "ec", "/CN=server", "DNS:elsewhere.test,IP:10.9.8.7", "serverAuth", NOW),
    "nul-host": ("ca", "ec", "/CN=server", NUL_HOST, "serverAuth", NOW),
    "expired": ("ca", "ec", "/CN=server", HERE, "serverAuth", PAST),
    "early": ("ca", "ec", "/CN=server", HERE, "serverAuth", FUTURE),

    "app": ("ca", "ec", "/CN=app", None, "clientAuth", NOW),
    "app-rsa": ("ca", "rsa", "/CN=app", None, "clientAuth", NOW),
    "app-chain": ("intermediate", "ec", "/CN=app", None, "clientAuth", NOW),
    "app-san": ("ca", "ec", "/CN=nobody", "DNS:app", "clientAuth", NOW),
    "app-and-other": ("ca", "ec", "/CN=app", "DNS:other", "clientAuth", NOW),
    "app-expired": ("ca", "ec", "/CN=app", None, "clientAuth", PAST),
    "app-early": ("ca", "ec", "/CN=app", None, "clientAuth", FUTURE),
    "app-foreign": ("other-ca", "ec", "/CN=app", None, "clientAuth", NOW),
    "app-revoked": ("ca", "ec", "/CN=app", None, "clientAuth", NOW),
    "app-as-server": ("ca", "ec", "/CN=app", None, "serverAuth", NOW),
    "app-by-leaf": ("server", "ec", "/CN=app", None, "clientAuth", NOW),
    "app-nul": ("ca", "ec", "/CN=nobody", NUL_USER, "clientAuth", NOW),
    "app-in-capitals": ("ca", "ec", "/CN=APP", None, "clientAuth", NOW),
    "app-longer": ("ca", "ec", "/CN=app2", None, "clientAuth", NOW),
    "other": ("ca", "ec", "/CN=other", None, "clientAuth", NOW),
    "outside": ("ca", "ec", "/CN=alice.example", None, "clientAuth", NOW),
    "any-user": ("ca", "ec", "/CN=*", None, "clientAuth", NOW),
    "no-name": ("ca", "ec", "/O=has no common name", None, "clientAuth", NOW),
}

KEYS = {"ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["-newkey", "rsa:2048"],
        "ed25519": ["-newkey", "ed25519"]}

CONFIG = """
[req]
distinguished_name = none
[none]
[ca]
default_ca = {name}
[{name}]
database = {name}.index
serial = {name}.serial
certificate = {name}.crt
private_key = {name}.key
new_certs_dir = .
default_md = sha256
default_crl_days = 3000
unique_subject = no
policy = any
x509_extensions = leaf
copy_extensions = none
[any]
commonName = optional
organizationName = optional
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = {purpose}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
{names}
"""


class Certificates:
    def __init__(self, folder):
        self.folder = folder

    def path(self, name):
        """"ca" is the file of that authority's certificate, "server" that of the chain that the server sends."""
        return os.path.join(self.folder, name + ".crt")

    def key(self, name):
        return os.path.join(self.folder, name + ".key")

    @property
    def revoked(self):
        """The list of what "ca" has taken back."""
        return os.path.join(self.folder, "ca.crl")

    def of_clients(self, name, ca="ca", **more):
        """Settings of the pooler's side towards clients."""
        return {"client_tls_key_file": self.key(name), "client_tls_cert_file": self.path(name),
                "client_tls_ca_file": self.path(ca) if ca else None,
                **{f"client_tls_{key}": value for key, value in more.items()}}

    def of_servers(self, name=None, ca="ca", **more):
        """Settings of the pooler's side towards servers."""
        return {"server_tls_key_file": self.key(name) if name else None,
                "server_tls_cert_file": self.path(name) if name else None,
                "server_tls_ca_file": self.path(ca) if ca else None,
                **{f"server_tls_{key}": value for key, value in more.items()}}

    def of_postgres(self, name="server", ca=None, **more):
        """Settings of PostgreSQL."""
        return {"ssl": "on", "ssl_cert_file": self.path(name), "ssl_key_file": self.key(name),
                "ssl_ca_file": self.path(ca) if ca else "", **more}

    # making them

    def _openssl(self, *arguments):
        done = subprocess.run([OPENSSL, *arguments], cwd=self.folder, stdin=subprocess.DEVNULL, text=True,
                              capture_output=True)
        assert done.returncode == 0, f"openssl {' '.join(arguments)}: {done.stderr}"

    def _write(self, name, content):
        with open(os.path.join(self.folder, name), "w") as file:
            file.write(content)
        return name

    def _read(self, name):
        with open(os.path.join(self.folder, name)) as file:
            return file.read()

    def _request(self, name, key, subject):
        self._openssl("req", "-new", "-nodes", "-config", self._write("request.cnf", CONFIG.format(
            name=name, purpose="serverAuth", names="")), *KEYS[key], "-subj", subject, "-keyout", f"{name}.key",
            "-out", f"{name}.csr")

    def _sign(self, name, issuer, extensions, dates, purpose="serverAuth", names=None):
        config = self._write("sign.cnf", CONFIG.format(name=issuer, purpose=purpose,
                                                       names=f"subjectAltName = {names}" if names else ""))
        own = ["-selfsign"] if name == issuer else []
        self._openssl("ca", "-batch", "-notext", "-config", config, "-name", issuer, *own, "-keyfile", f"{issuer}.key",
                      "-extensions", extensions, "-startdate", dates[0], "-enddate", dates[1],
                      "-in", f"{name}.csr", "-out", f"{name}.crt")

    def _may_issue(self, name):
        self._write(f"{name}.index", "")
        self._write(f"{name}.serial", "1000\n")

    def make(self):
        for name, (issuer, subject) in AUTHORITIES.items():
            self._request(name, "ec", subject)
            self._may_issue(name)
            self._sign(name, issuer or name, "authority", NOW)
        for name, (issuer, key, subject, names, purpose, dates) in CERTIFICATES.items():
            if issuer not in AUTHORITIES and not os.path.exists(os.path.join(self.folder, f"{issuer}.index")):
                self._may_issue(issuer)
            self._request(name, key, subject)
            self._sign(name, issuer, "leaf", dates, purpose, names)
        for name in ("server-revoked", "app-revoked"):
            self._openssl("ca", "-config", "sign.cnf", "-name", self._as_ca(), "-revoke", f"{name}.crt")
        self._openssl("ca", "-config", "sign.cnf", "-name", self._as_ca(), "-gencrl", "-out", "ca.crl")
        # What a server or client sends: its own certificate first, then what leads to the authority.
        for name, (issuer, *_) in CERTIFICATES.items():
            if issuer != "ca" and issuer != "other-ca":
                self._write(f"{name}-alone.crt", self._read(f"{name}.crt"))
                self._write(f"{name}.crt", self._read(f"{name}.crt") + self._read(f"{issuer}.crt"))
                self._write(f"{name}-alone.key", self._read(f"{name}.key"))
        self._write("both-ca.crt", self._read("other-ca.crt") + self._read("ca.crt"))
        self._write("broken.crt", "-----BEGIN CERTIFICATE-----\nno base64\n-----END CERTIFICATE-----\n")
        self._write("broken.key", "nothing\n")
        for name in os.listdir(self.folder):
            os.chmod(os.path.join(self.folder, name), 0o600 if name.endswith(".key") else 0o644)
            give_to_os_user(os.path.join(self.folder, name))

    def _as_ca(self):
        self._write("sign.cnf", CONFIG.format(name="ca", purpose="serverAuth", names=""))
        return "ca"


def of(test):
    """The certificates of the run that this test belongs to."""
    return of_run(os.path.dirname(test.folder))


def of_run(folder):
    if not os.path.exists(OPENSSL):
        raise Skip("openssl is not installed")
    folder = os.path.join(folder, "certificates")
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(open(folder + ".lock", "w"))
        fcntl.flock(lock, fcntl.LOCK_EX)  # two jobs, one maker
        if not os.path.exists(os.path.join(folder, "made")):
            os.makedirs(folder, mode=0o755, exist_ok=True)
            give_to_os_user(folder)
            made = Certificates(folder)
            made.make()
            made._write("made", "")
    return Certificates(folder)
