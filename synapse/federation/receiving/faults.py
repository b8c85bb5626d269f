"""What goes wrong while events of others are taken in, by what is to be done about it."""

from __future__ import annotations

from typing import Final

from synapse.api.errors import MatrixError
from synapse.federation.errors import Denied, FederationError, Refused, Unreachable
from synapse.util.problems import Problem

_PASSING: Final = frozenset({429, 502, 503, 504})


class Later(str):
    """Why an event is not kept now, where it may be when it is looked at again: something could not be fetched."""

    __slots__ = ()


class Unfit(Exception):
    """An event that is not kept, and why: a sentence for the server that sent it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def is_passing(error: Exception) -> bool:
    """Whether it is this server that cannot do it just now (no database, no main process), and not the other server's
    doing: whoever sent it should send it again."""
    return isinstance(error, Problem) or (isinstance(error, MatrixError) and error.code in _PASSING)


def may_answer_later(error: FederationError) -> bool:
    """Whether a server that could not be asked, or did not answer, may do so another time."""
    if isinstance(error, Refused):
        return error.code == 429 or error.code >= 500
    return isinstance(error, Unreachable) and not isinstance(error, Denied)
