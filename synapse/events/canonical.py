"""JSON as events need it: parsing, and the one canonical encoding that hashes and signatures are computed over.

Two regimes, by room version. Since version 6 canonical JSON is enforced: integers of 54 bits and no floats
(`check`), and the native encoder may write it. Before, events may hold floats and integers of any size; those are
parsed and written by the `canonicaljson` library, digit by digit as their servers did.

Appendices, "Canonical JSON"; room version 6, "Canonical JSON".
"""

from __future__ import annotations

import json
from typing import Any, Final

import orjson

from synapse.api.constants import MAX_INT, MIN_INT
from synapse.api.errors import MatrixError, bad_json, not_json

MAX_NESTING: Final = 200
"""Of arrays and objects within one another: the encoder's own limit is 254, and an event wraps its content."""

_MAX_DIGITS: Final = 400  # of an integer in old rooms: more than the largest double has, less than costs time to parse


def encode(value: Any) -> bytes:
    """Canonical JSON of a value that `check` would accept."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def encode_lenient(value: Any) -> bytes:
    """Canonical JSON of a value that may hold floats and large integers; raises M_BAD_JSON if it cannot be written."""
    import canonicaljson  # only old rooms and foreign JSON need it

    try:
        encoded: bytes = canonicaljson.encode_canonical_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise bad_json("The JSON holds a value that has no canonical form.") from error
    return encoded


def parse(data: bytes | str) -> Any:
    """The value of JSON text; raises M_NOT_JSON. Integers of more than 64 bits become floats, which `check` refuses."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise not_json(f"This is not valid JSON: {error}.") from error


def parse_lenient(data: bytes | str) -> Any:
    """The same for old rooms: integers keep all their digits. NaN and Infinity are refused."""
    try:
        return json.loads(data, parse_int=_parse_int, parse_constant=_refuse_constant)
    except MatrixError:
        raise
    except (ValueError, RecursionError) as error:
        raise not_json(f"This is not valid JSON: {error}.") from error


def _parse_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise bad_json("The JSON holds a number that is too large.")
    return int(digits)


def _refuse_constant(name: str) -> Any:
    raise bad_json(f"{name} is not a number that JSON knows.")


def check(value: Any) -> None:
    """Raise M_BAD_JSON unless `value` has a canonical form: see the module's docstring. Values come from a parser."""
    pending = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        kind = type(item)
        if kind is dict:
            _check_depth(depth)
            # Strings and booleans, which most values are, need no look: the parser has vouched for them.
            pending += [(v, depth + 1) for v in item.values() if type(v) is not str and type(v) is not bool]
        elif kind is list:
            _check_depth(depth)
            pending += [(v, depth + 1) for v in item if type(v) is not str]
        elif kind is int:
            if not MIN_INT <= item <= MAX_INT:
                raise bad_json(f"Integers must lie between {MIN_INT} and {MAX_INT}.")
        elif kind is float:
            raise bad_json("Numbers must be integers, written without a point or an exponent.")


def check_nesting(value: Any) -> None:
    """Raise M_BAD_JSON if `value` is nested too deeply: all that is asked of old rooms' events."""
    pending = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, (dict, list)):
            _check_depth(depth)
            children = item.values() if isinstance(item, dict) else item
            pending += [(child, depth + 1) for child in children if isinstance(child, (dict, list))]


def _check_depth(depth: int) -> None:
    if depth > MAX_NESTING:
        raise bad_json(f"Arrays and objects may be nested {MAX_NESTING} deep at most.")
