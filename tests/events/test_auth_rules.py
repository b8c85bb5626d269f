"""Every authorisation rule of every room version: a case that it lets through, and one that it refuses.

The numbers are those of room version 12; a row says in which versions its rule holds. Both cases of a row are as alike
as the rule allows, so that nothing else can be the reason. `usual_room`: Alice (creator, or 100) made it, Bob (50) and
Carol (0) are in it, anybody may join.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from signedjson.key import encode_verify_key_base64, get_verify_key
from signedjson.sign import sign_json

from synapse.api.errors import AuthError
from synapse.events import auth
from synapse.events.event import Event
from synapse.events.signing import add_signature
from tests.events.factory import ALICE, BOB, CAROL, DAVE, KEY, SERVER, Room, usual_room

EVE = "@eve:b.example"
Case = Callable[[Room], Event]


class Rule(NamedTuple):
    """A rule that holds in the versions `first` to `last`."""

    name: str
    first: int
    last: int
    allowed: Case
    refused: Case


def make(sender: str, kind: str, content: dict[str, Any], key: str | None = None, **how: Any) -> Case:
    """An event in the room as it is."""
    return lambda room: room.make(sender, kind, content, key, **how)


def member(sender: str, target: str, membership: str, **content: Any) -> Case:
    return make(sender, "m.room.member", {"membership": membership, **content}, target)


def after(*steps: Callable[[Room], object], then: Case) -> Case:
    """The same after these steps, which nobody checks."""

    def case(room: Room) -> Event:
        for step in steps:
            step(room)
        return then(room)

    return case


def stands(user: str, membership: str) -> Callable[[Room], object]:
    return lambda room: room.member(user, membership, sender=ALICE)


def rule(join_rule: str) -> Callable[[Room], object]:
    return lambda room: room.join_rule(join_rule)


def levels(**content: Any) -> Callable[[Room], object]:
    return lambda room: room.power(**power(room, **content))


def power(room: Room, users: dict[str, Any] | None = None, **content: Any) -> dict[str, Any]:
    """Power levels with Alice at the top, however the version says so."""
    top = {} if room.version.privileged_creators else {ALICE: 100}
    return {**content, "users": {**top, BOB: 50, **(users or {})}}


def sets(sender: str, users: dict[str, Any] | None = None, **content: Any) -> Case:
    return lambda room: room.make(sender, "m.room.power_levels", power(room, users, **content), "")


def create(content: dict[str, Any], **how: Any) -> Case:
    def case(room: Room) -> Event:
        whole = {**({} if room.version.implicit_creator else {"creator": ALICE}), **content}
        return room.make(how.pop("sender", ALICE), "m.room.create", whole, "", **{"prev_events": [], **how})

    return case


def created_by(sender: str) -> Case:
    return lambda room: room.make(sender, "m.room.create", {"creator": sender}, "", prev_events=[])


def changed(case: Case, **raw: Any) -> Case:
    """The event with other fields, which no builder would write."""

    def made(room: Room) -> Event:
        event = case(room)
        return Event.from_json({**event.raw, **raw}, room.version, event_id=event.event_id)

    return made


def without(case: Case, *keys: str) -> Case:
    def made(room: Room) -> Event:
        event = case(room)
        raw = {key: value for key, value in event.raw.items() if key not in keys}
        return Event.from_json(raw, room.version, event_id=event.event_id)

    return made


def founding(sender: str, then: bool = False) -> Case:
    """A join in a room in which nothing is but its create event; with `then`, something has happened since."""

    def case(room: Room) -> Event:
        empty = Room(room.version.identifier)
        prev = [empty.make(ALICE, "x", {}).event_id] if then else None
        event = empty.make(sender, "m.room.member", {"membership": "join"}, sender, prev_events=prev)
        room.state = empty.state
        return event

    return case


def authorised(authoriser: str, signed: bool = True, sender: str = DAVE) -> Case:
    def case(room: Room) -> Event:
        content = {"membership": "join", "join_authorised_via_users_server": authoriser}
        event = room.make(sender, "m.room.member", content, sender)
        raw = add_signature(event.raw, room.version, SERVER, KEY) if signed else event.raw
        return Event.from_json(raw, room.version)

    return case


def unfederated(sender: str) -> Case:
    def case(room: Room) -> Event:
        closed = Room(room.version.identifier, create={"m.federate": False})
        closed.member(ALICE, "join")
        closed.join_rule("public")
        room.state = closed.state
        return closed.make(sender, "m.room.member", {"membership": "join"}, sender)

    return case


PUBLIC_KEY = encode_verify_key_base64(get_verify_key(KEY))
SIGNED: dict[str, Any] = sign_json({"mxid": DAVE, "token": "token"}, "id.example", KEY)


def offers(sender: str = BOB, **content: Any) -> Callable[[Room], object]:
    """An m.room.third_party_invite is there."""
    return lambda room: room.send(sender, "m.room.third_party_invite", content or {"public_key": PUBLIC_KEY}, "token")


def by_mail(sender: str = BOB, target: str = DAVE, **invite: Any) -> Case:
    return member(sender, target, "invite", third_party_invite=invite or {"signed": SIGNED})


def first_levels(sender: str, content: dict[str, Any]) -> Case:
    """The first power levels event of a room."""

    def case(room: Room) -> Event:
        del room.state["m.room.power_levels", ""]
        return room.make(sender, "m.room.power_levels", content, "")

    return case


def elsewhere(case: Case) -> Case:
    """The event, but in another room than the one whose state decides."""

    def made(room: Room) -> Event:
        other = usual_room(room.version.identifier)
        other.send(ALICE, "m.room.topic", {}, "")
        event = case(other)
        return Event.from_json({**event.raw, "room_id": "!" + "x" * 43}, room.version, event_id=event.event_id)

    return made


TOPIC = make(BOB, "m.room.topic", {}, "")
JOIN = member(DAVE, DAVE, "join")

RULES = [
    Rule("1.1 no prev_events", 1, 12, create({}), create({}, prev_events=["$x:a.example"])),
    Rule("1.2 domain of the room id", 1, 11, created_by(ALICE), created_by(EVE)),
    Rule("1.2 no room_id", 12, 12, create({}), changed(create({}), room_id="!" + "x" * 43)),
    Rule("1.3 recognised version", 1, 12, create({"room_version": "1"}), create({"room_version": "x"})),
    Rule("1.4 creator", 1, 10, create({}), make(ALICE, "m.room.create", {}, "", prev_events=[])),
    Rule(
        "1.4 additional_creators", 12, 12, create({"additional_creators": [BOB]}), create({"additional_creators": ""})
    ),
    Rule("2 room_id names the create event", 12, 12, TOPIC, elsewhere(TOPIC)),
    Rule("4 m.federate", 1, 12, unfederated(BOB), unfederated(EVE)),
    Rule(
        "4.1 aliases have a state_key",
        *(1, 5),
        make(CAROL, "m.room.aliases", {}, SERVER),
        make(CAROL, "m.room.aliases", {}),
    ),
    Rule(
        "4.2 aliases of the sender's domain",
        *(1, 5),
        make(CAROL, "m.room.aliases", {}, SERVER),
        make(CAROL, "m.room.aliases", {}, "b.example"),
    ),
    Rule(
        "4.3 aliases from anybody", 1, 5, make(DAVE, "m.room.aliases", {}, SERVER), make(DAVE, "m.room.x", {}, SERVER)
    ),
    Rule("5.1 a state_key", 1, 12, JOIN, without(JOIN, "state_key")),
    Rule("5.1 a membership", 1, 12, JOIN, make(DAVE, "m.room.member", {}, DAVE)),
    Rule(
        "5.2 signed by the authorising server",
        *(8, 12),
        after(rule("restricted"), then=authorised(BOB, sender=EVE)),
        after(rule("restricted"), then=authorised(BOB, sender=EVE, signed=False)),
    ),
    Rule("5.3.1 the creator's first join", 1, 12, founding(ALICE), founding(ALICE, then=True)),
    Rule("5.3.1 the creator's alone", 1, 12, founding(ALICE), founding(BOB)),
    Rule("5.3.2 for oneself", 1, 12, JOIN, member(BOB, DAVE, "join")),
    Rule("5.3.3 not banned", 1, 12, after(stands(DAVE, "leave"), then=JOIN), after(stands(DAVE, "ban"), then=JOIN)),
    *(
        Rule(
            f"5.3.4 {name}",
            first,
            12,
            after(rule(name), stands(DAVE, "invite"), then=JOIN),
            after(rule(name), then=JOIN),
        )
        for name, first in (("invite", 1), ("knock", 7), ("restricted", 8), ("knock_restricted", 10))
    ),
    *(
        Rule(
            f"5.3.4 {name}, joined",
            first,
            12,
            after(rule(name), then=member(CAROL, CAROL, "join")),
            after(rule(name), then=JOIN),
        )
        for name, first in (("invite", 1), ("knock", 7), ("restricted", 8), ("knock_restricted", 10))
    ),
    *(
        Rule(
            f"5.3.5.2 {name}: the authoriser may invite",
            *(first, 12),
            after(rule(name), levels(invite=50), then=authorised(BOB)),
            after(rule(name), levels(invite=50), then=authorised(CAROL)),
        )
        for name, first in (("restricted", 8), ("knock_restricted", 10))
    ),
    Rule(
        "5.3.5.2 the authoriser is in the room",
        *(8, 12),
        after(rule("restricted"), then=authorised(BOB)),
        after(rule("restricted"), stands(BOB, "leave"), then=authorised(BOB)),
    ),
    Rule("5.3.6 public", 1, 12, JOIN, after(rule("invite"), then=JOIN)),
    *(
        Rule(f"5.3.7 {name} is no rule", 1, last, JOIN, after(rule(name), stands(DAVE, "invite"), then=JOIN))
        for name, last in (("private", 12), ("knock", 6), ("restricted", 7), ("knock_restricted", 9), ("x", 12))
    ),
    Rule(
        "5.4.1.1 not banned",
        1,
        12,
        after(offers(), then=by_mail()),
        after(offers(), stands(DAVE, "ban"), then=by_mail()),
    ),
    Rule("5.4.1.2 signed", 1, 12, after(offers(), then=by_mail()), after(offers(), then=by_mail(signs=SIGNED))),
    *(
        Rule(
            f"5.4.1.3 {key}",
            *(1, 12),
            after(offers(), then=by_mail()),
            after(offers(), then=by_mail(signed={k: v for k, v in SIGNED.items() if k != key})),
        )
        for key in ("mxid", "token")
    ),
    Rule(
        "5.4.1.4 mxid is the target", 1, 12, after(offers(), then=by_mail()), after(offers(), then=by_mail(target=EVE))
    ),
    Rule("5.4.1.5 an invite of that token", 1, 12, after(offers(), then=by_mail()), by_mail()),
    Rule("5.4.1.6 of the same sender", 1, 12, after(offers(), then=by_mail()), after(offers(ALICE), then=by_mail())),
    Rule(
        "5.4.1.7.1 public_key",
        *(1, 12),
        after(offers(public_key=PUBLIC_KEY), then=by_mail()),
        after(offers(public_key="A" * 43), then=by_mail()),
    ),
    Rule(
        "5.4.1.7.2 public_keys",
        *(1, 12),
        after(offers(public_keys=[{"public_key": "A" * 43}, {"public_key": PUBLIC_KEY}]), then=by_mail()),
        after(offers(public_keys=[{"public_key": "A" * 43}, PUBLIC_KEY]), then=by_mail()),
    ),
    Rule(
        "5.4.1.7 a true signature",
        *(1, 12),
        after(offers(), then=by_mail()),
        after(offers(), then=by_mail(signed={**SIGNED, "more": 1})),
    ),
    Rule("5.4.2 from a member", 1, 12, member(CAROL, EVE, "invite"), member(DAVE, EVE, "invite")),
    Rule("5.4.3 of nobody who is in", 1, 12, member(BOB, DAVE, "invite"), member(BOB, CAROL, "invite")),
    Rule(
        "5.4.3 of nobody who is banned",
        *(1, 12),
        after(stands(DAVE, "leave"), then=member(BOB, DAVE, "invite")),
        after(stands(DAVE, "ban"), then=member(BOB, DAVE, "invite")),
    ),
    Rule(
        "5.4.4 invite level",
        *(1, 12),
        after(levels(invite=50), then=member(BOB, DAVE, "invite")),
        after(levels(invite=50), then=member(CAROL, DAVE, "invite")),
    ),
    Rule("5.5.1 joined", 1, 12, member(CAROL, CAROL, "leave"), member(DAVE, DAVE, "leave")),
    Rule(
        "5.5.1 invited",
        1,
        12,
        after(stands(DAVE, "invite"), then=member(DAVE, DAVE, "leave")),
        member(DAVE, DAVE, "leave"),
    ),
    Rule(
        "5.5.1 knocking",
        7,
        12,
        after(stands(DAVE, "knock"), then=member(DAVE, DAVE, "leave")),
        member(DAVE, DAVE, "leave"),
    ),
    Rule(
        "5.5.1 no knocking yet",
        *(1, 6),
        member(CAROL, CAROL, "leave"),
        after(stands(DAVE, "knock"), then=member(DAVE, DAVE, "leave")),
    ),
    Rule(
        "5.5.1 not banned",
        *(1, 12),
        member(CAROL, CAROL, "leave"),
        after(stands(CAROL, "ban"), then=member(CAROL, CAROL, "leave")),
    ),
    Rule(
        "5.5.2 from a member",
        *(1, 12),
        member(BOB, CAROL, "leave"),
        after(stands(BOB, "leave"), then=member(BOB, CAROL, "leave")),
    ),
    Rule(
        "5.5.3 ban level",
        *(1, 12),
        after(levels(ban=50), stands(DAVE, "ban"), then=member(BOB, DAVE, "leave")),
        after(levels(ban=51), stands(DAVE, "ban"), then=member(BOB, DAVE, "leave")),
    ),
    Rule(
        "5.5.4 kick level",
        *(1, 12),
        after(levels(kick=50), then=member(BOB, CAROL, "leave")),
        after(levels(kick=51), then=member(BOB, CAROL, "leave")),
    ),
    Rule(
        "5.5.4 above the target",
        *(1, 12),
        after(levels(users={CAROL: 49}), then=member(BOB, CAROL, "leave")),
        after(levels(users={CAROL: 50}), then=member(BOB, CAROL, "leave")),
    ),
    Rule(
        "5.6.1 from a member",
        1,
        12,
        member(BOB, CAROL, "ban"),
        after(stands(BOB, "leave"), then=member(BOB, CAROL, "ban")),
    ),
    Rule(
        "5.6.2 ban level",
        *(1, 12),
        after(levels(ban=50), then=member(BOB, CAROL, "ban")),
        after(levels(ban=51), then=member(BOB, CAROL, "ban")),
    ),
    Rule(
        "5.6.2 above the target",
        *(1, 12),
        after(levels(users={CAROL: 49}), then=member(BOB, CAROL, "ban")),
        after(levels(users={CAROL: 50}), then=member(BOB, CAROL, "ban")),
    ),
    *(
        Rule(
            f"5.7.1 {name}", first, 12, after(rule(name), then=member(DAVE, DAVE, "knock")), member(DAVE, DAVE, "knock")
        )
        for name, first in (("knock", 7), ("knock_restricted", 10))
    ),
    Rule(
        "5.7.2 for oneself",
        *(7, 12),
        after(rule("knock"), then=member(DAVE, DAVE, "knock")),
        after(rule("knock"), then=member(BOB, DAVE, "knock")),
    ),
    *(
        Rule(
            f"5.7.3 who stands as {name}",
            *(7, 12),
            after(rule("knock"), stands(DAVE, "leave"), then=member(DAVE, DAVE, "knock")),
            after(rule("knock"), stands(DAVE, name), then=member(DAVE, DAVE, "knock")),
        )
        for name in ("ban", "invite", "join")
    ),
    Rule("5.8 no knock", 1, 6, JOIN, after(rule("knock"), then=member(DAVE, DAVE, "knock"))),
    Rule("5.8 a known membership", 1, 12, JOIN, member(DAVE, DAVE, "stay")),
    Rule("6 from a member", 1, 12, make(CAROL, "x", {}), make(DAVE, "x", {})),
    Rule(
        "7 third-party invites take the invite level",
        *(1, 12),
        after(levels(invite=50), then=make(BOB, "m.room.third_party_invite", {}, "t")),
        after(levels(invite=50), then=make(CAROL, "m.room.third_party_invite", {}, "t")),
    ),
    Rule(
        "7 and no other",
        *(1, 12),
        after(levels(state_default=100), then=make(CAROL, "m.room.third_party_invite", {}, "t")),
        after(levels(state_default=100), then=make(CAROL, "x", {}, "t")),
    ),
    Rule(
        "8 state_default",
        1,
        12,
        after(levels(state_default=50), then=TOPIC),
        after(levels(state_default=51), then=TOPIC),
    ),
    Rule(
        "8 events_default",
        *(1, 12),
        after(levels(events_default=50), then=make(BOB, "x", {})),
        after(levels(events_default=50), then=make(CAROL, "x", {})),
    ),
    Rule(
        "8 events",
        *(1, 12),
        after(levels(events={"x": 0}), then=make(CAROL, "x", {}, "")),
        after(levels(events={"x": 1}), then=make(CAROL, "x", {}, "")),
    ),
    Rule("9 a user's state", 1, 12, make(BOB, "x", {}, BOB), make(BOB, "x", {}, CAROL)),
    *(
        Rule(f"10.1 {name} is an integer", 10, 12, sets(ALICE, **{name: 30}), sets(ALICE, **{name: "30"}))
        for name in ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite")
    ),
    *(
        Rule(f"10.2 {name} has integers", 10, 12, sets(ALICE, **{name: {"x": 30}}), sets(ALICE, **{name: {"x": "30"}}))
        for name in ("events", "notifications")
    ),
    *(
        Rule(f"10.2 {name} is an object", 10, 12, sets(ALICE, **{name: {}}), sets(ALICE, **{name: []}))
        for name in ("events", "notifications")
    ),
    Rule("10.3 users has user ids", 1, 12, sets(ALICE, {CAROL: 1}), sets(ALICE, {"carol": 1})),
    Rule("10.3 users has numbers", 1, 12, sets(ALICE, {CAROL: 1}), sets(ALICE, {CAROL: "one"})),
    Rule("10.3 users has integers", 10, 12, sets(ALICE, {CAROL: 1}), sets(ALICE, {CAROL: "1"})),
    Rule("10.3 text will do", 1, 9, sets(ALICE, {CAROL: "1"}), sets(ALICE, {CAROL: "1.0"})),
    Rule("10.4 creators have all power", 12, 12, sets(ALICE), sets(ALICE, {ALICE: 100})),
    Rule("10.5 the first event may say anything", 1, 12, first_levels(ALICE, {"ban": 1000}), sets(BOB, ban=1000)),
    *(
        Rule(
            f"10.6.1 the present {name}",
            *(1, 12),
            after(
                levels(**{name: 50}, events={"m.room.power_levels": 50}),
                then=sets(BOB, events={"m.room.power_levels": 50}),
            ),
            after(
                levels(**{name: 51}, events={"m.room.power_levels": 50}),
                then=sets(BOB, events={"m.room.power_levels": 50}),
            ),
        )
        for name in ("events_default", "state_default", "ban", "redact", "kick", "invite")
    ),
    *(
        Rule(f"10.6.2 the new {name}", 1, 12, sets(BOB, **{name: 50}), sets(BOB, **{name: 51}))
        for name in ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite")
    ),
    *(
        Rule(
            f"10.7 the present {table}, {what}",
            *(first, 12),
            after(levels(**{table: {"x": 50}}), then=sets(BOB, **{table: new})),
            after(levels(**{table: {"x": 51}}), then=sets(BOB, **{table: new})),
        )
        for table, first in (("events", 1), ("notifications", 6))
        for what, new in (("changed", {"x": 1}), ("removed", {}))
    ),
    *(
        Rule(f"10.8 the new {table}", first, 12, sets(BOB, **{table: {"x": 50}}), sets(BOB, **{table: {"x": 51}}))
        for table, first in (("events", 1), ("notifications", 6))
    ),
    *(
        Rule(
            f"10.9 the power of others, {what}",
            *(1, 12),
            after(levels(users={CAROL: 49}), then=sets(BOB, new)),
            after(levels(users={CAROL: 50}), then=sets(BOB, new)),
        )
        for what, new in (("changed", {CAROL: 1}), ("removed", {}))
    ),
    Rule(
        "10.9 one's own is excepted",
        1,
        12,
        sets(BOB, {BOB: 1}),
        after(levels(users={CAROL: 50}), then=sets(BOB, {CAROL: 1})),
    ),
    Rule("10.10 power given", 1, 12, sets(BOB, {CAROL: 50}), sets(BOB, {CAROL: 51})),
    Rule("10.10 power taken", 1, 12, sets(BOB, {BOB: 50}), sets(BOB, {BOB: 51})),
    Rule(
        "11.1 redact level",
        *(1, 2),
        make(BOB, "m.room.redaction", {}, redacts="$x:b.example"),
        after(levels(redact=51), then=make(BOB, "m.room.redaction", {}, redacts="$x:b.example")),
    ),
    Rule(
        "11.2 events of the same server",
        *(1, 2),
        make(CAROL, "m.room.redaction", {}, redacts=f"$x:{SERVER}"),
        make(CAROL, "m.room.redaction", {}, redacts="$x:b.example"),
    ),
    Rule(
        "11 the redact level is no rule any more",
        *(3, 12),
        after(levels(redact=51), then=make(CAROL, "m.room.redaction", {}, redacts="$x:b.example")),
        after(levels(events_default=1), then=make(CAROL, "m.room.redaction", {}, redacts="$x:b.example")),
    ),
]

ROWS = [(each, str(version)) for each in RULES for version in range(each.first, each.last + 1)]


@pytest.mark.parametrize(("each", "version"), ROWS, ids=[f"v{version}: {each.name}" for each, version in ROWS])
def test_rule(each: Rule, version: str) -> None:
    room = usual_room(version)
    auth.check(each.allowed(room), room.state)
    room = usual_room(version)
    refused = each.refused(room)
    with pytest.raises(AuthError):
        auth.check(refused, room.state)
