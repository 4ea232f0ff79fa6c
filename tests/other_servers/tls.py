"""TLS in front of a server without it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPENSSL = shutil.which("openssl")  # which makes the certificate


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1, and its key."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    assert OPENSSL is not None
    command = [OPENSSL, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def _shut(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):  # it is shut already
            end.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):  # one of the two is gone
        while data := source.recv(65536):
            target.sendall(data)
    _shut(source, target)


@contextmanager
def behind_tls(port: int, certificate: Path, key: Path) -> Iterator[int]:
    """Accept TLS on a port of its own, and forward the data.

    Args:
        port: of 127.0.0.1, where the server listens.
        certificate: what it shows.
        key: the certificate's.

    Yields:
        The port on which TLS is spoken.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listening = socket.create_server(("127.0.0.1", 0))
    opened: list[socket.socket] = [listening]
    threads: list[threading.Thread] = []

    def start(target: object, *arguments: object) -> None:
        threads.append(threading.Thread(target=target, args=arguments, daemon=True))  # type: ignore[arg-type]
        threads[-1].start()

    def serve() -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                taken, _ = listening.accept()
                opened.append(taken)
                try:
                    near = context.wrap_socket(taken, server_side=True)
                except ssl.SSLError:
                    continue  # a client that does not trust us
                far = socket.create_connection(("127.0.0.1", port))
                opened.extend((near, far))
                start(_pump, near, far)
                start(_pump, far, near)

    start(serve)
    try:
        yield listening.getsockname()[1]
    finally:
        _shut(*opened)
        for thread in threads:
            thread.join(timeout=5)
        for each in opened:
            each.close()
