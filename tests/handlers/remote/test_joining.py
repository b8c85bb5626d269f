"""Entering rooms by other servers: one join a room, what is written of it, lies, lost answers, who vouches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import orjson
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.api.errors import MatrixError, forbidden, invalid_param
from synapse.api.room_versions import ROOM_VERSIONS, RoomVersion
from synapse.events.event import Event
from synapse.events.signing import SignatureError, verify
from synapse.federation.api import FederationApi
from synapse.federation.errors import Unreachable
from synapse.federation.receiving.checks import EventChecks
from synapse.handlers.event_creation import Signer
from synapse.handlers.remote import joining
from synapse.handlers.remote.joining import PIECE, SETTLING, Join, Joined, Joining
from synapse.handlers.remote.room_seen import RoomCheck
from synapse.handlers.remote.signatures import Countersigning
from synapse.http.client import ClientAnswer
from synapse.push.bulk import Members
from synapse.storage.persist_events import Fate, Kind, Persisted, Receipt, Received
from tests.handlers.remote.test_room_seen import Judge, Keys, at_once
from tests.support.deferreds import started
from tests.support.resident import Answered, Resident, key_of

OWN = "here.test"
USER = f"@user:{OWN}"


class Line:
    """In the place of `FederationClient`: the way to residents."""

    def __init__(self, residents: Mapping[str, Resident]) -> None:
        self.residents = residents
        self.asked: list[tuple[str, str]] = []
        self.lost: set[tuple[str, str]] = set()  # what is asked of whom, whose answers are lost once
        self.waiting: Deferred[None] | None = None

    async def request(
        self, destination: str, method: str, path: str, content: Any = None, **_more: Any
    ) -> ClientAnswer:
        operation = path.split("/")[4]
        self.asked.append((destination, operation))
        if self.waiting is not None:
            await self.waiting
        if destination not in self.residents:
            raise Unreachable(destination, f"{destination} is away.")
        sent = None if content is None else orjson.dumps(content)
        code, value = self.residents[destination].answer(method, path, sent)
        if (destination, operation) in self.lost:
            self.lost.remove((destination, operation))
            raise Unreachable(destination, f"{destination} did not answer.", late=True)
        return ClientAnswer(code, {}, orjson.dumps(value))


class Keyring:
    async def verify_message(self, server: str, message: bytes, signatures: Mapping[str, str], _at: int) -> None:
        if not signatures:
            raise SignatureError("There is none.")
        for signature in signatures.values():
            verify(message, signature, key_of(server).verify_key)


class Case:
    """A room at a resident's, and a server that is nowhere yet."""

    def __init__(self, version: str = "12", **room: Any) -> None:
        self.resident = Resident("there.test", version, **room)
        self.residents = {"there.test": self.resident}
        self.line = Line(self.residents)
        self.written: list[Received] = []
        self.fate = Fate.ACCEPTED
        self.local: dict[str, str | None] = {}
        self.accepted: list[tuple[str, Event, bool | None]] = []
        self.refusal: MatrixError | None = None  # of the next that is to be accepted
        self.later: MatrixError | None = None  # of those after it
        self.received: list[Event] = []
        api: Any = FederationApi(self.line, at_once)  # type: ignore[arg-type]
        keyring: Any = Keyring()
        self.clock = Clock()
        self.joining = Joining(
            api,
            RoomCheck(EventChecks(Keys(), at_once), Judge()),
            self,  # type: ignore[arg-type]
            self.write,
            self,
            Countersigning(keyring),
            Signer(OWN, key_of(OWN)),
            self.clock,
        )

    # -- what it stands on ---------------------------------------------------------------------------------------------

    async def get(self, room_id: str) -> Members:
        return Members(dict(self.local), len(self.local))

    async def write(self, received: Received) -> Receipt:
        self.written.append(received)
        if received.kind is Kind.JOIN and self.fate is Fate.ACCEPTED:
            self.local[received.events[0].event.sender] = None
        return Receipt(tuple((self.fate, "no") for _ in received.events), 7)

    async def accept(self, origin: str, event: Event, *, relay: bool | None = None) -> Persisted:
        refusal, self.refusal = self.refusal, self.later
        if refusal is not None:
            raise refusal
        self.accepted.append((origin, event, relay))
        return Persisted(event.event_id, 8)

    async def receive(
        self, origin: str, room_id: str, version: RoomVersion, events: Sequence[Event]
    ) -> dict[str, str | None]:
        self.received += events
        return {event.event_id: None for event in events}

    # -- what is done --------------------------------------------------------------------------------------------------

    def wish(self, user_id: str = USER, servers: Sequence[str] = ("there.test",), **more: Any) -> Join:
        content = {"membership": "join", "displayname": user_id}
        return Join(room_id=self.resident.room_id, user_id=user_id, content=content, servers=list(servers), **more)

    async def join(self, **more: Any) -> Joined:
        return await self.joining.join(self.wish(**more))

    async def refused(self, **more: Any) -> MatrixError:
        with pytest.raises(MatrixError) as raised:
            await self.join(**more)
        return raised.value

    @property
    def entered(self) -> list[Received]:
        return [received for received in self.written if received.kind is Kind.JOIN]


@pytest.mark.parametrize("version", ROOM_VERSIONS)
@pytest_twisted.ensureDeferred
async def test_a_room_is_written_in_pieces_and_entered_by_one_event(version: str) -> None:
    case = Case(version)
    case.resident.join(f"@m{n}:other.test" for n in range(PIECE if version == "12" else 3))
    before = dict(case.resident.state)
    joined = await case.join()
    *pieces, last = case.written
    assert all(not piece.events and len(piece.outliers) <= PIECE for piece in pieces)
    kept = {outlier.event.event_id for piece in pieces for outlier in piece.outliers}
    (entered,) = last.events
    assert last.kind is Kind.JOIN
    assert entered.state_before == {key: event.event_id for key, event in before.items()}
    assert kept.issuperset(entered.state_before.values())
    assert kept.issuperset(entered.event.auth_event_ids)
    assert entered.relay is False
    assert entered.event.content == {"membership": "join", "displayname": USER}
    assert joined == Joined(event_id=entered.event.event_id, position=7)
    assert entered.event.event_id in case.resident.events


@pytest_twisted.ensureDeferred
async def test_of_many_who_come_at_the_same_time_one_takes_the_room_along() -> None:
    case = Case()
    case.line.waiting = Deferred()
    joins = [started(case.join(user_id=f"@u{n}:{OWN}")) for n in range(5)]
    settled = started(case.joining.settled([case.resident.room_id]))
    assert not settled.called
    assert case.line.asked == [("there.test", "make_join")]
    case.line.waiting.callback(None)
    results = [await each for each in joins]
    assert [result.is_here for result in results] == [False, True, True, True, True]
    assert len(case.entered) == 1
    assert await settled
    assert case.clock.getDelayedCalls() == []
    assert not await case.joining.settled([case.resident.room_id])


@pytest_twisted.ensureDeferred
async def test_where_the_first_fails_the_next_begins_anew() -> None:
    case = Case()
    case.line.lost = {("there.test", "send_join")}
    case.line.waiting = Deferred()
    first, second = started(case.join()), started(case.join(user_id=f"@other:{OWN}"))
    case.line.waiting.callback(None)
    with pytest.raises(MatrixError) as raised:
        await first
    assert (raised.value.code, raised.value.errcode) == (504, "M_CONNECTION_TIMEOUT")
    assert (await second).event_id
    assert case.line.asked == [("there.test", "make_join"), ("there.test", "send_join")] * 2


@pytest_twisted.ensureDeferred
async def test_a_join_whose_answer_was_lost_can_be_repeated() -> None:
    case = Case()
    case.line.lost = {("there.test", "send_join")}
    await case.refused()
    assert case.written == []
    joined = await case.join()
    assert joined.event_id == case.entered[0].events[0].event.event_id
    assert case.entered[0].events[0].state_before is not None
    # The room has both joins; the state that is found has the first.
    assert case.entered[0].events[0].state_before["m.room.member", USER] in case.resident.events


@pytest_twisted.ensureDeferred
async def test_candidates_are_tried_in_turn() -> None:
    case = Case()
    case.residents["elsewhere.test"] = Resident("elsewhere.test")
    joined = await case.join(servers=["away.test", "elsewhere.test", "there.test"])
    assert joined.event_id
    assert case.line.asked == [
        ("away.test", "make_join"),
        ("elsewhere.test", "make_join"),
        ("there.test", "make_join"),
        ("there.test", "send_join"),
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"room_version": "org.example.later"}, (400, "M_INCOMPATIBLE_ROOM_VERSION", "org.example.later")),
        ({"room_version": "x" * 900}, (400, "M_INCOMPATIBLE_ROOM_VERSION", "x" * 32)),
        ({"room_version": 12}, (502, "M_CONNECTION_FAILED", None)),
        ({"event": None}, (502, "M_CONNECTION_FAILED", None)),
        ({"event": {}}, (502, "M_CONNECTION_FAILED", None)),
        ({"event": {"type": "m.room.member", "content": []}}, (502, "M_CONNECTION_FAILED", None)),
    ],
)
@pytest_twisted.ensureDeferred
async def test_templates_that_are_of_no_use(answer: dict[str, Any], expected: tuple[int, str, str | None]) -> None:
    case = Case()
    case.resident.lie["make_join"] = lambda answered: (200, {**answered[1], **answer})
    error = await case.refused()
    assert (error.code, error.errcode, error.fields.get("room_version")) == expected
    assert "send_join" not in case.resident.asked


@pytest.mark.parametrize(("version", "is_joined"), [("1", True), ("2", True), ("3", True), ("4", False), ("12", False)])
@pytest_twisted.ensureDeferred
async def test_a_server_that_does_not_say_the_version(version: str, is_joined: bool) -> None:
    case = Case(version)
    case.resident.lie["make_join"] = lambda answered: (200, {"event": answered[1]["event"]})
    if is_joined:
        joined = await case.join()
        (received,) = case.entered
        assert (received.version, received.events[0].event.room_version) == (case.resident.version,) * 2
        assert received.events[0].event.event_id == joined.event_id
    else:
        error = await case.refused()
        assert (error.code, error.errcode) == (502, "M_CONNECTION_FAILED")
        assert case.resident.asked == ["make_join", "send_join"], "what the room says it is counts"


def _change(**fields: Any) -> Callable[[Answered], Answered]:
    return lambda answered: (200, {**answered[1], **fields})


def _without_create(answered: Answered) -> Answered:
    state = [event for event in answered[1]["state"] if event["type"] != "m.room.create"]
    return 200, {**answered[1], "state": state}


LIES: list[Callable[[Answered], Answered]] = [
    _without_create,
    _change(state=[], auth_chain=[]),
    _change(state=None),
    _change(state={}),
    _change(state=[1, None, "x", [], {}]),
    _change(members_omitted=True, servers_in_room=["there.test"]),
    lambda _: (200, []),
    lambda _: (200, None),
    lambda _: (200, {}),
]


@pytest.mark.parametrize("lie", LIES)
@pytest_twisted.ensureDeferred
async def test_a_room_that_cannot_be_is_not_entered(lie: Callable[[Answered], Answered]) -> None:
    case = Case()
    case.resident.lie["send_join"] = lie
    error = await case.refused()
    assert (error.code, error.errcode) == (502, "M_CONNECTION_FAILED")
    assert case.written == []


@pytest_twisted.ensureDeferred
async def test_after_a_liar_the_next_server_is_asked() -> None:
    case = Case()
    liar = Resident("liar.test")
    liar.__dict__.update({**case.resident.__dict__, "name": "liar.test", "lie": {"send_join": _without_create}})
    case.residents["liar.test"] = liar
    assert (await case.join(servers=["liar.test", "there.test"])).event_id
    assert len(case.entered) == 1


@pytest_twisted.ensureDeferred
async def test_what_the_writer_does_not_take_is_told() -> None:
    case = Case()
    case.fate = Fate.REFUSED
    assert (await case.refused()).errcode == "M_FORBIDDEN"


@pytest_twisted.ensureDeferred
async def test_the_join_of_a_restricted_room_has_the_signature_of_who_vouches() -> None:
    case = Case(join_rule="restricted")
    await case.join()
    event = case.entered[0].events[0].event
    assert event.content["join_authorised_via_users_server"] == case.resident.creator
    assert set(event.raw["signatures"]) == {OWN, "there.test"}


@pytest.mark.parametrize(
    "lie",
    [
        lambda answered: (200, {k: v for k, v in answered[1].items() if k != "event"}),
        _change(event={"type": "m.room.member"}),
        lambda answered: (200, {**answered[1], "event": {**answered[1]["event"], "depth": 1}}),
        lambda answered: (
            200,
            {**answered[1], "event": {**answered[1]["event"], "signatures": {"there.test": {"ed25519:x": "A" * 86}}}},
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_join_that_nobody_vouches_for_is_none(lie: Callable[[Answered], Answered]) -> None:
    case = Case(join_rule="restricted")
    case.resident.lie["send_join"] = lie
    error = await case.refused()
    assert (error.code, error.errcode) == (502, "M_CONNECTION_FAILED")
    assert case.written == []


@pytest_twisted.ensureDeferred
async def test_into_a_room_of_ours_the_join_goes_like_others_events() -> None:
    case = Case(join_rule="restricted")
    case.local = {f"@other:{OWN}": None}
    joined = await case.join(vouched=True)
    ((origin, event, relay),) = case.accepted
    assert (origin, event.event_id, relay) == ("there.test", joined.event_id, False)
    assert set(event.raw["signatures"]) == {OWN, "there.test"}
    assert case.written == []
    assert joined.position == 8, "whoever asked waits until it has heard of it"
    case.refusal = forbidden("no")
    assert (await case.refused(vouched=True)).errcode == "M_FORBIDDEN"
    assert case.received == []


@pytest_twisted.ensureDeferred
async def test_what_a_join_into_a_room_of_ours_comes_after_is_fetched() -> None:
    case = Case(join_rule="restricted")
    case.local = {f"@other:{OWN}": None}
    case.refusal = invalid_param("what it refers to is not here")
    joined = await case.join(vouched=True)
    assert [event.event_id for event in case.received] == [joined.event_id] == [case.accepted[0][1].event_id]
    assert joined.position == 8
    # It is here then, but nowhere seen: the user is not in the room.
    case.refusal, case.later = invalid_param("what it refers to is not here"), forbidden("The room does not allow it.")
    assert (await case.refused(vouched=True)).errcode == "M_FORBIDDEN"


@pytest_twisted.ensureDeferred
async def test_what_others_say_does_not_wait_for_ever_for_a_join() -> None:
    case = Case()
    case.line.waiting = Deferred()
    joining = started(case.join())
    settled = started(case.joining.settled([case.resident.room_id, "!other"]))
    case.clock.advance(SETTLING - 1)
    assert not settled.called
    case.clock.advance(1)
    assert await settled
    case.line.waiting.callback(None)
    assert (await joining).event_id


@pytest_twisted.ensureDeferred
async def test_for_several_rooms_others_wait_no_longer_than_for_one() -> None:
    case = Case()
    case.line.waiting = Deferred()
    rooms = [case.resident.room_id, "!other:there.test", "!third:there.test"]
    joining = [started(case.joining.join(msgspec.structs.replace(case.wish(), room_id=room))) for room in rooms]
    settled = started(case.joining.settled(rooms))
    case.clock.advance(SETTLING)
    assert await settled
    case.line.waiting.callback(None)
    assert (await joining[0]).event_id
    for other in joining[1:]:
        with pytest.raises(MatrixError):
            await other


@pytest_twisted.ensureDeferred
async def test_a_server_that_takes_its_time_keeps_others_out_for_a_while_only() -> None:
    case = Case()
    case.residents["slow.test"] = case.resident
    case.line.waiting = slow = Deferred()
    first = started(case.join(servers=["slow.test"]))
    case.line.waiting = None
    second = started(case.join(user_id=f"@other:{OWN}"))
    case.clock.advance(SETTLING - 1)
    assert not second.called
    case.clock.advance(1)
    assert (await second).event_id
    slow.callback(None)
    await first


# -- many rooms at the same time --------------------------------------------------------------------------------------


class Many(Case):
    """Rooms at a resident's each; what is written waits for `release`, by room."""

    def __init__(self, *members: int) -> None:
        super().__init__()
        self.rooms = [Resident(f"r{n}.test") for n in range(len(members))]
        for resident, count in zip(self.rooms, members, strict=True):
            resident.join(f"@m{n}:{resident.name}" for n in range(count))
            self.residents[resident.name] = resident
        self.release: dict[str, Deferred[None]] = {}

    async def write(self, received: Received) -> Receipt:
        if received.room_id not in self.release:
            self.release[received.room_id] = Deferred()
            await self.release[received.room_id]
        return Receipt(tuple((self.fate, "no") for _ in received.events), 7)

    def enter(self, number: int) -> Deferred[Joined]:
        resident = self.rooms[number]
        wish = Join(room_id=resident.room_id, user_id=USER, content={"membership": "join"}, servers=[resident.name])
        return started(self.joining.join(wish))

    @property
    def taken_in(self) -> list[int]:
        return [n for n, resident in enumerate(self.rooms) if resident.room_id in self.release]

    def let_go(self, number: int) -> None:
        self.release[self.rooms[number].room_id].callback(None)


@pytest_twisted.ensureDeferred
async def test_a_few_large_rooms_are_taken_in_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "LARGE", 20)
    many = Many(20, 20, 20, 20, 20, 2)
    entering = [many.enter(number) for number in range(6)]
    assert many.taken_in == [0, 1, 2, 5], "small rooms wait for nobody"
    assert all(resident.asked == ["make_join", "send_join"] for resident in many.rooms)
    many.let_go(1)
    assert (await entering[1]).event_id
    assert many.taken_in == [0, 1, 2, 3, 5]
    many.fate = Fate.REFUSED
    many.let_go(0)
    with pytest.raises(MatrixError):
        await entering[0]
    many.fate = Fate.ACCEPTED
    assert many.taken_in == [0, 1, 2, 3, 4, 5]
    for number in (2, 3, 4, 5):
        many.let_go(number)
        assert (await entering[number]).event_id
    assert many.joining._count == 0


@pytest_twisted.ensureDeferred
async def test_who_would_wait_too_long_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "AT_ONCE", 2)
    many = Many(2, 2, 2)
    entering = [many.enter(0), many.enter(1)]
    with pytest.raises(MatrixError) as raised:
        await many.enter(2)
    assert (raised.value.code, raised.value.errcode) == (429, "M_LIMIT_EXCEEDED")
    assert raised.value.fields["retry_after_ms"] > 0
    assert many.rooms[2].asked == []
    for number in (0, 1):
        many.let_go(number)
        await entering[number]
    last = many.enter(2)
    many.let_go(2)
    assert (await last).event_id


@pytest_twisted.ensureDeferred
async def test_a_server_that_gives_what_it_left_out_slowly_is_not_waited_for_long() -> None:
    case = Case()
    case.resident.join([f"@m:{case.resident.name}"])

    def without_levels(answered: Answered) -> Answered:
        kept = {
            where: [event for event in answered[1][where] if event["type"] != "m.room.power_levels"]
            for where in ("state", "auth_chain")
        }
        return 200, {**answered[1], **kept}

    case.resident.lie["send_join"] = without_levels
    assert (await case.join()).event_id
    assert case.resident.asked == ["make_join", "send_join", "event"]
    again = Case()
    waiting: Deferred[None] = Deferred()

    def silent(answered: Answered) -> Answered:
        again.line.waiting = waiting
        return without_levels(answered)

    again.resident.lie["send_join"] = silent
    late = started(again.join())
    again.clock.advance(joining.FETCHING - 1)
    assert not late.called
    again.clock.advance(1)
    with pytest.raises(MatrixError) as raised:
        await late
    assert raised.value.code == 502
