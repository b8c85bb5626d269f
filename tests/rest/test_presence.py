"""Presence through the endpoints: what is told of people, to whom, and how often they may say it."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.handlers import presence_keeper
from synapse.storage.pool import PoolSettings
from tests.rest.people import V3, Person, person
from tests.support.homeserver import cluster, homeserver


async def told_of(watcher: Person, whom: Person, since: str, **wanted: Any) -> tuple[dict[str, Any], str]:
    """Follows syncs until presence of somebody comes with these values; that, and from where to go on."""
    while True:
        answer = await watcher.get(f"/sync?timeout=20000&since={since}")
        since = answer["next_batch"]
        for event in answer.get("presence", {"events": []})["events"]:
            content: dict[str, Any] = event["content"]
            if event["sender"] == whom.id and wanted.items() <= content.items():
                return content, since


@pytest_twisted.ensureDeferred
async def test_a_new_name_or_picture_is_shown_with_presence(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "event_creator", "synchrotron") as hs:
        alice, bob = await person(hs.main, "alice"), await person(hs.main, "bob")
        room = await alice.room()
        await bob.join(room)
        await hs.caught_up()
        alice.client, bob.client = hs["synchrotron"].client, hs["event_creator"].client
        since = (await alice.get("/sync"))["next_batch"]
        await bob.put(f"/profile/{bob.id}/displayname", {"displayname": "Bobby"})
        content, since = await told_of(alice, bob, since, displayname="Bobby")
        assert (content["presence"], "avatar_url" in content) == ("offline", False)
        bob.client = hs.main.client
        await bob.put(f"/presence/{bob.id}/status", {"presence": "online", "status_msg": "here"})
        await bob.put(f"/profile/{bob.id}/avatar_url", {"avatar_url": "mxc://test/bob"})
        content, since = await told_of(alice, bob, since, avatar_url="mxc://test/bob")
        assert (content["presence"], content["status_msg"], content["displayname"]) == ("online", "here", "Bobby")
        await bob.put(f"/profile/{bob.id}/avatar_url", {"avatar_url": "no link to media"})
        content, since = await told_of(alice, bob, since, presence="online")
        assert "avatar_url" not in content


@pytest_twisted.ensureDeferred
async def test_who_syncs_on_a_worker_is_gone_with_it_and_back_with_the_next(
    database_settings: PoolSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence_keeper, "SYNC_GRACE", 0.2)
    monkeypatch.setattr(presence_keeper, "_SWEEP", 0.05)
    async with cluster(database_settings, "synchrotron") as hs:
        alice, bob = await person(hs.main, "alice"), await person(hs.main, "bob")
        room = await bob.room()
        await alice.join(room)
        await hs.caught_up()
        alice.client = hs["synchrotron"].client
        since = (await bob.get("/sync"))["next_batch"]
        await alice.get("/sync")
        _, since = await told_of(bob, alice, since, presence="online")
        await hs["synchrotron"].stop()
        _, since = await told_of(bob, alice, since, presence="offline")
        alice.client = (await hs.add_worker("synchrotron")).client
        await alice.get("/sync")
        await told_of(bob, alice, since, presence="online")


@pytest_twisted.ensureDeferred
async def test_users_do_not_say_too_often_who_they_seem_to_be(database_settings: PoolSettings) -> None:
    limit = {"per_user": {"per_second": 0.001, "burst_count": 2}}
    async with homeserver(database_settings, rc_presence=limit) as hs:
        alice, bob = await person(hs, "alice"), await person(hs, "bob")
        path = f"/presence/{alice.id}/status"
        for said in ("online", "unavailable"):
            await alice.put(path, {"presence": said})
        code, answer = await alice.ask("PUT", path, {"presence": "online"})
        assert (code, answer["errcode"]) == (429, "M_LIMIT_EXCEEDED")
        assert answer["retry_after_ms"] > 0
        assert (await alice.get(path))["presence"] == "unavailable"
        await bob.put(f"/presence/{bob.id}/status", {"presence": "online"})


@pytest.mark.parametrize("use_presence", [True, False])
@pytest_twisted.ensureDeferred
async def test_users_who_never_were_there(database_settings: PoolSettings, use_presence: bool) -> None:
    async with homeserver(database_settings, use_presence=use_presence) as hs:
        alice = await person(hs, "alice")
        status = await alice.get(f"/presence/{alice.id}/status")
        assert status["presence"] == "offline"
        assert ("last_active_ago" in status) is use_presence
        code, answer = await hs.client.get(f"{V3}/presence/@nobody:test/status", alice.token)
        assert (code, answer["errcode"]) == ((403, "M_FORBIDDEN") if use_presence else (404, "M_NOT_FOUND"))
        assert bool((await alice.get("/initialSync"))["presence"]) is use_presence
