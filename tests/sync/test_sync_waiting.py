"""How /sync waits: what wakes it, what it must not miss, who shares an answer; and the tokens that it goes on from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred

from synapse.api.errors import MatrixError
from synapse.storage.database import Database
from synapse.sync.context import SyncContext
from synapse.sync.handler import SyncRequest
from synapse.sync.tokens import StreamToken
from tests.sync.harness import Harness

ALICE, BOB = "@alice:test", "@bob:test"


@pytest.fixture
def h(database: Database) -> Iterator[Harness]:
    harness = Harness(database, memory=True)
    for stream in harness.changes.by_stream:
        harness.changes.start(stream, 0)
    return harness


def waiting(h: Harness, since: str, user: str = ALICE, device: str = "DEV") -> Deferred[dict[str, Any]]:
    return Deferred.fromCoroutine(h.sync(user, since, timeout=30_000, device_id=device))


async def settle(h: Harness, count: int = 1) -> None:
    """Lets what goes through the database's threads come to rest: until that many wait."""
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    for _ in range(500):
        if len(h.present.waiting) >= count:
            return
        await deferLater(reactor, 0.002, lambda: None)  # type: ignore[arg-type]
    raise AssertionError("nobody waits")


@pytest_twisted.ensureDeferred
async def test_a_sync_waits_for_news_that_concern_it(h: Harness) -> None:
    room = await h.world.room(ALICE)
    since = (await h.sync(ALICE))["next_batch"]
    answer = waiting(h, since)
    await settle(h)
    other = await h.world.room(BOB)
    await h.world.message(other, BOB)
    h.present.wake()  # in vain
    await settle(h)
    assert not answer.called
    sent = await h.world.message(room, ALICE, "at last")
    h.present.wake()
    told = (await answer)["rooms"]["join"][room]["timeline"]
    assert [e["event_id"] for e in told["events"]] == [sent.event_id]
    assert told["limited"] is False


@pytest_twisted.ensureDeferred
async def test_a_sync_that_waited_in_vain_answers_with_a_new_token(h: Harness) -> None:
    await h.world.room(ALICE)
    since = (await h.sync(ALICE))["next_batch"]
    answer = waiting(h, since)
    await settle(h)
    await h.world.room(BOB)
    h.present.wake(False)
    told = await answer
    assert "rooms" not in told
    assert told["next_batch"] == str(h.present.token()) != since


@pytest_twisted.ensureDeferred
async def test_what_comes_while_a_sync_looks_is_not_missed(h: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    room = await h.world.room(ALICE)
    since = (await h.sync(ALICE))["next_batch"]
    await h.world.room(BOB)  # else there were nothing to look for
    look, looks = h.handler.context, []

    async def interrupted(request: SyncRequest, token: StreamToken | None) -> SyncContext:
        ctx = await look(request, token)
        looks.append(ctx)
        if len(looks) == 1:
            await h.world.message(room, ALICE)
        return ctx

    monkeypatch.setattr(h.handler, "context", interrupted)
    assert "rooms" in await h.sync(ALICE, since, timeout=30_000)
    assert len(looks) == 2


@pytest_twisted.ensureDeferred
async def test_equal_syncs_at_once_are_one(h: Harness) -> None:
    room = await h.world.room(ALICE)
    since = (await h.sync(ALICE))["next_batch"]
    first, second, other = waiting(h, since), waiting(h, since), waiting(h, since, device="OTHER")
    await settle(h, 2)
    assert len(h.present.waiting) == 2
    await h.world.message(room, ALICE)
    h.present.wake()
    answer = await first
    assert await second == answer
    assert (await other)["rooms"] == answer["rooms"]
    with h.db.counted() as counts:
        assert await h.sync(ALICE, since, timeout=30_000) == answer  # a retry, soon after
    assert counts.statements_read == 0


@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_away_stops_waiting_and_does_not_disturb_others(h: Harness) -> None:
    room = await h.world.room(ALICE)
    since = (await h.sync(ALICE))["next_batch"]
    first, second = waiting(h, since), waiting(h, since)
    await settle(h)
    first.addErrback(lambda failure: failure.trap(CancelledError) and None)
    first.cancel()
    await h.world.message(room, ALICE)
    h.present.wake()
    answer = await second
    assert "rooms" in answer
    third = waiting(h, answer["next_batch"])
    await settle(h)
    third.addErrback(lambda failure: failure.trap(CancelledError) and None)
    third.cancel()
    assert all(deferred.called for deferred in h.present.waiting)


@pytest_twisted.ensureDeferred
async def test_a_token_of_the_future_waits_and_then_counts_as_now(h: Harness) -> None:
    await h.world.room(ALICE)
    future = str(h.present.token()._replace(events=999, typing=7))
    answer = await h.sync(ALICE, future)
    assert h.present.caught_up == [StreamToken.parse(future)]
    assert answer["next_batch"] == str(h.present.token())


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "s",
        "s-1",
        "s1_-2",
        "t1-2",
        "s1_2_3_4_5_6_7_8_9",
        "s1__2",
        " s1",
        "s1\n",
        "s99999999999999999999",
        "s\N{ARABIC-INDIC DIGIT ONE}",
    ],
)
def test_tokens_that_are_none(token: str) -> None:
    with pytest.raises(MatrixError) as refused:
        StreamToken.parse(token)
    assert (refused.value.code, refused.value.errcode) == (400, "M_INVALID_PARAM")
    assert "'since'" in refused.value.message


def test_tokens_of_older_releases_are_shorter() -> None:
    assert StreamToken.parse("s5_3") == StreamToken(5, 3)
    full = StreamToken(1, 2, 3, 4, 5, 6, 7, 8)
    assert StreamToken.parse(str(full)) == full
