"""The writing ends of streams: whoever writes hears that it is written, whatever others write at the same time."""

from __future__ import annotations

from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.replication.notifier import Notifier
from synapse.replication.writing import MainStreams
from synapse.storage.database import Database


@ensureDeferred
async def test_two_who_write_a_stream_at_the_same_time_both_hear_of_it(database: Database) -> None:
    notifier = Notifier(Clock())
    streams = MainStreams(database, notifier, Clock())
    await streams.start()
    told: list[tuple[int, str]] = []
    notifier.subscribe("device_lists", lambda _, rows: told.extend(rows))
    first, second = streams.writer("device_lists"), streams.writer("device_lists")
    slow: Deferred[str] = Deferred()

    async def wait(_position: int) -> str:
        return await slow

    async def at_once(_position: int) -> str:
        return "@b:test"

    earlier = Deferred.fromCoroutine(first.append(wait, lambda row: [row]))
    later = Deferred.fromCoroutine(second.append(at_once, lambda row: [row]))
    assert not later.called, "what is before it is not written yet"
    slow.callback("@a:test")
    assert earlier.called
    assert later.called
    assert (await earlier, await later) == ("@a:test", "@b:test")
    assert [row for _, row in told] == ["@a:test", "@b:test"]
    await streams.stop()
