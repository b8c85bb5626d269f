"""What an example of an operation is: one good request, and the same with its names filled in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from tests.spec.description import Operation


@dataclass(frozen=True)
class Example:
    """A good request.

    :param path: the parameters of the path, by their names in the description.
    :param body: JSON; None where the operation takes none.
    :param user: who asks; `{name}` is supplied as well.
    :param code: of the answer.
    :param unread: parts of the body that may go by unread.
    :param anonymously: the answer's code where nobody is logged in, for an operation that describes itself as free.
    """

    operation: str
    path: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None
    user: str = "alice"
    code: int = 200
    unread: tuple[str, ...] = ()
    anonymously: int | None = None

    def __str__(self) -> str:
        return self.operation


@dataclass(frozen=True)
class Asked:
    """An example whose names are filled in."""

    operation: Operation
    path: dict[str, str]
    query: dict[str, str]
    body: Any
    user: str

    def target(self, *, path: dict[str, str] | None = None, query: str | None = None) -> str:
        """Path and query as they are sent. Given parameters of the path, and the query, are encoded already."""
        filled = self.operation.path
        for name, value in self.path.items():
            filled = filled.replace(f"{{{name}}}", quote(value, safe=""))
        if path is not None:
            filled = self.operation.path
            for name, value in path.items():
                filled = filled.replace(f"{{{name}}}", value)
        sent = urlencode(self.query) if query is None else query
        return self.operation.prefix + filled + (f"?{sent}" if sent else "")
