"""What waits for other servers and is not events: messages between devices, and changes of local users' devices.

Both outboxes look alike to who sends:

    outbox.begin(wake)                    # wake(destinations): there is something new for these
    await outbox.destinations()           # for whom there is something already
    await outbox.pending(name, limit)     # EDUs for a server, in order
    await outbox.sent(name, marks)        # it has those that had these marks
    outbox.end()

Nothing goes away before it was `sent`; what is asked for again is told again, in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol

Wake = Callable[[Collection[str]], None]


class PendingEdu(NamedTuple):
    """An EDU that waits; `mark` is what `sent` wants back."""

    edu_type: str
    content: dict[str, Any]
    mark: Any


class Outbox(Protocol):
    """As the sender sees it."""

    async def begin(self, wake: Wake) -> None: ...

    def end(self) -> None: ...

    async def destinations(self) -> set[str]: ...

    async def pending(self, destination: str, limit: int) -> list[PendingEdu]: ...

    async def sent(self, destination: str, marks: Sequence[Any]) -> None: ...
