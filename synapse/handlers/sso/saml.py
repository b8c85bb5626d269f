"""Logging in by a SAML 2 identity provider: it has the browser post us a signed statement about its user.

The statement answers a request of ours, which the browser's session knows; whether it does, and whether it is signed
for us, is `saml_service`'s matter. Where the administrator allows it, a provider may also speak unasked: then the
browser was perhaps sent by somebody else, so the user is asked before being logged in to anything.

SAML V2.0, "Web Browser SSO Profile".
"""

from __future__ import annotations

import hashlib
import logging
import re
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import DeferredSemaphore

from synapse.handlers.sso.saml_types import Expected, Unacceptable
from synapse.handlers.sso.types import Departure, Purpose, RemoteIdentity, SsoRefused
from synapse.handlers.sso.users import MAX_LOCALPART, localpart_from

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse.config.saml import SamlConfig, SamlRequirement
    from synapse.handlers.sso.saml_service import SamlService
    from synapse.handlers.sso.saml_types import Assertion
    from synapse.storage.saml_assertions import SamlAssertionStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

ID: Final = "saml"
AT_ONCE: Final = 2
MAX_WAITING: Final = 50
_SUBJECT: Final = "uid"  # by which the provider's users are known for good
_KEEP_USED_MS: Final = 24 * 3600 * 1000
_MAX_SUBJECT: Final = 255
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9._=/+-]", re.ASCII)


class SamlProvider:
    """An identity provider.

    :param service: pysaml2's side, made when it is needed: most processes only tell that there is this provider.
    :param in_thread: runs a blocking function in a thread.
    :param allow_unsolicited: whether the provider may speak unasked.
    """

    id: str = ID
    allow_existing_users: bool = False  # but for those that `grandfathered_mxid_source_attribute` names
    enable_registration: bool = True
    posts_back: bool = True

    def __init__(
        self,
        options: SamlConfig,
        service: Callable[[], SamlService],
        used: SamlAssertionStore,
        clock: Clock,
        in_thread: Callable[..., Awaitable[Any]],
        *,
        allow_unsolicited: bool,
    ) -> None:
        self.allow_unsolicited = allow_unsolicited
        self.name = options.idp_name
        self.icon = options.idp_icon
        self.brand = options.idp_brand
        self._options = options
        self._service = service
        self._used = used
        self._clock = clock
        self._in_thread = in_thread
        self._turns = DeferredSemaphore(AT_ONCE)

    async def begin(self, state: str, purpose: Purpose) -> Departure:
        try:
            request = await self._at_its_turn(lambda: self._service().request(state))
        except SsoRefused:
            raise
        except Exception as error:  # of pysaml2 and all that reads metadata for it
            logger.error("No SAML request can be made: %s: %s", type(error).__name__, error)
            raise SsoRefused(
                "The identity provider cannot be used just now; please try again later.", code=502
            ) from None
        remembered = {"request": request.request_id, "idp": request.idp}
        return Departure(request.location, remembered, lifetime_ms=self._options.saml_session_lifetime)

    async def metadata(self) -> bytes:
        """What the administrator of the identity provider is to be given."""
        found: bytes = await self._at_its_turn(lambda: self._service().metadata())
        return found

    async def identity_of(self, response: str, remembered: dict[str, Any] | None) -> RemoteIdentity:
        """Whom a response vouches for. Raises `SsoRefused`.

        :param remembered: of the request; None where there was none.
        """
        expected = None if remembered is None else Expected(remembered["request"], remembered["idp"])
        try:
            assertion: Assertion = await self._at_its_turn(lambda: self._service().assertion(response, expected))
        except Unacceptable as problem:
            logger.warning("A SAML response was refused: %s", problem)
            raise _refused() from None
        await self._use(assertion)
        self._check_requirements(assertion.attributes)
        return self._identity(assertion.attributes)

    async def _use(self, assertion: Assertion) -> None:
        digest = hashlib.sha256(assertion.assertion_id.encode("utf-8", "surrogatepass")).digest()
        now = self._now()
        # Some clocks are behind, and what is accepted for somewhat longer than it says is remembered for longer, too.
        if not await self._used.use(digest, max(assertion.expires_ts, now) + _KEEP_USED_MS, now):
            logger.warning("A SAML response was refused: its assertion was used before")
            raise _refused()

    def _check_requirements(self, attributes: dict[str, list[str]]) -> None:
        for requirement in self._options.attribute_requirements:
            if not _meets(attributes.get(requirement.attribute, []), requirement):
                logger.info("Somebody was refused who lacks the SAML attribute %s", requirement.attribute)
                raise SsoRefused("You are not among those who may log in to this server.", code=403)

    def _identity(self, attributes: dict[str, list[str]]) -> RemoteIdentity:
        mapping = self._options.user_mapping_provider.config
        subject = _first(attributes, _SUBJECT)
        source = _first(attributes, mapping.mxid_source_attribute)
        for name, value in ((_SUBJECT, subject), (mapping.mxid_source_attribute, source)):
            if not value or len(value) > _MAX_SUBJECT or "\x00" in value:
                logger.warning("A SAML response was refused: it has no attribute '%s' that could be used", name)
                raise SsoRefused("The identity provider does not say enough about you; please tell its administrator.")
        old = _first(attributes, self._options.grandfathered_mxid_source_attribute or "")
        dotted = mapping.mxid_mapping == "dotreplace"
        return RemoteIdentity(
            provider=self.id,
            subject=subject,
            localpart=_with_dots(source) if dotted else localpart_from(source),
            grandfathered_localpart=localpart_from(old) if old else None,
            display_name=_first(attributes, "displayName") or None,
            emails=tuple(attributes.get("email", attributes.get("mail", ()))),
        )

    async def _at_its_turn(self, function: Callable[[], Any]) -> Any:
        """On a thread. Others need the threads as well, while the provider's metadata may be long in coming."""
        if len(self._turns.waiting) >= MAX_WAITING:
            raise SsoRefused("Too many people are logging in at this moment; please try again later.", code=503)
        await self._turns.acquire()
        try:
            return await self._in_thread(function)
        finally:
            self._turns.release()

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _first(attributes: dict[str, list[str]], name: str) -> str:
    values = attributes.get(name, [])
    return values[0].strip() if values else ""


def _with_dots(name: str) -> str:
    return _NOT_IN_NAMES.sub(".", name.strip().lower()).lstrip("_")[:MAX_LOCALPART] or "."


def _meets(values: list[str], requirement: SamlRequirement) -> bool:
    if requirement.value is not None and requirement.value not in values:
        return False
    if requirement.one_of and not set(requirement.one_of).intersection(values):
        return False
    return bool(values)


def _refused() -> SsoRefused:
    return SsoRefused(
        "What the identity provider says cannot be accepted. Please go back to your client and begin again; if that "
        "does not help, ask the administrator of this server."
    )
