"""From paths to endpoints, by segments."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.api.routes import ENDPOINTS, Endpoint, find
from synapse.http.routing import Match, Prefix, RouteTree


async def _handler(request: Any, **params: str) -> dict[str, str]:
    return params


def _tree(*endpoints: Endpoint) -> RouteTree:
    tree = RouteTree()
    for endpoint in endpoints or ENDPOINTS:
        tree.add(endpoint, _handler)
    return tree


TREE = _tree()
C = "/_matrix/client/v3"


def _code(match: Match) -> int:
    assert match.error is not None
    return match.error.code


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.name)
def test_every_path_of_the_table_leads_to_its_endpoint(endpoint: Endpoint) -> None:
    for path in endpoint.paths():
        names = re.findall(r"{(\w+)}", path)
        filled = re.sub(r"{(\w+)}", r"\1%2F%C3%A4", path)
        for method in endpoint.methods:
            match = TREE.match(method, filled)
            assert match.endpoint is endpoint
            assert {name: match.params[name] for name in names} == {name: f"{name}/ä" for name in names}
            # What was left out is there, empty.
            assert set(match.params) == set(re.findall(r"{(\w+)}", endpoint.path)) - {"version"}


@pytest.mark.parametrize(
    ("path", "name", "params"),
    [
        (
            f"{C}/rooms/!r:x/state/m.room.name",
            "room_state_get",
            {"room_id": "!r:x", "event_type": "m.room.name", "state_key": ""},
        ),
        (
            f"{C}/rooms/!r:x/state/m.room.name/",
            "room_state_get",
            {"room_id": "!r:x", "event_type": "m.room.name", "state_key": ""},
        ),
        (
            f"{C}/rooms/!r:x/state/m.a/%40u%3Ax",
            "room_state_get",
            {"room_id": "!r:x", "event_type": "m.a", "state_key": "@u:x"},
        ),
        (f"{C}/rooms/%21r%3Ax/state", "room_state", {"room_id": "!r:x"}),
        (f"{C}/%72ooms/!r:x/state", "room_state", {"room_id": "!r:x"}),
        (f"{C}/rooms/send/state", "room_state", {"room_id": "send"}),
        (f"{C}/pushrules/", "push_rules", {}),
        (f"{C}/pushrules/global", "push_rules_global", {}),
        (f"{C}/pushrules/global/", "push_rules_global", {}),
        (f"{C}/pushrules/global/room/!r%2Fx", "push_rule_get", {"kind": "room", "rule_id": "!r/x"}),
        (f"{C}/pushrules/global/room/enabled/enabled", "push_rule_enabled_get", {"kind": "room", "rule_id": "enabled"}),
        (f"{C}/profile/@u:x", "profile_get", {"user_id": "@u:x"}),
        (f"{C}/profile/@u+v:x", "profile_get", {"user_id": "@u+v:x"}),
        ("/_matrix/key/v2/server", "server_keys", {"key_id": ""}),
        ("/_matrix/media/r0/download/x/y", "media_download", {"server_name": "x", "media_id": "y", "file_name": ""}),
    ],
)
def test_parameters_are_decoded_segment_by_segment(path: str, name: str, params: dict[str, str]) -> None:
    match = TREE.match("GET", path)
    assert (match.name, match.params) == (name, params)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//",
        "*",
        "/_matrix",
        f"{C}",
        f"{C}/",
        f"{C}/nothing",
        f"{C}/sync/",
        f"{C}//sync",
        f"/{C}/sync",
        "/_matrix/client/v4/sync",
        "/_matrix/client/api%2Fv1/publicRooms",
        f"{C}/rooms//state",
        f"{C}/rooms/!r/state/a/b/c",
        f"{C}/rooms/!r/send/m.x/",
        f"{C}/SYNC",
    ],
)
def test_other_paths_lead_nowhere(path: str) -> None:
    match = TREE.match("GET", path)
    assert match.handler is None
    assert match.error is not None
    assert (match.error.code, match.error.errcode) == (404, "M_UNRECOGNIZED")


def test_another_method_is_refused_with_those_that_there_are() -> None:
    match = TREE.match("DELETE", f"{C}/login")
    assert match.error is not None
    assert (match.error.code, match.error.errcode) == (405, "M_UNRECOGNIZED")
    assert match.allow == "GET, HEAD, OPTIONS, POST"
    assert TREE.match("GET", f"{C}/createRoom").allow == "OPTIONS, POST"


def test_head_is_served_where_get_is() -> None:
    assert TREE.match("HEAD", f"{C}/sync").name == "sync"
    assert _code(TREE.match("HEAD", f"{C}/createRoom")) == 405


@pytest.mark.parametrize("segment", ["%FF", "%C3", "\xff", "a%00b", "%ED%A0%80"])
def test_segments_must_be_text(segment: str) -> None:
    match = TREE.match("GET", f"{C}/profile/{segment}")
    assert match.error is not None
    assert match.error.errcode == "M_INVALID_PARAM"


def test_text_may_also_come_unencoded() -> None:
    path = f"{C}/profile/@ä:x".encode().decode("latin-1")
    assert TREE.match("GET", path).params == {"user_id": "@ä:x"}


@given(st.text(st.characters(codec="latin-1", exclude_categories=["Cc"])))
def test_no_path_breaks_the_tree(path: str) -> None:
    for method in ("GET", "PUT"):
        match = TREE.match(method, f"{C}/" + path)
        assert (match.handler is None) == (match.error is not None)


def test_a_listener_carries_its_resources_alone() -> None:
    assert TREE.match("GET", f"{C}/sync", {"client"}).name == "sync"
    assert _code(TREE.match("GET", f"{C}/sync", {"media", "health"})) == 404
    assert TREE.match("GET", "/health", {"media", "health"}).name == "health"


def test_a_process_serves_what_it_mounts() -> None:
    tree = _tree(find("sync"))
    assert tree.match("GET", f"{C}/sync").name == "sync"
    assert _code(tree.match("GET", f"{C}/login")) == 404


def test_nothing_is_served_twice() -> None:
    tree = _tree(find("login"))
    with pytest.raises(ValueError, match="login"):
        tree.add(find("login"), _handler)
    with pytest.raises(ValueError, match=f"POST {C}/login is served by login"):
        tree.add(Endpoint("other", f"{C}/login", ("POST",)), _handler)


def test_a_prefix_takes_what_is_below_it_and_a_fallback_the_rest() -> None:
    tree = _tree(find("sync"), find("login"))
    tree.add_prefix(Prefix("/_synapse/replication/", "replication", "replication", _handler, 10))
    assert tree.match("POST", "/_synapse/replication/x/y").name == "replication"
    assert tree.match("POST", "/_synapse/replication/x/y").max_body == 10
    assert _code(tree.match("POST", "/_synapse/replication/x/y", {"client"})) == 404
    assert _code(tree.match("GET", "/else")) == 404
    tree.fallback = Prefix("/", "client", "fallback", _handler, 10)
    assert tree.match("GET", "/else").name == "fallback"
    assert tree.match("GET", f"{C}/sync").name == "sync"
    assert _code(tree.match("DELETE", f"{C}/login")) == 405
