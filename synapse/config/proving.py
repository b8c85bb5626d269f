"""The sections of a configuration that are about what is asked of people: before they register, and before they do what
could harm them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from synapse.config.errors import ConfigError
from synapse.config.options import Doc, Duration, Secret, Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse.config.root import Config


class UiAuthConfig(Section, frozen=True, kw_only=True):
    """Interactive authentication: asking users who they are before they do what could harm them (`ui_auth:`)."""

    session_timeout: Annotated[
        Duration,
        Doc(
            "For how long a device whose user has just proven who they are is not asked again. Deactivating the "
            "account, its password and its addresses, and logging in elsewhere always ask. 0 is for not at all."
        ),
    ] = 0


class SigningUpConfig(Section, frozen=True, kw_only=True):
    """Registering: what is asked of those who make an account."""

    registrations_require_3pid: Annotated[
        tuple[Literal["email", "msisdn"], ...],
        Doc("Addresses that everybody has to have who registers.", example=["email", "msisdn"]),
    ] = ()
    disable_msisdn_registration: Annotated[bool, Doc("Whether nobody is asked for a phone number at all.")] = False
    registration_requires_token: Annotated[
        bool, Doc("Whether those alone may register to whom an administrator gave a token (docs/registration.md).")
    ] = False
    enable_registration_captcha: Annotated[bool, Doc("Whether a captcha has to be solved (reCAPTCHA 2).")] = False
    recaptcha_public_key: Annotated[str | None, Doc("The captcha's public key.", example="6Lc…")] = None
    recaptcha_private_key: Annotated[Secret | None, Doc("The captcha's private key.")] = None
    recaptcha_siteverify_api: Annotated[str, Doc("Where it is asked whether a captcha was solved.")] = (
        "https://www.recaptcha.net/recaptcha/api/siteverify"
    )
    inhibit_user_in_use_error: Annotated[
        bool, Doc("Whether only those are told that a user name is taken who have passed all that is asked of them.")
    ] = False

    @property
    def asks_something(self) -> bool:
        """Whether those who register have to prove anything."""
        asked = (self.registrations_require_3pid, self.registration_requires_token, self.enable_registration_captcha)
        return any(asked)


def check_signing_up(config: Config, place: Callable[[str | None], str]) -> None:
    """Raises `ConfigError` for what a process cannot start with."""
    options, registration = config.signing_up, config.registration
    if registration.enable_registration and not (
        options.asks_something or registration.enable_registration_without_verification
    ):
        raise ConfigError(
            place("enable_registration"),
            "enable_registration",
            "is true, and nothing would be asked of those who register",
            "set one of registrations_require_3pid, registration_requires_token and enable_registration_captcha, "
            "or enable_registration_without_verification: true to allow this, or enable_registration: false",
        )
    for option in ("recaptcha_public_key", "recaptcha_private_key") if options.enable_registration_captcha else ():
        if not getattr(options, option):
            remedy = "set it to the key that the captcha's provider gave you"
            raise ConfigError(place(option), option, "is missing, and enable_registration_captcha needs it", remedy)
    if not options.recaptcha_siteverify_api.startswith(("http://", "https://")):
        option = "recaptcha_siteverify_api"
        raise ConfigError(place(option), option, "is no URL", "begin it with https://")
    if "email" in options.registrations_require_3pid and not config.email.is_enabled:
        option, problem = "registrations_require_3pid", "wants e-mail addresses, but no mail can be sent"
        raise ConfigError(place(option), option, problem, "set email.notif_from and how to reach a mail server")
    if options.disable_msisdn_registration and "msisdn" in options.registrations_require_3pid:
        option = "disable_msisdn_registration"
        problem = "is true, but registrations_require_3pid wants a phone number of everybody"
        raise ConfigError(place(option), option, problem, "remove one of them")
    delegates = config.threepids.account_threepid_delegates
    by_phone = config.sms.url is not None or delegates.msisdn is not None
    if "msisdn" in options.registrations_require_3pid and not by_phone:
        option, problem = "registrations_require_3pid", "wants phone numbers, but no text message can be sent"
        raise ConfigError(place(option), option, problem, "set sms.url or account_threepid_delegates.msisdn")
