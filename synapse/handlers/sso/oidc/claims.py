"""What becomes of what an OpenID Connect provider says of a user: may they log in, and what are they called here? Pure.

Templates are the administrator's; claims are what a user may have written. Templates run in Jinja2's sandbox, and what
comes out of them is cut to size.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from synapse.handlers.sso.types import RemoteIdentity, SsoRefused
from synapse.handlers.sso.users import localpart_from

if TYPE_CHECKING:
    from synapse.config.oidc import OidcProviderConfig, OidcRequirement

logger = logging.getLogger(__name__)

MAX_SUBJECT: Final = 255  # OpenID Connect Core 1.0, "ID Token", has no longer ones
_MAX_TEXT: Final = 1000


class Claims:
    """Judges and maps claims.

    :param provider_id: the provider's, in the identities that are made.
    """

    def __init__(self, provider_id: str, options: OidcProviderConfig) -> None:
        self._provider_id = provider_id
        self._requirements = options.attribute_requirements
        self._mapping = options.user_mapping_provider.config
        self._templates: dict[str, Any] = {}

    def identity(self, claims: dict[str, Any]) -> RemoteIdentity:
        """Whom they describe. Raises `SsoRefused` for somebody who may not log in, or whom nothing tells apart."""
        for requirement in self._requirements:
            if not _is_met(requirement, claims):
                logger.info("Somebody was refused who lacks the claim %s", requirement.attribute)
                raise SsoRefused("You are not among those who may log in to this server.", code=403)
        mapping = self._mapping
        subject = self._subject(claims)
        localpart = self._rendered(mapping.localpart_template, claims)
        email = self._rendered(mapping.email_template, claims)
        if claims.get("email_verified") is False and email == str(claims.get("email")):
            email = None  # the provider says itself that it might be somebody else's
        return RemoteIdentity(
            provider=self._provider_id,
            subject=subject,
            localpart=localpart_from(localpart) if localpart else None,
            confirm_localpart=mapping.confirm_localpart,
            display_name=self._rendered(mapping.display_name_template, claims),
            emails=() if email is None else (email,),
            picture=self._rendered(mapping.picture_template, claims),
            provider_session=_text(claims.get("sid")),
        )

    def _subject(self, claims: dict[str, Any]) -> str:
        if self._mapping.subject_template is not None:
            subject = self._rendered(self._mapping.subject_template, claims)
        else:
            claim = claims.get(self._mapping.subject_claim)
            subject = _text(claim)
            if subject != str(claim):  # what would have to be changed could become somebody else
                subject = None
        if not subject or len(subject) > MAX_SUBJECT:
            logger.warning("An identity provider names no subject for a user, or one that is too long")
            raise SsoRefused("The identity provider does not say who you are; please tell the server's administrator.")
        return subject

    def _rendered(self, source: str | None, claims: dict[str, Any]) -> str | None:
        """What the template makes of the claims; None for nothing."""
        if source is None:
            return None
        if source not in self._templates:
            self._templates[source] = _environment().from_string(source)
        from jinja2 import TemplateError

        try:
            text = self._templates[source].render(user=claims)
        except (TemplateError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            logger.warning("A template of %s fails: %s", self._provider_id, type(error).__name__)
            raise SsoRefused(
                "This server cannot make sense of what the identity provider says of you. "
                "Please tell its administrator."
            ) from None
        return _text(text)


def _is_met(requirement: OidcRequirement, claims: dict[str, Any]) -> bool:
    found = claims.get(requirement.attribute)
    values = [str(one) for one in found] if isinstance(found, list) else [] if found is None else [str(found)]
    wanted = requirement.one_of if requirement.value is None else (requirement.value, *requirement.one_of)
    return any(value in wanted for value in values) if wanted else bool(values)


def _text(value: object) -> str | None:
    """A claim or what came of one as text that can be stored; None where there is nothing in it."""
    if value is None or isinstance(value, (dict, list, bool)):
        return None
    text = str(value).strip().replace("\x00", "")
    text = text.encode("utf-8", "ignore").decode()
    return text[:_MAX_TEXT] or None


def _environment() -> Any:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(autoescape=False, finalize=lambda value: "" if value is None else value)
    environment.filters["localpart_from_email"] = lambda address: str(address).rpartition("@")[0]
    environment.filters["strip_domain"] = lambda name: str(name).partition("@")[0]
    return environment
