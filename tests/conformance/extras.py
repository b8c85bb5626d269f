"""Good requests for what accounts have besides: key backups, OpenID tokens, the well-known files,
pushers."""

from __future__ import annotations

from tests.conformance.example import Example

_BACKUP = {
    "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2",
    "auth_data": {"public_key": "abc", "signatures": {"{alice}": {"ed25519:DEVICE": "x"}}},
}
_KEY = {
    "first_message_index": 1,
    "forwarded_count": 0,
    "is_verified": True,
    "session_data": {"ephemeral": "e", "ciphertext": "c", "mac": "m"},
}
_IN_BACKUP = {"version": "{backup}"}
_KEY_OF_ROOM = {"roomId": "{room}"}
_KEY_OF_SESSION = {"roomId": "{room}", "sessionId": "session"}

_BACKUPS = (
    Example("postRoomKeysVersion", body=_BACKUP),
    Example("getRoomKeysVersionCurrent"),
    Example("getRoomKeysVersion", _IN_BACKUP),
    Example("putRoomKeysVersion", _IN_BACKUP, body={**_BACKUP, "version": "{backup}"}),
    Example("deleteRoomKeysVersion", _IN_BACKUP),
    Example("putRoomKeys", query=_IN_BACKUP, body={"rooms": {"{room}": {"sessions": {"session": _KEY}}}}),
    Example("putRoomKeysByRoomId", _KEY_OF_ROOM, _IN_BACKUP, {"sessions": {"session": _KEY}}),
    Example("putRoomKeyBySessionId", _KEY_OF_SESSION, _IN_BACKUP, _KEY),
    Example("getRoomKeys", query=_IN_BACKUP),
    Example("getRoomKeysByRoomId", _KEY_OF_ROOM, _IN_BACKUP),
    Example("getRoomKeyBySessionId", _KEY_OF_SESSION, _IN_BACKUP),
    Example("deleteRoomKeys", query=_IN_BACKUP),
    Example("deleteRoomKeysByRoomId", _KEY_OF_ROOM, _IN_BACKUP),
    Example("deleteRoomKeyBySessionId", _KEY_OF_SESSION, _IN_BACKUP),
)

EXAMPLES = (
    *_BACKUPS,
    Example(
        "postPusher",
        body={
            "kind": "http",
            "app_id": "org.example.app",
            "pushkey": "a pushkey",
            "app_display_name": "App",
            "device_display_name": "Phone",
            "profile_tag": "tag",
            "lang": "en",
            "data": {"url": "https://gateway.test/_matrix/push/v1/notify", "format": "event_id_only", "brand": "x"},
            "append": True,
        },
    ),
    Example("getPushers"),
    Example("requestOpenIdToken", {"userId": "{alice}"}, body={}),
    Example("getWellknown"),
    Example("getWellknownSupport"),
)
