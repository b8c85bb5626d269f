"""`m.login.email.identity` and `m.login.msisdn`: having an address, proven by what was sent there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.constants import LoginTypes
from synapse.api.errors import Codes, MatrixError, bad_json, missing_param
from synapse.api.threepids import EMAIL, MSISDN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse.handlers.ui_stages.types import Attempt
    from synapse.handlers.validations import Validations

_KINDS = {EMAIL: LoginTypes.EMAIL_IDENTITY, MSISDN: LoginTypes.MSISDN}


class ThreepidStage:
    """Client-server API, "Email-based (identity / homeserver)", "Phone number/MSISDN-based (identity / homeserver)".

    :param medium: `email` or `msisdn`.
    :param purposes: what validations must have been begun for, by the endpoint that the proof is for.
    :param check_use: raises 400 or 403 where an address does not do for an endpoint: it is taken, say.
    """

    def __init__(
        self,
        medium: str,
        validations: Validations,
        purposes: dict[str, str],
        check_use: Callable[[str, str, str], Awaitable[None]],
    ) -> None:
        self.kind: str = _KINDS[medium]
        self._medium = medium
        self._validations = validations
        self._purposes = purposes
        self._check_use = check_use

    def params(self) -> dict[str, Any] | None:
        return None

    async def check(self, auth: dict[str, Any], attempt: Attempt) -> Any:
        """`{"medium", "address", "validated_ts", "sid"}`."""
        sid, secret = _credentials(auth)
        endpoint = attempt.operation.endpoint
        proven = await self._validations.validated(sid, secret, self._purposes.get(endpoint))
        if proven is None or proven.medium != self._medium:
            sentence = "The address has not been validated: follow what the message says, then try again."
            raise MatrixError(401, Codes.UNAUTHORIZED, sentence)
        await self._check_use(endpoint, proven.medium, proven.address)
        return {**proven._asdict(), "sid": sid}


def _credentials(auth: dict[str, Any]) -> tuple[str, str]:
    # Some clients still call it as older versions of the specification did.
    credentials = auth.get("threepid_creds", auth.get("threepidCreds"))
    if not isinstance(credentials, dict):
        raise missing_param("auth.threepid_creds") if credentials is None else bad_json("Credentials are an object.")
    sid, secret = credentials.get("sid"), credentials.get("client_secret")
    if not isinstance(sid, str) or not isinstance(secret, str):
        raise missing_param(f"auth.threepid_creds.{'sid' if not isinstance(sid, str) else 'client_secret'}")
    return sid, secret
