"""Handing one mail over to a mail server, on a thread: connecting, TLS, logging in, and what an answer means.

Nothing here knows what mails say; `synapse.handlers.mail` makes them, waits, and tries again. The library is loaded
with the first mail.
"""

from __future__ import annotations

import ssl
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from synapse.config.contacts import is_local

if TYPE_CHECKING:
    import smtplib
    from email.message import EmailMessage

    from synapse.config.contacts import EmailConfig

TIMEOUT: Final = 30.0  # seconds for each answer of the mail server
_TEMPORARY: Final = range(400, 500)


class MailProblem(Exception):
    """A mail was not taken; the message says why, for the log: it names no address.

    :ivar temporary: whether it may be taken a moment later.
    :ivar of_recipient: whether it is for the address that nothing was taken.
    """

    def __init__(self, message: str, *, temporary: bool, of_recipient: bool = False) -> None:
        super().__init__(message)
        self.temporary = temporary
        self.of_recipient = of_recipient


@dataclass(frozen=True, slots=True)
class MailServer:
    """The mail server that takes our mails.

    :ivar tls_name: the name that its certificate must be for.
    :ivar implicit_tls: the connection begins with TLS.
    :ivar starttls: the connection turns to TLS where that is offered; `tls_required`: or nothing is sent.
    :ivar plain_login: whether the password may be sent without TLS.
    :ivar own_name: how we introduce ourselves.
    """

    host: str
    port: int
    tls_name: str
    implicit_tls: bool
    starttls: bool
    tls_required: bool
    user: str | None
    password: str | None
    plain_login: bool
    own_name: str

    @classmethod
    def of(cls, options: EmailConfig, own_name: str) -> MailServer:
        """The one of the configuration; `own_name` is the name of this server."""
        return cls(
            host=options.smtp_host,
            port=options.port,
            tls_name=options.tlsname or options.smtp_host,
            implicit_tls=options.force_tls,
            starttls=options.enable_tls,
            tls_required=options.require_transport_security,
            user=options.smtp_user,
            password=options.smtp_pass,
            plain_login=not options.enable_tls or is_local(options.smtp_host),
            own_name=own_name,
        )

    def deliver(self, sender: str, recipient: str, message: EmailMessage) -> None:
        """Hands the mail over; blocks. Raises `MailProblem`."""
        import smtplib

        try:
            with closing(self._connected()) as connection:
                self._secure(connection)
                if self.user is not None and self.password is not None:
                    connection.login(self.user, self.password)
                connection.send_message(message, sender, [_in_ascii(recipient)])
                with suppress(smtplib.SMTPException, OSError):
                    connection.quit()  # the mail is taken, whatever may be said to that
        except MailProblem:
            raise
        except Exception as error:
            raise _problem(error) from error

    def _connected(self) -> smtplib.SMTP:
        import smtplib

        if self.implicit_tls:
            return smtplib.SMTP_SSL(self.host, self.port, self.own_name, timeout=TIMEOUT, context=self._tls())
        return smtplib.SMTP(self.host, self.port, self.own_name, timeout=TIMEOUT)

    def _secure(self, connection: smtplib.SMTP) -> None:
        connection.ehlo()
        if self.implicit_tls:
            return
        if self.starttls and connection.has_extn("starttls"):
            connection.starttls(context=self._tls())
        elif self.tls_required:
            raise MailProblem("it offers no STARTTLS, which is required", temporary=False)
        elif self.user is not None and not self.plain_login:
            sentence = "it offers no STARTTLS, so the password is not sent (enable_tls: false would have it sent)"
            raise MailProblem(sentence, temporary=False)

    def _tls(self) -> ssl.SSLContext:
        context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
        context.server_name = self.tls_name
        context.load_default_certs()
        return context


class _NamedContext(ssl.SSLContext):
    """Wants a certificate for `server_name`, whatever host was connected to."""

    server_name: str

    def wrap_socket(self, *args: Any, **options: Any) -> Any:
        return super().wrap_socket(*args, **{**options, "server_hostname": self.server_name})


def _in_ascii(address: str) -> str:
    """The address with its domain as mail servers know it. One that is not ASCII before the @ needs SMTPUTF8."""
    local, _, domain = address.rpartition("@")
    try:
        return f"{local}@{domain.encode('idna').decode()}"
    except UnicodeError:
        raise MailProblem("the domain of the address cannot exist", temporary=False, of_recipient=True) from None


def _problem(error: Exception) -> MailProblem:
    """What went wrong, without what the mail server says of the address."""
    import smtplib

    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code = next((code for code, _ in error.recipients.values()), 0)
        is_temporary = code in _TEMPORARY
        return MailProblem(f"it refused the recipient ({code})", temporary=is_temporary, of_recipient=True)
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return MailProblem(f"it refused smtp_user and smtp_pass ({error.smtp_code})", temporary=False)
    if isinstance(error, smtplib.SMTPResponseException):
        return MailProblem(f"{type(error).__name__} ({error.smtp_code})", temporary=error.smtp_code in _TEMPORARY)
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return MailProblem("it does not support what the mail or the login needs", temporary=False)
    if isinstance(error, ssl.SSLCertVerificationError):
        return MailProblem(f"its certificate is not good: {error.verify_message}", temporary=False)
    if isinstance(error, (smtplib.SMTPException, OSError)):
        return MailProblem(f"it cannot be reached, or left ({type(error).__name__})", temporary=True)
    return MailProblem(f"the mail could not be made ({type(error).__name__})", temporary=False)
