"""Whatever is wrong with a request, it is refused in the specification's words, and nothing comes of it."""

from __future__ import annotations

import logging

import orjson
import pytest
import pytest_twisted

from synapse.api.routes import route_of
from synapse.http.server import Answer
from tests.conformance.example import Asked, Example
from tests.conformance.examples import served
from tests.conformance.mutations import encoded
from tests.conformance.town import Town
from tests.conformance.trials import problems_of
from tests.spec.description import MISSING, description

SERVED = served()
described = description()
pytestmark = pytest.mark.skipif(described is None, reason=MISSING)


@pytest.mark.parametrize("example", SERVED, ids=str)
@pytest_twisted.ensureDeferred
async def test_what_is_wrong_is_refused(town: Town, example: Example, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    problems = await problems_of(town, example)
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:40])
    assert not caplog.records


def _is_routed(example: Example) -> bool:
    described_as = described.operation(example.operation) if described is not None else None
    return (
        described_as is not None and route_of(described_as.method, described_as.prefix + described_as.path) is not None
    )


@pytest.mark.parametrize("example", list(filter(_is_routed, SERVED)), ids=str)
@pytest_twisted.ensureDeferred
async def test_what_is_wrong_is_refused_by_workers(
    workers: Town, example: Example, caplog: pytest.LogCaptureFixture
) -> None:
    """Refusals of the main process come through; what a worker refuses never gets there."""
    caplog.set_level(logging.ERROR)
    problems = await problems_of(workers, example, lambda mutation: mutation.wants_no_waiting)
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:40])
    assert not caplog.records


@pytest.mark.parametrize("example", SERVED, ids=str)
@pytest_twisted.ensureDeferred
async def test_who_asks_is_asked_for(town: Town, example: Example) -> None:
    asked = await town.asked(example)
    method, target, body = asked.operation.method, asked.target(), encoded(asked)
    if asked.operation.needs_token:
        anybody = await town.handle(method, target, body, None)
        assert (anybody.code, orjson.loads(anybody.body)["errcode"]) == (401, "M_MISSING_TOKEN")
        for token in ("x", "syt_YWxpY2U_aaaaaaaaaaaaaaaaaaaa_000000", "\xff", "x" * 10_000):
            forged = await town.handle(method, target, body, None, token)
            assert (forged.code, orjson.loads(forged.body)["errcode"]) == (401, "M_UNKNOWN_TOKEN")
    elif asked.operation.needs_signature:
        theirs = town.neighbour.authorization(method, f"{target}x", body)
        for header in (None, "x", "Bearer x", "X-Matrix ", theirs, theirs[:-20], "X-Matrix " + "x" * 10_000):
            forged = await town.handle(method, target, body, None, header)
            assert (forged.code, orjson.loads(forged.body)["errcode"]) == (401, "M_UNAUTHORIZED"), header
    else:
        assert (await town.handle(method, target, body, None)).code == (example.anonymously or example.code)


@pytest.mark.parametrize("example", SERVED, ids=str)
@pytest_twisted.ensureDeferred
async def test_other_methods_are_not_recognized(town: Town, example: Example) -> None:
    asked = await town.asked(example)
    for method in ("PATCH", "TRACE", "FROB", "get"):
        refused = await town.handle(method, asked.target(), encoded(asked))
        assert (refused.code, orjson.loads(refused.body)["errcode"]) == (405, "M_UNRECOGNIZED")
    path, _, query = asked.target().partition("?")
    unknown = await town.handle(asked.operation.method, f"{path}/no/such/thing?{query}", encoded(asked))
    assert (unknown.code, orjson.loads(unknown.body)["errcode"]) == (404, "M_UNRECOGNIZED")


class _Careless:
    """A server that takes everything, or that fails at everything."""

    def __init__(self, example: Example, answer: Answer) -> None:
        assert described is not None
        event = {
            "type": "m.room.member",
            "content": {"membership": "join"},
            "signatures": {"far.test": {"ed25519:1": "A"}},
        }
        body = event if isinstance(example.body, str) else example.body
        self._asked = Asked(described.operation(example.operation), example.path, example.query, body, "alice")
        self._answer = answer

    async def asked(self, example: Example, *, anew: bool = True) -> Asked:
        return self._asked

    async def traces(self) -> int:
        return 0

    async def handle(self, *_: object) -> Answer:
        return self._answer


@pytest.mark.parametrize("example", SERVED, ids=str)
@pytest_twisted.ensureDeferred
async def test_a_careless_server_is_found_out(example: Example) -> None:
    """The tests above fail where there is something to fail at."""
    failing = _Careless(example, Answer(500, b'{"errcode":"M_UNKNOWN","error":"Oh."}'))
    taking = _Careless(example, Answer(200, b"{}"))
    tried = await problems_of(failing, example)
    assert len(tried) > 30 or not (example.path or example.query or example.body)
    if example.body is not None and failing._asked.operation.body is not None:
        assert len(await problems_of(taking, example)) >= 13
