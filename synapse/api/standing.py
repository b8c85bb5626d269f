"""How an account stands with this server: what has been decided about it, and what its user has agreed to.

A value that comes with the requester of every request, from the same cached look-up as the token. What follows from it
is decided in `synapse.handlers.account_rules`.
"""

from dataclasses import dataclass
from typing import Final

SYSTEM: Final = "system"
"""The `user_type` of the user in whose name the server tells others something."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of an account. Times are milliseconds since the epoch."""

    locked: bool = False
    suspended: bool = False
    created_ts: int = 0
    user_type: str | None = None  # `support`, `bot`, `system`; None for people
    consent_version: str | None = None  # the version of the policy that the user agreed to the last time
    valid_until_ts: int | None = None  # when the account expires; None: never


GOOD: Final = Standing()
"""That of requesters whom the server makes up itself."""
