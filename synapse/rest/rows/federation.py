"""What answers other servers: the server-server API, a section per subject."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.rest.rows.types import Row

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver

# -- memberships -----------------------------------------------------------------------------------------------------


def _policy_server(hs: Homeserver) -> object:
    from synapse.rest.federation.policy import PolicyServer

    return PolicyServer(hs.doors.policy)


# -- the rows --------------------------------------------------------------------------------------------------------

ROWS: tuple[Row, ...] = (Row(("policy_sign", "well_known_policy_server"), _policy_server),)
