"""What clients may expect of this server: its capabilities.

Every value says what is true of this release and configuration: clients shall offer nothing that would fail.
"""

from __future__ import annotations

from typing import Any

from synapse.api import room_versions


def capabilities(default_room_version: str, change_password: bool) -> dict[str, Any]:
    """The answer to `GET /capabilities`: client-server API, "Capabilities negotiation"."""
    return {
        "capabilities": {
            "m.room_versions": {
                "default": default_room_version,
                "available": room_versions.capabilities(),
            },
            "m.change_password": {"enabled": change_password},
            "m.3pid_changes": {"enabled": False},
            "m.get_login_token": {"enabled": False},
            "m.set_displayname": {"enabled": True},
            "m.set_avatar_url": {"enabled": True},
            "m.profile_fields": {"enabled": True},
        }
    }
