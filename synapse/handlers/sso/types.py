"""What an identity provider is to the rest of the server, whom it vouches for, and what can go wrong on the way.

Client-server API, "SSO client login/authentication".
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import msgspec


class ToLogIn(msgspec.Struct, frozen=True, tag="log_in"):
    """Somebody wants to log in to a client, which is waiting at `redirect_url`.

    :param registers: whether they have no account yet, as far as the client knows.
    """

    redirect_url: str
    registers: bool = False


class ToProve(msgspec.Struct, frozen=True, tag="prove"):
    """A user who is logged in proves to be themselves, for a session of user-interactive authentication."""

    ui_auth_session: str


Purpose = ToLogIn | ToProve


class RemoteIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a provider vouches for, and what it says of them.

    `subject` is for ever the same person at this provider, unlike all the rest. `provider` is the provider's `id`.
    """

    provider: str
    subject: str
    localpart: str | None = None  # what the user's name is to be; None: the user chooses one
    confirm_localpart: bool = False  # whether the user may change it
    grandfathered_localpart: str | None = None  # of the account that is theirs, if there is one of that name
    display_name: str | None = None
    emails: tuple[str, ...] = ()
    picture: str | None = None  # its URL
    provider_session: str | None = None  # what the provider calls the session there


class Departure(NamedTuple):
    """Where a browser is sent, and what has to be known when it comes back (JSON).

    `state` is by what the session is known instead, for a provider that has no way of handing ours back. `lifetime_ms`:
    for how long the browser may be away, where that is the provider's to say.
    """

    location: str
    remembered: dict[str, Any]
    state: str | None = None
    lifetime_ms: int | None = None


class IdentityProvider(Protocol):
    """Somewhere that people prove who they are.

    How the browser comes back is the provider's own: its endpoint takes the session that `state` names
    (`SsoSessions.take_away`), makes a `RemoteIdentity` of what the provider says, and hands both to `SignOn.arrive`.
    """

    @property
    def id(self) -> str:
        """By which clients and the database know it. It never changes."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def icon(self) -> str | None:
        """An mxc URI."""

    @property
    def brand(self) -> str | None:
        """By which clients know how its button looks."""

    @property
    def allow_existing_users(self) -> bool:
        """Whether somebody whose localpart an account has already is the owner of that account."""

    @property
    def enable_registration(self) -> bool:
        """Whether those get an account who have none."""

    @property
    def posts_back(self) -> bool:
        """Whether browsers come back from it by a POST, which some cookies do not survive."""

    async def begin(self, state: str, purpose: Purpose) -> Departure:
        """Where to send the browser; `state` names the session. Raises `SsoRefused` if the provider is not there."""


class SsoRefused(Exception):
    """A log-in that comes to nothing, as people read it on a page.

    :param title: what it is, in few words; `text` says more and, where that helps, what to do.
    :param template: the page.
    """

    def __init__(
        self, text: str, *, title: str = "Logging in has failed", code: int = 400, template: str = "sso_error.html"
    ) -> None:
        super().__init__(text)
        self.text = text
        self.title = title
        self.code = code
        self.template = template


def account_deactivated() -> SsoRefused:
    return SsoRefused(
        "This account has been deactivated; nobody can log in to it any more.",
        title="Account deactivated",
        code=403,
        template="sso_account_deactivated.html",
    )


def session_gone() -> SsoRefused:
    return SsoRefused(
        "This log-in is not known: it was begun in another browser, has been completed already, or has taken too long. "
        "Please go back to your client and begin again. (Cookies have to be allowed for it.)",
        title="Please begin again",
    )
