"""Proving to have an address: tokens, their lifetime, how often they may be guessed, and that a proof is used once."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from synapse.api.errors import MatrixError
from synapse.handlers.validations import ADD_THREEPID, CODE_LIFETIME_MS, PASSWORD_RESET, PROOF_LIFETIME_MS, Validations
from synapse.storage.database import Database, Transaction
from synapse.storage.threepid_sessions import ThreepidSessionStore
from synapse.util.concurrency import gather

HOUR_MS = 3_600_000
SECRET = "monkeys_are_GREAT"
EMAIL, NUMBER = ("email", "a@b.c"), ("msisdn", "447700900001")


class World:
    """Validations, a held clock, and the messages that were sent."""

    def __init__(self, database: Database, remote: Any = None) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.validations = Validations(ThreepidSessionStore(database), self.clock, HOUR_MS, remote)
        self.sent: list[str] = []

    async def deliver(self, token: str) -> None:
        self.sent.append(token)

    async def request(self, address: tuple[str, str] = EMAIL, attempt: int = 1, purpose: str = ADD_THREEPID) -> str:
        session = await self.validations.begin(purpose, *address, SECRET)
        await self.validations.send(session, attempt, self.deliver)
        return session.session_id

    async def refused(self, session_id: str, token: str, secret: str = SECRET, purpose: str | None = None) -> str:
        with pytest.raises(MatrixError) as caught:
            await self.validations.submit(session_id, secret, token, purpose)
        return caught.value.errcode


@pytest_twisted.ensureDeferred
async def test_what_was_sent_proves_the_address_once(database: Database) -> None:
    world = World(database)
    sid = await world.request()
    assert await world.validations.validated(sid, SECRET) is None
    assert (await world.validations.check(sid, SECRET, world.sent[0], None)).address == "a@b.c"
    assert await world.validations.validated(sid, SECRET) is None, "to look is not to confirm"
    await world.validations.submit(sid, SECRET, world.sent[0])
    await world.validations.submit(sid, SECRET, world.sent[0])
    assert await world.validations.validated(sid, SECRET, ADD_THREEPID) == ("email", "a@b.c", 1_700_000_000_000)
    assert await world.validations.validated(sid, SECRET, PASSWORD_RESET) is None
    assert await world.validations.validated(sid, "other") is None
    assert await gather([world.validations.use(sid), world.validations.use(sid)]) in ([True, False], [False, True])
    assert await world.validations.validated(sid, SECRET) is None


@pytest_twisted.ensureDeferred
async def test_one_message_an_attempt(database: Database) -> None:
    world = World(database)
    sid = await world.request(attempt=2)
    for attempt in (2, 1):
        assert await world.request(attempt=attempt) == sid
    assert len(world.sent) == 1
    assert await world.request(attempt=3) == sid
    assert len(world.sent) == 2
    await world.validations.submit(sid, SECRET, world.sent[0])  # the mail that came late, and first


@pytest_twisted.ensureDeferred
async def test_a_message_that_was_not_sent_may_be_asked_for_again(database: Database) -> None:
    world = World(database)
    session = await world.validations.begin(ADD_THREEPID, *EMAIL, SECRET)

    async def fail(token: str) -> None:
        raise MatrixError(503, "M_UNKNOWN", "The mail server is away.")

    with pytest.raises(MatrixError):
        await world.validations.send(session, 1, fail)
    assert await world.request() == session.session_id
    assert len(world.sent) == 1


@pytest_twisted.ensureDeferred
async def test_wrong_tokens(database: Database) -> None:
    world = World(database)
    sid = await world.request()
    assert await world.refused(sid, "wrong") == "M_TOKEN_INCORRECT"
    assert await world.refused(sid, "") == "M_TOKEN_INCORRECT"
    assert await world.refused(sid, "\ud800" * 300) == "M_TOKEN_INCORRECT"
    assert await world.refused(sid, world.sent[0], "other") == "M_SESSION_EXPIRED"
    assert await world.refused(sid, world.sent[0], "no secret!") == "M_INVALID_PARAM"
    assert await world.refused(sid, world.sent[0], purpose=PASSWORD_RESET) == "M_SESSION_EXPIRED"
    for nothing in ("unknown", "", "a\x00b", "x" * 256):
        assert await world.refused(nothing, world.sent[0]) == "M_SESSION_EXPIRED"
    world.clock.advance(HOUR_MS / 1000 + 1)
    assert await world.refused(sid, world.sent[0]) == "M_SESSION_EXPIRED"


@pytest_twisted.ensureDeferred
async def test_codes_are_short_and_cannot_be_guessed(database: Database) -> None:
    world = World(database)
    sid = await world.request(NUMBER)
    first = world.sent[0]
    assert first.isdigit()
    assert len(first) == 6
    wrong = f"{(int(first) + 1) % 10**6:06}"

    async def guess() -> str:
        return await world.refused(sid, wrong)

    answers = await gather([guess() for _ in range(8)])
    assert sorted(answers) == ["M_SESSION_EXPIRED"] * 3 + ["M_TOKEN_INCORRECT"] * 5
    assert await world.refused(sid, first) == "M_SESSION_EXPIRED"
    await world.request(NUMBER, attempt=2)
    if first != world.sent[1]:
        assert await world.refused(sid, first) == "M_TOKEN_INCORRECT", "only the newest code counts"
    await world.validations.submit(sid, SECRET, world.sent[1])
    assert await world.validations.validated(sid, SECRET) is not None
    other = await world.request(NUMBER, purpose=PASSWORD_RESET)
    world.clock.advance(CODE_LIFETIME_MS / 1000 + 1)
    assert await world.refused(other, world.sent[2]) == "M_SESSION_EXPIRED"


@pytest_twisted.ensureDeferred
async def test_proofs_and_codes_expire(database: Database) -> None:
    world = World(database)
    sid = await world.request()
    await world.validations.submit(sid, SECRET, world.sent[0])
    world.clock.advance(PROOF_LIFETIME_MS / 1000 - 1)
    await world.validations.forget_old()
    assert await world.validations.validated(sid, SECRET) is not None
    world.clock.advance(2)
    assert await world.validations.validated(sid, SECRET) is None
    assert await database.read("test", _count) == 1
    await world.validations.forget_old()
    assert await database.read("test", _count) == 0


@pytest_twisted.ensureDeferred
async def test_secrets_and_tokens_are_not_written_down(database: Database) -> None:
    world = World(database)
    await world.request()
    kept = await database.read("test", _everything)
    assert SECRET not in kept
    assert world.sent[0] not in kept


def _count(txn: Transaction) -> int:
    txn.execute("SELECT count(*) FROM threepid_validation_sessions")
    return int(txn.one()[0])


def _everything(txn: Transaction) -> str:
    txn.execute("SELECT row_to_json(s)::text FROM threepid_validation_sessions s")
    return str(txn.rows())
