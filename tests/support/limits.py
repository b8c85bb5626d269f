"""Options that lift every rate limit there is, whatever is added to them: for tests that are about something else."""

from __future__ import annotations

from typing import Any, Final

from synapse.config.limits import RateLimit, RatelimitConfig

MANY: Final = {"per_second": 100_000, "burst_count": 100_000}


def _lifted(section: Any) -> dict[str, Any]:
    return {
        name: MANY if isinstance(value := getattr(section, name), RateLimit) else _lifted(value)
        for name in section.__struct_fields__
    }


UNLIMITED: Final[dict[str, Any]] = {
    **_lifted(RatelimitConfig()),
    "rc_federation": {"sleep_limit": 100_000, "reject_limit": 100_000, "concurrent": 100},
}
