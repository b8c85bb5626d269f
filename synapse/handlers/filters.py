"""Uploaded filters: keeping a definition under an id, and giving it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse.api.errors import invalid_param, not_found
from synapse.util.storable import problem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse.storage.filters import FilterStore

_MAX_ID: Final = 2**53


class Filters:
    """Filters of users.

    :param check: raises 400 for a definition that is no filter.
    """

    def __init__(self, store: FilterStore, check: Callable[[dict[str, Any]], object]) -> None:
        self._store = store
        self._check = check

    async def add(self, user_id: str, definition: dict[str, Any]) -> str:
        """The id of the filter; the same for the same definition."""
        if (problem := problem_of(definition)) is not None:
            raise invalid_param(f"The filter cannot be stored: {problem}.")
        self._check(definition)
        return str(await self._store.add(user_id, definition))

    async def get(self, user_id: str, filter_id: str) -> dict[str, Any]:
        """The definition as it was uploaded; raises 404 M_NOT_FOUND."""
        number = int(filter_id) if filter_id.isascii() and filter_id.isdigit() and len(filter_id) < 20 else _MAX_ID
        found = await self._store.get(user_id, number) if number < _MAX_ID else None
        if found is None:
            raise not_found("There is no such filter.")
        return found
