"""`synctl nginx` and `synctl haproxy` as their users call them: what their options make of the written file."""

from __future__ import annotations

from pathlib import Path

import pytest

from synapse.synctl import cli
from tests.synctl.test_actions import Site


@pytest.fixture
def config(tmp_path: Path) -> str:
    Site(tmp_path)
    return str(tmp_path / "homeserver.yaml")


def written(config: str, *arguments: str) -> str:
    file = Path(config).with_name("written.conf")
    assert cli.main([*arguments, "-o", str(file), config]) == 0
    return file.read_text()


def test_logs_are_where_they_are_wanted(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "access_log /var/log/nginx/synapse.access.log synapse " in written(config, "nginx")
    assert "error_log /logs/matrix.error.log alert;" in written(config, "nginx", "--logs", "/logs/matrix")
    monkeypatch.chdir(tmp_path)
    assert f"access_log {tmp_path}/here.access.log " in written(config, "nginx", "--logs", "here")


def test_a_standalone_nginx_has_its_logs_in_its_directory(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)  # root's nginx has a directory in /run besides
    text = written(config, "nginx", "--standalone", str(tmp_path / "own"))
    assert f"access_log {tmp_path}/own/nginx.access.log synapse " in text
    assert f"error_log {tmp_path}/own/nginx.error.log alert;" in text
    text = written(config, "nginx", "--standalone", str(tmp_path / "own"), "--logs", "/logs/x")
    assert "access_log /logs/x.access.log synapse " in text


def test_with_a_certificate_nginx_speaks_tls(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = written(config, "nginx", "--certificate", "a.crt", "--certificate-key", "/keys/a.key")
    assert f"    ssl_certificate {tmp_path}/a.crt;\n    ssl_certificate_key /keys/a.key;\n" in text
    for address in ("443", "[::]:443", "8448", "[::]:8448"):
        assert f"    listen {address} ssl;\n" in text
        assert f"    # listen {address} ssl;\n" in written(config, "nginx")
    pair = ("--certificate", "a.crt", "--certificate-key", "a.key")
    text = written(config, "nginx", "--listen", "127.0.0.1:8448 ssl", *pair)
    assert "    listen 127.0.0.1:8448 ssl;\n" in text
    assert "443" not in text
    assert cli.main(["nginx", "--certificate", "a.crt", config]) == 1
    assert "go together" in capsys.readouterr().err
    assert cli.main(["nginx", "--listen", "8008", "--listen", "8448 ssl", config]) == 1
    assert "--listen with ssl needs --certificate" in capsys.readouterr().err


def test_haproxy_refuses_what_is_for_nginx(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--logs", "--standalone", "--certificate", "--certificate-key"):
        assert cli.main(["haproxy", option, "x", config]) == 1
        assert f"{option.removesuffix('-key')} is for nginx" in capsys.readouterr().err


def test_processes_have_no_logs_to_be_placed(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["status", "--logs", "x", config])
    assert "--logs" in capsys.readouterr().err
