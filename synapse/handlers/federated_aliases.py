"""Room aliases beyond this server: which servers are in a room, and what other servers' aliases lead to.

Server-server API, "Querying for information": `GET /query/directory`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synapse.api.errors import MatrixError, not_found
from synapse.api.identifiers import domain_of, is_room_id, is_server_name
from synapse.federation.errors import FederationError, Refused, matrix_error
from synapse.handlers.aliases import Located

if TYPE_CHECKING:
    from synapse.federation.api import FederationApi
    from synapse.federation.hosts import RoomHosts
    from synapse.sync.shared import SharedWork

MAX_SERVERS: Final = 100
"""Servers named of one room: who wants to join tries the first few."""
CHECKED_WITHIN: Final = 10.0
"""Seconds that a server has for its answer where it is only looked whether an alias leads to a room."""


class FederatedAliases:
    """Answers in any process.

    :param shared: asks once for all who want to know the same at the same time. Nothing is kept: an alias may lead
        elsewhere a moment later, and who follows it wants to be there.
    """

    def __init__(self, hosts: RoomHosts, api: FederationApi, shared: SharedWork[Located], server_name: str) -> None:
        self._hosts = hosts
        self._api = api
        self._shared = shared
        self._server_name = server_name

    async def servers_of(self, room_id: str) -> list[str]:
        """Servers in a room: this one first, where it is in it, then those with the most members."""
        joined = await self._hosts.joined(room_id)
        return sorted(joined, key=lambda each: (each != self._server_name, -joined[each], each))[:MAX_SERVERS]

    async def locate(self, alias: str) -> Located:
        """What an alias of another server leads to. Raises 404 M_NOT_FOUND, 502, 504 where it cannot be asked."""
        return await self._shared.do(alias, lambda: self._ask(alias))

    async def leads_to(self, alias: str) -> str:
        """The room that an alias of another server leads to, asked for quickly: others wait for the answer. Raises as
        `locate` does."""
        return (await self._ask(alias, CHECKED_WITHIN)).room_id

    async def _ask(self, alias: str, within: float | None = None) -> Located:
        server = domain_of(alias)
        try:
            found = await self._api.for_users.directory(server, alias, within=within)
        except FederationError as error:
            raise _explained(error, alias) from error
        if not is_room_id(found.room_id):
            raise not_found(f"The server {server} does not say which room {alias} leads to.")
        # The server that answers knows the room, and may be the one to ask, whether it says so or not.
        servers = [each for each in dict.fromkeys((*found.servers[:MAX_SERVERS], server)) if is_server_name(each)]
        return Located(found.room_id, servers[:MAX_SERVERS])


def _explained(error: FederationError, alias: str) -> MatrixError:
    if isinstance(error, Refused) and error.code == 404:
        return not_found(f"There is no room alias {alias}.")
    return matrix_error(error)
