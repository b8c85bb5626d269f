"""What an ID token must be for us to believe it: signed by the provider, for us, for this log-in, and just now. Pure.

The libraries decide what a signature and a claim are; which algorithms and keys count is decided here, before they see
the token: by what the configuration and the provider say, never by the token alone.

OpenID Connect Core 1.0, "ID Token Validation" (3.1.3.7).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from synapse.config.oidc import SHARED, SIGNED

if TYPE_CHECKING:
    from synapse.handlers.sso.oidc.metadata import Key

logger = logging.getLogger(__name__)

MAX_TOKEN: Final = 64 * 1024
_LEEWAY: Final = 120  # seconds by which clocks may differ
_MAX_HEADER: Final = 4096
_MAX_AGE: Final = 600  # seconds that a logout token is taken
_LOGOUT: Final = "http://schemas.openid.net/event/backchannel-logout"
_DEFAULT: Final = ("RS256",)


def load() -> None:
    """Loads the libraries, which takes a third of a second: to be called in a thread."""
    import joserfc.jwt  # noqa: F401


class BadToken(Exception):
    """The token is not to be believed; the message is for the log."""


class Expected(NamedTuple):
    """What must stand in the token. `access_token` is the one that came along."""

    issuer: str
    client_id: str
    nonce: str
    access_token: str | None


class Header(NamedTuple):
    """What a token says of its signature, which is good for choosing among what we would take anyway."""

    algorithm: str
    key_id: str | None


def header_of(token: str) -> Header:
    """Raises `BadToken`."""
    from joserfc.errors import JoseError
    from joserfc.jws import extract_compact

    if len(token) > MAX_TOKEN or not token.isascii():
        raise BadToken("it is no token")
    try:
        header = extract_compact(token.encode(), registry=_registry(SIGNED)).headers()
    except (JoseError, ValueError):
        raise BadToken("it is no signed token") from None
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not (key_id is None or isinstance(key_id, str)):
        raise BadToken("its header is not understood")
    return Header(algorithm, key_id)


def algorithms(configured: tuple[str, ...], announced: object) -> tuple[str, ...]:
    """Those that are taken: the configured ones; or those that the provider says it signs with by a key of its own."""
    if configured:
        return configured
    if isinstance(announced, list):
        return tuple(name for name in SIGNED if name in announced) or _DEFAULT
    return _DEFAULT


def check(
    token: str, allowed: tuple[str, ...], keys: Iterable[Key], secret: str | None, expected: Expected, now: int
) -> dict[str, Any]:
    """The claims. Raises `BadToken`.

    :param keys: the provider's that may have been signed with; :param secret: ours, for `SHARED` algorithms.
    :param now: seconds.
    """
    header = header_of(token)
    claims = _verified(token, header, _candidates(header, allowed, keys, secret))
    _check_claims(claims, header, expected, now)
    return claims


def unverified_issuer(token: str) -> object:
    """Who a token says to be of, which anybody can write. Raises `BadToken`."""
    from joserfc.errors import JoseError
    from joserfc.jws import extract_compact

    header_of(token)
    try:
        claims = orjson.loads(extract_compact(token.encode(), registry=_registry(SIGNED)).payload)
    except (JoseError, ValueError):
        raise BadToken("it is no signed token") from None
    return claims.get("iss") if isinstance(claims, dict) else None


def check_logout(
    token: str, allowed: tuple[str, ...], keys: Iterable[Key], secret: str | None, issuer: str, client_id: str, now: int
) -> dict[str, Any]:
    """The claims of a logout token: "OpenID Connect Back-Channel Logout 1.0", 2.6. Raises `BadToken`."""
    from joserfc.errors import JoseError
    from joserfc.jwt import JWTClaimsRegistry

    header = header_of(token)
    claims = _verified(token, header, _candidates(header, allowed, keys, secret))
    registry = JWTClaimsRegistry(
        now,
        _LEEWAY,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": client_id},
        iat={"essential": True},
        jti={"essential": True},
    )
    try:
        registry.validate(claims)
    except (JoseError, ValueError, TypeError) as error:
        raise BadToken(f"what it says is wrong: {error}"[:300]) from None
    events, session = claims.get("events"), claims.get("sid")
    if not isinstance(events, dict) or _LOGOUT not in events or "nonce" in claims:
        raise BadToken("it is no logout token")
    if not isinstance(session, str) or not session or "\x00" in session:
        raise BadToken("it names no session")
    if now - claims["iat"] > _MAX_AGE:
        raise BadToken("it is old")
    return claims


def _candidates(header: Header, allowed: tuple[str, ...], keys: Iterable[Key], secret: str | None) -> list[Key]:
    """The keys that may have been signed with. Raises `BadToken` for an algorithm that is not taken."""
    if header.algorithm not in allowed:
        raise BadToken(f"it is signed by {header.algorithm[:20]}")
    if header.algorithm in SHARED:
        return [] if secret is None else [{"kty": "oct", "k": _base64(secret.encode())}]
    return list(keys)


def _verified(token: str, header: Header, keys: list[Key]) -> dict[str, Any]:
    from joserfc import jwk, jwt
    from joserfc.errors import JoseError

    for key in keys:
        try:
            imported = jwk.import_key(key)
            return dict(jwt.decode(token, imported, [header.algorithm], _registry([header.algorithm])).claims)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    raise BadToken("no key of the provider's fits its signature")


def _check_claims(claims: dict[str, Any], header: Header, expected: Expected, now: int) -> None:
    from authlib.oidc.core import CodeIDToken
    from joserfc.errors import JoseError

    options: Any = {
        "iss": {"essential": True, "value": expected.issuer},
        "aud": {"essential": True, "value": expected.client_id},
        "sub": {"essential": True},
        "exp": {"essential": True},
        "iat": {"essential": True},
        "nonce": {"essential": True, "value": expected.nonce},
    }
    params = {"nonce": expected.nonce, "client_id": expected.client_id, "access_token": expected.access_token}
    try:
        CodeIDToken(claims, {"alg": header.algorithm}, options, params).validate(now, _LEEWAY)
    except (JoseError, ValueError, TypeError) as error:
        raise BadToken(f"what it says is wrong: {error}"[:300]) from None


def _registry(allowed: Iterable[str]) -> Any:
    from joserfc.jws import JWSRegistry

    registry = JWSRegistry(algorithms=list(allowed), strict_check_header=False)
    registry.max_header_length = _MAX_HEADER
    return registry


def _base64(data: bytes) -> str:
    import base64

    return base64.urlsafe_b64encode(data).decode().rstrip("=")
