"""Servers that exist in tests alone: they have a name and a key, make events, and sign what they like."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from signedjson.key import generate_signing_key, get_verify_key

from synapse.api.errors import MatrixError
from synapse.api.room_versions import EventFormat, RoomVersion
from synapse.events.builder import build
from synapse.events.event import Event
from synapse.events.hashes import essential_bytes, reference_hash
from synapse.events.signing import SignatureError, required_signers, signatures_by, verify

MESSAGE = "m.room.message"


class Peer:
    """A server. `knows` are the events that it has made, by id: what it refers to in room versions 1 and 2."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = generate_signing_key("1")
        self.knows: dict[str, Event] = {}

    def user(self, localpart: str = "eve") -> str:
        return f"@{localpart}:{self.name}"

    def event(
        self,
        version: RoomVersion,
        room_id: str | None,
        *,
        sender: str | None = None,
        type: str = MESSAGE,
        content: dict[str, Any] | None = None,
        state_key: str | None = None,
        prev: Sequence[str] = ("$before:elsewhere",),
        auth: Sequence[str] = (),
        depth: int = 10,
        **more: Any,
    ) -> Event:
        """An event, hashed and signed."""
        made = build(
            version,
            room_id=room_id,
            sender=sender or self.user(),
            type=type,
            content={"body": "hello"} if content is None else content,
            prev_events=prev,
            auth_events=auth,
            depth=depth,
            origin_server_ts=more.pop("ts", 1_700_000_000_000),
            server_name=self.name,
            signing_key=self.key,
            state_key=state_key,
            reference_hashes=self._hashes([*prev, *auth], version),
            **more,
        )
        self.knows[made.event_id] = made
        return made

    def _hashes(self, event_ids: Sequence[str], version: RoomVersion) -> dict[str, str]:
        if version.event_format is not EventFormat.V1:
            return {}
        return {i: reference_hash(self.knows[i].raw, version) for i in event_ids if i in self.knows}


class KeysOf:
    """Knows the keys of peers, and checks signatures with them. A `Verifier`."""

    def __init__(self, *peers: Peer) -> None:
        self.keys = {peer.name: get_verify_key(peer.key) for peer in peers}
        self.asked = 0

    async def verify_events(self, events: Sequence[Event], asked_by: str | None = None) -> Collection[str]:
        self.asked += 1
        return {event.event_id for event in events if not self.is_signed(event)}

    def is_at_a_loss(self, event: Event) -> bool:
        return any(server not in self.keys for server in required_signers(event.raw, event.room_version))

    def is_signed(self, event: Event) -> bool:
        essential = essential_bytes(event.raw, event.room_version)
        for server in required_signers(event.raw, event.room_version):
            signature = signatures_by(event.raw, server).get("ed25519:1")
            if signature is None or server not in self.keys:
                return False
            try:
                verify(essential, signature, self.keys[server])
            except SignatureError:
                return False
        return True


async def at_once(function: Any, *args: Any) -> Any:
    """In the place of a thread."""
    return function(*args)


def refusal(error: BaseException) -> tuple[int, str]:
    """What a MatrixError says in short."""
    assert isinstance(error, MatrixError)
    return error.code, error.errcode
