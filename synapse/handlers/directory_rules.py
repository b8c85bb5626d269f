"""Who may make which aliases, and list which rooms, as the configuration says.

Rules are lists; the first that matches decides, and what none matches is allowed. The options
`alias_creation_rules` and `room_list_publication_rules`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple, Protocol

from synapse.api.app_services import NO_APP_SERVICES, AppServices
from synapse.api.errors import forbidden
from synapse.push.globs import Matcher, whole


class Rule(Protocol):
    """A rule as it is configured: patterns, and whether it allows or denies."""

    @property
    def user_id(self) -> str: ...
    @property
    def alias(self) -> str: ...
    @property
    def room_id(self) -> str: ...
    @property
    def action(self) -> str: ...


class _Compiled(NamedTuple):
    user_id: Matcher
    alias: Matcher | None  # None: any, also where there is no alias
    room_id: Matcher
    allows: bool

    def matches(self, user_id: str, room_id: str, aliases: Iterable[str]) -> bool:
        return self.user_id(user_id) and self.room_id(room_id) and (self.alias is None or any(map(self.alias, aliases)))


class DirectoryRules:
    """Decides by the rules. Administrators of the server are not asked about."""

    def __init__(
        self,
        alias_creation: Iterable[Rule] = (),
        publication: Iterable[Rule] = (),
        app_services: AppServices = NO_APP_SERVICES,
    ) -> None:
        self._app_services = app_services
        self._alias_creation = [_compiled(rule) for rule in alias_creation]
        self._publication = [_compiled(rule) for rule in publication]

    @property
    def ask_for_aliases(self) -> bool:
        """Whether the aliases of a room have a say in who may list it."""
        return any(rule.alias is not None for rule in self._publication)

    def check_alias(self, user_id: str, room_id: str, alias: str) -> None:
        """Raises 403 M_FORBIDDEN where the user may not let this alias lead to this room."""
        if not _allows(self._alias_creation, user_id, room_id, [alias]):
            raise forbidden("The rules of this server do not let you make this alias.")

    def check_namespace(self, alias: str, app_service: str | None) -> None:
        """Raises 400 M_EXCLUSIVE for an alias that an application service keeps for itself, or (`app_service`: the one
        that asks) that is not of the asking service's namespaces.
        """
        self._app_services.check_alias(alias, app_service)

    def check_publication(self, user_id: str, room_id: str, aliases: Collection[str]) -> None:
        """Raises 403 M_FORBIDDEN where the user may not list this room, which has these aliases."""
        if not _allows(self._publication, user_id, room_id, aliases):
            raise forbidden("The rules of this server do not let you list this room.")


def _compiled(rule: Rule) -> _Compiled:
    alias = None if rule.alias == "*" else whole(rule.alias)
    return _Compiled(whole(rule.user_id), alias, whole(rule.room_id), rule.action == "allow")


def _allows(rules: Iterable[_Compiled], user_id: str, room_id: str, aliases: Collection[str]) -> bool:
    return next((rule.allows for rule in rules if rule.matches(user_id, room_id, aliases)), True)


NO_RULES: Final = DirectoryRules()
"""Everything is allowed."""
