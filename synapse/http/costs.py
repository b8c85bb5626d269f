"""What a request costs on the reactor's thread, measured step by step.

A coroutine runs in steps, between which others have their turn; only its own steps count. Work that it waits for but
that other coroutines or threads do is not in the figure.
"""

from __future__ import annotations

import types
from collections.abc import Awaitable, Coroutine, Generator
from time import thread_time
from typing import Any, TypeVar

from synapse.logging.context import RequestContext

T = TypeVar("T")


@types.coroutine
def _measured(work: Coroutine[Any, Any, T], context: RequestContext) -> Generator[Any, Any, T]:
    sent: Any = None
    thrown: BaseException | None = None
    while True:
        began = thread_time()
        try:
            yielded = work.send(sent) if thrown is None else work.throw(thrown)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            context.cpu_seconds += thread_time() - began
        sent = thrown = None
        try:
            sent = yield yielded
        except GeneratorExit:
            work.close()
            raise
        except BaseException as e:
            thrown = e


def measured(work: Coroutine[Any, Any, T], context: RequestContext) -> Awaitable[T]:
    """Awaits `work` and adds the CPU seconds of its steps to the context."""
    return _measured(work, context)
