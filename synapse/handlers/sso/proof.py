"""Proving to be oneself by single sign-on, in user-interactive authentication: the stage m.login.sso.

A client opens the stage's page; the user reads there what is to be confirmed, goes to a provider that has vouched for
them before, and comes back. Client-server API, "SSO during User-Interactive Authentication".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.constants import LoginTypes
from synapse.api.errors import MatrixError, unknown
from synapse.handlers.sso.types import SsoRefused

if TYPE_CHECKING:
    from synapse.handlers.sso.users import SsoUsers
    from synapse.handlers.ui_auth import UiAuth
    from synapse.handlers.ui_stages.types import Attempt
    from synapse.storage.ui_auth import UiAuthSession


class SsoStage:
    """Client-server API, "Single Sign-On". What it proves comes from the callback, by `UiAuth.complete`.

    :param providers: the ids of those that there are.
    """

    kind: str = LoginTypes.SSO

    def __init__(self, users: SsoUsers, providers: frozenset[str]) -> None:
        self._users = users
        self._providers = providers

    def params(self) -> dict[str, Any] | None:
        return None

    async def check(self, auth: dict[str, Any], attempt: Attempt) -> Any:
        """Never by a request: raises 400."""
        raise unknown("Single sign-on is completed on the stage's page; send only the session then.")

    async def is_open_to(self, user_id: str | None) -> bool:
        """Of nobody: there is no one yet whom a provider could confirm to be the same."""
        if user_id is None or not self._providers:
            return False
        return any(one in self._providers for one in await self._users.providers_of(user_id))


class Proof:
    """What the pages and callbacks of the stage need of interactive authentication."""

    def __init__(self, ui_auth: UiAuth) -> None:
        self._ui_auth = ui_auth

    async def session(self, session_id: str) -> UiAuthSession:
        """The session that somebody is to prove something for. Raises `SsoRefused`."""
        try:
            session = await self._ui_auth.session(session_id)
        except MatrixError as gone:
            raise SsoRefused(gone.message, title="Confirming has failed") from None
        if session.user_id is None:
            raise SsoRefused("Nobody can be confirmed here who is not logged in.", title="Confirming has failed")
        return session

    async def check_address(self, session_id: str, address: str) -> None:
        """For a browser that was not sent by us: it must at least be where the session was begun. Raises `SsoRefused`.

        Or else whoever has stolen an access token might send the user a link, to confirm unknowingly what the thief
        has asked for.
        """
        session = await self.session(session_id)
        if session.server_dict.get("client_ip") != address:
            raise SsoRefused(
                "Nothing was confirmed. Please use the page that your client opens, and begin again there.",
                title="Confirming has failed",
                code=403,
            )

    async def complete(self, session_id: str, user_id: str | None) -> str:
        """A provider has vouched for the user. Raises `SsoRefused` where that is not the session's.

        The session knows of it all the same: it has failed, and whoever has it is told so.
        """
        session = await self.session(session_id)
        assert session.user_id is not None, "checked there"
        if LoginTypes.SSO not in session.completed:
            await self._ui_auth.complete(session_id, LoginTypes.SSO, user_id or "")
        if user_id is None or user_id != session.user_id:
            title, template = "That is another account", "sso_auth_bad_user.html"
            raise SsoRefused(session.user_id, title=title, code=200, template=template)
        return user_id
