"""What there is to know of this server's users before they are invited: how they show, and whether they want it.

One statement for any number of them, so that asking for permission costs an invitation nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from synapse.api.constants import AccountDataTypes
from synapse.storage.account_data import blocks_invites

if TYPE_CHECKING:
    from collections.abc import Collection

    from synapse.storage.database import Database, Transaction


class Invitee(NamedTuple):
    """A user: the profile as m.room.member shows it, whether an invitation shows it, and whether they are blocked."""

    display_name: str | None = None
    avatar_url: str | None = None
    blocks_invites: bool = False
    shown_in_invites: bool = True

    def as_json(self) -> dict[str, str]:
        """`displayname` and `avatar_url`, where they are set."""
        named = {"displayname": self.display_name, "avatar_url": self.avatar_url}
        return {name: value for name, value in named.items() if value is not None}

    def as_invited(self) -> dict[str, str]:
        """The same, as far as an invitation shows it."""
        return self.as_json() if self.shown_in_invites else {}


NOBODY = Invitee()
"""A user of whom nothing is known."""


class InviteesStore:
    """Reads, in any process.

    :param shown_in_invites: whether invitations show who is invited.
    """

    def __init__(self, db: Database, shown_in_invites: bool = True) -> None:
        self._db = db
        self._shown = shown_in_invites

    async def get(self, user_id: str) -> Invitee:
        """One user; `NOBODY` for one who has no account here, or none any more."""
        return (await self.get_many([user_id])).get(user_id, NOBODY)

    async def get_many(self, user_ids: Collection[str]) -> dict[str, Invitee]:
        """Those of the users who have an account here."""
        return await self._db.read("invitees.get_many", _get_many, list(user_ids), self._shown) if user_ids else {}


def _get_many(txn: Transaction, user_ids: list[str], shown: bool) -> dict[str, Invitee]:
    txn.planned(
        """
        SELECT p.user_id, p.display_name, p.avatar_url, a.content FROM profiles p JOIN users u USING (user_id)
        LEFT JOIN account_data a ON a.user_id = p.user_id AND a.room_id = '' AND a.type = %s
        WHERE p.user_id = ANY(%s) AND NOT u.deactivated
        """,
        (AccountDataTypes.INVITE_PERMISSION_CONFIG, user_ids),
    )
    return {user_id: Invitee(name, picture, _blocks(config), shown) for user_id, name, picture, config in txn.rows()}


def _blocks(config: str | None) -> bool:
    return config is not None and blocks_invites(config)
