"""The addresses of accounts: proved by real mails, added, removed, and what nobody is told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from synapse.storage.database import Database
from synapse.util.concurrency import gather
from tests.rest.accounts import Server, error
from tests.rest.driver import Reply
from tests.support.mailbox import Mailbox, link_of, mailbox, text_of

ALICE = "alice@example.org"
SECRET = "monkeys_are_GREAT"
ADD, RESET, REGISTER = "/account/3pid", "/account/password", "/register"
SUBMIT = "/_matrix/client/v3/password_reset/email/submit_token"
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with mailbox() as made:
        yield made


def mail_server(database: Database, box: Mailbox, **options: Any) -> Server:
    email = {"smtp_port": box.port, "notif_from": "Matrix <noreply@example.org>"}
    limited = options.pop("limited", False)
    given = {"public_baseurl": "https://matrix.test/", "email": email | options.pop("email", {}), **options}
    return Server(database, limited=limited, **given)


def auth(secret: str = "password") -> dict[str, Any]:
    return {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": secret}


async def request(server: Server, path: str = ADD, email: str = ALICE, attempt: int = 1, **more: Any) -> Reply:
    body = {"client_secret": SECRET, "email": email, "send_attempt": attempt, **more}
    return await server.call("POST", f"{path}/email/requestToken", body)


async def follow(server: Server, link: str) -> Reply:
    """What a browser sees behind a link in a mail."""
    parts = urlsplit(link)
    assert link.startswith("https://matrix.test/_matrix/client/unstable/"), link
    return await server.call("GET", parts.path, query={k: v[0] for k, v in parse_qs(parts.query).items()})


async def prove(server: Server, box: Mailbox, path: str = ADD, email: str = ALICE) -> str:
    """The session of an address that was proved."""
    reply = await request(server, path, email)
    assert reply.code == 200, reply
    page = await follow(server, link_of(box.next()))
    assert page.code == 200, page
    return str(reply.json["sid"])


async def add(server: Server, token: str, sid: str, **more: Any) -> Reply:
    return await server.call("POST", f"{ADD}/add", {"sid": sid, "client_secret": SECRET, **more}, token)


async def threepids(server: Server, token: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await server.call("GET", ADD, user=token)).json["threepids"]
    return found


@pytest_twisted.ensureDeferred
async def test_an_address_is_proved_and_added(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box)
    token = await server.register("alice")
    reply = await request(server, email="Alice@Example.org")
    assert set(reply.json) == {"sid"}
    sid = reply.json["sid"]
    assert error(await add(server, token, sid)) == (403, "M_THREEPID_AUTH_FAILED")
    mail = box.next()
    assert (mail["To"], mail["Subject"]) == (ALICE, "[test] Validate your email")
    page = await follow(server, link_of(mail))
    assert (page.code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "is confirmed" in page.body.decode()
    assert "no-store" in page.headers["cache-control"]
    first = await add(server, token, sid)
    assert (first.code, first.json["flows"]) == (401, [{"stages": ["m.login.password"]}])
    wrong = await add(server, token, sid, auth=auth("wrong"))
    assert (wrong.code, wrong.errcode) == (401, "M_FORBIDDEN")
    assert await threepids(server, token) == []
    assert (await add(server, token, sid, auth=auth())).json == {}
    now = 1_700_000_000_000
    assert await threepids(server, token) == [
        {"medium": "email", "address": ALICE, "validated_at": now, "added_at": now}
    ]
    assert error(await add(server, token, sid, auth=auth())) == (403, "M_THREEPID_AUTH_FAILED"), "used up"
    removed = await server.call("POST", f"{ADD}/delete", {"medium": "email", "address": "ALICE@example.org"}, token)
    assert removed.json == {"id_server_unbind_result": "no-support"}
    assert await threepids(server, token) == []


@pytest_twisted.ensureDeferred
async def test_the_old_way_to_add(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box)
    token = await server.register("alice")
    creds = {"sid": await prove(server, box), "client_secret": SECRET, "id_server": "x", "id_access_token": "y"}
    assert error(await server.call("POST", ADD, {}, token)) == (400, "M_MISSING_PARAM")
    wrong = {**creds, "client_secret": "other"}
    assert error(await server.call("POST", ADD, {"three_pid_creds": wrong}, token)) == (403, "M_THREEPID_AUTH_FAILED")
    assert (await server.call("POST", ADD, {"three_pid_creds": creds}, token)).code == 200
    assert [one["address"] for one in await threepids(server, token)] == [ALICE]


@pytest_twisted.ensureDeferred
async def test_one_mail_an_attempt(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box)
    first = await request(server)
    assert (await request(server)).json == first.json
    assert box.waiting == 1
    assert (await request(server, attempt=2)).json == first.json
    assert box.waiting == 2
    links = {link_of(box.next()), link_of(box.next())}
    assert len(links) == 2
    for link in links:
        assert (await follow(server, link)).code == 200, "whichever mail is opened first"


@pytest_twisted.ensureDeferred
async def test_links_that_are_not_good(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box)
    await request(server)
    link = link_of(box.next())
    for wrong in (
        link + "x",
        link.replace("add_threepid", "registration"),
        link.replace("add_threepid", "password_reset"),
    ):
        page = await follow(server, wrong)
        assert page.code == 400, wrong
        assert 'class="error"' in page.body.decode()
    for query in ({}, {"sid": "<script>", "token": "<script>", "client_secret": "<script>"}):
        page = await server.call("GET", "/_matrix/client/v3/add_threepid/email/submit_token", query=query)
        assert page.code == 400
        assert "<script>" not in page.body.decode()
    server.clock.advance(3601)
    page = await follow(server, link)
    assert (page.code, "expired" in page.body.decode()) == (400, True)


@pytest_twisted.ensureDeferred
async def test_people_are_sent_on_where_it_is_allowed(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box, next_link_domain_whitelist=["app.example.org"])
    good = "https://app.example.org/done?x=1"
    for link in (
        "https://evil.example/",
        "javascript:alert(1)",
        "https://app.example.org/\r\nX: y",
        "https://[",
        "https://evil.example\\@app.example.org/",  # browsers take the backslash for a slash
        "https://evil.example@app.example.org/",
        5 * "x",
    ):
        assert error(await request(server, next_link=link)) == (400, "M_INVALID_PARAM"), link
    assert (await request(server, next_link=good)).code == 200
    page = await follow(server, link_of(box.next()))
    assert (page.code, page.headers["location"]) == (302, good)


@pytest_twisted.ensureDeferred
async def test_a_new_password_asks_for_a_click(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box)
    token = await server.register("alice")
    await add(server, token, await prove(server, box), auth=auth())
    await request(server, RESET)
    mail = box.next()
    assert mail["Subject"] == "[test] Password reset"
    link = link_of(mail)
    page = await follow(server, link)
    query = {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}
    assert (page.code, '<form method="post">' in page.body.decode()) == (200, True)
    for name, value in query.items():
        assert f'name="{name}" value="{value}"' in page.body.decode()
    validations = server.accounts.contacts.validations
    assert await validations.validated(query["sid"], SECRET) is None, "programs that look at mails follow links"
    wrong = urlencode({**query, "token": "wrong"}).encode()
    assert (await server.call("POST", SUBMIT, wrong, headers=FORM)).code == 400
    for garbage in (b"\xff", b"x" * 10_000, b"&" * 300, b"sid=%00"):
        assert (await server.call("POST", SUBMIT, garbage, headers=FORM)).code == 400
    done = await server.call("POST", SUBMIT, urlencode(query).encode(), headers=FORM)
    assert (done.code, "is confirmed" in done.body.decode()) == (200, True)
    assert await validations.validated(query["sid"], SECRET) is not None


@pytest_twisted.ensureDeferred
async def test_who_has_forgotten_the_password_sets_another(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box)
    token = await server.register("alice")
    await add(server, token, await prove(server, box), auth=auth())
    first = await server.call("POST", "/account/password", {"new_password": "better"})
    assert (first.code, first.json["flows"]) == (401, [{"stages": ["m.login.email.identity"]}])
    sid = (await request(server, RESET)).json["sid"]
    creds = {"sid": sid, "client_secret": SECRET}
    proof = {"type": "m.login.email.identity", "threepid_creds": creds, "session": first.json["session"]}
    body = {"new_password": "better", "auth": proof}
    early = await server.call("POST", "/account/password", body)
    assert (early.code, early.errcode) == (401, "M_UNAUTHORIZED")
    query = {name: values[0] for name, values in parse_qs(urlsplit(link_of(box.next())).query).items()}
    await server.call("POST", SUBMIT, urlencode(query).encode(), headers=FORM)
    assert (await server.call("POST", "/account/password", body)).json == {}
    assert not await server.is_logged_in(token)
    assert (await server.login("alice", "better")).code == 200
    once = {"new_password": "best", "auth": {"type": "m.login.email.identity", "threepid_creds": creds}}
    again = await server.call("POST", "/account/password", once)
    assert (again.code, again.errcode) == (401, "M_UNAUTHORIZED")
    sid = await prove(server, box, email="other@example.org")
    added = {"type": "m.login.email.identity", "threepid_creds": {"sid": sid, "client_secret": SECRET}}
    other = await server.call("POST", "/account/password", {"new_password": "best", "auth": added})
    assert (other.code, other.errcode) == (401, "M_UNAUTHORIZED"), "what was proved for another purpose"


@pytest_twisted.ensureDeferred
async def test_who_has_which_address_is_told(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box)
    token = await server.register("alice")
    assert error(await request(server, RESET)) == (400, "M_THREEPID_NOT_FOUND")
    await add(server, token, await prove(server, box), auth=auth())
    for path in (ADD, REGISTER):
        assert error(await request(server, path)) == (400, "M_THREEPID_IN_USE")
    assert box.waiting == 0


@pytest_twisted.ensureDeferred
async def test_or_nobody_learns_of_it(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box, request_token_inhibit_3pid_errors=True)
    token = await server.register("alice")
    assert (await request(server)).code == 200
    page = await follow(server, link_of(await deferToThread(box.next)))
    assert page.code == 200
    sid = (await request(server)).json["sid"]
    assert (await add(server, token, sid, auth=auth())).code == 200
    nobody = await request(server, RESET, "nobody@example.org")
    assert (nobody.code, set(nobody.json)) == (200, {"sid"})
    assert (await request(server, RESET, "nobody@example.org")).json == nobody.json
    taken = await request(server, REGISTER)
    assert (taken.code, set(taken.json)) == (200, {"sid"})
    mail = await deferToThread(box.next)
    assert mail["Subject"] == "[test] Email already in use"
    assert "http" not in text_of(mail)
    assert box.waiting == 0


class Heard(logging.Handler):
    """Waits for something to be logged."""

    def __init__(self, beginning: str) -> None:
        super().__init__()
        self._beginning = beginning
        self.heard: Deferred[str] = Deferred()

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(self._beginning):
            self.heard.callback(record.getMessage())


@pytest_twisted.ensureDeferred
async def test_nor_whether_the_mail_was_taken(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box, request_token_inhibit_3pid_errors=True)
    box.refusals = ["550 no such user"]
    log = Heard("A message that proves an address was not sent")
    logging.getLogger("synapse").addHandler(log)
    try:
        first = await request(server)
        assert first.code == 200
        assert ALICE not in await log.heard
    finally:
        logging.getLogger("synapse").removeHandler(log)
    assert (await request(server)).json == first.json
    await deferToThread(box.next)


@pytest_twisted.ensureDeferred
async def test_a_proof_is_used_once(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box)
    tokens = [await server.register(name) for name in ("alice", "bob")]
    session = {"sid": await prove(server, box), "client_secret": SECRET, "id_server": "x", "id_access_token": "y"}
    replies = await gather([server.call("POST", ADD, {"three_pid_creds": session}, token) for token in tokens])
    assert sorted(reply.code for reply in replies) == [200, 403]
    assert sorted([len(await threepids(server, token)) for token in tokens]) == [0, 1]


@pytest_twisted.ensureDeferred
async def test_addresses_that_nobody_may_have(database: Database, box: Mailbox) -> None:
    allowed = [{"medium": "email", "pattern": r"[^@]+@example\.org$"}]
    server = mail_server(database, box, allowed_local_3pids=allowed)
    for path in (ADD, REGISTER):
        assert error(await request(server, path, "alice@example.com")) == (403, "M_THREEPID_DENIED")
        assert (await request(server, path)).code == 200


@pytest_twisted.ensureDeferred
async def test_addresses_that_cannot_be_changed(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box, enable_3pid_changes=False)
    token = await server.register("alice")
    assert error(await request(server)) == (403, "M_FORBIDDEN")
    assert error(await add(server, token, "x")) == (403, "M_FORBIDDEN")
    named = {"medium": "email", "address": ALICE}
    assert error(await server.call("POST", f"{ADD}/delete", named, token)) == (403, "M_FORBIDDEN")
    capabilities = (await server.call("GET", "/capabilities", user=token)).json["capabilities"]
    assert capabilities["m.3pid_changes"] == {"enabled": False}
    assert (await request(server, REGISTER)).code == 200


@pytest_twisted.ensureDeferred
async def test_what_is_switched_off(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box, enable_registration=False, password_config={"enabled": False})
    assert error(await request(server, REGISTER)) == (403, "M_FORBIDDEN")
    assert error(await request(server, RESET)) == (403, "M_FORBIDDEN")
    bare = Server(database)
    assert error(await request(bare)) == (400, "M_THREEPID_MEDIUM_NOT_SUPPORTED")
    number = {"client_secret": SECRET, "country": "GB", "phone_number": "07700900001", "send_attempt": 1}
    reply = await server.call("POST", f"{ADD}/msisdn/requestToken", number)
    assert error(reply) == (400, "M_THREEPID_MEDIUM_NOT_SUPPORTED")


@pytest.mark.parametrize(
    ("wrong", "errcode"),
    [
        ({"email": "nobody"}, "M_INVALID_PARAM"),
        ({"email": "a@b.c\r\nBcc: eve@example.org"}, "M_INVALID_PARAM"),
        ({"client_secret": ""}, "M_INVALID_PARAM"),
        ({"client_secret": "ü"}, "M_INVALID_PARAM"),
        ({"send_attempt": -1}, "M_BAD_JSON"),
        ({"send_attempt": 2**53}, "M_BAD_JSON"),
        ({"send_attempt": "1"}, "M_BAD_JSON"),
        ({"next_link": "ftp://x"}, "M_INVALID_PARAM"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_requests_that_make_no_sense(database: Database, box: Mailbox, wrong: Any, errcode: str) -> None:
    server = mail_server(database, box)
    body = {"client_secret": SECRET, "email": ALICE, "send_attempt": 1, **wrong}
    assert error(await server.call("POST", f"{ADD}/email/requestToken", body)) == (400, errcode)
    assert box.waiting == 0


@pytest_twisted.ensureDeferred
async def test_nobody_gets_many_mails(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box, limited=True, rc_3pid_validation={"per_second": 0.003, "burst_count": 2})
    assert (await request(server)).code == 200
    assert (await request(server, attempt=2)).code == 200
    limited = await request(server, attempt=3)
    assert (limited.code, limited.errcode) == (429, "M_LIMIT_EXCEEDED")
    assert box.waiting == 2


@pytest_twisted.ensureDeferred
async def test_a_mail_server_that_is_away(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box)
    box.refusals = ["554 5.7.1 no"]
    assert error(await request(server)) == (400, "M_INVALID_PARAM")
    assert (await request(server)).code == 200, "the attempt was not made"
    assert box.waiting == 1


@pytest_twisted.ensureDeferred
async def test_an_address_goes_to_the_first(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box)
    alice, bob = await server.register("alice"), await server.register("bob")
    sid = await prove(server, box)
    reply = await request(server, client_secret="another")
    await follow(server, link_of(box.next()))
    session = {"sid": reply.json["sid"], "client_secret": "another"}
    creds = {"three_pid_creds": {**session, "id_server": "x", "id_access_token": "y"}}
    assert (await server.call("POST", ADD, creds, bob)).code == 200
    assert error(await add(server, alice, sid, auth=auth())) == (400, "M_THREEPID_IN_USE")


@pytest_twisted.ensureDeferred
async def test_administrators_find_users_by_address(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box)
    token = await server.register("alice")
    await add(server, token, await prove(server, box), auth=auth())
    path = "/_synapse/admin/v1/threepid/{}/users/{}".format
    assert error(await server.call("GET", path("email", ALICE), user=token)) == (403, "M_FORBIDDEN")
    await database.write("test", lambda txn: txn.execute("UPDATE users SET admin = true"))
    admin = (await server.login("alice")).json["access_token"]
    assert (await server.call("GET", path("email", "ALICE@example.org"), user=admin)).json == {"user_id": "@alice:test"}
    assert error(await server.call("GET", path("email", "x@example.org"), user=admin)) == (404, "M_NOT_FOUND")
    assert error(await server.call("GET", path("pigeon", "x"), user=admin)) == (400, "M_THREEPID_MEDIUM_NOT_SUPPORTED")


@pytest_twisted.ensureDeferred
async def test_deactivated_users_have_no_addresses(database: Database, box: Mailbox) -> None:
    server = mail_server(database, box)
    token = await server.register("alice")
    await add(server, token, await prove(server, box), auth=auth())
    assert (await server.call("POST", "/account/deactivate", {"auth": auth()}, token)).code == 200
    assert error(await request(server, RESET)) == (400, "M_THREEPID_NOT_FOUND")
    assert (await request(server, REGISTER)).code == 200
