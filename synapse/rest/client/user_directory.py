"""The endpoint of the user directory. Client-server API, "User Directory"."""

from __future__ import annotations

from typing import Any

import msgspec

from synapse.handlers.user_directory import UserDirectory
from synapse.http.server import Request, serves


class SearchBody(msgspec.Struct, frozen=True):
    """The body of `POST /user_directory/search`."""

    search_term: str
    limit: int = 10


class UserDirectoryEndpoints:
    """`/user_directory/search`."""

    def __init__(self, directory: UserDirectory) -> None:
        self._directory = directory

    @serves("user_directory_search")
    async def search(self, request: Request) -> dict[str, Any]:
        body = request.body_as(SearchBody)
        return await self._directory.search(request.user.user_id, body.search_term, body.limit)
