"""How a setting is declared, and how what YAML gave is checked against the declaration.

A section is a frozen `msgspec.Struct` whose fields are the options, under the names that their users write:

    class VoipConfig(Section, frozen=True, kw_only=True):
        "Calls: the TURN servers that clients are told of."

        turn_uris: Annotated[tuple[str, ...], Doc("URIs of the TURN servers.", example=["turn:turn.example.org"])] = ()
        turn_user_lifetime: Annotated[Duration, Doc("How long a TURN password is valid.")] = hours(1)
        turn_shared_secret: Annotated[Secret | None, Doc("The secret shared with the TURN server.")] = None

This is the one source: the parser here, the comments of a generated homeserver.yaml (`synapse.config.generate`) and
docs/configuration.md (`synapse.config.reference`) are derived from it. Checks that need more than one option are
in `synapse.config.checks`.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from synapse.config.errors import ConfigError

S = TypeVar("S", bound="Section")


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Options that belong together; its docstring heads them in the documentation."""


@dataclass(frozen=True, slots=True)
class Doc:
    """What an option is for; `example` is shown where the default says nothing."""

    text: str
    example: Any = None


class Secret(str):
    """Text that must not appear in a log: its repr hides it.

    Each option of this type has a sibling `<name>_path`, the file to read it from.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'<secret>'"


class _Kind:
    """Marks an `Annotated` type with how its users write it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}>"


_DURATION: Final = _Kind("duration")
_SIZE: Final = _Kind("size")
_PORT: Final = _Kind("port")
_PATH: Final = _Kind("path")
_MODE: Final = _Kind("mode")
_LEVEL: Final = _Kind("positive")

Duration = Annotated[int, _DURATION]
"""Milliseconds; written as such, or with a unit: `90s`, `5m`, `1h`, `2d`, `1w`, `1y`."""

Size = Annotated[int, _SIZE]
"""Bytes; written as such, or with a unit: `512K`, `50M`, `1G`."""

Port = Annotated[int, _PORT]
"""A TCP port, 1 to 65535."""

Path = Annotated[str, _PATH]
"""A file or directory. A relative one counts from the directory of the process's start, `~` is the home directory."""

Mode = Annotated[int, _MODE]
"""Access mode of a file, in octal digits: `0660`."""

Positive = Annotated[int, _LEVEL]
"""A whole number from 1 up."""

_DURATION_UNITS: Final = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
    "y": 31_536_000_000,
}
_SIZE_UNITS: Final = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_NUMBER_AND_UNIT: Final = re.compile(r"(\d+)\s*([A-Za-z]*)", re.ASCII)


class WrongValue(Exception):
    """A value that does not fit its declaration; `option` grows on the way up, from the inside out."""

    def __init__(self, problem: str, remedy: str, option: str = "") -> None:
        super().__init__(problem, remedy, option)
        self.problem = problem
        self.remedy = remedy
        self.option = option

    def within(self, outer: str) -> WrongValue:
        """The same mistake, seen from one level further out."""
        return WrongValue(self.problem, self.remedy, _joined(outer, self.option))


def _joined(outer: str, inner: str) -> str:
    """`listeners` and `[0].port` or `port`, as one option's name."""
    return f"{outer}{'' if not inner or inner.startswith('[') else '.'}{inner}"


@dataclass(frozen=True, slots=True)
class Option:
    """One declared option, as the parser and the documentation see it."""

    name: str
    type: Any
    doc: Doc
    default: Any  # msgspec.NODEFAULT where the option is required

    @property
    def is_secret(self) -> bool:
        """Whether `<name>_path` may be written instead."""
        return Secret in _alternatives(self.type)


@cache
def options_of(section: type[Section]) -> dict[str, Option]:
    """The options of a section by name, in the order of their declaration."""
    found = {}
    for field in msgspec.structs.fields(section):
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        found[field.encode_name] = Option(field.encode_name, field.type, _doc_of(field.type), default)
    return found


def _doc_of(annotation: Any) -> Doc:
    if get_origin(annotation) is Annotated:
        for extra in annotation.__metadata__:
            if isinstance(extra, Doc):
                return extra
    return Doc("")


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of `X | Y`, of `Annotated[X | Y, …]`, or just X."""
    if get_origin(annotation) is Annotated:
        return _alternatives(annotation.__origin__)
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def nearest(word: str, known: list[str]) -> str | None:
    """The known word that was probably meant."""
    import difflib  # only needed once something is wrong

    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return matches[0] if matches else None


# -- values ------------------------------------------------------------------------------------------------------


def parse_duration(value: object) -> int:
    """Milliseconds of `value`: a number of them, or digits with a unit. Raises `WrongValue`."""
    return _with_unit(
        value,
        _DURATION_UNITS | {"": 1},
        "a duration",
        'write milliseconds or a number with a unit, such as "30s", "5m", "1h" or "7d"',
    )


def parse_size(value: object) -> int:
    """Bytes of `value`: a number of them, or digits with a unit. Raises `WrongValue`."""
    return _with_unit(value, _SIZE_UNITS, "a size", 'write bytes or a number with a unit, such as "512K" or "50M"')


def _with_unit(value: object, units: dict[str, int], what: str, remedy: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _NUMBER_AND_UNIT.fullmatch(value.strip()) if isinstance(value, str) else None
    factor = units.get(match[2], units.get(match[2].upper())) if match else None
    if match is None or factor is None:
        raise WrongValue(f"must be {what}, not {shown(value)}", remedy)
    return int(match[1]) * factor


def shown(value: object) -> str:
    """A wrong value for an error message: short, and never the inside of a structure (there could be secrets in it)."""
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(str(value)) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _port(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return value
    raise WrongValue(f"must be a port number, not {shown(value)}", "write a whole number from 1 to 65535")


def _positive(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise WrongValue(f"must be a whole number from 1 up, not {shown(value)}", "write such a number")


def _mode(value: object) -> int:
    if isinstance(value, str) and re.fullmatch("0?o?[0-7]{3}", value):
        return int(value.replace("o", ""), 8)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
        return value  # YAML has read the octal digits already
    raise WrongValue(f"must be an access mode, not {shown(value)}", 'write octal digits in quotes, such as "0660"')


def _path(value: object) -> str:
    import os

    text = _text(value)
    if not text:
        raise WrongValue("must be a path, not empty text", "name a file or directory, or remove the option")
    return os.path.abspath(os.path.expanduser(text))


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise WrongValue(f"must be text, not {shown(value)}", "put the value in quotes")


# How programs that write YAML without booleans put them; `"no"` and `"off"` from people stay mistakes.
_FLAGS: Final = {"true": True, "false": False, "": False}


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in _FLAGS:
        return _FLAGS[value.lower()]
    raise WrongValue(f"must be true or false, not {shown(value)}", "write true or false, without quotes")


def _whole(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise WrongValue(f"must be a whole number, not {shown(value)}", "write digits without quotes")


def _number(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    raise WrongValue(f"must be a number from 0 up, not {shown(value)}", "write digits without quotes")


_BY_KIND: Final[dict[_Kind, Callable[[object], Any]]] = {
    _DURATION: parse_duration,
    _SIZE: parse_size,
    _PORT: _port,
    _PATH: _path,
    _MODE: _mode,
    _LEVEL: _positive,
}
_BY_TYPE: Final[dict[Any, Callable[[object], Any]]] = {
    bool: _flag,
    int: _whole,
    float: _number,
    str: _text,
    Secret: lambda value: Secret(_text(value)),
    Any: lambda value: value,
}


class Reader:
    """Turns what YAML gave into sections; collects warnings of unknown options on the way."""

    def __init__(self) -> None:
        self.unknown: list[tuple[str, str | None]] = []  # (option, the nearest known one)

    def value(self, annotation: Any, value: object) -> Any:
        """`value` as the annotation wants it. Raises `WrongValue`."""
        if get_origin(annotation) is Annotated:
            for extra in annotation.__metadata__:
                if isinstance(extra, _Kind):
                    return _BY_KIND[extra](value)
            return self.value(annotation.__origin__, value)
        simple = _BY_TYPE.get(annotation)
        if simple is not None:
            return simple(value)
        if isinstance(annotation, type) and issubclass(annotation, Section):
            return self.section(annotation, value)
        return self._composite(annotation, value)

    def _composite(self, annotation: Any, value: object) -> Any:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin in (Union, types.UnionType):
            inner = [argument for argument in arguments if argument is not type(None)]
            return None if value is None else self.value(inner[0], value)
        if origin is Literal:
            return _choice(value, arguments)
        if origin is tuple:
            return self._list(arguments[0], value)
        if origin is dict:
            return self._mapping(arguments[1], value)
        raise TypeError(f"options of type {annotation} are not supported")

    def _list(self, annotation: Any, value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise WrongValue(
                f"must be a list, not {shown(value)}",
                "write its items in brackets, or each on a line that begins with a dash",
            )
        return tuple(self._inner(f"[{index}]", annotation, item) for index, item in enumerate(value))

    def _mapping(self, annotation: Any, value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise WrongValue(f"must be a mapping, not {shown(value)}", "write `key: value` lines, indented below it")
        return {str(key): self._inner(str(key), annotation, item) for key, item in value.items()}

    def _inner(self, name: str, annotation: Any, value: object) -> Any:
        known = len(self.unknown)
        try:
            return self.value(annotation, value)
        except WrongValue as error:
            raise error.within(name) from None
        finally:
            self.unknown[known:] = [(_joined(name, option), near) for option, near in self.unknown[known:]]

    def section(self, section: type[S], value: object) -> S:
        """A section from a mapping of its options; an absent or empty option takes its default. Raises `WrongValue`."""
        if not isinstance(value, dict):
            raise WrongValue(f"must be a mapping, not {shown(value)}", "write `option: value` lines, indented below it")
        options = options_of(section)
        known = known_names(options)
        for name in value:
            if name not in known:
                self.unknown.append((str(name), nearest(str(name), known)))
        return self.known(section, value)

    def known(self, section: type[S], mapping: dict[Any, Any]) -> S:
        """Like `section`, but silent about unknown options: at the top level they are another section's."""
        values: dict[str, Any] = {}
        for option in options_of(section).values():
            given = mapping.get(option.name)
            if option.is_secret:
                given = _secret(option, given, mapping.get(f"{option.name}_path"))
            if given is not None:
                values[option.name] = self._inner(option.name, option.type, given)
            elif option.default is msgspec.NODEFAULT:
                raise WrongValue("is missing", "add it", option.name)
        return section(**values)


def known_names(options: dict[str, Option]) -> list[str]:
    """What may be written in a section: its options, and `_path` siblings of the secret ones."""
    return [*options, *(f"{option.name}_path" for option in options.values() if option.is_secret)]


def _choice(value: object, choices: tuple[Any, ...]) -> Any:
    if value in choices:
        return value
    words = [str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in choices]
    near = nearest(str(value), words)
    remedy = f'write "{near}" if that is what you meant' if near else "use one of these"
    raise WrongValue(f"must be one of {', '.join(words)}, not {shown(value)}", remedy)


def _secret(option: Option, given: object, path: object) -> object:
    """The value of a secret that stands in the configuration itself or in a file of its own."""
    if path is None:
        return given
    name = f"{option.name}_path"
    if given is not None:
        raise WrongValue(f"and `{option.name}` are both set", "keep one of them", name)
    try:
        return read_secret(_path(path))
    except WrongValue as error:
        raise error.within(name) from None


def read_secret(path: str) -> str:
    """The text of a secret's file without the white space around it. Raises `WrongValue`."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise WrongValue(
            f"names the file {path}, which cannot be read ({reason})",
            "create it, readable by the user that the server runs as",
        ) from None
    if not text:
        raise WrongValue(f"names the file {path}, which is empty", "write the secret into it")
    return text


def as_config_error(error: WrongValue, file: str) -> ConfigError:
    """The mistake with the file that it was made in."""
    return ConfigError(file, error.option or None, error.problem, error.remedy)
