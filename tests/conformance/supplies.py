"""What examples of accounts, devices and keys need, made when it is first wanted: by name, for the town."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from tests.conformance.outside import SMS_URL

if TYPE_CHECKING:
    from tests.conformance.town import Town

# What the town's server is configured with, so that every operation has something to do.
OPTIONS: dict[str, Any] = {
    "public_baseurl": "https://matrix.test/",
    "support_page": "https://test/help",
    "support_contacts": [{"matrix_id": "@admin:test"}],
    "allow_public_rooms_over_federation": True,
    "turn_uris": ["turn:turn.test"],
    "turn_shared_secret": "a secret",
    "login_via_existing_session": {"enabled": True},
    "cas_config": {"enabled": True, "server_url": "https://cas.test/"},
    "oauth": {"issuer": "https://account.test/"},
    "email": {"notif_from": "Matrix <noreply@example.org>"},
    "sms": {"url": SMS_URL, "secret": "a secret"},
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


SUPPLIES: dict[str, Callable[[Town], Awaitable[str]]] = {
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
