"""Published keys as somebody may see them: with the signatures that are not secret from them.

Pure. A user's own keys' signatures are shown to everybody, except those of the user-signing key, which the user alone
sees; others' signatures to those who made them. Client-server API, "Key and signature security".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import orjson

from synapse.storage.cross_signing import USER_SIGNING
from synapse.storage.published_keys import secret_key_ids

if TYPE_CHECKING:
    from synapse.storage.published_keys import DeviceKeys, PublishedKeys


class ShownKeys:
    """Keys in the eyes of a viewer ("": anybody)."""

    def __init__(self, published: PublishedKeys, viewer: str) -> None:
        self._published = published
        self._viewer = viewer
        self._secret = secret_key_ids(published.cross_signing, viewer)
        self._of: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
        for user_id, target_id, signer, key_id, signature in published.signatures:
            self._of.setdefault((user_id, target_id), []).append((signer, key_id, signature))

    def device(self, keys: DeviceKeys, *, with_name: bool = True) -> dict[str, Any]:
        """The keys of a device, with the name that its user gave it where that is shown."""
        shown = self.with_signatures(orjson.loads(keys.json), keys.user_id, keys.device_id)
        named = with_name and keys.display_name is not None
        shown["unsigned"] = {"device_display_name": keys.display_name} if named else {}
        return shown

    def signing_keys(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(user id, usage, key) of the keys of users as such; of user-signing keys the viewer's alone."""
        for key in self._published.cross_signing:
            if key.usage != USER_SIGNING or key.user_id == self._viewer:
                shown = self.with_signatures(orjson.loads(key.json), key.user_id, key.public_key)
                yield key.user_id, key.usage, shown

    def with_signatures(self, key: dict[str, Any], user_id: str, target_id: str) -> dict[str, Any]:
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
