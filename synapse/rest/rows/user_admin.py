"""What answers for accounts in the hands of administrators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.rest.rows.types import Row

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver


def _users(hs: Homeserver) -> object:
    from synapse.rest.admin.users import AdminUsers

    return AdminUsers(hs.sessions.user_admin, hs.sessions.account_changes)


def _devices(hs: Homeserver) -> object:
    from synapse.rest.admin.user_devices import AdminUserDevices

    return AdminUserDevices(hs.sessions.user_admin, hs.accounts.devices)


ROWS: tuple[Row, ...] = (
    Row(
        (
            *(
                "admin_users",
                "admin_users_v3",
                "admin_user_get",
                "admin_user_put",
                "admin_user_rank_get",
                "admin_user_rank_set",
            ),
            *("admin_user_login", "admin_reset_password"),
        ),
        _users,
    ),
    Row(
        (
            *("admin_user_devices", "admin_user_device_new", "admin_user_device_get", "admin_user_device_set"),
            *("admin_user_device_delete", "admin_user_delete_devices"),
        ),
        _devices,
    ),
)
