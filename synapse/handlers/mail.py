"""Mails to people: made from templates, as text and as HTML, and handed to the mail server of the configuration.

    await mailer.send("alice@example.org", subject, "password_reset", {"link": link})

Mails are sent on a few threads, and those that wait are bounded. What a mail server refuses for the moment is tried
again; whoever asked for the mail is told in words when it could not be sent.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import DeferredSemaphore

from synapse.api.errors import invalid_param, unknown
from synapse.handlers.smtp import MailProblem
from synapse.metrics import table
from synapse.util.concurrency import pause

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from email.message import EmailMessage

    from synapse.config.contacts import EmailConfig
    from synapse.util.clock import Clock
    from synapse.util.templates import Templates

logger = logging.getLogger(__name__)

AT_ONCE: Final = 4
"""Mails that are being sent at the same time: each has a thread of the pool that others need as well."""

MAX_WAITING: Final = 200
PAUSES: Final = (1.0, 5.0)
"""Seconds before each further try. The client waits, so there are few."""


class Post(Protocol):
    """Takes mails. Blocks; raises `MailProblem`."""

    def deliver(self, sender: str, recipient: str, message: EmailMessage) -> None: ...


class Mailer:
    """Sends mails.

    :param in_thread: runs a blocking function elsewhere.
    """

    def __init__(
        self,
        options: EmailConfig,
        templates: Templates,
        post: Post,
        clock: Clock,
        in_thread: Callable[..., Awaitable[Any]],
        server_name: str,
    ) -> None:
        self._options = options
        self._templates = templates
        self._post = post
        self._clock = clock
        self._in_thread = in_thread
        self._server_name = server_name
        self._slots = DeferredSemaphore(AT_ONCE)

    @property
    def is_enabled(self) -> bool:
        """Whether mail can be sent on this server."""
        return self._options.is_enabled

    async def send(self, to: str, subject: str, template_name: str, values: Mapping[str, Any]) -> None:
        """Sends a mail made of the templates `template_name`.txt and .html; returns when the mail server has it.

        :param to: a canonical address.
        :param subject: may have `%(server_name)s` and `%(app)s` in it.
        :param values: what the templates are given besides `app_name`, `server_name` and `client_base_url`.

        Raises 400 M_INVALID_PARAM where the address is refused, 503 M_UNKNOWN where mail cannot be sent just now.
        """
        if len(self._slots.waiting) >= MAX_WAITING:
            raise unknown("This server has too many mails to send; please try again in a few minutes.", 503)
        message = self._message(to, subject, template_name, values)
        slot = self._slots.acquire()
        table.MAILS_WAITING.set(len(self._slots.waiting))
        await slot
        try:
            await self._deliver(to, message)
            _count("sent")
        except MailProblem as problem:
            server = f"{self._options.smtp_host}:{self._options.port}"
            logger.warning("A mail (%s) was not sent by the mail server %s: %s", template_name, server, problem)
            if problem.of_recipient and not problem.temporary:
                _count("refused")
                raise invalid_param("Mail to this address is refused; there may be a mistake in it.") from None
            _count("failed")
            raise unknown("The mail could not be sent; please try again later.", 503) from None
        finally:
            self._slots.release()
            table.MAILS_WAITING.set(len(self._slots.waiting))

    async def _deliver(self, to: str, message: EmailMessage) -> None:
        sender = self._options.sender.addr_spec
        for seconds in PAUSES:
            try:
                await self._in_thread(self._post.deliver, sender, to, message)
            except MailProblem as problem:
                if not problem.temporary:
                    raise
                logger.info("The mail server does not take a mail just now, it is tried again: %s", problem)
            else:
                return
            await pause(self._clock, seconds)
        await self._in_thread(self._post.deliver, sender, to, message)

    def _message(self, to: str, subject: str, template_name: str, values: Mapping[str, Any]) -> EmailMessage:
        from email.headerregistry import Address
        from email.message import EmailMessage
        from email.policy import SMTP
        from email.utils import formatdate, make_msgid

        given = {
            "app_name": self._options.app_name,
            "server_name": self._server_name,
            "client_base_url": self._options.client_base_url,
            **values,
        }
        sender = self._options.sender
        local, _, domain = to.rpartition("@")
        message = EmailMessage(policy=SMTP)
        # The library refuses line breaks in headers; an address is nothing but an address, for `canonical` made it.
        message["From"] = sender
        message["To"] = Address(username=local, domain=domain)
        message["Subject"] = subject % {"server_name": self._server_name, "app": self._options.app_name}
        message["Date"] = formatdate(self._clock.seconds())
        message["Message-ID"] = make_msgid(domain=sender.domain)
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's vacation answers it
        message.set_content(self._templates.render(f"{template_name}.txt", **given))
        message.add_alternative(self._templates.render(f"{template_name}.html", **given), subtype="html")
        return message


def _count(outcome: str) -> None:
    table.MESSAGES.child("email", outcome).inc()
