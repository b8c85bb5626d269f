"""Signatures that other servers put on this server's events: on joins that they vouch for, on invites of their users.

Server-server API, "Inviting to a room", "Restricted rooms"; `countersigned` takes what they send back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse.events.event import Event
from synapse.events.hashes import essential_bytes
from synapse.events.signing import SignatureError, signatures_by
from synapse.events.validation import check_pdu
from synapse.federation.errors import BadAnswer

if TYPE_CHECKING:
    from synapse.federation.keyring import KeyRing

MAX_SIGNATURES: Final = 5
"""So many signatures of one server are kept: an event may have 64 KiB, and no server has more keys."""


class Countersigning:
    """Takes back events that other servers have signed too.

    :param keyring: knows the keys of servers.
    """

    def __init__(self, keyring: KeyRing) -> None:
        self._keyring = keyring

    async def take(self, event: Event, answered: Any, by: str) -> Event:
        """The event with a signature of the server `by`, of all that was sent back. Raises as `countersigned` does,
        and BadAnswer where the signature is not right."""
        signed = countersigned(event, answered, by)
        version = event.room_version
        message = essential_bytes(signed.raw, version)
        at = event.origin_server_ts if version.enforce_key_validity else 0
        try:
            await self._keyring.verify_message(by, message, signatures_by(signed.raw, by), at)
        except SignatureError as error:
            raise BadAnswer(by, f"{by} did not sign the event with a key of its own: {error}") from error
        return signed


def countersigned(event: Event, answered: Any, by: str) -> Event:
    """The event with the signatures that the server `by` has put on it, and nothing else of what it sent back.

    Raises MatrixError 400 where that is not well-formed, BadAnswer where it is another event or bears no signature of
    that server. Whether the signature is right is not looked at here.
    """
    version = event.room_version
    returned = check_pdu(answered, version)
    ours = {name: value for name, value in event.raw.items() if name not in ("signatures", "unsigned")}
    if {name: value for name, value in returned.items() if name != "signatures"} != ours:
        raise BadAnswer(by, f"{by} sent back another event than it was sent.")
    signatures = {name: dict(keys) for name, keys in event.raw["signatures"].items()}
    added = dict(list(returned["signatures"].get(by, {}).items())[:MAX_SIGNATURES])
    if not added:
        raise BadAnswer(by, f"{by} did not sign the event.")
    signatures[by] = {**signatures.get(by, {}), **added}
    return Event.from_json({**event.raw, "signatures": signatures}, version, event_id=event.event_id)
