"""Large answers give way; equal work is done once."""

from __future__ import annotations

import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.sync.breath import EVENTS, Breath


@pytest_twisted.ensureDeferred
async def test_many_events_let_the_reactor_have_a_turn() -> None:
    clock = Clock()
    breath = Breath(clock)
    await breath.after(EVENTS - 1)
    assert clock.getDelayedCalls() == []
    waiting = Deferred.fromCoroutine(breath.after(1))
    assert not waiting.called
    clock.advance(0)
    assert waiting.called
    await breath.after(1)
