"""The server on real sockets: TCP, TLS and unix sockets, with bodies larger than any buffer."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.client
import os
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from synapse.api.routes import Auth, find
from synapse.http.server import Drain, FileAnswer, Request, Router
from synapse.http.site import Site

SIZE = 3_000_000
UPLOAD = "/_matrix/media/v3/upload"
DOWNLOAD = "/_matrix/media/v3/download/x/y"
DATA = os.urandom(SIZE)


class Files:
    """An endpoint that takes a file and one that gives it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "file"
        self._path.write_bytes(DATA)
        self.secure: set[bool] = set()

    async def upload(self, request: Request) -> dict[str, Any]:
        self.secure.add(request.raw.secure)
        request.stream.limit(request.int_arg("limit", SIZE))
        digest = hashlib.sha256()
        while piece := await request.stream.read():
            digest.update(piece)
        return {"digest": digest.hexdigest()}

    async def download(self, request: Request, **params: str) -> FileAnswer:
        return FileAnswer(self._path.open("rb"), "image/png")


def _certificate(directory: Path) -> tuple[str, str]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    paths = directory / "key.pem", directory / "certificate.pem"
    paths[0].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    paths[1].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return str(paths[0]), str(paths[1])


@pytest.fixture
def directory() -> Iterator[Path]:
    # The path of a unix socket is short; that of pytest's directories may not be.
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


class Listening:
    def __init__(self, directory: Path, kind: str) -> None:
        from twisted.internet import reactor

        twisted: Any = reactor
        self.files = Files(directory)
        self._kind = kind
        router = Router(Drain(twisted))
        router.mount(replace(find("media_upload"), auth=Auth.NONE), self.files.upload)
        router.mount(replace(find("media_download"), auth=Auth.NONE), self.files.download)
        site: Any = Site(router, twisted, {"media"})
        self._path = str(directory / "s")
        if kind == "unix":
            self.port = twisted.listenUNIX(self._path, site)
        elif kind == "tls":
            from twisted.internet.ssl import DefaultOpenSSLContextFactory
            from twisted.protocols.tls import TLSMemoryBIOFactory

            context: Any = DefaultOpenSSLContextFactory
            site = TLSMemoryBIOFactory(context(*_certificate(directory)), False, site)
            self.port = twisted.listenTCP(0, site, interface="127.0.0.1")
        else:
            self.port = twisted.listenTCP(0, site, interface="127.0.0.1")

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost", timeout=20)
        if self._kind == "unix":
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(20)
            connection.sock.connect(self._path)
            return connection
        connection.sock = socket.create_connection(("127.0.0.1", self.port.getHost().port), timeout=20)
        if self._kind == "tls":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection.sock = context.wrap_socket(connection.sock)
        return connection


@pytest_twisted.async_yield_fixture(params=["tcp", "tls", "unix"])
async def listening(directory: Path, request: pytest.FixtureRequest) -> AsyncIterator[Listening]:
    found = Listening(directory, request.param)
    yield found
    await found.port.stopListening()


def _exchange(connection: http.client.HTTPConnection, *request: Any, **options: Any) -> tuple[int, bytes]:
    connection.request(*request, **options)
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest_twisted.ensureDeferred
async def test_large_bodies_go_both_ways_over_one_connection(listening: Listening) -> None:
    def talk() -> list[tuple[int, bytes]]:
        connection = listening.connect()
        answers = [
            _exchange(connection, "POST", UPLOAD, DATA),
            _exchange(connection, "POST", UPLOAD, iter([DATA[:7], DATA[7:]]), encode_chunked=True),
            _exchange(connection, "GET", DOWNLOAD),
            _exchange(connection, "HEAD", DOWNLOAD),
        ]
        connection.close()
        return answers

    first, chunked, download, head = await deferToThread(talk)
    digest = hashlib.sha256(DATA).hexdigest()
    assert first[0] == chunked[0] == 200
    assert orjson.loads(first[1]) == orjson.loads(chunked[1]) == {"digest": digest}
    assert hashlib.sha256(download[1]).hexdigest() == digest
    assert head == (200, b"")
    assert listening.files.secure == {listening._kind == "tls"}


@pytest_twisted.ensureDeferred
async def test_a_refusal_reaches_a_client_that_is_still_sending(listening: Listening) -> None:
    def talk() -> tuple[int, bytes]:
        connection = listening.connect()
        with contextlib.suppress(OSError):  # the server may have had enough; its answer is there all the same
            connection.request("POST", UPLOAD + "?limit=10", DATA)
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    code, body = await deferToThread(talk)
    assert code == 413
    assert orjson.loads(body)["errcode"] == "M_TOO_LARGE"
