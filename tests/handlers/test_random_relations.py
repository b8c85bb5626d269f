"""Rooms in which people relate to each other at random: readers are told what a naive count of all events says."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

import orjson
import pytest
import pytest_twisted

from synapse.handlers.pagination import PageRequest
from synapse.handlers.relations import RelationsRequest
from synapse.storage.database import Database
from synapse.storage.timeline import TimelineRow
from tests.sync.harness import Harness
from tests.sync.readers import Readers

PEOPLE = ALICE, BOB, CAROL = "@alice:test", "@bob:test", "@carol:test"
GONE = "@gone:test"
TYPES = ("m.thread", "m.thread", "m.replace", "m.reference", "m.annotation")


@pytest.fixture
def h(database: Database) -> Iterator[Harness]:
    return Harness(database)


class Said(NamedTuple):
    """An event as the model knows it."""

    row: TimelineRow
    rel_type: str | None
    parent: str | None


class Model:
    """All that was said in a room, and what of it is redacted."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self.redacted: set[str] = set()

    def until(self, position: int) -> Model:
        """What of it somebody sees who left then; what is redacted since, they do not see either."""
        model = Model()
        model.said = [each for each in self.said if each.row.stream <= position]
        model.redacted = self.redacted
        return model

    def children(self, parent: Said, rel_type: str | None, ignored: set[str]) -> list[Said]:
        """What relates to the event, in the order of history."""
        found = [
            each
            for each in self.said
            if each.parent == parent.row.event_id
            and (each.rel_type == rel_type or (rel_type is None and each.rel_type is not None))
            and each.row.event_id not in self.redacted
            and each.row.sender not in ignored
        ]
        return sorted(found, key=lambda each: (each.row.depth, each.row.stream))

    def edit(self, parent: Said, ignored: set[str]) -> Any:
        if parent.row.event_id in self.redacted or parent.rel_type == "m.replace":
            return None
        edits = [e for e in self.children(parent, "m.replace", ignored) if e.row.sender == parent.row.sender]
        edits.sort(key=lambda each: (each.row.origin_server_ts, each.row.event_id))
        return edits[-1].row.event_id if edits else None

    def bundle(self, parent: Said, reader: str, ignored: set[str], nested: bool = False) -> dict[str, Any]:
        """`m.relations`, with ids in the place of events."""
        bundle: dict[str, Any] = {}
        if (edit := self.edit(parent, ignored)) is not None:
            bundle["m.replace"] = edit
        if references := self.children(parent, "m.reference", ignored):
            bundle["m.reference"] = [each.row.event_id for each in references]
        thread = self.children(parent, "m.thread", ignored)
        if thread and parent.rel_type is None and not nested:
            senders = {parent.row.sender, *(each.row.sender for each in thread)}
            latest = self.bundle(thread[-1], reader, ignored, nested=True)
            bundle["m.thread"] = (thread[-1].row.event_id, len(thread), reader in senders, latest)
        return bundle

    def threads(self, reader: str, ignored: set[str], participated: bool) -> list[str]:
        found: list[tuple[int, int, str]] = []
        for root in self.said:
            thread = self.children(root, "m.thread", ignored)
            took_part = reader in {root.row.sender, *(each.row.sender for each in thread)}
            if thread and root.rel_type is None and (took_part or not participated):
                found.append((thread[-1].row.depth, thread[-1].row.stream, root.row.event_id))
        return [event_id for _, _, event_id in sorted(found, reverse=True)]


def told_bundle(event: dict[str, Any]) -> dict[str, Any]:
    """The same of an event as it was told."""
    bundle = dict(event["unsigned"].get("m.relations", {}))
    if "m.replace" in bundle:
        bundle["m.replace"] = bundle["m.replace"]["event_id"]
    if "m.reference" in bundle:
        bundle["m.reference"] = [each["event_id"] for each in bundle["m.reference"]["chunk"]]
    if (thread := bundle.get("m.thread")) is not None:
        latest = thread["latest_event"]
        bundle["m.thread"] = (
            latest["event_id"],
            thread["count"],
            thread["current_user_participated"],
            told_bundle(latest),
        )
    return bundle


async def act(h: Harness, room: str, model: Model, random: Random) -> None:
    sender = random.choice(PEOPLE)
    if model.said and random.random() < 0.15:
        target = random.choice(model.said)
        await h.world.redact(target.row, sender)
        model.redacted.add(target.row.event_id)
        return
    content: dict[str, Any] = {"body": "x"}
    rel_type = parent = None
    if model.said and random.random() < 0.75:
        among = model.said[:6] if random.random() < 0.6 else model.said[-8:]
        rel_type, parent = random.choice(TYPES), random.choice(among).row.event_id
        content |= {"m.relates_to": {"rel_type": rel_type, "event_id": parent}, "m.new_content": {"body": "y"}}
    columns: dict[str, Any] = {"origin_server_ts": random.randrange(1_600_000_000_000, 1_600_000_000_005)}
    if random.random() < 0.2:  # of a branch
        columns["depth"] = random.randrange(1, h.world.rooms[room].depth + 5)
    model.said.append(Said(await h.world.event(room, sender, "m.room.message", content, **columns), rel_type, parent))


@pytest.mark.parametrize("seed", range(4))
@pytest_twisted.ensureDeferred
async def test_readers_are_told_what_relates_to_what(h: Harness, seed: int) -> None:
    random, model = Random(seed), Model()
    room = await h.world.room(ALICE)
    for user in (BOB, CAROL, GONE):
        await h.world.member(room, user)
    for _ in range(40):
        await act(h, room, model, random)
    left = await h.world.member(room, GONE, "leave")
    for _ in range(30):
        await act(h, room, model, random)
    content = orjson.dumps({"ignored_users": {BOB: {}}}).decode()
    await h.world.sql("INSERT INTO account_data VALUES (%s, '', 'm.ignored_user_list', %s, 1)", CAROL, content)
    readers = Readers(h)
    readings = ((ALICE, set[str](), model), (CAROL, {BOB}, model), (GONE, set[str](), model.until(left.stream)))
    for reader, ignored, known in readings:
        page = orjson.loads(await readers.pagination.messages(PageRequest(reader, "DEV", room, True, limit=200)))
        told = {event["event_id"]: told_bundle(event) for event in page["chunk"]}
        for each in known.said:
            if each.row.sender not in ignored:
                assert told[each.row.event_id] == known.bundle(each, reader, ignored), each.row.event_id
        for participated in (False, True):
            answer = orjson.loads(await readers.threads.of(reader, "DEV", room, participated=participated, limit=100))
            found = [event["event_id"] for event in answer["chunk"]]
            assert found == known.threads(reader, ignored, participated)
        for each in random.sample(known.said, 10):
            request = RelationsRequest(PageRequest(reader, "DEV", room, True, limit=100), each.row.event_id)
            chunk = orjson.loads(await readers.relations.of(request))["chunk"]
            expected = [child.row.event_id for child in known.children(each, None, ignored)]
            assert [event["event_id"] for event in chunk] == expected[::-1]
