"""Signatures of events: making them, and checking them against keys that somebody else has fetched.

Which key of a server is valid at which time is not known here. The Ed25519 of PyNaCl does the arithmetic, through the
key objects of signedjson; signing of other JSON (server keys, requests) is signedjson's own `sign_json`.

Server-server API, "Signing Events"; appendices, "Signing JSON"; room version 8 for restricted joins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from synapse.api.constants import EventTypes, Membership
from synapse.api.identifiers import domain_of
from synapse.api.room_versions import EventIdScheme, RoomVersion
from synapse.events.hashes import essential_bytes, unpadded_base64

if TYPE_CHECKING:
    from signedjson.types import SigningKey, VerifyKey

SUPPORTED_ALGORITHM = "ed25519:"


class SignatureError(Exception):
    """A signature that is missing, malformed or wrong; the text says which."""


def signature_over(message: bytes, signing_key: SigningKey) -> str:
    """The signature of canonical bytes, in unpadded base64."""
    return unpadded_base64(signing_key.sign(message).signature)


def key_id_of(key: SigningKey | VerifyKey) -> str:
    """The signing key identifier, such as `ed25519:a_abc`."""
    return f"{key.alg}:{key.version}"


def add_signature(
    event: Mapping[str, Any], room_version: RoomVersion, server_name: str, signing_key: SigningKey
) -> dict[str, Any]:
    """A copy of the event (federation form, hashed) that `server_name` has signed too."""
    signature = signature_over(essential_bytes(event, room_version), signing_key)
    signatures = {name: dict(keys) for name, keys in event.get("signatures", {}).items()}
    signatures.setdefault(server_name, {})[key_id_of(signing_key)] = signature
    return {**event, "signatures": signatures}


def signatures_by(event: Mapping[str, Any], server_name: str) -> dict[str, str]:
    """The signatures of that server by key identifier, those of algorithms that we understand."""
    signatures = event.get("signatures")
    by_server = signatures.get(server_name) if isinstance(signatures, dict) else None
    if not isinstance(by_server, dict):
        return {}
    return {
        key_id: signature
        for key_id, signature in by_server.items()
        if key_id.startswith(SUPPORTED_ALGORITHM) and isinstance(signature, str)
    }


def verify(essential: bytes, signature: str, verify_key: VerifyKey) -> None:
    """Check one signature over `hashes.essential_bytes` of the event; raises SignatureError."""
    from nacl.exceptions import CryptoError  # importing it loads libsodium, which not every process needs
    from unpaddedbase64 import decode_base64

    try:
        verify_key.verify(essential, decode_base64(signature))
    except (CryptoError, ValueError, TypeError) as error:
        raise SignatureError(f"The signature by the key {key_id_of(verify_key)} is not right.") from error


def required_signers(event: Mapping[str, Any], room_version: RoomVersion) -> set[str]:
    """The servers whose signature the event (well-formed, in federation form) must bear.

    The sender's server, except for third-party invites, which another server may send on behalf of the sender; the
    server of the event id in room versions 1 and 2; the server that authorised a restricted join.
    """
    servers = set()
    if not _is_third_party_invite(event):
        servers.add(domain_of(event["sender"]))
    if room_version.event_ids is EventIdScheme.ASSIGNED:
        servers.add(domain_of(event["event_id"]))
    authoriser = authorising_user(event, room_version)
    if authoriser is not None:
        servers.add(domain_of(authoriser))
    return servers


def authorising_user(event: Mapping[str, Any], room_version: RoomVersion) -> str | None:
    """`join_authorised_via_users_server` of a membership event, where the room version gives it a meaning."""
    if not room_version.restricted_joins or event["type"] != EventTypes.MEMBER:
        return None
    user_id = event["content"].get("join_authorised_via_users_server")
    return user_id if isinstance(user_id, str) else None


def _is_third_party_invite(event: Mapping[str, Any]) -> bool:
    content = event["content"]
    return (
        event["type"] == EventTypes.MEMBER
        and content.get("membership") == Membership.INVITE
        and "third_party_invite" in content
    )
