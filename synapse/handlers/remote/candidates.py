"""Which servers are asked for help with a room, and in which order: pure.

Names come from users, from other servers and out of rooms, so each is looked at before it is called, and only so many
are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from synapse.api.identifiers import domain_of, is_room_id_without_domain, is_server_name, is_user_id

MAX_NAMED: Final = 50
"""So many of the names that somebody gives are looked at."""

MAX_TRIED: Final = 10
"""So many servers are asked for one thing."""


def candidates(own_name: str, *groups: Iterable[str], limit: int = MAX_TRIED) -> list[str]:
    """The servers to ask, the best first: those of the first group, then of the next, each once, this server never."""
    found: dict[str, None] = {}
    for group in groups:
        for name, _ in zip(group, range(MAX_NAMED), strict=False):
            if name != own_name and is_server_name(name):
                found[name] = None
            if len(found) >= limit:
                return list(found)
    return list(found)


def candidates_for(own_name: str, room_id: str, *, named: Sequence[Iterable[str]], known: Iterable[str]) -> list[str]:
    """The servers to ask for the way into a room: those of the groups in `named`; where there are none, those that
    were in the room as far as this server knows; and else, as a guess, the one in the room's id.

    Whoever names servers wants to come in through these (`via`), and is not answered with the help of others.
    """
    guess = server_of_room(room_id)
    return candidates(own_name, *named) or candidates(own_name, known) or candidates(own_name, guess)


def server_of_room(room_id: str) -> list[str]:
    """The server that made the room, as far as its id says so: it need not be in the room any more."""
    return [] if is_room_id_without_domain(room_id) or ":" not in room_id else [domain_of(room_id)]


def servers_of_stripped(state: Sequence[Mapping[str, Any]]) -> list[str]:
    """The servers of those who made the room what stripped state says that it is."""
    senders = (event.get("sender") for event in state)
    return [domain_of(sender) for sender in senders if isinstance(sender, str) and is_user_id(sender)]


def able_to_invite(levels: Mapping[str, int], needed: int) -> list[str]:
    """The servers of those whose power is enough to invite, the most powerful first; by user id."""
    able = [user_id for user_id, level in levels.items() if level >= needed and is_user_id(user_id)]
    return [domain_of(user_id) for user_id in sorted(able, key=lambda user_id: (-levels[user_id], user_id))]
