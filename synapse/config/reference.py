"""What the options are, written for people: docs/configuration.md, and the comments of a generated homeserver.yaml.

python -m synapse.config.reference > docs/configuration.md
"""

from __future__ import annotations

import textwrap
import types
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec
import yaml

from synapse.config.listeners import Listener
from synapse.config.options import Duration, Mode, Option, Path, Port, Positive, Secret, Section, Size, options_of
from synapse.config.root import NESTED, SECTIONS

_HEAD: Final = """\
# Configuration

A server reads one or more YAML files: `python -m synapse.app.homeserver -c homeserver.yaml`. `-c` may be given several
times; a directory stands for its `*.yaml` files in the order of their names; an option in a later file replaces the one
in an earlier file. A worker is started with the main file first and its own after it, and so inherits everything that
its own file does not say.

Durations are milliseconds or have a unit (`90s`, `5m`, `1h`, `2d`, `1w`, `1y`); sizes are bytes or have a unit
(`512K`, `50M`, `1G`). Relative paths count from the directory in which the process is started. A secret may stand in a
file of its own, readable for the server alone: write `<option>_path: /path/of/the/file` in place of the option.

A mistake ends the start with a sentence that names file, option and remedy; an unknown option is named in a warning.

This page is written from the settings' declarations (`python -m synapse.config.reference`); change those.
"""


def reference() -> str:
    """The whole of docs/configuration.md."""
    parts = [_HEAD]
    for name, section in SECTIONS.items():
        parts.append("\n".join(_section(section, name if name in NESTED else "")))
    return "\n".join([*parts, *_section(Listener, "listeners[]")])


def _section(section: type[Section], prefix: str) -> Iterator[str]:
    title, _, text = " ".join((section.__doc__ or "").split()).partition(": ")
    yield f"## {title}\n"
    yield f"{text[:1].upper()}{text[1:]}\n"
    yield "| option | type | default | |\n| --- | --- | --- | --- |"
    for name, option in _flattened(section, prefix):
        yield f"| `{name}` | {type_name(option.type)} | {_default(option)} | {option.doc.text} |"
    yield ""


def _flattened(section: type[Section], prefix: str) -> Iterator[tuple[str, Option]]:
    """The options of a section and of those inside it, by their full names. Listeners have a table of their own."""
    for option in options_of(section).values():
        name = f"{prefix}.{option.name}" if prefix else option.name
        inner, many = inner_section(option.type)
        yield name, option
        if inner is not None and inner is not Listener and not _is_rate(inner):
            yield from _flattened(inner, f"{name}[]" if many else name)


def _is_rate(section: type[Section]) -> bool:
    return set(options_of(section)) == {"per_second", "burst_count"}


def inner_section(annotation: Any) -> tuple[type[Section] | None, bool]:
    """The section inside an option's type, and whether there may be many."""
    if get_origin(annotation) is Annotated:
        return inner_section(annotation.__origin__)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, False
    many = get_origin(annotation) is tuple
    for argument in get_args(annotation) if many or get_origin(annotation) in (Union, types.UnionType) else ():
        found, _ = inner_section(argument)
        if found is not None:
            return found, many
    return None, False


_NAMES: Final = (
    (Duration, "duration"),
    (Size, "size"),
    (Port, "port"),
    (Path, "path"),
    (Mode, "octal digits"),
    (Positive, "whole number, from 1"),
)
_SIMPLE: Final[dict[Any, str]] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Secret: "secret",
    Any: "any",
}


def type_name(annotation: Any) -> str:
    """An option's type in words."""
    if get_origin(annotation) is Annotated:
        return next((name for kind, name in _NAMES if _is_kind(annotation, kind)), "") or type_name(
            annotation.__origin__
        )
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return type_name(arguments[0])
    if origin is tuple:
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return "mapping"
    if origin is Literal:
        return ", ".join(f"`{str(a).lower() if isinstance(a, bool) else a}`" for a in arguments)
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    return "`{per_second, burst_count}`" if _is_rate(annotation) else "block"


def _is_kind(annotation: Any, kind: Any) -> bool:
    return kind.__metadata__[0] in annotation.__metadata__


def plain(value: Any) -> Any:
    """A default as YAML would have it."""
    if isinstance(value, Section):
        return {option: plain(getattr(value, option)) for option in options_of(type(value))}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value


def _default(option: Option) -> str:
    if option.default is msgspec.NODEFAULT:
        return "required"
    if option.default is None or option.default in ((), {}):
        return ""
    inner, _ = inner_section(option.type)
    if inner is not None and not _is_rate(inner):
        return ""
    return f"`{flow(readable(option))}`"


def readable(option: Option) -> Any:
    """The default of an option, durations and sizes with the largest unit that fits."""
    value = plain(option.default)
    if get_origin(option.type) is Annotated and _is_kind(option.type, Mode):
        return f"{value:04o}"
    for kind, units in (
        (Duration, (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000))),
        (Size, (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10))),
    ):
        if get_origin(option.type) is Annotated and _is_kind(option.type, kind):
            return next((f"{value // factor}{unit}" for unit, factor in units if value and value % factor == 0), value)
    return value


def flow(value: Any) -> str:
    """A value on one line of YAML."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def comment(text: str) -> str:
    """Text as comment lines of a YAML file."""
    return "\n".join(f"# {line}" for line in textwrap.wrap(text.replace("`", ""), 100))


if __name__ == "__main__":
    print(reference(), end="")
