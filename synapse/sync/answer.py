"""The answer to /sync in its final shape. Client-server API, `GET /sync`."""

from __future__ import annotations

from typing import Any

import orjson

from synapse.sync.context import RoomAnswer, SyncContext


def encode(ctx: SyncContext) -> bytes:
    """The body of the answer. Parts without content are left out, as the specification lets us."""
    body: dict[str, Any] = {"next_batch": str(ctx.next), **ctx.body, **ctx.always}
    joined: dict[str, Any] = {}
    left: dict[str, Any] = {}
    for room_id, room in ctx.rooms.items():
        window = ctx.windows.get(room_id)
        if window is not None and window.left:
            left[room_id] = _left(room, ctx.state_name)
        else:
            joined[room_id] = _joined(room, ctx.state_name)
    parts = {"join": joined, "invite": ctx.invited, "knock": ctx.knocked, "leave": left}
    rooms = {name: part for name, part in parts.items() if part}
    if rooms:
        body["rooms"] = rooms
    return orjson.dumps(body)


def _left(room: RoomAnswer, state_name: str) -> dict[str, Any]:
    timeline: dict[str, Any] = {"events": room.timeline, "limited": room.limited}
    if room.prev_batch is not None:
        timeline["prev_batch"] = room.prev_batch
    return {
        state_name: {"events": room.state},
        "timeline": timeline,
        "account_data": {"events": room.account_data},
    }


def _joined(room: RoomAnswer, state_name: str) -> dict[str, Any]:
    answer = _left(room, state_name)
    answer["ephemeral"] = {"events": room.ephemeral}
    if room.summary is not None:
        answer["summary"] = room.summary
    if room.unread is not None:
        answer["unread_notifications"] = room.unread
    if room.unread_threads is not None:
        answer["unread_thread_notifications"] = room.unread_threads
    return answer
