"""Good requests for what other servers ask. The neighbour signs them; `{far_room}` is a room that its user is in."""

from __future__ import annotations

from typing import Final

from tests.conformance.example import Example

SUBJECTS: Final = frozenset(
    (
        *("server.events", "server.backfill", "server.event_auth", "server.public_rooms", "server.query"),
        *("server.space_hierarchy", "server.version"),
    )
)
# Whose operations are still to come, or have tests of their own.
OTHERS: Final = frozenset(
    (
        *("server.invites-v1", "server.invites-v2", "server.joins-v1", "server.joins-v2", "server.knocks"),
        *("server.leaving-v1", "server.leaving-v2", "server.third_party_invite", "server.room_policy"),
        *("server.keys_query", "server.keys_server", "server.transactions", "server.user_devices"),
        *("server.user_keys", "server.openid", "server.wellknown", "server.content_repository"),
    )
)

_IN_ROOM: Final = {"roomId": "{far_room}"}
_AT_EVENT: Final = {"event_id": "{far_event}"}

EXAMPLES: Final = (
    Example("server.getEvent", {"eventId": "{far_event}"}),
    Example("server.getRoomState", _IN_ROOM, _AT_EVENT),
    Example("server.getRoomStateIds", _IN_ROOM, _AT_EVENT),
    Example("server.getEventByTimestamp", _IN_ROOM, {"ts": "1432684800000", "dir": "f"}),
    Example("server.getEventAuth", {**_IN_ROOM, "eventId": "{far_event}"}),
    Example("server.backfillRoom", _IN_ROOM, {"v": "{far_event}", "limit": "10"}),
    Example(
        "server.getMissingPreviousEvents",
        _IN_ROOM,
        body={"limit": 10, "min_depth": 0, "earliest_events": ["$earlier"], "latest_events": ["{far_event}"]},
    ),
    Example("server.getPublicRooms", query={"limit": "10", "include_all_networks": "false"}),
    Example(
        "server.queryPublicRooms",
        body={
            "limit": 10,
            "filter": {"generic_search_term": "town", "room_types": [None, "m.space"]},
            "include_all_networks": False,
        },
    ),
    Example("server.queryInfo", {"queryType": "nonsense"}, code=404),
    Example("server.queryRoomDirectory", query={"room_alias": "{alias}"}),
    Example("server.queryProfile", query={"user_id": "{alice}", "field": "displayname"}),
    Example("server.getSpaceHierarchy", {"roomId": "{space}"}, {"suggested_only": "false"}),
    Example("server.getVersion"),
)
