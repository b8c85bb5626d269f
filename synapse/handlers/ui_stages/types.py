"""What a stage of user-interactive authentication is, and what it is told of an attempt at it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable


class Operation(NamedTuple):
    """What the proof is for. A session is good for the one operation that it was begun for.

    `reusable` is true of what need not be proven again when the device's user proved to be themselves just now
    (`ui_auth.session_timeout`); never of what could take an account away from its owner.
    """

    method: str
    endpoint: str  # its name in the route table: a client may change to another version of the path
    description: str  # for people: "delete a device"
    user_id: str | None  # who has to prove to be themselves; None where nobody is logged in yet
    reusable: bool = False
    password: str | None = None  # the parameter that has a password to be set
    keeps_session: bool = False  # the operation itself sees to it that a session serves once
    takes_any: bool = False  # stages that it does not ask for can be passed as well; they count for nothing


class Attempt(NamedTuple):
    """An attempt at a stage. `session_id` is None for a client that brings the proof with its first request."""

    operation: Operation
    session_id: str | None
    client_ip: str
    user_agent: str


class Stage(Protocol):
    """A stage. `kind` is its authentication type (`m.login.dummy`)."""

    kind: str

    def params(self) -> dict[str, Any] | None:
        """What a client has to know to show it, for the 401's `params`; None for nothing."""

    async def check(self, auth: dict[str, Any], attempt: Attempt) -> Any:
        """What it proves, as JSON (`True`, a user id, an address …), from the `auth` of a request.

        Raises MatrixError: 401 where another attempt may succeed, which the client is told together with the flows;
        anything else is the answer as it is (400 for what cannot be understood, 403 for what will never do).
        """


@runtime_checkable
class IdentityStage(Stage, Protocol):
    """A stage by which users prove to be the owners of their accounts. It proves a user id: `attempt.operation`'s."""

    async def is_open_to(self, user_id: str | None) -> bool:
        """Whether the user can pass it; of nobody (None), whether people can who are not logged in."""
