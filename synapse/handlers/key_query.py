"""Whose keys are what: the answer to `POST /keys/query`.

Signatures are shown with what they are of, to those who may see them: a user's own keys' to everybody, except those
of the user-signing key, which the user alone sees. Keys of other servers' users are asked for over federation, which
is not done here: such servers are told as failures. Client-server API, "Key and signature security".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from synapse.api.errors import bad_json
from synapse.api.identifiers import domain_of
from synapse.handlers.keys import failures
from synapse.handlers.uploaded_keys import check_timeout, checked_users
from synapse.storage.cross_signing import USAGES, USER_SIGNING
from synapse.storage.published_keys import secret_key_ids

if TYPE_CHECKING:
    from synapse.storage.published_keys import PublishedKeys, PublishedKeyStore


class KeyQuery:
    """Looks keys up, in any process."""

    def __init__(self, store: PublishedKeyStore, server_name: str) -> None:
        self._store = store
        self._server_name = server_name

    async def query(self, viewer: str, body: dict[str, Any]) -> dict[str, Any]:
        """Client-server API, `POST /keys/query`. Raises 400."""
        check_timeout(body)
        wanted = _wanted_devices(body)
        ours = [user_id for user_id in wanted if domain_of(user_id) == self._server_name]
        published = await self._store.of_users(ours, viewer)
        signatures = _Signatures(published, viewer)
        devices: dict[str, dict[str, Any]] = {user_id: {} for user_id in ours if user_id in published.users}
        for keys in published.devices:
            if not wanted[keys.user_id] or keys.device_id in wanted[keys.user_id]:
                shown = signatures.added_to(orjson.loads(keys.json), keys.user_id, keys.device_id)
                shown["unsigned"] = {} if keys.display_name is None else {"device_display_name": keys.display_name}
                devices[keys.user_id][keys.device_id] = shown
        answer: dict[str, Any] = {f"{usage}_keys": {} for usage in USAGES}
        for key in published.cross_signing:
            if key.usage != USER_SIGNING or key.user_id == viewer:
                shown = signatures.added_to(orjson.loads(key.json), key.user_id, key.public_key)
                answer[f"{key.usage}_keys"][key.user_id] = shown
        return {**answer, "device_keys": devices, "failures": failures(wanted, self._server_name)}


class _Signatures:
    """By what they are of."""

    def __init__(self, published: PublishedKeys, viewer: str) -> None:
        self._secret = secret_key_ids(published.cross_signing, viewer)
        self._of: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
        for user_id, target_id, signer, key_id, signature in published.signatures:
            self._of.setdefault((user_id, target_id), []).append((signer, key_id, signature))

    def added_to(self, key: dict[str, Any], user_id: str, target_id: str) -> dict[str, Any]:
        """The key with its signatures, of those that it came with and of others, as far as they may be seen."""
        shown: dict[str, dict[str, str]] = {}
        came_with = key.pop("signatures", None)
        # What its owner says that others have signed is not worth telling. Earlier versions took in whatever it was.
        own = came_with.get(user_id) if isinstance(came_with, dict) else None
        for key_id, signature in own.items() if isinstance(own, dict) else ():
            self._add(shown, user_id, key_id, signature)
        for signer, key_id, signature in self._of.get((user_id, target_id), ()):
            self._add(shown, signer, key_id, signature)
        if shown or came_with is not None:
            key["signatures"] = shown
        return key

    def _add(self, shown: dict[str, dict[str, str]], signer: str, key_id: str, signature: str) -> None:
        if (signer, key_id) not in self._secret:
            shown.setdefault(signer, {})[key_id] = signature


def _wanted_devices(body: dict[str, Any]) -> dict[str, frozenset[str]]:
    wanted = {}
    for user_id, device_ids in checked_users(body, "device_keys").items():
        if not isinstance(device_ids, list) or not all(isinstance(device_id, str) for device_id in device_ids):
            raise bad_json("The values in 'device_keys' must be lists of device IDs.")
        wanted[user_id] = frozenset(device_ids)
    return wanted
