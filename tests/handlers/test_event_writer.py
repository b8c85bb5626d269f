"""Events between processes: what arrives is what was sent, and what the writer says comes back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import pytest_twisted

from synapse.api.errors import MatrixError
from synapse.handlers.event_writer import PERSIST, RemoteWriter, WireRequest, answer_calls, from_wire, to_wire
from synapse.replication.calls import LocalMain
from synapse.storage.database import Database
from tests.support.rooms import ALICE, BOB, start


class ByWire(LocalMain):
    """The main process at the other end of a wire: everything is encoded and decoded."""

    async def __call__(self, call: Any, argument: Any) -> Any:
        argument = call.decode_argument(msgspec.json.encode(argument))
        return call.decode_result(msgspec.json.encode(await super().__call__(call, argument)))


@pytest_twisted.ensureDeferred
async def test_a_request_arrives_as_it_was_sent(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room(joined=[BOB], room_alias_name="here", visibility="public", name='"\u2028\x00é')
    message = await cluster.main.say(ALICE, room_id, txn_id="t")
    await cluster.main.redactions.redact(ALICE, room_id, message, {}, "r")
    for request in cluster.requests:
        wire = msgspec.json.decode(msgspec.json.encode(to_wire(request)), type=WireRequest)
        arrived = from_wire(wire)
        assert arrived.events == tuple(new._replace(push=tuple(new.push)) for new in request.events)
        assert [new.event.json for new in arrived.events] == [new.event.json for new in request.events]
        rest = (arrived.room_id, arrived.state_ordering, arrived.may_fork)
        assert rest == (request.room_id, request.state_ordering, request.may_fork)
        if request.room is not None:
            assert arrived.room is not None
            assert arrived.room._replace(aliases=list(arrived.room.aliases)) == request.room


@pytest_twisted.ensureDeferred
async def test_a_whole_conversation_by_wire(database: Database) -> None:
    cluster = await start(database, workers=1)
    main = ByWire()
    direct = cluster.write
    answer_calls(main, direct)
    assert PERSIST.name in main.handlers
    cluster.write = RemoteWriter(main)  # type: ignore[method-assign]  # the worker's way
    worker = cluster.workers[0]
    worker.creation._writer = worker.rooms._writer = RemoteWriter(main)
    room_id = await worker.room(joined=[BOB], room_alias_name="here")
    first = await worker.say(BOB, room_id, txn_id="t")
    assert await worker.say(BOB, room_id, txn_id="t") == first
    with pytest.raises(MatrixError) as caught:
        await worker.room(room_alias_name="here")
    assert caught.value.errcode == "M_ROOM_IN_USE"
