"""`m.login.email.identity` and `m.login.msisdn`: having an address, proven by what was sent there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.constants import THREEPID_STAGES
from synapse.api.errors import Codes, MatrixError, bad_json, missing_param

if TYPE_CHECKING:
    from synapse.handlers.ui_stages.types import Attempt
    from synapse.handlers.validations import Validations
    from synapse.storage.threepids import ThreepidStore


class ThreepidStage:
    """Client-server API, "Email-based (identity / homeserver)", "Phone number/MSISDN-based (identity / homeserver)".

    :param medium: `email` or `msisdn`.
    :param purposes: what validations must have been begun for, by the endpoint that the proof is for.
    """

    def __init__(self, medium: str, validations: Validations, store: ThreepidStore, purposes: dict[str, str]) -> None:
        self.kind: str = THREEPID_STAGES[medium]
        self._medium = medium
        self._validations = validations
        self._purposes = purposes
        self._store = store

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
        owner = await self._store.owner(proven.medium, proven.address)
        if endpoint == "register" and owner is not None:
            raise MatrixError(400, Codes.THREEPID_IN_USE, "Somebody has an account here with this address already.")
        if attempt.operation.user_id is None and endpoint != "register" and owner is None:
            raise MatrixError(400, Codes.THREEPID_NOT_FOUND, "Nobody has an account here with this address.")
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
