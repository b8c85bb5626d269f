"""Aliases and the directory of rooms: who may change them, searching, and turning pages both ways."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.api.errors import MatrixError, forbidden
from synapse.handlers.public_rooms import Filter, Wish
from synapse.http.request import Requester
from synapse.storage.database import Database
from tests.support.rooms import ALICE, BOB, CAROL, RoomProcess, start


async def errcode_of(doing: Any) -> str:
    try:
        await doing
    except MatrixError as error:
        return f"{error.code} {error.errcode}"
    return "nothing was refused"


@pytest_twisted.ensureDeferred
async def test_aliases_are_made_resolved_listed_and_removed(database: Database) -> None:
    process = (await start(database)).main
    aliases = process.aliases
    room_id = await process.room(joined=[BOB])
    await aliases.create(BOB, "#one:test", room_id)
    await aliases.create(ALICE, "#two:test", room_id)
    assert await aliases.resolve("#one:test") == room_id
    assert await aliases.of_room(BOB, room_id) == ["#one:test", "#two:test"]
    assert await errcode_of(aliases.of_room(CAROL, room_id)) == "403 M_FORBIDDEN"

    assert await errcode_of(aliases.create(BOB, "#one:test", room_id)) == "409 M_UNKNOWN"
    assert await errcode_of(aliases.create(CAROL, "#three:test", room_id)) == "403 M_FORBIDDEN"
    assert await errcode_of(aliases.create(BOB, "#three:elsewhere.example", room_id)) == "400 M_INVALID_PARAM"
    assert await errcode_of(aliases.create(BOB, "three", room_id)) == "400 M_INVALID_PARAM"
    assert await errcode_of(aliases.create(BOB, "#three:test", "room")) == "400 M_INVALID_PARAM"

    assert await errcode_of(aliases.delete(BOB, "#two:test")) == "403 M_FORBIDDEN"
    assert await errcode_of(aliases.delete(BOB, "#none:test")) == "404 M_NOT_FOUND"
    await aliases.delete(BOB, "#one:test")
    await aliases.delete(Requester(CAROL.user_id, is_admin=True), "#two:test")
    assert await errcode_of(aliases.resolve("#one:test")) == "404 M_NOT_FOUND"
    assert await aliases.of_room(BOB, room_id) == []


@pytest_twisted.ensureDeferred
async def test_a_removed_alias_leaves_the_rooms_state(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room(room_alias_name="main")
    await process.aliases.create(ALICE, "#alt:test", room_id)
    content = {"alias": "#main:test", "alt_aliases": ["#alt:test"]}
    await process.set(ALICE, room_id, "m.room.canonical_alias", content)
    await process.aliases.delete(ALICE, "#alt:test")
    assert await _canonical(process, room_id) == {"alias": "#main:test", "alt_aliases": []}
    await process.aliases.delete(ALICE, "#main:test")
    assert await _canonical(process, room_id) == {"alt_aliases": []}


@pytest_twisted.ensureDeferred
async def test_an_alias_is_removed_also_if_the_room_cannot_say_so(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = (await start(database)).main
    room_id = await process.room(room_alias_name="main")

    async def refuse(*_args: Any, **_more: Any) -> None:
        raise forbidden("Not now.")

    monkeypatch.setattr(process.creation, "create", refuse)
    await process.aliases.delete(ALICE, "#main:test")
    assert await errcode_of(process.aliases.resolve("#main:test")) == "404 M_NOT_FOUND"
    assert await _canonical(process, room_id) == {"alias": "#main:test"}


@pytest_twisted.ensureDeferred
async def test_a_canonical_alias_must_lead_to_its_room(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room(room_alias_name="here")
    await process.room(room_alias_name="there")

    async def put(content: dict[str, Any]) -> str:
        return await errcode_of(process.set(ALICE, room_id, "m.room.canonical_alias", content))

    assert await put({"alias": "#here:test", "alt_aliases": ["#there:test"]}) == "400 M_BAD_ALIAS"
    assert await put({"alias": "#nowhere:test"}) == "400 M_BAD_ALIAS"
    assert await put({"alias": "#x:elsewhere.example"}) == "400 M_BAD_ALIAS"
    assert await put({"alias": "here"}) == "400 M_INVALID_PARAM"
    assert await put({"alias": 5}) == "400 M_BAD_JSON"
    assert await put({"alt_aliases": "#here:test"}) == "400 M_BAD_JSON"
    assert await put({"alias": "#here:test", "alt_aliases": []}) == "nothing was refused"
    # What was there before may stay, even if it has been removed since.
    await database.write("remove", lambda txn: txn.execute("DELETE FROM room_aliases"))
    assert await put({"alias": "#here:test", "alt_aliases": ["#here:test"]}) == "nothing was refused"
    assert await put({}) == "nothing was refused"


@pytest_twisted.ensureDeferred
async def test_who_may_list_a_room(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room(joined=[BOB])
    assert not await process.aliases.is_listed(room_id)
    assert await errcode_of(process.aliases.list_room(BOB, room_id, True)) == "403 M_FORBIDDEN"
    assert await errcode_of(process.aliases.list_room(CAROL, room_id, True)) == "403 M_FORBIDDEN"
    await process.aliases.list_room(ALICE, room_id, True)
    assert await process.aliases.is_listed(room_id)
    await process.aliases.list_room(ALICE, room_id, False)
    assert not await process.aliases.is_listed(room_id)
    assert await errcode_of(process.aliases.is_listed("!none:test")) == "404 M_NOT_FOUND"


@pytest_twisted.ensureDeferred
async def test_the_directory_is_searched(database: Database) -> None:
    process = (await start(database)).main
    await process.room(visibility="public", name="Cats 100%", joined=[BOB])
    await process.room(visibility="public", topic="about CATS", joined=[BOB, CAROL])
    await process.room(visibility="public", room_alias_name="cats", creation_content={"type": "m.space"})
    await process.room(name="Cats in private")

    async def found(term: str | None = None, types: list[str | None] | None = None) -> list[int]:
        page = await process.directory.page(None, Wish(filter=Filter(term, types)))
        assert page["total_room_count_estimate"] == len(page["chunk"])
        return [room["num_joined_members"] for room in page["chunk"]]

    assert await found() == [3, 2, 1]
    assert await found("cats") == [3, 2, 1]
    assert await found("100%") == [2]
    assert await found("%") == [2]
    assert await found("_") == []
    assert await found("dogs") == []
    assert await found(types=["m.space"]) == [1]
    assert await found(types=[None]) == [3, 2]
    assert await found(types=[None, "m.space"]) == [3, 2, 1]
    assert await found("about", [None]) == [3]


@pytest_twisted.ensureDeferred
async def test_what_a_list_shows(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room(visibility="public", name="N", topic="T", room_alias_name="a")
    await process.set(ALICE, room_id, "m.room.avatar", {"url": "mxc://test/x"})
    await process.set(ALICE, room_id, "m.room.history_visibility", {"history_visibility": "world_readable"})
    await process.set(ALICE, room_id, "m.room.guest_access", {"guest_access": "can_join"})
    (room,) = (await process.directory.page(None, Wish()))["chunk"]
    assert room == {
        "room_id": room_id,
        "name": "N",
        "topic": "T",
        "canonical_alias": "#a:test",
        "avatar_url": "mxc://test/x",
        "num_joined_members": 1,
        "world_readable": True,
        "guest_can_join": True,
        "join_rule": "public",
    }
    for url, shown in (("https://test/x.png", True), ("javascript:alert(1)", False), ("nonsense", False)):
        await process.set(ALICE, room_id, "m.room.avatar", {"url": url})
        (room,) = (await process.directory.page(None, Wish()))["chunk"]
        assert room.get("avatar_url") == (url if shown else None)


@pytest_twisted.ensureDeferred
async def test_pages_turn_forwards_and_backwards(database: Database) -> None:
    process = (await start(database)).main
    for number in range(7):
        await process.room(visibility="public", joined=[BOB, CAROL][: number % 3])
    everything = [room["room_id"] for room in (await process.directory.page(None, Wish()))["chunk"]]
    assert len(everything) == 7

    seen: list[str] = []
    pages = []
    since = None
    while True:
        page = await process.directory.page(None, Wish(limit=3, since=since))
        seen += [room["room_id"] for room in page["chunk"]]
        pages.append(page)
        since = page.get("next_batch")
        if since is None:
            break
    assert seen == everything
    assert [len(page["chunk"]) for page in pages] == [3, 3, 1]
    assert ["prev_batch" in page for page in pages] == [False, True, True]

    back = await process.directory.page(None, Wish(limit=3, since=pages[2]["prev_batch"]))
    assert back["chunk"] == pages[1]["chunk"]
    back = await process.directory.page(None, Wish(limit=3, since=back["prev_batch"]))
    assert back["chunk"] == pages[0]["chunk"]
    assert "prev_batch" not in back
    assert (await process.directory.page(None, Wish(limit=3, since=back["next_batch"])))["chunk"] == pages[1]["chunk"]


@pytest_twisted.ensureDeferred
async def test_wishes_that_cannot_be_met(database: Database) -> None:
    process = (await start(database)).main
    await process.room(visibility="public")
    page = process.directory.page
    assert len((await page(None, Wish(since="")))["chunk"]) == 1  # as if there were none
    for token in ("nonsense", "bm8", "W10", "WyJuIiwgMSwgMV0"):
        assert await errcode_of(page(None, Wish(since=token))) == "400 M_INVALID_PARAM", token
    assert await errcode_of(page(None, Wish(server="elsewhere.example"))) == "401 M_MISSING_TOKEN"
    assert await errcode_of(page(None, Wish(limit=-1))) == "400 M_INVALID_PARAM"
    assert (await page(None, Wish(limit=0)))["chunk"] == []
    assert len((await page(None, Wish(server="test")))["chunk"]) == 1
    assert (await page(None, Wish(third_party_instance_id="irc")))["chunk"] == []


async def _canonical(process: RoomProcess, room_id: str) -> dict[str, Any]:
    key = ("m.room.canonical_alias", "")
    return (await process.state.current(room_id, [key]))[key].event.content
