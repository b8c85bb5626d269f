"""The threads of a room, those first in which something was said last: `GET /rooms/{roomId}/threads`.

Client-server API, "Querying threads in a room".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from synapse.api.errors import invalid_param
from synapse.handlers.visibility import RoomDoor
from synapse.storage.threads import Place, ThreadStore, WhichThreads
from synapse.storage.timeline import TimelineRow
from synapse.sync.erased import PRUNED
from synapse.sync.forms import Annotator, Forms, Notes
from synapse.sync.ignored import IgnoredUsers
from synapse.sync.tokens import RoomToken
from synapse.sync.visibility import Access, Seen, VisibilityFilter
from synapse.util.clock import Clock

DEFAULT_LIMIT: Final = 10
MAX_LIMIT: Final = 100


class Threads:
    """Lists threads, in any process.

    :param clock: its seconds are those of the epoch.
    """

    def __init__(
        self,
        door: RoomDoor,
        store: ThreadStore,
        visibility: VisibilityFilter,
        annotator: Annotator,
        ignored: IgnoredUsers,
        clock: Clock,
    ) -> None:
        self._door = door
        self._store = store
        self._visibility = visibility
        self._annotator = annotator
        self._ignored = ignored
        self._clock = clock

    async def of(
        self,
        user_id: str,
        device_id: str | None,
        room_id: str,
        *,
        participated: bool = False,
        start: RoomToken | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> bytes:
        """The body of the answer. Raises 403, 400 M_INVALID_PARAM."""
        if start is not None and start.depth is None:
            raise invalid_param("The parameter 'from' is not a token that a list of threads has given out.")
        access = (await self._door.standing(user_id, room_id)).access
        ignored = await self._ignored.of(user_id)
        before = None if start is None or start.depth is None else Place(start.depth, start.stream)
        wanted = WhichThreads(room_id, user_id if participated else None, before, access.until, sorted(ignored))
        found = await self._store.threads(wanted, limit + 1)
        shown = found[:limit]
        answer: dict[str, Any] = {
            "chunk": await self._written([root for _, root in shown], user_id, device_id, access, ignored)
        }
        if len(found) > limit:
            last = shown[-1].latest
            answer["next_batch"] = str(RoomToken(last.depth, last.stream))
        return orjson.dumps(answer)

    async def _written(
        self,
        roots: Sequence[TimelineRow],
        user_id: str,
        device_id: str | None,
        access: Access,
        ignored: frozenset[str],
    ) -> list[orjson.Fragment]:
        """The roots that the user may see, if they may see something of the thread as well."""
        if not roots:
            return []
        room_id = roots[0].room_id
        visible = (await self._visibility.visible({room_id: roots}, {room_id: access}, user_id))[room_id]
        seen = [_hidden(each) if each.row.sender in ignored else each for each in visible]
        notes = await self._annotator.notes([row for row, _ in seen], user_id, device_id, {room_id: access})
        forms = Forms(int(self._clock.seconds() * 1000), room_ids=True)
        return [
            orjson.Fragment(forms.form(row, notes, membership)) for row, membership in seen if _has_thread(row, notes)
        ]


def _has_thread(row: TimelineRow, notes: Notes) -> bool:
    bundle = notes.bundles.get(row.event_id)
    return bundle is not None and bundle.thread is not None


def _hidden(seen: Seen) -> Seen:
    """What an ignored user began is shown as if redacted: others may have gone on with it."""
    return seen if seen.row.redacted_by is not None else seen._replace(row=seen.row._replace(redacted_by=PRUNED))
