"""JSON bodies: decoded within limits, and checked against a type in one step. Pure.

The spec wants M_NOT_JSON for what is no JSON, M_BAD_JSON for JSON of another shape, M_MISSING_PARAM for a field that
is not there. Stricter than most decoders, because the meaning of a body must not depend on who decodes it: no repeated
keys, no NaN, no invalid UTF-8, no lone surrogates, bounded nesting.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec
import orjson

from synapse.api.errors import MatrixError, bad_json, missing_param, not_json

MAX_DEPTH: Final = 100
BODY: Final = "The body of the request"

T = TypeVar("T")

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_WHITE: Final = (b" ", b"\t", b"\n", b"\r")
_BEFORE_STRINGS: Final = (b":", b",", b"[", b"{")
# A quote in a string before a colon, a colon that is not behind its key at once, a string that begins with a colon.
_PUZZLING: Final = (
    b'\\":',
    *(white + b":" for white in _WHITE),
    *(mark + b'":' for mark in (*_WHITE, *_BEFORE_STRINGS)),
)
_MISSING: Final = re.compile(r"Object missing required field `([^`]*)`(?: - at `([^`]*)`)?")
_EXPECTED: Final = re.compile(r"Expected `([^`]*)`, got `([^`]*)`(?: - at `([^`]*)`)?")
_ENUM: Final = re.compile(r"Invalid enum value '?(.*?)'? - at `([^`]*)`$", re.DOTALL)
_AT: Final = re.compile(r" - at `([^`]*)`$")
_NAMES: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}


def decode(body: bytes, what: str = BODY) -> Any:
    """The JSON value in `body`. Raises MatrixError (M_NOT_JSON; M_BAD_JSON when it is nested too deeply).

    `what` is what sentences call it, where it is not the body of a request.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as e:
        raise not_json(_not_json_sentence(what, e) if body else f"{what} is empty.") from None
    keys = _count_keys(value, what)
    # Every key has its colon. Colons within strings are not worth a closer look unless the sum is wrong, and what reads
    # again as it was written, as most clients write it, has nothing twice.
    if body.count(b":") != keys and orjson.dumps(value) != body and _colons_of_keys(body) != keys:
        raise not_json(f"{what} has an object with the same key twice.")
    return value


def _colons_of_keys(body: bytes) -> int:
    """How many colons of valid JSON are outside of strings."""
    if body.startswith(b'"') or any(mark in body for mark in _PUZZLING):
        return _STRING.sub(b"", body).count(b":")
    # Each follows the quote that ends its key, then, and no other quote has a colon behind it.
    return body.count(b'":')


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises MatrixError (M_NOT_JSON, M_BAD_JSON)."""
    value = decode(body)
    if type(value) is not dict:
        raise bad_json("The body of the request must be a JSON object.")
    return value


def decode_as(body: bytes, kind: type[T]) -> T:
    """`body` as a value of `kind`, mostly a msgspec Struct.

    Raises MatrixError (M_NOT_JSON, M_BAD_JSON, M_MISSING_PARAM).
    """
    value = decode_object(body)
    if b"\\u0000" in body:
        # Settings and names are stored as text, which cannot hold it. (Events can; they are read with `decode_object`.)
        raise bad_json("The body of the request must not contain the character NUL.")
    return convert(value, kind)


def convert(value: Any, kind: type[T]) -> T:
    """A decoded value as one of `kind`.

    Raises MatrixError (M_BAD_JSON, M_MISSING_PARAM) whose sentence names the field.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as e:
        raise _explained(str(e)) from None


def _not_json_sentence(what: str, error: orjson.JSONDecodeError) -> str:
    return f"{what} is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})."


def _count_keys(value: Any, what: str, depth: int = 1) -> int:
    kind = type(value)
    if kind is dict:
        if depth > MAX_DEPTH:
            raise bad_json(f"{what} is nested more than {MAX_DEPTH} levels deep.")
        count = len(value)
        for item in value.values():
            if type(item) is dict or type(item) is list:
                count += _count_keys(item, what, depth + 1)
        return count
    if kind is list:
        if depth > MAX_DEPTH:
            raise bad_json(f"{what} is nested more than {MAX_DEPTH} levels deep.")
        return sum(_count_keys(item, what, depth + 1) for item in value if type(item) is dict or type(item) is list)
    return 0


def _explained(message: str) -> MatrixError:
    if found := _MISSING.match(message):
        return missing_param(_path(found[2], found[1]))
    if found := _EXPECTED.match(message):
        expected = " or ".join(_NAMES.get(name, name) for name in found[1].split(" | "))
        got = _NAMES.get(found[2], found[2])
        return bad_json(f"The field '{_path(found[3])}' must be {expected}, not {got}.")
    if found := _ENUM.match(message):
        return bad_json(f"The field '{_path(found[2])}' cannot be '{found[1][:80]}'.")
    if at := _AT.search(message):
        return bad_json(f"The field '{_path(at[1])}' is not as it should be: {message[: at.start()]}.")
    return bad_json(f"The body of the request is not as it should be: {message}.")


def _path(path: str | None, field: str = "") -> str:
    """`$.a[...].b` of the decoder as `a[].b`."""
    cleaned = (path or "").removeprefix("$").removeprefix(".").replace("[...]", "[]")
    return f"{cleaned}.{field}" if cleaned and field else field or cleaned
