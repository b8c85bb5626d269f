"""Keys for end-to-end encryption, as devices upload and claim them.

The server hands keys around and promises two things of its own: a one-time key is given out once, and whoever shares a
room with a user is told when that user's keys change. It does not check signatures; that is what the clients do.
Looking keys up is `key_query`'s matter, the keys of users as such are `cross_signing`'s.

Keys of other servers' users are asked for over federation, which is not done here: such servers are told as failures.
Client-server API, "End-to-end encryption".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from synapse.api.errors import MatrixError, bad_json, invalid_param, missing_param, unknown
from synapse.api.identifiers import domain_of, parse_user_id
from synapse.handlers.signed_keys import signatures_by
from synapse.storage.keys import Key, KeyConflict, Wanted
from synapse.util.storable import problem_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse.handlers.device_changes import DeviceChanges
    from synapse.storage.keys import KeyStore
    from synapse.util.clock import Clock

MAX_KEY_BYTES: Final = 65_536
MAX_ID_BYTES: Final = 255
MAX_USERS: Final = 10_000
_NO_FEDERATION: Final = {"status": 503, "message": "Keys of other servers' users cannot be fetched."}


class Upload(msgspec.Struct, frozen=True):
    """What a device uploads, checked: its identity keys as JSON text (None: none), one-time keys and fallback keys."""

    device_keys: str | None
    one_time: list[Key]
    fallback: list[Key]


class Keys:
    """Uploads and claims."""

    def __init__(self, store: KeyStore, changes: DeviceChanges, clock: Clock, server_name: str) -> None:
        self._store = store
        self._changes = changes
        self._clock = clock
        self._server_name = server_name

    async def upload(self, user_id: str, device_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Client-server API, `POST /keys/upload`. Raises 400 M_INVALID_PARAM, M_BAD_JSON, M_UNKNOWN."""
        upload = checked_upload(user_id, device_id, body)
        if await self.changes_identity(user_id, device_id, upload):
            assert upload.device_keys is not None
            await self._changes.keys_uploaded(user_id, device_id, upload.device_keys)
        return await self.add(user_id, device_id, upload)

    async def changes_identity(self, user_id: str, device_id: str, upload: Upload) -> bool:
        """Whether the identity keys are new, so that others have to be told."""
        if upload.device_keys is None:
            return False
        return await self._store.device_keys(user_id, device_id) != upload.device_keys

    async def add(self, user_id: str, device_id: str, upload: Upload) -> dict[str, Any]:
        """Stores the one-time and fallback keys, which any process may do, and answers with the counts."""
        try:
            if upload.one_time or upload.fallback:
                now = int(self._clock.seconds() * 1000)
                counts = await self._store.add_keys(user_id, device_id, upload.one_time, upload.fallback, now)
                await self._changes.counts_changed([(user_id, device_id)])
            else:
                counts = await self._store.counts(user_id, device_id)
        except KeyConflict as conflict:
            raise invalid_param(f"A one-time key {conflict} exists already, with other content.") from None
        return {"one_time_key_counts": counts}

    async def claim(self, body: dict[str, Any]) -> dict[str, Any]:
        """Client-server API, `POST /keys/claim`."""
        wanted = _wanted_keys(body)
        ours = [want for want in wanted if domain_of(want.user_id) == self._server_name]
        answer: dict[str, dict[str, Any]] = {}
        claimed = await self._store.claim(ours)
        for key in claimed:
            device = answer.setdefault(key.user_id, {}).setdefault(key.device_id, {})
            device[f"{key.algorithm}:{key.key_id}"] = msgspec.Raw(key.json.encode())
        await self._changes.counts_changed([(key.user_id, key.device_id) for key in claimed])
        return {"one_time_keys": answer, "failures": failures((want.user_id for want in wanted), self._server_name)}


def failures(user_ids: Iterable[str], server_name: str) -> dict[str, Any]:
    """The servers of these users that could not be asked."""
    return {domain: _NO_FEDERATION for user_id in user_ids if (domain := domain_of(user_id)) != server_name}


# -- what clients send -------------------------------------------------------------------------------------------------


def checked_upload(user_id: str, device_id: str, body: dict[str, Any]) -> Upload:
    """Raises 400 M_BAD_JSON or M_INVALID_PARAM with a sentence about what is wrong."""
    return Upload(
        _device_keys(user_id, device_id, body.get("device_keys")),
        _keys("one_time_keys", body.get("one_time_keys")),
        _one_of_each(_keys("fallback_keys", body.get("fallback_keys"))),
    )


def _device_keys(user_id: str, device_id: str, keys: object) -> str | None:
    if keys is None:
        return None
    if not isinstance(keys, dict):
        raise bad_json("The key 'device_keys' must be an object.")
    for name, own in (("user_id", user_id), ("device_id", device_id)):
        if name not in keys:
            raise missing_param(f"device_keys.{name}")
        if keys[name] != own:
            raise invalid_param(f"'device_keys.{name}' must be that of the device that is logged in, {own}.")
    algorithms = keys.get("algorithms")
    if not isinstance(algorithms, list) or not all(isinstance(name, str) for name in algorithms):
        raise bad_json("The key 'device_keys.algorithms' must be a list of strings.")
    named = keys.get("keys")
    if not isinstance(named, dict) or not all(isinstance(key, str) for key in named.values()):
        raise bad_json("The key 'device_keys.keys' must be an object whose values are strings.")
    if "signatures" not in keys:
        raise missing_param("device_keys.signatures")
    signatures_by(keys, user_id)
    return _encoded("device_keys", {name: value for name, value in keys.items() if name != "unsigned"})


def _keys(name: str, keys: object) -> list[Key]:
    if keys is None:
        return []
    if not isinstance(keys, dict):
        raise bad_json(f"The key '{name}' must be an object.")
    return [_key(name, full_id, value) for full_id, value in keys.items()]


def _key(name: str, full_id: str, value: object) -> Key:
    algorithm, colon, key_id = full_id.partition(":")
    if not algorithm or not colon or not key_id:
        raise invalid_param(f"The names in '{name}' must have the form algorithm:key_id.")
    if "\x00" in full_id or len(full_id.encode()) > MAX_ID_BYTES:
        raise invalid_param(f"The names in '{name}' have at most {MAX_ID_BYTES} bytes and no NUL character.")
    if isinstance(value, dict):
        if not isinstance(value.get("key"), str) or "signatures" not in value:
            raise bad_json(f"The signed keys in '{name}' must have a string 'key' and an object 'signatures'.")
        signatures_by(value, "")
    if not isinstance(value, (str, dict)):
        raise bad_json(f"The keys in '{name}' must be strings or objects.")
    return Key(algorithm, key_id, _encoded(name, value))


def _one_of_each(keys: list[Key]) -> list[Key]:
    if len({key.algorithm for key in keys}) < len(keys):
        raise invalid_param("'fallback_keys' may hold one key of each algorithm.")
    return keys


def _encoded(name: str, value: object) -> str:
    if (problem := problem_of(value)) is not None:
        raise invalid_param(f"'{name}' cannot be stored: {problem}.")
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    if len(text) > MAX_KEY_BYTES:
        raise invalid_param(f"A key in '{name}' is longer than {MAX_KEY_BYTES} bytes.")
    return text


def checked_users(body: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of the body that is an object of user ids, with `timeout` checked as well.

    Raises 400 M_MISSING_PARAM, M_BAD_JSON, M_INVALID_PARAM.
    """
    value = body.get(name)
    if not isinstance(value, dict):
        raise missing_param(name) if value is None else bad_json(f"The key '{name}' must be an object.")
    if len(value) > MAX_USERS:
        raise unknown(f"One request may name {MAX_USERS} users at most.")
    for user_id in value:
        parse_user_id(user_id)
    timeout = body.get("timeout")  # for other servers' users, whom nobody asks yet
    if timeout is not None and (not isinstance(timeout, int) or isinstance(timeout, bool)):
        raise bad_json("The key 'timeout' must be an integer.")
    return value


def _wanted_keys(body: dict[str, Any]) -> list[Wanted]:
    wanted = []
    for user_id, devices in checked_users(body, "one_time_keys").items():
        if not isinstance(devices, dict) or not all(isinstance(name, str) for name in devices.values()):
            raise _bad_claim()
        if any("\x00" in device_id or "\x00" in name for device_id, name in devices.items()):
            raise _bad_claim()
        wanted += [Wanted(user_id, device_id, algorithm) for device_id, algorithm in devices.items()]
    return wanted


def _bad_claim() -> MatrixError:
    return bad_json("The values in 'one_time_keys' must be objects of device IDs with an algorithm each.")
