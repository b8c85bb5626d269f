"""Making a new configuration."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest
import yaml

from synapse.config import ConfigError, load
from synapse.config.generate import Layout, generate_config, generate_keys, render
from synapse.config.options import known_names, options_of
from synapse.config.root import NESTED, SECTIONS, top_level_names
from tests.config.conftest import REPLICATION_LISTENERS


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "homeserver.yaml"), str(tmp_path), str(tmp_path), str(tmp_path / "data"))


def test_what_is_generated_is_a_configuration_to_start_with(layout: Layout, tmp_path: Path) -> None:
    written = generate_config("example.org", False, layout)
    assert [Path(path).name for path in written] == [
        "homeserver.yaml",
        "example.org.signing.key",
        "example.org.log.config",
    ]
    config = load([layout.config_file])
    assert config.warnings == ()
    assert config.server.server_name == "example.org"
    assert config.server.report_stats is False
    assert config.database.is_embedded
    assert config.database.data_directory == str(tmp_path / "data" / "postgres")
    assert [(one.port, one.addresses, one.names) for one in config.listeners] == [
        (8008, ("127.0.0.1",), frozenset({"client", "federation"}))
    ]
    assert config.log_config is not None
    assert yaml.safe_load(Path(config.log_config).read_text())["version"] == 1


def test_secrets_are_drawn_and_private(layout: Layout, tmp_path: Path) -> None:
    generate_config("example.org", False, layout)
    other = Layout(str(tmp_path / "b" / "h.yaml"), str(tmp_path / "b"), str(tmp_path / "b"), str(tmp_path / "b"))
    generate_config("example.org", False, other)
    one, two = load([layout.config_file]), load([other.config_file])
    assert one.registration.registration_shared_secret != two.registration.registration_shared_secret
    assert one.workers.worker_replication_secret != two.workers.worker_replication_secret
    assert one.keys.read_signing_keys() != two.keys.read_signing_keys()
    for path in (layout.config_file, one.keys.signing_key_path or ""):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_nothing_is_overwritten(layout: Layout) -> None:
    generate_config("example.org", False, layout)
    key = load([layout.config_file]).keys.read_signing_keys()
    before = Path(layout.config_file).read_text()
    assert generate_config("example.org", True, layout) == []
    with pytest.raises(ConfigError, match=r"is the configuration of example\.org"):
        generate_config("example.com", True, layout)
    assert Path(layout.config_file).read_text() == before
    os.unlink(layout.config_file)
    assert generate_config("example.org", True, layout) == [layout.config_file]
    assert load([layout.config_file]).keys.read_signing_keys() == key


def test_a_name_that_is_none_is_refused_before_anything_is_written(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no host name"):
        generate_config("../evil", False, layout)
    assert list(tmp_path.iterdir()) == []


def test_every_option_of_the_main_file_is_there_with_a_comment() -> None:
    text = render({"server_name": "example.org"})
    workers_own = {name for name in known_names(options_of(SECTIONS["workers"])) if name != "worker_replication_secret"}
    for name in set(top_level_names()) - workers_own:
        if not name.endswith("_path") or name in ("signing_key_path", "media_store_path"):
            assert f"\n{name}:" in text or f"\n#{name}:" in text, name


def test_what_is_commented_out_is_right_when_the_comment_is_removed() -> None:
    """Each line `#name: …` or `#  …` becomes YAML that the options accept, up to the places of secrets and files."""
    text = render({})
    active = re.sub(r"^( *)#(?! \S|#)", r"\1", text, flags=re.MULTILINE)
    found = yaml.safe_load(active)
    assert set(NESTED) <= set(found)
    assert found["rc_login"]["address"]["burst_count"] == 10
    assert found["user_directory"]["prefer_local_users"] is False
    assert found["listeners"][0]["port"] == 8008


def test_listeners_can_be_added_as_the_description_prints_them(layout: Layout) -> None:
    generate_config("example.org", False, layout)
    text = Path(layout.config_file).read_text()
    added = REPLICATION_LISTENERS.partition("listeners:\n")[2]
    Path(layout.config_file).write_text(text.replace("\nlisteners:\n", f"\nlisteners:\n{added}"))
    assert [one.port for one in load([layout.config_file]).listeners] == [9092, 9093, 8008]


def test_keys_are_made_where_they_are_missing(tmp_path: Path) -> None:
    path = str(tmp_path / "keys" / "signing.key")
    assert generate_keys({"signing_key_path": path}, "homeserver.yaml") == path
    before = Path(path).read_text()
    assert generate_keys({"signing_key_path": path}, "homeserver.yaml") is None
    assert Path(path).read_text() == before
    with pytest.raises(ConfigError, match="signing_key_path` is missing"):
        generate_keys({}, "homeserver.yaml")


def test_files_that_an_existing_configuration_lacks_are_made(tmp_path: Path, layout: Layout) -> None:
    log_config = tmp_path / "log.yaml"
    text = f"server_name: example.org\nlog_config: {log_config}\ndatabase: {{data_directory: {tmp_path}/pg}}\n"
    Path(layout.config_file).write_text(text)
    key = tmp_path / "example.org.signing.key"
    assert generate_config("example.org", True, layout) == [str(key), str(log_config)]
    assert Path(layout.config_file).read_text() == text
    assert load([layout.config_file]).keys.signing_key_path == str(key)
    assert load([layout.config_file]).keys.read_signing_keys()
