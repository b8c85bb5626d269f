"""Key backups: the encrypted room keys that a user's devices leave with the server."""

from synapse.api.route_table.types import MIB, Endpoint

_VERSIONS = ("r0", "unstable", "v3")
_KEYS = "/_matrix/client/{version}/room_keys/keys"
_VERSION = "/_matrix/client/{version}/room_keys/version"
_ONE = f"{_VERSION}/{{backup_version}}"
_UPLOAD = 16 * MIB  # thousands of keys at a time

BACKUPS = (
    Endpoint("key_backup_create", _VERSION, ("POST",), _VERSIONS),
    Endpoint("key_backup_latest", _VERSION, ("GET",), _VERSIONS),
    Endpoint("key_backup_get", _ONE, ("GET",), _VERSIONS),
    Endpoint("key_backup_update", _ONE, ("PUT",), _VERSIONS),
    Endpoint("key_backup_delete", _ONE, ("DELETE",), _VERSIONS),
)

KEYS = tuple(
    Endpoint(f"room_keys_{method.lower()}{of}", path, (method,), _VERSIONS, max_body=_UPLOAD)
    for of, path in (
        ("", _KEYS),
        ("_room", f"{_KEYS}/{{room_id}}"),
        ("_session", f"{_KEYS}/{{room_id}}/{{session_id}}"),
    )
    for method in ("PUT", "GET", "DELETE")
)
