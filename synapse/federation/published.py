"""What servers publish of their keys: checked against itself, and turned into what may be believed of it. Pure.

Server-server API, "Publishing Keys"; the schema of its answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synapse.api.constants import MAX_INT
from synapse.api.errors import MatrixError
from synapse.events import canonical
from synapse.events.signing import SignatureError, signatures_by, verify

if TYPE_CHECKING:
    from signedjson.types import VerifyKey

WEEK_MS: Final = 7 * 24 * 3600 * 1000
"""However long a server says that its answer is valid, it is believed for a week after it was given."""

MAX_KEYS: Final = 50
MAX_ANSWER: Final = 32 * 1024  # bytes
_KEY_ID: Final = re.compile(r"ed25519:[a-zA-Z0-9_]{1,200}", re.ASCII)
_MAX_SIGNATURES: Final = 10
_MAX_TS: Final = MAX_INT


class PublishedKey(NamedTuple):
    """A key, and until when (milliseconds) what it has signed is to be believed; `is_old`: it is used no more."""

    verify_key: bytes
    good_until: int
    is_old: bool


class Published(NamedTuple):
    """A server's keys, the answer that they come from in canonical JSON, and what that says of its validity."""

    keys: Mapping[str, PublishedKey]
    answer: bytes
    valid_until_ts: int


class BadKeys(ValueError):
    """An answer that is not a server's keys, or not signed by it. The text says why."""


def check(answer: Mapping[str, Any], server_name: str, now: int) -> Published:
    """What a server has published, or a notary says that it has. Raises BadKeys."""
    if answer.get("server_name") != server_name:
        raise BadKeys(f"The keys are not those of {server_name}.")
    until = answer.get("valid_until_ts")
    if type(until) is not int or not 0 <= until <= _MAX_TS:
        raise BadKeys("The answer does not say until when it is valid.")
    good_until = min(until, now + WEEK_MS)
    current = {key_id: PublishedKey(key, good_until, False) for key_id, key, _ in _keys(answer, "verify_keys")}
    if not current:
        raise BadKeys("The answer has no key that could be used.")
    signed, whole = canonical_of(answer), _canonical(answer)
    _check_signed(signed, answer, server_name, current)
    old = {
        key_id: PublishedKey(key, expired, True)
        for key_id, key, expired in _keys(answer, "old_verify_keys")
        if key_id not in current
    }
    return Published(old | current, whole, until)


def canonical_of(signed_json: Mapping[str, Any]) -> bytes:
    """The bytes that the signatures of a JSON object are over (appendices, "Signing JSON"). Raises BadKeys."""
    return _canonical({name: value for name, value in signed_json.items() if name not in ("signatures", "unsigned")})


def _canonical(value: Mapping[str, Any]) -> bytes:
    try:
        return canonical.encode_lenient(value)
    except MatrixError as error:
        raise BadKeys(error.message) from error


def verify_key_of(key_id: str, key: bytes) -> VerifyKey:
    """The key as one that verifies. Raises ValueError."""
    from signedjson.key import decode_verify_key_bytes

    return decode_verify_key_bytes(key_id, key)


def verify_key_in_base64(key_id: str, key: str) -> VerifyKey:
    """The same of unpadded base64. Raises ValueError."""
    from unpaddedbase64 import decode_base64

    return verify_key_of(key_id, decode_base64(key))


def _keys(answer: Mapping[str, Any], where: str) -> list[tuple[str, bytes, int]]:
    """Id, key and `expired_ts` of those keys that can be used."""
    from unpaddedbase64 import decode_base64

    listed = answer.get(where, {})
    if not isinstance(listed, dict) or len(listed) > MAX_KEYS:
        raise BadKeys(f"'{where}' is not an object of {MAX_KEYS} keys at most.")
    found = []
    for key_id, entry in listed.items():
        text = entry.get("key") if isinstance(entry, dict) else None
        expired = entry.get("expired_ts", 0) if isinstance(entry, dict) else 0
        if _KEY_ID.fullmatch(key_id) is None or not isinstance(text, str):
            continue
        if type(expired) is not int or not 0 <= expired <= _MAX_TS:
            continue
        try:
            key = decode_base64(text)
        except ValueError:
            continue
        if len(key) == 32:
            found.append((key_id, key, expired))
    return found


def _check_signed(signed: bytes, answer: Mapping[str, Any], server_name: str, keys: Mapping[str, PublishedKey]) -> None:
    """At least one of the keys must have signed the answer."""
    ours = [(key_id, text) for key_id, text in signatures_by(answer, server_name).items() if key_id in keys]
    for key_id, text in ours[:_MAX_SIGNATURES]:
        try:
            verify(signed, text, verify_key_of(key_id, keys[key_id].verify_key))
        except SignatureError:
            continue
        return
    raise BadKeys(f"The keys are not signed by {server_name}.")
