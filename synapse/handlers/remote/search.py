"""Asking several servers for one thing, in turn: which answer ends the search, and what the user hears when none
helps.

A server that is away, speaks nonsense or does not know the room leads to the next. So does a refusal, once: a server
may not have heard yet of the invite that it would have to know, or may lie. Two that refuse are believed, and one whose
word is final by itself: that the room's version is not among ours.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from synapse.api.errors import Codes, MatrixError, not_found
from synapse.federation.errors import BadAnswer, FederationError, Refused, Unreachable, matrix_error

if TYPE_CHECKING:
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

T = TypeVar("T")

REFUSALS: Final = 2
"""So many servers that refuse are believed."""

_FINAL: Final = frozenset({Codes.INCOMPATIBLE_ROOM_VERSION})
_NOT_THE_USERS: Final = frozenset({Codes.MISSING_PARAM, Codes.INVALID_PARAM, Codes.BAD_JSON, Codes.NOT_JSON})
"""Errors of a request that this server made, of which its user knows nothing."""


class Search:
    """Asks servers in turn.

    :param seconds: after so long, no further server is asked.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds

    async def first(self, servers: Sequence[str], ask: Callable[[str], Awaitable[T]]) -> T:
        """The first good answer. `ask` raises FederationError; what else it raises ends the search.

        Raises what `told` makes of the worst that was heard; 404 M_NOT_FOUND where there is nobody to ask.
        """
        deadline = self._clock.seconds() + self._seconds
        errors: list[FederationError] = []
        for server in servers:
            try:
                return await ask(server)
            except FederationError as error:
                logger.info("%s is of no help: %s", server, error.message)
                errors.append(error)
            if _is_final(errors) or self._clock.seconds() >= deadline:
                break
        raise told(errors)


def told(errors: Sequence[FederationError]) -> MatrixError:
    """What a user is told after all these answers: the one that says most."""
    if not errors:
        return not_found(
            "This server is not in that room and knows no server that is. "
            "Name one by 'via', or use an alias or an invite."
        )
    error = max(errors, key=_says)  # the first of those that say the same
    if isinstance(error, Refused) and error.code == 400 and error.errcode in _NOT_THE_USERS:
        return MatrixError(502, Codes.UNKNOWN, f"{error.server} does not accept what this server asks: {error.message}")
    return matrix_error(error)


def is_refusal(error: FederationError) -> bool:
    """Whether the server says that the user may not, and not only that it cannot help."""
    return isinstance(error, Refused) and error.code == 403


def _is_final(errors: Sequence[FederationError]) -> bool:
    last = errors[-1]
    if isinstance(last, Refused) and last.errcode in _FINAL:
        return True
    return sum(map(is_refusal, errors)) >= REFUSALS


def _says(error: FederationError) -> int:
    """How much an error says about the user's wish: a refusal more than a server's own trouble."""
    if isinstance(error, Refused):
        if error.errcode in _FINAL:
            return 7
        if error.code == 403:
            return 6
        if error.code == 400:
            return 5 if error.errcode not in _NOT_THE_USERS else 1
        return 4 if error.code == 404 else 2
    if isinstance(error, BadAnswer):
        return 3
    return 1 if isinstance(error, Unreachable) and error.late else 0
