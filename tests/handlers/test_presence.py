"""Who is online: the keeper's states over time, and who is told what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from twisted.internet.task import Clock

from synapse.handlers.presence_calls import SetPresence
from synapse.handlers.presence_keeper import CURRENTLY_ACTIVE, IDLE_AFTER, SYNC_GRACE, PresenceKeeper
from synapse.handlers.syncing_users import LINGER, SyncingDevice, SyncingUsers
from synapse.replication.calls import LocalMain
from synapse.storage.presence import PresenceState

ALICE = "@alice:test"
PHONE, LAPTOP = SyncingDevice(ALICE, "PHONE"), SyncingDevice(ALICE, "LAPTOP")


class Store:
    """Remembers what was written; `left` is what an earlier process wrote."""

    def __init__(self) -> None:
        self.written: list[PresenceState] = []
        self.kept: list[bool] = []
        self.left: list[PresenceState] = []
        self.noted: list[tuple[str, int]] = []

    async def note(self, user_id: str, active_ts: int) -> None:
        self.noted.append((user_id, active_ts))

    async def put(self, state: PresenceState, stream_id: int, keep_status: bool = False) -> None:
        self.written.append(state)
        self.kept.append(keep_status)

    async def not_offline(self) -> list[PresenceState]:
        return self.left


class Stream:
    position = 0

    async def append(self, write: Callable[[int], Awaitable[Any]], rows: Callable[[Any], Iterable[Any]]) -> None:
        self.position += 1
        assert list(rows(await write(self.position))) == [ALICE]


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000.0)
        self.store = Store()
        self.main = LocalMain()
        self.keeper = PresenceKeeper(self.store, Stream(), self.main, self.clock, "test")  # type: ignore[arg-type]

    def sync(self, device: SyncingDevice, there: bool = True, presence: str = "online", process: str = "s1") -> None:
        self.keeper.device_syncs(process, device, presence, there)

    async def say(self, presence: str, status: str | None = None, device_id: str | None = None) -> None:
        _, handle = self.main.handlers["presence.set"]
        await handle(SetPresence(ALICE, presence, status, device_id))

    def pass_time(self, seconds: float) -> None:
        """In steps, as timers would be called."""
        for _ in range(int(seconds)):
            self.clock.advance(1.0)

    @property
    def states(self) -> list[tuple[str, bool]]:
        return [(state.state, state.currently_active) for state in self.store.written]


@pytest.fixture
def world() -> World:
    return World()


def test_who_syncs_is_online_and_who_stops_is_gone_after_a_while(world: World) -> None:
    world.sync(PHONE)
    assert world.states == [("online", True)]
    world.sync(PHONE, there=False)
    world.pass_time(SYNC_GRACE - 6)
    assert world.states == [("online", True)]
    world.pass_time(12)
    assert world.states[-1] == ("offline", False)
    assert world.clock.getDelayedCalls() == []  # nobody is there: nothing ticks


def test_short_absences_are_not_noticed(world: World) -> None:
    world.sync(PHONE)
    world.sync(PHONE, there=False)
    world.pass_time(SYNC_GRACE / 2)
    world.sync(PHONE)
    world.pass_time(SYNC_GRACE)
    assert world.states == [("online", True)]


def test_the_most_present_device_counts(world: World) -> None:
    world.sync(PHONE, presence="unavailable")
    assert world.states == [("unavailable", False)]
    world.sync(LAPTOP, process="s2")
    assert world.states[-1] == ("online", True)
    world.sync(LAPTOP, process="s2", there=False)
    world.pass_time(SYNC_GRACE + 6)
    assert world.states[-1] == ("unavailable", False)


def test_whoever_does_nothing_becomes_idle_and_whoever_does_something_is_back(world: World) -> None:
    world.sync(PHONE)
    world.pass_time(CURRENTLY_ACTIVE + 6)
    assert world.states == [("online", True), ("online", False)]
    world.pass_time(IDLE_AFTER)
    assert world.states[-1] == ("unavailable", False)
    world.keeper.active(ALICE)
    assert world.states[-1] == ("online", True)
    written = len(world.states)
    world.keeper.active(ALICE)  # nothing new
    assert len(world.states) == written
    assert world.keeper.last_active_ts(ALICE) == int(world.clock.seconds() * 1000)
    assert world.keeper.last_active_ts("@bob:test") is None


def test_those_who_write_without_syncing_stay_offline_and_are_noted_now_and_then(world: World) -> None:
    began = world.clock.seconds()
    for _ in range(20):
        world.keeper.active(ALICE)
        world.pass_time(5)
    assert world.store.noted == [(ALICE, began * 1000), (ALICE, (began + CURRENTLY_ACTIVE) * 1000)]
    assert world.keeper.last_active_ts(ALICE) == (began + CURRENTLY_ACTIVE) * 1000
    world.keeper.active("@bob:far")
    assert len(world.store.noted) == 2, "other servers tell of their users themselves"
    assert world.states == [], "others are not told each time"


@pytest.mark.parametrize("syncs", [True, False])
def test_a_changed_profile_is_told_whoever_is_there(world: World, syncs: bool) -> None:
    from twisted.internet.defer import ensureDeferred

    if syncs:
        world.sync(PHONE)
    world.pass_time(5)
    written = len(world.store.written)
    _, show = world.main.handlers["presence.show"]
    ensureDeferred(show(ALICE))
    [told] = world.store.written[written:]
    assert (told.state, told.last_active_ts) == ("online" if syncs else "offline", world.clock.seconds() * 1000)
    assert world.store.kept[-1], "what she said of herself stays"


async def _say(world: World, *words: Any) -> None:
    await world.say(*words)


def test_what_people_say_of_themselves(world: World) -> None:
    from twisted.internet.defer import ensureDeferred

    world.sync(PHONE)
    ensureDeferred(_say(world, "unavailable", "at lunch"))
    assert (world.store.written[-1].state, world.store.written[-1].status_msg) == ("unavailable", "at lunch")
    world.keeper.active(ALICE)
    assert world.states[-1][0] == "online"
    assert world.store.written[-1].status_msg == "at lunch"
    ensureDeferred(_say(world, "offline"))
    assert world.states[-1] == ("offline", False)
    world.sync(LAPTOP)
    assert world.states[-1][0] == "online"


def test_a_device_that_was_said_to_be_online_and_syncs_as_idle_is_idle(world: World) -> None:
    from twisted.internet.defer import ensureDeferred

    ensureDeferred(_say(world, "online", "here", PHONE.device_id))
    world.sync(LAPTOP, presence="unavailable")
    assert world.states == [("online", True)], "the other device is what it said"
    world.sync(PHONE, presence="unavailable")
    assert world.states[-1] == ("unavailable", False)
    assert world.store.written[-1].status_msg == "here"
    ensureDeferred(_say(world, "online", "here", PHONE.device_id))
    assert world.states[-1] == ("online", True)


def test_a_bot_that_only_says_so_is_believed_for_a_while(world: World) -> None:
    from twisted.internet.defer import ensureDeferred

    ensureDeferred(_say(world, "online"))
    assert world.states == [("online", True)]
    world.pass_time(IDLE_AFTER + 6)
    assert world.states[-1] == ("offline", False)


def test_a_status_message_that_is_not_known_is_left_alone(world: World) -> None:
    world.sync(PHONE)
    assert world.store.kept == [True]


def test_a_process_that_goes_takes_its_syncs_along(world: World) -> None:
    world.sync(PHONE)
    world.keeper.process_gone("other")
    world.pass_time(SYNC_GRACE + 6)
    assert world.states[0] == ("online", True)
    assert all(state != "offline" for state, _ in world.states)
    world.keeper.process_gone("s1")
    world.pass_time(SYNC_GRACE + 6)
    assert world.states[-1] == ("offline", False)


def test_a_restart_gives_everybody_a_moment_to_come_back(world: World) -> None:
    from twisted.internet.defer import ensureDeferred

    active = int(world.clock.seconds() * 1000)
    world.store.left = [PresenceState(ALICE, "online", "hi", active, True)]
    ensureDeferred(world.keeper.start())
    world.pass_time(SYNC_GRACE / 2)
    assert world.states == []
    world.pass_time(SYNC_GRACE)
    assert world.states == [("offline", False)]
    assert world.store.written[-1].status_msg == "hi"


# -- who syncs on a process -------------------------------------------------------------------------------------------


def test_a_device_is_told_of_when_it_comes_and_when_it_goes() -> None:
    clock = Clock()
    told: list[tuple[str | None, str, bool]] = []
    users = SyncingUsers(lambda device, presence, there: told.append((device.device_id, presence, there)), clock)
    for _ in range(5):
        with users.syncing(ALICE, "PHONE", "online"):
            clock.advance(3.0)
        clock.advance(3.0)
    assert told == [("PHONE", "online", True)]
    assert users.present() == {PHONE: "online"}
    with users.syncing(ALICE, "PHONE", "unavailable"):
        assert told[1:] == [("PHONE", "unavailable", True)]
    for _ in range(4):
        clock.advance(LINGER / 2)
    assert told[2:] == [("PHONE", "unavailable", False)]
    assert clock.getDelayedCalls() == []


def test_whoever_wants_to_seem_offline_is_not_told_of() -> None:
    told: list[Any] = []
    users = SyncingUsers(lambda *args: told.append(args), Clock())
    with users.syncing(ALICE, "PHONE", "offline"):
        pass
    assert told == []
    nobody = SyncingUsers(None, Clock())
    with nobody.syncing(ALICE, "PHONE", "online"):
        assert nobody.present() == {}
