"""Room aliases of this server: what they point to, and who made them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class Alias(NamedTuple):
    """A room alias of this server."""

    alias: str
    room_id: str
    creator: str


class AliasesStore:
    """Reads and writes aliases, in any process. One statement each."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, alias: str) -> Alias | None:
        """What the alias points to."""
        return (await self.get_many([alias])).get(alias)

    async def get_many(self, aliases: Collection[str]) -> dict[str, Alias]:
        """Those of the aliases that exist."""
        return await self._db.read("aliases.get_many", _get_many, list(aliases)) if aliases else {}

    async def of_room(self, room_id: str) -> list[str]:
        """All aliases of a room, in their order."""
        return await self._db.read("aliases.of_room", _of_room, room_id)

    async def create(self, alias: Alias) -> bool:
        """False where the alias exists already, also if it points to the same room."""
        return await self._db.write("aliases.create", _create, alias)

    async def move(self, old_room_id: str, new_room_id: str) -> None:
        """Let all aliases of a room lead to another one."""
        await self._db.write_idempotent("aliases.move", _move, old_room_id, new_room_id)

    async def delete(self, alias: str) -> bool:
        """False where there was no such alias."""
        return await self._db.write("aliases.delete", _delete, alias)


def _get_many(txn: Transaction, aliases: list[str]) -> dict[str, Alias]:
    txn.execute("SELECT alias, room_id, creator FROM room_aliases WHERE alias = ANY(%s)", (aliases,))
    return {row[0]: Alias(*row) for row in txn.rows()}


def _of_room(txn: Transaction, room_id: str) -> list[str]:
    txn.execute("SELECT alias FROM room_aliases WHERE room_id = %s ORDER BY alias", (room_id,))
    return [alias for (alias,) in txn.rows()]


def _create(txn: Transaction, alias: Alias) -> bool:
    txn.execute(
        "INSERT INTO room_aliases (alias, room_id, creator) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", tuple(alias)
    )
    return txn.affected > 0


def _move(txn: Transaction, old_room_id: str, new_room_id: str) -> None:
    txn.execute("UPDATE room_aliases SET room_id = %s WHERE room_id = %s", (new_room_id, old_room_id))


def _delete(txn: Transaction, alias: str) -> bool:
    txn.execute("DELETE FROM room_aliases WHERE alias = %s", (alias,))
    return txn.affected > 0
