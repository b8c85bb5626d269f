"""The table of room versions against the feature matrix of the specification."""

from __future__ import annotations

import pytest

from synapse.api.errors import MatrixError
from synapse.api.room_versions import ROOM_VERSIONS, capabilities, room_version, supported_by

FIRST_WITH = {
    "knocking": 7,
    "restricted_joins": 8,
    "knock_restricted": 10,
    "privileged_creators": 12,
    "room_id_from_create": 12,
    "implicit_creator": 11,
    "redacts_in_content": 11,
    "strict_canonical_json": 6,
    "enforce_key_validity": 5,
    "notifications_auth_rule": 6,
}


@pytest.mark.parametrize(("feature", "first"), FIRST_WITH.items())
def test_feature_matrix(feature: str, first: int) -> None:
    having = [int(name) for name, version in ROOM_VERSIONS.items() if getattr(version, feature)]
    assert having == list(range(first, 13))


def test_rules_that_went_away() -> None:
    assert [name for name, version in ROOM_VERSIONS.items() if version.redaction_auth_rule] == ["1", "2"]
    assert [name for name, version in ROOM_VERSIONS.items() if version.aliases_auth_rule] == list("12345")


def test_lookup() -> None:
    assert room_version("12").identifier == "12"
    assert supported_by(["99", "11", "1"]) == ["11", "1"]
    assert capabilities()["12"] == "stable"
    with pytest.raises(MatrixError, match="M_UNSUPPORTED_ROOM_VERSION"):
        room_version("99")
