"""Text messages to phone numbers, through a service of the administrator's: `POST {to, text}` to `sms.url`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import orjson

from synapse.api.errors import invalid_param, unknown
from synapse.http.client import ClientError
from synapse.metrics import table

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse.http.outside import OutsideClient

logger = logging.getLogger(__name__)

WITHIN: Final = 20.0  # seconds
MAX_ANSWER: Final = 64 * 1024  # bytes
_REFUSES_NUMBER: Final = (400, 422)


class SmsService:
    """The service at `sms.url`.

    :param client: makes the client for its requests, when one is needed.
    :param secret: goes along with each, so that nobody else can have messages sent.
    """

    def __init__(self, client: Callable[[], OutsideClient], url: str, secret: str) -> None:
        self._client = client
        self._url = url
        self._secret = secret

    async def send(self, number: str, text: str) -> None:
        """Has a message sent to a number (canonical).

        Raises 400 M_INVALID_PARAM where the service refuses the number, 503 M_UNKNOWN where it cannot send.
        """
        body = orjson.dumps({"to": f"+{number}", "text": text})
        headers = (("Authorization", f"Bearer {self._secret}"), ("Content-Type", "application/json"))
        try:
            answer = await self._client().request(
                "POST", self._url, body, headers, within=WITHIN, max_answer=MAX_ANSWER
            )
        except ClientError as error:
            logger.warning("A text message was not sent, the service at sms.url failed: %s", error)
            _count("failed")
            raise _unsent() from None
        if answer.code in _REFUSES_NUMBER:
            _count("refused")
            raise invalid_param("Text messages cannot be sent to this number; there may be a mistake in it.")
        if not 200 <= answer.code < 300:
            logger.warning("A text message was not sent, the service at sms.url answered %d", answer.code)
            _count("failed")
            raise _unsent()
        _count("sent")


def _count(outcome: str) -> None:
    table.MESSAGES.child("msisdn", outcome).inc()


def _unsent() -> Exception:
    return unknown("The text message could not be sent; please try again later.", 503)
