"""One good request for every operation of rooms, of reading them, of accounts and keys, and for other servers'.

An example names its operation as the description does (operationId). `{name}` in its strings is supplied by the town.
From these the tests make requests that succeed, and all that go wrong: an example says as much as possible, so that
there is much in it that can go wrong.
"""

from __future__ import annotations

import re
from functools import cache

from synapse.api.routes import ENDPOINTS, Endpoint
from tests.conformance import examples_federation, extras
from tests.conformance.example import Asked, Example
from tests.conformance.examples_accounts import ACCOUNTS
from tests.conformance.examples_contacts import CONTACTS
from tests.conformance.examples_rooms import ROOMS
from tests.spec.description import Description, Operation, description

__all__ = ["EXAMPLES", "OTHERS", "SUBJECTS", "Asked", "Example", "endpoint_of", "is_served", "served", "wanted"]

# The files whose operations are all to be here.
SUBJECTS = examples_federation.SUBJECTS | frozenset(
    (
        *("create_room", "joining", "knocking", "inviting", "third_party_membership", "kicking", "banning", "leaving"),
        *("list_joined_rooms", "list_public_rooms", "directory", "room_state", "rooms", "room_send", "redaction"),
        *("event_context", "message_pagination", "relations", "threads_list", "room_event_by_timestamp", "search"),
        *("space_hierarchy", "room_summary", "mutual_rooms", "room_upgrades", "report_content", "typing", "receipts"),
        *("read_markers", "tags", "account-data", "presence", "old_sync", "peeking_events", "room_initial_sync"),
        *("sync", "filter", "capabilities", "versions", "users", "profile"),
        *("account_deactivation", "device_management", "login", "login_token", "logout"),
        *("registration", "sso_login_redirect", "keys", "cross_signing", "refresh", "registration_tokens"),
        *("to_device", "voip", "whoami", "admin", "password_management", "administrative_contact"),
        *("key_backup", "openid", "wellknown", "support", "oauth_server_metadata", "pusher"),
    )
)
# And those that have tests of their own, or whose operations are still to come.
OTHERS = examples_federation.OTHERS | frozenset(
    (
        *("pushrules", "content-repo", "authed-content-repo", "policy_server"),
        *("notifications", "third_party_lookup", "appservice_ping", "appservice_room_directory"),
    )
)

EXAMPLES = (*ROOMS, *ACCOUNTS, *CONTACTS, *extras.EXAMPLES, *examples_federation.EXAMPLES)


def endpoint_of(operation: Operation, prefix: str) -> Endpoint | None:
    """What the route table has for it under a prefix."""
    path = re.sub(r"\{\w+\}", "x", prefix + operation.path)
    fit = (e for e, pattern in _patterns() if operation.method in e.methods and pattern.match(path))
    return next(fit, None)


@cache
def _patterns() -> list[tuple[Endpoint, re.Pattern[str]]]:
    return [(endpoint, re.compile(endpoint.pattern())) for endpoint in ENDPOINTS]


def is_served(operation: Operation, prefix: str) -> bool:
    """Whether the route table has it under a prefix."""
    return endpoint_of(operation, prefix) is not None


def served() -> list[Example]:
    """The examples of operations that the route table has."""
    described = description()
    if described is None:
        return []
    found = [(example, described.operation(example.operation)) for example in EXAMPLES]
    return [example for example, operation in found if is_served(operation, operation.prefix)]


def wanted(described: Description) -> list[Operation]:
    """The operations that are to have an example."""
    return [operation for operation in described.operations if operation.subject in SUBJECTS]
