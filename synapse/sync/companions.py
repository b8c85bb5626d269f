"""With whom somebody shares rooms, in motion: who has come to share one with them, and who shares none any more.

Clients of old and of today count on being told of rooms that are not encrypted as well, and the specification lets us
tell more than it asks for. So `changed` has everybody who comes into a room of the user's or is invited (messages may
be encrypted for them already), and the members of the encrypted rooms that the user comes into (of the others, who may
have thousands of members, nobody needs to know all keys), the user among them; `left` has those with whom no encrypted
room is shared any longer, and those with whom no room at all is.

Client-server API, "End-to-end encryption: Extensions to /sync", "Tracking the device list for a user".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from synapse.api.constants import Membership

if TYPE_CHECKING:
    from synapse.storage.past_state import Delta
    from synapse.storage.shared_rooms import SharedRoomStore, Turn


@dataclass
class Companions:
    """Who came into a room of the user's, and who went, with whether it was out of an encrypted one."""

    come: set[str] = field(default_factory=set)
    gone: dict[str, bool] = field(default_factory=dict)

    def turn(self, turn: Turn) -> None:
        if turn.after in (Membership.JOIN, Membership.INVITE) and turn.after != turn.before:
            self.come.add(turn.user_id)
        elif turn.before == Membership.JOIN != turn.after:
            self.lose(turn.user_id, turn.encrypted)

    def lose(self, user_id: str, encrypted: bool) -> None:
        self.gone[user_id] = encrypted or self.gone.get(user_id, False)


async def companions(
    shared: SharedRoomStore, members: Iterable[Delta], new_rooms: Collection[str], left_rooms: Collection[str]
) -> Companions:
    """From the changes of memberships in the rooms that were and are the user's, and the user's own comings and
    goings. Three statements at most.
    """
    found = Companions()
    for turn in await shared.turns(members):
        found.turn(turn)
    found.come |= await shared.members_of_encrypted(new_rooms)
    for user_id, encrypted in await shared.members_of(left_rooms):
        found.lose(user_id, encrypted)
    return found


async def lost(shared: SharedRoomStore, gone: dict[str, bool], joined: Collection[str]) -> set[str]:
    """Those of `gone` who are to be told as `left` to a user who is in these rooms."""
    in_encrypted = await shared.sharing_which(gone, joined)
    return {
        user_id
        for user_id, encrypted in gone.items()
        if user_id not in in_encrypted or (encrypted and not in_encrypted[user_id])
    }
