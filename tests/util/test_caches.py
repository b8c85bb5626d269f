"""Caches: bounds, shared loads, and that nothing stale is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred

from synapse.util.caches import Cache, Caches, LruCache, StreamChangeCache
from synapse.util.concurrency import spawn


def test_the_least_recently_used_is_evicted() -> None:
    cache: LruCache[str, int] = LruCache("c", 2)
    cache.set("a", 1)
    cache.set("b", 2)
    assert cache.get("a") == 1
    cache.set("c", 3)
    assert cache.get("b") is None
    assert (cache.get("a"), cache.get("c")) == (1, 3)
    assert (cache.hits, cache.misses, cache.evictions) == (3, 1, 1)


class Loader:
    """A load that a test finishes by hand."""

    def __init__(self) -> None:
        self.loads: list[Deferred[int]] = []

    async def __call__(self, key: object) -> int:
        load: Deferred[int] = Deferred()
        self.loads.append(load)
        return await load


@ensureDeferred
async def test_concurrent_misses_share_one_load() -> None:
    cache: Cache[str, int] = Cache("c", 10)
    loader = Loader()
    waiting = [spawn(cache.fetch("a", loader)) for _ in range(3)]
    assert len(loader.loads) == 1
    loader.loads[0].callback(7)
    assert [await each for each in waiting] == [7, 7, 7]
    assert await cache.fetch("a", loader) == 7
    assert len(loader.loads) == 1


@ensureDeferred
async def test_a_value_invalidated_while_loading_is_not_kept() -> None:
    cache: Cache[str, int] = Cache("c", 10)
    loader = Loader()
    early = spawn(cache.fetch("a", loader))
    cache.invalidate("a")
    late = spawn(cache.fetch("a", loader))
    assert len(loader.loads) == 2, "who asks after the invalidation does not get what was read before it"
    loader.loads[0].callback(1)
    assert await early == 1
    assert cache.peek("a") is None
    loader.loads[1].callback(2)
    assert await late == 2
    assert cache.peek("a") == 2


@ensureDeferred
async def test_clear_reaches_loads_too() -> None:
    cache: Cache[str, int] = Cache("c", 10)
    loader = Loader()
    early = spawn(cache.fetch("a", loader))
    cache.clear()
    loader.loads[0].callback(1)
    assert await early == 1
    assert len(cache) == 0


@ensureDeferred
async def test_failures_reach_all_and_are_not_remembered() -> None:
    cache: Cache[str, int] = Cache("c", 10)
    loader = Loader()
    waiting = [spawn(cache.fetch("a", loader)) for _ in range(2)]
    loader.loads[0].errback(ZeroDivisionError())
    for each in waiting:
        with pytest.raises(ZeroDivisionError):
            await each
    again = spawn(cache.fetch("a", loader))
    loader.loads[1].callback(1)
    assert await again == 1


@ensureDeferred
async def test_a_load_that_fails_at_once() -> None:
    async def fail(key: str) -> int:
        raise ZeroDivisionError

    cache: Cache[str, int] = Cache("c", 10)
    with pytest.raises(ZeroDivisionError):
        await cache.fetch("a", fail)


@ensureDeferred
async def test_one_who_stops_waiting_does_not_stop_the_others() -> None:
    cache: Cache[str, int] = Cache("c", 10)
    loader = Loader()
    first, second = spawn(cache.fetch("a", loader)), spawn(cache.fetch("a", loader))
    first.cancel()
    loader.loads[0].callback(1)
    assert await second == 1
    with pytest.raises(CancelledError):
        await first


@ensureDeferred
async def test_many_are_loaded_together_and_stale_ones_not_kept() -> None:
    cache: Cache[str, int] = Cache("c", 10)
    cache.set("a", 1)
    asked: list[list[str]] = []

    async def load(keys: list[str]) -> dict[str, int]:
        asked.append(keys)
        cache.invalidate("c")
        return dict.fromkeys(keys, 9)

    assert await cache.fetch_many(["a", "b", "c"], load) == {"a": 1, "b": 9, "c": 9}
    assert asked == [["b", "c"]]
    assert (cache.peek("b"), cache.peek("c")) == (9, None)


def test_caches_are_found_by_name() -> None:
    caches = Caches(lambda name, entries: entries * 2)
    shared, own = caches.cache("shared", 5), caches.lru("own", 5)
    assert shared.size == 10
    for cache in (shared, own):
        cache.set(("a", "b"), 1)
        cache.set("c", 2)
    caches.invalidate("shared", ("a", "b"))
    assert (shared.peek(("a", "b")), shared.peek("c")) == (None, 2)
    caches.invalidate("unknown", "x")
    caches.forget_shared()
    assert (len(shared), len(own)) == (0, 2)
    with pytest.raises(ValueError, match="two caches"):
        caches.lru("own", 1)


def test_a_change_cache_names_what_changed_between_two_positions() -> None:
    changes = StreamChangeCache("c", 4)
    assert changes.all_changed(0, 5, 10) is None
    changes.start(10)
    assert changes.all_changed(10, 10, 10) == []
    for position, entity in enumerate("abca", 11):
        changes.record(entity, position)
    assert changes.all_changed(10, 14, 10) == ["a", "c", "b"]
    assert changes.all_changed(12, 14, 10) == ["a", "c"]
    assert changes.all_changed(10, 13, 10) == ["c", "b"], "of a, there will be later news"
    assert changes.all_changed(10, 14, 3) == ["a", "c", "b"]
    assert changes.all_changed(10, 14, 2) is None, "too many"
    assert changes.all_changed(9, 14, 10) is None, "too long ago"


def test_a_change_cache_says_yes_where_it_cannot_know() -> None:
    changes = StreamChangeCache("c", 2)
    assert changes.changed("a", 0)
    changes.start(10)
    assert changes.changed("a", 9)
    assert not changes.changed("a", 10)
    assert not changes.any_changed(10)
    changes.record("a", 11)
    assert changes.changed("a", 10)
    assert changes.any_changed(10)
    assert not changes.changed("a", 11)
    assert changes.changed_of(["a", "b"], 10) == {"a"}
    assert changes.changed_of(["a", "b"], 9) == {"a", "b"}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=40), st.integers(1, 4), st.integers(0, 60))
def test_a_change_cache_never_misses_a_change(steps: list[tuple[int, int]], size: int, since: int) -> None:
    changes = StreamChangeCache("c", size)
    changes.start(5)
    position, truth = 5, {}
    for entity, step in steps:
        position += step
        truth[entity] = position
        changes.record(entity, position)
    for entity, at in truth.items():
        if at > since:
            assert changes.changed(entity, since)
    assert changes.changed_of(range(6), since) >= {entity for entity, at in truth.items() if at > since}
