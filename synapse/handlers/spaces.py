"""The rooms of a space, and of the spaces in it: `GET /rooms/{roomId}/hierarchy`.

The tree is read level by level, as far as the user may know of its rooms, and then walked depth-first; a room is told
of where it first occurs, which breaks loops. A page's token names the room that it ended with, so the walk goes on
behind that room although the tree may have changed meanwhile; nothing is kept between pages.

Client-server API, "Spaces".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import orjson

from synapse.api.constants import RoomTypes
from synapse.api.errors import forbidden, invalid_param, not_found
from synapse.api.identifiers import is_room_id
from synapse.handlers.federation_door import FederationDoor
from synapse.handlers.room_summaries import RoomSummaries, summarised
from synapse.storage.rooms import KnownRoom
from synapse.storage.spaces import SpacesStore
from synapse.storage.timeline import TimelineRow
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

_ORDER: Final = re.compile(r"[\x20-\x7e]{1,50}", re.ASCII)


class Wish(NamedTuple):
    """What of the tree is wanted."""

    suggested_only: bool
    max_depth: int | None
    limit: int | None
    start: str | None


class Child(NamedTuple):
    """A room that a space names, and the event that does so: its row, and its content as JSON."""

    room_id: str
    order: tuple[bool, str, int, str]
    row: TimelineRow
    content: bytes


class Tree(NamedTuple):
    """What the user may know of a space: its rooms by id, and the children of those that are spaces, in order."""

    rooms: dict[str, KnownRoom]
    children: dict[str, list[Child]]


class Spaces:
    """Walks spaces, in any process."""

    def __init__(
        self, summaries: RoomSummaries, store: SpacesStore, annotator: Annotator, door: FederationDoor
    ) -> None:
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
        answer: dict[str, Any] = {"rooms": [_shown(tree, each) for each in order[begin:end]]}
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
            "room": _shown(tree, room_id),
            "children": [summarised(each) for i in ids if (each := found.get(i)) is not None],
            "inaccessible_children": [i for i in ids if i in found and found[i] is None],
        }
        return orjson.dumps(answer)

    async def _tree(self, user_id: str, room_id: str, depth: int, suggested_only: bool) -> Tree:
        tree = Tree({}, {})
        level = [room_id]
        for _ in range(depth + 1):
            found = await self._summaries.accessible(user_id, level)
            tree.rooms.update(found)
            spaces = [each for each, room in found.items() if room.listed.room_type == RoomTypes.SPACE]
            children = await self._children(spaces, suggested_only)
            tree.children.update(children)
            # Rooms that were not found are looked for once more where they occur again: there are few of those.
            below = {child.room_id: None for each in children.values() for child in each}
            level = [each for each in below if each not in tree.rooms][: MAX_ROOMS - len(tree.rooms)]
            if not level:
                break
        if room_id not in tree.rooms:
            raise forbidden("You are not allowed to look into this room, or there is no such room.")
        return tree

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


def child_of(row: TimelineRow, json: bytes, suggested_only: bool) -> Child | None:
    """The child that an m.space.child event names, if it is valid and wanted."""
    content = orjson.loads(json)
    via, room_id, order = content.get("via"), row.state_key or "", content.get("order")
    if not (isinstance(via, list) and via and all(isinstance(server, str) for server in via) and is_room_id(room_id)):
        return None
    if suggested_only and content.get("suggested") is not True:
        return None
    is_valid = isinstance(order, str) and _ORDER.fullmatch(order) is not None
    place = (not is_valid, order if is_valid else "", row.origin_server_ts, room_id)
    return Child(room_id, place, row, json)


def walk(tree: Tree, root: str, depth: int) -> Iterator[str]:
    """The rooms of a tree, depth-first, each once; those that are not in it are passed over.

    A space that occurs again, and less deep than before, is gone into again: more of what is below is within reach.
    """
    levels: dict[str, int] = {}
    stack = [(root, 0)]
    while stack:
        room_id, level = stack.pop()
        known = levels.get(room_id)
        if room_id not in tree.rooms or (known is not None and known <= level):
            continue
        levels[room_id] = level
        if known is None:
            yield room_id
        if level < depth:
            stack += [(child.room_id, level + 1) for child in reversed(tree.children.get(room_id, ()))]


def _shown(tree: Tree, room_id: str) -> dict[str, Any]:
    children = [
        {
            "type": child.row.type,
            "state_key": child.row.state_key,
            "content": orjson.Fragment(child.content),
            "sender": child.row.sender,
            "origin_server_ts": child.row.origin_server_ts,
        }
        for child in tree.children.get(room_id, ())
    ]
    return {**summarised(tree.rooms[room_id]), "children_state": children}


def _parse(token: str, scope: tuple[str, bool, int]) -> tuple[str, int]:
    """The room that a page ended with, and its place in the walk. Raises M_INVALID_PARAM."""
    values = unpack(token, str, bool, int, str, int)
    if values is None or values[0] != scope[0] or values[4] < 0:
        raise invalid_param("'from' is not a token of this space.")
    if values[1:3] != list(scope[1:]):
        raise invalid_param("'suggested_only' and 'max_depth' cannot change from one page to the next.")
    return values[3], values[4]
