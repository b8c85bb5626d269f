"""Asks users by a server notice to agree to the policy: once for each version, when they are next seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.handlers.server_notices import Notice

if TYPE_CHECKING:
    from collections.abc import Collection

    from synapse.config.conduct import NoticeContent
    from synapse.handlers.consent import Consent
    from synapse.handlers.server_notices import ServerNotices
    from synapse.storage.server_notices import ServerNoticesStore


class ConsentNotices:
    """In the main process, which hears of everybody who is seen anywhere."""

    def __init__(
        self,
        consent: Consent,
        content: NoticeContent,
        notices: ServerNotices,
        store: ServerNoticesStore,
        *,
        guests: bool,
    ) -> None:
        self._consent = consent
        self._content = content
        self._notices = notices
        self._store = store
        self._guests = guests
        self._seen: set[str] = set()

    def seen(self, user_ids: Collection[str]) -> None:
        """These users were seen somewhere; `run` looks at them. Whoever is lost with the process is seen again."""
        self._seen.update(user_ids)

    async def run(self) -> None:
        """Asks those who were seen and have neither agreed nor been asked."""
        user_ids, self._seen = self._seen, set()
        if not user_ids:
            return
        version = self._consent.version
        for user_id in await self._store.to_ask_for_consent(user_ids, version, self._guests):
            body = self._consent.filled(self._content.body, user_id)
            content = {"msgtype": self._content.msgtype, "body": body}
            told = await self._notices.tell(Notice(user_id=user_id, content=content, txn_id=f"consent {version}"))
            if told is not None:
                await self._store.asked_for_consent(user_id, version)
