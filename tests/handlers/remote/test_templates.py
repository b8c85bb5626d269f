"""Events made of what other servers propose, and what is taken over of what they send back."""

from __future__ import annotations

import random
from typing import Any

import pytest

from synapse.api.errors import MatrixError
from synapse.api.room_versions import ROOM_VERSIONS, EventIdScheme
from synapse.events import auth
from synapse.events.event import Event
from synapse.events.hashes import has_valid_content_hash
from synapse.events.signing import add_signature
from synapse.events.validation import check_pdu
from synapse.federation.errors import BadAnswer
from synapse.handlers.event_creation import Signer
from synapse.handlers.remote.signatures import MAX_SIGNATURES, countersigned
from synapse.handlers.remote.templates import leave_without_help, made_by
from tests.support.resident import Resident, key_of

OWN = "here.test"
SIGNER = Signer(OWN, key_of(OWN))
USER = f"@user:{OWN}"
CONTENT = {"membership": "join", "displayname": "User"}


def proposed(resident: Resident, membership: str = "join") -> dict[str, Any]:
    code, answer = resident.answer("GET", f"/_matrix/federation/v1/make_{membership}/{resident.room_id}/{USER}")
    assert code == 200
    event: dict[str, Any] = answer["event"]
    return event


def made(resident: Resident, template: Any, **other: Any) -> Event:
    wanted = {"room_id": resident.room_id, "user_id": USER, "content": CONTENT, "signer": SIGNER, "now": 5, **other}
    return made_by(resident.name, template, resident.version, **wanted)


@pytest.mark.parametrize("version", ROOM_VERSIONS)
def test_the_event_stands_where_the_template_says_and_says_what_the_user_does(version: str) -> None:
    resident = Resident("there.test", version)
    template = proposed(resident)
    template["content"]["displayname"] = "a word that the user did not say"
    template |= {"origin_server_ts": 1, "unsigned": {"a": 1}, "extra": "field", "signatures": {"x": {}}, "hashes": {}}
    event = made(resident, template)
    assert event.content == CONTENT
    assert (event.origin_server_ts, event.sender, event.state_key) == (5, USER, USER)
    assert (list(event.prev_event_ids), event.depth) == (resident.ends, template["depth"])
    assert event.raw["origin"] == OWN
    assert not {"unsigned", "extra"} & event.raw.keys()
    assert set(event.raw["signatures"]) == {OWN}
    assert has_valid_content_hash(event.raw, resident.version)
    check_pdu(event.raw, resident.version)
    if resident.version.event_ids is EventIdScheme.ASSIGNED:
        assert event.event_id.endswith(f":{OWN}")
    auth.check(event, resident.state)


def test_who_vouches_is_taken_over_from_the_template_alone() -> None:
    resident = Resident("there.test", join_rule="restricted")
    event = made(resident, proposed(resident))
    assert event.content == {**CONTENT, "join_authorised_via_users_server": resident.creator}
    old = Resident("there.test", "7")
    template = proposed(old)
    template["content"]["join_authorised_via_users_server"] = old.creator
    assert made(old, template).content == CONTENT


WRONG: list[dict[str, Any]] = [
    {"room_id": "!" + "B" * 43},
    {"sender": "@other:here.test"},
    {"state_key": "@other:here.test"},
    {"type": "m.room.power_levels"},
    {"content": {"membership": "leave"}},
    {"content": {"membership": ["join"]}},
    {"content": "join"},
    {"prev_events": "none"},
    {"prev_events": [["$a", {}]]},
    {"prev_events": ["$" + "a" * 43] * 21},
    {"auth_events": ["$" + "a" * 43] * 11},
    {"auth_events": [1]},
    {"auth_events": None},
    {"depth": -1},
    {"depth": 2**53},
    {"depth": 1.5},
    {"depth": "9"},
]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_template_that_is_wrong_is_not_signed(wrong: dict[str, Any]) -> None:
    resident = Resident("there.test")
    with pytest.raises(BadAnswer):
        made(resident, {**proposed(resident), **wrong})


@pytest.mark.parametrize("template", [None, [], "x", 1, {}, {"content": {}}])
def test_what_is_no_template_is_none(template: Any) -> None:
    with pytest.raises(BadAnswer):
        made(Resident("there.test"), template)


@pytest.mark.parametrize("version", ["1", "3", "12"])
def test_a_leave_without_help_follows_on_the_invite_and_is_allowed_by_it(version: str) -> None:
    resident = Resident("there.test", version)
    invite = resident.set(resident.creator, "m.room.member", {"membership": "invite"}, USER)
    leave = leave_without_help(invite, USER, {"membership": "leave", "reason": "no"}, SIGNER, 7)
    check_pdu(leave.raw, resident.version)
    assert leave.prev_event_ids == (invite.event_id,)
    assert leave.depth == invite.depth + 1
    assert leave.content == {"membership": "leave", "reason": "no"}
    auth.check(leave, resident.state)


def invite_of(version: str = "12") -> tuple[Resident, Event]:
    resident = Resident(OWN, version)
    return resident, resident.made(resident.creator, "m.room.member", {"membership": "invite"}, "@you:there.test")


def test_only_the_signatures_of_the_server_that_was_asked_are_taken_over() -> None:
    resident, event = invite_of()
    signed = add_signature(event.raw, resident.version, "there.test", key_of("there.test"))
    answered = add_signature(signed, resident.version, "third.test", key_of("third.test"))
    answered["unsigned"] = {"invite_room_state": [{"a": 1}]}
    found = countersigned(event, answered, "there.test")
    assert set(found.raw["signatures"]) == {OWN, "there.test"}
    assert found.event_id == event.event_id
    assert "unsigned" not in found.raw


def test_ours_stays_ours_whatever_is_said_of_our_signature() -> None:
    resident, event = invite_of()
    answered = add_signature(event.raw, resident.version, "there.test", key_of("there.test"))
    answered["signatures"][OWN] = {"ed25519:made_up": "forged"}
    assert countersigned(event, answered, "there.test").raw["signatures"][OWN] == event.raw["signatures"][OWN]


def test_a_heap_of_signatures_is_not_kept() -> None:
    resident, event = invite_of()
    answered = add_signature(event.raw, resident.version, "there.test", key_of("there.test"))
    answered["signatures"]["there.test"].update({f"ed25519:{n}": "x" for n in range(100)})
    assert len(countersigned(event, answered, "there.test").raw["signatures"]["there.test"]) == MAX_SIGNATURES


@pytest.mark.parametrize(
    "change",
    [
        {"content": {"membership": "ban"}},
        {"content": {"membership": "invite", "reason": "more"}},
        {"depth": 1000},
        {"prev_events": []},
        {"state_key": "@other:there.test"},
        {"sender": "@other:here.test"},
        {"extra": 1},
        {"hashes": {"sha256": "other"}},
    ],
)
def test_another_event_than_was_sent_is_refused(change: dict[str, Any]) -> None:
    resident, event = invite_of()
    answered = add_signature({**event.raw, **change}, resident.version, "there.test", key_of("there.test"))
    with pytest.raises(BadAnswer):
        countersigned(event, answered, "there.test")


def test_the_event_sent_back_without_a_signature_is_refused() -> None:
    _, event = invite_of()
    with pytest.raises(BadAnswer):
        countersigned(event, event.raw, "there.test")


@pytest.mark.parametrize("bad", [None, [], {}, {"content": {}}, {"content": {"a": 1.5}}])
def test_what_is_not_well_formed_is_told_as_such(bad: Any) -> None:
    _, event = invite_of()
    answered = {**event.raw, **bad} if isinstance(bad, dict) and bad else bad
    if bad == {"content": {}}:
        answered = {**event.raw, "signatures": "none"}
    with pytest.raises(MatrixError) as raised:
        countersigned(event, answered, "there.test")
    assert raised.value.errcode == "M_BAD_JSON"


def test_no_noise_of_a_template_brings_anything_but_a_bad_answer() -> None:
    chance = random.Random(8)
    values = [None, True, 1, -1, 1.5, 2**80, "", "\x00", "\ud800", [], {}, [[]], {"membership": "join"}, "$x", ["$x"]]
    resident = Resident("there.test")
    for _ in range(500):
        template = proposed(resident)
        for _ in range(chance.randrange(1, 4)):
            template[chance.choice([*template, "state", "redacts", "event_id"])] = chance.choice(values)
        try:
            event = made(resident, template)
        except BadAnswer:
            continue
        assert (event.type, event.sender, event.membership) == ("m.room.member", USER, "join")
