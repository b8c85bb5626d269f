"""What an authorization server's answer about an access token allows whoever comes with it: RFC 7662, 2.2.

Client-server API, "Scope".
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from synapse.api.errors import MatrixError, forbidden, unknown_token
from synapse.handlers.new_sessions import MAX_DEVICE_ID

API: Final = ("urn:matrix:client:api:*", "urn:matrix:org.matrix.msc2967.client:api:*")
DEVICE: Final = ("urn:matrix:client:device:", "urn:matrix:org.matrix.msc2967.client:device:")
ADMIN: Final = "urn:synapse:admin:*"
MAX_SUBJECT: Final = 1024
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749, 3.3
# Others could be taken for access tokens: a refresh token is active, too.
_TYPES: Final = ("bearer", "access_token")
_LAST: Final = 2.0**53


class Grant(NamedTuple):
    """Whom the token is, on which device, until when (seconds since the epoch; None: nobody says)."""

    subject: str
    name: str | None
    device_id: str
    is_admin: bool
    expires: float | None


def grant_of(said: dict[str, Any], issuer: str, name_claim: str, now: float) -> Grant:
    """Raises 401 M_UNKNOWN_TOKEN for what is no good token, 403 M_FORBIDDEN for one that is not for this API."""
    expires = _time(said, "exp")
    begins = _time(said, "nbf")
    if (
        said.get("active") is not True
        or said.get("iss", issuer) != issuer
        or not _is_access_token(said.get("token_type"))
        or (begins is not None and begins > now)
    ):
        raise unknown_token()
    if expires is not None and expires <= now:
        raise unknown_token(soft_logout=True)
    subject, name = said.get("sub"), said.get(name_claim)
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT or "\x00" in subject:
        raise forbidden("The authorization server does not say whose access token it is.")
    scopes = _scopes(said.get("scope"))
    if not scopes.intersection(API):
        raise forbidden(f"The access token is not for this API: its scope lacks {API[0]}.")
    return Grant(subject, name if isinstance(name, str) else None, _device(scopes), ADMIN in scopes, expires)


def _time(said: dict[str, Any], name: str) -> float | None:
    value = said.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _LAST:
        raise _not_understood(name)
    return float(value)


def _is_access_token(token_type: Any) -> bool:
    return token_type is None or (isinstance(token_type, str) and token_type.lower() in _TYPES)


def _scopes(scope: Any) -> set[str]:
    if scope is None:
        return set()
    if not isinstance(scope, str):
        raise _not_understood("scope")
    return set(scope.split(" "))


def _device(scopes: set[str]) -> str:
    """The one device; a client may write its scope in the stable and in the unstable way."""
    devices = {one.removeprefix(prefix) for prefix in DEVICE for one in scopes if one.startswith(prefix)}
    if len(devices) != 1:
        raise forbidden(f"The access token must be for exactly one device: {DEVICE[0]}<device ID> in its scope.")
    (device_id,) = devices
    if _SCOPE.fullmatch(device_id) is None or len(device_id) > MAX_DEVICE_ID:
        raise forbidden(
            f"The device ID in the access token's scope must have 1 to {MAX_DEVICE_ID} characters of ASCII."
        )
    return device_id


def _not_understood(name: str) -> MatrixError:
    return forbidden(f"The authorization server says of the access token what makes no sense ('{name}').")
