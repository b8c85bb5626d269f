"""Keys for end-to-end encryption, as devices upload and claim them.

The server hands keys around and promises two things of its own: a one-time key is given out once, and whoever shares a
room with a user is told when that user's keys change. It does not check the signatures of devices; that is what the
clients do. What uploads look like is `uploaded_keys`' matter, looking keys up `key_query`'s, the keys of users as such
are `cross_signing`'s.

Client-server API, "End-to-end encryption".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from synapse.api.errors import MatrixError, bad_json, invalid_param, unknown, unknown_token
from synapse.api.identifiers import domain_of
from synapse.handlers.edus.asking import seconds_of
from synapse.handlers.uploaded_keys import Upload, check_timeout, checked_users
from synapse.storage.device_keys import digest
from synapse.storage.one_time_keys import MAX_WAITING, KeyConflict, NoSuchDevice, TooManyKeys, Wanted

if TYPE_CHECKING:
    from synapse.handlers.device_changes import DeviceChanges
    from synapse.handlers.edus.asking import TheirKeys
    from synapse.storage.one_time_keys import OneTimeKeyStore
    from synapse.sync.keys_left import KeysLeftCache
    from synapse.util.clock import Clock

MAX_CLAIMED: Final = 10_000
REMEMBER_CLAIMED_MS: Final = 24 * 3600 * 1000


class Keys:
    """Uploads and claims.

    :param others: claims keys of other servers' users.
    """

    def __init__(
        self,
        store: OneTimeKeyStore,
        left: KeysLeftCache,
        changes: DeviceChanges,
        others: TheirKeys,
        clock: Clock,
        server_name: str,
    ) -> None:
        self._store = store
        self._left = left
        self._changes = changes
        self._others = others
        self._clock = clock
        self._server_name = server_name

    async def changes_identity(self, user_id: str, device_id: str, upload: Upload) -> bool:
        """Whether the identity keys are new, so that others have to be told."""
        if upload.device_keys is None:
            return False
        return (await self._left.get(user_id, device_id)).identity != digest(upload.device_keys)

    async def upload(self, user_id: str, device_id: str, upload: Upload) -> dict[str, Any]:
        """Client-server API, `POST /keys/upload`. Identity keys that are new are stored by the main process; what is
        not new costs no statement when warm. Raises 400 M_INVALID_PARAM, 401 M_UNKNOWN_TOKEN.
        """
        try:
            if await self.changes_identity(user_id, device_id, upload):
                assert upload.device_keys is not None
                await self._changes.keys_uploaded(user_id, device_id, upload.device_keys)
            if upload.one_time or upload.fallback:
                await self._add(user_id, device_id, upload)
        except NoSuchDevice:
            raise unknown_token() from None
        return {"one_time_key_counts": (await self._left.get(user_id, device_id)).one_time}

    async def _add(self, user_id: str, device_id: str, upload: Upload) -> None:
        """One-time and fallback keys any process stores by itself."""
        try:
            changed = await self._store.add(user_id, device_id, upload.one_time, upload.fallback, self._now())
        except KeyConflict as conflict:
            raise invalid_param(f"One time key {conflict} already exists, with other content.") from None
        except TooManyKeys:
            raise too_many_keys() from None
        if changed:
            await self._changes.counts_changed([(user_id, device_id)])

    async def claim(self, body: dict[str, Any]) -> dict[str, Any]:
        """Client-server API, `POST /keys/claim`. Raises 400."""
        timeout = check_timeout(body)
        wanted = _wanted_keys(body)
        answer = await self._claim_ours(wanted)
        theirs = [want for want in wanted if not self._is_ours(want)]
        failures: dict[str, Any] = {}
        if theirs:
            found, failures = await self._others.claim(theirs, seconds_of(timeout))
            answer.update(found)
        return {"one_time_keys": answer, "failures": failures}

    async def claim_for_server(self, body: dict[str, Any]) -> dict[str, Any]:
        """What another server is given: keys of this one's users. Raises 400."""
        return {"one_time_keys": await self._claim_ours(_wanted_keys(body))}

    async def _claim_ours(self, wanted: list[Wanted]) -> dict[str, dict[str, Any]]:
        answer: dict[str, dict[str, Any]] = {}
        claimed = await self._store.claim([want for want in wanted if self._is_ours(want)], self._now())
        for key in claimed:
            device = answer.setdefault(key.user_id, {}).setdefault(key.device_id, {})
            device[f"{key.algorithm}:{key.key_id}"] = msgspec.Raw(key.json.encode())
        await self._changes.counts_changed([(key.user_id, key.device_id) for key in claimed])
        return answer

    def _is_ours(self, want: Wanted) -> bool:
        return domain_of(want.user_id) == self._server_name

    async def forget_claimed(self) -> None:
        """Drops the memory of what was given out long ago; the main process does it once in a while."""
        await self._store.forget_claimed(self._now() - REMEMBER_CLAIMED_MS)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def too_many_keys() -> MatrixError:
    return invalid_param(f"A device may have {MAX_WAITING} one-time keys waiting at most.")


def _wanted_keys(body: dict[str, Any]) -> list[Wanted]:
    wanted = []
    for user_id, devices in checked_users(body, "one_time_keys").items():
        if not isinstance(devices, dict) or not all(isinstance(name, str) for name in devices.values()):
            raise bad_json("The values in 'one_time_keys' must be objects of device IDs with an algorithm each.")
        if any("\x00" in device_id or "\x00" in name for device_id, name in devices.items()):
            raise bad_json("Device IDs and algorithms hold no NUL characters.")
        wanted += [Wanted(user_id, device_id, algorithm) for device_id, algorithm in devices.items()]
    if len(wanted) > MAX_CLAIMED:
        raise unknown(f"One request may claim {MAX_CLAIMED} keys at most.")
    return wanted
