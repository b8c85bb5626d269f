"""Profiles of other servers' users, asked for when somebody looks at one.

Server-server API, "Querying for information": `GET /query/profile`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson

from synapse.api.constants import EventTypes
from synapse.api.errors import MatrixError, forbidden, not_found
from synapse.api.identifiers import domain_of
from synapse.federation.errors import FederationError, Refused, matrix_error
from synapse.handlers.profile import IN_ROOMS, MAX_AVATAR_URL, MAX_DISPLAY_NAME, MAX_PROFILE_BYTES, check_key
from synapse.handlers.told_rooms import encoded
from synapse.replication.event_rows import Row, StateRow

if TYPE_CHECKING:
    from synapse.federation.api import FederationApi
    from synapse.sync.shared import SharedWork

KEEP_SECONDS: Final = 60.0


class FederatedProfiles:
    """Answers in any process.

    :param shared: keeps answers for a short time.
    """

    def __init__(self, api: FederationApi, shared: SharedWork[dict[str, Any]]) -> None:
        self._api = api
        self._shared = shared

    async def get(self, user_id: str) -> dict[str, Any]:
        """The whole profile, as far as the user's server shows it, and as far as a profile may look like that.

        Raises 404 M_NOT_FOUND, 403 M_FORBIDDEN, 502 and 504 where the server cannot be asked.
        """
        return await self._shared.do(user_id, lambda: self._ask(user_id))

    def learn(self, rows: Iterable[Row]) -> None:
        """Rows of the events stream: a name or picture may be another, as the user's rooms hear first."""
        for row in rows:
            if isinstance(row, StateRow) and row.type == EventTypes.MEMBER:
                self._shared.forget(row.state_key)

    def forget_all(self) -> None:
        """Rows of the stream may have been missed."""
        self._shared.forget_all()

    async def _ask(self, user_id: str) -> dict[str, Any]:
        try:
            return proper(await self._api.for_users.profile(domain_of(user_id), user_id))
        except FederationError as error:
            raise _explained(error) from error


def proper(said: Mapping[str, Any]) -> dict[str, Any]:
    """What of a profile can be one. Of one that is too large, name and picture."""
    profile = {field: value for field, value in said.items() if _is_proper(field, value)}
    if len(orjson.dumps(profile)) >= MAX_PROFILE_BYTES:
        return {field: value for field, value in profile.items() if field in IN_ROOMS}
    return profile


def _is_proper(field: str, value: object) -> bool:
    if field == "displayname":
        return isinstance(value, str) and 0 < len(value) <= MAX_DISPLAY_NAME
    if field == "avatar_url":
        return isinstance(value, str) and value.startswith("mxc://") and len(value) <= MAX_AVATAR_URL
    try:
        check_key(field)
    except MatrixError:
        return False
    if field == "m.tz":
        return isinstance(value, str)
    return value is not None and encoded(value) is not None


def _explained(error: FederationError) -> MatrixError:
    if isinstance(error, Refused) and error.code == 404:
        return not_found("There is no such user, or they have no profile.")
    if isinstance(error, Refused) and error.code == 403:
        return forbidden(f"{error.server} does not show this profile: {error.message}")
    return matrix_error(error)
