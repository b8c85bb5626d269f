"""Events of rooms that this server takes no part in: what ends an invite or a knock of one of its users is heard."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.api.room_versions import room_version
from synapse.events.event import Event
from synapse.storage.persist_events import Kind, Received, ReceivedEvent
from synapse.storage.pool import PoolSettings
from tests.federation.visitor import Visitor, stored, visit
from tests.rest.people import Person, person
from tests.support.homeserver import TestServer, homeserver

ALICE = "@alice:test"


def membership(eve: Visitor, version: str, kind: str, *cited: str, sender: str | None = None) -> Event:
    """A membership of Alice's in a room of Eve's that nobody of this server is in."""
    found = room_version(version)
    room = "!" + "r" * 43 if found.room_id_from_create else "!room:evil.test"
    return eve.event(
        found,
        room,
        type="m.room.member",
        state_key=ALICE,
        content={"membership": kind},
        sender=sender,
        auth=cited,
    )


async def aside(server: TestServer, event: Event) -> None:
    """Writes it as the way in of an invite does."""
    await server.hs.rooms.receive(Received(event.room_id, event.room_version, (ReceivedEvent(event),), kind=Kind.ASIDE))


async def invites(alice: Person) -> Any:
    return (await alice.get("/sync")).get("rooms", {}).get("invite", {})


@pytest.mark.parametrize("version", ["1", "3", "6", "12"])
@pytest.mark.parametrize("kind", ["leave", "ban"])
@pytest_twisted.ensureDeferred
async def test_an_invite_is_taken_back(database_settings: PoolSettings, version: str, kind: str) -> None:
    async with homeserver(database_settings) as server:
        alice, eve = await person(server, "alice"), await visit(server)
        invite = membership(eve, version, "invite")
        await aside(server, invite)
        assert list(await invites(alice)) == [invite.room_id]
        wrong = [
            membership(eve, version, kind),  # cites nothing
            membership(eve, version, kind, "$another:evil.test"),
            membership(eve, version, "join", invite.event_id),
            membership(eve, version, kind, invite.event_id, sender="@somebody:other.test"),  # not signed by them
            membership(eve, version, kind, invite.event_id, sender=eve.user("another")),  # who has not sent the invite
        ]
        answer = await eve.send(*wrong, {"room_id": invite.room_id})
        assert [answer[event.event_id].keys() for event in wrong] == [{"error"}] * 5
        assert list(await invites(alice)) == [invite.room_id]
        end = membership(eve, version, kind, invite.event_id)
        assert await eve.send(end) == {end.event_id: {}}
        assert not await invites(alice)
        again = membership(eve, version, "ban" if kind == "leave" else "leave", invite.event_id)
        assert {} not in (await eve.send(again)).values()
        assert await stored(server, again) is None


@pytest_twisted.ensureDeferred
async def test_the_log_says_that_nobody_is_in_a_room(
    database_settings: PoolSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "synapse.federation")
    async with homeserver(database_settings) as server:
        eve = await visit(server)
        assert await eve.send({"room_id": "!strange:evil.test"}, {"room_id": "!strange:evil.test"}) == {}
        said = [message for message in caplog.messages if "!strange:evil.test" in message]
        assert said == ["Events of evil.test are dropped: nobody of this server is in !strange:evil.test"]
