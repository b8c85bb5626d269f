"""The sections of a configuration that are about e-mail addresses and phone numbers: how they are written to, and what
users may do with theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final, Literal, NoReturn

from synapse.config.errors import ConfigError
from synapse.config.listeners import is_loopback
from synapse.config.options import Doc, Duration, Port, Secret, Section

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.headerregistry import Address

    from synapse.config.root import Config

_HOUR: Final = 3600 * 1000
SMTPS_PORT: Final = 465
_SUBJECT: Final = "In it, `%(server_name)s` and `%(app)s` are filled in."


class MailSubjects(Section, frozen=True, kw_only=True):
    """Subjects of mails."""

    password_reset: Annotated[str, Doc(f"Of mails with which a password is reset. {_SUBJECT}")] = (
        "[%(server_name)s] Password reset"
    )
    email_validation: Annotated[str, Doc(f"Of mails that prove an address. {_SUBJECT}")] = (
        "[%(server_name)s] Validate your email"
    )
    email_already_in_use: Annotated[
        str, Doc(f"Of mails to those who have an account and are registering another. {_SUBJECT}")
    ] = "[%(server_name)s] Email already in use"


class EmailConfig(Section, frozen=True, kw_only=True):
    """Mail: how this server sends it (`email:`). Without `notif_from` it sends none."""

    smtp_host: Annotated[str, Doc("The mail server that takes our mails.", example="mail.example.org")] = "localhost"
    smtp_port: Annotated[Port | None, Doc("Its port; by default 465 with `force_tls`, else 25.", example=587)] = None
    smtp_user: Annotated[str | None, Doc("The name to log in there with; without one, nobody logs in.")] = None
    smtp_pass: Annotated[Secret | None, Doc("The password that goes with it.")] = None
    force_tls: Annotated[bool, Doc("Whether the connection begins with TLS, instead of turning to it (STARTTLS).")] = (
        False
    )
    enable_tls: Annotated[bool, Doc("Whether to use STARTTLS if the mail server offers it.")] = True
    require_transport_security: Annotated[
        bool, Doc("Whether to send nothing to a mail server that offers no STARTTLS.")
    ] = False
    tlsname: Annotated[
        str | None,
        Doc("The name that the mail server's certificate must be for; by default `smtp_host`.", example="example.org"),
    ] = None
    notif_from: Annotated[
        str | None,
        Doc(
            "Who mails are from; `%(app)s` is `app_name`.",
            example="Your %(app)s homeserver <noreply@example.org>",
        ),
    ] = None
    app_name: Annotated[str, Doc("What mails call the service.")] = "Matrix"
    client_base_url: Annotated[
        str | None,
        Doc("Where people find a client: mails link to it.", example="https://app.example.org/"),
    ] = None
    validation_token_lifetime: Annotated[Duration, Doc("How long the link in a mail is good for.")] = _HOUR
    invite_client_location: Annotated[
        str | None,
        Doc(
            "The client that identity servers shall link to when they write to people who are invited by mail.",
            example="https://app.example.org",
        ),
    ] = None
    subjects: Annotated[MailSubjects, Doc("Subjects of mails.", example={})] = MailSubjects()

    @property
    def is_enabled(self) -> bool:
        """Whether mail is sent at all."""
        return self.notif_from is not None

    @property
    def port(self) -> int:
        return self.smtp_port or (SMTPS_PORT if self.force_tls else 25)

    @property
    def sender(self) -> Address:
        """Who mails are from. Raises ValueError where `notif_from` has no address."""
        from email.errors import MessageError
        from email.headerregistry import Address
        from email.utils import parseaddr

        name, address = parseaddr((self.notif_from or "") % {"app": self.app_name})
        if "@" not in address:
            raise ValueError("there is no address in it")
        try:
            return Address(name, addr_spec=address)
        except (IndexError, MessageError) as error:  # what it does not understand
            raise ValueError(str(error)) from None


class SmsConfig(Section, frozen=True, kw_only=True):
    """Text messages: who sends them for this server (`sms:`). docs/email.md has what is asked of it."""

    url: Annotated[
        str | None,
        Doc("Where `{to, text}` is posted for each message.", example="https://sms.example.org/send"),
    ] = None
    secret: Annotated[Secret | None, Doc("Goes along as `Authorization: Bearer …`.")] = None


class AllowedThreepid(Section, frozen=True, kw_only=True):
    """Addresses that users may have."""

    medium: Annotated[Literal["email", "msisdn"], Doc("`email` or `msisdn`.")]
    pattern: Annotated[str, Doc("A regular expression that the beginning of the address matches.")]


class ThreepidDelegates(Section, frozen=True, kw_only=True):
    """Identity servers that send messages in place of this server."""

    msisdn: Annotated[
        str | None, Doc("The URL of the one that writes to phone numbers.", example="https://id.example.org")
    ] = None
    msisdn_access_token: Annotated[Secret | None, Doc("A token of it, for this server's requests.")] = None


class ThreepidsConfig(Section, frozen=True, kw_only=True):
    """Addresses: what users may do with e-mail addresses and phone numbers."""

    enable_3pid_changes: Annotated[bool, Doc("Whether users can add addresses to their accounts, and remove them.")] = (
        True
    )
    enable_3pid_lookup: Annotated[
        bool, Doc("Whether identity servers are asked who has the address of somebody who is invited by it.")
    ] = True
    allowed_local_3pids: Annotated[
        tuple[AllowedThreepid, ...],
        Doc(
            "Which addresses users may add or register with; by default all.",
            example=[{"medium": "email", "pattern": r"^[^@]+@example\.org$"}, {"medium": "msisdn", "pattern": r"^44"}],
        ),
    ] = ()
    request_token_inhibit_3pid_errors: Annotated[
        bool,
        Doc(
            "Whether to keep to oneself which addresses have an account: who asks for a mail is answered alike, and "
            "nothing is sent, or a mail that says so to the owner of the address."
        ),
    ] = False
    next_link_domain_whitelist: Annotated[
        tuple[str, ...] | None,
        Doc(
            "The domains that people may be sent on to (`next_link`) once their address is proved; by default any, "
            "with `[]` none.",
            example=["app.example.org"],
        ),
    ] = None
    account_threepid_delegates: Annotated[
        ThreepidDelegates, Doc("Identity servers that send messages for us.", example={})
    ] = ThreepidDelegates()
    trusted_third_party_id_servers: Annotated[
        tuple[str, ...] | None,
        Doc(
            "The identity servers that users may have this server talk to; by default any.",
            example=["matrix.org", "vector.im"],
        ),
    ] = None


# -- checks of several options -----------------------------------------------------------------------------------------

Place = Callable[[str | None], str]


def check_contacts(config: Config, place: Place) -> Iterator[str]:
    """Raises `ConfigError` for what a process cannot start with; yields what is odd."""
    if config.email.is_enabled:
        _email(config, place)
        yield from _odd_email(config, place)
    elif config.email != EmailConfig():
        yield f"{place('email')}: `email.notif_from` is missing, so no mail is sent."
    _messages(config, place)
    _patterns(config, place)


def _fail(place: Place, option: str, problem: str, remedy: str) -> NoReturn:
    raise ConfigError(place(option), option, problem, remedy)


def _email(config: Config, place: Place) -> None:
    email = config.email
    if config.server.public_baseurl is None:
        _fail(place, "public_baseurl", "is missing, but mails have links to it", "write the URL that clients use")
    texts = {f"subjects.{name}": getattr(email.subjects, name) for name in MailSubjects.__struct_fields__}
    for option, text in {"notif_from": email.notif_from or "", **texts}.items():
        try:
            filled = text % {"app": email.app_name, "server_name": config.server.server_name}
        except (ValueError, KeyError, TypeError):
            remedy = "write %(app)s or %(server_name)s, and %% for a percent sign"
            _fail(place, f"email.{option}", "has a % that means nothing", remedy)
        if not filled.isprintable():
            _fail(place, f"email.{option}", "has line breaks or other control characters", "write it in one line")
    try:
        _ = email.sender
    except ValueError:
        _fail(place, "email.notif_from", "has no address in it", "write such as `Matrix <noreply@example.org>`")
    if (email.smtp_user is None) != (email.smtp_pass is None):
        missing = "smtp_user" if email.smtp_user is None else "smtp_pass"
        _fail(place, f"email.{missing}", "is missing", "set both smtp_user and smtp_pass, or none of them")
    if email.require_transport_security and not (email.enable_tls or email.force_tls):
        _fail(place, "email.enable_tls", "is false, but TLS is required", "remove it")


def _odd_email(config: Config, place: Place) -> Iterator[str]:
    email = config.email
    is_plain = not (email.enable_tls or email.force_tls)
    if email.smtp_user is not None and is_plain and not is_local(email.smtp_host):
        yield f"{place('email')}: with `email.enable_tls: false` the mail server's password is sent in the clear."


def is_local(host: str) -> bool:
    """Whether what is sent there stays on this machine."""
    return host == "localhost" or is_loopback(host)


def _messages(config: Config, place: Place) -> None:
    delegates = config.threepids.account_threepid_delegates
    for option, url in (("sms.url", config.sms.url), ("account_threepid_delegates.msisdn", delegates.msisdn)):
        if url is not None and not url.startswith(("https://", "http://")):
            _fail(place, option, f"is {url!r}, which is no URL", "begin it with https://")
    if config.sms.url is None:
        if config.sms.secret is not None:
            _fail(place, "sms.url", "is missing, but `sms.secret` is set", "write where messages are handed in")
        return
    if config.sms.secret is None:
        _fail(place, "sms.secret", "is missing", "share a secret with the service at `sms.url`")
    if delegates.msisdn is not None:
        _fail(place, "sms.url", "and `account_threepid_delegates.msisdn` are both set", "keep one of them")


def _patterns(config: Config, place: Place) -> None:
    import re

    for server in config.threepids.trusted_third_party_id_servers or ():
        if "/" in server:
            remedy = "write a host name, with a port if it needs one, and without https://"
            _fail(place, "trusted_third_party_id_servers", f"has {server!r}, which is no host name", remedy)
    for index, allowed in enumerate(config.threepids.allowed_local_3pids):
        try:
            re.compile(allowed.pattern)
        except re.error as error:
            option = f"allowed_local_3pids[{index}].pattern"
            _fail(place, option, f"is no regular expression ({error})", "correct it")
