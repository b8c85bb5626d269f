"""From server names to places: every step of the specification, and what is remembered of it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import pytest_twisted
from twisted.internet.task import Clock

from synapse.federation.discovery import Discovery, Target
from synapse.http.client import ClientAnswer, NotSent

WELL_KNOWN = "/.well-known/matrix/server"
Pages = dict[str, ClientAnswer]


class World:
    """Well-known files by URL, SRV records by name."""

    def __init__(self, pages: Pages, records: dict[str, list[tuple[str, int]]]) -> None:
        self._pages = pages
        self._records = records
        self.asked: list[str] = []
        self.clock = Clock()
        client: Any = self
        self.discovery = Discovery(client, self.lookup, self.clock)

    async def request(self, method: str, url: str, **options: Any) -> ClientAnswer:
        self.asked.append(url)
        if url not in self._pages:
            raise NotSent("nobody is there")
        return self._pages[url]

    async def lookup(self, name: str) -> list[tuple[str, int]]:
        self.asked.append(name)
        return self._records.get(name, [])


def page(content: Any, code: int = 200, **headers: str) -> ClientAnswer:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return ClientAnswer(code, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def delegate(server: Any) -> Pages:
    return {f"https://example.org{WELL_KNOWN}": page({"m.server": server})}


FED, OLD = "_matrix-fed._tcp.", "_matrix._tcp."


@pytest.mark.parametrize(
    ("name", "pages", "records", "expected"),
    [
        ("1.2.3.4", {}, {}, Target("1.2.3.4", 8448, "1.2.3.4", "1.2.3.4")),
        ("1.2.3.4:5", {}, {}, Target("1.2.3.4", 5, "1.2.3.4", "1.2.3.4:5")),
        ("[::1]", {}, {}, Target("::1", 8448, "[::1]", "[::1]")),
        ("example.org:80", {}, {}, Target("example.org", 80, "example.org", "example.org:80")),
        ("example.org", delegate("1.2.3.4"), {}, Target("1.2.3.4", 8448, "1.2.3.4", "1.2.3.4")),
        ("example.org", delegate("m.org:44"), {}, Target("m.org", 44, "m.org", "m.org:44")),
        ("example.org", delegate("m.org"), {FED + "m.org": [("a.m.org", 1)]}, Target("a.m.org", 1, "m.org", "m.org")),
        ("example.org", delegate("m.org"), {OLD + "m.org": [("b.m.org", 2)]}, Target("b.m.org", 2, "m.org", "m.org")),
        ("example.org", delegate("m.org"), {}, Target("m.org", 8448, "m.org", "m.org")),
        ("example.org", {}, {FED + "example.org": [("a", 1)]}, Target("a", 1, "example.org", "example.org")),
        ("example.org", {}, {OLD + "example.org": [("b", 2)]}, Target("b", 2, "example.org", "example.org")),
        ("example.org", {}, {}, Target("example.org", 8448, "example.org", "example.org")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_steps(name: str, pages: Pages, records: dict[str, Any], expected: Target) -> None:
    assert await World(pages, records).discovery.find(name) == expected


@pytest.mark.parametrize(
    "answer",
    [
        page(b"<html>"),
        page([]),
        page({}),
        page({"m.server": 5}),
        page({"m.server": "not a name!"}),
        page({"m.server": "m.org"}, 404),
        page(b"", 302, location="http://example.org/plain"),
        page(b"", 302, location=WELL_KNOWN),  # again and again
    ],
)
@pytest_twisted.ensureDeferred
async def test_files_that_say_nothing(answer: ClientAnswer) -> None:
    world = World({f"https://example.org{WELL_KNOWN}": answer}, {})
    assert (await world.discovery.find("example.org")).port == 8448
    assert len(world.asked) <= 6 + 2


@pytest_twisted.ensureDeferred
async def test_redirects_are_followed() -> None:
    pages = {
        f"https://example.org{WELL_KNOWN}": page(b"", 301, location="https://www.example.org/matrix"),
        "https://www.example.org/matrix": page({"m.server": "m.org:1"}),
    }
    assert (await World(pages, {}).discovery.find("example.org")).host == "m.org"


@pytest.mark.parametrize(
    ("control", "hours"),
    [(None, 24), ("public, max-age=7200", 2), ("max-age=99999999", 48), ("no-store", 5 / 60), ("max-age=1", 5 / 60)],
)
@pytest_twisted.ensureDeferred
async def test_what_is_found_is_remembered_for_a_while(control: str | None, hours: float) -> None:
    headers = {} if control is None else {"cache_control": control}
    world = World({f"https://example.org{WELL_KNOWN}": page({"m.server": "m.org:1"}, **headers)}, {})
    await world.discovery.find("example.org")
    world.clock.advance(hours * 3600 - 1)
    await world.discovery.find("example.org")
    assert len(world.asked) == 1
    world.clock.advance(2)
    await world.discovery.find("example.org")
    assert len(world.asked) == 2


@pytest_twisted.ensureDeferred
async def test_that_nothing_is_there_is_remembered_for_an_hour() -> None:
    world = World({}, {})
    await world.discovery.find("example.org")
    asked = len(world.asked)
    world.clock.advance(3599)
    await world.discovery.find("example.org")
    assert len(world.asked) == asked
    world.clock.advance(2)
    await world.discovery.find("example.org")
    assert len(world.asked) == 2 * asked
