"""Memberships by a worker: an event_creator judges, builds and signs them all, and has the main process write only."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import pytest_twisted

from synapse.replication.calls import Call, RemoteMain
from synapse.storage.pool import PoolSettings
from tests.rest.people import Person
from tests.support.homeserver import cluster


@pytest_twisted.ensureDeferred
async def test_an_event_creator_changes_memberships_by_itself(
    database_settings: PoolSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    call_main = RemoteMain.__call__

    async def recorded(self: RemoteMain, call: Call[Any, Any], argument: Any) -> Any:
        calls.append(call.name)
        return await call_main(self, call, argument)

    monkeypatch.setattr(RemoteMain, "__call__", recorded)
    async with cluster(database_settings, "event_creator") as made:
        main, worker = made.main.client, made["event_creator"].client
        tokens = {f"@{name}:test": await main.register(name) for name in ("alice", "bob")}
        alice, bob = (Person(worker, user_id, token) for user_id, token in tokens.items())
        alice_at_main, bob_at_main = (Person(main, user_id, token) for user_id, token in tokens.items())
        room = await alice_at_main.room(preset="private_chat")
        club = await alice_at_main.room()
        await made.caught_up()
        calls.clear()
        member = f"/rooms/{room}/state/m.room.member/{bob.id}"
        bobs = {"user_id": bob.id}
        await alice.do("POST", f"/rooms/{room}/invite", bobs)
        await bob.do("POST", f"/rooms/{room}/leave", {"reason": "later"})
        assert await bob.refused("POST", f"/join/{room}") == (403, "M_FORBIDDEN")
        await alice.do("PUT", member, {"membership": "invite"})
        await bob.do("POST", f"/rooms/{room}/join", {})
        await bob.do("PUT", f"/profile/{bob.id}/displayname", {"displayname": "Robert"})
        assert (await bob.do("GET", member))["displayname"] == "Robert"
        await alice.do("POST", f"/rooms/{room}/kick", bobs)
        await alice.do("POST", f"/rooms/{room}/ban", bobs)
        assert await alice.refused("POST", f"/rooms/{room}/invite", bobs) == (403, "M_FORBIDDEN")
        await alice.do("POST", f"/rooms/{room}/unban", bobs)
        rule = {"join_rule": "knock_restricted", "allow": [{"type": "m.room_membership", "room_id": club}]}
        await alice.do("PUT", f"/rooms/{room}/state/m.room.join_rules", rule)
        await bob.do("PUT", member, {"membership": "knock"})
        await bob.do("PUT", member, {"membership": "leave"})
        await bob.do("POST", f"/join/{club}")
        await bob.do("POST", f"/join/{room}")
        assert (await bob_at_main.do("GET", member))["join_authorised_via_users_server"] == alice.id
        # What the main process has to do is writing events, and telling the new name along with Bob's presence.
        assert Counter(calls) == {"events.persist": 13, "presence.show": 1}

        await bob.do("POST", f"/rooms/{room}/leave")
        await bob_at_main.do("GET", f"/rooms/{room}/messages?dir=b")
        await bob_at_main.do("POST", f"/rooms/{room}/forget")
        assert await bob_at_main.refused("GET", f"/rooms/{room}/messages?dir=b") == (403, "M_FORBIDDEN")
        await bob.do("POST", f"/join/{room}")
        await bob_at_main.do("GET", f"/rooms/{room}/messages?dir=b")
