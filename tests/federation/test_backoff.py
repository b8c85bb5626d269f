"""How long a server that does not answer is left alone."""

from __future__ import annotations

import pytest

from synapse.federation.backoff import Failing, Schedule, failed, heard_from

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


@pytest.mark.parametrize(
    ("schedule", "pauses"),
    [
        (Schedule(), [10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440]),
        (Schedule(first=MINUTE, multiplier=5.0, longest=HOUR), [1, 5, 25, 60, 60]),
        (Schedule(first=MINUTE, multiplier=1.0, longest=HOUR), [1, 1, 1]),
        (Schedule(first=2 * DAY, multiplier=2.0, longest=DAY), [1440, 1440]),
    ],
)
def test_each_pause_is_longer_up_to_the_longest(schedule: Schedule, pauses: list[int]) -> None:
    now, state, found = 1_000_000, None, []
    for _ in pauses:
        state = failed(state, now, schedule)
        assert (state.since, state.last_try, state.retry_at) == (1_000_000, now, now + state.interval)
        found.append(state.interval // MINUTE)
        now = state.retry_at
    assert found == pauses


def test_no_pause_at_all_is_possible() -> None:
    first = failed(None, 5, Schedule(first=0))
    assert first.retry_at == 5
    assert failed(first, 6, Schedule(first=0)).interval == 0


def test_several_who_find_out_at_once_count_as_one() -> None:
    first = failed(None, 1000, Schedule())
    assert failed(first, 1001, Schedule()) == first
    assert failed(first, first.retry_at - 1, Schedule()) == first


def test_who_was_asked_once_is_left_alone_briefly() -> None:
    now, state, found = 0, None, []
    for _ in range(12):
        state = failed(state, now, Schedule(), insisted=False)
        found.append(state.interval // 1000)
        now = state.retry_at
    assert found == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 1200]
    assert failed(failed(None, 0, Schedule(), insisted=False), 1000, Schedule()).interval == 10 * MINUTE
    assert failed(None, 0, Schedule(first=10), insisted=False).interval == 10


def test_who_speaks_is_tried_at_once_but_not_all_the_time() -> None:
    first = failed(None, 0, Schedule())
    assert heard_from(first, 5, MINUTE) == first._replace(retry_at=MINUTE)
    again = heard_from(first, 2 * MINUTE, MINUTE)
    assert again == Failing(since=0, last_try=0, interval=first.interval, retry_at=2 * MINUTE)
    second = failed(again, 2 * MINUTE, Schedule())
    assert second.interval == 2 * first.interval
    assert heard_from(second, 2 * MINUTE + 1, MINUTE).retry_at == 3 * MINUTE
    assert heard_from(second, second.retry_at + 1, MINUTE) == second, "it may be tried anyway"
