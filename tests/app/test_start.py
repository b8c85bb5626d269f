"""The command line: what is refused, and the commands that only write files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synapse.api.routes import App
from synapse.app._start import main
from synapse.config import load
from tests.app.processes import Place

WORKER: dict[str, Any] = {
    "worker_app": "synapse.app.synchrotron",
    "worker_replication_host": "127.0.0.1",
    "worker_replication_port": 1,
    "worker_replication_http_port": 2,
}


def refused(capsys: pytest.CaptureFixture[str], argv: list[str], app: str = App.HOMESERVER) -> str:
    """The one sentence that a start is refused with."""
    assert main(argv, app) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_generate_config_as_the_description_has_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "homeserver.yaml"
    argv = ["--server-name", "example.org", "--config-path", str(path), "--generate-config", "--report-stats=no"]
    assert main(argv, App.HOMESERVER) == 0
    assert str(path) in capsys.readouterr().out
    assert load([str(path)]).server.server_name == "example.org"
    before = path.read_text()
    key = tmp_path / "example.org.signing.key"
    key.unlink()
    assert main(argv, App.HOMESERVER) == 0
    assert f"already exists: generating missing files. Wrote {key}." in capsys.readouterr().out
    assert path.read_text() == before


def test_generate_config_into_other_directories(tmp_path: Path) -> None:
    directories = [f"--{name}-directory={tmp_path / name}" for name in ("config", "keys", "data")]
    path = tmp_path / "etc" / "homeserver.yaml"
    path.parent.mkdir()
    assert main(["-H", "a.b", "-c", str(path), "--generate-config", "--report-stats=yes", *directories]) == 0
    config = load([str(path)])
    assert config.keys.signing_key_path == str(tmp_path / "keys" / "a.b.signing.key")
    assert config.log_config == str(tmp_path / "config" / "a.b.log.config")
    assert config.media.media_store_path == str(tmp_path / "data" / "media_store")
    assert config.server.report_stats is True


@pytest.mark.parametrize(
    ("argv", "option"),
    [
        (["--generate-config", "--report-stats=no"], "`--server-name` is missing"),
        (["--generate-config", "-H", "example.org"], "`--report-stats` is missing"),
        (["--generate-config", "-H", "ex ample", "--report-stats=no"], "`--server-name` is 'ex ample'"),
    ],
)
def test_generate_config_wants_to_be_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], option: str
) -> None:
    assert option in refused(capsys, ["-c", str(tmp_path / "homeserver.yaml"), *argv])
    assert list(tmp_path.iterdir()) == []


def test_generate_keys(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    key = place.directory / "signing.key"
    path = place.write()
    before = key.read_text()
    assert main(["-c", path, "--generate-keys"]) == 0
    assert key.read_text() == before
    key.unlink()
    assert main(["-c", path, "--generate-keys"]) == 0
    assert load([path]).keys.read_signing_keys()
    assert str(key) in capsys.readouterr().out


def test_a_configuration_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = refused(capsys, ["-c", str(tmp_path / "none.yaml")])
    assert sentence == (
        f"{tmp_path}/none.yaml: does not exist; name an existing file after -c, or make one with --generate-config.\n"
    )


def test_an_application_started_as_another(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    path = place.write(**WORKER)
    assert "start it with python -m synapse.app.synchrotron" in refused(capsys, ["-c", path])
    assert "start it with python -m synapse.app.synchrotron" in refused(capsys, ["-c", path], App.PUSHER)
    sentence = refused(capsys, ["-c", place.write()], App.PUSHER)
    assert "add `worker_app: synapse.app.pusher` to it" in sentence


def test_another_server_name_than_the_configuration_has(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert "`server_name` is example.org" in refused(capsys, ["-c", place.write(), "-H", "example.com"])


def test_a_log_configuration_that_is_none(place: Place) -> None:
    (place.directory / "log.yaml").write_text("version: [")
    status, errors = place.start("-c", place.write(log_config=str(place.directory / "log.yaml"))).finish()
    assert status == 1
    assert errors.count("\n") == 1
    assert str(place.directory / "log.yaml") in errors


def test_an_unknown_option_is_named_and_the_start_goes_on(place: Place) -> None:
    process = place.start("-c", place.write(start_pusher=False)).ready()
    process.tell(15)
    status, errors = process.finish()
    assert status == 0
    assert "`start_pusher` is no option of this server; did you mean `start_pushers`?" in errors


@pytest.mark.parametrize("app", list(App))
def test_every_application_has_its_module(app: App, place: Place) -> None:
    process = place.start("-c", str(place.directory / "none.yaml"), module=str(app))
    assert process.finish() == (
        1,
        f"{place.directory}/none.yaml: does not exist; name an existing file after -c, or make one with "
        "--generate-config.\n",
    )
