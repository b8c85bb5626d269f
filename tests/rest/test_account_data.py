"""Account data, tags and filters through their endpoints."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from synapse.handlers.account_data import MAX_TAGS
from synapse.storage.account_data import AccountDataStore
from synapse.storage.database import Database
from tests.rest.accounts import C, Server, error

USER, ROOM = "/user/@alice:test", "/rooms/!r:test"
PLACES = [f"{USER}/account_data", f"{USER}{ROOM}/account_data"]


@pytest.mark.parametrize("place", PLACES)
@pytest_twisted.ensureDeferred
async def test_account_data_are_given_back_as_they_were_set(server: Server, place: str) -> None:
    token = await server.register("alice")
    path = f"{place}/com.example%2Fx"
    assert error(await server.call("GET", path, user=token)) == (404, "M_NOT_FOUND")
    for content in ({"a": [1, None, 2.5, "\x00 \U0001f98a"]}, {}):
        assert (await server.call("PUT", path, content, token)).json == {}
        assert (await server.call("GET", path, user=token)).json == content
    other = next(p for p in PLACES if p != place)
    assert error(await server.call("GET", f"{other}/com.example%2Fx", user=token)) == (404, "M_NOT_FOUND")
    assert server.streams["account_data"].told == ["@alice:test"] * 2


@pytest.mark.parametrize("place", PLACES)
@pytest_twisted.ensureDeferred
async def test_account_data_that_are_refused(server: Server, place: str) -> None:
    token = await server.register("alice")
    bob = await server.register("bob")
    for kind in ("m.fully_read", "m.push_rules"):
        assert error(await server.call("PUT", f"{place}/{kind}", {}, token)) == (405, "M_BAD_JSON")
    for method in ("GET", "PUT"):
        assert error(await server.call(method, f"{place}/m.direct", {}, bob)) == (403, "M_FORBIDDEN")
        assert error(await server.call(method, f"{place}/{'x' * 256}", {}, token)) == (400, "M_INVALID_PARAM")
    for body in (b"", b"[]", b"5", b"{"):
        assert error(await server.call("PUT", f"{place}/m.direct", body, token))[0] == 400
    assert server.streams["account_data"].position == 0


@pytest_twisted.ensureDeferred
async def test_rooms_have_room_ids(server: Server) -> None:
    token = await server.register("alice")
    for path in ("account_data/m.x", "tags", "tags/u.work"):
        reply = await server.call("GET" if path == "tags" else "PUT", f"{USER}/rooms/nope/{path}", {}, token)
        assert error(reply) == (400, "M_INVALID_PARAM")


@pytest_twisted.ensureDeferred
async def test_tags_are_set_and_taken_away(server: Server) -> None:
    token = await server.register("alice")
    tags = f"{USER}{ROOM}/tags"
    assert (await server.call("GET", tags, user=token)).json == {"tags": {}}
    assert (await server.call("PUT", f"{tags}/m.favourite", {"order": 0.5}, token)).json == {}
    assert (await server.call("PUT", f"{tags}/{quote('u.Büro / 1', safe='')}", user=token)).json == {}
    expected = {"m.favourite": {"order": 0.5}, "u.Büro / 1": {}}
    assert (await server.call("GET", tags, user=token)).json == {"tags": expected}
    data = await server.call("GET", f"{USER}{ROOM}/account_data/m.tag", user=token)
    assert data.json == {"tags": expected}
    assert (await server.call("DELETE", f"{tags}/m.favourite", user=token)).json == {}
    assert (await server.call("DELETE", f"{tags}/m.favourite", user=token)).json == {}
    assert (await server.call("GET", tags, user=token)).json == {"tags": {"u.Büro / 1": {}}}
    assert len(server.streams["account_data"].told) == 3


@pytest_twisted.ensureDeferred
async def test_tags_set_at_the_same_time_are_all_kept(server: Server) -> None:
    token = await server.register("alice")
    calls = [server.call("PUT", f"{USER}{ROOM}/tags/u.{n}", {}, token) for n in range(8)]
    replies = await gatherResults([Deferred.fromCoroutine(call) for call in calls])
    assert [reply.code for reply in replies] == [200] * 8
    tags = (await server.call("GET", f"{USER}{ROOM}/tags", user=token)).json["tags"]
    assert tags == {f"u.{n}": {} for n in range(8)}


@pytest_twisted.ensureDeferred
async def test_tags_that_are_refused(server: Server) -> None:
    token = await server.register("alice")
    bob = await server.register("bob")
    tags = f"{USER}{ROOM}/tags"
    for method, path in (("GET", tags), ("PUT", f"{tags}/u.x"), ("DELETE", f"{tags}/u.x")):
        assert error(await server.call(method, path, {}, bob)) == (403, "M_FORBIDDEN")
    whole = f"{USER}{ROOM}/account_data/m.tag"
    for order, errcode in (
        *(("0.5", "M_BAD_JSON"), (True, "M_BAD_JSON"), (None, "M_BAD_JSON"), ([], "M_BAD_JSON"), ({}, "M_BAD_JSON")),
        *((-0.1, "M_INVALID_PARAM"), (1.1, "M_INVALID_PARAM"), (2**60, "M_INVALID_PARAM")),
    ):
        assert error(await server.call("PUT", f"{tags}/u.x", {"order": order}, token)) == (400, errcode), order
        body: dict[str, Any] = {"tags": {"u.x": {"order": order}}}
        assert error(await server.call("PUT", whole, body, token)) == (400, errcode), order
    for odd in (5, [], None, {"u.x": 5}, {"u.x": None}):
        assert error(await server.call("PUT", whole, {"tags": odd}, token)) == (400, "M_BAD_JSON"), odd
    assert error(await server.call("PUT", whole, {"tags": {"x" * 256: {}}}, token)) == (400, "M_INVALID_PARAM")
    assert error(await server.call("PUT", f"{tags}/{'x' * 256}", {}, token)) == (400, "M_INVALID_PARAM")
    body = {"tags": {f"u.{n}": {} for n in range(MAX_TAGS + 1)}}
    assert error(await server.call("PUT", whole, body, token)) == (400, "M_INVALID_PARAM")
    body = {"tags": {f"u.{n}": {} for n in range(MAX_TAGS)}}
    await server.call("PUT", f"{USER}{ROOM}/account_data/m.tag", body, token)
    assert error(await server.call("PUT", f"{tags}/u.more", {}, token)) == (400, "M_INVALID_PARAM")
    assert (await server.call("PUT", f"{tags}/u.1", {"order": 1}, token)).code == 200


@pytest_twisted.ensureDeferred
async def test_push_rules_are_read_like_other_account_data(server: Server) -> None:
    token = await server.register("alice")
    rules = (await server.call("GET", "/pushrules/", user=token)).json
    assert (await server.call("GET", f"{USER}/account_data/m.push_rules", user=token)).json == rules
    assert error(await server.call("GET", f"{USER}{ROOM}/account_data/m.push_rules", user=token)) == (
        404,
        "M_NOT_FOUND",
    )


@pytest.mark.parametrize("prefix", [C, "/_matrix/client/unstable/org.matrix.msc3391"])
@pytest_twisted.ensureDeferred
async def test_deleting(server: Server, database: Database, prefix: str) -> None:
    token, bob = await server.register("alice"), await server.register("bob")
    store = AccountDataStore(database)
    for where in ("", ROOM):
        path = f"{prefix}{USER}{where}/account_data/org.example"
        assert (await server.call("DELETE", path, user=token)).json == {}, "there is none"
        await server.call("PUT", f"{USER}{where}/account_data/org.example", {"a": 1}, token)
        assert error(await server.call("DELETE", path, user=bob)) == (403, "M_FORBIDDEN")
        before = await store.max_stream_id()
        assert (await server.call("DELETE", path, user=token)).json == {}
        got = await server.call("GET", f"{USER}{where}/account_data/org.example", user=token)
        assert error(got) == (404, "M_NOT_FOUND")
        # Who knew it is told; who begins to sync never hears of it.
        told = await store.changed("@alice:test", before, before + 1)
        assert [(datum.type, datum.content) for datum in told] == [("org.example", "{}")]
        assert await store.of_user("@alice:test") == []
    for own in ("m.push_rules", "m.fully_read"):
        refused = await server.call("DELETE", f"{prefix}{USER}/account_data/{own}", user=token)
        assert error(refused) == (405, "M_BAD_JSON")
    await server.call("PUT", f"{USER}/account_data/org.example", {"a": 2}, token)
    assert (await server.call("GET", f"{USER}/account_data/org.example", user=token)).json == {"a": 2}


# -- filters -----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_a_filter_has_an_id(server: Server) -> None:
    token = await server.register("alice")
    definition = {"room": {"timeline": {"limit": 10, "types": ["m.*"]}}, "com.example.unknown": 1}
    first = (await server.call("POST", f"{USER}/filter", definition, token)).json["filter_id"]
    assert isinstance(first, str)
    assert not first.startswith("{")
    assert (await server.call("POST", f"{USER}/filter", definition, token)).json == {"filter_id": first}
    assert (await server.call("GET", f"{USER}/filter/{first}", user=token)).json == definition
    assert (await server.call("POST", f"{USER}/filter", {}, token)).json["filter_id"] != first


@pytest_twisted.ensureDeferred
async def test_filters_that_are_refused(server: Server) -> None:
    token = await server.register("alice")
    bob = await server.register("bob")
    assert error(await server.call("POST", f"{USER}/filter", {}, bob)) == (403, "M_FORBIDDEN")
    assert error(await server.call("GET", f"{USER}/filter/0", user=bob)) == (403, "M_FORBIDDEN")
    for filter_id in ("0", "99999999999999999999", "-1", "x", "{}", "%C2%B2", "9007199254740993"):
        assert error(await server.call("GET", f"{USER}/filter/{filter_id}", user=token)) == (404, "M_NOT_FOUND")
    for bad in ({"room": 5}, {"event_format": "x"}, {"room": {"rooms": "!r:x"}}, {"room": {"rooms": ["\x00"]}}):
        assert error(await server.call("POST", f"{USER}/filter", bad, token))[0] == 400
