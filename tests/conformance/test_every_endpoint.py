"""No endpoint of the route table stumbles over what is in its path, its query or its body, described or not."""

from __future__ import annotations

import logging
from urllib.parse import quote

import orjson
import pytest
import pytest_twisted

from synapse.api.routes import ENDPOINTS, Auth, Endpoint
from tests.conformance.mutations import RAW, TEXTS, TOKENS
from tests.conformance.town import Town
from tests.conformance.trials import is_fault

# What the queries of administrators' endpoints, and of others that nobody describes, are made of.
NAMES = (
    "from",
    "limit",
    "dir",
    "order_by",
    "before_ts",
    "size_gt",
    "user_id",
    "room_id",
    "search_term",
    "kind",
    "width",
)
# And those of what anybody may ask for: pages, mostly.
SERVERS_NAMES = ("event_id", "v", "ts", "room_alias", "field", "since", "suggested_only", "ver", "omit_members")
PUBLIC_NAMES = ("session", "username", "ticket", "redirectUrl", "idp", "code", "state", "token", "sid", "u", "h", "v")
BODIES = (
    *(text for text, _ in RAW),
    b"",
    b"{}",
    b'{"a":1}',
    orjson.dumps(dict.fromkeys(("user_id", "room_id", "reason", "body", "auth", "username", "password"))),
    orjson.dumps({name: [{}] for name in ("user_id", "room_id", "reason", "body", "auth", "username", "password")}),
)
ASKED = [e for e in ENDPOINTS if e.auth is not Auth.SECRET and e.resource not in ("metrics", "health")]


def _targets(endpoint: Endpoint, room: str, user: str) -> list[str]:
    """Paths with one part that is wrong, and queries with one value that is."""
    good = {"room_id": room, "user_id": user, "room_id_or_alias": room, "server_name": "test"}
    path = endpoint.example(**good)
    values = {name: good.get(name, name) for name in _names(endpoint)}
    wrong = [endpoint.example(**{**values, name: text}) for name in values for text in TEXTS if text]
    names = (*NAMES, *PUBLIC_NAMES) if endpoint.auth is Auth.NONE else NAMES
    names += SERVERS_NAMES if endpoint.auth is Auth.SERVER else ()
    return [path, *wrong, *(f"{path}?{name}={text}" for name in names for text in (*TEXTS[:20], *TOKENS[:4]))]


def _names(endpoint: Endpoint) -> list[str]:
    return [
        part[1:-1] for part in endpoint.path.replace("[", "").split("/") if part.startswith("{") and part != "{version}"
    ]


# What refuses something has one of these: an error, ways to prove who one is, or, on a page, a sentence marked as such.
REFUSALS = (b'"errcode"', b'"flows"', b'class="error"')


@pytest.mark.parametrize("endpoint", ASKED, ids=lambda endpoint: endpoint.name)
@pytest_twisted.ensureDeferred
async def test_withstands(town: Town, endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    user = await town.administrator()
    targets = _targets(endpoint, quote(await town.supply("room")), quote(f"@{user}:test"))
    problems = []
    for method in endpoint.methods:
        requests = [(target, b"" if method in ("GET", "DELETE") else b"{}") for target in targets]
        if method not in ("GET", "DELETE"):
            requests += [(targets[0], body) for body in BODIES]
        for target, body in requests:
            answer = await town.handle(method, target, body, user)
            if is_fault(answer):
                problems.append(f"{method} {target} {body[:80]!r}: {answer.code} {answer.body[:200]!r}")
            elif answer.code >= 400 and not any(sign in answer.body for sign in REFUSALS):
                problems.append(f"{target}: {answer!r}"[:300])
    assert not problems, "\n".join(problems[:20])
    assert not caplog.records
