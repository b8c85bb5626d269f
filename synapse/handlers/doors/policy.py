"""The policy server that this server may be: it signs the events of rooms that have chosen it, or says why not.

What it looks for is set by the administrator (`policy_server:`). It keeps to rooms that name its key in m.room.policy
and that somebody of this server is in, and looks at nothing but the event: who may send what is the room's matter.

Client-server API and server-server API, "Policy Servers"; `POST /_matrix/policy/v1/sign`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import Codes, MatrixError, bad_json, not_found, unrecognized
from synapse.api.identifiers import domain_of, is_room_id
from synapse.events.canonical import parse_lenient
from synapse.events.hashes import essential_bytes, has_valid_content_hash, unpadded_base64
from synapse.events.server_acl import ServerAcl
from synapse.events.signing import signature_over
from synapse.events.validation import check_pdu
from synapse.handlers.event_creation import POLICY
from synapse.handlers.policy_server import KEY_ID, Policy, policy_of
from synapse.http.body import decode_object

if TYPE_CHECKING:
    from signedjson.types import SigningKey

    from synapse.api.room_versions import RoomVersion
    from synapse.handlers.doors.residence import Residence
    from synapse.state.store import StateReader

_UNREADABLE: Final = frozenset({EventTypes.ENCRYPTED})


class PolicyRules(NamedTuple):
    """What is not signed; see the options of the same names."""

    blocked_words: Sequence[str] = ()
    blocked_servers: Sequence[str] = ()
    max_body_bytes: int | None = None
    max_mentions: int | None = None


class PolicyJudge:
    """Says of an event whether it is to be sent. Pure."""

    def __init__(self, rules: PolicyRules) -> None:
        self._rules = rules
        self._words = _expression(rules.blocked_words)
        self._servers = ServerAcl({"allow": ["*"], "deny": list(rules.blocked_servers)})

    def objection(self, event: Mapping[str, Any]) -> str | None:
        """Why the event (well-formed, in federation form) should not be sent; None where it may be."""
        content = event["content"]
        is_leaving = event["type"] == EventTypes.MEMBER and content.get("membership") == Membership.LEAVE
        if not is_leaving and not self._servers.allows(domain_of(event["sender"])):
            return f"The policy of this room lets nobody of {domain_of(event['sender'])} write in it."
        limit, body = self._rules.max_body_bytes, content.get("body")
        if limit is not None and isinstance(body, str) and len(body.encode("utf-8", "replace")) > limit:
            return f"The policy of this room wants messages of {limit} bytes at most."
        if self._rules.max_mentions is not None and _mentions(content) > self._rules.max_mentions:
            return f"The policy of this room wants {self._rules.max_mentions} people at most to be mentioned at once."
        if self._words is None or event["type"] in _UNREADABLE:
            return None
        if any(self._words.search(_folded(text)) for text in _texts(content)):
            return "The policy of this room does not want some word that is said there."
        return None


class PolicyService:
    """Answers requests for signatures, this server's own as those of others, in any process.

    :param key: what it signs with, by the version `policy_server`.
    """

    def __init__(
        self, judge: PolicyJudge, key: SigningKey, residence: Residence, state: StateReader, server_name: str
    ) -> None:
        self._judge = judge
        self._key = key
        self._residence = residence
        self._state = state
        self._server_name = server_name

    @property
    def public_key(self) -> str:
        """The public key, in unpadded base64."""
        return unpadded_base64(self._key.verify_key.encode())

    async def answer(self, origin: str, body: bytes) -> dict[str, dict[str, str]]:
        """The signature of the event in `body`, by server and key.

        Raises 400 M_NOT_JSON, M_BAD_JSON; 400 M_FORBIDDEN where it is not given; 403 M_FORBIDDEN where the room keeps
        `origin` out; 404 M_NOT_FOUND for rooms that this server does not look after.
        """
        parsed = decode_object(body)
        room_id = parsed.get("room_id")
        if not isinstance(room_id, str) or not is_room_id(room_id):
            raise bad_json("The event names no room.")
        await self._require_mine(room_id)
        version = await self._residence.version(origin, room_id)
        try:
            raw = check_pdu(parsed if version.strict_canonical_json else parse_lenient(body), version)
        except MatrixError as error:
            raise bad_json(error.message) from None  # of whichever kind
        return {self._server_name: {KEY_ID: self.sign(raw, version)}}

    def sign(self, raw: Mapping[str, Any], version: RoomVersion) -> str:
        """The signature of an event in federation form. Raises 400 M_FORBIDDEN where it is not given."""
        if (raw["type"], raw.get("state_key")) == POLICY:
            raise _refused("The room's choice of a policy server needs no signature.")
        if not has_valid_content_hash(raw, version):
            # The signature would be good for the event of that hash, whatever it says.
            raise _refused("The hash of the event is not right.")
        objection = self._judge.objection(raw)
        if objection is not None:
            raise _refused(objection)
        return signature_over(essential_bytes(raw, version), self._key)

    async def _require_mine(self, room_id: str) -> None:
        is_in = await self._residence.is_in(room_id)
        found = (await self._state.current(room_id, [POLICY])).get(POLICY) if is_in else None
        if found is None or policy_of(found.shown.content) != Policy(self._server_name, self.public_key):
            raise not_found("This server does not look after such a room.")


def no_service() -> MatrixError:
    """The answer of a server that is no policy server."""
    return unrecognized("This server is not a policy server.")


def _refused(sentence: str) -> MatrixError:
    return MatrixError(400, Codes.FORBIDDEN, sentence)


def _expression(words: Sequence[str]) -> re.Pattern[str] | None:
    folded = [re.escape(_folded(word.strip())) for word in words if word.strip()]
    return re.compile(rf"(?<!\w)(?:{'|'.join(folded)})(?!\w)") if folded else None


def _folded(text: str) -> str:
    """Without differences of case, or of width and the like."""
    return unicodedata.normalize("NFKC", text).casefold()


def _texts(content: Mapping[str, Any]) -> Iterator[str]:
    """Every text in the content, however deep."""
    pending: list[Any] = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _mentions(content: Mapping[str, Any]) -> int:
    mentions = content.get("m.mentions")
    user_ids = mentions.get("user_ids") if isinstance(mentions, dict) else None
    return len(user_ids) if isinstance(user_ids, list) else 0
