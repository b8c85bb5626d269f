"""Transactions of other servers: taken in once, whatever is in them, and answered event by event."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson
import pytest
import pytest_twisted
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from synapse.api.errors import MatrixError, forbidden
from synapse.api.room_versions import RoomVersion
from synapse.events.event import Event
from synapse.federation.receiving import transactions
from synapse.federation.receiving.checks import EventChecks
from synapse.federation.receiving.edus import EduRegistry
from synapse.federation.receiving.room_events import Entrance
from synapse.federation.receiving.transactions import Transactions
from synapse.federation.receiving.unfinished import Unfinished
from synapse.storage.errors import DatabaseUnavailable
from synapse.storage.persist_events import Received
from tests.federation.memory_pdus import MemoryPdus
from tests.federation.memory_room import MemoryRoom
from tests.federation.peers import KeysOf, Peer, at_once
from tests.support.deferreds import started

EVE = Peer("evil.test")


class Way:
    """Transactions into a room in memory, with all that they stand on."""

    def __init__(self, room: MemoryRoom) -> None:
        self.room = room
        self.answers: dict[tuple[str, str], str] = {}
        self.kept_out: set[str] = set()
        self.edus: list[dict[str, Any]] = []
        self.problem: Exception | None = None
        self.outside: list[str] = []
        registry = EduRegistry()
        registry.on("m.test", self.take)
        this: Any = self
        self.checks: Any = EventChecks(KeysOf(*room.peers.values()), at_once)
        self.pipeline = room.pipeline()
        self.entrance = Entrance(self.pipeline, self.checks, this)
        self.pdus = MemoryPdus()
        self.unfinished = Unfinished(self.pdus, room.clock, self.now)
        self.transactions = Transactions(
            self.entrance, self.unfinished, registry, this, this, this, room.clock, self.now
        )

    def now(self) -> int:
        return 1_000 + int(self.room.clock.seconds() * 1000)

    async def send(self, *pdus: Any, txn: str = "1", origin: str = EVE.name, edus: Sequence[Any] = ()) -> Any:
        body = orjson.dumps(
            {"origin": origin, "pdus": [each.raw if isinstance(each, Event) else each for each in pdus]}
        )
        if edus:
            body = orjson.dumps({**orjson.loads(body), "edus": edus})
        return orjson.loads(await self.transactions.receive(origin, txn, body))["pdus"]

    async def take(self, origin: str, content: dict[str, Any]) -> None:
        self.edus.append(content)
        if self.problem is not None:
            raise self.problem

    async def check_acl(self, origin: str, room_id: str) -> None:
        if origin in self.kept_out:
            raise forbidden("Kept out.")

    async def versions(self, room_ids: Collection[str]) -> dict[str, RoomVersion]:
        return {room_id: self.room.version for room_id in room_ids if room_id == self.room.room_id}

    async def receive(self, origin: str, rooms: Mapping[str, Sequence[Any]]) -> dict[str, str | None]:
        self.outside += rooms
        return {}

    async def get(self, origin: str, txn_id: str) -> str | None:
        return self.answers.get((origin, txn_id))

    async def put(self, origin: str, txn_id: str, answer: str, received_ts: int) -> None:
        self.answers[(origin, txn_id)] = answer

    @property
    def written(self) -> list[Event]:
        return [each.event for written in self.room.writes for each in written.events]


def way(version: str = "11") -> Way:
    return Way(MemoryRoom(version, EVE))


@pytest_twisted.ensureDeferred
async def test_each_event_is_answered_and_none_spoils_the_others() -> None:
    into = way()
    good, unsigned = into.room.chain(2, EVE.user())
    stray = into.room.make(sender=EVE.user(), prev=["$never"])
    raw = {**unsigned.raw, "signatures": {EVE.name: {"ed25519:1": "A" * 86}}}
    changed = {**into.room.make(sender=EVE.user(), content={"body": "x"}).raw, "content": {"body": "y"}}
    answer = await into.send(None, 7, [], {}, "x", {"room_id": into.room.room_id}, raw, stray, changed, good)
    assert answer[good.event_id] == {}
    assert "signed" in answer[unsigned.event_id]["error"]
    assert answer[stray.event_id].keys() == {"error"}
    assert [event.content for event in into.written if event.event_id != good.event_id] == [{}]  # the redacted copy


@pytest_twisted.ensureDeferred
async def test_an_access_list_keeps_all_events_of_a_server_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "synapse.federation")
    into = way()
    into.kept_out.add(EVE.name)
    event = into.room.make(sender=EVE.user())
    assert await into.send(event) == {event.event_id: {"error": "Kept out."}}
    assert not into.written
    assert f"1 events of evil.test for {into.room.room_id} are dropped: Kept out." in caplog.messages
    # Another server may forward it: what counts are the signatures of the event, and who sends it.
    assert await into.send(event, origin="other.test") == {event.event_id: {}}


@pytest_twisted.ensureDeferred
async def test_events_of_rooms_that_this_server_is_not_in_go_nowhere() -> None:
    into = way()
    event = EVE.event(into.room.version, "!else:where.test")
    assert await into.send(event) == {}
    assert into.outside == ["!else:where.test"]
    assert not into.written


@pytest_twisted.ensureDeferred
async def test_a_transaction_is_taken_in_once() -> None:
    into = way()
    event = into.room.make(sender=EVE.user())
    edu = {"edu_type": "m.test", "content": {"n": 1}}
    first = await into.send(event, edus=[edu])
    assert await into.send(event, edus=[edu]) == first == {event.event_id: {}}
    assert await into.send({"other": "content"}) == first
    assert await into.send(event, txn="2") == first
    assert await into.send(event, origin="other.test") == first
    assert into.written == [event]
    assert into.edus == [{"n": 1}]


@pytest_twisted.ensureDeferred
async def test_the_same_transaction_twice_at_once_is_one() -> None:
    into = way()
    event = into.room.make(sender=EVE.user())
    into.room.write, release = held(into.room)  # type: ignore[method-assign]
    into.pipeline._write = into.room.write
    both = [started(into.send(event)) for _ in range(2)]
    other = started(into.send(into.room.make(sender=EVE.user(), content={"n": 2}), txn="2"))
    release.callback(None)
    assert [await each for each in both] == [{event.event_id: {}}] * 2
    assert len(await other) == 1
    assert len(into.written) == 2


def held(room: MemoryRoom) -> tuple[Any, Deferred[None]]:
    """The room's writer, which does nothing before the Deferred is called."""
    release: Deferred[None] = Deferred()
    write = room.write

    async def wait(received: Received) -> Any:
        if not release.called:
            await release
        return await write(received)

    return wait, release


@pytest_twisted.ensureDeferred
async def test_what_cannot_be_done_just_now_is_to_be_sent_again() -> None:
    into = way()
    event = into.room.make(sender=EVE.user())
    into.problem = DatabaseUnavailable("Away.")
    with pytest.raises(DatabaseUnavailable):
        await into.send(event, edus=[{"edu_type": "m.test", "content": {}}])
    assert not into.answers
    into.problem = None
    assert await into.send(event, edus=[{"edu_type": "m.test", "content": {}}]) == {event.event_id: {}}
    assert into.written == [event]
    assert len(into.edus) == 2


@pytest_twisted.ensureDeferred
async def test_a_fault_of_the_server_is_one_of_that_room() -> None:
    into = way()
    event = into.room.make(sender=EVE.user())

    async def fail(received: Received) -> Any:
        raise ValueError("a bug")

    into.pipeline._write = fail
    assert "failed" in (await into.send(event))[event.event_id]["error"]


@pytest_twisted.ensureDeferred
async def test_a_room_that_takes_long_does_not_hold_the_answer_up() -> None:
    into = way()
    event = into.room.make(sender=EVE.user())
    write, release = held(into.room)
    into.pipeline._write = write
    answer = started(into.send(event))
    assert not answer.called
    into.room.clock.advance(transactions.ANSWER_WITHIN)
    assert (await answer)[event.event_id].keys() == {"error"}
    assert not into.written
    release.callback(None)
    assert into.written == [event]
    assert into.transactions._going_on == {}


@pytest.mark.parametrize("stubborn", [False, True])
@pytest_twisted.ensureDeferred
async def test_ephemeral_data_that_hang_do_not_block_their_origin(
    caplog: pytest.LogCaptureFixture, stubborn: bool
) -> None:
    into = way()
    never: Deferred[None] = Deferred(lambda _: None)

    async def hang(origin: str, content: dict[str, Any]) -> None:
        try:
            await Deferred()
        finally:
            if stubborn:
                await never

    into.transactions._edus.on("m.hangs", hang)
    edus = [{"edu_type": kind, "content": {"n": n}} for n, kind in enumerate(["m.test", "m.hangs", "m.test"])]
    answer, following = started(into.send(edus=edus)), started(into.send(txn="2", edus=edus[2:]))
    into.room.clock.advance(transactions.EDUS_WITHIN - 1)
    assert not answer.called
    into.room.clock.advance(1)
    assert (await answer, await following) == ({}, {})
    assert [edu["n"] for edu in into.edus] == [0, 2], "what came after it in its transaction is given up"
    assert "take too long: 2 are given up" in caplog.text
    assert into.room.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_what_an_origin_may_leave_unfinished_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "MAX_UNFINISHED", 1)
    monkeypatch.setattr(transactions, "MAX_QUEUED", 1)
    into = way()
    write, release = held(into.room)
    into.pipeline._write = write
    first = started(into.send(into.room.make(sender=EVE.user())))
    with pytest.raises(MatrixError) as caught:
        await into.send(txn="2")
    assert (caught.value.code, caught.value.errcode) == (429, "M_LIMIT_EXCEEDED")
    into.room.clock.advance(transactions.ANSWER_WITHIN)
    await first
    with pytest.raises(MatrixError):
        await into.send(txn="2")
    assert await into.send(origin="other.test") == {}
    release.callback(None)
    assert await into.send(txn="2") == {}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"pdus": 1}', 400),
        (b'{"pdus": {}}', 400),
        (b'{"edus": null}', 400),
        (b'{"origin": 1}', 400),
        (b'{"origin": "other.test"}', 403),
        (b'{"pdus": [' + b"{}," * 50 + b"{}]}", 400),
        (b'{"edus": [' + b"{}," * 100 + b"{}]}", 400),
        (b'{"pdus": [' + b"[" * 100_000 + b"]}", 400),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_transaction_is_refused(body: bytes, code: int) -> None:
    into = way()
    with pytest.raises(MatrixError) as caught:
        await into.transactions.receive(EVE.name, "1", body)
    assert caught.value.code == code
    assert not into.answers
    for txn_id in ("x" * 256, "\x00"):
        with pytest.raises(MatrixError):
            await into.transactions.receive(EVE.name, txn_id, b"{}")


# -- anything -----------------------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
FIELDS = (
    *("auth_events", "content", "depth", "event_id", "hashes", "origin_server_ts", "prev_events", "redacts"),
    *("room_id", "sender", "signatures", "state_key", "type", "unsigned", "origin", "prev_state", "membership"),
)
VALUES = ANYTHING | st.sampled_from(
    [[], {}, "", "$x", "@x:evil.test", "!x:evil.test", -1, 2**53, 2**63, 2**64, [["$x", {}]], ["$x"] * 21, "\x00"]
)


def run(coroutine: Any) -> Any:
    """What a coroutine that waits for nobody returns."""
    done = Deferred.fromCoroutine(coroutine)
    results: list[Any] = []
    done.addBoth(results.append)
    return results[0]


@settings(max_examples=60)
@given(body=ANYTHING | st.fixed_dictionaries({"pdus": st.lists(ANYTHING), "edus": st.lists(ANYTHING)}))
@example(body={"pdus": [{"room_id": None}, {"room_id": "\x00"}, {"room_id": "x" * 300}]})
def test_anything_at_all_is_answered(body: Any) -> None:
    into = way()
    result = run(into.transactions.receive(EVE.name, "1", encoded(body)))
    assert isinstance(result, bytes) or result.value.code == 400
    assert not into.room.writes


def encoded(value: Any) -> bytes:
    import json

    return json.dumps(value).encode("utf-8", "surrogatepass")


@settings(max_examples=120)
@given(
    version=st.sampled_from(["1", "3", "5", "6", "8", "11", "12"]),
    changes=st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=3),
    content=st.none() | st.dictionaries(st.sampled_from(["membership", "body", "users", "redacts"]), VALUES),
    kind=st.sampled_from(["m.room.message", "m.room.member", "m.room.power_levels", "m.room.redaction"]),
    sign=st.booleans(),
)
def test_a_mutated_event_changes_nothing_that_it_may_not(
    version: str, changes: dict[str, Any], content: Any, kind: str, sign: bool
) -> None:
    """A valid event with fields replaced, hashed and signed anew or not: an answer, and the room's state as before,
    unless everything about the event is right."""
    into = way(version)
    room = into.room
    raw = dict(room.make(kind, {"body": "x"}, None if kind.endswith("message") else EVE.user(), sender=EVE.user()).raw)
    before = dict(room.present)
    raw.update(changes)
    if content is not None:
        raw["content"] = content
    if sign:
        raw = signed_anew(raw, room.version)
    result = run(into.transactions.receive(EVE.name, "1", encoded({"pdus": [raw]})))
    assert isinstance(result, bytes), result
    assert b"failed to look" not in result
    assert {key for key, i in room.present.items() if before.get(key) != i} <= {("m.room.member", EVE.user())}
    for written in room.writes:
        assert all(each.event.room_id == room.room_id for each in (*written.events, *written.outliers))


def signed_anew(raw: dict[str, Any], version: RoomVersion) -> dict[str, Any]:
    """The same with hashes and signatures that are right, where that can be."""
    from synapse.events.builder import seal

    try:
        return dict(seal(dict(raw), version, EVE.name, EVE.key).raw)
    except (MatrixError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return raw
