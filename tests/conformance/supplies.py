"""What examples of accounts, devices and keys need, made when it is first wanted: by name, for the town."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synapse.api.room_versions import room_version
from synapse.events import builder
from synapse.events.event import Event
from tests.conformance.neighbour import NAME, USER
from tests.conformance.outside import SMS_URL

if TYPE_CHECKING:
    from tests.conformance.town import Town

Supply = Callable[["Town"], Awaitable[Any]]
_POLICY_KEY = Path(__file__).parent.with_name("rest") / "test.policy.key"

# What the town's server is configured with, so that every operation has something to do.
OPTIONS: dict[str, Any] = {
    "public_baseurl": "https://matrix.test/",
    "support_page": "https://test/help",
    "support_contacts": [{"matrix_id": "@admin:test"}],
    "allow_public_rooms_over_federation": True,
    "serve_server_wellknown": True,
    "turn_uris": ["turn:turn.test"],
    "turn_shared_secret": "a secret",
    "login_via_existing_session": {"enabled": True},
    "cas_config": {"enabled": True, "server_url": "https://cas.test/"},
    "oauth": {"issuer": "https://account.test/"},
    "email": {"notif_from": "Matrix <noreply@example.org>"},
    "sms": {"url": SMS_URL, "secret": "a secret"},
    "policy_server": {"enabled": True, "signing_key_path": str(_POLICY_KEY)},
}
SUPPLIES_USED_UP = ("leaver", "new_user", "old_device", "refresh_token", "proved_sid")
CLIENT_SECRET, PROVED_SECRET = "monkeys_are_GREAT", "monkeys_have_proved_it"
_ATTEMPTS = count(1)
ADDRESS, NUMBER = "alice@example.org", "447700900001"  # alice's


async def _leaver(town: Town) -> str:
    return await town.newcomer()


async def _login(town: Town, user: str, **more: Any) -> Any:
    identifier = {"type": "m.id.user", "user": user}
    body = {"type": "m.login.password", "identifier": identifier, "password": "a password", **more}
    return await town.post(user, "/login", body)


async def _old_device(town: Town) -> str:
    return str((await _login(town, "alice"))["device_id"])


async def _refresh_token(town: Town) -> str:
    return str((await _login(town, "bob", refresh_token=True))["refresh_token"])


async def _own_device(town: Town) -> str:
    return str((await town.get("alice", "/account/whoami"))["device_id"])


async def _bobs_device(town: Town) -> str:
    return str((await town.get("bob", "/account/whoami"))["device_id"])


async def _address(town: Town) -> str:
    """Alice's e-mail address; with it she has a phone number."""
    store = town.hs.accounts.contacts.store
    for medium, address in (("email", ADDRESS), ("msisdn", NUMBER)):
        assert await store.add("@alice:test", medium, address, 1, 1)
    return ADDRESS


async def _number(town: Town) -> str:
    await _address(town)
    return NUMBER


async def _proved_sid(town: Town) -> str:
    """A session that has proved an address that nobody has."""
    sent: list[str] = []

    async def deliver(token: str) -> None:
        sent.append(token)

    validations = town.hs.accounts.contacts.validations
    address = await town.filled("{new_user}@example.org")
    session = await validations.begin("add_threepid", "email", address, PROVED_SECRET)
    await validations.send(session, next(_ATTEMPTS), deliver)  # the session may be one of before
    await validations.submit(session.session_id, PROVED_SECRET, sent[0])
    return session.session_id


async def _far_room(town: Town) -> str:
    """A room that the neighbour's user has joined."""
    room_id = str((await town.post("alice", "/createRoom", {"preset": "public_chat"}))["room_id"])
    await town.neighbour.enter(room_id)
    return room_id


async def _far_event(town: Town) -> str:
    message = {"msgtype": "m.text", "body": "hello"}
    return str((await town.put("alice", "/rooms/{far_room}/send/m.room.message/{txn}", message))["event_id"])


async def _far_door(town: Town) -> str:
    """A room on whose door anybody may knock."""
    knock = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
    return str((await town.post("alice", "/createRoom", {"initial_state": [knock]}))["room_id"])


async def _open_room(town: Town) -> str:
    return str((await town.post("alice", "/createRoom", {"preset": "public_chat"}))["room_id"])


def _membership(event: str, membership: str, room: Callable[[Town], Awaitable[str]]) -> dict[str, Supply]:
    """A membership of the neighbour's user as the neighbour signs it; its room; its id."""

    async def made(town: Town) -> dict[str, Any]:
        room_id = await town.supply(f"{event}_room")
        return (await town.neighbour.event(room_id, "m.room.member", {"membership": membership}, USER)).raw

    async def event_id(town: Town) -> str:
        raw = await town.supply(event)
        return Event.from_json(raw, room_version("12")).event_id

    return {event: made, f"{event}_id": event_id, f"{event}_room": room}


_ELSEWHERE = f"!elsewhere:{NAME}"


async def _far_invite(town: Town) -> dict[str, Any]:
    """Of alice, into a room that the town is not in."""
    raw = {
        "type": "m.room.member",
        "room_id": _ELSEWHERE,
        "sender": USER,
        "state_key": "@alice:test",
        "content": {"membership": "invite"},
        "event_id": f"$invite:{NAME}",
        "origin": NAME,  # as the description has it
        "origin_server_ts": 1,
        "depth": 3,
        "prev_events": [[f"$earlier:{NAME}", {}]],
        "auth_events": [],
    }
    return builder.seal(raw, room_version("1"), NAME, town.neighbour.key).raw


async def _far_invite_room(town: Town) -> str:
    return _ELSEWHERE


async def _far_invite_id(town: Town) -> str:
    return f"$invite:{NAME}"


async def _policed_event(town: Town) -> dict[str, Any]:
    """An event for a room that has the town's server look at what is said."""
    room_id, service = await _open_room(town), town.hs.doors.policy
    assert service is not None
    content = {"via": "test", "public_keys": {"ed25519": service.public_key}}
    await town.put("alice", f"/rooms/{room_id}/state/m.room.policy", content)
    return (await town.neighbour.event(room_id, "m.room.message", {"msgtype": "m.text", "body": "hello"})).raw


SUPPLIES: dict[str, Supply] = {
    **_membership("far_join", "join", _open_room),
    **_membership("far_leave", "leave", _far_room),
    **_membership("far_knock", "knock", _far_door),
    "far_door": _far_door,
    "far_invite": _far_invite,
    "far_invite_room": _far_invite_room,
    "far_invite_id": _far_invite_id,
    "policed_event": _policed_event,
    "far_room": _far_room,
    "far_event": _far_event,
    "leaver": _leaver,
    "address": _address,
    "number": _number,
    "proved_sid": _proved_sid,
    "old_device": _old_device,
    "refresh_token": _refresh_token,
    "device": _own_device,
    "own_device": _own_device,
    "bobs_device": _bobs_device,
}
