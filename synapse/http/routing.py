"""From a path to the endpoint that serves it, by looking up one segment after the other. Pure.

The templates of the route table become a tree: at each segment a literal is tried first, a parameter next. A path is
cut at its slashes before it is decoded, so that an encoded slash stays inside its segment.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import unquote

from synapse.api.errors import MatrixError, invalid_param, unrecognized
from synapse.api.routes import DEFAULT_MAX_BODY, Endpoint
from synapse.http.request import Handler


@dataclass(frozen=True, slots=True)
class Bound:
    """An endpoint with its handler, and the names of the parameters in the order of its template."""

    endpoint: Endpoint
    handler: Handler
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prefix:
    """Everything below a path, served by one handler that looks at the rest by itself."""

    path: str
    resource: str
    name: str
    handler: Handler
    max_body: int


@dataclass(slots=True)
class Match:
    """Where a request leads: to `handler` with `params`, or nowhere, and then `error` says why."""

    name: str = "unknown"
    endpoint: Endpoint | None = None
    handler: Handler | None = None
    params: dict[str, str] = field(default_factory=dict)
    error: MatrixError | None = None
    allow: str = ""  # the methods of the path, for an answer 405
    max_body: int = DEFAULT_MAX_BODY
    streams_body: bool = False


@dataclass(slots=True)
class _Node:
    literals: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    may_be_empty: bool = False  # this node is reached by a parameter that may be ""
    methods: dict[str, Bound] = field(default_factory=dict)


class RouteTree:
    """What one process serves."""

    def __init__(self) -> None:
        self._root = _Node()
        self._prefixes: list[Prefix] = []
        self.endpoints: dict[str, Endpoint] = {}
        self.fallback: Prefix | None = None  # takes what nothing else serves

    def add(self, endpoint: Endpoint, handler: Handler) -> None:
        """Raises ValueError when something else serves the same already."""
        if endpoint.name in self.endpoints:
            raise ValueError(f"the endpoint {endpoint.name} has a handler already")
        self.endpoints[endpoint.name] = endpoint
        for version in endpoint.versions or ("",):
            path, _, optional = endpoint.path.replace("{version}", version).rstrip("]").partition("[")
            names = tuple(s[1:-1] for s in _segments(path + optional) if s.startswith("{"))
            bound = Bound(endpoint, handler, names)
            self._bind(path, bound)
            if optional:
                self._bind(path + optional, bound, may_be_empty=True)

    def add_prefix(self, prefix: Prefix) -> None:
        self._prefixes.append(prefix)

    def _bind(self, path: str, bound: Bound, may_be_empty: bool = False) -> None:
        node = self._root
        for segment in _segments(path):
            if segment.startswith("{"):
                node.parameter = node = node.parameter or _Node()
            else:
                node = node.literals.setdefault(segment, _Node())
        node.may_be_empty = node.may_be_empty or may_be_empty
        for method in bound.endpoint.methods:
            if method in node.methods:
                raise ValueError(f"{method} {path} is served by {node.methods[method].endpoint.name} already")
            node.methods[method] = bound

    def match(self, method: str, path: str, resources: Collection[str] | None = None) -> Match:
        """Where a request leads. `path` is still encoded; `resources` are those of the listener, None for all."""
        try:
            segments = [_decoded(segment) for segment in _segments(path)]
        except UnicodeDecodeError:
            return Match(error=invalid_param("The path of the request is not valid UTF-8."))
        if "\0" in path or "%00" in path:
            return Match(error=invalid_param("The path of the request must not contain the character NUL."))
        values: list[str] = []
        node = _walk(self._root, segments, 0, values)
        bounds = {} if node is None else _carried(node.methods, resources)
        if not bounds:
            return self._match_prefix(path, resources)
        bound = bounds.get(method) or (bounds.get("GET") if method == "HEAD" else None)
        if bound is None:
            return _wrong_method(method, bounds)
        return _found(bound, values)

    def _match_prefix(self, path: str, resources: Collection[str] | None) -> Match:
        for prefix in (*self._prefixes, *((self.fallback,) if self.fallback is not None else ())):
            if path.startswith(prefix.path) and (resources is None or prefix.resource in resources):
                return Match(prefix.name, handler=prefix.handler, max_body=prefix.max_body)
        return Match(error=unrecognized())


def _segments(path: str) -> list[str]:
    return path.split("/")[1:]


def _decoded(segment: str) -> str:
    """A segment without percent-encoding. Raises UnicodeDecodeError."""
    if segment.isascii():
        return unquote(segment, errors="strict") if "%" in segment else segment
    # UTF-8 that the client did not encode; on the wire it was bytes.
    return unquote(segment.encode("latin-1").decode("utf-8"), errors="strict")


def _walk(node: _Node, segments: list[str], at: int, values: list[str]) -> _Node | None:
    """The node at the end of the path, with the parameters on the way in `values`."""
    if at == len(segments):
        return node if node.methods else None
    segment = segments[at]
    literal = node.literals.get(segment)
    if literal is not None and (found := _walk(literal, segments, at + 1, values)) is not None:
        return found
    parameter = node.parameter
    if parameter is None or not (segment or parameter.may_be_empty):
        return None
    values.append(segment)
    found = _walk(parameter, segments, at + 1, values)
    if found is None:
        values.pop()
    return found


def _carried(methods: dict[str, Bound], resources: Collection[str] | None) -> dict[str, Bound]:
    if resources is None:
        return methods
    return {method: bound for method, bound in methods.items() if bound.endpoint.resource in resources}


def _found(bound: Bound, values: list[str]) -> Match:
    endpoint = bound.endpoint
    # Values are missing at the end alone, where the template may be left short.
    values += [""] * (len(bound.names) - len(values))
    return Match(
        endpoint.name,
        endpoint,
        bound.handler,
        dict(zip(bound.names, values, strict=True)),
        max_body=endpoint.max_body,
        streams_body=endpoint.streams_body,
    )


def _wrong_method(method: str, bounds: dict[str, Bound]) -> Match:
    allowed = {*bounds, "OPTIONS", *(("HEAD",) if "GET" in bounds else ())}
    allow = ", ".join(sorted(allowed))
    return Match(error=unrecognized(f"This endpoint does not have the method {method}.", 405), allow=allow)
