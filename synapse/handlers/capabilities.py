"""What clients may expect of this server: its capabilities, and where it is found.

Every value says what is true of this release and configuration: clients shall offer nothing that would fail.
"""

from __future__ import annotations

from typing import Any

from synapse.api import room_versions
from synapse.api.errors import not_found


def capabilities(default_room_version: str) -> dict[str, Any]:
    """The answer to `GET /capabilities`: client-server API, "Capabilities negotiation"."""
    return {
        "capabilities": {
            "m.room_versions": {
                "default": default_room_version,
                "available": room_versions.capabilities(),
            },
            "m.change_password": {"enabled": False},
            "m.3pid_changes": {"enabled": False},
            "m.get_login_token": {"enabled": False},
            "m.set_displayname": {"enabled": True},
            "m.set_avatar_url": {"enabled": True},
            "m.profile_fields": {"enabled": True},
        }
    }


def client_discovery(public_baseurl: str | None) -> dict[str, Any]:
    """The answer to `/.well-known/matrix/client`; raises 404 M_NOT_FOUND where the address was not configured."""
    if not public_baseurl:
        raise not_found("The address of this server is not published; set `public_baseurl` in its configuration.")
    return {"m.homeserver": {"base_url": public_baseurl.rstrip("/")}}
