"""Sending events: from the wish of a user to rows in the database, with one process and with several."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from synapse.api.errors import MatrixError
from synapse.handlers import event_creation
from synapse.http.request import Requester
from synapse.storage.database import Database, Transaction
from tests.support.deferreds import started
from tests.support.rooms import ALICE, BOB, CAROL, RoomProcess, check_invariants, start


@pytest_twisted.ensureDeferred
async def test_a_room_is_made_joined_and_written_to(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room(name="A room", joined=[BOB])
    event_id = await process.say(BOB, room_id, "hello")
    stored = await process.events.get(event_id)
    assert stored is not None
    assert stored.event.content["body"] == "hello"
    assert stored.event.room_id == room_id


@pytest.mark.parametrize("version", [str(number) for number in range(1, 13)])
@pytest_twisted.ensureDeferred
async def test_every_room_version(database: Database, version: str) -> None:
    cluster = await start(database)
    process = cluster.main
    room_id = await process.room(room_version=version, name="A room", joined=[BOB])
    event_id = await process.say(BOB, room_id)
    await process.redactions.redact(ALICE, room_id, event_id, {"reason": "no"}, "t")
    await process.set(ALICE, room_id, "m.room.topic", {"topic": "here"})
    stored = await process.events.get(event_id)
    assert stored is not None
    assert stored.redacted_by is not None
    assert stored.shown.content == {}
    await check_invariants(cluster, database)
    # The same, as another process reads it.
    process = (await start(database)).main
    stored = await process.events.get(event_id)
    assert stored is not None
    assert (stored.event.event_id, stored.shown.content) == (event_id, {})
    await process.say(BOB, room_id)


# -- transaction ids -----------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_transaction_id_is_good_for_one_event(database: Database) -> None:
    cluster = await start(database, workers=2)
    one, two = cluster.workers
    room_id = await cluster.main.room(joined=[BOB])
    first = await one.say(ALICE, room_id, "a", txn_id="t")
    assert await one.say(ALICE, room_id, "b", txn_id="t") == first
    assert await two.say(ALICE, room_id, "c", txn_id="t") == first
    again = await start(database, workers=1)
    assert await again.workers[0].say(ALICE, room_id, "d", txn_id="t") == first

    others = [await one.say(BOB, room_id, txn_id="t"), await one.say(ALICE, await one.room(), txn_id="t")]
    other_device = type(ALICE)(ALICE.user_id, "OTHER")
    others.append(await one.say(other_device, room_id, txn_id="t"))
    assert len({first, *others}) == 4


@pytest_twisted.ensureDeferred
async def test_a_transaction_id_of_a_message_is_none_of_a_redaction(database: Database) -> None:
    """Another endpoint, another device and another user are other scopes."""
    process = (await start(database)).main
    room_id = await process.room(joined=[BOB])
    said = await process.say(ALICE, room_id, txn_id="t")
    redacted = await process.redactions.redact(ALICE, room_id, said, {}, "t")
    assert redacted.event_id != said
    assert await process.redactions.redact(ALICE, room_id, said, {}, "t") == redacted
    phone = Requester(ALICE.user_id, "PHONE")
    others = [await process.say(who, room_id, txn_id="t") for who in (phone, BOB, Requester(BOB.user_id))]
    assert len({said, redacted.event_id, *others}) == 5
    sent = await process.redactions.send(ALICE, room_id, {"redacts": others[0]}, "u")
    assert await process.say(ALICE, room_id, txn_id="u") == sent.event_id, "sent by the same endpoint"


@pytest_twisted.ensureDeferred
async def test_application_services_alone_say_when_an_event_was_sent(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room()
    bridge = Requester(ALICE.user_id, app_service="bridge")
    times = []
    for requester in (bridge, ALICE):
        sent = await process.creation.create(requester, room_id, "m.room.message", {"body": "x"}, ts=1_500_000_000_000)
        stored = await process.events.get(sent.event_id)
        assert stored is not None
        times.append(stored.event.origin_server_ts)
    assert times[0] == 1_500_000_000_000
    assert times[1] > 1_600_000_000_000


@pytest_twisted.ensureDeferred
async def test_the_same_request_many_times_at_once(database: Database) -> None:
    cluster = await start(database, workers=2)
    room_id = await cluster.main.room()
    processes = [cluster.main, *cluster.workers] * 4
    sent = await gatherResults([started(process.say(ALICE, room_id, txn_id="t")) for process in processes])
    assert len(set(sent)) == 1
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_a_repeated_request_is_answered_even_if_it_would_be_refused_now(database: Database) -> None:
    cluster = await start(database, workers=1)
    room_id = await cluster.main.room(joined=[BOB])
    first = await cluster.main.say(BOB, room_id, txn_id="t")
    await cluster.main.memberships.kick(ALICE, room_id, {"user_id": BOB.user_id})
    assert await cluster.workers[0].say(BOB, room_id, txn_id="t") == first
    assert await _errcode(cluster.workers[0].say(BOB, room_id, txn_id="u")) == "M_FORBIDDEN"


# -- processes that lag --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [1, event_creation.ATTEMPTS])
@pytest_twisted.ensureDeferred
async def test_nobody_is_refused_by_a_process_that_has_not_heard_yet(
    database: Database, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    """Not at the last attempt either."""
    monkeypatch.setattr(event_creation, "ATTEMPTS", attempts)
    cluster = await start(database, workers=1)
    worker = cluster.workers[0]
    room_id = await cluster.main.room()
    await worker.say(ALICE, room_id)
    assert await _errcode(worker.say(BOB, room_id)) == "M_FORBIDDEN"
    worker.lagging = True
    await cluster.main.memberships.join(BOB, room_id)
    waiting = started(worker.say(BOB, room_id))
    await cluster.main.say(ALICE, room_id)
    worker.lagging = False
    worker.catch_up()
    await waiting
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_nobody_gets_by_with_a_process_that_has_not_heard_yet(database: Database) -> None:
    cluster = await start(database, workers=1)
    worker = cluster.workers[0]
    room_id = await cluster.main.room(joined=[BOB])
    await worker.say(BOB, room_id)
    worker.lagging = True
    await cluster.main.memberships.ban(ALICE, room_id, {"user_id": BOB.user_id})
    waiting = started(_errcode(worker.say(BOB, room_id)))
    await cluster.main.say(ALICE, room_id)
    worker.lagging = False
    worker.catch_up()
    assert await waiting == "M_FORBIDDEN"


@pytest_twisted.ensureDeferred
async def test_state_is_built_anew_on_what_came_before(database: Database) -> None:
    """A process that lags would set a topic beside another one; instead it sets it after."""
    cluster = await start(database, workers=1)
    worker = cluster.workers[0]
    room_id = await cluster.main.room()
    await worker.set(ALICE, room_id, "m.room.topic", {"topic": "zero"})
    worker.lagging = True
    first = await cluster.main.set(ALICE, room_id, "m.room.topic", {"topic": "one"})
    waiting = started(worker.set(ALICE, room_id, "m.room.topic", {"topic": "two"}))
    await cluster.main.say(ALICE, room_id)
    worker.lagging = False
    worker.catch_up()
    second = await cluster.main.events.get(await waiting)
    assert second is not None
    assert second.event.depth > (await cluster.main.events.get(first)).event.depth  # type: ignore[union-attr]  # it exists
    assert (await _state(cluster.main, room_id, "m.room.topic"))["topic"] == "two"
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_a_writer_sees_its_own_write(database: Database) -> None:
    cluster = await start(database, workers=1)
    worker = cluster.workers[0]
    room_id = await worker.room()
    worker.lagging = True
    sending = started(worker.say(ALICE, room_id))
    await cluster.main.say(ALICE, room_id)
    assert not sending.called
    worker.lagging = False
    worker.catch_up()
    await sending


@pytest_twisted.ensureDeferred
async def test_an_event_comes_after_what_allows_it(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that lags reads of the database that somebody is in the room, and would build on what was before."""
    monkeypatch.setattr(event_creation, "ATTEMPTS", 1)
    room_id = await (await start(database)).main.room()
    cluster = await start(database, workers=1)
    worker = cluster.workers[0]
    await worker.say(ALICE, room_id)  # of Bob, nothing is remembered
    worker.lagging = True
    await cluster.main.memberships.join(BOB, room_id)
    waiting = started(worker.say(BOB, room_id))
    await cluster.main.say(ALICE, room_id)
    worker.lagging = False
    worker.catch_up()
    before = await cluster.main.state.before_event(await waiting)
    assert before["m.room.member", BOB.user_id].event.membership == "join"


# -- state ---------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_state_that_is_so_already_stays(database: Database) -> None:
    cluster = await start(database, workers=2)
    one, two = cluster.workers
    room_id = await cluster.main.room(joined=[BOB])
    first = await one.set(ALICE, room_id, "m.room.topic", {"topic": "t"})
    assert await two.set(ALICE, room_id, "m.room.topic", {"topic": "t"}) == first
    assert await cluster.main.set(ALICE, room_id, "m.room.topic", {"topic": "t"}) == first
    second = await two.set(ALICE, room_id, "m.room.topic", {"topic": "t", "more": 1})
    assert second != first
    assert await one.set(ALICE, room_id, "m.room.topic", {"topic": "t", "more": True}) != second


@pytest_twisted.ensureDeferred
async def test_state_that_was_so_before_is_set_again_by_a_process_that_lags(database: Database) -> None:
    cluster = await start(database, workers=1)
    worker = cluster.workers[0]
    room_id = await cluster.main.room()
    first = await worker.set(ALICE, room_id, "m.room.topic", {"topic": "a"})
    worker.lagging = True
    await cluster.main.set(ALICE, room_id, "m.room.topic", {"topic": "b"})
    waiting = started(worker.set(ALICE, room_id, "m.room.topic", {"topic": "a"}))
    await cluster.main.say(ALICE, room_id)
    worker.lagging = False
    worker.catch_up()
    assert await waiting != first
    assert (await _state(cluster.main, room_id, "m.room.topic"))["topic"] == "a"


@pytest_twisted.ensureDeferred
async def test_state_at_an_event_is_what_it_was_then(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room()
    topics = [await process.set(ALICE, room_id, "m.room.topic", {"topic": str(n)}) for n in range(20)]
    for number, event_id in enumerate(topics):
        after = await process.state.at_event(event_id)
        assert after["m.room.topic", ""].event.content == {"topic": str(number)}
        before = await process.state.before_event(event_id)
        assert (before["m.room.topic", ""].event.content["topic"] if number else None) == (
            str(number - 1) if number else None
        )
        assert after.keys() - before.keys() == (set() if number else {("m.room.topic", "")})
    assert await process.state.at_event("$unknown") == {}


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_events_that_cannot_be_are_refused_with_a_reason(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room(joined=[BOB])

    async def refused(event_type: str, content: dict[str, Any], state_key: str | None = None) -> str:
        return await _errcode(process.creation.create(ALICE, room_id, event_type, content, state_key=state_key))

    assert await refused("m.room.message", {"body": "x" * 70_000}) == "M_TOO_LARGE"
    assert await refused("m.room.message", {"number": 1.5}) == "M_BAD_JSON"
    assert await refused("m.room.message", {"number": 2**60}) == "M_BAD_JSON"
    assert await refused("x" * 300, {}) == "M_TOO_LARGE"
    assert await refused("m.room.create", {"room_version": "11"}, "") == "M_BAD_STATE"
    assert await refused("m.room.power_levels", {"users": {ALICE.user_id: 100}}, "") == "M_INVALID_PARAM"
    assert await refused("m.room.history_visibility", {"history_visibility": "all"}, "") == "M_BAD_JSON"
    assert await refused("m.room.join_rules", {}, "") == "M_BAD_JSON"
    assert await refused("m.room.power_levels", {"users": {"@x:test": "50"}}, "") == "M_BAD_JSON"
    assert await refused("m.room.topic", {"topic": 5}, "") == "M_BAD_JSON"
    for content in ({"allow": ["other"]}, {}, {"allow": "*"}, {"deny": ["other"]}):
        assert await refused("m.room.server_acl", content, "") == "M_BAD_JSON", "they let in nobody of ours"
    assert await refused("m.room.power_levels", {"ban": "50"}, "") == "M_BAD_JSON"
    assert await refused("some.state", {}, BOB.user_id) == "M_FORBIDDEN"
    assert await _errcode(process.say(CAROL, room_id)) == "M_FORBIDDEN"
    assert await _errcode(process.say(ALICE, "!nowhere:test")) == "M_FORBIDDEN"
    assert await _errcode(process.set(BOB, room_id, "m.room.topic", {"topic": "mine"})) == "M_FORBIDDEN"


@pytest_twisted.ensureDeferred
async def test_strangers_learn_nothing_from_what_they_are_refused(database: Database) -> None:
    """Neither that there is such a room, nor that its state is what they have guessed."""
    process = (await start(database)).main
    room_id = await process.room(name="secret")
    create = {"room_version": "12"}
    guesses: list[tuple[str, dict[str, Any]]] = [
        ("m.room.name", {"name": "secret"}),
        ("m.room.create", create),
        ("m.room.create", create | {"type": "m.space"}),
        ("m.room.power_levels", {"users": {ALICE.user_id: 100}}),
    ]
    for event_type, content in guesses:
        assert await _errcode(process.set(CAROL, room_id, event_type, content)) == "M_FORBIDDEN", event_type
    assert await process.set(ALICE, room_id, "m.room.name", {"name": "secret"})


@pytest_twisted.ensureDeferred
async def test_what_text_columns_cannot_hold_does_no_harm(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room()
    await process.set(ALICE, room_id, "m.room.name", {"name": "a\x00b"})
    event_id = await process.say(ALICE, room_id, "\x00 \U0001f600 \u2028")
    again = (await start(database)).main
    stored = await again.events.get(event_id)
    assert stored is not None
    assert stored.event.content["body"] == "\x00 \U0001f600 \u2028"
    member = {"membership": "join", "displayname": "\x00"}
    await process.memberships.put_state(ALICE, room_id, ALICE.user_id, member)


@pytest_twisted.ensureDeferred
async def test_reactions_are_not_counted_twice_and_threads_do_not_nest(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room(joined=[BOB])
    event_id = await process.say(ALICE, room_id)

    async def relate(user: Any, event_type: str, relation: dict[str, Any]) -> str:
        content = {"body": "x", "m.relates_to": relation}
        return (await process.creation.create(user, room_id, event_type, content)).event_id

    like = {"rel_type": "m.annotation", "event_id": event_id, "key": "+1"}
    reaction = await relate(BOB, "m.reaction", like)
    assert await _errcode(relate(BOB, "m.reaction", like)) == "M_DUPLICATE_ANNOTATION"
    await relate(BOB, "m.reaction", {**like, "key": "-1"})
    await relate(ALICE, "m.reaction", like)
    await process.redactions.redact(BOB, room_id, reaction, {}, "t")
    await relate(BOB, "m.reaction", like)

    racing = [started(_errcode(relate(BOB, "m.reaction", {**like, "key": "race"}))) for _ in range(4)]
    assert sorted([await each for each in racing]) == ["M_DUPLICATE_ANNOTATION"] * 3 + ["nothing was refused"]

    in_thread = await relate(BOB, "m.room.message", {"rel_type": "m.thread", "event_id": event_id})
    nested = {"rel_type": "m.thread", "event_id": in_thread}
    assert await _errcode(relate(BOB, "m.room.message", nested)) == "M_UNKNOWN"


# -- redactions ----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_who_may_redact_what(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room(joined=[BOB, CAROL])
    elsewhere = await process.say(ALICE, await process.room())
    by_bob = await process.say(BOB, room_id)
    redact = process.redactions.redact
    assert await _errcode(redact(CAROL, room_id, by_bob, {}, "1")) == "M_FORBIDDEN"
    assert await _errcode(redact(ALICE, room_id, elsewhere, {}, "2")) == "M_INVALID_PARAM"
    assert await _errcode(redact(CAROL, room_id, "$nothing", {}, "3")) == "M_NOT_FOUND"
    assert await _errcode(redact(ALICE, room_id, "nothing", {}, "4")) == "M_INVALID_PARAM"
    assert await _errcode(redact(BOB, room_id, by_bob, {"reason": 5}, "5")) == "M_BAD_JSON"
    own = await redact(BOB, room_id, by_bob, {"reason": "typo"}, "6")
    assert await redact(BOB, room_id, by_bob, {"reason": "typo"}, "6") == own
    later = await redact(ALICE, room_id, by_bob, {}, "7")
    stored = await process.events.get(by_bob)
    assert stored is not None
    assert stored.redacted_by == own.event_id != later.event_id
    redaction = await process.events.get(own.event_id)
    assert redaction is not None
    assert redaction.event.content == {"reason": "typo", "redacts": by_bob}


@pytest_twisted.ensureDeferred
async def test_administrators_redact_what_users_of_this_server_said(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room(joined=[BOB, CAROL])
    admin = replace(CAROL, is_admin=True)
    by_bob = await process.say(BOB, room_id)
    redaction = await process.redactions.redact(admin, room_id, by_bob, {}, "1")
    stored = await process.events.get(by_bob)
    assert stored is not None
    assert stored.redacted_by == redaction.event_id
    other = await process.room(BOB)
    said = await process.say(BOB, other)
    assert await _errcode(process.redactions.redact(admin, other, said, {}, "2")) == "M_FORBIDDEN"


@pytest_twisted.ensureDeferred
async def test_redacting_the_rooms_name_takes_it_out_of_the_lists(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room(visibility="public")
    first = await process.set(ALICE, room_id, "m.room.name", {"name": "first"})
    second = await process.set(ALICE, room_id, "m.room.name", {"name": "second"})
    assert await _name(database, room_id) == "second"
    await process.redactions.redact(ALICE, room_id, first, {}, "1")
    assert await _name(database, room_id) == "second"
    await process.redactions.redact(ALICE, room_id, second, {}, "2")
    assert await _name(database, room_id) is None


# ------------------------------------------------------------------------------------------------------------------


async def _errcode(doing: Any) -> str:
    try:
        await doing
    except MatrixError as error:
        return error.errcode
    return "nothing was refused"


async def _state(process: RoomProcess, room_id: str, event_type: str) -> dict[str, Any]:
    return (await process.state.current(room_id, [(event_type, "")]))[event_type, ""].event.content


async def _name(db: Database, room_id: str) -> str | None:
    def read(txn: Transaction) -> str | None:
        txn.execute("SELECT name FROM room_stats WHERE room_id = %s", (room_id,))
        name: str | None = txn.one()[0]
        return name

    return await db.read("name", read)
