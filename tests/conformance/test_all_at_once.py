"""People who ask for anything in any order, many at once: no fault of the server comes of it.

Requests are the examples, asked by whoever, in rooms of all versions, so that most meet something that somebody else
has just changed.
"""

from __future__ import annotations

import logging
import os
from random import Random
from urllib.parse import quote

import orjson
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from synapse.api.room_versions import ROOM_VERSIONS
from tests.conformance.example import Asked, Example
from tests.conformance.examples import served
from tests.conformance.town import PEOPLE, Town
from tests.spec.description import MISSING, description

pytestmark = pytest.mark.skipif(description() is None, reason=MISSING)
SEEDS = range(int(os.environ.get("SYNAPSE_FUZZ_SEEDS", "2")))
ROUNDS, AT_ONCE = 25, 8


@pytest.mark.parametrize("seed", SEEDS)
@pytest_twisted.ensureDeferred
async def test_anything_by_anybody(town: Town, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    await _live(town, seed, caplog)


@pytest.mark.parametrize("seed", SEEDS)
@pytest_twisted.ensureDeferred
async def test_anything_by_anybody_on_workers(workers: Town, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    await _live(workers, seed, caplog)


async def _live(town: Town, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    random = Random(seed)
    rooms = [
        str((await town.post("alice", "/createRoom", {"preset": "public_chat", "room_version": version}))["room_id"])
        for version in random.sample(sorted(ROOM_VERSIONS), 4)
    ]
    for room in rooms:
        await town.post("bob", f"/rooms/{quote(room)}/join")
    problems: list[str] = []
    examples = [example for example in served() if example.user in PEOPLE]  # others end sessions
    for _ in range(ROUNDS):
        asked = [await _somewhere(town, random, random.choice(examples), rooms) for _ in range(AT_ONCE)]
        users = [random.choice(PEOPLE) for _ in asked]
        await gatherResults(
            [Deferred.fromCoroutine(_ask(town, *each, problems)) for each in zip(users, asked, strict=True)]
        )
    assert not problems, "\n".join(problems)
    assert not caplog.records


async def _somewhere(town: Town, random: Random, example: Example, rooms: list[str]) -> Asked:
    """An example in one of the rooms."""
    asked = await town.asked(example, anew=False)
    path = {name: random.choice(rooms) if name.startswith("roomId") else value for name, value in asked.path.items()}
    return Asked(asked.operation, path, asked.query, asked.body, asked.user)


async def _ask(town: Town, user: str, asked: Asked, problems: list[str]) -> None:
    target, body = asked.target(), b"" if asked.body is None else orjson.dumps(asked.body)
    try:
        answer = await town.handle(asked.operation.method, target, body, user)
    except AssertionError as e:
        problems.append(str(e))
        return
    if answer.code >= 500:
        problems.append(f"{user} {asked.operation.method} {target} {body!r}: {answer}")
