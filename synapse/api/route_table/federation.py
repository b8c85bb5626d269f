"""What other servers ask of this one: the server-server API, a section per subject.

Every request is signed (`Auth.SERVER`), but for those that say otherwise. Which worker may serve a path follows from
the workers' routes; what meets none is the main process's.
"""

import re

from synapse.api.route_table import workers
from synapse.api.route_table.types import DEFAULT_MAX_BODY, MIB, Auth, Endpoint

_PREFIX = "/_matrix/federation/{version}/"


def _signed(
    name: str,
    path: str,
    method: str = "GET",
    *,
    versions: tuple[str, ...] = ("v1",),
    max_body: int = DEFAULT_MAX_BODY,
) -> Endpoint:
    """An operation of other servers. `path` follows the version."""
    paths = [f"/_matrix/federation/{version}/{path}" for version in versions]
    routes = tuple(route for route in workers.FEDERATION if all(re.search(route.regex, each) for each in paths))
    full = _PREFIX + path
    resource = "federation"
    return Endpoint(name, full, (method,), versions, routes, auth=Auth.SERVER, resource=resource, max_body=max_body)


# 50 events and 100 pieces of ephemeral data, each of 64 KiB at most.
_TRANSACTIONS = (_signed("federation_send_transaction", "send/{txn_id}", "PUT", max_body=10 * MIB),)

# Of keys, which everybody may ask for.
_KEY_QUERY = tuple(route for route in workers.FEDERATION if re.search(route.regex, "/_matrix/key/v2/query"))
_KEYS = (
    Endpoint("notary_query", "/_matrix/key/v2/query", ("POST",), (), _KEY_QUERY, auth=Auth.NONE, resource="keys"),
    Endpoint(
        *("notary_query_of", "/_matrix/key/v2/query/{server_name}[/{key_id}]", ("GET",), (), _KEY_QUERY),
        auth=Auth.NONE,
        resource="keys",
    ),
)

_ROOM_AND_USER, _ROOM_AND_EVENT = "{room_id}/{user_id}", "{room_id}/{event_id}"

_MEMBERSHIPS = (
    _signed("make_join", f"make_join/{_ROOM_AND_USER}"),
    _signed("send_join_v1", f"send_join/{_ROOM_AND_EVENT}", "PUT"),
    _signed("send_join", f"send_join/{_ROOM_AND_EVENT}", "PUT", versions=("v2",)),
    _signed("make_leave", f"make_leave/{_ROOM_AND_USER}"),
    _signed("send_leave_v1", f"send_leave/{_ROOM_AND_EVENT}", "PUT"),
    _signed("send_leave", f"send_leave/{_ROOM_AND_EVENT}", "PUT", versions=("v2",)),
    _signed("make_knock", f"make_knock/{_ROOM_AND_USER}"),
    _signed("send_knock", f"send_knock/{_ROOM_AND_EVENT}", "PUT"),
    _signed("receive_invite_v1", f"invite/{_ROOM_AND_EVENT}", "PUT"),
    _signed("receive_invite", f"invite/{_ROOM_AND_EVENT}", "PUT", versions=("v2",)),
    _signed("exchange_third_party_invite", "exchange_third_party_invite/{room_id}", "PUT"),
)

_POLICY = (Endpoint("policy_sign", "/_matrix/policy/v1/sign", ("POST",), auth=Auth.SERVER, resource="federation"),)

# Reading: events of rooms, and what servers ask about rooms and users.
_QUERIES = (
    _signed("federation_event", "event/{event_id}"),
    _signed("federation_state", "state/{room_id}"),
    _signed("federation_state_ids", "state_ids/{room_id}"),
    _signed("federation_event_auth", "event_auth/{room_id}/{event_id}"),
    _signed("federation_backfill", "backfill/{room_id}"),
    _signed("federation_get_missing_events", "get_missing_events/{room_id}", "POST"),
    _signed("federation_query", "query/{query_type}"),
    _signed("federation_public_rooms", "publicRooms"),
    _signed("federation_public_rooms_search", "publicRooms", "POST"),
    _signed("federation_hierarchy", "hierarchy/{room_id}"),
    _signed("federation_timestamp_to_event", "timestamp_to_event/{room_id}"),
)

# What administrators see of other servers.
_DESTINATIONS = "/_synapse/admin/v1/federation/destinations"
_ADMIN = (
    Endpoint("admin_destinations", _DESTINATIONS, ("GET",), auth=Auth.ADMIN),
    Endpoint("admin_destination", f"{_DESTINATIONS}/{{destination}}", ("GET",), auth=Auth.ADMIN),
    Endpoint("admin_destination_rooms", f"{_DESTINATIONS}/{{destination}}/rooms", ("GET",), auth=Auth.ADMIN),
    Endpoint(
        "admin_destination_reset", f"{_DESTINATIONS}/{{destination}}/reset_connection", ("POST",), auth=Auth.ADMIN
    ),
)

# Devices and keys of users.
_USER_KEYS = (
    _signed("federation_user_devices", "user/devices/{user_id}"),
    _signed("federation_user_keys_query", "user/keys/query", "POST"),
    _signed("federation_user_keys_claim", "user/keys/claim", "POST"),
)

FEDERATION: tuple[Endpoint, ...] = (
    *_TRANSACTIONS,
    *_KEYS,
    *_USER_KEYS,
    *_QUERIES,
    *_MEMBERSHIPS,
    *_POLICY,
    *_ADMIN,
)
