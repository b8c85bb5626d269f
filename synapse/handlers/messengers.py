"""The two ways to write to a phone number: a service that sends our texts, an identity server that sends its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synapse.handlers.sms import SmsService
    from synapse.handlers.threepid_delegate import ThreepidDelegate
    from synapse.handlers.validations import Validations
    from synapse.storage.threepid_sessions import ValidationSession
    from synapse.util.templates import Templates


class SmsMessenger:
    """Sends codes of ours.

    :param values: what the text's template is given besides the code.
    """

    def __init__(self, service: SmsService, templates: Templates, values: dict[str, Any]) -> None:
        self._service = service
        self._templates = templates
        self._values = values

    async def send(
        self, validations: Validations, session: ValidationSession, client_secret: str, attempt: int
    ) -> None:
        """A `Messenger`'s."""

        async def deliver(code: str) -> None:
            text = self._templates.render("sms_code.txt", code=code, **self._values)
            await self._service.send(session.address, text.strip())

        await validations.send(session, attempt, deliver)


class DelegateMessenger:
    """Has an identity server send its own codes, which it also checks."""

    def __init__(self, delegate: ThreepidDelegate) -> None:
        self._delegate = delegate

    async def send(
        self, validations: Validations, session: ValidationSession, client_secret: str, attempt: int
    ) -> None:
        """A `Messenger`'s."""
        await validations.send_elsewhere(
            session, attempt, lambda: self._delegate.request(session.address, client_secret, attempt)
        )
