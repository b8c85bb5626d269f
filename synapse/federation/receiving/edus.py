"""Ephemeral data of other servers on their way to whom they concern: a registry, by type.

Server-server API, "EDUs".
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from synapse.api.errors import MatrixError
from synapse.federation.receiving.faults import is_passing
from synapse.metrics import table

logger = logging.getLogger(__name__)

EduHandler = Callable[[str, dict[str, Any]], Awaitable[None]]
"""Is handed the server that sent it and the content, which may be anything that JSON can say.

It raises a MatrixError for what it does not want: that is dropped then, as is what it fails at. Where this server
cannot do it just now (a `Problem`, or a MatrixError 429, 502, 503, 504), the other one is told to send its transaction
again.
"""


class EduRegistry:
    """Who takes which type."""

    def __init__(self) -> None:
        self._handlers: dict[str, EduHandler] = {}

    def on(self, edu_type: str, handler: EduHandler) -> None:
        """Has `handler(origin, content)` take what comes of that type, in the order in which an origin sends it."""
        if edu_type in self._handlers:
            raise ValueError(f"{edu_type} is taken already")
        self._handlers[edu_type] = handler

    async def take(self, origin: str, edu: Any) -> None:
        """Hand over what came in a transaction; drops what is malformed, and what nobody takes."""
        edu_type = edu.get("edu_type") if isinstance(edu, dict) else None
        content = edu.get("content") if isinstance(edu, dict) else None
        if not isinstance(edu_type, str) or not isinstance(content, dict):
            logger.info("%s sent ephemeral data that is not well-formed", origin)
            return
        handler = self._handlers.get(edu_type)
        if handler is None:
            logger.debug("%s sent ephemeral data of a type that is not known: %.100r", origin, edu_type)
            return
        table.FEDERATION_EDUS_RECEIVED.child(edu_type).inc()
        try:
            await handler(origin, content)
        except Exception as error:
            if is_passing(error):
                raise
            if isinstance(error, MatrixError) and error.code < 500:
                logger.info("%s of %s is dropped: %s", edu_type, origin, error.message)
            else:
                logger.error("%s of %s could not be looked at", edu_type, origin, exc_info=error)
