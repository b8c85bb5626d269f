"""Makes a request wrong in every way, and looks at what comes of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import orjson

from synapse.http.server import Answer
from tests.conformance.example import Asked, Example
from tests.conformance.mutations import Mutation, mutations
from tests.conformance.town import uses_up
from tests.spec.answers import answers


class Tried(Protocol):
    """What is tried: a town."""

    async def asked(self, example: Example, *, anew: bool = True) -> Asked: ...

    async def handle(self, method: str, target: str, body: bytes, user: str) -> Answer: ...

    async def traces(self) -> Any: ...


def _all(_: Mutation) -> bool:
    return True


async def problems_of(town: Tried, example: Example, is_wanted: Callable[[Mutation], bool] = _all) -> list[str]:
    """What is not as it should be when an example is made wrong in those ways."""
    known = answers()
    assert known is not None
    asked = await town.asked(example)
    writes = asked.operation.method != "GET"
    problems = []
    traces = await town.traces()
    for mutation in filter(is_wanted, mutations(asked, known.registry)):
        asked = await town.asked(example, anew=False)
        target, body = mutation.apply(asked)
        is_read = not mutation.what.startswith(example.unread or ("-",))
        means_the_same = is_read and known.operation(asked.operation.method, target, body) is asked.operation
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


def is_fault(answer: Answer) -> bool:
    """Whether the server has failed. That another one cannot be reached is no fault of its own."""
    return answer.code >= 500 and b'"errcode":"M_CONNECTION_' not in answer.body


def _problem(errors: frozenset[str] | None, answer: Answer) -> str | None:
    if is_fault(answer):
        return f"a fault of the server: {answer.body[:300]!r}"
    if errors is None:
        return None
    if answer.code < 400:
        return f"answered {answer.code}, and not with one of {sorted(errors)}"
    if answer.content_type is not None and answer.content_type.startswith("text/html"):
        return None  # a page, which tells people
    refusal = orjson.loads(answer.body)
    if answer.code >= 500:
        return None  # it was another server's to say
    if answer.code == 401 and "flows" in refusal:
        return None  # who asks is to prove who they are first
    errcode = refusal["errcode"]
    return None if errcode in errors else f"{answer.code} {answer.body[:200]!r}, not {sorted(errors)}"
