"""How long tokens are valid: the configured lifetimes, applied to a moment. Times are milliseconds since the epoch.

A session ends when it ends, so neither of its tokens is valid any longer than that.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """In milliseconds; None: for good."""

    session: int | None = None
    refreshable_access: int | None = 300_000
    nonrefreshable_access: int | None = None
    refresh: int | None = None

    def session_end(self, now: int) -> int | None:
        """When a session ends that begins now."""
        return _until(now, self.session, None)

    def access_end(self, now: int, session_end: int | None, *, refreshable: bool) -> int | None:
        """When an access token expires that is given out now."""
        return _until(now, self.refreshable_access if refreshable else self.nonrefreshable_access, session_end)

    def refresh_end(self, now: int, session_end: int | None) -> int | None:
        """When a refresh token expires that is given out now."""
        return _until(now, self.refresh, session_end)


def _until(now: int, lifetime: int | None, end: int | None) -> int | None:
    ends = [at for at in (None if lifetime is None else now + lifetime, end) if at is not None]
    return min(ends, default=None)
