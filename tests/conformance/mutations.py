"""Makes wrong requests out of a good one: every field, parameter and part of the path, each wrong in many ways.

Where the description tells that a request is wrong, its answer must be one of the error codes for that; where it does
not (any string is a name), whatever is no fault of the server's will do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote, urlencode

import jsonschema_rs
import orjson

from tests.conformance.example import Asked
from tests.spec.answers import is_as_given
from tests.spec.description import ROOT

NOT_JSON = frozenset(("M_NOT_JSON",))
NO_OBJECT = frozenset(("M_BAD_JSON",))
TOO_DEEP = frozenset(("M_NOT_JSON", "M_BAD_JSON"))
MISSING = frozenset(("M_MISSING_PARAM", "M_BAD_JSON"))
INVALID = frozenset(("M_BAD_JSON", "M_INVALID_PARAM", "M_MISSING_PARAM", "M_TOO_LARGE"))
# Whether an id is none, or is nobody's, is often the same to who asks.
NOWHERE = frozenset(
    ("M_INVALID_PARAM", "M_MISSING_PARAM", "M_NOT_FOUND", "M_FORBIDDEN", "M_UNRECOGNIZED", "M_KEY_TOO_LARGE")
)
BAD_PARAMETER = frozenset(("M_INVALID_PARAM", "M_MISSING_PARAM"))

# Required, but left out by clients and servers of old, to whom it can mean one thing only.
LEFT_OUT = frozenset(
    (
        ("getKeysChanges", "to"),
        ("server.getMissingPreviousEvents", "earliest_events"),
        ("server.getMissingPreviousEvents", "latest_events"),
        ("server.onBindThirdPartyIdentifier", "invites"),
    )
)

# Whose body is (or has) an event with hash and signature: what is wrong with it may be told by these first.
SIGNED_EVENTS = frozenset(
    f"server.{name}"
    for name in ("sendJoinV2", "sendLeaveV2", "sendKnock", "sendInviteV1", "sendInviteV2", "askPolicyServerToSign")
)
UNSIGNED = frozenset(("M_FORBIDDEN", "M_INVALID_PARAM", "M_INCOMPATIBLE_ROOM_VERSION"))

# What a fault of the decoder, the validation or the database would be found by.
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 2**53, -(2**63), 2**64 - 1, 1e300),
    *("", "x", "\0", "a\0b", "\u202e\uffff", "x" * 300, "x" * 70_000, "!", "@:", "#a", "$", "@a:b:c:d", "100"),
    *([], [None], [[]], ["\0"], [{}], {}, {"": ""}, {"\0": {"\0": "\0"}}, {"x": None}, {"x": [[[[{}]]]]}),
)
# Deep in a body, these will do.
FEW: tuple[Any, ...] = (None, True, -1, 1.5, 2**64 - 1, "\0", "x" * 300, [], ["\0"], {}, {"\0": {"\0": "\0"}})
DEEP: Any = "end"
for _ in range(80):
    DEEP = {"d": [DEEP]}

# Path and query, as they are sent. "\u0663" is a digit of another script, `1_0` a number for Python alone.
TEXTS = (
    *("", "x", "%00", "a%00b", "%ff", "%ED%A0%80", "%C0%80", "%", "%zz", "%2F", "..", "%2e%2e%2f", "x" * 300),
    *("-1", "1.5", "1e9", "0", "1_0", "%D9%A3", "NaN", "9007199254740993", "9" * 30, "-" + "9" * 30, "null", "true"),
    *("!", "!:", "!a:", "!a", "@", "@a:b:c", "$", "%23", "%23a:", "%7B%7D", "%5B%5D", "%22", "%E2%80%AE"),
)
TOKENS = (
    *("s", "s-1", "s1_", "s1_2_3", "s0", "s" + "9" * 30, "s1.5", "s1_1_1_1_1_1_1_1_1_1_1_1", "s%D9%A3", "s1_0_0"),
    *(
        "t",
        "t1",
        "t1-",
        "t-1-1",
        "t1--1",
        "t" + "9" * 30 + "-1",
        "t1-" + "9" * 30,
        "t1-1~",
        "t1-1~x",
        "t1-1.9",
        "t1-1~-5",
    ),
    *("t%D9%A3-1", "t1_0-1", "s%20%201", "s+1", "t+1-+1", "X" * 5000, "p1~1", "e30", "eyJhIjoxfQ%3D%3D", "AAAA"),
)

RAW = (
    *((text, NOT_JSON) for text in (b"{", b"\xff", b"\xef\xbb\xbf{}", b'{"a":NaN}', b'{"a":1,"a":2}', b"{'a':1}")),
    *(
        (text, NOT_JSON)
        for text in (b'{"a":"\\ud800"}', b'{"\\udfff":1}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\x01"}', b"{}}")
    ),
    *((text, NO_OBJECT) for text in (b"[]", b"null", b"5", b'"x"', b"true", b"[[{}]]")),
    (b'{"a":' * 200 + b"1" + b"}" * 200, TOO_DEEP),
    (b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}", TOO_DEEP),
)

Applied = tuple[str, bytes]


@dataclass(frozen=True)
class Mutation:
    """A way to make a good request wrong: `apply` gives target and body, `errors` are the codes that say so."""

    what: str
    apply: Callable[[Asked], Applied]
    errors: frozenset[str] | None = None

    @property
    def wants_no_waiting(self) -> bool:
        """False for what may name a position in a stream that never comes, for which a worker would wait."""
        return not self.what.startswith("query")


def mutations(asked: Asked, registry: Any) -> Iterator[Mutation]:
    """Everything that is tried with a request. `registry` has the files of the description."""
    validator = _validator_of(asked, registry)
    if asked.body is not None:
        for text, errors in RAW:
            expected = errors if asked.operation.body is not None else None
            yield Mutation(f"body {text[:30]!r}", lambda a, text=text: (a.target(), text), expected)
        for mutation in _bodies(asked, validator):
            may_be_seen_by_signature = mutation.errors is not None and asked.operation.id in SIGNED_EVENTS
            yield replace(mutation, errors=mutation.errors | UNSIGNED) if may_be_seen_by_signature else mutation
    for parameter in asked.operation.parameters_in("query"):
        yield from _queries(asked, parameter)
        if asked.query.get(parameter["name"], "").startswith('{"'):
            yield from _json_queries(asked, parameter["name"], registry)
    for parameter in asked.operation.parameters_in("path"):
        for text in TEXTS:
            errors = NOWHERE if _is_no_id(parameter["schema"], text) else None
            yield Mutation(f"path {parameter['name']} = {text[:30]}", _in_path(parameter["name"], text), errors)


def encoded(asked: Asked) -> bytes:
    """The body of a request as it is sent."""
    return b"" if asked.body is None else orjson.dumps(asked.body)


# -- bodies ----------------------------------------------------------------------------------------------------------

Way = tuple[str | int, ...]


def _bodies(asked: Asked, validator: Any) -> Iterator[Mutation]:
    for way in _ways(asked.body):
        dropped = _without(asked.body, way)
        is_right = _is_good(validator, dropped) or ((asked.operation.id, way[0]) in LEFT_OUT and len(way) == 1)
        errors = None if is_right else MISSING if len(way) == 1 else INVALID
        yield Mutation(f"{_shown(way)} is missing", _with_body(lambda body, way=way: _without(body, way)), errors)
        for value in (*(VALUES if len(way) <= 2 else FEW), DEEP):
            changed = _replaced(asked.body, way, value)
            # What is optional may be null.
            is_right = value is None or is_as_given(asked.operation, way, value) or _is_good(validator, changed)
            errors = None if is_right else INVALID
            change = _with_body(lambda body, way=way, value=value: _replaced(body, way, value))
            yield Mutation(f"{_shown(way)} = {value!r:.40}", change, errors)
    for value in ("x" * 100_000, DEEP, {str(n): n for n in range(3000)}):
        yield Mutation(f"more: {value!r:.20}", _with_body(lambda body, value=value: {**body, "more": value}))


def _ways(value: Any, above: Way = ()) -> Iterator[Way]:
    if above:
        yield above
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _ways(item, (*above, key))


def _replaced(body: Any, way: Way, value: Any) -> Any:
    """A copy, which shares with the original what is not on the way."""
    changed = copy(body)
    changed[way[0]] = _replaced(body[way[0]], way[1:], value) if way[1:] else value
    return changed


def _without(body: Any, way: Way) -> Any:
    if way[1:]:
        return _replaced(body, way[:-1], _without(_at(body, way[:-1]), way[-1:]))
    changed = copy(body)
    del changed[way[0]]
    return changed


def _at(body: Any, way: Way) -> Any:
    for key in way:
        body = body[key]
    return body


def _with_body(change: Callable[[Any], Any]) -> Callable[[Asked], Applied]:
    return lambda asked: (asked.target(), orjson.dumps(change(asked.body)))


def _is_good(validator: Any, body: Any) -> bool:
    return validator is None or validator.is_valid(body)


def _shown(way: Way) -> str:
    return ".".join(map(str, way))


# -- paths and queries -----------------------------------------------------------------------------------------------


def _queries(asked: Asked, parameter: dict[str, Any]) -> Iterator[Mutation]:
    name = parameter["name"]
    schema = parameter["schema"]
    if parameter.get("required"):
        errors = None if (asked.operation.id, name) in LEFT_OUT else BAD_PARAMETER
        yield Mutation(f"query without {name}", _in_query(name, None), errors)
    is_free = schema.get("type") == "string" and "enum" not in schema
    for text in (*TEXTS, *TOKENS) if is_free else TEXTS:
        yield Mutation(f"query {name} = {text[:30]}", _in_query(name, text), _if_not(schema, text))
    yield Mutation(f"query {name} is a list", _in_query(name, f"a&{name}[]=b&{name}=c"))
    yield Mutation(f"query {name} has no end", _in_query(name, "x" + "&x" * 500))


def _json_queries(asked: Asked, name: str, registry: Any) -> Iterator[Mutation]:
    """A filter that is given as JSON in the query, as wrong as a body may be."""
    kind = "sync_filter" if asked.operation.id == "sync" else "room_event_filter"
    reference = f"{ROOT}api/client-server/definitions/{kind}.yaml"
    validator = jsonschema_rs.validator_for({"$ref": reference}, registry=registry)
    good = orjson.loads(asked.query[name])
    for text, _ in RAW[:-1]:
        yield Mutation(f"query {name} = {text[:30]!r}", _in_query(name, quote(text)), INVALID | NOT_JSON)
    for way in _ways(good):
        for value in (*FEW, DEEP):
            changed = _replaced(good, way, value)
            errors = INVALID if value is not None and not _is_good(validator, changed) else None
            apply = _in_query(name, quote(orjson.dumps(changed)))
            yield Mutation(f"query {name}: {_shown(way)} = {value!r:.40}", apply, errors)


def _if_not(schema: dict[str, Any], text: str) -> frozenset[str] | None:
    """The codes for a text that the schema does not allow, so far as that is certain."""
    if "enum" in schema or schema.get("type") == "boolean":
        return BAD_PARAMETER if text not in schema.get("enum", ("true", "false")) else None
    if schema.get("type") == "integer":
        is_number = text.removeprefix("-").isascii() and text.removeprefix("-").isdigit()
        return None if is_number else BAD_PARAMETER
    return None


def _is_no_id(schema: dict[str, Any], text: str) -> bool:
    return "pattern" in schema and re.search(schema["pattern"], unquote(text)) is None


def _in_query(name: str, text: str | None) -> Callable[[Asked], Applied]:
    def apply(asked: Asked) -> Applied:
        rest = {key: value for key, value in asked.query.items() if key != name}
        parts = [urlencode(rest)] if rest else []
        if text is not None:
            parts.append(f"{quote(name)}={text}")
        return asked.target(query="&".join(parts)), encoded(asked)

    return apply


def _in_path(name: str, text: str) -> Callable[[Asked], Applied]:
    def apply(asked: Asked) -> Applied:
        path = {key: quote(value, safe="") for key, value in asked.path.items()}
        return asked.target(path={**path, name: text}), encoded(asked)

    return apply


def _validator_of(asked: Asked, registry: Any) -> Any:
    """Knows good bodies of an operation; None where it takes none."""
    body = asked.operation.body
    return None if body is None else jsonschema_rs.validator_for({"$ref": body.reference}, registry=registry)
