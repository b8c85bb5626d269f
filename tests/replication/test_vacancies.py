"""Duties that nobody performs are told of, once; on real PostgreSQL, whose locks they are."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from synapse.replication.leases import Lease, key_of
from synapse.replication.vacancies import Vacancies
from synapse.storage.locks import LocksStore
from synapse.storage.pool import PoolSettings
from tests.support.homeserver import homeserver
from tests.support.reactor import real_reactor


@ensureDeferred
async def test_a_duty_that_nobody_performs_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "synapse.replication.vacancies")
    held: set[int] = set()

    class Locks:
        async def held(self, keys: Any) -> set[int]:
            return held & set(keys)

    vacancies = Vacancies(Locks(), {"federation_sender": "Start one.", "pusher": "Start a pusher."})
    held.add(key_of("pusher"))
    told: list[list[str]] = []
    for now_held in (False, False, False, True, False, True, False, False):
        (held.add if now_held else held.discard)(key_of("federation_sender"))
        caplog.clear()
        await vacancies.look()
        told.append(caplog.messages)
    warned = "No process performs the duty 'federation_sender': Start one."
    ended = "A process performs the duty 'federation_sender' now"
    assert told == [[], [warned], [], [ended], [], [], [], [warned]]


@ensureDeferred
async def test_who_holds_a_lock_is_seen_whichever_number_it_has(database_settings: PoolSettings) -> None:
    names = [f"duty {number}" for number in range(8)]
    assert {key_of(name) > 0 for name in names} == {True, False}, "locks of either sign are among them"
    taken = [Lease(real_reactor(), database_settings, name, lambda: None) for name in names[:4]]
    async with homeserver(database_settings) as server:
        locks = LocksStore(server.hs.database)
        assert await locks.held([key_of(name) for name in names]) == set()
        for each in taken:
            assert await each.acquire()
        assert await locks.held([key_of(name) for name in names]) == {key_of(name) for name in names[:4]}
        for each in taken:
            each.release()
