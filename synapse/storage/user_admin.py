"""Accounts as administrators look at them, and what only they change: lists, ranks, and bringing accounts back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synapse.storage import user_directory
from synapse.storage.access_tokens import hashes_of

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction

ORDERS: Final = {
    "name": "u.user_id",
    "is_guest": "u.is_guest",
    "admin": "u.admin",
    "user_type": "u.user_type",
    "deactivated": "u.deactivated",
    "locked": "u.locked",
    "displayname": "p.display_name",
    "avatar_url": "p.avatar_url",
    "creation_ts": "u.created_ts",
    "last_seen_ts": "last_seen_ts",
}
"""What lists may be ordered by, and the column of each."""

_LAST_SEEN: Final = "(SELECT max(last_seen_ts) FROM user_ips i WHERE i.user_id = u.user_id) AS last_seen_ts"
_COLUMNS: Final = f"""
    u.user_id, p.display_name, p.avatar_url, u.is_guest, u.admin, u.deactivated, u.erased, u.locked, u.suspended,
    u.user_type, u.app_service_id, u.created_ts, u.consent_version, u.consent_ts, u.consent_notice_sent, {_LAST_SEEN}
"""


@dataclass(frozen=True, slots=True)
class Described:
    """What is known of an account. Times are milliseconds since the epoch."""

    user_id: str
    display_name: str | None
    avatar_url: str | None
    is_guest: bool
    admin: bool
    deactivated: bool
    erased: bool
    locked: bool
    suspended: bool
    user_type: str | None
    app_service_id: str | None
    created_ts: int
    consent_version: str | None
    consent_ts: int | None
    consent_notice_sent: str | None
    last_seen_ts: int | None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which accounts a page of a list has.

    :param contains: text that user ids have; `name_contains`: text that user ids or display names have.
    :param flags: columns of `users` with the value that each must have.
    :param not_types: types that users must not have; "" for none.
    """

    contains: str | None = None
    name_contains: str | None = None
    flags: dict[str, bool] = field(default_factory=dict)
    not_types: tuple[str, ...] = ()
    order: str = "name"
    backwards: bool = False
    offset: int = 0
    limit: int = 100


class Page(NamedTuple):
    """A page of a list, and how many accounts are in all its pages together."""

    users: list[Described]
    total: int


class UserAdminStore:
    """Reads in any process, writes in the main process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def describe(self, user_id: str) -> Described | None:
        return await self._db.read("user_admin.describe", _describe, user_id)

    async def page(self, selection: Selection) -> Page:
        return await self._db.snapshot("user_admin.page", _page, selection)

    async def set_rank(self, user_id: str, *, admin: bool | None, user_type: str | None) -> list[bytes]:
        """Makes an administrator (None: leaves it as it is), or gives a type ("": none; None: leaves it as it is).

        Returns the hashes of the tokens for which that now holds.
        """
        return await self._db.write_idempotent("user_admin.set_rank", _set_rank, user_id, admin, user_type)

    async def reactivate(self, user_id: str, password_hash: str | None) -> bool:
        """Takes a deactivated account into use again; False, and nothing done, where there is none."""
        return await self._db.write("user_admin.reactivate", _reactivate, user_id, password_hash)


def _describe(txn: Transaction, user_id: str) -> Described | None:
    txn.execute(f"SELECT {_COLUMNS} FROM users u LEFT JOIN profiles p USING (user_id) WHERE u.user_id = %s", (user_id,))
    row = txn.one_or_none()
    return None if row is None else Described(*row)


def _page(txn: Transaction, selection: Selection) -> Page:
    condition, values = _condition(selection)
    source = f"FROM users u LEFT JOIN profiles p USING (user_id) WHERE {condition}"
    txn.execute(f"SELECT count(*) {source}", values)
    total = int(txn.one()[0])
    direction = "DESC NULLS LAST" if selection.backwards else "ASC NULLS FIRST"
    txn.execute(
        f"SELECT {_COLUMNS} {source} ORDER BY {ORDERS[selection.order]} {direction}, u.user_id LIMIT %s OFFSET %s",
        (*values, selection.limit, selection.offset),
    )
    return Page([Described(*row) for row in txn.rows()], total)


def _condition(selection: Selection) -> tuple[str, tuple[Any, ...]]:
    parts: list[str] = ["true"]
    values: list[Any] = []
    if selection.contains is not None:
        parts.append("strpos(lower(u.user_id), %s) > 0")
        values.append(selection.contains.lower())
    if selection.name_contains is not None:
        parts.append("(strpos(lower(u.user_id), %s) > 0 OR strpos(lower(p.display_name), %s) > 0)")
        values += [selection.name_contains.lower()] * 2
    for column, value in selection.flags.items():
        parts.append(f"u.{column} = %s")
        values.append(value)
    if selection.not_types:
        parts.append("NOT COALESCE(u.user_type, '') = ANY(%s)")
        values.append(list(selection.not_types))
    return " AND ".join(parts), tuple(values)


def _set_rank(txn: Transaction, user_id: str, admin: bool | None, user_type: str | None) -> list[bytes]:
    txn.see_the_latest()
    txn.execute(
        """
        UPDATE users SET admin = COALESCE(%s, admin),
            user_type = CASE WHEN %s::text IS NULL THEN user_type ELSE NULLIF(%s, '') END
        WHERE user_id = %s
        """,
        (admin, user_type, user_type, user_id),
    )
    return hashes_of(txn, user_id)


def _reactivate(txn: Transaction, user_id: str, password_hash: str | None) -> bool:
    txn.execute(
        """
        UPDATE users SET deactivated = false, erased = false, password_hash = %s
        WHERE user_id = %s AND deactivated RETURNING true
        """,
        (password_hash, user_id),
    )
    if txn.one_or_none() is None:
        return False
    txn.later("DELETE FROM departing_users WHERE user_id = %s", (user_id,))
    txn.execute(
        """
        INSERT INTO profiles (user_id) VALUES (%s)
        ON CONFLICT (user_id) DO UPDATE SET user_id = EXCLUDED.user_id RETURNING display_name, avatar_url
        """,
        (user_id,),
    )
    user_directory.put(txn, [user_directory.DirectoryUser(user_id, *txn.one())])
    return True
