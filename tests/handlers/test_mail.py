"""Mails, against a real mail server on loopback: what they are, TLS and logins, and what becomes of refusals."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from synapse.api.errors import MatrixError
from synapse.config.contacts import EmailConfig
from synapse.config.options import Secret
from synapse.handlers.mail import MAX_WAITING, PAUSES, Mailer
from synapse.handlers.smtp import MailProblem, MailServer
from synapse.metrics import table
from synapse.util.concurrency import spawn
from synapse.util.templates import Templates
from tests.support.elsewhere import Certificates
from tests.support.mailbox import Mailbox, link_of, mailbox, text_of

ALICE = "alice@example.org"
LINK = "https://test/_matrix?token=a&sid=b"
SUBJECT = "[%(server_name)s] Validate"
LOGIN: dict[str, Any] = {"smtp_user": "synapse", "smtp_pass": Secret("a mail password")}


class HurriedClock(Clock):
    """Time that passes at once."""

    def callLater(self, delay: float, callable: Any, *args: Any, **kw: Any) -> Any:
        made = super().callLater(delay, callable, *args, **kw)
        self.paused.append(delay)
        self.advance(delay)
        return made

    def __init__(self) -> None:
        super().__init__()
        self.paused: list[float] = []
        self.advance(1_700_000_000)


def mailer(port: int, clock: Any = None, **options: Any) -> Mailer:
    given = {"smtp_host": "localhost", "notif_from": "Your %(app)s server <noreply@example.org>"}
    config = EmailConfig(**{**given, "smtp_port": port, **options})
    post = MailServer.of(config, "test")
    return Mailer(config, Templates(None), post, clock or HurriedClock(), deferToThread, "test")


async def send(sender: Mailer, to: str = ALICE) -> None:
    await sender.send(to, SUBJECT, "add_threepid", {"link": LINK})


async def refused(doing: Any) -> tuple[int, str]:
    with pytest.raises(MatrixError) as caught:
        await doing
    return caught.value.code, caught.value.errcode


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificates:
    """Certificates that this process trusts."""
    certificates = Certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", certificates.path)
    return certificates


@pytest_twisted.ensureDeferred
async def test_a_mail_says_who_it_is_from_and_what_it_is_about() -> None:
    sent = table.MESSAGES.child("email", "sent")
    before = sent.value
    with mailbox() as box:
        await send(mailer(box.port, app_name="Märchen"))
        assert sent.value == before + 1
        mail = box.next()
    assert mail["From"] == "Your Märchen server <noreply@example.org>"
    assert (mail["To"], mail["Subject"]) == (ALICE, "[test] Validate")
    assert mail["X-Envelope"] == f"noreply@example.org {ALICE}"
    assert mail["Date"] == "Tue, 14 Nov 2023 22:13:20 -0000"
    assert mail["Message-ID"].endswith("@example.org>")
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content_type() == "multipart/alternative"
    assert link_of(mail) == LINK
    assert "a Märchen homeserver" in text_of(mail)
    assert 'href="https://test/_matrix?token=a&amp;sid=b"' in text_of(mail, "html")


@pytest_twisted.ensureDeferred
async def test_addresses_that_are_not_ascii() -> None:
    with mailbox() as box:
        await send(mailer(box.port), "alice@münchen.example")
        assert box.next()["X-Envelope"] == "noreply@example.org alice@xn--mnchen-3ya.example"
        await send(mailer(box.port), "älice@münchen.example")
        assert box.next()["X-Envelope"] == "noreply@example.org älice@xn--mnchen-3ya.example"
    with mailbox(smtputf8=False) as box:
        assert await refused(send(mailer(box.port), "älice@münchen.example")) == (503, "M_UNKNOWN")
        assert await refused(send(mailer(box.port), f"alice@{'ü' * 80}.example")) == (400, "M_INVALID_PARAM")
        assert box.waiting == 0


@pytest_twisted.ensureDeferred
async def test_nothing_can_be_slipped_into_the_headers() -> None:
    with mailbox() as box:
        sender = mailer(box.port)
        with pytest.raises(ValueError, match=r"(?i)header|newline|linefeed"):
            await sender.send(ALICE, "Hello\r\nBcc: eve@example.org", "add_threepid", {"link": LINK})
        assert box.waiting == 0


@pytest.mark.parametrize("way", ["starttls", "implicit", "other name"])
@pytest_twisted.ensureDeferred
async def test_tls_and_login(trusted: Certificates, way: str) -> None:
    options = LOGIN | {"implicit": {"force_tls": True}, "other name": {"smtp_host": "127.0.0.1"}}.get(way, {})
    if way == "other name":
        options["tlsname"] = "localhost"
    with mailbox(trusted.server_path, implicit_tls=way == "implicit", login=True) as box:
        await send(mailer(box.port, **options))
        assert link_of(box.next()) == LINK
        assert box.encrypted == [True]


@pytest.mark.parametrize("implicit", [False, True])
@pytest_twisted.ensureDeferred
async def test_certificates_that_prove_nothing(
    tmp_path: Path, trusted: Certificates, implicit: bool, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Certificates(tmp_path / "other")
    for certificates, options in [(stranger, {}), (trusted, {"tlsname": "mail.example.org"})]:
        with mailbox(certificates.server_path, implicit_tls=implicit, login=True) as box:
            sender = mailer(box.port, **LOGIN, force_tls=implicit, **options)
            assert await refused(send(sender)) == (503, "M_UNKNOWN")
            assert box.connections == 1, "another try would find the same"
            assert box.waiting == 0
    assert "its certificate is not good" in caplog.text


@pytest_twisted.ensureDeferred
async def test_without_tls(caplog: pytest.LogCaptureFixture) -> None:
    with mailbox(login=True) as box:
        await send(mailer(box.port, **LOGIN))  # to this machine itself
        assert box.encrypted == [False]
        for options in ({"require_transport_security": True}, {"plain": False}):
            assert await refused(send(mailer_with(box, **options))) == (503, "M_UNKNOWN")
        assert box.encrypted == [False]
    assert caplog.text.count("it offers no STARTTLS") == 2


def mailer_with(box: Mailbox, *, plain: bool = True, **options: Any) -> Mailer:
    """A mailer for a mail server that is, or is not, on this machine."""
    sender = mailer(box.port, **LOGIN, **options)
    server = sender._post
    assert isinstance(server, MailServer)
    if not plain:
        sender._post = dataclasses.replace(server, plain_login=False)
    return sender


@pytest_twisted.ensureDeferred
async def test_wrong_passwords(trusted: Certificates, caplog: pytest.LogCaptureFixture) -> None:
    with mailbox(trusted.server_path, login=True) as box:
        sender = mailer(box.port, smtp_user="synapse", smtp_pass=Secret("another"))
        assert await refused(send(sender)) == (503, "M_UNKNOWN")
    assert "smtp_user and smtp_pass (535)" in caplog.text
    assert "another" not in caplog.text


@pytest_twisted.ensureDeferred
async def test_what_is_refused_for_the_moment_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with mailbox() as box:
        clock = HurriedClock()
        box.refusals = ["450 greylisted", f"451 4.7.1 <{ALICE}> later"]
        await send(mailer(box.port, clock))
        assert link_of(box.next()) == LINK
        assert (box.connections, clock.paused) == (3, list(PAUSES))
        box.refusals = ["450 no"] * 3
        assert await refused(send(mailer(box.port))) == (503, "M_UNKNOWN")
        box.refusals = [f"550 5.1.1 <{ALICE}>: no such user"]
        assert await refused(send(mailer(box.port))) == (400, "M_INVALID_PARAM")
        assert (box.refusals, box.waiting) == ([], 0)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("synapse")]
    assert len(ours) == 6, "the test's mail server logs as well"
    assert ALICE not in " ".join(ours), "addresses are nobody's business"


@pytest_twisted.ensureDeferred
async def test_a_mail_that_was_taken_is_sent_once() -> None:
    with mailbox() as box:
        box.farewell = "500 What?"
        await send(mailer(box.port))
        assert (box.waiting, box.connections) == (1, 1)


@pytest_twisted.ensureDeferred
async def test_no_mail_server(caplog: pytest.LogCaptureFixture) -> None:
    with mailbox() as box:
        port = box.port
    clock = HurriedClock()
    assert await refused(send(mailer(port, clock))) == (503, "M_UNKNOWN")
    assert clock.paused == list(PAUSES)
    assert "cannot be reached" in caplog.text
    assert "Traceback" not in caplog.text


class Stuck:
    """A mail server that does not answer; on the calling thread."""

    def __init__(self) -> None:
        self.asked = 0

    def deliver(self, *_: Any) -> None:
        raise MailProblem("it thinks", temporary=True)


@pytest_twisted.ensureDeferred
async def test_those_who_wait_are_bounded() -> None:
    async def at_once(function: Any, *args: Any) -> Any:
        return function(*args)

    config = EmailConfig(notif_from="noreply@example.org")
    clock = Clock()
    sender = Mailer(config, Templates(None), Stuck(), clock, at_once, "test")
    outcomes: list[Any] = []
    for _ in range(MAX_WAITING + 5):
        spawn(send(sender)).addBoth(outcomes.append)
    assert [one.value.code for one in outcomes] == [503]
    clock.pump([PAUSES[0], PAUSES[1]] * (MAX_WAITING // 4 + 2))
    assert len(outcomes) == MAX_WAITING + 5
