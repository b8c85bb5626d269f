"""The way from a client to an identity provider and back: what is to be done next, at each step.

    departure = await sign_on.depart(provider_id, purpose, browser)   # the browser goes to the provider …
    away = await sessions.take_away(provider_id, state, browser)      # … and comes back to the provider's endpoint,
    step = await sign_on.arrive(identity, away.purpose, browser)      # which says who it is

`browser` is the secret in the browser's cookie. A step is where to go on: `LoggedIn`, `NewUser` or `Proven`. Pages and
cookies are the endpoints' matter (`synapse.rest.client.sso`); what ends badly is raised as `SsoRefused`.

Client-server API, "SSO client login/authentication".
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from synapse.api.errors import MatrixError
from synapse.handlers.sso.redirects import is_trusted, with_login_token
from synapse.handlers.sso.sessions import Away, Joining, new_secret
from synapse.handlers.sso.types import SsoRefused, ToLogIn

if TYPE_CHECKING:
    from synapse.handlers.consent import Consent
    from synapse.handlers.login_tokens import LoginTokens
    from synapse.handlers.sso.details import Details
    from synapse.handlers.sso.proof import Proof
    from synapse.handlers.sso.sessions import SsoSessions
    from synapse.handlers.sso.types import IdentityProvider, Purpose, RemoteIdentity
    from synapse.handlers.sso.users import SsoUsers

logger = logging.getLogger(__name__)


class LoggedIn(NamedTuple):
    """The user has proven who they are. `url` leads back to the client, with a login token.

    :param trusted: whether the browser may go there without asking the user.
    """

    user_id: str
    url: str
    redirect_url: str
    new_user: bool
    trusted: bool


class NewUser(NamedTuple):
    """Somebody without an account, who is to choose a name for it: the id of a session that holds `Joining`.

    :param named: the name is chosen, and it is the terms of the server that the user is to agree to.
    """

    session_id: str
    named: bool = False


class Proven(NamedTuple):
    """A user has proven to be themselves, as interactive authentication wanted it."""

    user_id: str


Step = LoggedIn | NewUser | Proven


class SignOn:
    """Leads people through.

    :param providers: in the order in which they are offered.
    :param trusted: URLs that may be gone back to without asking (`sso.client_whitelist`, and our own).
    :param terms: what new users have to agree to; None for nothing.
    :param update_profiles: whether names and pictures follow the provider's at each log-in.
    """

    def __init__(
        self,
        providers: Iterable[IdentityProvider],
        sessions: SsoSessions,
        users: SsoUsers,
        details: Details,
        proof: Proof,
        login_tokens: LoginTokens,
        *,
        trusted: tuple[str, ...],
        terms: Consent | None,
        update_profiles: bool,
    ) -> None:
        self.providers = {provider.id: provider for provider in providers}
        self._sessions = sessions
        self._users = users
        self._details = details
        self._proof = proof
        self._login_tokens = login_tokens
        self._trusted = trusted
        self.terms = terms
        self._update_profiles = update_profiles

    def provider(self, provider_id: str) -> IdentityProvider:
        """Raises `SsoRefused` (404) for one that there is not."""
        found = self.providers.get(provider_id)
        if found is None:
            raise SsoRefused(
                "This server has no such identity provider. Please go back to your client and choose another.",
                title="Unknown identity provider",
                code=404,
            )
        return found

    async def depart(self, provider_id: str, purpose: Purpose, browser: str) -> str:
        """Where to send the browser for it to prove who uses it. Raises `SsoRefused`."""
        provider = self.provider(provider_id)
        state = new_secret()
        departure = await provider.begin(state, purpose)
        away = Away(provider_id, purpose, departure.remembered)
        await self._sessions.put(away, browser, departure.state or state, departure.lifetime_ms)
        return departure.location

    async def arrive(self, identity: RemoteIdentity, purpose: Purpose, browser: str, *, asked: bool = True) -> Step:
        """The next step, for whom a provider has vouched for. Raises `SsoRefused`.

        :param asked: False for a browser of which nothing shows that it was this one that was sent to the provider.
        """
        provider = self.provider(identity.provider)
        if not isinstance(purpose, ToLogIn):
            owner = await self._users.owner(identity)  # nobody becomes one by confirming something
            return Proven(await self._proof.complete(purpose.ui_auth_session, owner))
        user_id = await self._users.find(identity, provider)
        if user_id is not None:
            if self._update_profiles:
                await self._details.update(user_id, identity.display_name, identity.picture)
            return await self._logged_in(user_id, identity, purpose.redirect_url, asked=asked)
        if not provider.enable_registration:
            raise SsoRefused(
                "You have no account on this server, and it gives none to those who come by this way. Please ask its "
                "administrator for one.",
                title="No account",
                code=403,
            )
        return await self._join(identity, purpose.redirect_url, browser, asked=asked)

    async def _join(self, identity: RemoteIdentity, redirect_url: str, browser: str, *, asked: bool) -> Step:
        joining = Joining(identity=identity, redirect_url=redirect_url)
        if identity.localpart is None or identity.confirm_localpart:
            return NewUser(await self._sessions.put(joining, browser))
        while True:  # somebody of the same name may have been quicker
            chosen = Joining(
                identity=identity,
                redirect_url=redirect_url,
                localpart=await self._users.free_name(identity.localpart),
                display_name=identity.display_name,
                picture=identity.picture,
                emails=identity.emails,
            )
            if self.terms is not None:
                return NewUser(await self._sessions.put(chosen, browser), named=True)
            done = await self._register(chosen, asked=asked)
            if done is not None:
                return done

    # -- what a new user chooses -------------------------------------------------------------------------------------

    async def name_problem(self, name: str) -> str | None:
        """Why a user name cannot be had, as a sentence; None if it can."""
        problem = await self._users.problem_with(name)
        return None if problem is None else problem.message

    async def joining(self, session_id: str | None, browser: str | None) -> Joining:
        """Raises `SsoRefused`."""
        return await self._sessions.look(Joining, session_id, browser)

    async def finish_joining(self, chosen: Joining, session_id: str, browser: str | None) -> Step:
        """Makes the account that was asked for, once; asks for what is still missing. Raises `SsoRefused`."""
        joining = await self._sessions.take(Joining, session_id, browser)
        assert browser is not None, "or there was no session"
        if self.terms is not None and chosen.agreed != self.terms.version:
            return NewUser(await self._sessions.put(chosen, browser, session_id), named=True)
        done = await self._register(chosen, asked=True)
        if done is None:
            await self._sessions.put(joining, browser, session_id)
            raise SsoRefused(f"The user name '{chosen.localpart}' is taken; please go back and choose another.")
        return done

    async def _register(self, chosen: Joining, *, asked: bool) -> LoggedIn | None:
        """None if the name is taken."""
        assert chosen.localpart is not None, "chosen before"
        identity = chosen.identity
        user_id = await self._users.create(identity, chosen.localpart, chosen.display_name)
        if user_id is None:
            return None
        logger.info("%s was made for somebody who came by %s", user_id, identity.provider)
        if self.terms is not None and chosen.agreed is not None:
            await self.terms.record(user_id, chosen.agreed)
        await self._details.add(user_id, chosen.picture, chosen.emails)
        return await self._logged_in(user_id, identity, chosen.redirect_url, asked=asked, new_user=True)

    async def _logged_in(
        self, user_id: str, identity: RemoteIdentity, redirect_url: str, *, asked: bool, new_user: bool = False
    ) -> LoggedIn:
        token = await self._login_tokens.issue(
            user_id, auth_provider=identity.provider, provider_session=identity.provider_session
        )
        trusted = asked and is_trusted(redirect_url, self._trusted)
        return LoggedIn(user_id, with_login_token(redirect_url, token), redirect_url, new_user, trusted)


def in_words(error: MatrixError) -> SsoRefused:
    """An error of the API, as people read it."""
    return SsoRefused(error.message, code=error.code)
