"""Keys as signed JSON objects: what a cross-signing key looks like, what of an object is signed, and by whom.

Pure: values in, values out. Appendices, "Signing JSON"; client-server API, "Cross-signing".
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from synapse.api.constants import MAX_ID_BYTES
from synapse.api.errors import Codes, MatrixError, bad_json, invalid_param
from synapse.api.identifiers import fits
from synapse.events import canonical
from synapse.storage.cross_signing import USAGES
from synapse.util.storable import problem_of

MAX_KEY_BYTES: Final = 65_536
ED25519: Final = "ed25519:"
_KEY_BYTES: Final = 32
_NOT_SIGNED: Final = ("signatures", "unsigned")


class UploadedKey(NamedTuple):
    """A cross-signing key that a client has uploaded: its canonical JSON without signatures, and the owner's own
    signatures by key id.
    """

    usage: str
    public_key: str
    json: str
    signatures: dict[str, str]


def signed_part(key: dict[str, Any]) -> bytes:
    """The canonical bytes that signatures of the object are of. Raises 400 M_BAD_JSON, M_INVALID_PARAM."""
    part = {name: value for name, value in key.items() if name not in _NOT_SIGNED}
    # First the depth, which nothing else bounds.
    if (problem := problem_of(key)) is not None:
        raise invalid_param(f"The key cannot be stored: {problem}.")
    canonical.check(part)
    encoded = canonical.encode(part)
    if len(encoded) > MAX_KEY_BYTES:
        raise invalid_param(f"A key may have {MAX_KEY_BYTES} bytes at most.")
    return encoded


def check_signatures(name: str, signatures: object) -> dict[str, dict[str, str]]:
    """Signatures by user and key id. Raises 400 M_BAD_JSON."""
    if not isinstance(signatures, dict):
        raise bad_json(f"The key '{name}' must be an object.")
    for by_user in signatures.values():
        if not isinstance(by_user, dict) or not all(isinstance(each, str) for each in by_user.values()):
            raise bad_json(f"The values in '{name}' must be objects whose values are strings.")
    return signatures


def signatures_by(key: dict[str, Any], user_id: str) -> dict[str, str]:
    """The signatures that a user's keys have made of the object, by key id. Raises 400 M_BAD_JSON."""
    return dict(check_signatures("signatures", key.get("signatures", {})).get(user_id, {}))


def is_signed(message: bytes, signature: str, public_key: str) -> bool:
    """Whether this is the Ed25519 signature of the message by the key; both are unpadded base64."""
    from nacl.exceptions import CryptoError  # importing it loads libsodium, which not every process needs
    from signedjson.key import decode_verify_key_bytes
    from unpaddedbase64 import decode_base64

    try:
        key = decode_verify_key_bytes(f"{ED25519}x", decode_base64(public_key))
        key.verify(message, decode_base64(signature))
    except (CryptoError, ValueError, TypeError):
        return False
    return True


def invalid_signature(message: str) -> MatrixError:
    return MatrixError(400, Codes.INVALID_SIGNATURE, message)


def cross_signing_key(user_id: str, usage: str, key: object) -> UploadedKey:
    """Raises 400 M_BAD_JSON or M_INVALID_PARAM, with a sentence that names the key."""
    name = f"{usage}_key"
    if not isinstance(key, dict):
        raise bad_json(f"The key '{name}' must be an object.")
    if key.get("user_id") != user_id:
        raise invalid_param(f"'{name}.user_id' must be {user_id}.")
    usages = key.get("usage")
    if not isinstance(usages, list) or not all(each in USAGES for each in usages):
        raise invalid_param(f"'{name}.usage' must be a list of {', '.join(USAGES)}.")
    if usage not in usages:
        raise invalid_param(f"'{name}.usage' must contain '{usage}'.")
    public_key = _public_key(name, key.get("keys"))
    json = signed_part(key)
    signatures = signatures_by(key, user_id)
    if not all(map(fits, signatures)):
        raise invalid_param(f"The key IDs in the signatures of '{name}' may have {MAX_ID_BYTES} bytes at most.")
    if sum(map(len, signatures)) + sum(map(len, signatures.values())) > MAX_KEY_BYTES:
        raise invalid_param(f"The signatures of '{name}' may have {MAX_KEY_BYTES} bytes at most.")
    return UploadedKey(usage, public_key, json.decode(), signatures)


def _public_key(name: str, keys: object) -> str:
    if not isinstance(keys, dict) or len(keys) != 1:
        raise invalid_param(f"'{name}.keys' must be an object with exactly one key.")
    ((key_id, public_key),) = keys.items()
    if not isinstance(public_key, str) or key_id != ED25519 + public_key:
        raise invalid_param(f'\'{name}.keys\' must have the form {{"ed25519:KEY": "KEY"}}.')
    if not _is_public_key(public_key):
        raise invalid_param(f"'{name}.keys' must hold an Ed25519 public key in unpadded base64.")
    return public_key


def _is_public_key(text: str) -> bool:
    from unpaddedbase64 import decode_base64, encode_base64

    try:
        decoded = decode_base64(text)
    except ValueError:
        return False
    # One key has one name: no padding, no other alphabet, no stray bits.
    return len(decoded) == _KEY_BYTES and encode_base64(decoded) == text
