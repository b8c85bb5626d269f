"""The way to other servers: found by their names, over HTTPS."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from synapse.http.exchange import AnswerLate

if TYPE_CHECKING:
    from synapse.federation.discovery import Discovery
    from synapse.http.exchange import ClientAnswer
    from synapse.http.peers import PeerClient
    from synapse.util.clock import Clock


class HttpsTransport:
    """A `Transport` of `federation.client`.

    :param peers: makes the client when there is something to send: it loads OpenSSL.
    """

    def __init__(self, discovery: Discovery, peers: Callable[[], PeerClient], clock: Clock) -> None:
        self._discovery = discovery
        self._peers = peers
        self._clock = clock

    async def send(
        self,
        destination: str,
        method: str,
        path: str,
        body: bytes | None,
        headers: tuple[tuple[str, str], ...],
        *,
        within: float,
        max_answer: int,
    ) -> ClientAnswer:
        """The answer of a server, whatever its status. Raises ClientError."""
        deadline = self._clock.seconds() + within
        route = await self._discovery.find(destination)
        left = deadline - self._clock.seconds()
        if left <= 0:
            raise AnswerLate(f"{destination} was not found within {within:g} seconds.")
        return await self._peers().request(
            route.name,
            route.places,
            method,
            path,
            (("Host", route.header), *headers),
            body,
            within=left,
            max_answer=max_answer,
        )
