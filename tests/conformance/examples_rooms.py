"""Examples of the operations of rooms and of reading them, and of what goes with them."""

from __future__ import annotations

from typing import Any

import orjson

from tests.conformance.example import Example
from tests.conformance.outside import IDENTITY_SERVER

_CAROL = {"userId": "{carol}"}  # who is in few rooms, which all hear of it
_ROOM = {"roomId": "{room}"}
_EVENT = {"roomId": "{room}", "eventId": "{event}"}
_THREAD = {"roomId": "{room}", "eventId": "{thread}"}
_PAGE = {"from": "{prev_batch}", "limit": "5", "dir": "b"}
_ROOM_FILTER = (
    '{"limit":5,"types":["m.room.*"],"not_senders":["@x:test"],"lazy_load_members":true,"contains_url":false}'
)
_SEND_FILTER: dict[str, Any] = {
    "limit": 10,
    "types": ["m.room.message"],
    "not_types": ["x.*"],
    "senders": ["{bob}"],
    "not_senders": ["@x:test"],
}
_FILTER: dict[str, Any] = {
    "event_fields": ["type", "content", "sender"],
    "event_format": "client",
    "presence": _SEND_FILTER,
    "account_data": _SEND_FILTER,
    "room": {
        "rooms": ["{room}"],
        "not_rooms": ["!no:test"],
        "include_leave": True,
        "timeline": {**_SEND_FILTER, "lazy_load_members": True, "unread_thread_notifications": True},
        "state": {**_SEND_FILTER, "include_redundant_members": True, "contains_url": True},
        "ephemeral": _SEND_FILTER,
        "account_data": _SEND_FILTER,
    },
}
# Without `event_fields`, by which events would be less than is described.
_INLINE_FILTER = {key: value for key, value in _FILTER.items() if key != "event_fields"}

MEMBERSHIP = (
    Example(
        "createRoom",
        body={
            "visibility": "private",
            "preset": "private_chat",
            "room_version": "11",
            "room_alias_name": "{new_alias}",
            "name": "New",
            "topic": "What is new",
            "invite": ["{bob}"],
            "invite_3pid": [
                {"medium": "email", "address": "a@b.c", "id_server": IDENTITY_SERVER, "id_access_token": "token"}
            ],
            "is_direct": True,
            "creation_content": {"m.federate": False},
            "power_level_content_override": {"users": {"{alice}": 100}, "events": {"m.room.name": 0}, "ban": 50},
            "initial_state": [
                {"type": "m.room.guest_access", "state_key": "", "content": {"guest_access": "can_join"}}
            ],
        },
    ),
    Example("joinRoomById", {"roomId": "{open_room}"}, body={"reason": "r"}, user="carol"),
    Example("joinRoom", {"roomIdOrAlias": "{open_room}"}, {"via": "test"}, {"reason": "r"}, user="carol"),
    Example("knockRoom", {"roomIdOrAlias": "{knock_room}"}, {"via": "test"}, {"reason": "r"}, user="carol"),
    Example("inviteUser", {"roomId": "{own_room}"}, body={"user_id": "{carol}", "reason": "r"}),
    Example(
        "inviteBy3PID",
        {"roomId": "{own_room}"},
        body={"medium": "email", "address": "a@b.c", "id_server": IDENTITY_SERVER, "id_access_token": "token"},
    ),
    Example("kick", {"roomId": "{own_room}"}, body={"user_id": "{bob}", "reason": "r"}),
    Example("ban", {"roomId": "{own_room}"}, body={"user_id": "{bob}", "reason": "r"}),
    Example("unban", {"roomId": "{bobs_ban}"}, body={"user_id": "{bob}", "reason": "r"}),
    Example("leaveRoom", {"roomId": "{bobs_invite}"}, body={"reason": "r"}, user="bob"),
    Example("forgetRoom", {"roomId": "{bobs_left_room}"}, body={}, user="bob"),
    Example("getJoinedRooms"),
)

DIRECTORY = (
    Example("getRoomVisibilityOnDirectory", _ROOM),
    Example("setRoomVisibilityOnDirectory", _ROOM, body={"visibility": "public"}),
    Example("getPublicRooms", query={"limit": "5", "server": "test"}),
    Example(
        "queryPublicRooms",
        query={"server": "test"},
        body={
            "limit": 5,
            "filter": {"generic_search_term": "town", "room_types": [None, "m.space"]},
            "include_all_networks": False,
        },
    ),
    Example("getRoomIdByAlias", {"roomAlias": "{alias}"}),
    Example("setRoomAlias", {"roomAlias": "#{new_alias}:test"}, body={"room_id": "{room}"}),
    Example("deleteRoomAlias", {"roomAlias": "{old_alias}"}),
    Example("getLocalAliases", _ROOM),
    Example("getRoomSummary", {"roomIdOrAlias": "{alias}"}, {"via": "test"}),
    Example("getSpaceHierarchy", {"roomId": "{space}"}, {"suggested_only": "false", "limit": "5", "max_depth": "2"}),
    Example("getMutualRooms", query={"user_id": "{bob}"}),
    Example("searchUserDirectory", body={"search_term": "bob", "limit": 5}),
)

WRITING = (
    Example(
        "sendMessage",
        {"roomId": "{room}", "eventType": "m.room.message", "txnId": "{txn}"},
        body={"msgtype": "m.text", "body": "hello", "m.mentions": {"user_ids": ["{bob}"], "room": False}},
    ),
    Example(
        "setRoomStateWithKey",
        {"roomId": "{room}", "eventType": "m.room.power_levels", "stateKey": ""},
        body={
            "users": {"{bob}": 0},
            "users_default": 0,
            "events": {"m.room.name": 50},
            "events_default": 0,
            "state_default": 50,
            "ban": 50,
            "kick": 50,
            "redact": 50,
            "invite": 0,
            "notifications": {"room": 50},
        },
    ),
    Example("redactEvent", {**_EVENT, "txnId": "{txn}"}, body={"reason": "r"}),
    Example("upgradeRoom", {"roomId": "{own_room}"}, body={"new_version": "11", "additional_creators": []}),
    Example("reportRoom", _ROOM, body={"reason": "r"}),
    Example("reportEvent", _EVENT, body={"reason": "r", "score": -50}),
    Example("reportUser", {"userId": "{bob}"}, body={"reason": "r"}),
    Example("setTyping", {"roomId": "{room}", "userId": "{alice}"}, body={"typing": True, "timeout": 3000}),
    Example("postReceipt", {**_EVENT, "receiptType": "m.read"}, body={"thread_id": "main"}),
    Example(
        "setReadMarker",
        _ROOM,
        body={"m.fully_read": "{event}", "m.read": "{event}", "m.read.private": "{event}"},
    ),
)

READING = (
    Example(
        "getRoomStateWithKey", {"roomId": "{room}", "eventType": "m.room.name", "stateKey": ""}, {"format": "event"}
    ),
    Example("getRoomState", _ROOM),
    Example("getMembersByRoom", _ROOM, {"at": "{since}", "membership": "join", "not_membership": "leave"}),
    Example("getJoinedMembersByRoom", _ROOM),
    Example("getOneRoomEvent", _EVENT),
    Example("getEventContext", _EVENT, {"limit": "5", "filter": _ROOM_FILTER}),
    Example("getRoomEvents", _ROOM, {**_PAGE, "to": "{prev_batch}", "filter": _ROOM_FILTER}),
    Example("getRelatingEvents", _THREAD, {**_PAGE, "recurse": "true"}),
    Example("getRelatingEventsWithRelType", {**_THREAD, "relType": "m.thread"}, {**_PAGE, "recurse": "true"}),
    Example(
        "getRelatingEventsWithRelTypeAndEventType",
        {**_THREAD, "relType": "m.thread", "eventType": "m.room.message"},
        {**_PAGE, "recurse": "true"},
    ),
    Example("getThreadRoots", {"roomId": "{room}"}, {"include": "participated", "limit": "5"}),
    Example("getEventByTimestamp", _ROOM, {"ts": "1", "dir": "f"}),
    Example(
        "search",
        body={
            "search_categories": {
                "room_events": {
                    "search_term": "hello",
                    "keys": ["content.body"],
                    "filter": {"limit": 5, "rooms": ["{room}"], "types": ["m.room.message"]},
                    "order_by": "recent",
                    "event_context": {"before_limit": 1, "after_limit": 1, "include_profile": True},
                    "include_state": True,
                    "groupings": {"group_by": [{"key": "room_id"}]},
                }
            }
        },
    ),
)

FOLLOWING = (
    Example(
        "sync",
        query={
            "since": "{since}",
            "timeout": "0",
            "full_state": "false",
            "set_presence": "offline",
            "use_state_after": "true",
            "filter": "{filter}",
        },
    ),
    Example("sync", query={"timeout": "0", "filter": orjson.dumps(_INLINE_FILTER).decode()}),
    Example("getEvents", query={"from": "{since}", "timeout": "0"}),
    Example("peekEvents", query={"from": "{since}", "timeout": "0", "room_id": "{room}"}, user="carol"),
    Example("initialSync", query={"limit": "2", "archived": "true"}),
    Example("roomInitialSync", _ROOM),
    Example("getOneEvent", {"eventId": "{event}"}),
    Example("getPresence", {"userId": "{alice}"}),
    Example("setPresence", {"userId": "{alice}"}, body={"presence": "online", "status_msg": "here"}),
)

OWN = (
    Example("getRoomTags", {"userId": "{alice}", "roomId": "{room}"}),
    Example("setRoomTag", {"userId": "{alice}", "roomId": "{room}", "tag": "u.x"}, body={"order": 0.25}),
    Example("deleteRoomTag", {"userId": "{alice}", "roomId": "{room}", "tag": "u.x"}),
    Example("getAccountData", {"userId": "{alice}", "type": "{setting}"}),
    Example("setAccountData", {"userId": "{alice}", "type": "a.b"}, body={"c": {"d": [1, "e"]}}),
    Example("getAccountDataPerRoom", {"userId": "{alice}", "roomId": "{room}", "type": "{setting}"}),
    Example("setAccountDataPerRoom", {"userId": "{alice}", "roomId": "{room}", "type": "a.b"}, body={"c": {"d": 1}}),
    Example("defineFilter", {"userId": "{alice}"}, body=_FILTER),
    Example("getFilter", {"userId": "{alice}", "filterId": "{filter}"}),
    Example("getCapabilities"),
    Example("getVersions"),
    Example("getUserProfile", {"userId": "{alice}"}),
    Example("getProfileField", {"userId": "{alice}", "keyName": "displayname"}),
    Example("setProfileField", {**_CAROL, "keyName": "displayname"}, body={"displayname": "Carol"}, user="carol"),
    Example("deleteProfileField", {**_CAROL, "keyName": "avatar_url"}, user="carol"),
)

ROOMS = (*MEMBERSHIP, *DIRECTORY, *WRITING, *READING, *FOLLOWING, *OWN)
