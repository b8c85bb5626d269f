"""What each application is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synapse.api.routes import ENDPOINTS, App
from synapse.app._duties import left_to_workers
from synapse.app.applications import Duty, application_of
from synapse.config import from_options
from synapse.config.checks import WORKER_APPS
from synapse.config.generate import new_signing_key

DUTIES = {
    "pusher": (Duty.PUSHER, "start_pushers"),
    "appservice": (Duty.APPSERVICE, "notify_appservices"),
    "federation_sender": (Duty.FEDERATION_SENDER, "send_federation"),
    "user_dir": (Duty.USER_DIRECTORY, "update_user_directory"),
    "media_repository": (Duty.MEDIA_REPOSITORY, "enable_media_repo"),
}


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "key").write_text(new_signing_key())
    return {
        "server_name": "example.org",
        "signing_key_path": str(tmp_path / "key"),
        "database": {"name": "embedded", "data_directory": str(tmp_path)},
        "worker_replication_host": "127.0.0.1",
        "worker_replication_port": 9092,
        "worker_replication_http_port": 9093,
        "worker_main_http_uri": "http://127.0.0.1:8008",
    }


def test_the_settings_know_the_same_applications_as_the_route_table() -> None:
    assert set(WORKER_APPS) == set(App) - {App.HOMESERVER}


def test_the_main_process_serves_all_and_has_every_duty(options: dict[str, Any]) -> None:
    main = application_of(from_options(options))
    assert main.name == "homeserver"
    assert main.endpoints == ENDPOINTS
    assert main.duties == set(Duty)
    assert not main.many


@pytest.mark.parametrize("name", DUTIES)
def test_a_duty_goes_to_its_worker(options: dict[str, Any], name: str) -> None:
    duty, option = DUTIES[name]
    options[option] = False
    assert application_of(from_options(options)).duties == set(Duty) - {duty}
    worker = application_of(from_options(options | {"worker_app": f"synapse.app.{name}"}))
    assert worker.duties == {duty}


@pytest.mark.parametrize("app", [app for app in App if app.removeprefix("synapse.app.") not in DUTIES])
def test_the_others_have_none(options: dict[str, Any], app: App) -> None:
    if app is not App.HOMESERVER:
        worker = application_of(from_options(options | {"worker_app": str(app)}))
        assert worker.duties == frozenset()
        assert worker.many


def test_a_generic_worker_has_the_duties_that_it_is_given(options: dict[str, Any]) -> None:
    given = {"worker_app": "synapse.app.generic_worker", "worker_duties": ["pusher", "user_directory"]}
    assert application_of(from_options(options | given)).duties == {Duty.PUSHER, Duty.USER_DIRECTORY}


def test_the_stub_for_presence_is_served_where_presence_is_off(options: dict[str, Any]) -> None:
    proxy = options | {"worker_app": "synapse.app.frontend_proxy"}
    on = {endpoint.name for endpoint in application_of(from_options(proxy)).endpoints}
    off = {endpoint.name for endpoint in application_of(from_options(proxy | {"use_presence": False})).endpoints}
    assert {name for name in off - on if "presence" in name}


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        ({}, []),
        ({"send_federation": False}, [Duty.FEDERATION_SENDER]),
        ({"send_federation": False, "federation_domain_whitelist": []}, []),
        ({"send_federation": False, "worker_app": "synapse.app.client_reader"}, []),
        ({"start_pushers": False, "notify_appservices": False, "enable_media_repo": False}, [Duty.PUSHER]),
    ],
)
def test_what_a_main_process_leaves_to_workers(options: dict[str, Any], given: dict[str, Any], needed: Any) -> None:
    config = from_options(options | given)
    assert left_to_workers(config, application_of(config).duties) == needed
