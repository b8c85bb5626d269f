"""Whatever is wrong with a request, it is refused in the specification's words, and nothing comes of it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import orjson
import pytest
import pytest_twisted

from synapse.api.routes import route_of
from synapse.http.server import Answer
from tests.conformance.examples import Example, served
from tests.conformance.mutations import Mutation, encoded, mutations
from tests.conformance.town import Town, uses_up
from tests.spec.answers import answers
from tests.spec.description import MISSING, description

SERVED = served()
described = description()
pytestmark = pytest.mark.skipif(described is None, reason=MISSING)


@pytest.mark.parametrize("example", SERVED, ids=str)
@pytest_twisted.ensureDeferred
async def test_what_is_wrong_is_refused(town: Town, example: Example, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    problems = await _problems(town, example, lambda _: True)
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
    problems = await _problems(workers, example, lambda mutation: mutation.wants_no_waiting)
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:40])
    assert not caplog.records


async def _problems(town: Town, example: Example, is_wanted: Callable[[Mutation], bool]) -> list[str]:
    """What is not as it should be when an example is made wrong in those ways."""
    known = answers()
    assert known is not None
    asked = await town.asked(example)
    writes = asked.operation.method != "GET"
    problems = []
    traces = await town.traces()
    for mutation in filter(is_wanted, mutations(asked, known.registry)):
        target, body = mutation.apply(await town.asked(example, anew=False))
        means_the_same = known.operation(asked.operation.method, target, body) is asked.operation
        try:
            answer = await town.handle(asked.operation.method, target, body, asked.user)
        except AssertionError as e:
            problems.append(f"{mutation.what}: {e}")
            continue
        if problem := _problem(mutation.errors if means_the_same else None, answer):
            problems.append(f"{mutation.what}: {problem}")
        if writes:
            after = await town.traces()
            if answer.code >= 400 and after != traces:
                problems.append(f"{mutation.what}: left traces behind")
            if answer.code < 300 and uses_up(example):
                await town.asked(example)
                after = await town.traces()
            traces = after
    return problems


def _problem(errors: frozenset[str] | None, answer: Answer) -> str | None:
    if answer.code >= 500:
        return f"a fault of the server: {answer.body[:300]!r}"
    if errors is None:
        return None
    if answer.code < 400:
        return f"answered {answer.code}, and not with one of {sorted(errors)}"
    errcode = orjson.loads(answer.body)["errcode"]
    return None if errcode in errors else f"{answer.code} {answer.body[:200]!r}, not {sorted(errors)}"


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
    else:
        assert (await town.handle(method, target, body, None)).code == 200


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
