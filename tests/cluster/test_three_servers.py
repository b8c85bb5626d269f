"""Three servers that federate: what one says reaches the others, whichever let them in, and whoever is away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.cluster.people import Person, play_on, until
from tests.support.cluster import Cluster, federated_clusters


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Cluster]]:
    with federated_clusters(3) as servers:
        yield servers


def test_three_servers_share_a_room(servers: list[Cluster]) -> None:
    """The third comes in by the second, while the first is out of reach."""

    async def play(anna: Person, bert: Person, cora: Person) -> None:
        room = await anna.create()
        await anna.say(room, "in the beginning")
        await bert.join(room, anna)
        await cora.join(await anna.create(), anna)  # whose keys nobody else can vouch for
        line = anna.cluster.line
        assert line is not None
        line.cut()
        try:
            await cora.join(room, bert)
            await cora.say(room, "only bert hears me now")
            await bert.heard(room, "only bert hears me now")
        finally:
            line.mend()
        await cora.say(room, "all hear me")
        for person in (anna, bert):
            await person.heard(room, "only bert hears me now", "all hear me")
        await anna.stands_at(room, "join", cora)
        # The history from before reaches the newcomer through whoever has it.
        await cora.heard(room, "in the beginning")
        states = [await person.state(room) for person in (anna, bert, cora)]
        assert states[0] == states[1] == states[2]

    play_on(servers, "anna bert cora", play)


def test_all_talk_at_once_while_processes_are_killed(servers: list[Cluster]) -> None:
    async def play(anna: Person, bert: Person, cora: Person) -> None:
        room = await anna.create()
        for person in (bert, cora):
            await person.join(room, anna)
        people = (anna, bert, cora)
        for person in people:
            for other in people:
                await person.stands_at(room, "join", other)

        async def talk(person: Person) -> None:
            for n in range(40):
                await person.say(room, f"{person.name} {n}")

        talking = asyncio.gather(*map(talk, people))
        for person, away in zip(people * 2, ("federation_sender", "federation_reader", "main") * 2, strict=True):
            await asyncio.to_thread(person.cluster.kill, away)
            await asyncio.to_thread(person.cluster.start, away)
        await talking
        expected = sorted(f"{person.name} {n}" for person in people for n in range(40))
        for person in people:

            async def all_there(person: Person = person) -> bool:
                return len(await person.bodies(room)) >= len(expected)

            await until(all_there, f"{person.user_id} has all messages")
            assert sorted(await person.bodies(room)) == expected

    play_on(servers, "anna bert cora", play)
