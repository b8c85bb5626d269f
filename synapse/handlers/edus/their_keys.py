"""What other servers say about their users' devices and keys, as far as it is believed.

Pure. A server tells of its own users; keys of a device belong to that device; a self-signing key is signed by the
master key. Whatever else is dropped, one by one. What devices sign with is for clients to check.

Server-server API, "Device Management", "End-to-End Encryption".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from synapse.api.errors import MatrixError, invalid_param
from synapse.handlers.edus.parsing import device_keys, is_id, name_of, number
from synapse.handlers.signed_keys import ED25519, UploadedKey, cross_signing_key, is_signed
from synapse.storage.cross_signing import MASTER, SELF_SIGNING, CrossSigningKey, Signature
from synapse.storage.published_keys import DeviceKeys, PublishedKeys
from synapse.storage.remote_devices import Device, Fetched, Keys

if TYPE_CHECKING:
    from synapse.federation.answers import UserDevices, UserKeys

MAX_DEVICES: Final = 2_000
"""Of a user; the rest is not kept."""

_MAX_SIGNATURES: Final = 100


def fetched(user_id: str, answer: UserDevices) -> Fetched:
    """A list of devices. Raises 400 where it is not the user's."""
    if answer.user_id != user_id:
        raise invalid_param(f"The list of devices is another's, and not that of {user_id}.")
    stream_id = number({"stream_id": answer.stream_id}, "stream_id")
    devices: dict[str, Device] = {}
    for each in answer.devices[:MAX_DEVICES]:
        name = name_of({"device_display_name": each.device_display_name})
        if is_id(each.device_id):
            json = None if each.keys is None else _json(user_id, each.device_id, each.keys)
            devices[each.device_id] = Device(each.device_id, json, name)
    return Fetched(stream_id, list(devices.values()), signing_keys(user_id, answer.master_key, answer.self_signing_key))


def signing_keys(user_id: str, master: object, self_signing: object, known_master: str | None = None) -> Keys:
    """The keys of a user as such, those of the two that are good; `known_master` is the public key of the master key
    where none is given.
    """
    keys: list[UploadedKey] = []
    if (master_key := _key(user_id, MASTER, master)) is not None:
        keys.append(master_key)
        known_master = master_key.public_key
    own = _key(user_id, SELF_SIGNING, self_signing)
    if own is not None and known_master is not None:
        signature = own.signatures.get(ED25519 + known_master, "")
        if is_signed(own.json.encode(), signature, known_master):
            keys.append(own._replace(signatures={ED25519 + known_master: signature}))
    return Keys(
        [CrossSigningKey(user_id, key.usage, key.public_key, key.json) for key in keys],
        [
            Signature(user_id, key.public_key, user_id, key_id, signature)
            for key in keys
            for key_id, signature in list(key.signatures.items())[:_MAX_SIGNATURES]
        ],
    )


def answered(answer: UserKeys, wanted: Mapping[str, Collection[str]]) -> PublishedKeys:
    """What a server answers about these of its users and their devices (none named: all)."""
    users = {user_id for user_id in wanted if user_id in answer.device_keys}
    devices: list[DeviceKeys] = []
    signing: list[Keys] = []
    for user_id, device_ids in wanted.items():
        for device_id, keys in list(answer.device_keys.get(user_id, {}).items())[:MAX_DEVICES]:
            json = _json(user_id, device_id, keys) if is_id(device_id) else None
            if json is not None and (not device_ids or device_id in device_ids):
                devices.append(DeviceKeys(user_id, device_id, json, _name_within(keys)))
        masters, own = answer.master_keys.get(user_id), answer.self_signing_keys.get(user_id)
        signing.append(signing_keys(user_id, masters, own))
    return PublishedKeys(
        users,
        devices,
        [key for each in signing for key in each.keys],
        [signature for each in signing for signature in each.signatures],
    )


def _name_within(keys: Mapping[str, Any]) -> str | None:
    unsigned = keys.get("unsigned")
    return name_of(unsigned) if isinstance(unsigned, dict) else None


def _json(user_id: str, device_id: str, keys: object) -> str | None:
    try:
        return device_keys(user_id, device_id, keys)
    except MatrixError:
        return None


def _key(user_id: str, usage: str, key: object) -> UploadedKey | None:
    try:
        return None if key is None else cross_signing_key(user_id, usage, key)
    except MatrixError:
        return None
