"""The rooms that two users are both joined to. Client-server API, "Mutual Rooms"."""

from __future__ import annotations

from typing import Any, Final

from synapse.api.errors import invalid_param
from synapse.api.identifiers import is_compliant_user_id
from synapse.storage.shared_rooms import SharedRoomStore
from synapse.util.batch_tokens import pack, unpack

PAGE: Final = 100


class MutualRooms:
    """Answers in any process."""

    def __init__(self, store: SharedRoomStore) -> None:
        self._store = store

    async def of(self, user_id: str, other_id: str, token: str | None) -> dict[str, Any]:
        """A page of the rooms, in the order of their ids. Raises 400 M_INVALID_PARAM."""
        if not is_compliant_user_id(other_id):
            raise invalid_param("'user_id' is not a user ID; it should look like @name:server.")
        if other_id == user_id:
            raise invalid_param("'user_id' is your own; ask for the rooms that you share with somebody else.")
        after = "" if token is None else _parse(token, other_id)
        total, room_ids = await self._store.mutual(user_id, other_id, after, PAGE + 1)
        answer: dict[str, Any] = {"joined": room_ids[:PAGE], "count": total}
        if len(room_ids) > PAGE:
            answer["next_batch"] = pack(other_id, room_ids[PAGE - 1])
        return answer


def _parse(token: str, other_id: str) -> str:
    values = unpack(token, str, str)
    if values is None or values[0] != other_id:
        raise invalid_param("'from' is not a token of this list.")
    after: str = values[1]
    return after
