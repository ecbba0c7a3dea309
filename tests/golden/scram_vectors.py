"""Works out exchanges of scram.txt with Python's hashlib and hmac, and nothing of ours: prints the blocks
that end in "Computed by scram_vectors.py". The first one is RFC 7677's own, to test this script."""

import base64
import hashlib
import hmac

SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
BOUND = "p=tls-server-end-point,,"


def b64(data):
    return base64.b64encode(data).decode()


def mac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def exchange(comment, role, password, name, client_nonce, server_nonce, gs2, binding=b""):
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), SALT, 4096)
    client_key, server_key = mac(salted, "Client Key"), mac(salted, "Server Key")
    stored_key = hashlib.sha256(client_key).digest()
    bare = f"n={name},r={client_nonce}"
    first = f"r={client_nonce}{server_nonce},s={b64(SALT)},i=4096"
    final = f"c={b64(gs2.encode() + binding)},r={client_nonce}{server_nonce}"
    signed = ",".join((bare, first, final))
    proof = bytes(a ^ b for a, b in zip(client_key, mac(stored_key, signed)))
    lines = [("role", role), ("password", password),
             ("secret", f"SCRAM-SHA-256$4096:{b64(SALT)}${b64(stored_key)}:{b64(server_key)}")]
    if binding:
        lines.append(("binding", binding.hex()))
    if role == "server":
        lines.append(("server_nonce", server_nonce))
    else:
        lines.append(("client_nonce", client_nonce))
    lines += [("gs2", gs2[0]), ("client_first", gs2 + bare), ("server_first", first),
              ("client_final", f"{final},p={b64(proof)}"), ("server_final", "v=" + b64(mac(server_key, signed)))]
    print(f"# {comment} Computed by scram_vectors.py.")
    print("\n".join(" ".join(line) for line in lines) + "\n")


RFC = ("rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
OURS = ("fyko+d2lbbFgONRv9qkxdawL", "3rfcNHYJY1ZVvWVs7j")
SHORT = hashlib.sha256(b"the certificate").digest()
LONG = hashlib.sha512(b"the certificate").digest()

exchange("RFC 7677 section 3 again.", "server", "pencil", "user", *RFC, "n,,")
exchange("SCRAM-SHA-256-PLUS, a certificate signed with SHA-256.", "server", "pencil", "", *RFC, BOUND, SHORT)
exchange("SCRAM-SHA-256-PLUS, a certificate signed with SHA-512, the longest hash.",
         "server", "pencil", "user", *RFC, BOUND, LONG)
exchange("SCRAM-SHA-256-PLUS, as client.", "client", "pencil", "", *OURS, BOUND, SHORT)
exchange("SCRAM-SHA-256-PLUS, as client, the longest hash.", "client", "pencil", "", *OURS, BOUND, LONG)
exchange("On TLS, but no PLUS in the server's list.", "client", "pencil", "", *OURS, "y,,")
exchange("Without a binding of ours, y is right.", "server", "pencil", "", *RFC, "y,,")
