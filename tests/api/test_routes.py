"""The route table says what the workers' description says, and every worker serves what proxies send it."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from synapse.api.routes import (
    ENDPOINTS,
    RESOURCES,
    WORKER_ROUTES,
    Affinity,
    App,
    Auth,
    Condition,
    Endpoint,
    WorkerRoute,
    endpoints_for,
    find,
    resources_of,
    route_of,
    routes_for,
)

DESCRIPTION: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "worker_routes.yaml").read_text())
WORKERS = [App(name) for name in DESCRIPTION]
# Words with which the path of another endpoint ends.
AWKWARD = ("members", "joined_members", "join", "leave", "state", "messages", "send", "initialSync", "media", "x")
# What clients may choose freely; ids of rooms, events and users have a sigil and a form.
FREE = frozenset(
    ("txn_id", "state_key", "event_type", "rel_type", "rule_id", "tag", "data_type", "file_name", "device_id", "field")
)


def _described() -> list[tuple[str, str, tuple[str, ...], str, str]]:
    found = []
    for app, description in DESCRIPTION.items():
        for route in description["routes"]:
            entry = {"path": route} if isinstance(route, str) else route
            affinity = "USER" if app == App.SYNCHROTRON else "NONE"
            affinity = (
                "ONE" if entry.get("one_instance") else "ROOM" if entry.get("same_room_same_instance") else affinity
            )
            found.append((app, entry["path"], tuple(entry.get("methods", ())), affinity, entry.get("when", "")))
    return found


def test_the_routes_are_those_of_the_description_to_the_letter() -> None:
    declared = [
        (str(r.app), r.described_regex, r.methods, r.affinity.name, r.when.value if r.when else "")
        for r in WORKER_ROUTES
        if r.described
    ]
    assert sorted(declared) == sorted(_described())


@pytest.mark.parametrize("route", WORKER_ROUTES, ids=lambda r: r.regex)
def test_v3_is_routed_like_the_versions_before(route: WorkerRoute) -> None:
    if not route.versions:
        assert route.regex == route.described_regex
        return
    assert "v3" in route.added
    for version in (*route.versions, *route.added):
        assert f"|{version}|" in re.sub(r"[()]", "|", route.regex)


def _filled(endpoint: Endpoint, version: str) -> str:
    return endpoint.example(version, room_id="!r:x", user_id="@u:x", event_id="$e", room_id_or_alias="%23a:x")


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.name)
def test_a_proxy_sends_each_endpoint_to_whom_it_belongs(endpoint: Endpoint) -> None:
    for version, method in product(endpoint.versions or ("",), endpoint.methods):
        route = route_of(method, _filled(endpoint, version), use_presence=False)
        if not endpoint.routes:
            assert route is None or route.app is App.HOMESERVER
        else:
            assert route in endpoint.routes, version


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.name)
def test_whoever_is_sent_a_request_serves_it_whatever_the_client_called_things(endpoint: Endpoint) -> None:
    free = [name for name in re.findall(r"{(\w+)}", endpoint.path) if name in FREE]
    version = (endpoint.versions or ("",))[-1]
    for words in product(AWKWARD, repeat=len(free)):
        values = dict(zip(free, words, strict=True))
        path = re.sub(r"[\[\]]", "", endpoint.path).replace("{version}", version)
        path = re.sub(r"{(\w+)}", lambda m: values.get(m[1], "!x:y"), path)  # noqa: B023  # used at once
        for method in endpoint.methods:
            route = route_of(method, path, use_presence=False)
            app = route.app if route else App.HOMESERVER
            assert endpoint in endpoints_for(app, use_presence=False), path


@pytest.mark.parametrize("route", [r for r in WORKER_ROUTES if r.app is not App.HOMESERVER], ids=lambda r: r.regex)
def test_each_routed_version_is_answered(route: WorkerRoute) -> None:
    carried = [e for e in ENDPOINTS if route in e.routes]
    assert carried or route.app is App.FEDERATION_READER  # some of its routes are of operations that are no more
    for endpoint in carried:
        if "{versions}" in route.pattern:
            assert set(endpoint.versions) == {*route.versions, *route.added}


@pytest.mark.parametrize(
    ("method", "path", "app"),
    [
        ("PUT", "/_matrix/client/r0/rooms/!r:x/send/m.room.message/1", App.EVENT_CREATOR),
        ("PUT", "/_matrix/client/v3/rooms/!r:x/send/m.room.message/members", App.EVENT_CREATOR),
        ("PUT", "/_matrix/client/v3/rooms/!r:x/redact/$e/join", App.HOMESERVER),
        ("GET", "/_matrix/client/v3/rooms/!r:x/state", App.CLIENT_READER),
        ("GET", "/_matrix/client/v3/rooms/!r:x/state/m.room.name", App.EVENT_CREATOR),
        ("GET", "/_matrix/client/v3/pushrules/", App.CLIENT_READER),
        ("GET", "/_matrix/client/v3/sync", App.SYNCHROTRON),
        ("GET", "/_matrix/client/unstable/sync", None),
        ("GET", "/_matrix/client/v3/sync/x", None),
        ("PUT", "/_matrix/client/v3/pushrules/global/room/x", None),
        ("POST", "/_matrix/client/v3/createRoom", None),
        ("POST", "/_matrix/client/v3/register", App.CLIENT_READER),
        ("POST", "/_matrix/client/api/v1/register", None),
        ("POST", "/_matrix/client/v3/keys/upload/DEVICE", App.FRONTEND_PROXY),
        ("GET", "/_matrix/media/v3/download/x/y/z", App.MEDIA_REPOSITORY),
        ("GET", "/_matrix/client/v1/media/config", App.MEDIA_REPOSITORY),
        ("PUT", "/_matrix/federation/v1/send/123", App.FEDERATION_READER),
        ("GET", "/_matrix/federation/v1/version", None),
        ("GET", "/_matrix/key/v2/query/x", App.FEDERATION_READER),
        ("GET", "/_matrix/key/v2/server", None),
    ],
)
def test_requests_go_where_they_should(method: str, path: str, app: App | None) -> None:
    route = route_of(method, path)
    assert (route.app if route else None) == app


def test_presence_is_the_frontend_proxy_s_only_where_there_is_none() -> None:
    path = "/_matrix/client/v3/presence/@u:x/status"
    assert route_of("PUT", path, use_presence=True) is None
    route = route_of("PUT", path, use_presence=False)
    assert route is not None
    assert route.app is App.FRONTEND_PROXY
    assert route.when is Condition.PRESENCE_OFF
    presence = {find("presence_get"), find("presence_set")}
    assert not presence & set(endpoints_for(App.FRONTEND_PROXY, use_presence=True))
    assert presence <= set(endpoints_for(App.FRONTEND_PROXY, use_presence=False))
    assert route not in routes_for(App.FRONTEND_PROXY)
    assert route in routes_for(App.FRONTEND_PROXY, use_presence=False)


def test_every_application_operates_and_the_main_process_serves_all() -> None:
    for app in App:
        assert {find("health"), find("metrics")} <= set(endpoints_for(app))
    assert endpoints_for(App.HOMESERVER) == ENDPOINTS
    for app in WORKERS:
        assert set(endpoints_for(app)) <= set(endpoints_for(App.GENERIC_WORKER))


def test_affinities_follow_the_routes() -> None:
    assert find("sync").affinity is Affinity.USER
    assert find("room_messages").affinity is Affinity.ROOM
    assert find("register").affinity is Affinity.ONE
    assert find("room_send").affinity is Affinity.NONE
    assert find("room_create").affinity is Affinity.NONE


def test_names_and_paths_are_unique() -> None:
    names = [endpoint.name for endpoint in ENDPOINTS]
    assert len(names) == len(set(names))
    requests = [(method, re.sub(r"{\w+}", "{}", path)) for e in ENDPOINTS for path in e.paths() for method in e.methods]
    assert len(requests) == len(set(requests))


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.name)
def test_templates_are_well_formed(endpoint: Endpoint) -> None:
    assert endpoint.resource in RESOURCES
    assert ("{version}" in endpoint.path) == bool(endpoint.versions)
    assert re.fullmatch(r"(/[\w.-]+|/\{\w+\})+(/|\[/(\{\w+\})?\])?", endpoint.path)
    assert all(method in ("GET", "PUT", "POST", "DELETE") for method in endpoint.methods)
    names = re.findall(r"{(\w+)}", endpoint.path)
    assert len(names) == len(set(names))
    # Nobody would hold a user against a limit that is never looked at, nor a guest where nobody is asked.
    assert not (endpoint.guests and endpoint.auth in (Auth.NONE, Auth.ADMIN))


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.name)
def test_patterns_match_what_the_templates_do(endpoint: Endpoint) -> None:
    for path in endpoint.paths():
        raw = re.sub(r"{\w+}", "a%2Fb", path)
        assert re.search(endpoint.pattern(), raw)
        assert not re.search(endpoint.pattern(), raw + "/more/still")
        assert not re.search(endpoint.pattern(), "/x" + raw)


def test_an_optional_end_may_be_missing_or_empty() -> None:
    pattern = find("room_state_get").pattern()
    base = "/_matrix/client/v3/rooms/!r/state/m.room.name"
    assert all(re.search(pattern, base + end) for end in ("", "/", "/key"))
    assert not re.search(pattern, base + "/key/more")
    assert not re.search(pattern, "/_matrix/client/v3/rooms//state/m.room.name")


def test_a_resource_brings_others_along() -> None:
    assert resources_of(["client"]) >= {"client", "media", "health"}
    assert "federation" not in resources_of(["client"])
    assert resources_of(("media",)) == {"media", "health"}
    with pytest.raises(KeyError):
        resources_of(["webclient"])


def test_find_knows_no_other_names() -> None:
    assert find("sync").path == "/_matrix/client/{version}/sync"
    with pytest.raises(KeyError):
        find("no_such_endpoint")


def test_the_table_is_cheap_to_import() -> None:
    code = "import sys, synapse.api.routes; sys.exit(bool({'twisted', 'msgspec', 'yaml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
