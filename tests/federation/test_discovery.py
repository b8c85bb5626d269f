"""From server names to places: every step of the specification, and what is remembered of it."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.names.dns import CNAME, SRV, Record_CNAME, Record_SRV, RRHeader
from twisted.names.error import DomainError

from synapse.federation.discovery import Discovery, SrvAnswer, SrvRecord, in_order, lookup_srv
from synapse.http.client import ClientAnswer, NotSent

WELL_KNOWN = "/.well-known/matrix/server"
Pages = dict[str, ClientAnswer]


def srv(host: str, port: int, priority: int = 0, weight: int = 0) -> SrvRecord:
    return SrvRecord(priority, weight, host, port)


class World:
    """Well-known files by URL, SRV records by name."""

    def __init__(self, pages: Pages, records: dict[str, list[SrvRecord]]) -> None:
        self.pages = pages
        self._records = records
        self.asked: list[str] = []
        self.clock = Clock()
        self.ttl = 100_000.0
        self.hold: Deferred[None] | None = None
        client: Any = self
        self.discovery = Discovery(lambda: client, self.lookup, self.clock, lambda total: total)

    async def request(self, method: str, url: str, **options: Any) -> ClientAnswer:
        self.asked.append(url)
        if self.hold is not None:
            await self.hold
        if url not in self.pages:
            raise NotSent("nobody is there")
        return self.pages[url]

    async def lookup(self, name: str) -> SrvAnswer:
        self.asked.append(name)
        return SrvAnswer(tuple(self._records.get(name, [])), self.ttl)


def page(content: Any, code: int = 200, **headers: str) -> ClientAnswer:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return ClientAnswer(code, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def delegate(server: Any) -> Pages:
    return {f"https://example.org{WELL_KNOWN}": page({"m.server": server})}


FED, OLD = "_matrix-fed._tcp.", "_matrix._tcp."


@pytest.mark.parametrize(
    ("name", "pages", "records", "expected"),
    [
        ("1.2.3.4", {}, {}, "1.2.3.4 is 1.2.3.4 at 1.2.3.4 8448"),
        ("1.2.3.4:5", {}, {}, "1.2.3.4:5 is 1.2.3.4 at 1.2.3.4 5"),
        ("[::1]", {}, {}, "[::1] is ::1 at ::1 8448"),
        ("[::1]:7", {}, {}, "[::1]:7 is ::1 at ::1 7"),
        ("example.org:80", {}, {}, "example.org:80 is example.org at example.org 80"),
        ("example.org", delegate("1.2.3.4"), {}, "1.2.3.4 is 1.2.3.4 at 1.2.3.4 8448"),
        ("example.org", delegate("[::2]:9"), {}, "[::2]:9 is ::2 at ::2 9"),
        ("example.org", delegate("m.org:44"), {}, "m.org:44 is m.org at m.org 44"),
        ("example.org", delegate("m.org"), {FED + "m.org": [srv("a.m.org", 1)]}, "m.org is m.org at a.m.org 1"),
        ("example.org", delegate("m.org"), {OLD + "m.org": [srv("b.m.org", 2)]}, "m.org is m.org at b.m.org 2"),
        (
            "example.org",
            delegate("m.org"),
            {FED + "m.org": [srv("a", 1)], OLD + "m.org": [srv("b", 2)]},
            "m.org is m.org at a 1",
        ),
        ("example.org", delegate("m.org"), {FED + "example.org": [srv("a", 1)]}, "m.org is m.org at m.org 8448"),
        ("example.org", {}, {FED + "example.org": [srv("a", 1)]}, "example.org is example.org at a 1"),
        ("example.org", {}, {OLD + "example.org": [srv("b", 2)]}, "example.org is example.org at b 2"),
        ("example.org", {}, {}, "example.org is example.org at example.org 8448"),
        (
            "example.org",
            {},
            {FED + "example.org": [srv("c", 3, 20), srv("b", 2, 10), srv("a", 1, 10)]},
            "example.org is example.org at a 1, b 2, c 3",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_steps(name: str, pages: Pages, records: dict[str, Any], expected: str) -> None:
    route = await World(pages, records).discovery.find(name)
    places = ", ".join(f"{host} {port}" for host, port in sorted(route.places))
    assert f"{route.header} is {route.name} at {places}" == expected


@pytest.mark.parametrize(
    ("records", "chosen", "expected"),
    [
        ("a10/0 b20/0", 0, "ab"),
        ("b20/5 a10/5", 0, "ab"),
        ("a10/0 b10/3 c10/6", 0, "abc"),
        ("a10/0 b10/3 c10/6", 1, "bca"),
        ("a10/0 b10/3 c10/6", 4, "cba"),
        ("a10/0 b10/3 c10/6", 9, "cba"),
        ("c10/1 a5/0 b5/9", 9, "bac"),
    ],
)
def test_records_are_tried_by_priority_and_weight(records: str, chosen: int, expected: str) -> None:
    parsed = [re.fullmatch(r"(.)(\d+)/(\d+)", each) for each in records.split()]
    found = [srv(match[1], 1, int(match[2]), int(match[3])) for match in parsed if match is not None]
    assert "".join(record.host for record in in_order(found, lambda total: min(chosen, total))) == expected


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
    assert (await world.discovery.find("example.org")).places == (("example.org", 8448),)
    assert len(world.asked) <= 6 + 2


@pytest_twisted.ensureDeferred
async def test_redirects_are_followed() -> None:
    pages = {
        f"https://example.org{WELL_KNOWN}": page(b"", 301, location="https://www.example.org/matrix"),
        "https://www.example.org/matrix": page({"m.server": "m.org:1"}),
    }
    assert (await World(pages, {}).discovery.find("example.org")).name == "m.org"


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
async def test_that_there_is_no_file_is_remembered_for_an_hour() -> None:
    world = World({f"https://example.org{WELL_KNOWN}": page(b"", 404)}, {})
    await world.discovery.find("example.org")
    asked = len(world.asked)
    world.clock.advance(3599)
    await world.discovery.find("example.org")
    assert len(world.asked) == asked
    world.clock.advance(2)
    await world.discovery.find("example.org")
    assert len(world.asked) == 2 * asked


@pytest_twisted.ensureDeferred
async def test_who_does_not_answer_is_asked_less_and_less_often() -> None:
    world = World({}, {})
    for minutes in (1, 2, 4, 8, 16, 32, 60, 60):
        await world.discovery.find("example.org")
        asked = world.asked.count(f"https://example.org{WELL_KNOWN}")
        world.clock.advance(minutes * 60 - 1)
        await world.discovery.find("example.org")
        assert world.asked.count(f"https://example.org{WELL_KNOWN}") == asked
        world.clock.advance(1)
    world.pages |= delegate("m.org:1")
    assert (await world.discovery.find("example.org")).name == "m.org"
    world.pages.clear()
    world.clock.advance(86_400)
    await world.discovery.find("example.org")
    asked = len(world.asked)
    world.clock.advance(60)
    await world.discovery.find("example.org")
    assert len(world.asked) > asked, "after a success, it begins with a minute again"


@pytest_twisted.ensureDeferred
async def test_records_hold_for_as_long_as_they_say() -> None:
    world = World(delegate("m.org"), {FED + "m.org": [srv("a", 1)]})
    world.ttl = 120.0
    await world.discovery.find("example.org")
    world.clock.advance(119)
    await world.discovery.find("example.org")
    assert world.asked.count(FED + "m.org") == 1
    world.clock.advance(2)
    await world.discovery.find("example.org")
    assert world.asked.count(FED + "m.org") == 2
    assert len(world.asked) == 3, "the file holds for longer"


@pytest_twisted.ensureDeferred
async def test_who_asks_at_the_same_time_shares_the_answer() -> None:
    world = World(delegate("m.org:1"), {})
    world.hold = Deferred()
    asking = [Deferred.fromCoroutine(world.discovery.find("example.org")) for _ in range(3)]
    asking[0].addErrback(lambda _: None)
    asking[0].cancel()
    world.hold.callback(None)
    assert [(await each).name for each in asking[1:]] == ["m.org", "m.org"]
    assert len(world.asked) == 1


@pytest.mark.parametrize("location", ["http://x/", "https://[::", "ftp://x", "https://x:0/", "https://\u00fc/"])
@pytest_twisted.ensureDeferred
async def test_redirects_lead_to_https_alone(location: str) -> None:
    world = World({f"https://example.org{WELL_KNOWN}": page(b"", 302, location=location)}, {})
    assert (await world.discovery.find("example.org")).name == "example.org"
    assert len(world.asked) == 3


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (DomainError(), SrvAnswer((), 300.0)),
        (TimeoutError(), SrvAnswer((), 300.0)),
        (OSError(), SrvAnswer((), 300.0)),
        ([], SrvAnswer((), 300.0)),
        ([RRHeader(b"x", SRV, payload=Record_SRV(0, 0, 0, b"."), ttl=60)], SrvAnswer((), 60.0)),
        (
            [
                RRHeader(b"x", CNAME, payload=Record_CNAME(b"y"), ttl=1),
                RRHeader(b"y", SRV, payload=Record_SRV(10, 5, 8448, b"a.test"), ttl=90),
                RRHeader(b"y", SRV, payload=Record_SRV(20, 0, 443, b"b.test"), ttl=60),
            ],
            SrvAnswer((srv("a.test", 8448, 10, 5), srv("b.test", 443, 20, 0)), 60.0),
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_records_as_the_resolver_gives_them(
    monkeypatch: pytest.MonkeyPatch, outcome: Any, expected: SrvAnswer
) -> None:
    def lookup(name: str, timeout: Any) -> Deferred[Any]:
        assert name == FED + "x"
        return fail(outcome) if isinstance(outcome, Exception) else succeed((outcome, [], []))

    monkeypatch.setattr("twisted.names.client.lookupService", lookup)
    assert await lookup_srv(FED + "x") == expected
