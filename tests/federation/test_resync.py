"""Fetching lists of devices: what is wanted at any moment of it is got."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from types import SimpleNamespace
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.federation.answers import UserDevices
from synapse.federation.errors import Unreachable
from synapse.handlers.edus.resync import AT_ONCE, FORGOTTEN_AT_ONCE, GATHERING_SECONDS, MOST_UNDER_WAY, ROUNDS, Resync
from synapse.storage.remote_devices import Fetched
from tests.support.deferreds import started

BOB = "@bob:far"


class Far:
    """Bob's server, whose lists have the ids that the test says, and a database that takes until the test says so."""

    def __init__(self, *ids: int) -> None:
        self.ids = list(ids)
        self.kept: list[int] = []
        self.writing: list[Deferred[None]] = []
        self.left_alone: set[str] = set()
        self.clock = Clock()
        speakers = SimpleNamespace(sharing=self.sharing)
        this = cast(Any, self)
        self.resync = Resync(this, this, this, this, cast(Any, speakers), self.ready, self.clock)

    async def within(self, user_id: str, found: Fetched) -> Fetched:
        return found

    async def sharing(self, user_ids: Collection[str]) -> Collection[str]:
        return user_ids

    async def ready(self, servers: Collection[str]) -> list[str]:
        return [server for server in servers if server not in self.left_alone]

    async def user_devices(self, server: str, user_id: str) -> UserDevices:
        return UserDevices(user_id, self.ids.pop(0), [])

    async def append(self, write: Callable[[int], Awaitable[Any]], rows: Callable[[Any], Any]) -> None:
        taken: Deferred[None] = Deferred()
        self.writing.append(taken)
        await taken
        await write(1)

    async def replace(self, user_id: str, found: Fetched, position: int) -> bool:
        self.kept.append(found.stream_id)
        return True

    def written(self) -> None:
        self.writing.pop(0).callback(None)


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_an_update_that_comes_while_a_list_is_written_has_it_fetched_anew(round_: int) -> None:
    """Also if it is the last list that is asked for at once, because updates came during the others."""
    far = Far(*range(1, round_ + 3))
    fetching = started(far.resync.fetch(BOB))
    for number in range(round_):
        far.resync.want(BOB, number + 2)
        far.written()
    far.resync.want(BOB, round_ + 2)
    far.written()
    far.clock.advance(GATHERING_SECONDS)
    far.written()
    assert far.kept == list(range(1, round_ + 3))
    assert fetching.called
    assert not far.writing
    assert not far.clock.getDelayedCalls()


def test_a_server_that_counts_otherwise_than_it_says_is_not_asked_for_ever() -> None:
    far = Far(*[1] * ROUNDS)
    fetching = started(far.resync.fetch(BOB))
    far.resync.want(BOB, 7)
    for _ in range(ROUNDS):
        far.written()
    assert fetching.called
    assert not far.clock.getDelayedCalls()
    assert len(far.kept) == ROUNDS


def test_a_server_that_goes_away_while_hundreds_of_its_lists_are_awaited() -> None:
    far = Far()
    answers: list[Deferred[UserDevices]] = [Deferred() for _ in range(AT_ONCE)]
    gone = Unreachable("far", "far does not answer.")
    asked: list[str] = []
    failed: list[str] = []

    async def user_devices(_server: str, user_id: str) -> UserDevices:
        asked.append(user_id)
        if len(asked) <= AT_ONCE:
            return await answers[len(asked) - 1]
        raise gone  # at once: it is left alone by now

    async def note(user_id: str, _retry_ts: Callable[[int], int]) -> int:
        failed.append(user_id)
        return 2

    far.user_devices = user_devices  # type: ignore[method-assign]
    far.failed = note  # type: ignore[attr-defined]
    users = [f"@user{number}:far" for number in range(MOST_UNDER_WAY)]
    fetching = started(far.resync.fetch_all(users))
    assert len(asked) == AT_ONCE
    for answer in answers:
        answer.errback(gone)
    assert fetching.result == dict.fromkeys(users, gone.message)
    assert sorted(failed) == sorted(users)


def test_thousands_of_lists_are_forgotten_in_a_few_transactions() -> None:
    far = Far()
    users = [f"@user{number}:far" for number in range(2 * FORGOTTEN_AT_ONCE + 1)]
    told: list[dict[int, list[str]]] = []

    async def append_many(count: int, write: Callable[[range], Awaitable[Any]], rows: Callable[[Any], Any]) -> None:
        told.append(rows(await write(range(count))))

    async def forget(user_ids: list[str], positions: range) -> dict[int, str]:
        return dict(zip(positions, user_ids, strict=True))

    far.append_many = append_many  # type: ignore[attr-defined]
    far.forget = forget  # type: ignore[attr-defined]
    started(far.resync.forget([]))
    assert told == []
    assert started(far.resync.forget(users)).called
    assert [len(each) for each in told] == [FORGOTTEN_AT_ONCE, FORGOTTEN_AT_ONCE, 1]
    assert sorted(user_id for each in told for (user_id,) in each.values()) == sorted(users)


def test_lists_of_a_server_that_is_back_are_due() -> None:
    far = Far()
    hastened: list[tuple[list[str], int]] = []

    async def hasten(servers: Collection[str], now: int) -> None:
        hastened.append((sorted(servers), now))

    async def nothing(*_: object) -> list[str]:
        return []

    far.hasten = hasten  # type: ignore[attr-defined]
    far.due = nothing  # type: ignore[attr-defined]
    far.clock.advance(100)
    far.left_alone = {"far"}
    far.resync.heard("far")  # that it has not answered
    far.left_alone.clear()  # its pause ends
    assert started(far.resync.retry()).called
    assert hastened == []
    far.resync.heard("far")
    far.resync.heard(None)
    for _ in range(2):
        assert started(far.resync.retry()).called
    assert hastened == [(["far"], 100_000)]
