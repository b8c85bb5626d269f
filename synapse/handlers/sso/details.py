"""What an identity provider says of a user, as far as it goes into the account: name, picture, e-mail addresses.

A picture's URL may be the user's own choice: it is fetched as what users name is (`http.outside`), and a log-in never
fails for it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from synapse.api.errors import MatrixError
from synapse.api.threepids import EMAIL, canonical
from synapse.handlers.profile import MAX_DISPLAY_NAME
from synapse.http.client import ClientError
from synapse.http.upload import BytesBody

if TYPE_CHECKING:
    from synapse.handlers.media import Media
    from synapse.handlers.profile import Profiles
    from synapse.http.outside import OutsideClient
    from synapse.storage.media import MediaStore
    from synapse.storage.threepids import ThreepidStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

MAX_PICTURE: Final = 5 << 20  # bytes
_SECONDS: Final = 5.0
_TYPES: Final = frozenset(("image/png", "image/jpeg", "image/gif", "image/webp", "image/avif"))


class Details:
    """Writes them.

    :param profiles: through which everything can be changed, whatever users can change themselves.
    :param outside: a client for what users name, made when it is needed.
    """

    def __init__(
        self,
        profiles: Profiles,
        threepids: ThreepidStore,
        media: Media,
        media_store: MediaStore,
        outside: Callable[[], OutsideClient],
        clock: Clock,
    ) -> None:
        self._profiles = profiles
        self._threepids = threepids
        self._media = media
        self._media_store = media_store
        self._outside = outside
        self._clock = clock

    async def add(self, user_id: str, picture: str | None, emails: Iterable[str]) -> None:
        """Gives a new account a picture and addresses, for which the provider vouches."""
        now = int(self._clock.seconds() * 1000)
        for email in emails:
            try:
                added = await self._threepids.add(user_id, EMAIL, canonical(EMAIL, email), now, now)
            except MatrixError:
                added = False
            if not added:
                logger.info("An e-mail address of %s is no address, or another user's; it is left out", user_id)
        if picture is not None:
            await self._set_picture(user_id, picture)

    async def update(self, user_id: str, display_name: str | None, picture: str | None) -> None:
        """Brings the profile to what the provider says now."""
        if display_name:
            await self._profiles.set_field(user_id, "displayname", {"displayname": display_name[:MAX_DISPLAY_NAME]})
        if picture is not None:
            await self._set_picture(user_id, picture)

    async def _set_picture(self, user_id: str, url: str) -> None:
        fetched = await self._fetch(url)
        if fetched is None:
            return
        kind, content = fetched
        # The name by which it is known again at the next log-in.
        name = f"sso_avatar_{hashlib.sha256(content).hexdigest()}"
        try:
            if await self._name_of_current(user_id) != name:
                uri = await self._media.upload(user_id, BytesBody(content), kind, name)
                await self._profiles.set_field(user_id, "avatar_url", {"avatar_url": uri})
        except MatrixError as problem:
            logger.warning("The picture that an identity provider has of %s is not taken: %s", user_id, problem)

    async def _name_of_current(self, user_id: str) -> str | None:
        uri = str((await self._profiles.get(user_id)).get("avatar_url", ""))
        current = await self._media_store.get_local(uri.rpartition("/")[2]) if uri.startswith("mxc://") else None
        return None if current is None else current.upload_name

    async def _fetch(self, url: str) -> tuple[str, bytes] | None:
        if not url.startswith(("https://", "http://")) or not url.isascii():
            return None
        try:
            answer = await self._outside().request("GET", url, within=_SECONDS, max_answer=MAX_PICTURE)
        except (ClientError, ValueError) as problem:
            logger.warning("A picture that an identity provider names cannot be fetched: %s", problem)
            return None
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if answer.code != 200 or kind not in _TYPES:
            logger.warning("What an identity provider names as a picture is none: %s, %s", answer.code, kind[:80])
            return None
        return kind, answer.body
