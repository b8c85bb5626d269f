"""Good requests for what other servers ask. The neighbour signs them; `{far_room}` is a room that its user is in."""

from __future__ import annotations

from typing import Final

from tests.conformance.example import Example
from tests.conformance.neighbour import USER as FAY

SUBJECTS: Final = frozenset(
    (
        *("server.events", "server.backfill", "server.event_auth", "server.public_rooms", "server.query"),
        *("server.space_hierarchy", "server.version"),
        *("server.invites-v1", "server.invites-v2", "server.joins-v1", "server.joins-v2", "server.knocks"),
        *("server.leaving-v1", "server.leaving-v2", "server.third_party_invite", "server.room_policy"),
        *("server.keys_query", "server.keys_server", "server.wellknown"),
        *("server.user_devices", "server.user_keys"),
    )
)
# Whose operations are still to come, or have tests of their own.
OTHERS: Final = frozenset(
    ("server.content_repository", "server.transactions", "server.openid"),
)

_IN_ROOM: Final = {"roomId": "{far_room}"}
_AT_EVENT: Final = {"event_id": "{far_event}"}

_SIGNED: Final = {"mxid": "{alice}", "token": "a token", "signatures": {"id.test": {"ed25519:0": "AAAA"}}}
_PENDING: Final = {"medium": "email", "address": "alice@example.org", "mxid": "{alice}", "signed": _SIGNED}
_EXCHANGED: Final = {
    "type": "m.room.member",
    "room_id": "{far_room}",
    "sender": "{alice}",
    "state_key": FAY,
    "content": {
        "membership": "invite",
        "third_party_invite": {"display_name": "f...@e...", "signed": {**_SIGNED, "mxid": FAY}},
    },
}


def _brought(operation: str, event: str, **query: str) -> Example:
    """An event that the neighbour has signed; its room and id are supplied along with it."""
    path = {"roomId": f"{{{event}_room}}", "eventId": f"{{{event}_id}}"}
    return Example(operation, path, query, body=f"{{{event}}}")


MEMBERSHIPS: Final = (
    Example("server.makeJoin", {"roomId": "{far_join_room}", "userId": FAY}, {"ver": "12"}),
    Example("server.makeLeave", {"roomId": "{far_room}", "userId": FAY}),
    Example("server.makeKnock", {"roomId": "{far_door}", "userId": FAY}, {"ver": "12"}),
    _brought("server.sendJoinV2", "far_join", omit_members="false"),
    _brought("server.sendLeaveV2", "far_leave"),
    _brought("server.sendKnock", "far_knock"),
    _brought("server.sendInviteV1", "far_invite"),
    Example(
        "server.sendInviteV2",
        {"roomId": "{far_invite_room}", "eventId": "{far_invite_id}"},
        body={"room_version": "1", "event": "{far_invite}", "invite_room_state": []},
    ),
    Example("server.exchangeThirdPartyInvite", _IN_ROOM, body=_EXCHANGED),
    Example(
        "server.onBindThirdPartyIdentifier",
        body={
            "medium": "email",
            "address": "alice@example.org",
            "mxid": "{alice}",
            "invites": [{**_PENDING, "room_id": "{far_room}", "sender": "{alice}"}],
        },
        unread=("invites.0.medium", "invites.0.address", "invites.0.mxid"),  # which only repeat what is above
    ),
    Example("server.askPolicyServerToSign", body="{policed_event}"),
)

KEYS: Final = (
    Example("server.getUserDevices", {"userId": "{bob}"}),
    Example("server.queryUserEncryptionKeys", body={"device_keys": {"{bob}": ["{bobs_device}"]}}),
    Example(
        "server.claimUserEncryptionKeys", body={"one_time_keys": {"{bob}": {"{bobs_device}": "signed_curve25519"}}}
    ),
)

EXAMPLES: Final = (
    *MEMBERSHIPS,
    *KEYS,
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
    Example("server.getWellKnown"),
    Example("server.getServerKey"),
    Example("server.perspectivesKeyQuery", {"serverName": "test"}, {"minimum_valid_until_ts": "1234567890"}),
    Example(
        "server.bulkPerspectivesKeyQuery",
        body={"server_keys": {"test": {"ed25519:test": {"minimum_valid_until_ts": 1234567890}}}},
    ),
)
