"""Policy servers: in a room that has one, it signs each event before the event is sent, or says why not. Events of
other servers that come without its signature are brought to it too.

The room names it in m.room.policy, with the key that its signatures are checked with; it counts as long as somebody of
it is in the room. Changing m.room.policy itself needs no signature, so a room is never at its mercy.

Client-server API, "Policy Servers"; server-server API, "Policy Servers".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import Codes, MatrixError, limit_exceeded
from synapse.api.identifiers import domain_of, is_server_name
from synapse.events.event import Event
from synapse.events.hashes import essential_bytes
from synapse.events.signing import SignatureError, signatures_by, verify
from synapse.federation.errors import OF_THE_TOKEN, FederationError, Refused, Unreachable
from synapse.handlers.event_creation import POLICY

if TYPE_CHECKING:
    from synapse.api.room_versions import RoomVersion
    from synapse.federation.api import FederationApi
    from synapse.handlers.event_creation import State
    from synapse.state.store import StateReader
    from synapse.storage.memberships import MembershipsStore
    from synapse.util.caches import LruCache

KEY_ID: Final = "ed25519:policy_server"
WITHIN: Final = 10.0  # seconds that a sender waits for the policy server


class Policy(NamedTuple):
    """What m.room.policy says: the server, and its public key in base64."""

    via: str
    key: str


class OwnService(Protocol):
    """The policy server that this server is itself; see `handlers.doors.policy`."""

    @property
    def public_key(self) -> str:
        """In unpadded base64."""

    def sign(self, raw: Mapping[str, Any], version: RoomVersion) -> str:
        """The signature of an event in federation form. Raises MatrixError where it is not given."""


class PolicyServers:
    """Has events signed by their rooms' policy servers. An `Endorser` of `EventCreation`.

    :param federation: what other servers are asked by, made when it is needed.
    :param witnesses: remembers somebody of the policy server who is in the room, by room and server.
    :param own: what answers where the room's policy server is this one.
    """

    def __init__(
        self,
        federation: Callable[[], FederationApi],
        state: StateReader,
        store: MembershipsStore,
        witnesses: LruCache[tuple[str, str], str],
        server_name: str = "",
        own: Callable[[], OwnService | None] = lambda: None,
    ) -> None:
        self._server_name = server_name
        self._own = own
        self._federation = federation
        self._state = state
        self._store = store
        self._witnesses = witnesses

    async def __call__(self, event: Event, state: State) -> Event:
        """The event with the signature of its room's policy server, where the room uses one.

        Raises what the policy server answers; 403 M_FORBIDDEN where its signature is not right; 502
        M_CONNECTION_FAILED or 504 M_CONNECTION_TIMEOUT where it does not answer: the event must not be sent then.
        """
        policy = await self._in_force(event, state)
        return event if policy is None else await self._asked(event, policy)

    async def check_received(self, event: Event) -> Event:
        """An event of another server, as it may be shown: with a right signature of its room's policy server, which is
        asked for one where it is missing, or made with another key.

        Raises what `__call__` does where there is none: the event is to be soft-failed then.
        """
        state = await self._state.current(event.room_id, [POLICY])
        return await self._recommended(event, state) if POLICY in state else event

    async def objection(self, event: Event, state: State) -> str | None:
        """Why an event of another server is to be soft-failed; None where it need not be. `state` is the room's present
        one, `POLICY` included."""
        try:
            await self._recommended(event, state)
        except MatrixError as error:
            return error.message
        return None

    async def _recommended(self, event: Event, state: State) -> Event:
        policy = await self._in_force(event, state)
        if policy is None:
            return event
        signature = signatures_by(event.raw, policy.via).get(KEY_ID)
        if signature is not None and _is_right(event, policy, signature):
            return event
        return await self._asked(event, policy)

    async def _in_force(self, event: Event, state: State) -> Policy | None:
        """The policy server whose signature the event needs."""
        policy = policy_of(state[POLICY].shown.content)
        if policy is None or (event.type, event.state_key) == POLICY:
            return None
        return policy if await self._is_in_room(event.room_id, policy.via) else None

    async def _asked(self, event: Event, policy: Policy) -> Event:
        if policy.via == self._server_name:
            return self._signed_here(event, policy)
        try:
            answer = await self._federation().policy_sign(policy.via, event.raw, within=WITHIN)
        except Refused as error:
            raise _refusal(error) from None
        except FederationError as error:
            raise _silence(error, policy) from None
        return _signed(event, policy, _signature_in(answer, policy))

    def _signed_here(self, event: Event, policy: Policy) -> Event:
        own = self._own()
        if own is None or own.public_key != policy.key:
            sentence = "The room has chosen this server as its policy server, which it is not, or not by that key."
            raise MatrixError(403, Codes.FORBIDDEN, sentence)
        return _signed(event, policy, own.sign(event.raw, event.room_version))

    async def _is_in_room(self, room_id: str, server: str) -> bool:
        """Whether somebody of the server is joined. No statement while the one who was seen last still is."""
        place = (room_id, server)
        witness = self._witnesses.get(place)
        if witness is not None:
            member = (EventTypes.MEMBER, witness)
            state = await self._state.current(room_id, [member])
            if member in state and state[member].event.membership == Membership.JOIN:
                return True
        found = await self._store.joined_of_server(room_id, server)
        if found is None or domain_of(found) != server:
            return False
        self._witnesses.set(place, found)
        return True


def policy_of(content: dict[str, Any]) -> Policy | None:
    """The policy server that an m.room.policy names; None unless it is valid."""
    via, keys = content.get("via"), content.get("public_keys")
    key = keys.get("ed25519") if isinstance(keys, dict) else None
    if not isinstance(via, str) or not isinstance(key, str) or not is_server_name(via):
        return None
    return Policy(via, key)


def _signature_in(answer: Mapping[str, Any], policy: Policy) -> str | None:
    """The signature that a policy server gives, right or wrong."""
    by_server = answer.get(policy.via)
    signature = by_server.get(KEY_ID) if isinstance(by_server, dict) else None
    return signature if isinstance(signature, str) else None


def _signed(event: Event, policy: Policy, signature: str | None) -> Event:
    if signature is None or not _is_right(event, policy, signature):
        sentence = f"The policy server of this room, {policy.via}, did not sign the event with its key."
        raise MatrixError(403, Codes.FORBIDDEN, sentence)
    signatures = {name: dict(keys) for name, keys in event.raw["signatures"].items()}
    signatures.setdefault(policy.via, {})[KEY_ID] = signature
    return Event.from_json({**event.raw, "signatures": signatures}, event.room_version, event_id=event.event_id)


def _is_right(event: Event, policy: Policy, signature: str) -> bool:
    from signedjson.key import decode_verify_key_bytes
    from unpaddedbase64 import decode_base64

    try:
        key = decode_verify_key_bytes(KEY_ID, decode_base64(policy.key))
        verify(essential_bytes(event.raw, event.room_version), signature, key)
    except (SignatureError, ValueError, TypeError):
        return False
    return True


def _refusal(error: Refused) -> MatrixError:
    """The policy server's error in its own words, as far as they are an error of its API."""
    if error.code == 429:
        return limit_exceeded(error.retry_after_ms or 1000, error.message)
    if error.code not in (400, 403, 404) or error.errcode == Codes.UNKNOWN or error.errcode in OF_THE_TOKEN:
        return MatrixError(error.code if error.code in (400, 403) else 403, Codes.FORBIDDEN, error.message)
    return MatrixError(error.code, error.errcode, error.message)


def _silence(error: FederationError, policy: Policy) -> MatrixError:
    if isinstance(error, Unreachable) and error.late:
        sentence = f"The policy server of this room, {policy.via}, does not answer. Please try again later."
        return MatrixError(504, Codes.CONNECTION_TIMEOUT, sentence)
    sentence = f"The policy server of this room, {policy.via}, cannot be reached. Please try again later."
    return MatrixError(502, Codes.CONNECTION_FAILED, sentence)
