"""A row of the registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synapse.api.routes import App

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver


@dataclass(frozen=True, slots=True)
class Row:
    """A class of endpoints: the names of the route table that it serves, and how to make one.

    With `app`, it does so in that application alone, where it goes before a row for all.
    """

    names: tuple[str, ...]
    make: Callable[[Homeserver], object]
    app: App | None = None
