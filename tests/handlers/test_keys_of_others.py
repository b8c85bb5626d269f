"""Asking other servers for their users' keys: within the time that the client gives, however many they are."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.handlers.edus.asking import SERVERS_AT_ONCE, Found, TheirKeys
from synapse.storage.published_keys import PublishedKeys
from synapse.storage.remote_devices import Known
from synapse.util.concurrency import spawn

SECONDS = 10.0


class Silent:
    """A store that knows nobody, rooms that nobody shares, and servers that do not answer."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def known(self, _user_ids: list[str], _viewer: str) -> Known:
        return Known(set(), set(), PublishedKeys(set(), [], [], []))

    async def sharing(self, _user_ids: Collection[str]) -> set[str]:
        return set()

    async def query_user_keys(self, server: str, _users: Any, *, within: float) -> Any:
        assert within == SECONDS
        self.asked.append(server)
        await Deferred()


def test_those_who_wait_for_their_turn_do_not_make_it_longer() -> None:
    silent: Any = Silent()
    main: Any = None
    clock = Clock()
    theirs = TheirKeys(silent, lambda: silent, lambda: silent, main, clock)  # type: ignore[arg-type]
    wanted = {f"@user:server{number}.test": frozenset[str]() for number in range(3 * SERVERS_AT_ONCE)}
    found: list[Found] = []
    spawn(theirs.query("@a:test", wanted, SECONDS)).addCallback(found.append)
    clock.advance(SECONDS - 1)
    assert (len(silent.asked), found) == (SERVERS_AT_ONCE, [])
    clock.advance(1)
    assert len(found) == 1
    assert found[0].failures.keys() == {user_id.partition(":")[2] for user_id in wanted}
    assert {failure["status"] for failure in found[0].failures.values()} == {504}
    assert len(silent.asked) == SERVERS_AT_ONCE
