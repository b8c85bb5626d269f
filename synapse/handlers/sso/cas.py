"""Logging in by a CAS server: it hands the browser a ticket for us, and tells us whose the ticket is.

The protocol hands nothing back but the URL that we named. So that URL says what the log-in was for, and the session is
known by it. A browser that comes with a ticket and without a session may have been sent by somebody else, with a ticket
of theirs: what it was to be logged in to, or to confirm, it is asked before.

Apereo, "CAS Protocol 3.0 Specification".
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from synapse.handlers.sso.types import Departure, Purpose, RemoteIdentity, SsoRefused, ToLogIn
from synapse.handlers.sso.users import localpart_from
from synapse.http.client import ClientError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from synapse.config.sso import CasConfig
    from synapse.http.outside import OutsideClient

logger = logging.getLogger(__name__)

ID: Final = "cas"
CALLBACK: Final = "/_matrix/client/r0/login/cas/ticket"
# Those that take tickets of proxies too, as administrators have set their servers up for; which we refuse by ourselves.
_VALIDATE: Final = {1: "/validate", 2: "/proxyValidate", 3: "/p3/proxyValidate"}
_SECONDS: Final = 10.0
_MAX_ANSWER: Final = 256 * 1024


class CasProvider:
    """An identity provider.

    :param client: for requests to the CAS server, made when it is needed.
    :param base_url: under which browsers reach this server.
    """

    id: str = ID
    allow_existing_users: bool = True  # its users' names are those of their accounts, and always were
    posts_back: bool = False

    def __init__(self, options: CasConfig, client: Callable[[], OutsideClient], base_url: str) -> None:
        assert options.server_url is not None, "checked with the configuration"
        self.name = options.idp_name
        self.icon = options.idp_icon
        self.brand = options.idp_brand
        self.enable_registration = options.enable_registration
        self._options = options
        self._server = options.server_url.rstrip("/")
        self._client = client
        self._base_url = base_url

    async def begin(self, state: str, purpose: Purpose) -> Departure:
        service = self.service(purpose)
        return Departure(f"{self._server}/login?{urlencode({'service': service})}", {}, self.state_of(purpose))

    def service(self, purpose: Purpose) -> str:
        """The URL that the browser comes back to."""
        if isinstance(purpose, ToLogIn):
            query = {"redirectUrl": purpose.redirect_url}
        else:
            query = {"session": purpose.ui_auth_session}
        return f"{self._base_url}{CALLBACK}?{urlencode(query)}"

    def state_of(self, purpose: Purpose) -> str:
        """By what the session is known, together with the browser."""
        return "cas_" + hashlib.sha256(self.service(purpose).encode()).hexdigest()

    async def identity_of(self, ticket: str, purpose: Purpose) -> RemoteIdentity:
        """Whose ticket it is. Raises `SsoRefused`."""
        query = urlencode({"ticket": ticket, "service": self.service(purpose)})
        url = f"{self._server}{_VALIDATE[self._options.protocol_version]}?{query}"
        try:
            answer = await self._client().request("GET", url, within=_SECONDS, max_answer=_MAX_ANSWER)
        except ClientError as error:
            logger.warning("The CAS server cannot be asked about a ticket: %s", error)
            raise SsoRefused("The CAS server cannot be reached; please try again later.", code=502) from None
        if answer.code != 200:
            logger.warning("The CAS server answered %d when it was asked about a ticket", answer.code)
            raise SsoRefused("The CAS server has failed to check the log-in; please try again later.", code=502)
        user, attributes = _parsed(answer.body, self._options.protocol_version)
        self._check_attributes(attributes)
        return self._identity(user, attributes)

    def _check_attributes(self, attributes: dict[str, list[str]]) -> None:
        for name, wanted in self._options.required_attributes.items():
            values = attributes.get(name, [])
            if not values or (wanted is not None and str(wanted) not in values):
                logger.info("Somebody was refused who lacks the CAS attribute %s", name)
                raise SsoRefused("You are not among those who may log in to this server.", code=403)

    def _identity(self, user: str, attributes: dict[str, list[str]]) -> RemoteIdentity:
        localpart = localpart_from(user)
        if user.isdigit():
            if not self._options.allow_numeric_ids:
                raise SsoRefused("Users whose name is a number cannot log in to this server.", code=403)
            localpart = localpart_from(self._options.numeric_ids_prefix) + localpart
        names = attributes.get(self._options.displayname_attribute or "", [])
        return RemoteIdentity(
            provider=self.id, subject=user, localpart=localpart, display_name=names[0] if names else None
        )


def _parsed(body: bytes, version: int) -> tuple[str, dict[str, list[str]]]:
    """The user's name and attributes in the server's answer. Raises `SsoRefused`."""
    user, attributes = _plain(body) if version == 1 else _xml(body)
    user = user.strip()
    if not user or len(user) > 255 or "\x00" in user:
        raise _no_such_ticket("it names nobody")
    return user, attributes


def _plain(body: bytes) -> tuple[str, dict[str, list[str]]]:
    lines = body.decode("utf-8", "replace").splitlines()
    if len(lines) < 2 or lines[0].strip() != "yes":
        raise _no_such_ticket("it does not know the ticket")
    return lines[1], {}


def _xml(body: bytes) -> tuple[str, dict[str, list[str]]]:
    from defusedxml import ElementTree
    from defusedxml.common import DefusedXmlException

    try:
        root: Element = ElementTree.fromstring(body, forbid_dtd=True)
    except (ElementTree.ParseError, DefusedXmlException, ValueError, LookupError):
        logger.warning("The CAS server's answer is no XML that can be read")
        raise SsoRefused("The CAS server has failed to check the log-in; please try again later.", code=502) from None
    success = _child(root, "authenticationSuccess") if _tag(root) == "serviceResponse" else None
    if success is None:
        failure = _child(root, "authenticationFailure")
        raise _no_such_ticket("it says nothing" if failure is None else str(failure.get("code"))[:80])
    if _child(success, "proxies") is not None:
        raise _no_such_ticket("it was another service that the user logged in to")
    found: dict[str, list[str]] = {}
    attributes = _child(success, "attributes")
    for child in attributes if attributes is not None else ():
        found.setdefault(_tag(child), []).append((child.text or "").strip())
    user = _child(success, "user")
    return "" if user is None else user.text or "", found


def _child(parent: Element, name: str) -> Any:
    return next((child for child in parent if _tag(child) == name), None)


def _tag(element: Element) -> str:
    """The name without its namespace, by which servers differ."""
    return str(element.tag).rpartition("}")[2]


def _no_such_ticket(why: str) -> SsoRefused:
    logger.info("A CAS ticket was refused: %s", why)
    return SsoRefused("The CAS server does not confirm who you are. Please go back to your client and begin again.")
