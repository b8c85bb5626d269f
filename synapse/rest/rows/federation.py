"""What answers other servers: the server-server API, a section per subject."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.rest.rows.types import Row

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver

# -- keys ------------------------------------------------------------------------------------------------------------


def _notary(hs: Homeserver) -> object:
    from synapse.rest.key.query import KeyQuery

    return KeyQuery(hs.federation.notary)


# -- memberships -----------------------------------------------------------------------------------------------------


def _policy_server(hs: Homeserver) -> object:
    from synapse.rest.federation.policy import PolicyServer

    return PolicyServer(hs.doors.policy)


# -- reading ----------------------------------------------------------------------------------------------------------


def _events(hs: Homeserver) -> object:
    from synapse.rest.federation.events import FederationEvents

    return FederationEvents(hs.queries.served_events)


# -- the rows --------------------------------------------------------------------------------------------------------

ROWS: tuple[Row, ...] = (
    Row(("notary_query", "notary_query_of"), _notary),
    Row(("policy_sign", "well_known_policy_server"), _policy_server),
    Row(
        (
            *("federation_event", "federation_state", "federation_state_ids", "federation_event_auth"),
            *("federation_backfill", "federation_get_missing_events"),
        ),
        _events,
    ),
)
