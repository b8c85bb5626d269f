"""What answers for encryption end to end: keys of devices and users, signatures, messages from device to device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.rest.rows.types import Row

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver


def _keys(hs: Homeserver) -> object:
    from synapse.rest.client.keys import KeyEndpoints

    accounts = hs.accounts
    return KeyEndpoints(accounts.keys, hs.encryption.key_query, accounts.key_changes, accounts.frontend_proxy)


def _cross_signing(hs: Homeserver) -> object:
    from synapse.rest.client.cross_signing import CrossSigningEndpoints

    encryption = hs.encryption
    proving = hs.accounts.proving
    handlers = (encryption.cross_signing, encryption.key_signatures)
    return CrossSigningEndpoints(*handlers, proving.ui_auth, proving.oauth_stage)


def _admin_cross_signing(hs: Homeserver) -> object:
    from synapse.rest.admin.cross_signing import AdminCrossSigning

    return AdminCrossSigning(hs.encryption.cross_signing)


def _to_device(hs: Homeserver) -> object:
    from synapse.rest.client.keys import ToDeviceEndpoints

    return ToDeviceEndpoints(hs.encryption.to_device)


ROWS: tuple[Row, ...] = (
    Row(("keys_upload", "keys_query", "keys_changes", "keys_claim"), _keys),
    Row(("keys_device_signing_upload", "keys_signatures_upload"), _cross_signing),
    Row(("admin_allow_cross_signing_replacement",), _admin_cross_signing),
    Row(("send_to_device",), _to_device),
)
