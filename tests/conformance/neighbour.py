"""Another server, as the town knows it: it signs what it asks, and has a user in one of the town's rooms."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Final

from nacl.signing import SigningKey
from signedjson.key import get_verify_key

from synapse.api.constants import EventTypes
from synapse.api.errors import MatrixError
from synapse.events import builder
from synapse.events.auth_types import cited_types_for
from synapse.events.event import Event
from synapse.events.signing import key_id_of, signature_over
from synapse.federation.authentication import _signed
from synapse.federation.x_matrix import Credentials
from synapse.state.filters import StateFilter
from synapse.storage.persist_events import Fate, Received, ReceivedEvent
from synapse.storage.server_keys import StoredKey
from tests.support.postgres import SERVER_NAME

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver

NAME: Final = "far.test:8448"
USER: Final = f"@fay:{NAME}"
_FOREVER: Final = 2**53
_PREFIXES: Final = ("/_matrix/federation/", "/_matrix/policy/")


class Neighbour:
    """The other server. Its key is known to the town's, so that nobody is asked for it."""

    def __init__(self, hs: Homeserver) -> None:
        self._hs = hs
        key: Any = SigningKey(b"f" * 32)
        key.alg, key.version = "ed25519", "far"
        self.key = key
        self._ms = count(int(hs.reactor.seconds() * 1000))

    async def settle(self) -> None:
        """Lets the server know its key."""
        public = bytes(get_verify_key(self.key))
        await self._hs.federation.key_store.store(NAME, {key_id_of(self.key): StoredKey(public, _FOREVER)}, 0)

    def signs(self, target: str) -> bool:
        """Whether servers ask for that."""
        return target.startswith(_PREFIXES)

    def authorization(self, method: str, target: str, body: bytes) -> str:
        """The header of a request of its own. What is no JSON cannot be signed for, and is not looked at further."""
        credentials = Credentials(NAME, SERVER_NAME, {})
        try:
            message = _signed(method, target, credentials, body)
        except MatrixError:
            message = b""
        signature = signature_over(message, self.key)
        return f'X-Matrix origin="{NAME}",destination="{SERVER_NAME}",key="{key_id_of(self.key)}",sig="{signature}"'

    async def enter(self, room_id: str) -> Event:
        """Joins a room, which anybody may; by an event that comes to the writer checked."""
        join = await self.event(room_id, EventTypes.MEMBER, {"membership": "join"}, USER)
        await self.hand_in(join)
        return join

    async def event(
        self, room_id: str, event_type: str, content: dict[str, Any], state_key: str | None = None
    ) -> Event:
        """An event of its user after all that the room has."""
        memory = self._hs.rooms.memory
        head = await memory.heads.get(room_id)
        assert head is not None
        keys = cited_types_for(head.version, event_type, USER, state_key, content)
        state = await memory.state.current(room_id, StateFilter.keys(keys))
        return builder.build(
            head.version,
            room_id=room_id,
            sender=USER,
            type=event_type,
            content=content,
            prev_events=head.prev_events,
            auth_events=[stored.event.event_id for stored in state.values()],
            depth=head.next_depth,
            origin_server_ts=next(self._ms),
            server_name=NAME,
            signing_key=self.key,
            state_key=state_key,
        )

    async def hand_in(self, event: Event) -> None:
        """Has the server take an event in, as if all checks of its form were made."""
        received = Received(event.room_id, event.room_version, [ReceivedEvent(event)])
        receipt = await self._hs.rooms.receive(received)
        assert receipt.fates[0][0] is Fate.ACCEPTED, receipt
        await self._hs.rooms.caught_up(receipt.position)
