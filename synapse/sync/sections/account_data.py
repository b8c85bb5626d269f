"""`account_data`, global and of rooms: what the user's clients keep with the server, the push rules included.

Client-server API, "Client Config" and "Push Rules: API".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import orjson

from synapse.api.constants import AccountDataTypes
from synapse.storage.account_data import AccountDataStore, AccountDatum
from synapse.sync.changes import Changes
from synapse.sync.context import SyncContext
from synapse.sync.tokens import StreamToken


class PushRulesOf(Protocol):
    """Gives a user's rules as the content of m.push_rules."""

    async def __call__(self, user_id: str) -> Any: ...


class AccountDataSection:
    """Both kinds in one statement."""

    def __init__(self, store: AccountDataStore, push_rules: PushRulesOf, changes: Changes) -> None:
        self._store = store
        self._push_rules = push_rules
        self._changes = changes

    async def initial(self, ctx: SyncContext) -> None:
        self._tell(ctx, await self._store.of_user(ctx.user_id), ctx.windows)
        await self._tell_push_rules(ctx)

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        new = ctx.new_rooms()
        if new:
            everything = await self._store.of_user(ctx.user_id)
            self._tell(ctx, [datum for datum in everything if datum.room_id], new)
        if self._changes.account_data(ctx.user_id, since.account_data):
            changed = await self._store.changed(ctx.user_id, since.account_data, now.account_data)
            known = {*ctx.known_rooms(), *(w.room_id for w in ctx.windows.values() if w.left)}
            self._tell(ctx, changed, known)
        if self._changes.push_rules(ctx.user_id, since.push_rules):
            await self._tell_push_rules(ctx)

    def _tell(self, ctx: SyncContext, data: Iterable[AccountDatum], rooms: Iterable[str]) -> None:
        rooms = set(rooms)
        told: list[Any] = []
        for datum in data:
            event = {"type": datum.type, "content": orjson.Fragment(datum.content)}
            if not datum.room_id:
                if ctx.filter.account_data.wants(datum.type):
                    told.append(event)
            elif datum.room_id in rooms and self._wants(ctx, datum):
                ctx.room(datum.room_id).account_data.append(event)
        if told:
            ctx.body.setdefault("account_data", {"events": []})["events"].extend(told)

    def _wants(self, ctx: SyncContext, datum: AccountDatum) -> bool:
        wanted = ctx.filter.room.account_data
        return wanted.wants(datum.type) and wanted.room_matches(datum.room_id)

    async def _tell_push_rules(self, ctx: SyncContext) -> None:
        if ctx.filter.account_data.wants(AccountDataTypes.PUSH_RULES):
            event = {"type": AccountDataTypes.PUSH_RULES, "content": await self._push_rules(ctx.user_id)}
            ctx.body.setdefault("account_data", {"events": []})["events"].append(event)
