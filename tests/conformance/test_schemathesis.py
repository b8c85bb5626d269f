"""Requests that Schemathesis makes from the description, good ones and bad ones, find no fault of the server.

Each served operation gets a few, the same in every run. `$SYNAPSE_FUZZ_EXAMPLES` sets how many; then they are others in
every run, and what they find is shown as a request to repeat.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import pytest
import pytest_twisted
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode

from tests.conformance.examples import EXAMPLES, is_served
from tests.conformance.town import Town
from tests.conformance.trials import is_fault
from tests.spec.description import MISSING, Operation, description

ASKED_FOR = os.environ.get("SYNAPSE_FUZZ_EXAMPLES")
SETTINGS = settings(
    max_examples=int(ASKED_FOR or 5),
    derandomize=ASKED_FOR is None,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)
_OF_REQUESTS = ("method", "url", "params", "json", "data", "headers", "files")
_BY_OPERATION = {example.operation: example for example in EXAMPLES}

described = description()
pytestmark = pytest.mark.skipif(described is None, reason=MISSING)
SERVED = [o for o in described.operations if is_served(o, o.prefix)] if described is not None else []


@pytest.mark.parametrize("operation", SERVED, ids=lambda operation: operation.id)
@pytest.mark.parametrize("mode", ["good", "bad", "nowhere"])
@pytest_twisted.ensureDeferred
async def test_finds_no_fault(town: Town, operation: Operation, mode: str) -> None:
    """`good` and `bad` requests as the description has it, at places that exist; good ones at places that do not."""
    user, path = await _place(town, operation)
    requested = _requests(operation, mode == "bad", None if mode == "nowhere" else path)
    assert requested or mode == "bad"  # where there is nothing that could be wrong
    for method, target, body in requested:
        answer = await town.handle(method, target, body, user)
        assert not is_fault(answer), f"{method} {target} {body!r}: {answer}"
        assert b"Traceback" not in answer.body


def _requests(operation: Operation, bad: bool, path: dict[str, str] | None) -> list[tuple[str, str, bytes]]:
    """What Schemathesis makes of an operation; nothing if it knows of nothing bad."""
    made: list[tuple[str, str, bytes]] = []
    mode = GenerationMode.NEGATIVE if bad else GenerationMode.POSITIVE

    @SETTINGS
    @given(_in_schemathesis(operation).as_strategy(generation_mode=mode, path_parameters=path))
    def collect(case: Case[Any]) -> None:
        made.append(_sent(case))

    with suppress(Unsatisfiable):
        collect()
    return made


async def _place(town: Town, operation: Operation) -> tuple[str, dict[str, str]]:
    """Who asks, and parameters of the path that lead somewhere."""
    example = _BY_OPERATION.get(operation.id)
    if example is not None:
        asked = await town.asked(example)
        return asked.user, asked.path
    # What is not about rooms may end the session of whoever asks.
    user = await town.newcomer()
    known = {"userId": f"@{user}:test", "roomId": await town.supply("room")}
    names = {parameter["name"] for parameter in operation.parameters_in("path")}
    return user, {name: value for name, value in known.items() if name in names}


def _in_schemathesis(operation: Operation) -> Any:
    """One operation as Schemathesis knows it. Only requests matter: answers are compared by the town."""
    assert described is not None
    asked: dict[str, Any] = {
        "operationId": operation.id,
        "parameters": list(operation.parameters),
        "responses": {"200": {"description": "Whatever comes."}},
    }
    if operation.body is not None:
        content = {"application/json": {"schema": described.inlined(operation.body)}}
        asked["requestBody"] = {"required": operation.needs_body, "content": content}
    path = operation.prefix + operation.path
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Matrix", "version": "1"},
        "paths": {path: {operation.method.lower(): asked}},
    }
    return schemathesis.openapi.from_dict(document)[path][operation.method]


def _sent(case: Case[Any]) -> tuple[str, str, bytes]:
    """Method, target and body, as they would be on the wire."""
    given = case.as_transport_kwargs(base_url="http://test")
    request = requests.Request(**{name: given[name] for name in _OF_REQUESTS if name in given}).prepare()
    body = request.body or b""
    return str(request.method), request.path_url, body.encode() if isinstance(body, str) else bytes(body)
