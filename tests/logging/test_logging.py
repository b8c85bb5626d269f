"""Log lines carry their request, hide secrets, and survive the rotation of their file."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from synapse.logging.context import RequestContext, current_request, name_process, new_request_id
from synapse.logging.redact import REDACTED, redact
from synapse.logging.setup import LogConfigError, configure, reopen

CONFIG = """
version: 1
formatters:
  precise: {{format: '%(name)s %(request)s %(message)s'}}
filters:
  context: {{(): synapse.logging.context.LoggingContextFilter, request: none}}
handlers:
  file: {{class: logging.FileHandler, filename: {file}, formatter: precise, filters: [context]}}
  buffer: {{class: logging.handlers.MemoryHandler, target: file, capacity: 1, formatter: precise}}
loggers:
  test.rotation: {{level: INFO, handlers: [{handler}], propagate: false}}
"""


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, factory = list(root.handlers), root.level, logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(factory)
    root.handlers[:] = handlers
    root.setLevel(level)
    name_process("")
    for handler in logging.getLogger("test.rotation").handlers[:]:
        logging.getLogger("test.rotation").removeHandler(handler)
        handler.close()


def _configured(tmp_path: Path, handler: str = "file") -> tuple[logging.Logger, Path]:
    file = tmp_path / "server.log"
    config = tmp_path / "log.yaml"
    config.write_text(CONFIG.format(file=file, handler=handler))
    configure(str(config), "worker1")
    return logging.getLogger("test.rotation"), file


def test_a_line_names_the_request_it_was_written_for(tmp_path: Path) -> None:
    logger, file = _configured(tmp_path)
    logger.info("before")
    token = current_request.set(RequestContext("GET-7"))
    logger.info("within")
    current_request.reset(token)
    assert file.read_text().splitlines() == ["test.rotation none before", "test.rotation GET-7 within"]


def test_request_ids_name_the_process_and_differ(tmp_path: Path) -> None:
    _configured(tmp_path)
    first, second = new_request_id("GET"), new_request_id("GET")
    assert first.startswith("worker1-GET-")
    assert first != second


@pytest.mark.parametrize("handler", ["file", "buffer"])
def test_reopening_begins_a_new_file(tmp_path: Path, handler: str) -> None:
    logger, file = _configured(tmp_path, handler)
    logger.error("first")
    os.rename(file, tmp_path / "server.log.1")
    logger.error("still the old file")
    reopen()
    logger.error("second")
    assert "second" in file.read_text()
    assert "first" not in file.read_text()
    assert "still the old file" in (tmp_path / "server.log.1").read_text()


def test_reopening_survives_a_lost_directory(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    logger, file = _configured(directory)
    moved = tmp_path / "moved"
    directory.rename(moved)
    reopen()
    moved.rename(directory)
    logger.error("back")
    assert "back" in file.read_text()


def test_handlers_strike_out_secrets_whatever_the_configuration_says(tmp_path: Path) -> None:
    logger, file = _configured(tmp_path)
    logger.info("GET /sync?access_token=%s&since=s1", "hunter2")
    assert file.read_text() == f"test.rotation none GET /sync?access_token={REDACTED}&since=s1\n"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("/sync?access_token=abc.def&since=1", "abc.def"),
        ("/sync?since=1&access_token=abc.def", "abc.def"),
        ("{'Authorization': 'Bearer abc.def'}", "abc.def"),
        ("authorization: bearer abc.def", "abc.def"),
        ("token syt_YWxpY2U_abcdefghijklmnopqrst_0a1b2c was revoked", "abcdefghijklmnopqrst"),
        ("/login/sso?loginToken=xyzzyx", "xyzzyx"),
        ("/register?password=xyzzyx", "xyzzyx"),
        ("/registration/email/submit_token?token=xyzzyx&sid=1", "xyzzyx"),
        ("/registration/email/submit_token?sid=1&client_secret=xyzzyx", "xyzzyx"),
        ("GET /auth/m.login.terms/fallback/web?session=xyzzyx HTTP/1.1", "xyzzyx"),
        ("/login/cas/ticket?redirectUrl=https%3A%2F%2Fa.example&ticket=ST-xyzzyx", "xyzzyx"),
        ("/oidc/callback?code=xyzzyx&state=x", "xyzzyx"),
        ("/oidc/callback?code=x&state=xyzzyx", "xyzzyx"),
        ("/_matrix/consent?u=alice&h=xyzzyx&v=1", "xyzzyx"),
        ("GET /_synapse/admin/v1/threepid/email/users/xyzzyx@example.org -> 404", "xyzzyx"),
        ("PUT /_synapse/admin/v1/registration_tokens/xyzzyx -> 200", "xyzzyx"),
    ],
)
def test_secrets_are_redacted(text: str, secret: str) -> None:
    assert secret not in redact(text)
    assert REDACTED in redact(text)


NEW_TOKEN = "POST /_synapse/admin/v1/registration_tokens/new -> 200"


@pytest.mark.parametrize(
    "text", ["nothing to hide", "the token of a sync", "M_UNKNOWN_TOKEN", "?full_state=true", NEW_TOKEN]
)
def test_other_text_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("version: [", "not valid YAML"),
        ("- a list", "must be a mapping"),
        ("version: 1\nhandlers: {x: {class: no.such.Handler}}", "handler 'x'"),
        ("version: 2", "Unsupported version"),
    ],
)
def test_a_bad_configuration_is_named_in_a_sentence(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "log.yaml"
    path.write_text(content)
    with pytest.raises(LogConfigError) as caught:
        configure(str(path))
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_missing_configuration_is_named_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LogConfigError, match="cannot be read: No such file or directory"):
        configure(str(tmp_path / "none.yaml"))


def test_without_a_configuration_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    configure(None)
    logging.getLogger("somebody").info("hello access_token=secret1")
    written = capsys.readouterr().err
    assert "somebody" in written
    assert " - - - hello access_token=<redacted>" in written
