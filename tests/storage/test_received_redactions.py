"""Received redactions: those that come before what they redact, wait for it, and are shown to nobody until then."""

from __future__ import annotations

import pytest
import pytest_twisted

from synapse.replication.event_rows import EventRow, rows_of
from synapse.storage.database import Database
from synapse.storage.persist_events import Fate, Kind, PushAction, ReceivedEvent
from tests.storage.test_received import check_present, column, extremities, shared_room
from tests.support.received import EVE
from tests.support.rooms import ALICE, BOB, check_invariants, start


@pytest_twisted.ensureDeferred
async def test_a_redaction_that_comes_before_its_target_takes_effect_with_it(database: Database) -> None:
    cluster, graph = await shared_room(database, workers=1)
    secret = graph.say(EVE, "a secret")
    redaction = graph.make(EVE, "m.room.redaction", {"redacts": secret.event_id})
    assert await graph.give(graph.with_state(redaction)) == [Fate.SOFT_FAILED]
    waiting = "SELECT event_id, server_name FROM pending_redactions"
    assert await column(database, "p", waiting) == [(secret.event_id, "elsewhere")]
    graph.cluster = cluster = await start(database, workers=1)  # the database remembers
    push = (PushAction(ALICE.user_id, True, False),)
    assert await graph.give(ReceivedEvent(secret, push=push)) == [Fate.ACCEPTED]
    assert await column(database, "p", waiting) == []
    redacted = "SELECT redacted_by FROM events WHERE event_id = %s"
    assert await column(database, "r", redacted, secret.event_id) == [redaction.event_id]
    assert await column(database, "u", "SELECT 1 FROM push_actions") == []
    rows = [row for _, row in rows_of(cluster.announced) if isinstance(row, EventRow)]
    assert (rows[0].event_id, rows[0].json) == (secret.event_id, "")  # nobody is told the secret
    assert (rows[1].event_id, rows[1].redacts) == (redaction.event_id, secret.event_id)
    for process in (cluster.main, *cluster.workers):
        stored = await process.events.get(secret.event_id)
        assert stored is not None
        assert stored.shown.content == {}
        stored = await process.events.get(redaction.event_id)
        assert stored is not None
        assert not stored.soft_failed
    await check_present(cluster, database, graph)


@pytest_twisted.ensureDeferred
async def test_a_redaction_waits_for_what_it_may_redact_alone(database: Database) -> None:
    cluster, graph = await shared_room(database)
    name = graph.make(ALICE.user_id, "m.room.name", {"name": "oops"}, state_key="")
    said = graph.say(BOB.user_id, "not yours", after=name.prev_event_ids)
    theirs = graph.make(EVE, "m.room.redaction", {"redacts": said.event_id}, after=[said.event_id])
    ours = graph.make(ALICE.user_id, "m.room.redaction", {"redacts": name.event_id}, after=[theirs.event_id])
    assert await graph.give(graph.with_state(theirs), graph.with_state(ours)) == [Fate.SOFT_FAILED] * 2
    assert await graph.give(said, name) == [Fate.ACCEPTED] * 2
    hidden = "SELECT event_id FROM events WHERE soft_failed"
    assert await column(database, "s", hidden) == [theirs.event_id]
    redacted = "SELECT redacted_by FROM events WHERE event_id = %s"
    assert await column(database, "r", redacted, said.event_id) == [None]
    assert await column(database, "r", redacted, name.event_id) == [ours.event_id]
    assert await column(database, "s", "SELECT name FROM room_stats") == [None]
    await check_present(cluster, database, graph)


@pytest_twisted.ensureDeferred
async def test_a_redaction_in_order_is_judged_here(database: Database) -> None:
    cluster, graph = await shared_room(database)
    said, own = graph.say(BOB.user_id, "not yours"), graph.say(EVE, "mine")
    redactions = [graph.make(EVE, "m.room.redaction", {"redacts": event.event_id}) for event in (said, own)]
    assert await graph.give(said, own, *redactions) == [Fate.ACCEPTED, Fate.ACCEPTED, Fate.SOFT_FAILED, Fate.ACCEPTED]
    redacted = "SELECT redacted_by FROM events WHERE event_id = %s"
    assert await column(database, "r", redacted, said.event_id) == [None]
    assert await column(database, "r", redacted, own.event_id) == [redactions[1].event_id]
    await check_present(cluster, database, graph)


@pytest_twisted.ensureDeferred
async def test_nothing_waits_for_what_comes_in_the_same_transaction(database: Database) -> None:
    """Of two branches, each refers to what the other one has; the one is taken in first."""
    _, graph = await shared_room(database)
    fork = sorted(graph.dag.extremities)
    before = graph.before(graph.make(EVE, "m.room.message", {"body": "nothing"}, after=fork))
    secret = graph.make(EVE, "m.room.message", {"body": "a secret"}, after=fork)
    after_secret = graph.make(EVE, "m.room.message", {"body": "after"}, after=[secret.event_id])
    redaction = graph.make(EVE, "m.room.redaction", {"redacts": secret.event_id}, after=fork)
    early = ReceivedEvent(after_secret, state_before=before)
    assert Fate.REJECTED not in await graph.give(redaction, early, secret)
    assert await column(database, "p", "SELECT event_id FROM pending_redactions") == []
    assert await column(database, "p", "SELECT event_id FROM backward_extremities") == []
    redacted = "SELECT redacted_by FROM events WHERE event_id = %s"
    assert await column(database, "r", redacted, secret.event_id) == [redaction.event_id]


@pytest.mark.parametrize("referred", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_redaction_may_be_referred_to_before_it_is_shown(database: Database, referred: bool) -> None:
    cluster, graph = await shared_room(database)
    secret = graph.say(EVE, "a secret")
    first, second = (graph.make(EVE, "m.room.redaction", {"redacts": secret.event_id}) for _ in range(2))
    assert await graph.give(graph.with_state(first), graph.with_state(second)) == [Fate.SOFT_FAILED] * 2
    if referred:
        assert await graph.give(graph.say(EVE, "after")) == [Fate.ACCEPTED]
    # Its target is told as history, or comes with the stream.
    kind = Kind.HISTORY if referred else Kind.TIMELINE
    assert await graph.give(secret, kind=kind) == [Fate.ACCEPTED]
    told = [row.event_id for _, row in rows_of(cluster.announced) if isinstance(row, EventRow)]
    assert told[-2:] == [first.event_id, second.event_id]
    [position] = await column(database, "p", "SELECT stream_ordering FROM events WHERE event_id = %s", first.event_id)
    assert position == cluster.announced[-2].stream_ordering
    if not referred:  # history moves no extremities by itself
        await check_present(cluster, database, graph)
    assert await graph.give(first, second) == [Fate.KNOWN] * 2
    assert await graph.give(graph.say(EVE, "last")) == [Fate.ACCEPTED]
    await check_present(cluster, database, graph)


@pytest_twisted.ensureDeferred
async def test_redactions_of_the_past_stay_there(database: Database) -> None:
    cluster, graph = await shared_room(database, workers=1)
    secret = graph.say(EVE, "a secret")
    redaction = graph.make(EVE, "m.room.redaction", {"redacts": secret.event_id})
    assert await graph.give(graph.with_state(graph.say(EVE))) == [Fate.ACCEPTED]
    count = len(cluster.announced)
    assert await graph.give(graph.with_state(redaction), kind=Kind.HISTORY) == [Fate.SOFT_FAILED]
    for process in cluster.workers:
        await process.events.get(redaction.event_id)
    assert await graph.give(secret, kind=Kind.HISTORY) == [Fate.ACCEPTED]
    assert len(cluster.announced) == count
    shown = "SELECT soft_failed, stream_ordering < 0 FROM events WHERE event_id = %s"
    assert await column(database, "s", shown, redaction.event_id) == [(False, True)]
    for process in (cluster.main, *cluster.workers):
        stored = await process.events.get(redaction.event_id)
        assert stored is not None
        assert not stored.soft_failed
    assert await graph.give(graph.say(EVE)) == [Fate.ACCEPTED]
    await check_present(cluster, database, graph)


@pytest.mark.parametrize("version", ["1", "2"])
@pytest_twisted.ensureDeferred
async def test_what_the_auth_rules_have_judged_waits_for_nothing(database: Database, version: str) -> None:
    cluster, graph = await shared_room(database, room_version=version)
    secret = graph.say(EVE, "a secret")
    redaction = graph.make(ALICE.user_id, "m.room.redaction", {}, redacts=secret.event_id)
    assert await graph.give(graph.with_state(redaction)) == [Fate.ACCEPTED]
    count = len(cluster.announced)
    assert await graph.give(secret) == [Fate.ACCEPTED]
    assert len(cluster.announced) == count + 1
    await check_present(cluster, database, graph)


@pytest_twisted.ensureDeferred
async def test_an_outlier_that_was_redacted_before_it_came_is_redacted(database: Database) -> None:
    cluster, graph = await shared_room(database)
    secret = graph.make(ALICE.user_id, "m.room.topic", {"topic": "a secret"}, state_key="")
    redaction = graph.make(ALICE.user_id, "m.room.redaction", {"redacts": secret.event_id})
    assert await graph.give(graph.with_state(redaction), outliers=[]) == [Fate.REFUSED]
    await graph.give(outliers=[secret])
    assert await graph.give(graph.with_state(redaction)) == [Fate.ACCEPTED]
    redacted = "SELECT redacted_by, outlier FROM events WHERE event_id = %s"
    assert await column(database, "r", redacted, secret.event_id) == [(redaction.event_id, True)]
    assert await graph.give(secret) == [Fate.ACCEPTED]
    assert await column(database, "r", redacted, secret.event_id) == [(redaction.event_id, False)]
    await check_present(cluster, database, graph)


@pytest_twisted.ensureDeferred
async def test_a_redaction_with_a_state_that_is_another_altogether_stays_hidden(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, graph = await shared_room(database, workers=1)
    joins = [graph.join(f"@friend{number}:elsewhere") for number in range(10)]
    assert await graph.give(*joins) == [Fate.ACCEPTED] * 10
    monkeypatch.setattr("synapse.storage.persist_received.MAX_DISPUTED", 8)
    before = dict(graph.dag.present)
    secret = graph.say(EVE, "a secret", after=joins[-1].prev_event_ids)
    redaction = graph.make(EVE, "m.room.redaction", {"redacts": secret.event_id}, after=[secret.event_id])
    lie = {key: i for key, i in before.items() if key[1] not in {f"@friend{n}:elsewhere" for n in range(9)}}
    assert await graph.give(ReceivedEvent(redaction, state_before=lie)) == [Fate.SOFT_FAILED]
    assert await graph.give(secret) == [Fate.ACCEPTED]
    assert await cluster.main.state.current_ids(graph.room_id) == before
    ends = await extremities(database, graph)
    assert ends == {secret.event_id, joins[-1].event_id}
    assert await column(database, "s", "SELECT event_id FROM events WHERE soft_failed") == [redaction.event_id]
    redacted = "SELECT redacted_by FROM events WHERE event_id = %s"
    assert await column(database, "r", redacted, secret.event_id) == [redaction.event_id]
    assert await graph.give(graph.say(EVE, "last", after=[joins[-1].event_id])) == [Fate.ACCEPTED]
    await check_invariants(cluster, database)
