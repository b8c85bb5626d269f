"""Memberships that other servers ask for: joining, knocking, leaving, inviting. Server-server API, "Joining Rooms",
"Knocking upon a room", "Leaving Rooms", "Inviting to a room".
"""

from __future__ import annotations

from typing import Any, Final

from synapse.api.constants import Membership
from synapse.api.errors import bad_json, missing_param
from synapse.events.canonical import parse_lenient
from synapse.handlers.doors.invites import Invite, Invites
from synapse.handlers.doors.join_answer import JoinAnswers
from synapse.handlers.doors.submissions import Submissions
from synapse.handlers.doors.templates import Templates
from synapse.http.answers import Answer
from synapse.http.server import Request, serves

_BEFORE_VERSIONS: Final = ["1"]


class JoiningByOthers:
    """`/make_join` and `/send_join`; version 1 of the latter wraps its answer as `[200, {…}]`."""

    def __init__(self, templates: Templates, submissions: Submissions, answers: JoinAnswers) -> None:
        self._templates = templates
        self._submissions = submissions
        self._answers = answers

    @serves("make_join")
    async def make_join(self, request: Request, room_id: str, user_id: str) -> dict[str, Any]:
        versions = request.args("ver") or _BEFORE_VERSIONS
        return await self._templates.make(request.origin, room_id, user_id, Membership.JOIN, versions)

    @serves("send_join_v1")
    async def send_join_v1(self, request: Request, room_id: str, event_id: str) -> Answer:
        return await self._send_join(request, room_id, event_id, wrapped=True)

    @serves("send_join")
    async def send_join(self, request: Request, room_id: str, event_id: str) -> Answer:
        return await self._send_join(request, room_id, event_id, wrapped=False)

    async def _send_join(self, request: Request, room_id: str, event_id: str, *, wrapped: bool) -> Answer:
        omit_members = not wrapped and request.bool_arg("omit_members")
        join = await self._submissions.take(request.origin, room_id, event_id, request.body, Membership.JOIN)
        return await self._answers.of(join, omit_members=omit_members, wrapped=wrapped)


class LeavingByOthers:
    """`/make_leave`, `/send_leave`, `/make_knock`, `/send_knock`."""

    def __init__(self, templates: Templates, submissions: Submissions) -> None:
        self._templates = templates
        self._submissions = submissions

    @serves("make_leave")
    async def make_leave(self, request: Request, room_id: str, user_id: str) -> dict[str, Any]:
        return await self._templates.make(request.origin, room_id, user_id, Membership.LEAVE)

    @serves("send_leave_v1")
    async def send_leave_v1(self, request: Request, room_id: str, event_id: str) -> list[Any]:
        return [200, await self.send_leave(request, room_id, event_id)]

    @serves("send_leave")
    async def send_leave(self, request: Request, room_id: str, event_id: str) -> dict[str, Any]:
        await self._submissions.take(request.origin, room_id, event_id, request.body, Membership.LEAVE)
        return {}

    @serves("make_knock")
    async def make_knock(self, request: Request, room_id: str, user_id: str) -> dict[str, Any]:
        versions = request.args("ver")
        if not versions:
            raise missing_param("ver")
        return await self._templates.make(request.origin, room_id, user_id, Membership.KNOCK, versions)

    @serves("send_knock")
    async def send_knock(self, request: Request, room_id: str, event_id: str) -> dict[str, Any]:
        await self._submissions.take(request.origin, room_id, event_id, request.body, Membership.KNOCK)
        return {"knock_room_state": await self._submissions.stripped_state(room_id)}


class InvitingByOthers:
    """`/invite` of both versions. In the first, the body is the event itself, of room version 1 or 2."""

    def __init__(self, invites: Invites) -> None:
        self._invites = invites

    @serves("receive_invite_v1")
    async def invite_v1(self, request: Request, room_id: str, event_id: str) -> list[Any]:
        request.json_object()  # whether it is one at all
        event = parse_lenient(request.body)
        unsigned = event.get("unsigned")
        state = unsigned.get("invite_room_state") if isinstance(unsigned, dict) else None
        signed = await self._invites.take(request.origin, room_id, event_id, Invite(None, event, state))
        return [200, {"event": signed}]

    @serves("receive_invite")
    async def invite(self, request: Request, room_id: str, event_id: str) -> dict[str, Any]:
        body = request.json_object()
        for name in ("room_version", "event"):
            if name not in body:
                raise missing_param(name)
        version = body["room_version"]
        if not isinstance(version, str):
            raise bad_json("The 'room_version' must be a string.")
        event = parse_lenient(request.body)["event"]  # numbers as they were written, which old room versions hash
        invite = Invite(version, event, body.get("invite_room_state"))
        return {"event": await self._invites.take(request.origin, room_id, event_id, invite)}
