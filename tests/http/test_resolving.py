"""Names are looked up on threads of their own, so many at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred

from synapse.http.resolving import ThreadedResolver
from tests.support.reactor import real_reactor


class Receiver:
    """What a resolver is told to tell."""

    def __init__(self) -> None:
        self.found: list[tuple[str, int]] = []
        self.done: Deferred[None] = Deferred()

    def resolutionBegan(self, resolution: Any) -> None:
        pass

    def addressResolved(self, address: Any) -> None:
        self.found.append((address.host, address.port))

    def resolutionComplete(self) -> None:
        self.done.callback(None)


def begin(resolver: ThreadedResolver, name: str, kinds: Any = None) -> tuple[Receiver, Any]:
    receiver: Any = Receiver()
    return receiver, resolver.resolveHostName(receiver, name, 8448, kinds)


async def found(resolver: ThreadedResolver, name: str, kinds: Any = None) -> list[tuple[str, int]]:
    receiver, _ = begin(resolver, name, kinds)
    await receiver.done
    return receiver.found


@pytest.mark.parametrize(
    ("name", "expected"),
    [("1.2.3.4", ["1.2.3.4"]), ("2001:db8::1", ["2001:db8::1"]), ("localhost", ["127.0.0.1"])],
)
@pytest_twisted.ensureDeferred
async def test_addresses_of_names_and_addresses(name: str, expected: list[str]) -> None:
    addresses = [host for host, port in await found(ThreadedResolver(real_reactor()), name) if port == 8448]
    assert [each for each in addresses if each != "::1"] == expected


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a" * 300, "", "with space", "\x00"])
@pytest_twisted.ensureDeferred
async def test_names_without_an_address(name: str) -> None:
    def look_up(asked: str) -> Sequence[str]:
        raise OSError if asked.isprintable() else ValueError

    assert await found(ThreadedResolver(real_reactor(), look_up), name) == []


@pytest_twisted.ensureDeferred
async def test_addresses_of_one_kind() -> None:
    resolver = ThreadedResolver(real_reactor(), lambda name: ["::1", "127.0.0.1"])
    assert await found(resolver, "x", [IPv4Address]) == [("127.0.0.1", 8448)]
    assert await found(resolver, "x") == [("::1", 8448), ("127.0.0.1", 8448)]


@pytest_twisted.ensureDeferred
async def test_so_many_at_a_time_and_none_on_the_reactors_thread() -> None:
    goes_on, threads = threading.Event(), set()

    def look_up(name: str) -> Sequence[str]:
        threads.add(threading.current_thread())
        goes_on.wait(20)
        return [name.partition(".")[0]]

    resolver = ThreadedResolver(real_reactor(), look_up, threads=2)
    begun = [begin(resolver, f"10.0.0.{number}.test") for number in range(5)]
    given_up, resolution = begin(resolver, "unwanted.test")
    resolution.cancel()
    assert [receiver.found for receiver, _ in begun] == [[]] * 5
    goes_on.set()
    for receiver, _ in begun:
        await receiver.done
        assert receiver.found == [("10", 8448)]
    assert threading.main_thread() not in threads
    assert given_up.found == []
    assert not given_up.done.called


@pytest_twisted.ensureDeferred
async def test_too_many_names_find_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synapse.http.resolving.WAITING", 0)
    goes_on = threading.Event()

    def look_up(name: str) -> Sequence[str]:
        goes_on.wait(20)
        return ["10.0.0.1"]

    resolver = ThreadedResolver(real_reactor(), look_up, threads=1)
    first, _ = begin(resolver, "a.test")
    assert await found(resolver, "b.test") == []
    goes_on.set()
    await first.done
    assert first.found == [("10.0.0.1", 8448)]


@pytest_twisted.ensureDeferred
async def test_names_that_nobody_waits_for_any_more_are_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synapse.http.resolving.STALE", -1.0)
    goes_on, asked = threading.Event(), []

    def look_up(name: str) -> Sequence[str]:
        asked.append(name)
        goes_on.wait(20)
        return ["10.0.0.1"]

    resolver = ThreadedResolver(real_reactor(), look_up, threads=1)
    assert (await found(resolver, "late.test"), asked) == ([], [])

    monkeypatch.setattr("synapse.http.resolving.STALE", 20.0)
    first, _ = begin(resolver, "a.test")
    _, given_up = begin(resolver, "b.test")
    last, _ = begin(resolver, "c.test")
    given_up.cancel()
    goes_on.set()
    await first.done
    await last.done
    assert asked == ["a.test", "c.test"]
