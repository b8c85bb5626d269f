"""This server as a SAML service provider: its requests to identity providers, and what comes back.

It is pysaml2's work. Everything here blocks (keys, schemas and metadata are read, which may be somewhere else) and runs
in a thread. pysaml2 remembers whom it has seen; so a client of it is made for each message, and only what is read is
kept.

SAML V2.0, "Web Browser SSO Profile".
"""

from __future__ import annotations

import base64
import binascii
import calendar
import logging
import threading
import time
from typing import Any, Final

from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT, SAMLError
from saml2.client import Saml2Client
from saml2.config import SPConfig
from saml2.metadata import create_metadata_string
from saml2.sigver import RSACrypto, import_rsa_key_from_file
from saml2.time_util import str_to_time

from synapse.handlers.sso.saml_signatures import InProcess, NotSigned, parsed
from synapse.handlers.sso.saml_types import Assertion, Expected, SamlRequest, Unacceptable

METADATA_SECONDS: Final = 24 * 3600.0
HTTP_SECONDS: Final = 20  # that metadata elsewhere may take
MAX_RESPONSE: Final = 1024 * 1024  # characters of base64

# What pysaml2 logs are whole messages, which say a lot about people; who needs that names the logger in `log_config`.
if logging.getLogger("saml2").level == logging.NOTSET:
    logging.getLogger("saml2").setLevel(logging.CRITICAL)


class SamlService:
    """Makes requests and takes responses.

    :param settings: pysaml2's, as `synapse.config.saml` puts them together.
    :param idp: the provider to use where the metadata has several.
    """

    def __init__(self, settings: dict[str, Any], idp: str | None) -> None:
        self._settings = settings
        self._idp = idp
        self._lock = threading.Lock()
        self._config: Any = None
        self._read_at = 0.0

    def request(self, relay_state: str) -> SamlRequest:
        """Raises `SAMLError` and whatever reading metadata raises."""
        client = self._client()
        idps = list(client.metadata.with_descriptor("idpsso"))
        idp = self._idp if self._idp is not None else idps[0] if len(idps) == 1 else None
        if idp is None or idp not in idps:
            raise SAMLError(f"there is not one identity provider in the metadata, but {len(idps)}")
        request_id, info = client.prepare_for_authenticate(
            entityid=idp, relay_state=relay_state, binding=BINDING_HTTP_REDIRECT, response_binding=BINDING_HTTP_POST
        )
        return SamlRequest(request_id, idp, dict(info["headers"])["Location"])

    def metadata(self) -> bytes:
        """What identity providers are to know of this server."""
        return bytes(create_metadata_string(None, config=self._loaded()))

    def assertion(self, response: str, expected: Expected | None) -> Assertion:
        """What a response (base64) says. Raises `Unacceptable`."""
        xml = _decoded(response)
        client = self._client()
        outstanding = {} if expected is None else {expected.request_id: ""}
        try:
            parsed(xml)
            # Without a binding it is taken as it is: pysaml2 would inflate what might be deflated, whatever its size.
            found = client.parse_authn_request_response(
                xml, None, outstanding=outstanding, conv_info={"entity_id": client.config.entityid}
            )
            return _checked(found, expected, client.config.entityid, client.want_response_signed)
        except Unacceptable:
            raise
        except NotSigned as error:
            raise Unacceptable(str(error)) from None
        except Exception as error:
            # Of all kinds; their messages may hold the response.
            raise Unacceptable(f"pysaml2 refuses it ({type(error).__name__})") from None

    def _client(self) -> Any:
        client = Saml2Client(config=self._loaded())
        client.sec.crypto = InProcess()
        if client.config.key_file:
            client.sec.sec_backend = RSACrypto(import_rsa_key_from_file(client.config.key_file))
        return client

    def _loaded(self) -> Any:
        with self._lock:
            if self._config is None or time.monotonic() - self._read_at > METADATA_SECONDS:
                # The backend's name keeps pysaml2 from looking for a program; it is replaced in each client.
                config = SPConfig().load(
                    {"http_client_timeout": HTTP_SECONDS, **self._settings, "crypto_backend": "XMLSecurity"}
                )
                config.only_use_keys_in_metadata = True
                self._config, self._read_at = config, time.monotonic()
            return self._config


def _decoded(response: str) -> str:
    if len(response) > MAX_RESPONSE:
        raise Unacceptable("it is too long")
    try:
        return base64.b64decode(response, validate=False).decode()
    except (binascii.Error, ValueError):
        raise Unacceptable("it is no base64 of text") from None


def _checked(found: Any, expected: Expected | None, entity_id: str, response_signed: bool) -> Assertion:
    """What pysaml2 takes for optional, and the profile does not: "4.1.4.3 <Response> Message Processing Rules"."""
    if found is None or found.ava is None or len(found.assertions) != 1:
        raise Unacceptable("it has not one assertion that holds")
    (assertion,) = found.assertions
    issuers = {one.issuer.text.strip() for one in (found.response, assertion) if one.issuer is not None}
    if assertion.issuer is None or len(issuers) != 1 or (expected is not None and issuers != {expected.idp}):
        raise Unacceptable("it comes from another provider")
    if response_signed and found.response.destination not in found.return_addrs:
        raise Unacceptable("it was sent to somebody else")
    wanted = None if expected is None else expected.request_id
    confirmations = [one.subject_confirmation_data for one in assertion.subject.subject_confirmation]
    if found.response.in_response_to != wanted or any(
        data is None or data.in_response_to != wanted for data in confirmations
    ):
        raise Unacceptable("it answers something else" if expected is not None else "it answers something")
    conditions = assertion.conditions
    restrictions = [] if conditions is None else conditions.audience_restriction
    if not restrictions or not all(
        any((audience.text or "").strip() == entity_id for audience in one.audience) for one in restrictions
    ):
        raise Unacceptable("it is meant for somebody else")
    return Assertion(assertion.id, _end_of(confirmations), {name: list(map(str, v)) for name, v in found.ava.items()})


def _end_of(confirmations: list[Any]) -> int:
    """Milliseconds. "4.1.4.2 <Response> Usage": each confirmation says how long it holds."""
    if not confirmations or any(data.not_on_or_after is None for data in confirmations):
        raise Unacceptable("it does not say how long it holds")
    return max(calendar.timegm(str_to_time(data.not_on_or_after)) for data in confirmations) * 1000
