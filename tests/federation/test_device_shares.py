"""How much of a server's devices is kept, whatever it tells."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from synapse.handlers.edus import shares
from synapse.handlers.edus.shares import COUNTED_SECONDS, RECOUNTED_SECONDS, DeviceShares
from synapse.storage.database import Database
from synapse.storage.remote_devices import Applied, Device, Fetched, Kept, Keys, ListRow, RemoteDeviceStore
from synapse.util.caches import LruCache

KIB = 1024


class Counting:
    """Shares of a server of which `kept` is kept. `asked` is how often that was counted."""

    def __init__(self, lists: int, size: int) -> None:
        self.kept = Kept(lists, size)
        self.asked = 0
        self.clock = Clock()
        this: Any = self
        self.shares = DeviceShares(this, LruCache("device_shares", 10), self.clock)

    async def kept_of(self, server: str) -> Kept:
        assert server == "evil.test"
        self.asked += 1
        return self.kept

    async def kept_devices(self, *sizes: int) -> list[str]:
        devices = [Device(f"D{number}", "x" * size, None) for number, size in enumerate(sizes)]
        found = await self.shares.within("@eve:evil.test", Fetched(1, devices, Keys([], [])))
        return [device.device_id for device in found.devices]


@pytest_twisted.ensureDeferred
async def test_what_a_server_may_have_grows_with_its_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "AT_LEAST", 100 * KIB)
    few, many = Counting(2, 90 * KIB), Counting(9, 90 * KIB)
    for counting, kept in ((few, ["D0"]), (many, ["D0", "D1", "D2", "D3"])):
        assert await counting.kept_devices(*[8 * KIB] * 4) == kept
        assert counting.asked == 1
    assert await many.kept_devices(*[8 * KIB] * 40) == [f"D{n}" for n in range((320 - 90 - 32) // 8)]
    assert await many.kept_devices(8 * KIB) == []
    assert not await many.shares.has_place("@eve:evil.test", Device("X", "x" * 8 * KIB, None))
    assert await many.shares.has_place("@eve:evil.test", Device("X", None, "a name"))


@pytest_twisted.ensureDeferred
async def test_a_list_has_a_bound_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "OF_A_USER", 10 * KIB)
    counting = Counting(1, 0)
    assert await counting.kept_devices(8 * KIB, 8 * KIB, KIB) == ["D0", "D2"]


@pytest_twisted.ensureDeferred
async def test_it_is_counted_seldom_and_anew_before_it_is_believed_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "AT_LEAST", 40 * KIB)
    counting = Counting(0, 0)
    for _ in range(4):  # the same list each time, which takes its own place
        assert await counting.kept_devices(10 * KIB) == ["D0"]
    assert await counting.kept_devices(10 * KIB) == []
    assert counting.asked == 1
    counting.clock.advance(RECOUNTED_SECONDS)
    assert await counting.kept_devices(10 * KIB) == ["D0"]
    assert counting.asked == 2
    counting.kept = Kept(1, 40 * KIB)
    counting.clock.advance(COUNTED_SECONDS)
    assert await counting.kept_devices(10 * KIB) == ["D0"]  # there are two lists with this one: 64 KiB
    assert await counting.kept_devices(20 * KIB) == []
    assert counting.asked == 3


@pytest_twisted.ensureDeferred
async def test_what_is_kept_of_a_server_is_counted_in_the_tables(database: Database) -> None:
    store = RemoteDeviceStore(database)
    for number, user_id in enumerate(("@a:evil.test", "@b:evil.test", "@c:sub.evil.test", "@d:evil.test:1")):
        devices = [Device("A", "x" * 10, None), Device("B", None, "B"), Device("C", "y" * 5, None)][: number + 1]
        await store.replace(user_id, Fetched(1, devices, Keys([], [])), number + 1)
    assert await store.kept_of("evil.test") == Kept(2, 20)
    assert await store.kept_of("sub.evil.test") == Kept(1, 15)
    assert await store.kept_of("nobody.test") == Kept(0, 0)
    row = ListRow(1, (2,), False)
    new = Device("Z", "z" * 100, None)
    await store.apply("@a:evil.test", "Z", lambda _: Applied(row, new), 100, 9)
    assert await store.kept_of("evil.test") == Kept(2, 120)
