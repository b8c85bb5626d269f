"""The rooms of a space, and of the spaces in it: `GET /rooms/{roomId}/hierarchy`.

The tree is read level by level, as far as the user may know of its rooms, and then walked depth-first; a room is told
of where it first occurs, which breaks loops. A page's token names the room that it ended with, so the walk goes on
behind that room although the tree may have changed meanwhile; nothing is kept between pages. Rooms that this server
is not in are looked for at those that the spaces name, as far as time allows.

Client-server API, "Spaces".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from synapse.api.constants import RoomTypes
from synapse.api.errors import forbidden, invalid_param, not_found
from synapse.handlers.federated_spaces import FederatedSpaces, Look
from synapse.handlers.federation_door import FederationDoor
from synapse.handlers.room_summaries import RoomSummaries, summarised
from synapse.handlers.space_tree import Child, Tree, child_of, shown_with_children, walk
from synapse.storage.spaces import SpacesStore
from synapse.sync.forms import Annotator, content_of
from synapse.util.batch_tokens import pack, unpack

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200
MAX_DEPTH: Final = 30
"""Also where no `max_depth` is given; each level costs two statements."""
MAX_ROOMS: Final = 2_000
"""Of one tree; what lies beyond is not told."""
MAX_CHILDREN: Final = 1_000
"""Of one space; of those that were added later, nothing is told."""


class Wish(NamedTuple):
    """What of the tree is wanted."""

    suggested_only: bool
    max_depth: int | None
    limit: int | None
    start: str | None


class Spaces:
    """Walks spaces, in any process."""

    def __init__(
        self,
        summaries: RoomSummaries,
        store: SpacesStore,
        annotator: Annotator,
        door: FederationDoor,
        elsewhere: FederatedSpaces,
    ) -> None:
        self._elsewhere = elsewhere
        self._door = door
        self._summaries = summaries
        self._store = store
        self._annotator = annotator

    async def hierarchy(self, user_id: str, room_id: str, wish: Wish) -> bytes:
        """A page of the tree. Raises 403 M_FORBIDDEN where the user may not know of the space, 400 M_INVALID_PARAM."""
        limit = DEFAULT_LIMIT if wish.limit is None else wish.limit
        if limit <= 0:
            raise invalid_param("'limit' must be greater than zero.")
        depth = MAX_DEPTH if wish.max_depth is None else min(wish.max_depth, MAX_DEPTH)
        scope = (room_id, wish.suggested_only, depth)
        last, offset = (None, 0) if wish.start is None else _parse(wish.start, scope)
        tree = await self._tree(user_id, room_id, depth, wish.suggested_only)
        order = list(walk(tree, room_id, depth))
        begin = order.index(last) + 1 if last in order else offset
        end = begin + min(limit, MAX_LIMIT)
        answer: dict[str, Any] = {"rooms": [shown_with_children(tree, each) for each in order[begin:end]]}
        if end < len(order):
            answer["next_batch"] = pack(*scope, order[end - 1], end)
        return orjson.dumps(answer)

    async def served(self, origin: str, room_id: str, suggested_only: bool) -> bytes:
        """What another server is told of a space: the room, those of its children that users of that server may know
        of, and those that they may not. Raises 404 M_NOT_FOUND. Five statements.

        Server-server API, "Spaces".
        """
        room = (await self._summaries.accessible_to_server(origin, [room_id])).get(room_id)
        if room is None or not (await self._door.acl_of(room_id)).allows(origin):
            raise not_found("There is no such room, or it is not open to users of your server.")
        is_space = room.listed.room_type == RoomTypes.SPACE
        children = (await self._children([room_id], suggested_only))[room_id] if is_space else []
        ids = list(dict.fromkeys(child.room_id for child in children))
        found = await self._summaries.accessible_to_server(origin, ids)
        tree = Tree({room_id: room}, {room_id: children})
        answer = {
            "room": shown_with_children(tree, room_id),
            "children": [summarised(each) for i in ids if (each := found.get(i)) is not None],
            "inaccessible_children": [i for i in ids if i in found and found[i] is None],
        }
        return orjson.dumps(answer)

    async def _tree(self, user_id: str, room_id: str, depth: int, suggested_only: bool) -> Tree:
        tree = Tree({}, {})
        look = self._elsewhere.look(suggested_only)
        level: dict[str, Sequence[str]] = {room_id: await self._summaries.servers_for(user_id, room_id)}
        for _ in range(depth + 1):
            children = await self._level(tree, user_id, level, look)
            # Rooms that were not found are looked for once more where they occur again: there are few of those.
            below = {child.room_id: child.via for each in children.values() for child in each}
            ahead = [each for each in below if each not in tree.rooms][: MAX_ROOMS - len(tree.rooms)]
            level = {each: below[each] for each in ahead}
            if not level:
                break
        if room_id not in tree.rooms:
            raise forbidden("You are not allowed to look into this room, or there is no such room.")
        return tree

    async def _level(
        self, tree: Tree, user_id: str, level: Mapping[str, Sequence[str]], look: Look
    ) -> dict[str, list[Child]]:
        """Puts the rooms of a level, each with servers to ask about it, into the tree; the children of its spaces."""
        known = await self._summaries.known(level)
        told = await look.at({r: via for r, via in level.items() if r not in known or not known[r].is_here})
        # What was known of a room before this server left it may be better than nothing.
        rooms = {**known, **{r: each.room for r, each in told.items()}}
        found = await self._summaries.open_to(user_id, rooms)
        tree.rooms.update(found)
        spaces = [r for r, room in found.items() if room.listed.room_type == RoomTypes.SPACE]
        children = await self._children([r for r in spaces if r not in told], look.suggested_only)
        children |= {r: told[r].children for r in spaces if r in told}
        tree.children.update(children)
        return children

    async def _children(self, space_ids: list[str], suggested_only: bool) -> dict[str, list[Child]]:
        """The valid children of each space. One statement."""
        found: dict[str, list[Child]] = {space_id: [] for space_id in space_ids}
        rows = await self._store.children(space_ids, MAX_CHILDREN)
        notes = await self._annotator.versions(rows)
        for row in rows:
            child = child_of(row, content_of(row, notes), suggested_only)
            if child is not None:
                found[row.room_id].append(child)
        for children in found.values():
            children.sort(key=lambda child: child.order)
        return found


def _parse(token: str, scope: tuple[str, bool, int]) -> tuple[str, int]:
    """The room that a page ended with, and its place in the walk. Raises M_INVALID_PARAM."""
    values = unpack(token, str, bool, int, str, int)
    if values is None or values[0] != scope[0] or values[4] < 0:
        raise invalid_param("'from' is not a token of this space.")
    if values[1:3] != list(scope[1:]):
        raise invalid_param("'suggested_only' and 'max_depth' cannot change from one page to the next.")
    return values[3], values[4]
