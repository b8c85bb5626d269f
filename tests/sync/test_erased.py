"""What erased users wrote is pruned for those who were not in the room then, and for nobody else."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.storage.database import Database
from tests.sync.harness import Harness

ALICE, BOB, CAROL = "@alice:test", "@bob:test", "@carol:test"


@pytest.fixture
def h(database: Database) -> Harness:
    return Harness(database)


async def erase(h: Harness, user_id: str) -> None:
    await h.world.sql("INSERT INTO users (user_id, created_ts, erased) VALUES (%s, 0, true)", user_id)
    h.erased.invalidate(user_id)


def told(answer: dict[str, Any], room: str, part: str = "join") -> list[tuple[str, dict[str, Any]]]:
    """Sender and content of the messages of the room's timeline."""
    events = answer["rooms"][part][room]["timeline"]["events"]
    return [(e["sender"], e["content"]) for e in events if e["type"] == "m.room.message"]


@pytest_twisted.ensureDeferred
async def test_who_was_not_there_sees_what_erased_users_wrote_pruned(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    await h.world.message(room, BOB, "before", url="mxc://x")
    await h.world.message(room, ALICE, "from Alice")
    await h.world.member(room, CAROL)
    await h.world.message(room, BOB, "after")
    full = {"msgtype": "m.text", "body": "before", "url": "mxc://x"}
    others = [(ALICE, {"msgtype": "m.text", "body": "from Alice"}), (BOB, {"msgtype": "m.text", "body": "after"})]
    assert told(await h.sync(CAROL), room) == [(BOB, full), *others]
    await erase(h, BOB)
    assert told(await h.sync(ALICE), room) == [(BOB, full), *others]
    assert told(await h.sync(CAROL, device_id="OTHER"), room) == [(BOB, {}), *others]
    federation = await h.sync(CAROL, device_id="THIRD", event_format="federation")
    assert told(federation, room) == [(BOB, {}), *others]
    # What a pruned event says of its redaction is nothing: there is none.
    events = (await h.sync(CAROL, device_id="FOURTH"))["rooms"]["join"][room]["timeline"]["events"]
    pruned = next(e for e in events if e["sender"] == BOB and e["type"] == "m.room.message")
    assert pruned["unsigned"].keys() == {"age", "membership"}


@pytest_twisted.ensureDeferred
async def test_events_that_everybody_was_there_for_ask_nobody(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    await erase(h, BOB)
    since = (await h.sync(ALICE))["next_batch"]
    await h.world.message(room, BOB, "hello")
    with h.db.counted() as counts:
        await h.sync(ALICE, since)
    assert counts.read["users.erased"] == 0
