"""What answers for services of accounts that stand by themselves: key backups, dehydrated devices, OpenID tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.rest.rows.types import Row

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver


def _key_backups(hs: Homeserver) -> object:
    from synapse.rest.client.key_backup import KeyBackupEndpoints

    return KeyBackupEndpoints(hs.extras.key_backups)


def _room_keys(hs: Homeserver) -> object:
    from synapse.rest.client.key_backup import RoomKeyEndpoints

    return RoomKeyEndpoints(hs.extras.key_backups)


def _dehydrated_devices(hs: Homeserver) -> object:
    from synapse.rest.client.dehydrated_devices import DehydratedDeviceEndpoints

    return DehydratedDeviceEndpoints(hs.extras.dehydrated_devices)


def _openid_tokens(hs: Homeserver) -> object:
    from synapse.rest.client.openid import OpenIdTokens

    return OpenIdTokens(hs.extras.openid)


def _openid_user_info(hs: Homeserver) -> object:
    from synapse.rest.federation.openid import OpenIdUserInfo

    return OpenIdUserInfo(hs.extras.openid)


ROWS: tuple[Row, ...] = (
    Row(
        (
            *("key_backup_create", "key_backup_latest", "key_backup_get", "key_backup_update"),
            "key_backup_delete",
        ),
        _key_backups,
    ),
    Row(
        (
            *("room_keys_put", "room_keys_put_room", "room_keys_put_session"),
            *("room_keys_get", "room_keys_get_room", "room_keys_get_session"),
            *("room_keys_delete", "room_keys_delete_room", "room_keys_delete_session"),
        ),
        _room_keys,
    ),
    Row(
        (
            *("dehydrated_device_put", "dehydrated_device_get", "dehydrated_device_delete"),
            "dehydrated_device_events",
        ),
        _dehydrated_devices,
    ),
    Row(("openid_request_token",), _openid_tokens),
    Row(("openid_userinfo",), _openid_user_info),
)
