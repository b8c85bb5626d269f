"""The text that Prometheus reads: every metric of the table that has samples, and those of the process and of Python.

The client library is imported here, inside the function, so that a process which is never scraped does without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from synapse.metrics import table
from synapse.metrics.types import Distribution, Histogram

if TYPE_CHECKING:
    from prometheus_client import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(metrics: Iterable[Any] = table.ALL) -> bytes:
    """The answer to a scrape, in the text format 0.0.4."""
    from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry
    from prometheus_client.exposition import generate_latest

    registry = CollectorRegistry(auto_describe=False)
    for collector in (_Collector(metrics), PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)
    return generate_latest(registry)


class _Collector:
    """What the client library asks for metrics."""

    def __init__(self, metrics: Iterable[Any]) -> None:
        self._metrics = metrics

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        for metric in self._metrics:
            family = _histogram(metric) if isinstance(metric, Histogram) else _number(metric)
            if family.samples:
                yield family


def _number(metric: Any) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in metric.samples():
        family.add_metric(labels, value)
    return family


def _histogram(metric: Histogram) -> Metric:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, child in metric.children():
        family.add_metric(labels, _cumulative(child), child.sum)
    return family


def _cumulative(child: Distribution) -> list[tuple[str, float]]:
    bounds = [str(bound) for bound in child.bounds] + ["+Inf"]
    total, found = 0, []
    for bound, count in zip(bounds, child.counts, strict=True):
        total += count
        found.append((bound, float(total)))
    return found
