"""State groups as stored: reading the state that a group names, and the end of a line of groups. Writing them is part
of persisting events (`synapse.storage.persist_rows`); how deltas are chosen is told in `synapse.state.groups`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from synapse.state.filters import ALL, StateFilter, StateKey
from synapse.state.groups import Delta

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class GroupPlace(NamedTuple):
    """Where a group stands: the state before it and its number in its line."""

    prev_group: int | None
    number: int


class StateStore:
    """Reads state groups, in any process. One statement each."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def ids(self, groups: Collection[int], wanted: StateFilter = ALL) -> dict[int, dict[StateKey, str]]:
        """The state of each group, as event ids. Groups that do not exist have no state."""
        return await self._db.read("state.ids", _ids, list(groups), wanted) if groups else {}

    async def differences(self, groups: Collection[int]) -> dict[int, Delta]:
        """In what these groups' states differ: of each group all entries that may not be the same in all of them (None:
        it has no such entry). Three statements, whose cost is that of what changed since the groups' lines parted.
        """
        if len(groups) < 2:
            return {group: {} for group in groups}
        return await self._db.read("state.differences", _differences, list(groups))

    async def places(self, groups: Collection[int]) -> dict[int, GroupPlace]:
        """Where the groups stand; those that do not exist are missing."""
        return await self._db.read("state.places", _places, list(groups)) if groups else {}

    async def since(self, group: int, number: int) -> tuple[int, Delta]:
        """The group that is `number` in the line of `group`, and what has changed since until `group`."""
        return await self._db.read("state.since", _since, group, number)

    async def highest_group(self) -> int:
        """The highest id handed out so far."""
        return await self._db.read("state.highest_group", _highest_group)


_CHAIN = """
    WITH RECURSIVE chain (root, id, base_group, number, step) AS (
        SELECT id, id, base_group, number, 0 FROM state_groups WHERE id = ANY(%s)
        UNION ALL
        SELECT c.root, g.id, g.base_group, g.number, c.step + 1
        FROM chain c JOIN state_groups g ON g.id = c.base_group {stop}
    )
"""


def _ids(txn: Transaction, groups: list[int], wanted: StateFilter) -> dict[int, dict[StateKey, str]]:
    condition, params = wanted.sql("e")
    txn.execute(
        _CHAIN.format(stop="")
        + f"""
        SELECT DISTINCT ON (c.root, e.type, e.state_key) c.root, e.type, e.state_key, e.event_id
        FROM chain c JOIN state_group_entries e ON e.state_group = c.id WHERE {condition}
        ORDER BY c.root, e.type, e.state_key, c.step
        """,
        [groups, *params],
    )
    found: dict[int, dict[StateKey, str]] = {group: {} for group in groups}
    for root, event_type, state_key, event_id in txn.rows():
        if event_id is not None:
            found[root][event_type, state_key] = event_id
    return found


def _differences(txn: Transaction, groups: list[int]) -> dict[int, Delta]:
    txn.execute(_CHAIN.format(stop="") + "SELECT root, id FROM chain ORDER BY root, step", (groups,))
    chains: dict[int, list[int]] = {group: [] for group in groups}
    for root, link in txn.rows():
        chains[root].append(link)
    # Chains that have met stay together: what the shared links say is the same for all, unless an own link says more.
    shared = set.intersection(*map(set, chains.values()))
    own = set().union(*chains.values()) - shared
    txn.execute(
        "SELECT state_group, type, state_key, event_id FROM state_group_entries WHERE state_group = ANY(%s)",
        (list(own),),
    )
    entries: dict[int, Delta] = {}
    for group, event_type, state_key, event_id in txn.rows():
        entries.setdefault(group, {})[event_type, state_key] = event_id
    keys = {key for delta in entries.values() for key in delta}
    meeting = next((link for link in next(iter(chains.values())) if link in shared), None)
    below = {} if meeting is None else _ids(txn, [meeting], StateFilter.keys(keys))[meeting]
    found: dict[int, Delta] = {}
    for root, links in chains.items():
        found[root] = {key: below.get(key) for key in keys}
        for link in reversed(links):
            found[root].update(entries.get(link, {}))
    return found


def _places(txn: Transaction, groups: list[int]) -> dict[int, GroupPlace]:
    txn.execute("SELECT id, prev_group, number FROM state_groups WHERE id = ANY(%s)", (groups,))
    return {group: GroupPlace(prev_group, number) for group, prev_group, number in txn.rows()}


def _since(txn: Transaction, group: int, number: int) -> tuple[int, Delta]:
    txn.execute(
        _CHAIN.format(stop="WHERE c.number > %s")
        + """
        SELECT c.id, c.number, c.step, e.type, e.state_key, e.event_id
        FROM chain c LEFT JOIN state_group_entries e ON e.state_group = c.id AND c.number > %s ORDER BY c.step DESC
        """,
        ([group], number, number),
    )
    rows = txn.rows()
    changes: Delta = {}
    for _group, _number, _step, event_type, state_key, event_id in rows:
        if event_type is not None:
            changes[event_type, state_key] = event_id
    base: int = rows[0][0]
    return base, changes


def _highest_group(txn: Transaction) -> int:
    txn.execute("SELECT coalesce(max(id), 0) FROM state_groups")
    highest: int = txn.one()[0]
    return highest
