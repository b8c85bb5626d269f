"""Reading configuration files: YAML that is checked as it is read, directories in order, later files over earlier ones.

What the options mean is not known here; only that each file is a mapping, and where each option stands.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import yaml

from synapse.config.errors import ConfigError

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # a PyYAML built without libyaml
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]  # has the same methods

_SUFFIXES = (".yaml", ".yml")


class Merged:
    """The options of some files, the later over the earlier, and where each stands."""

    def __init__(self, files: tuple[str, ...], options: dict[str, Any], places: dict[str, str]) -> None:
        self.files = files
        self.options = options
        self._places = places

    def of_worker(self) -> list[str]:
        """The options that the last file sets, where it is a worker's, after those that are for all processes."""
        last = f"{self.files[-1]}, line "
        mine = [option for option, place in self._places.items() if place.startswith(last)]
        return mine if len(self.files) > 1 and "worker_app" in mine else []

    def place(self, option: str | None) -> str:
        """The file, and line, that sets the option, or else the file where it belongs.

        `listeners[0].port` stands where `listeners` does.
        """
        top = (option or "").partition(".")[0].partition("[")[0]
        return self._places.get(top, self.files[-1 if top.startswith("worker_") else 0])


def read_files(paths: Sequence[str]) -> Merged:
    """Read files, and the `*.yaml` files of directories in the order of their names. Raises `ConfigError`."""
    options: dict[str, Any] = {}
    places: dict[str, str] = {}
    files = tuple(file for path in paths for file in _expand(path))
    for file in files:
        content, lines = read_file(file)
        options.update(content)
        places.update({key: f"{file}, line {line}" for key, line in lines.items()})
    return Merged(files, options, places)


def _expand(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    found = [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith(_SUFFIXES)]
    if not found:
        raise ConfigError(
            path, None, "is a directory without a .yaml file", "name the directory that the configuration is in"
        )
    return found


def read_file(path: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The options of one file, and the line on which each stands. Raises `ConfigError`."""
    text = _text(path)
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return {}, {}
            _check_keys(path, node)
            content = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _yaml_error(path, error) from None
    return content, {key.value: key.start_mark.line + 1 for key, _ in node.value}


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        remedy = "name an existing file after -c, or make one with --generate-config"
        raise ConfigError(path, None, "does not exist", remedy) from None
    except UnicodeDecodeError:
        raise ConfigError(path, None, "is not UTF-8 text", "save it as UTF-8") from None
    except OSError as error:
        remedy = "make it readable for the user that the server runs as"
        raise ConfigError(path, None, f"cannot be read ({error.strerror})", remedy) from None


def _yaml_error(path: str, error: yaml.YAMLError) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    place = f"{path}, line {mark.line + 1}" if mark is not None else path
    reason = getattr(error, "problem", None) or str(error).replace("\n", " ")
    return ConfigError(
        place, None, f"is not valid YAML ({reason})", "correct the line; mind its indentation, colons and quotes"
    )


def _check_keys(path: str, root: yaml.Node) -> None:
    """Refuse a file that is no mapping, and a key that stands twice, which YAML would let pass in silence."""
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(path, None, "is not a mapping of options", "write `option: value` lines")
    pending: list[yaml.Node] = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, yaml.SequenceNode):
            pending.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                _check_key(path, key, seen)
                pending.append(value)


def _check_key(path: str, key: yaml.Node, seen: set[str]) -> None:
    place = f"{path}, line {key.start_mark.line + 1}"
    if not isinstance(key, yaml.ScalarNode):
        raise ConfigError(place, None, "has a list or mapping in place of an option's name", "write `option: value`")
    if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
        raise ConfigError(place, key.value, "is set twice in the same file", "keep one of them")
    seen.add(key.value)
