"""Counters, gauges and histograms as plain Python values, cheap enough for every request.

The Prometheus client library does the talking (`synapse.metrics.exposition`) but is loaded at the first scrape and
kept off the hot path: counting is an attribute that grows, without a lock, because it happens on the reactor's thread
alone. For figures of other threads, or figures that are kept anyway, a metric can be given a `source` that is read
when it is scraped.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Labels = tuple[str, ...]
Source = Callable[[], Iterable[tuple[Labels, float]]]

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Value:
    """A number of one set of labels."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        self.value += amount

    def dec(self, amount: float = 1) -> None:
        self.value -= amount

    def set(self, value: float) -> None:
        self.value = value


class Distribution:
    """How often values of one set of labels fell into each bucket; the last is for what is beyond all bounds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


C = TypeVar("C", Value, Distribution)


class Metric(Generic[C]):
    """A name, what it means, and one child per set of label values.

    Keep the child where the labels are known in advance: `child` looks it up.
    """

    kind: str

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:
        self.name = name
        self.help = help
        self.labels = labels
        self._children: dict[Labels, C] = {}

    def child(self, *values: str) -> C:
        """The child with these label values, in the order of `labels`. Made at first use; it stays."""
        found = self._children.get(values)
        if found is None:
            if len(values) != len(self.labels):
                raise ValueError(f"{self.name} has the labels {self.labels}, not {len(values)} of them")
            found = self._children[values] = self._new()
        return found

    def children(self) -> Iterator[tuple[Labels, C]]:
        # A copy, because a scrape may run while others count.
        return iter(list(self._children.items()))

    def clear(self) -> None:
        """Forgets every child, as tests and processes that were forked want."""
        self._children.clear()

    def _new(self) -> C:
        raise NotImplementedError


class _Number(Metric[Value]):
    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:
        super().__init__(name, help, labels)
        self._source: Source | None = None

    def _new(self) -> Value:
        return Value()

    def read_from(self, source: Source | None) -> None:
        """Has the values come from `source`, (label values, value) each, when they are asked for; None ends that."""
        self._source = source

    def samples(self) -> Iterator[tuple[Labels, float]]:
        for labels, child in self.children():
            yield labels, child.value
        if self._source is not None:
            yield from self._source()


class Counter(_Number):
    """Grows only. Its name ends in `_total`."""

    kind = "counter"

    def inc(self, amount: float = 1) -> None:
        self.child().inc(amount)


class Gauge(_Number):
    """Goes up and down."""

    kind = "gauge"

    def set(self, value: float) -> None:
        self.child().set(value)


class Histogram(Metric[Distribution]):
    """Sorts values into buckets."""

    kind = "histogram"

    def __init__(self, name: str, help: str, labels: Labels = (), bounds: tuple[float, ...] = LATENCY_BUCKETS) -> None:
        super().__init__(name, help, labels)
        self.bounds = bounds

    def _new(self) -> Distribution:
        return Distribution(self.bounds)

    def observe(self, value: float) -> None:
        self.child().observe(value)
