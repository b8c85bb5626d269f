"""What clients may expect of this server: its capabilities.

Every value says what is true of this release, configuration and user: clients shall offer nothing that would fail.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from synapse.api import room_versions


def capabilities(
    default_room_version: str,
    change_password: bool,
    fixed_fields: Set[str],
    login_token: bool,
    threepids: bool,
    *,
    is_guest: bool,
    is_admin: bool,
) -> dict[str, Any]:
    """The answer to `GET /capabilities`: client-server API, "Capabilities negotiation".

    :param fixed_fields: fields of their profiles that users cannot change.
    :param login_token: whether `POST /login/get_token` is switched on.
    :param threepids: whether users can add e-mail addresses or phone numbers to their accounts.
    """
    return {
        "capabilities": {
            "m.room_versions": {
                "default": default_room_version,
                "available": room_versions.capabilities(),
            },
            "m.change_password": {"enabled": change_password and not is_guest},
            "m.3pid_changes": {"enabled": threepids and not is_guest},
            "m.get_login_token": {"enabled": login_token and not is_guest},
            "m.forget_forced_upon_leave": {"enabled": False},
            "m.set_displayname": {"enabled": "displayname" not in fixed_fields},
            "m.set_avatar_url": {"enabled": "avatar_url" not in fixed_fields and not is_guest},
            "m.profile_fields": _profile_fields(fixed_fields, is_guest),
            **_of_admins(is_admin),
        }
    }


def _of_admins(is_admin: bool) -> dict[str, Any]:
    return {"m.account_moderation": {"suspend": True, "lock": True}} if is_admin else {}


def _profile_fields(fixed_fields: Set[str], is_guest: bool) -> dict[str, Any]:
    if is_guest:
        allowed = [] if "displayname" in fixed_fields else ["displayname"]
        return {"enabled": bool(allowed), "allowed": allowed}
    return {"enabled": True, "disallowed": sorted(fixed_fields)} if fixed_fields else {"enabled": True}
