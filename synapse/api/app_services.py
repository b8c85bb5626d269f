"""Application services as their registrations describe them: whose they are, and which names belong to them.

Pure: a mapping in, as YAML gave it, values out. Reading the files is the configuration's matter, what a service may do
is decided by the handlers. Application-service API, "Registration".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from synapse.api.errors import MatrixError, exclusive
from synapse.api.identifiers import domain_of, is_valid_localpart

_KINDS: Final = ("users", "aliases", "rooms")


class BadRegistration(ValueError):
    """A registration that cannot be meant; the text names what is wrong, and follows on the file's name."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """Names that a service is interested in; nobody else may make them where it is `exclusive`."""

    exclusive: bool
    regex: re.Pattern[str]

    def has(self, name: str) -> bool:
        """An expression counts from the beginning of a name, and need not reach its end."""
        return self.regex.match(name) is not None


@dataclass(frozen=True, slots=True)
class AppService:
    """One registration. Tokens are not shown where it is printed."""

    id: str
    url: str | None  # without a slash at its end; None where the service wants to be told of nothing
    as_token: str = field(repr=False)
    hs_token: str = field(repr=False)
    sender: str  # the user id that `sender_localpart` means
    users: tuple[Namespace, ...] = ()
    aliases: tuple[Namespace, ...] = ()
    rooms: tuple[Namespace, ...] = ()
    rate_limited: bool = True
    protocols: tuple[str, ...] = ()
    receive_ephemeral: bool = False

    def has_user(self, user_id: str) -> bool:
        """Whether the service may act for this user."""
        is_local = domain_of(user_id) == domain_of(self.sender)
        return user_id == self.sender or (is_local and any(names.has(user_id) for names in self.users))

    def has_alias(self, alias: str) -> bool:
        """Whether the service may make this alias."""
        return any(names.has(alias) for names in self.aliases)

    def limits(self, user_id: str) -> bool:
        """Whether rate limits hold for what the service does as this user."""
        return self.rate_limited and user_id != self.sender


class AppServices:
    """All services of a server."""

    def __init__(self, services: Iterable[AppService] = ()) -> None:
        self._services = tuple(services)
        self._by_id = {service.id: service for service in self._services}
        self._by_token = {hashlib.sha256(service.as_token.encode()).digest(): service for service in self._services}

    def __iter__(self) -> Iterator[AppService]:
        return iter(self._services)

    def __bool__(self) -> bool:
        return bool(self._services)

    def get(self, service_id: str | None) -> AppService | None:
        return None if service_id is None else self._by_id.get(service_id)

    def of_token(self, token_hash: bytes) -> AppService | None:
        """The service whose `as_token` has this SHA-256; looking up a hash tells nobody how near a guess was."""
        return self._by_token.get(token_hash)

    def check_user(self, user_id: str, by: str | None = None) -> None:
        """Raises 400 M_EXCLUSIVE where the name is kept for another service than `by` (None: for any)."""
        for service in self._services:
            owned = user_id == service.sender or any(names.exclusive and names.has(user_id) for names in service.users)
            if owned and service.id != by:
                raise exclusive("This user name is kept for an application service.")

    def check_alias(self, alias: str, by: str | None = None) -> None:
        """The same for an alias; a service can neither make nor remove any but those of its namespaces."""
        maker = self.get(by)
        if maker is not None and not maker.has_alias(alias):
            raise _outside("alias")
        for service in self._services:
            if service.id != by and any(names.exclusive and names.has(alias) for names in service.aliases):
                raise exclusive("This alias is kept for an application service.")


NO_APP_SERVICES: Final = AppServices()


def check_own_user(service: AppService, user_id: str) -> None:
    """Raises 400 M_EXCLUSIVE for a user who is not the service's to make, or to log in as."""
    if not service.has_user(user_id):
        raise _outside("user name")


def _outside(what: str) -> MatrixError:
    return exclusive(f"This {what} is outside of the namespaces that the application service is registered for.")


# -- reading a registration ----------------------------------------------------------------------------------------


def parse(registration: object, server_name: str) -> AppService:
    """Raises `BadRegistration`."""
    if not isinstance(registration, Mapping):
        raise BadRegistration("is no mapping of options")
    localpart = _text(registration, "sender_localpart")
    if not is_valid_localpart(localpart):
        raise BadRegistration("has a `sender_localpart` that no user name can be: use a-z, 0-9 and ._=-/+ only")
    namespaces = registration.get("namespaces")
    if not isinstance(namespaces, Mapping):
        raise BadRegistration("must have `namespaces`, a mapping of users, aliases and rooms")
    users, aliases, rooms = (tuple(_namespaces(namespaces.get(kind), kind)) for kind in _KINDS)
    return AppService(
        id=_text(registration, "id"),
        url=_url(registration),
        as_token=_text(registration, "as_token"),
        hs_token=_text(registration, "hs_token"),
        sender=f"@{localpart}:{server_name}",
        users=users,
        aliases=aliases,
        rooms=rooms,
        rate_limited=_flag(registration, "rate_limited", True),
        protocols=_texts(registration, "protocols"),
        receive_ephemeral=_flag(registration, "receive_ephemeral", False),
    )


def together(services: Iterable[AppService]) -> AppServices:
    """Raises `BadRegistration` where two cannot be told apart."""
    found = list(services)
    for option in ("id", "as_token", "sender"):
        seen: set[str] = set()
        for service in found:
            value = getattr(service, option)
            if value in seen:
                name = "sender_localpart" if option == "sender" else option
                raise BadRegistration(f"has the same `{name}` as another registration")
            seen.add(value)
    return AppServices(found)


def _text(options: Mapping[Any, Any], key: str) -> str:
    value = options.get(key)
    if not isinstance(value, str) or not value:
        raise BadRegistration(f"must have `{key}`, a text that is not empty")
    return value


def _texts(options: Mapping[Any, Any], key: str) -> tuple[str, ...]:
    value = options.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadRegistration(f"has `{key}` that is no list of texts")
    return tuple(value)


def _flag(options: Mapping[Any, Any], key: str, default: bool) -> bool:
    value = options.get(key)
    if value is not None and not isinstance(value, bool):
        raise BadRegistration(f"has `{key}` that is neither true nor false")
    return default if value is None else value


def _url(options: Mapping[Any, Any]) -> str | None:
    if "url" not in options:
        raise BadRegistration("must have `url`; write null where the service wants to be told of nothing")
    url = options["url"]
    if url is None or url == "":
        return None
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise BadRegistration("has a `url` that does not begin with http:// or https://")
    return url.rstrip("/")


def _namespaces(given: object, kind: str) -> Iterator[Namespace]:
    if given is None:
        return
    if not isinstance(given, list):
        raise BadRegistration(f"has `namespaces.{kind}` that is no list")
    for item in given:
        if not isinstance(item, Mapping) or not isinstance(item.get("exclusive"), bool):
            raise BadRegistration(f"has an item of `namespaces.{kind}` that does not say `exclusive: true` or `false`")
        if not isinstance(item.get("regex"), str):
            raise BadRegistration(f"has an item of `namespaces.{kind}` without a `regex`")
        try:
            yield Namespace(item["exclusive"], re.compile(item["regex"]))
        except re.error as error:
            raise BadRegistration(f"has a `regex` in `namespaces.{kind}` that is none ({error})") from None
