"""The events that the server makes by itself, or out of what it is told, are as the specification's event schemas say.

What users put into events is theirs; here are rooms in every version as they begin, change hands, are upgraded and end,
and what sync tells of a user's doings.
"""

from __future__ import annotations

from functools import cache
from typing import Any
from urllib.parse import quote

import jsonschema_rs
import pytest
import pytest_twisted

from synapse.api.room_versions import ROOM_VERSIONS
from tests.conformance.outside import IDENTITY_SERVER
from tests.conformance.town import Town
from tests.spec.description import MISSING, ROOT, description

pytestmark = pytest.mark.skipif(description() is None, reason=MISSING)
PRESETS = ("private_chat", "trusted_private_chat", "public_chat")


@cache
def _validator(event_type: str) -> Any:
    """Knows good events of a type; None where the specification does not."""
    described = description()
    assert described is not None
    uri = f"{ROOT}event-schemas/schema/{event_type}.yaml"
    if uri not in described.events:
        return None
    files = [*described.files.items(), *described.events.items()]
    registry = jsonschema_rs.Registry(files, draft=jsonschema_rs.Draft202012, retriever=lambda _: {})
    return jsonschema_rs.validator_for({"$ref": uri}, registry=registry)


def _check(events: list[dict[str, Any]], room_id: str | None = None) -> set[str]:
    """Compares events with their schemas; answers the types that were compared."""
    compared = set()
    for event in events:
        validator = _validator(event["type"])
        is_redacted = "redacted_because" in event.get("unsigned", {})
        if validator is not None and not is_redacted:
            # Sync leaves out what goes without saying.
            whole = event if room_id is None else {"room_id": room_id, **event}
            problems = [f"/{'/'.join(map(str, e.instance_path))}: {e.message}" for e in validator.iter_errors(whole)]
            assert not problems, (event, problems)
            compared.add(event["type"])
    return compared


@pytest.mark.parametrize("version", sorted(ROOM_VERSIONS, key=int))
@pytest_twisted.ensureDeferred
async def test_rooms(town: Town, version: str) -> None:
    """As they begin with each preset and all that can be wished for, and what comes of an upgrade."""
    address = {"medium": "email", "address": "a@b.c", "id_server": IDENTITY_SERVER, "id_access_token": "token"}
    for preset in PRESETS:
        wish = {
            "preset": preset,
            "room_version": version,
            "name": "Name",
            "topic": "Topic",
            "room_alias_name": "{new_alias}",
            "invite": ["{bob}"],
            "invite_3pid": [address],
            "is_direct": True,
            "creation_content": {"type": "m.space"},
        }
        town.forget(("new_alias",))
        room = (await town.post("alice", "/createRoom", wish))["room_id"]
        compared = _check(await town.get("alice", f"/rooms/{quote(room)}/state"))
        made = {"create", "member", "power_levels", "join_rules", "history_visibility", "name", "topic"}
        assert {f"m.room.{name}" for name in (*made, "canonical_alias", "third_party_invite")} <= compared
    await town.post("bob", f"/rooms/{quote(room)}/join")
    await town.post("alice", f"/rooms/{quote(room)}/ban", {"user_id": "{bob}", "reason": "r"})
    new = (await town.post("alice", f"/rooms/{quote(room)}/upgrade", {"new_version": version}))["replacement_room"]
    for each, wanted in ((room, "m.room.tombstone"), (new, "m.room.create")):
        assert wanted in _check(await town.get("alice", f"/rooms/{quote(each)}/state"))


@pytest_twisted.ensureDeferred
async def test_what_sync_tells(town: Town) -> None:
    """Typing, receipts, tags, markers, presence, push rules, redactions, and events in the timeline."""
    room, event = await town.supply("room"), await town.supply("event")
    await town.put("bob", "/rooms/{room}/typing/{bob}", {"typing": True, "timeout": 30_000})
    await town.post("bob", "/rooms/{room}/receipt/m.read/{event}")
    await town.post("alice", "/rooms/{room}/read_markers", {"m.fully_read": event, "m.read.private": event})
    await town.put("alice", "/user/{alice}/rooms/{room}/tags/u.work", {"order": 0.5})
    await town.put("alice", "/rooms/{room}/redact/{event}/{txn}", {"reason": "r"})
    await town.put("bob", "/presence/{bob}/status", {"presence": "online", "status_msg": "here"})
    answer = await town.get("alice", "/sync")
    joined = answer["rooms"]["join"][room]
    compared = _check(answer["account_data"]["events"]) | _check(answer["presence"]["events"])
    for part in ("state", "timeline", "ephemeral", "account_data"):
        compared |= _check(joined[part]["events"], room)
    assert {
        "m.typing",
        "m.receipt",
        "m.tag",
        "m.fully_read",
        "m.presence",
        "m.push_rules",
        "m.room.redaction",
    } <= compared
