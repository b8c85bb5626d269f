"""The tree of a space: which children are valid, in which order they come, and how a tree is walked that may be none.

Pure. Client-server API, "Spaces", "Ordering of children within a space".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, Protocol

import orjson

from synapse.api.identifiers import is_room_id
from synapse.handlers.room_summaries import summarised
from synapse.storage.rooms import KnownRoom

_ORDER: Final = re.compile(r"[\x20-\x7e]{1,50}", re.ASCII)


class ChildEvent(Protocol):
    """An m.space.child event: a row of a timeline, or what another server tells of one."""

    @property
    def type(self) -> str: ...

    @property
    def state_key(self) -> str | None: ...

    @property
    def sender(self) -> str: ...

    @property
    def origin_server_ts(self) -> int: ...


class Child(NamedTuple):
    """A room that a space names, with servers to reach it by, and the event that does so: its row, and its content as
    JSON."""

    room_id: str
    order: tuple[bool, str, int, str]
    row: ChildEvent
    content: bytes
    via: tuple[str, ...] = ()


class Tree(NamedTuple):
    """What the user may know of a space: its rooms by id, and the children of those that are spaces, in order."""

    rooms: dict[str, KnownRoom]
    children: dict[str, list[Child]]


def child_of(row: ChildEvent, json: bytes, suggested_only: bool) -> Child | None:
    """The child that an m.space.child event names, if it is valid and wanted."""
    content = orjson.loads(json)
    via, room_id, order = content.get("via"), row.state_key or "", content.get("order")
    if not (isinstance(via, list) and via and all(isinstance(server, str) for server in via) and is_room_id(room_id)):
        return None
    if suggested_only and content.get("suggested") is not True:
        return None
    is_valid = isinstance(order, str) and _ORDER.fullmatch(order) is not None
    place = (not is_valid, order if is_valid else "", row.origin_server_ts, room_id)
    return Child(room_id, place, row, json, tuple(via))


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


def shown_with_children(tree: Tree, room_id: str) -> dict[str, Any]:
    """A room with the events that name its children."""
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
