"""What waits for other servers and is not events: messages between devices, and changes of local users' devices.

Both outboxes look alike to who sends, and cost the same for any number of servers:

    outbox.begin(wake)                    # wake(destinations): there is something new for these
    await outbox.destinations()           # for whom there is something already
    await outbox.waiting(names)           # EDUs for each of these servers, in order, `most` at most
    await outbox.sent({name: marks})      # these have those that had these marks
    outbox.end()

Nothing goes away before it was `sent`; what is asked for again is told again, in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from synapse.events import canonical

Wake = Callable[[Collection[str]], None]


class Waiting(NamedTuple):
    """An EDU as canonical JSON; `mark` is what `sent` wants back."""

    edu: bytes
    mark: Any


class Outbox(Protocol):
    """As the sender sees it."""

    @property
    def most(self) -> int:
        """EDUs of this kind in one transaction."""

    async def begin(self, wake: Wake) -> None: ...

    def end(self) -> None: ...

    async def destinations(self) -> Collection[str]: ...

    async def waiting(self, destinations: Collection[str]) -> Mapping[str, Sequence[Waiting]]: ...

    async def sent(self, marks: Mapping[str, Sequence[Any]]) -> None: ...


def encoded(edu_type: str, content: dict[str, Any]) -> bytes:
    """An EDU as it stands in a transaction. Contents may have come from clients, and hold any JSON."""
    return canonical.encode_lenient({"edu_type": edu_type, "content": content})
