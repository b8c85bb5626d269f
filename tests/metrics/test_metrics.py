"""Metrics count, are told in Prometheus' words, and are all described in the documentation."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock

from synapse.metrics import sources, table
from synapse.metrics.exposition import render
from synapse.metrics.types import Counter, Gauge, Histogram
from synapse.util.caches import Caches

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/metrics.md"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    for metric in table.ALL:
        metric.clear()
        if not isinstance(metric, Histogram):
            metric.read_from(None)


def _told(*metrics: Counter | Gauge | Histogram) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(render(metrics).decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_counter_counts_by_its_labels() -> None:
    counter = Counter("things_total", "Things.", ("kind", "size"))
    counter.child("a", "b").inc()
    counter.child("a", "b").inc(2)
    counter.child("a", 'q"\n').inc()
    told = _told(counter)
    assert told["things_total", (("kind", "a"), ("size", "b"))] == 3
    assert told["things_total", (("kind", "a"), ("size", 'q"\n'))] == 1


def test_labels_must_be_complete() -> None:
    with pytest.raises(ValueError, match="things_total"):
        Counter("things_total", "Things.", ("kind", "size")).child("a")


def test_a_gauge_goes_up_and_down() -> None:
    gauge = Gauge("level", "Level.")
    gauge.set(3)
    gauge.child().inc()
    gauge.child().dec(2)
    assert _told(gauge)["level", ()] == 2


def test_a_source_is_read_when_asked() -> None:
    values = {"x": 1.0}
    gauge = Gauge("level", "Level.", ("of",))
    gauge.read_from(lambda: [((name,), value) for name, value in values.items()])
    values["x"] = 5.0
    assert _told(gauge)["level", (("of", "x"),)] == 5


def test_a_histogram_has_cumulative_buckets() -> None:
    histogram = Histogram("wait_seconds", "Wait.", (), (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(value)
    told = _told(histogram)
    assert told["wait_seconds_bucket", (("le", "0.1"),)] == 2
    assert told["wait_seconds_bucket", (("le", "1.0"),)] == 3
    assert told["wait_seconds_bucket", (("le", "+Inf"),)] == 4
    assert told["wait_seconds_count", ()] == 4
    assert told["wait_seconds_sum", ()] == pytest.approx(7.65)


def test_metrics_without_samples_are_not_told() -> None:
    assert not any(name == "nothing_total" for name, _ in _told(Counter("nothing_total", "Nothing.", ("x",))))


def test_the_process_itself_is_told() -> None:
    names = {name for name, _ in _told()}
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "python_info"} <= names


def test_the_database_is_told_from_its_own_figures() -> None:
    usage = {"rooms.get": SimpleNamespace(transactions=2, statements=3, retries=1, seconds=0.25)}
    sources.watch_database(usage, SimpleNamespace(size=4, waiting=2))
    told = _told(*table.ALL)
    label = (("name", "rooms.get"),)
    assert told["synapse_db_transactions_total", label] == 2
    assert told["synapse_db_statements_total", label] == 3
    assert told["synapse_db_retries_total", label] == 1
    assert told["synapse_db_seconds_total", label] == 0.25
    assert (told["synapse_db_threads", ()], told["synapse_db_waiting", ()]) == (4, 2)


def test_caches_are_told_from_their_own_figures() -> None:
    caches = Caches()
    sources.watch_caches(caches)
    cache = caches.lru("rooms", 2)
    for key in "abcc":
        cache.get(key)
        cache.set(key, 1)
    told = _told(*table.ALL)
    label = (("cache", "rooms"),)
    names = ("hits_total", "misses_total", "evictions_total", "entries", "max_entries")
    assert [told[f"synapse_cache_{name}", label] for name in names] == [1, 3, 1, 2, 2]


def test_a_process_says_what_it_is() -> None:
    sources.describe_process("synapse.app.pusher", "pusher1", "0.1")
    labels = (("app", "synapse.app.pusher"), ("name", "pusher1"), ("version", "0.1"))
    assert _told(*table.ALL)["synapse_build_info", labels] == 1


def test_lag_is_how_late_a_timer_fires() -> None:
    clock = Clock()
    lag = sources.ReactorLag(clock)
    lag.start()
    clock.advance(sources.LAG_INTERVAL)
    clock.advance(sources.LAG_INTERVAL + 0.3)
    lag.stop()
    clock.advance(60)
    told = _told(table.REACTOR_LAG)
    assert told["synapse_reactor_lag_seconds_count", ()] == 2
    assert told["synapse_reactor_lag_seconds_sum", ()] == pytest.approx(0.3)
    assert not clock.getDelayedCalls()


def test_names_are_unique_and_well_formed() -> None:
    names = [metric.name for metric in table.ALL]
    assert len(names) == len(set(names))
    for metric in table.ALL:
        assert re.fullmatch(r"synapse_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == isinstance(metric, Counter)


def test_the_documentation_lists_every_metric_and_no_other() -> None:
    documented = re.findall(r"^\| `(synapse_\w+)(?:\{([\w, ]*)\})?` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted((metric.name, ", ".join(metric.labels)) for metric in table.ALL)


def test_counting_needs_no_client_library() -> None:
    code = "import sys, synapse.metrics.table, synapse.metrics.sources; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
