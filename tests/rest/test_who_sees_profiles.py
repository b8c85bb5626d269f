"""Who may look at profiles, and where they show."""

from __future__ import annotations

from typing import Any

import pytest_twisted

from synapse.storage.pool import PoolSettings
from tests.rest.people import Person, person
from tests.support.homeserver import homeserver

LOOKS = ("/profile/@alice:test", "/profile/@alice:test/displayname")


async def of_nobody(somebody: Person, path: str) -> tuple[int, Any]:
    code, answer = await somebody.client.get(f"/_matrix/client/v3{path}")
    return code, answer.get("errcode")


@pytest_twisted.ensureDeferred
async def test_everybody_sees_profiles(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        alice = await person(server, "alice")
        for path in LOOKS:
            assert (await of_nobody(alice, path))[0] == 200


@pytest_twisted.ensureDeferred
async def test_only_those_who_are_logged_in_see_profiles(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings, require_auth_for_profile_requests=True) as server:
        alice, bob = await person(server, "alice"), await person(server, "bob")
        for path in LOOKS:
            assert await of_nobody(alice, path) == (401, "M_MISSING_TOKEN")
            await bob.get(path)


@pytest_twisted.ensureDeferred
async def test_only_those_who_could_meet_see_profiles(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings, limit_profile_requests_to_users_who_share_rooms=True) as server:
        alice, bob = await person(server, "alice"), await person(server, "bob")
        for path in LOOKS:
            assert await of_nobody(alice, path) == (401, "M_MISSING_TOKEN")
            await alice.get(path)
            assert await bob.refused("GET", path) == (403, "M_FORBIDDEN")
        # Nobody learns who exists.
        assert await bob.refused("GET", "/profile/@nobody:test") == (403, "M_FORBIDDEN")
        assert await bob.refused("GET", "/profile/@far:away") == (403, "M_FORBIDDEN")
        assert await bob.refused("GET", "/profile/bob") == (400, "M_INVALID_PARAM")
        private = await alice.room(preset="private_chat", invite=[bob.id])
        assert await bob.refused("GET", LOOKS[0]) == (403, "M_FORBIDDEN")
        await bob.join(private)
        for path in LOOKS:
            await bob.get(path)
        await bob.post(f"/rooms/{private}/leave")
        assert await bob.refused("GET", LOOKS[0]) == (403, "M_FORBIDDEN")
        await alice.room()
        assert (await bob.get(LOOKS[0]))["displayname"] == "alice", "they could meet in a public room"


async def invited_as(server_options: dict[str, Any], settings: PoolSettings) -> list[dict[str, Any]]:
    """How bob shows in invitations by both ways, and having joined."""
    async with homeserver(settings, **server_options) as server:
        alice, bob = await person(server, "alice"), await person(server, "bob")
        member = f"state/m.room.member/{bob.id}"
        first, second = await alice.room(invite=[bob.id]), await alice.room()
        await alice.post(f"/rooms/{second}/invite", {"user_id": bob.id})
        shown = [await alice.get(f"/rooms/{room}/{member}") for room in (first, second)]
        await bob.join(second)
        return [*shown, await alice.get(f"/rooms/{second}/{member}")]


@pytest_twisted.ensureDeferred
async def test_invitations_show_who_is_invited(database_settings: PoolSettings) -> None:
    shown = await invited_as({}, database_settings)
    assert [member.get("displayname") for member in shown] == ["bob", "bob", "bob"]


@pytest_twisted.ensureDeferred
async def test_invitations_may_show_nothing(database_settings: PoolSettings) -> None:
    shown = await invited_as({"include_profile_data_on_invite": False}, database_settings)
    assert [member.get("displayname") for member in shown] == [None, None, "bob"]
    assert [member["membership"] for member in shown] == ["invite", "invite", "join"]
