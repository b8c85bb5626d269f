"""Users of two or three servers act at random while lines break, answers are lost, servers are cut off from each other,
processes are killed, and one server is away for hours or for three days: in the end, all agree.

    SYNAPSE_RACES=50 ./tests/run tests/federation/test_outages.py          # the seeds 1 to 50, half a minute of each
    SYNAPSE_RACES=17-17 PYTHONHASHSEED=1 ./tests/run tests/federation/test_outages.py  # one, with sets in another order

Each server is a main process, a federation_reader and two federation_senders (`tests.support.simulated_federation`).
Afterwards every server in a room has all of its events, once, by itself or when somebody pages back; the states of all
are what the graph of all events gives, and the same. Nothing waits to be sent any more. Messages between devices have
come once each, in order; devices of others are known as their owners' servers have them, and receipts too.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson
import pytest
from twisted.internet.defer import Deferred, gatherResults

from synapse.api.identifiers import domain_of
from tests.support.agreement import StoredEvent, StoredRoom, ancestors_of, check_states, differing, graph_of, read_room
from tests.support.crowd import Acknowledged, Journal
from tests.support.deferreds import started
from tests.support.far_crowd import Traveller
from tests.support.postgres import PostgresServer
from tests.support.room_dag import Dag
from tests.support.rooms import check_memory
from tests.support.simulated_federation import SimulatedNetwork, SimulatedServer, simulated_federation
from tests.support.troubles import Troubles

_GIVEN = os.environ.get("SYNAPSE_RACES")
SEEDS = [2, 3, 10]
SECONDS = 12.0
if _GIVEN:
    _first, _dash, _last = _GIVEN.partition("-")
    SEEDS = list(range(int(_first), int(_last) + 1)) if _dash else list(range(1, int(_first) + 1))
    SECONDS = 30.0
HOUR = 3600.0
DAY = 24 * HOUR
VERSIONS = ("1", "6", "10", "12")
CLIENTS = 3  # of each server
# Of a server that was away for hours, one may not be asked for again for as long, but by clients.
_STALE = "remote_device_lists WHERE stale AND failures < 5"
_DAYS = 40 * DAY  # that a run may last


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", SEEDS)
def test_all_servers_agree_in_the_end(postgres: PostgresServer, seed: int) -> None:
    names = ("one", "two", "three")[: 2 + seed % 2]
    with simulated_federation(seed, postgres, names) as net:
        run = Run(net, seed)
        net.world.run(run.go(), _DAYS)
        for check in (run.check_rooms, run.check_messages, run.check_views, run.check_devices):
            net.world.run(check(), _DAYS)
        if _GIVEN:
            net.world.run(run.check_receipts(), _DAYS)
        assert not net.complaints.said, "\n".join(net.complaints.said)
        print(f"seed {seed}: {run.summary()}")
        assert run.journal.answers["200"] > SECONDS


class Run:
    """One run."""

    def __init__(self, net: SimulatedNetwork, seed: int) -> None:
        self.net = net
        self.world = net.world
        self._seed = seed
        self._rng = self.world.generator()
        self.journal = Journal()
        self.rooms: list[str] = []
        self._is_long, self._back_at = False, 0.0
        self.estranged: set[str] = set()  # servers that believe to be in a room where others do not know them
        self.stored: dict[str, dict[str, StoredRoom]] = {}  # in the end: by room and server that is in it
        self.members: list[Traveller] = []
        for server in net.servers.values():
            for _ in range(CLIENTS):
                self.members.append(Traveller(len(self.members), server, self.journal, self.rooms))
        for member in self.members:
            member.meet(self.members)
        self.troubles = Troubles(net, self.members, self.rooms, 2.0 if seed % 3 else 0.7)
        self.done = self.troubles.done

    def summary(self) -> str:
        return f"{dict(self.journal.answers)}, {dict(self.done)}, {len(self.net.sent)} transactions"

    async def go(self) -> None:
        for member in self.members:
            await member.server.add_user(member.user)
            await member.publish()
        for number in (self._seed, self._seed + 1 + self._seed // 4 % 3):
            await self._make_room(VERSIONS[number % len(VERSIONS)])
        await gatherResults([started(member.enter_all()) for member in self.members])
        await self._stir(SECONDS)
        await self._away(self._absence())
        await self._stir(SECONDS / 3)
        self.net.mend()
        await self.quiet()
        for _ in range(2):
            await self._chat()
            await self.quiet()

    def _absence(self) -> float:
        if not _GIVEN:
            return [0.0, HOUR][self._seed % 2]
        return 3 * DAY if self._seed % 12 == 11 else [0.0, HOUR, HOUR, 4 * HOUR][self._seed % 4]

    async def _make_room(self, version: str) -> None:
        first = self.members[0]
        users = {member.user_id: 50 for member in self.members[1::2]}
        if version != "12":
            users[first.user_id] = 100
        body = {
            "preset": "public_chat",
            "room_version": version,
            "power_level_content_override": {"users": users, "events": {"test.colour": 0}},
        }
        code, answer = await first.server.request(first.user, "POST", "/createRoom", body)
        assert code == 200, answer
        self.rooms.append(answer["room_id"])

    # -- what happens ----------------------------------------------------------------------------------------------

    async def _stir(self, seconds: float) -> None:
        end = self.world.seconds() + seconds
        doing: list[Deferred[None]] = [started(self.troubles.until(end))]
        for member in self.members:
            doing += [started(member.act_until(end)), started(member.follow_until(end))]
        await gatherResults(doing)

    async def _away(self, seconds: float) -> None:
        """A server is not there, while others go on."""
        server = self._rng.choice(list(self.net.servers.values()))
        if not seconds:
            return
        self.net.mend()
        for name in list(server.servers):
            server.kill(name)
        end = self.world.seconds() + seconds
        others = [member for member in self.members if member.server is not server]
        for member in others:
            member.thinking = seconds / 20
        await gatherResults([started(member.act_until(end)) for member in others])
        for member in others:
            member.thinking = 1.0
        await self.world.pause(end - self.world.seconds())
        await server.start()
        self._is_long, self._back_at = seconds > HOUR, self.world.seconds()
        self.done["away"] += 1

    async def _chat(self) -> None:
        """Somebody of each server says something in each room: what forked is joined again."""
        for room_id in self.rooms:
            for server in self.net.servers.values():
                room = await read_room(server.servers["main"].hs.database, room_id)
                ours = [each for each in self.members if each.server is server]
                here = [each for each in ours if room is not None and _membership(room, each.user_id) == "join"]
                for member in here[:1]:
                    await member._say(room_id)
            await self.world.pause(1.0)

    async def quiet(self) -> None:
        """Returns when nothing waits to be sent."""
        end = self.world.seconds() + 4 * HOUR
        while waiting := [line for each in self.net.servers.values() for line in await self._waiting(each)]:
            assert self.world.seconds() < end, f"it does not come to rest: {waiting}"
            await self.world.pause(10.0)
        await self.world.pause(60.0)  # for what is being fetched still
        for server in self.net.servers.values():
            await server.caught_up()

    async def _waiting(self, server: SimulatedServer) -> list[str]:
        hs = server.servers["main"].hs
        waiting = [f"{server.name}: {each}" for each in await hs.sending.queues.standing()]
        if server.holder is None:
            return [*waiting, f"{server.name}: nobody sends"]
        sending = server.servers[server.holder.process].hs.sending
        waiting += [f"{server.name}: {each}" for each in sending.dispatch.queues.values()]
        if sending.sending.take_over.position < hs.notifier.position("events"):
            waiting.append(f"{server.name}: takes over")

        def rows(txn: Any) -> list[str]:
            found = []
            for table in ("to_device_outbox", "device_lists_due", "unfinished_pdus", _STALE):
                txn.execute(f"SELECT * FROM {table}")
                found += [f"{server.name}: {table}: {row}" for row in txn.rows()]
            return found

        return waiting + await hs.database.read("tables", rows)

    # -- afterwards ------------------------------------------------------------------------------------------------

    async def check_rooms(self) -> None:
        """Whoever is in a room has it all, and all agree about it."""
        for room_id in self.rooms:
            for member in self.members:
                await self._page(member, room_id)  # which fetches what is missing
            await self._check_room(room_id)

    async def _check_room(self, room_id: str) -> None:
        stored: dict[str, StoredRoom] = {}
        for name, server in self.net.servers.items():
            room = await read_room(server.servers["main"].hs.database, room_id)
            if room is not None:
                stored[name] = room
        dag = graph_of(stored)
        within = {name: room for name, room in stored.items() if room.is_in and not _is_estranged(name, stored)}
        self.stored[room_id] = within
        # What their users say there, nobody else takes.
        estranged = {self.net[name].server_name for name, room in stored.items() if room.is_in and name not in within}
        self.estranged |= estranged
        self.done["estranged"] += len(estranged)
        heads = {name: room.extremities for name, room in within.items()}
        everything = ancestors_of(dag, {each for ends in heads.values() for each in ends})
        for name, room in stored.items():
            await check_states(self.net[name].servers["main"].hs.database, name, room, dag)
        for name, room in within.items():
            lacking = everything - room.events.keys()
            assert not lacking, f"{name} lacks {_described(dag, lacking)} of {room_id}; it misses {set(room.missing)}"
            assert not room.missing & dag.events.keys(), f"{name} still misses what there is"
            assert not room.pending & room.events.keys(), f"{name} has not redacted what was to be"
            await self._check_memories(self.net[name], room_id, room)
        for event_id, what in self.journal.events.items():
            if what.room_id == room_id and event_id not in everything and domain_of(what.sender) not in estranged:
                assert self._may_be_lost(event_id, what, within), f"{what} is lost: {_known_of(event_id, stored)}"
        assert len({frozenset(room.present.items()) for room in within.values()}) == 1, f"no agreement: {heads}"
        for member in self.members:
            name = member.server.name
            if name in within and _membership(within[name], member.user_id) == "join":
                await self._check_pages(member, room_id, within[name], everything)

    def _may_be_lost(self, event_id: str, what: Acknowledged, within: dict[str, StoredRoom]) -> bool:
        """Whether it is right that nothing in the room follows an event: those who are in the room took it only after
        they had put its server out, or were not to take it at all, and that server has not been in the room since, or
        has come back there by another join."""
        for name, room in within.items():
            if self.net[name].server_name == domain_of(what.sender):
                copy = room.events.get(event_id)
                if copy is None or copy.event.origin_server_ts > _since(room, name):
                    return False
        others = {name: room for name, room in within.items() if self.net[name].server_name != domain_of(what.sender)}
        kept_out = what.room_id in self.troubles.let_in_at
        copies = [room.events.get(event_id) for room in others.values()]
        return all(kept_out if copy is None else copy.soft_failed for copy in copies)

    async def _check_memories(self, server: SimulatedServer, room_id: str, room: StoredRoom) -> None:
        db = server.servers["main"].hs.database
        for process in ("main", "reader"):
            await check_memory(db, room_id, server.servers[process].hs.rooms.memory, server.server_name)
        joined = Counter(
            key[1].partition(":")[2]
            for key, event_id in room.present.items()
            if key[0] == "m.room.member" and room.events[event_id].event.membership == "join"
        )
        for process, each in server.servers.items():
            known = await each.hs.queries.hosts.joined(room_id)
            assert dict(known) == joined, f"{server.name}, {process}: {known}, not {joined}"

    async def _page(self, member: Traveller, room_id: str, direction: str = "b") -> list[str]:
        found: list[str] = []
        start = ""
        for _ in range(500):
            path = f"/rooms/{room_id}/messages?dir={direction}&limit=30{start}"
            code, answer = await member.server.request(member.user, "GET", path)
            assert code in (200, 403), answer
            if code == 403:
                return []
            found += [event["event_id"] for event in answer["chunk"]]
            if "end" not in answer:
                return found
            start = f"&from={answer['end']}"
        raise AssertionError("there is no end of pages")

    async def _check_pages(self, member: Traveller, room_id: str, room: StoredRoom, everything: set[str]) -> None:
        shown = {i for i in everything if not (room.events[i].rejected or room.events[i].soft_failed)}
        for direction in "bf":
            found = await self._page(member, room_id, direction)
            twice = [event_id for event_id, count in Counter(found).items() if count > 1]
            assert not twice, f"{member.user_id} is shown {twice} twice"
            lacking = shown - set(found)
            assert not lacking, f"{member.user_id} is not shown {[(i, room.events[i]) for i in lacking]} of {room_id}"

    async def check_messages(self) -> None:
        """Messages between devices have come once, in the order of their sender."""
        for member in self.members:
            while await member.sync():
                pass
        for sender in self.members:
            for addressee in self.members:
                assert addressee.received[sender.user_id] == sender.sent[addressee.user_id], (
                    sender.user_id,
                    addressee.user_id,
                )

    async def check_views(self) -> None:
        """Clients who have followed know whether they are in a room; and its state, if they are told it by itself."""
        for room_id, stored in self.stored.items():
            for member in self.members:
                room, view = stored.get(member.server.name), member.views.get(room_id)
                if room is None:
                    continue
                is_in = _membership(room, member.user_id) == "join"
                told = "leave" if view is None else view.membership
                assert (told == "join") == is_in, f"{member.user_id} believes {told} of {room_id}"
                if view is not None and is_in and member.state_after:
                    # That an entry has no event any more, there is no way to say to whom it was told before.
                    believed = {key: event_id for key, event_id in view.state.items() if key in room.present}
                    assert believed == room.present, (
                        f"{member.user_id} in {room_id}: {differing(believed, room.present)}"
                    )

    async def check_devices(self) -> None:
        """Who shares a room with somebody of another server sees their devices as they are."""
        query = {"device_keys": {each.user_id: [] for each in self.members}}
        own: dict[str, Any] = {}
        for member in self.members:
            code, answer = await member.server.request(member.user, "POST", "/keys/query", query)
            assert code == 200, answer
            own[member.user_id] = answer["device_keys"][member.user_id]
        for server in self.net.servers.values():
            if server.server_name in self.estranged:
                continue  # it believes to share rooms with users whose servers tell it nothing
            known = await server.servers["main"].hs.database.read("tables", _devices)
            for user_id, devices in known.items():
                wanted = {i: each.get("unsigned", {}).get("device_display_name") for i, each in own[user_id].items()}
                assert devices == wanted, f"{server.name} knows {devices} of {user_id}, not {wanted}"

    async def check_receipts(self) -> None:
        """Of users who have been in a room since they read there, all servers that had been in it as well, as far as
        both servers had heard, know how far they have read."""
        known = {
            name: await server.servers["main"].hs.database.read("tables", _receipts)
            for name, server in self.net.servers.items()
        }
        for room_id, stored in self.stored.items():
            for member in self.members:
                home = stored.get(member.server.name)
                own = known[member.server.name].get((room_id, member.user_id))
                if home is None or own is None or _membership(home, member.user_id) != "join":
                    continue
                entry = home.events[home.present["m.room.member", member.user_id]].event.origin_server_ts
                for name, room in stored.items():
                    theirs = known[name].get((room_id, member.user_id))
                    # What is older may be lost with who sends, when a server is away for longer than receipts wait.
                    is_recent = own.ts > self._back_at * 1000 or not self._is_long
                    entry = max(entry, self.troubles.let_in_at[room_id] * 1000)
                    heard = max(_heard(home, name), _heard(room, member.server.name), _since(room, name))
                    if is_recent and own.event_id in room.events and max(entry, heard) < own.ts:
                        assert theirs == own, f"{name} has {theirs} of {member.user_id}, not {own}, of {room_id}"


def _devices(txn: Any) -> dict[str, dict[str, str | None]]:
    txn.execute("SELECT user_id, device_id, display_name FROM remote_devices JOIN remote_device_lists USING (user_id)")
    found: dict[str, dict[str, str | None]] = defaultdict(dict)
    for user_id, device_id, name in txn.rows():
        found[user_id][device_id] = name
    return found


class _Receipt(NamedTuple):
    event_id: str
    ts: int


def _receipts(txn: Any) -> dict[tuple[str, str], _Receipt]:
    txn.execute("SELECT room_id, user_id, event_id, data FROM receipts WHERE receipt_type = 'm.read'")
    return {
        (room_id, user_id): _Receipt(event_id, orjson.loads(data)["ts"])
        for room_id, user_id, event_id, data in txn.rows()
    }


def _described(dag: Dag, event_ids: Iterable[str]) -> list[tuple[str, str, int]]:
    return [(event_id, dag.events[event_id].type, dag.events[event_id].depth) for event_id in event_ids]


def _known_of(event_id: str, stored: dict[str, StoredRoom]) -> dict[str, str]:
    """What servers have of an event that is not among the ancestors of the room's ends."""
    found = {}
    for name, room in stored.items():
        event = room.events.get(event_id)
        fate = "unknown" if event is None else "soft-failed" if event.soft_failed else "there"
        found[name] = (
            f"{fate}{', in the room' if room.is_in else ''}{', an end' if event_id in room.extremities else ''}"
        )
    return found


def _is_estranged(name: str, stored: dict[str, StoredRoom]) -> bool:
    """Whether a server believes to be in the room by a join that others do not accept: the server that let it in had
    not heard yet what has changed there meanwhile. Nobody tells it anything; its users have to enter once more. In
    rooms of version 1 it may also know that its users were put out, and resolve its own branch otherwise, of which the
    others do not take the later part."""
    room = stored[name]
    others = [other for each, other in stored.items() if each != name and other.is_in]
    domain = f":{name}.test"
    ours = [user_id for kind, user_id in room.present if kind == "m.room.member" and domain in user_id]
    joined = [user_id for user_id in ours if _membership(room, user_id) == "join"]
    if not all(_membership(other, user_id) != "join" for other in others for user_id in ours):
        return False
    if others and room.version.identifier == "1" and not any(room.extremities & other.extremities for other in others):
        return True
    entries = [room.present["m.room.member", user_id] for user_id in joined]
    return any(i in other.events and other.events[i].soft_failed for other in others for i in entries)


def _since(room: StoredRoom, name: str) -> float:
    """Since when (milliseconds) one of a server's users is in the room."""
    return min((each.event.origin_server_ts for each in _joins(room, name)), default=float("inf"))


def _heard(room: StoredRoom, name: str) -> float:
    """When the server whose room it is had heard that another one is there, which it tells of what passes since."""
    return min((each.received_ts for each in _joins(room, name)), default=0.0)


def _joins(room: StoredRoom, name: str) -> list[StoredEvent]:
    members = [room.events[i] for key, i in room.present.items() if key[0] == "m.room.member" and i in room.events]
    ours = [each for each in members if f":{name}.test" in (each.event.state_key or "")]
    return [each for each in ours if each.event.membership == "join"]


def _membership(room: StoredRoom, user_id: str) -> str | None:
    return room.memberships.get(user_id)
