"""From where an account is used: its devices, and each one's addresses and programs.

What is told is what `user_ips` has gathered of all processes: some seconds old, and kept as long as
`user_ips_max_age` says. Client-server API, `GET /admin/whois/{userId}`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.errors import forbidden, invalid_param, not_found
from synapse.api.identifiers import domain_of, parse_user_id

if TYPE_CHECKING:
    from synapse.handlers.user_ips import UserIps
    from synapse.http.request import Requester
    from synapse.storage.user_ips import UserIpStore
    from synapse.storage.users import UserStore


class Whois:
    """Answers administrators about everybody, and users about themselves."""

    def __init__(self, store: UserIpStore, sightings: UserIps, users: UserStore, server_name: str) -> None:
        self._store = store
        self._sightings = sightings
        self._users = users
        self._server_name = server_name

    async def ask(self, requester: Requester, user_id: str) -> dict[str, Any]:
        """`user_id` and `devices`, as the specification describes them; connections are the newest first.

        A device's connections are told as one session, since a login replaces the device's token. Raises 403
        M_FORBIDDEN, 400 M_INVALID_PARAM, 404 M_NOT_FOUND.
        """
        parse_user_id(user_id)
        if user_id != requester.user_id:
            await self._check(requester, user_id)
        await self._sightings.flush()
        devices: dict[str, Any] = {}
        for seen in await self._store.of_user(user_id):
            device = devices.setdefault(seen.device_id, {"sessions": [{"connections": []}]})
            connection = {"ip": seen.ip, "last_seen": seen.last_seen_ts, "user_agent": seen.user_agent}
            device["sessions"][0]["connections"].append(connection)
        return {"user_id": user_id, "devices": devices}

    async def _check(self, requester: Requester, user_id: str) -> None:
        if not requester.is_admin:
            raise forbidden("Only administrators of this server may look up others.")
        if domain_of(user_id) != self._server_name:
            raise invalid_param("The user does not belong to this server.")
        if await self._users.get(user_id) is None:
            raise not_found("This server has no such user.")
