"""Searching messages: what is found, by whom, in which order, and what comes along."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest_twisted

from synapse.app._replication import MainReplication
from synapse.storage import event_search
from synapse.storage.database import Transaction
from synapse.storage.pool import PoolSettings
from synapse.util.batch_tokens import pack
from tests.rest.crowd import ALICE, BOB, CAROL, People, people


@pytest_twisted.async_yield_fixture
async def p(database_settings: PoolSettings) -> AsyncIterator[People]:
    async with people(database_settings) as made:
        yield made


async def search(p: People, term: str, user: str = ALICE, next_batch: str | None = None, **criteria: Any) -> Any:
    query = {} if next_batch is None else {"next_batch": next_batch}
    body = {"search_categories": {"room_events": {"search_term": term, **criteria}}}
    answer = await p.ok("POST", "v3/search", body, user, **query)
    return answer["search_categories"]["room_events"]


async def found(p: People, term: str, user: str = ALICE, **criteria: Any) -> list[str]:
    """The texts of the results, the most recent first."""
    answer = await search(p, term, user, **{"order_by": "recent", **criteria})
    assert answer["count"] == len(answer["results"])
    contents = [result["result"]["content"] for result in answer["results"]]
    return [content.get("body") or content.get("name") or content.get("topic") for content in contents]


async def refused(p: People, criteria: Any, **query: Any) -> str:
    return await p.error("POST", "v3/search", {"search_categories": {"room_events": criteria}}, **query)


@pytest_twisted.ensureDeferred
async def test_words_are_found_in_their_forms(p: People) -> None:
    room = await p.room(name="Gärten", topic="Roses and TULIPS")
    await p.say(room, "The martians are landing")
    await p.say(room, "see foo.py of alice.smith")
    await p.say(room, "私は日本語を話します")
    await p.say(room, "nothing of that kind")
    for term in ("martian", "MARTIANS land", "the landings of martians"):
        assert await found(p, term) == ["The martians are landing"], term
    assert await found(p, "garten") == ["Gärten"]
    assert await found(p, "tulip") == ["Roses and TULIPS"]
    assert await found(p, "foo") == await found(p, "smith, Alice") == ["see foo.py of alice.smith"]
    assert await found(p, "日本語") == ["私は日本語を話します"]
    assert await found(p, "語日") == []
    assert await found(p, "martians and men") == []
    assert await found(p, "") == await found(p, "!?") == await found(p, "the") == []
    assert await found(p, room) == [], "the room's id is no word of a text"


@pytest_twisted.ensureDeferred
async def test_keys_and_filters_narrow_the_search(p: People) -> None:
    tea = await p.room(name="tea", topic="tea", joined=(BOB,))
    other = await p.room()
    await p.say(tea, "tea by alice")
    await p.say(tea, "tea by bob", BOB)
    await p.say(other, "tea elsewhere")
    await p.say(other, "tea picture", url="mxc://test/x")
    everything = ["tea picture", "tea elsewhere", "tea by bob", "tea by alice", "tea", "tea"]
    assert await found(p, "tea") == everything
    assert await found(p, "tea", keys=["content.body"]) == everything[:4]
    assert await found(p, "tea", keys=["content.name", "content.topic"]) == ["tea", "tea"]
    assert await found(p, "tea", keys=[]) == []
    for wanted, expected in (
        ({"rooms": [tea], "types": ["m.room.message"]}, everything[2:4]),
        ({"not_rooms": [tea]}, everything[:2]),
        ({"senders": [BOB]}, ["tea by bob"]),
        ({"not_senders": [ALICE]}, ["tea by bob"]),
        ({"types": ["m.room.n*"]}, ["tea"]),
        ({"not_types": ["m.room.message", "m.room.topic"]}, ["tea"]),
        ({"contains_url": True}, ["tea picture"]),
        ({"rooms": []}, []),
        ({"senders": []}, []),
    ):
        assert await found(p, "tea", filter=wanted) == expected, wanted


@pytest_twisted.ensureDeferred
async def test_plain_topics_are_searched_and_others_are_not(p: People) -> None:
    room = await p.room()
    texts = [{"body": "rich words", "mimetype": "text/html"}, {"body": "plain words"}]
    await p.set(room, "m.room.topic", {"topic": "", "m.topic": {"m.text": texts}})
    assert (await search(p, "plain"))["count"] == 1
    assert (await search(p, "rich"))["count"] == 0


def test_odd_contents_have_no_text() -> None:
    """Other servers' events may hold anything."""
    for odd in (5, None, {"m.text": 5}, {"m.text": [5, {"body": 5}, {"body": "odd", "mimetype": []}]}):
        content = {"topic": ["odd"], "m.topic": odd, "body": {}, "name": 1.5}
        for event_type in ("m.room.topic", "m.room.message", "m.room.name"):
            assert event_search.searched_text(event_type, json.dumps({"content": content})) == ""
    for text in ("", "5", '{"content": 5}', '{"content": {"body": "\\ud800"}}', '{"content": ' + "[" * 5000):
        assert event_search.searched_text("m.room.message", text) == "", text[:20]


@pytest_twisted.ensureDeferred
async def test_a_very_long_text_is_indexed_as_far_as_it_fits(p: People) -> None:
    room = await p.room()
    await p.say(room, "first " + "\ufdfa" * 15_000 + " last")
    await p.say(room, " ".join(f"w{number}" for number in range(9_000)))
    assert (await search(p, "first"))["count"] == 1
    assert (await search(p, "w8999"))["count"] == 1


@pytest_twisted.ensureDeferred
async def test_only_what_the_user_may_see_is_found(p: People) -> None:
    room = await p.room(joined=(BOB,))
    closed = await p.room()
    await p.say(closed, "secret of others")
    await p.set(room, "m.room.history_visibility", {"history_visibility": "joined"})
    await p.say(room, "secret one")
    await p.ok("POST", f"v3/rooms/{room}/join", {}, CAROL)
    await p.say(room, "secret two")
    await p.ok("POST", f"v3/rooms/{room}/leave", {}, BOB)
    await p.say(room, "secret three")
    assert await found(p, "secret", BOB) == ["secret two", "secret one"]
    assert await found(p, "secret", CAROL) == ["secret three", "secret two"]
    await p.set(room, "m.room.history_visibility", {"history_visibility": "shared"})
    await p.say(room, "secret four")
    assert await found(p, "secret", CAROL) == ["secret four", "secret three", "secret two"]
    await p.ok("POST", f"v3/rooms/{room}/invite", {"user_id": BOB})
    assert await found(p, "secret", BOB) == ["secret two", "secret one"]
    await p.ok("POST", f"v3/rooms/{room}/leave", {}, BOB)
    await p.ok("POST", f"v3/rooms/{room}/forget", {}, BOB)
    assert await found(p, "secret", BOB) == []


@pytest_twisted.ensureDeferred
async def test_a_room_that_was_upgraded_is_searched_with_its_successor(p: People) -> None:
    old = await p.room(joined=(BOB,))
    await p.say(old, "ancient tale")
    predecessor = {"room_id": old, "event_id": "$x"}
    new = await p.room(creation_content={"predecessor": predecessor}, joined=(BOB, CAROL))
    assert await found(p, "tale", filter={"rooms": [new]}) == ["ancient tale"]
    assert await found(p, "tale", BOB, filter={"rooms": [new]}) == ["ancient tale"]
    assert await found(p, "tale", CAROL, filter={"rooms": [new]}) == [], "she never was in the old one"
    assert await found(p, "tale", filter={"rooms": [new], "not_rooms": [old]}) == []


@pytest_twisted.ensureDeferred
async def test_what_is_redacted_ignored_or_encrypted_is_not_found(p: People) -> None:
    room = await p.room(joined=(BOB,))
    first = await p.say(room, "word one")
    await p.say(room, "word two", BOB)
    assert await found(p, "word") == ["word two", "word one"]
    ignored = {"ignored_users": {BOB: {}}}
    await p.ok("PUT", f"v3/user/{ALICE}/account_data/m.ignored_user_list", ignored)
    assert await found(p, "word") == ["word one"]
    await p.redact(room, first)
    assert await found(p, "word", BOB) == ["word two"]
    assert await p.hs.database.read("count", _indexed, "word") == 1, "the words of a redacted message are gone"
    await p.send(room, "m.room.encrypted", {"body": "word three", "algorithm": "x"})
    assert await found(p, "word", BOB) == ["word two"]
    await p.set(room, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    assert await found(p, "word", BOB) == []


def _indexed(txn: Transaction, word: str) -> int:
    txn.execute("SELECT count(*) FROM event_search WHERE words @@ to_tsquery('english', %s)", (word,))
    return int(txn.one()[0])


@pytest_twisted.ensureDeferred
async def test_pages_by_rank_and_by_time_hold_each_result_once(p: People) -> None:
    room = await p.room(joined=(BOB,))
    for number in range(7):
        await p.say(room, "cat " * (number % 3 + 1) + str(number))
    for order in ("rank", "recent"):
        everything = (await search(p, "cat", order_by=order))["results"]
        assert len(everything) == 7
        keys = [(r["rank"], r["result"]["origin_server_ts"]) if order == "rank" else r["rank"] * 0 for r in everything]
        assert keys == sorted(keys, reverse=True)
        seen: list[str] = []
        token = None
        for size in (3, 3, 1):
            page = await search(p, "cat", next_batch=token, order_by=order, filter={"limit": 3})
            assert (len(page["results"]), page["count"]) == (size, 7)
            seen += [result["result"]["event_id"] for result in page["results"]]
            token = page.get("next_batch")
        assert token is None
        assert seen == [result["result"]["event_id"] for result in everything]


@pytest_twisted.ensureDeferred
async def test_a_page_is_filled_although_some_results_are_hidden(p: People) -> None:
    """The stretches hide what history visibility hides as a rule; here the index is made to find more."""
    room = await p.room(joined=(BOB,))
    await p.set(room, "m.room.history_visibility", {"history_visibility": "joined"})
    await p.say(room, "hid visible")
    for number in range(4):
        await p.say(room, f"hid {number}")
    answer = p.hs.finding.search_answer
    judge = answer.visible

    async def strict(user_id: str, rows: Any, access: Any, ignored: Any) -> Any:
        return await judge(user_id, [row for row in rows if "visible" in row.json], access, ignored)

    answer.visible = strict  # type: ignore[method-assign]
    page = await search(p, "hid", filter={"limit": 1}, order_by="recent")
    assert [result["result"]["content"]["body"] for result in page["results"]] == ["hid visible"]
    assert "next_batch" not in page


@pytest_twisted.ensureDeferred
async def test_groups_have_pages_of_their_own(p: People) -> None:
    one, two = await p.room(joined=(BOB,)), await p.room(joined=(BOB,))
    ids = [await p.say(room, f"dog {n}", user) for n, (room, user) in enumerate([(one, ALICE), (two, BOB)] * 3)]
    criteria: dict[str, Any] = {
        "order_by": "recent",
        "filter": {"limit": 3},
        "groupings": {"group_by": [{"key": "room_id"}, {"key": "sender"}]},
    }
    page = await search(p, "dog", **criteria)
    assert {r["result"]["event_id"] for r in page["results"]} == set(ids[3:])
    groups = page["groups"]
    assert groups["room_id"][two]["results"] == [ids[5], ids[3]]
    assert groups["room_id"][one]["results"] == [ids[4]]
    assert (groups["room_id"][two]["order"], groups["room_id"][one]["order"]) == (1, 2)
    assert groups["sender"].keys() == {ALICE, BOB}
    for key, value, rest in (("room_id", one, [ids[2], ids[0]]), ("sender", BOB, [ids[1]])):
        more = await search(p, "dog", next_batch=groups[key][value]["next_batch"], **criteria)
        assert [r["result"]["event_id"] for r in more["results"]] == rest
        assert "next_batch" not in more
        assert "next_batch" not in more["groups"][key][value]


@pytest_twisted.ensureDeferred
async def test_context_profiles_and_state_come_along(p: People) -> None:
    room = await p.room(name="Den", joined=(BOB,))
    texts = ["a", "b", "needle", "c", "d"]
    await p.ok("PUT", f"v3/profile/{BOB}/displayname", {"displayname": "Bob then"}, BOB)
    ids = [await p.say(room, text, BOB if text in "bd" else ALICE) for text in texts]
    await p.ok("PUT", f"v3/profile/{BOB}/displayname", {"displayname": "Bob now"}, BOB)
    wish = {"before_limit": 1, "after_limit": 9, "include_profile": True}
    answer = await search(p, "needle", event_context=wish, include_state=True)
    (result,) = answer["results"]
    context = result["context"]
    assert [event["event_id"] for event in context["events_before"]] == [ids[1]]
    assert [event["event_id"] for event in context["events_after"]][:2] == ids[3:]
    assert context["profile_info"][BOB] == {"displayname": "Bob then"}
    assert context["profile_info"][ALICE] == {"displayname": "alice"}
    before = await p.ok("GET", f"v3/rooms/{room}/messages", dir="b", limit=1, **{"from": context["start"]})
    assert before["chunk"][0]["event_id"] == ids[0]
    state = {event["type"]: event["content"] for event in answer["state"][room] if event["state_key"] == ""}
    assert state["m.room.name"] == {"name": "Den"}
    assert result["result"]["unsigned"]["membership"] == "join"
    lazy = await search(p, "needle", include_state=True, filter={"lazy_load_members": True})
    members = [event["state_key"] for event in lazy["state"][room] if event["type"] == "m.room.member"]
    assert members == [ALICE]
    bare = await search(p, "needle", event_context={"before_limit": 0, "after_limit": 0})
    assert bare["results"][0]["context"]["events_before"] == bare["results"][0]["context"]["events_after"] == []
    assert "context" not in (await search(p, "needle"))["results"][0]


@pytest_twisted.ensureDeferred
async def test_who_has_left_gets_the_state_and_the_context_of_then(p: People) -> None:
    room = await p.room(name="Then", joined=(BOB,))
    await p.say(room, "needle")
    await p.ok("POST", f"v3/rooms/{room}/leave", {}, BOB)
    await p.say(room, "not for bob")
    await p.set(room, "m.room.name", {"name": "Now"})
    answer = await search(p, "needle", BOB, event_context={}, include_state=True)
    after = answer["results"][0]["context"]["events_after"]
    assert [event["type"] for event in after] == ["m.room.member"]
    assert {"name": "Then"} in [event["content"] for event in answer["state"][room]]
    assert {"name": "Now"} not in [event["content"] for event in answer["state"][room]]


@pytest_twisted.ensureDeferred
async def test_highlights_are_the_words_that_were_meant(p: People) -> None:
    room = await p.room()
    await p.say(room, "Martians and a Märtian: martian!")
    await p.say(room, "火星人がいる")
    assert (await search(p, "the martians"))["highlights"] == ["martian", "martians", "märtian"]
    assert (await search(p, "火星人"))["highlights"] == ["火星人"]
    assert (await search(p, "venus"))["highlights"] == []


@pytest_twisted.ensureDeferred
async def test_bad_requests_are_refused(p: People) -> None:
    for body in ({}, {"search_categories": 5}, {"search_categories": {"room_events": {}}}, []):
        assert (await p.error("POST", "v3/search", body)).startswith("400 M_"), body
    assert await p.ok("POST", "v3/search", {"search_categories": {}}) == {"search_categories": {}}
    for criteria in (
        {"search_term": 5},
        {"search_term": "x", "keys": ["content.formatted_body"]},
        {"search_term": "x", "order_by": "taste"},
        {"search_term": "x", "groupings": {"group_by": [{"key": "type"}]}},
        {"search_term": "x", "filter": {"limit": 0}},
        {"search_term": "x", "filter": 5},
        {"search_term": "x", "event_context": {"before_limit": -1}},
        {"search_term": "x" * 513},
        {"search_term": "x " * 33},
        {"search_term": "x\0y"},
    ):
        assert (await refused(p, criteria)).startswith("400 M_"), criteria
    huge = json.dumps({"search_term": "x", "event_context": {"before_limit": 2**70}})
    body = b'{"search_categories": {"room_events": ' + huge.encode() + b"}}"
    assert await p.error("POST", "v3/search", body) == "400 M_BAD_JSON"
    for rank in (1e300, 1e-300, -1.0):
        token = pack(rank, 1, None, None)
        assert await refused(p, {"search_term": "x"}, next_batch=token) == "400 M_INVALID_PARAM", rank
    for token in ("", "nonsense", "W10", "WzEsMl0", "W251bGwsMSxudWxsLG51bGxd", "é"):
        assert await refused(p, {"search_term": "x"}, next_batch=token) == "400 M_INVALID_PARAM", token
    assert await p.error("POST", "v3/search", {}, None) == "401 M_MISSING_TOKEN"


@pytest_twisted.ensureDeferred
async def test_what_was_written_before_the_index_is_taken_in(p: People) -> None:
    room = await p.room()
    for number in range(5):
        await p.say(room, f"old {number}")
    gone = await p.say(room, "old 5")
    await p.redact(room, gone)
    assert (await search(p, "old"))["count"] == 5
    db = p.hs.database
    await db.write("forget", lambda txn: txn.execute("DELETE FROM event_search"))
    assert (await search(p, "old"))["count"] == 0
    progress: dict[str, Any] = {}
    while (batch := await db.write("fill", event_search.fill, progress, 3)) is not None:
        assert batch.done <= 3
        progress = batch.progress
    assert (await search(p, "old"))["count"] == 5
    # The main process does so of itself.
    await db.write("forget", lambda txn: txn.execute("DELETE FROM event_search"))
    sql = "INSERT INTO background_updates (name) VALUES (%s)"
    await db.write("begin", lambda txn: txn.execute(sql, [event_search.UPDATE]))
    assert isinstance(p.hs.replication, MainReplication)
    await p.hs.replication.background_updates.run()
    assert (await search(p, "old"))["count"] == 5


@pytest_twisted.ensureDeferred
async def test_sending_costs_nothing_and_many_are_indexed_at_once(p: People) -> None:
    room = await p.room()
    await search(p, "x")
    for number in range(20):
        await p.say(room, f"many {number}")
    with p.hs.database.counted() as counts:
        await p.hs.finding.search_index.catch_up()
    assert counts.statements_read + counts.statements_written <= 4
    with p.hs.database.counted() as counts:
        await p.hs.finding.search_index.catch_up()
    assert counts.statements_read + counts.statements_written == 0
    (repeating,) = p.hs.finding.background
    assert repeating in p.hs.background


@pytest_twisted.ensureDeferred
async def test_a_search_costs_the_same_whatever_the_number_of_rooms_and_results(p: People) -> None:
    costs = []
    for _ in range(2):
        for _ in range(4):
            await p.say(await p.room(joined=(BOB,)), "cost", BOB)
        criteria = {"event_context": {"include_profile": True}, "include_state": True}
        await search(p, "cost", **criteria)
        with p.hs.database.counted() as counts:
            assert len((await search(p, "cost", **criteria))["results"]) == 4 * (len(costs) + 1)
        costs.append(counts.statements_read)
        assert counts.statements_written == 0
    assert costs[0] == costs[1] <= 9


@pytest_twisted.ensureDeferred
async def test_search_can_be_switched_off(database_settings: PoolSettings) -> None:
    async with people(database_settings, "alice", enable_search=False) as p:
        assert await refused(p, {"search_term": "x"}) == "400 M_UNKNOWN"
        assert p.hs.finding.background == []
