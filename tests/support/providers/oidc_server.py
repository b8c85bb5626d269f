"""An OpenID Connect provider: discovery, keys, authorization codes with PKCE, ID tokens, userinfo.

It is as strict as the specifications are: client, redirect URI, code (once) and verifier must be right. Whoever opens
`/authorize` is logged in as the `user` of its behaviour. It errs where its behaviour says so:

    user           claims of the user (`sub` is alice)
    alg            what ID tokens are signed by: RS256 (by default), ES256, none, HS256 (with the secret), `confused`
                   (HS256 with the public key as the secret)
    key            `other`: a key that nobody knows under the id of the known one; `new`: another, which is listed
    claims         of the ID token, over those that are right; None leaves a claim out
    authorize      an error in place of a code
    token          status and JSON in place of tokens
    iss            the parameter `iss` of answers (RFC 9207); None for none
    userinfo       claims in place of the user's
    metadata       over the discovery document's; None leaves something out
    no_keys        whether the keys cannot be had
    down           whether everything answers 503
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

sys.path.insert(0, str(Path(__file__).parent))

from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core.util import create_half_hash
from base import Handler, serve
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey

CLIENT, SECRET = "matrix", "the:client/secret of thirty-two letters"
KEYS: dict[str, Any] = {
    "RS256": RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}),
    "ES256": ECKey.generate_key("P-256", {"kid": "ec", "use": "sig"}),
    "other": RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}),
    "new": RSAKey.generate_key(2048, {"kid": "new", "use": "sig"}),
}
CODES: dict[str, dict[str, str]] = {}
TOKENS: set[str] = set()
URL = ""

Answer = tuple[int, dict[str, str], bytes]


class OidcServer(Handler):
    """The provider."""

    def answer(self, path: str, query: dict[str, str], form: dict[str, str]) -> Answer:
        if self.behaviour.get("down"):
            return 503, {}, b"down"
        if path == "/.well-known/openid-configuration":
            return _json(200, {**_metadata(), **self.behaviour.get("metadata", {})})
        if path == "/jwks" and self.behaviour.get("no_keys"):
            return 500, {}, b""
        if path == "/jwks":
            names = ["RS256", "ES256", *(["new"] if self.behaviour.get("key") == "new" else [])]
            return _json(200, {"keys": [KEYS[name].as_dict(private=False) for name in names]})
        if path == "/logout_token":
            return 200, {}, self._logout_token(json.loads(query["claims"])).encode()
        if path == "/authorize":
            return self._authorize(query)
        if path == "/token":
            return self._token(form)
        if path == "/userinfo":
            if self.headers.get("Authorization", "").removeprefix("Bearer ") not in TOKENS:
                return _json(401, {"error": "invalid_token"})
            return _json(200, self.behaviour.get("userinfo", self._user()))
        return 404, {}, b""

    def _user(self) -> dict[str, Any]:
        return {"sub": "alice-at-provider", **self.behaviour.get("user", {})}

    def _authorize(self, query: dict[str, str]) -> Answer:
        if (query.get("client_id"), query.get("response_type")) != (CLIENT, "code"):
            return 400, {}, b"another client, or another flow"
        answer = {"state": query["state"]}
        if "authorize" in self.behaviour:
            answer |= self.behaviour["authorize"]
        else:
            answer["code"] = secrets.token_hex(8)
            CODES[answer["code"]] = query
        issuer = self.behaviour.get("iss", URL)
        if issuer is not None:
            answer["iss"] = issuer
        return 302, {"Location": f"{query['redirect_uri']}?{urlencode(answer)}"}, b""

    def _token(self, form: dict[str, str]) -> Answer:
        if "token" in self.behaviour:
            return _json(*self.behaviour["token"])
        scheme, _, pair = self.headers.get("Authorization", "").partition(" ")
        client = form.get("client_id", ""), form.get("client_secret", "")
        if scheme == "Basic":
            name, _, secret = base64.b64decode(pair).decode().partition(":")
            client = unquote(name), unquote(secret)
        if client != (CLIENT, SECRET):
            return _json(401, {"error": "invalid_client"})
        asked = CODES.pop(form.get("code", ""), None)
        if asked is None or form.get("redirect_uri") != asked["redirect_uri"]:
            return _json(400, {"error": "invalid_grant"})
        challenge = asked.get("code_challenge")
        if challenge is not None and create_s256_code_challenge(form.get("code_verifier", "")) != challenge:
            return _json(400, {"error": "invalid_grant"})
        access_token = secrets.token_hex(16)
        TOKENS.add(access_token)
        tokens = {"access_token": access_token, "token_type": "Bearer", "expires_in": 60}
        if "openid" in asked["scope"].split():
            tokens["id_token"] = self._id_token(asked, access_token)
        return _json(200, tokens)

    def _logout_token(self, changed: dict[str, Any]) -> str:
        claims = {
            "iss": URL,
            "aud": CLIENT,
            "iat": self.behaviour.get("now", int(time.time())),
            "jti": secrets.token_hex(8),
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
            "sub": self._user()["sub"],
            "sid": "session-at-provider",
            **changed,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        return _signed(claims, self.behaviour.get("alg", "RS256"), self.behaviour)

    def _id_token(self, asked: dict[str, str], access_token: str) -> str:
        now = self.behaviour.get("now", int(time.time()))
        alg = self.behaviour.get("alg", "RS256")
        claims = {
            "iss": URL,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 60,
            "nonce": asked["nonce"],
            "at_hash": create_half_hash(access_token, "RS256").decode(),
            "sid": "session-at-provider",
            **self._user(),
            **self.behaviour.get("claims", {}),
        }
        return _signed({name: value for name, value in claims.items() if value is not None}, alg, self.behaviour)


def _signed(claims: dict[str, Any], alg: str, behaviour: dict[str, Any]) -> str:
    payload = json.dumps(claims)
    if alg == "none":
        return f"{_base64(json.dumps({'alg': alg}).encode())}.{_base64(payload.encode())}."
    if alg == "HS256":
        return jws.serialize_compact({"alg": "HS256"}, payload, OctKey.import_key(SECRET))
    if alg == "confused":
        signed = f"{_base64(json.dumps({'alg': 'HS256', 'kid': 'rsa'}).encode())}.{_base64(payload.encode())}"
        return f"{signed}.{_base64(hmac.digest(KEYS['RS256'].as_pem(private=False), signed.encode(), 'sha256'))}"
    key = KEYS[behaviour.get("key", alg)]
    return jws.serialize_compact({"alg": alg, "kid": key.kid}, payload, key)


def _metadata() -> dict[str, Any]:
    return {
        "issuer": URL,
        "authorization_endpoint": f"{URL}/authorize",
        "token_endpoint": f"{URL}/token",
        "userinfo_endpoint": f"{URL}/userinfo",
        "jwks_uri": f"{URL}/jwks",
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "ES256", "HS256", "none"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
    }


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _json(code: int, value: Any) -> Answer:
    return code, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _named(url: str) -> None:
    global URL
    URL = url


if __name__ == "__main__":
    serve(OidcServer, _named)
