"""What users say of their presence, and how the process that hears it tells the one that keeps it.

Apart from both, so that a process which passes presence on, or refuses it, loads nothing of them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from synapse.api.constants import Presence
from synapse.api.errors import bad_json, invalid_param, missing_param
from synapse.replication.calls import Call

MAX_STATUS: Final = 512  # characters


class SetPresence(msgspec.Struct, frozen=True):
    """What a user says of themselves, on a device; `status_msg` None leaves no message."""

    user_id: str
    presence: str
    status_msg: str | None
    device_id: str | None = None


SET: Final = Call("presence.set", SetPresence, type(None))
SHOW: Final = Call("presence.show", str, type(None))
"""Tells a user's presence anew, because the name or the picture that is shown with it has changed."""


def parse_setting(user_id: str, body: dict[str, Any], device_id: str | None = None) -> SetPresence:
    """The body of `PUT /presence/{userId}/status`. Raises 400 M_MISSING_PARAM, M_INVALID_PARAM, M_BAD_JSON."""
    presence = body.get("presence")
    if presence is None:
        raise missing_param("presence")
    if not isinstance(presence, str) or presence not in Presence.ALL:
        raise invalid_param(f"'presence' must be one of {', '.join(sorted(Presence.ALL))}.")
    status = body.get("status_msg")
    if status is not None and not isinstance(status, str):
        raise bad_json("'status_msg' must be a string.")
    if status is not None and (len(status) > MAX_STATUS or "\x00" in status):
        raise invalid_param(f"'status_msg' may have {MAX_STATUS} characters at most, and no NUL.")
    return SetPresence(user_id, presence, status, device_id)
