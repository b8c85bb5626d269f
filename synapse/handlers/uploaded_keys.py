"""What clients send about keys, checked: uploads, and the parts that lookups and claims have in common.

Pure: values in, values out. Whatever is signed has to be canonical JSON, as nobody could check its signature otherwise;
what `unsigned` says is the server's to say. Client-server API, "Key algorithms", "Uploading keys".
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson

from synapse.api.constants import MAX_ID_BYTES
from synapse.api.errors import bad_json, invalid_param, missing_param, unknown
from synapse.api.identifiers import parse_user_id
from synapse.events import canonical
from synapse.handlers.signed_keys import MAX_KEY_BYTES, check_signatures
from synapse.storage.one_time_keys import Key
from synapse.util.storable import problem_of

MAX_USERS: Final = 10_000


class Upload(msgspec.Struct, frozen=True):
    """What a device uploads, checked: its identity keys as JSON text (None: none), one-time keys and fallback keys."""

    device_keys: str | None
    one_time: list[Key]
    fallback: list[Key]


def checked_upload(user_id: str, device_id: str, body: dict[str, Any]) -> Upload:
    """Raises 400 M_BAD_JSON or M_INVALID_PARAM with a sentence about what is wrong."""
    return Upload(
        _device_keys(user_id, device_id, body.get("device_keys")),
        _keys("one_time_keys", body.get("one_time_keys")),
        _one_of_each(_keys("fallback_keys", body.get("fallback_keys"))),
    )


def checked_users(body: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of the body that is an object of user ids. Raises 400 M_MISSING_PARAM, M_BAD_JSON, M_INVALID_PARAM."""
    value = body.get(name)
    if not isinstance(value, dict):
        raise missing_param(name) if value is None else bad_json(f"The key '{name}' must be an object.")
    if len(value) > MAX_USERS:
        raise unknown(f"One request may name {MAX_USERS} users at most.")
    for user_id in value:
        parse_user_id(user_id)
    return value


def check_timeout(body: dict[str, Any]) -> int | None:
    """How long other servers may take, in milliseconds; None where that is not said. Raises 400 M_BAD_JSON."""
    timeout = body.get("timeout")  # null is as good as nothing
    if timeout is not None and (type(timeout) is not int or timeout < 0):
        raise bad_json("The key 'timeout' must be a number of milliseconds.")
    return timeout


def _device_keys(user_id: str, device_id: str, keys: object) -> str | None:
    if keys is None:
        return None
    if not isinstance(keys, dict):
        raise bad_json("The key 'device_keys' must be an object.")
    for name, own in (("user_id", user_id), ("device_id", device_id)):
        if name not in keys:
            raise missing_param(f"device_keys.{name}")
        if keys[name] != own:
            raise invalid_param(f"'device_keys.{name}' must be that of the device that is logged in, {own}.")
    algorithms = keys.get("algorithms")
    if not isinstance(algorithms, list) or not all(isinstance(name, str) for name in algorithms):
        raise bad_json("The key 'device_keys.algorithms' must be a list of strings.")
    named = keys.get("keys")
    if not isinstance(named, dict) or not all(isinstance(key, str) for key in named.values()):
        raise bad_json("The key 'device_keys.keys' must be an object whose values are strings.")
    if "signatures" not in keys:
        raise missing_param("device_keys.signatures")
    check_signatures("device_keys.signatures", keys["signatures"])
    return _encoded("device_keys", {name: value for name, value in keys.items() if name != "unsigned"})


def _keys(name: str, keys: object) -> list[Key]:
    if keys is None:
        return []
    if not isinstance(keys, dict):
        raise bad_json(f"The key '{name}' must be an object.")
    return [_key(name, full_id, value) for full_id, value in keys.items()]


def _key(name: str, full_id: str, value: object) -> Key:
    algorithm, colon, key_id = full_id.partition(":")
    if not algorithm or not colon or not key_id:
        raise invalid_param(f"The names in '{name}' must have the form algorithm:key_id.")
    if "\x00" in full_id or len(full_id.encode()) > MAX_ID_BYTES:
        raise invalid_param(f"The names in '{name}' have at most {MAX_ID_BYTES} bytes and no NUL character.")
    if isinstance(value, dict):
        if not isinstance(value.get("key"), str):
            raise bad_json(f"The signed keys in '{name}' must have a string 'key'.")
        if not isinstance(value.get("fallback", False), bool):
            raise bad_json(f"What the signed keys in '{name}' say of 'fallback' must be true or false.")
        check_signatures(f"{name}.signatures", value.get("signatures"))
    elif not isinstance(value, str):
        raise bad_json(f"The keys in '{name}' must be strings or objects.")
    return Key(algorithm, key_id, _encoded(name, value))


def _one_of_each(keys: list[Key]) -> list[Key]:
    if len({key.algorithm for key in keys}) < len(keys):
        raise invalid_param("'fallback_keys' may hold one key of each algorithm.")
    return keys


def _encoded(name: str, value: object) -> str:
    if (problem := problem_of(value)) is not None:
        raise invalid_param(f"'{name}' cannot be stored: {problem}.")
    canonical.check(value)
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if len(text) > MAX_KEY_BYTES:
        raise invalid_param(f"A key in '{name}' is longer than {MAX_KEY_BYTES} bytes.")
    return text.decode()
