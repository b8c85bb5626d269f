"""Logging in by SAML takes few threads at a time, whatever its provider takes."""

from __future__ import annotations

from typing import Any

import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.config.saml import SamlConfig
from synapse.handlers.sso.saml import AT_ONCE, MAX_WAITING, SamlProvider
from synapse.handlers.sso.types import SsoRefused, ToLogIn
from synapse.storage.database import Database
from synapse.storage.saml_assertions import SamlAssertionStore
from tests.support.deferreds import started


@pytest_twisted.ensureDeferred
async def test_a_provider_that_does_not_answer_takes_few_threads(database: Database) -> None:
    busy: list[Deferred[Any]] = []

    def in_thread(*_: Any) -> Deferred[Any]:
        busy.append(Deferred())
        return busy[-1]

    def service() -> Any:
        raise AssertionError("nothing runs here")

    store = SamlAssertionStore(database)
    provider = SamlProvider(SamlConfig(), service, store, Clock(), in_thread, allow_unsolicited=False)
    begun = [started(provider.begin("state", ToLogIn("app://x"))) for _ in range(AT_ONCE + MAX_WAITING + 1)]
    assert len(busy) == AT_ONCE
    refused: list[Any] = []
    begun.pop().addErrback(lambda failure: refused.append(failure.value))
    assert [(type(error), error.code) for error in refused] == [(SsoRefused, 503)]
    for number, one in enumerate(begun):
        one.addErrback(lambda _: None)
        busy[number].errback(OSError("it was not there"))
    assert len(busy) == AT_ONCE + MAX_WAITING
