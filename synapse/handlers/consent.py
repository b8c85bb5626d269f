"""A policy that users are to agree to: who has, the page where they do, and what they may not do before.

Each user's page has an address that proves who they are: a MAC over the user id by `form_secret`. It is sent to them by
a server notice, and with every refusal. What they agreed to is part of their `Standing`, so that asking costs nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from synapse.api.errors import Codes, MatrixError, forbidden, not_found
from synapse.config.conduct import POLICY_VERSION
from synapse.handlers.account_rules import ENTERING, MAKING_EVENTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from synapse.config.conduct import UserConsent
    from synapse.handlers.account_rules import Applicant
    from synapse.handlers.auth import Authenticator
    from synapse.http.request import Requester
    from synapse.storage.standing import StandingStore
    from synapse.storage.users import User, UserStore
    from synapse.util.clock import Clock

PATH: Final = "/_matrix/consent"
ENGLISH: Final = "en"
LOOK_SECONDS: Final = 60.0
"""How long a new translation may take to be found."""
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})?", re.ASCII)
_ADDRESS: Final = "%(consent_uri)s"


class Consent:
    """The policy, and who agreed to it. Works in any process.

    :param base_url: where clients reach this server, without a slash at its end.
    """

    def __init__(
        self,
        options: UserConsent,
        secret: str,
        store: StandingStore,
        users: UserStore,
        authenticator: Callable[[], Authenticator],
        clock: Clock,
        server_name: str,
        base_url: str,
    ) -> None:
        self._options = options
        self._secret = secret.encode()
        self._store = store
        self._users = users
        self._authenticator = authenticator
        self._clock = clock
        self._server_name = server_name
        self._base_url = base_url
        self._languages: dict[str, list[str]] = {}
        self._next_look = 0.0

    @property
    def version(self) -> str:
        """The version of the policy that is to be agreed to."""
        return self._options.version

    @property
    def is_asked_at_registration(self) -> bool:
        """Whether the stage m.login.terms belongs to every registration; its success is then given to `record`."""
        return self._options.require_at_registration

    async def record(self, user_id: str, version: str | None = None) -> None:
        """Notes that the user has agreed, by default to the present version; holds in every process at once.

        Raises 404 M_NOT_FOUND where there is no such user.
        """
        now = int(self._clock.seconds() * 1000)
        tokens = await self._store.consent(user_id, version or self.version, now)
        if tokens is None:
            raise not_found("This server has no such user.")
        await self._authenticator().forget(tokens)

    # -- addresses -------------------------------------------------------------------------------------------------

    def uri(self, user_id: str) -> str:
        """The address of the user's own page."""
        localpart = user_id[1:].partition(":")[0]
        return f"{self._base_url}{PATH}?{urlencode({'u': localpart, 'h': self.mac(user_id)})}"

    def mac(self, user_id: str) -> str:
        """What proves in an address that it is the user's."""
        return hmac.new(self._secret, user_id.encode(), hashlib.sha256).hexdigest()

    async def proven(self, user: str, mac: str) -> User:
        """The user, named by id or localpart, whose page it is. Raises 403 M_FORBIDDEN, 404 M_NOT_FOUND."""
        user_id = user if user.startswith("@") else f"@{user}:{self._server_name}"
        if not hmac.compare_digest(self.mac(user_id).encode(), mac.encode("utf-8", "replace")):
            raise forbidden("This address is not complete, or it was made for somebody else.")
        found = None if "\x00" in user_id else await self._users.get(user_id)
        if found is None or found.deactivated:
            raise not_found("This server has no such user.")
        return found

    def filled(self, text: str, user_id: str) -> str:
        """A text of the configuration, with the address of the user's page."""
        return text.replace(_ADDRESS, self.uri(user_id))

    # -- the policy ------------------------------------------------------------------------------------------------

    def policies(self) -> dict[str, Any]:
        """The policy as the stage m.login.terms describes it: client-server API, "Terms of service at registration"."""
        policy: dict[str, Any] = {"version": self.version}
        for language in self.languages(self.version):
            query = urlencode({"v": self.version, "lang": language})
            policy[language] = {"name": self._options.policy_name, "url": f"{self._base_url}{PATH}?{query}"}
        return {"policies": {"privacy_policy": policy}}

    def languages(self, version: str) -> list[str]:
        """Those that there is the version in, as of a minute ago at most: anybody may ask, and it is on disk."""
        now = self._clock.seconds()
        if now >= self._next_look:
            self._languages, self._next_look = _languages_in(self._options.template_dir), now + LOOK_SECONDS
        return self._languages.get(version, [])

    def template(self, version: str, wanted: list[str]) -> str:
        """The template in the first of the wanted languages that there is, else in English. Raises 404 M_NOT_FOUND."""
        languages = self.languages(version)
        for language in (*wanted, ENGLISH):
            for known in (language, language.partition("-")[0]):
                if known in languages:
                    return f"{known}/{version}.html"
        raise not_found("There is no such version of the policy.")


class ConsentRule:
    """Refuses to make events for those who have not agreed; see `account_rules`.

    :param error: with which sentence.
    :param notices_room: the room in which the server tells a user something, which they may join.
    """

    def __init__(self, consent: Consent, error: str, notices_room: Callable[[str], Awaitable[str | None]]) -> None:
        self._consent = consent
        self._error = error
        self._notices_room = notices_room

    async def check(self, requester: Requester, operation: str, params: Mapping[str, str]) -> None:
        """Raises 403 M_CONSENT_NOT_GIVEN with `consent_uri`."""
        standing = requester.standing
        if operation not in MAKING_EVENTS or standing.consent_version == self._consent.version:
            return
        if requester.app_service is not None or standing.user_type is not None:
            return  # no people, or those who support them
        if operation in ENTERING:
            room = params.get("room_id", params.get("room_id_or_alias"))
            if room == await self._notices_room(requester.user_id):
                return
        sentence = self._consent.filled(self._error, requester.user_id)
        raise MatrixError(403, Codes.CONSENT_NOT_GIVEN, sentence, consent_uri=self._consent.uri(requester.user_id))

    async def check_login(self, user: User) -> None:
        """Everybody may log in, and read."""

    async def check_registration(self, applicant: Applicant) -> None:
        """That is the stage m.login.terms."""


def _languages_in(directory: str) -> dict[str, list[str]]:
    """The languages of each version that there is."""
    found: dict[str, list[str]] = {}
    for path in sorted(Path(directory).glob("*/*.html")):
        if _LANGUAGE.fullmatch(path.parent.name) and POLICY_VERSION.fullmatch(path.stem):
            found.setdefault(path.stem, []).append(path.parent.name)
    return found
