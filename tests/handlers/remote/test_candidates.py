"""Whom to ask for help with a room: names from anywhere, a bounded number, the best first."""

from __future__ import annotations

from synapse.federation.hosts import by_size
from synapse.handlers.remote.candidates import (
    MAX_NAMED,
    MAX_TRIED,
    able_to_invite,
    candidates,
    candidates_for,
    server_of_room,
    servers_of_stripped,
)

OWN = "here.test"


def test_each_server_once_in_the_order_of_the_groups_and_never_oneself() -> None:
    assert candidates(OWN, ["b.test", OWN, "a.test"], ["a.test", "c.test"]) == ["b.test", "a.test", "c.test"]


def test_what_is_no_server_name_is_not_asked() -> None:
    bad = ["", "a b", "x/../y", "a.test:99999999", "evil.test?x=", "\x00", "a" * 300, "user@host", "[::1"]
    assert candidates(OWN, bad, ["good.test:8448", "[::1]:8448", "192.0.2.1"]) == [
        "good.test:8448",
        "[::1]:8448",
        "192.0.2.1",
    ]


def test_only_so_many_are_looked_at_and_asked() -> None:
    assert len(candidates(OWN, (f"s{n}.test" for n in range(1000)))) == MAX_TRIED
    wrong = ["no name"] * MAX_NAMED
    assert candidates(OWN, [*wrong, "late.test"], ["next.test"]) == ["next.test"]


def test_the_server_in_a_room_id_is_that_of_old_rooms_alone() -> None:
    assert server_of_room("!abc:old.test:8448") == ["old.test:8448"]
    assert server_of_room("!" + "A" * 43) == []


def test_servers_that_nobody_named_are_asked_where_there_are_no_others() -> None:
    room_id = "!abc:old.test"
    assert candidates_for(OWN, room_id, named=[["a.test"], ["b.test"]], known=["c.test"]) == ["a.test", "b.test"]
    assert candidates_for(OWN, room_id, named=[[OWN], ["no server"]], known=["c.test"]) == ["c.test"]
    assert candidates_for(OWN, room_id, named=[[]], known=[]) == ["old.test"]
    assert candidates_for(OWN, "!" + "A" * 43, named=[], known=[OWN]) == []
    assert candidates_for(OWN, f"!abc:{OWN}", named=[], known=[]) == []


def test_servers_of_stripped_state_are_those_of_its_senders() -> None:
    assert servers_of_stripped([{"sender": "@a:one.test"}, {"sender": 3}, {}, {"sender": "nobody"}]) == ["one.test"]


def test_large_servers_first_and_those_who_may_invite_by_power() -> None:
    assert by_size({"small.test": 1, "big.test": 9, "also.test": 1}) == ["big.test", "also.test", "small.test"]
    levels = {"@a:one.test": 50, "@b:two.test": 100, "@c:three.test": 0, "nobody": 100}
    assert able_to_invite(levels, 50) == ["two.test", "one.test"]
