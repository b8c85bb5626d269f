"""Starting coroutines side by side."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


def started(coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """The coroutine, begun; its result is the Deferred's."""
    return Deferred.fromCoroutine(coroutine)
