"""Servers that federate, each a cluster behind nginx, over TLS with certificates of an authority of the tests."""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import orjson
import pytest

from tests.clients.js import install
from tests.cluster import encryption
from tests.cluster.people import Person, Refused, play_on, until
from tests.support.cluster import Cluster, federated_clusters

_turns = count(1)
VERSIONS = ("1", "3", "6", "12")


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Cluster]]:
    with federated_clusters(2, options={"allow_public_rooms_over_federation": True}) as servers:
        yield servers


def test_other_servers_find_a_certificate_and_keys(servers: list[Cluster]) -> None:
    for server in servers:
        context = ssl.create_default_context(cafile=server.authority)
        with closing(
            urllib.request.urlopen(f"https://{server.server_name}/_matrix/key/v2/server", context=context)
        ) as a:
            keys = orjson.loads(a.read())
        assert keys["server_name"] == server.server_name
        assert keys["verify_keys"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_way_into_and_out_of_a_room(servers: list[Cluster], version: str) -> None:
    async def play(anna: Person, bert: Person) -> None:
        room = await anna.create(room_version=version)
        await bert.join(room, anna)
        await anna.stands_at(room, "join", bert)
        await asyncio.gather(anna.say(room, "from anna"), bert.say(room, "from bert"))
        for person in (anna, bert):
            await person.heard(room, "from anna", "from bert")

        await bert.act(room, "leave")
        await anna.stands_at(room, "leave", bert)
        await bert.join(room, anna)
        await anna.stands_at(room, "join", bert)
        await anna.act(room, "kick", bert)
        await bert.stands_at(room, None)
        await anna.act(room, "ban", bert)
        with pytest.raises(Refused) as refused:
            await bert.join(room, anna)
        assert refused.value.code == 403
        await anna.act(room, "unban", bert)
        await bert.join(room, anna)
        await anna.say(room, "welcome back")
        await bert.heard(room, "welcome back")

    play_on(servers, "anna bert", play)


@pytest.mark.parametrize("version", VERSIONS)
def test_invitations_are_taken_or_refused(servers: list[Cluster], version: str) -> None:
    async def play(anna: Person, bert: Person, cora: Person, dora: Person) -> None:
        room = await anna.create(room_version=version, preset="private_chat", invite=[bert.user_id])
        await bert.stands_at(room, "invite")
        await bert.join(room)
        await anna.stands_at(room, "join", bert)
        await bert.act(room, "invite", cora)  # back to the room's first server
        await cora.stands_at(room, "invite")
        await cora.act(room, "leave")
        await bert.stands_at(room, "leave", cora)
        await anna.act(room, "invite", dora)
        await dora.stands_at(room, "invite")
        await dora.act(room, "leave")
        await anna.stands_at(room, "leave", dora)

        apart = await anna.create(room_version=version, preset="private_chat")
        with pytest.raises(Refused):
            await dora.join(apart, anna)
        await anna.act(apart, "invite", dora)
        await dora.stands_at(apart, "invite")
        await anna.act(apart, "kick", dora)  # takes the invitation back
        await anna.stands_at(apart, "leave", dora)

    play_on(servers, "anna bert cora dora", play)


@pytest.mark.parametrize("version", ["7", "12"])
def test_knocks_are_heard(servers: list[Cluster], version: str) -> None:
    async def play(anna: Person, bert: Person) -> None:
        rule = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
        room = await anna.create(room_version=version, preset="private_chat", initial_state=[rule])
        await bert.knock(room, anna)
        await anna.stands_at(room, "knock", bert)
        await bert.stands_at(room, "knock")
        await anna.act(room, "invite", bert)
        await bert.stands_at(room, "invite")
        await bert.join(room, anna)
        await bert.say(room, "thank you")
        await anna.heard(room, "thank you")

    play_on(servers, "anna bert", play)


@pytest.mark.parametrize("version", ["8", "12"])
def test_members_of_a_space_may_enter(servers: list[Cluster], version: str) -> None:
    async def play(anna: Person, bert: Person) -> None:
        space = await anna.create(room_version=version, creation_content={"type": "m.space"})
        allow = [{"type": "m.room_membership", "room_id": space}]
        rule = {"join_rule": "restricted", "allow": allow}
        room = await anna.create(
            room_version=version,
            preset="private_chat",
            initial_state=[{"type": "m.room.join_rules", "state_key": "", "content": rule}],
        )
        with pytest.raises(Refused) as refused:
            await bert.join(room, anna)
        assert refused.value.code in (400, 403)
        await bert.join(space, anna)
        await bert.join(room, anna)
        await bert.say(room, "here I am")
        await anna.heard(room, "here I am")

    play_on(servers, "anna bert", play)


def test_a_room_is_found_by_its_alias(servers: list[Cluster]) -> None:
    async def play(anna: Person, bert: Person) -> None:
        name = f"{anna.name}s"
        room = await anna.create(room_alias_name=name, name="Anna's", visibility="public")
        assert await bert.join(f"#{name}:{anna.cluster.server_name}") == room
        listed = await bert.ask("GET", f"/publicRooms?server={anna.cluster.server_name}")
        assert room in {entry["room_id"] for entry in listed["chunk"]}
        profile = await bert.ask("GET", f"/profile/{anna.user_id}")
        assert profile.get("displayname") == anna.name

    play_on(servers, "anna bert", play)


def test_a_thousand_messages_over_lines_that_break(servers: list[Cluster]) -> None:
    """Each arrives once, on both servers, in whatever order the lines let them."""

    async def play(anna: Person, bert: Person) -> None:
        room = await anna.create()
        await bert.join(room, anna)
        await anna.stands_at(room, "join", bert)
        done = asyncio.Event()

        async def break_lines() -> None:
            while not done.is_set():
                await asyncio.sleep(0.3)
                for server in servers:
                    assert server.line is not None
                    server.line.break_connections()

        async def talk(person: Person) -> None:
            for n in range(0, 500, 10):
                await asyncio.gather(*(person.say(room, f"{person.name} {k}") for k in range(n, n + 10)))

        breaking = asyncio.create_task(break_lines())
        await asyncio.gather(talk(anna), talk(bert))
        done.set()
        await breaking
        expected = sorted(f"{person.name} {k}" for person in (anna, bert) for k in range(500))
        for person in (anna, bert):

            async def all_there(person: Person = person) -> bool:
                return len(await person.bodies(room)) >= 1_000

            await until(all_there, f"{person.user_id} has all messages")
            assert sorted(await person.bodies(room)) == expected

    play_on(servers, "anna bert", play)


def test_a_fork_is_resolved_alike(servers: list[Cluster]) -> None:
    """While neither server reaches the other, both sides change the room; afterwards they agree."""

    async def play(anna: Person, bert: Person, cora: Person, dora: Person) -> None:
        levels = {"users": {anna.user_id: 100, bert.user_id: 50}, "state_default": 50}
        room = await anna.create(power_level_content_override=levels, room_version="10")
        for person in (bert, cora, dora):
            await person.join(room, anna)
        await anna.stands_at(room, "join", dora)
        lines = [server.line for server in servers if server.line is not None]
        for line in lines:
            line.cut()
        try:
            await anna.set(room, "m.room.topic", {"topic": "anna's"})
            await bert.set(room, "m.room.topic", {"topic": "bert's"})
            await bert.set(room, "m.room.name", {"name": "bert's"})
            await anna.act(room, "ban", bert)  # which bert's server does not know when he goes on
            await bert.act(room, "kick", cora)
            await dora.say(room, "who is there?")
            await cora.say(room, "I am")
        finally:
            for line in lines:
                line.mend()
        await anna.say(room, "mended")
        await dora.say(room, "mended too")

        async def agree() -> bool:
            return await anna.state(room) == await dora.state(room)

        await until(agree, "both servers agree about the state")
        await dora.stands_at(room, "ban", bert)
        await anna.heard(room, "who is there?", "mended too")
        await dora.heard(room, "mended")

    play_on(servers, "anna bert cora dora", play)


async def _may_speak(speaker: Person, listener: Person, room: str) -> bool:
    text = f"again {next(_turns)}"
    await speaker.say(room, text)
    await asyncio.sleep(0.5)
    return text in await listener.bodies(room, 200)


def test_a_server_that_is_shut_out_is_not_heard(servers: list[Cluster]) -> None:
    async def play(anna: Person, bert: Person) -> None:
        room = await anna.create()
        await bert.join(room, anna)
        await bert.say(room, "while I may")
        await anna.heard(room, "while I may")
        shut_out = bert.cluster.server_name.partition(":")[0]
        await anna.set(room, "m.room.server_acl", {"allow": ["*"], "deny": [shut_out]})

        async def knows() -> bool:
            return ("m.room.server_acl", "") in await bert.state(room)

        await until(knows, "bert's server knows that it is shut out")
        await bert.say(room, "to nobody")
        apart = await anna.create()
        await bert.join(apart, anna)  # another room is another matter
        await bert.say(apart, "here I may")
        await anna.heard(apart, "here I may")
        assert "to nobody" not in await anna.bodies(room)
        await anna.set(room, "m.room.server_acl", {"allow": ["*"], "deny": []})
        await until(lambda: _may_speak(bert, anna, room), "bert is heard again")

    play_on(servers, "anna bert", play)


def test_encrypted_messages_between_servers(servers: list[Cluster], js_cache: Path) -> None:
    """Device lists, keys, verification and messages from device to device cross over, while processes are killed."""
    encryption.play(servers, install(js_cache))


def test_a_server_that_is_away_catches_up(servers: list[Cluster]) -> None:
    """While all processes of one server are down, others talk; it learns of it when it is back."""

    async def play(anna: Person, bert: Person) -> None:
        rooms = [await anna.create() for _ in range(3)]
        for room in rooms:
            await bert.join(room, anna)
            await anna.stands_at(room, "join", bert)
        await asyncio.to_thread(bert.cluster.stop)
        for n in range(30):
            await asyncio.gather(*(anna.say(room, f"missed {n}") for room in rooms))
        await asyncio.to_thread(bert.cluster.start)
        await bert.say(rooms[0], "back")  # whoever is heard from is there again
        await anna.heard(rooms[0], "back")
        for room in rooms:
            await anna.say(room, "now")
            await bert.heard(room, "now", *(f"missed {n}" for n in range(30)))

    play_on(servers, "anna bert", play)


def test_a_new_signing_key_is_believed_and_the_old_one_remembered(servers: list[Cluster]) -> None:
    async def play(anna: Person, bert: Person) -> None:
        room = await anna.create()
        await anna.say(room, "with the first key")
        await bert.join(room, anna)
        await asyncio.to_thread(anna.cluster.change_signing_key)
        await anna.say(room, "with the second key")
        await bert.heard(room, "with the first key", "with the second key")
        # Whoever comes new checks what was signed with either.
        apart = await anna.create()
        await bert.join(apart, anna)
        await anna.say(apart, "hello")
        await bert.heard(apart, "hello")

    play_on(servers, "anna bert", play)
