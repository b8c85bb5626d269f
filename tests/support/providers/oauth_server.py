"""An OAuth 2.0 authorization server: metadata, access tokens, introspection (RFC 7662), revocation (RFC 7009).

`/issue?claims={…}` gives out a signed token with these claims; it is active until its `exp`, or until it is revoked.
Only the client that it knows may ask about tokens. It errs where its behaviour says so:

    now            the time; the system's by default
    metadata       over the metadata; None leaves something out
    introspection  status and JSON in place of what it would say of any token
    huge           whether it answers with a megabyte
    hangs          whether it answers nothing until `/release`; `/arrived` answers when a question is there
    down           whether everything answers 503
"""

from __future__ import annotations

import base64
import json
import secrets
import sys
import time
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import unquote

sys.path.insert(0, str(Path(__file__).parent))

from base import Handler, serve
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

ISSUER = "https://account.test/"
CLIENT, SECRET = "matrix", "the:client/secret of thirty-two letters"
KEY = ECKey.generate_key("P-256", {"kid": "ec", "use": "sig"})
REVOKED: set[str] = set()
ARRIVED, RELEASED = Event(), Event()

Answer = tuple[int, dict[str, str], bytes]


class OAuthServer(Handler):
    """The authorization server."""

    def answer(self, path: str, query: dict[str, str], form: dict[str, str]) -> Answer:
        if self.behaviour.get("down"):
            return 503, {}, b"down"
        if path == "/.well-known/oauth-authorization-server":
            found = {**_metadata(), **self.behaviour.get("metadata", {})}
            return _json(200, {name: value for name, value in found.items() if value is not None})
        if path == "/issue":
            claims = {"iss": ISSUER, "jti": secrets.token_hex(8), **json.loads(query["claims"])}
            return 200, {}, jws.serialize_compact({"alg": "ES256"}, json.dumps(claims), KEY).encode()
        if path == "/arrived":
            return 200, {}, b"yes" if ARRIVED.wait(60) else b"no"
        if path == "/release":
            RELEASED.set()
            return 200, {}, b""
        if path == "/introspect":
            return self._introspect(form)
        if path == "/revoke":
            REVOKED.add(form["token"])
            return 200, {}, b""
        return 404, {}, b""

    def _introspect(self, form: dict[str, str]) -> Answer:
        if self.behaviour.get("hangs"):
            ARRIVED.set()
            RELEASED.wait(60)
        if self._client(form) != (CLIENT, SECRET):
            return _json(401, {"error": "invalid_client"})
        if self.behaviour.get("huge"):
            return _json(200, {"active": True, "padding": "x" * (1 << 20)})
        if "introspection" in self.behaviour:
            return _json(*self.behaviour["introspection"])
        claims = _believed(form["token"])
        if claims is None or form["token"] in REVOKED:
            return _json(200, {"active": False})
        expires = claims.get("exp")
        if isinstance(expires, int) and expires <= self.behaviour.get("now", time.time()):
            return _json(200, {"active": False})
        return _json(200, {"active": True, **claims})

    def _client(self, form: dict[str, str]) -> tuple[str, str]:
        scheme, _, pair = self.headers.get("Authorization", "").partition(" ")
        if scheme != "Basic":
            return form.get("client_id", ""), form.get("client_secret", "")
        name, _, secret = base64.b64decode(pair).decode().partition(":")
        return unquote(name), unquote(secret)


def _believed(token: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(jws.deserialize_compact(token, KEY, algorithms=["ES256"]).payload)
    except (JoseError, ValueError):
        return None
    return found


def _metadata() -> dict[str, Any]:
    names = ("authorization", "token", "revocation", "registration", "introspection")
    return {
        "issuer": ISSUER,
        **{f"{name}_endpoint": f"{ISSUER}{name.removesuffix('ion')}" for name in names},
        "revocation_endpoint": f"{ISSUER}revoke",
        "introspection_endpoint": f"{ISSUER}introspect",
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "account_management_uri": f"{ISSUER}manage?theme=dark",
    }


def _json(code: int, value: Any) -> Answer:
    return code, {"Content-Type": "application/json"}, json.dumps(value).encode()


if __name__ == "__main__":
    serve(OAuthServer)
