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


# -- transactions ----------------------------------------------------------------------------------------------------


def _transactions(hs: Homeserver) -> object:
    from synapse.rest.federation.transactions import TransactionEndpoints

    return TransactionEndpoints(hs.receiving.transactions)


# -- memberships -----------------------------------------------------------------------------------------------------


def _joining(hs: Homeserver) -> object:
    from synapse.rest.federation.memberships import JoiningByOthers

    doors = hs.doors
    return JoiningByOthers(doors.templates, doors.submissions, doors.join_answers)


def _leaving(hs: Homeserver) -> object:
    from synapse.rest.federation.memberships import LeavingByOthers

    return LeavingByOthers(hs.doors.templates, hs.doors.submissions)


def _inviting(hs: Homeserver) -> object:
    from synapse.rest.federation.memberships import InvitingByOthers

    return InvitingByOthers(hs.doors.invites)


def _exchange(hs: Homeserver) -> object:
    from synapse.rest.federation.third_party import InviteExchange

    return InviteExchange(hs.doors.residence, hs.rooms.third_party_invites)


def _policy_server(hs: Homeserver) -> object:
    from synapse.rest.federation.policy import PolicyServer

    return PolicyServer(hs.doors.policy)


# -- reading ----------------------------------------------------------------------------------------------------------


def _events(hs: Homeserver) -> object:
    from synapse.rest.federation.events import FederationEvents

    return FederationEvents(hs.queries.served_events)


def _queries(hs: Homeserver) -> object:
    from synapse.rest.federation.lookups import FederationQueries

    return FederationQueries(hs.queries.served_lookups)


def _finding(hs: Homeserver) -> object:
    from synapse.rest.federation.lookups import FederationFinding

    return FederationFinding(hs.finding.spaces, hs.queries.served_lookups)


# -- for administrators -----------------------------------------------------------------------------------------------


def _admin(hs: Homeserver) -> object:
    from synapse.rest.admin.federation import AdminFederation

    return AdminFederation(hs.sending.admin)


# -- devices and keys --------------------------------------------------------------------------------------------------


def _user_keys(hs: Homeserver) -> object:
    from synapse.rest.federation.user_keys import UserKeysEndpoints

    return UserKeysEndpoints(hs.edus.given_keys)


# -- the rows --------------------------------------------------------------------------------------------------------

ROWS: tuple[Row, ...] = (
    Row(("federation_send_transaction",), _transactions),
    Row(("notary_query", "notary_query_of"), _notary),
    Row(
        (
            *("federation_event", "federation_state", "federation_state_ids", "federation_event_auth"),
            *("federation_backfill", "federation_get_missing_events"),
        ),
        _events,
    ),
    Row(("federation_user_devices", "federation_user_keys_query", "federation_user_keys_claim"), _user_keys),
    Row(("federation_query", "federation_public_rooms", "federation_public_rooms_search"), _queries),
    Row(("federation_hierarchy", "federation_timestamp_to_event"), _finding),
    Row(("make_join", "send_join", "send_join_v1"), _joining),
    Row(("make_leave", "send_leave", "send_leave_v1", "make_knock", "send_knock"), _leaving),
    Row(("receive_invite", "receive_invite_v1"), _inviting),
    Row(("exchange_third_party_invite",), _exchange),
    Row(("policy_sign", "well_known_policy_server"), _policy_server),
    Row(
        ("admin_destinations", "admin_destination", "admin_destination_rooms", "admin_destination_reset"),
        _admin,
    ),
)
