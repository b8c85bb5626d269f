"""Sets of events that state resolution finds in the graph of auth events: chains, differences, subgraphs, orderings.

The graph is given as what each event cites. It is a DAG; were it not (ids of room versions 1 and 2 are chosen freely),
nothing here would loop, and the events on the cycle would come last in orderings.

Room version 2, "Definitions"; room version 12 for the conflicted state subgraph.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import Any

Cites = Callable[[str], Iterable[str]]


def chain_of(sources: Iterable[str], cites: Cites) -> set[str]:
    """The auth chains of the sources together: everything that can be reached from them in at least one step."""
    reached: set[str] = set()
    pending = list(sources)
    while pending:
        fresh = set(cites(pending.pop())) - reached
        reached |= fresh
        pending += fresh
    return reached


def in_chain_of(candidates: Collection[str], sources: Iterable[str], cites: Cites) -> set[str]:
    """Those of the candidates that are in the chains of the sources: `chain_of` that stops when all are found."""
    wanted = set(candidates)
    found: set[str] = set()
    reached: set[str] = set()
    pending = list(sources)
    while pending and found != wanted:
        fresh = set(cites(pending.pop())) - reached
        reached |= fresh
        found |= fresh & wanted
        pending += fresh
    return found


def citing_first(sources: Collection[str], cites: Cites) -> list[str]:
    """The sources and their chains, in an order in which each event stands before what it cites."""
    order: list[str] = []
    done: set[str] = set()
    for source in sources:
        if source in done:
            continue
        done.add(source)
        path = [(source, iter(cites(source)))]
        while path:
            event_id, rest = path[-1]
            for cited in rest:
                if cited not in done:
                    done.add(cited)
                    path.append((cited, iter(cites(cited))))
                    break
            else:
                order.append(event_id)
                path.pop()
    order.reverse()
    return order


def chain_difference(sets: Sequence[Collection[str]], order: Sequence[str], cites: Cites) -> set[str]:
    """The events that are in the chain of some of the sets but not of all; `order` is `citing_first` of all of them.

    Each event gets a bit per set in whose chain it is, handed down from what cites it: one pass however many sets.
    """
    own: dict[str, int] = {}
    for number, members in enumerate(sets):
        for event_id in members:
            own[event_id] = own.get(event_id, 0) | 1 << number
    chains: dict[str, int] = {}
    for event_id in order:
        bits = chains.get(event_id, 0) | own.get(event_id, 0)
        for cited in cites(event_id):
            chains[cited] = chains.get(cited, 0) | bits
    everywhere = (1 << len(sets)) - 1
    return {event_id for event_id, bits in chains.items() if bits != everywhere}


def subgraph_between(ends: Collection[str], order: Sequence[str], cites: Cites) -> set[str]:
    """All events on paths between the ends, ends included; `order` is `citing_first` of the ends."""
    between = set(ends)
    for event_id in reversed(order):
        if event_id not in between and any(cited in between for cited in cites(event_id)):
            between.add(event_id)
    return between


def topological(event_ids: Collection[str], cites: Cites, rank: Callable[[str], Any]) -> list[str]:
    """Cited events first, and among those that may come next the lowest rank first (Kahn's algorithm)."""
    open_count = dict.fromkeys(event_ids, 0)
    citing: dict[str, list[str]] = {event_id: [] for event_id in event_ids}
    for event_id in event_ids:
        for cited in set(cites(event_id)):
            if cited in citing:
                citing[cited].append(event_id)
                open_count[event_id] += 1
    heap = [(rank(event_id), event_id) for event_id, count in open_count.items() if count == 0]
    heapify(heap)
    ordered: list[str] = []
    while heap:
        event_id = heappop(heap)[1]
        ordered.append(event_id)
        for later in citing[event_id]:
            open_count[later] -= 1
            if open_count[later] == 0:
                heappush(heap, (rank(later), later))
    if len(ordered) < len(open_count):
        ordered += sorted(set(open_count).difference(ordered), key=rank)
    return ordered
