"""Profiles of this server's users: display name, avatar, and the fields that users add.

Foreign users' profiles are not kept here. What a profile may hold is for the handler to judge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from synapse.storage import user_directory

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction

# The two fields with a column of their own; every other field is a key of the column `fields`.
_COLUMNS = {"displayname": "display_name", "avatar_url": "avatar_url"}


@dataclass(frozen=True, slots=True)
class Profile:
    """One user's profile; `fields` are those without a column of their own."""

    display_name: str | None = None
    avatar_url: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The profile as clients see it: names of the specification, unset fields absent."""
        named = {"displayname": self.display_name, "avatar_url": self.avatar_url}
        return {**self.fields, **{name: value for name, value in named.items() if value is not None}}


class ProfileFull(Exception):
    """A profile would become too large."""


class ProfileStore:
    """Reads and writes profiles."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, user_id: str) -> Profile | None:
        """None if the user does not exist, or never had an account of its own here, or is deactivated."""
        return await self._db.read("profiles.get", _get, user_id)

    async def get_many(self, user_ids: list[str]) -> dict[str, Profile]:
        return await self._db.read("profiles.get_many", _get_many, user_ids) if user_ids else {}

    async def is_visible(self, user_id: str, to: str) -> bool:
        """Whether somebody shares a room with the user, or could meet the user in a public one."""
        return await self._db.read("profiles.is_visible", user_directory.is_visible, user_id, to)

    async def set_field(self, user_id: str, name: str, value: object, limit: int) -> bool:
        """Sets one field; False if it had that value already.

        Raises `ProfileFull`, and sets nothing, if the profile would have `limit` bytes of JSON or more.
        """
        return await self._db.write("profiles.set_field", _set_field, user_id, name, value, limit)

    async def delete_field(self, user_id: str, name: str) -> bool:
        """False if there was no such field."""
        return await self._db.write("profiles.delete_field", _delete_field, user_id, name)


def _get(txn: Transaction, user_id: str) -> Profile | None:
    return _get_many(txn, [user_id]).get(user_id)


def _get_many(txn: Transaction, user_ids: list[str]) -> dict[str, Profile]:
    txn.execute(
        """
        SELECT p.user_id, p.display_name, p.avatar_url, p.fields FROM profiles p JOIN users u USING (user_id)
        WHERE p.user_id = ANY(%s) AND NOT u.deactivated
        """,
        (user_ids,),
    )
    return {user_id: Profile(name, avatar, orjson.loads(fields)) for user_id, name, avatar, fields in txn.rows()}


def _set_field(txn: Transaction, user_id: str, name: str, value: object, limit: int) -> bool:
    changed = _put(txn, user_id, name, value)
    if changed and len(orjson.dumps(_get_many(txn, [user_id])[user_id].as_json())) >= limit:
        raise ProfileFull
    return changed


def _put(txn: Transaction, user_id: str, name: str, value: object) -> bool:
    if name in _COLUMNS:
        return _set_column(txn, user_id, _COLUMNS[name], value)
    encoded = orjson.dumps(value).decode()
    txn.execute(
        """
        UPDATE profiles SET fields = fields || jsonb_build_object(%s::text, %s::jsonb)
        WHERE user_id = %s AND (fields -> %s) IS DISTINCT FROM %s::jsonb RETURNING true
        """,
        (name, encoded, user_id, name, encoded),
    )
    return txn.one_or_none() is not None


def _set_column(txn: Transaction, user_id: str, column: str, value: object) -> bool:
    """What the user directory shows of the user is changed along with it."""
    txn.execute(
        f"""
        UPDATE profiles SET {column} = %s WHERE user_id = %s AND {column} IS DISTINCT FROM %s
        RETURNING user_id, display_name, avatar_url
        """,
        (value, user_id, value),
    )
    row = txn.one_or_none()
    if row is not None:
        user_directory.put(txn, [user_directory.DirectoryUser(*row)])
    return row is not None


def _delete_field(txn: Transaction, user_id: str, name: str) -> bool:
    if name in _COLUMNS:
        return _set_column(txn, user_id, _COLUMNS[name], None)
    txn.execute(
        "UPDATE profiles SET fields = fields - %s WHERE user_id = %s AND fields ? %s RETURNING true",
        (name, user_id, name),
    )
    return txn.one_or_none() is not None
