"""Puts a server's next transaction together: does what its queue says, until there is something to send."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synapse.federation.sending import transaction
from synapse.federation.sending.edus import NOTHING, Ephemeral, Taken
from synapse.federation.sending.queue import (
    MAX_PDUS,
    Again,
    CatchUp,
    Contents,
    Look,
    Queue,
    Resume,
    Skip,
    Step,
    Tell,
    id_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse.federation.sending.loading import Loading, Pdu
    from synapse.util.clock import Clock

KEPT_BODIES: Final = 16


class Draft(NamedTuple):
    """A transaction to be sent. `taken` is what it holds that is over soon."""

    contents: Contents
    body: bytes
    taken: Taken = NOTHING


class Extras:
    """What a server is to be told besides events: what is over soon, and the outboxes that have something for it."""

    __slots__ = ("ephemeral", "outboxes")

    def __init__(self) -> None:
        self.ephemeral = Ephemeral()
        self.outboxes: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self.outboxes) or len(self.ephemeral) > 0


class Composer:
    """Makes drafts.

    :param skip: has a server's part of the log become the last events of rooms.
    :param salt: makes ids of transactions that others have not made.
    """

    def __init__(
        self,
        origin: str,
        loading: Loading,
        skip: Callable[[str, int, int], Awaitable[None]],
        clock: Clock,
        salt: Callable[[], str],
    ) -> None:
        self._origin = origin
        self._loading = loading
        self._skip = skip
        self._clock = clock
        self._salt = salt
        self._bodies: OrderedDict[tuple[Pdu, ...], bytes] = OrderedDict()

    async def draft(self, queue: Queue, extras: Extras) -> Draft | None:
        """The next transaction of a server; None where it turns out that there is none. One without events and EDUs is
        not to be sent: it was about what is not there any more.
        """
        while queue.has_events or extras:
            found = await self._do(queue.step(), queue, extras)
            if found is not None:
                return found
        return None

    async def _do(self, step: Step, queue: Queue, extras: Extras) -> Draft | None:
        if isinstance(step, Tell):
            return await self._tell(step, queue, extras)
        if isinstance(step, Look):
            queue.found(step, await self._loading.page(queue.name, (step.after, step.limit)))
            return None
        if isinstance(step, Skip):
            await self._skip(queue.name, step.after, step.until)
            queue.skipped(step)
            return None
        if isinstance(step, CatchUp):
            return await self._catch_up(step, queue)
        if isinstance(step, Resume):
            return await self._resume(step, queue)
        assert isinstance(step, Again), "there are no other steps"
        return await self._again(step)

    async def _tell(self, step: Tell, queue: Queue, extras: Extras) -> Draft:
        pdus, until = await self._fitting(step.pdus)
        edus, marks = await self._lasting(
            queue.name, extras, step.max_edus, sum(len(pdu.json) for pdu in pdus.values())
        )
        now = int(self._clock.seconds() * 1000)
        more, taken = extras.ephemeral.take(step.max_edus - len(edus), now)
        edus += more
        salt = "" if pdus or marks else self._salt()
        ids = [pdu.event_id for pdu in pdus.values()]
        contents = Contents(id_of(queue.name, ids, edus, salt), tuple(pdus), tuple(edus), until, (), tuple(marks))
        return Draft(contents, self._body(pdus, edus, now), taken)

    async def _lasting(
        self, name: str, extras: Extras, most: int, size: int
    ) -> tuple[list[bytes], list[tuple[str, Any]]]:
        """EDUs of the outboxes, of which there may be `most`, for a transaction that has so many bytes already; and
        their marks."""
        edus: list[bytes] = []
        marks: list[tuple[str, Any]] = []
        for outbox in sorted(extras.outboxes):
            if len(edus) >= most:
                break
            extras.outboxes.discard(outbox)
            found = (await self._loading.waiting[outbox](name, None))[: most - len(edus)]
            pieces = [each.edu for each in found]
            count = transaction.that_fit(pieces, transaction.MAX_BYTES - size)
            if count < len(found):
                while count and found[count - 1].mark == found[count].mark:
                    count -= 1  # those with one mark are told together
                if not (count or edus or size):
                    count = 1
            if found and (count < len(found) or len(found) >= self._loading.outboxes[outbox].most // 2):
                extras.outboxes.add(outbox)  # there may be more
            edus += pieces[:count]
            marks += [(outbox, each.mark) for each in found[:count]]
            size += sum(map(len, pieces[:count]))
        return edus, marks

    async def _catch_up(self, step: CatchUp, queue: Queue) -> Draft | None:
        rooms = await self._loading.missed(queue.name, step.limit)
        if not rooms:
            queue.nothing_missed()
            return None
        pdus, until = await self._fitting([position for _, position in rooms])
        told = tuple(each for each in rooms if until is not None and each[1] <= until)
        contents = Contents(self._id(queue, pdus), tuple(pdus), rooms=told)
        return Draft(contents, self._body(pdus, (), int(self._clock.seconds() * 1000)))

    async def _resume(self, step: Resume, queue: Queue) -> Draft | None:
        page = await self._loading.page(queue.name, (step.after, MAX_PDUS + 1))
        positions = [position for position in page if position <= step.until]
        if not positions or len(positions) > MAX_PDUS:
            queue.nothing_to_resume()
            return None
        pdus = await self._loading.pdus.get(positions)
        contents = Contents(step.id, tuple(pdus), until=step.until)
        return Draft(contents, self._body(pdus, (), int(self._clock.seconds() * 1000)))

    async def _again(self, step: Again) -> Draft:
        pdus = await self._loading.pdus.get(step.contents.pdus)
        return Draft(step.contents, self._body(pdus, step.contents.edus, int(self._clock.seconds() * 1000)))

    async def _fitting(self, positions: Sequence[int]) -> tuple[dict[int, Pdu], int | None]:
        """As many of the events as one transaction has room for, and the position of the last that this is about."""
        if not positions:
            return {}, None
        pdus = await self._loading.pdus.get(positions)
        fitting = max(1, transaction.that_fit([pdu.json for pdu in pdus.values()], transaction.MAX_BYTES))
        if fitting >= len(pdus):
            return pdus, positions[-1]
        kept = dict(list(pdus.items())[:fitting])
        return kept, next(reversed(kept))

    def _id(self, queue: Queue, pdus: Mapping[int, Pdu]) -> str:
        return id_of(queue.name, [pdu.event_id for pdu in pdus.values()], (), "")

    def _body(self, pdus: Mapping[int, Pdu], edus: Sequence[bytes], now: int) -> bytes:
        """The bytes; those of events alone are the same for all servers that are sent them."""
        key = tuple(pdus.values())
        body = None if edus else self._bodies.get(key)
        if body is None:
            body = transaction.body(self._origin, now, (pdu.json for pdu in pdus.values()), edus)
            if not edus:
                self._bodies[key] = body
                while len(self._bodies) > KEPT_BODIES:
                    self._bodies.popitem(last=False)
        return body
