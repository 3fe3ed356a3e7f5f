"""A real time-stamping authority: OpenSSL's, behind a server on loopback."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

OPENSSL_S_MAX: Final = 30
CONFIG: Final = """\
[tsa]
default_tsa = tsa_config
[tsa_config]
dir = {dir}
serial = {dir}/serial
crypto_device = builtin
signer_cert = {dir}/tsa.crt
signer_key = {dir}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1
ordering = yes
tsa_name = yes
ess_cert_id_chain = no
[req]
distinguished_name = dn
prompt = no
[dn]
CN = test
[root_extensions]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[tsa_extensions]
basicConstraints = CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


class Tsa:
    """``url``, ``root``: its root's certificate. ``answer``: what to do with an answer before it goes out."""

    def __init__(self, directory: Path, url: str) -> None:
        self.url = url
        self.root = directory / "root.crt"
        self.directory = directory
        self.asked = 0

    def answer(self, reply: bytes) -> bytes:
        return reply


@contextmanager
def tsa(directory: Path) -> Iterator[Tsa]:
    """Answers on a free port."""
    _make(directory)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            running.asked += 1
            body = running.answer(_reply(directory, query))
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running = Tsa(directory, f"http://127.0.0.1:{server.server_port}/tsa")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def verified(running: Tsa, token: bytes, data: bytes) -> bool:
    """Whether OpenSSL, who trusts the root, finds the token to be of *data*."""
    (running.directory / "data").write_bytes(data)
    (running.directory / "token").write_bytes(token)
    asked = subprocess.run(
        ["openssl", "ts", "-verify", "-data", "data", "-in", "token", "-CAfile", "root.crt"],
        cwd=running.directory,
        capture_output=True,
        timeout=OPENSSL_S_MAX,
        check=False,
    )
    return asked.returncode == 0


def _reply(directory: Path, query: bytes) -> bytes:
    (directory / "query").write_bytes(query)
    _openssl(directory, "ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query", "-out", "reply")
    return (directory / "reply").read_bytes()


def _make(directory: Path) -> None:
    (directory / "tsa.cnf").write_text(CONFIG.format(dir=directory))
    (directory / "serial").write_text("01\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", "tsa.cnf"]
    root = ["-x509", "-days", "2", "-subj", "/CN=root", "-extensions", "root_extensions"]
    _openssl(directory, "req", *key, *root, "-keyout", "root.key", "-out", "root.crt")
    _openssl(directory, "req", *key, "-subj", "/CN=tsa", "-keyout", "tsa.key", "-out", "tsa.csr")
    signing = ["-CA", "root.crt", "-CAkey", "root.key", "-CAcreateserial", "-days", "2"]
    extensions = ["-extfile", "tsa.cnf", "-extensions", "tsa_extensions"]
    _openssl(directory, "x509", "-req", "-in", "tsa.csr", *signing, *extensions, "-out", "tsa.crt")


def _openssl(directory: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], cwd=directory, capture_output=True, text=True, timeout=OPENSSL_S_MAX, check=False
    )
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr[-2000:]}")
