"""Reading configurations that are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from synapse.config import from_options, load
from synapse.config.listeners import Listener, ListenerResource
from synapse.config.options import Secret
from tests.config.conftest import REPLICATION_LISTENERS, SYNCHROTRON, Write

MAIN_WORKER_FILE = """
worker_app: synapse.app.homeserver
daemonize: true
"""


def test_the_files_of_the_description_are_read_as_printed(write: Write, options: dict[str, Any]) -> None:
    main = write("homeserver.yaml", yaml.safe_dump(options) + REPLICATION_LISTENERS)
    config = load([main, write("workers/synchrotron.yaml", SYNCHROTRON)])

    assert (config.app, config.application, config.is_main) == ("synapse.app.synchrotron", "synchrotron", False)
    assert config.server.server_name == "example.org"
    assert config.workers.worker_replication_host == "127.0.0.1"
    assert (config.workers.worker_replication_port, config.workers.worker_replication_http_port) == (9092, 9093)
    assert [(str(one.type), one.port, one.names) for one in config.listeners] == [("http", 8083, frozenset({"client"}))]
    assert config.listeners[0].addresses == ("::", "0.0.0.0")
    assert config.daemonize
    assert config.pid_file == "/home/matrix/synapse/synchrotron.pid"
    assert config.log_config == "/home/matrix/synapse/config/synchrotron_log_config.yaml"
    assert config.warnings == ()


def test_the_file_of_the_main_process_among_the_workers(write: Write, options: dict[str, Any]) -> None:
    main = write("homeserver.yaml", yaml.safe_dump(options | {"pid_file": "/run/hs.pid"}) + REPLICATION_LISTENERS)
    config = load([main, write("workers/main.yaml", MAIN_WORKER_FILE)])

    assert config.is_main
    assert config.daemonize
    assert config.instance_name == "main"
    assert config.pid_file == "/run/hs.pid"
    assert [(one.type, one.port, one.addresses) for one in config.listeners] == [
        ("replication", 9092, ("127.0.0.1",)),
        ("http", 9093, ("127.0.0.1",)),
    ]


def test_without_worker_app_it_is_the_main_process(options: dict[str, Any]) -> None:
    config = from_options(options)
    assert config.is_main
    assert not config.daemonize
    assert config.client_baseurl == "https://example.org"
    assert config.media.max_upload_size == 50 * 1024 * 1024
    assert config.warnings == ()


def test_later_files_win(write: Write, options: dict[str, Any]) -> None:
    first = write("homeserver.yaml", options | {"max_upload_size": "1M", "bcrypt_rounds": 5})
    config = load([first, write("more.yaml", {"max_upload_size": "2M"})])
    assert config.media.max_upload_size == 2 << 20
    assert config.registration.bcrypt_rounds == 5


def test_a_directory_is_read_in_the_order_of_its_names(write: Write, options: dict[str, Any], tmp_path: Path) -> None:
    write("conf.d/20-b.yaml", {"bcrypt_rounds": 6})
    write("conf.d/10-a.yaml", options | {"bcrypt_rounds": 5})
    write("conf.d/30-notes.txt", "no: [yaml")
    config = load([str(tmp_path / "conf.d")])
    assert config.registration.bcrypt_rounds == 6
    assert [Path(file).name for file in config.files] == ["10-a.yaml", "20-b.yaml"]


def test_a_worker_without_a_name_is_called_like_its_file(
    write: Write, options: dict[str, Any], worker: dict[str, Any]
) -> None:
    main = write("homeserver.yaml", options)
    assert load([main, write("sync-1.yaml", worker)]).instance_name == "sync-1"
    assert load([main, write("sync-1.yaml", worker | {"worker_name": "fast"})]).instance_name == "fast"


def test_secrets_come_from_files_too_and_hide_from_logs(write: Write, options: dict[str, Any]) -> None:
    path = write("secret", "  s3cret\n")
    config = from_options(options | {"registration_shared_secret_path": path})
    assert config.registration.registration_shared_secret == "s3cret"
    assert isinstance(config.registration.registration_shared_secret, Secret)
    assert "s3cret" not in repr(config)
    assert config.warnings == ()


def test_the_password_of_the_database_from_a_file(write: Write, options: dict[str, Any]) -> None:
    database = {"name": "psycopg2", "args": {"database": "syn", "user": "me", "cp_min": 2, "cp_max": 7}}
    config = from_options(options | {"database": database | {"password_path": write("pw", "pä ss\n")}})
    assert config.database.connection_args == {"dbname": "syn", "user": "me", "password": "pä ss"}
    assert (config.database.pool_min, config.database.pool_max) == (2, 7)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, True),
        ({"use_presence": False}, False),
        ({"presence": {"enabled": False}}, False),
        ({"presence": None}, True),
    ],
)
def test_both_forms_of_presence(options: dict[str, Any], given: dict[str, Any], expected: bool) -> None:
    assert from_options(options | given).use_presence is expected


def test_an_empty_option_has_its_default(options: dict[str, Any]) -> None:
    config = from_options(options | {"caches": None, "listeners": None, "rc_message": None})
    assert config.caches.size("events", 100) == 100
    assert config.listeners == ()
    assert config.ratelimiting.rc_message.burst_count > 0


def test_rate_limits_and_caches(options: dict[str, Any]) -> None:
    config = from_options(
        options
        | {
            "rc_login": {"address": {"per_second": 1, "burst_count": 2}},
            "caches": {"global_factor": 0.5, "per_cache_factors": {"events": 2}},
        }
    )
    limit = config.ratelimiting.by_name("rc_login.address")
    assert (limit.per_second, limit.burst_count) == (1.0, 2)
    with pytest.raises(AttributeError):
        config.ratelimiting.by_name("rc_login")
    assert config.caches.size("events", 100) == 200
    assert config.caches.size("other", 100) == 50
    assert config.caches.size("tiny", 1) == 1


def test_listeners_that_no_stranger_may_reach_are_on_loopback_by_default(options: dict[str, Any]) -> None:
    listeners = [
        {"type": "http", "port": 1, "resources": [{"names": ["client"]}]},
        {"type": "http", "port": 2, "resources": [{"names": ["replication"]}]},
        {"type": "metrics", "port": 3},
        {"type": "http", "path": "/run/s.sock", "mode": "0660", "resources": [{"names": ["client"], "compress": True}]},
    ]
    public, replication, metrics, unix = from_options(options | {"listeners": listeners}).listeners
    assert public.addresses == ("::", "0.0.0.0")
    assert replication.addresses == ("127.0.0.1",)
    assert metrics.addresses == ("127.0.0.1",)
    assert (unix.path, unix.mode, unix.compressed) == ("/run/s.sock", 0o660, frozenset({"client"}))
    assert str(unix) == "http on /run/s.sock"
    assert str(metrics) == "metrics on 127.0.0.1:3"


def test_a_listener_without_one_of_its_resources() -> None:
    both = Listener(type="http", port=1, resources=(ListenerResource(names=("client", "metrics")),))
    assert both.without("metrics").names == {"client"}
    assert both.without("keys") is both
    own = Listener(type="metrics", port=1).without("metrics")
    assert (str(own.type), own.names) == ("http", frozenset({"health"}))


def test_signing_keys_are_read(options: dict[str, Any]) -> None:
    (key,) = from_options(options).keys.read_signing_keys()
    assert key.key_id.startswith("ed25519:a_")
    assert len(key.seed) == 32


@pytest.mark.parametrize(
    ("written", "meant"),
    [("true", True), ("True", True), ("false", False), ("False", False), ("", False), (1, True), (0, False)],
)
def test_booleans_as_programs_write_them(options: dict[str, Any], written: object, meant: bool) -> None:
    assert from_options(options | {"daemonize": written}).daemonize is meant


def test_the_one_database_among_databases(options: dict[str, Any]) -> None:
    expected = from_options(options)
    databases = {"main": options.pop("database")}
    config = from_options(options | {"databases": databases})
    assert config.database == expected.database
    assert config.warnings == ()
