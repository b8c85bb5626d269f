"""Gaps in a room's history, and who pages through them: whatever points they go between, they see every event once, in
order, however much of it has to be fetched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted

from synapse.events.event import Event
from synapse.handlers import pagination, search_index
from synapse.handlers.remote import backfill
from synapse.storage.persist_events import Fate, Received, ReceivedEvent
from synapse.storage.pool import PoolSettings
from tests.federation.test_joining_by_worker import Way
from tests.rest.people import Person
from tests.support.homeserver import TestServer, homeserver
from tests.support.resident import Resident

THERE = "there.test"


class Room:
    """A room of another server that Alice is in, and of which her server hears only now and then."""

    def __init__(self, server: TestServer, alice: Person) -> None:
        self.resident = Resident(THERE)
        self.way = Way(self.resident)
        self.way.used_by(server)
        self.server = server
        self.alice = alice
        self._path = f"/rooms/{quote(self.resident.room_id)}"

    def say(self, count: int = 1) -> list[str]:
        """Messages of which her server does not hear."""
        return [self.resident.say(self.resident.creator, str(number)).event_id for number in range(count)]

    async def heard(self, event: Event | None = None) -> str:
        """Her server hears of an event (a new message), and of nothing before it."""
        event = event or self.resident.say(self.resident.creator, "heard")
        before = {key: each.event_id for key, each in self.resident.states[event.event_id].items()}
        each = ReceivedEvent(event, state_before=before)
        receipt = await self.server.hs.rooms.receive(Received(event.room_id, event.room_version, [each]))
        assert [fate for fate, _ in receipt.fates] == [Fate.ACCEPTED]
        await self.server.hs.rooms.caught_up(receipt.position)
        return event.event_id

    async def sync(self, since: str | None = None) -> tuple[dict[str, Any], str]:
        """The timeline, and the next token."""
        answer = await self.alice.do("GET", "/sync?timeout=0" + (f"&since={since}" if since else ""))
        return answer["rooms"]["join"][self.resident.room_id]["timeline"], answer["next_batch"]

    async def page(self, **args: Any) -> dict[str, Any]:
        query = "&".join(f"{name.strip('_')}={value}" for name, value in args.items())
        found: dict[str, Any] = await self.alice.do("GET", f"{self._path}/messages?{query}")
        return found

    async def pages(self, most: int = 50, **args: Any) -> list[str]:
        """The ids of the events of all pages."""
        found: list[str] = []
        for _ in range(most):
            page = await self.page(**args)
            found += ids(page["chunk"])
            if "end" not in page:
                return found
            args["from_"] = page["end"]
        raise AssertionError("the pages do not end")

    async def point(self, event_id: str) -> str:
        """The token that is just behind an event."""
        around = await self.alice.do("GET", f"{self._path}/context/{quote(event_id, safe='')}?limit=0")
        return str(around["end"])


@asynccontextmanager
async def room_of(settings: PoolSettings) -> AsyncIterator[Room]:
    async with homeserver(settings) as server:
        alice = Person(server.client, "@alice:test", await server.client.register("alice"))
        room = Room(server, alice)
        await alice.do("POST", f"/join/{quote(room.resident.room_id)}?via={THERE}", {})
        yield room


def ids(events: list[dict[str, Any]]) -> list[str]:
    return [event["event_id"] for event in events]


@pytest.mark.parametrize("limit", [7, 200])
@pytest_twisted.ensureDeferred
async def test_between_two_syncs_lies_what_filled_the_gap(database_settings: PoolSettings, limit: int) -> None:
    async with room_of(database_settings) as room:
        _, first = await room.sync()
        root = list(room.resident.ends)
        known = [await room.heard() for _ in range(3)]
        _, since = await room.sync(first)
        missed = room.say(110)
        after = await room.heard()
        timeline, now = await room.sync(since)
        assert (ids(timeline["events"]), timeline["limited"]) == ([after], True)
        back = timeline["prev_batch"]
        assert await room.pages(dir="b", from_=back, to=since, limit=limit) == missed[::-1]
        # A second gap, which goes back to before the first.
        tips, room.resident.ends = room.resident.ends, root
        branch = room.say(5)
        room.resident.ends += tips
        last = await room.heard()
        timeline, end = await room.sync(now)
        assert await room.pages(dir="b", from_=timeline["prev_batch"], to=now, limit=limit) == branch[::-1]
        # Each lies between the points where it was missing, and nowhere else.
        assert await room.pages(dir="b", from_=back, to=since, limit=limit) == missed[::-1]
        assert await room.pages(dir="b", from_=since, to=first, limit=limit) == known[::-1]
        assert await room.pages(dir="f", from_=first, to=since, limit=limit) == known
        assert await room.pages(dir="f", from_=since, to=now, limit=limit) == [*missed, after]
        assert await room.pages(dir="f", from_=now, to=end, limit=limit) == [*branch, last]
        assert await room.pages(dir="b", from_=end, to=since, limit=limit) == [
            last,
            *branch[::-1],
            after,
            *missed[::-1],
        ]


@pytest_twisted.ensureDeferred
async def test_who_goes_onwards_from_a_former_token_has_the_gap_fetched(database_settings: PoolSettings) -> None:
    async with room_of(database_settings) as room:
        _, since = await room.sync()
        missed = room.say(30)
        after = await room.heard()
        _, now = await room.sync(since)
        assert await room.pages(dir="f", from_=since, to=now, limit=8) == [*missed, after]
        assert room.way.reached.count("backfill") == 1
        assert await room.pages(dir="f", from_=since, to=now, limit=8) == [*missed, after]
        assert room.way.reached.count("backfill") == 1


@pytest_twisted.ensureDeferred
async def test_no_page_leaves_out_what_is_still_to_be_fetched(
    database_settings: PoolSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "EVENTS", 8)
    monkeypatch.setattr(pagination, "_FETCHES_ONWARDS", 2)
    async with room_of(database_settings) as room:
        for backwards in (False, True):
            before = await room.heard()
            start = await room.point(before)
            missed = room.say(50)
            last = [await room.heard() for _ in range(3)]
            if backwards:
                assert await room.pages(dir="b", to=start, limit=500) == [*missed, *last][::-1]
                continue
            first = await room.page(dir="f", from_=start, limit=500)
            assert first == {"start": start, "chunk": [], "end": start}
            assert room.way.reached.count("backfill") == 2
            assert await room.pages(dir="f", from_=start, to=await room.point(last[-1]), limit=50) == [*missed, *last]
            assert room.way.reached.count("backfill") == 7


@pytest_twisted.ensureDeferred
async def test_what_was_fetched_is_found(database_settings: PoolSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_index, "PAGE", 3)
    async with room_of(database_settings) as room:
        index, resident = room.server.hs.finding.search_index, room.resident
        _, since = await room.sync()
        told: list[str] = []
        for _ in range(2):
            missed = [resident.say(resident.creator, f"a tulip, {n}").event_id for n in range(5)]
            hidden = resident.say(resident.creator, "a tulip that is none")
            redacts = {"redacts": hidden.event_id}
            resident.add(resident.made(resident.creator, "m.room.redaction", redacts))
            await room.heard()
            timeline, since = await room.sync(since)
            assert len(await found(room, "tulips")) == len(told)
            await room.pages(dir="b", from_=timeline["prev_batch"], limit=100)
            await index.keep_up()
            told += missed
            assert sorted(await found(room, "tulips")) == sorted(told)
        with room.server.hs.database.counted() as counts:
            await index.keep_up()
        assert not counts.read
        assert not counts.written


async def found(room: Room, term: str) -> list[str]:
    """What a search finds."""
    criteria = {"search_term": term, "order_by": "recent"}
    answer = await room.alice.do("POST", "/search", {"search_categories": {"room_events": criteria}})
    return ids([result["result"] for result in answer["search_categories"]["room_events"]["results"]])
