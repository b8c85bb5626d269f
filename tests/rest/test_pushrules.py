"""Push rules through their endpoints."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from tests.rest.accounts import Server, error

RULES = "/pushrules/global"


@pytest_twisted.ensureDeferred
async def test_the_default_rules_are_there(server: Server) -> None:
    token = await server.register("alice")
    rules = (await server.call("GET", "/pushrules/", user=token)).json
    assert (await server.call("GET", f"{RULES}/", user=token)).json == rules["global"]
    assert list(rules["global"]) == ["override", "content", "room", "sender", "underride"]
    rule = await server.call("GET", f"{RULES}/override/.m.rule.invite_for_me", user=token)
    assert rule.json["conditions"][-1]["pattern"] == "@alice:test"
    assert (await server.call("GET", f"{RULES}/override/.m.rule.master/enabled", user=token)).json == {"enabled": False}
    actions = await server.call("GET", f"{RULES}/underride/.m.rule.message/actions", user=token)
    assert actions.json == {"actions": ["notify"]}


@pytest_twisted.ensureDeferred
async def test_rules_are_made_changed_ordered_and_deleted(server: Server) -> None:
    token = await server.register("alice")

    async def put(path: str, body: dict[str, Any], **query: str) -> None:
        reply = await server.call("PUT", f"{RULES}/{path}", body, token, query=query)
        assert (reply.code, reply.json) == (200, {}), reply

    async def order() -> list[str]:
        rules = (await server.call("GET", f"{RULES}/", user=token)).json["content"]
        return [rule["rule_id"] for rule in rules]

    for name in ("a", "b"):
        await put(f"content/{name}", {"actions": ["notify"], "pattern": f"{name}*"})
    await put("content/c", {"actions": [], "pattern": "c"}, after="b")
    assert await order() == ["b", "c", "a"]
    await put("content/a", {"actions": [], "pattern": "x"}, before="b")
    assert await order() == ["a", "b", "c"]
    await put("content/a/enabled", {"enabled": False})
    await put("content/a/actions", {"actions": [{"set_tweak": "highlight"}]})
    rule = (await server.call("GET", f"{RULES}/content/a", user=token)).json
    assert rule == {
        "rule_id": "a",
        "default": False,
        "enabled": False,
        "pattern": "x",
        "actions": [{"set_tweak": "highlight"}],
    }
    await put("override/.m.rule.master/enabled", {"enabled": True})
    assert (await server.call("GET", f"{RULES}/override/.m.rule.master/enabled", user=token)).json == {"enabled": True}
    assert (await server.call("DELETE", f"{RULES}/content/b", user=token)).json == {}
    assert await order() == ["a", "c"]
    assert server.streams["push_rules"].told == ["@alice:test"] * 8


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "nokind/x", None, (400, "M_INVALID_PARAM")),
        ("GET", "room/x", None, (404, "M_NOT_FOUND")),
        ("GET", "room/x/enabled", None, (404, "M_NOT_FOUND")),
        ("GET", "room/x/actions", None, (404, "M_NOT_FOUND")),
        ("DELETE", "room/x", None, (404, "M_NOT_FOUND")),
        ("DELETE", "override/.m.rule.master", None, (404, "M_NOT_FOUND")),
        ("PUT", "nokind/x", {"actions": []}, (400, "M_INVALID_PARAM")),
        ("PUT", "room/.x", {"actions": []}, (400, "M_INVALID_PARAM")),
        ("PUT", "room/a%2Fb", {"actions": []}, (400, "M_INVALID_PARAM")),
        ("PUT", "room/a%5Cb", {"actions": []}, (400, "M_INVALID_PARAM")),
        ("PUT", "room/" + "x" * 300, {"actions": []}, (400, "M_INVALID_PARAM")),
        ("PUT", "room/x", {}, (400, "M_MISSING_PARAM")),
        ("PUT", "room/x", {"actions": 5}, (400, "M_BAD_JSON")),
        ("PUT", "room/x", {"actions": [5]}, (400, "M_BAD_JSON")),
        ("PUT", "content/x", {"actions": []}, (400, "M_MISSING_PARAM")),
        ("PUT", "content/x", {"actions": [], "pattern": 5}, (400, "M_BAD_JSON")),
        ("PUT", "content/x", {"actions": [], "pattern": "a\x00"}, (400, "M_INVALID_PARAM")),
        ("PUT", "override/x", {"actions": [], "conditions": {}}, (400, "M_BAD_JSON")),
        ("PUT", "override/x", {"actions": [], "conditions": [{"kind": "\x00"}]}, (400, "M_INVALID_PARAM")),
        ("PUT", "room/x?before=y", {"actions": []}, (404, "M_NOT_FOUND")),
        ("PUT", "room/x/enabled", {"enabled": True}, (404, "M_NOT_FOUND")),
        ("PUT", "override/.m.rule.master/enabled", {"enabled": 1}, (400, "M_BAD_JSON")),
        ("PUT", "override/.m.rule.master/enabled", {}, (400, "M_MISSING_PARAM")),
        ("PUT", "override/.m.rule.master/actions", {}, (400, "M_MISSING_PARAM")),
        ("PUT", "override/.m.rule.master/actions", {"actions": [{"set_tweak": "\x00"}]}, (400, "M_INVALID_PARAM")),
        ("PUT", "room/x/actions", {"actions": []}, (404, "M_NOT_FOUND")),
        ("PUT", "room/x", [], (400, "M_BAD_JSON")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_refused(server: Server, method: str, path: str, body: Any, expected: tuple[int, str]) -> None:
    token = await server.register("alice")
    assert error(await server.call(method, f"{RULES}/{path}", body, token)) == expected
    assert server.streams["push_rules"].told == []


@pytest_twisted.ensureDeferred
async def test_compiled_rules_come_from_memory(server: Server) -> None:
    token = await server.register("alice")
    users = ["@alice:test", "@bob:test"]
    first = await server.accounts.push_rules.programs(users)
    with server.database.counted() as counts:
        assert await server.accounts.push_rules.programs(users) == first
    assert counts.statements_read == 0
    await server.call("PUT", f"{RULES}/room/!r:test", {"actions": []}, token)
    again = await server.accounts.push_rules.programs(users)
    assert again["@alice:test"] != first["@alice:test"]
    assert again["@bob:test"] is first["@bob:test"]
