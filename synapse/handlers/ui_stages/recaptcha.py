"""`m.login.recaptcha`: a riddle that programs find hard, of a service that tells whether it was solved."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from synapse.api.constants import LoginTypes
from synapse.api.errors import Codes, MatrixError, bad_json
from synapse.http.client import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse.handlers.ui_stages.types import Attempt
    from synapse.http.outside import OutsideClient
    from synapse.http.ratelimit import RateLimits

logger = logging.getLogger(__name__)

LIMIT: Final = "rc_registration"
MAX_RESPONSE: Final = 16_384  # characters; the service's are a few thousand
_WITHIN: Final = 10.0  # seconds
_MAX_ANSWER: Final = 65_536  # bytes


class RecaptchaStage:
    """Client-server API, "Google ReCaptcha".

    :param limits: hold off who has the service asked about nonsense.
    :param client: makes what asks the service, when it is first needed.
    :param api: the URL that the service is asked under.
    """

    kind: str = LoginTypes.RECAPTCHA

    def __init__(
        self,
        client: Callable[[], OutsideClient],
        limits: RateLimits,
        public_key: str,
        private_key: str,
        api: str,
    ) -> None:
        self._client = client
        self._limits = limits
        self._public_key = public_key
        self._private_key = private_key
        self._api = api

    def params(self) -> dict[str, Any] | None:
        return {"public_key": self._public_key}

    async def check(self, auth: dict[str, Any], attempt: Attempt) -> Any:
        response = auth.get("response")
        if response is None or response == "":
            raise MatrixError(401, Codes.CAPTCHA_NEEDED, "The captcha's response is needed (`response`).")
        if not isinstance(response, str) or len(response) > MAX_RESPONSE:
            raise bad_json("The captcha's response must be a string, as the captcha gives it.")
        self._limits.require(LIMIT, attempt.client_ip)
        if not await self._is_solved(response, attempt.client_ip):
            self._limits.count(LIMIT, attempt.client_ip)
            raise MatrixError(401, Codes.CAPTCHA_INVALID, "The captcha was not solved; please try again.")
        return True

    async def _is_solved(self, response: str, client_ip: str) -> bool:
        """Raises 503 where the service cannot be asked, which is nobody's mistake."""
        fields = {"secret": self._private_key, "response": response, "remoteip": client_ip}
        headers = (("Content-Type", "application/x-www-form-urlencoded"),)
        body = urlencode(fields, errors="replace").encode()
        try:
            answer = await self._client().request(
                "POST", self._api, body, headers, within=_WITHIN, max_answer=_MAX_ANSWER
            )
        except ClientError as error:
            logger.warning("The captcha's service could not be asked: %s", error)
            raise MatrixError(503, Codes.UNKNOWN, "Captchas cannot be checked just now; try again later.") from None
        found = answer.json_object()
        if answer.code != 200 or not isinstance(found.get("success"), bool):
            logger.warning("The captcha's service answered %s, and not whether a captcha is solved", answer.code)
        return answer.code == 200 and found.get("success") is True
