"""The first three checks of an event that comes from another server: is it well-formed, is it signed by those who must
sign it, does its content hash to what it says. They look at nothing but the event and keys, so they are the same
whatever an event comes for: a transaction, a state, an auth chain, a page of history.

Server-server API, "Checks performed on receipt of a PDU", 1 to 3.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from synapse.api.errors import Codes, MatrixError, forbidden
from synapse.api.room_versions import RoomVersion
from synapse.events import canonical
from synapse.events.event import Event
from synapse.events.hashes import event_id_of, has_valid_content_hash
from synapse.events.validation import check_pdu

if TYPE_CHECKING:
    from synapse.federation.keyring import KeyRing

logger = logging.getLogger(__name__)

PIECE: Final = 100
"""Events that are looked at in one go; then everybody else has a turn."""

FEW: Final = 5
"""Events that are not worth a thread."""

InThread = Callable[..., Awaitable[Any]]
"""Runs a function with its arguments on a thread."""


class Parsed(NamedTuple):
    """What became of one event by checks 1 and 3: the event (redacted, where its hash is wrong), or why not."""

    event: Event | None
    problem: MatrixError | None = None


class EventChecks:
    """Makes checks 1 to 3.

    :param in_thread: where many events are looked at, so that requests do not wait for it.
    """

    def __init__(self, keyring: KeyRing, in_thread: InThread) -> None:
        self._keyring = keyring
        self._in_thread = in_thread

    async def check_many(
        self,
        raws: Sequence[Any],
        version: RoomVersion,
        *,
        room_id: str | None = None,
        is_history: bool = False,
        origin: str | None = None,
    ) -> list[Event]:
        """Those of the events that pass, each once, in their order.

        `raws` are events in federation form: JSON values, or JSON text (bytes, `msgspec.Raw`), which is to be preferred
        in room versions before 6, where a number's digits count. What fails check 1 or 2 is dropped with a line in the
        log; what fails check 3 comes as its redacted copy. With `room_id`, events of other rooms are dropped too.
        `is_history`: they are an answer to backfill, and may refer to more others than new events. `origin`: the server
        that they are looked at for; None where this one wants them by itself.
        """
        checked: list[Event] = []
        seen: set[str] = set()
        for piece in _pieces(raws):
            for parsed in await self._check(piece, version, origin, is_history):
                event, problem = parsed
                if problem is None and event is not None and room_id not in (None, event.room_id):
                    problem = forbidden(f"The event belongs to the room {event.room_id}.")
                if problem is not None or event is None:
                    logger.info("An event of another server is dropped: %s", problem and problem.message)
                elif event.event_id not in seen:
                    seen.add(event.event_id)
                    checked.append(event)
        return checked

    async def those_of(self, raws: Sequence[Any], version: RoomVersion, wanted: Collection[str]) -> list[Any]:
        """Those of the events, unchecked, that have one of these ids: so that what is here already is not checked
        again."""
        found: list[Any] = []
        for piece in _pieces(raws):
            found += await self._in_thread(_those_of, piece, version, wanted)
        return found

    async def check_one(self, raw: Any, version: RoomVersion, origin: str | None = None) -> Event:
        """The event, redacted where its hash is wrong. Raises MatrixError: 400 M_BAD_JSON or 413 M_TOO_LARGE where it
        is not well-formed, 403 M_FORBIDDEN where a signature is missing or wrong."""
        event, problem = (await self.check_each([raw], version, origin))[0]
        if problem is not None or event is None:
            raise problem or forbidden("The event is not right.")
        return event

    async def check_each(self, raws: Sequence[Any], version: RoomVersion, origin: str | None = None) -> list[Parsed]:
        """What becomes of each of the events, in their order. An event whose signature is wrong comes with its
        problem."""
        return [parsed for piece in _pieces(raws) for parsed in await self._check(piece, version, origin)]

    def may_pass_later(self, event: Event) -> bool:
        """Whether an event that comes with a problem may pass when it is looked at again: keys could not be fetched."""
        return self._keyring.is_at_a_loss(event)

    async def _check(
        self, piece: Sequence[Any], version: RoomVersion, origin: str | None, is_history: bool = False
    ) -> list[Parsed]:
        if len(piece) <= FEW:
            results = _parse_all(piece, version, is_history)
        else:
            results = await self._in_thread(_parse_all, piece, version, is_history)
        for group in _by_id([parsed.event for parsed in results if parsed.event is not None]):
            failed = await self._keyring.verify_events(group, origin)
            if failed:
                wrong = {id(event) for event in group if event.event_id in failed}
                results = [_without_signature(parsed) if id(parsed.event) in wrong else parsed for parsed in results]
        return results


def room_of(raw: Any) -> str | None:
    """The room that an event (JSON value or text) says it belongs to; None where it says nothing that could be one."""
    if isinstance(raw, (bytes, msgspec.Raw)):
        try:
            return _room_id(raw).room_id
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
    found = raw.get("room_id") if isinstance(raw, dict) else None
    return found if isinstance(found, str) else None


def id_of(raw: Any, version: RoomVersion) -> str | None:
    """The id that an event has, well-formed or not; None where it has none. For telling its sender what became of
    it."""
    try:
        value = parse(raw, version)
        found = event_id_of(value, version) if isinstance(value, dict) else None
    except (MatrixError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def _those_of(raws: Sequence[Any], version: RoomVersion, wanted: Collection[str]) -> list[Any]:
    return [raw for raw in raws if id_of(raw, version) in wanted]


def parse(raw: Any, version: RoomVersion) -> Any:
    """The JSON value of an event that may be text. Raises MatrixError."""
    if isinstance(raw, (bytes, msgspec.Raw)):
        text = bytes(raw)
        return canonical.parse(text) if version.strict_canonical_json else canonical.parse_lenient(text)
    return raw


class _Placed(msgspec.Struct):
    room_id: str | None = None


_room_id = msgspec.json.Decoder(_Placed).decode


def _parse_all(raws: Sequence[Any], version: RoomVersion, is_history: bool) -> list[Parsed]:
    return [_parse_one(raw, version, is_history) for raw in raws]


def _parse_one(raw: Any, version: RoomVersion, is_history: bool) -> Parsed:
    try:
        event = Event.from_json(check_pdu(parse(raw, version), version, is_history=is_history), version)
        if not has_valid_content_hash(event.raw, version):
            logger.info("The event %s does not have the content that it was made with; it is redacted", event.event_id)
            event = event.redacted()
        return Parsed(event)
    except MatrixError as error:
        return Parsed(None, error)
    except (ValueError, TypeError, RecursionError) as error:  # values that have no encoding
        return Parsed(None, MatrixError(400, Codes.BAD_JSON, f"The event cannot be read: {type(error).__name__}."))


def _without_signature(parsed: Parsed) -> Parsed:
    sentence = "The event is not signed by every server that must sign it, or not rightly."
    return Parsed(parsed.event, forbidden(sentence))


def _by_id(events: Sequence[Event]) -> list[list[Event]]:
    """The events in groups (mostly one) in which no id is there twice: of two with the same id, one may be signed."""
    groups: list[dict[str, Event]] = []
    for event in events:
        group = next((group for group in groups if event.event_id not in group), None)
        if group is None:
            groups.append(group := {})
        group[event.event_id] = event
    return [list(group.values()) for group in groups]


def _pieces(raws: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(raws), PIECE):
        yield raws[start : start + PIECE]
