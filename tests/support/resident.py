"""A server that is in one room and answers other servers about it: as it should, or as a test has it lie.

    resident = Resident("there.test:8448", version="12")
    resident.say(resident.creator, "hello")
    code, answer = resident.answer("GET", "/_matrix/federation/v1/make_join/…")

It has no database and checks nothing: what is handed to it becomes a part of its room. Users of further servers can be
members; their keys are made up with their names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson
from nacl.signing import SigningKey
from signedjson.sign import sign_json
from unpaddedbase64 import encode_base64

from synapse.api.identifiers import domain_of
from synapse.api.room_versions import EventFormat, room_version
from synapse.events import auth
from synapse.events.builder import build, draft
from synapse.events.event import Event, StateKey
from synapse.events.hashes import reference_hash
from synapse.events.signing import add_signature

START_TS = 1_700_000_000_000
_NOT_OF_A_TEMPLATE = ("hashes", "signatures", "event_id")

Answered = tuple[int, Any]


def key_of(server_name: str) -> Any:
    """The signing key of a server of this name."""
    key: Any = SigningKey(hashlib.sha256(server_name.encode()).digest())
    for each in (key, key.verify_key):
        each.alg, each.version = "ed25519", "made_up"
    return key


def server_keys(server_name: str, now: int | None = None) -> dict[str, Any]:
    """What it says of its key."""
    key = key_of(server_name)
    said = {
        "server_name": server_name,
        "valid_until_ts": (START_TS * 2) if now is None else now + 3_600_000,
        "verify_keys": {"ed25519:made_up": {"key": encode_base64(key.verify_key.encode())}},
        "old_verify_keys": {},
    }
    return dict(sign_json(said, server_name, key))


class Resident:
    """The server and its room. `lie` is asked, by the name of an operation such as "send_join", for another answer."""

    def __init__(self, name: str, version: str = "12", join_rule: str = "public", **create: Any) -> None:
        self.name = name
        self.version = room_version(version)
        self.creator = f"@creator:{name}"
        self.events: dict[str, Event] = {}
        self.state: dict[StateKey, Event] = {}
        self.states: dict[str, dict[StateKey, Event]] = {}  # before each event
        self.ends: list[str] = []
        self.lie: dict[str, Callable[[Answered], Answered]] = {}
        self.asked: list[str] = []
        self._known_room_id: str | None = None if self.version.room_id_from_create else f"!room:{name}"
        content: dict[str, Any] = {"room_version": version, **create}
        if not self.version.implicit_creator:
            content["creator"] = self.creator
        self.set(self.creator, "m.room.create", content)
        self._known_room_id = self.state["m.room.create", ""].room_id
        self.set(self.creator, "m.room.member", {"membership": "join"}, self.creator)
        levels = {} if self.version.privileged_creators else {self.creator: 100}
        self.set(self.creator, "m.room.power_levels", {"users": levels, "invite": 0})
        self.set(self.creator, "m.room.join_rules", {"join_rule": join_rule})

    @property
    def room_id(self) -> str:
        assert self._known_room_id is not None
        return self._known_room_id

    # -- what happens in the room --------------------------------------------------------------------------------------

    def set(self, sender: str, event_type: str, content: dict[str, Any], state_key: str = "") -> Event:
        """A state event."""
        return self.add(self.made(sender, event_type, content, state_key))

    def say(self, sender: str, body: str) -> Event:
        """A message."""
        return self.add(self.made(sender, "m.room.message", {"msgtype": "m.text", "body": body}))

    def join(self, user_ids: Iterable[str]) -> None:
        """Users come in by themselves, of whichever server."""
        for user_id in user_ids:
            self.set(user_id, "m.room.member", {"membership": "join"}, user_id)

    def made(self, sender: str, event_type: str, content: dict[str, Any], state_key: str | None = None) -> Event:
        """An event at the end of the room, signed by its sender's server; not a part of the room yet."""
        place = self._place(sender, event_type, content, state_key)
        server = domain_of(sender)
        return build(self.version, **place, server_name=server, signing_key=key_of(server))

    def add(self, event: Event) -> Event:
        """It is a part of the room from now on."""
        self.states[event.event_id] = dict(self.state)
        self.events[event.event_id] = event
        self.ends = [event_id for event_id in self.ends if event_id not in event.prev_event_ids]
        self.ends.append(event.event_id)
        if event.is_state():
            self.state[event.key] = event
        return event

    def chain(self, events: Iterable[Event]) -> dict[str, Event]:
        """The auth chains of the events."""
        found: dict[str, Event] = {}
        pending = [event_id for event in events for event_id in event.auth_event_ids]
        while pending:
            event_id = pending.pop()
            if event_id not in found:
                found[event_id] = self.events[event_id]
                pending += found[event_id].auth_event_ids
        return found

    def _place(self, sender: str, event_type: str, content: dict[str, Any], state_key: str | None) -> dict[str, Any]:
        cited = auth.cited_types_for(self.version, event_type, sender, state_key, content)
        auth_events = [self.state[key].event_id for key in cited if key in self.state]
        hashes = None
        if self.version.event_format is EventFormat.V1:
            known = {*self.ends, *auth_events}
            hashes = {event_id: reference_hash(self.events[event_id].raw, self.version) for event_id in known}
        return {
            "room_id": self._known_room_id,
            "sender": sender,
            "type": event_type,
            "content": content,
            "prev_events": self.ends,
            "auth_events": auth_events,
            "depth": len(self.events) + 1,
            "origin_server_ts": START_TS + len(self.events),
            "state_key": state_key,
            "reference_hashes": hashes,
        }

    # -- what it answers -----------------------------------------------------------------------------------------------

    def answer(self, method: str, target: str, body: bytes | None = None, name: str | None = None) -> Answered:
        """The answer to a request to the server `name`: this one, or one of those whose users are in the room."""
        parts = urlsplit(target)
        path = [unquote(part) for part in parts.path.split("/")]
        operation = path[4] if len(path) > 4 else ""
        self.asked.append(operation)
        if path[2] == "key":
            return 200, server_keys(name or self.name)
        handler = getattr(self, f"_{operation}", None)
        if handler is None or name not in (None, self.name):
            return 404, {"errcode": "M_UNRECOGNIZED", "error": "Nothing is known of that here."}
        args = parse_qs(parts.query)
        answered: Answered = handler(path[5:], args, orjson.loads(body) if body else {})
        return self.lie[operation](answered) if operation in self.lie else answered

    def _make_join(self, path: list[str], args: dict[str, list[str]], _body: Any) -> Answered:
        return self._template(path, "join")

    def _make_leave(self, path: list[str], _args: Any, _body: Any) -> Answered:
        return self._template(path, "leave")

    def _make_knock(self, path: list[str], _args: Any, _body: Any) -> Answered:
        return self._template(path, "knock")

    def _template(self, path: list[str], membership: str) -> Answered:
        room_id, user_id = path
        if room_id != self.room_id:
            return 404, {"errcode": "M_NOT_FOUND", "error": "There is no such room."}
        content = {"membership": membership}
        if membership == "join" and self.state["m.room.join_rules", ""].content["join_rule"] == "restricted":
            content["join_authorised_via_users_server"] = self.creator
        event = draft(self.version, **self._place(user_id, "m.room.member", content, user_id))
        return 200, {"room_version": str(self.version), "event": {**event, "origin": self.name}}

    def _send_join(self, _path: list[str], _args: Any, body: Any) -> Answered:
        before = dict(self.state)
        signed = add_signature(body, self.version, self.name, key_of(self.name))
        event = self.add(Event.from_json(signed, self.version))
        chain = self.chain([event, *before.values()])
        return 200, {
            "state": [each.raw for each in before.values()],
            "auth_chain": [each.raw for each in chain.values()],
            "event": event.raw,
        }

    def _send_leave(self, _path: list[str], _args: Any, body: Any) -> Answered:
        self.add(Event.from_json(body, self.version))
        return 200, {}

    def _send_knock(self, _path: list[str], _args: Any, body: Any) -> Answered:
        shown = [self.state[key].raw for key in (("m.room.create", ""), ("m.room.join_rules", ""))]
        self.add(Event.from_json(body, self.version))
        return 200, {"knock_room_state": shown}

    def _invite(self, _path: list[str], _args: Any, body: Any) -> Answered:
        version = room_version(body["room_version"])
        return 200, {"event": add_signature(body["event"], version, self.name, key_of(self.name))}

    def _event(self, path: list[str], _args: Any, _body: Any) -> Answered:
        if path[0] not in self.events:
            return 404, {"errcode": "M_NOT_FOUND", "error": "There is no such event."}
        return self._transaction([self.events[path[0]]])

    def _backfill(self, path: list[str], args: dict[str, list[str]], _body: Any) -> Answered:
        found: dict[str, Event] = {}
        pending = [event_id for event_id in args["v"] if event_id in self.events]
        while pending and len(found) < int(args["limit"][0]):
            pending.sort(key=lambda event_id: self.events[event_id].depth)
            event_id = pending.pop()
            if event_id not in found:
                found[event_id] = self.events[event_id]
                pending += found[event_id].prev_event_ids
        return self._transaction(found.values())

    def _state_ids(self, _path: list[str], args: dict[str, list[str]], _body: Any) -> Answered:
        state = self.states[args["event_id"][0]].values()
        return 200, {"pdu_ids": [each.event_id for each in state], "auth_chain_ids": list(self.chain(state))}

    def _state(self, _path: list[str], args: dict[str, list[str]], _body: Any) -> Answered:
        state = self.states[args["event_id"][0]].values()
        chain = self.chain(state).values()
        return 200, {"pdus": [each.raw for each in state], "auth_chain": [each.raw for each in chain]}

    def _event_auth(self, path: list[str], _args: Any, _body: Any) -> Answered:
        return 200, {"auth_chain": [each.raw for each in self.chain([self.events[path[1]]]).values()]}

    def _transaction(self, events: Iterable[Event]) -> Answered:
        return 200, {
            "origin": self.name,
            "origin_server_ts": START_TS,
            "pdus": [event.raw for event in events],
        }
