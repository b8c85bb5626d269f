"""Bounded caches. They forget what was used least lately, count their hits, and are told by name what to forget.

- `LruCache` is a dict with a bound.
- `Cache` loads what it misses: callers that miss the same key at the same time share one load, and what is
invalidated while
  it is being loaded is handed to those who asked before, but not kept.
- `StreamChangeCache` answers "has this changed since position P?".
- `Caches` makes them for one process, with the configured sizes, and finds them by name when the stream `caches` says
that
  something changed.

Everything happens in the reactor's thread; there are no locks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")
C = TypeVar("C", bound="LruCache[Any, Any]")


class LruCache(Generic[K, V]):
    """A mapping of at most `size` entries."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self._entries: dict[K, V] = {}  # the one used last comes last

    def get(self, key: K, default: D = None) -> V | D:  # type: ignore[assignment]  # D is None where it is not given
        """The value, which thereby counts as used, or `default`."""
        try:
            value = self._entries.pop(key)
        except KeyError:
            self.misses += 1
            return default
        self._entries[key] = value
        self.hits += 1
        return value

    def peek(self, key: K) -> V | None:
        """The value without any effect on the order or the hit rate."""
        return self._entries.get(key)

    def set(self, key: K, value: V) -> None:
        entries = self._entries
        entries.pop(key, None)
        entries[key] = value
        if len(entries) > self.size:
            del entries[next(iter(entries))]
            self.evictions += 1

    def pop(self, key: K) -> V | None:
        """Forgets one entry and returns it."""
        value = self._entries.get(key)
        self.invalidate(key)
        return value

    def invalidate(self, key: K) -> None:
        """Forgets one entry, because what it was made of changed."""
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries


class _Load(Generic[V]):
    """One load and those who wait for it. One who stops waiting does not stop the others."""

    __slots__ = ("_result", "_waiting")

    def __init__(self) -> None:
        self._result: list[V | Failure] = []
        self._waiting: list[Deferred[V]] = []

    def end(self, result: V | Failure) -> None:
        self._result.append(result)
        for waiting in self._waiting:
            if not waiting.called:
                waiting.callback(result)  # a Failure makes it fail

    async def wait(self) -> V:
        waiting: Deferred[V] = Deferred()
        if self._result:
            waiting.callback(self._result[0])
        else:
            self._waiting.append(waiting)
        return await waiting


class Cache(LruCache[K, V]):
    """An `LruCache` that loads what it does not hold."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__(name, size)
        self.on_forget: Callable[[K | None], None] | None = None  # is told what is invalidated, None for everything
        self._loads: dict[K, _Load[V]] = {}
        self._bulk_loads: list[set[K]] = []  # for each: the keys that are still vouched for

    async def fetch(self, key: K, load: Callable[[K], Awaitable[V]]) -> V:
        """The value, loaded by `load(key)` where it is not held. Raises what `load` raises; that is not remembered."""
        if key in self._entries:
            return self.get(key)
        self.misses += 1
        loading = self._loads.get(key)
        if loading is None:
            loading = self._loads[key] = _Load()
            Deferred.fromCoroutine(self._load(key, loading, load)).addBoth(loading.end)
        return await loading.wait()

    async def fetch_many(self, keys: Iterable[K], load: Callable[[list[K]], Awaitable[dict[K, V]]]) -> dict[K, V]:
        """The values of all keys; those not held are loaded together. A key that `load` does not return is left out."""
        found: dict[K, V] = {}
        missing: list[K] = []
        for key in keys:
            if key in self._entries:
                found[key] = self.get(key)
            else:
                missing.append(key)
        if missing:
            self.misses += len(missing)
            found.update(await self._load_many(missing, load))
        return found

    def invalidate(self, key: K) -> None:
        super().invalidate(key)
        self._loads.pop(key, None)  # whoever asks from now on loads anew
        for vouched in self._bulk_loads:
            vouched.discard(key)
        if self.on_forget is not None:
            self.on_forget(key)

    def clear(self) -> None:
        super().clear()
        self._loads.clear()
        for vouched in self._bulk_loads:
            vouched.clear()
        if self.on_forget is not None:
            self.on_forget(None)

    async def _load(self, key: K, loading: _Load[V], load: Callable[[K], Awaitable[V]]) -> V:
        vouched = False
        try:
            value = await load(key)
        finally:
            if self._loads.get(key) is loading:
                del self._loads[key]
                vouched = True
        if vouched:
            self.set(key, value)
        return value

    async def _load_many(self, keys: list[K], load: Callable[[list[K]], Awaitable[dict[K, V]]]) -> dict[K, V]:
        vouched = set(keys)
        self._bulk_loads.append(vouched)
        try:
            loaded = await load(keys)
        finally:
            # Not `remove`, which compares by value: two loads of the same keys are equal.
            self._bulk_loads = [other for other in self._bulk_loads if other is not vouched]
        for key, value in loaded.items():
            if key in vouched:
                self.set(key, value)
        return loaded


class StreamChangeCache:
    """Which entities (users, rooms) changed in a stream, and when; of the last `size` that did.

    Where it cannot know, because that is too long ago or was before it was told of the stream, it says yes.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.hits = 0
        self.misses = 0
        self._floor: int | None = None
        self._positions: dict[Hashable, int] = {}  # in the order of the stream

    def start(self, position: int) -> None:
        """Everything after `position` will be told; of what was before, nothing is known."""
        self._floor = position
        self._positions.clear()

    def record(self, entity: Hashable, position: int) -> None:
        """`entity` changed at `position`, which is not before any that was told earlier."""
        if self._floor is None:
            self._floor = position - 1
        positions = self._positions
        positions.pop(entity, None)
        positions[entity] = position
        if len(positions) > self.size:
            oldest = next(iter(positions))
            self._floor = max(self._floor, positions.pop(oldest))

    def changed(self, entity: Hashable, since: int) -> bool:
        """Whether the entity changed after `since`, or may have."""
        if self._floor is None or since < self._floor:
            self.misses += 1
            return True
        self.hits += 1
        return self._positions.get(entity, since) > since

    def changed_of(self, entities: Iterable[K], since: int) -> set[K]:
        """Those of `entities` that changed after `since`, or may have."""
        if self._floor is None or since < self._floor:
            self.misses += 1
            return set(entities)
        self.hits += 1
        positions = self._positions
        return {entity for entity in entities if positions.get(entity, since) > since}

    def all_changed(self, since: int, until: int, most: int) -> list[Hashable] | None:
        """All that changed after `since`, and for the last time not after `until`; None if there may be others, or
        more than `most` have changed.
        """
        if self._floor is None or since < self._floor:
            self.misses += 1
            return None
        self.hits += 1
        found: list[Hashable] = []
        for count, (entity, position) in enumerate(reversed(self._positions.items())):
            if position <= since:
                break
            if count == most:
                return None
            if position <= until:
                found.append(entity)
        return found

    def any_changed(self, since: int) -> bool:
        """Whether anything at all changed after `since`, or may have."""
        if self._floor is None or since < self._floor:
            return True
        newest = next(reversed(self._positions.values()), self._floor)
        return newest > since

    def __len__(self) -> int:
        return len(self._positions)


class Caches:
    """The caches of one process, by name.

    :param size_of: the configured size of a cache, from its name and its usual size: `config.caches.size`.
    """

    def __init__(self, size_of: Callable[[str, int], int] = lambda name, entries: entries) -> None:
        self._size_of = size_of
        self._by_name: dict[str, LruCache[Any, Any]] = {}
        self._shared: set[str] = set()

    def lru(self, name: str, entries: int) -> LruCache[Any, Any]:
        """A cache that its owner keeps right by other means than the stream `caches`."""
        return self._add(LruCache(name, self._size_of(name, entries)))

    def cache(self, name: str, entries: int, *, shared: bool = True) -> Cache[Any, Any]:
        """A cache that loads; a `shared` one is invalidated through the stream `caches`, by its name."""
        if shared:
            self._shared.add(name)
        return self._add(Cache(name, self._size_of(name, entries)))

    def invalidate(self, name: str, key: Hashable | None) -> None:
        """Forgets what the stream says:

        One key, or everything (None). A name that this process has no cache of is fine.
        """
        cache = self._by_name.get(name)
        if cache is None:
            return
        if key is None:
            cache.clear()
        else:
            cache.invalidate(key)

    def forget_shared(self) -> None:
        """Forgets all that the stream `caches` should have told about: rows of it were missed."""
        for name in self._shared:
            self._by_name[name].clear()

    def __iter__(self) -> Iterator[LruCache[Any, Any]]:
        return iter(list(self._by_name.values()))

    def _add(self, cache: C) -> C:
        if cache.name in self._by_name:
            raise ValueError(f"there are two caches of the name {cache.name}")
        self._by_name[cache.name] = cache
        return cache
