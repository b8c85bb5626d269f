"""How many requests go out at the same time for what other servers have sent."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.federation.receiving.gates import IN_ALL, LARGE, PER_ORIGIN, Gates
from tests.support.deferreds import started


class Requests:
    """Requests that are under way until `end`."""

    def __init__(self) -> None:
        self.gates = Gates(Clock())
        self.under_way: list[str] = []
        self._working: list[Deferred[None]] = []

    def end(self) -> None:
        while self._working:
            self._working.pop().callback(None)

    def ask(self, origin: str, *, large: bool = False) -> None:
        started(self._ask(origin, large))

    async def _ask(self, origin: str, large: bool) -> None:
        async with self.gates.passed(origin, large=large):
            self.under_way.append(origin)
            self._working.append(working := Deferred[None]())
            await working


def test_so_many_at_a_time_of_each_and_in_all() -> None:
    requests = Requests()
    for server in range(10):
        for _ in range(PER_ORIGIN + 1):
            requests.ask(f"s{server}")
    assert len(requests.under_way) == IN_ALL
    assert {requests.under_way.count(name) for name in set(requests.under_way)} == {PER_ORIGIN}
    requests.end()
    assert len(requests.under_way) == 10 * (PER_ORIGIN + 1)


def test_large_ones_that_wait_for_each_other_keep_nobody_else_waiting() -> None:
    requests = Requests()
    for server in range(IN_ALL):
        requests.ask(f"s{server}", large=True)
    assert len(requests.under_way) == LARGE
    requests.ask("other")
    assert requests.under_way[LARGE:] == ["other"]
    requests.end()
    assert len(requests.under_way) == IN_ALL + 1
