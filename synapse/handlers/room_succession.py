"""What users take along from a room to the one that replaces it: tags, push rules, that it is a direct chat. Where
another server has upgraded the room, they also take along what leads to it here: aliases, and the place in the list of
rooms.

It is done when they join the new room, in whichever process they do, and never twice: what they have set for the new
room already stays. A room is the successor of another only if that one's tombstone says so.

Client-server API, "Room Upgrades", server behaviour.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from synapse.api.constants import AccountDataTypes, EventTypes
from synapse.api.errors import MatrixError
from synapse.api.identifiers import domain_of, is_room_id

if TYPE_CHECKING:
    from synapse.handlers.account_data import AccountData
    from synapse.handlers.push_rules import PushRules
    from synapse.state.store import StateReader
    from synapse.storage.aliases import AliasesStore
    from synapse.storage.rooms import RoomsStore

logger = logging.getLogger(__name__)

_CREATE: Final = (EventTypes.CREATE, "")
_TOMBSTONE: Final = (EventTypes.TOMBSTONE, "")
_WITH_CONDITIONS: Final = ("override", "underride")


class Ways(NamedTuple):
    """What leads to rooms."""

    aliases: AliasesStore
    rooms: RoomsStore
    server_name: str


class RoomSuccession:
    """Carries a user's settings over to a room's successor."""

    def __init__(self, state: StateReader, account_data: AccountData, push_rules: PushRules, ways: Ways) -> None:
        self._ways = ways
        self._state = state
        self._account_data = account_data
        self._push_rules = push_rules

    async def joined(self, user_id: str, room_id: str) -> None:
        """A user has joined a room. Asks the database nothing unless the room names a predecessor."""
        create = (await self._state.current(room_id, [_CREATE])).get(_CREATE)
        predecessor = None if create is None else create.event.content.get("predecessor")
        old_id = predecessor.get("room_id") if isinstance(predecessor, dict) else None
        if not isinstance(old_id, str) or not is_room_id(old_id) or old_id == room_id:
            return
        member = (EventTypes.MEMBER, user_id)
        state = await self._state.current(old_id, [_TOMBSTONE, member])
        if _TOMBSTONE not in state or state[_TOMBSTONE].shown.content.get("replacement_room") != room_id:
            return
        if member in state:
            if domain_of(state[_TOMBSTONE].event.sender) != self._ways.server_name:
                await self._lead(old_id, room_id)
            await self.carry(user_id, old_id, room_id)

    async def _lead(self, old_id: str, new_id: str) -> None:
        """Have what leads to the old room lead to the new one."""
        await self._ways.aliases.move(old_id, new_id)
        old = await self._ways.rooms.get(old_id)
        if old is not None and old.is_public:
            await self._ways.rooms.set_public(new_id, True)
            await self._ways.rooms.set_public(old_id, False)

    async def carry(self, user_id: str, old_id: str, new_id: str) -> None:
        """Give the user for the new room what it has set for the old one. What cannot be is left out and logged."""
        for carrying in (self._carry_tags, self._carry_direct, self._carry_push_rules):
            try:
                await carrying(user_id, old_id, new_id)
            except MatrixError as error:
                logger.info("Settings of %s for %s were not carried over: %s", user_id, old_id, error.message)

    async def _carry_tags(self, user_id: str, old_id: str, new_id: str) -> None:
        tags = await self._account_data.tags(user_id, old_id)
        if tags and not await self._account_data.tags(user_id, new_id):
            await self._account_data.write(user_id, new_id, AccountDataTypes.TAG, {"tags": tags})

    async def _carry_direct(self, user_id: str, old_id: str, new_id: str) -> None:
        try:
            direct = orjson.loads(await self._account_data.get(user_id, "", AccountDataTypes.DIRECT))
        except MatrixError:
            return
        changed = {
            other: [*rooms, new_id]
            for other, rooms in direct.items()
            if isinstance(rooms, list) and old_id in rooms and new_id not in rooms
        }
        if changed:
            await self._account_data.write(user_id, "", AccountDataTypes.DIRECT, {**direct, **changed})

    async def _carry_push_rules(self, user_id: str, old_id: str, new_id: str) -> None:
        ruleset = (await self._push_rules.ruleset(user_id))["global"]
        for kind in ("room", *_WITH_CONDITIONS):
            present = {rule["rule_id"] for rule in ruleset.get(kind, [])}
            # From the last to the first: each new rule comes before those that are there.
            for rule in reversed(ruleset.get(kind, [])):
                renamed = _of_new_room(rule, kind, old_id, new_id)
                if renamed is not None and renamed["rule_id"] not in present:
                    await self._put_rule(user_id, kind, renamed)

    async def _put_rule(self, user_id: str, kind: str, rule: dict[str, Any]) -> None:
        body: dict[str, Any] = {name: rule[name] for name in ("actions", "conditions") if name in rule}
        await self._push_rules.put(user_id, kind, rule["rule_id"], body, None, None)
        if not rule.get("enabled", True):
            await self._push_rules.set_enabled(user_id, kind, rule["rule_id"], {"enabled": False})


def _of_new_room(rule: dict[str, Any], kind: str, old_id: str, new_id: str) -> dict[str, Any] | None:
    """The rule for the new room, if it is one of the user's own for the old room."""
    if rule.get("default"):
        return None
    if kind == "room":
        return {**rule, "rule_id": new_id} if rule["rule_id"] == old_id else None
    conditions = rule.get("conditions", [])
    renamed = [
        {**condition, "pattern": new_id}
        if condition.get("kind") == "event_match"
        and condition.get("key") == "room_id"
        and condition.get("pattern") == old_id
        else condition
        for condition in conditions
    ]
    if renamed == conditions:
        return None
    name = rule["rule_id"]
    return {**rule, "conditions": renamed, "rule_id": name.replace(old_id, new_id) if old_id in name else name + new_id}
