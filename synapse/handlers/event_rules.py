"""Checks of our own users' events that need to know more than the event: aliases that must exist, relations that must
make sense. They protect users from mistakes; the room's authorisation rules are asked elsewhere.

Client-server API, "m.room.canonical_alias", "Annotations", "Threading".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synapse.api.constants import EventTypes, RelationTypes
from synapse.api.errors import Codes, MatrixError, bad_json, invalid_param, unknown
from synapse.api.identifiers import domain_of
from synapse.events.server_acl import ServerAcl
from synapse.handlers.event_content import aliases_in
from synapse.storage.relations import Relation, relation_of
from synapse.util.concurrency import gather

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse.handlers.event_creation import Draft, State
    from synapse.storage.aliases import AliasesStore
    from synapse.storage.events import EventsStore
    from synapse.storage.relations import RelationsStore


_SERVER_ACL: Final = (EventTypes.SERVER_ACL, "")
MAX_ASKED: Final = 10
"""Aliases of other servers that one event may add: each is asked for."""


class EventRules:
    """Called with each event before it is written; raises MatrixError.

    :param elsewhere: the room that an alias of another server leads to; raises MatrixError.
    """

    def __init__(
        self,
        aliases: AliasesStore,
        relations: RelationsStore,
        events: EventsStore,
        server_name: str,
        elsewhere: Callable[[str], Awaitable[str]],
    ) -> None:
        self._elsewhere = elsewhere
        self._aliases = aliases
        self._relations = relations
        self._events = events
        self._server_name = server_name

    async def __call__(self, draft: Draft, state: State) -> None:
        if draft.type == EventTypes.TOMBSTONE and draft.content.get("replacement_room") == draft.room_id:
            raise bad_json("A room cannot be replaced by itself.")
        if draft.type == EventTypes.CANONICAL_ALIAS and draft.key is not None:
            await self._check_aliases(draft, state)
        if draft.key == _SERVER_ACL and not ServerAcl({**draft.content, "deny": []}).allows(self._server_name):
            # Whoever set it could never take it back. (Who names it in 'deny' will know why.)
            raise bad_json("This list would shut out your own server. Name it in 'allow'.")
        relation = relation_of(draft.content) if "m.relates_to" in draft.content else None
        if relation is not None and draft.state_key is None:
            await self._check_relation(draft, relation)

    async def _check_aliases(self, draft: Draft, state: State) -> None:
        """Aliases that were not there before must exist and lead to this room."""
        assert draft.key is not None
        existing = state.get(draft.key)
        before = aliases_in(existing.event.content) if existing is not None and _is_sane(existing.event.content) else []
        added = [alias for alias in aliases_in(draft.content) if alias not in before]
        ours = [alias for alias in added if domain_of(alias) == self._server_name]
        theirs = [alias for alias in added if domain_of(alias) != self._server_name]
        found = await self._aliases.get_many(ours)
        for alias in ours:
            if alias not in found or found[alias].room_id != draft.room_id:
                raise _bad_alias(alias)
        if len(theirs) > MAX_ASKED:
            raise invalid_param(f"{MAX_ASKED} aliases of other servers can be added at a time.")
        await gather(self._check_theirs(alias, draft.room_id) for alias in theirs)

    async def _check_theirs(self, alias: str, room_id: str) -> None:
        try:
            found = await self._elsewhere(alias)
        except MatrixError as error:
            raise _bad_alias(alias, f": {error.message}") from error
        if found != room_id:
            raise _bad_alias(alias)

    async def _check_relation(self, draft: Draft, relation: Relation) -> None:
        if relation.rel_type == RelationTypes.ANNOTATION and relation.key is not None:
            if await self._relations.has_annotation(draft.sender, draft.type, relation.event_id, relation.key):
                raise MatrixError(400, Codes.DUPLICATE_ANNOTATION, "You have sent this very reaction already.")
        elif relation.rel_type == RelationTypes.THREAD:
            root = await self._events.get(relation.event_id)
            own = None if root is None else relation_of(root.shown.content)
            if own is not None and own.rel_type is not None:
                raise unknown("A thread cannot begin with an event that relates to another one.")


def _bad_alias(alias: str, why: str = ".") -> MatrixError:
    return MatrixError(400, Codes.BAD_ALIAS, f"The room alias {alias} does not lead to this room{why}")


def _is_sane(content: dict[str, object]) -> bool:
    try:
        aliases_in(content)
    except MatrixError:
        return False
    return True
