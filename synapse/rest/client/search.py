"""The endpoint that searches messages. Client-server API, "Server Side Search"."""

from __future__ import annotations

from synapse.handlers.search import SearchHandler
from synapse.handlers.search_wish import SearchBody
from synapse.http.server import RawJson, Request, serves


class SearchEndpoint:
    """`/search`."""

    def __init__(self, search: SearchHandler) -> None:
        self._search = search

    @serves("search")
    async def search(self, request: Request) -> RawJson:
        body = request.body_as(SearchBody)
        return RawJson(await self._search.search(request.user, body, request.arg("next_batch")))
