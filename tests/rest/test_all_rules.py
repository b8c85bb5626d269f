"""Everything that an account may be asked for, at once: what it costs those who have done it, and nonsense."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted

from synapse.api.route_table import conduct
from synapse.api.routes import ENDPOINTS, Endpoint
from synapse.handlers.account_rules import LOGGING_OUT, NOT_WHILE_SUSPENDED
from synapse.handlers.account_validity import SEND_MAIL
from synapse.handlers.usage_limits import LIMITED
from synapse.http.request import RawRequest
from synapse.storage.pool import PoolSettings
from tests.conformance.mutations import RAW, TEXTS
from tests.rest.people import Person, person
from tests.rest.test_consent import policy
from tests.rest.test_moderation import administrator
from tests.support.homeserver import Cluster, cluster


@pytest_twisted.async_yield_fixture
async def made(database_settings: PoolSettings, tmp_path: Path) -> AsyncIterator[Cluster]:
    options: dict[str, Any] = {
        **policy(tmp_path),
        "limit_usage_by_mau": True,
        "max_mau_value": 100,
        "admin_contact": "mailto:admin@test",
        "account_validity": {"enabled": True, "period": "100d"},
    }
    async with cluster(database_settings, "event_creator", "synchrotron", **options) as servers:
        yield servers


@pytest_twisted.ensureDeferred
async def test_who_has_done_it_all_pays_nothing_for_it(made: Cluster) -> None:
    alice = await person(made.main, "alice")
    conduct = made.main.hs.conduct
    assert conduct.consent is not None
    assert conduct.validity is not None
    await conduct.consent.record(alice.id)
    await conduct.validity.run()
    room = await alice.room()
    creator, reader = (Person(made[app].client, alice.id, alice.token) for app in ("event_creator", "synchrotron"))
    since = (await reader.get("/sync"))["next_batch"]
    for process in (alice, creator):
        await process.say(room, f"first {process is alice}")
    # Of the 4 statements that write an event, the worker reads none, and pays for none.
    with made["event_creator"].hs.database.counted() as worker, made.main.hs.database.counted() as main:
        await creator.say(room, "second")
    assert (worker.statements_read, worker.statements_written) == (0, 0), worker.sql
    assert (main.statements_read, main.statements_written) == (0, 4), main.sql
    await made.caught_up()
    since = (await reader.get(f"/sync?since={since}"))["next_batch"]
    with made["synchrotron"].hs.database.counted() as counts:
        await reader.get(f"/sync?since={since}")
    assert (counts.statements_read, counts.statements_written) == (0, 0), counts.sql


@pytest_twisted.ensureDeferred
async def test_the_main_process_alone_looks_after_it(made: Cluster) -> None:
    assert len(made.main.hs.conduct.background) == 3
    assert made["event_creator"].hs.conduct.background == []


def test_what_rules_name_are_endpoints() -> None:
    names = {endpoint.name for endpoint in ENDPOINTS}
    assert names >= NOT_WHILE_SUSPENDED | LOGGING_OUT | LIMITED | {SEND_MAIL}


@pytest.mark.parametrize("endpoint", conduct.ENDPOINTS, ids=lambda endpoint: endpoint.name)
@pytest_twisted.ensureDeferred
async def test_nonsense(made: Cluster, endpoint: Endpoint) -> None:
    admin = await administrator(made.main)
    assert made.main.hs.conduct.consent is not None
    h = made.main.hs.conduct.consent.mac(admin.id)
    fields = ("u", "h", "v", "lang", "token", "user_id", "content")
    good = {"u": "admin", "h": h, "v": "2.0"}
    queries = [""]
    for name in fields:
        queries += ["&".join(f"{key}={value}" for key, value in {**good, name: text}.items()) for text in TEXTS[:30]]
    targets = [(endpoint.example(user_id=text or "x", txn_id=text or "x"), b"{}") for text in TEXTS[:30]]
    targets += [(f"{endpoint.example(user_id=quote(admin.id))}?{query}", query.encode()) for query in queries]
    targets += [(endpoint.example(user_id=quote(admin.id)), body) for body, _ in RAW]
    headers = {"authorization": f"Bearer {admin.token}", "accept-language": "\xff, ../en;q=*, de"}
    for target, body in targets:
        for method in endpoint.methods:
            answer = await made.main.hs.router.handle(RawRequest(method, target, dict(headers), body))
            assert answer.code < 500, (target, body, answer)
