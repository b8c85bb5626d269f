"""Two servers in one process, as the tests of federation use them: what one asks, the other hears."""

from __future__ import annotations

import pytest
import pytest_twisted

from synapse.federation.errors import Unreachable
from tests.support.postgres import PostgresServer
from tests.support.two_servers import federation

VERSION = "/_matrix/federation/v1/version"


@pytest_twisted.ensureDeferred
async def test_a_server_reaches_the_other_until_the_line_is_cut(postgres: PostgresServer) -> None:
    async with federation(postgres, "one", "two") as net:
        client = net["one"].hs.federation.client
        answer = await client.request("two.test:8448", "GET", VERSION)
        assert answer.json_object()["server"]["name"] == "Synapse"
        net.cut("one", "two")
        with pytest.raises(Unreachable):
            await client.request("two.test:8448", "GET", VERSION)
        net.mend()
        net.lose_answer = lambda asked: asked.path == VERSION
        with pytest.raises(Unreachable):
            await client.request("two.test:8448", "GET", VERSION)
        assert [(a.by, a.of, a.code) for a in net.asked] == [("one", "two", 200), ("one", "two", None)]
