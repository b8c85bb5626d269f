"""What one server looks up at another: profiles, aliases, public rooms, spaces, events by time. Both sides at once:
`one` has it, `two` asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from synapse.federation.answers import Hierarchy
from synapse.handlers.federated_profiles import proper
from synapse.handlers.federated_spaces import told_room
from synapse.handlers.room_summaries import shown
from synapse.handlers.told_rooms import listed_room
from synapse.http.request import RawRequest
from tests.support.postgres import PostgresServer
from tests.support.two_servers import AT_ONCE, Network, federation

ONE, TWO = "one.test:8448", "two.test:8448"
V1, V3 = "/_matrix/client/v1", "/_matrix/client/v3"
FEDERATION = "/_matrix/federation/v1"
DEEP: Any = "end"
for _ in range(300):
    DEEP = [DEEP]


class Pair:
    """The two servers, with `alice` at one and `bob` at two."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.tokens: dict[str, str] = {}

    async def settle(self) -> None:
        self.tokens = {
            "one": await self.net["one"].client.register("alice"),
            "two": await self.net["two"].client.register("bob"),
        }

    async def ask(self, server: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """A request of the user of that server."""
        return await self.net[server].client.request(method, path, body, self.tokens[server])

    async def ok(self, server: str, method: str, path: str, body: Any = None) -> Any:
        code, answer = await self.ask(server, method, path, body)
        assert code == 200, answer
        return answer

    async def asked(self, path: str, **query: Any) -> tuple[int, Any]:
        """What two, the server, is answered by one."""
        target = FEDERATION + path + ("?" + urlencode(query) if query else "")
        with self.net.by_hand():
            answer = await self.net["two"].hs.federation.client.request(ONE, "GET", target)
        return answer.code, answer.json_object()

    async def room(self, **wish: Any) -> str:
        """A room of alice's."""
        created = await self.ok("one", "POST", f"{V3}/createRoom", {"preset": "public_chat", **wish})
        return str(created["room_id"])

    def questions(self, part: str) -> int:
        """How often something was asked over the line."""
        return sum(part in asked.path for asked in self.net.asked)


@pytest_twisted.async_yield_fixture(scope="module")
async def pair(postgres: PostgresServer) -> AsyncIterator[Pair]:
    async with federation(postgres, "one", "two", federation=AT_ONCE, allow_public_rooms_over_federation=True) as net:
        made = Pair(net)
        await made.settle()
        yield made


@ensureDeferred
async def test_requests_must_be_signed(pair: Pair) -> None:
    for path in ("query/profile?user_id=x", "publicRooms", "event/$x", "hierarchy/!x:y", "state/!x:y?event_id=$x"):
        raw = RawRequest("GET", f"{FEDERATION}/{path}", {"host": ONE}, b"")
        assert (await pair.net["one"].hs.router.handle(raw)).code == 401


# -- profiles --------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_servers_are_shown_profiles(pair: Pair) -> None:
    alice = f"@alice:{ONE}"
    await pair.ok("one", "PUT", f"{V3}/profile/{alice}/displayname", {"displayname": "Alice"})
    await pair.ok("one", "PUT", f"{V3}/profile/{alice}/com.example.x", {"com.example.x": [1]})
    assert await pair.asked("/query/profile", user_id=alice) == (200, {"displayname": "Alice", "com.example.x": [1]})
    assert await pair.asked("/query/profile", user_id=alice, field="displayname") == (200, {"displayname": "Alice"})
    assert await pair.asked("/query/profile", user_id=alice, field="avatar_url") == (200, {})
    for query, code, errcode in (
        ({"user_id": f"@nobody:{ONE}"}, 404, "M_NOT_FOUND"),
        ({"user_id": alice, "field": "com.example.y"}, 404, "M_NOT_FOUND"),
        ({"user_id": alice, "field": "nonsense"}, 404, "M_NOT_FOUND"),
        ({"user_id": f"@bob:{TWO}"}, 400, "M_INVALID_PARAM"),
        ({"user_id": "nonsense"}, 400, "M_INVALID_PARAM"),
        ({}, 400, "M_MISSING_PARAM"),
    ):
        found, answer = await pair.asked("/query/profile", **query)
        assert (found, answer["errcode"]) == (code, errcode), query
    assert (await pair.asked("/query/nonsense"))[0] == 404


@ensureDeferred
async def test_profiles_of_another_servers_users_are_looked_up_there(pair: Pair) -> None:
    alice = quote(f"@alice:{ONE}")
    await pair.ok("one", "PUT", f"{V3}/profile/{alice}/displayname", {"displayname": "Alice"})
    before = pair.questions("query/profile")
    profile = await pair.ok("two", "GET", f"{V3}/profile/{alice}")
    assert profile["displayname"] == "Alice"
    assert await pair.ok("two", "GET", f"{V3}/profile/{alice}/displayname") == {"displayname": "Alice"}
    assert await pair.ok("two", "GET", f"{V3}/profile/{alice}/avatar_url") == {}
    code, answer = await pair.ask("two", "GET", f"{V3}/profile/{alice}/com.example.none")
    assert (code, answer["errcode"]) == (404, "M_NOT_FOUND")
    assert pair.questions("query/profile") == before + 1
    code, answer = await pair.ask("two", "GET", f"{V3}/profile/{quote(f'@nobody:{ONE}')}")
    assert (code, answer["errcode"]) == (404, "M_NOT_FOUND")
    pair.net.cut("one", "two")
    code, answer = await pair.ask("two", "GET", f"{V3}/profile/{quote(f'@other:{ONE}')}")
    pair.net.mend()
    assert (code, answer["errcode"]) == (502, "M_CONNECTION_FAILED")


@ensureDeferred
async def test_a_profile_is_asked_for_anew_when_the_users_rooms_have_heard_of_a_change(pair: Pair) -> None:
    alice, room_id = quote(f"@alice:{ONE}"), await pair.room()
    await pair.ok("two", "POST", f"{V3}/join/{quote(room_id)}?via={quote(ONE)}", {})

    async def name() -> str:
        return str((await pair.ok("two", "GET", f"{V3}/profile/{alice}"))["displayname"])

    async def is_new() -> bool:
        return await name() == "A new name"

    assert await name() != "A new name"
    await pair.ok("one", "PUT", f"{V3}/profile/{alice}/displayname", {"displayname": "A new name"})
    await pair.net.until(is_new)  # soon, and not in a minute


def test_of_a_profile_only_what_can_be_one_is_shown() -> None:
    said = {
        "displayname": "x",
        "avatar_url": "https://spy.example/pixel.png",
        "m.tz": 5,
        "com.example.a": {"b": [1]},
        "com.example.none": None,
        "Not A Field": 1,
        "\0": 1,
        "com.example.huge": [2**70],
        "com.example.deep": DEEP,
    }
    assert proper(said) == {"displayname": "x", "com.example.a": {"b": [1]}}
    assert proper({"displayname": "", "avatar_url": "mxc://a/b"}) == {"avatar_url": "mxc://a/b"}
    assert proper({"displayname": "x" * 300, "m.tz": "UTC"}) == {"m.tz": "UTC"}
    assert proper({"displayname": "x", "com.example.a": "x" * 70_000}) == {"displayname": "x"}


# -- aliases ---------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_aliases_of_another_server_are_looked_up_there(pair: Pair) -> None:
    room_id = await pair.room(room_alias_name="here")
    alias = f"#here:{ONE}"
    located = {"room_id": room_id, "servers": [ONE]}
    assert await pair.asked("/query/directory", room_alias=alias) == (200, located)
    before = pair.questions("query/directory")
    for _ in range(2):  # an alias may lead elsewhere a moment later
        assert await pair.ok("two", "GET", f"{V3}/directory/room/{quote(alias)}") == located
    assert pair.questions("query/directory") == before + 2
    for wanted, code, errcode in ((f"#no:{ONE}", 404, "M_NOT_FOUND"), (f"#x:{TWO}", 400, "M_INVALID_PARAM")):
        found, answer = await pair.asked("/query/directory", room_alias=wanted)
        assert (found, answer["errcode"]) == (code, errcode)
    code, answer = await pair.ask("two", "GET", f"{V3}/directory/room/{quote(f'#no:{ONE}')}")
    assert (code, answer["errcode"]) == (404, "M_NOT_FOUND")
    pair.net.cut("one", "two")
    code, answer = await pair.ask("two", "GET", f"{V3}/directory/room/{quote(f'#other:{ONE}')}")
    pair.net.mend()
    assert (code, answer["errcode"]) == (502, "M_CONNECTION_FAILED")


@ensureDeferred
async def test_a_room_may_be_named_by_an_alias_of_another_server(pair: Pair) -> None:
    room_id, other = await pair.room(), await pair.room()
    await pair.ok("two", "POST", f"{V3}/join/{quote(room_id)}?via={quote(ONE)}", {})
    alias = f"#named_by_two:{TWO}"
    await pair.ok("two", "PUT", f"{V3}/directory/room/{quote(alias)}", {"room_id": room_id})

    async def named(room: str, *aliases: str) -> tuple[int, str | None]:
        path = f"{V3}/rooms/{quote(room)}/state/m.room.canonical_alias"
        code, answer = await pair.ask("one", "PUT", path, {"alt_aliases": list(aliases)})
        return code, answer.get("errcode")

    assert await named(room_id, alias) == (200, None)
    for wrong in ((other, alias), (room_id, f"#none:{TWO}"), (room_id, "#none:nowhere.test:8448")):
        assert await named(*wrong) == (400, "M_BAD_ALIAS")
    assert await named(room_id, *(f"#a{n}:{TWO}" for n in range(11))) == (400, "M_INVALID_PARAM")
    pair.net.cut("one", "two")
    assert await named(room_id, alias) == (200, None)  # it was there before
    pair.net.mend()


# -- public rooms ----------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_servers_are_shown_the_room_directory(pair: Pair) -> None:
    rooms = {await pair.room(visibility="public", name=f"Listed {number}") for number in range(3)}
    code, answer = await pair.asked("/publicRooms", limit=0)
    assert code == 200
    assert rooms <= {room["room_id"] for room in answer["chunk"]}
    found: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        code, answer = await pair.asked("/publicRooms", **query)
        found += [room["room_id"] for room in answer["chunk"]]
        assert len(answer["chunk"]) <= 2
        if "next_batch" not in answer:
            break
        query["since"] = answer["next_batch"]
    assert len(found) == len(set(found))
    assert rooms <= set(found)
    client = pair.net["two"].hs.federation.client
    wish = {"filter": {"generic_search_term": "Listed 1"}}
    searched = (await client.request(ONE, "POST", f"{FEDERATION}/publicRooms", wish)).json_object()
    assert [room["name"] for room in searched["chunk"]] == ["Listed 1"]
    with pair.net.by_hand():
        refused = await client.request(ONE, "POST", f"{FEDERATION}/publicRooms", {"limit": "x"})
    assert (refused.code, refused.json_object()["errcode"]) == (400, "M_BAD_JSON")


@ensureDeferred
async def test_rooms_for_the_users_of_one_server_are_not_told_of_to_others(pair: Pair) -> None:
    room_id = await pair.room(visibility="public", name="Ours", creation_content={"m.federate": False})
    open_to_all = await pair.room(visibility="public", name="Ours too", creation_content={"m.federate": True})
    client = pair.net["two"].hs.federation.client
    wish = {"filter": {"generic_search_term": "Ours"}, "since": ""}
    found = (await client.request(ONE, "POST", f"{FEDERATION}/publicRooms", wish)).json_object()
    assert ([each["room_id"] for each in found["chunk"]], found["total_room_count_estimate"]) == ([open_to_all], 1)
    listed = await pair.ok("one", "POST", f"{V3}/publicRooms", wish)
    assert {each["room_id"] for each in listed["chunk"]} == {room_id, open_to_all}
    assert (await pair.asked(f"/hierarchy/{quote(room_id)}"))[0] == 404
    assert (await pair.ok("one", "GET", f"{V1}/room_summary/{quote(room_id)}"))["name"] == "Ours"


@ensureDeferred
async def test_the_directory_of_another_server_is_looked_into_there(pair: Pair) -> None:
    await pair.room(visibility="public")
    room_id = await pair.room(visibility="public", name="Elsewhere", topic="t", room_alias_name="elsewhere")
    where = f"{V3}/publicRooms?server={quote(ONE)}"
    before = pair.questions("publicRooms")
    for _ in range(2):  # the second time, it is remembered
        answer = await pair.ok("two", "GET", f"{where}&limit=100")
        (room,) = [each for each in answer["chunk"] if each["room_id"] == room_id]
        assert (room["name"], room["canonical_alias"], room["num_joined_members"]) == (
            "Elsewhere",
            f"#elsewhere:{ONE}",
            1,
        )
    assert pair.questions("publicRooms") == before + 1
    page = await pair.ok("two", "GET", f"{where}&limit=1")
    other = await pair.ok("two", "GET", f"{where}&limit=1&since={quote(page['next_batch'])}")
    assert page["chunk"] != other["chunk"]
    found = await pair.ok("two", "POST", where, {"filter": {"generic_search_term": "elsewhere"}})
    assert [each["room_id"] for each in found["chunk"]] == [room_id]
    assert (await pair.ok("two", "POST", where, {"limit": 0}))["chunk"] == []
    code, answer = await pair.ask("two", "GET", f"{where}&since=nonsense")
    assert (code, answer["errcode"]) == (400, "M_INVALID_PARAM")
    code, answer = await pair.ask("one", "GET", f"{V3}/publicRooms?server=nowhere.test:8448")
    assert (code, answer["errcode"]) == (502, "M_CONNECTION_FAILED")


@pytest.mark.parametrize(
    ("said", "room"),
    [
        ({}, None),
        ({"room_id": "x", "num_joined_members": 1}, None),
        ({"room_id": "!a:b", "num_joined_members": "1"}, None),
        ({"room_id": "!a:b", "num_joined_members": True}, None),
        ({"room_id": "!a:b", "num_joined_members": -5}, {"num_joined_members": 0}),
        ({"room_id": "!a:b", "num_joined_members": 2**60}, {"num_joined_members": 2**31 - 1}),
        (
            {"name": 1, "topic": "x" * 20_000, "canonical_alias": "y", "avatar_url": "http://y", "join_rule": []},
            {"join_rule": "public"},
        ),
        (
            {"world_readable": True, "guest_can_join": 1, "room_type": "m.space", "more": "x", "join_rule": "knock"},
            {"world_readable": True, "room_type": "m.space", "join_rule": "knock"},
        ),
    ],
)
def test_of_a_room_only_what_is_as_it_should_be_is_told(said: dict[str, Any], room: dict[str, Any] | None) -> None:
    found = listed_room(said if room is None else {"room_id": "!a:b", "num_joined_members": 3, **said})
    usual = {"room_id": "!a:b", "num_joined_members": 3, "world_readable": False, "guest_can_join": False}
    assert (found and shown(found)) == (room and {**usual, "join_rule": "public", **room})


# -- spaces ----------------------------------------------------------------------------------------------------------


async def space(pair: Pair, *children: str, **wish: Any) -> str:
    room_id = await pair.room(creation_content={"type": "m.space"}, **wish)
    for child in children:
        path = f"{V3}/rooms/{quote(room_id)}/state/m.space.child/{quote(child)}"
        await pair.ok("one", "PUT", path, {"via": [ONE], "suggested": child == children[0]})
    return room_id


@ensureDeferred
async def test_servers_are_shown_what_of_a_space_is_open_to_them(pair: Pair) -> None:
    public, private = await pair.room(name="Open"), await pair.room(preset="private_chat")
    room_id = await space(pair, public, private, "!unknown:far.example", name="Space")
    code, answer = await pair.asked(f"/hierarchy/{quote(room_id)}")
    assert code == 200
    assert answer["room"]["room_type"] == "m.space"
    assert {each["state_key"] for each in answer["room"]["children_state"]} == {
        public,
        private,
        "!unknown:far.example",
    }
    assert [each["room_id"] for each in answer["children"]] == [public]
    assert answer["inaccessible_children"] == [private]
    code, answer = await pair.asked(f"/hierarchy/{quote(room_id)}", suggested_only="true")
    assert (answer["inaccessible_children"], len(answer["children"])) == ([], 1)
    for closed in (private, "!unknown:one.test"):
        code, answer = await pair.asked(f"/hierarchy/{quote(closed)}")
        assert (code, answer["errcode"]) == (404, "M_NOT_FOUND")
    code, answer = await pair.asked(f"/hierarchy/{quote(public)}")
    assert (code, answer["room"]["children_state"]) == (200, [])


@ensureDeferred
async def test_servers_that_an_access_list_keeps_out_are_told_nothing_of_a_space(pair: Pair) -> None:
    room_id = await space(pair)
    acl = {"allow": ["*"], "deny": ["two.*"]}
    await pair.ok("one", "PUT", f"{V3}/rooms/{quote(room_id)}/state/m.room.server_acl/", acl)
    assert (await pair.asked(f"/hierarchy/{quote(room_id)}"))[0] == 404


@ensureDeferred
async def test_servers_are_told_of_rooms_that_somebody_of_theirs_is_invited_to(pair: Pair) -> None:
    private = await pair.room(preset="private_chat", name="Private")
    room_id = await space(pair, private)
    path = f"{V3}/rooms/{quote(private)}"
    assert (await pair.asked(f"/hierarchy/{quote(room_id)}"))[1]["inaccessible_children"] == [private]
    await pair.ok("one", "POST", f"{path}/invite", {"user_id": f"@bob:{TWO}"})
    code, answer = await pair.asked(f"/hierarchy/{quote(private)}")
    assert (code, answer.get("room", {}).get("name")) == (200, "Private")
    code, answer = await pair.asked(f"/hierarchy/{quote(room_id)}")
    assert ([each["room_id"] for each in answer["children"]], answer["inaccessible_children"]) == ([private], [])
    summary = await pair.ok("two", "GET", f"{V1}/room_summary/{quote(private)}")
    assert (summary["name"], summary["membership"]) == ("Private", "invite")
    # Being invited is no condition of another room.
    rule = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": private}]}
    restricted = await pair.room()
    await pair.ok("one", "PUT", f"{V3}/rooms/{quote(restricted)}/state/m.room.join_rules/", rule)
    assert (await pair.asked(f"/hierarchy/{quote(restricted)}"))[0] == 404


@ensureDeferred
async def test_of_rooms_that_a_server_has_left_it_tells_nothing(pair: Pair) -> None:
    left, closed = await pair.room(), await pair.room(preset="private_chat")
    room_id = await space(pair, left, closed)
    for each in (left, closed):
        await pair.ok("one", "POST", f"{V3}/rooms/{quote(each)}/leave", {})
        assert (await pair.asked(f"/hierarchy/{quote(each)}"))[0] == 404
    answer = (await pair.asked(f"/hierarchy/{quote(room_id)}"))[1]
    assert (answer["children"], answer["inaccessible_children"]) == ([], [])


async def own_space(pair: Pair, *children: str) -> str:
    """A space of bob's, with rooms of the other server in it."""
    created = await pair.ok("two", "POST", f"{V3}/createRoom", {"creation_content": {"type": "m.space"}})
    room_id = str(created["room_id"])
    for child in children:
        path = f"{V3}/rooms/{quote(room_id)}/state/m.space.child/{quote(child)}"
        await pair.ok("two", "PUT", path, {"via": ["nowhere.test:8448", ONE]})
    return room_id


async def rooms_of(pair: Pair, room_id: str, **query: str) -> list[str]:
    answer = await pair.ok("two", "GET", f"{V1}/rooms/{quote(room_id)}/hierarchy?{urlencode(query)}")
    return [room["room_id"] for room in answer["rooms"]]


@ensureDeferred
async def test_spaces_go_on_at_other_servers(pair: Pair) -> None:
    public, private, inner = await pair.room(name="Open"), await pair.room(preset="private_chat"), await pair.room()
    restricted = [{"type": "m.room_membership", "room_id": public}]
    rule = {"join_rule": "restricted", "allow": restricted}
    await pair.ok("one", "PUT", f"{V3}/rooms/{quote(inner)}/state/m.room.join_rules/", rule)
    deep = await space(pair, inner, name="Deep")
    theirs = await space(pair, public, private, deep, name="Theirs")
    mine = await own_space(pair, theirs)
    before = pair.questions("hierarchy")
    assert await rooms_of(pair, mine) == [mine, theirs, public, deep]
    # What a space tells of rooms that are none need not be asked for again, and answers are kept.
    assert pair.questions("hierarchy") == before + 2
    assert await rooms_of(pair, mine) == [mine, theirs, public, deep]
    assert pair.questions("hierarchy") == before + 2
    answer = await pair.ok("two", "GET", f"{V1}/rooms/{quote(mine)}/hierarchy")
    shown = {room["room_id"]: room for room in answer["rooms"]}
    assert shown[theirs]["name"] == "Theirs"
    assert {event["state_key"] for event in shown[theirs]["children_state"]} == {public, private, deep}
    assert shown[public]["room_version"] == "12"
    assert await rooms_of(pair, mine, max_depth="1") == [mine, theirs]
    assert await rooms_of(pair, mine, limit="2") == [mine, theirs]


@ensureDeferred
async def test_a_space_is_shown_also_where_others_do_not_tell_of_its_rooms(pair: Pair) -> None:
    public, private = await pair.room(), await pair.room(preset="private_chat")
    mine = await own_space(pair, public, private, "!nonsense:far.example")
    pair.net.cut("one", "two")
    assert await rooms_of(pair, mine) == [mine]
    pair.net.mend()
    assert await rooms_of(pair, mine) == [mine, public]


@ensureDeferred
async def test_rooms_elsewhere_are_summarised_by_who_knows_them(pair: Pair) -> None:
    public, private = await pair.room(name="Open", room_alias_name="open"), await pair.room(preset="private_chat")
    path = f"{V1}/room_summary/"
    summary = await pair.ok("two", "GET", f"{path}{quote(public)}?via=nowhere.test:8448&via={quote(ONE)}")
    assert (summary["name"], summary["membership"], summary["num_joined_members"]) == ("Open", "leave", 1)
    assert (await pair.ok("two", "GET", path + quote(f"#open:{ONE}")))["room_id"] == public
    for room_id, via in ((private, ONE), (public, "nowhere.test:8448"), ("!none:one.test", ONE)):
        code, answer = await pair.ask("two", "GET", f"{path}{quote(room_id)}?via={quote(via)}")
        # What one server has told of is kept for some minutes.
        expected = (200, None) if room_id == public else (404, "M_NOT_FOUND")
        assert (code, answer.get("errcode")) == expected
    before = pair.questions("hierarchy")
    code, answer = await pair.net["two"].client.get(f"{path}{quote(private)}?via={quote(ONE)}")
    assert (code, answer["errcode"]) == (404, "M_NOT_FOUND")
    assert pair.questions("hierarchy") == before  # nobody is asked for those who have no account


def test_of_a_space_only_what_is_as_it_should_be_is_told() -> None:
    child = {
        "type": "m.space.child",
        "state_key": "!c:x",
        "sender": "@a:x",
        "origin_server_ts": 1,
        "content": {"via": ["x"]},
    }
    bad: tuple[dict[str, Any], ...] = (
        {"type": "m.room.name"},
        {"state_key": 5},
        {"state_key": "c"},
        {"sender": "a"},
        {"origin_server_ts": "1"},
        {"origin_server_ts": 2**60},
        {"content": []},
        {"content": {}},
        {"content": {"via": ["x"], "more": "x" * 20_000}},
        {"content": {"via": ["x"], "more": 2**70}},
        {"content": {"via": ["x"], "more": DEEP}},
    )
    room = {"room_id": "!r:x", "num_joined_members": 1, "room_type": "m.space"}
    events = [child, None, *({**child, **change} for change in bad)]
    told = told_room(Hierarchy({**room, "children_state": events}, [room, {}], ["!i:x"]), False)
    assert told is not None
    assert [each.room_id for each in told.children] == ["!c:x"]
    assert (list(told.below), told.closed) == (["!r:x"], {"!i:x"})
    assert told_room(Hierarchy({"room_id": "x"}), False) is None
    no_space = told_room(Hierarchy({**room, "room_type": "x", "children_state": events}), False)
    assert no_space is not None
    assert no_space.children == []


# -- events by time --------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_events_by_time_are_for_servers_in_the_room(pair: Pair) -> None:
    room_id = await pair.room()
    code, answer = await pair.asked(f"/timestamp_to_event/{quote(room_id)}", ts=0, dir="f")
    assert (code, answer["errcode"]) == (403, "M_FORBIDDEN")
    for query in ({"dir": "f"}, {"ts": 1}, {"ts": 1, "dir": "x"}, {"ts": "x", "dir": "f"}):
        code, answer = await pair.asked(f"/timestamp_to_event/{quote(room_id)}", **query)
        assert code == 400


@ensureDeferred
async def test_events_before_this_server_came_are_found_by_time(pair: Pair) -> None:
    room_id = await pair.room()
    path = f"rooms/{quote(room_id)}"
    sent = []
    for number in range(4):
        body = {"msgtype": "m.text", "body": str(number)}
        sent.append((await pair.ok("one", "PUT", f"{V3}/{path}/send/m.room.message/t{number}", body))["event_id"])
    await pair.ok("two", "POST", f"{V3}/join/{quote(room_id)}?via={quote(ONE)}", {})
    event = await pair.ok("one", "GET", f"{V3}/{path}/event/{quote(sent[1], safe='')}")
    at = event["origin_server_ts"]

    async def found(ts: int, direction: str) -> tuple[int, Any]:
        return await pair.ask("two", "GET", f"{V1}/{path}/timestamp_to_event?ts={ts}&dir={direction}")

    before = pair.questions("timestamp_to_event")
    code, answer = await found(at, "f")
    assert (code, answer["origin_server_ts"]) == (200, at)
    assert pair.questions("timestamp_to_event") == before + 1
    # It is here now, to be looked at.
    wanted = quote(answer["event_id"], safe="")
    assert (await pair.ok("two", "GET", f"{V3}/{path}/event/{wanted}"))["content"]["body"] in "0123"
    code, answer = await found(at - 1_000_000, "f")
    assert (code, answer["origin_server_ts"] < at) == (200, True)
    pair.net.cut("one", "two")
    code, answer = await found(at - 2_000_000, "b")
    assert (code, answer["errcode"]) == (404, "M_NOT_FOUND")
    pair.net.mend()
    newest = await pair.ok("two", "GET", f"{V3}/{path}/messages?dir=b&limit=1")
    last = newest["chunk"][0]
    before = pair.questions("timestamp_to_event")
    code, answer = await found(2**52, "b")
    assert (code, answer["event_id"]) == (200, last["event_id"])
    assert pair.questions("timestamp_to_event") == before  # nothing is missing there
