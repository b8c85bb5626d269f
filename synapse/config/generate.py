"""Making a configuration: homeserver.yaml, the signing key and the log configuration of a new server.

Secrets are drawn, never defaulted, and nothing is ever overwritten. What is written is put together from the
declarations in `synapse.config.sections`: every option stands there with what it is for, those without a value
commented out.
"""

from __future__ import annotations

import base64
import os
import secrets
import string
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import yaml

from synapse.config.errors import ConfigError
from synapse.config.options import Option, Section, known_names, options_of
from synapse.config.reference import comment, readable
from synapse.config.root import NESTED, SECTIONS, default_key_path

_PRIVATE: Final = 0o600
_PUBLIC: Final = 0o644
# Of the workers' section, only this is for all processes; a worker's own file is written by hand.
_SHARED_BY_WORKERS: Final = ("worker_replication_secret",)

_HEAD: Final = """\
# The configuration of a Matrix homeserver.
#
# Every option is here; those that are commented out show their default, or an example. Workers have files of
# their own beside it, see docs/workers.md. docs/configuration.md has the same as tables.
"""

_LOG_CONFIG: Final = """\
# In the form of Python's logging.config.dictConfig. All processes that have no file of their own
# (worker_log_config) use this one. When the log file has been moved away, it is opened anew; SIGHUP makes sure of it.
version: 1
disable_existing_loggers: false

formatters:
  precise:
    # request: the id of the request that the line belongs to; it begins with the worker's name.
    format: '%(asctime)s - %(name)s - %(lineno)d - %(levelname)s - %(request)s - %(message)s'

handlers:
  file:
    class: logging.handlers.WatchedFileHandler
    formatter: precise
    filename: {filename}
    encoding: utf8

root:
  level: INFO
  handlers: [file]
"""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the files of a new server go."""

    config_file: str
    config_directory: str
    keys_directory: str
    data_directory: str


def generate_config(server_name: str, report_stats: bool, layout: Layout) -> list[str]:
    """Write a new server's files and return their paths. Raises `ConfigError`.

    A configuration that exists is left as it is; only the files that it names, or takes for granted, are made.
    """
    from synapse.api.identifiers import is_server_name

    if not is_server_name(server_name):
        problem = f"is {server_name!r}, which is no host name with or without a port"
        raise ConfigError("the command line", "--server-name", problem, "write a domain such as example.org")
    if os.path.exists(layout.config_file):
        return _missing_files(server_name, layout)
    key_file = default_key_path(server_name, layout.keys_directory)
    log_file = os.path.join(layout.config_directory, f"{server_name}.log.config")
    values = _values(server_name, report_stats, layout) | {"signing_key_path": key_file, "log_config": log_file}
    for directory in {layout.config_directory, layout.keys_directory, layout.data_directory}:
        _make_directory(directory)
    written = [path for path in (_new_key(key_file), _new_log_config(log_file, layout)) if path]
    _write(layout.config_file, render(values), _PRIVATE)
    return [layout.config_file, *written]


def _missing_files(server_name: str, layout: Layout) -> list[str]:
    """Make what an existing configuration names and what is not there: its signing key and its log configuration."""
    from synapse.config.files import read_files

    merged = read_files([layout.config_file])
    name = merged.options.get("server_name")
    if name != server_name:
        problem = f"is {server_name}, but {layout.config_file} is the configuration of {name}"
        raise ConfigError("the command line", "--server-name", problem, "name another file after -c")
    key_file = merged.options.get("signing_key_path") or default_key_path(server_name, layout.keys_directory)
    log_file = merged.options.get("log_config")
    written = [generate_keys({"signing_key_path": key_file}, merged.place("signing_key_path"))]
    if isinstance(log_file, str) and log_file:
        written.append(_new_log_config(os.path.abspath(os.path.expanduser(log_file)), layout))
    return [path for path in written if path]


def _values(server_name: str, report_stats: bool, layout: Layout) -> dict[str, Any]:
    def in_data(name: str) -> str:
        return os.path.join(layout.data_directory, name)

    resources = [{"names": ["client", "federation"]}]
    return {
        "server_name": server_name,
        "pid_file": in_data("homeserver.pid"),
        "listeners": [
            {"port": 8008, "type": "http", "bind_addresses": ["127.0.0.1"], "x_forwarded": True, "resources": resources}
        ],
        "report_stats": report_stats,
        "database": {"name": "embedded", "data_directory": in_data("postgres")},
        "media_store_path": in_data("media_store"),
        "registration_shared_secret": secrets.token_urlsafe(32),
        "worker_replication_secret": secrets.token_urlsafe(32),
    }


def generate_keys(options: Mapping[str, Any], place: str) -> str | None:
    """Make the signing key that the options name and return its path, None if it exists. Raises `ConfigError`."""
    path = options.get("signing_key_path")
    if path is None and isinstance(options.get("server_name"), str):
        path = default_key_path(options["server_name"], os.path.dirname(place.partition(",")[0]))
    if not isinstance(path, str) or not path:
        remedy = "name the file that the signing key shall be written to"
        raise ConfigError(place, "signing_key_path", "is missing" if path is None else "is no path", remedy)
    return _new_key(os.path.abspath(os.path.expanduser(path)))


def new_signing_key() -> str:
    """A line of a signing key's file: algorithm, version, base64 of the seed."""
    version = "a_" + "".join(secrets.choice(string.ascii_letters) for _ in range(4))
    seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    return f"ed25519 {version} {seed}\n"


def _new_key(path: str) -> str | None:
    if os.path.exists(path):
        return None
    _make_directory(os.path.dirname(path))
    _write(path, new_signing_key(), _PRIVATE)
    return path


def _new_log_config(path: str, layout: Layout) -> str | None:
    if os.path.exists(path):
        return None
    filename = yaml.safe_dump(os.path.join(layout.data_directory, "homeserver.log"), width=10_000).split("\n")[0]
    _write(path, _LOG_CONFIG.format(filename=filename), _PUBLIC)
    return path


def _make_directory(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            path, None, f"cannot be made ({error.strerror})", "choose a directory you may write to"
        ) from None


def _write(path: str, text: str, mode: int) -> None:
    """A new file, never over an existing one. Raises `ConfigError`."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise ConfigError(
            path, None, f"cannot be written ({error.strerror})", "choose a place you may write to"
        ) from None
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)


# -- the text of homeserver.yaml ---------------------------------------------------------------------------------------


def render(values: Mapping[str, Any]) -> str:
    """homeserver.yaml with these values; every other option commented out."""
    parts = [_HEAD]
    for name, section in SECTIONS.items():
        title = " ".join((section.__doc__ or "").split())
        parts.append(f"\n{'#' * 100}\n{comment(title)}\n")
        if name in NESTED:
            parts.append(_block(name, section, values.get(name)))
        else:
            only = _SHARED_BY_WORKERS if name == "workers" else None
            parts.extend(
                _option(option, values) for option in options_of(section).values() if not only or option.name in only
            )
    return "\n".join(parts)


def _option(option: Option, values: Mapping[str, Any]) -> str:
    """An option with its comment: its value, or its default or example commented out."""
    head = comment(option.doc.text)
    name = next((name for name in known_names({option.name: option}) if name in values), None)
    if name is not None:
        return f"{head}\n{_dump({name: values[name]})}\n"
    return f"{head}\n{textwrap.indent(_dump({option.name: _shown(option)}), '#')}\n"


def _shown(option: Option) -> Any:
    """The default, if there is one that says something, or the example."""
    says_nothing = option.default is msgspec.NODEFAULT or not option.default or isinstance(option.default, Section)
    if option.doc.example is not None and says_nothing:
        return option.doc.example
    return "…" if option.is_secret else readable(option)


def _block(name: str, section: type[Section], values: Mapping[str, Any] | None) -> str:
    """A section whose options stand in a block of its name: with values, or commented out as a whole."""
    lines = "\n".join(_lines_of_block(section, values or {}))
    active = f"{name}:\n{textwrap.indent(lines, '  ')}\n"
    return active if values else textwrap.indent(active, "#", lambda line: not line.lstrip().startswith("#"))


def _lines_of_block(section: type[Section], values: Mapping[str, Any]) -> Iterator[str]:
    for option in options_of(section).values():
        yield _option(option, values).rstrip("\n")


class _Dumper(yaml.SafeDumper):
    """Indents lists below their option, as people write them and as the documentation shows them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _dump(value: Any) -> str:
    text = yaml.dump(value, None, _Dumper, sort_keys=False, width=10_000, allow_unicode=True, default_flow_style=False)
    return text.rstrip("\n")
