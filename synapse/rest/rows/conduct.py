"""What answers for what accounts may do, and for what this server tells its users."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.rest.rows.types import Row

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver


def _moderation(hs: Homeserver) -> object:
    from synapse.rest.admin.moderation import ModerationEndpoints

    return ModerationEndpoints(hs.conduct.moderation)


def _whois(hs: Homeserver) -> object:
    from synapse.rest.admin.moderation import WhoisEndpoints

    return WhoisEndpoints(hs.conduct.whois)


ROWS: tuple[Row, ...] = (
    Row(("suspend_get", "suspend_set", "admin_suspend", "lock_get", "lock_set"), _moderation),
    Row(("whois", "admin_whois"), _whois),
)
