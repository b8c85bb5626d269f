"""What other servers answer, as values: what is as it should be, and what may be passed over."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.federation.answers import (
    AliasAnswer,
    Hierarchy,
    PublicRooms,
    UserDevices,
    UserKeys,
    WireJoin,
    WireState,
    WireTransaction,
    decode,
)


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b'{"device_keys": {}, "master_keys": null, "self_signing_keys" : null}', UserKeys, UserKeys()),
        (b'{"room": {"a": 1}, "children": null}', Hierarchy, Hierarchy({"a": 1})),
        (b'{"user_id": "@a:b", "stream_id": 1, "devices": null}', UserDevices, UserDevices("@a:b", 1)),
        (b'{"room_id": "!a:b", "servers": null}', AliasAnswer, AliasAnswer("!a:b")),
        (b'{"chunk": null, "next_batch": "x"}', PublicRooms, PublicRooms(next_batch="x")),
        (b'{"state": null, "auth_chain": null, "members_omitted": null}', WireJoin, WireJoin()),
    ],
)
def test_what_is_null_counts_as_missing(body: bytes, kind: Any, expected: Any) -> None:
    assert decode(body, kind) == expected


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"pdus": [], "auth_chain": null}', WireState),  # a state that is told by half is none
        (b'{"chunk": 5, "next_batch": null}', PublicRooms),
        (b'{"device_keys": {"@a:b": null}, "master_keys": null}', UserKeys),
        (b"null", UserKeys),
        (b"[1]", UserKeys),
        (b'{"device_keys": nul}', UserKeys),
        (b'{"a":' * 5_000, UserKeys),
    ],
)
def test_what_is_not_as_it_should_be_is_no_answer(body: bytes, kind: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(body, kind)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"pdus": {"$a": {}, "$b": {"error": "No."}, "$c": null, "$d": "No."}}', {"$a": {}, "$b": {"error": "No."}}),
        (b'{"pdus": null}', {}),
        (b'{"pdus": []}', {}),
        (b"{}", {}),
    ],
)
def test_a_transaction_has_arrived_whatever_is_said_of_its_events(body: bytes, expected: dict[str, Any]) -> None:
    assert decode(body, WireTransaction).answer() == expected
