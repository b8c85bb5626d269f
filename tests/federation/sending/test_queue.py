"""The queue of a server: what goes into its next transaction, and what becomes of it, whatever happens."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from synapse.federation.sending.queue import (
    FULL,
    HELD_BYTES,
    HELD_SECONDS,
    KEPT,
    MAX_EDUS,
    MAX_PDUS,
    PATIENCE,
    Again,
    CatchUp,
    Contents,
    Look,
    Queue,
    Reserved,
    Resume,
    Skip,
    Tell,
    id_of,
)


def queue(*positions: int, acked: int = 0) -> Queue:
    made = Queue("b.test", acked)
    for position in positions:
        made.offer(position)
    return made


def contents(*pdus: int, edus: tuple[bytes, ...] = ()) -> Contents:
    return Contents("id", pdus, edus, until=pdus[-1] if pdus else None)


def begun(made: Queue, sent: Contents) -> Contents:
    made.sending = True
    return sent


def test_events_are_told_in_order_and_fifty_at_a_time() -> None:
    made = queue(*range(1, 121))
    assert made.step() == Tell(tuple(range(1, 51)), MAX_EDUS)
    made.succeeded(begun(made, contents(*range(1, 51))))
    assert (made.acked, made.step()) == (50, Tell(tuple(range(51, 101)), MAX_EDUS))
    made.succeeded(begun(made, contents(*range(51, 101))))
    made.succeeded(begun(made, contents(*range(101, 121))))
    assert made.is_empty


def test_what_was_not_answered_is_sent_again_as_it_was_and_then_all_that_came_meanwhile() -> None:
    made = queue(1)
    sent = contents(1, edus=(b"edu",))
    assert made.failed(begun(made, sent), 100.0, 101.0)
    made.offer(2)
    assert not made.may_try(100.5)
    assert made.may_try(101.0)
    assert made.step() == Again(sent)
    made.succeeded(begun(made, sent))
    assert made.step() == Look(1, KEPT + 1, 2)
    made.found(Look(1, KEPT + 1, 2), [2])
    assert made.step() == Tell((2,))


def test_who_is_away_for_long_is_told_anew() -> None:
    made = queue(1, 2, 3)
    sent = contents(1, 2, 3)
    assert made.failed(begun(made, sent), 0.0, HELD_SECONDS)
    assert not made.failed(begun(made, sent), HELD_SECONDS, 3 * HELD_SECONDS)
    made.offer(4)
    assert not made.positions
    assert made.step() == Look(0, FULL + 1, 4)
    made.found(Look(0, FULL + 1, 4), [1, 2, 3, 4])
    assert made.step() == Tell((1, 2, 3, 4)), "what is little is told in full"


def test_who_has_missed_much_is_told_the_last_of_each_room() -> None:
    made = queue(acked=7)
    made.behind = made.away = True
    made.newest = 5_000
    look = made.step()
    assert look == Look(7, FULL + 1, 5_000)
    made.offer(5_001)
    made.found(look, list(range(100, 100 + FULL + 1)))
    skip = made.step()
    assert skip == Skip(7, 5_001)
    made.offer(5_002)
    made.skipped(skip)
    assert made.step() == CatchUp(MAX_PDUS)
    made.succeeded(begun(made, Contents("id", (10,), rooms=(("!r", 10),))))
    made.nothing_missed()
    assert made.step() == Look(5_001, FULL + 1, 5_002)


def test_who_answers_but_slowly_is_told_everything() -> None:
    made = queue(*range(1, KEPT + 3))
    assert (len(made.positions), made.behind) == (KEPT, True)
    while made.positions:
        step = made.step()
        assert isinstance(step, Tell)
        made.succeeded(begun(made, contents(*step.pdus)))
    look = made.step()
    assert look == Look(KEPT, KEPT + 1, KEPT + 2)
    made.found(look, [KEPT + 1, KEPT + 2])
    assert made.step() == Tell((KEPT + 1, KEPT + 2))
    assert not made.behind


def test_events_that_come_while_the_log_is_read_are_read_as_well() -> None:
    made = queue(1)
    made.behind = True
    made.positions.clear()
    look = made.step()
    assert isinstance(look, Look)
    made.offer(2)
    made.found(look, [1])
    assert made.behind


def test_what_another_process_had_under_way_comes_first() -> None:
    made = queue(acked=5)
    made.behind, made.resume, made.newest = True, (8, "theirs"), 9
    assert made.step() == Resume(5, 8, "theirs")
    made.succeeded(begun(made, Contents("theirs", (7, 8), until=8)))
    assert made.step() == Look(8, KEPT + 1, 9)


def test_what_is_no_more_is_passed_over() -> None:
    made = queue(1, 2)
    made.passed(contents(1))
    assert made.step() == Tell((2,))
    made.resume = (9, "x")
    made.nothing_to_resume()
    assert made.step() == Tell((2,))


def test_a_large_transaction_is_not_kept() -> None:
    made = queue(1)
    assert not made.failed(begun(made, contents(1, edus=(b"x" * (HELD_BYTES + 1),))), 0.0, 1.0)
    assert made.step() == Look(0, FULL + 1, 1)


def test_what_is_over_soon_is_not_kept() -> None:
    made = queue()
    made.extras = True
    assert not made.failed(begun(made, Contents("id", edus=(b"typing",))), 0.0, 1.0)
    assert made.held is None


def test_pauses_grow_and_end_with_the_first_answer() -> None:
    made, now, pauses = queue(1), 0.0, []
    for _ in range(20):
        made.failed(begun(made, contents(1)), now, None)
        assert made.retry_at is not None
        pauses.append(made.retry_at - now)
        now = made.retry_at
    assert pauses == sorted(pauses)
    assert pauses[0] < 10 < pauses[-1] <= 3600
    made.succeeded(begun(made, contents(1)))
    assert (made.retry_at, made.failures, made.failing_since) == (None, 0, None)


def test_who_is_heard_of_is_tried_at_once() -> None:
    made = queue(1)
    made.failed(begun(made, contents(1)), 0.0, 3600.0)
    assert not made.may_try(1.0)
    made.heard()
    assert made.may_try(1.0)


def test_a_transaction_that_is_refused_is_halved_until_it_is_known_what_is_wrong() -> None:
    """Of a hundred events, the seventieth is not taken."""
    log, now, told, asked = list(range(1, 101)), 0.0, list[int](), 0
    made = queue(*log)
    while not made.is_empty:
        step = made.step()
        if isinstance(step, Look):
            made.found(step, [each for each in log if each > step.after][: step.limit])
            continue
        assert isinstance(step, Tell)
        sent, asked = begun(made, contents(*step.pdus)), asked + 1
        assert asked < 100
        if 70 not in step.pdus:
            told += step.pdus
            made.succeeded(sent)
        elif made.refused(sent, now):
            assert step.pdus == (70,)
            made.succeeded(sent)
        assert made.retry_at is None or made.retry_at > now
        now = made.retry_at or now
    assert told == [each for each in log if each != 70]
    assert now > 60, "it is not given up in a moment"


def test_when_little_is_told_at_a_time_events_and_edus_go_apart() -> None:
    made = queue(1, 2)
    made.extras = True
    made.limit = 1
    assert made.step() == Tell((1,), 0)
    made.succeeded(begun(made, contents(1)))
    assert made.limit == MAX_PDUS
    made.positions.clear()
    made.limit = 4
    assert made.step() == Tell((), 4)


def test_a_single_event_is_refused_for_some_time_before_it_is_passed_over() -> None:
    made = queue(1)
    for _ in range(PATIENCE - 1):
        assert not made.refused(begun(made, contents(1)), 0.0)
    assert made.refused(begun(made, contents(1)), 0.0)


def test_who_was_away_is_given_as_many_chances_to_take_a_single_event_as_others() -> None:
    made = queue(1)
    for _ in range(PATIENCE):
        made.failed(begun(made, contents(1)), 0.0, None)
    assert not made.refused(begun(made, contents(1)), 0.0)


def test_what_the_log_has_told_already_is_not_told_again() -> None:
    """An event is on record a moment before it is offered."""
    made = Queue("b.test", behind=True)
    look = made.step()
    assert isinstance(look, Look)
    made.found(look, [1, 2, 3])
    made.succeeded(begun(made, contents(1)))
    for position in (1, 2, 3, 4):
        made.offer(position)
    assert made.step() == Tell((2, 3, 4), MAX_EDUS)


def test_what_is_reserved_is_sent_by_itself() -> None:
    made = queue(1, 2)
    made.reserve(Reserved(2, "id", 0.0))
    made.offer(3)
    assert made.step() == Tell((1, 2))
    made.reserved = None
    made.succeeded(begun(made, contents(1, 2)))
    made.reserve(Reserved(2, "id", 0.0))
    assert made.reserved is None, "it has been sent"
    assert made.step() == Tell((3,))


def test_the_id_is_that_of_the_content() -> None:
    assert id_of("b", ["$1"], [b"x"], "") == id_of("b", ["$1"], [b"x"], "")
    different = {
        id_of(*each)  # type: ignore[arg-type]  # lists of all kinds
        for each in (
            ("b", ["$1"], [], ""), ("c", ["$1"], [], ""), ("b", ["$1", "$2"], [], ""), ("b", ["$1$2"], [], ""),
            ("b", ["$1"], [b"x"], ""), ("b", [], [b"x"], "1"), ("b", [], [b"x"], "2"),
        )
    }  # fmt: skip
    assert len(different) == 7


# -- whatever happens --------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """A server, its log, and the process that sends to it; both die and come back as hypothesis likes."""

    log: list[int] = field(default_factory=list)
    rooms: dict[int, str] = field(default_factory=dict)
    missed: dict[str, int] = field(default_factory=dict)
    noted: tuple[int, int | None, str | None] = (0, None, None)
    arrived: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    now: float = 0.0
    queue: Queue = field(default_factory=lambda: Queue("b"))

    def event(self, room: str) -> None:
        position = len(self.rooms) + 1
        self.log.append(position)
        self.rooms[position] = room
        self.queue.offer(position)

    def restart(self) -> None:
        acked, until, txn = self.noted
        self.queue = Queue("b", acked, missed=bool(self.missed), away=True)
        self.queue.newest = max(self.log, default=0)
        self.queue.behind = self.queue.newest > acked
        if until is not None and txn is not None and until > acked and not self.missed:
            self.queue.resume = (until, txn)

    def after(self, position: int) -> list[int]:
        return [each for each in self.log if each > position]

    def fold(self, after: int, until: int) -> None:
        for position in self.log:
            if after < position <= until:
                self.missed[self.rooms[position]] = position

    def trim(self) -> None:
        """The older half of the log is given up."""
        until = self.log[len(self.log) // 2] if self.log else 0
        before = dict(self.missed)
        self.fold(self.noted[0], until)
        self.log = self.after(until)
        if self.missed != before:
            self.queue.trimmed(until)

    def send(self, outcome: str) -> None:
        """One transaction."""
        for _ in range(20):
            if not self.queue.may_try(self.now):
                return
            made = self.contents()
            if made is not None:
                break
        else:
            raise AssertionError("nothing comes of it")
        if not made.pdus:
            self.queue.passed(made)
            return
        self.queue.sending = True
        if made.until is not None:
            self.noted = (self.queue.acked, made.until, made.id)
        if outcome in ("answered", "lost", "died"):
            self.arrived.append((made.id, made.pdus))
        if outcome == "died":
            self.restart()
        elif outcome == "answered":
            self.queue.succeeded(made)
            self.settle(made)
        else:
            self.queue.failed(made, self.now, None if outcome == "lost" else self.now + 4_000)

    def settle(self, made: Contents) -> None:
        for room, position in made.rooms:
            if self.missed.get(room, position + 1) <= position:
                del self.missed[room]
        self.noted = (self.queue.acked, None, None)

    def contents(self) -> Contents | None:
        step = self.queue.step()
        if isinstance(step, Again):
            return step.contents
        if isinstance(step, Resume):
            page = [each for each in self.after(step.after) if each <= step.until]
            if not page:
                self.queue.nothing_to_resume()
                return None
            return Contents(step.id, tuple(page), until=step.until)
        if isinstance(step, CatchUp):
            rooms = sorted(self.missed.items(), key=lambda item: item[1])[: step.limit]
            if not rooms:
                self.queue.nothing_missed()
                return None
            pdus = tuple(position for _, position in rooms)
            return Contents(id_of("b", [str(pdu) for pdu in pdus], (), ""), pdus, rooms=tuple(rooms))
        if isinstance(step, Look):
            self.queue.found(step, self.after(step.after)[: step.limit])
            return None
        if isinstance(step, Skip):
            self.fold(step.after, step.until)
            self.noted = (max(self.noted[0], step.until), None, None)
            self.queue.skipped(step)
            return None
        pdus = step.pdus
        return Contents(id_of("b", [str(pdu) for pdu in pdus], (), ""), pdus, until=pdus[-1] if pdus else None)


STEPS = st.one_of(
    st.tuples(st.just("event"), st.sampled_from(["!a", "!b", "!c"])),
    st.tuples(st.just("send"), st.sampled_from(["answered", "lost", "away", "died"])),
    st.tuples(st.sampled_from(["restart", "trim", "wait"]), st.just("")),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_in_the_end_every_room_is_told_and_nothing_is_out_of_order(steps: list[tuple[str, str]]) -> None:
    model = Model()
    for step, what in steps:
        if step == "event":
            model.event(what)
        elif step == "send":
            model.send(what)
        elif step == "restart":
            model.restart()
        elif step == "trim":
            model.trim()
        else:
            model.now += 5_000
    for _ in range(200):
        model.now += 5_000
        model.send("answered")
    assert model.queue.is_empty
    last = {room: position for position, room in model.rooms.items()}
    told = [position for _, pdus in model.arrived for position in pdus]
    assert set(last.values()) <= set(told)
    if not any(step == "trim" for step, _ in steps):
        assert set(told) == set(model.rooms), "little is told in full"
    by_id: dict[str, tuple[int, ...]] = {}
    newest: dict[str, int] = {}
    seen: set[int] = set()
    for txn_id, pdus in model.arrived:
        assert by_id.setdefault(txn_id, pdus) == pdus, "one id, one content"
        assert len(pdus) <= MAX_PDUS
        for position in pdus:
            room = model.rooms[position]
            assert position in seen or position > newest.get(room, 0)
            seen.add(position)
            newest[room] = max(position, newest.get(room, 0))
