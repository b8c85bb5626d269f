"""Which servers an event is for, whatever comes and goes around it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from synapse.federation.sending.audience import Outgoing, RoomAudiences, audience_of, up_to_entry
from synapse.replication.event_rows import EventRow, Row, StateRow

OURS = "us.test"
ROOM = "!room:us.test"


def event(sender: str = "@a:us.test", event_id: str = "$e", relay: bool | None = None, room: str = ROOM) -> EventRow:
    return EventRow(
        room, event_id, 1, "m.room.message", None, sender, 0, (), 1, False, None, "{}", relay=relay
    )  # fmt: skip


def member(user_id: str, after: str | None, before: str | None, event_id: str = "$e", room: str = ROOM) -> StateRow:
    previous = None if before is None else "$before"
    return StateRow(room, "m.room.member", user_id, event_id if after else None, previous, after, before)


def told(rows: list[Row], counts: dict[str, int]) -> list[tuple[str, ...]]:
    """The servers that each event is for, where it is for any; every row at a position of its own event."""
    audiences = RoomAudiences(OURS)
    audiences.remember({ROOM: counts})
    return [each.audience.servers for each in audiences.take(positioned(rows))]


def positioned(rows: list[Row]) -> list[tuple[int, Row]]:
    found: list[tuple[int, Row]] = []
    position = 0
    for row in rows:
        position += isinstance(row, EventRow)
        found.append((position, row))
    return found


def test_an_event_is_for_the_servers_in_its_room_and_not_for_ourselves() -> None:
    assert told([event()], {OURS: 3, "b.test": 1, "c.test": 2}) == [("b.test", "c.test")]
    assert told([event()], {OURS: 3}) == []


def test_only_events_of_ours_are_sent_and_those_that_came_in_through_us() -> None:
    servers = {OURS: 1, "b.test": 1, "c.test": 1}
    assert told([event("@b:b.test")], servers) == []
    assert told([event("@b:b.test", relay=True)], servers) == [("b.test", "c.test")]
    assert told([event(relay=False)], servers) == []


def test_who_is_put_out_is_told_and_then_no_more() -> None:
    kick = [event(), member("@b:b.test", "leave", "join"), event(event_id="$2")]
    assert told(kick, {OURS: 1, "b.test": 1, "c.test": 1}) == [("b.test", "c.test"), ("c.test",)]
    assert told(kick, {OURS: 1, "b.test": 2}) == [("b.test",), ("b.test",)]


def test_who_comes_is_told_from_then_on() -> None:
    join = [event(), event("@b:b.test", "$j"), member("@b:b.test", "join", None, "$j"), event()]
    assert told(join, {OURS: 1}) == [("b.test",)]


def test_a_join_that_came_in_through_us_is_for_the_others_but_the_newcomer() -> None:
    """Whose server has it as our answer, and does not know the room before."""
    brought = replace(event("@b:b.test", "$j", relay=True), state_key="@b:b.test")
    assert told([brought, member("@b:b.test", "join", None, "$j")], {OURS: 1, "c.test": 1}) == [("c.test",)]
    for_another = replace(brought, state_key="@a:us.test")
    assert told([for_another], {OURS: 1, "b.test": 1}) == [("b.test",)], "an invite that we made in their name"


def test_whose_invite_or_knock_is_turned_down_is_told_though_never_in_the_room() -> None:
    for before, after in (("invite", "leave"), ("knock", "leave"), ("invite", "ban")):
        assert told([event(), member("@b:b.test", after, before)], {OURS: 1}) == [("b.test",)]
    assert told([event(), member("@b:b.test", "ban", None)], {OURS: 1}) == []
    assert told([event(), member("@b:b.test", "invite", None)], {OURS: 1}) == []


def test_a_change_of_another_event_counts_as_well() -> None:
    """What a state resolution brings, at the position of an event that clients never see."""
    audiences = RoomAudiences(OURS)
    audiences.remember({ROOM: {OURS: 1, "b.test": 1}})
    assert audiences.take([(5, member("@b:b.test", None, "join"))]) == []
    assert audiences.take([(6, event())]) == []


def test_equal_audiences_are_one() -> None:
    audiences = RoomAudiences(OURS)
    audiences.remember({ROOM: {OURS: 1, "b.test": 1}, "!other": {"b.test": 4}})
    first, second, other = audiences.take([(1, event()), (2, event()), (3, event(room="!other"))])
    assert first == Outgoing(1, ROOM, "$e", audience_of(["b.test"]))
    assert first.audience is second.audience
    assert other.audience == first.audience


def test_rooms_are_named_that_must_be_looked_up_and_the_longest_unused_forgotten() -> None:
    audiences = RoomAudiences(OURS, max_entries=3)
    rows: list[tuple[int, Row]] = [(1, event(room="!a")), (2, event("@b:b.test", room="!b")), (3, event(room="!c"))]
    assert audiences.unknown(rows) == {"!a", "!c"}
    audiences.remember({"!a": {OURS: 1, "b.test": 1}, "!c": {OURS: 1, "c.test": 1}})
    assert audiences.unknown(rows) == set()
    assert len(audiences.take(rows)) == 2
    assert audiences.unknown(rows) == {"!a"}


MEMBERSHIPS = st.sampled_from(["join", "leave", "ban", "invite", None])
USERS = st.sampled_from(["@1:b.test", "@2:b.test", "@1:c.test", "@1:us.test", "@2:us.test"])


@given(st.lists(st.tuples(USERS, MEMBERSHIPS), max_size=30))
def test_counting_along_the_stream_comes_to_what_counting_anew_does(steps: list[tuple[str, str | None]]) -> None:
    now: dict[str, str | None] = {}
    audiences = RoomAudiences(OURS)
    audiences.remember({ROOM: {}})

    def present() -> set[str]:
        return {user.partition(":")[2] for user, membership in now.items() if membership == "join"} - {OURS}

    for number, (user_id, membership) in enumerate(steps):
        before, was = present(), now.get(user_id)
        now[user_id] = membership
        rows: list[tuple[int, Row]] = [(number, event()), (number, member(user_id, membership, was))]
        told = {server for each in audiences.take(rows) for server in each.audience.servers}
        turned_away = was == "invite" and membership in ("leave", "ban")
        expected = before | present() | ({user_id.partition(":")[2]} if turned_away else set())
        assert told == expected - {OURS}


def test_a_room_that_this_server_enters_is_unknown_again() -> None:
    create = StateRow(ROOM, "m.room.create", "", "$create", "$create")
    joined = event(event_id="$join", relay=False)
    rows = positioned([event(), joined, create, member("@a:us.test", "join", "leave"), event(event_id="$after")])
    audiences = RoomAudiences(OURS)
    audiences.remember({ROOM: {OURS: 1, "b.test": 1}})
    assert up_to_entry(rows) == 4
    assert [each.audience.servers for each in audiences.take(rows[:4])] == [("b.test",)]
    assert audiences.unknown(rows[4:]) == {ROOM}
    assert up_to_entry(rows[4:]) == 1
