"""Examples of the operations of accounts, sessions, devices and keys.

Who asks is often somebody who has just come (`{leaver}`), since what they ask for ends their session. Where a request
needs interactive authentication, the example brings the password at once.
"""

from __future__ import annotations

from typing import Any

from signedjson.key import decode_signing_key_base64, encode_verify_key_base64
from signedjson.sign import sign_json
from unpaddedbase64 import encode_base64

from tests.conformance.example import Example

_PASSWORD = "a password"  # everybody's
_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"
_SIGNATURE = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZg"
_SIGNED_KEY = {"key": _KEY, "signatures": {"{alice}": {"ed25519:{own_device}": _SIGNATURE}}}


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
    Example("getAuthMetadata"),
    Example("generateLoginToken", body={"auth": auth("alice")}),
    Example("refresh", body={"refresh_token": "{refresh_token}"}),
    Example("redirectToSSO", query={"redirectUrl": "https://client.test/?a=b", "action": "login"}, code=302),
    Example(
        "redirectToIdP", {"idpId": "cas"}, {"redirectUrl": "https://client.test/?a=b", "action": "login"}, code=302
    ),
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
    Example("registrationTokenValidity", query={"token": "a-token"}),
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
        anonymously=400,
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
        "uploadKeys",
        body={
            "device_keys": {
                "user_id": "{alice}",
                "device_id": "{own_device}",
                "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
                "keys": {"curve25519:{own_device}": _KEY, "ed25519:{own_device}": _KEY},
                "signatures": {"{alice}": {"ed25519:{own_device}": _SIGNATURE}},
            },
            "one_time_keys": {"signed_curve25519:AAAAHQ": _SIGNED_KEY},
            "fallback_keys": {"signed_curve25519:AAAAFA": {**_SIGNED_KEY, "fallback": True}},
        },
    ),
    Example("queryKeys", body={"device_keys": {"{bob}": ["{bobs_device}"]}, "timeout": 1000}),
    Example("claimKeys", body={"one_time_keys": {"{bob}": {"{bobs_device}": "signed_curve25519"}}, "timeout": 1000}),
    Example("getKeysChanges", query={"from": "{since}", "to": "{since}"}),
    Example(
        "sendToDevice",
        {"eventType": "m.new_device", "txnId": "{txn}"},
        body={"messages": {"{bob}": {"*": {"device_id": "X"}, "{bobs_device}": {"device_id": "Y"}}}},
    ),
)

_MASTER, _SELF_SIGNING, _USER_SIGNING = (
    decode_signing_key_base64("ed25519", "x", encode_base64(bytes([number] * 32))) for number in range(3)
)


def _public(key: Any) -> str:
    return str(encode_verify_key_base64(key.verify_key))


def _cross_signing_key(usage: str, key: Any) -> dict[str, Any]:
    """A key of alice, signed by the master key, as is asked of all but that itself."""
    public = _public(key)
    content = {"user_id": "@alice:test", "usage": [usage], "keys": {f"ed25519:{public}": public}}
    signed = sign_json(dict(content), "@alice:test", _MASTER)
    signature = signed["signatures"]["@alice:test"]["ed25519:x"]
    return {**content, "signatures": {"@alice:test": {f"ed25519:{_public(_MASTER)}": signature}}}


CROSS_SIGNING = (
    Example(
        "uploadCrossSigningKeys",
        body={
            "auth": auth("alice"),
            "master_key": _cross_signing_key("master", _MASTER),
            "self_signing_key": _cross_signing_key("self_signing", _SELF_SIGNING),
            "user_signing_key": _cross_signing_key("user_signing", _USER_SIGNING),
        },
        unread=("auth",),  # nobody has to prove anything to upload the same again
    ),
    Example(
        "uploadCrossSigningSignatures",
        body={
            "{alice}": {
                _public(_MASTER): {
                    **_cross_signing_key("master", _MASTER),
                    "signatures": {"{alice}": {"ed25519:{own_device}": _SIGNATURE}},
                }
            }
        },
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

ACCOUNTS = (*SESSIONS, *ACCOUNT, *DEVICES, *KEYS, *CROSS_SIGNING, *MODERATION)
