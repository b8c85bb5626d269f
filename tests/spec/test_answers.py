"""The comparison of answers with the description finds what it should."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.spec.answers import Answers
from tests.spec.description import MISSING, description

C = "/_matrix/client"
F = "/_matrix/federation"
ROOM = f"{C}/v3/rooms/!a:test"

described = description()
pytestmark = pytest.mark.skipif(described is None, reason=MISSING)


@pytest.fixture
def answers() -> Answers:
    assert described is not None
    return Answers(described)


@pytest.mark.parametrize(
    ("method", "target", "operation"),
    [
        ("GET", f"{C}/versions", "getVersions"),
        ("GET", f"{C}/v3/sync?since=s1", "sync"),
        ("GET", f"{C}/v2_alpha/sync", "sync"),
        ("GET", f"{C}/api/v1/events?from=1", "getEvents"),
        ("GET", f"{C}/v3/events?room_id=!a:test", "peekEvents"),
        ("GET", f"{C}/v3/events/$a", "getOneEvent"),
        ("GET", f"{ROOM}/state", "getRoomState"),
        ("GET", f"{ROOM}/state/m.room.name", "getRoomStateWithKey"),
        ("GET", f"{ROOM}/state/m.room.name/", "getRoomStateWithKey"),
        ("PUT", f"{ROOM}/state/a/b%2Fc", "setRoomStateWithKey"),
        ("GET", f"{C}/v1/rooms/!a:test/relations/$a/m.thread", "getRelatingEventsWithRelType"),
        ("POST", f"{ROOM}/invite", "inviteUser"),
        ("POST", f"{ROOM}/invite/x", None),
        ("GET", f"{C}/v3/nonsense", None),
        ("GET", f"{F}/v1/query/profile?user_id=@a:test", "server.queryProfile"),
        ("GET", f"{F}/v1/query/nonsense", "server.queryInfo"),
        ("GET", f"{F}/v1/publicRooms", "server.getPublicRooms"),
        ("GET", f"{F}/v3/publicRooms", None),
        ("PUT", f"{F}/v2/invite/!a:test/$a", "server.sendInviteV2"),
        ("PUT", f"{F}/v1/invite/!a:test/$a", "server.sendInviteV1"),
        ("GET", "/_matrix/key/v2/server", "server.getServerKey"),
    ],
)
def test_requests_are_known(answers: Answers, method: str, target: str, operation: str | None) -> None:
    found = answers.operation(method, target)
    assert (None if found is None else found.id) == operation


def test_an_invite_by_an_address_is_told_from_one_by_an_id(answers: Answers) -> None:
    found = answers.operation("POST", f"{ROOM}/invite", b'{"medium":"email"}')
    assert found is not None
    assert found.id == "inviteBy3PID"


@pytest.mark.parametrize(
    ("method", "target", "code", "body", "wrong"),
    [
        ("GET", f"{C}/v3/joined_rooms", 200, {"joined_rooms": []}, None),
        ("GET", f"{C}/v3/joined_rooms", 200, {}, "joined_rooms"),
        ("GET", f"{C}/r0/joined_rooms", 200, {"joined_rooms": [5]}, "/joined_rooms/0"),
        ("GET", f"{C}/v3/joined_rooms", 202, {"joined_rooms": []}, "no answer 202"),
        ("GET", f"{C}/v3/joined_rooms", 404, {"errcode": "M_NOT_FOUND", "error": "x"}, None),
        ("GET", f"{C}/v3/joined_rooms", 404, {"error": "x"}, "errcode"),
        ("GET", f"{C}/v3/joined_rooms", 500, [], "object"),
        ("POST", f"{ROOM}/receipt/m.read/$a", 200, {"more": 1}, "additional|more|properties"),
        ("GET", f"{C}/v3/sync", 200, {"next_batch": "s1"}, None),
        # Through three files.
        ("GET", f"{C}/v3/sync", 200, {"next_batch": "s", "presence": {"events": [{"type": 5}]}}, "/presence/events/0"),
        ("GET", f"{C}/v3/nonsense", 200, {"any": "thing"}, None),
    ],
)
def test_answers_are_compared(
    answers: Answers, method: str, target: str, code: int, body: Any, wrong: str | None
) -> None:
    if wrong is None:
        answers.check(method, target, b"", code, orjson.dumps(body))
    else:
        with pytest.raises(AssertionError, match=wrong):
            answers.check(method, target, b"", code, orjson.dumps(body))


def test_successes_are_remembered(answers: Answers) -> None:
    answers.check("GET", f"{C}/v3/joined_rooms", b"", 404, b'{"errcode":"M_NOT_FOUND","error":"x"}')
    assert answers.succeeded == set()
    answers.check("GET", f"{C}/v3/joined_rooms", b"", 200, b'{"joined_rooms":[]}')
    assert answers.succeeded == {"getJoinedRooms"}


def test_the_whole_description_is_there(answers: Answers) -> None:
    assert described is not None
    assert len(described.operations) > 150
    assert {"createRoom", "sync", "getSpaceHierarchy", "getMutualRooms"} <= {o.id for o in described.operations}
