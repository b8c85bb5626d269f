"""What this server asks of others: a typed method for each operation of the server-server API that it uses.

Answers are bounded, decoded off the reactor where they are large, and of the shape that is declared; whatever else
comes of it is a `FederationError`: `Unreachable`, `Refused` or `BadAnswer`. Nothing in an answer is believed: events
are unchecked, names and ids may be anything.

A server that has not answered of late is not asked (`Unreachable`), except through `for_users`, by which a user's own
wish is tried all the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlencode

from synapse.api.errors import Codes
from synapse.federation import answers
from synapse.federation.answers import (
    AliasAnswer,
    ClaimedKeys,
    Hierarchy,
    JoinAnswer,
    Json,
    NearestEvent,
    Pdus,
    PublicRooms,
    RoomState,
    RoomStateIds,
    ServerVersion,
    Template,
    UserDevices,
    UserKeys,
)
from synapse.federation.client import Canonical, Insistence
from synapse.federation.errors import BadAnswer, Refused, refused

if TYPE_CHECKING:
    from synapse.api.room_versions import RoomVersion
    from synapse.federation.client import FederationClient
    from synapse.http.exchange import ClientAnswer

T = TypeVar("T")

Args = Mapping[str, str | Sequence[str]]
InThread = Callable[..., Awaitable[Any]]

V1: Final = "/_matrix/federation/v1/"
V2: Final = "/_matrix/federation/v2/"
KEYS: Final = "/_matrix/key/v2/"
SIGN: Final = "/_matrix/policy/v1/sign"

MAX_SMALL: Final = 1 << 20  # bytes of answers that hold an event or less
MAX_PAGE: Final = 16 << 20  # of those that hold some
MAX_ROOM: Final = 256 << 20  # of those that hold the state of a room
JOINING: Final = 600.0  # seconds for answers with the state of a room
_IN_THREAD: Final = 64 << 10  # bytes from which on decoding is done elsewhere


class FederationApi:
    """Asks other servers. `destination` is always a valid server name.

    :param in_thread: runs a function on another thread.
    """

    def __init__(self, client: FederationClient, in_thread: InThread, *, despite_backoff: bool = False) -> None:
        self._client = client
        self._in_thread = in_thread
        self._despite_backoff = despite_backoff

    @property
    def for_users(self) -> FederationApi:
        """The same for what a user wishes and waits for: servers that have not answered of late are asked, too."""
        return FederationApi(self._client, self._in_thread, despite_backoff=True)

    # -- servers and their keys ----------------------------------------------------------------------------------------

    async def version(self, destination: str) -> ServerVersion:
        """Which implementation it is."""
        return await self._get(destination, V1 + "version", kind=ServerVersion, signed=False)

    async def server_keys(self, destination: str, *, within: float | None = None) -> Json:
        """The server's own keys, unchecked."""
        return await self._get(destination, KEYS + "server", kind=Json, signed=False, within=within, noted=False)

    async def notarised_keys_of_many(
        self, destination: str, wanted: Mapping[str, Mapping[str, int]], *, within: float | None = None
    ) -> list[Json]:
        """The keys of many servers: by server and key id, until when (milliseconds) they are to be valid."""
        criteria = {
            server: {key_id: {"minimum_valid_until_ts": until} for key_id, until in keys.items()}
            for server, keys in wanted.items()
        }
        content = {"server_keys": criteria}
        found = await self._send(
            "POST", destination, KEYS + "query", content, answers.WireServerKeys, max_answer=MAX_PAGE, within=within
        )
        return found.server_keys

    # -- transactions --------------------------------------------------------------------------------------------------

    async def send_transaction(self, destination: str, txn_id: str, content: Canonical) -> dict[str, Json]:
        """Sends events and EDUs; what the server says of each event: {} or {"error": …}.

        Whoever sends keeps by itself that the server does not answer, and tries again.
        """
        path = f"{V1}send/{_part(txn_id)}"
        found = await self._send("PUT", destination, path, content, answers.WireTransaction, noted=False)
        return found.answer()

    # -- events --------------------------------------------------------------------------------------------------------

    async def event(self, destination: str, event_id: str) -> Json:
        """One event."""
        found = await self._pdus(destination, f"{V1}event/{_part(event_id)}", {}, MAX_SMALL)
        if len(found) != 1:
            raise BadAnswer(destination, f"{destination} answers with {len(found)} events where one was asked for.")
        return found[0]

    async def state(self, destination: str, room_id: str, event_id: str) -> RoomState:
        """The state of a room before an event, and its auth chain."""
        path = f"{V1}state/{_part(room_id)}"
        found = await self._get(
            destination, path, {"event_id": event_id}, kind=answers.WireState, max_answer=MAX_ROOM, within=JOINING
        )
        return RoomState(Pdus(found.pdus), Pdus(found.auth_chain))

    async def state_ids(self, destination: str, room_id: str, event_id: str) -> RoomStateIds:
        """The same as ids."""
        path = f"{V1}state_ids/{_part(room_id)}"
        return await self._get(
            destination,
            path,
            {"event_id": event_id},
            kind=RoomStateIds,
            max_answer=MAX_PAGE,
            insistence=Insistence.SHORT,
        )

    async def event_auth(self, destination: str, room_id: str, event_id: str) -> Pdus:
        """The auth chain of an event."""
        path = f"{V1}event_auth/{_part(room_id)}/{_part(event_id)}"
        return Pdus((await self._get(destination, path, kind=answers.WireAuthChain, max_answer=MAX_ROOM)).auth_chain)

    async def backfill(self, destination: str, room_id: str, event_ids: Sequence[str], limit: int) -> Pdus:
        """Events and what came before them, newest first."""
        path = f"{V1}backfill/{_part(room_id)}"
        return await self._pdus(destination, path, {"v": event_ids, "limit": str(limit)}, MAX_PAGE)

    async def missing_events(
        self,
        destination: str,
        room_id: str,
        *,
        earliest: Collection[str],
        latest: Collection[str],
        limit: int,
        min_depth: int = 0,
    ) -> Pdus:
        """The events between `earliest` and `latest`, both excluded."""
        content = {
            "earliest_events": list(earliest),
            "latest_events": list(latest),
            "limit": limit,
            "min_depth": min_depth,
        }
        path = f"{V1}get_missing_events/{_part(room_id)}"
        found = await self._send("POST", destination, path, content, answers.WireEvents, max_answer=MAX_PAGE)
        return Pdus(found.events)

    async def timestamp_to_event(self, destination: str, room_id: str, ts: int, direction: str) -> NearestEvent:
        """The event nearest to a moment (milliseconds), in the direction `f` or `b`."""
        path = f"{V1}timestamp_to_event/{_part(room_id)}"
        return await self._get(destination, path, {"ts": str(ts), "dir": direction}, kind=NearestEvent)

    # -- memberships ---------------------------------------------------------------------------------------------------

    async def make_join(self, destination: str, room_id: str, user_id: str, versions: Sequence[str]) -> Template:
        """A join to be completed, of a room whose version may be one of these."""
        return await self._template(destination, "make_join", room_id, user_id, {"ver": versions})

    async def make_knock(self, destination: str, room_id: str, user_id: str, versions: Sequence[str]) -> Template:
        """A knock to be completed."""
        return await self._template(destination, "make_knock", room_id, user_id, {"ver": versions})

    async def make_leave(self, destination: str, room_id: str, user_id: str) -> Template:
        """A leave to be completed."""
        return await self._template(destination, "make_leave", room_id, user_id, {})

    async def send_join(
        self, destination: str, room_id: str, event_id: str, event: Json, *, omit_members: bool = False
    ) -> JoinAnswer:
        """Hands in a join; the room as it was before it."""
        rest = f"send_join/{_part(room_id)}/{_part(event_id)}"
        query = "?omit_members=true" if omit_members else ""
        found = await self._either(
            destination, V2 + rest + query, V1 + rest, event, answers.WireJoin, max_answer=MAX_ROOM, within=JOINING
        )
        return found.answer()

    async def send_leave(self, destination: str, room_id: str, event_id: str, event: Json) -> None:
        """Hands in a leave."""
        rest = f"send_leave/{_part(room_id)}/{_part(event_id)}"
        await self._either(destination, V2 + rest, V1 + rest, event, dict[str, Any])

    async def send_knock(self, destination: str, room_id: str, event_id: str, event: Json) -> list[Json]:
        """Hands in a knock; the stripped state of the room."""
        path = f"{V1}send_knock/{_part(room_id)}/{_part(event_id)}"
        found = await self._send("PUT", destination, path, event, answers.WireKnock, max_answer=MAX_PAGE)
        return found.knock_room_state

    async def invite(
        self, destination: str, room_id: str, event_id: str, event: Json, version: RoomVersion, stripped: Sequence[Json]
    ) -> Json:
        """Invites a user of the server; the invite with the server's signature.

        In rooms of version 1 or 2, servers that know the old form alone are asked in it.
        """
        rest = f"invite/{_part(room_id)}/{_part(event_id)}"
        content = {"event": event, "room_version": str(version), "invite_room_state": list(stripped)}
        try:
            found = await self._send("PUT", destination, V2 + rest, content, answers.WireInvite)
        except Refused as error:
            if error.code not in (400, 404) or str(version) not in ("1", "2") or error.errcode == Codes.FORBIDDEN:
                raise
            old = {**event, "unsigned": {**event.get("unsigned", {}), "invite_room_state": list(stripped)}}
            found = await self._first_form(destination, V1 + rest, old, answers.WireInvite)
        return found.answer()

    async def exchange_third_party_invite(self, destination: str, room_id: str, event: Json) -> None:
        """Has a server of the room turn an invite by e-mail into one of a user."""
        path = f"{V1}exchange_third_party_invite/{_part(room_id)}"
        await self._send("PUT", destination, path, event, dict[str, Any])

    # -- directories ---------------------------------------------------------------------------------------------------

    async def public_rooms(
        self,
        destination: str,
        *,
        limit: int | None = None,
        since: str | None = None,
        search: Json | None = None,
        include_all_networks: bool = False,
        third_party_instance_id: str | None = None,
    ) -> PublicRooms:
        """A page of the server's room directory; `search` is the filter."""
        wanted: Json = {"include_all_networks": include_all_networks}
        given = {"limit": limit, "since": since, "third_party_instance_id": third_party_instance_id}
        wanted |= {name: value for name, value in given.items() if value is not None}
        path = V1 + "publicRooms"
        if search:
            content = {**wanted, "filter": search}
            return await self._send("POST", destination, path, content, PublicRooms, max_answer=MAX_PAGE)
        args = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in wanted.items()}
        return await self._get(destination, path, args, kind=PublicRooms, max_answer=MAX_PAGE)

    async def directory(self, destination: str, alias: str, *, within: float | None = None) -> AliasAnswer:
        """Which room an alias of the server means."""
        path = V1 + "query/directory"
        return await self._get(destination, path, {"room_alias": alias}, kind=AliasAnswer, within=within)

    async def profile(self, destination: str, user_id: str, field: str | None = None) -> Json:
        """A user's profile, or one field of it."""
        return await self.query(
            destination, "profile", {"user_id": user_id} | ({} if field is None else {"field": field})
        )

    async def query(self, destination: str, query_type: str, args: Args) -> Json:
        """A query of any type."""
        return await self._get(destination, f"{V1}query/{_part(query_type)}", args, kind=Json)

    async def hierarchy(self, destination: str, room_id: str, *, suggested_only: bool = False) -> Hierarchy:
        """A room of a space, and its children."""
        path = f"{V1}hierarchy/{_part(room_id)}"
        args = {"suggested_only": str(suggested_only).lower()}
        return await self._get(destination, path, args, kind=Hierarchy, max_answer=MAX_PAGE)

    # -- users, their devices and keys ---------------------------------------------------------------------------------

    async def user_devices(self, destination: str, user_id: str) -> UserDevices:
        """All devices of a user."""
        path = f"{V1}user/devices/{_part(user_id)}"
        return await self._get(destination, path, kind=UserDevices, max_answer=MAX_PAGE)

    async def query_user_keys(
        self, destination: str, device_keys: Mapping[str, Sequence[str]], *, within: float | None = None
    ) -> UserKeys:
        """Keys of users: those of the named devices, or of all where none is named."""
        content = {"device_keys": {user_id: list(devices) for user_id, devices in device_keys.items()}}
        return await self._send(
            "POST", destination, V1 + "user/keys/query", content, UserKeys, max_answer=MAX_PAGE, within=within
        )

    async def claim_user_keys(
        self, destination: str, wanted: Mapping[str, Mapping[str, str]], *, within: float | None = None
    ) -> ClaimedKeys:
        """One-time keys: by user and device, the algorithm."""
        content = {"one_time_keys": {user_id: dict(devices) for user_id, devices in wanted.items()}}
        return await self._send(
            "POST", destination, V1 + "user/keys/claim", content, ClaimedKeys, max_answer=MAX_PAGE, within=within
        )

    async def policy_sign(self, destination: str, event: Json, *, within: float | None = None) -> Json:
        """Has a policy server sign an event: signatures by server and key id."""
        return await self._send("POST", destination, SIGN, event, dict[str, Any], within=within)

    # -- how it is asked -----------------------------------------------------------------------------------------------

    async def _template(self, destination: str, what: str, room_id: str, user_id: str, args: Args) -> Template:
        return await self._get(destination, f"{V1}{what}/{_part(room_id)}/{_part(user_id)}", args, kind=Template)

    async def _pdus(self, destination: str, path: str, args: Args, max_answer: int) -> Pdus:
        found = await self._get(
            destination, path, args, kind=answers.WirePdus, max_answer=max_answer, insistence=Insistence.SHORT
        )
        return Pdus(found.pdus)

    async def _get(
        self,
        destination: str,
        path: str,
        args: Args | None = None,
        *,
        kind: type[T],
        max_answer: int = MAX_SMALL,
        within: float | None = None,
        signed: bool = True,
        noted: bool = True,
        insistence: Insistence = Insistence.NONE,
    ) -> T:
        query = "?" + urlencode(args, doseq=True) if args else ""
        answer = await self._client.request(
            destination,
            "GET",
            path + query,
            max_answer=max_answer,
            within=within,
            signed=signed,
            noted=noted,
            insistence=insistence,
            despite_backoff=self._despite_backoff,
        )
        return await self._decoded(destination, answer, kind)

    async def _send(
        self,
        method: str,
        destination: str,
        path: str,
        content: Json | Canonical,
        kind: type[T],
        *,
        max_answer: int = MAX_SMALL,
        within: float | None = None,
        noted: bool = True,
    ) -> T:
        answer = await self._client.request(
            destination,
            method,
            path,
            content,
            max_answer=max_answer,
            within=within,
            noted=noted,
            despite_backoff=self._despite_backoff,
        )
        return await self._decoded(destination, answer, kind)

    async def _either(
        self, destination: str, path: str, first_form: str, content: Json, kind: type[T], **options: Any
    ) -> T:
        """Asks for the second form of an operation, and for the first where the server knows that one alone."""
        try:
            return await self._send("PUT", destination, path, content, kind, **options)
        except Refused as error:
            if not error.is_unrecognized:
                raise
        return await self._first_form(destination, first_form, content, kind, **options)

    async def _first_form(self, destination: str, path: str, content: Json, kind: type[T], **options: Any) -> T:
        # Their answers are wrapped into an array, after the status.
        found = await self._send("PUT", destination, path, content, tuple[int, kind], **options)  # type: ignore[valid-type]  # a type made at run time
        return found[1]

    async def _decoded(self, destination: str, answer: ClientAnswer, kind: type[T]) -> T:
        if answer.code != 200:
            raise refused(destination, answer.code, answer.json_object())
        try:
            if len(answer.body) < _IN_THREAD:
                return answers.decode(answer.body, kind)
            found: T = await self._in_thread(answers.decode, answer.body, kind)
            return found
        except ValueError as error:
            sentence = f"The answer of {destination} is not as it should be: {str(error)[:200]}"
            raise BadAnswer(destination, sentence) from error


def _part(text: str) -> str:
    """A part of a path."""
    return quote(text, safe="")
