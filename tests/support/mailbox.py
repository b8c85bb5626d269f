"""A mail server for tests: it takes mails over real SMTP, on a thread, and keeps them."""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from queue import Queue
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

WITHIN = 20.0  # seconds until a test gives a mail up


class Mailbox:
    """What arrived. `refusals` are answers to the next recipients, in place of taking them."""

    def __init__(self) -> None:
        self.port = 0
        self.refusals: list[str] = []
        self.farewell = "221 Bye"
        self.connections = 0
        self.encrypted: list[bool] = []  # of each mail, whether it came through TLS
        self._mails: Queue[EmailMessage] = Queue()

    def next(self) -> EmailMessage:
        """The oldest mail that was not asked for yet; waits for it (on a thread, please)."""
        return self._mails.get(timeout=WITHIN)

    @property
    def waiting(self) -> int:
        """How many mails were not asked for yet."""
        return self._mails.qsize()

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if self.refusals:
            return self.refusals.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_QUIT(self, server: Any, session: Any, envelope: Any) -> str:
        return self.farewell

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        mail["X-Envelope"] = f"{envelope.mail_from} {' '.join(envelope.rcpt_tos)}"
        self.encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        self._mails.put(mail)
        return "250 OK"


def text_of(mail: EmailMessage, kind: str = "plain") -> str:
    """The mail's text, or with `html` its HTML."""
    part = mail.get_body((kind,))
    assert part is not None
    return str(part.get_content())


def link_of(mail: EmailMessage) -> str:
    """The link in a mail's text."""
    found = re.search(r"https?://\S+", text_of(mail))
    assert found is not None, mail
    return found[0]


def _authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"synapse", b"a mail password")
    return AuthResult(success=good, handled=good)


@contextmanager
def mailbox(
    certificate: str | None = None, *, implicit_tls: bool = False, login: bool = False, smtputf8: bool = True
) -> Iterator[Mailbox]:
    """A mail server that listens on loopback. With a certificate (a PEM file with its key) it speaks TLS; with `login`
    it wants the user `synapse` with `a mail password`, where TLS is spoken only after STARTTLS.
    """
    box = Mailbox()
    context = None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    loop = asyncio.new_event_loop()

    def serve() -> SMTP:
        box.connections += 1
        return SMTP(
            box,
            hostname="mail.example",
            loop=loop,
            enable_SMTPUTF8=smtputf8,
            tls_context=None if implicit_tls else context,
            auth_required=login,
            auth_require_tls=context is not None and not implicit_tls,
            authenticator=_authenticate,
        )

    warnings.filterwarnings("ignore", "Requiring AUTH while not requiring TLS")  # tests of ours do, on purpose
    made = loop.create_server(serve, "127.0.0.1", 0, ssl=context if implicit_tls else None)
    server = loop.run_until_complete(made)
    box.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, name="mailbox", daemon=True)
    thread.start()
    try:
        yield box
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.run_until_complete(_end(loop))
        loop.close()


async def _end(loop: asyncio.AbstractEventLoop) -> None:
    others = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
