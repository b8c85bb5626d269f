"""Push rules: what clients ask of them, and the compiled rules for whoever evaluates events.

Rules are changed by the operations of `synapse.push.rules`, in the main process and within one transaction, so two
clients of a user who change something at the same time do not undo each other's change.

Client-server API, "Push rules API".
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from synapse.api.errors import bad_json, invalid_param, missing_param
from synapse.push import rules
from synapse.push.rules import NO_RULES, OwnRule, UserRules
from synapse.replication.calls import Call
from synapse.util.storable import problem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from synapse.handlers.positions import StreamWriter
    from synapse.push.evaluator import Program
    from synapse.replication.calls import MainProcess
    from synapse.storage.push_rules import PushRuleStore
    from synapse.util.caches import Cache

CACHE: Final = "push_rules"
CACHE_SIZE: Final = 10_000


class Edit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A change that a client asks for; which of the last four are there tells what it is. None of them: delete."""

    user_id: str
    kind: str
    rule_id: str
    rule: OwnRule | None = None
    before: str | None = None
    after: str | None = None
    enabled: bool | None = None
    actions: list[Any] | None = None


EDIT: Final = Call("push_rules.edit", Edit, type(None))


class PushRules:
    """Reads rules anywhere, and has the main process change them.

    :param cache: compiled rules by user, which rows of the stream `push_rules` make it forget; and whoever changes
        whom a user ignores, since that is compiled into them.
    """

    def __init__(
        self, store: PushRuleStore, cache: Cache[str, Program], stream: StreamWriter, main: MainProcess
    ) -> None:
        self._store = store
        self._cache = cache
        self._stream = stream
        self._main = main
        main.expose(EDIT, self._edit)

    async def programs(self, user_ids: Collection[str]) -> dict[str, Program]:
        """The compiled rules of all these users; one statement for those that are not in memory."""
        return await self._cache.fetch_many(user_ids, self._load)

    async def ruleset(self, user_id: str) -> dict[str, Any]:
        """All rules in the form of `GET /pushrules/`, which is also the content of m.push_rules."""
        return {"global": rules.ruleset(await self._store.of_user(user_id), user_id)}

    async def get(self, user_id: str, kind: str, rule_id: str) -> dict[str, Any]:
        """One rule. Raises 404 M_NOT_FOUND, 400 M_INVALID_PARAM."""
        return rules.get(await self._store.of_user(user_id), kind, rule_id, user_id)

    async def put(
        self, user_id: str, kind: str, rule_id: str, body: dict[str, Any], before: str | None, after: str | None
    ) -> None:
        """Makes a rule or changes one of the user's own. Raises 400 and 404 as `synapse.push.rules` says."""
        if (problem := problem_of(body)) is not None:
            raise invalid_param(f"The push rule cannot be stored: {problem}.")
        rule = rules.parse_rule(kind, rule_id, body)
        await self._main(EDIT, Edit(user_id=user_id, kind=kind, rule_id=rule_id, rule=rule, before=before, after=after))

    async def delete(self, user_id: str, kind: str, rule_id: str) -> None:
        await self._main(EDIT, Edit(user_id=user_id, kind=kind, rule_id=rule_id))

    async def set_enabled(self, user_id: str, kind: str, rule_id: str, body: dict[str, Any]) -> None:
        enabled = body.get("enabled")
        if not isinstance(enabled, bool):
            raise missing_param("enabled") if enabled is None else bad_json("'enabled' must be true or false.")
        await self._main(EDIT, Edit(user_id=user_id, kind=kind, rule_id=rule_id, enabled=enabled))

    async def set_actions(self, user_id: str, kind: str, rule_id: str, body: dict[str, Any]) -> None:
        if "actions" not in body:
            raise missing_param("actions")
        if (problem := problem_of(body)) is not None:
            raise invalid_param(f"The actions cannot be stored: {problem}.")
        actions = rules.parse_actions(body["actions"])
        await self._main(EDIT, Edit(user_id=user_id, kind=kind, rule_id=rule_id, actions=actions))

    async def _load(self, user_ids: list[str]) -> dict[str, Program]:
        found = await self._store.of_users(user_ids)
        return {user_id: rules.program(found.get(user_id, NO_RULES)) for user_id in user_ids}

    async def _edit(self, edit: Edit) -> None:
        operation = _operation(edit)
        await self._stream.append(
            lambda position: self._store.edit(edit.user_id, operation, position), lambda _: [edit.user_id]
        )


def _operation(edit: Edit) -> Callable[[UserRules], UserRules]:
    if edit.rule is not None:
        return partial(rules.put, kind=edit.kind, rule=edit.rule, before=edit.before, after=edit.after)
    if edit.enabled is not None:
        return partial(rules.set_enabled, kind=edit.kind, rule_id=edit.rule_id, enabled=edit.enabled)
    if edit.actions is not None:
        return partial(rules.set_actions, kind=edit.kind, rule_id=edit.rule_id, actions=edit.actions)
    return partial(rules.delete, kind=edit.kind, rule_id=edit.rule_id)
