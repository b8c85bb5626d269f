"""Stripped state that other servers give: what cannot be kept is shown to nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from synapse.api.constants import MAX_EVENT_BYTES
from synapse.api.room_versions import ROOM_VERSIONS
from synapse.handlers.stripped_state import cut, taken
from synapse.util.storable import MAX_DEPTH

NAME = {"type": "m.room.name", "state_key": "", "sender": "@a:there.test", "content": {"name": "N"}}


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "content",
    [None, [], "x", {"n": 10**30}, {"name": "x" * MAX_EVENT_BYTES}, nested(MAX_DEPTH + 1)],
)
def test_what_cannot_be_kept_is_left_out(content: Any) -> None:
    topic = {**NAME, "type": "m.room.topic", "content": content}
    assert cut([topic, NAME]) == [NAME]
    assert cut([NAME, {**NAME, "content": content}]) == [NAME]


def test_what_old_events_could_say_is_not() -> None:
    odd = {**NAME, "content": {"name": "N\x00", "half": 1.5, "vast": 1e30, "deep": nested(MAX_DEPTH - 2)}}
    assert cut([odd]) == [odd]


@pytest.mark.parametrize("change", [{"type": "m.room.power_levels"}, {"state_key": "x"}, {"sender": "a"}, {"type": 5}])
def test_what_is_no_stripped_state_is_left_out(change: dict[str, Any]) -> None:
    assert cut([{**NAME, **change}, NAME]) == [NAME]


@ensureDeferred
async def test_short_forms_are_of_the_versions_that_have_them() -> None:
    class Checks:
        async def check_many(self, raws: Sequence[Any], *_: Any, **__: Any) -> list[Any]:
            return list(raws)

    checks: Any = Checks()
    for version, shown in (("11", [NAME]), ("12", [])):
        assert await taken([{**NAME, "more": 1}], ROOM_VERSIONS[version], "!r:there.test", checks) == shown
