"""Which addresses people may have on this server, and where they may be sent once they have proved one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from synapse.api.errors import Codes, MatrixError, forbidden, invalid_param
from synapse.api.identifiers import is_server_name

if TYPE_CHECKING:
    from synapse.config.contacts import ThreepidsConfig

MAX_LINK: Final = 2048  # characters


class ThreepidRules:
    """What the configuration allows."""

    def __init__(self, options: ThreepidsConfig) -> None:
        self._options = options
        self._allowed = [(allowed.medium, re.compile(allowed.pattern)) for allowed in options.allowed_local_3pids]

    @property
    def can_change(self) -> bool:
        """Whether users can add and remove addresses."""
        return self._options.enable_3pid_changes

    @property
    def discreet(self) -> bool:
        """Whether nobody is to learn which addresses have an account."""
        return self._options.request_token_inhibit_3pid_errors

    def check_changes(self) -> None:
        """Raises 403 M_FORBIDDEN where users cannot change their addresses (capability `m.3pid_changes`)."""
        if not self.can_change:
            raise forbidden("Addresses cannot be changed on this server; ask its administrator.")

    def check_lookup(self) -> None:
        """Raises 403 M_FORBIDDEN where this server asks nobody who has an address."""
        if not self._options.enable_3pid_lookup:
            raise forbidden("This server looks up no addresses; invite people by their user IDs.")

    def check_allowed(self, medium: str, address: str) -> None:
        """Raises 403 M_THREEPID_DENIED for an address that nobody may have here."""
        if self._allowed and not any(one == medium and pattern.match(address) for one, pattern in self._allowed):
            sentence = "This server does not take that address; ask its administrator which ones it takes."
            raise MatrixError(403, Codes.THREEPID_DENIED, sentence)

    def checked_link(self, link: str | None) -> str | None:
        """A `next_link` that people may be sent on to. Raises 400 M_INVALID_PARAM."""
        if link is None:
            return None
        try:
            parts = urlsplit(link)
            host = parts.hostname
        except ValueError:
            host = None
        # Browsers take a backslash for a slash: the host that they go to would be another one.
        plain = link.isascii() and link.isprintable() and not any(char in ' \\<>"' for char in link)
        if (
            not plain
            or not host
            or parts.scheme not in ("http", "https")
            or "@" in parts.netloc
            or len(link) > MAX_LINK
        ):
            raise invalid_param("The 'next_link' must be the URL of a page, beginning with https://.")
        domains = self._options.next_link_domain_whitelist
        if domains is not None and host not in {domain.lower() for domain in domains}:
            raise invalid_param("The 'next_link' leads to a domain that this server sends nobody to.")
        return link

    def check_identity_server(self, name: str) -> str:
        """Raises 400 M_INVALID_PARAM, M_SERVER_NOT_TRUSTED for an identity server that is not to be talked to."""
        if not is_server_name(name):
            raise invalid_param("The 'id_server' must be a host name with or without a port.")
        trusted = self._options.trusted_third_party_id_servers
        if trusted is not None and name not in trusted:
            raise MatrixError(400, Codes.SERVER_NOT_TRUSTED, "This server does not talk to that identity server.")
        return name
