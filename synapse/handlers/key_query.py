"""Whose keys are what: the answer to `POST /keys/query`.

Signatures are shown with what they are of, to those who may see them: a user's own keys' to everybody, except those
of the user-signing key, which the user alone sees. Keys of other servers' users are asked for over federation, which
is not done here: such servers are told as failures. Client-server API, "Key and signature security".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.errors import bad_json
from synapse.api.identifiers import domain_of
from synapse.handlers.keys import failures
from synapse.handlers.uploaded_keys import check_timeout, checked_users
from synapse.storage.cross_signing import USAGES
from synapse.storage.shown_keys import ShownKeys

if TYPE_CHECKING:
    from synapse.storage.published_keys import PublishedKeyStore


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
        shown = ShownKeys(published, viewer)
        devices: dict[str, dict[str, Any]] = {user_id: {} for user_id in ours if user_id in published.users}
        for keys in published.devices:
            if not wanted[keys.user_id] or keys.device_id in wanted[keys.user_id]:
                devices[keys.user_id][keys.device_id] = shown.device(keys)
        answer: dict[str, Any] = {f"{usage}_keys": {} for usage in USAGES}
        for user_id, usage, key in shown.signing_keys():
            answer[f"{usage}_keys"][user_id] = key
        return {**answer, "device_keys": devices, "failures": failures(wanted, self._server_name)}


def _wanted_devices(body: dict[str, Any]) -> dict[str, frozenset[str]]:
    wanted = {}
    for user_id, device_ids in checked_users(body, "device_keys").items():
        if not isinstance(device_ids, list) or not all(isinstance(device_id, str) for device_id in device_ids):
            raise bad_json("The values in 'device_keys' must be lists of device IDs.")
        wanted[user_id] = frozenset(device_ids)
    return wanted
