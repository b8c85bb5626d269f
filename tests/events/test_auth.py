"""The authorisation rules, as tables: who may do what in which room version."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from synapse.api.errors import AuthError
from synapse.api.room_versions import ROOM_VERSIONS
from synapse.events import auth
from synapse.events.event import Event
from synapse.events.power_levels import PowerLevels
from tests.events.factory import ALICE, BOB, CAROL, DAVE, KEY, SERVER, Room, usual_room

ALL = list(ROOM_VERSIONS)
SINCE_7 = [str(n) for n in range(7, 13)]
SINCE_8 = SINCE_7[1:]
SINCE_10 = SINCE_7[3:]
OTHER = "@eve:b.example"


def allowed(room: Room, event: Event) -> bool:
    with contextlib.suppress(AuthError):
        auth.check(event, room.state)
        return True
    return False


def may(room: Room, sender: str, type: str, content: dict[str, Any], state_key: str | None = None, **how: Any) -> bool:
    return allowed(room, room.make(sender, type, content, state_key, **how))


def may_member(room: Room, sender: str, target: str, membership: str, **extra: Any) -> bool:
    return may(room, sender, "m.room.member", {"membership": membership, **extra}, target)


@pytest.mark.parametrize("version", ALL)
def test_a_room_can_be_made_and_used(version: str) -> None:
    room = Room(version)
    assert allowed(room, room.create)
    steps: list[Callable[[], Event]] = [
        lambda: room.make(ALICE, "m.room.member", {"membership": "join"}, ALICE),
        lambda: room.make(ALICE, "m.room.power_levels", {"users": {} if int(version) >= 12 else {ALICE: 100}}, ""),
        lambda: room.make(ALICE, "m.room.join_rules", {"join_rule": "public"}, ""),
        lambda: room.make(BOB, "m.room.member", {"membership": "join"}, BOB),
        lambda: room.make(BOB, "m.room.message", {"body": "hello"}),
    ]
    for make in steps:
        event = make()
        auth.check(event, room.state)
        auth.check_auth_events(event, [room.events[i] for i in event.auth_event_ids])
        room.add(event)
    assert not may(room, BOB, "m.room.topic", {"topic": "x"}, "")
    assert not may(room, CAROL, "m.room.message", {"body": "x"})


@pytest.mark.parametrize("version", ALL)
class TestCreate:
    def test_has_no_previous_events(self, version: str) -> None:
        room = Room(version)
        assert not may(room, ALICE, "m.room.create", {"creator": ALICE}, "", prev_events=[room.create.event_id])

    def test_knows_its_version(self, version: str) -> None:
        room = Room(version)
        assert not may(room, ALICE, "m.room.create", {"creator": ALICE, "room_version": "99"}, "", prev_events=[])
        assert not may(room, ALICE, "m.room.create", {"creator": ALICE, "room_version": 1}, "", prev_events=[])

    def test_names_the_creator_where_that_is_required(self, version: str) -> None:
        room = Room(version)
        assert may(room, ALICE, "m.room.create", {}, "", prev_events=[]) is (int(version) >= 11)

    def test_room_is_of_the_creators_server(self, version: str) -> None:
        room = Room(version)
        assert may(room, OTHER, "m.room.create", {"creator": OTHER}, "", prev_events=[]) is (version == "12")


def test_refusals_are_sentences_with_403() -> None:
    room = usual_room()
    with pytest.raises(AuthError) as caught:
        auth.check(room.make(CAROL, "m.room.topic", {}, ""), room.state)
    assert caught.value.code == 403
    assert caught.value.body() == {
        "errcode": "M_FORBIDDEN",
        "error": f"To send m.room.topic events in this room you need power level 50; {CAROL} has 0.",
    }


def test_v12_create_has_no_room_id() -> None:
    room = Room("12")
    raw = {**room.create.raw, "room_id": "!" + "x" * 43}
    assert not allowed(room, Event.from_json(raw, room.version))


@pytest.mark.parametrize(("value", "ok"), [([], True), ([BOB], True), (["bob"], False), (BOB, False), ([1], False)])
def test_additional_creators_are_user_ids(value: Any, ok: bool) -> None:
    room = Room("12")
    assert may(room, ALICE, "m.room.create", {"additional_creators": value}, "", prev_events=[]) is ok


def test_v12_event_of_another_room_is_refused() -> None:
    room, other = usual_room("12"), Room("12", creator=BOB)
    assert room.room_id != other.room_id
    event = room.make(ALICE, "m.room.message", {})
    with pytest.raises(AuthError, match="does not belong"):
        auth.check(event, {**room.state, auth.CREATE_KEY: other.create})


@pytest.mark.parametrize("version", ALL)
def test_unfederated_rooms_admit_one_server(version: str) -> None:
    room = Room(version, create={"m.federate": False})
    room.member(ALICE, "join")
    room.join_rule("public")
    assert may_member(room, BOB, BOB, "join")
    assert not may_member(room, OTHER, OTHER, "join")


@pytest.mark.parametrize("version", ALL)
class TestAuthEvents:
    def check(self, room: Room, cited: list[Event], rejected: set[str] | None = None) -> None:
        event = room.make(BOB, "m.room.message", {}, auth_events=[e.event_id for e in cited])
        auth.check_auth_events(event, cited, rejected or set())

    def cited(self, room: Room) -> list[Event]:
        event = room.make(BOB, "m.room.message", {})
        return [room.events[i] for i in event.auth_event_ids]

    def test_the_selection_is_accepted(self, version: str) -> None:
        room = usual_room(version)
        self.check(room, self.cited(room))
        assert (room.create in self.cited(room)) is (version != "12")

    def test_duplicates(self, version: str) -> None:
        room = usual_room(version)
        with pytest.raises(AuthError, match="two events"):
            self.check(room, [*self.cited(room), room.events[room.state["m.room.power_levels", ""].event_id]])

    def test_irrelevant_state(self, version: str) -> None:
        room = usual_room(version)
        with pytest.raises(AuthError, match="does not decide"):
            self.check(room, [*self.cited(room), room.state["m.room.join_rules", ""]])

    def test_messages(self, version: str) -> None:
        room = usual_room(version)
        with pytest.raises(AuthError, match="does not decide"):
            self.check(room, [*self.cited(room), room.make(BOB, "m.room.message", {})])

    def test_rejected(self, version: str) -> None:
        room = usual_room(version)
        with pytest.raises(AuthError, match="rejected"):
            self.check(room, self.cited(room), {room.state["m.room.power_levels", ""].event_id})

    def test_create_is_cited_or_not(self, version: str) -> None:
        room = usual_room(version)
        without = [e for e in self.cited(room) if e is not room.create]
        if version == "12":
            self.check(room, without)
            with pytest.raises(AuthError, match="does not decide"):
                self.check(room, [*without, room.create])
        else:
            with pytest.raises(AuthError, match="does not cite"):
                self.check(room, without)


def test_auth_events_of_another_room() -> None:
    room, other = usual_room("11"), usual_room("11")
    stranger = other.make(BOB, "m.room.member", {"membership": "join"}, BOB)
    moved = Event.from_json({**stranger.raw, "room_id": f"!else:{SERVER}"}, room.version)
    event = room.make(BOB, "m.room.message", {})
    with pytest.raises(AuthError, match="another room"):
        auth.check_auth_events(event, [room.create, moved])


# Who may move Dave from which membership to which: rows are (from, sender, to, ok). Alice has 100, Bob 50, Carol 0.
MOVES: list[tuple[str | None, str, str, bool]] = [
    (None, DAVE, "join", True),
    (None, DAVE, "leave", False),
    (None, BOB, "invite", True),
    (None, CAROL, "invite", True),
    (None, BOB, "ban", True),
    (None, CAROL, "ban", False),
    (None, DAVE, "ban", False),
    (None, BOB, "leave", True),
    (None, CAROL, "leave", False),
    (None, BOB, "join", False),
    ("invite", DAVE, "join", True),
    ("invite", DAVE, "leave", True),
    ("invite", BOB, "invite", True),
    ("invite", BOB, "leave", True),
    ("join", DAVE, "join", True),
    ("join", DAVE, "leave", True),
    ("join", BOB, "invite", False),
    ("join", BOB, "leave", True),
    ("join", CAROL, "leave", False),
    ("join", BOB, "ban", True),
    ("ban", DAVE, "join", False),
    ("ban", DAVE, "leave", False),
    ("ban", BOB, "invite", False),
    ("ban", BOB, "leave", True),
    ("ban", CAROL, "leave", False),
    ("ban", BOB, "ban", True),
    (None, BOB, "nonsense", False),
]


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize(("before", "sender", "after", "ok"), MOVES)
def test_membership_moves(version: str, before: str | None, sender: str, after: str, ok: bool) -> None:
    room = usual_room(version)
    if before is not None:
        room.member(DAVE, before, sender=ALICE)
    assert may_member(room, sender, DAVE, after) is ok


@pytest.mark.parametrize("version", ALL)
def test_equal_power_cannot_be_removed_or_banned(version: str) -> None:
    room = usual_room(version)
    assert not may_member(room, BOB, ALICE, "leave")
    assert not may_member(room, BOB, BOB, "ban")
    assert may_member(room, ALICE, BOB, "ban")


@pytest.mark.parametrize("version", ALL)
def test_malformed_memberships(version: str) -> None:
    room = usual_room(version)
    assert not may(room, DAVE, "m.room.member", {"membership": "join"})
    assert not may(room, DAVE, "m.room.member", {}, DAVE)
    assert not may(room, DAVE, "m.room.member", {"membership": ["join"]}, DAVE)


@pytest.mark.parametrize("version", ALL)
def test_founder_joins_without_rule_and_nobody_else(version: str) -> None:
    room = Room(version)
    assert may_member(room, ALICE, ALICE, "join")
    assert not may_member(room, BOB, BOB, "join")
    room.member(ALICE, "join")
    room.member(ALICE, "leave")
    assert not may_member(room, ALICE, ALICE, "join")


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("rule", ["invite", "knock", "restricted", "knock_restricted", "private", "other"])
def test_join_rules_and_invites(version: str, rule: str) -> None:
    room = usual_room(version)
    room.join_rule(rule)
    known_since = {"invite": 1, "knock": 7, "restricted": 8, "knock_restricted": 10}.get(rule, 99)
    assert not may_member(room, DAVE, DAVE, "join")
    room.member(DAVE, "invite", sender=ALICE)
    assert may_member(room, DAVE, DAVE, "join") is (int(version) >= known_since)


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("rule", ["public", "invite", "knock", "restricted", "knock_restricted"])
def test_knocking(version: str, rule: str) -> None:
    room = usual_room(version)
    room.join_rule(rule)
    since = {"knock": 7, "knock_restricted": 10}.get(rule, 99)
    assert may_member(room, DAVE, DAVE, "knock") is (int(version) >= since)
    assert not may_member(room, BOB, DAVE, "knock")
    for membership in ("join", "invite", "ban"):
        room.member(DAVE, membership, sender=ALICE)
        assert not may_member(room, DAVE, DAVE, "knock")


@pytest.mark.parametrize("version", ALL)
def test_a_knock_can_be_withdrawn_where_knocking_exists(version: str) -> None:
    room = usual_room(version)
    room.member(DAVE, "knock")
    assert may_member(room, DAVE, DAVE, "leave") is (int(version) >= 7)


@pytest.mark.parametrize("version", SINCE_8)
def test_restricted_joins_need_a_member_who_may_invite(version: str) -> None:
    room = usual_room(version)
    room.join_rule("restricted")
    assert not may_member(room, DAVE, DAVE, "join")
    assert may_member(room, DAVE, DAVE, "join", join_authorised_via_users_server=CAROL)
    assert not may_member(room, DAVE, DAVE, "join", join_authorised_via_users_server=DAVE)
    room.power(invite=50, users={BOB: 50} if version == "12" else {ALICE: 100, BOB: 50})
    assert not may_member(room, DAVE, DAVE, "join", join_authorised_via_users_server=CAROL)
    assert may_member(room, DAVE, DAVE, "join", join_authorised_via_users_server=BOB)
    assert not may_member(room, DAVE, DAVE, "join", join_authorised_via_users_server=7)


@pytest.mark.parametrize("version", SINCE_8)
def test_restricted_joins_are_signed_by_the_authorising_server(version: str) -> None:
    room = usual_room(version)
    room.join_rule("restricted")
    content = {"membership": "join", "join_authorised_via_users_server": BOB}
    join = room.make(OTHER, "m.room.member", content, OTHER)
    assert not allowed(room, join)
    from synapse.events.signing import add_signature

    signed = add_signature(join.raw, room.version, SERVER, KEY)
    assert allowed(room, Event.from_json(signed, room.version))


@pytest.mark.parametrize("version", ALL)
def test_required_levels(version: str) -> None:
    room = usual_room(version)
    assert may(room, CAROL, "m.room.message", {})
    assert not may(room, CAROL, "m.room.topic", {}, "")
    assert may(room, BOB, "m.room.topic", {}, "")
    assert may(room, CAROL, "m.room.topic", {})  # the same type, but no state
    users = {BOB: 50} if version == "12" else {ALICE: 100, BOB: 50}
    room.power(users=users, events={"m.room.message": 50, "m.room.topic": 0}, state_default=60, events_default=10)
    assert not may(room, CAROL, "m.room.message", {})
    assert may(room, BOB, "m.room.message", {})
    assert may(room, CAROL, "m.room.topic", {}, "")
    assert not may(room, BOB, "m.room.name", {}, "")
    assert not may(room, CAROL, "x", {})


@pytest.mark.parametrize("version", ALL)
def test_state_keys_that_are_users(version: str) -> None:
    room = usual_room(version)
    assert may(room, BOB, "x", {}, BOB)
    assert not may(room, BOB, "x", {}, CAROL)
    assert not may(room, BOB, "x", {}, "@")
    assert may(room, BOB, "x", {}, "y")


@pytest.mark.parametrize("version", ALL)
def test_aliases_had_a_rule_until_v5(version: str) -> None:
    room = usual_room(version)
    old = int(version) < 6
    assert may(room, CAROL, "m.room.aliases", {"aliases": []}, SERVER) is old
    assert may(room, BOB, "m.room.aliases", {"aliases": []}, "else.example") is not old


@pytest.mark.parametrize("version", ALL)
def test_redactions_had_a_rule_until_v2(version: str) -> None:
    room = usual_room(version)
    own = room.make(CAROL, "m.room.redaction", {}, redacts=f"$x:{SERVER}")
    foreign = room.make(CAROL, "m.room.redaction", {}, redacts="$x:b.example")
    assert allowed(room, own)
    assert allowed(room, foreign) is (int(version) > 2)
    assert may(room, BOB, "m.room.redaction", {}, redacts="$x:b.example")


@pytest.mark.parametrize("version", ["3", "11", "12"])
def test_whether_a_redaction_takes_effect(version: str) -> None:
    room = usual_room(version)
    room.member(OTHER, "join")
    levels = PowerLevels.of_state(room.state, room.version)
    by_carol, by_eve = (room.make(user, "m.room.message", {}) for user in (CAROL, OTHER))
    for sender, target, ok in (
        (CAROL, by_carol, True),
        (CAROL, by_eve, False),
        (BOB, by_eve, True),
        (OTHER, by_carol, False),
    ):
        redaction = room.make(sender, "m.room.redaction", {}, redacts=target.event_id)
        assert auth.may_redact(redaction, target, levels) is ok


class TestPowerLevels:
    """Bob has 50 and tries to change what Alice (100, or creator) set."""

    BASE: ClassVar[dict[str, Any]] = {
        "ban": 60,
        "kick": 50,
        "events": {"m.a": 60, "m.b": 40},
        "notifications": {"room": 60},
    }

    def room(self, version: str) -> Room:
        room = usual_room(version)
        room.power(**self.content(version))
        return room

    def content(self, version: str, users: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        base = {} if version == "12" else {ALICE: 100}
        return {
            **self.BASE,
            "events": {**self.BASE["events"], "m.room.power_levels": 50},
            **changes,
            "users": {**base, BOB: 50, CAROL: 30, **(users or {})},
        }

    @pytest.mark.parametrize("version", ALL)
    @pytest.mark.parametrize(
        ("changes", "ok"),
        [
            ({}, True),
            ({"kick": 40}, True),
            ({"kick": 51}, False),
            ({"ban": 50}, False),
            ({"redact": 50}, True),
            ({"redact": 51}, False),
            ({"users_default": 50}, True),
            ({"users_default": 51}, False),
            ({"users": {DAVE: 50}}, True),
            ({"users": {DAVE: 51}}, False),
            ({"users": {CAROL: 50}}, True),
            ({"users": {CAROL: 0}}, True),
            ({"users": {BOB: 0}}, True),
            ({"users": {BOB: 51}}, False),
        ],
    )
    def test_changes(self, version: str, changes: dict[str, Any], ok: bool) -> None:
        assert may(self.room(version), BOB, "m.room.power_levels", self.content(version, **changes), "") is ok

    @pytest.mark.parametrize("version", ALL)
    @pytest.mark.parametrize(
        ("events", "ok"),
        [
            ({"m.a": 60, "m.b": 40}, True),
            ({"m.a": 60, "m.b": 50}, True),
            ({"m.a": 60, "m.b": 51}, False),
            ({"m.a": 60}, True),
            ({"m.b": 40}, False),
            ({"m.a": 50, "m.b": 40}, False),
            ({"m.a": 60, "m.b": 40, "m.c": 50}, True),
            ({"m.a": 60, "m.b": 40, "m.c": 51}, False),
        ],
    )
    def test_events(self, version: str, events: dict[str, int], ok: bool) -> None:
        content = self.content(version, events={**events, "m.room.power_levels": 50})
        assert may(self.room(version), BOB, "m.room.power_levels", content, "") is ok

    @pytest.mark.parametrize("version", ALL)
    @pytest.mark.parametrize("notifications", [{}, {"room": 50}, {"room": 60, "x": 51}])
    def test_notifications_are_protected_since_v6(self, version: str, notifications: dict[str, int]) -> None:
        content = self.content(version, notifications=notifications)
        assert may(self.room(version), BOB, "m.room.power_levels", content, "") is (int(version) < 6)

    @pytest.mark.parametrize("version", ALL)
    def test_equals_cannot_be_demoted_except_oneself(self, version: str) -> None:
        room = self.room(version)
        room.power(**self.content(version, users={CAROL: 50}))
        assert not may(room, BOB, "m.room.power_levels", self.content(version, users={CAROL: 49}), "")
        lacking = self.content(version, users={CAROL: 50})
        del lacking["users"][BOB]
        assert may(room, BOB, "m.room.power_levels", lacking, "")

    @pytest.mark.parametrize("version", ALL)
    @pytest.mark.parametrize(
        "users", [{"bob": 1}, {BOB: None}, {BOB: "x"}, {BOB: [1]}, {BOB: True}, [BOB], "x", {BOB: "1.5"}]
    )
    def test_malformed_users(self, version: str, users: Any) -> None:
        assert not may(usual_room(version), ALICE, "m.room.power_levels", {"users": users}, "")

    @pytest.mark.parametrize("version", ALL)
    def test_strings_were_levels_until_v9(self, version: str) -> None:
        users = {BOB: "50"} if version == "12" else {ALICE: " +0100 ", BOB: "50"}
        room = usual_room(version)
        ok = may(room, ALICE, "m.room.power_levels", {"users": users, "ban": "30"}, "")
        assert ok is (int(version) < 10)

    @pytest.mark.parametrize("version", ["1", "5"])
    def test_floats_were_levels_until_v5(self, version: str) -> None:
        room = usual_room(version)
        room.power(users={ALICE: 100, BOB: 50.57})
        assert not may(room, BOB, "m.room.power_levels", {"users": {ALICE: 100, BOB: 51}}, "")
        assert may(room, BOB, "m.room.topic", {}, "")

    @pytest.mark.parametrize("version", SINCE_10)
    @pytest.mark.parametrize(
        "content", [{"ban": "50"}, {"kick": None}, {"events": []}, {"notifications": {"room": "1"}}]
    )
    def test_integers_only_since_v10(self, version: str, content: dict[str, Any]) -> None:
        assert not may(usual_room(version), ALICE, "m.room.power_levels", content, "")

    @pytest.mark.parametrize("version", ALL)
    def test_true_is_not_one(self, version: str) -> None:
        room = self.room(version)
        room.power(**self.content(version, kick=1, events={"m.room.power_levels": 50, "x": 1}))
        events = {"m.room.power_levels": 50, "x": 1}
        assert may(room, BOB, "m.room.power_levels", self.content(version, kick=1, events=events), "")
        assert not may(room, BOB, "m.room.power_levels", self.content(version, kick=True, events=events), "")
        changed = self.content(version, kick=1, events={**events, "x": True})
        assert not may(room, BOB, "m.room.power_levels", changed, "")

    def test_creators_are_not_listed_in_v12(self) -> None:
        room = Room("12", create={"additional_creators": [BOB]})
        room.member(ALICE, "join")
        for user in (ALICE, BOB):
            assert not may(room, ALICE, "m.room.power_levels", {"users": {user: 100}}, "")
        assert may(room, ALICE, "m.room.power_levels", {"users": {CAROL: 100}}, "")

    def test_creators_of_v12_are_above_every_level(self) -> None:
        room = Room("12", create={"additional_creators": [BOB]})
        room.member(ALICE, "join")
        room.join_rule("public")
        room.member(BOB, "join")
        room.member(CAROL, "join")
        top = 2**53 - 1
        room.power(users={CAROL: top}, state_default=top, ban=top, events={"m.room.power_levels": top})
        assert may_member(room, BOB, CAROL, "ban")
        assert not may_member(room, CAROL, BOB, "ban")
        assert not may_member(room, ALICE, BOB, "ban")
        assert may(room, BOB, "m.room.power_levels", {}, "")


class TestThirdPartyInvites:
    def room(self, version: str, keys: int = 1) -> Room:
        room = usual_room(version)
        room.join_rule("invite")
        from signedjson.key import encode_verify_key_base64, get_verify_key

        public = encode_verify_key_base64(get_verify_key(KEY))
        content: dict[str, Any] = {"display_name": "d...", "key_validity_url": "https://x", "public_key": public}
        if keys == 2:
            content = {**content, "public_key": "A" * 43, "public_keys": [{"public_key": "!"}, {"public_key": public}]}
        room.send(BOB, "m.room.third_party_invite", content, "token")
        return room

    def signed(self, **changes: Any) -> dict[str, Any]:
        from signedjson.sign import sign_json

        signed: dict[str, Any] = sign_json({"mxid": DAVE, "token": "token", **changes}, "id.example", KEY)
        return signed

    @pytest.mark.parametrize("version", ALL)
    @pytest.mark.parametrize("keys", [1, 2])
    def test_a_signed_invite_is_allowed(self, version: str, keys: int) -> None:
        room = self.room(version, keys)
        assert may_member(room, BOB, DAVE, "invite", third_party_invite={"signed": self.signed()})

    @pytest.mark.parametrize("version", ["1", "12"])
    def test_what_is_refused(self, version: str) -> None:
        room = self.room(version)
        forged = {**self.signed(), "token": "token", "extra": 1}
        for sender, target, signed in (
            (CAROL, DAVE, self.signed()),
            (BOB, "@x:y", self.signed()),
            (BOB, DAVE, self.signed(token="other")),
            (BOB, DAVE, forged),
            (BOB, DAVE, {"mxid": DAVE, "token": "token"}),
            (BOB, DAVE, {"mxid": DAVE}),
            (BOB, DAVE, None),
        ):
            assert not may_member(room, sender, target, "invite", third_party_invite={"signed": signed})
        assert not may_member(room, BOB, DAVE, "invite", third_party_invite="x")
        room.member(DAVE, "ban", sender=ALICE)
        assert not may_member(room, BOB, DAVE, "invite", third_party_invite={"signed": self.signed()})

    def test_making_one_takes_the_invite_level(self) -> None:
        room = usual_room("12")
        assert may(room, CAROL, "m.room.third_party_invite", {}, "t")
        room.power(invite=50, users={BOB: 50}, events={"m.room.third_party_invite": 100})
        assert not may(room, CAROL, "m.room.third_party_invite", {}, "t")
        assert may(room, BOB, "m.room.third_party_invite", {}, "t")
