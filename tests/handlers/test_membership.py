"""Memberships: every transition by every way, restricted rooms, guests, forgetting, and profiles in rooms."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.api.errors import MatrixError
from synapse.handlers.guest_access import GuestDismissal
from synapse.http.request import Requester
from synapse.replication.event_rows import StateRow
from synapse.storage.account_data import AccountDataStore, AccountDatum
from synapse.storage.database import Database, Transaction
from synapse.storage.users import NewUser, UserStore
from tests.support.deferreds import started
from tests.support.rooms import ALICE, BOB, CAROL, DAVE, Rate, RoomProcess, check_invariants, start

# How Bob gets where he stands before something happens, Alice being the room's creator and Carol an ordinary member.
TO: dict[str | None, list[tuple[Requester, str]]] = {
    None: [],
    "invite": [(ALICE, "invite")],
    "knock": [(BOB, "knock")],
    "join": [(ALICE, "invite"), (BOB, "join")],
    "leave": [(ALICE, "invite"), (BOB, "join"), (BOB, "leave")],
    "ban": [(ALICE, "ban")],
}

# Where Bob stands, who does what, and where he stands then (or the errcode). The room is invite-only and may be
# knocked at.
TABLE = [
    (None, BOB, "join", "M_FORBIDDEN"),
    (None, BOB, "leave", "M_FORBIDDEN"),
    (None, BOB, "knock", "knock"),
    (None, ALICE, "invite", "invite"),
    (None, CAROL, "invite", "invite"),
    (None, DAVE, "invite", "M_FORBIDDEN"),
    (None, ALICE, "kick", "M_FORBIDDEN"),
    (None, ALICE, "ban", "ban"),
    (None, CAROL, "ban", "M_FORBIDDEN"),
    (None, ALICE, "unban", "M_FORBIDDEN"),
    ("invite", BOB, "join", "join"),
    ("invite", BOB, "leave", "leave"),
    ("invite", BOB, "knock", "M_FORBIDDEN"),
    ("invite", ALICE, "invite", "invite"),
    ("invite", ALICE, "kick", "leave"),
    ("invite", CAROL, "kick", "M_FORBIDDEN"),
    ("invite", ALICE, "ban", "ban"),
    ("invite", ALICE, "unban", "M_FORBIDDEN"),
    ("knock", BOB, "join", "M_FORBIDDEN"),
    ("knock", BOB, "leave", "leave"),
    ("knock", BOB, "knock", "knock"),
    ("knock", ALICE, "invite", "invite"),
    ("knock", ALICE, "kick", "leave"),
    ("knock", ALICE, "ban", "ban"),
    ("join", BOB, "join", "join"),
    ("join", BOB, "leave", "leave"),
    ("join", BOB, "knock", "M_FORBIDDEN"),
    ("join", ALICE, "invite", "M_FORBIDDEN"),
    ("join", ALICE, "kick", "leave"),
    ("join", CAROL, "kick", "M_FORBIDDEN"),
    ("join", DAVE, "kick", "M_FORBIDDEN"),
    ("join", ALICE, "ban", "ban"),
    ("join", ALICE, "unban", "M_FORBIDDEN"),
    ("leave", BOB, "join", "M_FORBIDDEN"),
    ("leave", BOB, "leave", "leave"),
    ("leave", BOB, "knock", "knock"),
    ("leave", ALICE, "invite", "invite"),
    ("leave", ALICE, "kick", "M_FORBIDDEN"),
    ("leave", ALICE, "ban", "ban"),
    ("leave", ALICE, "unban", "M_FORBIDDEN"),
    ("ban", BOB, "join", "M_FORBIDDEN"),
    ("ban", BOB, "leave", "M_FORBIDDEN"),
    ("ban", BOB, "knock", "M_FORBIDDEN"),
    ("ban", ALICE, "invite", "M_FORBIDDEN"),
    ("ban", ALICE, "kick", "M_FORBIDDEN"),
    ("ban", ALICE, "ban", "ban"),
    ("ban", ALICE, "unban", "leave"),
    ("ban", CAROL, "unban", "M_FORBIDDEN"),
]


async def do(process: RoomProcess, who: Requester, action: str, room_id: str) -> None:
    if action in ("join", "knock", "leave"):
        await getattr(process.memberships, action)(who, room_id, {})
    else:
        await getattr(process.memberships, action)(who, room_id, {"user_id": BOB.user_id})


@pytest.mark.parametrize("through_worker", [False, True])
@pytest_twisted.ensureDeferred
async def test_every_transition(database: Database, through_worker: bool) -> None:
    cluster = await start(database, workers=1)
    process = cluster.workers[0] if through_worker else cluster.main
    for before, who, action, expected in TABLE:
        room_id = await cluster.main.room(
            preset="private_chat", invite=[CAROL.user_id], initial_state=_join_rule("knock")
        )
        await cluster.main.memberships.join(CAROL, room_id)
        for step_by, step in TO[before]:
            await do(process, step_by, step, room_id)
        case = f"{before}: {who.user_id} does {action}"
        try:
            await do(process, who, action, room_id)
            result = await process.memberships.membership(room_id, BOB.user_id)
        except MatrixError as error:
            result = error.errcode
        assert result == expected, case
    await check_invariants(cluster, database)


# The same by m.room.member as state: one's own membership leads to the same places, others' are changed by the room's
# rules alone, where leaving is what kicking and unbanning come to.
AS_STATE = [
    *((before, who, action, expected) for before, who, action, expected in TABLE if who is BOB),
    *((before, who, action, expected) for before, who, action, expected in TABLE if action in ("invite", "ban")),
    *((before, ALICE, "leave", "leave") for before in TO),
    *((before, CAROL, "leave", "M_FORBIDDEN") for before in TO),
    *((before, ALICE, membership, "M_FORBIDDEN") for before in TO for membership in ("join", "knock")),
]


@pytest_twisted.ensureDeferred
async def test_every_transition_as_state(database: Database) -> None:
    cluster = await start(database)
    process = cluster.main
    process.limits._setting = {}.get  # what counts is tried elsewhere
    for before, who, membership, expected in AS_STATE:
        room_id = await process.room(preset="private_chat", invite=[CAROL.user_id], initial_state=_join_rule("knock"))
        await process.memberships.join(CAROL, room_id)
        for step_by, step in TO[before]:
            await do(process, step_by, step, room_id)
        case = f"{before}: {who.user_id} sets {membership}"
        try:
            await process.memberships.put_state(who, room_id, BOB.user_id, {"membership": membership})
            result = await process.memberships.membership(room_id, BOB.user_id)
        except MatrixError as error:
            result = error.errcode
        assert result == expected, case
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_joining_twice_is_joining_once(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room(joined=[BOB])
    announced = len(cluster.announced)
    assert await cluster.main.memberships.join(BOB, room_id) == room_id
    assert len(cluster.announced) == announced


@pytest_twisted.ensureDeferred
async def test_leaving_here_and_joining_there_while_rows_are_late(database: Database) -> None:
    cluster = await start(database, workers=2)
    one, two = cluster.workers
    room_id = await cluster.main.room(joined=[BOB])
    await two.say(BOB, room_id)
    two.lagging = True
    await one.memberships.leave(BOB, room_id)
    await two.memberships.membership(room_id, BOB.user_id)
    joined = two.memberships.join(BOB, room_id)
    waiting = started(joined)
    await cluster.main.say(ALICE, room_id)
    two.lagging = False
    two.catch_up()
    await waiting
    assert await cluster.main.memberships.membership(room_id, BOB.user_id) == "join"


@pytest_twisted.ensureDeferred
async def test_joining_by_alias_and_what_cannot_be_joined(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room(room_alias_name="here")
    assert await process.memberships.join(BOB, "#here:test") == room_id
    for name, errcode in [
        ("#there:test", "M_NOT_FOUND"),
        ("#here:elsewhere.example", "M_NOT_FOUND"),
        ("!nowhere:test", "M_NOT_FOUND"),
        ("!" + "a" * 43, "M_NOT_FOUND"),
        ("nonsense", "M_INVALID_PARAM"),
        ("#non sense", "M_INVALID_PARAM"),
    ]:
        assert await errcode_of(process.memberships.join(BOB, name)) == errcode, name


@pytest_twisted.ensureDeferred
async def test_a_restricted_room_lets_in_the_members_of_another(database: Database) -> None:
    for version in ("8", "10", "12"):
        process = (await start(database)).main
        club = await process.room(joined=[BOB])
        allow = [{"type": "m.room_membership", "room_id": club}]
        rule = {"join_rule": "restricted", "allow": allow}
        room_id = await process.room(room_version=version, initial_state=_join_rule(**rule))
        await process.memberships.join(BOB, room_id)
        member = await process.state.current(room_id, [("m.room.member", BOB.user_id)])
        content = member["m.room.member", BOB.user_id].event.content
        assert content["join_authorised_via_users_server"] == ALICE.user_id
        assert await errcode_of(process.memberships.join(CAROL, room_id)) == "M_FORBIDDEN"
        await process.memberships.invite(ALICE, room_id, {"user_id": CAROL.user_id})
        await process.memberships.join(CAROL, room_id)


@pytest_twisted.ensureDeferred
async def test_a_restricted_room_whose_conditions_are_not_met(database: Database) -> None:
    process = (await start(database)).main
    club = await process.room(joined=[BOB, CAROL, DAVE])
    await process.memberships.ban(ALICE, club, {"user_id": BOB.user_id})
    await process.memberships.leave(CAROL, club)

    async def restricted(*room_ids: str, version: str = "12", rule: str = "restricted") -> str:
        allow = [{"type": "m.room_membership", "room_id": room_id} for room_id in room_ids]
        return await process.room(room_version=version, initial_state=_join_rule(rule, allow=allow))

    here, elsewhere, both, nowhere = (
        await restricted(club),
        await restricted("!far:elsewhere.example"),
        await restricted("!far:elsewhere.example", club),
        await restricted(),
    )
    for room_id, errcode in [
        (here, "M_FORBIDDEN"),
        (both, "M_FORBIDDEN"),
        (nowhere, "M_FORBIDDEN"),
        (elsewhere, "M_UNABLE_TO_AUTHORISE_JOIN"),
    ]:
        assert await errcode_of(process.memberships.join(BOB, room_id)) == errcode
        assert await errcode_of(process.memberships.join(CAROL, room_id)) == errcode
    await process.memberships.join(DAVE, both)
    # Whoever may neither join nor is invited may knock where that is the other half of the rule.
    knockable = await restricted(club, version="10", rule="knock_restricted")
    assert await errcode_of(process.memberships.join(CAROL, knockable)) == "M_FORBIDDEN"
    await process.memberships.knock(CAROL, knockable, {"reason": "please"})
    assert await _member(process, knockable, CAROL) == {"membership": "knock", "reason": "please"}
    await process.memberships.join(DAVE, knockable)
    # The rule means nothing in rooms of versions that do not have it, and an unknown type of condition never holds.
    assert await errcode_of(process.memberships.knock(CAROL, await restricted(club, version="9"))) == "M_FORBIDDEN"
    for conditions in ([{"type": "m.odd", "room_id": club}, {"room_id": club}, 5], club, {"room_id": club}):
        odd = _join_rule("restricted", allow=conditions)
        assert await errcode_of(process.memberships.join(DAVE, await process.room(initial_state=odd))) == "M_FORBIDDEN"


@pytest_twisted.ensureDeferred
async def test_nobody_invites_who_wants_no_invitations(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room()
    await _set_profile(database, BOB, "Bob", None)
    await _set_account_data(database, BOB, "m.invite_permission_config", '{"default_action": "block"}')
    invite = {"membership": "invite"}
    assert await errcode_of(process.memberships.invite(ALICE, room_id, {"user_id": BOB.user_id})) == "M_INVITE_BLOCKED"
    assert await errcode_of(process.memberships.put_state(ALICE, room_id, BOB.user_id, invite)) == "M_INVITE_BLOCKED"
    assert await errcode_of(process.room(invite=[CAROL.user_id, BOB.user_id])) == "M_INVITE_BLOCKED"
    assert await process.memberships.joined_rooms(ALICE.user_id) == [room_id], "no room is left half made"
    await process.memberships.join(BOB, room_id)
    await process.memberships.leave(BOB, room_id)
    for content in ("{}", '{"default_action": ["block"]}', '{"default_action": "allow"}'):
        await _set_account_data(database, BOB, "m.invite_permission_config", content)
        await process.memberships.invite(ALICE, room_id, {"user_id": BOB.user_id})
        await process.memberships.leave(BOB, room_id)


@pytest_twisted.ensureDeferred
async def test_a_join_may_bring_content_of_its_own(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room()
    await _set_profile(database, BOB, "Bob", "mxc://test/bob")
    body = {"foo": "bar", "membership": "ban", "third_party_invite": {}, "join_authorised_via_users_server": "@a:b"}
    await process.memberships.join(BOB, room_id, {**body, "reason": "curious"})
    expected = {"foo": "bar", "membership": "join", "reason": "curious"}
    assert await _member(process, room_id, BOB) == {**expected, "displayname": "Bob", "avatar_url": "mxc://test/bob"}
    assert await errcode_of(process.memberships.join(CAROL, room_id, {"foo": 0.5})) == "M_BAD_JSON"
    assert await process.memberships.membership(room_id, CAROL.user_id) is None


@pytest_twisted.ensureDeferred
async def test_nobody_can_vouch_who_may_not_invite(database: Database) -> None:
    process = (await start(database)).main
    club = await process.room(joined=[BOB, CAROL])
    rule = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": club}, "nonsense"]}
    room_id = await process.room(room_version="11", initial_state=_join_rule(**rule))
    await process.memberships.join(BOB, room_id)
    levels = ("m.room.power_levels", "")
    content = dict((await process.state.current(room_id, [levels]))[levels].event.content)
    await process.set(ALICE, room_id, levels[0], {**content, "invite": 100})
    await process.memberships.leave(ALICE, room_id)
    assert await errcode_of(process.memberships.join(CAROL, room_id)) == "M_UNABLE_TO_GRANT_JOIN"


@pytest_twisted.ensureDeferred
async def test_guests_enter_where_they_are_let_in(database: Database) -> None:
    process = (await start(database)).main
    guest = Requester("@1:test", "D", is_guest=True)
    closed = await process.room()
    assert await errcode_of(process.memberships.join(guest, closed)) == "M_GUEST_ACCESS_FORBIDDEN"
    access = [{"type": "m.room.guest_access", "state_key": "", "content": {"guest_access": "can_join"}}]
    open_room = await process.room(initial_state=_states(access))
    await process.memberships.join(guest, open_room)


@pytest_twisted.ensureDeferred
async def test_guests_leave_where_they_are_not_let_in_any_more(database: Database) -> None:
    process = (await start(database)).main
    guest, users = Requester("@1:test", "D", is_guest=True), UserStore(database)
    await users.create(NewUser(guest.user_id, None, 0, None, is_guest=True))
    dismissal = GuestDismissal(process.state, process.members, users, process.memberships)
    room_id = await process.room(joined=[BOB])
    await process.set(ALICE, room_id, "m.room.guest_access", {"guest_access": "can_join"})
    await process.memberships.join(guest, room_id)
    await dismissal.enforce(room_id)
    assert await process.memberships.membership(room_id, guest.user_id) == "join"
    await process.set(ALICE, room_id, "m.room.guest_access", {"guest_access": "forbidden"})
    await dismissal.enforce(room_id)
    assert await process.memberships.membership(room_id, guest.user_id) == "leave"
    assert await process.memberships.membership(room_id, BOB.user_id) == "join"


def test_a_change_of_guest_access_is_noticed() -> None:
    seen: list[str] = []

    class Recording(GuestDismissal):
        async def enforce(self, room_id: str, redacted: str | None = None) -> None:
            seen.append(room_id)

    nothing: Any = None
    rows = [
        StateRow("!a:test", "m.room.guest_access", "", "$1", None),
        StateRow("!b:test", "m.room.name", "", "$2", None),
    ]
    Recording(nothing, nothing, nothing, nothing).learn(rows)
    assert seen == ["!a:test"]


@pytest_twisted.ensureDeferred
async def test_forgetting(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room(joined=[BOB])
    assert await errcode_of(process.memberships.forget(BOB, room_id)) == "M_UNKNOWN"
    assert await errcode_of(process.memberships.forget(CAROL, room_id)) == "M_NOT_FOUND"
    await process.memberships.leave(BOB, room_id)
    await process.memberships.forget(BOB, room_id)
    assert await _forgotten(database, BOB, room_id)
    await process.memberships.ban(ALICE, room_id, {"user_id": BOB.user_id})
    assert await _forgotten(database, BOB, room_id)
    await process.memberships.unban(ALICE, room_id, {"user_id": BOB.user_id})
    await process.memberships.join(BOB, room_id)
    assert not await _forgotten(database, BOB, room_id)
    await process.memberships.leave(BOB, room_id)
    await process.memberships.forget(BOB, room_id)
    await process.memberships.forget(BOB, room_id)
    await process.memberships.invite(ALICE, room_id, {"user_id": BOB.user_id})
    assert not await _forgotten(database, BOB, room_id)
    assert await errcode_of(process.memberships.forget(BOB, room_id)) == "M_UNKNOWN"


@pytest_twisted.ensureDeferred
async def test_profiles_show_in_rooms_and_change_there(database: Database) -> None:
    process = (await start(database)).main
    await _set_profile(database, BOB, "Bob", "mxc://test/bob")
    rooms = [await process.room(joined=[BOB]) for _ in range(2)]
    left = await process.room(joined=[BOB])
    await process.memberships.leave(BOB, left)
    member = await _member(process, rooms[0], BOB)
    assert (member["displayname"], member["avatar_url"]) == ("Bob", "mxc://test/bob")

    await _set_profile(database, BOB, "Robert", None)
    await process.profiles.update(BOB.user_id)
    for room_id in rooms:
        member = await _member(process, room_id, BOB)
        assert member == {"membership": "join", "displayname": "Robert"}
    assert (await _member(process, left, BOB))["membership"] == "leave"
    names = (await process.members.get(rooms[0])).local
    assert names[BOB.user_id] == "Robert"


@pytest_twisted.ensureDeferred
async def test_reasons_and_bodies_are_checked(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room(joined=[BOB])
    await process.memberships.kick(ALICE, room_id, {"user_id": BOB.user_id, "reason": "spam"})
    assert (await _member(process, room_id, BOB))["reason"] == "spam"
    for body, errcode in [
        ({}, "M_MISSING_PARAM"),
        ({"user_id": 5}, "M_BAD_JSON"),
        ({"user_id": "bob"}, "M_INVALID_PARAM"),
        ({"user_id": BOB.user_id, "reason": 5}, "M_BAD_JSON"),
        ({"user_id": "@someone:elsewhere.example"}, "M_CONNECTION_FAILED"),
    ]:
        assert await errcode_of(process.memberships.invite(ALICE, room_id, body)) == errcode, body


@pytest_twisted.ensureDeferred
async def test_a_membership_may_be_put_as_state(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room()
    put = process.memberships.put_state
    await put(BOB, room_id, BOB.user_id, {"membership": "join", "displayname": "B"})
    assert await _member(process, room_id, BOB) == {"membership": "join", "displayname": "B"}
    again = await put(BOB, room_id, BOB.user_id, {"membership": "join", "displayname": "B"})
    assert again == (await process.state.current_ids(room_id))["m.room.member", BOB.user_id]
    assert await errcode_of(put(BOB, room_id, CAROL.user_id, {"membership": "join"})) == "M_FORBIDDEN"
    assert await errcode_of(put(BOB, room_id, BOB.user_id, {"membership": "maybe"})) == "M_BAD_JSON"
    assert await errcode_of(put(BOB, room_id, "bob", {"membership": "join"})) == "M_INVALID_PARAM"
    await _set_profile(database, BOB, "Bob", "mxc://test/bob")
    await put(BOB, room_id, BOB.user_id, {"membership": "join", "displayname": "B"})
    assert (await _member(process, room_id, BOB))["avatar_url"] == "mxc://test/bob", "what is not said is as elsewhere"
    wrong = {"membership": "join", "displayname": 5}
    assert await errcode_of(put(BOB, room_id, BOB.user_id, wrong)) == "M_BAD_JSON"


@pytest_twisted.ensureDeferred
async def test_memberships_that_are_put_as_state_count_like_others(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room()
    limits = {"rc_invites.per_issuer": Rate(0.001, 2), "rc_joins.local": Rate(0.001, 1)}
    process.limits._setting = limits.get
    put = process.memberships.put_state
    for user in (BOB, CAROL):
        await put(ALICE, room_id, user.user_id, {"membership": "invite"})
    assert await errcode_of(put(ALICE, room_id, DAVE.user_id, {"membership": "invite"})) == "M_LIMIT_EXCEEDED"
    await put(BOB, room_id, BOB.user_id, {"membership": "join"})
    for name in ("B", "Bo"):
        await put(BOB, room_id, BOB.user_id, {"membership": "join", "displayname": name})  # is in the room already
    await put(BOB, room_id, BOB.user_id, {"membership": "leave"})
    assert await errcode_of(put(BOB, room_id, BOB.user_id, {"membership": "join"})) == "M_LIMIT_EXCEEDED"


@pytest_twisted.ensureDeferred
async def test_joins_for_which_other_servers_are_asked_count_as_such(database: Database) -> None:
    process = (await start(database)).main
    far = _join_rule("restricted", allow=[{"type": "m.room_membership", "room_id": "!far:elsewhere.example"}])
    room_id = await process.room(initial_state=far)
    process.limits._setting = {"rc_joins.remote": Rate(0.001, 1)}.get
    for errcode in ("M_UNABLE_TO_AUTHORISE_JOIN", "M_LIMIT_EXCEEDED"):
        assert await errcode_of(process.memberships.join(BOB, room_id)) == errcode


@pytest_twisted.ensureDeferred
async def test_invitations_count_by_room_and_by_who_is_invited(database: Database) -> None:
    process = (await start(database)).main
    process.limits._setting = {"rc_invites.per_room": Rate(0.001, 2), "rc_invites.per_user": Rate(0.001, 3)}.get
    rooms = [await process.room() for _ in range(3)]

    async def invite(room_id: str, user: Requester) -> str:
        return await errcode_of(process.memberships.invite(ALICE, room_id, {"user_id": user.user_id}))

    await process.memberships.join(DAVE, rooms[0])
    assert await invite(rooms[0], DAVE) == "M_FORBIDDEN"  # which counts for nothing
    allowed = [(rooms[0], BOB), (rooms[0], CAROL), (rooms[1], BOB), (rooms[2], BOB)]
    assert [await invite(*who) for who in allowed] == ["nothing was refused"] * 4
    assert await invite(rooms[0], DAVE) == "M_LIMIT_EXCEEDED"
    assert await invite(rooms[1], BOB) == "M_LIMIT_EXCEEDED"
    assert await errcode_of(process.room(invite=[BOB.user_id])) == "M_LIMIT_EXCEEDED"
    assert await process.memberships.joined_rooms(ALICE.user_id) == rooms


@pytest_twisted.ensureDeferred
async def test_joined_rooms(database: Database) -> None:
    process = (await start(database)).main
    rooms = [await process.room(joined=[BOB]) for _ in range(3)]
    await process.memberships.leave(BOB, rooms[1])
    assert await process.memberships.joined_rooms(BOB.user_id) == [rooms[0], rooms[2]]


# ------------------------------------------------------------------------------------------------------------------


def _states(states: list[dict[str, Any]]) -> list[Any]:
    import msgspec

    from synapse.handlers.room_plan import InitialState

    return msgspec.convert(states, list[InitialState])


def _join_rule(join_rule: str, **more: Any) -> list[Any]:
    return _states([{"type": "m.room.join_rules", "content": {"join_rule": join_rule, **more}}])


async def errcode_of(doing: Any) -> str:
    try:
        await doing
    except MatrixError as error:
        return error.errcode
    return "nothing was refused"


async def _member(process: RoomProcess, room_id: str, user: Requester) -> dict[str, Any]:
    key = ("m.room.member", user.user_id)
    return (await process.state.current(room_id, [key]))[key].event.content


async def _forgotten(db: Database, user: Requester, room_id: str) -> bool:
    def read(txn: Transaction) -> bool:
        txn.execute(
            "SELECT forgotten FROM local_memberships WHERE user_id = %s AND room_id = %s", (user.user_id, room_id)
        )
        forgotten: bool = txn.one()[0]
        return forgotten

    return await db.read("forgotten", read)


async def _set_profile(db: Database, user: Requester, name: str | None, picture: str | None) -> None:
    def write(txn: Transaction) -> None:
        txn.execute("INSERT INTO users (user_id, created_ts) VALUES (%s, 0) ON CONFLICT DO NOTHING", (user.user_id,))
        txn.execute("DELETE FROM profiles WHERE user_id = %s", (user.user_id,))
        txn.execute(
            "INSERT INTO profiles (user_id, display_name, avatar_url) VALUES (%s, %s, %s)",
            (user.user_id, name, picture),
        )

    await db.write("profile", write)


async def _set_account_data(db: Database, user: Requester, data_type: str, content: str) -> None:
    await AccountDataStore(db).put(user.user_id, AccountDatum("", data_type, content), 1)
