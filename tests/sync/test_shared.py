"""Work that is done once for all who ask at the same time, or shortly after."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.sync.shared import SharedWork


@pytest.mark.parametrize(("kept", "later", "done"), [(5.0, 4.9, 1), (5.0, 5.0, 2), (0.0, 0.0, 2), (120.0, 119.0, 1)])
@pytest_twisted.ensureDeferred
async def test_results_are_kept_for_a_while(kept: float, later: float, done: int) -> None:
    clock, calls = Clock(), 0

    async def work() -> int:
        nonlocal calls
        calls += 1
        return calls

    shared: SharedWork[int] = SharedWork(clock, lambda result: True, kept)
    assert await shared.do("key", work) == 1
    clock.advance(later)
    assert await shared.do("key", work) == done


@pytest_twisted.ensureDeferred
async def test_what_is_forgotten_is_done_anew_also_where_it_is_under_way() -> None:
    under_way: list[Deferred[int]] = []

    async def work() -> int:
        under_way.append(Deferred())
        return await under_way[-1]

    shared: SharedWork[int] = SharedWork(Clock(), lambda result: True, 60.0)
    first = Deferred.fromCoroutine(shared.do("key", work))
    shared.forget("key")
    second = Deferred.fromCoroutine(shared.do("key", work))
    under_way[0].callback(1)
    assert await first == 1
    under_way[1].callback(2)
    assert await second == 2
    assert await shared.do("key", work) == 2, "the old one is not kept"
    for forget in (lambda: shared.forget("key"), shared.forget_all):
        forget()
        again = Deferred.fromCoroutine(shared.do("key", work))
        under_way[-1].callback(3)
        assert await again == 3
