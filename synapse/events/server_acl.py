"""May this server take part in that room? The rules of m.room.server_acl, given its content.

An access list is set by whoever has the power to, on any server, so its content may be anything. Damage may shut
servers out, it never lets in one that the list was to keep away: entries that are no strings match nothing, an `allow`
that is no array allows nobody, and a `deny` that is none denies everybody, since nobody knows whom it meant. Not here:
which requests are held to it (server-server API, "Server Access Control Lists (ACLs)").

Client-server API, `m.room.server_acl`; appendices, "Glob-style matching".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from synapse.api.identifiers import is_server_name, split_server_name
from synapse.events.event import Event

_IPV4: Final = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}", re.ASCII)


class ServerAcl:
    """An access list, ready to be asked about any number of servers.

    >>> ServerAcl({"allow": ["*"], "deny": ["*.evil.example"]}).allows("www.evil.example:8448")
    False
    """

    __slots__ = ("_allow", "_allow_ip_literals", "_deny")

    def __init__(self, content: Mapping[str, Any]) -> None:
        # Anything but a boolean counts as the default, which is true.
        self._allow_ip_literals = content.get("allow_ip_literals") is not False
        self._allow = _Globs(content.get("allow"))
        deny = content.get("deny", [])
        self._deny = _Globs(deny if isinstance(deny, list) else ["*"])

    @classmethod
    def of_event(cls, event: Event | None) -> ServerAcl:
        """The list that an m.room.server_acl event makes; a room without one keeps nobody out."""
        return EVERYBODY if event is None or event.state_key != "" else cls(event.content)

    def allows(self, server_name: str) -> bool:
        """Whether the server (its port does not matter) may take part. What is no server name may not."""
        if self is EVERYBODY:
            return True
        if not is_server_name(server_name):
            return False
        host = split_server_name(server_name)[0].lower()
        if not self._allow_ip_literals and _is_ip_literal(host):
            return False
        return not self._deny.match(host) and self._allow.match(host)


class _Globs:
    """A list of glob patterns: `*` for any number of characters, `?` for exactly one."""

    __slots__ = ("_exact", "_patterns")

    def __init__(self, value: Any) -> None:
        patterns = {item.lower() for item in value if isinstance(item, str)} if isinstance(value, list) else set()
        self._exact = frozenset(pattern for pattern in patterns if "*" not in pattern and "?" not in pattern)
        self._patterns = tuple(pattern.split("*") for pattern in sorted(patterns - self._exact))

    def match(self, host: str) -> bool:
        return host in self._exact or any(_matches(host, parts) for parts in self._patterns)


def _matches(text: str, parts: list[str]) -> bool:
    """Whether `text` is the parts with anything in between. The first place where a part fits is as good as any later
    one, so the time is bounded by the product of the lengths, whatever the pattern."""
    if len(parts) == 1:
        return len(text) == len(parts[0]) and _fits(text, 0, parts[0])
    first, *middle, last = parts
    end = len(text) - len(last)
    if end < len(first) or not _fits(text, 0, first) or not _fits(text, end, last):
        return False
    start = len(first)
    for part in middle:
        while start + len(part) <= end and not _fits(text, start, part):
            start += 1
        start += len(part)
        if start > end:
            return False
    return True


def _fits(text: str, start: int, part: str) -> bool:
    if "?" not in part:
        return text.startswith(part, start)
    return all(wanted in ("?", text[start + index]) for index, wanted in enumerate(part))


def _is_ip_literal(host: str) -> bool:
    return host.startswith("[") or _IPV4.fullmatch(host) is not None


EVERYBODY: Final = ServerAcl({"allow": ["*"]})
"""The list of a room that has none."""
