"""Endpoints for push rules. Client-server API, "Push rules API"."""

from __future__ import annotations

from typing import Any

from synapse.handlers.push_rules import PushRules
from synapse.http.server import Request, serves


class PushRuleEndpoints:
    """`/pushrules`."""

    def __init__(self, push_rules: PushRules) -> None:
        self._push_rules = push_rules

    @serves("push_rules")
    async def all(self, request: Request) -> dict[str, Any]:
        return await self._push_rules.ruleset(request.user.user_id)

    @serves("push_rules_global")
    async def all_global(self, request: Request) -> Any:
        return (await self._push_rules.ruleset(request.user.user_id))["global"]

    @serves("push_rule_get")
    async def get(self, request: Request, kind: str, rule_id: str) -> dict[str, Any]:
        return await self._push_rules.get(request.user.user_id, kind, rule_id)

    @serves("push_rule_set")
    async def put(self, request: Request, kind: str, rule_id: str) -> dict[str, Any]:
        before, after = request.arg("before"), request.arg("after")
        await self._push_rules.put(request.user.user_id, kind, rule_id, request.json_object(), before, after)
        return {}

    @serves("push_rule_delete")
    async def delete(self, request: Request, kind: str, rule_id: str) -> dict[str, Any]:
        await self._push_rules.delete(request.user.user_id, kind, rule_id)
        return {}

    @serves("push_rule_enabled_get")
    async def enabled(self, request: Request, kind: str, rule_id: str) -> dict[str, Any]:
        rule = await self._push_rules.get(request.user.user_id, kind, rule_id)
        return {"enabled": rule["enabled"]}

    @serves("push_rule_enabled_set")
    async def set_enabled(self, request: Request, kind: str, rule_id: str) -> dict[str, Any]:
        await self._push_rules.set_enabled(request.user.user_id, kind, rule_id, request.json_object())
        return {}

    @serves("push_rule_actions_get")
    async def actions(self, request: Request, kind: str, rule_id: str) -> dict[str, Any]:
        rule = await self._push_rules.get(request.user.user_id, kind, rule_id)
        return {"actions": rule["actions"]}

    @serves("push_rule_actions_set")
    async def set_actions(self, request: Request, kind: str, rule_id: str) -> dict[str, Any]:
        await self._push_rules.set_actions(request.user.user_id, kind, rule_id, request.json_object())
        return {}
