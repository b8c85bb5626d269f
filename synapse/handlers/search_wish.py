"""What a client asks of `POST /search`: the shape of its body. Client-server API, "Server Side Search"."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Group(msgspec.Struct, frozen=True):
    """An entry of `group_by`."""

    key: Literal["room_id", "sender"]


class Groupings(msgspec.Struct, frozen=True):
    """How the results are to be grouped besides."""

    group_by: list[Group] = []


class ContextWish(msgspec.Struct, frozen=True):
    """What is wanted around each result."""

    before_limit: int = 5
    after_limit: int = 5
    include_profile: bool = False


class RoomEvents(msgspec.Struct, frozen=True):
    """The criteria for events in rooms."""

    search_term: str
    keys: list[Literal["content.body", "content.name", "content.topic"]] | None = None
    filter: dict[str, Any] = {}
    order_by: Literal["recent", "rank"] = "rank"
    event_context: ContextWish | None = None
    include_state: bool = False
    groupings: Groupings = Groupings()


class Categories(msgspec.Struct, frozen=True):
    """The categories that are searched."""

    room_events: RoomEvents | None = None


class SearchBody(msgspec.Struct, frozen=True):
    """The body of the request."""

    search_categories: Categories
