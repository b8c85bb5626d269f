"""Whether answers are what the description of their operation says.

The drivers of the tests hand every answer of the in-process servers to `check`. Which operations have been seen to
succeed is remembered, for the table at the end of a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote_to_bytes

import jsonschema_rs
import orjson

from tests.spec.description import ROOT, Description, Operation, description

_ERROR = f"{ROOT}api/client-server/definitions/errors/error.yaml"
_VERSIONS = "(?:api/v1|v2_alpha|r0|unstable|v1|v3)"
_SHOWN = 600  # bytes of an answer that are quoted
_OF_HTTP = (206, 304)  # answers to conditions and ranges, which the description leaves to HTTP
_NO_SESSION = re.compile(rb'"errcode":"M_(?:(?:MISSING|UNKNOWN)_TOKEN|USER_LOCKED)"')
# Answers that differ from the description, and why.
_DIFFERENT = {
    ("getTurnServer", b"{}"): "no TURN server is configured: the description has no word for it, clients know this one",
}
# That these ask for user-interactive authentication stands in their text only.
_PROVING = frozenset({"uploadCrossSigningKeys"})
# What browsers are answered, rather than clients, is a page for people where it is an error.
_PAGES = frozenset({"redirectToSSO", "redirectToIdP"})
_NEEDS_PROOF = f"{ROOT}api/client-server/definitions/auth_response.yaml"
# Two operations share a method and a path: which one a request asks for.
_SHARED = {
    "inviteBy3PID": lambda query, body: b'"medium"' in body,
    "inviteUser": lambda query, body: b'"medium"' not in body,
    "peekEvents": lambda query, body: "room_id=" in query,
    "getEvents": lambda query, body: "room_id=" not in query,
}
# What the server keeps as it was given, unread. Of backups it is described as an object of one algorithm; older clients
# have a string, and another algorithm. Push gateways may know formats of their own.
AS_GIVEN = {"key_backup": ("algorithm", "auth_data", "session_data"), "pusher": ("format",)}
# Besides the room events that are described, what passes comes down this stream: "Client Config", "Events".
_STREAMS = frozenset({"getEvents", "peekEvents"})


class Tally(NamedTuple):
    """The operations seen to succeed as described, and how many are described (0: the description is missing)."""

    succeeded: list[str]
    described: int


class Answers:
    """Compares answers with the description."""

    def __init__(self, described: Description) -> None:
        self.succeeded: set[str] = set()
        self._described = described
        self.registry = jsonschema_rs.Registry(list(described.files.items()), draft=jsonschema_rs.Draft202012)
        self._validators: dict[str, Any] = {}
        # Where a server's path is another one's with a part filled in, it is asked for by that part.
        ordered = sorted(described.operations, key=lambda each: each.is_of_servers and each.path.count("{"))
        self._patterns: dict[str, list[tuple[Operation, re.Pattern[str]]]] = {}
        for operation in ordered:
            self._patterns.setdefault(operation.method, []).append((operation, _pattern(operation)))

    @property
    def operations(self) -> tuple[Operation, ...]:
        """All that are described."""
        return self._described.operations

    def operation(self, method: str, target: str, body: bytes = b"") -> Operation | None:
        """The operation that a request asks for, if it is described."""
        path, _, query = target.partition("?")
        for operation, pattern in self._patterns.get(method, ()):
            if pattern.fullmatch(path):
                asked = _SHARED.get(operation.id)
                if asked is None or asked(query, body):
                    return operation
        return None

    def check(self, method: str, target: str, sent: bytes, code: int, body: bytes) -> None:
        """Raises AssertionError when the answer is not what the description says, if it says something."""
        operation = self.operation(method, target, sent)
        if operation is not None and operation.id in _PAGES and body.startswith(b"<!DOCTYPE html>"):
            return
        if operation is None or code in _OF_HTTP or (operation.id, body) in _DIFFERENT:
            return
        if code == 200 and b"event_fields" in unquote_to_bytes(target):
            return  # who asks for some fields of events gets no others
        if operation.id in _STREAMS and code == 200:
            body = _room_events_only(body)
        # Where 401 is described as the ways to prove who one is, it still says so if nobody is logged in, or may be.
        place = None if code == 401 and _NO_SESSION.search(body) else operation.answers.get(code)
        if place is not None or code >= 400:
            otherwise = _NEEDS_PROOF if operation.id in _PROVING and code == 401 and b'"flows"' in body else _ERROR
            problems = [
                f"  at /{'/'.join(map(str, problem.instance_path))}: {problem.message[:_SHOWN]}"
                for problem in self._problems(place.reference if place is not None else otherwise, body)
                if not is_as_given(operation, problem.instance_path, problem.instance)
            ]
            assert not problems, (
                f"{method} {target}: the answer {code} is not what {operation.subject}.yaml ({operation.id}) says:\n"
                + "\n".join(problems[:5])
                + f"\n{body[:_SHOWN]!r}"
            )
        else:
            assert code in operation.answers, f"{method} {target}: {operation.subject}.yaml knows no answer {code}"
        if code < 300:
            self.succeeded.add(operation.id)

    def wrong_with_request(self, method: str, target: str, body: bytes | None) -> list[str]:
        """What is not as described about a request that this server makes of another one."""
        operation = self.operation(method, target, body or b"")
        if operation is None:
            return []  # an older form of an operation
        found: list[str] = []
        if operation.body is not None:
            found += [
                f"{operation.id}: {problem.message[-_SHOWN:]} (at /{'/'.join(map(str, problem.instance_path))})"
                for problem in self._problems(operation.body.reference, body or b"null")
            ]
        elif body is not None:
            found.append(f"{operation.id} takes no body")
        sent = parse_qs(target.partition("?")[2], keep_blank_values=True)
        parameters = {each["name"]: each.get("required", False) for each in operation.parameters_in("query")}
        found += [
            f"{operation.id} needs '{name}'" for name, needed in parameters.items() if needed and name not in sent
        ]
        found += [f"{operation.id} has no '{name}'" for name in sent if name not in parameters]
        return found

    def _problems(self, reference: str, body: bytes) -> Iterator[Any]:
        validator = self._validators.get(reference)
        if validator is None:
            schema = {"$ref": reference}
            validator = self._validators[reference] = jsonschema_rs.validator_for(schema, registry=self.registry)
        yield from validator.iter_errors(orjson.loads(body))


def is_as_given(operation: Operation, path: Sequence[str | int], value: object) -> bool:
    """Whether a value that is not as described is one of those that are taken all the same."""
    return isinstance(value, str) and bool(path) and path[-1] in AS_GIVEN.get(operation.subject, ())


@cache
def answers() -> Answers | None:
    """The one comparison of a test run; None where there is no description."""
    described = description()
    return None if described is None else Answers(described)


def tally() -> Tally | None:
    """What this process has seen so far; None if no test has asked a server anything."""
    if answers.cache_info().currsize == 0:
        return None
    known = answers()
    return Tally([], 0) if known is None else Tally(sorted(known.succeeded), len(known.operations))


def check(method: str, target: str, sent: bytes, code: int, body: bytes) -> None:
    """Raises AssertionError when an answer is not as described. `target` is path and query as they were sent."""
    known = answers()
    if known is not None:
        known.check(method, target, sent, code, body)


def wrong_with_request(method: str, target: str, body: bytes | None) -> list[str]:
    """What is not as described about a request that this server makes of another one."""
    known = answers()
    return [] if known is None else known.wrong_with_request(method, target, body)


def _room_events_only(body: bytes) -> bytes:
    """The answer without the account data, receipts, typing and presence among its events."""
    answer = orjson.loads(body)
    answer["chunk"] = [e for e in answer["chunk"] if "sender" in e and e.get("type") != "m.presence"]
    return orjson.dumps(answer)


def _pattern(operation: Operation) -> re.Pattern[str]:
    # Between servers, another version is another operation.
    prefix = operation.prefix if operation.is_of_servers else re.sub(r"/v\d$", f"/{_VERSIONS}", operation.prefix)
    path = "".join(
        "[^/]+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\w+\})", operation.path)
    )
    if operation.path.endswith("/{stateKey}"):
        # "The trailing slash on this endpoint is optional" when the key is empty.
        path = path.removesuffix("/[^/]+") + "(?:/[^/]*)?"
    return re.compile(prefix + path)
