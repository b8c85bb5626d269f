"""`m.login.dummy`: always succeeds. It tells flows apart that would otherwise be parts of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.constants import LoginTypes

if TYPE_CHECKING:
    from synapse.handlers.ui_stages.types import Attempt


class DummyStage:
    """Client-server API, "Dummy Auth"."""

    kind: str = LoginTypes.DUMMY

    def params(self) -> dict[str, Any] | None:
        return None

    async def check(self, auth: dict[str, Any], attempt: Attempt) -> Any:
        return True
