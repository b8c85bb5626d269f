"""The identity server that writes to phone numbers in our place (`account_threepid_delegates.msisdn`): it sends codes,
and says whether they are right.

Identity service API, "Phone number associations" and `GET /3pid/getValidated3pid`. The server is the administrator's
choice; what it answers is checked all the same.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import orjson

from synapse.api.errors import Codes, MatrixError, invalid_param, unknown
from synapse.http.client import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse.http.client import ClientAnswer
    from synapse.http.outside import OutsideClient

logger = logging.getLogger(__name__)

API: Final = "/_matrix/identity/v2"
WITHIN: Final = 20.0  # seconds
MAX_ANSWER: Final = 64 * 1024  # bytes
_SID: Final = re.compile(r"[0-9a-zA-Z.=_-]{1,255}", re.ASCII)
_OF_THE_NUMBER: Final = frozenset({"M_INVALID_PARAM", "M_INVALID_PHONE_NUMBER", "M_INVALID_ADDRESS"})
_OF_THE_CODE: Final = frozenset({Codes.TOKEN_INCORRECT, Codes.INVALID_PARAM})


class ThreepidDelegate:
    """Asks the identity server.

    :param client: makes the client for its requests, when one is needed.
    :param token: an access token of it, where it wants one.
    """

    def __init__(self, client: Callable[[], OutsideClient], url: str, token: str | None) -> None:
        self._client = client
        self._url = url.rstrip("/") + API
        self._token = token

    async def request(self, number: str, client_secret: str, attempt: int) -> str:
        """Has a code sent to the number (canonical); the id of the session there.

        Raises 400 M_INVALID_PARAM where the server refuses the number, 503 M_UNKNOWN where it cannot send.
        """
        body = {
            "client_secret": client_secret,
            "country": _country_of(number),
            "phone_number": f"+{number}",
            "send_attempt": attempt,
        }
        answer = await self._ask("POST", "/validate/msisdn/requestToken", body)
        found = answer.json_object()
        sid = found.get("sid")
        if answer.code == 200 and isinstance(sid, str) and _SID.fullmatch(sid):
            return sid
        if answer.code == 400 and found.get("errcode") in _OF_THE_NUMBER:
            raise invalid_param("Text messages cannot be sent to this number; there may be a mistake in it.")
        logger.warning("The identity server for phone numbers sends no text messages: it answered %d", answer.code)
        raise unknown("The text message could not be sent; please try again later.", 503)

    async def submit(self, remote_sid: str, client_secret: str, token: str) -> bool:
        """Whether the code is right. Raises 400 M_SESSION_EXPIRED, 503 M_UNKNOWN."""
        body = {"sid": remote_sid, "client_secret": client_secret, "token": token}
        answer = await self._ask("POST", "/validate/msisdn/submitToken", body)
        found = answer.json_object()
        if answer.code == 200:
            return found.get("success") is True
        if found.get("errcode") == Codes.SESSION_EXPIRED:
            raise MatrixError(400, Codes.SESSION_EXPIRED, "The code has expired; ask for another one.")
        if found.get("errcode") in _OF_THE_CODE:
            return False
        logger.warning("The identity server for phone numbers checks no codes: it answered %d", answer.code)
        raise unknown("The code could not be checked; please try again later.", 503)

    async def validated(self, remote_sid: str, client_secret: str) -> bool:
        """Whether the number was validated. Raises 503 M_UNKNOWN where the server is away."""
        query = urlencode({"sid": remote_sid, "client_secret": client_secret})
        answer = await self._ask("GET", f"/3pid/getValidated3pid?{query}")
        return answer.code == 200 and isinstance(answer.json_object().get("validated_at"), int)

    async def _ask(self, method: str, path: str, body: Any = None) -> ClientAnswer:
        headers = [("Content-Type", "application/json")]
        if self._token is not None:
            headers.append(("Authorization", f"Bearer {self._token}"))
        sent = None if body is None else orjson.dumps(body)
        try:
            return await self._client().request(
                method, self._url + path, sent, tuple(headers), within=WITHIN, max_answer=MAX_ANSWER
            )
        except ClientError as error:
            logger.warning("The identity server for phone numbers cannot be asked: %s", error)
            raise unknown("Phone numbers cannot be checked just now; please try again later.", 503) from None


def _country_of(number: str) -> str:
    """Any country whose code the number begins with: the number is written in full."""
    import phonenumbers

    code = phonenumbers.parse(f"+{number}").country_code
    return str(phonenumbers.region_code_for_country_code(code or 0))
