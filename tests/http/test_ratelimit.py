"""Rate limits: bursts, leaks, and memory that does not grow."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from twisted.internet.task import Clock

from synapse.api.errors import MatrixError
from synapse.api.routes import ENDPOINTS
from synapse.config.limits import RatelimitConfig
from synapse.http.ratelimit import Buckets, Rate, RateLimits
from synapse.metrics import table


class Setting(NamedTuple):
    per_second: float
    burst_count: int


def _limits(per_second: float, burst: int) -> tuple[RateLimits, Clock]:
    clock = Clock()
    settings: dict[str, Rate] = {"rc_x": Setting(per_second, burst)}
    return RateLimits(settings.get, clock), clock


def _wait_ms(limits: RateLimits, key: str = "k") -> int:
    try:
        limits.check("rc_x", key)
    except MatrixError as e:
        return int(e.fields["retry_after_ms"])
    return 0


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    limits, clock = _limits(0.5, 3)
    assert [_wait_ms(limits) for _ in range(5)] == [0, 0, 0, 2000, 2000]
    clock.advance(1.5)
    assert _wait_ms(limits) == 500
    clock.advance(0.5)
    assert [_wait_ms(limits), _wait_ms(limits)] == [0, 2000]
    clock.advance(1000)
    assert [_wait_ms(limits) for _ in range(4)] == [0, 0, 0, 2000]


def test_waiting_as_told_is_enough() -> None:
    limits, clock = _limits(7, 1)
    for _ in range(50):
        while wait := _wait_ms(limits):
            clock.advance(wait / 1000)
    assert clock.seconds() == pytest.approx(49 / 7, abs=0.05)


def test_keys_do_not_share() -> None:
    limits, _ = _limits(1, 1)
    assert [_wait_ms(limits, "a"), _wait_ms(limits, "b"), _wait_ms(limits, "a")] == [0, 0, 1000]


def test_what_is_counted_afterwards_can_be_asked_for_before() -> None:
    limits, _ = _limits(1, 2)
    for _ in range(10):
        limits.require("rc_x", "k")
    limits.count("rc_x", "k")
    limits.require("rc_x", "k")
    limits.count("rc_x", "k")
    with pytest.raises(MatrixError) as caught:
        limits.require("rc_x", "k")
    assert (caught.value.code, caught.value.errcode) == (429, "M_LIMIT_EXCEEDED")


def test_a_rate_of_nothing_allows_nothing() -> None:
    limits, clock = _limits(0, 5)
    clock.advance(10_000)
    assert _wait_ms(limits) > 0


def test_what_has_no_setting_is_not_limited() -> None:
    limits, _ = _limits(1, 1)
    for _ in range(10):
        limits.check("rc_other", "k")


def test_refusals_are_counted() -> None:
    table.HTTP_RATE_LIMITED.clear()
    limits, _ = _limits(1, 1)
    for _ in range(3):
        _wait_ms(limits)
    assert table.HTTP_RATE_LIMITED.child("rc_x").value == 2


def test_memory_is_bounded_and_the_last_used_are_kept() -> None:
    clock = Clock()
    buckets = Buckets(Setting(0.001, 1), clock, max_keys=100)
    for number in range(1000):
        buckets.add(f"k{number}")
        assert len(buckets) <= 100
    assert buckets.wait("k999") > 0
    assert buckets.wait("k0") == 0
    for _ in range(3):
        buckets.add("k950")  # used again, so it outlives those that came after it
        for number in range(60):
            buckets.add(f"new{number}{clock.seconds()}")
    assert buckets.wait("k950") > 0


def test_empty_buckets_are_the_first_to_be_forgotten() -> None:
    clock = Clock()
    buckets = Buckets(Setting(1, 1), clock, max_keys=100)
    for number in range(100):
        buckets.add(f"k{number}")
    clock.advance(5)
    buckets.add("new")
    assert len(buckets) == 1


@pytest.mark.parametrize("limit", sorted({e.ratelimit for e in ENDPOINTS if e.ratelimit}))
def test_every_limit_of_the_table_has_a_setting_that_is_on(limit: str) -> None:
    assert RatelimitConfig().by_name(limit).per_second > 0
