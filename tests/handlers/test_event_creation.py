"""Sending events: from the wish of a user to rows in the database, with one process and with several."""

from __future__ import annotations

import pytest_twisted

from synapse.storage.database import Database
from tests.support.rooms import BOB, start


@pytest_twisted.ensureDeferred
async def test_a_room_is_made_joined_and_written_to(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room(name="A room", joined=[BOB])
    event_id = await process.say(BOB, room_id, "hello")
    stored = await process.events.get(event_id)
    assert stored is not None
    assert stored.event.content["body"] == "hello"
