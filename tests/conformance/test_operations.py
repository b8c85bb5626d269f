"""Every operation of rooms and of reading them is served, under today's prefix and older ones, and answers.

What the answers say is for other tests; here it is that there is one, of the right form.
"""

from __future__ import annotations

import re

import orjson
import pytest
import pytest_twisted

from tests.conformance.example import Example
from tests.conformance.examples import EXAMPLES, OTHERS, SUBJECTS, endpoint_of, is_served, served, wanted
from tests.conformance.town import Town
from tests.spec.answers import answers
from tests.spec.description import MISSING, Operation, description

described = description()
pytestmark = pytest.mark.skipif(described is None, reason=MISSING)
OPERATIONS = wanted(described) if described is not None else []


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_is_served(operation: Operation) -> None:
    assert is_served(operation, operation.prefix)
    # What came with the global versions of the specification was never under r0.
    if operation.prefix.endswith("/v3") and "x-addedInMatrixVersion" not in operation.place.node:
        assert is_served(operation, operation.prefix.replace("/v3", "/r0"))


def test_no_subject_is_forgotten() -> None:
    assert described is not None
    assert {operation.subject for operation in described.operations} == SUBJECTS | OTHERS
    assert not SUBJECTS & OTHERS


def test_every_operation_has_an_example() -> None:
    assert {operation.id for operation in OPERATIONS} == {example.operation for example in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_examples_say_all_that_can_be_said(example: Example) -> None:
    assert described is not None
    operation = described.operation(example.operation)
    assert {p["name"] for p in operation.parameters_in("path")} == set(example.path)
    assert {p["name"] for p in operation.parameters_in("query") if p.get("required")} <= set(example.query)
    assert set(example.query) <= {p["name"] for p in operation.parameters_in("query")}
    assert (example.body is not None) >= operation.needs_body


@pytest.mark.parametrize("example", served(), ids=str)
@pytest_twisted.ensureDeferred
async def test_answers_as_described(town: Town, example: Example) -> None:
    await _answers(town, example)


@pytest.mark.parametrize("example", served(), ids=str)
@pytest_twisted.ensureDeferred
async def test_answers_as_described_by_workers(workers: Town, example: Example) -> None:
    await _answers(workers, example)


async def _answers(town: Town, example: Example) -> None:
    asked = await town.asked(example)
    body = b"" if asked.body is None else orjson.dumps(asked.body)
    answer = await town.handle(asked.operation.method, asked.target(), body, asked.user)
    assert answer.code == example.code, answer
    known = answers()
    assert known is not None
    assert answer.code >= 300 or example.operation in known.succeeded
    endpoint = endpoint_of(asked.operation, asked.operation.prefix)
    assert endpoint is not None
    if asked.operation.method == "GET":
        for version in endpoint.versions:
            target = re.sub(r"/v\d/", f"/{version}/", asked.target(), count=1)
            assert (await town.handle("GET", target, b"", asked.user)).code == example.code, target
