"""Whose keys are what: the answer to `POST /keys/query`.

Signatures are shown with what they are of, to those who may see them: a user's own keys' to everybody, except those
of the user-signing key, which the user alone sees. Keys of other servers' users are `edus.asking`'s matter.
Client-server API, "Key and signature security".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.errors import bad_json
from synapse.api.identifiers import domain_of
from synapse.handlers.edus.asking import seconds_of
from synapse.handlers.uploaded_keys import check_timeout, checked_users
from synapse.storage.cross_signing import USAGES, USER_SIGNING
from synapse.storage.shown_keys import ShownKeys

if TYPE_CHECKING:
    from synapse.handlers.edus.asking import TheirKeys
    from synapse.storage.published_keys import PublishedKeys, PublishedKeyStore

Wanted = dict[str, frozenset[str]]
"""Devices by user; none: all."""


class KeyQuery:
    """Looks keys up, in any process.

    :param others: knows keys of other servers' users, or asks for them.
    """

    def __init__(self, store: PublishedKeyStore, others: TheirKeys, server_name: str) -> None:
        self._store = store
        self._others = others
        self._server_name = server_name

    async def query(self, viewer: str, body: dict[str, Any]) -> dict[str, Any]:
        """Client-server API, `POST /keys/query`. Raises 400."""
        timeout = check_timeout(body)
        wanted = _wanted_devices(body)
        ours = self._ours(wanted)
        published = await self._store.of_users(list(ours), viewer)
        answer = _answer(published, ours, viewer, with_names=True)
        answer["failures"] = {}
        theirs = {user_id: devices for user_id, devices in wanted.items() if user_id not in ours}
        if theirs:
            found = await self._others.query(viewer, theirs, seconds_of(timeout))
            for name, keys in _answer(found.published, theirs, viewer, with_names=True).items():
                answer[name].update(keys)
            answer["failures"] = found.failures
        return answer

    async def for_server(self, body: dict[str, Any], *, with_names: bool) -> dict[str, Any]:
        """What another server is answered: of this one's users, as anybody may see them. Raises 400."""
        ours = self._ours(_wanted_devices(body))
        answer = _answer(await self._store.of_users(list(ours), ""), ours, "", with_names=with_names)
        del answer[f"{USER_SIGNING}_keys"]
        return answer

    def _ours(self, wanted: Wanted) -> Wanted:
        return {user_id: devices for user_id, devices in wanted.items() if domain_of(user_id) == self._server_name}


def _answer(published: PublishedKeys, wanted: Wanted, viewer: str, *, with_names: bool) -> dict[str, dict[str, Any]]:
    shown = ShownKeys(published, viewer)
    devices: dict[str, dict[str, Any]] = {user_id: {} for user_id in wanted if user_id in published.users}
    for keys in published.devices:
        if not wanted[keys.user_id] or keys.device_id in wanted[keys.user_id]:
            devices.setdefault(keys.user_id, {})[keys.device_id] = shown.device(keys, with_name=with_names)
    answer: dict[str, dict[str, Any]] = {f"{usage}_keys": {} for usage in USAGES}
    for user_id, usage, key in shown.signing_keys():
        answer[f"{usage}_keys"][user_id] = key
    return {**answer, "device_keys": devices}


def _wanted_devices(body: dict[str, Any]) -> Wanted:
    wanted: Wanted = {}
    for user_id, device_ids in checked_users(body, "device_keys").items():
        if not isinstance(device_ids, list) or not all(isinstance(device_id, str) for device_id in device_ids):
            raise bad_json("The values in 'device_keys' must be lists of device IDs.")
        wanted[user_id] = frozenset(device_ids)
    return wanted
