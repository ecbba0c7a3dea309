#!/usr/bin/python3
"""Makes tests/golden/hba_addresses.txt: which addresses an HBA line's ADDRESS matches, by Python's ipaddress.

    tests/tools/hba_addresses.py > tests/golden/hba_addresses.txt
"""
import ipaddress
import random

random.seed(20)
print("""# ADDRESS of an HBA line, a client's address, and whether the line is for that client: yes, no, or bad (the
# line cannot be read). Made by tests/tools/hba_addresses.py with Python's ipaddress; read by tests/unit/test_hba.c.""")


def say(address, client, answer):
    print(f"{address}|{client}|{answer}")


def judge(text, client):
    """`text` is a network as ipaddress reads it, strictly: bits outside of the mask match nobody."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return "no"
    client = ipaddress.ip_address(client)
    return "yes" if client.version == network.version and client in network else "no"


def near(network):
    """Addresses in it, at its edges, and one bit away."""
    first, last = int(network.network_address), int(network.broadcast_address)
    most = 2 ** network.max_prefixlen - 1
    kind = type(network.network_address)
    flipped = first ^ 1 << random.randrange(network.max_prefixlen)
    return {str(kind(value)) for value in (first, last, max(first - 1, 0), min(last + 1, most),
                                           random.randint(first, last), flipped)}


def networks():
    for bits in range(33):
        yield ipaddress.IPv4Network((random.getrandbits(32) >> (32 - bits) << (32 - bits) if bits else 0, bits))
    for bits in list(range(0, 129, 5)) + [1, 7, 8, 9, 63, 64, 127, 128]:
        yield ipaddress.IPv6Network((random.getrandbits(128) >> (128 - bits) << (128 - bits) if bits else 0, bits))


for network in networks():
    spellings = [str(network), f"{network.network_address} {network.netmask}"]
    if network.version == 6:
        spellings.append(f"{network.network_address.exploded}/{network.prefixlen}")
        spellings.append(f"{str(network.network_address).upper()}/{network.prefixlen:03}")
    for client in sorted(near(network)):
        say(random.choice(spellings), client, judge(str(network), client))
    # A bit outside of the mask.
    if 0 < network.prefixlen < network.max_prefixlen:
        wrong = type(network.network_address)(int(network.network_address) | 1)
        for client in (str(wrong), str(network.network_address)):
            say(f"{wrong}/{network.prefixlen}", client, judge(f"{wrong}/{network.prefixlen}", client))

for address in ("0.0.0.0/0", "127.0.0.1/32", "::ffff:127.0.0.1/128", "::ffff:0:0/96", "::/0", "::1/128"):
    for client in ("127.0.0.1", "::ffff:127.0.0.1", "::1", "::", "255.255.255.255"):
        say(address, client, judge(address, client))
for client in ("127.0.0.1", "::1"):
    say("all", client, "yes")

# A mask with holes is a mask, too.
for address, mask in (("10.0.0.7", "255.0.0.255"), ("1.2.3.4", "255.255.0.255"), ("0.0.0.1", "0.0.0.1")):
    value, bits = int(ipaddress.ip_address(address)), int(ipaddress.ip_address(mask))
    for client in ("10.1.2.7", "10.1.2.8", "11.1.2.7", "1.2.9.4", "1.2.3.4", "0.0.0.3"):
        say(f"{address} {mask}", client,
            "yes" if int(ipaddress.ip_address(client)) & bits == value else "no")

for address in ("127.0.0.0/33", "::/129", "127.0.0.0/", "127.0.0.0/-1", "127.0.0.0/+8", "127.0.0.0/8x", "127.0.0.0/8/8",
                "127.0.0.0/1000", "127.0.0.0 /8", "127.0.0.1", "::1", "127/8", "127.0.0/8", "127.0.0.256/32",
                "0x7f.0.0.1/32", "127.0.0.1 ::1", '127.0.0.1 "255.255.255.255"', "::1 255.255.255.255", "localhost", "samehost", "samenet", ".example.com",
                "/8", "1::2::3/64", "fe80::1%eth0/64", "[::1]/128", '"127.0.0.1/32"', '"all"', "All", "127.0.0.1,127.0.0.2",
                "1234567890123456789012345678901234567890123456789012345678901234567890/8"):
    say(address, "127.0.0.1", "bad")
