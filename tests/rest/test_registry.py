"""Every endpoint of the route table is served by exactly one class, and the registry knows which."""

from __future__ import annotations

import importlib
import inspect
import logging
import pkgutil
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.task import Clock

import synapse.rest
from synapse.api.routes import ENDPOINTS, App, endpoints_for, find
from synapse.http.router import served_by
from synapse.http.routing import RouteTree
from synapse.http.server import Drain, Request, Router, serves
from synapse.rest import registry
from synapse.rest.registry import ROWS, Row, rows_for


def _classes() -> list[type]:
    modules = [importlib.import_module(m.name) for m in pkgutil.walk_packages(synapse.rest.__path__, "synapse.rest.")]
    return [
        value
        for m in modules
        for value in vars(m).values()
        if inspect.isclass(value) and value.__module__ == m.__name__
    ]


def _names(kind: type) -> tuple[str, ...]:
    return tuple(sorted(name for name, _ in served_by(kind)))


def test_every_endpoint_has_one_row_in_every_application_that_serves_it() -> None:
    for app in App:
        names = {endpoint.name for endpoint in endpoints_for(app, use_presence=False)}
        own = {name for row in ROWS if row.app is app for name in row.names}
        rows = [name for row in rows_for(app) for name in row.names if row.app is app or name not in own]
        assert len(rows) == len(set(rows))
        assert names <= set(rows)


def test_rows_name_what_the_classes_serve() -> None:
    # A class may be behind several rows when applications differ in what they make of it.
    served = {_names(kind) for kind in _classes() if _names(kind)}
    assert {tuple(sorted(row.names)) for row in ROWS} == served


def test_handlers_take_the_parameters_of_their_endpoints() -> None:
    for kind in _classes():
        for name, method in served_by(kind):
            tree, endpoint, handler = RouteTree(), find(name), getattr(kind, method)
            tree.add(endpoint, handler)
            match = tree.match(endpoint.methods[0], endpoint.example())
            inspect.signature(handler).bind(None, None, **match.params)


def test_the_table_has_no_endpoint_that_nobody_mounts() -> None:
    assert {name for row in ROWS for name in row.names} == {endpoint.name for endpoint in ENDPOINTS}


class _One:
    @serves("versions", "health")
    async def one(self, request: Request) -> dict[str, Any]:
        return {}


class _Other:
    @serves("versions")
    async def other(self, request: Request) -> dict[str, Any]:
        return {}


def test_an_application_s_own_row_goes_first(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    rows = (
        Row(("versions", "health"), lambda hs: _One()),
        Row(("versions",), lambda hs: _Other(), App.CLIENT_READER),
    )
    monkeypatch.setattr(registry, "ROWS", rows)
    for app, owner in ((App.CLIENT_READER, "other"), (App.HOMESERVER, "one")):
        router = Router(Drain(Clock()))
        hs: Any = SimpleNamespace(application=SimpleNamespace(app=app))
        registry.mount(router, hs, [find("versions"), find("health")])
        handler: Any = router.match("GET", "/_matrix/client/versions").handler
        assert handler.__name__ == owner
        assert router.match("GET", "/health").handler is not None
    assert not caplog.records
    registry.mount(Router(Drain(Clock())), hs, [find("sync")])
    assert "sync" in caplog.text
