"""Interactive authentication against a model that knows the rules in a few lines: steps of several users in any order,
on two processes, with sessions of their own and of others."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import pytest_twisted

from synapse.api.errors import MatrixError
from synapse.handlers.ui_auth import AuthenticationNeeded
from tests.rest.accounts import Server
from tests.rest.test_ui_auth import ALICE, BOB, OTHER, RIDDLE, Stages

DUMMY: Final = "m.login.dummy"
FLOWS: Final = [[RIDDLE, OTHER, DUMMY], [RIDDLE, OTHER, "org.example.never"]]
USERS: Final = (ALICE, BOB, None)
BODIES: Final = ({}, {"a": 1}, {"a": 2}, {"a": 1, "b": 2})
WALKS: Final = 20
STEPS: Final = 25


@dataclass
class Session:
    """What the model knows of a session."""

    user: str | None
    body: dict[str, Any]
    completed: dict[str, Any] = field(default_factory=dict)
    over: bool = False


@dataclass
class Step:
    """A request. `right` is whether it brings the answer that its stage wants."""

    session_id: str
    user: str | None
    body: dict[str, Any]
    kind: str | None
    right: bool

    @property
    def request(self) -> dict[str, Any]:
        auth: dict[str, Any] = {"session": self.session_id}
        if self.kind is not None:
            auth |= {"type": self.kind, "answer": 42 if self.right else 0}
        return {**self.body, "auth": auth}


Outcome = tuple[str, Any]


def expected(session: Session, step: Step) -> Outcome:
    """What has to come of a step; changes the session accordingly."""
    if session.over:
        return "refused", 400
    if session.user is not None and session.user != step.user:
        return "refused", 403
    if any(session.body.get(key, new(step, value)) != value for key, value in step.body.items()):
        return "refused", 403
    session.body = {**session.body, **step.body}
    completed, failed = session.completed, False
    if step.kind is not None and step.kind not in completed:
        due = any(set(flow[: flow.index(step.kind)]) <= completed.keys() for flow in FLOWS if step.kind in flow)
        if due and (step.right or step.kind == DUMMY):
            completed[step.kind] = True if step.kind == DUMMY else "solved"
            session.user = session.user or step.user
        else:
            failed = True
    if not failed and any(set(flow) <= completed.keys() for flow in FLOWS):
        session.over = True
        return "proven", (session.body, dict(completed))
    return "asked", (set(completed), failed)


def new(step: Step, value: Any) -> Any:
    """A parameter that was not there before is all right where nobody is logged in."""
    return value if step.user is None else None


async def outcome(stages: Stages, step: Step) -> Outcome:
    try:
        proven = await stages.check(step.request, FLOWS, step.user)
    except AuthenticationNeeded as needed:
        answer = needed.body()
        return "asked", (set(answer["completed"]), "errcode" in answer)
    except MatrixError as error:
        return "refused", error.code
    return "proven", (proven.body, proven.proofs)


@pytest.mark.parametrize("seed", range(WALKS))
@pytest_twisted.ensureDeferred
async def test_any_steps_in_any_order(server: Server, seed: int) -> None:
    chance, stages = random.Random(seed), Stages(server)
    sessions: dict[str, Session] = {}
    for _ in range(3):
        user, body = chance.choice(USERS), chance.choice(BODIES)
        begun = await stages.asked(body, flows=FLOWS, user=user)
        sessions[begun["session"]] = Session(user, body)
    for number in range(STEPS):
        session_id, session = chance.choice(list(sessions.items()))
        if chance.random() < 0.1 and not session.over:
            await stages.processes[number % 2].complete(session_id, OTHER, "elsewhere")
            session.completed[OTHER] = "elsewhere"
            continue
        user = session.user if chance.random() < 0.8 else chance.choice(USERS)
        body = session.body if chance.random() < 0.8 else chance.choice(BODIES)
        kind = chance.choice((RIDDLE, OTHER, DUMMY, DUMMY, None))
        step = Step(session_id, user, body, kind, right=chance.random() < 0.7)
        assert await outcome(stages, step) == expected(session, step), (number, step)
