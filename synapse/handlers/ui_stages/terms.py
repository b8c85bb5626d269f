"""`m.login.terms`: agreeing to the policies of this server when registering."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.constants import LoginTypes

if TYPE_CHECKING:
    from synapse.handlers.consent import Consent
    from synapse.handlers.ui_stages.types import Attempt


class TermsStage:
    """Client-server API, "Terms of service at registration"."""

    kind: str = LoginTypes.TERMS

    def __init__(self, consent: Consent) -> None:
        self._consent = consent

    def params(self) -> dict[str, Any] | None:
        return self._consent.policies()

    async def check(self, auth: dict[str, Any], attempt: Attempt) -> Any:
        """The version that was agreed to. Whoever takes the step says by it that all policies are accepted."""
        return self._consent.version
