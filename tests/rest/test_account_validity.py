"""Accounts that expire unless their users renew them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted

from synapse.config.errors import ConfigError
from synapse.storage.database import Database
from tests.rest.accounts import START, Server, error
from tests.support.mailbox import Mailbox, link_of, mailbox, text_of

DAY = 24 * 3600
DAY_MS = DAY * 1000
VALIDITY = {
    "enabled": True,
    "period": "30d",
    "renew_at": "5d",
    "renew_email_subject": "Your account at %(server_name)s",
    "startup_job_max_delta": 0,
}
EXPIRED = (403, "ORG_MATRIX_EXPIRED_ACCOUNT")
SEND_MAIL = "/_matrix/client/unstable/account_validity/send_mail"
RENEW = "/_matrix/client/unstable/account_validity/renew"
ADMIN = "/_synapse/admin/v1/account_validity/validity"


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with mailbox() as made:
        yield made


class House:
    """A server whose accounts expire, and a mail server."""

    def __init__(self, database: Database, box: Mailbox, **options: Any) -> None:
        self.box = box
        email = {"smtp_host": "127.0.0.1", "smtp_port": box.port, "enable_tls": False, "notif_from": "a@example.org"}
        self.server = Server(
            database, public_baseurl="https://matrix.test", email=email, account_validity={**VALIDITY, **options}
        )

    async def settle(self, name: str, *addresses: str) -> str:
        """Registers somebody, with addresses; the access token."""
        token = await self.server.register(name)
        for address in addresses:
            await self.server.accounts.contacts.store.add(f"@{name}:test", "email", address, 1, 1)
        await self.run()
        return token

    async def run(self) -> None:
        validity = self.server.conduct.validity
        assert validity is not None
        await validity.run()

    async def whoami(self, token: str) -> tuple[int, str]:
        reply = await self.server.call("GET", "/account/whoami", user=token)
        return (200, "") if reply.code == 200 else error(reply)

    async def follow(self, link: str) -> tuple[int, str]:
        assert link.startswith(f"https://matrix.test{RENEW}?token=")
        reply = await self.server.call("GET", link.removeprefix("https://matrix.test"))
        return reply.code, reply.body.decode()


@pytest.fixture
def house(database: Database, box: Mailbox) -> House:
    return House(database, box)


@pytest_twisted.ensureDeferred
async def test_an_account_expires_and_its_mail_renews_it(house: House) -> None:
    server, box = house.server, house.box
    token = await house.settle("alice", "alice@example.org", "a@example.com")
    server.clock.advance(24 * DAY)
    await house.run()
    assert box.waiting == 0
    server.clock.advance(2 * DAY)
    for _ in range(2):
        await house.run()
    assert box.waiting == 2, "one for each address, once"
    mail = box.next()
    assert mail["Subject"] == "Your account at test"
    assert "@alice:test expires on 2023-12-14" in text_of(mail)
    assert link_of(mail) in text_of(mail, "html")
    assert await house.whoami(token) == (200, "")
    server.clock.advance(4 * DAY)
    assert await house.whoami(token) == EXPIRED
    code, html = await house.follow(link_of(mail))
    assert (code, "valid until 2024-01-13" in html) == (200, True)
    assert await house.whoami(token) == (200, "")
    server.clock.advance(2 * DAY)
    code, html = await house.follow(link_of(box.next()))
    assert (code, "valid until 2024-01-13" in html) == (200, True), "the same link again renews nothing"
    server.clock.advance(25 * DAY)
    await house.run()
    assert box.waiting == 2, "the next end is told of as well"


@pytest_twisted.ensureDeferred
async def test_who_has_expired_may_ask_for_the_mail_and_log_out(house: House) -> None:
    server, box = house.server, house.box
    token = await house.settle("alice", "alice@example.org")
    server.clock.advance(31 * DAY)
    assert await house.whoami(token) == EXPIRED
    assert error(await server.call("GET", "/devices", user=token)) == EXPIRED
    assert (await server.login("alice")).code == 200
    assert (await server.call("POST", SEND_MAIL, {}, token)).code == 200
    first = box.next()
    assert (await server.call("POST", SEND_MAIL, {}, token)).code == 200
    assert (await house.follow(link_of(first)))[0] == 404, "there was a later mail"
    assert (await house.follow(link_of(box.next())))[0] == 200
    server.clock.advance(31 * DAY)
    assert await house.whoami(token) == EXPIRED
    assert (await server.call("POST", "/logout", {}, token)).code == 200


@pytest_twisted.ensureDeferred
async def test_who_has_no_address_can_be_sent_nothing(house: House) -> None:
    token = await house.settle("alice")
    assert error(await house.server.call("POST", SEND_MAIL, {}, token)) == (400, "M_THREEPID_NOT_FOUND")
    house.server.clock.advance(26 * DAY)
    await house.run()
    assert house.box.waiting == 0


@pytest_twisted.ensureDeferred
async def test_an_address_that_refuses_mail_keeps_nobody_else_from_theirs(house: House) -> None:
    await house.settle("alice", "alice@example.org")
    house.server.clock.advance(26 * DAY)
    house.box.refusals = ["550 no"]
    await house.run()
    assert house.box.waiting == 0
    await house.run()
    assert house.box.waiting == 0, "it is not tried again"
    await house.settle("bob", "bob@example.org")
    house.server.clock.advance(26 * DAY)
    await house.run()
    assert house.box.waiting == 1


@pytest.mark.parametrize("query", ["token=nope", "token=" + "x" * 1000, "token=%C3%A9", "", "token="])
@pytest_twisted.ensureDeferred
async def test_links_that_nobody_was_sent(house: House, query: str) -> None:
    reply = await house.server.call("GET", f"{RENEW}?{query}")
    assert reply.code in (400, 404)
    assert "This link is not valid" in reply.body.decode()


@pytest_twisted.ensureDeferred
async def test_administrators_set_the_end(house: House) -> None:
    server = house.server
    token = await house.settle("alice", "alice@example.org")
    admin = await house.settle("admin")
    await server.database.write(
        "test", lambda txn: txn.execute("UPDATE users SET admin = true WHERE user_id LIKE '@ad%%'", ())
    )
    await server.invalidate("access_token", [None])
    body = {"user_id": "@alice:test", "expiration_ts": START * 1000 + 3 * DAY_MS, "enable_renewal_emails": False}
    assert error(await server.call("POST", ADMIN, body, token)) == (403, "M_FORBIDDEN")
    assert (await server.call("POST", ADMIN, body, admin)).json == {"expiration_ts": body["expiration_ts"]}
    await house.run()
    assert house.box.waiting == 0
    server.clock.advance(3 * DAY)
    assert await house.whoami(token) == EXPIRED
    answer = (await server.call("POST", ADMIN, {"user_id": "@alice:test"}, admin)).json
    assert answer == {"expiration_ts": START * 1000 + 33 * DAY_MS}
    assert await house.whoami(token) == (200, "")
    for wrong, expected in (
        ({"user_id": "@nobody:test"}, (404, "M_NOT_FOUND")),
        ({"user_id": "@alice:far"}, (400, "M_INVALID_PARAM")),
        ({"user_id": "alice"}, (400, "M_INVALID_PARAM")),
        ({}, (400, "M_MISSING_PARAM")),
        ({"user_id": "@alice:test", "expiration_ts": -1}, (400, "M_BAD_JSON")),
        ({"user_id": "@alice:test", "expiration_ts": 2**63}, (400, "M_BAD_JSON")),
        ({"user_id": "@alice:test", "expiration_ts": "soon"}, (400, "M_BAD_JSON")),
    ):
        assert error(await server.call("POST", ADMIN, wrong, admin)) == expected


@pytest_twisted.ensureDeferred
async def test_accounts_of_old_do_not_all_end_together(database: Database, box: Mailbox) -> None:
    before = Server(database)
    for number in range(20):
        await before.register(f"user{number}")
    house = House(database, box, startup_job_max_delta="10d")
    house.server.clock.advance(100 * DAY)
    await house.run()
    users = [await house.server.accounts.users.get(f"@user{number}:test") for number in range(20)]
    ends = {user.valid_until_ts for user in users if user is not None and user.valid_until_ts is not None}
    now = (START + 100 * DAY) * 1000
    assert all(now + 20 * DAY_MS <= end <= now + 30 * DAY_MS for end in ends)
    assert len(ends) > 10


@pytest_twisted.ensureDeferred
async def test_without_it_nothing_expires(server: Server) -> None:
    token = await server.register("alice")
    assert error(await server.call("POST", SEND_MAIL, {}, token)) == (404, "M_UNRECOGNIZED")
    assert error(await server.call("GET", f"{RENEW}?token=x")) == (404, "M_UNRECOGNIZED")


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"period": None}, "period"),
        ({"startup_job_max_delta": "40d"}, "longer than the period"),
        ({"renew_email_subject": "100%"}, "has a %"),
    ],
)
def test_mistakes(database: Database, box: Mailbox, changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        House(database, box, **changed)


def test_renewal_mails_need_mail(database: Database) -> None:
    with pytest.raises(ConfigError, match="no mail can be sent"):
        Server(database, account_validity=VALIDITY)
