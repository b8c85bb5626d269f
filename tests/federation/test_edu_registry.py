"""Ephemeral data on their way to who takes them."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.api.errors import MatrixError, forbidden, unknown
from synapse.federation.receiving.edus import EduRegistry
from synapse.storage.errors import DatabaseUnavailable


class Taking:
    def __init__(self, problem: Exception | None = None) -> None:
        self.taken: list[tuple[str, dict[str, Any]]] = []
        self.problem = problem

    async def __call__(self, origin: str, content: dict[str, Any]) -> None:
        self.taken.append((origin, content))
        if self.problem is not None:
            raise self.problem


@pytest_twisted.ensureDeferred
async def test_what_is_well_formed_reaches_its_handler() -> None:
    registry, taking = EduRegistry(), Taking()
    registry.on("m.typing", taking)
    for edu in (None, [], {}, {"edu_type": 1, "content": {}}, {"edu_type": "m.typing"}, {"edu_type": "m.other"}):
        await registry.take("one.test", edu)
    await registry.take("one.test", {"edu_type": "m.other", "content": {}})
    assert taking.taken == []
    await registry.take("one.test", {"edu_type": "m.typing", "content": {"typing": True}})
    assert taking.taken == [("one.test", {"typing": True})]
    with pytest.raises(ValueError, match="taken"):
        registry.on("m.typing", taking)


@pytest.mark.parametrize("problem", [forbidden("No."), ValueError("bug"), unknown("A fault.", 500)])
@pytest_twisted.ensureDeferred
async def test_what_a_handler_does_not_want_or_fails_at_is_dropped(problem: Exception) -> None:
    registry, taking = EduRegistry(), Taking(problem)
    registry.on("m.typing", taking)
    await registry.take("one.test", {"edu_type": "m.typing", "content": {}})
    assert len(taking.taken) == 1


@pytest.mark.parametrize("problem", [DatabaseUnavailable("Away."), unknown("The main process is away.", 503)])
@pytest_twisted.ensureDeferred
async def test_what_cannot_be_done_just_now_is_to_be_sent_again(problem: Exception) -> None:
    registry = EduRegistry()
    registry.on("m.typing", Taking(problem))
    with pytest.raises((MatrixError, DatabaseUnavailable)):
        await registry.take("one.test", {"edu_type": "m.typing", "content": {}})
