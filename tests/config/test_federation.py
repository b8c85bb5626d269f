"""The options of federation: whom certificates are wanted of, and what is odd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synapse.config import Config, ConfigError, from_options
from synapse.config.federation import certificate_needed
from synapse.config.generate import new_signing_key

KEY = "Noi6WqcDj0QmPxCNQqgezwTlBKrfqehY1u2FyWP9uYw"


def config(tmp_path: Path, **options: Any) -> Config:
    key = tmp_path / "signing.key"
    key.write_text(new_signing_key())
    database = {"name": "psycopg2", "args": {"host": "x", "dbname": "x"}}
    return from_options({"server_name": "a.test", "database": database, "signing_key_path": str(key), **options})


@pytest.mark.parametrize(
    ("options", "server", "needed"),
    [
        ({}, "b.test", True),
        ({"federation_verify_certificates": False}, "b.test", False),
        ({"federation_certificate_verification_whitelist": ["b.test"]}, "b.test", False),
        ({"federation_certificate_verification_whitelist": ["b.test"]}, "a.b.test", True),
        ({"federation_certificate_verification_whitelist": ["*.onion"]}, "abc.onion", False),
        ({"federation_certificate_verification_whitelist": ["*.onion"]}, "abc.onion.test", True),
    ],
)
def test_whom_a_certificate_is_wanted_of(tmp_path: Path, options: Any, server: str, needed: bool) -> None:
    assert certificate_needed(config(tmp_path, **options).federating, server) == needed


@pytest.mark.parametrize(
    ("notary", "more", "warned"),
    [
        ({}, {}, True),
        ({}, {"suppress_key_server_warning": True}, False),
        ({"verify_keys": {"ed25519:a": KEY}}, {}, False),
        ({"accept_keys_insecurely": True}, {}, False),
    ],
)
def test_a_notary_that_could_be_anybody_is_warned_of(tmp_path: Path, notary: Any, more: Any, warned: bool) -> None:
    found = config(tmp_path, trusted_key_servers=[{"server_name": "matrix.org", **notary}], **more)
    assert any("matrix.org" in warning for warning in found.warnings) == warned


def test_what_nobody_says(tmp_path: Path) -> None:
    found = config(tmp_path)
    assert found.federating.federation_domain_whitelist is None
    assert config(tmp_path, federation_domain_whitelist=[]).federating.federation_domain_whitelist == ()
    assert found.federation.destination_max_retry_interval == 86_400_000


def test_a_key_is_in_use_or_it_is_not(tmp_path: Path) -> None:
    key = tmp_path / "in_use.key"
    key.write_text(new_signing_key())
    algorithm, version, _ = key.read_text().split()
    old = {f"{algorithm}:{version}": {"key": KEY, "expired_ts": 1767225600000}}
    with pytest.raises(ConfigError, match="out of use, and in use"):
        config(tmp_path, old_signing_keys=old, signing_key_path=str(key))
    assert config(tmp_path, old_signing_keys=old).federating.old_signing_keys
