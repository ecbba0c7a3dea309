"""A name server that answers as the test wants: right, wrong, late, cut off, or not at all."""

import os
import socket
import struct
import threading

TYPES = {"A": 1, "SOA": 6, "AAAA": 28}
NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3


def encode_name(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


class NameServer:
    """`records` is {name: {type: [address] or serial}}; a name that is not there is NXDOMAIN, a type NODATA.

    `silent`, `failing` and `cut` hold names, or (name, type), whose questions get no answer, SERVFAIL, or over UDP one
    that is truncated; `garbage` answers everything with those bytes. `seen` is what was asked: (name, type, "udp" or
    "tcp"). All may be changed at any time."""

    def __init__(self, test, records=None):
        self.records = dict(records or {})
        self.silent, self.failing, self.cut = set(), set(), set()
        self.garbage = None
        self.seen = []
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        while True:
            self.tcp = socket.create_server(("127.0.0.1", 0))
            self.port = self.tcp.getsockname()[1]
            try:
                self.udp.bind(("127.0.0.1", self.port))
                break
            except OSError:
                self.tcp.close()
        self.resolv_conf = os.path.join(test.folder, f"resolv-{self.port}.conf")
        with open(self.resolv_conf, "w") as file:
            file.write(f"nameserver 127.0.0.1:{self.port}\n")
        for serve in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=serve, daemon=True).start()

    def asked(self, name, kind="A"):
        """How often."""
        return sum(1 for seen in self.seen if seen[:2] == (name, kind))

    # the server's threads

    def _serve_udp(self):
        while True:
            question, sender = self.udp.recvfrom(4096)
            answer = self._answer(question, "udp")
            if answer is not None:
                self.udp.sendto(answer, sender)

    def _serve_tcp(self):
        while True:
            taken, _ = self.tcp.accept()
            threading.Thread(target=self._serve_stream, args=(taken,), daemon=True).start()

    def _serve_stream(self, taken):
        stream = taken.makefile("rwb")
        while size := stream.read(2):
            answer = self._answer(stream.read(struct.unpack("!H", size)[0]), "tcp")
            if answer is not None:
                stream.write(struct.pack("!H", len(answer)) + answer)
                stream.flush()

    def _answer(self, question, transport):
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1:at + 1 + question[at]].decode())
            at += 1 + question[at]
        name, number = ".".join(labels), struct.unpack("!H", question[at + 1:at + 3])[0]
        kind = next((key for key, value in TYPES.items() if value == number), str(number))
        self.seen.append((name, kind, transport))
        if self.garbage is not None:
            return self.garbage
        if {name, (name, kind)} & self.silent:
            return None
        asked, status, answers, flags = question[12:at + 5], NOERROR, [], 0x8180
        if {name, (name, kind)} & self.failing:
            status = SERVFAIL
        elif name not in self.records:
            status = NXDOMAIN
        elif transport == "udp" and {name, (name, kind)} & self.cut:
            flags |= 0x0200
        else:
            found = self.records[name].get(kind, [])
            if kind == "SOA" and found != []:
                answers = [encode_name("ns." + name) + encode_name("root." + name) +
                           struct.pack("!5I", found, 60, 60, 60, 60)]
            elif kind in ("A", "AAAA"):
                family = socket.AF_INET if kind == "A" else socket.AF_INET6
                answers = [socket.inet_pton(family, address) for address in found]
        body = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", number, 1, 3600, len(data)) + data for data in answers)
        return question[:2] + struct.pack("!HHHHH", flags | status, 1, len(answers), 0, 0) + asked + body
