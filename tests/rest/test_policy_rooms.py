"""A room with a policy server as its members see it, in a whole process with options of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest_twisted
from signedjson.key import generate_signing_key, get_verify_key
from unpaddedbase64 import encode_base64

from synapse.api.room_versions import room_version
from synapse.events.signing import add_signature
from synapse.handlers.event_creation import Draft
from synapse.handlers.policy_server import KEY_ID
from synapse.storage.pool import PoolSettings
from tests.rest.people import person
from tests.support.elsewhere import Asked, Certificates, Told, elsewhere
from tests.support.homeserver import homeserver


@pytest_twisted.ensureDeferred
async def test_members_are_told_what_the_policy_server_says(database_settings: PoolSettings, tmp_path: Path) -> None:
    certificates, key, name = Certificates(tmp_path), generate_signing_key("policy_server"), ""

    async def answer(asked: Asked) -> Told:
        if "spam" in str(asked.json["content"]):
            return Told(400, {"errcode": "M_FORBIDDEN", "error": "This looks like spam."})
        signed = add_signature(asked.json, room_version("12"), name, key)
        return Told(200, {name: {KEY_ID: signed["signatures"][name][KEY_ID]}})

    options: dict[str, Any] = {"ip_range_blacklist": [], "federation_custom_ca_list": [certificates.path]}
    async with elsewhere(certificates, answer) as server, homeserver(database_settings, **options) as hs:
        name = server.name
        alice = await person(hs, "alice")
        room = await alice.room()
        bot = Draft(room, f"@bot:{name}", "m.room.member", {"membership": "join"}, f"@bot:{name}")
        await hs.hs.rooms.creation.send(bot)
        await alice.state(
            room, "m.room.policy", via=name, public_keys={"ed25519": encode_base64(get_verify_key(key).encode())}
        )
        await alice.say(room, "hello")
        assert [asked.json["content"]["body"] for asked in server.asked] == ["hello"]
        path = f"/rooms/{room}/send/m.room.message/1"
        code, error = await alice.ask("PUT", path, {"msgtype": "m.text", "body": "spam"})
        assert (code, error) == (400, {"errcode": "M_FORBIDDEN", "error": "This looks like spam."})
        hs.hs.federation.peers.close()

    async with elsewhere(certificates, answer) as server, homeserver(database_settings) as hs:
        name = server.name
        alice = await person(hs, "anna")
        room = await alice.room()
        bot = Draft(room, f"@bot:{name}", "m.room.member", {"membership": "join"}, f"@bot:{name}")
        await hs.hs.rooms.creation.send(bot)
        await alice.state(room, "m.room.policy", via=name, public_keys={"ed25519": "AAAA"})
        refused = await alice.refused("PUT", f"/rooms/{room}/send/m.room.message/1", {"body": "hello"})
        assert refused == (502, "M_CONNECTION_FAILED"), "private addresses are not connected to by default"
        assert server.asked == []
