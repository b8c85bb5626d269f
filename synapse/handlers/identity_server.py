"""Identity servers: which user has an e-mail address or phone number, and invitations for those that nobody has yet.

Users say which server is asked, and give the token with which to ask it; nothing of theirs is kept. What it answers is
as little trusted as what a user sends.

Identity service API, "Association lookup", "Invitation storage", "Key management".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import orjson

from synapse.api.errors import Codes, MatrixError, invalid_param, unknown
from synapse.api.identifiers import is_user_id
from synapse.api.threepids import canonical
from synapse.http.client import ClientError

if TYPE_CHECKING:
    from synapse.handlers.room_plan import Invite3pid
    from synapse.handlers.threepid_rules import ThreepidRules
    from synapse.http.client import ClientAnswer
    from synapse.http.outside import OutsideClient

WITHIN: Final = 20.0  # seconds for one request
MAX_ANSWER: Final = 64 * 1024  # bytes
_API: Final = "/_matrix/identity/v2"
_TOKEN: Final = re.compile(r"[0-9a-zA-Z.=_-]{1,255}", re.ASCII)
_HEADER: Final = re.compile(r"[\x21-\x7e]{1,4096}", re.ASCII)
_KEY: Final = re.compile(r"[A-Za-z0-9+/=_-]{1,100}", re.ASCII)
_MAX_TEXT: Final = 1024  # characters
_MAX_KEYS: Final = 10

_PASSED_ON: Final = frozenset(
    {
        "M_NO_VALID_SESSION",
        Codes.FORBIDDEN,
        Codes.INVALID_PARAM,
        Codes.SESSION_EXPIRED,
        Codes.SESSION_NOT_VALIDATED,
        Codes.THREEPID_IN_USE,
        Codes.THREEPID_MEDIUM_NOT_SUPPORTED,
        Codes.TERMS_NOT_SIGNED,
        Codes.UNAUTHORIZED,
    }
)
"""Errors of an identity server that a client is told as they are. Others would be taken for ours: M_UNKNOWN_TOKEN would
log the user out."""


class PublicKey(NamedTuple):
    """A key of an identity server, and where to ask whether it is still valid."""

    public_key: str
    key_validity_url: str | None

    def as_json(self) -> dict[str, str]:
        """As m.room.third_party_invite has it."""
        url = {} if self.key_validity_url is None else {"key_validity_url": self.key_validity_url}
        return {"public_key": self.public_key, **url}


class StoredInvite(NamedTuple):
    """An invitation that an identity server keeps until somebody proves to have the address."""

    token: str
    display_name: str
    public_keys: tuple[PublicKey, ...]


class IdentityServers:
    """Asks identity servers.

    :param client: makes the client for requests to the outside, when it is needed.
    :param client_location: the web client that they shall link to when they write to people.
    """

    def __init__(
        self, client: Callable[[], OutsideClient], rules: ThreepidRules, client_location: str | None = None
    ) -> None:
        self._client = client
        self._rules = rules
        self._client_location = client_location

    def check(self, wanted: Invite3pid) -> None:
        """Raises 400 for what no identity server can be asked, or not by us."""
        self._rules.check_identity_server(wanted.id_server)
        check_token(wanted.id_access_token)
        canonical(wanted.medium, wanted.address)

    async def lookup(self, wanted: Invite3pid) -> str | None:
        """The user to whom the address is bound. Raises 400 and 403 where the server cannot be asked."""
        self._rules.check_lookup()
        self.check(wanted)
        for attempt in (1, 2):
            details = await self._ask(wanted, "GET", "/hash_details")
            algorithm, pepper, hashed = _hashed(details, wanted)
            body = {"addresses": [hashed], "algorithm": algorithm, "pepper": pepper}
            answer = await self._send(wanted, "POST", "/lookup", body)
            if attempt == 1 and answer.code == 400 and answer.json_object().get("errcode") == "M_INVALID_PEPPER":
                continue  # it has just been changed
            mappings = successful(answer, wanted.id_server).get("mappings")
            user_id = mappings.get(hashed) if isinstance(mappings, dict) else None
            return user_id if isinstance(user_id, str) and is_user_id(user_id) else None
        raise AssertionError("the second attempt answers or raises")

    async def store_invite(self, wanted: Invite3pid, room: dict[str, str]) -> StoredInvite:
        """Have the server keep an invitation and tell the owner of the address. `room` is what it may say about it."""
        self.check(wanted)
        body = {**room, "medium": wanted.medium, "address": canonical(wanted.medium, wanted.address)}
        if self._client_location is not None:
            body["org.matrix.web_client_location"] = self._client_location
        answer = await self._ask(wanted, "POST", "/store-invite", body)
        token, name = answer.get("token"), answer.get("display_name")
        keys = tuple(_keys(answer))
        if not isinstance(token, str) or not _TOKEN.fullmatch(token) or not keys:
            raise unknown(f"The identity server {wanted.id_server} did not say how its invitation can be accepted.")
        return StoredInvite(token, name[:_MAX_TEXT] if isinstance(name, str) else "", keys)

    async def is_valid(self, key: PublicKey) -> bool:
        """Whether the key has not been revoked; a key that says nowhere to ask is valid for ever."""
        if key.key_validity_url is None:
            return True
        parts = urlsplit(key.key_validity_url)
        if parts.scheme not in ("http", "https") or not parts.netloc or not key.key_validity_url.isascii():
            return False
        query = "&".join(filter(None, (parts.query, urlencode({"public_key": key.public_key}))))
        url = f"{parts.scheme}://{parts.netloc}{parts.path}?{query}"
        try:
            answer = await self._client().request("GET", url, within=WITHIN, max_answer=MAX_ANSWER)
        except (ClientError, ValueError):
            return False
        return answer.code == 200 and answer.json_object().get("valid") is True

    async def _ask(self, wanted: Invite3pid, method: str, path: str, body: Any = None) -> dict[str, Any]:
        return successful(await self._send(wanted, method, path, body), wanted.id_server)

    async def _send(self, wanted: Invite3pid, method: str, path: str, body: Any = None) -> ClientAnswer:
        url = f"https://{wanted.id_server}{_API}{path}"
        headers = (("Authorization", f"Bearer {wanted.id_access_token}"), ("Content-Type", "application/json"))
        sent = None if body is None else orjson.dumps(body)
        try:
            return await self._client().request(method, url, sent, headers, within=WITHIN, max_answer=MAX_ANSWER)
        except ClientError:
            raise unknown(f"The identity server {wanted.id_server} cannot be reached.") from None


def check_token(token: str) -> None:
    """Raises 400 M_INVALID_PARAM for what cannot be an identity server's access token."""
    if not _HEADER.fullmatch(token):
        raise invalid_param("The 'id_access_token' is not one that an identity server gives.")


def _hashed(details: dict[str, Any], wanted: Invite3pid) -> tuple[str, str, str]:
    """Algorithm, pepper, and the address as it is to be looked up."""
    algorithms, pepper = details.get("algorithms"), details.get("lookup_pepper")
    named = f"{canonical(wanted.medium, wanted.address)} {wanted.medium}"
    if isinstance(pepper, str) and isinstance(algorithms, list):
        if "sha256" in algorithms:
            return "sha256", pepper, _url_safe(hashlib.sha256(f"{named} {pepper}".encode("utf-8", "replace")).digest())
        if "none" in algorithms:
            return "none", pepper, named
    raise unknown(f"The identity server {wanted.id_server} offers no way to look addresses up that this server knows.")


def _url_safe(digest: bytes) -> str:
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(digest).decode().rstrip("=")


def _keys(answer: dict[str, Any]) -> Iterator[PublicKey]:
    listed = answer.get("public_keys")
    for entry in listed[:_MAX_KEYS] if isinstance(listed, list) else ():
        key = entry.get("public_key") if isinstance(entry, dict) else None
        url = entry.get("key_validity_url") if isinstance(entry, dict) else None
        if isinstance(key, str) and _KEY.fullmatch(key):
            yield PublicKey(key, url if isinstance(url, str) and len(url) <= _MAX_TEXT else None)


def successful(answer: ClientAnswer, id_server: str) -> dict[str, Any]:
    """The answer's object. Raises 400, 403 or 404 for what the server refuses, in words that are safe to pass on."""
    found = answer.json_object()
    if answer.code == 200:
        return found
    errcode, error = found.get("errcode"), found.get("error")
    said = f": {error[:_MAX_TEXT]}" if isinstance(error, str) else "."
    code = 403 if answer.code in (401, 403) else 404 if errcode == "M_NO_VALID_SESSION" else 400
    passed = errcode if errcode in _PASSED_ON else Codes.FORBIDDEN if code == 403 else Codes.UNKNOWN
    raise MatrixError(code, passed, f"The identity server {id_server} refused{said}")
