"""The last lines of a process's logs, to show why it does not serve."""

from __future__ import annotations

import os

import yaml

from synapse.synctl.cluster import Process

_MOST_BYTES = 64 * 1024


class LogTail:
    """Remembers where a process's logs ended before it was started."""

    def __init__(self, process: Process) -> None:
        self._offsets = {path: _size(path) for path in log_files(process)}

    def lines(self, count: int = 15) -> list[str]:
        """The last lines that were written since, of the first file that has any."""
        for path, offset in self._offsets.items():
            lines = _read_from(path, offset)
            if lines:
                return lines[-count:]
        return []


def log_files(process: Process) -> list[str]:
    """What it prints, then the files of its log configuration."""
    return [process.output_file, *_configured(process.config.log_config)]


def _configured(path: str | None) -> list[str]:
    if path is None:
        return []
    try:
        with open(path, encoding="utf-8") as file:
            handlers = yaml.safe_load(file).get("handlers", {}).values()
        return [os.path.abspath(handler["filename"]) for handler in handlers if "filename" in handler]
    except (OSError, yaml.YAMLError, AttributeError, TypeError):
        return []  # the process itself says what is wrong with it


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _read_from(path: str, offset: int) -> list[str]:
    size = _size(path)
    start = offset if offset <= size else 0  # a smaller file is a new one
    try:
        with open(path, "rb") as file:
            file.seek(max(start, size - _MOST_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
