"""Reading on in the streams of receipts and presence, as the duty comes and goes."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.federation.sending.news import _Following


def test_a_read_of_an_earlier_time_on_duty_moves_nothing() -> None:
    clock = Clock()
    reads: list[tuple[int, int]] = []
    answers: list[Deferred[int]] = []

    async def take(after: int, until: int) -> int:
        reads.append((after, until))
        answers.append(Deferred())
        return await answers[-1]

    following = _Following(clock, "receipts", 0.1, lambda: 50, take)
    following.begin(40)
    clock.advance(0.1)
    following.end()
    following.begin(20)  # where the one who had the duty in between came to
    answers[0].callback(50)
    clock.advance(0.1)
    assert reads == [(40, 50), (20, 50)]
    answers[1].callback(50)
    assert following.position == 50
