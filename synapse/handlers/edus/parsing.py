"""What other servers say in EDUs, checked and bounded before anything is done with it.

Pure: values in, values out. Whatever is not as the specification has it raises a `MatrixError` with a sentence for the
log; the EDU is dropped then. A server speaks for its own users only.

Server-server API, "Typing Notifications" and the sections after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from synapse.api.constants import MAX_ID_BYTES, MAX_INT
from synapse.api.errors import forbidden, invalid_param, too_large
from synapse.api.identifiers import domain_of, fits, is_user_id
from synapse.handlers.signed_keys import MAX_KEY_BYTES
from synapse.util.storable import problem_of

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_NAME: Final = 256
"""Characters of a device's name that are kept."""


def own_user(origin: str, content: Mapping[str, Any], name: str = "user_id") -> str:
    """A user of the server that speaks. Raises 400, 403."""
    user_id = content.get(name)
    if not isinstance(user_id, str) or not is_user_id(user_id):
        raise invalid_param(f"'{name}' must be a user ID.")
    if domain_of(user_id) != origin:
        raise forbidden(f"The server {origin} does not speak for the users of others.")
    return user_id


def text(content: Mapping[str, Any], name: str) -> str:
    """A string that may be stored as an identifier: 255 bytes at most, not empty, no NUL. Raises 400."""
    value = content.get(name)
    if not is_id(value):
        raise invalid_param(f"'{name}' must be a string of {MAX_ID_BYTES} bytes at most, without NUL characters.")
    return str(value)


def is_id(value: object) -> bool:
    """Whether it may be stored as an identifier."""
    return isinstance(value, str) and value != "" and fits(value) and "\x00" not in value


def number(content: Mapping[str, Any], name: str) -> int:
    """An integer from 0 to 2^53 - 1. Raises 400."""
    value = content.get(name)
    if type(value) is not int or not 0 <= value <= MAX_INT:
        raise invalid_param(f"'{name}' must be an integer from 0 to 2^53 - 1.")
    return value


def numbers(content: Mapping[str, Any], name: str, limit: int) -> list[int]:
    """A list of such integers, which may be missing. Raises 400."""
    value = content.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > limit:
        raise invalid_param(f"'{name}' must be a list of {limit} integers at most.")
    return [number({name: each}, name) for each in value]


def name_of(content: Mapping[str, Any], name: str = "device_display_name") -> str | None:
    """The name of a device, cut to what is kept; None where it has none that can be shown."""
    value = content.get(name)
    return value[:MAX_NAME] if isinstance(value, str) and "\x00" not in value else None


def device_keys(user_id: str, device_id: str, keys: object) -> str:
    """Keys of a device as JSON text. They may not say that they are another's. Raises 400, 413."""
    if not isinstance(keys, dict):
        raise invalid_param("The keys of a device must be an object.")
    for name, own in (("user_id", user_id), ("device_id", device_id)):
        if keys.get(name, own) != own:
            raise invalid_param(f"The keys of the device {device_id} of {user_id} name another '{name}'.")
    signed = {name: value for name, value in keys.items() if name != "unsigned"}
    if (problem := problem_of(signed)) is not None:
        raise invalid_param(f"The keys of a device cannot be stored: {problem}.")
    json = orjson.dumps(signed, option=orjson.OPT_SORT_KEYS)
    if len(json) > MAX_KEY_BYTES:
        raise too_large(f"The keys of a device may have {MAX_KEY_BYTES} bytes at most.")
    return json.decode()
