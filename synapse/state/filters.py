"""`StateFilter`: which entries of a room's state a question is about, so that nobody reads 10,000 members for a name.
Pure.

It selects by type and state key only; what a client's filter says about rooms, senders or contents is not its matter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from synapse.api.constants import EventTypes

StateKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class StateFilter:
    """`types` says for each type which state keys are wanted, None being all; `others` is about all other types."""

    types: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    others: bool = False

    @classmethod
    def of(cls, *types: str) -> StateFilter:
        """All entries of these types."""
        return cls(dict.fromkeys(types))

    @classmethod
    def keys(cls, keys: Iterable[StateKey]) -> StateFilter:
        """Exactly these entries."""
        wanted: dict[str, set[str]] = {}
        for event_type, state_key in keys:
            wanted.setdefault(event_type, set()).add(state_key)
        return cls({event_type: frozenset(state_keys) for event_type, state_keys in wanted.items()})

    @classmethod
    def members(cls, user_ids: Collection[str]) -> StateFilter:
        """Everything, but of the members these alone: what lazy loading wants."""
        return cls({EventTypes.MEMBER: frozenset(user_ids)}, others=True)

    def exact(self) -> list[StateKey] | None:
        """The entries one by one, if the filter names each of them; otherwise None."""
        if self.others:
            return None
        keys: list[StateKey] = []
        for event_type, state_keys in self.types.items():
            if state_keys is None:
                return None
            keys += [(event_type, state_key) for state_key in state_keys]
        return keys

    def wants(self, key: StateKey) -> bool:
        """Whether the entry is one of those."""
        if key[0] not in self.types:
            return self.others
        state_keys = self.types[key[0]]
        return state_keys is None or key[1] in state_keys

    def sql(self, alias: str) -> tuple[str, list[object]]:
        """The filter as a condition over the columns `type` and `state_key` of `alias`, and its parameters."""
        if self.others and not self.types:
            return "true", []
        parts: list[str] = []
        params: list[object] = []
        whole = [event_type for event_type, state_keys in self.types.items() if state_keys is None]
        if whole and not self.others:
            parts.append(f"{alias}.type = ANY(%s)")
            params.append(whole)
        for event_type, state_keys in self.types.items():
            if state_keys:
                parts.append(f"({alias}.type = %s AND {alias}.state_key = ANY(%s))")
                params += [event_type, list(state_keys)]
        if self.others:
            narrowed = [event_type for event_type, state_keys in self.types.items() if state_keys is not None]
            parts.append(f"{alias}.type <> ALL(%s)")
            params.append(narrowed)
        return ("(" + " OR ".join(parts) + ")" if parts else "false"), params


ALL: Final = StateFilter(others=True)
"""The whole state."""
