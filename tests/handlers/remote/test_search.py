"""Asking servers in turn: which answer ends the search, and what is told where none helps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from synapse.api.errors import MatrixError
from synapse.federation.errors import BadAnswer, FederationError, Refused, Unreachable, refused
from synapse.handlers.remote.search import Search

AWAY = Unreachable("away", "away cannot be reached.")
LATE = Unreachable("late", "late does not answer.", late=True)
LIAR = BadAnswer("liar", "liar speaks nonsense.")


def no(code: int, errcode: str, **fields: object) -> Refused:
    return refused("server", code, {"errcode": errcode, "error": "No.", **fields})


FORBIDDEN = no(403, "M_FORBIDDEN")
UNKNOWN_ROOM = no(404, "M_NOT_FOUND")
GRANT = no(400, "M_UNABLE_TO_GRANT_JOIN")
VERSION = no(400, "M_INCOMPATIBLE_ROOM_VERSION", room_version="nine")
OURS = no(400, "M_INVALID_PARAM")
OWN_CODE = no(400, "M_TEST_ERROR_CODE")
BROKEN = no(500, "M_UNKNOWN")

# What the servers answer in turn (None: help), how many are asked, and what comes of it.
TABLE: list[tuple[Sequence[FederationError | None], int, tuple[int, str] | str]] = [
    ([None, None], 1, "server 0"),
    ([AWAY, LATE, LIAR, UNKNOWN_ROOM, BROKEN, None], 6, "server 5"),
    ([FORBIDDEN, None], 2, "server 1"),
    ([FORBIDDEN, AWAY, FORBIDDEN, None], 3, (403, "M_FORBIDDEN")),
    ([VERSION, None], 1, (400, "M_INCOMPATIBLE_ROOM_VERSION")),
    ([GRANT, GRANT, None], 3, "server 2"),
    ([GRANT, UNKNOWN_ROOM, AWAY], 3, (400, "M_UNABLE_TO_GRANT_JOIN")),
    ([UNKNOWN_ROOM, FORBIDDEN, AWAY], 3, (403, "M_FORBIDDEN")),
    ([OWN_CODE], 1, (400, "M_TEST_ERROR_CODE")),
    ([OURS, AWAY], 2, (502, "M_UNKNOWN")),
    ([AWAY, UNKNOWN_ROOM], 2, (404, "M_NOT_FOUND")),
    ([AWAY, LATE], 2, (504, "M_CONNECTION_TIMEOUT")),
    ([AWAY], 1, (502, "M_CONNECTION_FAILED")),
    ([LIAR], 1, (502, "M_CONNECTION_FAILED")),
    ([], 0, (404, "M_NOT_FOUND")),
]


@pytest.mark.parametrize(("answers", "asked", "expected"), TABLE)
@pytest_twisted.ensureDeferred
async def test_what_ends_the_search(
    answers: Sequence[FederationError | None], asked: int, expected: tuple[int, str] | str
) -> None:
    seen: list[str] = []

    async def ask(server: str) -> str:
        seen.append(server)
        answer = answers[int(server.removeprefix("server "))]
        if answer is not None:
            raise answer
        return server

    search = Search(Clock(), 60.0).first([f"server {n}" for n in range(len(answers))], ask)
    if isinstance(expected, str):
        assert await search == expected
    else:
        with pytest.raises(MatrixError) as raised:
            await search
        assert (raised.value.code, raised.value.errcode) == expected
    assert len(seen) == asked


@pytest_twisted.ensureDeferred
async def test_the_version_of_a_room_that_is_too_new_is_told() -> None:
    async def ask(_server: str) -> str:
        raise VERSION

    with pytest.raises(MatrixError) as raised:
        await Search(Clock(), 60.0).first(["a"], ask)
    assert raised.value.fields == {"room_version": "nine"}


@pytest_twisted.ensureDeferred
async def test_when_the_time_is_up_nobody_else_is_asked() -> None:
    clock = Clock()
    seen: list[str] = []

    async def ask(server: str) -> str:
        seen.append(server)
        clock.advance(40.0)
        raise LATE

    with pytest.raises(MatrixError):
        await Search(clock, 60.0).first(["a", "b", "c"], ask)
    assert seen == ["a", "b"]
