"""The world beyond the server as the conformance tests know it: an identity server, a service for text messages, a mail
server that takes everything, and nothing else that answers.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import orjson

from synapse.http.client import ClientAnswer, NotSent
from tests.support.homeserver import TestServer

IDENTITY_SERVER = "id.test"
AUTHORIZATION_SERVER = "account.test"
SMS_URL = "https://sms.test/send"
_KEY = "Mzg0NmMxNGRmNTQ2NDQxMTg1YTEzNGMxNGRmNTQ2NDQ"
_ANSWERS: dict[str, dict[str, Any]] = {
    "hash_details": {"algorithms": ["sha256"], "lookup_pepper": "pepper"},
    "lookup": {"mappings": {}},  # it knows nobody
    "bind": {"medium": "email", "address": "alice@example.org", "mxid": "@alice:test", "signatures": {}},
    "unbind": {},
    "oauth-authorization-server": {
        "issuer": "https://account.test/",
        **{name: f"https://account.test/{name}" for name in ("authorization_endpoint", "token_endpoint")},
        **{name: f"https://account.test/{name}" for name in ("revocation_endpoint", "registration_endpoint")},
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "response_modes_supported": ["query", "fragment"],
        "code_challenge_methods_supported": ["S256"],
    },
    "store-invite": {"token": "token", "display_name": "a...@b...", "public_keys": [{"public_key": _KEY}]},
}


class Outside:
    """Takes the place of `synapse.http.outside.OutsideClient`."""

    async def request(self, method: str, url: str, *_: Any, **__: Any) -> ClientAnswer:
        """The answer of whoever is at that address."""
        parts = urlsplit(url)
        answer = _ANSWERS.get(parts.path.rpartition("/")[2])
        if url == SMS_URL:
            return ClientAnswer(202, {}, b"")
        if parts.netloc not in (IDENTITY_SERVER, AUTHORIZATION_SERVER) or answer is None:
            raise NotSent(f"{parts.netloc} is not there.")
        return ClientAnswer(200, {"content-type": "application/json"}, orjson.dumps(answer))

    async def close(self) -> None:
        pass


class Nobody:
    """Takes the place of the way to other servers."""

    async def send(self, destination: str, *_: Any, **__: Any) -> ClientAnswer:
        raise NotSent(f"{destination} is not there.")


class Letterbox:
    """Takes every mail. Takes the place of `synapse.handlers.smtp.MailServer`."""

    def deliver(self, sender: str, recipient: str, message: Any) -> None:
        assert message.as_bytes()


def alone(server: TestServer) -> None:
    """Lets a server that has sent nothing yet reach nobody but who is here."""
    federation: Any = server.hs.federation
    contacts: Any = server.hs.accounts.contacts
    federation.transport = Nobody()
    contacts.identity_client = contacts.service_client = Outside()
    sso: Any = server.hs.sso
    sso._provider_client = Outside()
    contacts.mailer._post = Letterbox()
