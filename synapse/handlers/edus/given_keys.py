"""Keys and devices of this server's users, as other servers are given them: nothing that a stranger may not see.

User-signing keys, and what is signed with them, are private; the names of devices are told only where the
administrator lets them. Server-server API, "Device Management", "End-to-End Encryption".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from synapse.api.errors import not_found
from synapse.api.identifiers import domain_of
from synapse.federation.outboxes.chain import list_id
from synapse.storage.device_lists_outbox import Told
from synapse.storage.shown_keys import ShownKeys

if TYPE_CHECKING:
    from synapse.federation.hosts import RoomHosts
    from synapse.handlers.key_query import KeyQuery
    from synapse.handlers.keys import Keys
    from synapse.replication.contacts import RoomsOf
    from synapse.storage.device_lists_outbox import DeviceListOutboxStore
    from synapse.storage.published_keys import PublishedKeyStore


class GivenKeys:
    """Answers other servers, in any process.

    :param position: how far this process has heard of the stream `device_lists`.
    """

    def __init__(
        self,
        published: PublishedKeyStore,
        outbox: DeviceListOutboxStore,
        query: KeyQuery,
        keys: Keys,
        rooms_of: RoomsOf,
        hosts: RoomHosts,
        position: Callable[[], int],
        server_name: str,
        *,
        with_names: bool,
    ) -> None:
        self._published = published
        self._outbox = outbox
        self._query = query
        self._keys = keys
        self._rooms_of = rooms_of
        self._hosts = hosts
        self._position = position
        self._server_name = server_name
        self._with_names = with_names

    async def devices(self, origin: str, user_id: str) -> dict[str, Any]:
        """`GET /user/devices/{userId}`. Raises 404.

        A server that shares a room with the user is told of what changes from there on.
        """
        # First of all: the list may be newer than it says, but must not be older.
        latest = await self._outbox.latest(user_id, self._position())
        published = await self._published.of_users([user_id], "")
        if domain_of(user_id) != self._server_name or not published.users:
            raise not_found("There is no such user here.")
        shown = ShownKeys(published, "")
        devices = []
        for each in published.devices:
            device: dict[str, Any] = {"device_id": each.device_id, "keys": shown.device(each, with_name=False)}
            del device["keys"]["unsigned"]
            if self._with_names and each.display_name is not None:
                device["device_display_name"] = each.display_name
            devices.append(device)
        signing = {f"{usage}_key": key for _, usage, key in shown.signing_keys()}
        if await self._shares_room(origin, user_id):
            await self._outbox.told([(origin, user_id, Told(latest, list_id(latest)))])
        return {"user_id": user_id, "stream_id": list_id(latest), "devices": devices, **signing}

    async def query(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /user/keys/query`; of others' users nothing is told. Raises 400."""
        return await self._query.for_server(body, with_names=self._with_names)

    async def claim(self, body: dict[str, Any]) -> dict[str, Any]:
        """`POST /user/keys/claim`; nothing of others' users is given. Raises 400."""
        return await self._keys.claim_for_server(body)

    async def _shares_room(self, origin: str, user_id: str) -> bool:
        rooms = (await self._rooms_of([user_id])).get(user_id, ())
        return any(origin in servers for servers in (await self._hosts.joined_many(rooms)).values())
