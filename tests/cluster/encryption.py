"""End-to-end encryption as people use it: real clients with real cryptography, through nginx and the workers,
on one server or two.

Julia and Jonas use matrix-js-sdk with its Rust crypto; Nils and Nora use matrix-nio with vodozemac, which knows nothing
of cross-signing, and whose verification by emoji no other client understands. So they verify in pairs,
and all talk to each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nio import RoomMessageText, RoomSendResponse

from tests.clients.js import JsClient
from tests.clients.nio import NioClient
from tests.support.cluster import Cluster

PASSWORD = "a long password"
ENCRYPTED = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}


@dataclass
class Person:
    """A client on matrix-js-sdk, with who it is."""

    js: JsClient
    user_id: str
    device_id: str

    async def until_trust(self, other: Person, devices: set[str], **trust: bool | None) -> None:
        """Wait until this client thinks so of another's user and device, whose devices these are."""
        wanted = {"devices": sorted(devices), "user": True, "signedByOwner": True, "device": True, **trust}
        await self.js.until_so("trustIn", wanted, user=other.user_id, device=other.device_id)


class Cast:
    """Everybody, and the room in which they meet. Of several servers, Julia and Nils are on the first one and the
    others on the last; it is the first one's processes that are killed."""

    def __init__(self, clusters: Sequence[Cluster], script: Path) -> None:
        self.cluster = clusters[0]
        self._clusters = clusters
        self._script = script
        self._running: list[JsClient | NioClient] = []
        self.room = ""

    def _url(self, username: str) -> str:
        return (self.cluster if username in ("e2e-julia", "e2e-nils") else self._clusters[-1]).url

    async def js(self, username: str, command: str = "register") -> Person:
        client = await JsClient.spawn(self._script, self._url(username))
        self._running.append(client)
        account = await client.do(command, username=username, password=PASSWORD)
        await client.do("startCrypto")
        await client.do("start")
        return Person(client, account["user_id"], account["device_id"])

    async def nio(self, username: str) -> NioClient:
        client = NioClient(self._url(username), username, encrypts=True)
        self._running.append(client)
        await client.register(PASSWORD)
        client.start()
        return client

    async def stop(self) -> None:
        await asyncio.gather(*(client.stop() for client in self._running))


def play(clusters: Sequence[Cluster], script: Path) -> None:
    """The whole story; fails where it goes another way."""

    async def run() -> None:
        async with _cast(clusters, script) as cast:
            await _story(cast)

    asyncio.run(run())


@asynccontextmanager
async def _cast(clusters: Sequence[Cluster], script: Path) -> AsyncIterator[Cast]:
    cast = Cast(clusters, script)
    try:
        yield cast
    finally:
        await cast.stop()


# -- what they do ----------------------------------------------------------------------------------------------------


async def _set_up(person: Person) -> str:
    """Cross-signing keys, secret storage and a key backup; answers the recovery key."""
    made = await person.js.do("bootstrap", password=PASSWORD)
    assert made["backup"] == "1"
    await person.until_trust(person, {person.device_id})
    return str(made["recoveryKey"])


async def _compare(asking: Person, asked: Person, device: str | None) -> None:
    """Verify by emoji, device to device."""

    def seen(client: JsClient, kind: str, user: str) -> list[dict[str, Any]]:
        return [e for e in client.events if e["event"] == kind and e["user"] == user]

    before = {p.device_id: len(seen(p.js, "verified", o.user_id)) for p, o in ((asking, asked), (asked, asking))}
    await asking.js.do("requestVerification", user=asked.user_id, device=device)
    await asked.js.until(lambda _: seen(asked.js, "verification", asking.user_id), "the request to verify")
    await asked.js.do("acceptVerification", user=asking.user_id)
    await asking.js.do("startVerification", user=asked.user_id)
    for person, other in ((asking, asked), (asked, asking)):
        await person.js.until(lambda _, p=person, o=other: seen(p.js, "sas", o.user_id), "the emoji")
    emoji = [seen(p.js, "sas", o.user_id)[-1]["emoji"] for p, o in ((asking, asked), (asked, asking))]
    assert emoji[0] == emoji[1]
    assert len(emoji[0]) == 7
    await asyncio.gather(
        asking.js.do("confirmVerification", user=asked.user_id),
        asked.js.do("confirmVerification", user=asking.user_id),
    )
    for person, other in ((asking, asked), (asked, asking)):
        await person.js.until(
            lambda _, p=person, o=other: len(seen(p.js, "verified", o.user_id)) > before[p.device_id],
            "the end of the verification",
        )
        assert seen(person.js, "verified", other.user_id)[-1]["error"] is None


async def _compare_in_nio(asking: NioClient, asked: NioClient) -> None:
    names = (asked.nio.user_id, asked.nio.device_id), (asking.nio.user_id, asking.nio.device_id)
    await asking.until(lambda: names[0][1] in asking.nio.device_store[names[0][0]], "the other's device")
    await asked.until(lambda: names[1][1] in asked.nio.device_store[names[1][0]], "the other's device")
    first = await asking.begin_to_verify(*names[0])
    second = await asked.accept_verification(*names[1])
    await asking.until(lambda: first.established_sas or first.canceled, "the other's key")
    await asked.until(lambda: second.established_sas or second.canceled, "the other's key")
    assert first.get_emoji() == second.get_emoji()
    await asyncio.gather(asking.confirm(first), asked.confirm(second))
    assert asking.nio.device_store[names[0][0]][names[0][1]].verified
    assert asked.nio.device_store[names[1][0]][names[1][1]].verified


async def _meet(cast: Cast, host: Person, guest: Person, others: list[NioClient]) -> None:
    """An encrypted room with everybody in it."""
    created = await host.js.do("createRoom", preset="private_chat", initial_state=[ENCRYPTED])
    room = cast.room = str(created["room_id"])
    await host.js.do("invite", room=room, user=guest.user_id)
    await guest.js.until(lambda events: any(e["event"] == "invite" and e["room"] == room for e in events), "the invite")
    await guest.js.do("join", room=room)
    for nio in others:
        await host.js.do("invite", room=room, user=nio.nio.user_id)
        await nio.until(lambda n=nio: room in n.invites(), "the invitation")
        await nio.nio.join(room)
        await nio.until(lambda n=nio: room in n.nio.rooms and n.nio.rooms[room].encrypted, "the encrypted room")


async def _everybody_reads(cast: Cast, bodies: list[str], js: list[Person], nio: list[NioClient]) -> None:
    """Everybody sees these messages, encrypted on their way and legible now."""
    for person in js:
        await person.js.until(
            lambda _, p=person: {m["content"]["body"] for m in p.js.messages(cast.room)} >= set(bodies),
            f"the messages {bodies}",
        )
        assert all(m["encrypted"] for m in person.js.messages(cast.room))
    for client in nio:
        await client.until(
            lambda c=client: {m.source["content"]["body"] for m in c.messages(cast.room)} >= set(bodies),
            f"the messages {bodies}",
        )
        assert all(m.decrypted for m in client.messages(cast.room) if isinstance(m, RoomMessageText))


async def _say(cast: Cast, speaker: Person | NioClient, body: str) -> None:
    if isinstance(speaker, Person):
        await speaker.js.do("send", room=cast.room, body=body, txn=body)
        return
    content = {"msgtype": "m.text", "body": body}
    sent = await speaker.nio.room_send(cast.room, "m.room.message", content, ignore_unverified_devices=True)
    assert isinstance(sent, RoomSendResponse), sent


async def _insist(cast: Cast, speaker: Person, body: str, away: str) -> None:
    """Say something while a process is killed and started again: as a client does, with the same transaction."""
    first = asyncio.create_task(_say(cast, speaker, body))
    await asyncio.to_thread(cast.cluster.kill, away)
    await asyncio.to_thread(cast.cluster.start, away)
    try:
        await first
    except AssertionError:
        await _say(cast, speaker, body)


async def _newcomers_keys_are_claimed_while_processes_die(cast: Cast, host: Person, others: list[Person]) -> None:
    """Whoever comes new has to be given a key of the room, for which one of their one-time keys is claimed."""
    for away in ("frontend_proxy", "client_reader", "main"):
        newcomer = await cast.nio(f"e2e-{away}".replace("_", "-"))
        await host.js.do("invite", room=cast.room, user=newcomer.nio.user_id)
        await newcomer.until(lambda n=newcomer: cast.room in n.invites(), "the invitation")
        await newcomer.nio.join(cast.room)
        who = {"user": newcomer.nio.user_id, "device": newcomer.nio.device_id}
        known = {"devices": [newcomer.nio.device_id], "user": False, "signedByOwner": False, "device": False}
        await host.js.until_so("trustIn", known, **who)
        await _insist(cast, host, f"without {away}", away)
        await _everybody_reads(cast, [f"without {away}"], [host, *others], [newcomer])


async def _history_comes_back(cast: Cast, first: Person, other: Person, recovery_key: str, said: list[str]) -> set[str]:
    """On another device, the recovery key opens everything: the identity, which signs the device, and the past."""
    await first.js.until_so("backedUp", {"all": True})
    second = await cast.js("e2e-julia", "login")
    both = {first.device_id, second.device_id}
    await other.until_trust(second, both, signedByOwner=False, device=False)
    restored = await second.js.do("recover", recoveryKey=recovery_key)
    assert restored["ready"] is True
    assert restored["backup"] == "1"
    assert restored["imported"] == restored["total"] > 0
    await _everybody_reads(cast, said, [second], [])
    for whoever in (first, other, second):
        await whoever.until_trust(second, both)
    # Two devices of one user can compare emoji as well.
    await _compare(second, first, None)
    await _say(cast, second, "from the other device")
    await _everybody_reads(cast, ["from the other device"], [first, other], [])
    return both


async def _a_dehydrated_device_receives(cast: Cast, sleeper: Person, other: Person, recovery_key: str) -> Person:
    """What is said while nobody is logged in is read on a device that comes later (MSC3814)."""
    dehydrated = await sleeper.js.do("dehydrate")
    await other.until_trust(sleeper, {sleeper.device_id, dehydrated["device_id"]})
    await sleeper.js.stop()
    await other.js.do("rotate", room=cast.room)
    await _say(cast, other, "while nobody is there")
    awake = await cast.js(sleeper.user_id.removeprefix("@").partition(":")[0], "login")
    await awake.js.do("recover", recoveryKey=recovery_key)
    assert (await awake.js.do("rehydrate"))["keys"] > 0
    await _everybody_reads(cast, ["while nobody is there"], [awake], [])
    return awake


async def _identity_is_replaced(person: Person, other: Person, devices: set[str]) -> None:
    """Who proves who they are may have another identity, which others have yet to trust."""
    reset = await person.js.do("reset", password=PASSWORD)
    assert reset == {"stages": ["m.login.password"], "backup": "2"}
    await person.until_trust(person, devices)
    await other.until_trust(person, devices, user=False, device=False)


async def _story(cast: Cast) -> None:
    julia, jonas, nils, nora = await asyncio.gather(
        cast.js("e2e-julia"), cast.js("e2e-jonas"), cast.nio("e2e-nils"), cast.nio("e2e-nora")
    )
    recovery_key, jonas_key = await asyncio.gather(_set_up(julia), _set_up(jonas))
    await _meet(cast, julia, jonas, [nils, nora])

    # They verify each other, each by the way they know.
    for person, other in ((julia, jonas), (jonas, julia)):
        await person.until_trust(other, {other.device_id}, user=False, device=False)
    await _compare(julia, jonas, jonas.device_id)
    for person, other in ((julia, jonas), (jonas, julia)):
        await person.until_trust(other, {other.device_id})
    await _compare_in_nio(nora, nils)

    said = [f"{name} {turn}" for turn in range(2) for name in ("julia", "jonas", "nils", "nora")]
    speakers: dict[str, Person | NioClient] = {"julia": julia, "jonas": jonas, "nils": nils, "nora": nora}
    for body in said:
        await _say(cast, speakers[body.split()[0]], body)
    await _everybody_reads(cast, said, [julia, jonas], [nils, nora])

    await _newcomers_keys_are_claimed_while_processes_die(cast, julia, [jonas])
    devices = await _history_comes_back(cast, julia, jonas, recovery_key, said)
    jonas = await _a_dehydrated_device_receives(cast, jonas, julia, jonas_key)
    await _identity_is_replaced(julia, jonas, devices)
