"""The specification's own description of its operations, read from the folder that holds it.

The description is no part of this repository. It is the folder `data` of the specification's repository
(github.com/matrix-org/matrix-spec, tag v1.19), and is looked for where `$MATRIX_SPEC` says, then in `shared/spec`
beside the repository. Without it `description()` is None, and what needs it is skipped with a sentence.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import orjson
import yaml

VERSION = "1.19"
ROOT = "file:///"
MISSING = f"The description of Matrix {VERSION} was not found; $MATRIX_SPEC names its folder (docs/contributing.md)."

_REPOSITORY = Path(__file__).resolve().parents[2]
_METHODS = ("get", "put", "post", "delete")
SERVER = "server."
_APIS = (f"{ROOT}api/client-server/", f"{ROOT}api/server-server/")
_FOLDERS = ("api", "event-schemas/schema/core-event-schema", "event-schemas/schema/components", "schemas")


@dataclass(frozen=True, slots=True)
class Place:
    """A node of the description: the URI of its file, the way to it, and what stands there."""

    uri: str
    way: tuple[str, ...]
    node: Any

    @property
    def reference(self) -> str:
        """What a `$ref` to it says."""
        escaped = (quote(part.replace("~", "~0").replace("/", "~1"), safe="~") for part in self.way)
        return f"{self.uri}#/" + "/".join(escaped)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: `subject` is the file that describes it, `path` has no prefix.

    Those of the server-server API have ids and subjects that begin with `server.`, as some have names of others.
    """

    id: str
    subject: str
    method: str
    path: str
    prefix: str
    place: Place = field(repr=False)
    parameters: tuple[dict[str, Any], ...] = field(repr=False)
    body: Place | None = field(repr=False)
    needs_body: bool = field(repr=False)
    answers: dict[int, Place | None] = field(repr=False)

    def parameters_in(self, where: str) -> list[dict[str, Any]]:
        """Its parameters in the `path` or the `query`."""
        return [parameter for parameter in self.parameters if parameter["in"] == where]

    @property
    def needs_token(self) -> bool:
        """Whether only a user may call it."""
        security = self.place.node.get("security", [])
        return any("accessTokenBearer" in kind for kind in security) and {} not in security

    @property
    def is_of_servers(self) -> bool:
        """Whether servers ask it of each other."""
        return self.id.startswith(SERVER)

    @property
    def needs_signature(self) -> bool:
        """Whether only another server may call it."""
        return self.is_of_servers and bool(self.place.node.get("security"))


class Description:
    """All files by their URI, and the operations of the client-server and the server-server API.

    `events` are the schemas of single types of events, which no operation refers to.
    """

    def __init__(self, root: Path) -> None:
        self.files = dict(_files(root))
        self.events = dict(_files(root, ("event-schemas/schema",), "*.yaml"))
        described = [uri for uri in self.files if uri.startswith(_APIS) and uri.count("/") == 5]
        self.operations = tuple(operation for uri in sorted(described) for operation in self._operations(uri))

    def operation(self, operation_id: str) -> Operation:
        """The operation of that operationId."""
        return next(operation for operation in self.operations if operation.id == operation_id)

    def resolved(self, place: Place) -> Place:
        """Where the references at a place lead in the end."""
        while isinstance(place.node, dict) and "$ref" in place.node:
            target = urljoin(place.uri, place.node["$ref"].strip())
            uri, _, fragment = target.partition("#")
            way = tuple(part.replace("~1", "/").replace("~0", "~") for part in fragment.split("/")[1:])
            node = self.files[uri]
            for part in way:
                node = node[part]
            place = Place(uri, way, node)
        return place

    def inlined(self, place: Place, depth: int = 0) -> Any:
        """What stands at a place, all references replaced by what they mean. (Requests have no circles.)"""
        assert depth < 60, f"{place.uri} refers to itself"
        place = self.resolved(place)
        if isinstance(place.node, dict):
            return {
                key: self.inlined(_below(place, key), depth + 1)
                for key, node in place.node.items()
                if not (isinstance(node, dict) and str(node.get("$ref")).endswith(".json"))  # an example, in a file
            }
        if isinstance(place.node, list):
            items = [Place(place.uri, (*place.way, str(i)), item) for i, item in enumerate(place.node)]
            return [self.inlined(item, depth + 1) for item in items]
        return place.node

    def _operations(self, uri: str) -> Iterator[Operation]:
        file = self.files[uri]
        for path, methods in file.get("paths", {}).items():
            for method in _METHODS:
                if method in methods:
                    yield self._operation(Place(uri, ("paths", path, method), methods[method]), path, method)

    def _operation(self, place: Place, path: str, method: str) -> Operation:
        top = Place(place.uri, place.way[:2], self.files[place.uri]["paths"][path])
        parameters = [
            self.inlined(Place(place.uri, (*above.way, "parameters", str(i)), parameter))
            for above in (top, place)
            for i, parameter in enumerate(above.node.get("parameters", []))
        ]
        body = self.resolved(_below(place, "requestBody")) if "requestBody" in place.node else None
        answers = {
            int(code): self._schema(self.resolved(_below(_below(place, "responses"), code)))
            for code in place.node["responses"]
            if str(code).isdigit()
        }
        api = SERVER if place.uri.startswith(_APIS[1]) else ""
        return Operation(
            api + place.node["operationId"],
            api + place.uri.rpartition("/")[2].removesuffix(".yaml"),
            method.upper(),
            # Two operations of one path are told apart by a space at the end of it.
            path.rstrip(),
            self.files[place.uri]["servers"][0]["variables"]["basePath"]["default"],
            place,
            tuple(parameters),
            None if body is None else self._schema(body),
            body is not None and bool(body.node.get("required")),
            answers,
        )

    def _schema(self, place: Place) -> Place | None:
        """The schema of the JSON that a request or an answer may be."""
        if "application/json" not in place.node.get("content", {}):
            return None
        content = _below(_below(place, "content"), "application/json")
        return _below(content, "schema") if "schema" in content.node else None


@cache
def description() -> Description | None:
    """The description, read once; None where it is not to be found."""
    named = os.environ.get("MATRIX_SPEC")
    beside = [parent / "shared/spec" for parent in _REPOSITORY.parents[:2]]
    for root in [Path(named)] if named else beside:
        if (root / "api/client-server").is_dir():
            return Description(root)
    return None


def _below(place: Place, key: str) -> Place:
    return Place(place.uri, (*place.way, str(key)), place.node[key])


def _files(root: Path, folders: tuple[str, ...] = _FOLDERS, names: str = "**/*.yaml") -> Iterator[tuple[str, Any]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for folder in folders:
        for path in sorted((root / folder).glob(names)):
            content = yaml.load(path.read_text(encoding="utf-8"), loader)
            # Through JSON, because statuses are numbers there and dates are dates.
            text = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)
            # "One of" is meant as "any of": a state event, for instance, is also an object.
            text = text.replace(b'"oneOf":', b'"anyOf":')
            yield f"{ROOT}{path.relative_to(root).as_posix()}", orjson.loads(text)
