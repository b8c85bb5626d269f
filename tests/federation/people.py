"""People on servers of a federation, and what a test wants to know of their rooms."""

from __future__ import annotations

from typing import Any

from tests.rest.people import PASSWORD, Person
from tests.support.homeserver import TestServer


class Member(Person):
    """A person who can look behind the curtain of their server."""

    def __init__(self, server: TestServer, user_id: str, token: str) -> None:
        super().__init__(server.client, user_id, token)
        self.hs = server.hs

    async def membership(self, room: str, user_id: str) -> str | None:
        """Where somebody stands with a room, as this server sees it."""
        return await self.hs.rooms.memberships.membership(room, user_id)

    async def state_ids(self, room: str) -> set[str]:
        """The ids of the room's present state."""
        return set((await self.hs.rooms.state.current_ids(room)).values())

    async def relay_of(self, event_id: str) -> bool | None:
        """Whether the server passes the event on; None: if it is one of its own."""

        def read(txn: Any) -> bool | None:
            txn.execute("SELECT relay FROM events WHERE event_id = %s", (event_id,))
            found: bool | None = txn.one()[0]
            return found

        return await self.hs.database.read("test.relay", read)


async def member(server: TestServer, name: str) -> Member:
    """A new user of that server."""
    user_id = f"@{name}:{server.hs.config.server.server_name}"
    return Member(server, user_id, await server.client.register(name, PASSWORD))
