"""Cross-signing keys: taking them in, and saying whether somebody has to prove who they are first.

A first set of keys may be uploaded by whoever is logged in, and the same again; another in its place asks for the
proof, which is the endpoint's doing. An administrator may open a window in which it is not asked for.

Works in the main process. Client-server API, "Cross-signing", `POST /keys/device_signing/upload`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from synapse.api.errors import forbidden, missing_param, not_found
from synapse.handlers.device_changes import news_of
from synapse.handlers.signed_keys import ED25519, UploadedKey, cross_signing_key, invalid_signature, is_signed
from synapse.storage.cross_signing import (
    MASTER,
    SELF_SIGNING,
    USAGES,
    USER_SIGNING,
    CrossSigningKey,
    KeyIdInUse,
    KeysChanged,
    Signature,
)

if TYPE_CHECKING:
    from synapse.handlers.positions import StreamWriter
    from synapse.storage.cross_signing import CrossSigningStore
    from synapse.util.clock import Clock

REPLACEABLE_MS: Final = 10 * 60 * 1000
"""How long an administrator's leave to replace keys lasts."""


class Upload(msgspec.Struct, frozen=True):
    """A checked request: the keys that are to be written, and the user's keys that it was judged by."""

    user_id: str
    keys: list[UploadedKey]
    known: dict[str, CrossSigningKey]
    needs_proof: bool


class CrossSigning:
    """Takes in cross-signing keys."""

    def __init__(self, store: CrossSigningStore, stream: StreamWriter, clock: Clock) -> None:
        self._store = store
        self._stream = stream
        self._clock = clock

    async def check(self, user_id: str, body: dict[str, Any]) -> Upload:
        """What the request asks for. Raises 400: M_MISSING_PARAM, M_INVALID_PARAM, M_BAD_JSON, M_INVALID_SIGNATURE."""
        given = {
            usage: cross_signing_key(user_id, usage, key)
            for usage in USAGES
            if (key := body.get(f"{usage}_key")) is not None
        }
        known = await self._store.keys_of(user_id)
        master = given.get(MASTER) or known.get(MASTER)
        if master is None:
            raise missing_param("master_key")
        _check_signed(user_id, given, master.public_key)
        old = known.get(MASTER)
        new_master = MASTER in given and (old is None or old.json != given[MASTER].json)
        keys = [key for usage, key in given.items() if new_master or _is_new(key, known.get(usage))]
        free = old is None or (old.replaceable_until or 0) > self._now()
        return Upload(user_id, keys, known, bool(keys) and not free)

    async def publish(self, upload: Upload) -> bool:
        """Writes and tells the keys; False if others were written since they were checked.

        Raises 403 M_FORBIDDEN where a key has the name of a device.
        """
        if not upload.keys:
            return True
        user_id, now = upload.user_id, self._now()
        keys = [CrossSigningKey(user_id, key.usage, key.public_key, key.json) for key in upload.keys]
        signatures = [
            Signature(user_id, key.public_key, user_id, key_id, signature)
            for key in upload.keys
            for key_id, signature in key.signatures.items()
        ]
        private = all(key.usage == USER_SIGNING for key in upload.keys)
        try:
            await self._stream.append(
                lambda position: self._store.replace(upload.known, keys, signatures, now, position),
                lambda _: news_of(user_id, public=not private, private=private),
            )
        except KeysChanged:
            return False
        except KeyIdInUse as in_use:
            raise forbidden(f"The key ID {in_use} is the ID of one of your devices.") from None
        return True

    async def allow_replacement(self, user_id: str) -> int:
        """Lets the user replace the keys without proof for a while; until when, in milliseconds. Raises 404."""
        until = self._now() + REPLACEABLE_MS
        if not await self._store.allow_replacement(user_id, until):
            raise not_found("There is no such user here, or they have no cross-signing keys.")
        return until

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _is_new(key: UploadedKey, known: CrossSigningKey | None) -> bool:
    return known is None or known.json != key.json


def _check_signed(user_id: str, given: dict[str, UploadedKey], master: str) -> None:
    """The master key has to sign the others; of their signatures, no other is kept."""
    for usage in (SELF_SIGNING, USER_SIGNING):
        key = given.get(usage)
        if key is None:
            continue
        signature = key.signatures.get(ED25519 + master)
        if signature is None:
            raise invalid_signature(f"'{usage}_key' must be signed by the master key of {user_id}.")
        if not is_signed(key.json.encode(), signature, master):
            raise invalid_signature(f"The signature of '{usage}_key' by the master key is not right.")
        given[usage] = key._replace(signatures={ED25519 + master: signature})
