"""Examples of the operations of accounts, sessions, devices and keys.

Who asks is often somebody who has just come (`{leaver}`), since what they ask for ends their session. Where a request
needs interactive authentication, the example brings the password at once.
"""

from __future__ import annotations

from typing import Any

from tests.conformance.example import Example

_PASSWORD = "a password"  # everybody's


def auth(user: str) -> dict[str, Any]:
    return {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user},
        "password": _PASSWORD,
    }


SESSIONS = (
    Example("getLoginFlows"),
    Example(
        "login",
        body={
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "bob"},
            "password": _PASSWORD,
            "device_id": "{new_device}",
            "initial_device_display_name": "A new device",
            "refresh_token": True,
        },
    ),
    Example("generateLoginToken", body={"auth": auth("alice")}),
    Example("refresh", body={"refresh_token": "{refresh_token}"}),
    Example("logout", user="{leaver}"),
    Example("logout_all", user="{leaver}"),
    Example("getTokenOwner"),
)

ACCOUNT = (
    Example(
        "register",
        query={"kind": "user"},
        body={
            "auth": {"type": "m.login.dummy"},
            "username": "{new_user}",
            "password": _PASSWORD,
            "device_id": "DEVICE",
            "initial_device_display_name": "A first device",
            "inhibit_login": False,
            "refresh_token": True,
        },
    ),
    Example("checkUsernameAvailability", query={"username": "nobody.yet"}),
    Example(
        "deactivateAccount",
        body={"auth": auth("{leaver}"), "id_server": "id.test", "erase": False},
        user="{leaver}",
    ),
    Example(
        "changePassword",
        body={"auth": auth("{leaver}"), "new_password": "another password", "logout_devices": True},
        user="{leaver}",
        anonymously=401,
    ),
    Example("getAccount3PIDs"),
    Example("getTurnServer"),
)

DEVICES = (
    Example("getDevices"),
    Example("getDevice", {"deviceId": "{device}"}),
    Example("updateDevice", {"deviceId": "{device}"}, body={"display_name": "A name"}),
    Example("deleteDevice", {"deviceId": "{old_device}"}, body={"auth": auth("alice")}),
    Example("deleteDevices", body={"devices": ["{old_device}"], "auth": auth("alice")}),
)

KEYS = (
    Example(
        "sendToDevice",
        {"eventType": "m.new_device", "txnId": "{txn}"},
        body={"messages": {"{bob}": {"*": {"device_id": "X"}, "{bobs_device}": {"device_id": "Y"}}}},
    ),
)

_OUTCAST = {"userId": "{outcast}"}

MODERATION = (
    Example("getWhoIs", {"userId": "{alice}"}),
    Example("getAdminSuspendUser", _OUTCAST, user="admin"),
    Example("setAdminSuspendUser", _OUTCAST, body={"suspended": True}, user="admin"),
    Example("getAdminLockUser", _OUTCAST, user="admin"),
    Example("setAdminLockUser", _OUTCAST, body={"locked": True}, user="admin"),
)

ACCOUNTS = (*SESSIONS, *ACCOUNT, *DEVICES, *KEYS, *MODERATION)
